"""Which erasures of studies this state knows of, on record in the audit chain; and what goes from here with the study.

What names a patient goes as soon as no file of the study is here any more; until then it says what the files say as
well. Steps, shipments and entries of the chain, which hold UIDs, stay as long as those of any other study.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from dicomwatchd.model import StudyState, Uid
from dicomwatchd.ports import Clock
from dicomwatchd.queue import audit
from dicomwatchd.queue.database.schema import Database, Readable
from dicomwatchd.queue.holds import ERASED
from dicomwatchd.queue.transitions import state_of

_PAGE = 100


class ErasuresNoted:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def concerning(self, numbers: Iterable[tuple[Uid, int]]) -> list[tuple[Uid, int]]:
        """Of these (study, number of its newest erasure) those that are not noted yet, of studies that were ever
        here."""
        found = []
        with self._database.read() as db:
            for study_uid, number in numbers:
                is_known = db.execute("SELECT 1 FROM studies WHERE study_uid = ?", (study_uid,)).fetchone()
                if is_known is not None and _noted(db, study_uid) < number:
                    found.append((study_uid, number))
        return found

    def note(self, study_uid: Uid, number: int, said: dict[str, Any]) -> None:
        """Put an erasure on record, once; ``said`` is when, by whom and why."""
        with self._database.read() as reading:
            if _noted(reading, study_uid) >= number:
                return
        with self._database.write() as db:
            if _noted(db, study_uid) >= number:
                return
            now = self._clock.now()
            audit.append(db, study_uid, [{"kind": audit.ERASED, "at": now, "number": number, **said}])
            db.execute(
                "INSERT INTO erasures (study_uid, number, noted_at) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET"
                " number = excluded.number, noted_at = excluded.noted_at",
                (study_uid, number, now),
            )

    def forget(self) -> bool:
        """Of some erased studies without files here, what the state still says of them; whether there may be more. One
        that was released, and archived again since, is as any other."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT e.study_uid, e.number FROM erasures e CROSS JOIN studies s USING (study_uid)"
                " WHERE s.claimed = 0 AND NOT EXISTS (SELECT 1 FROM files f WHERE f.study_uid = e.study_uid)"
            ).fetchall()
            gone = [row["study_uid"] for row in rows if _released(db, row["study_uid"]) < row["number"]]
        for study_uid in gone[:_PAGE]:
            self._forget(study_uid)
        return len(gone) > _PAGE

    def _forget(self, study_uid: str) -> None:
        with self._database.write() as db:
            if db.execute("SELECT 1 FROM files WHERE study_uid = ? LIMIT 1", (study_uid,)).fetchone():
                return
            if state_of(db, study_uid) not in (StudyState.ARCHIVED, StudyState.PARKED, StudyState.QUEUED):
                return
            for table in ("series", "identities", "holds", "listed", "listed_waits", "arrivals"):
                db.execute(f"DELETE FROM {table} WHERE study_uid = ?", (study_uid,))
            db.execute("DELETE FROM studies WHERE study_uid = ? AND claimed = 0", (study_uid,))


def _noted(db: Readable, study_uid: str) -> int:
    row = db.execute("SELECT number FROM erasures WHERE study_uid = ?", (study_uid,)).fetchone()
    return 0 if row is None else int(row["number"])


def _released(db: Readable, study_uid: str) -> int:
    """The newest erasure that a release was given for."""
    row = db.execute(
        "SELECT found FROM holds WHERE study_uid = ? AND code = ? AND released_at IS NOT NULL", (study_uid, ERASED)
    ).fetchone()
    return 0 if row is None else max((int(one.get("number", 0)) for one in json.loads(row["found"])), default=0)
