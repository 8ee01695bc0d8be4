"""The daemon's process: command line, signals, readiness, reload, drain, exit status."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import resource
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import FrameType

from dicomwatchd import __version__
from dicomwatchd.archive.stores.budget import keep_no_large_blocks
from dicomwatchd.archive.stores.uplink import Uplink
from dicomwatchd.config.bandwidth import schedule_of
from dicomwatchd.config.loading import DEFAULT_PATH, load
from dicomwatchd.config.whole import Config
from dicomwatchd.daemon.opening import Probing, open_archive, reach_archive
from dicomwatchd.daemon.supervisor import StopSignal, Supervisor
from dicomwatchd.errors import (
    ArchiveRefused,
    ConfigError,
    DicomwatchdError,
    Fatal,
    Misconfigured,
    NotInitialised,
    StateFailed,
    StateUnavailable,
)
from dicomwatchd.pipeline.shipment import Archive
from dicomwatchd.ports import Clock, SystemClock
from dicomwatchd.prometheus.counts import Counts
from dicomwatchd.telemetry.descriptors import DescriptorStore, left_before
from dicomwatchd.telemetry.fields import error_fields
from dicomwatchd.telemetry.foreign import redirect_foreign_logging
from dicomwatchd.telemetry.health import ServiceManager
from dicomwatchd.telemetry.journal import Journal, open_journal
from dicomwatchd.unit.receivers import names_by_inbox
from dicomwatchd.uploads.folders import UploadFolders

#: With --once: how often to look whether all is done, which costs little, and to see to everything else.
CHECK_SECONDS = 0.05
PULSE_SECONDS = 0.5
#: 256 workers with a batch of files each, and connections, and to spare.
MOST_OPEN_FILES = 65536

DONE, NOT_DONE, USAGE, ARCHIVE, STATE = 0, 1, 2, 3, 4

EXITS = """exit status:
  0  normal end: finished its work after SIGTERM;
     with --once, everything is archived
  1  with --once: something is parked, in quarantine, or still waiting;
     otherwise: the daemon failed
  2  bad usage or configuration
  3  the archive is not initialised, refuses access or cannot be reached
  4  the state database cannot be used"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="dicomwatchd",
        description="Archives DICOM studies from watched folders, and deletes the originals\n"
        "only after proof that they are archived.",
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help=f"default: {DEFAULT_PATH}")
    parser.add_argument("--once", action="store_true", help="archive what is in the inboxes now, then exit")
    parser.add_argument(
        "--give-up-after",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="with --once: exit 1 after this long without progress (default: 300)",
    )
    parser.add_argument("--version", action="version", version=f"dicomwatchd {__version__}")
    options = parser.parse_args(arguments)
    # The work makes hardly any cycles, and thousands of files at once are no reason to look for them again and again.
    gc.set_threshold(20_000, 10, 10)
    atexit.register(gc.freeze)  # at the end the collector would go through everything once more
    try:
        config = load(options.config, folders=True)
    except ConfigError as error:
        sys.stderr.write(error.lines("dicomwatchd", options.config))
        return USAGE
    journal = open_journal(sys.stderr, level=config.log_level, never=_never_logged(config))
    journal.receivers = names_by_inbox(config)
    redirect_foreign_logging(journal, config.log_level)
    keep_no_large_blocks()
    _allow_many_files()
    process = Process(options, config, journal, SystemClock())
    status = process.run()
    if process.left_behind:  # threads that wait for an inbox, perhaps for ever; the state is closed
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


class Process:
    def __init__(self, options: argparse.Namespace, config: Config, journal: Journal, clock: Clock) -> None:
        self._options, self._config, self._journal, self._clock = options, config, journal, clock
        self._started_at = clock.now()
        self._uplink = Uplink(clock)
        self._counts = Counts()
        self._service = ServiceManager.from_environment()
        self._folders = UploadFolders(DescriptorStore.from_environment(), left_before())
        self._stop = threading.Event()
        self._reload = threading.Event()
        self._tick = threading.Event()
        self.left_behind = False

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        os.umask(0o077)
        try:
            running = self._begin(self._config)
        except DicomwatchdError as error:
            return self._refuse(error)
        gc.freeze()  # what is there now stays as long as the daemon: the collector need not go through it
        self._service.ready()
        self._journal.info("started", "the daemon has started", version=__version__, once=self._options.once)
        try:
            while True:
                outcome = self._once(running) if self._options.once else self._serve(running)
                if outcome is not None:
                    return outcome
                running = self._reloaded(running)
        except DicomwatchdError as error:
            return self._refuse(error)
        finally:
            self._service.stopping()
            self._service.status("draining")
            self._end(running)
            self._journal.info("stopped", "the daemon has finished its work and stops")

    # -- one configuration after the other --------------------------------------------------------------------------

    def _begin(self, config: Config) -> Supervisor:
        self._uplink.follow(schedule_of(config.bandwidth))
        stop_signal = StopSignal(self._service.extend)
        archive = reach_archive(config, stop_signal, self._uplink)
        return self._start(config, archive, stop_signal, Probing(archive))

    def _start(
        self, config: Config, archive: Archive, stop_signal: StopSignal, probing: Probing | None = None
    ) -> Supervisor:
        try:
            random = Random()  # noqa: S311  jitter, no secret
            running = Supervisor(
                config,
                archive,
                stop_signal,
                self._journal,
                self._clock,
                random,
                self._folders,
                self._started_at,
                probing.wait if probing is not None else lambda: None,
                self._uplink,
                self._counts,
            )
        except BaseException:  # whatever ends it: the archive was handed over to nobody
            self.left_behind = self.left_behind or bool(stop_signal.heartbeats.excused())
            if probing is not None:
                probing.end()
            archive.store.close()
            archive.catalogue.close()
            raise
        try:
            running.start(watch=not self._options.once)
        except BaseException:  # whatever ends it: its threads are running
            if probing is not None:
                probing.end()
            self._end(running)
            raise
        return running

    def _reloaded(self, running: Supervisor) -> Supervisor:
        """SIGHUP: the new configuration if it is good, the old one otherwise, however late it shows."""
        self._reload.clear()
        self._service.reloading()
        old = self._config
        try:
            config = load(self._options.config, folders=True)
            if _differs_in_bandwidth_alone(config, old):
                self._use(config)
                running.is_reload_refused = False
                self._journal.info("reloaded", "the new configuration is now used", inboxes=len(config.inboxes))
                self._service.ready()
                return running
            stop_signal = StopSignal(self._service.extend)
            archive = open_archive(config, stop_signal, self._uplink)
        except DicomwatchdError as error:
            self._say_refused(error)
            running.is_reload_refused = True
        else:
            self._end(running)
            try:
                self._use(config)
                running = self._start(config, archive, stop_signal)
                gc.unfreeze()  # what served the old configuration may go
            except DicomwatchdError as error:
                self._say_refused(error)
                self._use(old)
                running = self._begin(old)
                running.is_reload_refused = True
            else:
                self._journal.info("reloaded", "the new configuration is now used", inboxes=len(config.inboxes))
        self._service.ready()
        return running

    def _end(self, running: Supervisor) -> None:
        running.stop()
        self.left_behind = self.left_behind or running.left_behind

    def _use(self, config: Config) -> None:
        self._config = config
        self._uplink.follow(schedule_of(config.bandwidth))
        self._journal.set_never(_never_logged(config))
        self._journal.receivers = names_by_inbox(config)
        self._journal.level = config.log_level

    def _say_refused(self, error: DicomwatchdError) -> None:
        self._journal.error(
            "reload-refused", "the new configuration is invalid; the old one stays in use", **error_fields(error)
        )

    # -- being there ------------------------------------------------------------------------------------------------

    def _serve(self, running: Supervisor) -> int | None:
        """Until a signal: the exit status, or None for a reload."""
        while True:
            self._show_life(running)
            if self._stop.is_set():
                return DONE
            if self._reload.is_set():
                return None
            if running.fatal is not None:
                return self._failed(running.fatal)
            self._wait(self._service.ping_interval_seconds or 1.0)

    def _once(self, running: Supervisor) -> int | None:
        last, since = -1, self._clock.monotonic()
        next_pulse = since
        while True:
            if self._clock.monotonic() >= next_pulse:
                self._show_life(running)
                next_pulse = self._clock.monotonic() + PULSE_SECONDS
                if (progress := running.queue.reports.progress()) != last:
                    last, since = progress, self._clock.monotonic()
            if self._stop.is_set():
                return DONE
            if running.fatal is not None:
                return self._failed(running.fatal)
            if not running.shipping and running.at_rest:
                open_ends = running.queue.reports.unfinished()
                if not open_ends["moving"]:
                    done = not open_ends["parked"] and not open_ends["quarantined"] and running.saw_everything
                    return DONE if done else NOT_DONE
            if self._clock.monotonic() - since > self._options.give_up_after:
                waiting = running.queue.reports.unfinished()["moving"]
                self._journal.error("gave-up", "no progress for too long", waiting=waiting)
                return NOT_DONE
            self._wait(CHECK_SECONDS)

    def _show_life(self, running: Supervisor) -> None:
        running.tick()
        stale = self._service.ping(running.heartbeats)
        if stale:
            self._journal.error("stuck", "a thread has stopped responding", thread=stale[0])
        counts = running.queue.reports.unfinished()
        self._service.status(
            "{waiting} studies in progress, {parked} parked, {quarantined} files in quarantine",
            waiting=counts["moving"],
            parked=counts["parked"],
            quarantined=counts["quarantined"],
        )

    def _wait(self, seconds: float) -> None:
        self._tick.wait(min(seconds, 1.0))
        self._tick.clear()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        (self._reload if number == signal.SIGHUP else self._stop).set()
        self._tick.set()

    # -- ends -------------------------------------------------------------------------------------------------------

    def _failed(self, error: Fatal) -> int:
        self._journal.error("failed", "the daemon cannot continue", **error_fields(error))
        return ARCHIVE if isinstance(error, ArchiveRefused | NotInitialised) else NOT_DONE

    def _refuse(self, error: DicomwatchdError) -> int:
        self._journal.error("refused", "the daemon cannot start", **error_fields(error))
        if sys.stderr.isatty():
            sys.stderr.write(f"dicomwatchd: {error}\n")
        match error:
            case Misconfigured():
                return USAGE
            case StateFailed() | StateUnavailable():
                return STATE
            case _:
                return ARCHIVE


def _allow_many_files() -> None:
    """Every worker holds a batch of files open until the store was asked for all of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _differs_in_bandwidth_alone(one: Config, other: Config) -> bool:
    """What sends goes on then: the limit is nobody's part, and is changed under it."""
    return one != other and one.model_copy(update={"bandwidth": other.bandwidth}) == other


def _never_logged(config: Config) -> list[str]:
    """The last net under the allow list: no entry may hold the path of an inbox."""
    return [str(inbox.path) for inbox in config.inboxes]


if __name__ == "__main__":
    sys.exit(main())
