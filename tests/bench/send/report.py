"""What was measured, as a Markdown table and as JSON."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence

from tests.bench.measure import Measured

#: Receiver and sender.
Key = tuple[str, str]


def markdown(runs: Mapping[Key, Sequence[Measured]], does: Mapping[str, str], files: int, size_bytes: int) -> str:
    ours = next(iter(does))
    lines = [
        "| receiver | sender | which also | wall s (min - max) | images/s | CPU s | MB | ours / its: wall | CPU |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    last = ""
    for (receiver, sender), measured in sorted(runs.items(), key=lambda run: _place(run[0], runs, does)):
        walls = [one.wall_seconds for one in measured]
        wall, cpu = statistics.median(walls), statistics.median(one.cpu_seconds for one in measured)
        peak_mb = statistics.median(one.peak_rss_bytes for one in measured) / 1e6
        shares = " | "
        if sender != ours:
            pairs = list(zip(runs[receiver, ours], measured, strict=True))
            of_wall = statistics.median(one.wall_seconds / other.wall_seconds for one, other in pairs)
            of_cpu = statistics.median(one.cpu_seconds / other.cpu_seconds for one, other in pairs)
            shares = f"{of_wall:.2f} | {of_cpu:.2f}"
        lines.append(
            f"| {receiver if receiver != last else ''} | {sender} | {does[sender]}"
            f" | {wall:.2f} ({min(walls):.2f} - {max(walls):.2f}) | {files / wall:.0f} | {cpu:.2f} | {peak_mb:.0f}"
            f" | {shares} |"
        )
        last = receiver
    rounds = max(len(measured) for measured in runs.values())
    lines += [
        "",
        f"{files:,} CT slices, {size_bytes / 1e6:.0f} MB; medians of {rounds} rounds, the senders taking turns, on"
        f" {os.cpu_count()} cores that the receivers share, with Python {platform.python_version()}; ratios are medians"
        " of the rounds' own. CPU and memory are the sender's, from its start to its end.",
    ]
    return "\n".join(lines)


def _place(key: Key, runs: Mapping[Key, object], does: Mapping[str, str]) -> tuple[int, int]:
    receivers = list(dict.fromkeys(receiver for receiver, _ in runs))
    return receivers.index(key[0]), list(does).index(key[1])
