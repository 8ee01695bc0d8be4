"""Folders handed in by `dicomwatchctl upload`: each is an inbox for as long as it takes, and every one ends.

Where a folder stands is in the state, so an upload goes on over restarts and its result is told for thirty days. Here
is what brings it to its end: everything in it archived and looked at twice more, its folder gone, or somebody's word.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dicomwatchd import markers, upload_result
from dicomwatchd.errors import DicomwatchdError, Permanent, Stopping, Transient
from dicomwatchd.intake.inbox import InboxIntake, IntakeSettings
from dicomwatchd.intake.lastlook import VANISHED, Findings, LastLook
from dicomwatchd.intake.mounts import root_of
from dicomwatchd.localfiles import open_root
from dicomwatchd.pipeline.proof import LIFETIME_SECONDS
from dicomwatchd.ports import Clock, Log
from dicomwatchd.queue import Queue
from dicomwatchd.queue.rows import Root, Source
from dicomwatchd.queue.uploads import LISTED, Upload, Uploads
from dicomwatchd.telemetry.fields import error_fields
from dicomwatchd.upload_result import CANCELLED, FINISHED, GONE

#: A folder that is handed in is complete already; two whole looks at it that agree are enough.
SETTINGS = IntakeSettings(settle_seconds=1.0, quiet_seconds=0.5, scan_interval_seconds=2.0, full_look_before_quiet=True)
PREFIX = "upload-"
#: Whole looks of the intake before anything is concluded.
LOOKS = 2
#: From the first last look that found everything in order to the second.
SECOND_LOOK_SECONDS = 1.0
#: How often what a last look finds anew is taken up by the intake before it is only named.
ROUNDS = 5
#: A folder that is not there for so long does not come back: its upload ends.
GONE_SECONDS = 600.0
#: How long the end waits for a file that is being written or held open, and for one that cannot be read.
UNSETTLED_SECONDS, UNREAD_SECONDS = 600.0, 30.0
#: How often results that are old enough are looked for.
PRUNE_SECONDS = 3600.0


@dataclass(slots=True)
class _Job:
    upload: Upload
    intake: InboxIntake | None
    stop: Callable[[], None]
    away_since: float | None = None
    restless: tuple[object, float] | None = None
    look: LastLook | None = None
    in_order_at: float | None = None
    rounds: int = 0
    looks_needed: int = LOOKS
    doubts: int = 0
    ending_since: float | None = None


class UploadDesk:
    """Takes folders in, follows them to their end. ``start_intake`` gives an intake a thread of its own and returns
    it with what ends it; ``ended`` hears of a source that is no more; ``expires`` tells why no local file may be
    deleted now, if so; ``forbidden`` are the folders that no upload may overlap, links followed. `tend` is called again
    and again and waits for nothing: it touches no folder."""

    def __init__(
        self,
        queue: Queue,
        start_intake: Callable[[Source, IntakeSettings], tuple[InboxIntake, Callable[[], None]]],
        forbidden: Iterable[Path],
        log: Log,
        clock: Clock,
        ended: Callable[[Source], None] = lambda _: None,
        expires: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._queue = queue
        self._start_intake = start_intake
        self._forbidden = list(forbidden)
        self._log = log
        self._clock = clock
        self._ended = ended
        self._expires = expires
        self._lock = threading.RLock()
        self._jobs: dict[str, _Job] = {}
        self._next_prune = 0.0
        self._closed = False

    # -- what is asked for ------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Go on with the folders that an earlier run has not finished."""
        for upload in self._queue.uploads.open():
            self._begin(upload)

    def start(self, path: str, *, delete: bool) -> str:
        """Take a folder in; returns the upload's id. A folder that is being taken in already is not taken in twice:
        the answer is the upload that runs. Raises Permanent where it cannot be."""
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
            raise _unreadable(path)
        real = Path(os.path.realpath(folder))
        for other in self._forbidden:
            if real == other or real.is_relative_to(other) or other.is_relative_to(real):
                raise Permanent(
                    "the folder overlaps an inbox, the archive or the daemon's state", code="overlap", path=path
                )
        try:
            root_fd = open_root(os.fsencode(real))
        except OSError as error:
            raise _unreadable(path) from error
        try:
            root, is_own_tree = root_of(root_fd), markers.sign_in(root_fd) is not None or markers.is_below(root_fd)
        except OSError as error:
            raise _unreadable(path) from error
        finally:
            os.close(root_fd)
        if is_own_tree:
            raise Permanent(
                "the folder is an archive's or a dicomwatchd's own, or lies in one",
                code="own-tree",
                hint="what is in an archive is archived already, and these are its only copies",
                path=path,
            )
        with self._lock:
            if (running := self._running_of(os.fsencode(real), root)) is not None:
                return self._join(running, delete=delete)
            upload = self._queue.uploads.begin(PREFIX + secrets.token_hex(6), os.fsencode(real), root, delete=delete)
            self._log.info("upload-started", "a folder was handed in", inbox=upload.source.name)
            self._begin(upload)
        return upload.source.name

    def cancel(self, name: str) -> dict[str, Any]:
        """End an upload before its time: nothing in its folder is touched from now on, what is archived stays
        archived. Returns how it stands; ``done`` is False while a deletion that was under way is being finished.
        Raises Permanent for an unknown one."""
        with self._lock:
            job = self._jobs.get(name)
            if job is not None:
                self._queue.uploads.cancel(job.upload.source.source_id)
                job.upload = replace(job.upload, stage="cancelling")
                job.stop()
                self._tend(job)
        return self.progress(name)

    def progress(self, name: str) -> dict[str, Any]:
        """How far an upload is, or, once it has ended, its result. Raises Permanent for an unknown one, Stopping
        when nobody here follows it any more."""
        if self._closed:
            raise Stopping(
                "the daemon stops, or takes another configuration",
                hint="the upload goes on with its next start; the same command again tells how it went",
            )
        known = self._queue.uploads.known(name)
        if known is None:
            raise no_such_upload()
        if known.result is not None:
            return known.result
        source_id = known.upload.source.source_id
        with self._lock:
            job = self._jobs.get(name)
        return upload_result.of_running(
            known.upload,
            self._queue.uploads.progress(source_id),
            self._queue.uploads.failed(source_id, LISTED),
            "waiting" if job is None else self._phase(job),
        )

    def close(self) -> None:
        """Whoever waits for an upload is told that it goes on later. Changes nothing."""
        self._closed = True

    def sources(self) -> set[int]:
        """Those that are being looked at."""
        with self._lock:
            return {job.upload.source.source_id for job in self._jobs.values() if job.intake is not None}

    def intake_of(self, source_id: int) -> InboxIntake | None:
        with self._lock:
            return next((j.intake for j in self._jobs.values() if j.upload.source.source_id == source_id), None)

    def deletes(self, source: Source) -> bool:
        """Whether the files of this upload's folder are to be deleted once they are proven."""
        if not source.delete_local:
            return False
        with self._lock:
            job = self._jobs.get(source.name)
        if job is not None:
            return job.upload.stage == "running"
        known = self._queue.uploads.known(source.name)  # at the start, before it was resumed
        return known is not None and known.upload.stage == "running"

    # -- to the end -------------------------------------------------------------------------------------------------

    def tend(self) -> None:
        """Conclude the uploads that have come to their end. To be called every second or so."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            try:
                with self._lock:
                    self._tend(job)
            except Transient as error:
                self._log.warning(
                    "upload-delayed",
                    "the state cannot be used now",
                    inbox=job.upload.source.name,
                    **error_fields(error),
                )
        self._prune()

    def _tend(self, job: _Job) -> None:
        if job.upload.source.name not in self._jobs:
            return  # it has ended since
        if job.upload.stage == "cancelling":
            self._end(job, CANCELLED, None)
        elif self._is_gone(job):
            self._end(job, GONE, None)
        elif self._has_come_to_rest(job):
            self._look(job)
        else:
            job.look = job.in_order_at = None

    def _is_gone(self, job: _Job) -> bool:
        assert job.intake is not None  # noqa: S101  only what is being cancelled has none
        if job.intake.available:
            job.away_since = None
            if job.upload.root is None and job.intake.root is not None:
                self._queue.uploads.stands_for(job.upload.source.source_id, job.intake.root)
                job.upload = replace(job.upload, root=job.intake.root)
            return False
        if job.away_since is None:
            job.away_since = self._clock.monotonic()
        return self._clock.monotonic() - job.away_since >= GONE_SECONDS

    def _has_come_to_rest(self, job: _Job) -> bool:
        """Whether nothing more is to be expected: all that was found has come to its end, and the intake knows of
        nothing that waits, or has waited in vain for long enough."""
        intake = job.intake
        assert intake is not None  # noqa: S101
        progress = self._queue.uploads.progress(job.upload.source.source_id)
        if not intake.available or intake.scans < job.looks_needed or progress.waiting:
            job.restless = None
            return False
        if intake.at_rest:
            return True
        now, so_far = self._clock.monotonic(), (progress.files, progress.deleted)
        if job.restless is None or job.restless[0] != so_far:
            job.restless = (so_far, now)
        patience = UNSETTLED_SECONDS if intake.still_settling else UNREAD_SECONDS
        return now - job.restless[1] >= patience

    def _look(self, job: _Job) -> None:
        """Twice over: only a second last look, some time after the first, that finds all in order too is believed."""
        intake = job.intake
        assert intake is not None  # noqa: S101
        now = self._clock.monotonic()
        if job.look is None:
            if job.in_order_at is None or now - job.in_order_at >= SECOND_LOOK_SECONDS:
                if self._is_asked_again(job):
                    return
                job.look = self._last_look(job, intake)
                intake.ask(job.look)
            return
        if job.look.failed:
            job.look = None  # the state did not answer: once more
            return
        if (findings := job.look.findings) is None:
            return
        job.look = None
        if findings.accounted_for and job.in_order_at is None:
            job.in_order_at = now
        elif findings.news and job.rounds < ROUNDS:
            job.rounds, job.in_order_at = job.rounds + 1, None
            job.looks_needed = intake.scans + 1
            intake.scan_soon()
        else:
            self._end(job, FINISHED, findings)

    def _is_asked_again(self, job: _Job) -> bool:
        """What was archived first may have been archived days ago, and the word that lets a person delete is to be no
        older than what a file is deleted on: then the store is asked once more. A store too slow for that is not asked
        for ever."""
        if job.doubts >= ROUNDS:
            return False
        asked_before = self._clock.now() - LIFETIME_SECONDS
        if not self._queue.uploads.doubt(job.upload.source.source_id, asked_before):
            return False
        job.doubts, job.in_order_at = job.doubts + 1, None
        self._queue.shipments.queue_due()
        return True

    def _last_look(self, job: _Job, intake: InboxIntake) -> LastLook:
        source_id, queue = job.upload.source.source_id, self._queue
        return LastLook(
            job.upload.source.path,
            job.upload.root,
            known=lambda parent: queue.arrivals.known(source_id, parent),
            directories=lambda: queue.arrivals.known_directories(source_id),
            vanished=lambda limit: queue.uploads.vanished(source_id, limit),
            unread=intake.unread,
        )

    def _end(self, job: _Job, outcome: str, findings: Findings | None) -> None:
        source, uploads = job.upload.source, self._queue.uploads
        if not self._deletions_are_over(job):
            return
        progress = uploads.progress(source.source_id)
        failed = uploads.failed(source.source_id, LISTED)
        if outcome == GONE:
            findings = _lost_with_the_folder(uploads, source.source_id)
        result = upload_result.of_ended(
            job.upload, progress, failed, outcome, findings, self._clock.now(), self._expires()
        )
        if not uploads.end(source.source_id, result, unfinished=outcome != FINISHED):
            job.in_order_at = None  # something has come in between
            return
        job.stop()
        del self._jobs[source.name]
        self._ended(source)
        self._log.info(
            "upload-finished",
            "a folder that was handed in has come to its end",
            inbox=source.name,
            reason=outcome,
            files=progress.files,
            verified_files=progress.verified,
            failed_files=result["failed_files"],
            deleted=progress.deleted,
        )

    def _prune(self) -> None:
        if self._clock.monotonic() < self._next_prune:
            return
        self._next_prune = self._clock.monotonic() + PRUNE_SECONDS
        try:
            self._queue.uploads.prune()
        except Transient:
            return  # in an hour, then

    # -- details ----------------------------------------------------------------------------------------------------

    def _begin(self, upload: Upload) -> None:
        intake, stop = None, _nothing
        if upload.stage == "running":
            intake, stop = self._start_intake(upload.source, replace(SETTINGS, only_root=upload.root))
        with self._lock:
            self._jobs[upload.source.name] = _Job(upload, intake, stop)

    def _running_of(self, path: bytes, root: Root) -> Upload | None:
        """The upload of this very folder, under this path or another one. One of another folder that stood under this
        path before has lost it for good."""
        for job in list(self._jobs.values()):
            upload = job.upload
            if upload.stage != "running":
                continue
            same_path = upload.source.path == path
            if upload.root.is_same(root) if upload.root is not None else same_path:
                return upload
            if same_path:
                self._end(job, GONE, None)
        return None

    @staticmethod
    def _join(running: Upload, *, delete: bool) -> str:
        if running.source.delete_local != delete:
            how = "with" if running.source.delete_local else "without"
            raise Permanent(
                f"the folder is being archived already, {how} --delete",
                code="upload-running",
                hint=f"wait for that, or end it: dicomwatchctl upload cancel {running.source.name}",
            )
        return running.source.name

    def _deletions_are_over(self, job: _Job) -> bool:
        """Whether no deletion of a file of it is under way. One that was cut off, in a folder that is away for good, is
        left unknown in the end."""
        if not self._queue.uploads.asides(job.upload.source.source_id):
            return True
        now = self._clock.monotonic()
        job.ending_since = now if job.ending_since is None else job.ending_since
        if now - job.ending_since < GONE_SECONDS:
            return False
        for one in self._queue.deletions.asides():
            if one.source_id == job.upload.source.source_id:
                self._queue.deletions.concluded(one, "gone", "its upload is over, and its folder cannot be looked at")
        return True

    @staticmethod
    def _phase(job: _Job) -> str:
        if job.intake is None or job.upload.stage == "cancelling":
            return "cancelling"
        if not job.intake.available:
            return "waiting for the folder"
        if job.intake.scans == 0:
            return "looking"
        return "uploading" if job.look is None and job.in_order_at is None else "checking"


def _lost_with_the_folder(uploads: Uploads, source_id: int) -> Findings:
    """What had come to no end when the folder went away, and what had vanished from it before."""
    findings = Findings()
    for found, why in (
        (uploads.waiting(source_id, LISTED), lambda _: "the folder vanished before it was archived"),
        (uploads.vanished(source_id, LISTED), VANISHED.__getitem__),
    ):
        count, named = found
        for path, how_far in named:
            findings.name(path, why(how_far))
        findings.odd += count - len(named)
    return findings


def _nothing() -> None:
    pass


def no_such_upload() -> DicomwatchdError:
    return Permanent("no such upload", code="no-upload", hint="dicomwatchctl upload list names those that are known")


def _unreadable(path: str) -> DicomwatchdError:
    return Permanent(
        "the daemon may not read the folder",
        code="unreadable",
        hint="give the daemon's user read access",
        path=path,
    )
