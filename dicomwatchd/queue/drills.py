"""Restore drills: what has come of each, for 30 days, and which studies are to be tried again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dicomwatchd.model import Uid
from dicomwatchd.ports import Clock
from dicomwatchd.queue.database import meta
from dicomwatchd.queue.database.schema import Database

#: What the figures are of.
FIGURES_SECONDS = 30 * 86400.0
#: So long a drill stays on record; one that has failed until its study was compared again.
KEEP_SECONDS = 31 * 86400.0
_ROUND_SECONDS = 3600.0
_PAGE = 500
_LOT, _ARCHIVE = "drill-lot", "drill-archive"
#: Of a drill that is under way, or was when the daemon ended.
CUT_OFF = "cut-off"
#: Of these it is known what the archive gives back.
_COMPARED = "('equal', 'failed')"
#: The study was not compared since.
_OPEN = (
    "d.outcome = 'failed' AND NOT EXISTS (SELECT 1 FROM drills n WHERE n.study_uid = d.study_uid"
    f" AND n.drill_id > d.drill_id AND n.outcome IN {_COMPARED})"
)


class Outcome(StrEnum):
    """EQUAL and FAILED speak of the archive, all others of why it was not compared: objects in cold storage, more bytes
    than are left of a day's, no room for the copy, a store out of reach or whatever else was in the way here."""

    EQUAL = "equal"
    FAILED = "failed"
    COLD = "cold"
    TOO_LARGE = "too-large"
    NO_ROOM = "no-room"
    NOT_DONE = "not-done"


@dataclass(frozen=True, slots=True)
class Drilled:
    """What has come of one drill. ``study_uid`` is "" where none could be chosen, ``revision`` 0 where no manifest
    could be read. ``instances`` were compared, ``equal`` of them came back as they are recorded; ``size_bytes`` were
    fetched."""

    study_uid: str
    outcome: Outcome
    code: str = ""
    revision: int = 0
    instances: int = 0
    equal: int = 0
    size_bytes: int = 0
    seconds: float = 0.0

    @property
    def is_compared(self) -> bool:
        return self.outcome in (Outcome.EQUAL, Outcome.FAILED)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of the last 30 days: how many drills had which outcome, and what was compared; not of one that is under way, or
    was cut off with the daemon. ``last_at`` and
    ``last_compared_at``, in seconds since the epoch, are of the last drill of all, and of the last that compared
    anything; None where there was none."""

    studies: Mapping[Outcome, int]
    instances: int
    equal: int
    size_bytes: int
    last_at: float | None
    last_compared_at: float | None


@dataclass(frozen=True, slots=True)
class Failed:
    """A study whose last comparison has failed, at ``at`` (seconds since the epoch)."""

    study_uid: str
    at: float
    code: str
    instances: int
    equal: int


class Drills:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._next_round = clock.monotonic()

    def belong_to(self, archive_id: str) -> None:
        """What is known of another archive says nothing of this one. Raises Transient, Fatal."""
        with self._database.read() as reading:
            if meta.get(reading, _ARCHIVE) == archive_id:
                return
        with self._database.write() as db:
            db.execute("DELETE FROM drills")
            db.execute("DELETE FROM meta WHERE key = ?", (_LOT,))
            meta.put(db, _ARCHIVE, archive_id)

    def begin(self, study_uid: Uid, size_bytes: int) -> int:
        """A drill that is about to fetch so much: if nobody tells how it ended it was cut off, and all of that counts
        as fetched. Raises Transient, Fatal."""
        with self._database.write() as db:
            return int(
                db.execute(
                    "INSERT INTO drills (at, study_uid, revision, outcome, code, instances, equal, bytes, seconds)"
                    " VALUES (?, ?, 0, ?, ?, 0, 0, ?, 0) RETURNING drill_id",
                    (self._clock.now(), study_uid, Outcome.NOT_DONE.value, CUT_OFF, size_bytes),
                ).fetchone()["drill_id"]
            )

    def drop(self, drill_id: int) -> None:
        """It was none. Raises Transient, Fatal."""
        with self._database.write() as db:
            db.execute("DELETE FROM drills WHERE drill_id = ?", (drill_id,))

    def record(self, one: Drilled, begun: int | None = None) -> None:
        """How a drill has ended; ``begun``: what `begin` gave. Raises Transient, Fatal."""
        with self._database.write() as db:
            db.execute("DELETE FROM drills WHERE drill_id = ?", (begun,))
            db.execute(
                "INSERT INTO drills (at, study_uid, revision, outcome, code, instances, equal, bytes, seconds)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self._clock.now(),
                    one.study_uid,
                    one.revision,
                    one.outcome.value,
                    one.code,
                    one.instances,
                    one.equal,
                    one.size_bytes,
                    one.seconds,
                ),
            )

    def forget(self, study_uid: Uid) -> None:
        """It was erased on purpose: what has failed of it is no news any more."""
        with self._database.write() as db:
            db.execute("DELETE FROM drills WHERE study_uid = ? AND outcome = 'failed'", (study_uid,))

    def figures(self) -> Figures:
        since = self._clock.now() - FIGURES_SECONDS
        with self._database.read() as db:
            rows = db.execute(
                "SELECT outcome, SUM(code != :cut_off) AS studies, SUM(instances) AS instances, SUM(equal) AS equal,"
                " SUM(CASE WHEN code != :cut_off THEN bytes ELSE 0 END) AS bytes, MAX(at) AS last,"
                f" MAX(CASE WHEN outcome IN {_COMPARED} THEN at END) AS compared FROM drills"
                " WHERE at > :since GROUP BY outcome",
                {"since": since, "cut_off": CUT_OFF},
            ).fetchall()
        return Figures(
            {Outcome(row["outcome"]): row["studies"] for row in rows},
            sum(row["instances"] for row in rows),
            sum(row["equal"] for row in rows),
            sum(row["bytes"] for row in rows),
            max((row["last"] for row in rows), default=None),
            max((row["compared"] for row in rows if row["compared"] is not None), default=None),
        )

    def is_stalled(self, since: float) -> bool:
        """Whether there were drills before then (seconds since the epoch), and none since has compared anything: they
        could not, or there was none at all. Only where all since were of studies in cold storage nothing is amiss:
        these are left out on purpose."""
        with self._database.read() as db:
            row = db.execute(
                f"SELECT MIN(at) < :since AND SUM(at >= :since AND outcome IN {_COMPARED}) = 0"
                " AND (SUM(at >= :since) = 0 OR SUM(at >= :since AND outcome != 'cold') > 0) FROM drills",
                {"since": since},
            ).fetchone()
        return bool(row[0])

    def failed(self, limit: int) -> list[Failed]:
        """The studies whose last comparison has failed, the oldest first."""
        with self._database.read() as db:
            rows = db.execute(
                f"SELECT d.* FROM drills d WHERE {_OPEN} ORDER BY d.drill_id LIMIT ?", (limit,)
            ).fetchall()
        return [Failed(row["study_uid"], row["at"], row["code"], row["instances"], row["equal"]) for row in rows]

    def has_failed(self, study_uid: Uid) -> bool:
        """Whether it is one of those."""
        with self._database.read() as db:
            row = db.execute(
                f"SELECT 1 FROM drills d WHERE d.study_uid = ? AND {_OPEN} LIMIT 1", (study_uid,)
            ).fetchone()
        return row is not None

    def failed_count(self) -> int:
        with self._database.read() as db:
            return int(db.execute(f"SELECT COUNT(*) FROM drills d WHERE {_OPEN}").fetchone()[0])

    def due_again(self, before: float) -> Uid | None:
        """A study whose last comparison has failed, and that was not tried since ``before`` (seconds since the epoch);
        the one that has waited longest."""
        with self._database.read() as db:
            row = db.execute(
                f"SELECT d.study_uid, (SELECT MAX(t.at) FROM drills t WHERE t.study_uid = d.study_uid) AS tried"
                f" FROM drills d WHERE {_OPEN} AND tried < ? ORDER BY tried LIMIT 1",
                (before,),
            ).fetchone()
        return None if row is None else Uid(row["study_uid"])

    def fetched_bytes(self, since: float) -> int:
        """What was fetched since then (seconds since the epoch)."""
        with self._database.read() as db:
            row = db.execute("SELECT COALESCE(SUM(bytes), 0) FROM drills WHERE at > ?", (since,)).fetchone()
        return int(row[0])

    def lot(self) -> str:
        """What `keep_lot` has kept; "" where nothing was."""
        with self._database.read() as db:
            return meta.get(db, _LOT) or ""

    def keep_lot(self, said: str) -> None:
        """From which studies the next are chosen. Raises Transient, Fatal."""
        with self._database.write() as db:
            meta.put(db, _LOT, said)

    def step(self) -> bool:
        """One page of what is old; whether there may be more at once. What is of the future, by a clock that was set
        back since, is of now: it would count for today until then."""
        if self._clock.monotonic() < self._next_round:
            return False
        now = self._clock.now()
        with self._database.write() as db:
            db.execute("UPDATE drills SET at = ? WHERE at > ?", (now, now))
            gone = db.execute(
                "DELETE FROM drills WHERE drill_id IN (SELECT d.drill_id FROM drills d WHERE d.at < ?"
                f" AND NOT ({_OPEN}) LIMIT ?)",
                (now - KEEP_SECONDS, _PAGE),
            ).rowcount
        if gone < _PAGE:
            self._next_round = self._clock.monotonic() + _ROUND_SECONDS
        return gone == _PAGE
