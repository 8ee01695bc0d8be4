"""The Storage Commitment SCP's second half (PS3.4 section J.3.3): reports what the daemon has found out, on an
association of its own to the address that the configuration names, as often as it takes, restarts included.
"""

from __future__ import annotations

import random
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import build_context, build_role

from dicomwatchd.commitments import (
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    RESULT_SECONDS,
    CommitmentFolder,
    Kind,
    Request,
    Result,
    Unreadable,
    destination_of,
)
from dicomwatchd.config import Destination, Receiver
from dicomwatchd.dicom_addresses import address_of
from dicomwatchd.ports import Clock, Log
from dicomwatchd.receiver import association

_LOOK_SECONDS = 1.0
#: Between two attempts at a modality that does not take a report, growing from the first to the last.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 900.0
#: A report that nobody has taken for so long, counted from the longest wait for what it was asked about, is given up.
GIVE_UP_SECONDS = 7 * 86400.0
_ACSE_SECONDS, _DIMSE_SECONDS, _NETWORK_SECONDS = 30.0, 60.0, 60.0
_ALL_COMMITTED, _FAILURES_EXIST = 1, 2


class _NotTaken(Exception):
    """``reason`` is a word for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Report:
    request_id: str
    request: Request
    result: Result


class Reporting:
    """To one modality, for one receiver, in a thread of its own: one that does not answer holds up no other."""

    def __init__(
        self,
        settings: Receiver,
        destination: Destination,
        tls: ssl.SSLContext | None,
        folder: CommitmentFolder,
        clock: Clock,
        log: Log,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        assert settings.commitment is not None  # noqa: S101  who builds this has looked
        self._settings, self._destination, self._tls = settings, destination, tls
        self._give_up_seconds = settings.commitment.wait_seconds + GIVE_UP_SECONDS
        self._folder, self._clock, self._log, self._jitter = folder, clock, log, jitter
        self._failures = 0
        self._not_before = clock.monotonic()

    def run(self, stopping: threading.Event) -> None:
        while not stopping.wait(_LOOK_SECONDS):
            self.step(stopping.is_set)

    def step(self, is_stopping: Callable[[], bool] = lambda: False) -> None:
        """Report what is there to be reported, unless the modality has not taken the last one a moment ago."""
        try:
            for report in self._reports():
                if is_stopping():
                    return
                if self._is_given_up(report) or self._is_delivered(report):
                    self._folder.keep_reported(report.request_id)
        except FileExistsError:
            return  # another receiver of the same name and folder: nobody says that there is none
        except OSError as error:
            self._pause()
            self._log.error(
                "commitment-folder-unusable",
                "the folder of requests for storage commitment cannot be read or written to",
                receiver=self._settings.name,
                errno=error.errno,
            )

    def _reports(self) -> Iterator[Report]:
        """Those of this modality at this receiver that are not reported yet, with a result that may be."""
        now = self._clock.now()
        for request_id, kinds in sorted(self._folder.requests().items()):
            if destination_of(request_id) != self._destination.name or kinds != {Kind.REQUEST, Kind.RESULT}:
                continue
            try:
                request, result = self._folder.request(request_id), self._folder.result(request_id)
            except (Unreadable, FileNotFoundError):
                continue  # the daemon says so, or renews it just now
            if request.receiver == self._settings.name and 0 <= now - result.judged_at <= RESULT_SECONDS:
                yield Report(request_id, request, result)

    def _is_given_up(self, report: Report) -> bool:
        if self._clock.now() - report.request.received_at <= self._give_up_seconds:
            return False
        self._log.warning(
            "commitment-given-up", "nobody took a report of storage commitment; it is given up", **self._said(report)
        )
        return True

    def _is_delivered(self, report: Report) -> bool:
        if self._clock.monotonic() < self._not_before:
            return False
        try:
            self._send(report)
        except _NotTaken as failure:
            if self._pause() == 1:
                self._log.warning(
                    "commitment-unreported",
                    "a modality does not take the report of storage commitment; it is tried again",
                    reason=failure.reason,
                    **self._said(report),
                )
            return False
        self._failures = 0
        self._log.info(
            "commitment-reported",
            "a modality was told that the archive holds {instances} instances, and {failed_instances} not",
            receiver=self._settings.name,
            calling_ae_title=association.shown(self._destination.ae_title),
            instances=len(report.request.references) - len(report.result.failed),
            failed_instances=len(report.result.failed),
            seconds=self._clock.now() - report.request.received_at,
        )
        return True

    def _pause(self) -> int:
        self._failures += 1
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures - 1, 20))
        self._not_before = self._clock.monotonic() + longest * (0.5 + self._jitter() / 2)
        return self._failures

    def _said(self, report: Report) -> dict[str, object]:
        return {
            "receiver": self._settings.name,
            "calling_ae_title": association.shown(self._destination.ae_title),
            "instances": len(report.request.references),
        }

    # -- the wire ---------------------------------------------------------------------------------------------------

    def _send(self, report: Report) -> None:
        """Raises _NotTaken."""
        associated = self._associated()
        try:
            data_set = event_information(report.request, report.result)
            event_type = _FAILURES_EXIST if report.result.failed else _ALL_COMMITTED
            status, _ = associated.send_n_event_report(data_set, event_type, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        except (OSError, RuntimeError, ValueError) as error:
            raise _NotTaken("connection-lost") from error
        finally:
            if associated.is_established:
                associated.release()
        if "Status" not in status:
            raise _NotTaken("no-answer")
        if status.Status != 0:
            raise _NotTaken("refused")

    def _associated(self) -> Association:
        """We propose the part of the SCP to whom we call (PS3.4 section J.3.3.1.1). Raises _NotTaken."""
        address = address_of(self._destination.address)
        assert address is not None  # noqa: S101  the configuration was checked
        host, port = address
        application = AE(self._settings.ae_title)
        application.acse_timeout, application.connection_timeout = _ACSE_SECONDS, _ACSE_SECONDS
        application.dimse_timeout, application.network_timeout = _DIMSE_SECONDS, _NETWORK_SECONDS
        made = application.associate(
            host,
            port,
            contexts=[build_context(PUSH_MODEL)],
            ae_title=self._destination.ae_title,
            ext_neg=[build_role(PUSH_MODEL, scp_role=True)],
            tls_args=None if self._tls is None else (self._tls, host),
        )
        if not made.is_established:
            raise _NotTaken("rejected" if made.is_rejected else "unreachable")
        if not made.accepted_contexts:
            made.release()
            raise _NotTaken("not-accepted")
        return made


def event_information(request: Request, result: Result) -> Dataset:
    """Event Information (PS3.4 table J.3-2)."""
    found = Dataset()
    found.TransactionUID = request.transaction_uid
    committed, failed = [], []
    for index, reference in enumerate(request.references):
        item = Dataset()
        item.ReferencedSOPClassUID = reference.sop_class_uid
        item.ReferencedSOPInstanceUID = reference.sop_instance_uid
        if index in result.failed:
            item.FailureReason = int(result.failed[index])
            failed.append(item)
        else:
            committed.append(item)
    if committed:
        found.ReferencedSOPSequence = committed
    if failed:
        found.FailedSOPSequence = failed
    return found
