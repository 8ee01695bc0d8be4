"""Looks at an inbox of many files, beside find."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from dicomwatchd.intake.inbox import InboxIntake, IntakeSettings
from dicomwatchd.model import FileIdentity
from dicomwatchd.ports import SystemClock
from tests.bench import measure as programs
from tests.bench.scale.files import inbox_of
from tests.bench.scale.rows import Row
from tests.bench.scale.states import FILES_A_STUDY, Costs, State, arrival

GOAL = 3.0
FOREVER_SECONDS = 1e7


@dataclass(frozen=True, slots=True)
class Cost:
    cpu: float
    wall: float


class Silent:
    def debug(self, event: str, message: str, **fields: object) -> None: ...
    def info(self, event: str, message: str, **fields: object) -> None: ...
    def warning(self, event: str, message: str, **fields: object) -> None: ...
    def error(self, event: str, message: str, **fields: object) -> None: ...


def measure(folder: Path, work: Path, files: int, rounds: int) -> list[Row]:
    """find and our looks take turns. Each figure is the median of the rounds' ratios of CPU seconds."""
    inbox = inbox_of(folder, files // FILES_A_STUDY, FILES_A_STUDY)
    case = f"an inbox of {files:,} files"
    known = State(work / "known-files", inbox)
    finds: list[Cost] = []
    seconds: list[Cost] = []
    firsts: list[Cost] = []
    try:
        know(known, inbox)
        intake = _intake(known)
        intake.step()  # the look after a start; those that follow are what the timer brings
        for number in range(rounds):
            finds.append(_find(inbox, work / "find.log"))
            intake.scan_soon()
            seconds.append(_cost(intake.step))
            firsts.append(_first_look(inbox, work / f"first-{number}"))
            ratios = seconds[-1].cpu / finds[-1].cpu, firsts[-1].cpu / finds[-1].cpu
            print(f"  round {number + 1}: known {ratios[0]:.2f}, first {ratios[1]:.2f}", flush=True)
    finally:
        known.close()
    return [
        _row(case, "a scan, every file known: CPU", seconds, finds, GOAL),
        _row(case, "a first scan, every file still settling: CPU", firsts, finds, GOAL),
        _taking_up(case, inbox_of(folder, 100, FILES_A_STUDY), work / "taken"),
    ]


def know(state: State, inbox: Path, quiet_seconds: float = FOREVER_SECONDS) -> None:
    """Make every file of ``inbox`` known to ``state``, as if it had been taken up; and, quiet at once, queued."""
    arrivals, quiet, source_id = state.queue.arrivals, state.queue.quiet, state.source.source_id
    for study, (parent, _, names) in enumerate(sorted(os.walk(os.fsencode(inbox)))):
        relative = os.path.relpath(parent, os.fsencode(inbox))
        batch = [
            arrival(study, number, relative, FileIdentity.of(os.lstat(os.path.join(parent, name))), name)
            for number, name in enumerate(names)
        ]
        if batch:
            arrivals.add(source_id, batch, quiet_seconds)
    quiet.confirm_quiet(source_id, list(quiet.nearly_quiet(source_id)), time.time())


def _first_look(inbox: Path, directory: Path) -> Cost:
    """By an intake that knows nothing, and does not believe a ctime: it looks at each file and waits."""
    state = State(directory, inbox)
    try:
        return _cost(_intake(state, trust_ctime=False).step)
    finally:
        state.close()


def _taking_up(case: str, inbox: Path, directory: Path) -> Row:
    state = State(directory, inbox)
    try:
        cost = _cost(_intake(state, settle_seconds=0).step)
        files = state.queue.reports.status()["files"]["ready"]
    finally:
        state.close()
    return Row(
        case,
        "taking a file up, header and queue: CPU",
        cost.cpu / files * 1e3,
        "ms",
        details={"files": files, "s CPU": cost.cpu, "s wall": cost.wall},
    )


def _intake(state: State, *, settle_seconds: float = 2.0, trust_ctime: bool = True) -> InboxIntake:
    settings = IntakeSettings(settle_seconds, FOREVER_SECONDS, FOREVER_SECONDS, trust_ctime=trust_ctime)
    return InboxIntake(
        state.source,
        settings,
        state.queue.arrivals,
        state.queue.quiet,
        SystemClock(),
        Random(1),
        Silent(),
        on_news=lambda: None,
    )


def _find(inbox: Path, log: Path) -> Cost:
    """Its output goes into a file, as its user's would."""
    command = ["find", str(inbox), "-printf", "%p %s %T@ %C@ %i\n"]
    measured = programs.run(command, env=os.environ, log=log)
    log.unlink()
    return Cost(measured.cpu_seconds, measured.wall_seconds)


def _cost(work: Callable[[], object]) -> Cost:
    costs = Costs()
    with costs.of("all"):
        work()
    return Cost(costs.cpu["all"], costs.wall["all"])


def _row(case: str, what: str, ours: list[Cost], finds: list[Cost], goal: float) -> Row:
    def ratio(kind: Callable[[Cost], float]) -> float:
        return statistics.median(kind(one) / kind(find) for one, find in zip(ours, finds, strict=True))

    def median(costs: list[Cost], kind: Callable[[Cost], float]) -> float:
        return statistics.median(map(kind, costs))

    def cpu(cost: Cost) -> float:
        return cost.cpu

    def wall(cost: Cost) -> float:
        return cost.wall

    return Row(
        case,
        what,
        ratio(cpu),
        "times find's",
        goal,
        {
            "wall, times find's": ratio(wall),
            "s CPU": median(ours, cpu),
            "s wall": median(ours, wall),
            "find's s CPU": median(finds, cpu),
            "find's s wall": median(finds, wall),
        },
    )
