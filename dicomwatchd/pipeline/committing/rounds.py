"""The daemon's side of the folder in which requests for storage commitment wait: judged, renewed, and taken away."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dicomwatchd.commitments import (
    RESULT_SECONDS,
    CommitmentFolder,
    Kind,
    Reason,
    Reference,
    Request,
    Result,
    Unreadable,
    name_of,
)
from dicomwatchd.errors import DicomwatchdError, Misconfigured, Stopping
from dicomwatchd.pipeline.committing.judgement import Committed, Judgement, Verdict
from dicomwatchd.ports import Clock, Log

LOOK_SECONDS = 2.0
#: Between two looks at what a request waits for, growing from the first to the last.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 60.0
#: A result that is older, and was not reported yet, is found out anew.
_RENEWED_SECONDS = RESULT_SECONDS / 2
#: In which order the files of a request go: what says that it is over goes last.
_IN_ORDER = (Kind.RESULT, Kind.REQUEST, Kind.REPORTED)


@dataclass(frozen=True, slots=True)
class Desk:
    """A receiver that is asked for commitment."""

    receiver: str
    folder: Path
    wait_seconds: float
    judgement: Judgement


@dataclass(slots=True)
class _Pause:
    seconds: float
    until: float


class Commitments:
    """One thread calls `step`."""

    def __init__(
        self, desks: Sequence[Desk], clock: Clock, log: Log, in_trouble: Callable[[], bool] = lambda: False
    ) -> None:
        """``in_trouble`` tells that the archive does not answer at the moment, so that it is left alone."""
        self._desks = {(desk.folder, desk.receiver): desk for desk in desks}
        self._clock, self._log, self._in_trouble = clock, log, in_trouble
        self._pauses: dict[str, _Pause] = {}
        self._judged_at: dict[str, float] = {}
        self._told: set[object] = set()
        #: Requests that wait for an answer, or for a modality that takes it.
        self.open = 0

    def run(self, stopping: threading.Event, beat: Callable[[], None]) -> None:
        """The thread, until it is told to stop."""
        while not stopping.is_set():
            beat()
            self.step(beat)
            stopping.wait(LOOK_SECONDS)

    def step(self, beat: Callable[[], None] = lambda: None) -> None:
        """Look at each request once. Raises Stopping."""
        seen: set[str] = set()
        number_open = 0
        for path in dict.fromkeys(folder for folder, _ in self._desks):
            try:
                with CommitmentFolder(path) as folder:
                    for request_id, kinds in sorted(folder.requests().items()):
                        beat()
                        seen.add(request_id)
                        number_open += self._looked_at(path, folder, request_id, kinds)
                self._told.discard(path)
            except (OSError, Misconfigured) as error:
                if self._is_news(path):
                    self._log.error(
                        "commitment-folder-unusable",
                        "the folder of requests for storage commitment cannot be read or written to",
                        errno=error.errno if isinstance(error, OSError) else None,
                    )
        self.open = number_open
        for known in (self._pauses, self._judged_at):
            for request_id in set(known) - seen:
                del known[request_id]

    def _looked_at(self, path: Path, folder: CommitmentFolder, request_id: str, kinds: set[Kind]) -> bool:
        """Whether the request is open after that."""
        if Kind.REPORTED in kinds or Kind.REQUEST not in kinds:
            _take_away(folder, request_id, kinds)
            return False
        try:
            if Kind.RESULT in kinds and self._is_young(folder, request_id):
                return True
            request = folder.request(request_id)
        except Unreadable:
            if self._is_news(request_id):
                self._log.warning("commitment-unreadable", "a request for storage commitment cannot be read")
            return True
        desk = self._desks.get((path, request.receiver))
        if desk is None:
            if self._is_news(request_id):
                self._log.warning(
                    "commitment-without-receiver",
                    "a request for storage commitment came by a receiver that is not configured any more",
                )
        elif self._is_due(request_id):
            self._judge(folder, request_id, request, desk, renewed=Kind.RESULT in kinds)
        return True

    def _is_young(self, folder: CommitmentFolder, request_id: str) -> bool:
        if request_id not in self._judged_at:
            try:
                self._judged_at[request_id] = folder.result(request_id).judged_at
            except Unreadable:
                return False
        return 0 <= self._clock.now() - self._judged_at[request_id] <= _RENEWED_SECONDS

    def _judge(self, folder: CommitmentFolder, request_id: str, request: Request, desk: Desk, *, renewed: bool) -> None:
        is_over = self._clock.now() - request.received_at > desk.wait_seconds
        verdicts: Mapping[Reference, Verdict] = {}
        try:
            if not self._in_trouble():
                verdicts = desk.judgement.of(request.references, until_one_waits=not is_over)
        except Stopping:
            raise
        except DicomwatchdError:
            pass  # whoever archives says what it is; here nothing can be said
        result = _result(request, verdicts, self._clock.now())
        waits = [one for one in request.references if not isinstance(verdicts.get(one), Committed | Reason)]
        if waits and not is_over:
            self._pause(request_id)
            return
        if renewed:
            _unlink(folder, name_of(request_id, Kind.RESULT))
        folder.keep_result(request_id, result)
        self._judged_at[request_id] = result.judged_at
        self._pauses.pop(request_id, None)
        if not renewed:
            self._log.info(
                "commitment-judged",
                "of {instances} instances that a modality has asked for the archive lacks proof of {failed_instances}",
                receiver=desk.receiver,
                instances=len(request.references),
                failed_instances=len(result.failed),
                seconds=self._clock.now() - request.received_at,
            )

    def _is_due(self, request_id: str) -> bool:
        pause = self._pauses.get(request_id)
        return pause is None or self._clock.monotonic() >= pause.until

    def _pause(self, request_id: str) -> None:
        last = self._pauses.get(request_id)
        seconds = FIRST_PAUSE_SECONDS if last is None else min(LONGEST_PAUSE_SECONDS, 2 * last.seconds)
        self._pauses[request_id] = _Pause(seconds, self._clock.monotonic() + seconds)

    def _is_news(self, what: object) -> bool:
        """Whether it was not told yet."""
        if what in self._told:
            return False
        self._told.add(what)
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
