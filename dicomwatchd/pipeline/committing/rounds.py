"""The daemon's side of the folder in which requests for storage commitment wait: judged, renewed, and taken away."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dicomwatchd.commitments import (
    GIVE_UP_SECONDS,
    RESULT_SECONDS,
    CommitmentFolder,
    Kind,
    Reason,
    Reference,
    Request,
    Result,
    Unreadable,
    destination_of,
    name_of,
)
from dicomwatchd.errors import DicomwatchdError, Misconfigured, Stopping
from dicomwatchd.pipeline.committing.judgement import Committed, Judgement, Open, Verdict
from dicomwatchd.ports import Clock, Log

LOOK_SECONDS = 2.0
#: Between two looks at what a request waits for, growing from the first to the last.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 60.0
#: A result that is older, and was not reported yet, is found out anew; more and more seldom where nobody takes it, for
#: the archive is asked for every object each time. The receiver tries at least once while each of them is young.
_RENEWED_SECONDS, _RENEWED_AT_LAST_SECONDS, _RENEWED_SHARE = RESULT_SECONDS / 2, 3600.0, 0.1
#: What took so long to find out is too old when it is there: the receiver needs some time to tell it.
_TOLD_WITHIN_SECONDS = 300.0
#: No more than a fifth of the time goes into one request.
_PAUSE_PER_WORK = 4.0
#: So long after its end a request is left to the receiver, which says that it is given up.
_LEFT_SECONDS = 86400.0
#: In which order the files of a request go: what says that it is over goes last.
_IN_ORDER = (Kind.RESULT, Kind.REQUEST, Kind.REPORTED)

_Key = tuple[Path, str]


@dataclass(frozen=True, slots=True)
class Desk:
    """A receiver that is asked for commitment."""

    receiver: str
    folder: Path
    wait_seconds: float
    judgement: Judgement


@dataclass(slots=True)
class _Known:
    """Of a request. ``since`` and ``until`` are of the monotonic clock: when it was first seen, and how long it is left
    alone. ``turn`` is the number of the look at the archive that was for it."""

    since: float
    until: float = -math.inf
    pause_seconds: float = 0.0
    turn: int = 0
    received_at: float | None = None
    judged_at: float | None = None


@dataclass(slots=True)
class _Round:
    """One look at a folder: each modality gets one answer in it, so that none waits for all that another has asked."""

    path: Path
    folder: CommitmentFolder
    served: set[str] = field(default_factory=set)
    has_more: bool = False


class Commitments:
    """One thread calls `step`."""

    def __init__(
        self, desks: Sequence[Desk], clock: Clock, log: Log, in_trouble: Callable[[], bool] = lambda: False
    ) -> None:
        """``in_trouble`` tells that the archive does not answer at the moment, so that it is left alone."""
        self._desks = {(desk.folder, desk.receiver): desk for desk in desks}
        self._clock, self._log, self._in_trouble = clock, log, in_trouble
        self._known: dict[_Key, _Known] = {}
        self._turn = 0
        self._told: set[_Key] = set()
        #: Folders, and requests in them (of a folder itself ""), that could not be read or written to.
        self._failing: set[_Key] = set()
        #: Requests that wait for an answer, or for a modality that takes it.
        self.open = 0

    def run(self, stopping: threading.Event, beat: Callable[[], None]) -> None:
        """The thread, until it is told to stop."""
        while not stopping.is_set():
            beat()
            if not self.step(beat):
                stopping.wait(LOOK_SECONDS)

    def step(self, beat: Callable[[], None] = lambda: None) -> bool:
        """Look at all requests, and ask the archive for one of each modality. Whether there is more to be done at once.
        Raises Stopping."""
        seen: set[_Key] = set()
        number_open, has_more = 0, False
        for path in dict.fromkeys(folder for folder, _ in self._desks):
            seen.add((path, ""))
            try:
                with CommitmentFolder(path) as folder:
                    requests = folder.requests()
                    self._failing.discard((path, ""))
                    a_round = _Round(path, folder)
                    for request_id in sorted(requests, key=lambda one: (self._turn_of(path, one), one)):
                        beat()
                        seen.add((path, request_id))
                        number_open += self._looked_at(a_round, request_id, requests[request_id], beat)
                    has_more |= a_round.has_more
            except (OSError, Misconfigured) as error:
                self._failed((path, ""), error.errno if isinstance(error, OSError) else None)
        self.open = number_open
        self._known = {key: known for key, known in self._known.items() if key in seen}
        self._told &= seen
        self._failing &= seen
        return has_more

    def _turn_of(self, path: Path, request_id: str) -> int:
        known = self._known.get((path, request_id))
        return 0 if known is None else known.turn

    def _looked_at(self, a_round: _Round, request_id: str, kinds: set[Kind], beat: Callable[[], None]) -> bool:
        """Whether the request is open after that."""
        key = a_round.path, request_id
        known = self._known.setdefault(key, _Known(self._clock.monotonic()))
        is_over = Kind.REPORTED in kinds or Kind.REQUEST not in kinds
        try:
            if is_over:
                _take_away(a_round.folder, request_id, kinds)
            elif self._is_due(a_round, request_id, kinds, known):
                self._served(a_round, request_id, known, kinds, beat)
        except FileNotFoundError:
            return False  # somebody has taken it away just now
        except OSError as error:  # this one: there may be others that can be read
            self._failed(key, error.errno)
            self._pause(known)
        else:
            self._failing.discard(key)
        return not is_over

    def _is_due(self, a_round: _Round, request_id: str, kinds: set[Kind], known: _Known) -> bool:
        if self._clock.monotonic() < known.until or (
            Kind.RESULT in kinds and self._is_young(a_round, request_id, known)
        ):
            return False
        if destination_of(request_id) in a_round.served:
            a_round.has_more = True
            return False
        return True

    def _is_young(self, a_round: _Round, request_id: str, known: _Known) -> bool:
        if known.judged_at is None:
            try:
                known.judged_at = a_round.folder.result(request_id).judged_at
            except Unreadable:
                return False
        age = self._clock.now() - known.judged_at
        waited = 0.0 if known.received_at is None else known.judged_at - known.received_at
        return 0 <= age <= min(max(_RENEWED_SECONDS, waited * _RENEWED_SHARE), _RENEWED_AT_LAST_SECONDS)

    def _served(
        self, a_round: _Round, request_id: str, known: _Known, kinds: set[Kind], beat: Callable[[], None]
    ) -> None:
        a_round.served.add(destination_of(request_id))
        self._turn += 1
        known.turn = self._turn
        key = a_round.path, request_id
        try:
            request = a_round.folder.request(request_id)
        except Unreadable:
            if self._is_news(key):
                self._log.warning("commitment-unreadable", "a request for storage commitment cannot be read")
            self._pause(known, LONGEST_PAUSE_SECONDS)
            return
        known.received_at = request.received_at
        desk = self._desks.get((a_round.path, request.receiver))
        if desk is None:
            if self._is_news(key):
                self._log.warning(
                    "commitment-without-receiver",
                    "a request for storage commitment came by a receiver that is not configured any more",
                )
            self._pause(known, LONGEST_PAUSE_SECONDS)
        elif self._is_older(request, known, desk.wait_seconds + GIVE_UP_SECONDS + _LEFT_SECONDS, both=True):
            self._log.warning(
                "commitment-given-up",
                "nobody took a report of storage commitment; it is given up",
                receiver=desk.receiver,
                instances=len(request.references),
            )
            _take_away(a_round.folder, request_id, kinds)
        else:
            self._judge(a_round.folder, request_id, request, desk, known, beat, renewed=Kind.RESULT in kinds)

    def _is_older(self, request: Request, known: _Known, seconds: float, *, both: bool = False) -> bool:
        """By the clock of the wall, which somebody may have set, or (``both``: and) by that of this process."""
        said = self._clock.now() - request.received_at > seconds, self._clock.monotonic() - known.since > seconds
        return all(said) if both else any(said)

    def _judge(
        self,
        folder: CommitmentFolder,
        request_id: str,
        request: Request,
        desk: Desk,
        known: _Known,
        beat: Callable[[], None],
        *,
        renewed: bool,
    ) -> None:
        is_over = self._is_older(request, known, desk.wait_seconds)
        began = self._clock.monotonic()
        verdicts = self._verdicts(request, desk, beat, until_one_waits=not is_over)
        pause_seconds = _PAUSE_PER_WORK * (self._clock.monotonic() - began)
        told = verdicts or {}
        result = _result(request, told, self._clock.now())
        waits = [one for one in request.references if not isinstance(told.get(one), Committed | Reason)]
        if (waits and not is_over) or (renewed and verdicts is None):
            self._pause(known, pause_seconds)
            return
        if renewed:
            _unlink(folder, name_of(request_id, Kind.RESULT))
        folder.keep_result(request_id, result)
        known.judged_at, known.pause_seconds = result.judged_at, 0.0
        known.until = self._clock.monotonic() + pause_seconds
        if not renewed:
            self._log.info(
                "commitment-judged",
                "of {instances} instances that a modality has asked for the archive lacks proof of {failed_instances}",
                receiver=desk.receiver,
                instances=len(request.references),
                failed_instances=len(result.failed),
                seconds=self._clock.now() - request.received_at,
            )

    def _verdicts(
        self, request: Request, desk: Desk, beat: Callable[[], None], *, until_one_waits: bool
    ) -> Mapping[Reference, Verdict] | None:
        """What can be told in time; None where nothing can be found out now. Raises Stopping."""
        if self._in_trouble():
            return None
        try:
            found = desk.judgement.of(request.references, until_one_waits=until_one_waits, beat=beat)
        except Stopping:
            raise
        except (DicomwatchdError, OSError):
            return None  # whoever archives says what it is; here nothing can be said
        now, longest = self._clock.now(), RESULT_SECONDS - _TOLD_WITHIN_SECONDS
        return {
            one: Open.WAITS
            if isinstance(verdict, Committed) and not 0 <= now - verdict.asked_at <= longest
            else verdict
            for one, verdict in found.items()
        }

    def _pause(self, known: _Known, at_least: float = 0.0) -> None:
        longer = FIRST_PAUSE_SECONDS if not known.pause_seconds else min(LONGEST_PAUSE_SECONDS, 2 * known.pause_seconds)
        known.pause_seconds = longer
        known.until = self._clock.monotonic() + max(longer, at_least)

    def _failed(self, key: _Key, errno: int | None) -> None:
        """Told of a folder when it begins."""
        if not any(path == key[0] for path, _ in self._failing):
            self._log.error(
                "commitment-folder-unusable",
                "the folder of requests for storage commitment cannot be read or written to",
                errno=errno,
            )
        self._failing.add(key)

    def _is_news(self, key: _Key) -> bool:
        """Whether it was not told yet."""
        if key in self._told:
            return False
        self._told.add(key)
        return True


def _result(request: Request, verdicts: Mapping[Reference, Verdict], now: float) -> Result:
    failed: dict[int, Reason] = {}
    judged_at = now
    for index, reference in enumerate(request.references):
        match verdicts.get(reference):
            case Committed(asked_at):
                judged_at = min(judged_at, asked_at)
            case Reason() as reason:
                failed[index] = reason
            case _:
                failed[index] = Reason.PROCESSING_FAILURE
    return Result(judged_at, failed)


def _take_away(folder: CommitmentFolder, request_id: str, kinds: set[Kind]) -> None:
    for kind in _IN_ORDER:
        if kind in kinds:
            _unlink(folder, name_of(request_id, kind))


def _unlink(folder: CommitmentFolder, name: bytes) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder.fd)
