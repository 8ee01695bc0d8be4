"""What the parts of the whole job take of the processor: the time of their threads within them.

python -m tests.bench.parts [--case NAME] [--rounds N]

Archives a case's files (see scripts/bench) at a real gateway by `dicomwatchd --once`, and says for each part how often
it was entered and its CPU seconds, without those of the parts within it. No part have the start after the imports,
the probe, the other threads and the clean-up.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from tests.bench.cases import CASES
from tests.bench.clients import Job, Ours
from tests.bench.data import Shelf
from tests.bench.rounds import run_case
from tests.bench.store import servers

ROOT = Path(__file__).parents[2]
_CHILD = "--within"


class Parts:
    """Of one process: by part, how often it was entered and its seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = threading.local()
        self.found: dict[str, tuple[int, float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        inner: list[float] = self._within.__dict__.setdefault("inner", [])
        begun = time.thread_time()
        inner.append(0.0)
        try:
            yield
        finally:
            took = time.thread_time() - begun
            own = took - inner.pop()
            if inner:
                inner[-1] += took
            with self._lock:
                times, seconds = self.found.get(name, (0, 0.0))
                self.found[name] = times + 1, seconds + own

    def watch(self, owner: Any, function: str, name: str) -> None:
        original = getattr(owner, function)

        @wraps(original)
        def watched(*given: Any, **named: Any) -> Any:
            with self.part(name):
                return original(*given, **named)

        setattr(owner, function, watched)


class Watched(Ours):
    """The daemon with its parts watched, which `finish` prints."""

    def move(self, job: Job) -> tuple[Sequence[str], Mapping[str, str]]:
        command = [sys.executable, "-m", "tests.bench.parts", _CHILD, str(job.scratch / "parts.json")]
        env = {**self._environment(job), "PYTHONPATH": str(ROOT)}
        return [*command, "--config", str(self._config(job)), "--once"], env

    def finish(self, job: Job) -> None:
        found = json.loads((job.scratch / "parts.json").read_text())
        for name, (times, seconds) in sorted(found.items(), key=lambda one: -one[1][1]):
            print(f"    {seconds:6.2f} s  {times:6}  {name}")
        super().finish(job)


def within(file: Path, arguments: list[str]) -> int:
    """Run `dicomwatchd ARGUMENT...` in this process; ``file`` gets the parts, as JSON."""
    begun = time.process_time()
    from dicomwatchd.daemon import process
    from dicomwatchd.intake import comparison
    from dicomwatchd.intake.inbox import InboxIntake
    from dicomwatchd.pipeline import dispatch, stages
    from dicomwatchd.pipeline.deletion import batch, proof
    from dicomwatchd.pipeline.sending import bundling, early, loop
    from dicomwatchd.queue import arrivals, deletions

    imports = time.process_time() - begun
    parts = Parts()
    for owner, function, name in (
        (InboxIntake, "step", "intake: the rest"),
        (comparison, "take", "intake: open, lease, header"),
        (arrivals.Arrivals, "add", "intake: into the queue"),
        (early.EarlySender, "round", "sending: the shipment's side, while the study arrives"),
        (stages, "upload", "sending: the shipment's side"),
        (bundling, "send_bundle", "sending: read, SHA-256, PUT (bundles)"),
        (loop, "send_each", "sending: read, SHA-256, PUT (one by one)"),
        (stages, "verify", "verification"),
        (stages, "record", "record: manifest, catalogue"),
        (stages, "purge", "deletion: the shipment's side"),
        (deletions.Deletions, "authorise", "deletion: on record before"),
        (deletions.Deletions, "purged", "deletion: on record afterwards"),
        (batch.DeletionBatch, "delete", "deletion: stage, compare, unlink"),
        (proof, "sha256_of", "deletion: read, SHA-256"),
        (dispatch, "ship", "shipment: the rest"),
    ):
        parts.watch(owner, function, name)
    status = process.main(arguments)
    rest = time.process_time() - begun - imports - sum(seconds for _, seconds in parts.found.values())
    file.write_text(json.dumps(parts.found | {"start: imports": (1, imports), "no part": (1, rest)}))
    return status


def main() -> int:
    if sys.argv[1:2] == [_CHILD]:
        return within(Path(sys.argv[2]), sys.argv[3:])
    parser = ArgumentParser(prog="python -m tests.bench.parts")
    plain = [case.name for case in CASES if case.link == "http" and case.direction == "move" and not case.running]
    parser.add_argument("--case", choices=plain, default="mr-bundled")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    case = next(case for case in CASES if case.name == options.case)
    cache = ROOT / ".bench"
    cache.mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="run-", dir=cache))
    at_work = Path(tempfile.mkdtemp(prefix="dicomwatchd-bench."))
    try:
        os.environ.pop("PYTHONPATH", None)
        with servers(at_work, None) as running:
            run_case(
                case, case.data(Shelf(cache / "data")), [Watched(running)], options.rounds, running, running.http, work
            )
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(at_work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
