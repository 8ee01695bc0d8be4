"""Sending while a study still arrives: what is complete already goes to the store, so that little is left to send when
the study has gone quiet.

In the bundled layout full bundles go early, and what is too large for one. The last bundle waits for the study's end.

Nothing but sending is done early. The study is verified, recorded and purged as ever, under its claim, from fresh
reads; a file that was sent early and has changed since is sent again under its new content's key.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from dicomwatchd.errors import DicomwatchdError, InboxNotResponding, SourceChanged, Stopping, Transient
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.sending import batches, loop
from dicomwatchd.pipeline.sending.batches import BatchPlan, UploadBatch
from dicomwatchd.pipeline.sending.instances import concerns_all
from dicomwatchd.pipeline.sending.loop import Stored
from dicomwatchd.pipeline.shipment import NOTHING, Context, ObjectLocation, Sent, source_of
from dicomwatchd.ports import Map
from dicomwatchd.queue.rows import LocalFile

#: Files that could not be sent early are left to their shipment, which is the one to judge. So many are remembered.
_LEFT_ALONE = 10_000


class _Results:
    """What became of files that were to be sent early, over all rounds."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.files = 0
        #: What was created of each study since its last shipment came to its end.
        self.sent: dict[Uid, Sent] = {}
        #: Files that could not be sent early.
        self.left_alone: set[int] = set()

    def stored(self, file: LocalFile, location: ObjectLocation) -> None:
        self.files += 1
        if location.receipt.created:
            if len(self.sent) >= _LEFT_ALONE:
                self.sent.clear()  # of studies that were taken back; a figure in the log is all that is lost
            study_uid = file.header.study_uid
            self.sent[study_uid] = self.sent.get(study_uid, NOTHING) + Sent(1, location.size_bytes)
            self._context.sent(location.size_bytes)

    def commit(self, files: Sequence[Stored]) -> None:
        self._context.shipments.sent_early(files)

    def failed(self, file: LocalFile, error: Exception) -> None:
        match error:
            case SourceChanged():
                self._context.rescan(file.source_id, file.dir)
            case Stopping() | InboxNotResponding():
                pass
            case _ if not concerns_all(error):
                if len(self.left_alone) >= _LEFT_ALONE:
                    self.left_alone.clear()
                self.left_alone.add(file.file_id)


class EarlySender:
    """One study at a time. Whoever has a claim on a study is alone at its files: see `leave`."""

    def __init__(
        self,
        context: Context,
        may_go_on: Callable[[], bool],
        on_error: Callable[[Uid, DicomwatchdError, float, int], float],
        on_passed: Callable[[Uid, frozenset[str]], None] = lambda *_: None,
    ) -> None:
        """``on_error`` hears of what other files would meet as well (an endpoint in trouble, an archive refused): of
        which study, when its sending began (monotonic seconds), how often it has failed before; and says for how many
        seconds the study is to be left alone. ``on_passed`` hears of a study that was sent something, with the
        endpoints that have failed here before."""
        self._context = context
        self._may_go_on = may_go_on
        self._on_error = on_error
        self._on_passed = on_passed
        self._failed_on: frozenset[str] = frozenset()
        self._failures: dict[Uid, tuple[int, float]] = {}
        self._began = 0.0
        self._condition = threading.Condition()
        self._study: Uid | None = None
        self._leaving = False
        self._results = _Results(context)

    def round(self, run: Map) -> int:
        """Send what is there to be sent of all arriving studies; how many files that were. Raises Stopping, Transient
        (the state)."""
        sent = 0
        for study_uid in self._context.shipments.arriving():
            if not self._may_go_on():
                break
            if self._rests(study_uid):
                continue
            self._began = self._context.clock.monotonic()
            with self._condition:
                self._study, self._leaving = study_uid, False
            try:
                sent += self._send_study(study_uid, run)
            except InboxNotResponding:
                continue  # what lies elsewhere can be sent all the same
            finally:
                with self._condition:
                    self._study = None
                    self._condition.notify_all()
        return sent

    @property
    def at_work(self) -> bool:
        return self._study is not None

    def sent_of(self, study_uid: Uid) -> Sent:
        """What of this study was created early since its last shipment came to its end."""
        return self._results.sent.get(study_uid, NOTHING)

    def shipped(self, study_uid: Uid) -> None:
        self._results.sent.pop(study_uid, None)

    def leave(self, study_uid: Uid) -> None:
        """Returns once nothing of this study is being sent early. Called under a claim, so nothing more of it will."""
        with self._condition:
            while self._study == study_uid:
                self._leaving = True
                self._condition.wait()

    def _send_study(self, study_uid: Uid, run: Map) -> int:
        bundling = self._context.archive.bundling
        if bundling is not None:
            total, largest = self._context.shipments.waiting_bytes(study_uid)
            if total < bundling.size_bytes and largest < bundling.below_bytes:
                return 0
        after = total = 0
        results = self._results
        while self._goes_on():
            page = self._context.shipments.ready_while_arriving(study_uid, after, batches.SENDING_PAGE)
            if not page:
                if total:
                    self._passed(study_uid)
                break
            after = page[-1].file_id
            wanted = [file for file in page if self._wanted(file)]
            # What the archive has of the study is asked only once there is something to send.
            if next(BatchPlan(bundling).batches(wanted, full_only=True), None) is not None:
                try:
                    plan = batches.plan(study_uid, self._context)
                except DicomwatchdError as error:
                    if concerns_all(error):
                        self._failed(study_uid, error)
                    break  # the study's shipment meets it too, and is the judge
                began, before = self._context.clock.monotonic(), results.files
                wanted_batches = plan.batches(wanted, full_only=True)
                met = loop.upload(wanted_batches, run, results, self._send_batch, self._goes_on)
                total += results.files - before
                if study_uid in results.sent:
                    results.sent[study_uid] += Sent(seconds=self._context.clock.monotonic() - began)
                if met is not None:
                    self._failed(study_uid, met)
                    break
        return total

    def _passed(self, study_uid: Uid) -> None:
        self._failures.pop(study_uid, None)
        if self._failed_on:
            self._on_passed(study_uid, self._failed_on)

    def _failed(self, study_uid: Uid, error: DicomwatchdError) -> None:
        if isinstance(error, Transient) and error.endpoint is not None:
            self._failed_on |= {error.endpoint}
        times, _ = self._failures.get(study_uid, (0, 0.0))
        pause = self._on_error(study_uid, error, self._began, times)
        if len(self._failures) >= _LEFT_ALONE:
            self._failures.clear()
        self._failures[study_uid] = times + 1, self._context.clock.monotonic() + pause

    def _rests(self, study_uid: Uid) -> bool:
        """Whether the study is left alone since it has failed here."""
        _, until = self._failures.get(study_uid, (0, 0.0))
        return until > self._context.clock.monotonic()

    def _wanted(self, file: LocalFile) -> bool:
        return (
            file.file_id not in self._results.left_alone
            # It may be on its way still, more slowly than it has to settle: its study's quiet time will tell.
            and not file.header.damage
            and file.source_id not in self._context.inboxes.not_responding()
            and self._context.sends_early(source_of(file, self._context))
        )

    def _goes_on(self) -> bool:
        return not self._leaving and self._may_go_on()

    def _send_batch(self, batch: UploadBatch) -> Sequence[tuple[LocalFile, ObjectLocation | Exception]]:
        try:
            return loop.send(batch, self._context)
        except InboxNotResponding:
            raise
        except Exception as error:  # noqa: BLE001  a fault of ours: its shipment meets it too, and is the judge
            return [(file, error) for file in batch.files]
