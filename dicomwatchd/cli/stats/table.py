"""The figures as comma-separated values (RFC 4180): a header, then a line for each hour and inbox."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from dicomwatchd.cli.terminal import output

_STAGES = ("upload", "verify", "record", "purge")
_TAKEN = ("median_seconds", "p95_seconds", "longest_seconds")
HEADER = (
    *("begins_at", "ends_at", "inbox", "shipments", "studies", "files", "bytes", "sent_bytes", "retries"),
    *(f"{stage}_seconds" for stage in _STAGES),
    *(f"to_archive_{name}" for name in _TAKEN),
)


def text(history: Mapping[str, Any]) -> str:
    """Lines end with CR LF. Times are UTC, ISO 8601; what is not known is empty. No cell is one that a spreadsheet
    would take for a formula: names begin with a letter or digit, or with an apostrophe where another's daemon says
    otherwise."""
    into = io.StringIO()
    writer = csv.writer(into, lineterminator="\r\n")
    writer.writerow(HEADER)
    for one in history["periods"]:
        took = one["to_archive"] or {}
        writer.writerow(
            [
                *(_cell(one[name]) for name in HEADER[:9]),
                *(_cell(one["seconds"].get(stage, "")) for stage in _STAGES),
                *(_cell(took.get(name, "")) for name in _TAKEN),
            ]
        )
    return into.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = output.clean(value)
    return f"'{text}" if text.lstrip()[:1] in tuple("=+-@") else text
