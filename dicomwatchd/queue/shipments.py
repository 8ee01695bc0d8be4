"""The pipeline's side of the queue: claims on studies, and what a shipment commits under its claim.

Every commit names the claim's token; a token that is no longer the study's completes nothing (ClaimLost).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dicomwatchd.errors import ClaimLost
from dicomwatchd.model import (
    LIMITED,
    SERIES_ATTRIBUTES_LIMIT_BYTES,
    SHIPPING,
    DicomJson,
    FileState,
    StudyEvent,
    StudyState,
    Uid,
    least,
)
from dicomwatchd.ports import Clock
from dicomwatchd.queue.database.schema import Database, Transaction
from dicomwatchd.queue.parked import LONGEST_WAIT_SECONDS, NO_PROOF, pause_seconds
from dicomwatchd.queue.quiet import restart_at
from dicomwatchd.queue.rows import NO_LEASE, WAITING, Claim, LocalFile, Proven, identity_text, local_file
from dicomwatchd.queue.transitions import move, state_of, write_under

#: A study that has failed so often while others passed waits in a line of its own.
KNOWN_ILL = 2


class First(StrEnum):
    """Who comes first of those whose turn it may be."""

    UNTRIED = "untried"
    NEWEST = "newest"  # of those that nobody has tried, the one that went quiet last
    TRIED = "tried"


_WAITING = "state = 'queued' AND claimed = 0"
#: Named as text, as the indexes name them: of the others, and of the studies that are known to be ill.
_LINES = (f"blamed < {KNOWN_ILL}", f"blamed >= {KNOWN_ILL}")
_IN_TURN = "ORDER BY turn, queued_at"
_ORDERS = {
    First.UNTRIED: (_IN_TURN,),
    First.NEWEST: ("AND turn = 0 ORDER BY queued_at DESC", _IN_TURN),
    First.TRIED: (f"AND turn > 0 {_IN_TURN}", _IN_TURN),
}


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What was gathered of a study from its files' headers."""

    attributes: DicomJson
    series: dict[Uid, DicomJson]
    flags: tuple[str, ...]
    damaged_keys: tuple[str, ...]


class Shipments:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        #: The sources that do not answer: a study with files to be read or deleted there is not claimed. Set by whoever
        #: knows of them.
        self.silent: Callable[[], Collection[int]] = tuple

    # -- claims -----------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """At start: no claim of an earlier run holds."""
        with self._database.write() as db:
            rows = db.execute(
                f"SELECT study_uid FROM studies WHERE state != 'archived' AND state IN ({_marks(SHIPPING)})",
                tuple(SHIPPING),
            ).fetchall()
            for row in rows:
                move(db, row["study_uid"], StudyEvent.RELEASED, self._clock.now())
            db.execute("UPDATE studies SET claimed = 0, token = token + 1 WHERE claimed = 1")

    def claim(self, *, known_ill: bool = False, first: First = First.UNTRIED) -> Claim | None:
        """The study whose turn it is, or None: of those that may be tried now the one that was tried least lately, and
        of those never tried the one that has been quiet for longest, unless ``first`` says otherwise. ``known_ill``: in
        the line of those that have failed again and again while others passed, which are in no other."""
        now = self._clock.now()
        with self._database.write() as db:
            for which in _ORDERS[first]:
                row = db.execute(
                    "UPDATE studies SET token = token + 1, claimed = 1 WHERE study_uid = (SELECT study_uid"
                    f" FROM studies WHERE {_WAITING} AND {_LINES[known_ill]}"
                    f" AND (not_before <= ? OR not_before > ?) {self._answering()} {which} LIMIT 1)"
                    " RETURNING study_uid, token, attempts, revision, code, blamed",
                    (now, now + LONGEST_WAIT_SECONDS),
                ).fetchone()
                if row is not None:
                    break
            else:
                return None
            move(db, row["study_uid"], StudyEvent.CLAIMED, now)
        return Claim(Uid(row["study_uid"]), row["token"], row["attempts"], row["revision"], row["code"], row["blamed"])

    def _answering(self) -> str:
        """A clause on a study: all of its files that a shipment would touch are where they can be asked for."""
        if not (silent := self.silent()):
            return ""
        return (
            " AND NOT EXISTS (SELECT 1 FROM files f WHERE f.study_uid = studies.study_uid"
            " AND f.state IN ('ready', 'stored', 'deleting')"
            f" AND f.source_id IN ({','.join(map(str, map(int, silent)))}))"
        )

    def next_try_at(self, *lines: bool) -> float | None:
        """When the next queued study, or the next kept file of a study that is at rest, is due; None when there is
        none. ``lines``: of the studies that are known to be ill (True), or of the others; of both if none is named."""
        dues = [due for line in (lines or (False, True)) if (due := self.next_in_line_at(known_ill=line)) is not None]
        with self._database.read() as db:
            kept = db.execute(
                "SELECT f.due_at FROM files f CROSS JOIN studies s USING (study_uid) WHERE f.state = 'kept'"
                " AND f.due_at IS NOT NULL AND f.receipt IS NOT NULL AND s.state = 'archived' ORDER BY f.due_at LIMIT 1"
            ).fetchone()
        if kept is not None:
            dues.append(float(kept["due_at"]))
        return min(dues, default=None)

    def next_in_line_at(self, *, known_ill: bool) -> float | None:
        """When the next queued study of this line may be tried."""
        with self._database.read() as db:
            # One end of an index at a time: a query for both ends would walk all that lies between.
            first, last = (
                db.execute(
                    f"SELECT {end}(not_before) AS at FROM studies WHERE {_WAITING} AND {_LINES[known_ill]}"
                    f"{self._answering()}"
                ).fetchone()["at"]
                for end in ("MIN", "MAX")
            )
        if first is None:
            return None
        return 0.0 if last > self._clock.now() + LONGEST_WAIT_SECONDS else float(first)

    def queue_due(self) -> None:
        """Queue the studies that have kept files whose time of deletion has come: they are proven again first. A file
        without a receipt has not been sent to this archive (see Binding.bind)."""
        now = self._clock.now()
        with self._database.write() as db:
            rows = db.execute(
                "SELECT DISTINCT f.study_uid FROM files f CROSS JOIN studies s USING (study_uid)"
                " WHERE f.state = 'kept' AND f.due_at IS NOT NULL AND f.due_at <= ? AND f.receipt IS NOT NULL"
                " AND s.state = 'archived'",
                (now,),
            ).fetchall()
            for row in rows:
                db.execute(
                    "UPDATE files SET state = ? WHERE study_uid = ? AND state = ? AND due_at <= ?"
                    " AND receipt IS NOT NULL",
                    (FileState.STORED, row["study_uid"], FileState.KEPT, now),
                )
                move(db, row["study_uid"], StudyEvent.DUE, now)
                db.execute("UPDATE studies SET queued_at = ? WHERE study_uid = ?", (now, row["study_uid"]))

    def advance(self, claim: Claim, event: StudyEvent) -> None:
        with write_under(self._database, claim) as db:
            move(db, claim.study_uid, event, self._clock.now())

    def release(
        self,
        claim: Claim,
        *,
        not_before: float,
        code: str,
        reason: str,
        attempts: int,
        blamed: int = 0,
        endpoint: str | None = None,
    ) -> None:
        """Give the study back, to be tried again from ``not_before`` on; behind all others if this attempt counts.
        ``endpoint`` is what it failed on if it is not known to be ill itself: see `endpoints_back`."""
        with write_under(self._database, claim) as db:
            move(db, claim.study_uid, StudyEvent.RELEASED, self._clock.now())
            if attempts > claim.attempts:
                last = (
                    db.execute(f"SELECT MAX(turn) AS turn FROM studies WHERE {_WAITING} AND {line}").fetchone()["turn"]
                    for line in _LINES
                )
                turn = 1 + max(number or 0 for number in last)
                db.execute("UPDATE studies SET turn = ? WHERE study_uid = ?", (turn, claim.study_uid))
            db.execute(
                "UPDATE studies SET claimed = 0, not_before = ?, attempts = ?, code = ?, reason = ?, blamed = ?,"
                " endpoint = ? WHERE study_uid = ?",
                (not_before, attempts, code, reason, blamed, endpoint, claim.study_uid),
            )

    def endpoints_back(self) -> None:
        """What was ill answers again: the studies that failed on it, as all did, wait no longer, and have their old
        turns again."""
        with self._database.write() as db:
            db.execute(
                "UPDATE studies SET not_before = 0, turn = 0, attempts = 0, endpoint = NULL"
                " WHERE endpoint IS NOT NULL AND state = 'queued'"
            )

    def park(self, claim: Claim, *, code: str, reason: str) -> None:
        """For a person to see to; see `parked` for those that are tried again by themselves."""
        now = self._clock.now()
        with write_under(self._database, claim) as db:
            move(db, claim.study_uid, StudyEvent.FAILED, now)
            db.execute(
                "UPDATE studies SET claimed = 0, code = ?, reason = ? WHERE study_uid = ?",
                (code, reason, claim.study_uid),
            )
            if code == NO_PROOF:
                db.execute(
                    "UPDATE studies SET not_before = ?, attempts = ? WHERE study_uid = ?",
                    (now + pause_seconds(claim.attempts), claim.attempts + 1, claim.study_uid),
                )

    def retry(self, study_uid: str) -> bool:
        """The operator's word: try a parked or waiting study now, or one with files that are kept for want of a read
        lease. False when there is nothing to retry."""
        with self._database.write() as db:
            state = state_of(db, study_uid)
            if state is StudyState.ARCHIVED:
                return bool(
                    db.execute(
                        "UPDATE files SET due_at = ? WHERE study_uid = ? AND state = ? AND code = ?",
                        (self._clock.now(), study_uid, FileState.KEPT, NO_LEASE),
                    ).rowcount
                )
            if state not in (StudyState.PARKED, StudyState.QUEUED):
                return False
            move(db, study_uid, StudyEvent.RETRY, self._clock.now())
            db.execute(
                "UPDATE studies SET not_before = 0, attempts = 0, blamed = 0, turn = 0, endpoint = NULL,"
                " queued_at = COALESCE(queued_at, ?) WHERE study_uid = ?",
                (self._clock.now(), study_uid),
            )
        return True

    # -- the files of a shipment ------------------------------------------------------------------------------

    def pages(self, claim: Claim, state: FileState, size: int) -> Iterator[list[LocalFile]]:
        """The study's files in this state, a page at a time, each file once."""
        after = 0
        while True:
            with self._database.read() as db:
                rows = db.execute(
                    "SELECT * FROM files WHERE study_uid = ? AND state = ? AND file_id > ? ORDER BY file_id LIMIT ?",
                    (claim.study_uid, state, after, size),
                ).fetchall()
            if not rows:
                return
            yield [local_file(row, claim.token) for row in rows]
            after = rows[-1]["file_id"]

    def arriving(self) -> list[Uid]:
        """Studies that are arriving, in no particular order."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT study_uid FROM studies WHERE state != 'archived' AND state = ?", (StudyState.ARRIVING,)
            ).fetchall()
        return [Uid(row["study_uid"]) for row in rows]

    def ready_while_arriving(self, study_uid: Uid, after: int, size: int) -> list[LocalFile]:
        """The study's next files that were not sent yet, by their ids; none once the study arrives no more."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT files.* FROM files WHERE study_uid = ? AND state = ? AND file_id > ? AND EXISTS"
                " (SELECT 1 FROM studies WHERE study_uid = ? AND state = ?) ORDER BY file_id LIMIT ?",
                (study_uid, FileState.READY, after, study_uid, StudyState.ARRIVING, size),
            ).fetchall()
        return [local_file(row, -1) for row in rows]

    def waiting_bytes(self, study_uid: Uid) -> tuple[int, int]:
        """Of the study's files that were not sent yet: the size of all together, and of the largest."""
        with self._database.read() as db:
            row = db.execute(
                "SELECT COALESCE(SUM(size_bytes), 0) AS total, COALESCE(MAX(size_bytes), 0) AS largest FROM files"
                " WHERE study_uid = ? AND state = ?",
                (study_uid, FileState.READY),
            ).fetchone()
        return row["total"], row["largest"]

    def sent_early(self, sent: Iterable[tuple[LocalFile, str, str]]) -> None:
        """As `stored`, with no claim, of files whose study was still arriving: a file that is not as it was, in any
        respect, is left out."""
        with self._database.write() as db:
            db.executemany(
                "UPDATE files SET state = ?, sha256 = ?, receipt = ?, evidence = NULL"
                " WHERE file_id = ? AND identity = ? AND state = ? AND key_attempt = ?",
                [
                    (
                        FileState.STORED,
                        sha256,
                        receipt,
                        file.file_id,
                        identity_text(file.identity),
                        FileState.READY,
                        file.key_attempt,
                    )
                    for file, sha256, receipt in sent
                ],
            )

    def facts(self, claim: Claim) -> StudyFacts:
        with self._database.read() as db:
            study = db.execute(
                "SELECT attributes, flags, damaged_keys FROM studies WHERE study_uid = ?", (claim.study_uid,)
            ).fetchone()
            if study is None:
                raise ClaimLost("the study is gone since it was claimed")
            rows = db.execute(
                "SELECT series_uid, attributes FROM series WHERE study_uid = ? AND series_uid IN"
                " (SELECT DISTINCT series_uid FROM files WHERE study_uid = ?) ORDER BY series_uid",
                (claim.study_uid, claim.study_uid),
            )
            series: dict[Uid, DicomJson] = {}
            left = SERIES_ATTRIBUTES_LIMIT_BYTES
            for row in rows:  # one after the other: all of them are as many as somebody likes
                left -= len(row["attributes"])
                attributes = json.loads(row["attributes"])
                series[Uid(row["series_uid"])] = attributes if left >= 0 else least(attributes)
        return StudyFacts(
            attributes=json.loads(study["attributes"]),
            series=series,
            flags=(*json.loads(study["flags"]), *((LIMITED,) if left < 0 else ())),
            damaged_keys=tuple(json.loads(study["damaged_keys"])),
        )

    def stored(self, claim: Claim, sent: Iterable[tuple[LocalFile, str, str]]) -> None:
        """These files were sent: (file, SHA-256, receipt). A file that has changed meanwhile is left out."""
        with write_under(self._database, claim) as db:
            db.executemany(
                "UPDATE files SET state = ?, sha256 = ?, receipt = ?, evidence = NULL"
                " WHERE file_id = ? AND identity = ?",
                [
                    (FileState.STORED, sha256, receipt, file.file_id, identity_text(file.identity))
                    for file, sha256, receipt in sent
                ],
            )

    def share_locations(self, claim: Claim) -> None:
        """Files of one content that were sent to several places are all in the first of them from now on: a manifest
        lists each content once."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT series_uid, sop_instance_uid, sha256, MIN(file_id) AS first FROM files"
                " WHERE study_uid = ? AND state = ? GROUP BY series_uid, sop_instance_uid, sha256"
                " HAVING COUNT(DISTINCT receipt) > 1",
                (claim.study_uid, FileState.STORED),
            ).fetchall()
        if not rows:
            return
        with write_under(self._database, claim) as db:
            db.executemany(
                "UPDATE files SET receipt = (SELECT receipt FROM files WHERE file_id = ?), evidence = NULL"
                " WHERE study_uid = ? AND state = ? AND series_uid = ? AND sop_instance_uid = ? AND sha256 = ?",
                [
                    (r["first"], claim.study_uid, FileState.STORED, r["series_uid"], r["sop_instance_uid"], r["sha256"])
                    for r in rows
                ],
            )

    def verified(self, claim: Claim, proven: Iterable[Proven]) -> None:
        """Fresh reads of the store have proved these files' objects. What counts is when the store was asked: this
        commit may come long after."""
        with write_under(self._database, claim) as db:
            db.executemany(
                "UPDATE files SET evidence = ?, evidence_at = ?, evidence_token = ?, receipt = COALESCE(?, receipt)"
                " WHERE file_id = ?",
                [(one.verified_by, one.asked_at, claim.token, one.receipt, one.file.file_id) for one in proven],
            )

    def send_again(self, claim: Claim, missing: Iterable[LocalFile], damaged: Mapping[LocalFile, str]) -> None:
        """The store does not hold these files' bytes: send them again, the damaged ones under the next free key.

        ``damaged`` maps a file to the key that holds other bytes.
        """
        with write_under(self._database, claim) as db:
            for file in missing:
                db.execute("UPDATE files SET state = ? WHERE file_id = ?", (FileState.READY, file.file_id))
            _to_the_next_key(db, claim, damaged)
            move(db, claim.study_uid, StudyEvent.MISMATCH, self._clock.now())

    def doubt(self, claim: Claim, damaged: Mapping[LocalFile, str]) -> None:
        """As `send_again`, at whatever stage the shipment is: it is to be given up, and the next one sends them."""
        with write_under(self._database, claim) as db:
            _to_the_next_key(db, claim, damaged)

    def healed(self, claim: Claim, keys: Collection[str]) -> None:
        """These keys of the study, once found damaged, hold the right bytes."""
        with write_under(self._database, claim) as db:
            _know_damaged(db, claim, lambda known: known - set(keys))

    def recorded(self, claim: Claim, revision: int) -> None:
        with write_under(self._database, claim) as db:
            db.execute("UPDATE studies SET revision = ? WHERE study_uid = ?", (revision, claim.study_uid))
            move(db, claim.study_uid, StudyEvent.RECORDED, self._clock.now())

    def quarantine(self, claim: Claim, file: LocalFile, *, code: str, reason: str) -> None:
        """This file cannot be archived after all; the rest of its study goes on without it."""
        with write_under(self._database, claim) as db:
            db.execute(
                "UPDATE files SET state = ?, code = ?, reason = ?, study_uid = NULL WHERE file_id = ?",
                (FileState.QUARANTINED, code, reason, file.file_id),
            )

    def forget(self, claim: Claim, files: Iterable[LocalFile]) -> None:
        """These files are no longer what they were: the next look finds what is there now. The study goes back to
        arriving, so this claim ends."""
        with write_under(self._database, claim) as db:
            now = self._clock.now()
            for file in files:
                db.execute("DELETE FROM files WHERE file_id = ?", (file.file_id,))
                restart_at(db, claim.study_uid, [file.source_id], now)
            move(db, claim.study_uid, StudyEvent.CHANGED, now)

    def finish(self, claim: Claim, shipment: dict[str, Any]) -> None:
        """The shipment is through. Files that came meanwhile make the next one. Of revision 0 nothing is kept: the
        study is in no archive, and has no files."""
        now = self._clock.now()
        with write_under(self._database, claim) as db:
            move(db, claim.study_uid, StudyEvent.FINISHED, now)
            db.execute(
                "UPDATE studies SET claimed = 0, attempts = 0, not_before = 0, code = NULL, reason = NULL,"
                " turn = 0, blamed = 0, endpoint = NULL, archived_at = ? WHERE study_uid = ?",
                (now, claim.study_uid),
            )
            if shipment["revision"]:
                db.execute(
                    "INSERT INTO shipments (study_uid, source, revision, started_at, finished_at, files, bytes,"
                    " sent_bytes, retries, stages) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        claim.study_uid,
                        shipment["source"],
                        shipment["revision"],
                        shipment["started_at"],
                        now,
                        shipment["files"],
                        shipment["bytes"],
                        shipment.get("sent_bytes"),
                        shipment["retries"],
                        json.dumps(shipment["stages"]),
                    ),
                )
            waiting = db.execute(
                "SELECT DISTINCT source_id FROM files WHERE study_uid = ? AND state IN (?, ?)",
                (claim.study_uid, *WAITING),
            ).fetchall()
            if waiting:
                move(db, claim.study_uid, StudyEvent.CHANGED, now)
                restart_at(db, claim.study_uid, [row["source_id"] for row in waiting], now)
            elif not shipment["revision"]:
                db.execute("DELETE FROM studies WHERE study_uid = ?", (claim.study_uid,))


def _to_the_next_key(db: Transaction, claim: Claim, damaged: Mapping[LocalFile, str]) -> None:
    for file in damaged:
        db.execute(
            "UPDATE files SET state = ?, key_attempt = key_attempt + 1 WHERE file_id = ?",
            (FileState.READY, file.file_id),
        )
    if damaged:
        _know_damaged(db, claim, lambda known: known | set(damaged.values()))


def _know_damaged(db: Transaction, claim: Claim, change: Callable[[set[str]], set[str]]) -> None:
    row = db.execute("SELECT damaged_keys FROM studies WHERE study_uid = ?", (claim.study_uid,)).fetchone()
    known = change(set(json.loads(row["damaged_keys"])))
    db.execute("UPDATE studies SET damaged_keys = ? WHERE study_uid = ?", (json.dumps(sorted(known)), claim.study_uid))


def _marks(values: Iterable[object]) -> str:
    return ",".join("?" for _ in values)
