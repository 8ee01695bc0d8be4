"""What is to be built, worked out of a configuration, or put together by a test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dicomwatchd import resolved_paths
from dicomwatchd.alarms.conditions import CertificateFile
from dicomwatchd.config.alarms import Alarms
from dicomwatchd.config.archive import DirectorySettings, DynamoDBSettings, S3Settings, SqliteSettings
from dicomwatchd.config.drill import RestoreDrill
from dicomwatchd.config.inboxes import DeleteAfter, Inbox
from dicomwatchd.config.series import SeriesObjects
from dicomwatchd.config.whole import Config
from dicomwatchd.intake.dicom.sizes import SIZES, Sizes
from dicomwatchd.intake.inbox import IntakeSettings
from dicomwatchd.pipeline.deletion.early import Room
from dicomwatchd.pipeline.shipment import AfterArchive

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
    #: How long a quiet study waits for what a DICOMDIR lists.
    max_wait_seconds: float = 0.0
    #: How much of its disk is to be free, if need be by deleting files before their time.
    room: Room | None = None


@dataclass(frozen=True, slots=True)
class CommitmentPlan:
    """A receiver that is asked for storage commitment: of what goes into its inbox, and where the requests wait."""

    receiver: str
    inbox: str
    folder: Path
    wait_seconds: float


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
    #: Of folders that are handed in; each inbox has its own.
    charset_when_missing: str = ""
    commitments: tuple[CommitmentPlan, ...] = ()
    restore_drill: RestoreDrill = field(default_factory=RestoreDrill)
    alarms: Alarms = field(default_factory=Alarms)
    #: Run when an alarm begins or ends.
    on_alarm: tuple[str, ...] | None = None
    #: Whose end is told beforehand.
    certificates: tuple[CertificateFile, ...] = ()
    series_objects: SeriesObjects = "off"
    #: Of its disk a restore drill leaves this share free.
    free_share: float = 0.1

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
        charset_when_missing=config.charset_when_missing or "",
        commitments=tuple(
            CommitmentPlan(one.name, one.inbox, one.commitment.folder, one.commitment.wait_seconds)
            for one in config.receivers
            if one.commitment is not None
        ),
        restore_drill=config.restore_drill,
        alarms=config.alarms,
        on_alarm=config.on_alarm,
        certificates=tuple(_certificates(config)),
        series_objects=config.series_objects_written,
        free_share=max(_shares_to_be_left(config, inboxes)),
    )


def _shares_to_be_left(config: Config, inboxes: tuple[InboxPlan, ...]) -> list[float]:
    """Copies and inboxes may be on one disk, where a copy must not be what files are deleted early for, or objects
    refused."""
    refused = [one.disk_free_min_share for one in config.receivers]
    return [config.disk_free_warn_share, *refused, *(one.room.goal_share for one in inboxes if one.room is not None)]


def _certificates(config: Config) -> Iterator[CertificateFile]:
    for receiver in config.receivers:
        if receiver.tls is not None:
            yield CertificateFile("receiver", receiver.name, receiver.tls.certificate_file, is_shown=True)
            if receiver.tls.client_ca_file is not None:
                yield CertificateFile("receiver", receiver.name, receiver.tls.client_ca_file, is_shown=False)
    for one in config.destinations:
        if one.tls is not None and one.tls.certificate_file is not None:
            yield CertificateFile("destination", one.name, one.tls.certificate_file, is_shown=True)
        if one.tls is not None and one.tls.ca_file is not None:
            yield CertificateFile("destination", one.name, one.tls.ca_file, is_shown=False)
    if config.web is not None and config.web.tls is not None:
        yield CertificateFile("page", "", config.web.tls.certificate_file, is_shown=True)
    if config.web is not None and config.web.oidc is not None and config.web.oidc.ca_file is not None:
        yield CertificateFile("provider", "", config.web.oidc.ca_file, is_shown=False)
    for part in (config.archive.store, config.archive.catalogue):
        if isinstance(part, S3Settings | DynamoDBSettings) and part.ca_file is not None:
            yield CertificateFile("archive", "", part.ca_file, is_shown=False)


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
            whole_scan_before_quiet=poll,
            trust_ctime=not poll,
            charset_when_missing=inbox.charset_when_missing or config.charset_when_missing or "",
        ),
        max_wait_seconds=config.max_wait_seconds if inbox.max_wait_seconds is None else inbox.max_wait_seconds,
        after_archive=_after_archive(inbox),
        sends_early=inbox.send_while_arriving,
        by_events=inbox.watch == "events",
        room=_room(inbox),
    )


def _room(inbox: Inbox) -> Room | None:
    shares = inbox.after_archive.room_shares if isinstance(inbox.after_archive, DeleteAfter) else None
    return None if shares is None else Room(*shares)


def _after_archive(inbox: Inbox) -> AfterArchive:
    needs_lease = inbox.without_lease == "keep"
    if isinstance(inbox.after_archive, DeleteAfter):
        return AfterArchive(delete=False, keep_seconds=inbox.after_archive.seconds, needs_lease=needs_lease)
    return AfterArchive(delete=inbox.after_archive == "delete", needs_lease=needs_lease)
