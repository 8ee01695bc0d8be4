"""Which folder each inbox is: pinned when something is first seen in it, and nothing is deleted from another one in
its place.

Whoever may write to the folder that an inbox is in can exchange it: rename it away and make another, a link, a mount.
What stands there then is archived like before, which harms nobody, and kept, until it is the folder again that it was,
or somebody has confirmed that the other one is meant. That is put on record in the audit chain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from dicomwatchd.errors import Permanent
from dicomwatchd.ports import Clock
from dicomwatchd.queue import audit
from dicomwatchd.queue.database.schema import Database, Transaction
from dicomwatchd.queue.rows import EXCHANGED, Root

_EXCHANGED = f"WHERE source_id = ? AND state = 'kept' AND code = '{EXCHANGED}'"


class RootObservation(Enum):
    """What a look at an inbox's folder has found."""

    PINNED = "pinned"
    #: For the first time another one than is pinned.
    EXCHANGED = "exchanged"
    STILL_EXCHANGED = "still-exchanged"
    #: Nothing is in it: a mount point, perhaps, whose share is not there.
    BARE = "bare"


@dataclass(frozen=True, slots=True)
class Pin:
    """``exchanged_at`` is when another folder than the pinned one was first seen in its place, in seconds since the
    epoch; None while it is the one. ``is_seen`` False: it could not be opened yet, or nothing was ever in it."""

    source_id: int
    name: str
    is_seen: bool
    exchanged_at: float | None


class Roots:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def see(
        self, source_id: int, root: Root, holds_something: Callable[[], bool] = lambda: True
    ) -> tuple[RootObservation, int]:
        """What this is that stands under the inbox's path now; with how many kept files are due because of that. The
        first folder that is ever seen there with something in it is the inbox: whoever has written the configuration
        means it. An empty one is neither pinned nor an exchange: nothing can be deleted there."""
        with self._database.read() as db:
            row = db.execute("SELECT * FROM roots WHERE source_id = ?", (source_id,)).fetchone()
            # A deletion may have met another folder between two looks, of which none has told.
            waits = db.execute(f"SELECT 1 FROM files {_EXCHANGED} LIMIT 1", (source_id,)).fetchone() is not None
        if row is not None and row["root"] == root.text and row["found"] is None and not waits:
            return RootObservation.PINNED, 0
        if (row is None or not Root.of(row["root"]).is_same(root)) and not holds_something():
            return RootObservation.BARE, 0
        if row is not None and not Root.of(row["root"]).is_same(root):
            if row["found"] is not None and Root.of(row["found"]).is_same(root):
                return RootObservation.STILL_EXCHANGED, 0
            with self._database.write() as db:
                db.execute(
                    "UPDATE roots SET found = ?, found_at = ? WHERE source_id = ?",
                    (root.text, self._clock.now(), source_id),
                )
            return RootObservation.EXCHANGED, 0
        with self._database.write() as db:
            db.execute(
                "INSERT INTO roots (source_id, root) VALUES (?, ?)"
                " ON CONFLICT DO UPDATE SET root = excluded.root, found = NULL, found_at = NULL",
                (source_id, root.text),
            )
            return RootObservation.PINNED, self._release(db, source_id)

    def is_pinned(self, source_id: int, root: Root) -> bool:
        """Whether files may be deleted from this folder. False, too, as long as none is pinned."""
        with self._database.read() as db:
            row = db.execute("SELECT root FROM roots WHERE source_id = ?", (source_id,)).fetchone()
        return row is not None and Root.of(row["root"]).is_same(root)

    def is_exchanged(self, source_id: int) -> bool:
        """Whether another folder was seen in the inbox's place when it was last looked at."""
        with self._database.read() as db:
            row = db.execute("SELECT found FROM roots WHERE source_id = ?", (source_id,)).fetchone()
        return row is not None and row["found"] is not None

    def pins(self) -> list[Pin]:
        """Of each inbox, by name."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT s.source_id, s.name, r.root, r.found_at FROM sources s LEFT JOIN roots r USING (source_id)"
                " WHERE s.kind = 'inbox' ORDER BY s.name"
            ).fetchall()
        return [Pin(row["source_id"], row["name"], row["root"] is not None, row["found_at"]) for row in rows]

    def confirm(self, name: str, by: dict[str, object]) -> int:
        """The folder that was last seen in this inbox's place is the inbox from now on; ``by`` says who has confirmed
        it. How many kept files are due now. Raises Permanent where there is nothing to confirm."""
        with self._database.write() as db:
            row = db.execute(
                "SELECT r.* FROM sources s LEFT JOIN roots r USING (source_id) WHERE s.kind = 'inbox' AND s.name = ?",
                (name,),
            ).fetchone()
            if row is None:
                raise Permanent("there is no such inbox", code="no-such-inbox")
            if row["found"] is None:
                raise Permanent("nothing to confirm: the inbox is still the same folder", code="nothing-to-confirm")
            body = {"kind": "inbox-confirmed", "at": self._clock.now(), "inbox": name, **by}
            audit.append(db, "", [{**body, "before": row["root"], "folder": row["found"]}])
            db.execute(
                "UPDATE roots SET root = found, found = NULL, found_at = NULL WHERE source_id = ?", (row["source_id"],)
            )
            return self._release(db, row["source_id"])

    @staticmethod
    def _release(db: Transaction, source_id: int) -> int:
        """Each is proven afresh before it goes; its rule and its due time count again."""
        return db.execute(
            f"UPDATE files SET due_at = 0, code = NULL, reason = NULL {_EXCHANGED}", (source_id,)
        ).rowcount
