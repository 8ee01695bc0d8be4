"""The simulated daemon: the very parts of the program, stepped in one thread, with a hook at each step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from types import ModuleType, TracebackType
from typing import Any
from unittest.mock import patch

from dicomwatchd import composition, localfiles
from dicomwatchd import queue as queues
from dicomwatchd.archive.store import ObjectStore
from dicomwatchd.composition import InboxPlan, Parts, Surroundings
from dicomwatchd.errors import DicomwatchdError, Fatal, Transient
from dicomwatchd.intake import inbox as inboxes
from dicomwatchd.intake import scan, take
from dicomwatchd.intake.inbox import IntakeSettings
from dicomwatchd.intake.scan import Globs, Listing
from dicomwatchd.model import StudyState
from dicomwatchd.pipeline import aside, leases, local, proof, purge
from dicomwatchd.pipeline.aside import Places
from dicomwatchd.pipeline.pool import InlineWorkers
from dicomwatchd.pipeline.shipment import AfterArchive, Archive, Shipment
from dicomwatchd.ports import Clock
from dicomwatchd.queue import Queue
from dicomwatchd.queue.rows import LocalFile, Source, Transition
from dicomwatchd.queue.schema import Database, open_writer
from tests.simulation.archive import ARCHIVE_ID, Shelf, SimulatedCatalogue, SimulatedStore, _sha256
from tests.simulation.chance import Fate, Violation
from tests.simulation.folders import Folders


class HookedDatabase(Database):
    """Every transaction is a place where the process may be killed, before, within and after, or the disk be full."""

    def __init__(self, inner: Database, fate: Fate) -> None:
        super().__init__(inner._connection, inner._lock_fd)
        self._connection.execute("PRAGMA synchronous = OFF")  # nobody pulls the plug here
        self._fate = fate

    @contextmanager
    def write(self) -> Iterator[Any]:
        self._fate.at("db")
        if self._fate.strikes("db-full", self._fate.plan.transient_rate / 8):
            raise Transient("the state database cannot be written now", code="state-full", endpoint="state")
        with super().write() as connection:
            yield connection
            self._fate.at("db.commit", actors=False)
        self._fate.at("db.done")


class Process:
    """Started, killed and started again on the same files."""

    def __init__(
        self, state: Path, folders: Folders, shelf: Shelf, catalogue: SimulatedCatalogue, fate: Fate, seed: int
    ) -> None:
        self._state, self._folders, self._shelf, self._fate = state, folders, shelf, fate
        self._random = Random(f"daemon {seed}")
        store: ObjectStore = SimulatedStore(shelf, fate)
        self._archive = Archive(ARCHIVE_ID, store, catalogue, bundling=fate.plan.bundling)
        self.parts: Parts | None = None
        self.fatal: DicomwatchdError | None = None
        self.starts = 0
        self.unlinked: list[str] = []  # SHA-256 of what was deleted, in order
        self.parked: dict[str, str] = {}
        self._busy: set[int] = set()
        self._up = False
        self._patches = ExitStack()
        _patch(self._patches, self, fate, folders)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._patches.close()

    # -- life -------------------------------------------------------------------------------------------------------

    @property
    def queue(self) -> Queue | None:
        return None if self.parts is None else self.parts.queue

    def start(self) -> None:
        """As the supervisor does, without its threads; raises Killed, DicomwatchdError."""
        self.starts += 1
        self._up = False
        self._fate.dead, self.fatal = False, None
        self._fate.trace.add("start")
        self._busy.clear()
        around = Surroundings(
            clock=self._fate.clock,
            random=self._random,
            log=self,
            workers=InlineWorkers(),
            on_fatal=self._on_fatal,
            announce=self._announce,
            on_shipped=self._shipped,
            open_state=self._open_state,
        )
        self.parts = Parts(self._plan(), self._archive, around)
        self.parts.begin()
        self._up = True

    def _plan(self) -> composition.Plan:
        plan = self._fate.plan
        settings = IntakeSettings(
            settle_seconds=plan.settle_seconds,
            quiet_seconds=plan.quiet_seconds,
            scan_interval_seconds=20.0,
            full_look_before_quiet=plan.full_look,
            trust_ctime=plan.trust_ctime,
        )
        inboxes = tuple(
            InboxPlan(f"inbox{number + 1}", path, settings, AfterArchive(keep == 0.0, keep), plan.sends_early)
            for number, (path, keep) in enumerate(zip(self._folders.roots, plan.keep_seconds, strict=True))
        )
        return composition.Plan(self._state, inboxes, active_shipments=4)

    def _open_state(self, state: Path, clock: Clock, announce: Callable[[Transition], None]) -> Queue:
        return queues._over(HookedDatabase(open_writer(state), self._fate), clock, announce)

    def close(self) -> None:
        """Whatever has become of the process, its descriptors are closed by the kernel."""
        if self.parts is not None:
            self.parts.queue.close()
            self.parts = None

    # -- its threads, one step at a time ----------------------------------------------------------------------------

    def intake(self, number: int) -> None:
        if not self._up or self.parts is None or (source_id := sorted(self.parts.intakes)[number]) in self._busy:
            return
        self._busy.add(source_id)
        self._fate.trace.add("intake", number)
        try:
            self.parts.intakes[source_id].step()
        except DicomwatchdError as error:
            self.fatal = error  # `Supervisor._guarded`: a thread that ends ends the daemon
        finally:
            self._busy.discard(source_id)

    def hint(self, number: int, folder: bytes) -> None:
        if self._up and self.parts is not None:
            self.parts.intakes[sorted(self.parts.intakes)[number]].hint(folder)

    def ship(self) -> None:
        """At most two shipments at once: the second one inside a call of the first."""
        thread = next((t for t in (-1, -2) if t not in self._busy), None)
        if thread is None or not self._up or self.parts is None:
            return
        self._busy.add(thread)
        self._fate.trace.add("ship")
        try:
            self.parts.queue.shipments.queue_due()
            self._fate.trace.add("shipped", self.parts.dispatcher.work_off())
        except DicomwatchdError as error:
            self.fatal = error
        finally:
            self._busy.discard(thread)

    @property
    def at_rest(self) -> bool:
        return self.parts is not None and self.parts.at_rest

    # -- what the parts ask for -------------------------------------------------------------------------------------

    def _announce(self, transition: Transition) -> None:
        self._fate.trace.add("study", transition.study_uid, transition.old, transition.event, transition.new)
        if transition.new is not StudyState.PARKED:
            self.parked.pop(transition.study_uid, None)

    def _shipped(self, shipment: Shipment) -> None:
        self._fate.trace.add("archived", shipment.claim.study_uid, shipment.files, shipment.deleted_files)

    def _on_fatal(self, error: Fatal) -> None:
        self.fatal = error

    def debug(self, event: str, message: str, **fields: object) -> None: ...

    def info(self, event: str, message: str, **fields: object) -> None: ...

    def warning(self, event: str, message: str, **fields: object) -> None:
        self._fate.trace.add("log", event, fields.get("code", ""))

    def error(self, event: str, message: str, **fields: object) -> None:
        self._fate.trace.add("log", event, *(str(value) for _, value in sorted(fields.items())))
        if event == "study-parked":
            self.parked[str(fields["study_uid"])] = str(fields.get("code", "unexpected"))

    # -- the deletion -----------------------------------------------------------------------------------------------

    def unlink(self, name: bytes, *, dir_fd: int) -> None:
        """os.unlink as pipeline.proof sees it: what goes has to be in the store, and its deletion on record."""
        # Without a lease nothing can tell of a write between the last look and this call.
        self._fate.at("unlink", actors=self._fate.plan.leases, hot=True)
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=dir_fd)
        try:
            found = os.fstat(fd)
            data = os.pread(fd, found.st_size + 1, 0)
        finally:
            os.close(fd)
        digest = _sha256(data)
        if digest not in self._shelf.held():
            raise Violation("a file is deleted that the store does not hold")
        assert self.queue is not None
        with self.queue._database.read() as db:
            rows = db.execute("SELECT entry FROM audit").fetchall()
        authorised = sum('"kind":"authorised"' in row[0] and digest in row[0] for row in rows)
        if authorised <= self.unlinked.count(digest):
            raise Violation("a file is deleted without its deletion being on record")
        self._folders.unlinked(found.st_ino)
        os.unlink(name, dir_fd=dir_fd)
        self.unlinked.append(digest)
        if found.st_nlink == 1:
            self._folders.forgotten(found.st_ino)
        self._fate.trace.add("unlinked", digest[:12])
        self._fate.at("unlink.done", hot=True)


class _HookedOs:
    """`os` with one call replaced."""

    def __init__(self, process: Process) -> None:
        self.unlink = process.unlink

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


class _VirtualTime:
    """`time` as pipeline.aside sees it."""

    def __init__(self, fate: Fate) -> None:
        self.monotonic, self.sleep = fate.clock.monotonic, fate.clock.advance


def _patch(stack: ExitStack, process: Process, fate: Fate, folders: Folders) -> None:
    """Hooks in the file system's part of a deletion, the order of a listing, and leases where the seed has none."""

    def hooked(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            fate.at(name, hot=True)
            result = real(*arguments)
            fate.at(f"{name}.done", hot=True)
            return result

        return call

    def aimed(
        opened: local.Folders,
        places: Places,
        source: Source,
        file: LocalFile,
        proof_of_it: proof.DeletionProof,
        *,
        now: float,
        needs_lease: bool,
        standing: object = None,  # the simulated objects are no files
    ) -> str | None:
        folders.aim = (Path(os.fsdecode(b"/".join((source.path, file.dir, file.name)))), file.identity.inode)
        try:
            fate.at("delete", hot=True)
            return proof.delete_on_proof(opened, places, source, file, proof_of_it, now=now, needs_lease=needs_lease)
        finally:
            folders.aim = None

    def sorted_look(directory_fd: int, parent: bytes, globs: Globs) -> Listing:
        found = real_look(directory_fd, parent, globs)
        return Listing(
            dict(sorted(found.files.items())),
            sorted(found.directories),
            dict(sorted(found.strange.items())),
            marks=found.marks,
            private=sorted(found.private),
        )

    @contextmanager
    def no_lease(fd: int) -> Iterator[bool]:
        yield False

    def put(modules: tuple[ModuleType, ...], name: str, replacement: object) -> None:
        for module in modules:
            stack.enter_context(patch.object(module, name, replacement))

    real_look = scan.look
    put((scan, inboxes), "look", sorted_look)
    put((purge,), "delete_on_proof", aimed)
    put((proof,), "os", _HookedOs(process))
    put((proof,), "sha256_of", hooked("compare", local.sha256_of))
    put((aside,), "rename_to_private", hooked("set-aside", localfiles.rename_to_private))
    put((aside,), "rename_noreplace", hooked("put-back", localfiles.rename_noreplace))
    put((aside,), "time", _VirtualTime(fate))
    if not fate.plan.leases:
        put((proof, aside, take, leases), "read_lease", no_lease)
