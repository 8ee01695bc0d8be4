"""Alarms on record: which are open, and what of them the command of `on_alarm` was not told yet."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from dicomwatchd.ports import Clock
from dicomwatchd.queue.database.schema import Database

#: So long one that has ended stays on record.
KEEP_SECONDS = 30 * 86400.0
_ROUND_SECONDS = 3600.0
_PAGE = 500
_UNTOLD = "(told = 0 OR (told = 1 AND ended_at IS NOT NULL))"


@dataclass(frozen=True, slots=True)
class KeptAlarm:
    """``code`` and ``subject`` say which it is: of those that are open there is one of each. Times are in seconds since
    the epoch; ``ended_at`` is None while it is open. ``told``: 0 nobody yet, 1 of its begin, 2 of its end, too."""

    alarm_id: int
    code: str
    subject: str
    sentence: str
    begun_at: float
    ended_at: float | None
    told: int


class AlarmsKept:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._next_round = clock.monotonic()

    def open(self) -> list[KeptAlarm]:
        """In the order in which they began."""
        with self._database.read() as db:
            rows = db.execute("SELECT * FROM alarms WHERE ended_at IS NULL ORDER BY alarm_id").fetchall()
        return [_kept(row) for row in rows]

    def begin(self, code: str, subject: str, sentence: str) -> None:
        """Raises Transient, Fatal."""
        with self._database.write() as db:
            db.execute(
                "INSERT INTO alarms (code, subject, sentence, begun_at) VALUES (?, ?, ?, ?)",
                (code, subject, sentence, self._clock.now()),
            )

    def reword(self, alarm_id: int, sentence: str) -> None:
        """The figures in its sentence are others by now. Raises Transient, Fatal."""
        with self._database.write() as db:
            db.execute("UPDATE alarms SET sentence = ? WHERE alarm_id = ?", (sentence, alarm_id))

    def end(self, alarm_id: int) -> None:
        """Raises Transient, Fatal."""
        with self._database.write() as db:
            db.execute("UPDATE alarms SET ended_at = ? WHERE alarm_id = ?", (self._clock.now(), alarm_id))

    def untold(self, limit: int) -> list[KeptAlarm]:
        """Those whose begin, or end, was not told yet, the oldest first."""
        with self._database.read() as db:
            rows = db.execute(f"SELECT * FROM alarms WHERE {_UNTOLD} ORDER BY alarm_id LIMIT ?", (limit,)).fetchall()
        return [_kept(row) for row in rows]

    def told(self, those: Sequence[KeptAlarm]) -> None:
        """All that these say was told: what has ended since is still to be. Raises Transient, Fatal."""
        with self._database.write() as db:
            db.executemany(
                "UPDATE alarms SET told = ? WHERE alarm_id = ?",
                [(1 if one.ended_at is None else 2, one.alarm_id) for one in those],
            )

    def step(self) -> bool:
        """One page of what is old; whether there may be more at once."""
        if self._clock.monotonic() < self._next_round:
            return False
        with self._database.write() as db:
            gone = db.execute(
                "DELETE FROM alarms WHERE alarm_id IN (SELECT alarm_id FROM alarms WHERE ended_at < ? LIMIT ?)",
                (self._clock.now() - KEEP_SECONDS, _PAGE),
            ).rowcount
        if gone < _PAGE:
            self._next_round = self._clock.monotonic() + _ROUND_SECONDS
        return gone == _PAGE


def _kept(row: sqlite3.Row) -> KeptAlarm:
    return KeptAlarm(
        row["alarm_id"],
        row["code"],
        row["subject"],
        row["sentence"],
        row["begun_at"],
        row["ended_at"],
        row["told"],
    )
