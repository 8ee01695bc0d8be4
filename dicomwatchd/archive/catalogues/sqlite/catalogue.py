"""The embedded catalogue: studies and series in one SQLite file, which may lie on a network share.

Every call opens the file and closes it again: nothing is held between calls, so several processes get along, a
file that was replaced is seen, and no lock outlives its call.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dicomwatchd.archive.catalogues.port import OLD_RECORDS
from dicomwatchd.archive.catalogues.sqlite.search_tables import (
    PAGE_ROWS,
    has_modalities,
    has_unindexed,
    index_study,
    keys_below,
    make_search_tables,
    planned,
    select_documents,
)
from dicomwatchd.archive.documents import (
    REBUILD_HINT,
    index_text,
    matches,
    read_study,
    series_document,
    study_document,
)
from dicomwatchd.archive.records import NO_DATE, Query, StudyRecord
from dicomwatchd.archive.stores.port import InitStep
from dicomwatchd.config.archive import SqliteSettings
from dicomwatchd.errors import (
    ArchiveRefused,
    DicomwatchdError,
    NotInitialised,
    NotThere,
    OutOfReach,
    RevisionConflict,
    Transient,
)
from dicomwatchd.model import Uid

SCHEMA_VERSION = 1
#: "DcmW": tells our file from another program's (sqlite.org/pragma.html#pragma_application_id).
APPLICATION_ID = 0x44636D57

INIT_HINT = "dicomwatchctl archive init"

_SCHEMA = f"""
CREATE TABLE identity (archive_id TEXT NOT NULL);
CREATE TABLE studies (
    study_uid TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    accession_number TEXT NOT NULL,
    study_date TEXT NOT NULL,
    archived_at TEXT NOT NULL,
    document TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE series (
    study_uid TEXT NOT NULL,
    series_uid TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (study_uid, series_uid)
) WITHOUT ROWID;
CREATE INDEX by_patient ON studies (patient_id, study_date, study_uid);
CREATE INDEX by_accession ON studies (accession_number, study_date, study_uid);
CREATE INDEX by_study_date ON studies (study_date, study_uid);
CREATE INDEX by_archived_at ON studies (archived_at);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""


class SqliteCatalogue:
    """The catalogue port on a SQLite file. Safe from many threads and processes.

    A file that is gone while a study is read or written counts as out of reach: the share it lies on may come
    back. Only `check` and `identity`, which come first, say NotInitialised. ``busy_seconds`` is how long to wait
    for another process's write.
    """

    def __init__(self, settings: SqliteSettings, *, busy_seconds: float = 30) -> None:
        self._path = settings.path
        self._busy_seconds = busy_seconds

    @property
    def name(self) -> str:
        return f"sqlite|{self._path}"

    def get(self, study_uid: Uid) -> StudyRecord | None:
        with self._reading() as database:
            row = database.execute(select_documents(database, "WHERE studies.study_uid = ?"), (study_uid,)).fetchone()
            series = database.execute(
                "SELECT document FROM series WHERE study_uid = ? ORDER BY series_uid", (study_uid,)
            ).fetchall()
        return read_study(row[2], (document for (document,) in series), row[3]) if row else None

    def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
        ours = (record.revision, record.manifest_sha256)
        study = (
            record.study_uid,
            *ours,
            index_text(record.patient_id),
            index_text(record.accession_number),
            record.study_date,
            index_text(record.archived_at),
            study_document(record),
        )
        series = [(record.study_uid, one.series_uid, series_document([one])) for one in record.series]
        with self._writing() as database:
            there = database.execute(
                "SELECT revision, manifest_sha256 FROM studies WHERE study_uid = ?", (record.study_uid,)
            ).fetchone()
            if there and there != ours and there[0] >= record.revision:
                raise RevisionConflict(f"the catalogue holds another revision {there[0]} of the study")
            if instead_of is not None and there != ours and (there is None or there[1] != instead_of):
                raise RevisionConflict("the catalogue does not hold the revision that was gone on from")
            make_search_tables(database)
            database.execute("INSERT OR REPLACE INTO studies VALUES (?, ?, ?, ?, ?, ?, ?, ?)", study)
            index_study(database, record)
            database.execute("DELETE FROM series WHERE study_uid = ?", (record.study_uid,))
            database.executemany("INSERT INTO series VALUES (?, ?, ?)", series)

    def search(self, query: Query) -> Iterator[StudyRecord]:
        """Page by page: an open cursor would keep every writer waiting for as long as somebody reads the list."""
        last = ("99999999", "~")  # above every date and UID
        if query.before is not None:
            date, _, uid = query.before.partition("#")
            last = ("" if date == NO_DATE else date, uid)
        with self._reading() as database:
            plan = planned(database, query)
        while True:
            with self._reading() as database:
                keys = keys_below(database, plan, last)
            for at in range(0, len(keys), PAGE_ROWS):
                yield from self._matching(query, [uid for _, uid in keys[at : at + PAGE_ROWS]])
            if len(keys) < plan.rows:
                return
            last = keys[-1]

    def _matching(self, query: Query, uids: list[str]) -> Iterator[StudyRecord]:
        with self._reading() as database:
            marks = ",".join("?" * len(uids))
            documents = {
                row[1]: row[2:]
                for row in database.execute(select_documents(database, f"WHERE studies.study_uid IN ({marks})"), uids)
            }
        for uid in uids:
            if uid in documents:
                document, naming = documents[uid]
                record = read_study(document, (), naming)
                if matches(query, record):
                    yield record

    def shortcomings(self, query: Query) -> tuple[str, ...]:
        is_by_term = query.is_of_patient or query.accession_number or query.description or query.institution
        found = []
        with self._reading() as database:
            if is_by_term and has_unindexed(database):
                found.append(OLD_RECORDS)
            if query.modality and not (is_by_term or query.archived_from or has_modalities(database)):
                found.append(
                    f"the catalogue has no index of modalities: all studies of the given dates are read; `{INIT_HINT}`"
                    " makes it"
                )
        return tuple(found)

    def completed(self) -> None:
        """What is not indexed is on record, study by study."""

    def is_completed(self) -> bool:
        return True

    def study_uids(self) -> Iterator[Uid]:
        last = ""
        while True:
            with self._reading() as database:
                rows = database.execute(
                    "SELECT study_uid FROM studies WHERE study_uid > ? ORDER BY study_uid LIMIT ?",
                    (last, PAGE_ROWS),
                ).fetchall()
            yield from (Uid(uid) for (uid,) in rows)
            if len(rows) < PAGE_ROWS:
                return
            last = rows[-1][0]

    def identity(self) -> str | None:
        with self._reading(absent=_not_initialised) as database:
            return _identity(database)

    def check(self) -> None:
        with self._reading(absent=_not_initialised) as database:
            if _identity(database) is None:
                raise _not_initialised()

    def initialise(self, archive_id: str) -> list[InitStep]:
        """One transaction makes tables and identity, so that a crash leaves an empty file or a whole catalogue."""
        with _translated():
            self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            created = self._create_file()
        with self._connected() as database:
            database.execute("BEGIN IMMEDIATE")
            tables_made = _is_empty(database)
            if tables_made:
                # executescript would commit before it begins.
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
            _check_schema(database)
            there = _identity(database)
            search_made = there in (None, archive_id) and make_search_tables(database, however_large=True)
            if there not in (None, archive_id):
                raise ArchiveRefused("the catalogue belongs to another archive")
            if there is None:
                database.execute("INSERT INTO identity VALUES (?)", (archive_id,))
            database.execute("COMMIT")
        made = {True: "created", False: "present"}
        return [
            InitStep("catalogue file", made[created]),
            InitStep("catalogue tables", made[tables_made]),
            InitStep("catalogue search tables", made[search_made]),
            InitStep("catalogue identity", made[there is None]),
        ]

    def close(self) -> None:
        """Nothing is held between calls."""

    def _create_file(self) -> bool:
        """An empty file that only its owner and group can read: it will hold names of patients."""
        try:
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
        except FileExistsError:
            return False
        return True

    @contextmanager
    def _reading(self, absent: Callable[[], DicomwatchdError] | None = None) -> Iterator[sqlite3.Connection]:
        """One snapshot, in a transaction that cannot write."""
        with self._connected(absent) as database:
            database.execute("PRAGMA query_only = ON")
            database.execute("BEGIN")
            _check_schema(database)
            yield database

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as database:
            # A deferred transaction that turns into a writing one fails at once, however long we would wait.
            database.execute("BEGIN IMMEDIATE")
            _check_schema(database)
            yield database
            database.execute("COMMIT")

    @contextmanager
    def _connected(self, absent: Callable[[], DicomwatchdError] | None = None) -> Iterator[sqlite3.Connection]:
        """A connection for one call; what it does not commit is undone.

        Mode rw never makes a file, and reads one that is write-protected. Readers use it too where they may: with
        mode ro the journal that a killed writer left would keep everybody out, the restarted daemon first of all.
        """
        with _translated():
            try:
                self._path.stat()
            except FileNotFoundError as error:
                raise (absent or _gone)() from error
            with contextlib.closing(
                sqlite3.connect(
                    f"{self._path.absolute().as_uri()}?mode=rw",
                    uri=True,
                    timeout=self._busy_seconds,
                    isolation_level=None,
                )
            ) as database:
                # EXTRA also syncs the folder once the journal is gone: with FULL a power cut can undo a commit. The
                # journal is SQLite's default, no WAL: that needs shared memory on one host, and this may be a NAS.
                database.execute("PRAGMA synchronous = EXTRA")
                yield database


def _is_empty(database: sqlite3.Connection) -> bool:
    (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return bool(tables == 0 and version == 0)


def _check_schema(database: sqlite3.Connection) -> None:
    if _is_empty(database):
        raise _not_initialised()
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise ArchiveRefused("the catalogue file is a database of another program")
    if version != SCHEMA_VERSION:
        raise ArchiveRefused(
            f"the catalogue has schema version {version}, this program knows {SCHEMA_VERSION}",
            hint="it was written by a newer dicomwatchd; update this one",
        )


def _identity(database: sqlite3.Connection) -> str | None:
    row = database.execute("SELECT archive_id FROM identity").fetchone()
    return str(row[0]) if row else None


def _not_initialised() -> NotInitialised:
    return NotInitialised("the catalogue has not been created yet", hint=INIT_HINT)


def _gone() -> NotThere:
    return NotThere(
        "the catalogue file does not exist",
        hint=f"is its share mounted? If it has never been created: {INIT_HINT}",
        endpoint="catalogue file",
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(error) from error
    except OSError as error:
        raise OutOfReach(
            f"the catalogue file cannot be reached: {os.strerror(error.errno or 0)}", endpoint="catalogue file"
        ) from error


#: By SQLite's primary result code (sqlite.org/rescode.html). All of it heals, perhaps with an operator's help.
_REASONS = {
    sqlite3.SQLITE_BUSY: ("busy", "another process has locked it"),
    sqlite3.SQLITE_LOCKED: ("busy", "another process has locked it"),
    sqlite3.SQLITE_PROTOCOL: ("busy", "file locking does not work at the moment"),
    sqlite3.SQLITE_FULL: ("store-full", "its disk is full"),
    sqlite3.SQLITE_IOERR: ("out-of-reach", "its disk or share reports errors"),
    sqlite3.SQLITE_CANTOPEN: ("out-of-reach", "it cannot be opened: check its permissions and its share"),
    sqlite3.SQLITE_PERM: ("credentials", "its permissions do not allow it"),
    sqlite3.SQLITE_AUTH: ("credentials", "its permissions do not allow it"),
    # Somebody who may only read also gets here after a writer was killed: the next writer puts the file right.
    sqlite3.SQLITE_READONLY: ("credentials", "it cannot be written: check its permissions and its share"),
}


def _translate(error: sqlite3.Error) -> DicomwatchdError:
    code = getattr(error, "sqlite_errorcode", 0)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return ArchiveRefused(
            f"the catalogue file is damaged: {name}",
            code="catalogue-damaged",
            hint=f"move it away, then {INIT_HINT} and {REBUILD_HINT}",
        )
    kind, reason = _REASONS.get(code & 0xFF, ("catalogue-error", ""))
    what = f"the catalogue file failed: {name}"
    known = code & 0xFF in _REASONS
    raised = OutOfReach if known else Transient
    return raised(what, code=kind, hint=reason or None, endpoint="catalogue file")
