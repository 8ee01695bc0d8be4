"""What the state knows that is a name and a text, and no more."""

from __future__ import annotations

from dicomwatchd.queue.database.schema import Readable, Transaction


def get(db: Readable, key: str) -> str | None:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row["value"])


def put(db: Transaction, key: str, value: str) -> None:
    """In the place of what was there."""
    db.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (key, value)
    )
