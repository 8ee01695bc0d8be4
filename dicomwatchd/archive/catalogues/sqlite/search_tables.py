"""What the SQLite catalogue is searched by: its tables of terms, and what a query asks of them.

The tables stand beside those that every version has. A file without them is searched by its studies alone.

A search reads no more than it has to: in the order of the answer, along an index that is in that order, where there is
one (dates, modalities, no patient ID, no accession number); else the keys of all studies that have one of the terms
that are asked for, which are sorted; and where there are very many of them, or fewer of the dates, it looks at the
studies one by one, newest first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from dicomwatchd.archive.documents import (
    accession_numbers,
    description,
    folded_text,
    has_pattern,
    index_text,
    literal_start,
    name_groups,
    naming_document,
    searched_identities,
)
from dicomwatchd.archive.records import Query, StudyRecord
from dicomwatchd.patients import folded_name
from dicomwatchd.study_completeness import GAPS

#: What is searched by, beside the tables that every version has: an earlier one goes on as if they were not there. What
#: it records is then in ``unindexed``, until this version records it, or a rebuild does.
_SEARCH_SCHEMA = """
CREATE TABLE naming (
    study_uid TEXT PRIMARY KEY,
    manifest_sha256 TEXT NOT NULL,
    document TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE terms (
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    study_uid TEXT NOT NULL,
    PRIMARY KEY (kind, value, study_uid)
) WITHOUT ROWID;
CREATE INDEX terms_of_study ON terms (study_uid);
CREATE TABLE unindexed (study_uid TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO unindexed SELECT study_uid FROM studies;
"""
_SEARCH_TRIGGER = """
CREATE TRIGGER recorded AFTER INSERT ON studies BEGIN
    INSERT OR REPLACE INTO unindexed VALUES (NEW.study_uid);
END
"""

#: Filled by the studies' own documents, whichever version writes them.
_MODALITIES_SCHEMA = """
CREATE TABLE modalities (
    modality TEXT NOT NULL,
    study_date TEXT NOT NULL,
    study_uid TEXT NOT NULL,
    PRIMARY KEY (modality, study_date, study_uid)
) WITHOUT ROWID;
CREATE INDEX modalities_of_study ON modalities (study_uid);
"""
_MODALITIES_OF = (
    "INSERT OR IGNORE INTO modalities SELECT one.value, {study}.study_date, {study}.study_uid FROM {source}json_each("
    "CASE WHEN json_valid({study}.document) THEN {study}.document ELSE '{{}}' END, '$.modalities') AS one"
    " WHERE one.type = 'text' AND one.value <> ''"
)
_MODALITIES_TRIGGER = f"""
CREATE TRIGGER recorded_modalities AFTER INSERT ON studies BEGIN
    DELETE FROM modalities WHERE study_uid = NEW.study_uid;
    {_MODALITIES_OF.format(study="NEW", source="")};
END
"""
#: In a file with more studies only `archive init` makes the table: a daemon's write must not take minutes.
_FEW_STUDIES = 1000

#: Rows of an index that is in the order of the answer, at once; and keys that have to be sorted.
PAGE_ROWS = 500
_SORTED_ROWS = 100_000

#: The end of a range of texts that begin alike.
_LAST = "\U0010ffff"


def select_documents(database: sqlite3.Connection, where: str) -> str:
    """Date, UID, document, and what the study names; that of another revision than the study's counts as none."""
    if not has_search_tables(database):
        return f"SELECT study_date, study_uid, document, NULL FROM studies {where}"
    return (
        "SELECT study_date, studies.study_uid, studies.document, naming.document FROM studies LEFT JOIN naming"
        " ON naming.study_uid = studies.study_uid AND naming.manifest_sha256 = studies.manifest_sha256"
        f" {where}"
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """``statement`` gives date and UID of the studies that may match, newest first; `matches` has the last word.
    ``before`` are its values before the place below which they are, ``behind`` those between that and the number of
    rows, of which it gives ``rows`` at most."""

    statement: str
    before: tuple[str, ...]
    behind: tuple[str, ...]
    rows: int


def planned(database: sqlite3.Connection, query: Query) -> Plan:
    """Looks at how much there is of what is asked for."""
    database.create_function("has_pattern", 2, has_pattern, deterministic=True)
    if (exact := _in_order(query, has_modalities=has_modalities(database))) is not None:
        return exact
    found, values = _by_terms(query) if has_search_tables(database) else _by_columns(query)
    if found and not _is_better_by_date(database, query, found, values):
        # A cross join keeps this order: by itself SQLite may walk the index of dates, past every study not wanted.
        return _plan(f"({found}) CROSS JOIN studies USING (study_uid)", "", values, query, _SORTED_ROWS)
    return _plan("studies", "", (), query)


def keys_below(database: sqlite3.Connection, plan: Plan, last: tuple[str, str]) -> list[tuple[str, str]]:
    """Date and UID of the next studies, below a date and UID."""
    database.create_function("has_pattern", 2, has_pattern, deterministic=True)
    return database.execute(plan.statement, (*plan.before, *last, *plan.behind, plan.rows)).fetchall()


def has_unindexed(database: sqlite3.Connection) -> bool:
    """Whether there are studies that an earlier version has recorded."""
    source = "unindexed" if has_search_tables(database) else "studies"
    return database.execute(f"SELECT 1 FROM {source} LIMIT 1").fetchone() is not None


def _plan(source: str, condition: str, values: Iterable[str], query: Query, rows: int = PAGE_ROWS) -> Plan:
    """``source``: a table with the columns study_date and study_uid, or what begins with it."""
    table = source if source.isidentifier() else "studies"
    dates = [date for date in (query.date_from, query.date_to) if date]
    where = f"{condition} AND " if condition else ""
    where += f"({table}.study_date, {table}.study_uid) < (?, ?)"
    where += f" AND {table}.study_date >= ?" if query.date_from else ""
    where += f" AND {table}.study_date <= ?" if query.date_to else ""
    return Plan(
        f"SELECT {table}.study_date, {table}.study_uid FROM {source} WHERE {where}"
        f" ORDER BY {table}.study_date DESC, {table}.study_uid DESC LIMIT ?",
        tuple(values),
        tuple(dates),
        rows,
    )


def _in_order(query: Query, *, has_modalities: bool) -> Plan | None:
    """Where one index has what is asked for, in the order of the answer."""
    for column, text in (("patient_id", query.patient_id), ("accession_number", query.accession_number)):
        if text == "" and not (query.patient_id or query.accession_number):  # those that have none
            return _plan("studies", f"{column} = ?", [""], query)
    is_other = query.is_of_patient or query.accession_number or query.is_incomplete or query.archived_from
    if has_modalities and query.modality and query.modality.isascii() and not is_other:
        return _plan("modalities", "modality = ?", [query.modality], query)
    return None


def _is_better_by_date(database: sqlite3.Connection, query: Query, found: str, values: list[str]) -> bool:
    """Whether there are fewer studies of the dates, or so many of what is asked for that they are met soon."""
    [(there,)] = database.execute(f"SELECT count(*) FROM (SELECT 1 FROM ({found}) LIMIT ?)", (*values, _SORTED_ROWS))
    if not (query.date_from or query.date_to):
        # However many are incomplete, they are few among all; and what was archived lately may have any date.
        return bool(there >= _SORTED_ROWS and not (query.archived_from or query.is_incomplete))
    [(of_dates,)] = database.execute(
        "SELECT count(*) FROM (SELECT 1 FROM studies WHERE study_date >= ? AND study_date <= ? LIMIT ?)",
        (query.date_from or "0", query.date_to or "99999999", there),
    )
    return bool(of_dates < there)


def _by_columns(query: Query) -> tuple[str, list[str]]:
    """The UIDs that every version's indexes give, "" where they have none of what is asked for."""
    for column, text in (
        ("accession_number", query.accession_number),
        ("patient_id", query.patient_id),
    ):
        if text:
            return f"SELECT study_uid FROM studies WHERE {column} = ?", [index_text(text)]
    if query.archived_from:
        return "SELECT study_uid FROM studies WHERE archived_at >= ?", [query.archived_from]
    return "", []


def _by_terms(query: Query) -> tuple[str, list[str]]:
    """The UIDs that the index gives for the condition that the fewest studies should meet, and those that it does not
    know of."""
    exact = [
        ("accession", query.accession_number, "SELECT study_uid FROM studies WHERE accession_number = ?"),
        ("patient", query.patient_id, "SELECT study_uid FROM studies WHERE patient_id = ?"),
        ("born", query.birth_date, ""),
    ]
    for kind, value, of_old in exact:
        if value:
            # An old entry of the wanted patient or order is found by its first one, without a look at all old ones.
            rest = of_old or "SELECT study_uid FROM unindexed"
            return (
                f"SELECT study_uid FROM terms WHERE kind = ? AND value = ? UNION {rest}",
                [kind, index_text(value), *([index_text(value)] if of_old else [])],
            )
    patterns = [
        ("name", query.name and folded_name(query.name)),
        ("description", query.description and folded_text(query.description)),
        ("institution", query.institution and folded_text(query.institution)),
    ]
    given = [(kind, index_text(literal_start(pattern)), pattern) for kind, pattern in patterns if pattern]
    # Without a beginning all texts of a kind are compared: one that has one goes first.
    for kind, start, pattern in sorted(given, key=lambda one: not one[1]):
        # The whole text or its first words: what comes behind that is " ", and below "!".
        end = start + ("!" if start == pattern else _LAST)
        return (
            "SELECT study_uid FROM terms WHERE kind = ? AND value >= ? AND value < ? AND has_pattern(value, ?)"
            " UNION SELECT study_uid FROM unindexed",
            [kind, start, end, index_text(pattern)],
        )
    if query.archived_from:
        return "SELECT study_uid FROM studies WHERE archived_at >= ?", [query.archived_from]
    if query.is_incomplete:
        return (
            "SELECT study_uid FROM terms WHERE kind = 'flag' AND value = ? UNION SELECT study_uid FROM unindexed",
            [GAPS],
        )
    return "", []


def search_terms(record: StudyRecord) -> set[tuple[str, str]]:
    found = {("accession", number) for number in accession_numbers(record)}
    found.add(("description", folded_text(description(record))))
    found |= {("institution", folded_text(one)) for one in record.institutions or ()}
    for one in searched_identities(record):
        found |= {("patient", one.patient_id), ("born", one.birth_date)}
        found |= {("name", group) for group in name_groups(one)}
    if GAPS in record.flags:
        found.add(("flag", GAPS))
    return {(kind, index_text(value)) for kind, value in found if value}


def index_study(database: sqlite3.Connection, record: StudyRecord) -> None:
    uid = record.study_uid
    database.execute("DELETE FROM terms WHERE study_uid = ?", (uid,))
    database.executemany("INSERT INTO terms VALUES (?, ?, ?)", [(*term, uid) for term in search_terms(record)])
    database.execute("DELETE FROM naming WHERE study_uid = ?", (uid,))
    if (naming := naming_document(record)) is not None:
        database.execute("INSERT INTO naming VALUES (?, ?, ?)", (uid, record.manifest_sha256, naming))
    database.execute("DELETE FROM unindexed WHERE study_uid = ?", (uid,))


def has_search_tables(database: sqlite3.Connection) -> bool:
    return database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'recorded'").fetchone() is not None


def has_modalities(database: sqlite3.Connection) -> bool:
    return database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'recorded_modalities'").fetchone() is not None


def make_search_tables(database: sqlite3.Connection, *, however_large: bool = False) -> bool:
    """Within a transaction that writes; whether they were missing."""
    made = False
    if not has_search_tables(database):
        for statement in _SEARCH_SCHEMA.split(";"):
            database.execute(statement)
        database.execute(_SEARCH_TRIGGER)
        made = True
    if not has_modalities(database) and (however_large or _has_few(database)):
        for statement in _MODALITIES_SCHEMA.split(";"):
            database.execute(statement)
        database.execute(_MODALITIES_OF.format(study="studies", source="studies, "))
        database.execute(_MODALITIES_TRIGGER)
        made = True
    return made


def _has_few(database: sqlite3.Connection) -> bool:
    by_index = "SELECT 1 FROM studies ORDER BY archived_at LIMIT 1 OFFSET ?"
    return database.execute(by_index, (_FEW_STUDIES,)).fetchone() is None
