"""Folders handed in by `upload`: how far they are, what came of each file, and how they have ended."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from dicomwatchd.model import SHIPPING, FileState, StudyEvent, StudyState
from dicomwatchd.ports import Clock
from dicomwatchd.queue import waits
from dicomwatchd.queue.database.schema import Database, Readable, Transaction
from dicomwatchd.queue.quiet import leave_arriving
from dicomwatchd.queue.rows import DAMAGED, HELD, NO_RIGHT, OWN_OBJECT, UNREADABLE, WAITING, Root, Source, UploadedFile
from dicomwatchd.queue.transitions import move, state_of
from dicomwatchd.rights import Asker
from dicomwatchd.study_completeness import Answer

#: How long what came of an upload is told, and of how many uploads at most.
KEPT_SECONDS = 30 * 86400.0
KEPT_RESULTS = 10_000
#: Names that are kept of an upload at most, beside their number.
LISTED = 1000
#: Files that are read at once.
_PAGE = 5000
#: What is neither at rest nor left to a deletion that is under way.
_SHIPPED_FROM = frozenset({StudyState.QUEUED, *SHIPPING}) - {StudyState.PURGING}

#: (path below the folder, why it is not archived and what to do)
Named = tuple[bytes, str]


@dataclass(frozen=True, slots=True)
class Upload:
    """A folder that was handed in. ``root`` is None where an older version of
    the program has not written it down. ``stage``: running, cancelling or ended."""

    source: Source
    root: Root | None
    started_at: float
    stage: str
    #: None where an older version of the program has taken the folder in.
    asker: Asker | None = None


@dataclass(frozen=True, slots=True)
class UploadProgress:
    """``files`` is what was found so far, without what could not be looked at, which the final scan names; ``waiting``
    what has not come to an end yet, ``failed`` what will not be archived without somebody's help: in quarantine, or in
    a study that is parked; what is the archive itself, and so no copy; and what is damaged, and archived as that."""

    files: int
    size_bytes: int
    verified: int
    verified_size_bytes: int
    deleted: int
    ignored: int
    waiting: int
    failed: int
    #: Of ``waiting``, those whose deletion is on record and not concluded.
    deleting: int
    #: Of ``verified``, those that stay because whoever has asked may not delete them.
    no_right: int = 0
    #: Of ``verified``, those that stay because their study is held.
    held: int = 0


@dataclass(frozen=True, slots=True)
class UploadedStudies:
    """How many studies have which answer (see `study_completeness`), and of those with gaps what is missing, in words;
    so many of them as were asked for."""

    answers: dict[str, int]
    gaps: list[tuple[str, list[str]]]


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """An upload as it stands in the state; ``result`` is there once it has ended."""

    upload: Upload
    ended_at: float | None
    result: dict[str, Any] | None

    @property
    def source_id(self) -> int:
        return self.upload.source.source_id


class Uploads:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    # -- life -------------------------------------------------------------------------------------------------------

    def begin(self, name: str, path: bytes, root: Root, *, delete: bool, asker: Asker) -> Upload:
        """Register a folder; from here on its upload is known, whatever happens to the daemon."""
        now = self._clock.now()
        with self._database.write() as db:
            source_id = db.execute(
                "INSERT INTO sources (name, path, kind, delete_local, created_at) VALUES (?, ?, 'upload', ?, ?)"
                " RETURNING source_id",
                (name, path, delete, now),
            ).fetchone()["source_id"]
            db.execute(
                "INSERT INTO uploads (source_id, name, path, delete_local, root, asker, started_at, stage)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 'running')",
                (source_id, name, path, delete, root.text, _asker_text(asker), now),
            )
        return Upload(Source(source_id, name, path, "upload", delete), root, now, "running", asker)

    def open(self) -> list[Upload]:
        """Those that have not ended, oldest first."""
        with self._database.read() as db:
            rows = db.execute("SELECT * FROM uploads WHERE stage != 'ended' ORDER BY source_id").fetchall()
        return [_upload(row) for row in rows]

    def cancel(self, source_id: int) -> None:
        """What is known of the upload's files is dropped, and with it every hold on their studies; nothing in the
        folder is touched. From this commit on no deletion of a file of it is authorised; one that is stays on its way.
        Does nothing to an upload that is being cancelled already, or has ended."""
        with self._database.write() as db:
            if not db.execute(
                "SELECT 1 FROM uploads WHERE source_id = ? AND stage = 'running'", (source_id,)
            ).fetchone():
                return
            far = {**asdict(_counted(db, source_id)), "named": _as_json(_failed(db, source_id, LISTED))}
            db.execute(
                "UPDATE uploads SET stage = 'cancelling', result = ? WHERE source_id = ?", (json.dumps(far), source_id)
            )
            self._let_go(db, source_id)

    def doubt(self, source_id: int, asked_before: float) -> int:
        """What the store was last asked for before that time (seconds since the epoch), or by the clock in the future,
        is to be verified once more, as far as its study is at rest; how many files."""
        now = self._clock.now()
        with self._database.write() as db:
            return db.execute(
                f"UPDATE files SET due_at = ? WHERE {_ASKED_LONG_AGO} AND EXISTS"
                " (SELECT 1 FROM studies s WHERE s.study_uid = files.study_uid AND s.state = ?)",
                (now, *_asked_long_ago(source_id, asked_before, now), StudyState.ARCHIVED),
            ).rowcount

    def unasked(self, source_id: int, asked_before: float, limit: int) -> tuple[int, list[bytes]]:
        """What is archived, and the store was last asked for before that time (seconds since the epoch), or by the
        clock in the future: how many files, and the first ``limit`` by their paths below the folder."""
        values = _asked_long_ago(source_id, asked_before, self._clock.now())
        with self._database.read() as db:
            count = db.execute(f"SELECT COUNT(*) FROM files WHERE {_ASKED_LONG_AGO}", values).fetchone()[0]
            rows = db.execute(f"SELECT dir, name FROM files WHERE {_ASKED_LONG_AGO} LIMIT ?", (*values, limit))
            return count, [_path(row) for row in rows]

    def end(self, source_id: int, result: dict[str, Any], *, unfinished: bool) -> bool:
        """The upload is over: its ``result`` is kept, its files and its hold on studies are not. Nothing in the folder
        is touched. False, with nothing done, while a deletion is under way, or, unless ``unfinished``, while a file
        has come to no end."""
        with self._database.write() as db:
            counted = _counted(db, source_id)
            if counted.deleting or (counted.waiting and not unfinished):
                return False
            self._let_go(db, source_id)
            db.execute("DELETE FROM upload_results WHERE source_id = ?", (source_id,))
            db.execute("DELETE FROM upload_studies WHERE source_id = ?", (source_id,))
            db.execute(
                "UPDATE uploads SET stage = 'ended', ended_at = ?, result = ? WHERE source_id = ?",
                (self._clock.now(), json.dumps(result), source_id),
            )
            db.execute("DELETE FROM sources WHERE source_id = ?", (source_id,))
        return True

    def prune(self) -> int:
        """Forget the results that are older than they are kept, and the oldest of too many; returns how many."""
        with self._database.write() as db:
            return db.execute(
                "DELETE FROM uploads WHERE stage = 'ended' AND (ended_at < ? OR ended_at <="
                " (SELECT ended_at FROM uploads WHERE stage = 'ended' ORDER BY ended_at DESC LIMIT 1 OFFSET ?))",
                (self._clock.now() - KEPT_SECONDS, KEPT_RESULTS),
            ).rowcount

    # -- what is asked ----------------------------------------------------------------------------------------------

    def progress(self, source_id: int) -> UploadProgress:
        """How far an upload is that has not ended; of one that is being cancelled, how far it had come."""
        with self._database.read() as db:
            row = db.execute("SELECT stage, result, deleted_files FROM uploads WHERE source_id = ?", (source_id,))
            upload = row.fetchone()
            counted = _counted(db, source_id)
        if upload is None or upload["stage"] != "cancelling":
            return counted
        was = json.loads(upload["result"])
        was.pop("named")
        since = upload["deleted_files"] - was["deleted"]
        return UploadProgress(
            **{**was, "deleted": was["deleted"] + since, "verified": was["verified"] + since},
        )

    def failed(self, source_id: int, limit: int) -> list[Named]:
        """What will not be archived without somebody's help, in quarantine or in a study that is parked, by name."""
        with self._database.read() as db:
            row = db.execute("SELECT stage, result FROM uploads WHERE source_id = ?", (source_id,)).fetchone()
            if row is not None and row["stage"] == "cancelling":
                return [(os.fsencode(name), reason) for name, reason in json.loads(row["result"])["named"]]
            return _failed(db, source_id, limit)

    def vanished(self, source_id: int, limit: int) -> tuple[int, list[tuple[bytes, str]]]:
        """What was once seen in the folder, was not deleted on proof, and is known no more: how many, and of the first
        ``limit`` the path below the folder and how far each had come: seen, verified, or unknown (after a crash)."""
        gone = (
            "FROM upload_results r WHERE r.source_id = ? AND NOT EXISTS (SELECT 1 FROM files f"
            " WHERE f.source_id = r.source_id AND f.dir = r.dir AND f.name = r.name)"
        )
        with self._database.read() as db:
            rows = db.execute(f"SELECT r.dir, r.name, r.outcome {gone} LIMIT ?", (source_id, limit)).fetchall()
            count = len(rows)
            if count == limit:
                count = db.execute(f"SELECT COUNT(*) {gone}", (source_id,)).fetchone()[0]
        return count, [(_path(row), row["outcome"]) for row in rows]

    def waiting(self, source_id: int, limit: int) -> tuple[int, list[tuple[bytes, str]]]:
        """Files that have come to no end, and not for want of somebody's help: how many, and the first ``limit`` as
        `vanished` gives them."""
        with self._database.read() as db:
            count = _counted(db, source_id).waiting
            rows = db.execute(
                "SELECT dir, name, 'seen' AS outcome FROM files f LEFT JOIN studies s USING (study_uid)"
                " WHERE f.source_id = ? AND f.state IN (?, ?) AND s.state IS NOT ? LIMIT ?",
                (source_id, *WAITING, StudyState.PARKED, limit),
            ).fetchall()
        return count, [(_path(row), row["outcome"]) for row in rows]

    def studies(self, source_id: int, limit: int) -> UploadedStudies:
        """Whether its studies are complete, of the ``limit`` first with gaps what is missing."""
        with self._database.read() as db:
            counts = db.execute(
                "SELECT answer, COUNT(*) AS studies FROM upload_studies WHERE source_id = ? GROUP BY answer",
                (source_id,),
            ).fetchall()
            rows = db.execute(
                "SELECT study_uid, gaps FROM upload_studies WHERE source_id = ? AND answer = ?"
                " ORDER BY study_uid LIMIT ?",
                (source_id, Answer.GAPS, limit),
            ).fetchall()
        return UploadedStudies(
            {row["answer"]: row["studies"] for row in counts},
            [(row["study_uid"], json.loads(row["gaps"])) for row in rows],
        )

    def deleting_files(self, source_id: int) -> int:
        """How many deletions of its files are under way, or were cut off and are not concluded."""
        with self._database.read() as db:
            return _counted(db, source_id).deleting

    def files(self, source_id: int) -> Iterator[UploadedFile]:
        """Every file that is there and known; of each its end, or how far it has come."""
        after = (b"", b"")
        while True:
            with self._database.read() as db:
                rows = db.execute(
                    "SELECT dir, name, state, code, sop_instance_uid FROM files"
                    f" WHERE source_id = ? AND (dir, name) > (?, ?) ORDER BY dir, name LIMIT {_PAGE}",
                    (source_id, *after),
                ).fetchall()
            for row in rows:
                yield UploadedFile(_path(row), FileState(row["state"]), row["code"], row["sop_instance_uid"])
            if len(rows) < _PAGE:
                return
            after = (rows[-1]["dir"], rows[-1]["name"])

    def known(self, name: str) -> UploadRecord | None:
        """An upload of this id, whether it runs or has ended; None for one that is not known, or no more."""
        with self._database.read() as db:
            row = db.execute("SELECT * FROM uploads WHERE name = ?", (name,)).fetchone()
        return None if row is None else _record(row)

    def all(self, limit: int) -> list[UploadRecord]:
        """Every upload that is known, those that have not ended first, then the newest."""
        with self._database.read() as db:
            rows = db.execute("SELECT * FROM uploads WHERE stage != 'ended' ORDER BY source_id DESC").fetchall()
            rows += db.execute(
                "SELECT * FROM uploads WHERE stage = 'ended' ORDER BY ended_at DESC LIMIT ?", (limit,)
            ).fetchall()
        return [_record(row) for row in rows[:limit]]

    # -- details ----------------------------------------------------------------------------------------------------

    def _let_go(self, db: Transaction, source_id: int) -> None:
        """Forget the source's files, but for those whose deletion is on record, and its hold on every study: a study is
        held by files that are there, or archived, and by nothing else."""
        now = self._clock.now()
        waiting = {
            row["study_uid"]
            for row in db.execute(
                "SELECT DISTINCT study_uid FROM files WHERE source_id = ? AND state IN (?, ?)", (source_id, *WAITING)
            )
        }
        held = {
            row["study_uid"] for row in db.execute("SELECT study_uid FROM arrivals WHERE source_id = ?", (source_id,))
        }
        db.execute("DELETE FROM files WHERE source_id = ? AND state != ?", (source_id, FileState.DELETING))
        db.execute("DELETE FROM arrivals WHERE source_id = ?", (source_id,))
        for study_uid in sorted(waiting | held):
            state = state_of(db, study_uid)
            if study_uid in waiting and (
                state in _SHIPPED_FROM or (state is StudyState.PARKED and not _has_files_to_ship(db, study_uid))
            ):
                move(db, study_uid, StudyEvent.CHANGED, now)
                state = StudyState.ARRIVING
            if state is StudyState.ARRIVING:
                still = db.execute(
                    "SELECT MIN(quiet) AS quiet, MAX(quiet_at) AS quiet_at FROM arrivals WHERE study_uid = ?",
                    (study_uid,),
                ).fetchone()
                if still["quiet"] == 0 or (still["quiet"] and waits.look_again(db, study_uid)):
                    continue  # another source looks after it
                db.execute("DELETE FROM arrivals WHERE study_uid = ?", (study_uid,))
                leave_arriving(db, study_uid, still["quiet_at"] or now, now)


def _counted(db: Readable, source_id: int) -> UploadProgress:
    counts = {
        row["state"]: (row["files"], row["size_bytes"])
        for row in db.execute("SELECT * FROM file_counts WHERE source_id = ?", (source_id,))
    }
    deleted = db.execute("SELECT deleted_files FROM uploads WHERE source_id = ?", (source_id,)).fetchone()
    deleted_files = 0 if deleted is None else deleted["deleted_files"]
    unread = db.execute(
        "SELECT COUNT(*) FROM files INDEXED BY files_quarantined"
        f" WHERE state = 'quarantined' AND source_id = ? AND code = '{UNREADABLE}'",
        (source_id,),
    ).fetchone()[0]
    own = db.execute(f"SELECT COUNT(*) {_OWN_OBJECTS}", (source_id,)).fetchone()[0]
    damaged = db.execute(f"SELECT COUNT(*) {_DAMAGED}", (source_id,)).fetchone()[0]
    no_right = db.execute(
        "SELECT COUNT(*) FROM files INDEXED BY files_no_right"
        f" WHERE source_id = ? AND state = 'kept' AND code = '{NO_RIGHT}'",
        (source_id,),
    ).fetchone()[0]
    held = db.execute(
        "SELECT COUNT(*) FROM files INDEXED BY files_held_of_source"
        f" WHERE source_id = ? AND state = 'kept' AND code = '{HELD}'",
        (source_id,),
    ).fetchone()[0]
    parked = db.execute(f"SELECT COUNT(*) {_IN_PARKED}", (StudyState.PARKED, *WAITING, source_id)).fetchone()[0]
    files = sum(number for number, _ in counts.values()) - unread
    ignored, kept, quarantined, deleting = (
        counts.get(state, (0, 0))
        for state in (FileState.IGNORED, FileState.KEPT, FileState.QUARANTINED, FileState.DELETING)
    )
    return UploadProgress(
        files=files + deleted_files,
        size_bytes=sum(size_bytes for _, size_bytes in counts.values()),
        verified=kept[0] - own - damaged + deleted_files,
        verified_size_bytes=kept[1],
        deleted=deleted_files,
        ignored=ignored[0],
        waiting=files - ignored[0] - kept[0] - (quarantined[0] - unread) - parked,
        failed=quarantined[0] - unread + parked + own + damaged,
        deleting=deleting[0],
        no_right=no_right,
        held=held,
    )


_OWN_OBJECTS = (
    f"FROM files INDEXED BY files_own_objects WHERE source_id = ? AND state = 'kept' AND code = '{OWN_OBJECT}'"
)
_DAMAGED = f"FROM files INDEXED BY files_damaged WHERE source_id = ? AND state = 'kept' AND code = '{DAMAGED}'"
#: See _asked_long_ago.
_ASKED_LONG_AGO = (
    "source_id = ? AND state = ? AND code IS NOT ? AND receipt IS NOT NULL AND (evidence_at < ? OR evidence_at > ?)"
)
_IN_PARKED = (
    "FROM studies s CROSS JOIN files f USING (study_uid)"
    " WHERE s.state != 'archived' AND s.state = ? AND f.state IN (?, ?) AND f.source_id = ?"
)


def _asked_long_ago(source_id: int, asked_before: float, now: float) -> tuple[object, ...]:
    return (source_id, FileState.KEPT, OWN_OBJECT, asked_before, now)


def _failed(db: Readable, source_id: int, limit: int) -> list[Named]:
    rows = db.execute(
        "SELECT dir, name, reason FROM files INDEXED BY files_quarantined"
        f" WHERE state = 'quarantined' AND source_id = ? AND code IS NOT '{UNREADABLE}' LIMIT ?",
        (source_id, limit),
    ).fetchall()
    found = [(_path(row), row["reason"] or "it cannot be archived") for row in rows]
    rows = db.execute(
        f"SELECT f.dir, f.name, s.reason {_IN_PARKED} LIMIT ?",
        (StudyState.PARKED, *WAITING, source_id, limit - len(found)),
    ).fetchall()
    found += [(_path(row), f"its study is parked: {row['reason'] or 'see dicomwatchctl queue'}") for row in rows]
    for kept in (_OWN_OBJECTS, _DAMAGED):
        rows = db.execute(f"SELECT dir, name, reason {kept} LIMIT ?", (source_id, limit - len(found))).fetchall()
        found += [(_path(row), row["reason"]) for row in rows]
    return sorted(found)


def _has_files_to_ship(db: Transaction, study_uid: str) -> bool:
    found = db.execute("SELECT 1 FROM files WHERE study_uid = ? AND state IN (?, ?)", (study_uid, *WAITING)).fetchone()
    return found is not None


def _upload(row: sqlite3.Row) -> Upload:
    source = Source(row["source_id"], row["name"], row["path"], "upload", bool(row["delete_local"]))
    root = None if row["root"] is None else Root.of(row["root"])
    return Upload(source, root, row["started_at"], row["stage"], _asker(row["asker"]))


def _record(row: sqlite3.Row) -> UploadRecord:
    ended = row["stage"] == "ended"
    return UploadRecord(_upload(row), row["ended_at"], json.loads(row["result"]) if ended else None)


def _as_json(named: Iterable[Named]) -> list[tuple[str, str]]:
    return [(os.fsdecode(name), reason) for name, reason in named]


def _asker_text(asker: Asker) -> str:
    return json.dumps({"uid": asker.uid, "gid": asker.gid, "groups": sorted(asker.groups), "login": asker.login})


def _asker(text: str | None) -> Asker | None:
    if text is None:
        return None
    found = json.loads(text)
    return Asker(found["uid"], found["gid"], frozenset(found["groups"]), found["login"])


def _path(row: sqlite3.Row) -> bytes:
    return b"/".join(part for part in (row["dir"], row["name"]) if part)
