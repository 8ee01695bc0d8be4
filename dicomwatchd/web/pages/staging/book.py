"""Whose uploads there are, and which files are to come: names are data here, and stand in no path and no URL."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from dicomwatchd.errors import DicomwatchdError, StateFailed, StateUnavailable
from dicomwatchd.web.pages.staging.places import as_it_is, folders_of, made_up

_SCHEMA = """
CREATE TABLE IF NOT EXISTS uploads (
  upload_id TEXT PRIMARY KEY, owner TEXT NOT NULL, stage TEXT NOT NULL, created_at REAL NOT NULL,
  touched_at REAL NOT NULL, daemon_id TEXT, result TEXT, note TEXT NOT NULL DEFAULT '', removed_at REAL
) STRICT;
CREATE INDEX IF NOT EXISTS uploads_of ON uploads (owner, created_at);
CREATE TABLE IF NOT EXISTS files (
  upload_id TEXT NOT NULL REFERENCES uploads, number INTEGER NOT NULL, path TEXT NOT NULL, size_bytes INTEGER NOT NULL,
  sha256 TEXT NOT NULL, modified INTEGER NOT NULL, state TEXT NOT NULL, same_as INTEGER,
  place TEXT NOT NULL,
  PRIMARY KEY (upload_id, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_path ON files (upload_id, path);
CREATE UNIQUE INDEX IF NOT EXISTS files_by_place ON files (upload_id, place);
CREATE INDEX IF NOT EXISTS files_by_content ON files (upload_id, sha256, size_bytes);
"""


class Stage(StrEnum):
    """``OPEN``: files come. ``WHOLE``: all are there, the daemon is to be asked. ``HANDED_IN``: the daemon archives it.
    ``ENDED``: with its result. ``DROPPED``: by whoever began it, or since nobody went on."""

    OPEN = "open"
    WHOLE = "whole"
    HANDED_IN = "handed in"
    ENDED = "ended"
    DROPPED = "dropped"


class FileState(StrEnum):
    """``COMING``: not all of it is there. ``SAME``: as another of the upload, of which a copy is made at its end.
    ``LEFT``: another content came under its name before it was whole."""

    COMING = "coming"
    SAME = "same"
    THERE = "there"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class UploadRow:
    upload_id: str
    owner: str
    stage: Stage
    created_at: float
    touched_at: float
    daemon_id: str | None
    result: dict[str, Any] | None
    note: str
    removed_at: float | None


@dataclass(frozen=True, slots=True)
class FileRow:
    """``path`` is what the browser calls it. ``sha256`` is lower-case hex (`room.sum_of` knows both kinds), or "" where
    the browser did not say; ``modified`` are milliseconds since the epoch. ``place`` is the name on the disk
    (`places`)."""

    number: int
    path: str
    size_bytes: int
    sha256: str
    modified: int
    state: FileState
    same_as: int | None
    place: str


@dataclass(frozen=True, slots=True)
class Announced:
    """A file that the browser has and the upload is to get."""

    path: str
    size_bytes: int
    sha256: str
    modified: int


@dataclass(frozen=True, slots=True)
class Sums:
    files: int
    size_bytes: int
    there: int
    there_bytes: int


@dataclass(frozen=True, slots=True)
class Amiss:
    """Why an upload is not whole: files of it that are ``lacking``, and ``others`` that are not of those now chosen."""

    lacking: int
    others: int


class NotOpen(DicomwatchdError):
    """The upload takes no files any more."""

    code = "upload-closed"


class Book:
    """One database in the staging folder. Safe to be used from any thread. Raises StateUnavailable."""

    def __init__(self, path: Path) -> None:
        """Raises StateFailed."""
        self._lock = threading.RLock()
        try:
            # Under a default ACL the umask takes nothing away, and what is in here is nobody else's.
            path.touch(mode=0o600)
            path.chmod(0o600)
        except OSError as error:
            raise StateFailed("the list of uploads cannot be opened", code="staging") from error
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA secure_delete = ON")  # names of files are patients' names, often enough
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise StateFailed("the list of uploads cannot be opened", code="staging") from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _written(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                except BaseException:  # whatever it was: nothing of it stays
                    with suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise StateUnavailable("the list of uploads cannot be written", code="staging-write") from error

    def _read(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise StateUnavailable("the list of uploads cannot be read", code="staging-read") from error

    # -- uploads ------------------------------------------------------------------------------------------------------

    def begin(self, upload_id: str, owner: str, now: float) -> None:
        with self._written() as db:
            db.execute(
                "INSERT INTO uploads (upload_id, owner, stage, created_at, touched_at) VALUES (?, ?, ?, ?, ?)",
                (upload_id, owner, Stage.OPEN, now, now),
            )

    def upload(self, upload_id: str) -> UploadRow | None:
        rows = self._read("SELECT * FROM uploads WHERE upload_id = ?", upload_id)
        return _upload(rows[0]) if rows else None

    def uploads_of(self, owner: str, limit: int) -> list[UploadRow]:
        """Newest first."""
        return [
            _upload(row)
            for row in self._read(
                "SELECT * FROM uploads WHERE owner = ? ORDER BY created_at DESC LIMIT ?", owner, limit
            )
        ]

    def in_stages(self, *stages: Stage) -> list[UploadRow]:
        """Oldest first."""
        marks = ", ".join("?" * len(stages))
        return [
            _upload(row)
            for row in self._read(
                f"SELECT * FROM uploads WHERE stage IN ({marks}) AND removed_at IS NULL ORDER BY created_at", *stages
            )
        ]

    def step(self, upload_id: str, old: Stage, new: Stage, now: float, **values: object) -> bool:
        """Whether it was in the ``old`` stage, and now is in the ``new`` one."""
        columns = "".join(f", {name} = ?" for name in values)  # of this module's callers only
        with self._written() as db:
            return (
                db.execute(
                    f"UPDATE uploads SET stage = ?, touched_at = ?{columns} WHERE upload_id = ? AND stage = ?",
                    (new, now, *values.values(), upload_id, old),
                ).rowcount
                == 1
            )

    def close_if_whole(self, upload_id: str, chosen: int, now: float) -> Amiss | None:
        """From open to whole, if it has as many files as were ``chosen``, and all have arrived. Another choice that was
        begun in the same upload, in a second tab or days ago, would be told to be safe by what is said of this one.
        Nothing is announced meanwhile. Raises NotOpen."""
        with self._written() as db:
            self._require_open(db, upload_id)
            (files, coming) = db.execute(
                "SELECT COUNT(*), COALESCE(SUM(state = 'coming'), 0) FROM files"
                " WHERE upload_id = ? AND state <> 'left'",
                (upload_id,),
            ).fetchone()
            lacking, others = max(coming, chosen - files), max(0, files - chosen)
            if lacking or others:
                return Amiss(lacking, others)
            db.execute(
                "UPDATE uploads SET stage = ?, touched_at = ? WHERE upload_id = ?", (Stage.WHOLE, now, upload_id)
            )
            return None

    def note(self, upload_id: str, text: str) -> None:
        with self._written() as db:
            db.execute("UPDATE uploads SET note = ? WHERE upload_id = ?", (text, upload_id))

    def removed(self, upload_id: str, now: float, *, keeps_names: bool = False) -> None:
        """Its bytes are gone, and the names of its files with them; that it was, and how it ended, stays. The result
        ``keeps_names`` of what went wrong where nobody has read them yet."""
        with self._written() as db:
            db.execute("UPDATE uploads SET removed_at = ? WHERE upload_id = ?", (now, upload_id))
            db.execute("DELETE FROM files WHERE upload_id = ?", (upload_id,))
            (said,) = db.execute("SELECT result FROM uploads WHERE upload_id = ?", (upload_id,)).fetchone() or (None,)
            if said is not None and not keeps_names:
                nameless = json.dumps(_nameless(json.loads(said)))
                db.execute("UPDATE uploads SET result = ? WHERE upload_id = ?", (nameless, upload_id))
        with self._lock, suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log has what was there before

    def forget(self, before: float) -> None:
        """Uploads whose bytes were gone before that time."""
        with self._written() as db:
            db.execute("DELETE FROM uploads WHERE removed_at < ?", (before,))

    # -- files --------------------------------------------------------------------------------------------------------

    def announce(self, upload_id: str, files: list[Announced], now: float) -> list[FileRow]:
        """A row for each, in their order: the one that is there already, or a new one. Raises NotOpen."""
        with self._written() as db:
            self._require_open(db, upload_id)
            db.execute("UPDATE uploads SET touched_at = ? WHERE upload_id = ?", (now, upload_id))
            return [self._announced(db, upload_id, one) for one in files]

    def _announced(self, db: sqlite3.Connection, upload_id: str, one: Announced) -> FileRow:
        for row in map(_file, db.execute(_OF_PATH, (upload_id, one.path))):
            if row.state is FileState.LEFT:
                continue
            if _is_same(row, one):
                return row
            if row.state in (FileState.COMING, FileState.SAME):
                db.execute(
                    "UPDATE files SET state = ?, place = '-' || number WHERE upload_id = ? AND number = ?",
                    (FileState.LEFT, upload_id, row.number),
                )
                # What was to be copied from it comes by itself.
                db.execute(
                    "UPDATE files SET state = ?, same_as = NULL WHERE upload_id = ? AND same_as = ? AND state = ?",
                    (FileState.COMING, upload_id, row.number, FileState.SAME),
                )
        same = None
        if one.sha256 and one.size_bytes:
            same = db.execute(
                "SELECT number FROM files WHERE upload_id = ? AND sha256 = ? AND size_bytes = ?"
                " AND state IN ('coming', 'there') ORDER BY number LIMIT 1",
                (upload_id, one.sha256, one.size_bytes),
            ).fetchone()
        (number,) = db.execute(
            "SELECT COALESCE(MAX(number), 0) + 1 FROM files WHERE upload_id = ?", (upload_id,)
        ).fetchone()
        found = FileRow(
            number,
            one.path,
            one.size_bytes,
            one.sha256,
            one.modified,
            FileState.COMING if same is None else FileState.SAME,
            None if same is None else same["number"],
            _place(db, upload_id, one.path, number),
        )
        db.execute(
            "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                upload_id,
                number,
                one.path,
                one.size_bytes,
                one.sha256,
                one.modified,
                found.state,
                found.same_as,
                found.place,
            ),
        )
        return found

    @staticmethod
    def _require_open(db: sqlite3.Connection, upload_id: str) -> None:
        if db.execute("SELECT 1 FROM uploads WHERE upload_id = ? AND stage = 'open'", (upload_id,)).fetchone() is None:
            raise NotOpen("the upload takes no files any more")

    def file(self, upload_id: str, number: int) -> FileRow | None:
        rows = self._read("SELECT * FROM files WHERE upload_id = ? AND number = ?", upload_id, number)
        return _file(rows[0]) if rows else None

    def files(self, upload_id: str, *states: FileState) -> list[FileRow]:
        marks = ", ".join("?" * len(states))
        return [
            _file(row)
            for row in self._read(
                f"SELECT * FROM files WHERE upload_id = ? AND state IN ({marks}) ORDER BY number", upload_id, *states
            )
        ]

    def is_there(self, upload_id: str, number: int, now: float) -> None:
        """Unless another content has taken its place meanwhile."""
        with self._written() as db:
            db.execute(
                "UPDATE files SET state = ? WHERE upload_id = ? AND number = ? AND state <> ?",
                (FileState.THERE, upload_id, number, FileState.LEFT),
            )
            db.execute("UPDATE uploads SET touched_at = ? WHERE upload_id = ?", (now, upload_id))

    def sums(self, upload_id: str) -> Sums:
        [row] = self._read(
            "SELECT COUNT(*) AS files, COALESCE(SUM(size_bytes), 0) AS size_bytes,"
            " COALESCE(SUM(state = 'there'), 0) AS there,"
            " COALESCE(SUM(CASE WHEN state = 'there' THEN size_bytes END), 0) AS there_bytes"
            " FROM files WHERE upload_id = ? AND state <> 'left'",
            upload_id,
        )
        return Sums(row["files"], row["size_bytes"], row["there"], row["there_bytes"])

    def names(self, upload_id: str) -> dict[str, str]:
        """What files are called where they come from, by their places."""
        return {
            row["place"]: row["path"]
            for row in self._read("SELECT place, path FROM files WHERE upload_id = ?", upload_id)
        }

    def promised_bytes(self) -> int:
        """Of all uploads whose bytes are not removed."""
        [row] = self._read(
            "SELECT COALESCE(SUM(size_bytes), 0) AS promised FROM files JOIN uploads USING (upload_id)"
            " WHERE removed_at IS NULL AND stage IN ('open', 'whole', 'handed in') AND state <> 'left'"
        )
        return int(row["promised"])


_NAMELESS = "a file"
_OF_PATH = "SELECT * FROM files WHERE upload_id = ? AND path = ? ORDER BY number"


def _place(db: sqlite3.Connection, upload_id: str, path: str, number: int) -> str:
    """Its own name, unless another file has it, or is where a folder of it would be, or the other way round."""
    place = as_it_is(path)
    if place is None:
        return made_up(path, number)
    names = [place, *folders_of(place)]
    marks = ", ".join("?" * len(names))
    taken = db.execute(
        f"SELECT 1 FROM files WHERE upload_id = ? AND (place IN ({marks}) OR (place > ? AND place < ?)) LIMIT 1",
        (upload_id, *names, f"{place}/", f"{place}0"),  # "0" comes after "/"
    ).fetchone()
    return place if taken is None else made_up(path.rpartition("/")[2], number)


def _nameless(result: dict[str, Any]) -> dict[str, Any]:
    return {
        **result,
        "failed": [{**one, "name": _NAMELESS} for one in result.get("failed") or []],
        "not_opened": [_NAMELESS for _ in result.get("not_opened") or []],
    }


def _is_same(row: FileRow, one: Announced) -> bool:
    """By its hash alone. Two discs have images of the same names and sizes, and the same time where whoever burnt them
    has written none."""
    return bool(one.sha256) and (row.size_bytes, row.sha256) == (one.size_bytes, one.sha256)


def _upload(row: sqlite3.Row) -> UploadRow:
    return UploadRow(
        row["upload_id"],
        row["owner"],
        Stage(row["stage"]),
        row["created_at"],
        row["touched_at"],
        row["daemon_id"],
        None if row["result"] is None else json.loads(row["result"]),
        row["note"],
        row["removed_at"],
    )


def _file(row: sqlite3.Row) -> FileRow:
    return FileRow(
        row["number"],
        row["path"],
        row["size_bytes"],
        row["sha256"],
        row["modified"],
        FileState(row["state"]),
        row["same_as"],
        row["place"],
    )
