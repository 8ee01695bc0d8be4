"""A real queue in a temporary directory, on a clock that stands still, with short ways to bring studies anywhere."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicomwatchd.model import FileIdentity, FileState, InstanceHeader, StudyEvent, StudyState, Uid
from dicomwatchd.queue import Queue, open_queue
from dicomwatchd.queue.rows import Arrival, Claim, LocalFile, Proven, Source, Transition

STUDY, SERIES = Uid("1.2.1"), Uid("1.2.1.1")


class StandingClock:
    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Bench:
    """``queue`` is open; `reopen` is what a restart does to it."""

    directory: Path
    clock: StandingClock = field(default_factory=StandingClock)
    moves: list[Transition] = field(default_factory=list)
    _inode: int = 0

    def __post_init__(self) -> None:
        self.queue: Queue = open_queue(self.directory, self.clock, self.moves.append)
        self.source = self.queue.arrivals.add_source("ct1", b"/inbox", "inbox")

    def reopen(self) -> None:
        self.queue.close()
        self.queue = open_queue(self.directory, self.clock, self.moves.append)

    # -- on the way in ----------------------------------------------------------------------------------------------

    def identity(self, size_bytes: int = 100) -> FileIdentity:
        """Another one each time."""
        self._inode += 1
        return FileIdentity(1, self._inode, size_bytes, 10, 20)

    def arrival(
        self, name: str = "IM1", study: str = STUDY, *, directory: bytes = b"A", patient: str = "P1"
    ) -> Arrival:
        uid = Uid(study)
        return Arrival(
            b"A",
            name.encode(),
            self.identity(),
            FileState.READY,
            header=InstanceHeader(uid, Uid(f"{uid}.1"), Uid(f"{uid}.1.{self._inode}"), "1.2.840.10008.5.1.4.1.1.2", ""),
            patient_id=patient,
            study_attributes={"00100020": {"vr": "LO", "Value": [patient]}},
            series_attributes={},
        )

    def add(self, *names: str, study: str = STUDY, source: Source | None = None, quiet_seconds: float = 60.0) -> None:
        self.queue.arrivals.add(
            (source or self.source).source_id, [self.arrival(name, study) for name in names], quiet_seconds
        )

    def wait_until_quiet(self, study: str = STUDY, *sources: Source) -> None:
        """Time passes, every source was looked at, and the study is queued."""
        self.clock.seconds += 60
        for source in sources or (self.source,):
            self.queue.quiet.nearly_quiet(source.source_id)
            self.queue.quiet.confirm_quiet(source.source_id, [study], self.clock.now())

    # -- on the way out ---------------------------------------------------------------------------------------------

    def claim(self) -> Claim:
        found = self.queue.claims.claim()
        assert found is not None
        return found

    def claimed(self, *names: str, study: str = STUDY) -> Claim:
        self.add(*(names or ("IM1",)), study=study)
        self.wait_until_quiet(study)
        return self.claim()

    def files(self, claim: Claim, state: FileState = FileState.READY) -> list[LocalFile]:
        return [file for page in self.queue.shipments.pages(claim, state, 1000) for file in page]

    def send(self, claim: Claim) -> list[LocalFile]:
        ready = self.files(claim)
        self.queue.shipments.stored(claim, [(file, digest(file), receipt(file)) for file in ready])
        self.queue.shipments.advance(claim, StudyEvent.STORED)
        return self.files(claim, FileState.STORED)

    def record(self, claim: Claim) -> list[LocalFile]:
        """All the way to purging: sent, verified, recorded as revision 1."""
        self.queue.shipments.verified(claim, [Proven(file, "etag-md5", self.clock.now()) for file in self.send(claim)])
        self.queue.shipments.advance(claim, StudyEvent.VERIFIED)
        self.queue.shipments.recorded(claim, 1)
        return self.files(claim, FileState.STORED)

    def authorise(self, claim: Claim) -> list[LocalFile]:
        files = self.record(claim)
        self.queue.deletions.authorise(
            claim, [(file, {"sha256": file.sha256, "verified_at": file.verified_at}) for file in files]
        )
        return files

    def finish(self, claim: Claim) -> None:
        self.queue.shipments.finish(
            claim,
            {"source": "ct1", "revision": 1, "started_at": 0.0, "files": 0, "bytes": 0, "retries": 0, "stages": {}},
        )

    # -- looking ----------------------------------------------------------------------------------------------------

    def state(self, study: str = STUDY) -> StudyState | None:
        found = self.rows("SELECT state FROM studies WHERE study_uid = ?", study)
        return StudyState(found[0][0]) if found else None

    def rows(self, sql: str, *values: object) -> list[Any]:
        with self.queue._database.read() as db:
            return db.execute(sql, values).fetchall()

    def run(self, sql: str, *values: object) -> None:
        with self.queue._database.write() as db:
            db.execute(sql, values)


def digest(file: LocalFile) -> str:
    return hashlib.sha256(str(file.identity).encode()).hexdigest()


def receipt(file: LocalFile) -> str:
    return json.dumps({"key": f"k/{file.file_id}", "size_bytes": 100, "sha256": digest(file), "created": True})
