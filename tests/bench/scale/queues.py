"""Claims and commits with a million files queued beside those with a thousand."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from tests.bench.scale.files import size_of
from tests.bench.scale.rows import Row
from tests.bench.scale.states import SIDE_BY_SIDE, Costs, State, filled

STEPS = ("arrivals", "claim", "stored", "verified", "purged")
SMALL = 1000
GOAL = 1.2


def measure(folder: Path, work: Path, large: int, rounds: int) -> list[Row]:
    """The two take turns; each step's ratio is the median of the rounds' ratios of CPU seconds a file."""
    states = {files: filled(folder, files, work / f"queue-{files}") for files in (SMALL, large)}
    case = f"{large:,} files queued, against {SMALL:,}"
    try:
        for state in states.values():
            state.cycle(Costs())  # warms up
        found: dict[int, list[Costs]] = {files: [] for files in states}
        for number in range(rounds):
            for files in sorted(states, reverse=bool(number % 2)):
                found[files].append(_round(states[files]))
            print(f"  round {number + 1}: {_ratio(found[SMALL][-1:], found[large][-1:], STEPS):.2f}", flush=True)
        rows = [_row(case, step, (step,), found, large) for step in STEPS]
        rows.append(_row(case, "claim and commits together", STEPS, found, large))
        rows.append(
            Row(case, "size of the state", size_of(work / f"queue-{large}" / "state.db") / 1e6, "MB"),
        )
        return rows
    finally:
        for state in states.values():
            state.close()


def _round(state: State) -> Costs:
    costs = Costs()
    for _ in range(2):
        state.cycle(costs)
    return costs


_FILES_A_ROUND = 2 * SIDE_BY_SIDE * 100


def _row(case: str, what: str, steps: tuple[str, ...], found: dict[int, list[Costs]], large: int) -> Row:
    def microseconds(files: int, kind: Callable[[Costs], dict[str, float]]) -> float:
        sums = [sum(kind(costs)[step] for step in steps) for costs in found[files]]
        return statistics.median(sums) / _FILES_A_ROUND * 1e6

    return Row(
        case,
        f"{what}: CPU of a file",
        _ratio(found[SMALL], found[large], steps),
        "times",
        GOAL,
        {
            "us CPU": microseconds(large, lambda costs: costs.cpu),
            "against": microseconds(SMALL, lambda costs: costs.cpu),
            "us wall": microseconds(large, lambda costs: costs.wall),
            "against ": microseconds(SMALL, lambda costs: costs.wall),
        },
    )


def _ratio(small: list[Costs], large: list[Costs], steps: tuple[str, ...]) -> float:
    return statistics.median(
        sum(many.cpu[step] for step in steps) / sum(few.cpu[step] for step in steps)
        for few, many in zip(small, large, strict=True)
    )
