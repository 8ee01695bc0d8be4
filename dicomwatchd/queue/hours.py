"""In which hours something came into each inbox, and in which nothing did although it was watched: for some weeks.

Hours are counted since the epoch, so that neither a summer's begin nor another time zone moves what is on record; which
hour of whose week each was is for the reader to say. What lies in the future does not count, and stays: by a clock that
is years behind, as of a machine without a battery before it has the time from the network, all that was learnt does.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from dicomwatchd.ports import Clock
from dicomwatchd.queue.database.schema import Database

HOUR_SECONDS = 3600.0
#: So many hours are kept up to the last in which something came, and of the silence after it.
KEEP_HOURS = 8 * 7 * 24


@dataclass(frozen=True, slots=True)
class Hour:
    """``number`` since the epoch; ``files`` came in it, and for ``watched_seconds`` of it somebody would have seen."""

    number: int
    files: int
    watched_seconds: float


class InboxHours:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._came: dict[int, int] = {}

    def note(self, source_id: int, files: int) -> None:
        """Files have come. Costs nothing; from any thread."""
        if files:
            with self._lock:
                self._came[source_id] = self._came.get(source_id, 0) + files

    @property
    def now(self) -> int:
        """The number of the hour that is."""
        return int(self._clock.now() // HOUR_SECONDS)

    def write(self, watched: Mapping[int, float]) -> None:
        """Put down what was noted, of these sources, each of which was watched for so many more seconds; of others
        nothing is kept. Raises Transient, Fatal: then it counts as noted still."""
        with self._lock:
            came, self._came = self._came, {}
        hour = self.now
        try:
            with self._database.write() as db:
                db.executemany(
                    "INSERT INTO inbox_hours (source_id, hour, files, watched_seconds) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET files = files + excluded.files,"
                    " watched_seconds = watched_seconds + excluded.watched_seconds",
                    [(source_id, hour, came.get(source_id, 0), seconds) for source_id, seconds in watched.items()],
                )
        except BaseException:  # whatever it was: what has come has come
            for source_id, files in came.items():
                self.note(source_id, files)
            raise

    def prune(self) -> None:
        """What is too old to count, by the number of rows and not by the clock: of one that is ahead all would be old.
        Raises Transient, Fatal."""
        with self._database.write() as db:
            for source_id, newest, last in db.execute(
                "SELECT source_id, MAX(hour), MAX(CASE WHEN files > 0 THEN hour END) FROM inbox_hours"
                " WHERE hour <= ? GROUP BY source_id",
                (self.now,),
            ).fetchall():
                last = newest if last is None else last
                db.execute(
                    "DELETE FROM inbox_hours WHERE source_id = ? AND hour <= (SELECT hour FROM inbox_hours"
                    " WHERE source_id = ? AND hour <= ? ORDER BY hour DESC LIMIT 1 OFFSET ?)",
                    (source_id, source_id, last, KEEP_HOURS),
                )
                # The newest stays: it is being written.
                db.execute(
                    "DELETE FROM inbox_hours WHERE source_id = ? AND hour < ? AND hour >= (SELECT hour FROM inbox_hours"
                    " WHERE source_id = ? AND hour > ? ORDER BY hour LIMIT 1 OFFSET ?)",
                    (source_id, newest, source_id, last, KEEP_HOURS),
                )

    def of(self, source_id: int) -> list[Hour]:
        """In their order, up to the hour that is."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT hour, files, watched_seconds FROM inbox_hours WHERE source_id = ? AND hour <= ? ORDER BY hour",
                (source_id, self.now),
            ).fetchall()
        return [Hour(*row) for row in rows]
