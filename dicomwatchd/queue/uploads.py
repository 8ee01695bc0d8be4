"""Folders handed in by `upload`: how far they are, and what came of each file."""

from __future__ import annotations

from dataclasses import dataclass

from dicomwatchd.model import FileState, StudyState
from dicomwatchd.queue.arrivals import WAITING
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
            rows = db.execute(
                "SELECT f.dir, f.name, f.state, f.size_bytes, f.reason, s.state AS study_state, s.reason AS why"
                " FROM files f LEFT JOIN studies s USING (study_uid) WHERE f.source_id = ?",
                (source_id,),
            ).fetchall()
            results = db.execute(
                "SELECT outcome, COUNT(*) AS n FROM upload_results WHERE source_id = ? GROUP BY outcome",
                (source_id,),
            ).fetchall()
        counts = {row["outcome"]: row["n"] for row in results}
        failed, waiting, ignored = [], 0, 0
        for row in rows:
            path = b"/".join(part for part in (row["dir"], row["name"]) if part)
            if row["state"] == FileState.QUARANTINED:
                failed.append((path, row["reason"] or "cannot be archived"))
            elif row["state"] == FileState.IGNORED:
                ignored += 1
            elif row["state"] in WAITING and row["study_state"] == StudyState.PARKED:
                failed.append((path, row["why"] or "its study is parked"))
            elif row["state"] != FileState.KEPT:
                waiting += 1
        deleted = counts.get("deleted", 0)
        return UploadProgress(
            files=len(rows) + deleted,
            size_bytes=sum(row["size_bytes"] for row in rows),
            verified=counts.get("verified", 0) + deleted,
            verified_size_bytes=sum(row["size_bytes"] for row in rows if row["state"] == FileState.KEPT),
            deleted=deleted,
            ignored=ignored,
            waiting=waiting,
            failed=tuple(sorted(failed)),
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
