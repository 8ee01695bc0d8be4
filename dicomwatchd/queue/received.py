"""What is known of the SOP Instances that have come by a receiver, by the names that it has given them: those that are
here, and, for a while, those that are not any more. It says where the archive has to be asked, and proves nothing."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice

from dicomwatchd.model import FileIdentity, FileState
from dicomwatchd.ports import Clock
from dicomwatchd.queue.database.schema import Database
from dicomwatchd.queue.rows import identity_of

#: So long what is gone is known. A modality asks within minutes, a slow one in the night.
KEEP_SECONDS = 14 * 86400.0
_PAGE = 500
#: As a receiver calls its files, and as each is called that could not have its name again (pipeline.deletion.staging).
_NAME = re.compile(rb"(?P<uid>[0-9.]{1,64})(?:-[0-9a-f]{12})?(?:\.restored-[0-9]+)?\.dcm\Z")


def _by_name(select: str) -> str:
    """Three questions, each of which the index answers: of one with OR, SQLite reads the whole inbox."""
    ranges = ("name = ?", "name >= ? AND name < ?", "name >= ? AND name < ?")
    return " UNION ALL ".join(f"{select} AND {one}" for one in ranges)


HERE = _by_name("SELECT name, state, study_uid, sha256, identity FROM files WHERE source_id = ? AND dir = x''")
GONE = _by_name("SELECT name, study_uid, sha256 FROM received WHERE source_id = ?")


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """``state`` is None of one that is not here any more. ``sha256`` is None of one that was never sent. ``identity``
    is that of the file that was looked at under the name."""

    name: bytes
    state: FileState | None
    study_uid: str
    sha256: str | None
    identity: FileIdentity | None = None


class Received:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def keep_for(self, source_ids: Collection[int]) -> None:
        """What has gone from these sources is known from now on, and of no others."""
        with self._database.read() as reading:
            known = {row["source_id"] for row in reading.execute("SELECT source_id FROM received_sources")}
        if known == set(source_ids):
            return
        with self._database.write() as db:
            db.execute("DELETE FROM received_sources")
            db.executemany("INSERT INTO received_sources VALUES (?)", [(one,) for one in source_ids])
            # Of the others nothing is noted from here on: what was noted before could be taken for the last that came.
            db.execute("DELETE FROM received WHERE source_id NOT IN (SELECT source_id FROM received_sources)")

    def of(self, source_id: int, sop_instance_uids: Iterable[str]) -> dict[str, list[ReceivedFile]]:
        """The files of these instances, by SOP Instance UID. One that has the name of another that is gone stands for
        both: it came later, and is what the modality has."""
        found: dict[str, list[ReceivedFile]] = {}
        iterator = iter(sop_instance_uids)
        while page := list(islice(iterator, _PAGE)):
            with self._database.read() as db:  # nobody else has the state meanwhile
                for uid in page:
                    found[uid] = _files_of(db, source_id, uid)
        return found

    def step(self) -> bool:
        """One page of what has gone: when, and what has for long enough. Whether there may be more at once."""
        now = self._clock.now()
        with self._database.read() as db:
            is_due = db.execute(
                "SELECT 1 FROM received WHERE gone_at IS NULL OR gone_at < ? LIMIT 1",
                (now - KEEP_SECONDS,),
            ).fetchone()
        if is_due is None:
            return False
        page = "(SELECT source_id, name FROM received WHERE gone_at {} LIMIT ?)"
        with self._database.write() as db:
            dated = db.execute(
                f"UPDATE received SET gone_at = ? WHERE (source_id, name) IN {page.format('IS NULL')}", (now, _PAGE)
            ).rowcount
            dropped = db.execute(
                f"DELETE FROM received WHERE (source_id, name) IN {page.format('< ?')}", (now - KEEP_SECONDS, _PAGE)
            ).rowcount
        return dated == _PAGE or dropped == _PAGE


def _files_of(db: sqlite3.Connection, source_id: int, uid: str) -> list[ReceivedFile]:
    plain, ranges = f"{uid}.dcm".encode(), (f"{uid}-", f"{uid}.", f"{uid}.restored-", f"{uid}.restored.")
    first, first_end, second, second_end = (one.encode() for one in ranges)
    parameters = (source_id, plain, source_id, first, first_end, source_id, second, second_end)
    here = {
        row["name"]: ReceivedFile(
            row["name"],
            FileState(row["state"]),
            row["study_uid"] or "",
            row["sha256"],
            identity_of(row["identity"]),
        )
        for row in db.execute(HERE, parameters)
    }
    gone = {
        row["name"]: ReceivedFile(row["name"], None, row["study_uid"], row["sha256"])
        for row in db.execute(GONE, parameters)
    }
    return [*(gone | here).values()]


def instance_of(name: bytes) -> str | None:
    """The SOP Instance UID of a file that a receiver has named; None of another."""
    match = _NAME.match(name)
    return None if match is None else match["uid"].decode("ascii")
