"""What a run has measured (`document`), as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.clients import Ours

MAX_RSS_BYTES = 200e6
_FIGURES = {"wall": "wall", "cpu": "CPU", "requests": "ms CPU"}


def markdown(found: Mapping[str, Any]) -> str:
    """Every client of every case: medians, with the smallest and largest wall time; and under which circumstances."""
    jobs = [case for case in found["cases"] if case["measures"] == "job"]
    requests = [case for case in found["cases"] if case["measures"] == "requests"]
    lines: list[str] = []
    if jobs:
        lines += [
            "| case | client | wall s (min - max) | CPU s | RSS MB | ratio: wall | CPU | goal |",
            "|---|---|--:|--:|--:|--:|--:|---|",
            *(line for case in jobs for line in _of_a_job(case)),
            "",
        ]
    if requests:
        lines += [
            "| CPU of the store's requests for an object | by | ms (min - max) | requests | ratio | goal |",
            "|---|---|--:|--:|--:|---|",
            *(line for case in requests for line in _of_requests(case)),
            "",
        ]
    return "\n".join([*lines, _circumstances(found)])


def goals(found: Mapping[str, Any]) -> str:
    """Each goal and what was measured, a line each."""
    lines = ["| case | figure | measured | goal | |", "|---|---|--:|--:|---|"]
    for case in found["cases"]:
        for number, goal in enumerate(case["goals"]):
            measured, limit = f"{goal['measured']:.2f}", f"{goal['limit']:g}"
            if goal["peer"] is None:
                figure = "CPU for an object"
                measured, limit = f"{measured} ms", f"{limit} ms"
            else:
                figure = f"{_FIGURES[goal['figure']]} / {case['clients'][goal['peer']]['shown']}'s"
            title = case["title"] if number == 0 else ""
            lines.append(f"| {title} | {figure} | {measured} | {limit} | {_word(goal)} |")
    return "\n".join([*lines, "", _when(found)])


def _of_a_job(case: Mapping[str, Any]) -> list[str]:
    lines = []
    for number, (name, client) in enumerate(case["clients"].items()):
        walls, rss_bytes = client["wall_seconds"], statistics.median(client["peak_rss_bytes"])
        wall = cpu = ""
        if "ratios" in client:
            wall = f"{client['ratios']['wall']:.2f}{' (best)' if name == case['best_peer'] else ''}"
            cpu = f"{client['ratios']['cpu']:.2f}"
        words = _words(case, name)
        if name == Ours.name and rss_bytes > MAX_RSS_BYTES:
            words = [f"RSS <= {MAX_RSS_BYTES / 1e6:.0f} MB: NOT reached"]
        lines.append(
            f"| {case['title'] if number == 0 else ''} | {client['shown']} | {statistics.median(walls):.2f}"
            f" ({min(walls):.2f} - {max(walls):.2f}) | {statistics.median(client['cpu_seconds']):.2f}"
            f" | {rss_bytes / 1e6:.0f} | {wall} | {cpu} | {'; '.join(words)} |"
        )
    return lines + [f"| | {name} | left out: {why} | | | | | |" for name, why in case["failed"].items()]


def _of_requests(case: Mapping[str, Any]) -> list[str]:
    lines = []
    for number, (name, client) in enumerate(case["clients"].items()):
        took = client["request_cpu_ms"]
        calls = sum(one["calls"] for one in client["requests"].values())
        ratio = f"{client['ratios']['requests']:.2f}" if "ratios" in client else ""
        words = _words(case, name) + (_words(case, None) if name == Ours.name else [])
        lines.append(
            f"| {case['title'] if number == 0 else ''} | {client['shown']} | {statistics.median(took):.2f}"
            f" ({min(took):.2f} - {max(took):.2f}) | {calls / case['files']:.2f} | {ratio} | {'; '.join(words)} |"
        )
    return lines + [f"| | {name} | left out: {why} | | | |" for name, why in case["failed"].items()]


def _words(case: Mapping[str, Any], peer: str | None) -> list[str]:
    """A client's goals, with what has come of them."""
    return [
        f"{_FIGURES[goal['figure']]} <= {goal['limit']:g}: {_word(goal)}"
        for goal in case["goals"]
        if goal["peer"] == peer
    ]


def _word(goal: Mapping[str, Any]) -> str:
    return "reached" if goal["reached"] else "NOT reached"


def _when(found: Mapping[str, Any]) -> str:
    machine, rounds = found["machine"], found["rounds"]
    return (
        f"Measured on {found['date']} with Python {machine['python']}: medians of {rounds}"
        f" round{'' if rounds == 1 else 's'}, the clients taking turns, on {machine['cores']}; ratios are medians of"
        " the rounds' own."
    )


def _circumstances(found: Mapping[str, Any]) -> str:
    sentences = [
        _when(found),
        "Ratio: dicomwatchd's divided by the client's. CPU and memory are the client's, its children included.",
        f"Versions: {_listed(found['versions'], ' ', ', ')}.",
        f"What each knows before it deletes: {_listed(found['knows'], ': ', '; ')}.",
    ]
    return " ".join(sentences)


def _listed(named: Mapping[str, str], between: str, behind: str) -> str:
    pairs: Sequence[str] = [f"{name}{between}{what}" for name, what in named.items()]
    return behind.join(pairs)
