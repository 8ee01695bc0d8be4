"""Folders handed in by `upload`: how far they are, and what came of each file."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from dicomwatchd.model import FileState, StudyState
from dicomwatchd.queue.arrivals import WAITING
from dicomwatchd.queue.rows import OWN_OBJECT
from dicomwatchd.queue.schema import Database


@dataclass(frozen=True, slots=True)
class UploadProgress:
    """``files`` is what was found so far, ``waiting`` what has not come to an end yet. ``failed`` lists
    (path below the folder, reason) of what will not be archived without somebody's help."""

    files: int
    size_bytes: int
    verified: int
    verified_size_bytes: int
    deleted: int
    ignored: int
    waiting: int
    failed: tuple[tuple[bytes, str], ...]


class Uploads:
    def __init__(self, database: Database) -> None:
        self._database = database

    def progress(self, source_id: int) -> UploadProgress:
        with self._database.read() as db:
            counts = {
                row["state"]: (row["files"], row["size_bytes"])
                for row in db.execute("SELECT * FROM file_counts WHERE source_id = ?", (source_id,))
            }
            quarantined = db.execute(
                "SELECT dir, name, reason FROM files INDEXED BY files_quarantined"
                " WHERE state = 'quarantined' AND source_id = ?",
                (source_id,),
            ).fetchall()
            parked = db.execute(
                "SELECT f.dir, f.name, s.reason FROM studies s CROSS JOIN files f USING (study_uid)"
                " WHERE s.state != 'archived' AND s.state = ? AND f.state IN (?, ?) AND f.source_id = ?",
                (StudyState.PARKED, *WAITING, source_id),
            ).fetchall()
            results = db.execute(
                "SELECT outcome, COUNT(*) AS n FROM upload_results WHERE source_id = ? GROUP BY outcome",
                (source_id,),
            ).fetchall()
            own = db.execute(
                "SELECT dir, name, reason FROM files INDEXED BY files_own_objects"
                f" WHERE source_id = ? AND state = 'kept' AND code = '{OWN_OBJECT}'",
                (source_id,),
            ).fetchall()
        outcomes = {row["outcome"]: row["n"] for row in results}
        failed = [(_path(row), row["reason"] or "cannot be archived") for row in quarantined]
        failed += [(_path(row), row["reason"] or "its study is parked") for row in parked]
        files = sum(number for number, _ in counts.values())
        ignored, kept = (counts.get(state, (0, 0)) for state in (FileState.IGNORED, FileState.KEPT))
        deleted = outcomes.get("deleted", 0)
        return UploadProgress(
            files=files + deleted,
            size_bytes=sum(size_bytes for _, size_bytes in counts.values()),
            verified=outcomes.get("verified", 0) + deleted,
            verified_size_bytes=kept[1],
            deleted=deleted,
            ignored=ignored[0],
            waiting=files - ignored[0] - kept[0] - len(failed),
            failed=tuple(sorted([*failed, *((_path(row), row["reason"]) for row in own)])),
        )

    def conclude(self, source_id: int) -> None:
        """Forget a folder that has come to an end. Nothing in the folder is touched."""
        with self._database.write() as db:
            db.execute("DELETE FROM upload_results WHERE source_id = ?", (source_id,))
            db.execute("DELETE FROM files WHERE source_id = ? AND state != ?", (source_id, FileState.ASIDE))
            db.execute("DELETE FROM arrivals WHERE source_id = ?", (source_id,))
            db.execute(
                "DELETE FROM sources WHERE source_id = ? AND NOT EXISTS"
                " (SELECT 1 FROM files WHERE files.source_id = sources.source_id)",
                (source_id,),
            )


def _path(row: sqlite3.Row) -> bytes:
    return b"/".join(part for part in (row["dir"], row["name"]) if part)
