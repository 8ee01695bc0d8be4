"""What outlives a mount: on which file system a source's files are, and when a kept file may go.

A row of ``files`` goes when its file is not there any more. Its due time does not: it is the file's, and counts again
when the same content stands under the same name.
"""

from __future__ import annotations

from dicomwatchd.ports import Clock
from dicomwatchd.queue.database.schema import Database
from dicomwatchd.queue.rows import LocalFile

#: A file system that was not seen for this time does not come back: what was on it counts as gone.
FORGET_SECONDS = 30 * 86400.0
#: How often it is put on record that a file system is still there.
_AGAIN_SECONDS = 3600.0


class Remounts:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def record(self, source_id: int, device: int, file_system: str) -> None:
        """This file system of the source has this device number now."""
        now = self._clock.now()
        with self._database.read() as db:
            row = db.execute(
                "SELECT file_system, seen_at FROM file_systems WHERE source_id = ? AND device = ?", (source_id, device)
            ).fetchone()
        if row is not None and row["file_system"] == file_system and abs(now - row["seen_at"]) < _AGAIN_SECONDS:
            return
        with self._database.write() as db:
            db.execute(
                "INSERT INTO file_systems (source_id, device, file_system, seen_at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET file_system = excluded.file_system, seen_at = excluded.seen_at",
                (source_id, device, file_system, now),
            )
            db.execute("DELETE FROM file_systems WHERE seen_at < ?", (now - FORGET_SECONDS,))
            db.execute("DELETE FROM dues WHERE due_at < ?", (now - FORGET_SECONDS,))

    def file_system(self, source_id: int, device: int) -> str | None:
        """Which file system last had this device number in the source; None if that is not known, or long ago."""
        with self._database.read() as db:
            row = db.execute(
                "SELECT file_system FROM file_systems WHERE source_id = ? AND device = ? AND seen_at >= ?",
                (source_id, device, self._clock.now() - FORGET_SECONDS),
            ).fetchone()
        return None if row is None else str(row["file_system"])

    def rebase(self, source_id: int, directory: bytes, old_device: int, new_device: int) -> None:
        """The files of this directory are known under another device number from now on, but for those whose deletion
        is under way."""
        prefix = f"{old_device}:"
        with self._database.write() as db:
            db.execute(
                "UPDATE files SET identity = ? || substr(identity, ?) WHERE source_id = ? AND dir = ?"
                " AND state != 'deleting' AND substr(identity, 1, ?) = ?",
                (f"{new_device}:", len(prefix) + 1, source_id, directory, len(prefix), prefix),
            )

    def due_at(self, file: LocalFile) -> float | None:
        """When a file was to go that stood under this name with this content before; None if there was none."""
        with self._database.read() as db:
            row = db.execute(
                "SELECT due_at FROM dues WHERE source_id = ? AND dir = ? AND name = ? AND sha256 = ?",
                (file.source_id, file.dir, file.name, file.sha256),
            ).fetchone()
        return None if row is None else float(row["due_at"])
