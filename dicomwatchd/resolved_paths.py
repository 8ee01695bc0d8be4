"""Where paths lead, asked of the file systems from another process: one that does not answer holds nobody up.

A thread that waits for a hung share cannot be ended, and neither can its process. So the question is put by a child,
which is left to itself when its time is over.
"""

from __future__ import annotations

import base64
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: How long an answer is waited for.
ANSWER_SECONDS = 5.0

# The paths come on standard input: everybody on the machine may read a command line, and names of patients are in them.
_PROGRAM = """
import base64, os, sys, threading
def look(number, path):
    try:
        real = os.path.realpath(path)
    except (OSError, ValueError):
        real = path
    kind = 2 * os.path.isdir(path) + os.path.lexists(path)
    os.write(1, b"%d %d %s\\n" % (number, kind, base64.b64encode(real)))
paths = [base64.b64decode(line) for line in sys.stdin.buffer if line.endswith(b"\\n")]  # a part of one is another path
threads = [threading.Thread(target=look, args=each, daemon=True) for each in enumerate(paths)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@dataclass(frozen=True, slots=True)
class ResolvedPath:
    """``real`` is where the path leads, links followed; if there was no answer, what its text says. ``is_folder`` is
    None then. ``exists``: something is there, be it a link that leads nowhere."""

    real: Path
    is_folder: bool | None
    exists: bool = False

    @property
    def answers(self) -> bool:
        return self.is_folder is not None


def by_text(path: Path) -> Path:
    """The path as it stands, without asking any file system."""
    return Path(os.path.normpath(path))


def resolve(paths: Iterable[Path], seconds: float = ANSWER_SECONDS) -> dict[Path, ResolvedPath]:
    """Each path with what its file system says within so many seconds, all of them asked at once."""
    wanted = list(dict.fromkeys(paths))
    found = {path: ResolvedPath(by_text(path), None) for path in wanted}
    if not wanted:
        return found
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
    except OSError:
        return found
    assert child.stdin is not None and child.stdout is not None  # noqa: S101  as asked for
    with suppress(OSError), child.stdin as question:  # what did not reach the child has no answer
        question.writelines(base64.b64encode(os.fsencode(path)) + b"\n" for path in wanted)
    for line in _lines(child.stdout.fileno(), time.monotonic() + seconds):
        number, kind, real = line.split(b" ")
        there = Path(os.fsdecode(base64.b64decode(real)))
        found[wanted[int(number)]] = ResolvedPath(there, bool(int(kind) & 2), bool(int(kind) & 1))
    child.stdout.close()
    child.kill()
    with suppress(subprocess.TimeoutExpired):  # a child that waits for a dead file system cannot be ended even so
        child.wait(0.5)
    return found


def _lines(fd: int, until: float) -> Iterable[bytes]:
    """What comes down a pipe, line by line, until its end or that time (monotonic)."""
    rest = b""
    with selectors.DefaultSelector() as ready:
        ready.register(fd, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0 and ready.select(left):
            more = os.read(fd, 65536)
            if not more:
                return
            *whole, rest = (rest + more).split(b"\n")
            yield from whole
