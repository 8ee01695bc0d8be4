"""The desk at which folders are handed in, asked after and cancelled.

Where a folder stands is in the state, so an upload goes on over restarts and its result is told for thirty days.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dicomwatchd import upload_result
from dicomwatchd.errors import DicomwatchdError, Permanent, Stopping, Transient
from dicomwatchd.intake.inbox import InboxIntake, IntakeSettings
from dicomwatchd.ports import Clock, Log
from dicomwatchd.queue import Queue
from dicomwatchd.queue.rows import Root, Source
from dicomwatchd.queue.uploads import LISTED, Upload
from dicomwatchd.rights import Asker
from dicomwatchd.uploads import reception
from dicomwatchd.uploads.folders import UploadFolders
from dicomwatchd.uploads.job import SETTINGS, Following, Job, phase_of

PREFIX = "upload-"
#: How often results that are old enough are looked for.
PRUNE_SECONDS = 3600.0


class UploadJobs:
    """Takes folders in, follows them to their end. ``start_intake`` gives an intake a thread of its own and returns
    it with what ends it; ``ended`` hears of a source that is no more; ``expires`` tells why no local file may be
    deleted now, if so; ``forbidden`` are the folders that no upload may overlap, links followed; ``upload_folders`` has
    the folders open; ``archived`` gives the SOP Instance UIDs that the archive has of some studies. `tick` is called
    again and again and waits for nothing: it touches no folder."""

    def __init__(
        self,
        queue: Queue,
        start_intake: Callable[[Source, IntakeSettings], tuple[InboxIntake, Callable[[], None]]],
        forbidden: Iterable[Path],
        log: Log,
        clock: Clock,
        ended: Callable[[Source], None] = lambda _: None,
        expires: Callable[[], str | None] = lambda: None,
        upload_folders: UploadFolders | None = None,
        archived: Callable[[Collection[str]], Collection[str]] = lambda _: (),
    ) -> None:
        self._queue = queue
        self._start_intake = start_intake
        self._forbidden = list(forbidden)
        self._log = log
        self._clock = clock
        self._source_ended = ended
        self._folders = upload_folders or UploadFolders()
        self._following = Following(queue, log, clock, expires, self._ended, archived)
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        self._next_prune = 0.0
        self._closed = False

    # -- what is asked for ------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Go on with the folders that an earlier run has not finished."""
        uploads = self._queue.uploads.open()
        self._folders.let_go_but({upload.source.name for upload in uploads})
        for upload in uploads:
            if upload.stage == "running" and (upload.asker is None or upload.root is None):
                # An older program has taken it in by its path, for it knew not whom.
                self._queue.uploads.cancel(upload.source.source_id)
                upload = replace(upload, stage="cancelling")
            self._begin(self._folders.attached(upload))

    def start(self, folder_fd: int, asker: Asker, *, delete: bool) -> str:
        """Take a folder in that ``asker`` has opened; returns the upload's id. The descriptor stays the caller's own. A
        folder that is being taken in already is not taken in twice: the answer is the upload that runs. Raises
        Permanent where it cannot be."""
        folder = reception.checked(folder_fd, asker, self._forbidden, delete=delete)
        with self._lock:
            if (running := self._running_of(folder.root)) is not None:
                return _join(running, asker, delete=delete)
            self._require_room(asker)
            name = PREFIX + secrets.token_hex(6)
            self._folders.hold(name, folder_fd)
            try:
                upload = self._queue.uploads.begin(name, folder.path, folder.root, delete=delete, asker=asker)
            except DicomwatchdError:
                self._folders.let_go(name)
                raise
            self._log.info("upload-started", "an upload was started", inbox=name, uid=asker.uid)
            self._begin(self._folders.attached(upload))
        return name

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
                self._following.conclude(job)
        return self.progress(name)

    def progress(self, name: str) -> dict[str, Any]:
        """How far an upload is, or, once it has ended, its result. Raises Permanent for an unknown one, Stopping
        when nobody here follows it any more."""
        if self._closed:
            raise Stopping(
                "the daemon is stopping or reloading its configuration",
                hint="the upload continues at its next start; run the same command again to see the result",
            )
        with self._lock:  # who hears that it has ended may unmount the folder: it is closed by then
            known, job = self._queue.uploads.known(name), self._jobs.get(name)
        if known is None:
            raise no_such_upload()
        if known.result is not None:
            return known.result
        source_id = known.upload.source.source_id
        return upload_result.of_running(
            known.upload,
            self._queue.uploads.progress(source_id),
            self._queue.uploads.failed(source_id, LISTED),
            "waiting" if job is None else phase_of(job),
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

    def tick(self) -> None:
        """Conclude the uploads that have come to their end. To be called every second or so."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            with self._lock:
                self._following.tick(job)
        self._prune()

    # -- details ----------------------------------------------------------------------------------------------------

    def _begin(self, upload: Upload) -> None:
        intake, stop = None, _nothing
        if upload.stage == "running":
            intake, stop = self._start_intake(upload.source, SETTINGS)
        with self._lock:
            self._jobs[upload.source.name] = Job(upload, intake, stop)

    def _ended(self, job: Job) -> None:
        source = job.upload.source
        del self._jobs[source.name]
        self._folders.let_go(source.name)
        self._source_ended(source)

    def _running_of(self, root: Root) -> Upload | None:
        """The upload of this very folder, whatever it is called."""
        for job in self._jobs.values():
            upload = job.upload
            if upload.stage == "running" and upload.root is not None and upload.root.is_same(root):
                return upload
        return None

    def _require_room(self, asker: Asker) -> None:
        jobs = list(self._jobs.values())
        own = sum(job.upload.asker is not None and job.upload.asker.uid == asker.uid for job in jobs)
        if len(jobs) >= reception.MOST_UPLOADS or (asker.uid != 0 and own >= reception.MOST_OF_ONE):
            raise Permanent(
                "too many folders are being archived at once",
                code="too-many-uploads",
                hint=f"at most {reception.MOST_OF_ONE} of one user and {reception.MOST_UPLOADS} in all; wait for one to"
                " end (dicomwatchctl upload list), or upload a folder that contains them",
            )

    def _prune(self) -> None:
        if self._clock.monotonic() < self._next_prune:
            return
        self._next_prune = self._clock.monotonic() + PRUNE_SECONDS
        try:
            self._queue.uploads.prune()
        except Transient:
            return  # in an hour, then


def _join(running: Upload, asker: Asker, *, delete: bool) -> str:
    """Whoever hands a folder in that is being archived already waits for that, if it is the same that he wants."""
    name = running.source.name
    if running.asker is not None and asker.uid not in (0, running.asker.uid):
        raise Permanent(
            "the folder is already being archived, for another user",
            code="upload-running",
            hint=f"wait for it: dicomwatchctl upload show {name}",
        )
    if running.source.delete_local != delete:
        how = "with" if running.source.delete_local else "without"
        raise Permanent(
            f"the folder is already being archived, {how} --delete",
            code="upload-running",
            hint=f"wait for it, or cancel it: dicomwatchctl upload cancel {name}",
        )
    return name


def _nothing() -> None:
    pass


def no_such_upload() -> DicomwatchdError:
    return Permanent("no such upload", code="no-upload", hint="dicomwatchctl upload list shows the known uploads")
