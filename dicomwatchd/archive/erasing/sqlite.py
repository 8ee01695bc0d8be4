"""Erasing what the embedded catalogue has of a study."""

from __future__ import annotations

import sqlite3

from dicomwatchd.archive.catalogues.sqlite.catalogue import SqliteCatalogue
from dicomwatchd.model import Uid


class SqliteRecords(SqliteCatalogue):
    """Implements RecordEraser: every table with rows of a study, whichever version made it. SQLite overwrites what is
    deleted here with zeros (secure_delete)."""

    def entries(self, study_uid: Uid) -> int:
        with self._reading() as database:
            return sum(
                database.execute(f'SELECT COUNT(*) FROM "{table}" WHERE study_uid = ?', (study_uid,)).fetchone()[0]
                for table in _of_studies(database)
            )

    def erase(self, study_uid: Uid) -> int:
        with self._writing() as database:
            database.execute("PRAGMA secure_delete = ON")
            return sum(
                database.execute(f'DELETE FROM "{table}" WHERE study_uid = ?', (study_uid,)).rowcount
                for table in _of_studies(database)
            )


def _of_studies(database: sqlite3.Connection) -> list[str]:
    return [
        name
        for (name,) in database.execute(
            "SELECT m.name FROM sqlite_schema m, pragma_table_info(m.name) c"
            " WHERE m.type = 'table' AND c.name = 'study_uid' ORDER BY m.name"
        ).fetchall()
    ]
