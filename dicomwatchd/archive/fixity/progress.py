"""How far a verification of the whole archive has come, and what was found: a small database in the state directory.

It belongs to one archive and one source. What is in it is committed every few seconds, so a run that was interrupted
goes on where it was, and its findings are not lost. It holds UIDs and keys, and nothing of a patient.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from dicomwatchd.archive.fixity.findings import Finding, Outcome, Proof, StudyVerdict
from dicomwatchd.errors import Fatal, Permanent, Transient
from dicomwatchd.model import Uid
from dicomwatchd.ports import Clock, timestamp

FILE = "archive-verification.db"
_LOCK = "archive-verification.lock"
_VERSION = 1
_COMMIT_SECONDS = 2.0
#: So many findings are kept, of all studies; all are counted.
MOST_FINDINGS = 100_000
_BUSY_SECONDS = 10.0
_HINT = "run this as root or as the daemon's user, or name another folder with --state-directory"

_TABLES = """
CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE studies (study_uid TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE findings (study_uid TEXT NOT NULL, kind TEXT NOT NULL, object_key TEXT NOT NULL, reason TEXT NOT NULL);
"""


@dataclass(slots=True)
class Totals:
    """What was counted so far. ``studies`` are those that the catalogue or a manifest names; each has one outcome, and
    one that is proven the weakest proof of its objects (``studies_by``). ``objects`` are on record; by what they are
    proven says ``objects_by``. ``in_no_manifest`` objects, of so many bytes, are listed by no manifest and more than a
    day old; ``on_their_way`` are younger; ``copies`` hold what is listed elsewhere; ``derived`` are series objects,
    with which nothing is lost. ``other_keys`` are below ``studies/`` and no study's. ``left_erased`` are studies that
    were erased, and of which something is still there: they have a problem, too. ``findings`` are counted by kind, of
    objects and of studies."""

    studies: int = 0
    proven: int = 0
    not_covered: int = 0
    unproven: int = 0
    with_problems: int = 0
    studies_by: Counter[str] = field(default_factory=Counter)
    objects: int = 0
    objects_by: Counter[str] = field(default_factory=Counter)
    instances: int = 0
    size_bytes: int = 0
    studies_with_damaged_instances: int = 0
    damaged_instances: int = 0
    in_no_manifest: int = 0
    in_no_manifest_bytes: int = 0
    on_their_way: int = 0
    copies: int = 0
    derived: int = 0
    other_keys: int = 0
    listed_again: int = 0
    left_erased: int = 0
    findings: Counter[str] = field(default_factory=Counter)

    def add(self, verdict: StudyVerdict) -> None:
        self.in_no_manifest += verdict.in_no_manifest
        self.in_no_manifest_bytes += verdict.in_no_manifest_bytes
        self.on_their_way += verdict.on_their_way
        self.copies += verdict.copies
        self.derived += verdict.derived
        if not verdict.is_named:
            return
        self.studies += 1
        self.proven += verdict.outcome is Outcome.PROVEN
        self.not_covered += verdict.outcome is Outcome.NOT_COVERED
        self.unproven += verdict.outcome is Outcome.UNPROVEN
        self.with_problems += verdict.outcome is Outcome.PROBLEM
        if verdict.outcome is Outcome.PROVEN:
            self.studies_by[verdict.proof or Proof.SIZE] += 1
        self.objects += verdict.objects
        self.objects_by.update(verdict.proofs)
        self.instances += verdict.instances
        self.size_bytes += verdict.size_bytes
        self.studies_with_damaged_instances += verdict.damaged_instances > 0
        self.damaged_instances += verdict.damaged_instances
        self.listed_again += verdict.listed_again
        self.left_erased += verdict.counts.get("left-erased", 0) > 0
        self.findings.update(verdict.counts)

    def document(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Totals:
        known = {one.name for one in fields(cls)}
        counted: dict[str, Any] = {
            name: Counter(value) if isinstance(value, dict) else value for name, value in raw.items() if name in known
        }
        return cls(**counted)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as it is kept. Times are UTC, ISO 8601, with "Z". ``as_of``: see `Source`. ``after`` is the key behind
    which it goes on, None when the store has been gone through; ``finished_at`` is None until all is done."""

    archive_id: str
    destination: str
    source: str
    source_identity: str
    hashing: bool
    started_at: str
    updated_at: str
    as_of: str | None = None
    finished_at: str | None = None
    after: str | None = ""
    resumed: int = 0
    #: What was counted in the reports that it goes by.
    reports: dict[str, int] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)

    def is_of(self, other: RunRecord) -> bool:
        return (self.archive_id, self.destination, self.source_identity, self.hashing) == (
            other.archive_id,
            other.destination,
            other.source_identity,
            other.hashing,
        )

    @classmethod
    def of(cls, text: str) -> RunRecord:
        raw = json.loads(text)
        known = {one.name for one in fields(cls)}
        raw = {name: value for name, value in raw.items() if name in known}
        return cls(**{**raw, "totals": Totals.of(raw["totals"])})

    def text(self) -> str:
        raw: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        return json.dumps({**raw, "totals": self.totals.document()}, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of runs: of the one under way or the last one, and of the last one that came to its end."""

    run: RunRecord
    last_complete: RunRecord | None
    is_running: bool

    @property
    def state(self) -> str:
        """ "running", "interrupted" or "finished": of ``run``."""
        if self.run.finished_at is not None:
            return "finished"
        return "running" if self.is_running else "interrupted"


class Progress:
    """The progress of one run; whoever has it is the only one that has. Raises Transient where it cannot be written."""

    def __init__(self, folder: Path, connection: sqlite3.Connection, run: RunRecord, clock: Clock) -> None:
        self._folder, self._connection, self._clock = folder, connection, clock
        self.run = run
        self._committed_at = clock.monotonic()
        (self._findings,) = connection.execute("SELECT count(*) FROM findings").fetchone()

    def has(self, study: Uid) -> bool:
        """Whether a study has been gone through in this run."""
        with _translated(self._folder):
            found = self._connection.execute("SELECT 1 FROM studies WHERE study_uid = ?", (study,)).fetchone()
        return found is not None

    def add(self, verdict: StudyVerdict) -> None:
        with _translated(self._folder):
            self._connection.execute("INSERT OR IGNORE INTO studies VALUES (?)", (verdict.study_uid,))
            for one in verdict.findings[: MOST_FINDINGS - self._findings]:
                self._connection.execute(
                    "INSERT INTO findings VALUES (?, ?, ?, ?)", (verdict.study_uid, one.kind, one.key, one.reason)
                )
                self._findings += 1
        self.run.totals.add(verdict)

    def reached(self, after: str | None) -> None:
        """All before is done. It is on the disk a few seconds later."""
        self.run = replace(self.run, after=after)
        if self._clock.monotonic() - self._committed_at >= _COMMIT_SECONDS:
            self.commit()

    def finish(self) -> None:
        now = timestamp(self._clock.now())
        self.run = replace(self.run, after=None, updated_at=now, finished_at=now)
        with _translated(self._folder):
            self._put("last_complete", self.run)
            self._connection.execute("DELETE FROM studies")
        self.commit()

    def commit(self) -> None:
        self.run = replace(self.run, updated_at=self.run.finished_at or timestamp(self._clock.now()))
        with _translated(self._folder):
            self._put("run", self.run)
            self._connection.commit()
        self._committed_at = self._clock.monotonic()

    def findings(self) -> Iterator[tuple[str, Finding]]:
        return _findings(self._connection)

    def _put(self, name: str, run: RunRecord) -> None:
        self._connection.execute("INSERT OR REPLACE INTO run VALUES (?, ?)", (name, run.text()))


@contextmanager
def opened(
    folder: Path, wanted: RunRecord, clock: Clock, *, restart: bool, note: Callable[[str], None]
) -> Iterator[Progress]:
    """The progress of the run that is ``wanted``: one that was interrupted goes on, unless it was of another archive or
    another source, or ``restart`` says otherwise; ``note`` is told. What has been done is committed where an error ends
    it; where a person does, who may come between any two steps, what was committed a few seconds before counts. Raises
    Fatal where the folder cannot be used, or another run has it; Transient."""
    with ExitStack() as stack:
        with _translated(folder):
            lock_fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            stack.callback(os.close, lock_fd)
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Fatal(
                    "a verification of the archive is running already",
                    code="verification-running",
                    hint="dicomwatchctl archive verify --status shows how far it is",
                ) from error
            connection, kept = _database(folder, note)
            stack.callback(connection.close)
            _give_to_owner(folder)
            run = _begin(connection, kept, wanted, restart=restart, note=note)
            progress = Progress(folder, connection, run, clock)
            progress.commit()
        try:
            yield progress
        except Exception:
            progress.commit()
            raise


def _begin(
    connection: sqlite3.Connection,
    kept: RunRecord | None,
    wanted: RunRecord,
    *,
    restart: bool,
    note: Callable[[str], None],
) -> RunRecord:
    if kept is not None and kept.finished_at is None:
        if kept.archive_id != wanted.archive_id:
            note("the run that was interrupted was of another archive: this one begins anew")
        elif not kept.is_of(wanted):
            note("the run that was interrupted had another source or other options: this one begins anew")
        elif not restart:
            note(
                f"going on with the run of {kept.started_at}, which was interrupted at {kept.updated_at} after "
                f"{kept.totals.studies:,} studies; --restart begins anew"
            )
            return replace(kept, resumed=kept.resumed + 1)
    connection.execute("DELETE FROM studies")
    connection.execute("DELETE FROM findings")
    return wanted


def read(folder: Path, patience_seconds: float = _BUSY_SECONDS) -> Kept | None:
    """What is kept in this folder; None where there is nothing. Raises Fatal where it cannot be read, Transient where
    a run is just writing it."""
    with _reading(folder, patience_seconds) as connection:
        run = None if connection is None else _kept(connection, "run")
        if connection is None or run is None:
            return None
        return Kept(run, _kept(connection, "last_complete"), _is_locked(folder))


def findings(folder: Path) -> list[tuple[str, Finding]]:
    """Of the run under way or the last one, with the study's UID. Raises as `read`."""
    with _reading(folder, _BUSY_SECONDS) as connection:
        return [] if connection is None else list(_findings(connection))


@contextmanager
def _reading(folder: Path, patience_seconds: float) -> Iterator[sqlite3.Connection | None]:
    with _translated(folder), ExitStack() as stack:
        try:
            os.close(os.open(folder / FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
        except FileNotFoundError:
            yield None
            return
        # Where a run was killed in the midst of a write, only who may write can put that right, and read.
        for mode in ("rw", "ro"):
            connection = _connect(folder, mode, patience_seconds)
            stack.callback(connection.close)
            try:
                connection.execute("SELECT count(*) FROM run").fetchone()
            except sqlite3.OperationalError:
                if mode == "ro":
                    raise
            else:
                break
        yield connection


def _is_locked(folder: Path) -> bool:
    try:
        lock_fd = os.open(folder / _LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock_fd)
    return False


def _database(folder: Path, note: Callable[[str], None]) -> tuple[sqlite3.Connection, RunRecord | None]:
    """What cannot be read is no progress: it is made anew."""
    try:
        return _open(folder)
    except (sqlite3.DatabaseError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        note("what was kept of an earlier run cannot be read: this one begins anew")
        for suffix in ("", "-journal"):
            with suppress(FileNotFoundError):
                (folder / f"{FILE}{suffix}").unlink()
        return _open(folder)


def _open(folder: Path) -> tuple[sqlite3.Connection, RunRecord | None]:
    os.close(os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    with ExitStack() as stack:
        connection = _connect(folder, "rw")
        stack.callback(connection.close)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise ValueError("another version's")
        kept = _kept(connection, "run")
        stack.pop_all()
    return connection, kept


def _connect(folder: Path, mode: str, patience_seconds: float = _BUSY_SECONDS) -> sqlite3.Connection:
    return sqlite3.connect(f"{(folder / FILE).absolute().as_uri()}?mode={mode}", uri=True, timeout=patience_seconds)


def _kept(connection: sqlite3.Connection, name: str) -> RunRecord | None:
    row = connection.execute("SELECT value FROM run WHERE name = ?", (name,)).fetchone()
    return None if row is None else RunRecord.of(row[0])


def _findings(connection: sqlite3.Connection) -> Iterator[tuple[str, Finding]]:
    rows = connection.execute("SELECT study_uid, kind, object_key, reason FROM findings ORDER BY rowid")
    return ((study, Finding(kind, key, reason)) for study, kind, key, reason in rows)


def _give_to_owner(folder: Path) -> None:
    """What root makes in the daemon's folder is the daemon's."""
    if os.geteuid() != 0:
        return
    owner = folder.stat()
    for name in (FILE, _LOCK):
        os.chown(folder / name, owner.st_uid, owner.st_gid, follow_symlinks=False)


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise Fatal(
            "the progress of the verification cannot be kept there", code="state-closed", hint=_HINT, path=str(folder)
        ) from error
    except OSError as error:
        raise Fatal(
            "the folder for the progress of the verification cannot be used",
            code="verification-state",
            hint=_HINT,
            path=str(folder),
        ) from error
    except sqlite3.OperationalError as error:
        raise Transient(
            "the progress of the verification cannot be written", code="verification-state", hint=_HINT
        ) from error
    except sqlite3.DatabaseError as error:
        raise Permanent(
            "what is kept of the verification is damaged", code="verification-state", hint="--restart"
        ) from error
