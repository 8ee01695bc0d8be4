"""The whole of the file: every section, and the keys that stand by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from dicomwatchd.config.alarms import Alarms, OnAlarm
from dicomwatchd.config.archive import Archive
from dicomwatchd.config.bandwidth import Limits
from dicomwatchd.config.basics import SHARE, AbsolutePath, Charset, Model, Number, WholeNumber
from dicomwatchd.config.destinations import Destination
from dicomwatchd.config.drill import RestoreDrill
from dicomwatchd.config.inboxes import LONGEST_WAIT_SECONDS, MAX_FILE_BYTES, Inbox
from dicomwatchd.config.metrics import Metrics
from dicomwatchd.config.receivers import Receiver
from dicomwatchd.config.series import SeriesObjects
from dicomwatchd.config.sites import Site, Sites
from dicomwatchd.config.text import SOCKET_NAME, STATE_DIRECTORY
from dicomwatchd.config.web import Web


class Config(Model):
    """The whole file. A configuration for `fetch` alone needs only ``archive``."""

    archive: Archive
    state_directory: AbsolutePath = STATE_DIRECTORY
    control_socket: AbsolutePath | None = Field(None, description="Default: control.sock in the state directory")
    workers: WholeNumber = Field(
        256,
        ge=1,
        le=256,
        description="Maximum number of threads that send, verify and delete files; fewer are used if more do not help",
    )
    scan_interval_seconds: Number = Field(60, gt=0, description="Time between two full scans of each inbox")
    inbox_answer_seconds: Number = Field(
        30, gt=0, description="An inbox whose file system has not answered for this long is skipped until it answers"
    )
    max_file_bytes: WholeNumber = Field(
        MAX_FILE_BYTES, ge=1 << 20, description="Larger files are held in quarantine until this is raised"
    )
    sparse_files: Literal["hold", "take"] = Field(
        "hold",
        description="What to do with a sparse file that is almost entirely holes: it uses no disk space, but would"
        " in the archive",
    )
    charset_when_missing: Charset | None = Field(
        None,
        description="Character set of text in files that declare none, or one that does not fit; default: UTF-8 where"
        " the bytes are that, and Latin-1 otherwise",
        examples=["ISO_IR 144", "cp1251"],
    )
    max_wait_seconds: Number = Field(
        1800,
        ge=0,
        le=LONGEST_WAIT_SECONDS,
        description="How long a quiet study waits for images that a DICOMDIR lists and that are neither here nor"
        " archived; then it is archived without them. 0: not at all",
    )
    bandwidth: Limits | None = Field(
        None,
        description="How fast the daemon may send to the archive, by weekday and local time; default: unlimited",
        examples=[{"default": "50MB/s", "Mon-Fri 08:00-18:00": "10MB/s"}],
    )
    disk_free_warn: str = Field("10%", pattern=SHARE, description="Warn when less than this share of a disk is free")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    restore_drill: RestoreDrill = RestoreDrill()
    series_objects: SeriesObjects | None = Field(
        None,
        description="Whether the daemon writes what viewers read of each series (archive index does it later); default:"
        " as-sent if there is a web section, otherwise off",
        examples=["as-sent"],
    )
    site: Site = Site()
    sites: Sites = Sites()
    alarms: Alarms = Alarms()
    on_alarm: OnAlarm | None = Field(
        None,
        description="A program and its arguments, run without a shell when an alarm begins or ends; default: none",
        examples=[["/etc/dicomwatchd/on-alarm", "radiology"]],
    )
    inboxes: tuple[Inbox, ...] = ()
    receivers: tuple[Receiver, ...] = ()
    destinations: tuple[Destination, ...] = ()
    metrics: Metrics | None = Field(None, description="Default: no figures for Prometheus")
    web: Web | None = Field(None, description="Default: dicomwatchd-web does not start")

    @property
    def disk_free_warn_share(self) -> float:
        return int(self.disk_free_warn[:-1]) / 100

    @property
    def series_objects_written(self) -> SeriesObjects:
        return self.series_objects or ("off" if self.web is None else "as-sent")

    @property
    def socket_path(self) -> Path:
        return self.control_socket or self.state_directory / SOCKET_NAME
