"""What was measured, as a Markdown table, as JSON, and in README between its two markers."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.cases import Goal
from tests.bench.clients import FETCHING, Ours
from tests.bench.measure import Measured
from tests.bench.rounds import Result

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
MAX_RSS_BYTES = 200e6


def ratios(result: Result, figure: str, peer: str) -> list[float]:
    """Ours divided by the peer's, round by round."""
    ours, theirs = result.runs[Ours.name], result.runs[peer]
    return [_figure(one, figure) / _figure(other, figure) for one, other in zip(ours, theirs, strict=True)]


def judged(result: Result) -> list[tuple[Goal, float, bool]]:
    """Each goal whose peer took part, the median ratio, and whether it is reached."""
    if Ours.name not in result.runs:
        return []
    found = []
    for goal in result.case.goals:
        if goal.peer in result.runs:
            ratio = statistics.median(ratios(result, goal.figure, goal.peer))
            found.append((goal, ratio, ratio <= goal.limit))
    return found


def markdown(results: Sequence[Result], versions: Mapping[str, str], knows: Mapping[str, str]) -> str:
    """One table for all cases: medians, with the smallest and largest wall time."""
    lines = [
        "| case | client | wall s (min - max) | CPU s | RSS MB | dicomwatchd's wall / its | goals |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        best = best_peer(result)
        goals = judged(result)
        title = result.case.title.format(files=result.data.files, size_gib=result.data.size_bytes / 2**30)
        for number, (name, runs) in enumerate(result.runs.items()):
            walls = [run.wall_seconds for run in runs]
            ratio = ""
            if name != Ours.name and Ours.name in result.runs:
                ratio = f"{statistics.median(ratios(result, 'wall', name)):.2f}{' (best)' if name == best else ''}"
            words = "; ".join(
                f"{goal.figure} {ratio:.2f} (goal {goal.limit}) {'reached' if reached else 'NOT reached'}"
                for goal, ratio, reached in goals
                if goal.peer == name
            )
            if name == Ours.name:
                words = "" if _median(runs, "rss") <= MAX_RSS_BYTES else "RSS above 200 MB: NOT reached"
            shown = FETCHING.get(name, name) if result.case.direction == "fetch" else name
            lines.append(
                f"| {title if number == 0 else ''} | {shown} | {statistics.median(walls):.2f}"
                f" ({min(walls):.2f} - {max(walls):.2f}) | {_median(runs, 'cpu'):.2f}"
                f" | {_median(runs, 'rss') / 1e6:.0f} | {ratio} | {words} |"
            )
        lines += [
            f"| | {name} | left out: {why.removeprefix(name).lstrip(': ')} | | | | |"
            for name, why in result.failed.items()
        ]
    rounds = max((len(runs) for result in results for runs in result.runs.values()), default=0)
    lines += [
        "",
        f"Medians of {rounds} rounds, the clients taking turns, on {os.cpu_count()} cores that the store shares, with"
        f" Python {platform.python_version()};"
        " ratios are medians of the rounds' own. CPU and memory are the client's, its children included."
        f" Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}. What each knows before it"
        f" deletes: {'; '.join(f'{name}: {what}' for name, what in knows.items())}.",
    ]
    return "\n".join(lines)


def best_peer(result: Result) -> str | None:
    peers = [name for name in result.runs if name != Ours.name]
    return min(peers, key=lambda name: _median(result.runs[name], "wall"), default=None)


def document(results: Sequence[Result], versions: Mapping[str, str]) -> dict[str, Any]:
    return {
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "versions": dict(versions),
        "cases": [
            {
                "case": result.case.name,
                "files": result.data.files,
                "bytes": result.data.size_bytes,
                "clients": {
                    name: {
                        "wall_seconds": [round(run.wall_seconds, 3) for run in runs],
                        "cpu_seconds": [round(run.cpu_seconds, 3) for run in runs],
                        "peak_rss_bytes": [run.peak_rss_bytes for run in runs],
                    }
                    for name, runs in result.runs.items()
                },
                "failed": result.failed,
                "best_peer": best_peer(result),
                "goals": [
                    {
                        "figure": goal.figure,
                        "peer": goal.peer,
                        "limit": goal.limit,
                        "ratio": round(ratio, 3),
                        "reached": reached,
                    }
                    for goal, ratio, reached in judged(result)
                ],
            }
            for result in results
        ],
    }


def write_json(path: Path, found: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")


def write_readme(readme: Path, table: str) -> None:
    """Raises ValueError where the markers are not there, once each and in order."""
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme.name} has no {BEGIN} ... {END}")
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def _median(runs: Sequence[Measured], figure: str) -> float:
    return statistics.median(_figure(run, figure) for run in runs)


def _figure(measured: Measured, figure: str) -> float:
    match figure:
        case "wall":
            return measured.wall_seconds
        case "cpu":
            return measured.cpu_seconds
        case _:
            return measured.peak_rss_bytes
