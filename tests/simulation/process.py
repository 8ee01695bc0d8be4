"""A simulated daemon: the very parts of the program, stepped in one thread, with a hook at each step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from dicomwatchd import composition
from dicomwatchd import queue as queues
from dicomwatchd.archive.store import ObjectStore
from dicomwatchd.composition import InboxPlan, Parts, Surroundings
from dicomwatchd.errors import DicomwatchdError, Fatal
from dicomwatchd.intake.inbox import IntakeSettings
from dicomwatchd.model import StudyState
from dicomwatchd.pipeline.pool import InlineWorkers
from dicomwatchd.pipeline.proof import LIFETIME_SECONDS, DeletionProof
from dicomwatchd.pipeline.shipment import AfterArchive, Archive, Shipment
from dicomwatchd.ports import Clock
from dicomwatchd.queue import Queue
from dicomwatchd.queue.rows import Transition
from dicomwatchd.queue.schema import open_writer
from tests.simulation.archive import ARCHIVE_ID, Shelf, SimulatedCatalogue, SimulatedStore, _sha256
from tests.simulation.chance import Fate, Killed, Violation
from tests.simulation.folders import Folders
from tests.simulation.hooks import HookedDatabase


class Process:
    """Started, killed and started again on the same files. ``number`` is 0, or 1 for a second daemon on the same
    inboxes and archive, with a state of its own."""

    def __init__(
        self,
        state: Path,
        folders: Folders,
        shelf: Shelf,
        catalogue: SimulatedCatalogue,
        fate: Fate,
        seed: int,
        number: int = 0,
    ) -> None:
        self._state, self._folders, self._shelf, self._fate = state, folders, shelf, fate
        self._name = f" {number + 1}" if number else ""
        self._random = Random(f"daemon {seed}{self._name}")
        self._store = SimulatedStore(shelf, fate)
        store: ObjectStore = self._store
        self._archive = Archive(ARCHIVE_ID, store, catalogue, bundling=fate.plan.bundling)
        self.parts: Parts | None = None
        self.fatal: DicomwatchdError | None = None
        self.dead = False  # killed; see Fate.at
        self.starts = 0
        self.unlinked: list[str] = []  # SHA-256 of what was deleted, in order
        self.parked: dict[str, str] = {}
        self._busy: set[int] = set()
        self._up = False

    # -- life -------------------------------------------------------------------------------------------------------

    @property
    def queue(self) -> Queue | None:
        return None if self.parts is None else self.parts.queue

    @property
    def is_down(self) -> bool:
        """Killed, or at an end by itself: somebody has to start it again."""
        return self.dead or self.fatal is not None or not self._up

    def start(self) -> None:
        """As the supervisor does, without its threads. May fail: see `is_down`."""
        self.close()
        self.starts += 1
        self._up = False
        self.dead, self.fatal = False, None
        self._fate.trace.add(f"start{self._name}")
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
        with self._at_work():
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

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """What is called within is done by this process. What ends it ends it as a whole, and nobody else."""
        stack = self._fate.at_work
        stack.append(self)
        try:
            yield
        except Killed:
            if self in stack[:-1]:
                raise  # from the call in the midst of which this one was made
        except DicomwatchdError as error:
            self.fatal = error  # `Supervisor._guarded`: a thread that ends ends the daemon
        finally:
            stack.pop()

    def _may_work(self) -> bool:
        """Not while another process is in the midst of a call that was made in the midst of one of this one's."""
        stack = self._fate.at_work
        return self._up and not self.is_down and (self not in stack or stack[-1] is self)

    # -- its threads, one step at a time ----------------------------------------------------------------------------

    def intake(self, number: int) -> None:
        parts = self.parts
        if parts is None or not self._may_work() or (source_id := sorted(parts.intakes)[number]) in self._busy:
            return
        self._busy.add(source_id)
        self._fate.trace.add(f"intake{self._name}", number)
        try:
            with self._at_work():
                parts.intakes[source_id].step()
        finally:
            self._busy.discard(source_id)

    def hint(self, number: int, folder: bytes) -> None:
        if self._up and self.parts is not None:
            self.parts.intakes[sorted(self.parts.intakes)[number]].hint(folder)

    def ship(self) -> None:
        """At most two shipments at once: the second one inside a call of the first."""
        parts = self.parts
        thread = next((t for t in (-1, -2) if t not in self._busy), None)
        if thread is None or parts is None or not self._may_work():
            return
        self._busy.add(thread)
        self._fate.trace.add(f"ship{self._name}")
        try:
            with self._at_work():
                parts.queue.shipments.queue_due()
                self._fate.trace.add("shipped", parts.dispatcher.work_off())
        finally:
            self._busy.discard(thread)

    def tend(self) -> None:
        """What the supervisor does every second."""
        if self.parts is not None and self._may_work():
            with self._at_work():
                self.parts.tend()

    def retry(self, study_uid: str) -> None:
        """A person asks for a study again."""
        assert self.parts is not None
        with self._at_work():
            self.parts.queue.shipments.retry(study_uid)

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

    def begins(self, proof_of_it: DeletionProof, path: Path) -> None:
        """What the proof rests on was asked for no longer ago than its lifetime, by this process, by its own clock."""
        self._fate.trace.add("deletes", path.name)
        now = self._fate.clock.now()
        asked = self._store.asked.get((proof_of_it.key, proof_of_it.sha256), [])
        if not any(0 <= now - at <= LIFETIME_SECONDS for at in asked):
            ages = ", ".join(f"{now - at:.0f} s" for at in asked[-3:])
            raise Violation(f"a file is deleted on evidence that is too old: {ages or 'none'}")

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
