"""Parked studies that are tried again without a person: those for which a clause of the proof did not hold.

The archive may have by now what it did not have: a key that was damaged has healed, a catalogue has caught up.
"""

from __future__ import annotations

from dicomwatchd.model import StudyEvent, StudyState
from dicomwatchd.ports import Clock
from dicomwatchd.queue.database.schema import Database
from dicomwatchd.queue.transitions import move, state_of

#: No study waits longer for its next try: what is said to wait for longer met a clock that was set back since.
LONGEST_WAIT_SECONDS = 3600.0
#: The code of a study that was parked because a clause of the proof did not hold.
NO_PROOF = "no-proof"
_FIRST_SECONDS = 60.0


def pause_seconds(attempts: int) -> float:
    """For how long a study stays parked after so many failures before this one."""
    return min(_FIRST_SECONDS * 2.0 ** min(attempts, 20), LONGEST_WAIT_SECONDS)


class Parked:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def step(self) -> bool:
        """Queue those whose pause is over. False: there is no more to do now. Raises Transient."""
        now = self._clock.now()
        with self._database.read() as db:
            rows = db.execute(
                "SELECT study_uid FROM studies WHERE state != 'archived' AND state = 'parked' AND code = ?"
                " AND (not_before <= ? OR not_before > ?)",
                (NO_PROOF, now, now + LONGEST_WAIT_SECONDS),
            ).fetchall()
        for row in rows:
            with self._database.write() as db:
                if state_of(db, row["study_uid"]) is not StudyState.PARKED:
                    continue
                move(db, row["study_uid"], StudyEvent.RETRY, now)
                db.execute(
                    "UPDATE studies SET not_before = 0, blamed = 0, turn = 0, endpoint = NULL,"
                    " queued_at = COALESCE(queued_at, ?) WHERE study_uid = ?",
                    (now, row["study_uid"]),
                )
        return False
