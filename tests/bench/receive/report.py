"""What was measured, as a Markdown table and as JSON."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.measure import Measured
from tests.bench.receive.receivers import DebiansOrthanc, Ours, OursToTheArchive
from tests.bench.receive.senders import SENDERS

#: Sender and receiver.
Key = tuple[str, str]
#: Of ours, as a share of Orthanc's wall time: what syncs as much must not be slower.
GOAL = 1.0


def ratios(runs: Mapping[Key, Sequence[Measured]], key: Key) -> tuple[float, float]:
    """Medians of ours divided by the receiver's, round by round: wall and CPU."""
    pairs = list(zip(runs[key[0], Ours.name], runs[key], strict=True))
    return (
        statistics.median(ours.wall_seconds / other.wall_seconds for ours, other in pairs),
        statistics.median(ours.cpu_seconds / other.cpu_seconds for ours, other in pairs),
    )


def markdown(runs: Mapping[Key, Sequence[Measured]], syncs: Mapping[str, str], files: int, size_bytes: int) -> str:
    lines = [
        "| sender | receiver | on the disk at Success | wall s (min - max) | images/s | CPU s | MB | ours / its: wall"
        " | CPU | goal |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    last = ""
    for key in sorted(runs, key=lambda key: list(SENDERS).index(key[0])):
        measured, (sender, receiver) = runs[key], key
        cpu = statistics.median(one.cpu_seconds for one in measured)
        peak_mb = statistics.median(one.peak_rss_bytes for one in measured) / 1e6
        walls = [one.wall_seconds for one in measured]
        wall = statistics.median(walls)
        shares = verdict = ""
        if receiver not in (Ours.name, OursToTheArchive.name):
            of_wall, of_cpu = ratios(runs, key)
            shares = f"{of_wall:.2f} | {of_cpu:.2f}"
            if receiver == DebiansOrthanc.name:
                verdict = f"<= {GOAL:.2f}: {'reached' if of_wall <= GOAL else 'NOT reached'}"
        lines.append(
            f"| {sender if sender != last else ''} | {receiver} | {syncs[receiver]}"
            f" | {wall:.2f} ({min(walls):.2f} - {max(walls):.2f}) | {files / wall:.0f}"
            f" | {cpu:.2f} | {peak_mb:.0f} | {shares or ' | '} | {verdict} |"
        )
        last = sender
    rounds = max(len(measured) for measured in runs.values())
    lines += [
        "",
        f"{files:,} CT slices, {size_bytes / 1e6:.0f} MB; medians of {rounds} rounds, the receivers taking turns, on"
        f" {os.cpu_count()} cores that the senders share, with Python {platform.python_version()}; ratios are medians"
        " of the rounds' own. CPU and memory are the receiver's, its children included.",
    ]
    return "\n".join(lines)


def document(runs: Mapping[Key, Sequence[Measured]], files: int, size_bytes: int) -> dict[str, Any]:
    return {
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "files": files,
        "bytes": size_bytes,
        "runs": [
            {
                "sender": sender,
                "receiver": receiver,
                "wall_seconds": [round(one.wall_seconds, 3) for one in measured],
                "cpu_seconds": [round(one.cpu_seconds, 3) for one in measured],
                "peak_rss_bytes": [one.peak_rss_bytes for one in measured],
            }
            for (sender, receiver), measured in runs.items()
        ],
    }
