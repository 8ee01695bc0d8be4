"""The rows of the daemons in the embedded catalogue: a table of its own, which the first of them makes."""

from __future__ import annotations

import sqlite3

from dicomwatchd.archive.catalogues.sites import MOST_SITES, SiteRow
from dicomwatchd.archive.catalogues.sqlite.catalogue import SqliteCatalogue
from dicomwatchd.config.archive import SqliteSettings

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS sites (site_id TEXT PRIMARY KEY, beats INTEGER NOT NULL, run TEXT NOT NULL,"
    " document TEXT NOT NULL) WITHOUT ROWID"
)
_BUSY_SECONDS = 5.0


class SqliteSites(SqliteCatalogue):
    """Implements SiteTable. Not patient with other writers: the next heartbeat is another attempt."""

    def __init__(self, settings: SqliteSettings) -> None:
        super().__init__(settings, busy_seconds=_BUSY_SECONDS)

    def rows(self) -> list[SiteRow]:
        return self._select("ORDER BY site_id LIMIT ?", MOST_SITES)

    def row(self, site_id: str) -> SiteRow | None:
        found = self._select("WHERE site_id = ?", site_id)
        return found[0] if found else None

    def write(self, row: SiteRow, over: tuple[int, str] | None) -> bool:
        with self._writing() as database:
            database.execute(_SCHEMA)
            there = database.execute("SELECT beats, run FROM sites WHERE site_id = ?", (row.site_id,)).fetchone()
            if there is not None and there != over:
                return False
            database.execute(
                "INSERT OR REPLACE INTO sites VALUES (?, ?, ?, ?)", (row.site_id, row.beats, row.run, row.document)
            )
        return True

    def _select(self, which: str, value: object) -> list[SiteRow]:
        with self._reading() as database:
            if not _has_table(database):
                return []
            found = database.execute(f"SELECT site_id, beats, run, document FROM sites {which}", (value,)).fetchall()
        return [SiteRow(*row) for row in found]


def _has_table(database: sqlite3.Connection) -> bool:
    return (
        database.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'sites'").fetchone() is not None
    )
