"""An archive in one file, so that what it holds takes no memory of the process that is measured."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from dicomwatchd.archive.stores.port import Capabilities, Chunk, Content, Receipt, StoredObject
from dicomwatchd.errors import NoSuchObject
from tests.unit.memory_archive import MemoryStore

_CHUNK_BYTES = 1 << 20


class FileStore(MemoryStore):
    """The store of the unit tests over an SQLite table; not durable, and honest."""

    def __init__(self, path: Path) -> None:
        super().__init__(single_put_bytes=1 << 30, capabilities=Capabilities(creates_only=True))
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA journal_mode = MEMORY")
        self._db.execute("PRAGMA cache_size = -2000")
        self._db.execute("CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, data BLOB NOT NULL)")

    def put(self, key: str, content: Content) -> Receipt:
        data = content.read(0, content.digest.size_bytes)
        created = self._db.execute("INSERT OR IGNORE INTO objects VALUES (?, ?)", (key, data)).rowcount == 1
        return Receipt(key, len(data), content.digest.sha256, created)

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        row = self._db.execute("SELECT key, length(data) FROM objects WHERE key = ?", (key,)).fetchone()
        return None if row is None else StoredObject(*row)

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        after = max(prefix, after)
        while True:
            rows = self._db.execute(
                "SELECT key, length(data) FROM objects WHERE key > ? AND key < ? ORDER BY key LIMIT 1000",
                (after, prefix + "\U0010ffff"),
            ).fetchall()
            if not rows:
                return
            yield from (StoredObject(*row) for row in rows)
            after = rows[-1][0]

    def current_versions(self, prefix: str) -> Iterator[StoredObject | None]:
        return self.listing(prefix)

    def read(
        self,
        key: str,
        version_id: str | None = None,
        *,
        offset_bytes: int = 0,
        length_bytes: int | None = None,
        buffer: memoryview | None = None,
        checksum: Callable[[str], None] | None = None,
    ) -> Iterator[Chunk]:
        row = self._db.execute("SELECT data FROM objects WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise NoSuchObject("no such object")
        data: bytes = row[0][offset_bytes : None if length_bytes is None else offset_bytes + length_bytes]
        for at in range(0, len(data), _CHUNK_BYTES):
            yield data[at : at + _CHUNK_BYTES]

    def close(self) -> None:
        self._db.close()

    def held(self, prefix: str) -> tuple[int, int]:
        """(objects, their bytes) below a prefix."""
        row = self._db.execute(
            "SELECT COUNT(*), COALESCE(SUM(length(data)), 0) FROM objects WHERE key >= ? AND key < ?",
            (prefix, prefix + "\U0010ffff"),
        ).fetchone()
        return row[0], row[1]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
