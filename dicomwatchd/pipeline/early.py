"""Sending while a study still arrives: what is complete already goes to the store, so that little is left to send when
the study has gone quiet.

Nothing but sending is done early. The study is verified, recorded and purged as ever, under its claim, from fresh
reads; a file that was sent early and has changed since is sent again under its new content's key.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from dicomwatchd.errors import DicomwatchdError, Fatal, SourceChanged, Stopping, Transient
from dicomwatchd.model import Uid
from dicomwatchd.pipeline import sending
from dicomwatchd.pipeline.sending import Parcel
from dicomwatchd.pipeline.shipment import Context, Place, source_of
from dicomwatchd.pipeline.stages import COMMIT_EVERY
from dicomwatchd.ports import Map
from dicomwatchd.queue.rows import LocalFile

PAGE = 64
#: Files that could not be sent early are left to their shipment, which is the one to judge. So many are remembered.
_LEFT_ALONE = 10_000


class EarlySender:
    """One study at a time. Whoever has a claim on a study is alone at its files: see `leave`."""

    def __init__(self, context: Context, may_go_on: Callable[[], bool], on_error: Callable[[DicomwatchdError], None]):
        """``on_error`` hears of what other files would meet as well: an endpoint in trouble, an archive refused."""
        self._context = context
        self._may_go_on = may_go_on
        self._on_error = on_error
        self._condition = threading.Condition()
        self._study: Uid | None = None
        self._leaving = False
        self._left_alone: set[int] = set()

    def round(self, run: Map) -> int:
        """Send what is there to be sent of all arriving studies; how many files that were. Raises Stopping, Transient
        (the state)."""
        sent = 0
        for study_uid in self._context.shipments.arriving():
            if not self._may_go_on():
                break
            with self._condition:
                self._study, self._leaving = study_uid, False
            try:
                sent += self._send_study(study_uid, run)
            finally:
                with self._condition:
                    self._study = None
                    self._condition.notify_all()
        return sent

    @property
    def at_work(self) -> bool:
        return self._study is not None

    def leave(self, study_uid: Uid) -> None:
        """Returns once nothing of this study is being sent early. Called under a claim, so nothing more of it will."""
        with self._condition:
            while self._study == study_uid:
                self._leaving = True
                self._condition.wait()

    def _send_study(self, study_uid: Uid, run: Map) -> int:
        after = total = 0
        while self._goes_on():
            page = self._context.shipments.ready_while_arriving(study_uid, after, PAGE)
            if not page:
                break
            after = page[-1].file_id
            total += self._send_page([file for file in page if self._wanted(file)], run)
        return total

    def _wanted(self, file: LocalFile) -> bool:
        """What goes into a bundle waits for the others that will be in it."""
        bundling = self._context.archive.bundling
        alone = bundling is None or file.identity.size_bytes >= bundling.below_bytes
        early = self._context.sends_early(source_of(file, self._context))
        return alone and early and file.file_id not in self._left_alone

    def _goes_on(self) -> bool:
        return not self._leaving and self._may_go_on()

    def _send_page(self, page: list[LocalFile], run: Map) -> int:
        def send(file: LocalFile) -> tuple[LocalFile, Place | Exception | None]:
            if not self._goes_on():
                return file, None
            try:
                [outcome] = sending.send(Parcel([file]), self._context)
                return outcome
            except Exception as error:  # noqa: BLE001  a fault of ours: its shipment meets it too, and is the judge
                return file, error

        sent: list[tuple[LocalFile, str, str]] = []
        total = 0
        try:
            for file, outcome in run(send, page):
                match outcome:
                    case Place():
                        sent.append((file, outcome.sha256, outcome.to_text()))
                        total += 1
                        if len(sent) >= COMMIT_EVERY:
                            self._context.shipments.sent_early(sent)
                            sent = []
                    case SourceChanged():
                        self._context.look_again(file.source_id, file.dir)
                    case Stopping() | None:
                        pass
                    case error:
                        self._leave_alone(file, error)
        finally:
            if sent:
                self._context.shipments.sent_early(sent)
        return total

    def _leave_alone(self, file: LocalFile, error: Exception) -> None:
        if isinstance(error, Fatal) or (isinstance(error, Transient) and error.endpoint is not None):
            self._on_error(error)
            return
        if len(self._left_alone) >= _LEFT_ALONE:
            self._left_alone.clear()
        self._left_alone.add(file.file_id)
