"""Kept files that only wait for their time, and are let go before it, the one whose time would come first before the
others."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dicomwatchd.ports import Clock
from dicomwatchd.queue.claims import BLAMED_OFTEN
from dicomwatchd.queue.database.schema import Database

#: So often a study has failed for a reason of its own when it is not waited for any more.
FAILED_OFTEN = 3
_FAILS = f"s.blamed >= {BLAMED_OFTEN} OR (s.attempts >= {FAILED_OFTEN} AND s.endpoint IS NULL)"
_GOES = f"s.state != 'parked' AND NOT ({_FAILS})"


@dataclass(frozen=True, slots=True)
class LetGo:
    """Of one source."""

    source_id: int
    files: int
    size_bytes: int


class EarlyDues:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def on_their_way(self, source_ids: Collection[int]) -> int:
        """Bytes of these sources' files whose time has come and that are still there, but for those of studies that go
        nowhere: parked ones, and those that fail again and again while others pass or for a reason of their own, which
        may be for ever. What only met an outage goes when that is over."""
        sources = _listed(source_ids)
        with self._database.read() as db:
            due, staged = (
                db.execute(query, values).fetchone()["total"] or 0
                for query, values in (
                    (
                        "SELECT SUM(f.size_bytes) AS total FROM files f INDEXED BY files_due"
                        " CROSS JOIN studies s USING (study_uid) WHERE f.state = 'kept' AND f.due_at IS NOT NULL"
                        f" AND f.due_at <= ? AND f.code IS NULL AND f.source_id IN ({sources}) AND {_GOES}",
                        (self._clock.now(),),
                    ),
                    (
                        "SELECT SUM(f.size_bytes) AS total FROM studies s CROSS JOIN files f USING (study_uid)"
                        f" WHERE s.state != 'archived' AND {_GOES} AND f.state IN ('stored', 'deleting')"
                        f" AND f.due_at IS NOT NULL AND f.source_id IN ({sources})",
                        (),
                    ),
                )
            )
        return int(due + staged)

    def let_go(self, source_ids: Collection[int], size_bytes: int, limit: int) -> list[LetGo]:
        """Of these sources' files the first that are so large together, ``limit`` at most, are due now: each is proven
        afresh and goes by its rule, as if its time had come. Not those that are kept for a reason of their own, nor
        files of a study that is held, or not at rest."""
        now = self._clock.now()
        chosen: list[tuple[int, int, int]] = []
        missing = size_bytes
        with self._database.read() as db:
            for row in db.execute(
                "SELECT f.file_id, f.source_id, f.size_bytes FROM files f INDEXED BY files_due"
                " CROSS JOIN studies s USING (study_uid) WHERE f.state = 'kept' AND f.due_at IS NOT NULL"
                " AND f.due_at > ? AND f.code IS NULL AND f.receipt IS NOT NULL"
                f" AND f.source_id IN ({_listed(source_ids)}) AND s.state = 'archived'"
                " AND NOT EXISTS (SELECT 1 FROM holds h WHERE h.study_uid = f.study_uid AND h.released_at IS NULL)"
                " ORDER BY f.due_at LIMIT ?",
                (now, limit),
            ):
                if missing <= 0:
                    break
                chosen.append((row["file_id"], row["source_id"], row["size_bytes"]))
                missing -= row["size_bytes"]
        found: dict[int, LetGo] = {}
        with self._database.write() as db:
            for file_id, source_id, size in chosen:
                if db.execute(
                    "UPDATE files SET due_at = ? WHERE file_id = ? AND state = 'kept' AND code IS NULL AND due_at > ?",
                    (now, file_id, now),
                ).rowcount:
                    one = found.get(source_id, LetGo(source_id, 0, 0))
                    found[source_id] = LetGo(source_id, one.files + 1, one.size_bytes + size)
        return list(found.values())


def _listed(source_ids: Collection[int]) -> str:
    return ",".join(map(str, map(int, source_ids)))
