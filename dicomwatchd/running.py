"""One configuration at work: every part built, connected, started and stopped again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from dicomwatchd import __version__, doctor
from dicomwatchd.archive import keys
from dicomwatchd.archive.budget import ByteBudget
from dicomwatchd.archive.factory import aws_session, open_catalogue, open_store
from dicomwatchd.archive.identity import read_identity
from dicomwatchd.commands import commands
from dicomwatchd.config import BundledLayout, Config, DeleteAfter, DirectorySettings, Inbox, SqliteSettings
from dicomwatchd.control import ControlServer
from dicomwatchd.doctor import Finding
from dicomwatchd.errors import ArchiveRefused, ConfigError, Fatal, NotInitialised
from dicomwatchd.intake.inbox import InboxIntake, IntakeSettings
from dicomwatchd.intake.watch import Watcher
from dicomwatchd.pipeline import anchoring, leases, recover
from dicomwatchd.pipeline.anchoring import Anchoring
from dicomwatchd.pipeline.dispatch import Dispatcher
from dicomwatchd.pipeline.pace import Pace
from dicomwatchd.pipeline.pool import Pool
from dicomwatchd.pipeline.shipment import AfterArchive, Archive, Bundling, Context
from dicomwatchd.ports import Clock
from dicomwatchd.queue import Queue, open_queue
from dicomwatchd.queue.rows import Source
from dicomwatchd.telemetry.health import Heartbeats
from dicomwatchd.telemetry.journal import Journal
from dicomwatchd.telling import Teller
from dicomwatchd.uploads import UploadDesk

INIT = "dicomwatchctl archive init"
ACTIVE_SHIPMENTS = 8
#: A worker that has neither finished an item nor come round in a long one for this time is stuck.
WORKER_SILENCE_SECONDS = 900.0
LOOP_SILENCE_SECONDS = 300.0


class Pulse:
    """Asked in the middle of long work whether to stop; whoever asks shows a sign of life."""

    def __init__(self) -> None:
        self.heartbeats = Heartbeats()
        self.stopping = threading.Event()

    def __call__(self) -> bool:
        self.heartbeats.beat(threading.current_thread().name)
        return self.stopping.is_set()


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


class Running:
    """Built from a configuration and an archive that was opened for it; `start`, then `stop`."""

    def __init__(
        self, config: Config, archive: Archive, pulse: Pulse, journal: Journal, clock: Clock, random: Random
    ) -> None:
        self._config, self._archive, self._journal, self._clock, self._random = config, archive, journal, clock, random
        self._teller = Teller(config, archive, journal, clock)
        self.fatal: Fatal | None = None
        self._stopping = pulse.stopping
        self._intake_stopping = threading.Event()
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self._intakes: dict[int, InboxIntake] = {}
        self._sources: dict[int, Source] = {}
        self._mended_roots: dict[int, tuple[int, int] | None] = {}
        self.heartbeats = pulse.heartbeats
        self.queue: Queue = open_queue(config.state_directory, clock, self._teller.changed)
        try:
            self._bind()
            self._recover()
        except BaseException:
            self.queue.close()
            raise
        self._pool = Pool(
            Pace(config.workers, clock),
            began=lambda name: self.heartbeats.register(name, WORKER_SILENCE_SECONDS),
            beat=self.heartbeats.beat,
        )
        self._context = Context(
            archive=archive,
            shipments=self.queue.shipments,
            deletions=self.queue.deletions,
            sources=lambda: self._sources,
            after_archive=self._after_archive,
            look_again=self._look_again,
            clock=clock,
            log=journal,
            left_aside=self._left_aside,
            alive=lambda: self.heartbeats.beat(threading.current_thread().name),
            at_once=lambda: self._pool.size,
            sends_early=self._sends_early,
        )
        self._dispatcher = Dispatcher(
            self._context,
            self._pool.lane,
            ACTIVE_SHIPMENTS,
            random,
            lambda shipment: self._teller.shipped(shipment, self.queue.audit),
            self._on_fatal,
            self._pool.ease,
        )
        self._anchoring = Anchoring(
            self.queue.audit, archive.store, clock, journal, lambda: self._dispatcher.backoff.in_trouble
        )
        self.uploads = UploadDesk(
            self.queue, self._start_upload_intake, self._own_folders(), journal, clock, self._forget
        )
        self._watcher: Watcher | None = None
        self._control: ControlServer | None = None
        if not archive.store.capabilities.creates_only:
            journal.warning(
                "store-overwrites", "the store overwrites what is there: let one daemon alone ship to this archive"
            )

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self, *, watch: bool) -> None:
        """Begin. ``watch`` False: no events, only looks; for a run that ends when all is done."""
        try:
            self._control = ControlServer(
                self._config.socket_path,
                commands(
                    self.queue,
                    self._status,
                    self._examine,
                    self.uploads,
                    self._dispatcher.wake,
                    lambda: anchoring.report(self.queue.audit, self._archive.store),
                ),
                self._journal,
            )
        except OSError as error:
            why = f"cannot be made there ({os.strerror(error.errno or 0)})"
            raise ConfigError([("control_socket", why)]) from error
        self._thread("dispatcher", self._dispatcher.run, self._stopping)
        self._thread("anchoring", self._anchoring.run, self._stopping, WORKER_SILENCE_SECONDS)
        for source, inbox in zip(self._inbox_sources, self._config.inboxes, strict=True):
            self._intakes[source.source_id] = self._intake(source, _settings(inbox, self._config))
        self.uploads.resume()
        self._send_kept_again([*self._intakes, *self.uploads.sources()])
        for source in self._inbox_sources:
            leases.release_kept(self.queue.deletions, source, self._after_archive(source))
        self.queue.shipments.queue_due()  # at once: a run that ends when all is done must not end before they are
        self._dispatcher.wake()
        self.queue.arrivals.retire([*self._intakes, *self.uploads.sources()])
        for intake in list(self._intakes.values()):
            self._thread(f"intake-{intake.source.source_id}", intake.run, self._intake_stopping)
        if watch:
            watched = [
                intake
                for intake, inbox in zip(self._intakes.values(), self._config.inboxes, strict=True)
                if inbox.watch == "events"
            ]
            self._watcher = Watcher(watched, self._journal)
            self._watcher.start()
        self._control.start()

    def tend(self) -> None:
        """To be called every second or so: what nobody else looks after."""
        self._pool.tend()
        self.uploads.tend()
        self._teller.look_at_disks()
        if self._watcher is not None:
            self._watcher.tend()

    def stop(self) -> None:
        """Drain: begin nothing new, bring what is under way to a point from which a restart goes on. A second call does
        nothing."""
        if self._stopped:
            return
        self._stopped = True
        self._anchoring.step()
        self._intake_stopping.set()
        self._stopping.set()
        self._pool.drain()
        self._dispatcher.wake()
        if self._control is not None:
            self._control.stop()
        if self._watcher is not None:
            self._watcher.stop()
        for intake in self._intakes.values():
            intake.wake()
        for thread in self._threads:
            thread.join()
        if self._anchoring.problem is None:  # else a store that does not answer would be waited for twice
            self._anchoring.step()  # what the last shipments have deleted; not every store takes anything any more
        self._pool.close()
        self.queue.close()
        self._archive.store.close()
        self._archive.catalogue.close()

    @property
    def at_rest(self) -> bool:
        """Every inbox was looked at whole, and nothing in them is still settling."""
        return all(intake.available and intake.at_rest for intake in self._intakes.values())

    @property
    def shipping(self) -> bool:
        """Whether a shipment is under way. Costs nothing to ask."""
        return self._dispatcher.busy

    @property
    def saw_everything(self) -> bool:
        """No inbox has a directory that the daemon could not read."""
        return all(intake.saw_everything for intake in self._intakes.values())

    # -- putting it together ----------------------------------------------------------------------------------------

    def _bind(self) -> None:
        known, found = self.queue.binding.archive_id(), self._archive.archive_id
        if known is not None and known != found:
            raise ArchiveRefused(
                "this is another archive than the one that the daemon's state knows",
                hint=f"is the share mounted, the bucket right? If the change is meant: {INIT} --new-archive",
            )
        destination = f"{self._archive.store.destination} {self._archive.catalogue.name}"
        if self.queue.binding.bind(found, destination):
            self._journal.warning(
                "archive-moved", "the archive's place has changed; what is not deleted yet is sent or verified again"
            )

    def _send_kept_again(self, active: list[int]) -> None:
        files, studies = self.queue.binding.send_kept_again(active)
        if files:
            self._journal.warning(
                "kept-sent-again",
                "files that are kept were archived at another place; they are sent to this one",
                files=files,
                studies=studies,
            )

    def _recover(self) -> None:
        unavailable = set()
        self._inbox_sources = list(map(self._source_of, self._config.inboxes))
        self._sources = {source.source_id: source for source in self.queue.arrivals.sources()}
        for source in self._sources.values():
            root = recover.bring_back(source, self._journal).root
            if root is None:
                unavailable.add(source.source_id)
            self._mended_roots[source.source_id] = root
        self._pending = recover.conclude(self.queue.deletions, unavailable)
        self.queue.shipments.recover()
        retried = self.queue.upgrade.taken_over_by(__version__)
        if retried.studies or retried.files:
            self._journal.info(
                "retried-after-upgrade",
                "what a fault of another version of the program has stopped is tried again",
                studies=retried.studies,
                files=retried.files,
                version=__version__,
            )

    def _mend(self, source: Source) -> None:
        """An inbox has come back: bring back what lies aside in it, and conclude what waited for it."""
        recover.bring_back(source, self._journal)
        mine = [one for one in self._pending if one.source_id == source.source_id]
        self._pending = [one for one in self._pending if one not in mine]
        recover.conclude_these(self.queue.deletions, mine)

    def _source_of(self, inbox: Inbox) -> Source:
        return self.queue.arrivals.add_source(inbox.name, os.fsencode(inbox.path), "inbox")

    def _intake(self, source: Source, settings: IntakeSettings) -> InboxIntake:
        return InboxIntake(
            source,
            settings,
            self.queue.arrivals,
            self._clock,
            self._random,
            self._journal,
            self._dispatcher.arrived,
            lambda: self._mend(source),
            self._mended_roots.get(source.source_id),
        )

    def _start_upload_intake(self, source: Source, settings: IntakeSettings) -> tuple[InboxIntake, Callable[[], None]]:
        self._sources[source.source_id] = source
        intake = self._intake(source, settings)
        ended = threading.Event()
        name = f"intake-{source.source_id}"
        self._thread(name, lambda _, beat: intake.run(_Either(ended, self._intake_stopping), beat), ended)

        def end() -> None:
            ended.set()
            self.heartbeats.unregister(name)

        return intake, end

    def _forget(self, source: Source) -> None:
        self._sources.pop(source.source_id, None)

    def _thread(
        self,
        name: str,
        run: Callable[[threading.Event, Callable[[], None]], None],
        stopping: threading.Event,
        silence_seconds: float = LOOP_SILENCE_SECONDS,
    ) -> None:
        self.heartbeats.register(name, silence_seconds)
        thread = threading.Thread(
            target=self._guarded, args=(run, stopping, lambda: self.heartbeats.beat(name)), name=name, daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _guarded(
        self,
        run: Callable[[threading.Event, Callable[[], None]], None],
        stopping: threading.Event,
        beat: Callable[[], None],
    ) -> None:
        """The top of a thread: what ends it ends the daemon, which systemd starts again."""
        try:
            run(stopping, beat)
        except Fatal as error:
            self._on_fatal(error)
        except Exception as error:
            self._on_fatal(Fatal("a part of the daemon has failed", code="unexpected"))
            raise error

    # -- what the parts ask for -------------------------------------------------------------------------------------

    def _after_archive(self, source: Source) -> AfterArchive:
        if source.kind == "upload":
            return AfterArchive(delete=self.uploads.deletes(source))
        box = next((box for box in self._config.inboxes if box.name == source.name), None)
        if box is None:
            return AfterArchive(delete=False)
        needs_lease = box.without_lease == "keep"
        if isinstance(box.after_archive, DeleteAfter):
            return AfterArchive(delete=False, keep_seconds=box.after_archive.seconds, needs_lease=needs_lease)
        return AfterArchive(delete=box.after_archive == "delete", needs_lease=needs_lease)

    def _sends_early(self, source: Source) -> bool:
        return next((box.send_while_arriving for box in self._config.inboxes if box.name == source.name), True)

    def _intake_of(self, source_id: int) -> InboxIntake | None:
        return self._intakes.get(source_id) or self.uploads.intake_of(source_id)

    def _look_again(self, source_id: int, directory: bytes) -> None:
        if intake := self._intake_of(source_id):
            intake.hint(directory, alone=True)

    def _left_aside(self, source_id: int) -> None:
        if intake := self._intake_of(source_id):
            intake.mend_soon()

    def _own_folders(self) -> list[Path]:
        folders = [self._config.state_directory, *(inbox.path for inbox in self._config.inboxes)]
        for part in (self._config.archive.store, self._config.archive.catalogue):
            if isinstance(part, DirectorySettings | SqliteSettings):
                folders.append(part.path)
        return folders

    def _on_fatal(self, error: Fatal) -> None:
        self.fatal = self.fatal or error
        self._pool.drain()  # the other shipments send nothing more either

    def _status(self, inboxes: list[dict[str, Any]]) -> dict[str, Any]:
        return self._teller.status(
            inboxes,
            intakes=self._intakes.values(),
            pool=self._pool,
            dispatcher=self._dispatcher,
            anchoring=self._anchoring,
            queue=self.queue,
        )

    def _examine(self) -> list[Finding]:
        store = self._archive.store
        return [
            *doctor.examine(self._config, store, self._archive.catalogue),
            doctor.audit_chain(self.queue.audit, store),
        ]


class _Either(threading.Event):
    """Set when one of two events is: the end of one upload, or of all intake."""

    def __init__(self, first: threading.Event, second: threading.Event) -> None:
        super().__init__()
        self._events = (first, second)

    def is_set(self) -> bool:
        return any(event.is_set() for event in self._events)

    def wait(self, timeout: float | None = None) -> bool:
        return self._events[1].wait(timeout)


def _settings(inbox: Inbox, config: Config) -> IntakeSettings:
    poll = inbox.watch == "poll"
    return IntakeSettings(
        settle_seconds=inbox.settle_seconds,
        quiet_seconds=inbox.quiet_seconds,
        scan_interval_seconds=config.scan_interval_seconds,
        include=inbox.include,
        exclude=inbox.exclude,
        full_look_before_quiet=poll,
        trust_ctime=not poll,
    )
