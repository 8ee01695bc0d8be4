"""Days of a hospital in virtual time: studies come, are archived and deleted by the queue's own commits, and whatever
the daemon does beside it (heads, segments, pruning) is done by its own parts.

Files are not written and not sent: what a file costs the state are its rows and its entries in the audit chain, which
are as long as real ones.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

import psutil

from dicomwatchd.archive import keys
from dicomwatchd.archive.identity import write_identity
from dicomwatchd.daemon.composition import Parts, Surroundings
from dicomwatchd.daemon.plan import Plan
from dicomwatchd.model import FileIdentity, FileState, InstanceHeader, StudyEvent, Uid
from dicomwatchd.pipeline.pool import InlineWorkers
from dicomwatchd.pipeline.shipment import Archive
from dicomwatchd.queue.rows import Arrival, LocalFile, Proven, identity_text
from tests.growth.store import FileStore, digest
from tests.pieces import ARCHIVE_ID, IDENTITY, Log
from tests.unit.memory_archive import MemoryCatalogue
from tests.unit.queues import StandingClock

DAY_SECONDS = 86400.0
#: The daemon's threads come round so often, in virtual time.
ROUND_SECONDS = 60.0
#: How much of a day's work falls into each hour.
_HOURS = [1, 1, 1, 1, 1, 2, 4, 8, 10, 10, 10, 9, 7, 9, 10, 9, 7, 4, 3, 2, 2, 1, 1, 1]
_UID = "1.2.826.0.1.3680043.8.498.13{:032d}.{}"


@dataclass(frozen=True, slots=True)
class Day:
    """What there is at the end of a day; sizes in bytes."""

    day: int
    studies: int
    files: int
    state_bytes: int
    free_bytes: int
    wal_bytes: int
    rss_bytes: int
    audit_entries_here: int
    segments: int
    segment_bytes: int
    heads: int
    head_bytes: int

    def as_json(self) -> str:
        return json.dumps(asdict(self))


class Quiet(Log):
    """Counts nothing, keeps nothing but what is bad."""

    def debug(self, event: str, message: str, **fields: object) -> None:
        pass

    info = debug


class Hospital:
    def __init__(self, root: Path, *, studies: int, files: int, seed: int = 1) -> None:
        """``files`` of each study, in three series."""
        self.root, self._studies, self._files = root, studies, files
        self.clock, self.log = StandingClock(), Quiet()
        self._random = Random(seed)
        self._number = 0
        self.days = 0
        (root / "state").mkdir(parents=True, exist_ok=True)
        self.open()

    def open(self) -> None:
        self.store = FileStore(self.root / "archive.db")
        write_identity(self.store, IDENTITY)
        self.parts = Parts(
            Plan(self.root / "state", ()),
            Archive(ARCHIVE_ID, self.store, MemoryCatalogue()),
            Surroundings(self.clock, self._random, self.log, InlineWorkers(), lambda _: None),
        )
        self.parts.begin()
        self.queue = self.parts.queue
        self.source = self.queue.arrivals.add_source("ct1", b"/srv/dicom/ct1", "inbox")

    def close(self) -> None:
        self.parts.close()

    # -- a day --------------------------------------------------------------------------------------------------------

    def live(self) -> Day:
        """One more day."""
        begun = self.clock.seconds
        offsets = sorted(
            3600 * (hour + self._random.random())
            for hour in self._random.choices(range(24), weights=_HOURS, k=self._studies)
        )
        for offset in offsets:
            self._wait_until(begun + offset)
            self._ship()
        self._wait_until(begun + DAY_SECONDS)
        self.days += 1
        return self.look()

    def _wait_until(self, at: float) -> None:
        while self.clock.seconds < at:
            self.clock.seconds = min(at, self.clock.seconds + ROUND_SECONDS)
            self.beside()

    def beside(self) -> None:
        """What the daemon's own threads do meanwhile."""
        self.parts.checkpoints.tick()
        while self.parts.upkeep.step():
            pass

    def _ship(self) -> None:
        """A study, from its arrival to its deletion."""
        queue, number = self.queue, self._number
        self._number += 1
        study = Uid(_UID.format(number, 1))
        queue.arrivals.add(self.source.source_id, list(self._arrivals(study, number)), 0.0)
        queue.quiet.nearly_quiet(self.source.source_id)
        queue.quiet.confirm_quiet(self.source.source_id, [study], self.clock.now())
        claim = queue.claims.claim()
        assert claim is not None and claim.study_uid == study
        for page in queue.shipments.pages(claim, FileState.READY, 500):
            queue.shipments.stored(claim, [(file, _sha256(file), _receipt(file)) for file in page])
        queue.shipments.advance(claim, StudyEvent.STORED)
        for page in queue.shipments.pages(claim, FileState.STORED, 500):
            queue.shipments.verified(claim, [Proven(file, "etag-md5", self.clock.now()) for file in page])
        queue.shipments.advance(claim, StudyEvent.VERIFIED)
        queue.shipments.recorded(claim, 1)
        deleted = 0
        for page in queue.shipments.pages(claim, FileState.STORED, 64):
            queue.deletions.authorise(claim, [(file, self._proof(file)) for file in page])
            queue.deletions.purged(study, page, [], [])
            deleted += len(page)
        queue.shipments.finish(claim, self._shipment(deleted))

    def _arrivals(self, study: Uid, number: int) -> Iterator[Arrival]:
        patient = f"PID{number:08d}"
        of_study = _attributes(patient, 14)
        for file in range(self._files):
            series = Uid(_UID.format(number, 2 + file % 3))
            first = file < 3  # of its series: the intake reads the attributes of no other one
            yield Arrival(
                b"CT%06d/SER%d" % (number, file % 3),
                b"IM%06d" % file,
                FileIdentity(
                    64770, 10_000_000 + number * 1000 + file, 526_336, 1_800_000_000_123_456_789, 1_800_000_001
                ),
                FileState.READY,
                header=InstanceHeader(
                    study,
                    series,
                    Uid(_UID.format(number, 10 + file)),
                    "1.2.840.10008.5.1.4.1.1.2",
                    "1.2.840.10008.1.2.1",
                ),
                patient_id=patient,
                study_attributes=of_study if first else None,
                series_attributes=_OF_SERIES if first else None,
            )

    def _proof(self, file: LocalFile) -> dict[str, object]:
        """As long as DeletionProof.for_audit makes it for an object in S3."""
        header, sha256 = file.header, _sha256(file)
        key = keys.instance(header.study_uid, header.series_uid, header.sop_instance_uid, sha256)
        return {
            "archive_id": ARCHIVE_ID,
            "destination": "s3|https://s3.hospital.example|hospital-archive|dicom/",
            "key": key,
            "version_id": "3/L4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY",
            "sha256": sha256,
            "size_bytes": file.identity.size_bytes,
            "identity": identity_text(file.identity),
            "verified_by": "etag-md5",
            "verified_at": self.clock.now(),
            "manifest_key": keys.manifest(header.study_uid, 1),
            "manifest_sha256": digest(header.study_uid),
            "manifest_revision": 1,
            "catalogue": "dynamodb eu-central-1 dicom-studies",
            "catalogue_revision": 1,
        }

    def _shipment(self, files: int) -> dict[str, object]:
        stages = {
            name: {"files": files, "bytes": files * 526_336, "seconds": 1.234}
            for name in ("upload", "verify", "record", "purge")
        }
        return {
            "source": "ct1",
            "revision": 1,
            "started_at": self.clock.now() - 6,
            "files": files,
            "bytes": files * 526_336,
            "retries": 0,
            "stages": stages,
        }

    # -- what there is ------------------------------------------------------------------------------------------------

    def look(self) -> Day:
        state = self.root / "state"
        with self.queue._database.read() as db:
            free = db.execute("PRAGMA freelist_count").fetchone()[0] * db.execute("PRAGMA page_size").fetchone()[0]
            here = db.execute("SELECT COUNT(*) FROM audit").fetchone()[0]
        segments, segment_bytes = self.store.held("audit/segments/")
        heads, head_bytes = self.store.held("audit/heads/")
        return Day(
            day=self.days,
            studies=self._number,
            files=self._number * self._files,
            state_bytes=(state / "state.db").stat().st_size,
            free_bytes=free,
            wal_bytes=(state / "state.db-wal").stat().st_size if (state / "state.db-wal").exists() else 0,
            rss_bytes=psutil.Process().memory_info().rss,
            audit_entries_here=here,
            segments=segments,
            segment_bytes=segment_bytes,
            heads=heads,
            head_bytes=head_bytes,
        )

    def rows(self) -> dict[str, int]:
        with self.queue._database.read() as db:
            names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: db.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone()[0] for name in names}

    def study(self, number: int) -> Uid:
        return Uid(_UID.format(number, 1))


def peak_rss_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _sha256(file: LocalFile) -> str:
    return _digest_of(file.identity.inode)


@lru_cache(maxsize=1000)
def _digest_of(inode: int) -> str:
    return digest(str(inode))


def _receipt(file: LocalFile) -> str:
    header, sha256 = file.header, _sha256(file)
    return json.dumps(
        {
            "key": keys.instance(header.study_uid, header.series_uid, header.sop_instance_uid, sha256),
            "size_bytes": file.identity.size_bytes,
            "sha256": sha256,
            "created": True,
            "expected_etag": sha256[:32],
            "version_id": "3/L4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY",
            "encryption": "aws:kms",
        }
    )


def _attributes(text: str, count: int) -> dict[str, dict[str, object]]:
    return {
        f"{0x00100010 + number:08X}": {"vr": "LO", "Value": [f"{text} {number:02d} {'x' * 20}"]}
        for number in range(count)
    }


_OF_SERIES = _attributes("SERIES", 9)
