"""Opening the state database: its version gate, its upgrade, and the rule of a single writer."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from dicomwatchd import markers
from dicomwatchd.errors import StateFailed, StateUnavailable, Stopping
from dicomwatchd.localfiles import open_root
from dicomwatchd.queue.database.steps import STEPS, Step
from dicomwatchd.queue.rows import Transition

DATABASE = "state.db"
VERSION = len(STEPS)


class Transaction:
    """What is written together, or not at all. ``transitions`` are those of studies in it; `transitions.move` alone
    adds to them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.execute, self.executemany = connection.execute, connection.executemany
        self.transitions: list[Transition] = []


#: For a query that is asked within a transaction and outside of any.
Readable = sqlite3.Connection | Transaction


class Database:
    """The one connection. Every change runs inside `write()`: BEGIN IMMEDIATE, durable when it returns. ``announce``
    gets each transition of a study once it is durable. Once the database is closed both raise Stopping: who comes then
    was left behind at a stop, and another daemon may have the state."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        lock_fd: int | None,
        announce: Callable[[Transition], None] = lambda _: None,
    ) -> None:
        self._connection = connection
        self._lock_fd = lock_fd
        self._announce = announce
        self._mutex = threading.RLock()
        self._is_closed = False
        #: Why the last change could not be written; None once one could be.
        self.unwritten: str | None = None
        #: Around every use: whoever is busy with something that others watch says so that he waits for the state now.
        self.around: Callable[[], AbstractContextManager[None]] = nullcontext

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """One transaction, rolled back on any exception, after which nothing is announced. Not to be nested."""
        with self.around(), self._mutex, self._noted(), _translated():
            self._require_open()
            transaction = Transaction(self._connection)
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield transaction
                self._connection.execute("COMMIT")
            except BaseException:
                # A full or broken disk may have ended the transaction by itself, or left it open when it could not be
                # committed: then it would swallow all that is written from now on.
                if self._connection.in_transaction:
                    with suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")
                raise
        # Out of the lock and of `_translated`: nobody waits for the state meanwhile, and no error here is the state's.
        for transition in transaction.transitions:
            self._announce(transition)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Within the lock: of two changes, the later one's word counts."""
        try:
            yield
        except StateUnavailable as error:
            self.unwritten = error.message
            raise
        self.unwritten = None

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        with self.around(), self._mutex, _translated():
            self._require_open()
            yield self._connection

    def _require_open(self) -> None:
        if self._is_closed:
            raise Stopping("the state is closed")

    def close(self) -> None:
        with self._mutex:
            self._is_closed = True
            self._connection.close()
            if self._lock_fd is not None:
                os.close(self._lock_fd)
                self._lock_fd = None


def open_writer(
    state_directory: Path, steps: Sequence[Step] = STEPS, *, announce: Callable[[Transition], None] = lambda _: None
) -> Database:
    """Open the state for the daemon, making it where there is none and bringing an older one up to date, each step
    whole or not at all. Raises Fatal when another daemon has it, when it is damaged, or when a newer program wrote
    it; Transient when the disk is full."""
    path = state_directory / DATABASE
    with ExitStack() as stack, _translated():
        lock_fd = os.open(state_directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, lock_fd)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateFailed("another dicomwatchd is running on this state directory", code="state-locked") from error
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = _connect(f"file:{_quoted(path)}?mode=rw")
        stack.callback(connection.close)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(steps):
            raise StateFailed("the state database was written by a newer dicomwatchd", code="state-newer")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        for number, step in list(enumerate(steps, 1))[version:]:
            connection.executescript(f"BEGIN IMMEDIATE; {step.sql} PRAGMA user_version = {number}; COMMIT;")
        _mark(state_directory)
        stack.pop_all()
    return Database(connection, lock_fd, announce)


def _mark(state_directory: Path) -> None:
    """So that no inbox takes the state for exports, under whatever path it lies in one. Without a mark the database
    itself tells, so a full disk stops nothing here."""
    with suppress(OSError):
        fd = open_root(os.fsencode(state_directory))
        try:
            markers.write(fd, markers.STATE, markers.STATE_TEXT)
        finally:
            os.close(fd)


def open_reader(state_directory: Path) -> Database | None:
    """Open the state to look at it while no daemon runs; None where there is none, or nothing in it yet."""
    path = state_directory / DATABASE
    with ExitStack() as stack, _translated():
        if not path.exists():
            return None
        connection = _connect(f"file:{_quoted(path)}?mode=ro")
        stack.callback(connection.close)
        connection.execute("PRAGMA query_only = ON")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            return None
        if version != VERSION:
            raise StateFailed("the state database belongs to another version of dicomwatchd", code="state-version")
        stack.pop_all()
    return Database(connection, None)


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
    connection.row_factory = sqlite3.Row
    return connection


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown").lower()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StateUnavailable(
                "the disk with the daemon's state is full", code="state-full", endpoint="state"
            ) from error
        raise StateFailed(
            f"the state directory cannot be used ({name})",
            code="state-directory",
            hint="check its owner and permissions",
        ) from error
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "SQLITE_ERROR") or "SQLITE_ERROR"
        code = "state-" + name.removeprefix("SQLITE_").lower().replace("_", "-")
        if name.startswith("SQLITE_FULL"):
            raise StateUnavailable(
                "the disk with the daemon's state is full", code="state-full", endpoint="state"
            ) from error
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise StateUnavailable(
                "the state database cannot be written at the moment", code=code, endpoint="state"
            ) from error
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise StateFailed(
                "the state database is damaged",
                code=code,
                hint="move state.db* away; the next start rebuilds the state from the inboxes and the archive",
            ) from error
        raise StateFailed("the state database failed", code=code) from error
