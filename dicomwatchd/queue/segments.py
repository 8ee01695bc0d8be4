"""Finished segments of the audit chain: which there are, and which one is on its way to the archive.

The chain's entries are cut into segments that follow one another without a gap. One at a time is *under way*: written
down with its bounds before anything is sent, so that whoever goes on after a crash makes the same object. It is
*sealed* once it was read back from the archive, whole; only then its entries may go from here (`clear`), a few at a
time. What is sealed is no longer looked for here, whether its entries have gone yet or not.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dicomwatchd.ports import Clock
from dicomwatchd.queue.audit import FIRST, sealed_end
from dicomwatchd.queue.database.schema import Database

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Segment:
    """Entries ``first`` to ``last``. ``previous`` is the hash of the entry before, ``head`` that of the last one;
    ``sha256`` (of its text), ``size_bytes`` (of its object) and ``archive_id`` are there once it is sealed."""

    first: int
    last: int
    previous: str
    head: str
    archive_id: str
    attempt: int
    sha256: str | None
    size_bytes: int | None
    sealed_at: float | None


class Segments:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def under_way(self) -> Segment | None:
        with self._database.read() as db:
            row = db.execute("SELECT * FROM audit_segments ORDER BY first DESC LIMIT 1").fetchone()
        return None if row is None or row["sealed_at"] is not None else _segment(row)

    def begin(self, up_to: int, *, entries: int, seconds: float) -> Segment | None:
        """Cut off the next segment: ``entries`` of them, or fewer where the first is older than ``seconds``, none
        after ``up_to``. None while there is nothing to cut off, or one is under way."""
        with self._database.read() as db:
            if up_to <= sealed_end(db)[0]:
                return None
        with self._database.write() as db:
            newest = db.execute("SELECT * FROM audit_segments ORDER BY first DESC LIMIT 1").fetchone()
            if newest is not None and newest["sealed_at"] is None:
                return None
            end, previous = (newest["last"], newest["head"]) if newest else (0, FIRST)
            first = db.execute("SELECT entry FROM audit WHERE sequence = ?", (end + 1,)).fetchone()
            last = min(end + entries, up_to)
            if first is None or last <= end:
                return None
            if last < end + entries and not _written_before(first["entry"], self._clock.now() - seconds):
                return None
            head = db.execute("SELECT hash FROM audit WHERE sequence = ?", (last,)).fetchone()
            if head is None:
                return None
            row = db.execute(
                "INSERT INTO audit_segments (first, last, previous, head, archive_id) VALUES (?, ?, ?, ?, '')"
                " RETURNING *",
                (end + 1, last, previous, head["hash"]),
            ).fetchone()
            return _segment(row)

    def texts(self, segment: Segment) -> Iterator[str]:
        """The entries as they are here, in order, in pages."""
        after = segment.first - 1
        while after < segment.last:
            with self._database.read() as db:
                rows = db.execute(
                    "SELECT sequence, entry FROM audit WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?",
                    (after, segment.last, _PAGE),
                ).fetchall()
            if not rows:
                return
            yield from (row["entry"] for row in rows)
            after = rows[-1]["sequence"]

    def another_key(self, segment: Segment) -> None:
        """The segment's key was found to hold something else: it goes under the next one."""
        with self._database.write() as db:
            db.execute(
                "UPDATE audit_segments SET attempt = attempt + 1 WHERE first = ? AND attempt = ? AND sealed_at IS NULL",
                (segment.first, segment.attempt),
            )

    def sealed(self, segment: Segment, *, sha256: str, size_bytes: int, studies: Iterable[str]) -> None:
        """The archive was read, and holds the segment whole under this attempt's key; it speaks of these studies."""
        with self._database.write() as db:
            changed = db.execute(
                "UPDATE audit_segments SET sealed_at = ?, sha256 = ?, size_bytes = ?,"
                " archive_id = COALESCE((SELECT value FROM meta WHERE key = 'archive_id'), '')"
                " WHERE first = ? AND attempt = ? AND sealed_at IS NULL",
                (self._clock.now(), sha256, size_bytes, segment.first, segment.attempt),
            ).rowcount
            if changed:
                db.executemany(
                    "INSERT OR IGNORE INTO audit_studies (study_uid, first) VALUES (?, ?)",
                    [(study_uid, segment.first) for study_uid in sorted(studies)],
                )

    def clear(self, limit: int) -> int:
        """Delete up to ``limit`` of the oldest entries that are sealed, in one transaction; how many there were."""
        with self._database.read() as db:
            # Asked every few seconds, and mostly for nothing: no writing transaction for that.
            oldest = db.execute("SELECT MIN(sequence) AS sequence FROM audit").fetchone()["sequence"]
            if oldest is None or oldest > sealed_end(db)[0]:
                return 0
        with self._database.write() as db:
            return db.execute(
                "DELETE FROM audit WHERE sequence IN (SELECT sequence FROM audit WHERE sequence <= (SELECT last FROM"
                " audit_segments WHERE sealed_at IS NOT NULL ORDER BY last DESC LIMIT 1) ORDER BY sequence LIMIT ?)",
                (limit,),
            ).rowcount

    def all(self) -> Iterator[Segment]:
        """The sealed ones, in order, in pages."""
        after = 0
        while True:
            with self._database.read() as db:
                rows = db.execute(
                    "SELECT * FROM audit_segments WHERE first > ? AND sealed_at IS NOT NULL ORDER BY first LIMIT ?",
                    (after, _PAGE),
                ).fetchall()
            if not rows:
                return
            yield from map(_segment, rows)
            after = rows[-1]["first"]

    def of_study(self, study_uid: str) -> list[Segment]:
        """The sealed ones that speak of a study, in order."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT s.* FROM audit_studies a CROSS JOIN audit_segments s USING (first)"
                " WHERE a.study_uid = ? ORDER BY a.first",
                (study_uid,),
            ).fetchall()
        return [_segment(row) for row in rows]

    def misfit(self) -> int | None:
        """The first entry of the first segment that does not follow the one before it; None when all do."""
        end, head = 0, FIRST
        for segment in self.all():
            if segment.first != end + 1 or segment.last < segment.first or segment.previous != head:
                return end + 1
            end, head = segment.last, segment.head
        return None


def _written_before(entry: str, at: float) -> bool:
    try:
        return float(json.loads(entry)["at"]) <= at
    except (ValueError, KeyError, TypeError):
        return True  # no entry: whoever reads the segment says so


def _segment(row: sqlite3.Row) -> Segment:
    return Segment(
        row["first"],
        row["last"],
        row["previous"],
        row["head"],
        row["archive_id"],
        row["attempt"],
        row["sha256"],
        row["size_bytes"],
        row["sealed_at"],
    )
