"""What the state has archived in all. Every shipment that is kept is read once; from then on only those that follow."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from dicomwatchd.ports import timestamp
from dicomwatchd.queue.database.schema import Database


@dataclass(frozen=True, slots=True)
class Totals:
    """``studies`` counts one again each time that something of it was archived. ``last_at``: UTC, ISO 8601, with "Z";
    "" where nothing was; of shipments that are no longer kept one by one, the beginning of their day."""

    studies: int = 0
    files: int = 0
    bytes: int = 0
    last_at: str = ""


class ArchivedTotals:
    """Pruning only moves what counts already, from shipments to the sums of their days. Safe from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._through: int | None = None
        self._totals = Totals()

    def totals(self) -> Totals:
        """Raises Transient, Fatal."""
        with self._lock:
            with self._database.read() as db:
                if self._through is None:
                    of_days = db.execute(
                        "SELECT SUM(shipments), SUM(files), SUM(bytes), MAX(day) FROM shipment_days"
                    ).fetchone()
                    day = f"{of_days[3]}T00:00:00.000Z" if of_days[3] else ""
                    self._totals = Totals(of_days[0] or 0, of_days[1] or 0, of_days[2] or 0, day)
                    self._through = 0
                newest = db.execute("SELECT MAX(shipment_id) FROM shipments").fetchone()[0] or 0
                if newest < self._through:  # all were pruned meanwhile, and numbers begin anew
                    self._through = 0
                since = db.execute(
                    "SELECT COUNT(*), SUM(files), SUM(bytes), MAX(finished_at), MAX(shipment_id) FROM shipments"
                    " WHERE shipment_id > ?",
                    (self._through,),
                ).fetchone()
            if since[0]:
                was = self._totals
                self._totals = replace(
                    was,
                    studies=was.studies + since[0],
                    files=was.files + since[1],
                    bytes=was.bytes + since[2],
                    last_at=timestamp(since[3]),
                )
                self._through = int(since[4])
            return self._totals
