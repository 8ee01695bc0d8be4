"""What the SQLite catalogue is searched by: its tables of terms, and what a query asks of them.

The tables stand beside those that every version has. A file without them is searched by its studies alone.
"""

from __future__ import annotations

import sqlite3

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


def keys_below(
    database: sqlite3.Connection, query: Query, last: tuple[str, str], limit_rows: int
) -> list[tuple[str, str]]:
    """Date and UID of the next studies that may match, below a date and UID; `matches` has the last word."""
    statement, values, dates = _page(query, has_terms=has_search_tables(database))
    database.create_function("has_pattern", 2, has_pattern, deterministic=True)
    return database.execute(statement, (*values, *last, *dates, limit_rows)).fetchall()


def has_unindexed(database: sqlite3.Connection) -> bool:
    """Whether there are studies that an earlier version has recorded."""
    source = "unindexed" if has_search_tables(database) else "studies"
    return database.execute(f"SELECT 1 FROM {source} LIMIT 1").fetchone() is not None


def _page(query: Query, *, has_terms: bool) -> tuple[str, list[str], list[str]]:
    """The statement, with the values before the date, UID and limit, and between them."""
    found, values = _by_terms(query) if has_terms else ("", [])
    where = "".join(
        f" AND {condition}"
        for condition, value in (("study_date >= ?", query.date_from), ("study_date <= ?", query.date_to))
        if value
    )
    dates = [date for date in (query.date_from, query.date_to) if date]
    # A cross join keeps this order: by itself SQLite may walk the index of dates, past every study that is not wanted.
    source = f"({found}) CROSS JOIN studies USING (study_uid)" if found else "studies"
    return (
        f"SELECT studies.study_date, studies.study_uid FROM {source}"
        f" WHERE (studies.study_date, studies.study_uid) < (?, ?){where}"
        " ORDER BY studies.study_date DESC, studies.study_uid DESC LIMIT ?",
        values,
        dates,
    )


def _by_terms(query: Query) -> tuple[str, list[str]]:
    """The UIDs that the indexes give for all conditions that they know, and those that they do not know of."""
    exact = [
        ("patient", query.patient_id),
        ("accession", query.accession_number),
        ("born", query.birth_date),
        ("flag", GAPS if query.is_incomplete else None),
    ]
    patterns = [
        ("name", query.name and folded_name(query.name)),
        ("description", query.description and folded_text(query.description)),
        ("institution", query.institution and folded_text(query.institution)),
    ]
    parts, values = [], []
    for kind, value in exact:
        if value:
            parts.append("SELECT study_uid FROM terms WHERE kind = ? AND value = ?")
            values += [kind, index_text(value)]
    for kind, pattern in patterns:
        if pattern:
            start = index_text(literal_start(pattern))
            parts.append(
                "SELECT study_uid FROM terms WHERE kind = ? AND value >= ? AND value < ? AND has_pattern(value, ?)"
            )
            values += [kind, start, start + _LAST, index_text(pattern)]
    if parts:
        # An old entry of the wanted patient or order is found by its first one, without a look at all old ones.
        rest, value = "SELECT study_uid FROM unindexed", None
        if query.accession_number:
            rest, value = "SELECT study_uid FROM studies WHERE accession_number = ?", query.accession_number
        if query.patient_id:
            rest, value = "SELECT study_uid FROM studies WHERE patient_id = ?", query.patient_id
        found = f"SELECT study_uid FROM ({' INTERSECT '.join(parts)}) UNION {rest}"
        return found, [*values, *([index_text(value)] if value else [])]
    for column, text in (("patient_id", query.patient_id), ("accession_number", query.accession_number)):
        if text is not None:  # of those that have none
            return f"SELECT study_uid FROM studies WHERE {column} = ?", [text]
    if query.archived_from:
        return "SELECT study_uid FROM studies WHERE archived_at >= ?", [query.archived_from]
    return "", []


def _terms(record: StudyRecord) -> set[tuple[str, str]]:
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
    database.executemany("INSERT INTO terms VALUES (?, ?, ?)", [(*term, uid) for term in _terms(record)])
    database.execute("DELETE FROM naming WHERE study_uid = ?", (uid,))
    if (naming := naming_document(record)) is not None:
        database.execute("INSERT INTO naming VALUES (?, ?, ?)", (uid, record.manifest_sha256, naming))
    database.execute("DELETE FROM unindexed WHERE study_uid = ?", (uid,))


def has_search_tables(database: sqlite3.Connection) -> bool:
    return database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'recorded'").fetchone() is not None


def make_search_tables(database: sqlite3.Connection) -> bool:
    """Within a transaction that writes; whether they were missing."""
    if has_search_tables(database):
        return False
    for statement in _SEARCH_SCHEMA.split(";"):
        database.execute(statement)
    database.execute(_SEARCH_TRIGGER)
    return True
