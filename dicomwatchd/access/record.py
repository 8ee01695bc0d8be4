"""The record of access: who has looked at which study, and when. Append-only, each entry holding the hash of the one
before it, in a SQLite file of its own.

An entry is canonical JSON (sorted keys, no spaces, ASCII), and its hash the SHA-256 of exactly those bytes: the chain
can be checked with nothing but the entries. What a chain cannot tell by itself is that its newest entries were cut off,
so its head is in the log, again and again (the event "web-access-head").

Nothing here removes an entry, ever. What is in it are people's names and studies' UIDs: the file is its owner's alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomwatchd.errors import StateFailed, StateUnavailable
from dicomwatchd.model import Uid

FILE_NAME = "access.sqlite"
FIRST = "0" * 64
SCHEMA_VERSION = 1
#: "DcmA": tells our file from another program's (sqlite.org/pragma.html#pragma_application_id).
APPLICATION_ID = 0x44636D41

_SCHEMA = f"""
CREATE TABLE access (
    sequence INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    person TEXT NOT NULL,
    action TEXT NOT NULL,
    study_uid TEXT NOT NULL,
    entry TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE INDEX access_by_person ON access (person, sequence);
CREATE INDEX access_by_study ON access (study_uid, sequence);
CREATE INDEX access_by_time ON access (at, sequence);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""
_PAGE_ROWS = 1000
_BUSY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Access:
    """One entry. ``at`` is in seconds since the epoch."""

    sequence: int
    at: float
    person: str
    action: str
    study_uid: str
    hash: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for; None is anything. ``since`` is included, ``before`` is not."""

    person: str | None = None
    study_uid: str | None = None
    since: float | None = None
    before: float | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """``broken_at`` is the first entry that does not fit, None where all do; ``head`` the hash of the last that
    does."""

    broken_at: int | None
    entries: int
    head: str


class AccessRecord:
    """Safe to use from many threads. ``writing``: it is made where there is none, and belongs to this process."""

    def __init__(self, folder: Path, *, writing: bool) -> None:
        """Raises StateFailed, StateUnavailable."""
        self._path = folder / FILE_NAME
        self._lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        if writing:
            with _translated("open"):
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
                self._writer = self._connected(f"{self._path.as_uri()}?mode=rw")
                self._prepare(self._writer)

    def close(self) -> None:
        with self._lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def append(self, at: float, person: str, action: str, study_uid: Uid) -> None:
        """On disk when it returns. Raises StateFailed, StateUnavailable."""
        self.append_each(at, person, action, [study_uid])

    def append_each(self, at: float, person: str, action: str, study_uids: Sequence[Uid]) -> None:
        """An entry for each study, in this order; all of them on disk when it returns, or none. Raises StateFailed,
        StateUnavailable."""
        with self._lock, _translated("write"):
            if self._writer is None:
                raise StateFailed("the record of access is closed", code="state-access")
            with self._writer as db:
                db.execute("BEGIN IMMEDIATE")
                row = db.execute("SELECT sequence, hash FROM access ORDER BY sequence DESC LIMIT 1").fetchone()
                sequence, previous = (row["sequence"], row["hash"]) if row else (0, FIRST)
                for study_uid in study_uids:
                    sequence += 1
                    entry = _canonical(
                        {
                            "sequence": sequence,
                            "previous": previous,
                            "at": at,
                            "person": person,
                            "action": action,
                            "study_uid": study_uid,
                        }
                    )
                    previous = _hash(entry)
                    db.execute(
                        "INSERT INTO access VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (sequence, at, person, action, study_uid, entry, previous),
                    )

    def head(self) -> tuple[int, str]:
        """(number, hash) of the newest entry; 0 and `FIRST` while there is none. Raises as `search`."""
        with _translated("read"), self._reading() as db:
            row = db.execute("SELECT sequence, hash FROM access ORDER BY sequence DESC LIMIT 1").fetchone()
        return (row["sequence"], row["hash"]) if row else (0, FIRST)

    def search(self, wanted: Wanted, *, before_sequence: int | None = None, limit: int = _PAGE_ROWS) -> list[Access]:
        """The newest first, at most ``limit`` of them, older than ``before_sequence``. Raises StateFailed,
        StateUnavailable."""
        clauses = {
            "person = ?": wanted.person,
            "study_uid = ?": wanted.study_uid,
            "at >= ?": wanted.since,
            "at < ?": wanted.before,
            "sequence < ?": before_sequence,
        }
        given = {clause: value for clause, value in clauses.items() if value is not None}
        where = f"WHERE {' AND '.join(given)}" if given else ""
        with _translated("read"), self._reading() as db:
            rows = db.execute(
                f"SELECT * FROM access {where} ORDER BY sequence DESC LIMIT ?", (*given.values(), limit)
            ).fetchall()
        return [
            Access(row["sequence"], row["at"], row["person"], row["action"], row["study_uid"], row["hash"])
            for row in rows
        ]

    def check(self) -> Checked:
        """The whole chain, entry by entry. Raises as `search`."""
        expected, previous = 1, FIRST
        for row in self._rows():
            if not _fits(row, expected, previous):
                return Checked(expected, expected - 1, previous)
            expected, previous = expected + 1, row["hash"]
        return Checked(None, expected - 1, previous)

    def _rows(self) -> Iterator[sqlite3.Row]:
        after = 0
        while True:
            with _translated("read"), self._reading() as db:
                rows = db.execute(
                    "SELECT * FROM access WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, _PAGE_ROWS)
                ).fetchall()
            yield from rows
            if len(rows) < _PAGE_ROWS:
                return
            after = rows[-1]["sequence"]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own: a search holds up nobody who has to write."""
        if not self._path.exists():
            raise StateUnavailable("there is no record of access yet", code="state-access")
        with closing(self._connected(f"{self._path.as_uri()}?mode=ro")) as db:
            self._require_ours(db)
            yield db

    @staticmethod
    def _connected(uri: str) -> sqlite3.Connection:
        db = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        if db.execute("PRAGMA schema_version").fetchone()[0] == 0:  # nothing was ever made in it
            db.execute("PRAGMA journal_mode = DELETE")
            db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
        self._require_ours(db)
        db.execute("PRAGMA synchronous = FULL")

    @staticmethod
    def _require_ours(db: sqlite3.Connection) -> None:
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StateFailed("the file of the record of access is another program's", code="state-access")
        if db.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
            raise StateFailed("the record of access was written by a newer version", code="state-access")


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise StateUnavailable(f"cannot {doing} the record of access", code="state-access") from error
    except sqlite3.Error as error:
        raise StateFailed(f"cannot {doing} the record of access: it is damaged", code="state-access") from error


def _fits(row: sqlite3.Row, expected: int, previous: str) -> bool:
    try:
        body = json.loads(row["entry"])
    except ValueError:
        return False
    columns: dict[str, Any] = {name: row[name] for name in ("sequence", "at", "person", "action", "study_uid")}
    return (
        isinstance(body, dict)
        and row["hash"] == _hash(row["entry"])
        and body == {**columns, "previous": previous}
        and row["sequence"] == expected
        and row["entry"] == _canonical(body)
    )


def _canonical(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _hash(entry: str) -> str:
    return hashlib.sha256(entry.encode("ascii")).hexdigest()
