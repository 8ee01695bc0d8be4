"""One configuration at work: the threads that run its parts, their signs of life, and what they answer; start, stop."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from dicomwatchd import doctor
from dicomwatchd.answering import Answering
from dicomwatchd.archive.stores.uplink import Uplink
from dicomwatchd.config.whole import Config
from dicomwatchd.control.limited import limited
from dicomwatchd.control.server import Command, ControlServer
from dicomwatchd.daemon.bandwidth import BandwidthReporter
from dicomwatchd.daemon.commands import commands
from dicomwatchd.daemon.composition import Parts, Surroundings
from dicomwatchd.daemon.figures import FiguresPort
from dicomwatchd.daemon.live import LiveView
from dicomwatchd.daemon.plan import plan_of
from dicomwatchd.daemon.status import StatusReporter
from dicomwatchd.errors import ConfigError, Fatal, InboxNotResponding, Stopping
from dicomwatchd.findings import Finding
from dicomwatchd.intake.inbox import InboxIntake
from dicomwatchd.intake.watch import Watcher
from dicomwatchd.pipeline.pace import Pace
from dicomwatchd.pipeline.pool import Pool
from dicomwatchd.pipeline.shipment import Archive, Shipment
from dicomwatchd.ports import Clock
from dicomwatchd.prometheus.counts import Counts
from dicomwatchd.queue import Queue
from dicomwatchd.queue.rows import Transition
from dicomwatchd.sites.report import plain_name
from dicomwatchd.sites.rounds import Own, SiteRounds
from dicomwatchd.telemetry.health import Heartbeats
from dicomwatchd.telemetry.journal import Journal
from dicomwatchd.unit import addresses
from dicomwatchd.unit.receivers import names_by_inbox
from dicomwatchd.uploads.folders import UploadFolders

#: A worker that has neither finished an item nor come round in a long one for this time is stuck.
WORKER_SILENCE_SECONDS = 900.0
LOOP_SILENCE_SECONDS = 300.0
#: How long an inbox is waited for when the daemon stops.
STOP_ANSWER_SECONDS = 5.0
#: The threads that nobody waits for longer when the daemon stops: what they do is worth nothing half done.
DRILL, SITES, SERIES = "drill", "sites", "series"
_DROPPED = frozenset({DRILL, SITES, SERIES})


class StopSignal:
    """Asked in the middle of long work whether to stop; whoever asks shows a sign of life. ``starting`` is called while
    the start goes on."""

    def __init__(self, starting: Callable[[], None] = lambda: None) -> None:
        self.starting = starting
        self.heartbeats = Heartbeats()
        self.stopping = threading.Event()

    def __call__(self) -> bool:
        self.beat()
        return self.stopping.is_set()

    def beat(self) -> None:
        """A sign of life of the thread that calls it."""
        self.heartbeats.beat(threading.current_thread().name)


class Supervisor:
    """Given a configuration and an archive that was opened for it; `start`, then `tick` every second, then `stop`."""

    def __init__(
        self,
        config: Config,
        archive: Archive,
        stop_signal: StopSignal,
        journal: Journal,
        clock: Clock,
        random: Random,
        upload_folders: UploadFolders | None = None,
        started_at: float | None = None,
        probed: Callable[[], None] = lambda: None,
        uplink: Uplink | None = None,
        counts: Counts | None = None,
    ) -> None:
        """``started_at``: see `StatusReporter`; ``probed``: see `Surroundings`; ``counts`` goes on over reloads. Raises
        Fatal, Transient, ArchiveRefused; the archive is then still the caller's to close."""
        self._config, self._archive, self._journal = config, archive, journal
        self._reporter = StatusReporter(config, archive, journal, clock, started_at)
        self._bandwidth = BandwidthReporter(uplink or Uplink(clock), journal)
        self._counts, self._clock = counts or Counts(), clock
        self.fatal: Fatal | None = None
        #: Another configuration was to take this one's place, and cannot be used.
        self.is_reload_refused = False
        self.heartbeats = stop_signal.heartbeats
        self._stopping = stop_signal.stopping
        self._intake_stopping = threading.Event()
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self._watching: list[threading.Thread] = []
        self._closed = False
        self._stop_by = 0.0
        self._plan = plan_of(config)
        self._answering = Answering(clock, journal, self._plan.answer_seconds, lambda: self._parts.dispatcher.wake())
        self.heartbeats.excused = self._answering.inside
        self._control: ControlServer | None = None
        self._figures: FiguresPort | None = None
        self._sites: SiteRounds | None = None
        self._random = random
        self._pool = Pool(
            Pace(config.workers, clock),
            began=lambda name: self.heartbeats.register(name, WORKER_SILENCE_SECONDS),
            beat=self.heartbeats.beat,
            ended=self._answering.returned,
        )
        around = Surroundings(
            clock=clock,
            random=random,
            log=journal,
            workers=self._pool,
            on_fatal=self._on_fatal,
            attend=self._attend,
            announce=self._changed,
            on_shipped=self._shipped,
            on_sent=self._counts.sent,
            probed=probed,
            starting=stop_signal.starting,
            heartbeat=stop_signal.beat,
            cancelled=stop_signal,
            inboxes=self._answering,
            upload_folders=upload_folders or UploadFolders(),
        )
        self._parts = Parts(self._plan, archive, around)

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self, *, watch: bool) -> None:
        """Begin. ``watch`` False: no events, only looks; for a run that ends when all is done. What lies in the inboxes
        is read already while the store is probed."""
        parts = self._parts
        parts.prepare(waits_for_listed=watch)  # a run that ends when all is done does not wait for what may never come
        for intake in list(parts.sources.intakes.values()):
            self._thread(f"intake-{intake.source.source_id}", intake.run, self._intake_stopping)
        for intake in parts.sources.watched_intakes() if watch else ():
            self._watch(intake)
        parts.go()
        answers = self._answers()
        self._control = self._control_server(answers)  # not before: whoever finds the socket is to have an answer
        if watch:  # a run that ends when all is done is over before anybody fetches its figures
            self._figures = self._figures_port(answers)
        self._thread("dispatcher", parts.dispatcher.run, self._stopping)
        self._thread("checkpoints", parts.checkpoints.run, self._stopping, WORKER_SILENCE_SECONDS)
        self._thread("expiring", parts.expiring.run, self._stopping, WORKER_SILENCE_SECONDS)
        self._thread("upkeep", parts.upkeep.run, self._stopping, WORKER_SILENCE_SECONDS)
        if any(inbox.room is not None for inbox in self._plan.inboxes):
            self._thread("room", parts.room.run, self._stopping, WORKER_SILENCE_SECONDS)
        if watch:  # a run that ends when all is done makes no drills, and does not live for long
            self._thread(DRILL, parts.drills.run, self._stopping, None)
            self._thread("alarms", parts.alarms.run, self._stopping, WORKER_SILENCE_SECONDS)
            self._sites = self._site_rounds(answers)
        if self._sites is not None:
            self._thread(SITES, self._sites.run, self._stopping, WORKER_SILENCE_SECONDS)
        if parts.series is not None:
            self._thread(SERIES, parts.series.run, self._stopping, None)
        if self._plan.commitments:
            self._thread("commitments", parts.commitments.run, self._stopping, WORKER_SILENCE_SECONDS)
        self._control.start()
        if self._figures is not None:
            self._figures.tick()

    def tick(self) -> None:
        """To be called every second or so: what nobody else looks after."""
        self._bandwidth.tick()
        self._pool.tick()
        self._parts.tick()
        if self._figures is not None:
            self._figures.tick()
        self._tick_inboxes()
        intakes = self._parts.sources.intakes.values()
        self._reporter.check_disks({intake.source.name: intake.disk for intake in intakes if intake.disk is not None})

    def _tick_inboxes(self) -> None:
        for name in self._answering.tick():
            error = InboxNotResponding("an inbox does not answer")
            self._pool.give_up(name, error, partial(self._answering.gave_up, name))
            self._archive.memory.write_off(name)

    def stop(self) -> None:
        """Drain: begin nothing new, bring what is under way to a point from which a restart goes on. A second call does
        nothing."""
        if self._stopped:
            return
        self._stopped = True
        self._parts.put_checkpoint()
        self._intake_stopping.set()
        self._stopping.set()
        self._pool.drain()
        self._parts.dispatcher.wake()
        self._parts.uploads.close()
        if self._control is not None:
            self._control.stop()
        if self._figures is not None:
            self._figures.stop()
        for intake in self._parts.sources.every_intake():
            intake.wake()
        self._answering.hurry(STOP_ANSWER_SECONDS)
        self._stop_by = time.monotonic() + STOP_ANSWER_SECONDS
        for thread in self._threads:
            while thread.is_alive() and not self._is_left_behind(thread):
                self._tick_inboxes()
                thread.join(0.1)
        for watching in self._watching:
            watching.join(STOP_ANSWER_SECONDS)
        self._pool.close()
        self._closed = True
        self._parts.close()

    def _is_left_behind(self, thread: threading.Thread) -> bool:
        """It waits for an inbox or a store that does not answer, and nobody waits for it. What it wakes up to, it
        drops."""
        if thread.name in _DROPPED:
            return time.monotonic() >= self._stop_by
        silent = self._answering.not_responding()
        return any(
            thread.name == f"intake-{intake.source.source_id}" and intake.source.source_id in silent
            for intake in self._parts.sources.every_intake()
        )

    @property
    def left_behind(self) -> bool:
        """Whether threads are left that wait for an inbox, or for what a drill or a heartbeat has asked of the archive:
        then the process ends without waiting for them."""
        dropped = [*self._watching, *(thread for thread in self._threads if thread.name in _DROPPED)]
        return bool(self._answering.inside()) or any(thread.is_alive() for thread in dropped)

    @property
    def queue(self) -> Queue:
        return self._parts.queue

    @property
    def at_rest(self) -> bool:
        """Every inbox was looked at whole, and nothing in them is still settling."""
        return self._parts.sources.at_rest

    @property
    def shipping(self) -> bool:
        """Whether a shipment is under way. Costs nothing to ask."""
        return self._parts.dispatcher.busy

    @property
    def saw_everything(self) -> bool:
        """No inbox has a directory that the daemon could not read."""
        return self._parts.sources.saw_everything

    # -- threads ----------------------------------------------------------------------------------------------------

    def _watch(self, intake: InboxIntake) -> None:
        """Watch an inbox, by a thread that nobody waits for: to add a watch is to ask the inbox's file system."""
        watcher = Watcher([intake], self._journal)

        def run() -> None:
            watcher.start()
            while not self._intake_stopping.wait(1.0):
                watcher.tick()
            watcher.stop()

        thread = threading.Thread(target=run, name=f"watch-{intake.source.source_id}", daemon=True)
        self._watching.append(thread)
        thread.start()

    def _attend(self, intake: InboxIntake) -> Callable[[], None]:
        """A thread for the intake of an upload; returns what ends it."""
        ended = threading.Event()
        self._threads = [thread for thread in self._threads if thread.is_alive()]  # not those of uploads that are over
        name = f"intake-{intake.source.source_id}"
        self._thread(name, lambda _, beat: intake.run(_Either(ended, self._intake_stopping), beat), ended)

        def end() -> None:
            ended.set()
            self.heartbeats.unregister(name)

        return end

    def _thread(
        self,
        name: str,
        run: Callable[[threading.Event, Callable[[], None]], None],
        stopping: threading.Event,
        silence_seconds: float | None = LOOP_SILENCE_SECONDS,
    ) -> None:
        """After ``silence_seconds`` without a sign of life the watchdog ends the daemon; None: whatever this thread
        waits for, the others are worth more."""
        if silence_seconds is not None:
            self.heartbeats.register(name, silence_seconds)
        thread = threading.Thread(
            target=self._guarded, args=(run, stopping, partial(self._beat, name)), name=name, daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _beat(self, name: str) -> None:
        """Raises Stopping in a thread that was left behind: the state is closed, and another daemon may have it."""
        if self._closed:
            raise Stopping("the daemon has stopped")
        self.heartbeats.beat(name)

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
        except Stopping:
            return
        except Exception as error:
            self._on_fatal(Fatal("a part of the daemon failed", code="unexpected"))
            raise error

    def _on_fatal(self, error: Fatal) -> None:
        self.fatal = self.fatal or error
        self._pool.drain()  # the other shipments send nothing more either

    # -- what it tells ----------------------------------------------------------------------------------------------

    def _answers(self) -> dict[str, Command]:
        parts = self._parts
        answers = commands(
            parts.queue,
            self._status,
            self._examine,
            parts.uploads,
            parts.dispatcher.wake,
            parts.prover,
            names_by_inbox(self._config),
            parts.drills,
        )
        status = partial(answers["status"], {}, lambda _progress: None)
        return answers | {"top": LiveView(status, parts.queue.moving, self._counts, self._clock).command}

    def _control_server(self, answers: dict[str, Command]) -> ControlServer:
        try:
            return ControlServer(self._config.socket_path, limited(answers), self._journal)
        except OSError as error:
            why = f"cannot be created there ({os.strerror(error.errno or 0)})"
            raise ConfigError([("control_socket", why)]) from error

    def _figures_port(self, answers: dict[str, Command]) -> FiguresPort:
        """The very status that `dicomwatchctl` prints, for Prometheus."""
        status = partial(answers["status"], {}, lambda _progress: None)
        return FiguresPort(self._config, status, self._counts, self._clock, self._journal)

    def _site_rounds(self, answers: dict[str, Command]) -> SiteRounds | None:
        if (table := self._archive.sites) is None:
            return None
        host = plain_name(socket.gethostname())
        parts, config = self._parts, self._config
        return SiteRounds(
            table,
            Own(
                parts.queue.audit.head().chain_id,
                f"{self._random.getrandbits(64):016x}",
                config.site.name or host,
                host,
            ),
            config.sites,
            self._clock,
            self._random,
            self._journal,
            status=partial(answers["status"], {}, lambda _progress: None),
            archived=parts.queue.archived.totals,
            reachable=self._archive.catalogue.identity,
        )

    def _changed(self, transition: Transition) -> None:
        self._counts.changed(transition)
        self._reporter.changed(transition)

    def _shipped(self, shipment: Shipment) -> None:
        self._counts.shipped(shipment)
        self._reporter.shipped(shipment, self._parts.queue.audit)

    def _status(self, inboxes: list[dict[str, Any]]) -> dict[str, Any]:
        parts = self._parts
        sites = self._sites
        own = {
            "bandwidth": self._bandwidth.document(),
            "deleting_early": parts.early.at_work,
            "alarms": parts.alarms.document(),
            "sites": None if sites is None else sites.document(),
        }
        unserved = self._figures.problem if self._figures is not None else None
        said = own | self._reporter.status(
            inboxes,
            intakes=parts.sources.intakes.values(),
            pool=self._pool,
            dispatcher=parts.dispatcher,
            record=[parts.checkpoints.problem, parts.sealing.problem],
            full_disks=parts.early.problems,
            sites=() if sites is None else sites.problems(),
            queue=parts.queue,
            silent=self._not_responding(),
            commitments_open=parts.commitments.open,
            is_reload_refused=self.is_reload_refused,
        )
        return said | {"problems": [*said["problems"], *parts.alarms.problems, *([unserved] if unserved else [])]}

    def _not_responding(self) -> dict[str, float]:
        """By an inbox's name, for how many seconds it has not answered."""
        return {
            self._answering.name(source_id): seconds for source_id, seconds in self._answering.not_responding().items()
        }

    def _examine(self) -> list[Finding]:
        return [
            *doctor.examine(
                self._config,
                self._archive.store,
                self._archive.catalogue,
                self._not_responding(),
                allowed=os.environ.get(addresses.VARIABLE),
            ),
            *doctor.exchanged(self._parts.queue.roots.pins()),
            doctor.audit_chain(self._parts.prover),
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
