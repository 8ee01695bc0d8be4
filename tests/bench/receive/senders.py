"""Who sends: several associations at once, each with its own folder of files."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.measure import RunFailed
from tests.dcmtk import dcmtk

#: What each receiver knows the modality by.
CALLING = "CT1"
_TIMEOUT_SECONDS = 300


def storescu(port: int, called: str, folders: Sequence[Path]) -> float:
    """DCMTK's, one for each folder. The seconds that all took together. Raises RunFailed."""
    begun = time.perf_counter()
    running = [
        subprocess.Popen(
            [dcmtk("storescu"), "-aet", CALLING, "-aec", called, "+sd", "127.0.0.1", str(port), str(folder)],
            stdout=subprocess.DEVNULL,
        )
        for folder in folders
    ]
    return _end(running, begun)


def whole_pdus(port: int, called: str, folders: Sequence[Path]) -> float:
    """Ours, see whole_pdus.py; without the time that its Python takes to start."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.bench.receive.whole_pdus", str(port), called, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for folder in folders
    ]
    for one in running:
        assert one.stdout is not None
        one.stdout.readline()
    begun = time.perf_counter()
    for one in running:
        assert one.stdin is not None
        one.stdin.close()
    return _end(running, begun)


def _end(running: Sequence[subprocess.Popen[bytes]], begun: float) -> float:
    try:
        codes = [one.wait(_TIMEOUT_SECONDS) for one in running]
    finally:
        for one in running:
            one.kill()
    if any(codes):
        raise RunFailed(f"senders ended with {codes}")
    return time.perf_counter() - begun


SENDERS: dict[str, Callable[[int, str, Sequence[Path]], float]] = {
    "DCMTK's storescu": storescu,
    "objects in one piece": whole_pdus,
}
