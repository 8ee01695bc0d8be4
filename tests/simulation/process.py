"""A simulated daemon: the very parts of the program, stepped in one thread, with a hook at each step."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from dicomwatchd import queue as queues
from dicomwatchd.answering import AlwaysAnswering
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.daemon.composition import Parts, Surroundings
from dicomwatchd.daemon.plan import InboxPlan, Plan
from dicomwatchd.errors import DicomwatchdError, Fatal
from dicomwatchd.intake.inbox import IntakeSettings
from dicomwatchd.model import StudyState
from dicomwatchd.pipeline.deletion.proof import LIFETIME_SECONDS, DeletionProof
from dicomwatchd.pipeline.pool import InlineWorkers
from dicomwatchd.pipeline.shipment import AfterArchive, Archive, Shipment
from dicomwatchd.ports import Clock
from dicomwatchd.queue import Queue
from dicomwatchd.queue.database.schema import open_writer
from dicomwatchd.queue.rows import Transition
from dicomwatchd.uploads.folders import UploadFolders
from tests.simulation import record, tiny
from tests.simulation.archive import ARCHIVE_ID, Shelf, SimulatedCatalogue, SimulatedStore, _sha256, part
from tests.simulation.chance import Fate, Killed, Violation
from tests.simulation.folders import Folders
from tests.simulation.hanging import Hanging
from tests.simulation.hooks import HookedDatabase
from tests.unit.uploading import hand_in

#: In the place of a source's id: the threads of all uploads.
UPLOADS = -3
#: And what one at a time may do with them.
DESK = -4
#: Those that look at the bucket's rules, publish the record of deletions, and keep the state small.
RULES, CHECKPOINTS, UPKEEP = -5, -6, -7


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
        self._chain = f"chain {seed}{self._name}"
        self.hanging: Hanging | None = None
        self._store = SimulatedStore(shelf, fate)
        store: ObjectStore = self._store
        self._archive = Archive(ARCHIVE_ID, store, catalogue, bundling=fate.plan.bundling)
        self._upload_folders = UploadFolders()
        self.parts: Parts | None = None
        self.fatal: DicomwatchdError | None = None
        self.dead = False  # killed; see Fate.at
        self.released: set[str] = set()  # studies that somebody has released
        self.looked_at: dict[str, set[str]] = {}  # and what the archive held by then
        self._proofs: list[DeletionProof] = []
        self.starts = 0
        self.upload_scans = 0  # how often it has begun to look at what was handed in
        self.unlinked: list[str] = []  # SHA-256 of what was deleted, in order
        self.parked: dict[str, str] = {}
        self._told: list[int] = []  # of each purge under way: the rule that it was told of before, see Watched.told
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
        self._store.opened_anew()
        self.hanging = Hanging(self._folders, self._fate) if self._fate.more.hangs else None
        self._upload_folders = UploadFolders()
        around = Surroundings(
            clock=self._fate.clock,
            random=self._random,
            log=self,
            workers=InlineWorkers(),
            on_fatal=self._on_fatal,
            announce=self._announce,
            on_shipped=self._shipped,
            open_state=self._open_state,
            inboxes=self.hanging or AlwaysAnswering(),
            upload_folders=self._upload_folders,
        )
        with self._at_work():
            self.parts = Parts(self._plan(), self._archive, around)
            self.parts.begin()
            self._up = True

    def _plan(self) -> Plan:
        plan = self._fate.plan
        settings = IntakeSettings(
            settle_seconds=plan.settle_seconds,
            quiet_seconds=plan.quiet_seconds,
            scan_interval_seconds=20.0,
            whole_scan_before_quiet=plan.full_look,
            trust_ctime=plan.trust_ctime,
        )
        inboxes = tuple(
            InboxPlan(f"inbox{number + 1}", path, settings, AfterArchive(keep == 0.0, keep), plan.sends_early)
            for number, (path, keep) in enumerate(zip(self._folders.roots, plan.keep_seconds, strict=False))
        )
        return Plan(self._state, inboxes, active_shipments=4)

    def _open_state(self, state: Path, clock: Clock, announce: Callable[[Transition], None]) -> Queue:
        database = open_writer(state)
        chain_id = hashlib.md5(self._chain.encode(), usedforsecurity=False).hexdigest()  # the same in every run
        database._connection.execute("UPDATE meta SET value = ? WHERE key = 'audit_chain'", (chain_id,))
        return queues._over(HookedDatabase(database, self._fate, announce), clock)

    def close(self) -> None:
        """Whatever has become of the process, its descriptors are closed by the kernel."""
        if self.parts is not None:
            self.parts.queue.close()
            self.parts = None
        self._upload_folders.let_go_but(())

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
        if parts is None or not self._may_work() or (source_id := sorted(parts.sources.intakes)[number]) in self._busy:
            return
        if parts.sources.intakes[source_id].source.name in self._folders.hung:
            return  # its thread waits for the file system
        self._busy.add(source_id)
        self._fate.trace.add(f"intake{self._name}", number)
        try:
            with self._at_work():
                parts.sources.intakes[source_id].step()
        finally:
            self._busy.discard(source_id)

    def hint(self, number: int, folder: bytes) -> None:
        if self._up and self.parts is not None:
            self.parts.sources.intakes[sorted(self.parts.sources.intakes)[number]].hint(folder)

    def ship(self) -> None:
        """At most two shipments at once: the second one inside a call of the first."""
        parts = self.parts
        thread = next((t for t in (-1, -2) if t not in self._busy), None)
        if thread is None or parts is None or not self._may_work():
            return
        self._busy.add(thread)
        self._told.append(0)
        self._fate.trace.add(f"ship{self._name}")
        try:
            with self._at_work():
                parts.queue.claims.queue_due()
                self._fate.trace.add("shipped", parts.dispatcher.work_off())
        finally:
            self._told.pop()
            self._busy.discard(thread)

    def check_rules(self) -> None:
        self._thread(RULES, lambda parts: parts.expiring.step())

    def keep_house(self) -> None:
        """Publishes the record of deletions when that is due, then seals or prunes one piece."""
        self._thread(CHECKPOINTS, lambda parts: parts.checkpoints.tick())
        self._thread(UPKEEP, lambda parts: parts.upkeep.step())

    def _thread(self, thread: int, step: Callable[[Parts], object]) -> None:
        parts = self.parts
        if parts is None or not self._may_work() or thread in self._busy:
            return
        self._busy.add(thread)
        self._fate.trace.add(f"thread{self._name}", thread)
        try:
            with self._at_work():
                step(parts)
        finally:
            self._busy.discard(thread)

    def tick(self) -> None:
        """What the supervisor does every second."""
        if self.parts is not None and self.may_be_asked:
            with self._at_the_desk():
                self.parts.tick()

    def retry(self, study_uid: str) -> None:
        """A person asks for a study again."""
        assert self.parts is not None
        with self._at_work():
            self.parts.queue.claims.retry(study_uid)

    def release_what_is_held(self) -> None:
        """`dicomwatchctl release`, of each study that is held."""
        if self.parts is None or not self.may_be_asked:
            return
        with self._at_the_desk():
            for hold in list(self.parts.queue.holds.open(100)):
                # Also if the daemon dies over it: nobody knows then whether that was before or after it was written.
                self.released.add(hold.study_uid)
                self.looked_at.setdefault(hold.study_uid, set()).update(self._shelf.held())
                self.parts.queue.holds.release(hold.study_uid, "seen", {"by": "somebody"})
                self._fate.trace.add("released", hold.study_uid)

    @property
    def unconfirmed(self) -> list[str]:
        """The inboxes that are other folders than they were."""
        assert self.parts is not None
        return [s.name for s in self.parts.sources.inboxes if self.parts.queue.roots.is_exchanged(s.source_id)]

    def confirm_inboxes(self) -> None:
        """`dicomwatchctl inbox confirm`: a daemon that first saw an empty mount point takes the share for another one,
        and deletes nothing from it until a person has said that it is meant."""
        assert self.parts is not None
        with self._at_work():
            for name in self.unconfirmed:
                self.parts.queue.roots.confirm(name, {"by": "somebody"})

    def uploads(self) -> None:
        """The threads of the uploads, each one step, and what the supervisor does soon after."""
        parts = self.parts
        if parts is None or not self._may_work() or UPLOADS in self._busy:
            return
        self._busy.add(UPLOADS)
        self.upload_scans += 1
        try:
            with self._at_work():
                for intake in parts.sources.every_intake():
                    if intake.source.source_id not in parts.sources.intakes:
                        self._fate.trace.add("upload")
                        intake.step()
        finally:
            self._busy.discard(UPLOADS)
        self.tick()

    @contextmanager
    def _at_the_desk(self) -> Iterator[None]:
        self._busy.add(DESK)
        try:
            with self._at_work():
                yield
        finally:
            self._busy.discard(DESK)

    @property
    def may_be_asked(self) -> bool:
        """Whether it answers at its control socket. Whoever asks while another one is answered waits."""
        return self._may_work() and DESK not in self._busy

    @property
    def is_at_work(self) -> bool:
        return self in self._fate.at_work

    def hand_in(self, path: Path, *, delete: bool) -> str:
        """`dicomwatchctl upload`; returns its id, "" if the daemon died over it. Raises Permanent."""
        assert self.parts is not None
        answers = [""]
        with self._at_the_desk():
            answers.append(hand_in(self.parts.uploads, path, delete=delete))
        return answers[-1]

    def cancel_upload(self, name: str) -> bool:
        """`dicomwatchctl upload cancel`; whether the daemon has answered."""
        assert self.parts is not None
        answers = [False]
        with self._at_the_desk():
            self.parts.uploads.cancel(name)
            answers.append(True)
        return answers[-1]

    def is_scanning(self, name: str) -> bool:
        """Whether an upload is at its last looks."""
        job = None if self.parts is None else self.parts.uploads._jobs.get(name)
        return job is not None and (job.final_scan is not None or job.in_order_at is not None)

    def upload_result(self, name: str) -> dict[str, Any] | None:
        """What is known of an upload that has ended."""
        assert self.parts is not None
        known = self.parts.queue.uploads.known(name)
        if known is None:
            raise Violation("an upload is not known any more")
        return known.result

    @property
    def at_rest(self) -> bool:
        return self.parts is not None and self.parts.sources.at_rest

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
        told = (str(value) for _, value in sorted(fields.items()))
        self._fate.trace.add("log", event, *("upload" if one.startswith("upload-") else one for one in told))
        if event == "study-parked":
            self.parked[str(fields["study_uid"])] = str(fields.get("code", "unexpected"))

    # -- the deletion -----------------------------------------------------------------------------------------------

    def purging(self) -> None:
        """It is about to ask whether the archive's objects stay, and then to delete some files."""
        if self._told and self._store.watched is not None:
            self._told[-1] = self._store.watched.told

    @contextmanager
    def deleting(self, proof_of_it: DeletionProof) -> Iterator[None]:
        """It is at the deletion of a file, and may think better of it."""
        self._proofs.append(proof_of_it)
        try:
            yield
        finally:
            self._proofs.pop()

    def _require_fresh(self, proof_of_it: DeletionProof, now: float) -> None:
        """What the proof rests on has been asked for no longer ago than its lifetime, by this process, by its own
        clock: where the comparison took longer, once more."""
        asked = self._store.asked.get((proof_of_it.key, proof_of_it.sha256), [])
        if not any(0 <= now - at <= LIFETIME_SECONDS for at in asked):
            ages = ", ".join(f"{now - at:.0f} s" for at in asked[-3:]) or "none"
            raise Violation(f"a file is deleted on evidence that is too old: {ages}")

    def _require_free(self, data: bytes, proof_of_it: DeletionProof) -> None:
        """By the manifest that the deletion rests on: nothing of a study of two patients goes before somebody has
        released it, nor of an instance with several versions before somebody has looked at these, nor what is damaged
        before a whole copy of the same instance is listed."""
        manifest = Manifest.from_bytes(self._shelf.objects[proof_of_it.manifest_key])
        contents = [
            part(self._shelf.objects.get(item.key, b""), item.offset_bytes, item.size_bytes)
            for item in manifest.instances
        ]
        there = [one for one, item in zip(contents, manifest.instances, strict=True) if _sha256(one) == item.sha256]
        if len({tiny.patient_of(one) for one in there} - {""}) > 1 and manifest.study_uid not in self.released:
            raise Violation("a file of a study that names two patients is deleted")
        if data in self._folders.valid:
            comparable = [
                bytes(one)
                for one, item in zip(contents, manifest.instances, strict=True)
                if _sha256(one) == item.sha256
                and (item.sha256 in manifest.data_sets or item.key not in manifest.damaged_keys)
            ]
            mine = self._folders.valid[data]
            of_it = {one: tiny.data_set_of(one) for one in comparable if self._folders.valid.get(one) == mine}
            looked_at = self.looked_at.get(manifest.study_uid, set())
            versions = set(of_it.values())
            if len(versions) > 1 and versions - {it for one, it in of_it.items() if _sha256(one) in looked_at}:
                raise Violation("a file of an instance with several versions is deleted")
            return
        instance = self._folders.instance_of(data)
        if instance is None or not any(self._folders.valid.get(bytes(one)) == instance for one in there):
            raise Violation("a damaged file is deleted, and the archive has no whole copy of it")

    def unlink(self, name: bytes, *, dir_fd: int) -> None:
        """os.unlink as pipeline.proof sees it: what goes has to be in the store, and its deletion on record."""
        if self.hanging is not None and self.hanging.is_given_up:
            raise Violation("a file is deleted by work that was given up")
        begun = self._fate.clock.now()  # whoever is held up in the midst of the call cannot look any more
        # Without a lease nothing can tell of a write between the last look and this call.
        self._fate.at("unlink", actors=self._fate.plan.leases, hot=True)
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=dir_fd)
        try:
            found = os.fstat(fd)
            data = os.pread(fd, found.st_size + 1, 0)
        finally:
            os.close(fd)
        digest = _sha256(data)
        self._require_fresh(self._proofs[-1], begun)
        if digest not in self._shelf.held():
            raise Violation("a file is deleted that the store does not hold")
        self._require_free(data, self._proofs[-1])
        if self._store.watched is not None and 0 < self._told[-1] == self._store.watched.told:
            raise Violation("a file is deleted though the store has said that it ends the archive's objects")
        assert self.queue is not None
        written = (entry.body for entry in record.entries(self.queue, self._shelf))
        authorised = sum(body["kind"] == "authorised" and body["sha256"] == digest for body in written)
        if authorised <= self.unlinked.count(digest):
            raise Violation("a file is deleted without its deletion being on record")
        self._folders.unlinked(found.st_ino)
        os.unlink(name, dir_fd=dir_fd)
        self.unlinked.append(digest)
        if found.st_nlink == 1:
            self._folders.forgotten(found.st_ino)
        self._fate.trace.add("unlinked", digest[:12])
        self._fate.at("unlink.done", hot=True)
