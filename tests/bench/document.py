"""What a run has measured, as plain data: what .test-report/ keeps, and what the tables are made of."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.cases import BESIDE, LEAST, Goal
from tests.bench.clients import FETCHING, Ours
from tests.bench.measure import Measured
from tests.bench.rounds import Result


def document(
    results: Sequence[Result],
    versions: Mapping[str, str],
    knows: Mapping[str, str],
    *,
    rounds: int,
    date: str,
    cores: str,
) -> dict[str, Any]:
    """``date`` of the run; ``cores`` in words, and who has them."""
    return {
        "date": date,
        "rounds": rounds,
        "machine": {"cores": cores, "system": platform.platform(), "python": platform.python_version()},
        "versions": dict(versions),
        "knows": dict(knows),
        "cases": [_case(result) for result in results],
    }


def write_json(path: Path, found: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")


def _case(result: Result) -> dict[str, Any]:
    return {
        "case": result.case.name,
        "title": result.case.title.format(files=result.data.files, size_gib=result.data.size_bytes / 2**30),
        "measures": result.case.measures,
        "files": result.data.files,
        "bytes": result.data.size_bytes,
        "clients": {name: _client(result, name, runs) for name, runs in result.runs.items()},
        "failed": {name: why.removeprefix(name).lstrip(": ") for name, why in result.failed.items()},
        "best_peer": _best_peer(result),
        "goals": [_judged(result, goal) for goal in result.case.goals if _took_part(result, goal)],
    }


def _client(result: Result, name: str, runs: Sequence[Measured]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "shown": FETCHING.get(name, name) if result.case.direction == "fetch" else name,
        "wall_seconds": [round(run.wall_seconds, 3) for run in runs],
        "cpu_seconds": [round(run.cpu_seconds, 3) for run in runs],
        "peak_rss_bytes": [run.peak_rss_bytes for run in runs],
    }
    if name != Ours.name and Ours.name in result.runs:
        figures = ("requests",) if result.case.measures == "requests" else ("wall", "cpu")
        found["ratios"] = {figure: round(_ratio(result, figure, name), 3) for figure in figures}
    if result.case.measures == "requests":
        found["request_cpu_ms"] = [round(_figure(result, run, "requests"), 4) for run in runs]
        found["requests"] = {
            operation: {"calls": calls, "cpu_ms": round(seconds * 1000, 2)}
            for operation, (calls, seconds) in sorted(runs[-1].requests.items())
        }
    return found


def _took_part(result: Result, goal: Goal) -> bool:
    return Ours.name in result.runs and (goal.peer is None or goal.peer in result.runs)


def _judged(result: Result, goal: Goal) -> dict[str, Any]:
    if goal.peer is None:
        measured = statistics.median(_figure(result, run, goal.figure) for run in result.runs[Ours.name])
    else:
        measured = _ratio(result, goal.figure, goal.peer)
    return {
        "figure": goal.figure,
        "peer": goal.peer,
        "limit": goal.limit,
        "measured": round(measured, 3),
        "reached": measured <= goal.limit,
    }


def _ratio(result: Result, figure: str, peer: str) -> float:
    """Ours divided by the peer's, round by round; the median."""
    pairs = zip(result.runs[Ours.name], result.runs[peer], strict=True)
    return statistics.median(_figure(result, one, figure) / _figure(result, other, figure) for one, other in pairs)


def _best_peer(result: Result) -> str | None:
    figure = "requests" if result.case.measures == "requests" else "wall"
    peers = {
        name: statistics.median(_figure(result, run, figure) for run in runs)
        for name, runs in result.runs.items()
        if name not in (Ours.name, LEAST) and not name.startswith(BESIDE)
    }
    return min(peers, key=lambda name: peers[name], default=None)


def _figure(result: Result, measured: Measured, figure: str) -> float:
    """In seconds; of requests in milliseconds of CPU for a file."""
    match figure:
        case "wall":
            return measured.wall_seconds
        case "cpu":
            return measured.cpu_seconds
        case "requests":
            return sum(seconds for _, seconds in measured.requests.values()) * 1000 / result.data.files
    raise AssertionError(figure)
