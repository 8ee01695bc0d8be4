"""Which archive the state speaks of: receipts and evidence are worth nothing for any other."""

from __future__ import annotations

from dicomwatchd.model import FileState
from dicomwatchd.queue.schema import Database


class Binding:
    def __init__(self, database: Database) -> None:
        self._database = database

    def archive_id(self) -> str | None:
        return self._get("archive_id")

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
            for key, value in (("archive_id", archive_id), ("destination", destination)):
                db.execute(
                    "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
                    (key, value),
                )
        return changed

    def _get(self, key: str) -> str | None:
        with self._database.read() as db:
            row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row["value"])
