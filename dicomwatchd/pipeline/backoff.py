"""What is failing: an endpoint, when different studies fail on it in a row; a study, when it fails while others pass.

An endpoint that is down is left alone for a pause that grows, and then one study at a time finds out whether it is
back; the next in line each time, so that no study can stand in the way of the word of another. A study that is failing
waits for a pause of its own, which is kept with its row, and nobody waits with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import TypeVar

from dicomwatchd.errors import Throttled, Transient
from dicomwatchd.model import Uid
from dicomwatchd.ports import Map
from dicomwatchd.queue.claims import BLAMED_OFTEN

FIRST_PAUSE_SECONDS = 2.0
#: A study's own pause, at the longest.
LONGEST_PAUSE_SECONDS = 900.0
#: An endpoint's. It is how late its recovery is noticed, and how long a healthy study waits while all others fail; and
#: one study that begins with one request, twice a minute, is no storm.
ENDPOINT_PAUSE_SECONDS = 30.0
#: Different studies that fail in a row, when no other has passed since each of them failed before.
DOWN_AFTER = 2
#: Different studies that fail in a row, whatever was before: an endpoint may have come back for a moment only.
DOWN_AFTER_ANY = 8
#: How long after its last failure an endpoint that is down is left alone by what is not about a study. Where no study
#: is left to find out whether it is back, this does.
LEFT_ALONE_SECONDS = 300.0
#: So many studies' last failures are remembered; of another it counts what happens while it is tried.
_REMEMBERED = 10_000

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure is taken for. ``own_pause_seconds``: how long the study is to wait, 0 if the endpoint's pause is
    all. ``pause_seconds``: the longer of the two. ``blamed``: how often it has failed now while others passed.
    ``shared``: it may be the endpoint, which nobody has been seen to pass since; once it is back, the study has waited
    long enough."""

    own_pause_seconds: float
    pause_seconds: float
    blamed: int
    shared: bool


@dataclass(slots=True)
class _Endpoint:
    failing: set[Uid] = field(default_factory=set)  # since something has passed
    unexplained: set[Uid] = field(default_factory=set)  # of them those that no pass of another one speaks against
    pauses: int = 0
    opened_at: float | None = None  # since when it counts as down
    until: float = 0.0
    passed_at: float = float("-inf")
    failed_at: float = float("-inf")  # for a study that is not known to be failing itself

    @property
    def seems_down(self) -> bool:
        return self.opened_at is not None or len(self.unexplained) >= DOWN_AFTER or len(self.failing) >= DOWN_AFTER_ANY


class Backoff:
    """The endpoints that are in trouble. ``monotonic`` is a clock that nobody can set: a pause must not last for as
    long as another one was wrong. Safe to be called from any thread."""

    def __init__(self, monotonic: Callable[[], float], random: Random) -> None:
        self._now = monotonic
        self._random = random
        self._lock = threading.Lock()
        self._endpoints: dict[str, _Endpoint] = {}
        self._passed_at = float("-inf")
        self._failed_at: dict[Uid, float] = {}

    def failed(self, error: Transient, study_uid: Uid, *, began: float, attempts: int = 0, blamed: int = 0) -> Verdict:
        """``error.endpoint`` failed for a study that was taken up at ``began`` (monotonic seconds), after ``attempts``
        that failed, ``blamed`` of them while others passed."""
        name = error.endpoint
        if name is None:
            raise ValueError("an error that concerns its study alone")
        with self._lock:
            now = self._now()
            endpoint = self._endpoints.setdefault(name, _Endpoint())
            others_pass = max(self._passed_at, endpoint.passed_at) > self._failed_at.get(study_uid, began)
            self._remember(study_uid, now)
            often_blamed = blamed >= BLAMED_OFTEN  # what it meets says nothing of the endpoint
            throttled = isinstance(error, Throttled)  # a service says so of itself
            if not often_blamed:
                endpoint.failing.add(study_uid)
                endpoint.failed_at = now
                if not others_pass:
                    endpoint.unexplained.add(study_uid)
            if throttled or (not often_blamed and endpoint.seems_down):
                self._leave_alone(endpoint, now, began, error.retry_after_seconds)
            left = max(0.0, endpoint.until - now)
            asked = error.retry_after_seconds
            if throttled and others_pass and not often_blamed:
                own = pause_seconds(attempts, self._random, ENDPOINT_PAUSE_SECONDS)
                return Verdict(own, max(own, left), blamed, shared=False)
            if others_pass or often_blamed:
                own = max(asked or 0.0, pause_seconds(blamed, self._random))
                return Verdict(own, max(own, left), blamed + 1, shared=False)
            if endpoint.opened_at is not None:
                return Verdict(0.0, left, blamed, shared=True)
            own = min(asked or pause_seconds(attempts, self._random, ENDPOINT_PAUSE_SECONDS), ENDPOINT_PAUSE_SECONDS)
            return Verdict(own, own, blamed, shared=True)

    def passed(self, study_uid: Uid, endpoints: Iterable[str] | None = None) -> bool:
        """A study has come through, on these endpoints or on all; whether one was down until now."""
        with self._lock:
            now = self._now()
            names = list(self._endpoints) if endpoints is None else [n for n in endpoints if n in self._endpoints]
            if endpoints is None:
                self._passed_at = now
                self._failed_at.pop(study_uid, None)
            came_back = False
            for name in names:
                came_back |= self._endpoints[name].opened_at is not None
                self._endpoints[name] = _Endpoint(passed_at=now)
            return came_back

    @property
    def in_trouble(self) -> bool:
        """Whether an endpoint counts as down."""
        with self._lock:
            return any(endpoint.opened_at is not None for endpoint in self._endpoints.values())

    @property
    def is_to_be_left_alone(self) -> bool:
        """Whether an endpoint that counts as down has failed of late. At a quiet site it may count as down for days:
        only a study that passes ends that."""
        with self._lock:
            now = self._now()
            return any(
                one.opened_at is not None and now - one.failed_at < LEFT_ALONE_SECONDS
                for one in self._endpoints.values()
            )

    def pause(self) -> float:
        """Seconds until something may be tried again; 0 when it may be now."""
        with self._lock:
            now = self._now()
            return max((one.until - now for one in self._endpoints.values() if one.until > now), default=0.0)

    def remaining(self) -> dict[str, float]:
        """Endpoint to seconds left, for the status."""
        with self._lock:
            now = self._now()
            return {
                name: round(max(0.0, one.until - now), 1)
                for name, one in self._endpoints.items()
                if one.opened_at is not None
            }

    def _leave_alone(self, endpoint: _Endpoint, now: float, began: float, retry_after_seconds: float | None) -> None:
        if endpoint.opened_at is None:
            endpoint.opened_at = now
        elif endpoint.until > now or began < endpoint.opened_at:
            return  # it is one of those that were under way when the trouble began
        asked = retry_after_seconds or pause_seconds(endpoint.pauses, self._random, ENDPOINT_PAUSE_SECONDS)
        endpoint.until = now + min(asked, ENDPOINT_PAUSE_SECONDS)
        endpoint.pauses += 1

    def _remember(self, study_uid: Uid, now: float) -> None:
        self._failed_at.pop(study_uid, None)
        if len(self._failed_at) >= _REMEMBERED:
            del self._failed_at[next(iter(self._failed_at))]
        self._failed_at[study_uid] = now


def pause_seconds(failures: int, random: Random, longest_seconds: float = LONGEST_PAUSE_SECONDS) -> float:
    """Exponential, with full jitter in its upper half."""
    longest = min(longest_seconds, FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 20))
    return random.uniform(longest / 2, longest)


def gently(run: Map) -> Map:
    """Items one at first, then two, four and so on: whoever finds out whether something works again begins with one
    request, and what does not end takes no more workers than have come back from it before."""

    def careful(function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        source = iter(items)
        some = 1
        while chunk := list(islice(source, some)):
            yield from run(function, chunk)
            some *= 2

    return careful
