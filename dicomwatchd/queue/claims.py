"""Whose turn it is: claims on studies, how they end, and when the next study may be tried.

A claim is the right to work on a study, and its token what every commit of a shipment names (see `shipments`). A study
that could not be shipped goes back into its line, or is parked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from enum import StrEnum

from dicomwatchd.model import SHIPPING, FileState, StudyEvent, StudyState, Uid
from dicomwatchd.ports import Clock
from dicomwatchd.queue.database.schema import Database
from dicomwatchd.queue.parked import LONGEST_WAIT_SECONDS, NO_PROOF, pause_seconds
from dicomwatchd.queue.rows import DAMAGED, NO_LEASE, Claim
from dicomwatchd.queue.transitions import move, state_of, write_under

#: A study that has failed so often while others passed waits in a line of its own.
BLAMED_OFTEN = 2


class First(StrEnum):
    """Who comes first of those whose turn it may be."""

    UNTRIED = "untried"
    NEWEST = "newest"  # of those that nobody has tried, the one that went quiet last
    TRIED = "tried"


_WAITING = "state = 'queued' AND claimed = 0"
#: Named as text, as the indexes name them: of the others, and of the studies that are known to be failing.
_LINES = (f"blamed < {BLAMED_OFTEN}", f"blamed >= {BLAMED_OFTEN}")
_IN_TURN = "ORDER BY turn, queued_at"
_ORDERS = {
    First.UNTRIED: (_IN_TURN,),
    First.NEWEST: ("AND turn = 0 ORDER BY queued_at DESC", _IN_TURN),
    First.TRIED: (f"AND turn > 0 {_IN_TURN}", _IN_TURN),
}


class Claims:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        #: The sources that do not answer: a study with files to be read or deleted there is not claimed. Set by whoever
        #: knows of them.
        self.not_responding: Callable[[], Collection[int]] = tuple

    def recover(self) -> None:
        """At start: no claim of an earlier run holds."""
        with self._database.write() as db:
            rows = db.execute(
                f"SELECT study_uid FROM studies WHERE state != 'archived' AND state IN ({_marks(SHIPPING)})",
                tuple(SHIPPING),
            ).fetchall()
            for row in rows:
                move(db, row["study_uid"], StudyEvent.RELEASED, self._clock.now())
            db.execute("UPDATE studies SET claimed = 0, token = token + 1 WHERE claimed = 1")

    def claim(self, *, often_blamed: bool = False, first: First = First.UNTRIED) -> Claim | None:
        """The study whose turn it is, or None: of those that may be tried now the one that was tried least lately, and
        of those never tried the one that has been quiet for longest, unless ``first`` says otherwise. ``often_blamed``:
        in the line of those that have failed again and again while others passed, which are in no other."""
        now = self._clock.now()
        with self._database.write() as db:
            for which in _ORDERS[first]:
                row = db.execute(
                    "UPDATE studies SET token = token + 1, claimed = 1 WHERE study_uid = (SELECT study_uid"
                    f" FROM studies WHERE {_WAITING} AND {_LINES[often_blamed]}"
                    f" AND (not_before <= ? OR not_before > ?) {self._answering()} {which} LIMIT 1)"
                    " RETURNING study_uid, token, attempts, revision, code, blamed",
                    (now, now + LONGEST_WAIT_SECONDS),
                ).fetchone()
                if row is not None:
                    break
            else:
                return None
            move(db, row["study_uid"], StudyEvent.CLAIMED, now)
        return Claim(Uid(row["study_uid"]), row["token"], row["attempts"], row["revision"], row["code"], row["blamed"])

    def _answering(self) -> str:
        """A clause on a study: all of its files that a shipment would touch are where they can be asked for."""
        if not (silent := self.not_responding()):
            return ""
        return (
            " AND NOT EXISTS (SELECT 1 FROM files f WHERE f.study_uid = studies.study_uid"
            " AND f.state IN ('ready', 'stored', 'deleting')"
            f" AND f.source_id IN ({','.join(map(str, map(int, silent)))}))"
        )

    def next_try_at(self, *lines: bool) -> float | None:
        """When the next queued study, or the next kept file of a study that is at rest, is due; None when there is
        none. ``lines``: of the studies that are known to be failing (True), or of the others; of both if none is
        named."""
        dues = [
            due for line in (lines or (False, True)) if (due := self.next_in_line_at(often_blamed=line)) is not None
        ]
        with self._database.read() as db:
            kept = db.execute(
                "SELECT f.due_at FROM files f CROSS JOIN studies s USING (study_uid) WHERE f.state = 'kept'"
                " AND f.due_at IS NOT NULL AND f.receipt IS NOT NULL AND s.state = 'archived' ORDER BY f.due_at LIMIT 1"
            ).fetchone()
        if kept is not None:
            dues.append(float(kept["due_at"]))
        return min(dues, default=None)

    def next_in_line_at(self, *, often_blamed: bool) -> float | None:
        """When the next queued study of this line may be tried."""
        with self._database.read() as db:
            # One end of an index at a time: a query for both ends would walk all that lies between.
            first, last = (
                db.execute(
                    f"SELECT {end}(not_before) AS at FROM studies WHERE {_WAITING} AND {_LINES[often_blamed]}"
                    f"{self._answering()}"
                ).fetchone()["at"]
                for end in ("MIN", "MAX")
            )
        if first is None:
            return None
        return 0.0 if last > self._clock.now() + LONGEST_WAIT_SECONDS else float(first)

    def queue_due(self) -> None:
        """Queue the studies that have kept files whose time of deletion has come: they are proven again first. A file
        without a receipt has not been sent to this archive (see Binding.bind)."""
        now = self._clock.now()
        with self._database.write() as db:
            rows = db.execute(
                "SELECT DISTINCT f.study_uid FROM files f CROSS JOIN studies s USING (study_uid)"
                " WHERE f.state = 'kept' AND f.due_at IS NOT NULL AND f.due_at <= ? AND f.receipt IS NOT NULL"
                " AND s.state = 'archived'",
                (now,),
            ).fetchall()
            for row in rows:
                db.execute(
                    # A damaged file has no time yet from which on it may go: it begins when the file is superseded.
                    "UPDATE files SET state = ?, due_at = CASE code WHEN ? THEN NULL ELSE due_at END"
                    " WHERE study_uid = ? AND state = ? AND due_at <= ? AND receipt IS NOT NULL",
                    (FileState.STORED, DAMAGED, row["study_uid"], FileState.KEPT, now),
                )
                move(db, row["study_uid"], StudyEvent.DUE, now)
                db.execute("UPDATE studies SET queued_at = ? WHERE study_uid = ?", (now, row["study_uid"]))

    def release(
        self,
        claim: Claim,
        *,
        not_before: float,
        code: str,
        reason: str,
        attempts: int,
        blamed: int = 0,
        endpoint: str | None = None,
    ) -> None:
        """Give the study back, to be tried again from ``not_before`` on; behind all others if this attempt counts.
        ``endpoint`` is what it failed on if it is not known to be failing itself: see `endpoints_back`."""
        with write_under(self._database, claim) as db:
            move(db, claim.study_uid, StudyEvent.RELEASED, self._clock.now())
            if attempts > claim.attempts:
                last = (
                    db.execute(f"SELECT MAX(turn) AS turn FROM studies WHERE {_WAITING} AND {line}").fetchone()["turn"]
                    for line in _LINES
                )
                turn = 1 + max(number or 0 for number in last)
                db.execute("UPDATE studies SET turn = ? WHERE study_uid = ?", (turn, claim.study_uid))
            db.execute(
                "UPDATE studies SET claimed = 0, not_before = ?, attempts = ?, code = ?, reason = ?, blamed = ?,"
                " endpoint = ? WHERE study_uid = ?",
                (not_before, attempts, code, reason, blamed, endpoint, claim.study_uid),
            )

    def endpoints_back(self) -> None:
        """What was down answers again: the studies that failed on it, as all did, wait no longer, and have their old
        turns again."""
        with self._database.write() as db:
            db.execute(
                "UPDATE studies SET not_before = 0, turn = 0, attempts = 0, endpoint = NULL"
                " WHERE endpoint IS NOT NULL AND state = 'queued'"
            )

    def park(self, claim: Claim, *, code: str, reason: str) -> None:
        """For a person to see to; see `parked` for those that are tried again by themselves."""
        now = self._clock.now()
        with write_under(self._database, claim) as db:
            move(db, claim.study_uid, StudyEvent.FAILED, now)
            db.execute(
                "UPDATE studies SET claimed = 0, code = ?, reason = ? WHERE study_uid = ?",
                (code, reason, claim.study_uid),
            )
            if code == NO_PROOF:
                db.execute(
                    "UPDATE studies SET not_before = ?, attempts = ? WHERE study_uid = ?",
                    (now + pause_seconds(claim.attempts), claim.attempts + 1, claim.study_uid),
                )

    def retry(self, study_uid: str) -> bool:
        """The operator's word: try a parked or waiting study now, or one with files that are kept for want of a read
        lease, or because they are damaged: another site may have archived whole copies since. False when there is
        nothing to retry."""
        with self._database.write() as db:
            state = state_of(db, study_uid)
            if state is StudyState.ARCHIVED:
                return bool(
                    db.execute(
                        "UPDATE files SET due_at = ? WHERE study_uid = ? AND state = ? AND code IN (?, ?)",
                        (self._clock.now(), study_uid, FileState.KEPT, NO_LEASE, DAMAGED),
                    ).rowcount
                )
            if state not in (StudyState.PARKED, StudyState.QUEUED):
                return False
            move(db, study_uid, StudyEvent.RETRY, self._clock.now())
            db.execute(
                "UPDATE studies SET not_before = 0, attempts = 0, blamed = 0, turn = 0, endpoint = NULL,"
                " queued_at = COALESCE(queued_at, ?) WHERE study_uid = ?",
                (self._clock.now(), study_uid),
            )
        return True


def _marks(values: Iterable[object]) -> str:
    return ",".join("?" for _ in values)
