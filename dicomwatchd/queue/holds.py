"""Studies that are held: archived, with nothing of them, or of some of their instances, deleted until somebody who has
looked at them says so.

What was found stays here as long as it is not released, whatever is pruned, and a release stays for good: what it was
given for does not hold the study again, anything else does. It is put on record in the audit chain.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from dicomwatchd.errors import Permanent
from dicomwatchd.model import FileState, StudyEvent, StudyState, Uid
from dicomwatchd.patients import Identity, from_document
from dicomwatchd.ports import Clock
from dicomwatchd.queue import audit
from dicomwatchd.queue.database.schema import Database, Readable, Transaction
from dicomwatchd.queue.quiet import restart_at
from dicomwatchd.queue.rows import HELD, MORE, OWN_OBJECT, said_by
from dicomwatchd.queue.transitions import move, state_of

#: ``code`` of a hold: the study's files name two patients, or more than are kept on record.
TWO_PATIENTS = "two-patients"
#: The archive has several versions of some SOP Instances that are not the same data set. Only their files are kept.
OTHER_VERSIONS = "other-versions"
#: The study was erased from the archive: nothing of it is archived, and no local file of it is deleted.
ERASED = "erased"

#: Why a file is kept, by the code of the hold.
REASONS = {
    TWO_PATIENTS: "archived; kept because its study names two patients, or too many to tell: see dicomwatchctl"
    " attention",
    OTHER_VERSIONS: "archived; kept because the archive has another version of the same image: see dicomwatchctl"
    " attention",
    ERASED: "kept because its study was erased from the archive: see dicomwatchctl attention",
}
#: What was found, as plain data for people: the patients that the files name, or the instances with several versions.
Found = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Hold:
    """``held_at`` is in seconds since the epoch; ``files`` counts the local files that are kept because of it.
    ``shown`` names all that the study is held for now, for whoever releases it: see `Holds.release`."""

    study_uid: Uid
    code: str
    found: Found
    held_at: float
    files: int
    shown: str


@dataclass(frozen=True, slots=True)
class Known:
    """What the state knows of a study's patients. ``patients`` are those whom files have named that came here, also
    those that are in no manifest yet; ``are_more``: files have named others, who are not on record, since the study was
    last released. ``found`` is what it is held for; None if it is not held."""

    patients: tuple[Identity, ...]
    are_more: bool
    found: tuple[Identity, ...] | None


class Holds:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def known(self, study_uid: Uid) -> Known:
        with self._database.read() as db:
            rows = db.execute(
                "SELECT digest, said FROM identities WHERE study_uid = ? AND kind = 'patient' ORDER BY digest",
                (study_uid,),
            ).fetchall()
            row = self._row(db, study_uid, TWO_PATIENTS)
        found = None if row is None or row["released_at"] is not None else json.loads(row["found"])
        return Known(
            tuple(said_by(Identity, one) for one in rows),
            any(one["digest"] == MORE for one in rows),
            None if found is None else tuple(map(_identity, found)),
        )

    def found_for(self, study_uid: Uid, code: str) -> tuple[Found, bool]:
        """What the study is held for, or was when it was released, and whether it was; nothing of one never held."""
        with self._database.read() as db:
            row = self._row(db, study_uid, code)
        return ([], False) if row is None else (json.loads(row["found"]), row["released_at"] is not None)

    def hold(
        self,
        study_uid: Uid,
        code: str,
        found: Found,
        is_released_by: Callable[[Found], bool],
        instances: Collection[str] | None = None,
    ) -> tuple[bool, bool]:
        """Hold the study, or these SOP Instances of it, for what was ``found``, unless a release was given for it
        already: ``is_released_by`` says so of what an earlier one was given for. Its files that stay by their rule are
        held with it from now on: whoever has uploaded them must not take them for deletable. Returns whether the study
        is held, and whether that is new.
        """

        def is_released(row: sqlite3.Row | None) -> bool:
            return row is not None and row["released_at"] is not None and is_released_by(json.loads(row["found"]))

        with self._database.read() as reading:
            row = self._row(reading, study_uid, code)
        if is_released(row):
            return False, False
        if row is not None and row["released_at"] is None and json.loads(row["found"]) == found:
            return True, False
        with self._database.write() as db:
            row = self._row(db, study_uid, code)
            if is_released(row):  # by now
                return False, False
            is_new = row is None or row["released_at"] is not None
            db.execute(
                "INSERT INTO holds (study_uid, code, found, held_at) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " found = excluded.found, released_at = NULL,"
                " held_at = CASE WHEN released_at IS NULL THEN held_at ELSE excluded.held_at END",
                (study_uid, code, json.dumps(found), self._clock.now()),
            )
            kept = db.execute(
                "SELECT file_id, sop_instance_uid FROM files"
                " WHERE study_uid = ? AND state = 'kept' AND code IS NULL AND due_at IS NULL",
                (study_uid,),
            ).fetchall()
            db.executemany(
                "UPDATE files SET code = ?, reason = ? WHERE file_id = ?",
                [
                    (HELD, REASONS[code], file["file_id"])
                    for file in kept
                    if instances is None or file["sop_instance_uid"] in instances
                ],
            )
        return True, is_new

    def release(self, study_uid: Uid, because: str, by: dict[str, object], shown: str | None = None) -> int:
        """Whoever ``by`` is has looked at the study: its files go by their rules again, each proven afresh. How many.
        Those of a study that was erased are archived again, all of them: what was sent of them before is gone.
        ``shown`` is the `Hold.shown` that was looked at; without it, what the study is held for by now is released.
        Raises Permanent where the study is not held, or for something else than what was shown."""
        now = self._clock.now()
        with self._database.write() as db:
            codes = [
                row["code"]
                for row in db.execute(
                    "SELECT code FROM holds WHERE study_uid = ? AND released_at IS NULL ORDER BY code", (study_uid,)
                )
            ]
            if not codes:
                raise Permanent(
                    "the study is not held", code="not-held", hint="dicomwatchctl attention lists the studies that are"
                )
            if shown not in (None, _shown(db, study_uid)):
                raise Permanent(
                    "the study is held for something else by now than what was shown",
                    code="hold-changed",
                    hint="look at it again: dicomwatchctl attention",
                )
            body = {"kind": "hold-released", "at": now, "because": because, **by}
            audit.append(db, study_uid, [{**body, "hold": code} for code in codes])
            db.execute("UPDATE holds SET released_at = ? WHERE study_uid = ? AND released_at IS NULL", (now, study_uid))
            # Who comes from now on and is not on record is not among those whom the release was given for.
            db.execute(
                "DELETE FROM identities WHERE study_uid = ? AND kind = 'patient' AND digest = ?", (study_uid, MORE)
            )
            if ERASED in codes:
                return _archive_again(db, study_uid, now)
            return db.execute(
                "UPDATE files SET due_at = 0, code = NULL, reason = NULL"
                f" WHERE study_uid = ? AND state = 'kept' AND code = '{HELD}'",
                (study_uid,),
            ).rowcount

    def codes(self, study_uid: Uid) -> list[str]:
        """What the study is held for now."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT code FROM holds WHERE study_uid = ? AND released_at IS NULL ORDER BY code", (study_uid,)
            ).fetchall()
        return [row["code"] for row in rows]

    def open(self, limit: int) -> Iterator[Hold]:
        """The studies that are held, the oldest hold first; one at a time, for one of 20,000 instances takes 15 MB."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT study_uid, code FROM holds WHERE released_at IS NULL ORDER BY held_at LIMIT ?", (limit,)
            ).fetchall()
        for row in rows:
            hold = self._open_one(row["study_uid"], row["code"])
            if hold is not None:
                yield hold

    def _open_one(self, study_uid: str, code: str) -> Hold | None:
        with self._database.read() as db:
            row = db.execute(
                # Of one that was erased all files wait, archived before or not.
                "SELECT h.*, (SELECT COUNT(*) FROM files f WHERE f.study_uid = h.study_uid AND"
                f" (h.code = '{ERASED}' OR (f.state = 'kept' AND f.code = '{HELD}'))) AS files FROM holds h"
                " WHERE study_uid = ? AND code = ? AND released_at IS NULL",
                (study_uid, code),
            ).fetchone()
            if row is None:  # released by now
                return None
            shown = _shown(db, study_uid)
        return Hold(Uid(study_uid), code, json.loads(row["found"]), row["held_at"], row["files"], shown)

    def uids(self, limit: int) -> list[Uid]:
        """The studies that are held."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT DISTINCT study_uid FROM holds WHERE released_at IS NULL ORDER BY study_uid LIMIT ?", (limit,)
            ).fetchall()
        return [Uid(row["study_uid"]) for row in rows]

    def oldest(self) -> float | None:
        """When the hold began that is open for longest, in seconds since the epoch; None where none is."""
        with self._database.read() as db:
            row = db.execute("SELECT MIN(held_at) AS at FROM holds WHERE released_at IS NULL").fetchone()
        return None if row["at"] is None else float(row["at"])

    def count(self) -> int:
        """How many studies are held."""
        with self._database.read() as db:
            found: int = db.execute("SELECT COUNT(DISTINCT study_uid) FROM holds WHERE released_at IS NULL").fetchone()[
                0
            ]
        return found

    @staticmethod
    def _row(db: Readable, study_uid: Uid, code: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = db.execute(
            "SELECT * FROM holds WHERE study_uid = ? AND code = ?", (study_uid, code)
        ).fetchone()
        return row


def _archive_again(db: Transaction, study_uid: Uid, now: float) -> int:
    """Every file of a study that was erased counts as one that was never sent; how many there are."""
    db.execute(
        "UPDATE files SET state = ?, receipt = NULL, evidence = NULL, due_at = NULL, code = NULL, reason = NULL"
        " WHERE study_uid = ? AND (state = ? OR (state = ? AND code IS NOT ?))",
        (FileState.READY, study_uid, FileState.STORED, FileState.KEPT, OWN_OBJECT),
    )
    # One whose deletion is under way, if it stays after all.
    db.execute("UPDATE files SET receipt = NULL WHERE study_uid = ? AND state = ?", (study_uid, FileState.DELETING))
    waiting = db.execute(
        "SELECT source_id, COUNT(*) AS files FROM files WHERE study_uid = ? AND state = ? GROUP BY source_id",
        (study_uid, FileState.READY),
    ).fetchall()
    state = state_of(db, study_uid)
    if state is StudyState.PARKED:
        move(db, study_uid, StudyEvent.RETRY, now)
        db.execute(
            "UPDATE studies SET not_before = 0, attempts = 0, blamed = 0, turn = 0, endpoint = NULL,"
            " queued_at = COALESCE(queued_at, ?) WHERE study_uid = ?",
            (now, study_uid),
        )
    elif state is StudyState.ARCHIVED and waiting:
        move(db, study_uid, StudyEvent.CHANGED, now)
        for row in waiting:
            restart_at(db, study_uid, [row["source_id"]], now)
    return sum(row["files"] for row in waiting)


def _shown(db: Readable, study_uid: str) -> str:
    """Other where the study is held for anything else: short enough to be typed."""
    digest = hashlib.sha256()
    rows = db.execute(
        "SELECT code, found FROM holds WHERE study_uid = ? AND released_at IS NULL ORDER BY code", (study_uid,)
    )
    for row in rows:
        digest.update(f"{row['code']} {row['found']}\n".encode())
    return digest.hexdigest()[:12]


def _identity(said: dict[str, str]) -> Identity:
    return from_document(Identity, said)
