"""The receiver's process: command line, signals, readiness, reload, end. Builds and connects all its parts."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import ssl
import sys
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from dicomwatchd import __version__
from dicomwatchd.commitments import CommitmentFolder
from dicomwatchd.config.destinations import Destination, DestinationTls
from dicomwatchd.config.loading import DEFAULT_PATH, load
from dicomwatchd.config.receivers import Commitment, Receiver
from dicomwatchd.config.whole import Config
from dicomwatchd.dicom_tls import client_context
from dicomwatchd.errors import ConfigError, DicomwatchdError, Misconfigured
from dicomwatchd.ports import Clock, SystemClock
from dicomwatchd.receiver import tls
from dicomwatchd.receiver.commitment import Taking
from dicomwatchd.receiver.folder import InboxFolder, Limits
from dicomwatchd.receiver.listener import Listener, Stopping
from dicomwatchd.receiver.reporting import Reporting
from dicomwatchd.telemetry.fields import error_fields
from dicomwatchd.telemetry.foreign import redirect_foreign_logging
from dicomwatchd.telemetry.health import Heartbeats, ServiceManager
from dicomwatchd.telemetry.journal import Journal, open_journal

DONE, FAILED, USAGE = 0, 1, 2
#: How long objects that are under way at the end may take.
DRAIN_SECONDS = 30.0
_LOOK_SECONDS = 1.0

EXITS = """exit status:
  0  normal end, after SIGTERM
  1  it could not start or go on: a port, a folder or a certificate
  2  bad usage or configuration, or no receivers in it"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="dicomwatchd-receive",
        description="Receives DICOM objects over the network (C-STORE) into inboxes of dicomwatchd.",
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help=f"default: {DEFAULT_PATH}")
    parser.add_argument("--version", action="version", version=f"dicomwatchd-receive {__version__}")
    options = parser.parse_args(arguments)
    try:
        config = load(options.config)
        if not config.receivers:
            raise ConfigError([("receivers", "names no receiver")], source=str(options.config))
    except ConfigError as error:
        sys.stderr.write(error.lines("dicomwatchd-receive", options.config))
        return USAGE
    journal = open_journal(sys.stderr, level=config.log_level, never=_never_logged(config))
    redirect_foreign_logging(journal, config.log_level)
    # What libraries say here is made of what peers have sent, UIDs and names, and of nothing else.
    for library in ("pydicom", "pynetdicom"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    warnings.simplefilter("ignore", UserWarning)
    return Process(options.config, config, journal, SystemClock()).run()


@dataclass(frozen=True, slots=True)
class _Prepared:
    """One receiver, but for its port."""

    settings: Receiver
    folder: InboxFolder
    context: ssl.SSLContext | None
    commitments: Taking | None
    reporting: tuple[Reporting, ...]


class Process:
    def __init__(self, path: Path, config: Config, journal: Journal, clock: Clock) -> None:
        self._path, self._config, self._journal, self._clock = path, config, journal, clock
        self._service = ServiceManager.from_environment()
        self._stopping = Stopping()
        self._listeners: list[Listener] = []
        self._using: list[_Prepared] = []
        #: Ends the reporting of what is in use.
        self._reported = threading.Event()
        self._reporters: list[threading.Thread] = []
        self._reload = threading.Event()
        self._tick = threading.Event()

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        os.umask(0o007)
        try:
            self._listen(self._prepared(self._config))
        except DicomwatchdError as error:
            self._refuse(error)
            return FAILED
        self._service.ready()
        self._journal.info(
            "receiver-started",
            "the receiver listens",
            version=__version__,
            receivers_count=len(self._listeners),
        )
        heartbeats = Heartbeats(self._clock)  # none is registered: the main thread's own ping is the sign
        while not self._stopping.event.is_set():
            if not self.is_whole:
                return FAILED  # the crash of a thread is in the log; systemd starts all anew
            self._service.ping(heartbeats)
            if self._reload.is_set():
                self._reloaded()
            self._tick.wait(min(_LOOK_SECONDS, self._service.ping_interval_seconds or _LOOK_SECONDS))
            self._tick.clear()
        return self._ended()

    @property
    def is_whole(self) -> bool:
        """Whether all listen, and all modalities are reported to."""
        threads = all(thread.is_alive() for thread in self._reporters)
        return threads and all(listener.is_alive for listener in self._listeners)

    def _ended(self) -> int:
        self._service.stopping()
        self._reported.set()
        for listener in self._listeners:
            listener.close()
        clean = self._stopping.wait(DRAIN_SECONDS, self._clock)
        self._journal.info("receiver-stopped", "the receiver stops", clean=clean)
        return DONE

    def _prepared(self, config: Config) -> list[_Prepared]:
        """All that receivers need but their ports. Raises DicomwatchdError."""
        inboxes = {inbox.name: inbox.path for inbox in config.inboxes}
        return [
            _Prepared(
                settings,
                InboxFolder(inboxes[settings.inbox], Limits(settings.disk_free_min_share, config.max_file_bytes)),
                None if settings.tls is None else tls.server_context(settings.tls),
                *self._commitments(settings, settings.commitment, config.destinations),
            )
            for settings in config.receivers
        ]

    def _commitments(
        self, settings: Receiver, commitment: Commitment | None, destinations: tuple[Destination, ...]
    ) -> tuple[Taking | None, tuple[Reporting, ...]]:
        """Raises DicomwatchdError."""
        if commitment is None:
            return None, ()
        folder = CommitmentFolder(commitment.folder)
        folder.require_writable()
        by_name = {one.name: one for one in destinations}
        modalities = [by_name[name] for name in commitment.report_to]
        taking = Taking(
            settings.name, {one.ae_title: one.name for one in modalities}, folder, self._clock, self._journal
        )
        return taking, tuple(
            Reporting(settings, one, _client_context(one.tls), folder, self._clock, self._journal) for one in modalities
        )

    def _listen(self, prepared: list[_Prepared]) -> None:
        """Raises Misconfigured, and then none listens."""
        begun: list[Listener] = []
        try:
            for one in prepared:
                begun.append(
                    Listener(
                        one.settings,
                        one.folder,
                        one.context,
                        one.commitments,
                        self._stopping,
                        self._journal,
                        self._clock,
                    )
                )
        except Misconfigured:
            for listener in begun:
                listener.close()
            raise
        for listener in begun:
            listener.start()
        self._listeners, self._using = begun, prepared
        self._reported.set()
        self._reported = threading.Event()
        self._reporters = [
            threading.Thread(target=reporting.run, args=(self._reported,), name="reporting", daemon=True)
            for one in prepared
            for reporting in one.reporting
        ]
        for thread in self._reporters:
            thread.start()

    def _reloaded(self) -> None:
        """SIGHUP: the new configuration if it is good, the old one otherwise. Associations go on under what they were
        begun with."""
        self._reload.clear()
        self._service.reloading()
        try:
            config = load(self._path)
            if not config.receivers:
                raise ConfigError([("receivers", "names no receiver")], source=str(self._path))
            prepared = self._prepared(config)
        except DicomwatchdError as error:
            self._say_refused(error)
        else:
            self._exchange(config, prepared)
        self._service.ready()

    def _exchange(self, config: Config, prepared: list[_Prepared]) -> None:
        for listener in self._listeners:
            listener.close()  # a port is not to be had twice
        try:
            self._listen(prepared)
        except Misconfigured as error:
            self._say_refused(error)
            try:
                self._listen(self._using)
            except Misconfigured as gone:  # somebody has taken the port: the process ends, and is started anew
                self._refuse(gone)
            return
        self._journal.set_never(_never_logged(config))
        self._journal.level = config.log_level
        self._journal.info(
            "receiver-reloaded", "the receiver uses its new configuration", receivers_count=len(self._listeners)
        )

    def _say_refused(self, error: DicomwatchdError) -> None:
        self._journal.error(
            "receiver-reload-refused",
            "the receiver's new configuration is invalid; the old one stays in use",
            **error_fields(error),
        )

    def _refuse(self, error: DicomwatchdError) -> None:
        self._journal.error("receiver-refused", "the receiver cannot start", **error_fields(error))
        if sys.stderr.isatty():
            where = f": {error.path}" if isinstance(error, Misconfigured) and error.path else ""
            sys.stderr.write(f"dicomwatchd-receive: {error}{where}\n")

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        (self._reload if number == signal.SIGHUP else self._stopping.event).set()
        self._tick.set()


def _client_context(settings: DestinationTls | None) -> ssl.SSLContext | None:
    """Raises Misconfigured."""
    if settings is None:
        return None
    return client_context(settings.ca_file, settings.certificate_file, settings.key_file)


def _never_logged(config: Config) -> list[str]:
    """The last net under the allow list, as in the daemon."""
    commitments = [one.commitment.folder for one in config.receivers if one.commitment is not None]
    return [*(str(inbox.path) for inbox in config.inboxes), *map(str, commitments)]


if __name__ == "__main__":
    sys.exit(main())
