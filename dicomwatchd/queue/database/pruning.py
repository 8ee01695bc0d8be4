"""What the state does not keep for ever, and for how long it does: it grows with what is here, not with the years.

For 30 days everything is kept. After that, of a study that is archived and has no file here, there is one short row for
good: that it was archived, when, as which revision, with its patient id and flags. What its attributes were is in its
manifest, how its files were deleted in the audit chain. Shipments are added up by day and inbox, for `stats`. The steps
that studies have taken are dropped, but for the newest of a study that still waits, and for what tells that it was half
recorded.

One page at a time, each in a transaction as short as any other. Pages of the database that become free are used again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

from dicomwatchd.ports import Clock
from dicomwatchd.queue.database.schema import Database, Transaction

KEEP_SECONDS = 30 * 86400.0
#: Of a study that is not archived, so many steps are kept however old they are: what `show` tells.
KEEP_STEPS = 50
#: Between two looks for what has become old.
_ROUND_SECONDS = 3600.0
_DAY_SECONDS = 86400.0
_PAGE = 500


class Pruning:
    """One thread calls `step`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._next_round = clock.monotonic()
        self._kinds: list[Callable[[], bool]] = []
        self._last_step = 0
        self._last_study: tuple[float, str] = (0.0, "")

    def step(self) -> bool:
        """One page of what is old; whether there may be more at once."""
        if not self._kinds:
            if self._clock.monotonic() < self._next_round:
                return False
            self._next_round = self._clock.monotonic() + _ROUND_SECONDS
            self._last_step, self._last_study = 0, (0.0, "")
            self._kinds = [self._steps, self._shipments, self._studies, self._counts]
        if not self._kinds[0]():
            self._kinds.pop(0)
        return bool(self._kinds)

    def _steps(self) -> bool:
        """Steps of studies, oldest first. The newest of all stays: its number is above every token, see
        `arrivals`."""
        old = self._clock.now() - KEEP_SECONDS
        with self._database.write() as db:
            page = db.execute(
                "SELECT transition_id, at FROM transitions WHERE transition_id > ? ORDER BY transition_id LIMIT ?",
                (self._last_step, _PAGE),
            ).fetchall()
            if not page:
                return False
            db.execute(
                "DELETE FROM transitions WHERE transition_id > ? AND transition_id <= ? AND at < ?"
                " AND transition_id < (SELECT MAX(transition_id) FROM transitions) AND (NOT EXISTS (SELECT 1 FROM"
                " studies s WHERE s.study_uid = transitions.study_uid AND s.state != 'archived') OR (SELECT COUNT(*)"
                " FROM (SELECT 1 FROM transitions n WHERE n.study_uid = transitions.study_uid AND n.transition_id >"
                " transitions.transition_id LIMIT ?)) = ?"
                # Whether it was half recorded (see quiet) is told by the newest step of either kind.
                " AND (event NOT IN ('verified', 'recorded') OR EXISTS (SELECT 1 FROM transitions n WHERE"
                " n.study_uid = transitions.study_uid AND n.event = transitions.event AND n.transition_id >"
                " transitions.transition_id)))",
                (self._last_step, page[-1]["transition_id"], old, KEEP_STEPS, KEEP_STEPS),
            )
        self._last_step = page[-1]["transition_id"]
        return bool(page[-1]["at"] < old)

    def _shipments(self) -> bool:
        """Shipments of whole days (UTC) go into the day's sums."""
        before = (self._clock.now() - KEEP_SECONDS) // _DAY_SECONDS * _DAY_SECONDS
        with self._database.write() as db:
            page = db.execute(
                "SELECT date(finished_at, 'unixepoch') AS day, * FROM shipments WHERE finished_at < ?"
                " ORDER BY finished_at LIMIT ?",
                (before, _PAGE),
            ).fetchall()
            for row in page:
                db.execute("DELETE FROM shipments WHERE shipment_id = ?", (row["shipment_id"],))
                _add_to_day(db, row)
        return len(page) == _PAGE

    def _studies(self) -> bool:
        """Studies that were archived long ago and have no files here, oldest first."""
        with self._database.write() as db:
            page = db.execute(
                "SELECT study_uid, archived_at FROM studies WHERE state = 'archived' AND attributes != '{}'"
                " AND archived_at < ? AND (archived_at, study_uid) > (?, ?) ORDER BY archived_at, study_uid LIMIT ?",
                (self._clock.now() - KEEP_SECONDS, *self._last_study, _PAGE),
            ).fetchall()
            for row in page:
                if db.execute("SELECT 1 FROM files WHERE study_uid = ? LIMIT 1", (row["study_uid"],)).fetchone():
                    continue
                db.execute("UPDATE studies SET attributes = '{}' WHERE study_uid = ?", (row["study_uid"],))
                db.execute("DELETE FROM series WHERE study_uid = ?", (row["study_uid"],))
                db.execute("DELETE FROM identities WHERE study_uid = ?", (row["study_uid"],))
                db.execute("DELETE FROM listed WHERE study_uid = ?", (row["study_uid"],))
                db.execute("DELETE FROM listed_waits WHERE study_uid = ?", (row["study_uid"],))
        if page:
            self._last_study = (page[-1]["archived_at"], page[-1]["study_uid"])
        return len(page) == _PAGE

    def _counts(self) -> bool:
        """The counts of files, none any more, of sources that are gone: of uploads that have ended."""
        with self._database.write() as db:
            db.execute("DELETE FROM file_counts WHERE files = 0 AND source_id NOT IN (SELECT source_id FROM sources)")
        return False


def _add_to_day(db: Transaction, row: sqlite3.Row) -> None:
    """A study counts with the last of its shipments of the day."""
    again = db.execute(
        "SELECT 1 FROM shipments WHERE study_uid = ? AND source = ? AND date(finished_at, 'unixepoch') = ? LIMIT 1",
        (row["study_uid"], row["source"], row["day"]),
    ).fetchone()
    known = db.execute(
        "SELECT seconds FROM shipment_days WHERE day = ? AND source = ?", (row["day"], row["source"])
    ).fetchone()
    seconds: dict[str, Any] = json.loads(known["seconds"]) if known else {}
    for stage, figures in json.loads(row["stages"]).items():
        seconds[stage] = round(seconds.get(stage, 0.0) + figures["seconds"], 3)
    sent_bytes, sent_seconds = speed_of(row)
    db.execute(
        "INSERT INTO shipment_days (day, source, shipments, studies, files, bytes, retries, wall, seconds, sent_bytes,"
        " sent_seconds) VALUES (?, ?, 1, ?, ?, ?, ?, 0, ?, ?, ?) ON CONFLICT DO UPDATE SET shipments = shipments + 1,"
        " studies = studies + excluded.studies, files = files + excluded.files, bytes = bytes + excluded.bytes,"
        " retries = retries + excluded.retries, seconds = excluded.seconds,"
        " sent_bytes = sent_bytes + excluded.sent_bytes, sent_seconds = sent_seconds + excluded.sent_seconds",
        (
            row["day"],
            row["source"],
            0 if again else 1,
            row["files"],
            row["bytes"],
            row["retries"],
            json.dumps(seconds),
            sent_bytes,
            sent_seconds,
        ),
    )


def speed_of(shipment: sqlite3.Row) -> tuple[int, float]:
    """(bytes sent, seconds in all stages) of one that has sent anything; (0, 0.0) of one that says nothing of speed."""
    if not shipment["sent_bytes"]:
        return 0, 0.0
    return shipment["sent_bytes"], sum(figures["seconds"] for figures in json.loads(shipment["stages"]).values())
