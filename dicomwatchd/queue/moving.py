"""What is on its way, for somebody who watches it from second to second: which studies, at what stage, how far.

Everything is found by an index, and files are counted in one without their rows, so that a look costs a backlog of a
million files no more than a small one. Holds no patient attribute and no path.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from dicomwatchd.model import SHIPPING, FileState, StudyState
from dicomwatchd.ports import Clock, timestamp
from dicomwatchd.queue.database.schema import Database

#: The stages of a shipment in their order, then what waits.
_ORDER = (
    *(state for state in StudyState if state in SHIPPING),
    StudyState.ARRIVING,
    StudyState.QUEUED,
    StudyState.PARKED,
)
_HERE = (FileState.READY, FileState.STORED, FileState.DELETING)
#: One statement for all studies of a state: asked one by one they would take five times as long.
_STUDIES = (
    "SELECT s.study_uid, s.state, s.token, s.attempts, s.not_before, s.waits_since, s.code, s.reason, "
    + ", ".join(
        f"(SELECT COUNT(*) FROM files f WHERE f.study_uid = s.study_uid AND f.state = '{state}') AS {state}"
        for state in _HERE
    )
    + f", CASE s.state WHEN '{StudyState.VERIFYING}' THEN (SELECT COUNT(*) FROM files f WHERE f.study_uid ="
    f" s.study_uid AND f.state = '{FileState.STORED}' AND f.evidence IS NOT NULL AND f.evidence_token = s.token)"
    " END AS verified,"
    f" CASE s.state WHEN '{StudyState.ARRIVING}' THEN (SELECT MAX(quiet_at) FROM arrivals a WHERE a.study_uid ="
    " s.study_uid) END AS quiet_at,"
    " (SELECT name FROM sources WHERE source_id = (SELECT source_id FROM files f WHERE f.study_uid = s.study_uid"
    " LIMIT 1)) AS inbox"
    " FROM studies s WHERE s.state != 'archived' AND s.state = ? ORDER BY s.waits_since LIMIT ?"
)


class Moving:
    """One caller at a time."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        #: Bytes of a claimed study when it was first looked at, by its UID and its claim: what costs a row for each
        #: file is asked once a claim.
        self._sizes: dict[tuple[str, int], int] = {}

    def studies(self, limit: int) -> list[dict[str, Any]]:
        """At most ``limit`` studies in each state but archived, those that have waited longest first."""
        found: list[dict[str, Any]] = []
        sizes: dict[tuple[str, int], int] = {}
        for state in _ORDER:
            with self._database.read() as db:
                for row in db.execute(_STUDIES, (state, limit)).fetchall():
                    size_bytes = None
                    if state in SHIPPING:
                        claim = row["study_uid"], row["token"]
                        known = self._sizes.get(claim)
                        size_bytes = sizes[claim] = _size(db, row["study_uid"]) if known is None else known
                    found.append(_document(row) | {"bytes": size_bytes})
        self._sizes = sizes
        return found

    def last_archived(self, limit: int) -> list[dict[str, Any]]:
        """The newest shipments, the newest first."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT study_uid, source, started_at, finished_at, files, bytes FROM shipments"
                " ORDER BY finished_at DESC LIMIT ?",
                (limit,),
            ).fetchall()
        return [
            {
                "study_uid": row["study_uid"],
                "inbox": row["source"],
                "finished_at": timestamp(row["finished_at"]),
                "seconds": round(max(0.0, row["finished_at"] - row["started_at"]), 3),
                "files": row["files"],
                "bytes": row["bytes"],
            }
            for row in rows
        ]

    def files_taken_up(self) -> int:
        """How many files were ever taken up, new or changed: what grows with each that arrives."""
        with self._database.read() as db:
            row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'files'").fetchone()
        return 0 if row is None else int(row["seq"])


def _document(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "study_uid": row["study_uid"],
        "state": row["state"],
        "inbox": row["inbox"],
        "files": {str(state): row[state] for state in _HERE},
        "verified": row["verified"],
        "attempts": row["attempts"],
        "not_before": timestamp(row["not_before"]) if row["not_before"] else None,
        "quiet_at": None if row["quiet_at"] is None else timestamp(row["quiet_at"]),
        "waits_since": None if row["waits_since"] is None else timestamp(row["waits_since"]),
        "code": row["code"],
        "reason": row["reason"],
    }


def _size(db: sqlite3.Connection, study_uid: str) -> int:
    row = db.execute(
        "SELECT COALESCE(SUM(size_bytes), 0) FROM files WHERE study_uid = ? AND state IN (?, ?, ?)",
        (study_uid, *_HERE),
    ).fetchone()
    return int(row[0])
