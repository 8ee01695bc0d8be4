"""Which study next, and what becomes of it: claims in turn, runs the stages, decides about errors.

What is failing, an endpoint or a study, is for `backoff` to say; how many may be under way for `slots`.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from random import Random

from dicomwatchd.errors import (
    BadManifest,
    CatalogueEntryDamaged,
    ClaimLost,
    DicomwatchdError,
    Fatal,
    ForeignManifest,
    InboxNotResponding,
    InvalidRequest,
    NoSuchObject,
    NotSupported,
    Permanent,
    RequestRefused,
    SourceChanged,
    Stopping,
    StoreUnreliable,
    Throttled,
    Transient,
)
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.backoff import Backoff, Verdict, gently, pause_seconds
from dicomwatchd.pipeline.sending.early import EarlySender
from dicomwatchd.pipeline.shipment import Context, Shipment
from dicomwatchd.pipeline.slots import Kind, Slot, Slots
from dicomwatchd.pipeline.stages import ship
from dicomwatchd.ports import Map
from dicomwatchd.queue.claims import First
from dicomwatchd.queue.database.upgrade import FAULT
from dicomwatchd.queue.parked import LONGEST_WAIT_SECONDS
from dicomwatchd.queue.rows import Claim
from dicomwatchd.telemetry.fields import error_fields

#: What another service said: believed once the next attempt meets it too. One garbled answer must not park a study.
CONFIRM_BEFORE_PARKING = (
    RequestRefused,
    InvalidRequest,
    NoSuchObject,
    NotSupported,
    BadManifest,
    ForeignManifest,
    CatalogueEntryDamaged,
    StoreUnreliable,
)
#: One in so many goes to a study that has failed before, if one may be tried, however many new ones there are.
TRIED_EVERY = 4
#: Which lines of the queue, in this order, the studies of a slot come from: of those known to be failing, or of the
#: others.
_LINES = {Kind.STUDY: (False,), Kind.BLAMED: (True,), Kind.TRIAL: (False, True)}


class Dispatcher:
    """Keeps up to ``active`` shipments going, and some beside those that take long, or whose study is known to be
    failing. `work_off` does what can be done now; `run` is the thread around it."""

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
        self._random = random
        self._on_shipped = on_shipped
        self._on_fatal = on_fatal
        self._on_throttled = on_throttled
        self._wake = threading.Event()
        self._running: set[Future[None]] = set()
        self._ended = threading.Event()
        self._unreleased: deque[Claim] = deque()
        self._begun: Counter[Kind] = Counter()
        self._slots = Slots(active, context.clock.monotonic)
        self._executor = ThreadPoolExecutor(self._slots.most + 1, thread_name_prefix="shipment")
        self.backoff = Backoff(context.clock.monotonic, random)
        self._early = EarlySender(context, self._may_send_early, self._early_failed, self._early_passed)
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
                self._context.log.warning(
                    "dispatch-delayed", "the state cannot be used at the moment", **error_fields(error)
                )
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
        self._release_the_rest()
        if self._may_send_early():
            self._send_early()
        while (found := self._next()) is not None:
            self._ship(*found)
            count += 1
        return count

    def _start_what_can_be(self) -> None:
        self._reap()
        self._release_the_rest()
        self._context.claims.queue_due()
        while (found := self._next()) is not None:
            future = self._executor.submit(self._ship, *found)
            self._running.add(future)
            future.add_done_callback(lambda _: self._wake.set())
        if self._sending_early is None and self._may_send_early() and self._news.is_set():
            self._news.clear()
            self._sending_early = self._executor.submit(self._send_early)
            self._sending_early.add_done_callback(lambda _: self._wake.set())

    def _next(self) -> tuple[Claim, Slot] | None:
        """The study that may begin now, and its slot. While an endpoint is down one study finds out whether it is back,
        and the others wait for its word."""
        if self._context.cancelled() or not self._may_claim():
            return None
        kinds = (Kind.TRIAL,) if self.backoff.in_trouble else (Kind.STUDY, Kind.BLAMED)
        for kind in kinds:
            if self._slots.wait(kind) != 0.0:
                continue
            for line in _LINES[kind]:
                if (claim := self._context.claims.claim(often_blamed=line, first=self._first(kind))) is not None:
                    self._begun[kind] += 1
                    return claim, self._slots.take(kind)
        return None

    def _first(self, kind: Kind) -> First:
        """What is new comes before what has failed, though not for ever. A trial goes to those at both ends of the
        line in turn: what has come since many failed has to wait for none of them."""
        if kind is Kind.TRIAL:
            return First.UNTRIED if self._begun[kind] % 2 else First.NEWEST
        return First.TRIED if self._begun[kind] % TRIED_EVERY == TRIED_EVERY - 1 else First.UNTRIED

    def _may_claim(self) -> bool:
        return not self._ended.is_set() and not self.backoff.pause()

    def _may_send_early(self) -> bool:
        """Only while all is well: what is quiet comes first, and one shipment alone finds out whether a service is
        back."""
        return self._may_claim() and not self.backoff.in_trouble and self._slots.wait(Kind.STUDY) == 0.0

    def _send_early(self) -> None:
        try:
            self._early.round(self._lane())
        except (Stopping, InboxNotResponding):
            return
        except Transient as error:
            self._context.log.warning(
                "dispatch-delayed", "the state cannot be used at the moment", **error_fields(error)
            )

    def _early_failed(self, study_uid: Uid, error: DicomwatchdError, began: float, times: int) -> float:
        """The study will meet the same when its time has come, and say so; here it is one of those that fail on an
        endpoint, and is left alone for a while."""
        if isinstance(error, Fatal):
            self._ended.set()
            self._on_fatal(error)
        elif isinstance(error, Transient) and error.endpoint is not None:
            self._judge(error, study_uid, began)
        return pause_seconds(times, self._random)

    def _early_passed(self, study_uid: Uid, endpoints: frozenset[str]) -> None:
        if self.backoff.passed(study_uid, endpoints):
            self._endpoints_are_back()

    def _reap(self) -> None:
        if self._sending_early is not None and self._sending_early.done():
            ended, self._sending_early = self._sending_early, None
            ended.result()
        for future in [f for f in self._running if f.done()]:
            self._running.discard(future)
            if (error := future.exception()) is not None:
                raise error

    def _pause(self) -> float:
        if pause := self.backoff.pause():
            return min(pause, 5.0)
        if self._ended.is_set():
            return 5.0
        # Where nothing can begin before a shipment has ended, that wakes.
        kinds = (Kind.TRIAL,) if self.backoff.in_trouble else (Kind.STUDY, Kind.BLAMED)
        waits = {kind: self._slots.wait(kind) for kind in kinds}
        free = [line for kind, wait in waits.items() if wait == 0.0 for line in _LINES[kind]]
        pause = min([5.0, *(wait for wait in waits.values() if wait)])
        if free and (due := self._context.claims.next_try_at(*free)) is not None:
            pause = min(pause, due - self._context.clock.now())
        return max(pause, 0.05)

    def _ship(self, claim: Claim, slot: Slot) -> None:
        try:
            self._bring_to_its_end(claim, slot)
        finally:
            self._slots.release(slot)

    def _bring_to_its_end(self, claim: Claim, slot: Slot) -> None:
        # What has failed before, or finds out whether a service is back, begins with one request.
        lane = self._lane() if slot.kind is Kind.STUDY and not claim.attempts else gently(self._lane())
        try:
            self._early.leave(claim.study_uid)
            shipment = ship(claim, lane, self._context, self._early.sent_of(claim.study_uid))
        except (ClaimLost, SourceChanged):
            return  # the study is arriving again
        except Stopping:
            self._release(claim, not_before=0.0, attempts=claim.attempts, code="stopping", reason="")
        except InboxNotResponding as error:
            # It is claimed again when its inbox answers, and not before.
            self._release(claim, not_before=0.0, attempts=claim.attempts, code=error.code, reason=error.message)
        except Transient as error:
            self._try_later(claim, error, slot.began)
        except Permanent as error:
            self._park_once_confirmed(claim, error, error.code, str(error))
        except Fatal as error:
            self._ended.set()  # nothing more is sent to an archive that is refused
            self._release(claim, not_before=0.0, attempts=claim.attempts, code=error.code, reason=error.message)
            self._on_fatal(error)
        except Exception as error:  # noqa: BLE001  a fault of ours that one study meets must not stop the others
            self._park_once_confirmed(claim, error, FAULT, "a fault in the program; see the log")
        else:
            if shipment.files and self.backoff.passed(claim.study_uid):
                self._endpoints_are_back()
            self._early.shipped(claim.study_uid)
            if shipment.files:
                self._on_shipped(shipment)

    def _try_later(self, claim: Claim, error: Transient, began: float) -> None:
        if error.endpoint is None:
            pause = error.retry_after_seconds or pause_seconds(claim.attempts, self._random)
            self._delay(claim, error, pause, pause, error.code, error.message)
            return
        verdict = self._judge(error, claim.study_uid, began, claim)
        self._delay(
            claim,
            error,
            verdict.pause_seconds,
            verdict.own_pause_seconds,
            error.code,
            error.message,
            blamed=verdict.blamed,
            endpoint=error.endpoint if verdict.shared else None,
        )

    def _judge(self, error: Transient, study_uid: Uid, began: float, claim: Claim | None = None) -> Verdict:
        if isinstance(error, Throttled):
            self._on_throttled()
        attempts, blamed = (claim.attempts, claim.blamed) if claim is not None else (0, 0)
        return self.backoff.failed(error, study_uid, began=began, attempts=attempts, blamed=blamed)

    def _endpoints_are_back(self) -> None:
        """Who met the outage waits no longer."""
        try:
            self._context.claims.endpoints_back()
        except Transient as error:  # then they come in their turn, which is later
            self._context.log.warning(
                "dispatch-delayed", "the state cannot be used at the moment", **error_fields(error)
            )
        self._wake.set()

    def _park_once_confirmed(self, claim: Claim, error: Exception, code: str, reason: str) -> None:
        # What is not Permanent is a fault that nobody expected.
        is_doubtful = isinstance(error, CONFIRM_BEFORE_PARKING) or not isinstance(error, Permanent)
        if is_doubtful and claim.last_code != code:
            pause = pause_seconds(claim.attempts, self._random)
            self._delay(claim, error, pause, pause, code, reason)
        else:
            self._park(claim, error, code, reason)

    def _delay(
        self,
        claim: Claim,
        error: Exception,
        pause: float,
        own_pause: float,
        code: str,
        reason: str,
        *,
        blamed: int | None = None,
        endpoint: str | None = None,
    ) -> None:
        """``own_pause`` is the study's; ``pause`` may be that of an endpoint, for all who go there."""
        self._context.log.warning(
            "study-delayed",
            "the study will be tried again later",
            study_uid=claim.study_uid,
            attempt=claim.attempts + 1,
            pause_seconds=pause,
            **error_fields(error),
        )
        not_before = self._context.clock.now() + min(own_pause, LONGEST_WAIT_SECONDS) if own_pause else 0.0
        self._release(
            claim,
            not_before=not_before,
            attempts=claim.attempts + 1,
            code=code,
            reason=reason,
            blamed=claim.blamed if blamed is None else blamed,
            endpoint=endpoint,
        )

    def _park(self, claim: Claim, error: Exception, code: str, reason: str) -> None:
        self._context.log.error(
            "study-parked", "the study is parked and needs attention", study_uid=claim.study_uid, **error_fields(error)
        )
        try:
            self._context.claims.park(claim, code=code, reason=reason)
        except ClaimLost:
            return  # a file has changed meanwhile: that may well have been the cure
        except DicomwatchdError as failure:
            self._keep_for_later(claim, failure)

    def _release(
        self,
        claim: Claim,
        *,
        not_before: float,
        attempts: int,
        code: str,
        reason: str,
        blamed: int | None = None,
        endpoint: str | None = None,
    ) -> None:
        try:
            self._context.claims.release(
                claim,
                not_before=not_before,
                attempts=attempts,
                code=code,
                reason=reason,
                blamed=claim.blamed if blamed is None else blamed,
                endpoint=endpoint,
            )
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

    def _release_the_rest(self) -> None:
        """Raises Transient while the state still cannot be written."""
        while self._unreleased:
            claim = self._unreleased.popleft()
            try:
                self._context.claims.release(
                    claim,
                    not_before=0.0,
                    attempts=claim.attempts,
                    code="state",
                    reason="the state could not be written",
                    blamed=claim.blamed,
                )
            except ClaimLost:
                continue
            except Transient:
                self._unreleased.append(claim)
                raise
