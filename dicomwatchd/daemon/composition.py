"""The composition root: every part of the daemon, built and connected from a plan and from what comes from outside.

Nothing else builds them. The daemon's supervisor gives them threads; tests and the simulation put in a store, a clock,
workers and hooks of their own, and call the very same steps one by one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random

from dicomwatchd.alarms import conditions
from dicomwatchd.alarms.hook import DEADLINE_SECONDS, Hook
from dicomwatchd.alarms.rounds import Alarms
from dicomwatchd.answering import AlwaysAnswering, Inboxes
from dicomwatchd.archive.identity import require_identity
from dicomwatchd.audit.checkpoints import Checkpoints
from dicomwatchd.audit.proving import Prover
from dicomwatchd.audit.sealing import Sealing
from dicomwatchd.daemon.plan import Plan
from dicomwatchd.daemon.sources import Sources
from dicomwatchd.daemon.startup import Startup
from dicomwatchd.drill.rounds import RestoreDrills
from dicomwatchd.drill.scratch import Scratch
from dicomwatchd.drill.trial import Trial
from dicomwatchd.errors import Fatal
from dicomwatchd.intake.inbox import InboxIntake, IntakeSettings
from dicomwatchd.pipeline.committing.judgement import Judgement
from dicomwatchd.pipeline.committing.rounds import Commitments, Desk
from dicomwatchd.pipeline.deletion.early import EarlyDeletion, Watched
from dicomwatchd.pipeline.deletion.vetoes.expiring import Expiring
from dicomwatchd.pipeline.deletion.vetoes.pinning import Pinning
from dicomwatchd.pipeline.dispatch import Dispatcher
from dicomwatchd.pipeline.erased import ErasedStudies
from dicomwatchd.pipeline.listed import AskingForListed
from dicomwatchd.pipeline.pool import Workers
from dicomwatchd.pipeline.shipment import Archive, Context, Shipment
from dicomwatchd.pipeline.upkeep import Upkeep
from dicomwatchd.ports import Cancellation, Clock, Log, never_cancelled
from dicomwatchd.queue import Queue, open_queue
from dicomwatchd.queue.rows import Source, Transition
from dicomwatchd.queue.waits import WaitNews
from dicomwatchd.series.sent import SentSeries
from dicomwatchd.uploads.archived import ArchivedInstances
from dicomwatchd.uploads.folders import UploadFolders
from dicomwatchd.uploads.jobs import UploadJobs


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
    #: `Sources.every_intake`.
    attend: Callable[[InboxIntake], Callable[[], None]] = lambda _: lambda: None
    #: A study has moved on.
    announce: Callable[[Transition], None] = lambda _: None
    on_shipped: Callable[[Shipment], None] = lambda _: None
    #: A file of so many bytes was sent, and created in the store.
    on_sent: Callable[[int], None] = lambda _: None
    #: Waits until the archive's store is known, where that is found out beside the start; raises where it may not be
    #: used (see `ObjectStore.probe`).
    probed: Callable[[], None] = lambda: None
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
    upload_folders: UploadFolders = field(default_factory=UploadFolders)


class Parts:
    """One plan, built over an archive that was opened for it. Nothing moves before `begin`, or its two halves `prepare`
    and `go`; after it, whoever has the parts steps or runs `dispatcher`, `checkpoints`, `upkeep`, `room` and the
    intakes (these after the first half already), and `close` is the end."""

    def __init__(self, plan: Plan, archive: Archive, around: Surroundings) -> None:
        """Opens the state, and brings back files that a crash has left staged. Raises Fatal, Transient,
        ArchiveRefused."""
        self.archive = archive
        self._around, self._log = around, around.log
        self.queue: Queue = around.open_state(plan.state_directory, around.clock, around.announce)
        self.queue.say_when_used(around.inboxes.elsewhere)
        self.sources = Sources(plan, lambda: self.uploads)
        self._startup = Startup(
            archive,
            self.queue,
            self.sources,
            around.inboxes,
            around.upload_folders,
            around.starting,
            around.log,
            around.probed,
        )
        try:
            self._startup.recover()
        except BaseException:  # whatever ends it: nobody else has the state, and its lock
            self.queue.close()
            raise
        self.series = self._series_objects(plan)
        self._pinning = Pinning(self.queue.roots, around.log, lambda: self.dispatcher.wake())
        require_archive = partial(require_identity, archive.store, archive.archive_id)
        self.context = Context(
            archive=archive,
            claims=self.queue.claims,
            shipments=self.queue.shipments,
            deletions=self.queue.deletions,
            holds=self.queue.holds,
            erased=ErasedStudies(
                archive.store,
                self.queue.holds,
                self.queue.erasures,
                around.clock,
                around.log,
                lambda: self.dispatcher.backoff.is_to_be_left_alone,
                require_archive=require_archive,
            ),
            sources=lambda: self.sources.by_id,
            after_archive=self.sources.after_archive,
            rescan=self.sources.rescan,
            clock=around.clock,
            log=around.log,
            left_staged=self.sources.left_staged,
            is_scanned=self.sources.is_scanned,
            heartbeat=around.heartbeat,
            cancelled=around.cancelled,
            sent=around.on_sent,
            at_once=lambda: around.workers.size,
            sends_early=self.sources.sends_early,
            inboxes=around.inboxes,
            stops_deleting=lambda: self.expiring.stops_deleting(),
            pinned=self._pinning.pinned,
            is_exchanged=self._pinning.is_exchanged,
            passing=self.series.look if self.series is not None else lambda _header, _sha256, _data: None,
            finished=self.series.finished if self.series is not None else lambda _manifest: None,
        )
        self.queue.claims.not_responding = around.inboxes.not_responding
        self.dispatcher = Dispatcher(
            self.context,
            around.workers.lane,
            plan.active_shipments,
            around.random,
            around.on_shipped,
            around.on_fatal,
            around.workers.slow_down,
        )
        self.checkpoints = Checkpoints(
            self.queue.audit,
            archive.store,
            around.clock,
            around.log,
            lambda: self.dispatcher.backoff.is_to_be_left_alone,
            require_archive=require_archive,
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
            require_archive=require_archive,
        )
        self.early = EarlyDeletion(
            self.queue.early,
            self._watched_disks,
            around.clock,
            around.log,
            may_delete=self._may_delete,
            due=self.dispatcher.wake,
        )
        asking_for_listed = AskingForListed(
            self.queue.dicomdirs, archive, lambda: self.dispatcher.backoff.is_to_be_left_alone
        )
        self.upkeep = Upkeep(
            [
                self.queue.parked.step,
                self.sealing.step,
                self.queue.pruning.step,
                self.queue.received.step,
                self.queue.drills.step,
                asking_for_listed.step,
                self.context.erased.step,
            ]
        )
        #: By itself: the upkeep sends to the store, too, and may wait for its share of a narrow line for hours.
        self.room = Upkeep([self.early.step])
        self.commitments = Commitments(
            self._desks(plan, around.workers),
            around.clock,
            around.log,
            lambda: self.dispatcher.backoff.is_to_be_left_alone,
        )
        self.drills = self._drills(plan)
        self.alarms = self._alarms(plan)
        self.uploads = UploadJobs(
            self.queue,
            self._start_upload_intake,
            plan.forbidden,
            around.log,
            around.clock,
            self._source_ended,
            self.expiring.stops_deleting,
            around.upload_folders,
            ArchivedInstances(archive, around.inboxes).of,
        )
        self._is_going = False

    def begin(self, *, waits_for_listed: bool = True) -> None:
        """The rest of the start. Raises Transient, Fatal, ArchiveRefused."""
        self.prepare(waits_for_listed=waits_for_listed)
        self.go()

    def prepare(self, *, waits_for_listed: bool = True) -> None:
        """The intakes, the uploads of an earlier run, and what was kept and may go by now; the archive is asked for
        nothing. From here on the intakes may run. ``waits_for_listed``: studies wait for what a DICOMDIR lists, as the
        plan says. Raises Transient, Fatal."""
        asked_for = {one.inbox for one in self.sources.plan.commitments}
        self.queue.received.keep_for({one.source_id for one in self.sources.inboxes if one.name in asked_for})
        self.queue.quiet.wait_at_most(
            {
                source.source_id: inbox.max_wait_seconds
                for source, inbox in zip(self.sources.inboxes, self.sources.plan.inboxes, strict=True)
            }
            if waits_for_listed
            else {}
        )
        for source, inbox in zip(self.sources.inboxes, self.sources.plan.inboxes, strict=True):
            self.sources.intakes[source.source_id] = self._intake(source, inbox.settings)
        self.uploads.resume()
        active = [*self.sources.intakes, *self.uploads.sources()]
        self._startup.send_kept_again(active)
        self._startup.release_kept(self._pinning.see)
        self.queue.claims.queue_due()  # at once: a run that ends when all is done must not end before they are
        self.dispatcher.wake()
        self.queue.quiet.retire(active)
        self.queue.quiet.release_unheld()

    def go(self) -> None:
        """Once the store is known: from here on all parts may run. Raises Transient, Fatal, ArchiveRefused."""
        self._startup.bind()
        if not self.archive.store.capabilities.creates_only:
            self._log.warning(
                "store-overwrites", "the store lets objects be overwritten: only one daemon may send to this archive"
            )
        self.expiring.step()
        self._is_going = True

    def tick(self) -> None:
        """To be called every second or so: what nobody else looks after. Raises Transient, Fatal."""
        self.uploads.tick()
        self.queue.quiet.retire(intake.source.source_id for intake in self.sources.every_intake() if intake.holds)
        self._tell_of_waits(self.queue.quiet.end_waits())

    def put_checkpoint(self) -> None:
        """Before the end. A store that was not found usable gets nothing."""
        if self._is_going:
            self.checkpoints.step()

    def close(self) -> None:
        """Once nothing steps or runs any part any more."""
        if self.checkpoints.problem is None:  # else a store that does not answer would be waited for twice
            self.put_checkpoint()  # what the last shipments have deleted; not every store takes anything any more
        self.queue.close()
        self.archive.store.close()
        self.archive.catalogue.close()

    # -- details ----------------------------------------------------------------------------------------------------

    def _desks(self, plan: Plan, workers: Workers) -> list[Desk]:
        """Of the receivers that are asked for commitment."""
        sources = {source.name: source for source in self.sources.inboxes}
        return [
            Desk(
                one.receiver,
                one.folder,
                one.wait_seconds,
                Judgement(self.context, self.queue.received, sources[one.inbox], workers.lane),
            )
            for one in plan.commitments
        ]

    def _watched_disks(self) -> list[Watched]:
        pairs = zip(self.sources.inboxes, self.sources.plan.inboxes, strict=True)
        return [
            Watched(source, inbox.room, self.sources.intakes[source.source_id])
            for source, inbox in pairs
            if inbox.room is not None and source.source_id in self.sources.intakes
        ]

    def _may_delete(self, source: Source) -> bool:
        """Whether a file of this inbox that falls due now could be deleted, and not only be kept for another reason."""
        rule = self.sources.after_archive(source)
        return (
            (rule.delete or rule.keep_seconds is not None)
            and self.expiring.problem is None
            and not self.dispatcher.backoff.is_to_be_left_alone
            and not self.context.is_exchanged(source)
        )

    def _drills(self, plan: Plan) -> RestoreDrills:
        around, random = self._around, self._around.random

        def token() -> str:
            return f"{random.getrandbits(64):016x}"

        scratch = Scratch(plan.state_directory, token, plan.free_share)
        return RestoreDrills(
            self.queue.drills,
            self.archive.store,
            self.archive.archive_id,
            Trial(self.archive.store, self.archive.catalogue, scratch, around.clock, token, random.random),
            scratch,
            plan.restore_drill,
            around.clock,
            random,
            self._log,
            busy=lambda: self.dispatcher.busy,
            in_trouble=lambda: self.dispatcher.backoff.is_to_be_left_alone,
        )

    def _series_objects(self, plan: Plan) -> SentSeries | None:
        if plan.series_objects == "off":
            return None
        return SentSeries(
            self.archive.store,
            self._around.clock,
            self._log,
            reads_back=plan.series_objects == "complete",
            cpu_seconds=time.thread_time,
            busy=lambda: self.dispatcher.busy,
            in_trouble=lambda: self.dispatcher.backoff.is_to_be_left_alone,
        )

    def _alarms(self, plan: Plan) -> Alarms:
        queue, clock, settings = self.queue, self._around.clock, plan.alarms
        service = self.archive.observed
        names = {source.source_id: source.name for source in self.sources.inboxes}
        looked_at: list[conditions.Condition] = [
            lambda: conditions.oldest_file(queue.reports, settings),
            lambda: conditions.hold(queue.holds, settings, clock),
            lambda: conditions.clock(service, settings),
            lambda: conditions.credentials(service, settings, clock),
            conditions.Certificates(plan.certificates, settings, clock),
        ]
        if settings.silent_inbox:
            looked_at.append(conditions.SilentInboxes(queue.hours, names))
        if settings.restore_drill:
            looked_at.append(lambda: conditions.restore_drill(queue.drills))
        hook = None if plan.on_alarm is None else Hook(plan.on_alarm, clock.monotonic, DEADLINE_SECONDS)
        return Alarms(queue.alarms, queue.hours, looked_at, self._seen_inboxes, hook, clock, self._log)

    def _seen_inboxes(self) -> dict[int, bool]:
        """By source, whether what comes into an inbox would be seen now."""
        silent = self._around.inboxes.not_responding()
        return {
            source_id: intake.was_open and intake.available and source_id not in silent
            for source_id, intake in self.sources.intakes.items()
        }

    def _tell_of_waits(self, news: list[WaitNews]) -> None:
        for one in news:
            if not one.has_ended:
                self._log.info(
                    "study-waits",
                    "a study that is quiet waits for images that a DICOMDIR lists",
                    study_uid=one.study_uid,
                    missing_files=one.missing,
                )
            elif one.missing:
                self._log.warning(
                    "study-incomplete",
                    "a study has waited in vain for images that a DICOMDIR lists; it is archived without them",
                    study_uid=one.study_uid,
                    missing_files=one.missing,
                )
        if news:
            self.dispatcher.wake()

    def _intake(self, source: Source, settings: IntakeSettings) -> InboxIntake:
        return InboxIntake(
            source,
            settings,
            self.queue.arrivals,
            self.queue.quiet,
            self._around.clock,
            self._around.random,
            self._log,
            self.dispatcher.arrived,
            partial(self._startup.recover_inbox, source),
            self._startup.roots.get(source.source_id),
            self._around.inboxes,
            self.sources.plan.sizes,
            unsearched=source.source_id in self._startup.unsearched,
            on_root=partial(self._pinning.see, source),
        )

    def _source_ended(self, source: Source) -> None:
        """An upload is over: what it was looked at by is gone."""
        self.sources.by_id.pop(source.source_id, None)
        self._startup.forget(source)

    def _start_upload_intake(self, source: Source, settings: IntakeSettings) -> tuple[InboxIntake, Callable[[], None]]:
        self.sources.by_id[source.source_id] = source
        self._around.inboxes.know(source.source_id, source.name)
        settings = replace(settings, charset_when_missing=self.sources.plan.charset_when_missing)
        intake = self._intake(source, settings)
        return intake, self._around.attend(intake)
