"""Which version of the program the state was last used by, and what another one tries again for it.

A study parked, or a file quarantined, for a fault of the program waits for somebody to touch it. A program that is
another one by now may have the fault no more, so it tries once by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from dicomwatchd.model import FileState, StudyEvent, StudyState
from dicomwatchd.ports import Clock
from dicomwatchd.queue.database import meta
from dicomwatchd.queue.database.schema import Database
from dicomwatchd.queue.transitions import move

#: The code of whatever an error that nobody expected has stopped.
FAULT = "unexpected"
#: The code of a quarantined file that such an error of another version has stopped: the intake looks at it again.
OLD_FAULT = "unexpected-before"


@dataclass(frozen=True, slots=True)
class Retried:
    studies: int
    files: int


class Upgrade:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def taken_over_by(self, version: str) -> Retried:
        """At start: from now on the state is used by this version of the program. Where it was another one's, what
        that one has stopped with a fault of its own is tried again; a second call with the same version does nothing.
        """
        with self._database.write() as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'program'").fetchone()
            if row is not None and row["value"] == version:
                return Retried(0, 0)
            now = self._clock.now()
            parked = db.execute(
                "SELECT study_uid FROM studies WHERE state = ? AND code = ?", (StudyState.PARKED, FAULT)
            ).fetchall()
            for row in parked:
                move(db, row["study_uid"], StudyEvent.RETRY, now)
            db.executemany(
                "UPDATE studies SET not_before = 0, attempts = 0, queued_at = COALESCE(queued_at, ?)"
                " WHERE study_uid = ?",
                [(now, row["study_uid"]) for row in parked],
            )
            files = db.execute(
                "UPDATE files SET code = ? WHERE state = ? AND code = ?", (OLD_FAULT, FileState.QUARANTINED, FAULT)
            ).rowcount
            meta.put(db, "program", version)
        return Retried(len(parked), files)
