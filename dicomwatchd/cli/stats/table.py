"""The figures as comma-separated values (RFC 4180): a header, then a line for each hour and inbox."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

_STAGES = ("upload", "verify", "record", "purge")
_TAKEN = ("median_seconds", "p95_seconds", "longest_seconds")
HEADER = (
    *("begins_at", "ends_at", "inbox", "shipments", "studies", "files", "bytes", "sent_bytes", "retries"),
    *(f"{stage}_seconds" for stage in _STAGES),
    *(f"to_archive_{name}" for name in _TAKEN),
)


def text(history: Mapping[str, Any]) -> str:
    """Lines end with CR LF. Times are UTC, ISO 8601; what is not known is empty. A cell that a spreadsheet would take
    for a formula cannot be: names begin with a letter or digit."""
    into = io.StringIO()
    writer = csv.writer(into, lineterminator="\r\n")
    writer.writerow(HEADER)
    for one in history["periods"]:
        took = one["to_archive"] or {}
        writer.writerow(
            [
                *(one[name] for name in HEADER[:9]),
                *(one["seconds"].get(stage, "") for stage in _STAGES),
                *(took.get(name, "") for name in _TAKEN),
            ]
        )
    return into.getvalue()
