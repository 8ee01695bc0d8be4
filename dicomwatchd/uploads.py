"""Folders handed in by `dicomwatchctl upload`: each is an inbox for as long as it takes."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomwatchd.errors import Permanent
from dicomwatchd.intake.inbox import InboxIntake, IntakeSettings
from dicomwatchd.localfiles import printable
from dicomwatchd.ports import Log
from dicomwatchd.queue import Queue
from dicomwatchd.queue.rows import Source
from dicomwatchd.queue.uploads import UploadProgress

#: A folder that is handed in is complete already; two whole looks at it that agree are enough.
SETTINGS = IntakeSettings(settle_seconds=1.0, quiet_seconds=0.5, scan_interval_seconds=2.0, full_look_before_quiet=True)
PREFIX = "upload-"


@dataclass(slots=True)
class _Job:
    source: Source
    intake: InboxIntake
    stop: Callable[[], None]
    result: dict[str, Any] | None = None


class UploadDesk:
    """Takes folders in, follows them to their end. ``start_intake`` gives an intake a thread of its own and returns
    it with what ends it; ``forbidden`` are the folders that no upload may overlap, links followed."""

    def __init__(
        self,
        queue: Queue,
        start_intake: Callable[[Source, IntakeSettings], tuple[InboxIntake, Callable[[], None]]],
        forbidden: Iterable[Path],
        log: Log,
    ) -> None:
        self._queue = queue
        self._start_intake = start_intake
        self._forbidden = list(forbidden)
        self._log = log
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}

    def resume(self) -> None:
        """Go on with the folders that an earlier run has not finished."""
        for source in self._queue.arrivals.sources():
            if source.kind == "upload":
                self._begin(source)

    def start(self, path: str, *, delete: bool) -> str:
        """Take a folder in; returns the upload's id. Raises Permanent where it cannot be."""
        folder = Path(path)
        # Not Path.is_dir(), which raises where a folder above may not be entered or a name is too long.
        if not folder.is_absolute() or not os.path.isdir(folder):  # noqa: PTH112
            raise Permanent(
                "the daemon sees no such folder",
                code="no-folder",
                hint="it has to be readable by the daemon's user, and not below a home directory or /tmp",
                path=path,
            )
        if not os.access(folder, os.R_OK | os.X_OK):
            raise Permanent(
                "the daemon may not read the folder",
                code="unreadable",
                hint="give the daemon's user read access",
                path=path,
            )
        real = Path(os.path.realpath(folder))
        for other in self._forbidden:
            if real == other or real.is_relative_to(other) or other.is_relative_to(real):
                raise Permanent(
                    "the folder overlaps an inbox, the archive or the daemon's state", code="overlap", path=path
                )
        name = PREFIX + secrets.token_hex(6)
        source = self._queue.arrivals.add_source(name, os.fsencode(real), "upload", delete_local=delete)
        self._log.info("upload-started", "a folder was handed in", inbox=name)
        self._begin(source)
        return name

    def progress(self, name: str) -> dict[str, Any]:
        """How far an upload is, or, once it has ended, its result. Raises Permanent for an unknown one."""
        with self._lock:
            job = self._jobs.get(name)
        if job is None:
            raise Permanent("no such upload", code="no-upload")
        if job.result is not None:
            return job.result
        return self._describe(job, self._queue.uploads.progress(job.source.source_id), done=False)

    def tend(self) -> None:
        """Conclude the uploads that have come to their end."""
        with self._lock:
            running = [job for job in self._jobs.values() if job.result is None]
        for job in running:
            progress = self._queue.uploads.progress(job.source.source_id)
            if job.intake.scans < 2 or not job.intake.at_rest or progress.waiting:
                continue
            job.result = self._describe(job, progress, done=True)
            job.stop()
            self._queue.uploads.conclude(job.source.source_id)
            self._log.info(
                "upload-finished",
                "a folder that was handed in has come to its end",
                inbox=job.source.name,
                files=progress.files,
                verified_files=progress.verified,
                failed_files=len(progress.failed),
                deleted=progress.deleted,
            )

    def sources(self) -> set[int]:
        with self._lock:
            return {job.source.source_id for job in self._jobs.values() if job.result is None}

    def intake_of(self, source_id: int) -> InboxIntake | None:
        with self._lock:
            return next((job.intake for job in self._jobs.values() if job.source.source_id == source_id), None)

    def _begin(self, source: Source) -> None:
        intake, stop = self._start_intake(source, SETTINGS)
        with self._lock:
            self._jobs[source.name] = _Job(source, intake, stop)

    @staticmethod
    def _describe(job: _Job, progress: UploadProgress, *, done: bool) -> dict[str, Any]:
        verified, failed = progress.verified, len(progress.failed)
        return {
            "upload_id": job.source.name,
            "done": done,
            "phase": "looking" if job.intake.scans == 0 else "uploading",
            "files": progress.files,
            "files_total": progress.files,
            "files_done": verified + failed + progress.ignored,
            "bytes_total": progress.size_bytes,
            "bytes_done": progress.verified_size_bytes,
            "verified": verified,
            "ignored": progress.ignored,
            "deleted": progress.deleted,
            "deletable": done and verified > 0 and not failed and verified + progress.ignored == progress.files,
            "failed": [{"name": printable(name), "reason": reason} for name, reason in progress.failed],
        }
