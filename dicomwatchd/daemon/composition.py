"""The composition root: every part of the daemon, built and connected from a plan and from what comes from outside.

Nothing else builds them. The daemon's supervisor gives them threads; tests and the simulation put in a store, a clock,
workers and hooks of their own, and call the very same steps one by one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from dicomwatchd import __version__, resolved_paths
from dicomwatchd.answering import AlwaysAnswering, Inboxes
from dicomwatchd.archive import keys
from dicomwatchd.archive.factory import aws_session, open_catalogue, open_store
from dicomwatchd.archive.identity import read_identity
from dicomwatchd.archive.stores.budget import ByteBudget
from dicomwatchd.audit.checkpoints import Checkpoints
from dicomwatchd.audit.proving import Prover
from dicomwatchd.audit.sealing import Sealing
from dicomwatchd.config import BundledLayout, Config, DeleteAfter, DirectorySettings, Inbox, SqliteSettings
from dicomwatchd.errors import ArchiveRefused, Fatal, InboxSilent, NotInitialised
from dicomwatchd.intake.dicom.sizes import SIZES, Sizes
from dicomwatchd.intake.inbox import InboxIntake, IntakeSettings
from dicomwatchd.pipeline.deletion import recover, unleased
from dicomwatchd.pipeline.deletion.expiring import Expiring
from dicomwatchd.pipeline.deletion.pinning import Pinning
from dicomwatchd.pipeline.deletion.recover import Recovered
from dicomwatchd.pipeline.dispatch import Dispatcher
from dicomwatchd.pipeline.pool import Workers
from dicomwatchd.pipeline.shipment import AfterArchive, Archive, Bundling, Context, Shipment
from dicomwatchd.pipeline.upkeep import Upkeep
from dicomwatchd.ports import Cancellation, Clock, Log, never_cancelled
from dicomwatchd.queue import Queue, open_queue
from dicomwatchd.queue.rows import LEFT, Source, Transition
from dicomwatchd.uploads.handed import HandedFolders
from dicomwatchd.uploads.jobs import UploadJobs

INIT = "dicomwatchctl archive init"
ACTIVE_SHIPMENTS = 8


@dataclass(frozen=True, slots=True)
class InboxPlan:
    """One inbox: where it is, how it is looked at, and what becomes of its files."""

    name: str
    path: Path
    settings: IntakeSettings
    after_archive: AfterArchive
    #: Whether files are sent while their study still arrives.
    sends_early: bool = True
    #: Whether file events say where to look first; otherwise there are only looks.
    by_events: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be built. ``forbidden`` are the folders that no upload may overlap."""

    state_directory: Path
    inboxes: tuple[InboxPlan, ...]
    active_shipments: int = ACTIVE_SHIPMENTS
    forbidden: tuple[Path, ...] = ()
    #: An inbox that has shown no sign of life for so long is left alone until it does.
    answer_seconds: float = 30.0
    sizes: Sizes = SIZES

    def inbox(self, name: str) -> InboxPlan | None:
        return next((inbox for inbox in self.inboxes if inbox.name == name), None)


def plan_of(config: Config) -> Plan:
    folders = [config.state_directory, *(inbox.path for inbox in config.inboxes)]
    for part in (config.archive.store, config.archive.catalogue):
        if isinstance(part, DirectorySettings | SqliteSettings):
            folders.append(part.path)
    inboxes = tuple(_inbox_plan(inbox, config) for inbox in config.inboxes)
    leading = resolved_paths.resolve(folders)
    return Plan(
        config.state_directory,
        inboxes,
        forbidden=tuple(leading[folder].real for folder in folders),
        answer_seconds=config.inbox_answer_seconds,
        sizes=Sizes(config.max_file_bytes, takes_sparse=config.sparse_files == "take"),
    )


def open_archive(config: Config, draining: Callable[[], bool]) -> Archive:
    """The archive, looked at and found usable; creates nothing. Raises NotInitialised, ArchiveRefused, OutOfReach."""
    hint = f"if this is the right place, run: {INIT}"
    memory = ByteBudget()
    session = aws_session(config.archive.store, config.archive.catalogue)
    store = open_store(
        config.archive.store,
        connections=config.workers + ACTIVE_SHIPMENTS,
        stopping=draining,
        budget=memory,
        session=session,
    )
    catalogue = open_catalogue(config.archive.catalogue, session=session)
    try:
        store.check()
        identity = read_identity(store)
        if identity is None:
            raise NotInitialised("the store holds no archive", hint=hint)
        catalogue.check()
        catalogue_id = catalogue.identity()
        if catalogue_id is None:
            raise NotInitialised("the catalogue was not initialised", hint=hint)
        if catalogue_id != identity.archive_id:
            raise ArchiveRefused("the catalogue belongs to another archive than the store", hint=hint)
        store.probe(keys.PROBE)
    except BaseException:
        store.close()
        catalogue.close()
        raise
    layout = config.archive.layout
    bundling = Bundling(layout.below_bytes, layout.size_bytes) if isinstance(layout, BundledLayout) else None
    return Archive(identity.archive_id, store, catalogue, memory, bundling)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What comes from outside: time, chance, log, workers, and who is told of what happens."""

    clock: Clock
    random: Random
    log: Log
    workers: Workers
    #: The daemon cannot go on.
    on_fatal: Callable[[Fatal], None]
    #: Gives the intake of an upload somebody who steps it, and returns what ends that. By default nobody: see
    #: `Parts.every_intake`.
    attend: Callable[[InboxIntake], Callable[[], None]] = lambda _: lambda: None
    #: A study has moved on.
    announce: Callable[[Transition], None] = lambda _: None
    on_shipped: Callable[[Shipment], None] = lambda _: None
    #: The start goes on, and takes its time.
    starting: Callable[[], None] = lambda: None
    #: A sign of life of the thread that calls it.
    heartbeat: Callable[[], None] = lambda: None
    #: The same in the midst of long work, and whether that is to be left.
    cancelled: Cancellation = never_cancelled
    open_state: Callable[[Path, Clock, Callable[[Transition], None]], Queue] = open_queue
    #: Who may touch the inboxes' folders without anybody's waiting for one that does not answer.
    inboxes: Inboxes = field(default_factory=AlwaysAnswering)
    #: The folders that were handed in, which stay open over a reload.
    handed: HandedFolders = field(default_factory=HandedFolders)


class Parts:
    """One plan, built over an archive that was opened for it. Nothing moves before `begin`; after it, whoever has the
    parts steps or runs `dispatcher`, `checkpoints`, `upkeep` and the intakes, and `close` is the end."""

    def __init__(self, plan: Plan, archive: Archive, around: Surroundings) -> None:
        """Opens the state, and brings back files that a crash has left staged. Raises Fatal, Transient,
        ArchiveRefused."""
        self.plan, self.archive = plan, archive
        self._around, self._log = around, around.log
        self.intakes: dict[int, InboxIntake] = {}
        self.sources: dict[int, Source] = {}
        self._roots: dict[int, tuple[int, int] | None] = {}
        self._unreleased: set[int] = set()  # inboxes that did not answer at the start
        self._unsearched: set[int] = set()  # and those that were too large to be searched in time
        self.queue: Queue = around.open_state(plan.state_directory, around.clock, around.announce)
        self.queue.say_when_used(around.inboxes.elsewhere)
        try:
            self._bind()
            self._recover()
        except BaseException:
            self.queue.close()
            raise
        self._pinning = Pinning(self.queue.roots, around.log, lambda: self.dispatcher.wake())
        self.context = Context(
            archive=archive,
            shipments=self.queue.shipments,
            deletions=self.queue.deletions,
            sources=lambda: self.sources,
            after_archive=self.after_archive,
            rescan=self._rescan,
            clock=around.clock,
            log=around.log,
            left_staged=self._left_staged,
            heartbeat=around.heartbeat,
            cancelled=around.cancelled,
            at_once=lambda: around.workers.size,
            sends_early=self._sends_early,
            inboxes=around.inboxes,
            stops_deleting=lambda: self.expiring.stops_deleting(),
            pinned=self._pinning.pinned,
            is_exchanged=self._pinning.is_exchanged,
        )
        self.queue.shipments.silent = around.inboxes.silent
        self.dispatcher = Dispatcher(
            self.context,
            around.workers.lane,
            plan.active_shipments,
            around.random,
            around.on_shipped,
            around.on_fatal,
            around.workers.ease,
        )
        self.checkpoints = Checkpoints(
            self.queue.audit,
            archive.store,
            around.clock,
            around.log,
            lambda: self.dispatcher.backoff.is_to_be_left_alone,
        )
        self.expiring = Expiring(
            archive.store,
            self.queue.deletions,
            around.clock,
            around.log,
            due=self.dispatcher.wake,
            in_trouble=lambda: self.dispatcher.backoff.is_to_be_left_alone,
        )
        self.prover = Prover(self.queue.audit, self.queue.segments, archive.store, archive.archive_id)
        self.sealing = Sealing(
            self.queue.audit,
            self.queue.segments,
            archive.store,
            lambda: self.checkpoints.covered,
            self.prover.archived,
            around.log,
            # Nor does the record of deletions go where the store would end it by itself.
            lambda: self.dispatcher.backoff.is_to_be_left_alone or self.expiring.problem is not None,
        )
        self.upkeep = Upkeep([self.queue.parked.step, self.sealing.step, self.queue.pruning.step])
        self.uploads = UploadJobs(
            self.queue,
            self._start_upload_intake,
            plan.forbidden,
            around.log,
            around.clock,
            self._source_ended,
            self.expiring.stops_deleting,
            around.handed,
        )
        if not archive.store.capabilities.creates_only:
            self._log.warning(
                "store-overwrites", "the store overwrites what is there: let one daemon alone ship to this archive"
            )

    # -- the start, in this order -----------------------------------------------------------------------------------

    def _bind(self) -> None:
        known, found = self.queue.binding.archive_id(), self.archive.archive_id
        if known is not None and known != found:
            raise ArchiveRefused(
                "this is another archive than the one that the daemon's state knows",
                hint=f"is the share mounted, the bucket right? If the change is meant: {INIT} --new-archive",
            )
        if self.queue.binding.bind(found, f"{self.archive.store.destination} {self.archive.catalogue.name}"):
            self._log.warning(
                "archive-moved", "the archive's place has changed; what is not deleted yet is sent or verified again"
            )

    def _recover(self) -> None:
        left: dict[int, Recovered] = {}
        self.inbox_sources = [
            self.queue.arrivals.add_source(inbox.name, os.fsencode(inbox.path), "inbox") for inbox in self.plan.inboxes
        ]
        self.sources = {source.source_id: source for source in self.queue.arrivals.sources()}
        for upload in self.queue.uploads.open():
            self.sources[upload.source.source_id] = self._around.handed.attached(upload).source
        inboxes = self._around.inboxes
        for source in self.sources.values():
            inboxes.know(source.source_id, source.name)

        def heartbeat() -> None:
            inboxes.beat()
            self._around.starting()

        # All at once: each one that does not answer takes its time.
        asked = {
            source.source_id: inboxes.begin(source.source_id, partial(recover.bring_back, source, self._log, heartbeat))
            for source in self.sources.values()
            if _may_be_touched(source)
        }
        for source_id, answer in asked.items():
            try:
                left[source_id] = answer()
            except InboxSilent:
                left[source_id] = Recovered(0, 0)
            self._roots[source_id] = left[source_id].root
            if not left[source_id].is_searched:
                self._unsearched.add(source_id)
        unavailable = {source_id for source_id, recovered in left.items() if recovered.root is None}
        recover.conclude(self.queue.deletions, unavailable, inboxes, self.sources)
        for source_id, recovered in left.items():
            recover.know_root(self.queue.deletions, self.sources[source_id], recovered)
        self._dismiss({source_id for source_id, recovered in left.items() if recovered.is_through}, unavailable)
        self.queue.shipments.recover()
        retried = self.queue.upgrade.taken_over_by(__version__)
        if retried.studies or retried.files:
            self._log.info(
                "retried-after-upgrade",
                "what a fault of another version of the program has stopped is tried again",
                studies=retried.studies,
                files=retried.files,
                version=__version__,
            )

    def _dismiss(self, looked_through: set[int], unavailable: set[int]) -> None:
        """Of an inbox that has another path by now, the former one is of no more interest once nothing is staged, or
        once nobody has seen it for long: most often it is not there any more because it was moved."""
        for source_id in looked_through | unavailable:
            if self.sources[source_id].kind == LEFT and self.queue.arrivals.dismiss(
                source_id, unseen=source_id in unavailable
            ):
                del self.sources[source_id]

    def begin(self) -> None:
        """The rest of the start: the intakes, the uploads of an earlier run, and what was kept and may go by now.
        Raises Transient, Fatal."""
        for source, inbox in zip(self.inbox_sources, self.plan.inboxes, strict=True):
            self.intakes[source.source_id] = self._intake(source, inbox.settings)
        self.uploads.resume()
        active = [*self.intakes, *self.uploads.sources()]
        self._send_kept_again(active)
        for source in self.inbox_sources:
            try:
                self._around.inboxes.call(source.source_id, partial(self._at_first, source))
            except InboxSilent:
                self._unreleased.add(source.source_id)
        self.expiring.step()
        self.queue.shipments.queue_due()  # at once: a run that ends when all is done must not end before they are
        self.dispatcher.wake()
        self.queue.arrivals.retire(active)
        self.queue.arrivals.release_unheld()

    def tick(self) -> None:
        """To be called every second or so: what nobody else looks after. Raises Transient, Fatal."""
        self.uploads.tick()
        self.queue.arrivals.retire(intake.source.source_id for intake in self.every_intake() if intake.holds)

    def _send_kept_again(self, active: list[int]) -> None:
        files, studies = self.queue.binding.send_kept_again(active)
        if files:
            self._log.warning(
                "kept-sent-again",
                "files that are kept were archived at another place; they are sent to this one",
                files=files,
                studies=studies,
            )

    def close(self) -> None:
        """Once nothing steps or runs any part any more."""
        if self.checkpoints.problem is None:  # else a store that does not answer would be waited for twice
            self.checkpoints.step()  # what the last shipments have deleted; not every store takes anything any more
        self.queue.close()
        self.archive.store.close()
        self.archive.catalogue.close()

    # -- what can be asked ------------------------------------------------------------------------------------------

    def every_intake(self) -> list[InboxIntake]:
        """Those of the inboxes, and those of the uploads under way."""
        uploads = (self.uploads.intake_of(source_id) for source_id in sorted(self.uploads.sources()))
        return [*self.intakes.values(), *(intake for intake in uploads if intake is not None)]

    def watched_intakes(self) -> list[InboxIntake]:
        """Those of the inboxes whose file events say where to look first."""
        pairs = zip(self.intakes.values(), self.plan.inboxes, strict=True)
        return [intake for intake, inbox in pairs if inbox.by_events]

    @property
    def at_rest(self) -> bool:
        """Every inbox was looked at whole, and nothing in them is still settling."""
        return all(intake.available and intake.at_rest for intake in self.intakes.values())

    @property
    def saw_everything(self) -> bool:
        """No inbox has a directory that the daemon could not read."""
        return all(intake.saw_everything for intake in self.intakes.values())

    # -- what the parts ask for -------------------------------------------------------------------------------------

    def after_archive(self, source: Source) -> AfterArchive:
        """What the plan says of this source's files; those of an inbox that is in no plan any more stay."""
        if source.kind == "upload":
            return AfterArchive(delete=self.uploads.deletes(source))
        inbox = self.plan.inbox(source.name)
        return AfterArchive(delete=False) if inbox is None else inbox.after_archive

    def _sends_early(self, source: Source) -> bool:
        inbox = self.plan.inbox(source.name)
        return inbox is None or inbox.sends_early

    def _intake_of(self, source_id: int) -> InboxIntake | None:
        return self.intakes.get(source_id) or self.uploads.intake_of(source_id)

    def _rescan(self, source_id: int, directory: bytes) -> None:
        if intake := self._intake_of(source_id):
            intake.hint(directory, alone=True)

    def _left_staged(self, source_id: int) -> None:
        if intake := self._intake_of(source_id):
            intake.recover_soon()

    def _recover_inbox(self, source: Source, only: set[bytes] | None) -> bool:
        """An inbox has come back, or something is staged in these directories: bring that back, and conclude what
        waited for it. Whether all of it was searched."""
        if not _may_be_touched(source):
            return True
        recovered = recover.recover_inbox(source, self.queue.deletions, self._log, self._around.inboxes, only)
        if source.source_id in self._unreleased:
            self._unreleased.discard(source.source_id)
            self._release_kept(source)
        return recovered.is_searched

    def _at_first(self, source: Source) -> None:
        with suppress(OSError):
            root_fd = source.open()
            try:
                self._pinning.see(source, root_fd)
            finally:
                os.close(root_fd)
        self._release_kept(source)

    def _release_kept(self, source: Source) -> None:
        unleased.release_kept(self.queue.deletions, source, self.after_archive(source))

    def _intake(self, source: Source, settings: IntakeSettings) -> InboxIntake:
        return InboxIntake(
            source,
            settings,
            self.queue.arrivals,
            self._around.clock,
            self._around.random,
            self._log,
            self.dispatcher.arrived,
            partial(self._recover_inbox, source),
            self._roots.get(source.source_id),
            self._around.inboxes,
            self.plan.sizes,
            unsearched=source.source_id in self._unsearched,
            on_root=partial(self._pinning.see, source),
        )

    def _source_ended(self, source: Source) -> None:
        """An upload is over: what it was looked at by is gone."""
        self.sources.pop(source.source_id, None)
        self._roots.pop(source.source_id, None)

    def _start_upload_intake(self, source: Source, settings: IntakeSettings) -> tuple[InboxIntake, Callable[[], None]]:
        self.sources[source.source_id] = source
        self._around.inboxes.know(source.source_id, source.name)
        intake = self._intake(source, settings)
        return intake, self._around.attend(intake)


def _may_be_touched(source: Source) -> bool:
    """A folder that was handed in without --delete is left as it is, whatever lies in it."""
    return source.kind != "upload" or source.delete_local


def _inbox_plan(inbox: Inbox, config: Config) -> InboxPlan:
    poll = inbox.watch == "poll"
    return InboxPlan(
        name=inbox.name,
        path=inbox.path,
        settings=IntakeSettings(
            settle_seconds=inbox.settle_seconds,
            quiet_seconds=inbox.quiet_seconds,
            scan_interval_seconds=config.scan_interval_seconds,
            include=inbox.include,
            exclude=inbox.exclude,
            full_look_before_quiet=poll,
            trust_ctime=not poll,
        ),
        after_archive=_after_archive(inbox),
        sends_early=inbox.send_while_arriving,
        by_events=inbox.watch == "events",
    )


def _after_archive(inbox: Inbox) -> AfterArchive:
    needs_lease = inbox.without_lease == "keep"
    if isinstance(inbox.after_archive, DeleteAfter):
        return AfterArchive(delete=False, keep_seconds=inbox.after_archive.seconds, needs_lease=needs_lease)
    return AfterArchive(delete=inbox.after_archive == "delete", needs_lease=needs_lease)
