"""What becomes of a study's local files once they are archived: kept, or deleted on record.

A deletion is authorised before the file is touched, and how it ended is written down afterwards, each as an entry of
the audit chain in the same commit as the file's row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dicomwatchd.model import FileIdentity, FileState, Uid
from dicomwatchd.ports import Clock
from dicomwatchd.queue import audit, holds
from dicomwatchd.queue.bindings.remounts import Remounts
from dicomwatchd.queue.database import meta
from dicomwatchd.queue.database.schema import Database, Readable, Transaction
from dicomwatchd.queue.rows import (
    DAMAGED,
    EXPIRING,
    HELD,
    NO_LEASE,
    OWN_OBJECT,
    Claim,
    LocalFile,
    Source,
    identity_of,
    identity_text,
    local_file,
)
from dicomwatchd.queue.transitions import write_under

_AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class PendingDeletion:
    """A file whose deletion was authorised and of which it is not yet known how that ended. ``source`` is what the
    state knows of its folder; one that was handed in nobody can open by that alone."""

    file_id: int
    source_id: int
    source: Source
    dir: bytes
    name: bytes
    identity: str
    study_uid: str


class Deletions:
    """What is decided under a claim names its token, as in `shipments`; what has happened needs none."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._remounts = Remounts(database, clock)

    def keep(
        self,
        claim: Claim,
        files: Sequence[LocalFile],
        due_at: float | None,
        *,
        code: str | None = None,
        reason: str | None = None,
    ) -> int:
        """These files are archived and stay where they are, for good or until ``due_at``; ``code`` and ``reason`` where
        that is not by the rule of their inbox alone. Returns how many: one that has changed meanwhile, or whose study
        is to be archived again (see `Holds.release`), is none of them."""
        kept: list[LocalFile] = []
        becomes = (FileState.KEPT, due_at, code, reason)
        with write_under(self._database, claim) as db:
            for file in files:
                changed = db.execute(
                    "UPDATE files SET state = ?, due_at = ?, code = ?, reason = ?"
                    " WHERE file_id = ? AND identity = ? AND state = ?",
                    (*becomes, file.file_id, identity_text(file.identity), FileState.STORED),
                ).rowcount
                if changed:
                    kept.append(file)
            if code == HELD and _hold(db, claim.study_uid) is None:
                # Released after it was asked whether the study is held: nobody would release these once more.
                db.execute(
                    "UPDATE files SET due_at = 0, code = NULL, reason = NULL WHERE study_uid = ? AND state = 'kept'"
                    f" AND code = '{HELD}'",
                    (claim.study_uid,),
                )
            _forget_dues(db, kept)
            if code not in (OWN_OBJECT, DAMAGED):
                _uploads_verified(db, kept)
        return len(kept)

    def due_before(self, file: LocalFile) -> float | None:
        """When this content was to go that stood under this name before its row was lost, by a remount or because its
        inbox was made anew; None if none did."""
        return self._remounts.due_at(file)

    def kept_without_lease(self, source_id: int, limit: int) -> list[LocalFile]:
        """Some of the files of a source that are kept for want of a read lease, at random."""
        with self._database.read() as db:
            rows = db.execute(
                f"SELECT * FROM files WHERE source_id = ? AND state = 'kept' AND code = '{NO_LEASE}'"
                " ORDER BY RANDOM() LIMIT ?",
                (source_id, limit),
            ).fetchall()
        return [local_file(row, 0) for row in rows]

    def release_kept(self, source_id: int) -> int:
        """The files of a source that are kept for want of a read lease are due now, and so tried again; how many."""
        with self._database.write() as db:
            return db.execute(
                f"UPDATE files SET due_at = ? WHERE source_id = ? AND state = 'kept' AND code = '{NO_LEASE}'",
                (self._clock.now(), source_id),
            ).rowcount

    def kept_as_damaged(self, study_uid: Uid, is_superseded: Callable[[str, str], bool]) -> Iterator[list[LocalFile]]:
        """Of the study's files that are kept because they are damaged those that ``is_superseded`` says so of, given
        their SOP Instance UID and their SHA-256; a page at a time."""
        after = ("", 0)
        while True:
            with self._database.read() as db:
                rows = db.execute(
                    "SELECT file_id, sop_instance_uid, sha256 FROM files INDEXED BY files_damaged_of_study"
                    " WHERE study_uid = ? AND state = 'kept'"
                    f" AND code = '{DAMAGED}' AND (sop_instance_uid, file_id) > (?, ?)"
                    f" ORDER BY sop_instance_uid, file_id LIMIT {_AT_ONCE}",
                    (study_uid, *after),
                ).fetchall()
                chosen = [row["file_id"] for row in rows if is_superseded(row["sop_instance_uid"], row["sha256"])]
                files = [
                    local_file(row, 0)
                    for file_id in chosen
                    for row in db.execute("SELECT * FROM files WHERE file_id = ?", (file_id,))
                ]
            if files:
                yield files
            if not rows:
                return
            after = (rows[-1]["sop_instance_uid"], rows[-1]["file_id"])

    def release_damaged(self, claim: Claim, due: Sequence[tuple[LocalFile, float]]) -> None:
        """A whole copy of their instance is archived: from its time on, in seconds since the epoch, each goes by its
        rule, proven afresh. Where all of their study is held, they are held with it; where some of its instances are,
        it shows when they are due whether theirs is one of them."""
        with write_under(self._database, claim) as db:
            hold = _hold(db, claim.study_uid)
            db.executemany(
                "UPDATE files SET due_at = ?, code = ?, reason = ?"
                f" WHERE file_id = ? AND identity = ? AND state = 'kept' AND code = '{DAMAGED}'",
                [
                    (
                        *((None, HELD, holds.REASONS[hold]) if hold == holds.TWO_PATIENTS else (due_at, None, None)),
                        file.file_id,
                        identity_text(file.identity),
                    )
                    for file, due_at in due
                ],
            )

    def release_expiring(self) -> int:
        """The files that are kept because the store would end their objects are due now; how many. A part of them at a
        time, for there may be many."""
        total = 0
        while True:
            with self._database.write() as db:
                count = db.execute(
                    "UPDATE files SET due_at = ?, code = NULL, reason = NULL WHERE file_id IN"
                    f" (SELECT file_id FROM files WHERE state = 'kept' AND code = '{EXPIRING}' LIMIT {_AT_ONCE})",
                    (self._clock.now(),),
                ).rowcount
            total += count
            if count < _AT_ONCE:
                return total

    def authorise(self, claim: Claim, proofs: Sequence[tuple[LocalFile, dict[str, Any]]]) -> set[int]:
        """Put the deletion of these files on record, each with its proof, before anything is touched. Returns the ids
        of those that may be deleted now: a file that the intake has found changed meanwhile is none of them."""
        now = self._clock.now()
        authorised: list[tuple[LocalFile, dict[str, Any]]] = []
        with write_under(self._database, claim) as db:
            for file, proof in proofs:
                changed = db.execute(
                    "UPDATE files SET state = ? WHERE file_id = ? AND identity = ? AND state = ?",
                    (FileState.DELETING, file.file_id, identity_text(file.identity), FileState.STORED),
                ).rowcount
                if changed:
                    authorised.append((file, proof))
            audit.append(
                db, claim.study_uid, [{"kind": "authorised", "at": now, "file": f.file_id, **p} for f, p in authorised]
            )
        return {file.file_id for file, _ in authorised}

    def purged(
        self,
        study_uid: str,
        deleted: Sequence[LocalFile],
        restored: Sequence[tuple[LocalFile, str]],
        untouched: Sequence[LocalFile],
    ) -> None:
        """How authorised deletions ended. Needs no claim: what has happened has happened. Restored files are
        forgotten, to be taken up as what they now are; untouched ones wait for their next shipment, which sends them
        once more if they were released meanwhile (see `Holds.release`)."""
        now = self._clock.now()
        bodies: list[dict[str, Any]] = [{"kind": "deleted", "file": f.file_id, "sha256": f.sha256} for f in deleted]
        bodies += [{"kind": "restored", "file": f.file_id, "sha256": f.sha256, "why": why} for f, why in restored]
        bodies += [{"kind": "untouched", "file": f.file_id, "sha256": f.sha256} for f in untouched]
        with self._database.write() as db:
            audit.append(db, study_uid, [{**body, "at": now} for body in bodies])
            for file in deleted:
                upload_deleted(db, file.source_id, file.dir, file.name)
            db.executemany(
                "DELETE FROM files WHERE file_id = ?",
                [(f.file_id,) for f in (*deleted, *(file for file, _ in restored))],
            )
            db.executemany(
                "UPDATE files SET state = CASE WHEN receipt IS NULL THEN ? ELSE ? END, identity = ?"
                " WHERE file_id = ? AND state = ?",
                [
                    (FileState.READY, FileState.STORED, identity_text(f.identity), f.file_id, FileState.DELETING)
                    for f in untouched
                ],
            )
            _forget_dues(db, deleted)

    def pending(self, study_uid: Uid | None = None, *, unclaimed_of: int | None = None) -> list[PendingDeletion]:
        """Files, of one study or all, whose deletion was authorised and not concluded: at start, the ones a crash has
        left; under a fresh claim, the ones whose end could not be written down. ``unclaimed_of`` a source: those of it
        whose study no shipment has now."""
        which, values = "", list[object]()
        if study_uid is not None:
            which, values = " AND f.study_uid = ?", [study_uid]
        if unclaimed_of is not None:
            which += " AND f.source_id = ? AND NOT EXISTS"
            which += " (SELECT 1 FROM studies st WHERE st.study_uid = f.study_uid AND st.claimed = 1)"
            values.append(unclaimed_of)
        with self._database.read() as db:
            rows = db.execute(
                "SELECT f.*, s.path, s.kind, s.name AS inbox, s.delete_local FROM files f"
                f" JOIN sources s USING (source_id) WHERE f.state = 'deleting'{which}",
                values,
            ).fetchall()
        return [
            PendingDeletion(
                r["file_id"], r["source_id"], _source(r), r["dir"], r["name"], r["identity"], r["study_uid"]
            )
            for r in rows
        ]

    def is_at(self, source_id: int, found: FileIdentity) -> bool:
        """Whether a shipment is at the deletion of this file now. To stage a file, and to put it back, changes
        nothing of it but its name and ctime."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT identity FROM files f JOIN studies s USING (study_uid) WHERE f.state = 'deleting'"
                " AND f.source_id = ? AND s.claimed = 1",
                (source_id,),
            ).fetchall()
        return any(found.same_but_ctime(identity_of(row["identity"])) for row in rows)

    def know_root(self, source_id: int, inode: int) -> None:
        """The inode of the folder that the files of this source are in."""
        if self.known_root(source_id) == inode:
            return
        with self._database.write() as db:
            meta.put(db, f"root-{source_id}", str(inode))

    def known_root(self, source_id: int) -> int | None:
        with self._database.read() as db:
            inode = meta.get(db, f"root-{source_id}")
        return None if inode is None else int(inode)

    def concluded(self, deleting: PendingDeletion, kind: str, why: str) -> None:
        """After a crash: ``kind`` "deleted" (the unlink had happened), "restored" (the file is back), or "gone" (nobody
        can tell). An end that is written down already stays as it is."""
        with self._database.write() as db:
            row = db.execute(
                "SELECT sha256, source_id FROM files WHERE file_id = ? AND state = ?",
                (deleting.file_id, FileState.DELETING),
            ).fetchone()
            if row is None:
                return
            body = {
                "kind": kind,
                "at": self._clock.now(),
                "file": deleting.file_id,
                "sha256": row["sha256"],
                "why": why,
            }
            audit.append(db, deleting.study_uid, [body])
            db.execute("DELETE FROM files WHERE file_id = ?", (deleting.file_id,))
            if kind == "deleted":
                _forget_dues(db, [deleting])
                upload_deleted(db, row["source_id"], deleting.dir, deleting.name)
            elif kind == "gone":
                db.execute(
                    "UPDATE upload_results SET outcome = 'unknown' WHERE source_id = ? AND dir = ? AND name = ?",
                    (row["source_id"], deleting.dir, deleting.name),
                )


def _hold(db: Readable, study_uid: Uid) -> str | None:
    """The code of a hold of the study; None if it is not held."""
    found = db.execute(
        "SELECT code FROM holds WHERE study_uid = ? AND released_at IS NULL ORDER BY code DESC", (study_uid,)
    ).fetchone()
    return None if found is None else found["code"]


def _source(row: sqlite3.Row) -> Source:
    return Source(row["source_id"], row["inbox"], row["path"], row["kind"], bool(row["delete_local"]))


def upload_deleted(db: Transaction, source_id: int, directory: bytes, name: bytes) -> None:
    """Of an upload: a file was deleted on proof, and no account of it is owed any more."""
    if db.execute("UPDATE uploads SET deleted_files = deleted_files + 1 WHERE source_id = ?", (source_id,)).rowcount:
        db.execute(
            "DELETE FROM upload_results WHERE source_id = ? AND dir = ? AND name = ?", (source_id, directory, name)
        )


def _uploads_verified(db: Transaction, files: Iterable[LocalFile]) -> None:
    """Of uploads: these files are archived and stay. Of another source's files nothing is noted."""
    db.executemany(
        "UPDATE upload_results SET outcome = 'verified' WHERE source_id = ? AND dir = ? AND name = ?",
        [(f.source_id, f.dir, f.name) for f in files],
    )


def _forget_dues(db: Transaction, files: Iterable[LocalFile | PendingDeletion]) -> None:
    """What is deleted, or kept under a due time of its own, needs none from before."""
    db.executemany(
        "DELETE FROM dues WHERE source_id = ? AND dir = ? AND name = ?", [(f.source_id, f.dir, f.name) for f in files]
    )
