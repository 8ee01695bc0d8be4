"""The daemon's inner parts put together in one thread, for tests that have to meet them at an exact moment: the real
intake, queue, pipeline and files; the archive is in memory, time passes when it is told to."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, cast

from dicomwatchd.answering import AlwaysAnswering, Inboxes
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.identity import ArchiveIdentity, write_identity
from dicomwatchd.archive.layout import lineage
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.config.series import SeriesObjects
from dicomwatchd.daemon.composition import Parts, Surroundings
from dicomwatchd.daemon.plan import CommitmentPlan, InboxPlan, Plan
from dicomwatchd.errors import Fatal
from dicomwatchd.intake.dicom.sizes import Sizes
from dicomwatchd.intake.inbox import IntakeSettings
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.deletion.early import Room
from dicomwatchd.pipeline.deletion.proof import Deleting
from dicomwatchd.pipeline.pool import InlineWorkers
from dicomwatchd.pipeline.shipment import AfterArchive, Archive, Bundling
from dicomwatchd.ports import Cancellation, never_cancelled
from dicomwatchd.queue import Queue
from dicomwatchd.queue.holds import OTHER_VERSIONS
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore
from tests.unpacking import unpacked

ARCHIVE_ID = "0a7e57a0-0000-4000-8000-000000000001"
IDENTITY = ArchiveIdentity(ARCHIVE_ID, "2026-01-01T00:00:00.000Z")


class FakeClock:
    """Starts at the true time, so that the ctimes of real files make sense, and goes on with it plus what is added."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def advance(self, seconds: float) -> None:
        self.ahead += seconds


@dataclass
class Log:
    entries: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)

    def debug(self, event: str, message: str, **fields: object) -> None:
        self.entries.append((event, message, fields))

    info = warning = error = debug

    def events(self, name: str) -> list[dict[str, object]]:
        return [fields for event, _, fields in self.entries if event == name]


def settings(**changes: Any) -> IntakeSettings:
    return IntakeSettings(**{"settle_seconds": 2.0, "quiet_seconds": 10.0, "scan_interval_seconds": 60.0, **changes})


class Pieces:
    """``inboxes`` and the state lie below ``root``; ``state`` may lie elsewhere (a faster disk)."""

    def __init__(
        self,
        root: Path,
        *,
        inboxes: int = 1,
        state: Path | None = None,
        store: ObjectStore | None = None,
        catalogue: Catalogue | None = None,
        after_archive: AfterArchive | None = None,
        clock: FakeClock | None = None,
        bundling: Bundling | None = None,
        answering: Inboxes | None = None,
        sizes: Sizes | None = None,
        max_wait_seconds: float = 0.0,
        commitments: tuple[CommitmentPlan, ...] = (),
        room: Room | None = None,
        series_objects: SeriesObjects = "off",
        **changes: Any,
    ) -> None:
        self.root = root
        self.inboxes = [root / f"inbox{number}" for number in range(1, inboxes + 1)]
        for inbox in self.inboxes:
            inbox.mkdir(parents=True, exist_ok=True)
        self.state = state or root / "state"
        self.state.mkdir(parents=True, exist_ok=True)
        self.clock = clock or FakeClock()
        self.log = Log()
        self.memory = MemoryStore()
        self.store: ObjectStore = store or self.memory
        self.catalogue: Catalogue = catalogue or MemoryCatalogue()
        self._after_archive = after_archive or AfterArchive(delete=True)
        self.settings = settings(**changes)
        self.max_wait_seconds = max_wait_seconds
        self.commitments = commitments
        self.room = room
        self.series_objects: SeriesObjects = series_objects
        self.bundling = bundling
        self.sizes = sizes or Sizes()
        self.answering = answering or AlwaysAnswering()
        self.fatal: Fatal | None = None
        #: What long work asks: see ports.Sign.
        self.cancelled: Cancellation = never_cancelled
        self.queue: Queue
        self.start()

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._sign()
        self.parts = Parts(
            self._plan(),
            Archive(ARCHIVE_ID, self.store, self.catalogue, bundling=self.bundling),
            Surroundings(
                self.clock,
                Random(1),
                self.log,
                InlineWorkers(),
                self._on_fatal,
                heartbeat=self._heartbeat,
                cancelled=lambda: self.cancelled(),
                inboxes=self.answering,
            ),
        )
        self.queue = self.parts.queue
        self.context, self.dispatcher = self.parts.context, self.parts.dispatcher
        self.parts.begin()
        self.sources, self.intakes = self.parts.sources.inboxes, list(self.parts.sources.intakes.values())

    def _sign(self) -> None:
        """The store has the archive's identity, as after `archive init`."""
        if isinstance(self.store, MemoryStore):
            self.store.signed = self.store.signed or IDENTITY.to_bytes()
        else:
            write_identity(self.store, IDENTITY)

    def _heartbeat(self) -> None:
        self.cancelled()

    def _plan(self) -> Plan:
        inboxes = (
            InboxPlan(
                path.name,
                path,
                self.settings,
                self._after_archive,
                max_wait_seconds=self.max_wait_seconds,
                room=self.room,
            )
            for path in self.inboxes
        )
        return Plan(
            self.state,
            tuple(inboxes),
            active_shipments=1,
            sizes=self.sizes,
            commitments=self.commitments,
            series_objects=self.series_objects,
        )

    @property
    def after_archive(self) -> AfterArchive:
        """The rule of every inbox; a new one is in force at once."""
        return self._after_archive

    @after_archive.setter
    def after_archive(self, rule: AfterArchive) -> None:
        self._after_archive = rule
        self.parts.sources.plan = self._plan()

    def _on_fatal(self, error: Fatal) -> None:
        self.fatal = self.fatal or error

    def restart(self) -> None:
        self.close()
        self.start()

    def close(self) -> None:
        self.queue.close()

    # -- work ---------------------------------------------------------------------------------------------------------

    @property
    def inbox(self) -> Path:
        return self.inboxes[0]

    def look(self) -> None:
        """Each inbox looks at what is due."""
        for intake in self.intakes:
            intake.step()

    def scan(self) -> None:
        """Each inbox looks at everything."""
        for intake in self.intakes:
            intake.scan_soon()
        self.look()

    def ship(self) -> int:
        self.queue.claims.queue_due()
        self.queue.parked.step()
        return self.dispatcher.work_off()

    def settle(self) -> None:
        """Time passes until every file has settled and every study is quiet."""
        self.scan()
        self.clock.advance(self.settings.settle_seconds + 0.1)
        self.look()
        self.clock.advance(self.settings.quiet_seconds + 0.1)
        self.look()

    def run(self, rounds: int = 8) -> None:
        """Settle and ship until nothing moves any more."""
        for _ in range(rounds):
            self.settle()
            self.ship()
            if not self.left() and not self.queue.reports.unfinished()["moving"]:
                return
            self.clock.advance(self.settings.scan_interval_seconds * 1.2)

    # -- what can be seen ---------------------------------------------------------------------------------------------

    def run_and_release(self) -> None:
        """As `run`, with somebody who looks at the instances that have several versions."""
        self.run()
        for hold in list(self.queue.holds.open(100)):
            assert hold.code == OTHER_VERSIONS
            self.queue.holds.release(hold.study_uid, "compared", {"by": "somebody"})
        self.run()

    def left(self) -> list[Path]:
        found = (path for inbox in self.inboxes for path in inbox.rglob("*") if not path.is_dir())
        return sorted(path for path in found if path.name != ".dicomwatchd-lock")

    def archived(self) -> set[str]:
        """The SHA-256 of every instance in the memory store."""
        held = [data[-1] for key, data in self.memory.versions.items() if ".dcm" in key]
        held += [one for key, data in self.memory.versions.items() if ".tar" in key for one in unpacked(data[-1])]
        return {hashlib.sha256(data).hexdigest() for data in held}

    def manifest(self, study: str) -> Manifest:
        found = lineage.current(self.store, Uid(study))
        assert found is not None
        return found

    def states(self) -> dict[str, str]:
        """Name to state (and code) of every file that is known."""
        with self.queue._database.read() as db:
            rows = db.execute("SELECT name, state, code FROM files").fetchall()
        return {os.fsdecode(r["name"]): r["state"] + (f":{r['code']}" if r["code"] else "") for r in rows}

    def require_nothing_lost(self, *contents: bytes) -> None:
        here = {path.read_bytes() for path in self.left() if path.is_file() and not path.is_symlink()}
        kept = self.archived()
        for content in contents:
            assert content in here or hashlib.sha256(content).hexdigest() in kept, "a content is nowhere"


def stage_file(inbox: Path, relative: str | Path) -> Path:
    """Where a file of this inbox is staged: in one of its private directories, or where it would be if in none."""
    found = [private / relative for private in inbox.glob(".dicomwatchd-aside*") if private.is_dir()]
    return next((path for path in found if path.exists()), inbox / ".dicomwatchd-aside" / relative)


def left_staged(inbox: Path) -> list[Path]:
    """Files in any private directory of this inbox; that of the lock is none of them."""
    return [
        path
        for private in inbox.rglob(".dicomwatchd-aside*")
        for path in (private.rglob("*") if private.is_dir() else [private])
        if path.is_file() and path.name != ".dicomwatchd-lock"
    ]


def ended(deleting: Deleting) -> str | None:
    """A deletion taken to its end, as if the store had been asked where it stops."""
    try:
        next(deleting)
        next(deleting)
    except StopIteration as end:
        return cast("str | None", end.value)
    raise AssertionError("it has stopped twice")


@contextmanager
def at(
    target: Any, name: str, action: Callable[[], object], *, when: int = 1, after: bool = False
) -> Iterator[list[int]]:
    """Replace ``target.name`` so that ``action`` happens right before (or after) its ``when``-th call."""
    real = getattr(target, name)
    calls = [0]

    def wrapped(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        mine = calls[0] == when
        if mine and not after:
            action()
        result = real(*arguments, **named)
        if mine and after:
            action()
        return result

    setattr(target, name, wrapped)
    try:
        yield calls
    finally:
        setattr(target, name, real)
