"""What the DICOMDIRs in the sources list of studies. A DICOMDIR speaks for its folder and what is below, so it says
something of a study only if files of that study are known there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from dicomwatchd.model import FileIdentity
from dicomwatchd.queue.database.schema import Database, Readable, Transaction
from dicomwatchd.queue.rows import Arrival, identity_of

#: Of all DICOMDIRs in one source so many images are on record; what more of them list is not.
LIMIT_IMAGES_OF_SOURCE = 1_000_000
#: So many DICOMDIRs are asked of one study, the newest ones.
LIMIT_LISTS_OF_STUDY = 32
LIMIT_ROWS_OF_STUDY = 1000


@dataclass(frozen=True, slots=True)
class StudyList:
    """What one DICOMDIR lists of one study. ``lacking`` are those that the archive lacked when it was last asked, None
    where it was not."""

    list_id: int
    file_id: int
    source_id: int
    sha256: str
    uids: frozenset[str] = field(repr=False)
    lacking: frozenset[str] | None = field(repr=False)

    def missing(self, here: Collection[str]) -> frozenset[str]:
        """What is neither among these nor, as far as is known, archived."""
        return (self.uids if self.lacking is None else self.lacking).difference(here)


@dataclass(frozen=True, slots=True)
class LocalDicomdir:
    """The file, as it was when its list was read."""

    source_id: int
    dir: bytes
    name: bytes
    identity: FileIdentity
    sha256: str


class Dicomdirs:
    def __init__(self, database: Database) -> None:
        self._database = database

    def of_study(self, study_uid: str) -> list[StudyList]:
        with self._database.read() as db:
            return lists_of(db, study_uid)

    def archived(self, study_uid: str, uids: Collection[str]) -> None:
        """The archive has these SOP Instances of the study, as it was read to have just now."""
        with self._database.write() as db:
            put_archived(db, study_uid, lambda: uids)

    def unasked(self, after: str) -> str | None:
        """The next study behind this one that waits for what is listed, and of which the archive was not asked."""
        with self._database.read() as db:
            row = db.execute(
                "SELECT MIN(study_uid) AS study_uid FROM listed_waits w WHERE ended = 0 AND study_uid > ? AND EXISTS"
                " (SELECT 1 FROM listed l WHERE l.study_uid = w.study_uid AND l.lacking IS NULL)",
                (after,),
            ).fetchone()
        return None if row["study_uid"] is None else str(row["study_uid"])


def put(db: Transaction, source_id: int, file_id: int, arrival: Arrival) -> bool:
    """What the DICOMDIR of this row lists. False, with nothing on record, where it would be too much."""
    listed = arrival.listed
    if listed is None:
        return True
    known = db.execute("SELECT images FROM listed_counts WHERE source_id = ?", (source_id,)).fetchone()
    images = sum(len(uids) for uids in listed.by_study.values())
    if images + (known["images"] if known else 0) > LIMIT_IMAGES_OF_SOURCE:
        return False
    db.executemany(
        "INSERT INTO listed (file_id, source_id, dir, study_uid, sha256, images, uids) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (file_id, source_id, arrival.dir, study_uid, listed.sha256, len(uids), " ".join(uids))
            for study_uid, uids in listed.by_study.items()
        ],
    )
    return True


def put_archived(db: Transaction, study_uid: str, uids: Callable[[], Collection[str]]) -> None:
    """See `Dicomdirs.archived`; ``uids`` is called where anything is listed."""
    rows = db.execute("SELECT list_id, uids, lacking FROM listed WHERE study_uid = ?", (study_uid,)).fetchall()
    if not rows:
        return
    there = frozenset(uids())
    db.executemany(
        "UPDATE listed SET lacking = ? WHERE list_id = ?",
        [
            (lacking, row["list_id"])
            for row in rows
            if (lacking := " ".join(uid for uid in row["uids"].split() if uid not in there)) != row["lacking"]
        ],
    )


def lists_of(db: Readable, study_uid: str) -> list[StudyList]:
    """Those that speak for files of the study that are known, the newest first."""
    rows = db.execute(
        "SELECT list_id, file_id, source_id, dir FROM listed WHERE study_uid = ? ORDER BY file_id DESC LIMIT ?",
        (study_uid, LIMIT_ROWS_OF_STUDY),
    ).fetchall()
    if not rows:
        return []
    folders = {
        (row["source_id"], folder)
        for row in db.execute("SELECT DISTINCT source_id, dir FROM files WHERE study_uid = ?", (study_uid,))
        for folder in _itself_and_above(row["dir"])
    }
    speaking = [row for row in rows if (row["source_id"], row["dir"]) in folders]
    return [_list(db, row["list_id"]) for row in speaking[:LIMIT_LISTS_OF_STUDY]]


def files_of(db: Readable, lists: Iterable[StudyList]) -> list[LocalDicomdir]:
    found = []
    for one in lists:
        row = db.execute("SELECT dir, name, identity FROM files WHERE file_id = ?", (one.file_id,)).fetchone()
        if row is not None:
            identity = identity_of(row["identity"])
            found.append(LocalDicomdir(one.source_id, row["dir"], row["name"], identity, one.sha256))
    return found


def here_of(db: Readable, study_uid: str) -> set[str]:
    """The SOP Instances of the study of which a file is known, whatever its state: a damaged copy is there."""
    return {
        row["sop_instance_uid"]
        for row in db.execute("SELECT DISTINCT sop_instance_uid FROM files WHERE study_uid = ?", (study_uid,))
    }


def _itself_and_above(directory: bytes) -> Iterator[bytes]:
    while directory:
        yield directory
        directory = directory.rpartition(b"/")[0]
    yield b""


def _list(db: Readable, list_id: int) -> StudyList:
    row = db.execute("SELECT * FROM listed WHERE list_id = ?", (list_id,)).fetchone()
    return StudyList(
        row["list_id"],
        row["file_id"],
        row["source_id"],
        row["sha256"],
        frozenset(row["uids"].split()),
        None if row["lacking"] is None else frozenset(row["lacking"].split()),
    )
