"""Queues of any size, filled through the daemon's own commits, and one study taken through all of them."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from dicomwatchd.model import FileIdentity, FileState, InstanceHeader, StudyEvent, Uid
from dicomwatchd.pipeline.sending.loop import COMMIT_EVERY
from dicomwatchd.pipeline.shipment import PAGE
from dicomwatchd.pipeline.stages import VERIFY_PAGE
from dicomwatchd.ports import SystemClock
from dicomwatchd.queue import Queue, open_queue
from dicomwatchd.queue.database.steps import STEPS
from dicomwatchd.queue.rows import Arrival, LocalFile, Proven, Source

FILES_A_STUDY = 100
#: So many studies arrive side by side, a few files of each at a time: as from several modalities.
SIDE_BY_SIDE = 10
_AT_A_TIME = 20
_CT = "1.2.840.10008.5.1.4.1.1.2"
_LITTLE = "1.2.840.10008.1.2.1"
#: As long as real ones: they decide how many rows a page of the database holds.
_RECEIPT = '{"checksum":null,"created":true,"etag":"%s","key":"%s","size_bytes":1000,"version_id":null}'


@dataclass
class Costs:
    """CPU (user + system) and wall seconds of this process, by step."""

    cpu: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu[step] = self.cpu.get(step, 0.0) + time.process_time() - cpu
        self.wall[step] = self.wall.get(step, 0.0) + time.perf_counter() - wall


def study_uid(number: int) -> Uid:
    """In no order, as the UIDs of many scanners are."""
    return Uid(f"2.25.{int.from_bytes(hashlib.sha256(b'%d' % number).digest()[:15], 'big')}")


def arrival(
    study: int,
    number: int,
    directory: bytes | None = None,
    identity: FileIdentity | None = None,
    name: bytes | None = None,
) -> Arrival:
    uid = study_uid(study)
    header = InstanceHeader(uid, Uid(f"{uid[:50]}.1"), Uid(f"{uid[:50]}.1.{number}"), _CT, _LITTLE)
    return Arrival(
        directory if directory is not None else b"DEPT%03d/ST%07d" % (study % 17, study),
        name or b"IM%06d" % number,
        identity or FileIdentity(2049, 1_000_000 + study * FILES_A_STUDY + number, 1000, 10**18, 10**18 + study),
        FileState.READY,
        header=header,
        patient_id=f"P{study}",
        study_attributes={"00100020": {"vr": "LO", "Value": [f"P{study}"]}} if number == 0 else None,
        series_attributes={"00080060": {"vr": "CS", "Value": ["CT"]}} if number == 0 else None,
    )


class State:
    """A queue with a folder of its own. ``depth`` files are queued in it, and stay as many."""

    def __init__(self, directory: Path, inbox: Path = Path("/srv/inbox"), name: str = "ct") -> None:
        directory.mkdir(exist_ok=True)
        self.queue: Queue = open_queue(directory, SystemClock(), lambda _: None)
        self.source: Source = self.queue.arrivals.add_source(name, os.fsencode(inbox), "inbox")
        self._next = count(len(self.queue.reports.queue(1)) and 10_000_000)

    def close(self) -> None:
        self.queue.close()

    def fill(self, files: int) -> None:
        for first in range(0, files // FILES_A_STUDY, SIDE_BY_SIDE):
            self._arrive(range(first, min(first + SIDE_BY_SIDE, files // FILES_A_STUDY)), Costs())

    def cycle(self, costs: Costs) -> int:
        """As many studies as arrive side by side are taken up, and as many are shipped; returns the files of each."""
        self._arrive([next(self._next) for _ in range(SIDE_BY_SIDE)], costs)
        for _ in range(SIDE_BY_SIDE):
            self.ship(costs)
        return SIDE_BY_SIDE * FILES_A_STUDY

    def _arrive(self, studies: Sequence[int], costs: Costs) -> None:
        """What the intake asks of the queue: what is known of a directory, adding, the timers, the end of quiet."""
        arrivals, quiet, source_id = self.queue.arrivals, self.queue.quiet, self.source.source_id
        for begin in range(0, FILES_A_STUDY, _AT_A_TIME):
            batch = [arrival(study, number) for study in studies for number in range(begin, begin + _AT_A_TIME)]
            directories = dict.fromkeys(one.dir for one in batch)
            with costs.of("arrivals"):
                for directory in directories:
                    arrivals.known(source_id, directory)
                quiet.next_quiet_at(source_id)
                arrivals.add(source_id, batch, 0)
        with costs.of("arrivals"):
            nearly = quiet.nearly_quiet(source_id)
            quiet.confirm_quiet(source_id, list(nearly), time.time())

    def ship(self, costs: Costs, *, keep: bool = False) -> None:
        """What the dispatcher and a shipment ask of the queue, without the archive between."""
        claims, shipments, deletions = self.queue.claims, self.queue.shipments, self.queue.deletions
        with costs.of("claim"):
            claims.queue_due()
            claim = claims.claim()
            assert claim is not None
            claims.next_try_at()
            deletions.pending(claim.study_uid)
        with costs.of("stored"):
            ready = [file for page in shipments.pages(claim, FileState.READY, PAGE) for file in page]
        sent = [(file, *_sent(file)) for file in ready]
        with costs.of("stored"):
            for begin in range(0, len(sent), COMMIT_EVERY):
                shipments.stored(claim, sent[begin : begin + COMMIT_EVERY])
            shipments.advance(claim, StudyEvent.STORED)
        with costs.of("verified"):
            for page in shipments.pages(claim, FileState.STORED, VERIFY_PAGE):
                shipments.verified(claim, [Proven(file, "etag-md5", 1.0) for file in page])
            shipments.advance(claim, StudyEvent.VERIFIED)
            shipments.facts(claim)
            shipments.recorded(claim, 1)
        with costs.of("purged"):
            stored = [file for page in shipments.pages(claim, FileState.STORED, PAGE) for file in page]
        proofs = [(file, _proof(file)) for file in stored]
        with costs.of("purged"):
            if keep:
                deletions.keep(claim, stored, None)
            else:
                deletions.authorise(claim, proofs)
                deletions.purged(claim.study_uid, stored, [], [])
            shipments.finish(
                claim,
                {
                    "source": "ct",
                    "revision": 1,
                    "started_at": 0.0,
                    "files": FILES_A_STUDY,
                    "bytes": 0,
                    "retries": 0,
                    "stages": {},
                },
            )


def filled(folder: Path, files: int, copy: Path) -> State:
    """A state with so many files queued, in ``copy``. It is filled once, for these tables, and kept in ``folder``."""
    tables = hashlib.sha256("".join(step.sql for step in STEPS).encode()).hexdigest()[:8]
    kept = folder / f"queue-{files}-{tables}"
    if not kept.is_dir():
        print(f"queueing {files:,} files ...", flush=True)
        passing = folder / f".making-{files}-{time.time_ns()}"
        passing.mkdir(parents=True)
        state = State(passing)
        with state.queue._database.read() as db:
            db.execute("PRAGMA synchronous = OFF")
        state.fill(files)
        state.close()
        passing.rename(kept)
    shutil.copytree(kept, copy)
    return State(copy)


def _sent(file: LocalFile) -> tuple[str, str]:
    digest = hashlib.sha256(file.name + file.dir).hexdigest()
    header = file.header
    key = f"studies/{header.study_uid}/series/{header.series_uid}/{header.sop_instance_uid}/{digest}.dcm"
    return digest, _RECEIPT % (digest[:32], key)


def _proof(file: LocalFile) -> dict[str, Any]:
    return {
        "archive_id": "00000000-0000-0000-0000-000000000000",
        "destination": "https://s3.example.org/bucket/prefix",
        "key": file.receipt,
        "sha256": file.sha256,
        "size_bytes": file.identity.size_bytes,
        "manifest_sha256": file.sha256,
        "manifest_revision": 1,
        "catalogue_revision": 1,
        "verified_at": file.verified_at,
        "verified_by": file.verified_by,
        "token": 1,
    }
