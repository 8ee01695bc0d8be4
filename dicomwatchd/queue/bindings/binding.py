"""Which archive the state speaks of: receipts and evidence are worth nothing for any other."""

from __future__ import annotations

from collections.abc import Iterable

from dicomwatchd.model import FileState, StudyEvent, StudyState
from dicomwatchd.ports import Clock
from dicomwatchd.queue.database import meta
from dicomwatchd.queue.database.schema import Database
from dicomwatchd.queue.transitions import move, state_of


class Binding:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def archive_id(self) -> str | None:
        return bound_archive_id(self._database)

    def is_to(self, archive_id: str, destination: str) -> bool:
        """Whether the state is bound to this archive and destination already."""
        return (self._get("archive_id"), self._get("destination")) == (archive_id, destination)

    def bind(self, archive_id: str, destination: str) -> bool:
        """Bind the state to this archive and destination. Where it was bound to other ones, everything that is not
        yet deleted has to be sent or verified again; True when that was so."""
        changed = (self._get("archive_id"), self._get("destination")) not in (
            (None, None),
            (archive_id, destination),
        )
        with self._database.write() as db:
            if changed:
                db.execute(
                    "UPDATE files SET state = ?, receipt = NULL, evidence = NULL WHERE state = ?",
                    (FileState.READY, FileState.STORED),
                )
                # A kept file without a receipt is one that this archive is not known to hold: see send_kept_again.
                db.execute("UPDATE files SET receipt = NULL WHERE state = ?", (FileState.KEPT,))
                db.execute("UPDATE listed SET lacking = NULL")  # what the other archive has is not here
            for key, value in (("archive_id", archive_id), ("destination", destination)):
                meta.put(db, key, value)
        return changed

    def send_kept_again(self, active: Iterable[int]) -> tuple[int, int]:
        """Kept files that were archived at another place than this one are sent again, from the sources that are looked
        at; those of other sources wait until theirs is one. Returns how many files, of how many studies."""
        now, scanned = self._clock.now(), set(active)
        files = 0
        studies: set[str] = set()
        with self._database.write() as db:
            rows = db.execute(
                "SELECT study_uid, source_id, COUNT(*) AS n FROM files INDEXED BY files_kept_elsewhere"
                " WHERE state = 'kept' AND receipt IS NULL GROUP BY source_id, study_uid"
            ).fetchall()
            for row in rows:
                if row["source_id"] not in scanned:
                    continue
                study_uid = row["study_uid"]
                files, studies = files + row["n"], studies | {study_uid}
                db.execute(
                    "UPDATE files SET state = ?, evidence = NULL"
                    " WHERE study_uid = ? AND source_id = ? AND state = ? AND receipt IS NULL",
                    (FileState.READY, study_uid, row["source_id"], FileState.KEPT),
                )
                if state_of(db, study_uid) in (StudyState.ARCHIVED, StudyState.ARRIVING):
                    move(db, study_uid, StudyEvent.CHANGED, now)
                    db.execute(
                        "INSERT INTO arrivals (study_uid, source_id, set_at, quiet_at) VALUES (?, ?, ?, ?)"
                        " ON CONFLICT DO NOTHING",
                        (study_uid, row["source_id"], now, now),
                    )
        return files, len(studies)

    def _get(self, key: str) -> str | None:
        return _get(self._database, key)


def bound_archive_id(database: Database) -> str | None:
    return _get(database, "archive_id")


def _get(database: Database, key: str) -> str | None:
    with database.read() as db:
        return meta.get(db, key)
