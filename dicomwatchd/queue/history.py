"""What was archived, by hour and inbox; how long studies took from their first file to the archive; how large they
were.

By shipment, as long as these are kept (see pruning): 30 days. Of older days there is the day's sum, which is told as
one of 24 hours. Shipments are read a page at a time, so nobody waits for the state longer than for a page.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil
from typing import Any

from dicomwatchd.ports import Clock, timestamp
from dicomwatchd.queue.database.schema import Database

#: Upper bounds of how long a study took, and of how large a shipment was; there is one more without a bound.
TO_ARCHIVE_SECONDS = (60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0, 86400.0)
SIZE_BYTES = (1e5, 1e6, 1e7, 5e7, 1e8, 5e8, 1e9, 1e10)
_HOUR_SECONDS = 3600.0
_DAY_SECONDS = 86400.0
_PAGE = 2000


@dataclass(slots=True)
class _Sum:
    shipments: int = 0
    studies: set[str] = field(default_factory=set)
    files: int = 0
    bytes: int = 0
    sent_bytes: int = 0
    retries: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    took: array[float] = field(default_factory=lambda: array("d"))

    def add(self, row: sqlite3.Row) -> float | None:
        """The shipment's; how long its study took from its first file on, if it is known."""
        self.shipments += 1
        self.studies.add(row["study_uid"])
        self.files += row["files"]
        self.bytes += row["bytes"]
        self.sent_bytes += row["sent_bytes"] or 0
        self.retries += row["retries"]
        for stage, figures in json.loads(row["stages"]).items():
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + figures["seconds"], 3)
        if row["waited_since"] is None:
            return None
        took = max(0.0, row["finished_at"] - row["waited_since"])
        self.took.append(took)
        return float(took)

    def document(self) -> dict[str, Any]:
        return {
            "shipments": self.shipments,
            "studies": len(self.studies),
            "files": self.files,
            "bytes": self.bytes,
            "sent_bytes": self.sent_bytes,
            "retries": self.retries,
            "seconds": self.seconds,
            "to_archive": _spread(self.took, "seconds"),
        }


class History:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def of(self, days: int) -> dict[str, Any]:
        """The last ``days`` days until now, oldest first. A period ends after 3,600 seconds, and after 86,400 where
        only the day's sum is kept; the first one counts whole."""
        until = self._clock.now()
        # A round number of hours, so that no period is cut.
        since = max(0.0, (until - days * _DAY_SECONDS) // _HOUR_SECONDS * _HOUR_SECONDS)
        hours: dict[tuple[float, str], _Sum] = {}
        took, sizes = array("d"), array("d")
        for row in self._shipments(since):
            begins_at = row["finished_at"] // _HOUR_SECONDS * _HOUR_SECONDS
            seconds = hours.setdefault((begins_at, row["source"]), _Sum()).add(row)
            if seconds is not None:
                took.append(seconds)
            sizes.append(row["bytes"])
        periods = [
            *self._days(since),
            *(
                {**_period(begins_at, _HOUR_SECONDS, inbox), **hours[begins_at, inbox].document()}
                for begins_at, inbox in sorted(hours)
            ),
        ]
        return {
            "since": timestamp(since),
            "until": timestamp(until),
            "periods": sorted(periods, key=lambda one: (one["begins_at"], one["inbox"])),
            "to_archive": _distribution(took, TO_ARCHIVE_SECONDS, "seconds"),
            "sizes": _distribution(sizes, SIZE_BYTES, "bytes"),
        }

    def _shipments(self, since: float) -> Iterator[sqlite3.Row]:
        after = since, 0
        while True:
            with self._database.read() as db:
                page = db.execute(
                    "SELECT * FROM shipments WHERE finished_at >= ? AND (finished_at, shipment_id) > (?, ?)"
                    " ORDER BY finished_at, shipment_id LIMIT ?",
                    (after[0], *after, _PAGE),
                ).fetchall()
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1]["finished_at"], page[-1]["shipment_id"]

    def _days(self, since: float) -> Iterator[dict[str, Any]]:
        with self._database.read() as db:
            rows = db.execute(
                "SELECT * FROM shipment_days WHERE day >= date(?, 'unixepoch') ORDER BY day, source", (since,)
            ).fetchall()
        for row in rows:
            begins_at = datetime.fromisoformat(row["day"]).replace(tzinfo=UTC).timestamp()
            yield {
                **_period(begins_at, _DAY_SECONDS, row["source"]),
                "shipments": row["shipments"],
                "studies": row["studies"],
                "files": row["files"],
                "bytes": row["bytes"],
                "sent_bytes": row["sent_bytes"],
                "retries": row["retries"],
                "seconds": json.loads(row["seconds"]),
                "to_archive": None,
            }


def _period(begins_at: float, seconds: float, inbox: str) -> dict[str, Any]:
    return {"begins_at": timestamp(begins_at), "ends_at": timestamp(begins_at + seconds), "inbox": inbox}


def _spread(values: Sequence[float], unit: str) -> dict[str, Any] | None:
    """Of values that need not be in order; None of none. The 95th percentile is the value that so many do not exceed
    (nearest rank)."""
    if not values:
        return None
    ordered = sorted(values)
    return {
        "studies": len(ordered),
        f"median_{unit}": _rank(ordered, 0.5),
        f"p95_{unit}": _rank(ordered, 0.95),
        f"longest_{unit}": round(ordered[-1], 3),
    }


def _rank(ordered: Sequence[float], share: float) -> float:
    return round(ordered[max(0, ceil(share * len(ordered)) - 1)], 3)


def _distribution(values: Sequence[float], bounds: Sequence[float], unit: str) -> dict[str, Any]:
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    ordered = sorted(values)
    return {
        "shipments": len(ordered),
        f"median_{unit}": _rank(ordered, 0.5) if ordered else None,
        f"p95_{unit}": _rank(ordered, 0.95) if ordered else None,
        "buckets": [
            {f"at_most_{unit}": bound, "shipments": count} for bound, count in zip((*bounds, None), counts, strict=True)
        ],
    }
