"""One upload on its way to its end: everything in its folder archived and looked at twice more, its folder gone, or
somebody's word."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from dicomwatchd import upload_result
from dicomwatchd.errors import Transient
from dicomwatchd.intake.final_scan import UNASKED, VANISHED, FinalScan, Findings
from dicomwatchd.intake.inbox import InboxIntake, IntakeSettings
from dicomwatchd.pipeline.deletion.proof import LIFETIME_SECONDS
from dicomwatchd.ports import Clock, Log
from dicomwatchd.queue import Queue
from dicomwatchd.queue.uploads import LISTED, Upload, Uploads
from dicomwatchd.telemetry.fields import error_fields
from dicomwatchd.upload_result import CANCELLED, FINISHED, GONE

#: A folder that is handed in is complete already; two whole looks at it that agree are enough.
SETTINGS = IntakeSettings(
    settle_seconds=1.0, quiet_seconds=0.5, scan_interval_seconds=2.0, whole_scan_before_quiet=True
)
#: Whole looks of the intake before anything is concluded.
SCANS = 2
#: From the first final scan that found everything in order to the second.
SECOND_SCAN_SECONDS = 1.0
#: How often what a final scan finds anew is taken up by the intake before it is only named.
ROUNDS = 5
#: A folder that is not there for so long does not come back: its upload ends.
GONE_SECONDS = 600.0
#: How long the end waits for a file that is being written or held open, and for one that cannot be read.
UNSETTLED_SECONDS, UNREAD_SECONDS = 600.0, 30.0
#: Studies with gaps that are named at the end.
LISTED_STUDIES = 100
#: How long it waits for studies that are not at rest, whose files the store has to be asked for once more.
UNASKED_SECONDS = 600.0


@dataclass(slots=True)
class Job:
    upload: Upload
    intake: InboxIntake | None
    stop: Callable[[], None]
    away_since: float | None = None
    restless: tuple[object, float] | None = None
    final_scan: FinalScan | None = None
    in_order_at: float | None = None
    rounds: int = 0
    scans_needed: int = SCANS
    doubts: int = 0
    #: What the store was asked for before that time (seconds since the epoch) was to be asked for once more.
    doubted_before: float | None = None
    #: Since when (seconds since the epoch) the store has to have been asked for each file, as of the newest final scan.
    asked_since: float = 0.0
    unasked_since: float | None = None
    ending_since: float | None = None
    has_ended: bool = False


class Following:
    """Brings jobs to their ends. ``expires`` tells why no local file may be deleted now, if so; ``ended`` hears of a
    job that has come to its end; ``archived``: see FinalScan. Called by one thread at a time, waits for nothing and
    touches no folder."""

    def __init__(
        self,
        queue: Queue,
        log: Log,
        clock: Clock,
        expires: Callable[[], str | None],
        ended: Callable[[Job], None],
        archived: Callable[[Collection[str]], Collection[str]],
    ) -> None:
        self._queue = queue
        self._log = log
        self._clock = clock
        self._expires = expires
        self._ended = ended
        self._archived = archived

    def tick(self, job: Job) -> None:
        """`conclude`, or say why not."""
        try:
            self.conclude(job)
        except Transient as error:
            self._log.warning(
                "upload-delayed",
                "the state cannot be used at the moment",
                inbox=job.upload.source.name,
                **error_fields(error),
            )

    def conclude(self, job: Job) -> None:
        """Bring it to its end if it has come so far. Raises Transient."""
        if job.has_ended:
            return
        if job.upload.stage == "cancelling":
            self._end(job, CANCELLED, None)
        elif self._is_gone(job):
            self._end(job, GONE, None)
        elif self._has_come_to_rest(job):
            self._check(job)
        else:
            job.final_scan = job.in_order_at = None

    def _is_gone(self, job: Job) -> bool:
        assert job.intake is not None  # noqa: S101  only what is being cancelled has none
        if job.intake.available:
            job.away_since = None
            return False
        if job.away_since is None:
            job.away_since = self._clock.monotonic()
        return self._clock.monotonic() - job.away_since >= GONE_SECONDS

    def _has_come_to_rest(self, job: Job) -> bool:
        """Whether nothing more is to be expected: all that was found has come to its end, and the intake knows of
        nothing that waits, or has waited in vain for long enough."""
        intake = job.intake
        assert intake is not None  # noqa: S101
        progress = self._queue.uploads.progress(job.upload.source.source_id)
        if not intake.available or intake.scans < job.scans_needed or progress.waiting:
            job.restless = None
            return False
        if intake.at_rest:
            return True
        now, so_far = self._clock.monotonic(), (progress.files, progress.deleted)
        if job.restless is None or job.restless[0] != so_far:
            job.restless = (so_far, now)
        patience = UNSETTLED_SECONDS if intake.still_settling else UNREAD_SECONDS
        return now - job.restless[1] >= patience

    def _check(self, job: Job) -> None:
        """Twice over: only a second final scan, some time after the first, that finds all in order too is believed."""
        intake = job.intake
        assert intake is not None  # noqa: S101
        now = self._clock.monotonic()
        if job.final_scan is None:
            if job.in_order_at is None or now - job.in_order_at >= SECOND_SCAN_SECONDS:
                if self._is_asked_again(job):
                    return
                job.final_scan = self._final_scan(job, intake)
                intake.ask(job.final_scan)
            return
        if job.final_scan.failed:
            job.final_scan = None  # the state did not answer: once more
            return
        if (findings := job.final_scan.findings) is None:
            return
        job.final_scan = None
        if findings.accounted_for and job.in_order_at is None:
            job.in_order_at = now
        elif findings.news and job.rounds < ROUNDS:
            job.rounds, job.in_order_at = job.rounds + 1, None
            job.scans_needed = intake.scans + 1
            intake.scan_soon()
        else:
            self._end(job, FINISHED, findings)

    def _is_asked_again(self, job: Job) -> bool:
        """What was archived first may have been archived days ago, and the word that lets a person delete is to be no
        older than what a file is deleted on: then the store is asked once more. A store too slow for that is not asked
        for ever. A study that is not at rest, because others bring files of it, cannot be asked for: it is waited for,
        and in the end its files are named."""
        source_id, uploads = job.upload.source.source_id, self._queue.uploads
        asked_before = self._clock.now() - LIFETIME_SECONDS
        if job.doubts < ROUNDS and uploads.doubt(source_id, asked_before):
            job.doubts, job.doubted_before, job.in_order_at = job.doubts + 1, asked_before, None
            self._queue.claims.queue_due()
            return True
        job.asked_since = asked_before if job.doubted_before is None else min(asked_before, job.doubted_before)
        if not uploads.unasked(source_id, job.asked_since, 0)[0]:
            job.unasked_since = None
            return False
        now = self._clock.monotonic()
        job.unasked_since = now if job.unasked_since is None else job.unasked_since
        return now - job.unasked_since < UNASKED_SECONDS

    def _name_unasked(self, job: Job, findings: Findings) -> None:
        count, paths = self._queue.uploads.unasked(job.upload.source.source_id, job.asked_since, LISTED)
        for path in paths:
            findings.name(path, UNASKED)
        findings.odd += count - len(paths)

    def _final_scan(self, job: Job, intake: InboxIntake) -> FinalScan:
        source_id, queue = job.upload.source.source_id, self._queue
        return FinalScan(
            job.upload.source.path,
            job.upload.root,
            known=lambda parent: queue.arrivals.known(source_id, parent),
            directories=lambda: queue.arrivals.known_directories(source_id),
            vanished=lambda limit: queue.uploads.vanished(source_id, limit),
            unread=intake.unread,
            guard=job.upload.source.guard,
            files=lambda: queue.uploads.files(source_id),
            archived=self._archived,
        )

    def _end(self, job: Job, outcome: str, findings: Findings | None) -> None:
        source, uploads = job.upload.source, self._queue.uploads
        if not self._deletions_are_over(job):
            return
        progress = uploads.progress(source.source_id)
        failed = uploads.failed(source.source_id, LISTED)
        if findings is not None:
            self._name_unasked(job, findings)
        if outcome == GONE:
            findings = _lost_with_the_folder(uploads, source.source_id)
        result = upload_result.of_ended(
            job.upload,
            progress,
            failed,
            outcome,
            findings,
            self._clock.now(),
            self._expires(),
            uploads.studies(source.source_id, LISTED_STUDIES),
        )
        if not uploads.end(source.source_id, result, unfinished=outcome != FINISHED):
            job.in_order_at = None  # something has come in between
            return
        job.stop()
        job.has_ended = True
        self._ended(job)
        self._log.info(
            "upload-finished",
            "an upload has ended",
            inbox=source.name,
            reason=outcome,
            files=progress.files,
            verified_files=progress.verified,
            failed_files=result["failed_files"],
            deleted=progress.deleted,
        )

    def _deletions_are_over(self, job: Job) -> bool:
        """Whether no deletion of a file of it is under way. One that was cut off, in a folder that is away for good, is
        left unknown in the end; one that a shipment is at is waited for, however long it takes."""
        source_id = job.upload.source.source_id
        if not self._queue.uploads.deleting_files(source_id):
            return True
        now = self._clock.monotonic()
        job.ending_since = now if job.ending_since is None else job.ending_since
        if now - job.ending_since < GONE_SECONDS:
            return False
        for one in self._queue.deletions.pending(unclaimed_of=source_id):
            self._queue.deletions.concluded(one, "gone", "the upload is over, and its folder cannot be read")
        return not self._queue.uploads.deleting_files(source_id)


def phase_of(job: Job) -> str:
    if job.intake is None or job.upload.stage == "cancelling":
        return "cancelling"
    if not job.intake.available:
        return "waiting for the folder"
    if job.intake.scans == 0:
        return "first-scan"
    return "uploading" if job.final_scan is None and job.in_order_at is None else "checking"


def _lost_with_the_folder(uploads: Uploads, source_id: int) -> Findings:
    """What had come to no end when the folder went away, and what had vanished from it before."""
    findings = Findings()
    for found, why in (
        (uploads.waiting(source_id, LISTED), lambda _: "the folder disappeared before it was archived"),
        (uploads.vanished(source_id, LISTED), VANISHED.__getitem__),
    ):
        count, named = found
        for path, how_far in named:
            findings.name(path, why(how_far))
        findings.odd += count - len(named)
    return findings
