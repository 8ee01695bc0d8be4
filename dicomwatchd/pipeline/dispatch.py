"""Which study next, and what becomes of it: claims in order of quiet, runs the stages, decides about errors."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from random import Random

from dicomwatchd.errors import (
    ClaimLost,
    DicomwatchdError,
    Fatal,
    InboxSilent,
    Permanent,
    SourceChanged,
    Stopping,
    Transient,
)
from dicomwatchd.pipeline.early import EarlySender
from dicomwatchd.pipeline.shipment import Context, Shipment
from dicomwatchd.pipeline.stages import ship
from dicomwatchd.ports import Map
from dicomwatchd.queue.rows import Claim
from dicomwatchd.queue.shipments import LONGEST_WAIT_SECONDS
from dicomwatchd.queue.upgrade import FAULT
from dicomwatchd.telemetry.fields import error_fields

#: What another service said, or what nobody expected: believed once the next attempt meets it too. One garbled answer
#: must not park a study.
HEARSAY = frozenset(
    (
        "refused",
        "invalid-request",
        "no-such-object",
        "not-supported",
        "bad-manifest",
        "foreign-manifest",
        "catalogue-damaged",
        "store-unreliable",
        FAULT,
    )
)

FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 900.0


class Backoff:
    """One pause for each endpoint that is in trouble, shared by all studies: no storm while it is down, none when it
    is back. Grows with each failure after the pause has ended, ends with the first success. ``monotonic`` is a clock
    that nobody can set: a pause must not last for as long as another one was wrong."""

    def __init__(self, monotonic: Callable[[], float], random: Random) -> None:
        self._now = monotonic
        self._random = random
        self._lock = threading.Lock()
        self._pauses: dict[str, tuple[int, float]] = {}

    def failed(self, endpoint: str, retry_after_seconds: float | None) -> float:
        """Returns for how many seconds nothing is to be tried."""
        with self._lock:
            now = self._now()
            failures, until = self._pauses.get(endpoint, (0, now))
            if until <= now:  # else it is one of those that were under way when the trouble began
                until = now + (retry_after_seconds or pause_seconds(failures, self._random))
                self._pauses[endpoint] = (failures + 1, until)
            return until - now

    def succeeded(self) -> None:
        with self._lock:
            self._pauses.clear()

    @property
    def in_trouble(self) -> bool:
        """Whether an endpoint has failed and nothing has succeeded since."""
        with self._lock:
            return bool(self._pauses)

    def pause(self) -> float:
        """Seconds until something may be tried again; 0 when it may be now."""
        with self._lock:
            now = self._now()
            return max((until - now for _, until in self._pauses.values() if until > now), default=0.0)

    def remaining(self) -> dict[str, float]:
        """Endpoint to seconds left, for the status."""
        with self._lock:
            now = self._now()
            return {name: round(max(0.0, until - now), 1) for name, (_, until) in self._pauses.items()}


def pause_seconds(failures: int, random: Random) -> float:
    """Exponential, with full jitter in its upper half."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 20))
    return random.uniform(longest / 2, longest)


class Dispatcher:
    """Keeps up to ``active`` shipments going. `step` does what can be done now; `run` is the thread around it."""

    def __init__(
        self,
        context: Context,
        lane: Callable[[], Map],
        active: int,
        random: Random,
        on_shipped: Callable[[Shipment], None],
        on_fatal: Callable[[Fatal], None],
        on_throttled: Callable[[], None] = lambda: None,
    ) -> None:
        self._context = context
        self._lane = lane
        self._active = active
        self._random = random
        self._on_shipped = on_shipped
        self._on_fatal = on_fatal
        self._on_throttled = on_throttled
        self._wake = threading.Event()
        self._running: set[Future[None]] = set()
        self._ended = threading.Event()
        self._unreleased: deque[Claim] = deque()
        self._executor = ThreadPoolExecutor(active + 1, thread_name_prefix="shipment")
        self.backoff = Backoff(context.clock.monotonic, random)
        self._early = EarlySender(context, self._may_send_early, self._early_failed)
        self._sending_early: Future[None] | None = None
        self._news = threading.Event()

    def wake(self) -> None:
        self._wake.set()

    def arrived(self) -> None:
        """Files have arrived whose study is not quiet yet, or is now."""
        self._news.set()
        self._wake.set()

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def run(self, stopping: threading.Event, beat: Callable[[], None]) -> None:
        """The dispatcher's thread: returns once it was told to stop and every shipment has come to a rest."""
        while not stopping.is_set():
            beat()
            self._wake.clear()
            try:
                self._start_what_can_be()
                pause = self._pause()
            except Transient as error:
                self._context.log.warning("dispatch-delayed", "the state cannot be used now", **error_fields(error))
                pause = 5.0
            self._wake.wait(pause)
        while self._running or self._sending_early is not None:
            beat()
            wait([*self._running, *([self._sending_early] if self._sending_early else [])], timeout=1)
            self._reap()
        self._executor.shutdown()

    def work_off(self) -> int:
        """Ship everything that can be shipped now, one study after the other, in this thread; returns how many."""
        if self._early.at_work:
            return 0  # in the middle of it: a thread of its own would have to wait here
        count = 0
        self._give_back_the_rest()
        if self._may_send_early():
            self._send_early()
        while self._may_claim() and (claim := self._context.shipments.claim()):
            self._ship(claim)
            count += 1
        return count

    def _start_what_can_be(self) -> None:
        self._reap()
        self._give_back_the_rest()
        self._context.shipments.queue_due()
        while len(self._running) < self._most_at_once() and self._may_claim():
            claim = self._context.shipments.claim()
            if claim is None:
                break
            future = self._executor.submit(self._ship, claim)
            self._running.add(future)
            future.add_done_callback(lambda _: self._wake.set())
        if self._sending_early is None and self._may_send_early() and self._news.is_set():
            self._news.clear()
            self._sending_early = self._executor.submit(self._send_early)
            self._sending_early.add_done_callback(lambda _: self._wake.set())

    def _may_claim(self) -> bool:
        return not self._ended.is_set() and not self.backoff.pause()

    def _most_at_once(self) -> int:
        """After a failure one study finds out whether the endpoint is back; the others wait for its word."""
        return 1 if self.backoff.in_trouble else self._active

    def _may_send_early(self) -> bool:
        """Only while all is well: what is quiet comes first, and one shipment alone finds out whether a service is
        back."""
        return self._may_claim() and not self.backoff.in_trouble and len(self._running) < self._active

    def _send_early(self) -> None:
        try:
            self._early.round(self._lane())
        except (Stopping, InboxSilent):
            return
        except Transient as error:
            self._context.log.warning("dispatch-delayed", "the state cannot be used now", **error_fields(error))

    def _early_failed(self, error: DicomwatchdError) -> None:
        """Its study will meet the same when its time has come, and say so; here the pause begins that all share."""
        if isinstance(error, Fatal):
            self._ended.set()
            self._on_fatal(error)
        elif isinstance(error, Transient) and error.endpoint is not None:
            self._pause_for(error.endpoint, error)

    def _reap(self) -> None:
        if self._sending_early is not None and self._sending_early.done():
            ended, self._sending_early = self._sending_early, None
            ended.result()
        for future in [f for f in self._running if f.done()]:
            self._running.discard(future)
            if (error := future.exception()) is not None:
                raise error

    def _pause(self) -> float:
        now = self._context.clock.now()
        if pause := self.backoff.pause():
            return min(pause, 5.0)
        if self._ended.is_set() or len(self._running) >= self._most_at_once():
            return 5.0  # nothing can begin before a shipment has ended, and that wakes
        due = self._context.shipments.next_try_at()
        if due is None:
            return 5.0
        return min(max(due - now, 0.05), 5.0)

    def _ship(self, claim: Claim) -> None:
        try:
            self._early.leave(claim.study_uid)
            shipment = ship(claim, self._lane(), self._context)
        except (ClaimLost, SourceChanged):
            return  # the study is arriving again
        except Stopping:
            self._give_back(claim, not_before=0.0, attempts=claim.attempts, code="stopping", reason="")
        except InboxSilent as error:
            # It is claimed again when its inbox answers, and not before.
            self._give_back(claim, not_before=0.0, attempts=claim.attempts, code=error.code, reason=error.message)
        except Transient as error:
            self._try_later(claim, error)
        except Permanent as error:
            self._believe(claim, error, error.code, str(error))
        except Fatal as error:
            self._ended.set()  # nothing more is sent to an archive that is refused
            self._give_back(claim, not_before=0.0, attempts=claim.attempts, code=error.code, reason=error.message)
            self._on_fatal(error)
        except Exception as error:  # noqa: BLE001  a fault of ours that one study meets must not stop the others
            self._believe(claim, error, FAULT, "a fault of the program; see the log")
        else:
            self.backoff.succeeded()
            shipment.early_files, shipment.early_bytes = self._early.sent_of(claim.study_uid)
            if shipment.files:
                self._on_shipped(shipment)

    def _try_later(self, claim: Claim, error: Transient) -> None:
        if error.endpoint is not None:
            pause = self._pause_for(error.endpoint, error)
        else:
            pause = error.retry_after_seconds or pause_seconds(claim.attempts, self._random)
        self._delay(claim, error, pause, error.code, error.message)

    def _pause_for(self, endpoint: str, error: Transient) -> float:
        if error.code == "throttled":
            self._on_throttled()
        return self.backoff.failed(endpoint, error.retry_after_seconds)

    def _believe(self, claim: Claim, error: Exception, code: str, reason: str) -> None:
        if code in HEARSAY and claim.last_code != code:
            self._delay(claim, error, pause_seconds(claim.attempts, self._random), code, reason)
        else:
            self._park(claim, error, code, reason)

    def _delay(self, claim: Claim, error: Exception, pause: float, code: str, reason: str) -> None:
        self._context.log.warning(
            "study-delayed",
            "the study is tried again later",
            study_uid=claim.study_uid,
            attempt=claim.attempts + 1,
            pause_seconds=pause,
            **error_fields(error),
        )
        not_before = self._context.clock.now() + min(pause, LONGEST_WAIT_SECONDS)
        self._give_back(claim, not_before=not_before, attempts=claim.attempts + 1, code=code, reason=reason)

    def _park(self, claim: Claim, error: Exception, code: str, reason: str) -> None:
        self._context.log.error(
            "study-parked", "the study needs somebody's help", study_uid=claim.study_uid, **error_fields(error)
        )
        try:
            self._context.shipments.park(claim, code=code, reason=reason)
        except ClaimLost:
            return  # a file has changed meanwhile: that may well have been the cure
        except DicomwatchdError as failure:
            self._keep_for_later(claim, failure)

    def _give_back(self, claim: Claim, *, not_before: float, attempts: int, code: str, reason: str) -> None:
        try:
            self._context.shipments.release(claim, not_before=not_before, attempts=attempts, code=code, reason=reason)
        except ClaimLost:
            return
        except DicomwatchdError as error:
            self._keep_for_later(claim, error)

    def _keep_for_later(self, claim: Claim, error: DicomwatchdError) -> None:
        """The state cannot be written now. The claim ends once it can be, or with this run."""
        self._unreleased.append(claim)
        self._context.log.error(
            "study-unreleased", "the state cannot be written", study_uid=claim.study_uid, **error_fields(error)
        )

    def _give_back_the_rest(self) -> None:
        """Raises Transient while the state still cannot be written."""
        while self._unreleased:
            claim = self._unreleased.popleft()
            try:
                self._context.shipments.release(
                    claim, not_before=0.0, attempts=claim.attempts, code="state", reason="the state was not writable"
                )
            except ClaimLost:
                continue
            except Transient:
                self._unreleased.append(claim)
                raise
