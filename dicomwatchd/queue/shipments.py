"""What a shipment reads of its study, and what it commits under its claim.

Every commit names the claim's token; a token that is no longer the study's completes nothing (ClaimLost).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dicomwatchd.errors import ClaimLost
from dicomwatchd.model import (
    LIMITED,
    SERIES_ATTRIBUTES_LIMIT_BYTES,
    DicomJson,
    FileState,
    StudyEvent,
    StudyState,
    Uid,
    least,
)
from dicomwatchd.patients import (
    IDENTITIES_LIMIT,
    IDENTITIES_LIMITED,
    ORDERS_LIMITED,
    Identity,
    Order,
    distinct,
    leaves_out,
    nearest_first,
)
from dicomwatchd.ports import Clock
from dicomwatchd.queue.database.schema import Database, Transaction
from dicomwatchd.queue.dicomdirs import LocalDicomdir, files_of, lists_of, put_archived
from dicomwatchd.queue.quiet import restart_at
from dicomwatchd.queue.rows import WAITING, Claim, LocalFile, Proven, identity_text, local_file, said_by
from dicomwatchd.queue.transitions import move, write_under
from dicomwatchd.study_completeness import NOTHING_KNOWN, StudyCompleteness

#: Of a study in an upload so many gaps are told in words.
_GAPS_OF_AN_UPLOAD = 5
#: The flag of a study beside whose files, in one folder, stand damaged ones that do not say whose they are.
UNREADABLE_BESIDE = "unreadable-file-beside"
_UNREADABLE_BESIDE = (
    "SELECT 1 FROM (SELECT DISTINCT source_id, dir FROM files WHERE study_uid = ?) here"
    " CROSS JOIN files f INDEXED BY files_of_nobody USING (source_id, dir) WHERE f.state = 'quarantined'"
    " AND f.code IN ('truncated', 'malformed', 'no-uid', 'bad-uid') LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What was gathered of a study from its files' headers."""

    attributes: DicomJson
    series: dict[Uid, DicomJson]
    flags: tuple[str, ...]
    damaged_keys: tuple[str, ...]
    #: Every patient and every order that files of the study have named, distinct (see `patients`).
    identities: tuple[Identity, ...] = ()
    orders: tuple[Order, ...] = ()
    #: The SOP Instance UIDs that DICOMDIRs here list of it, by the SHA-256 of each.
    listed: Mapping[str, Collection[str]] = field(default_factory=dict)
    #: These DICOMDIRs.
    dicomdirs: list[LocalDicomdir] = field(default_factory=list)


class Shipments:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

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
                raise ClaimLost("the study is no longer in the queue")
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
            beside = db.execute(_UNREADABLE_BESIDE, (claim.study_uid,)).fetchone() is not None
            said = db.execute(
                "SELECT kind, digest, said FROM identities WHERE study_uid = ? ORDER BY kind, digest",
                (claim.study_uid,),
            ).fetchall()
            lists = lists_of(db, claim.study_uid)
            dicomdirs = files_of(db, lists)
        of_study = json.loads(study["attributes"])
        patients = [said_by(Identity, row) for row in said if row["kind"] == "patient"]
        orders = [said_by(Order, row) for row in said if row["kind"] == "order"]
        # Those most like what the attributes say come first: it is what a search shows.
        identities = distinct(nearest_first(patients, Identity.of(of_study)))
        is_limited = len(patients) > IDENTITIES_LIMIT or leaves_out(identities, patients)
        return StudyFacts(
            attributes=of_study,
            series=series,
            flags=(
                *json.loads(study["flags"]),
                *((LIMITED,) if left < 0 else ()),
                *((UNREADABLE_BESIDE,) if beside else ()),
                *((IDENTITIES_LIMITED,) if is_limited else ()),
                *((ORDERS_LIMITED,) if len(orders) > IDENTITIES_LIMIT else ()),
            ),
            damaged_keys=tuple(json.loads(study["damaged_keys"])),
            identities=identities,
            orders=distinct(nearest_first(orders, Order.of(of_study))),
            listed={one.sha256: one.uids for one in lists},
            dicomdirs=dicomdirs,
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

    def advance(self, claim: Claim, event: StudyEvent) -> None:
        with write_under(self._database, claim) as db:
            move(db, claim.study_uid, event, self._clock.now())

    def recorded(
        self,
        claim: Claim,
        revision: int,
        completeness: StudyCompleteness | None = None,
        archived: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """``completeness`` is told at the end of each upload that has files of the study. ``archived`` gives the SOP
        Instance UIDs that the archive has of it by now."""
        found = completeness or NOTHING_KNOWN
        gaps = json.dumps([one.text for one in found.gaps[:_GAPS_OF_AN_UPLOAD]])
        with write_under(self._database, claim) as db:
            db.execute("UPDATE studies SET revision = ? WHERE study_uid = ?", (revision, claim.study_uid))
            if revision:
                put_archived(db, claim.study_uid, archived)
            db.execute(
                "INSERT OR REPLACE INTO upload_studies (source_id, study_uid, answer, gaps)"
                " SELECT source_id, ?, ?, ? FROM sources s WHERE kind = 'upload' AND EXISTS"
                " (SELECT 1 FROM files f WHERE f.study_uid = ? AND f.source_id = s.source_id)",
                (claim.study_uid, found.answer, gaps, claim.study_uid),
            )
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
            waited_since = db.execute(
                "SELECT waits_since FROM studies WHERE study_uid = ?", (claim.study_uid,)
            ).fetchone()["waits_since"]
            move(db, claim.study_uid, StudyEvent.FINISHED, now)
            db.execute(
                "UPDATE studies SET claimed = 0, attempts = 0, not_before = 0, code = NULL, reason = NULL,"
                " turn = 0, blamed = 0, endpoint = NULL, archived_at = ? WHERE study_uid = ?",
                (now, claim.study_uid),
            )
            if shipment["revision"]:
                db.execute(
                    "INSERT INTO shipments (study_uid, source, revision, started_at, finished_at, files, bytes,"
                    " sent_bytes, retries, stages, waited_since) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                        waited_since,
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
