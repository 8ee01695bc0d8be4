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

from dicomwatchd.commitments import (
    GIVE_UP_SECONDS,
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
from dicomwatchd.config.destinations import Destination
from dicomwatchd.config.receivers import Receiver
from dicomwatchd.dicom_addresses import address_of
from dicomwatchd.ports import Clock, Log
from dicomwatchd.receiver import association, calling
from dicomwatchd.receiver.calling import NotTaken
from dicomwatchd.receiver.commitment import SYNTAXES

_LOOK_SECONDS = 1.0
#: Between two attempts at a modality that does not take a report, growing from the first to the last.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 900.0
#: What nobody has tried to report for so long as this process knows is not given up, whatever the clock says.
_TRIED_FOR_SECONDS = 86400.0
#: How long a result that is too old is left alone until it is looked whether it was renewed.
_STALE_SECONDS = 10.0
#: So long it may take until the modality has the report: what it is told must not be too old then.
_CALL_SECONDS = 90.0
_ALL_COMMITTED, _FAILURES_EXIST = 1, 2


class _Refused(NotTaken):
    """This report: the modality may take others."""


@dataclass(slots=True)
class _Known:
    """Of a request; times are of the monotonic clock. ``is_others`` is of one that came to another receiver."""

    since: float
    until: float
    refusals: int = 0
    is_others: bool = False


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
        address = address_of(destination.address)
        assert address is not None  # noqa: S101  the configuration was checked
        self._peer = calling.Peer(*address, destination.ae_title, settings.ae_title, tls)
        self._settings, self._destination = settings, destination
        self._give_up_seconds = settings.commitment.wait_seconds + GIVE_UP_SECONDS
        self._folder, self._clock, self._log, self._jitter = folder, clock, log, jitter
        self._failures = 0
        self._not_before = clock.monotonic()
        self._known: dict[str, _Known] = {}

    def run(self, stopping: threading.Event) -> None:
        while not stopping.wait(_LOOK_SECONDS):
            self.step(stopping.is_set)

    def step(self, is_stopping: Callable[[], bool] = lambda: False) -> None:
        """Report what is there to be reported, unless the modality has not taken the last one a moment ago."""
        if self._clock.monotonic() < self._not_before:
            return
        try:
            for report in self._reports():
                if is_stopping() or not self._is_reached(report):
                    return
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
        """Those of this modality at this receiver that are not reported yet, with a result that may be; first those
        that it has refused least often, for it may refuse one for ever."""
        requests = self._folder.requests()
        ours = [
            request_id
            for request_id, kinds in requests.items()
            if destination_of(request_id) == self._destination.name and kinds == {Kind.REQUEST, Kind.RESULT}
        ]
        now = self._clock.monotonic()
        known = self._known = {one: self._known.get(one) or _Known(now, now) for one in ours}
        for request_id in sorted(ours, key=lambda one: (known[one].refusals, one)):
            if known[request_id].is_others or self._clock.monotonic() < known[request_id].until:
                continue
            try:
                result, request = self._folder.result(request_id), self._folder.request(request_id)
            except (Unreadable, FileNotFoundError):
                known[request_id].until = self._clock.monotonic() + _STALE_SECONDS
                continue  # the daemon says so, or renews it just now
            if request.receiver != self._settings.name:
                known[request_id].is_others = True
            elif self._is_given_up(report := Report(request_id, request, result)):
                self._folder.keep_reported(request_id)
            elif 0 <= self._clock.now() - result.judged_at <= RESULT_SECONDS - _CALL_SECONDS:
                yield report
            else:
                known[request_id].until = self._clock.monotonic() + _STALE_SECONDS

    def _is_given_up(self, report: Report) -> bool:
        known = self._known[report.request_id]
        if (
            self._clock.now() - report.request.received_at <= self._give_up_seconds
            or self._clock.monotonic() - known.since <= _TRIED_FOR_SECONDS
        ):
            return False
        self._log.warning(
            "commitment-given-up", "nobody took a report of storage commitment; it is given up", **self._said(report)
        )
        return True

    def _is_reached(self, report: Report) -> bool:
        """Whether the modality answers; one report that it does not take is tried again later."""
        known = self._known[report.request_id]
        try:
            self._send(report)
        except NotTaken as failure:
            known.refusals += 1
            is_refused = isinstance(failure, _Refused)
            if is_refused:
                known.until = self._clock.monotonic() + self._pause_seconds(known.refusals)
            if (known.refusals if is_refused else self._pause()) == 1:
                self._log.warning(
                    "commitment-unreported",
                    "a modality does not take the report of storage commitment; it is tried again",
                    reason=failure.reason,
                    **self._said(report),
                )
            return is_refused
        self._folder.keep_reported(report.request_id)
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
        self._not_before = self._clock.monotonic() + self._pause_seconds(self._failures)
        return self._failures

    def _pause_seconds(self, failures: int) -> float:
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 20))
        return longest * (0.5 + self._jitter() / 2)

    def _said(self, report: Report) -> dict[str, object]:
        return {
            "receiver": self._settings.name,
            "calling_ae_title": association.shown(self._destination.ae_title),
            "instances": len(report.request.references),
        }

    def _send(self, report: Report) -> None:
        """Raises NotTaken."""
        event_type = _FAILURES_EXIST if report.result.failed else _ALL_COMMITTED
        event = calling.Event(
            PUSH_MODEL, PUSH_MODEL_INSTANCE, event_type, event_information(report.request, report.result)
        )
        if calling.report(self._peer, event, SYNTAXES, self._clock) != 0:
            raise _Refused("refused")


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
