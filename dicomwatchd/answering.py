"""Whether the folders that files come from answer, found out by nobody who would have to wait for it.

A share that is mounted hard and whose server is away holds up, for as long as that lasts, every thread that asks it for
anything. So whoever touches an inbox's path says so (`Inboxes.at`), or has it done by a thread that can be left behind
(`Inboxes.call`). Work that has shown no sign of life for ``limit_seconds`` is given up: whoever waits for it is told,
its thread is counted out, and until that thread has come back and has ended, nothing new is begun on that inbox.

Work that was given up must not go on with what it was about when it comes back, perhaps hours later: its next sign of
life, and the end of what it was at, raise InboxNotResponding in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from dicomwatchd.errors import InboxNotResponding
from dicomwatchd.ports import Clock, Log

#: How often somebody who waits looks whether he waits in vain.
_CHECK_SECONDS = 0.2
#: One thread may wait for so many times the limit while others have answers from the same inbox.
PATIENCE = 10

T = TypeVar("T")


class Inboxes(Protocol):
    """The folders that files come from, by their sources' ids."""

    def know(self, source_id: int, name: str) -> None:
        """What a source is called."""
        ...

    def at(self, source_id: int, *, leaving: bool = False) -> AbstractContextManager[None]:
        """Around what the calling thread does with the inbox. Raises InboxNotResponding where it is not to be asked now
        (but not when ``leaving`` it), and at the end where the work was given up meanwhile."""
        ...

    def of_its_own(self, source_id: int) -> AbstractContextManager[None]:
        """As `at`, for a thread that nobody else waits for: it is never refused and never given up."""
        ...

    def begin(self, source_id: int, work: Callable[[], T]) -> Callable[[], T]:
        """Have work done by a thread of its own; what is returned waits for its result. Both raise
        InboxNotResponding."""
        ...

    def call(self, source_id: int, work: Callable[[], T]) -> T:
        """`begin`, and wait."""
        ...

    def beat(self) -> None:
        """A sign of life of the calling thread. Raises InboxNotResponding where its work was given up."""
        ...

    def elsewhere(self) -> AbstractContextManager[None]:
        """Around what the calling thread asks of others than the inbox, in the midst of its work there: of the archive,
        of the state. However long that takes says nothing of the inbox."""
        ...

    def not_responding(self) -> dict[int, float]:
        """The inboxes that do not answer, and for how many seconds."""
        ...


class AlwaysAnswering:
    """Everything is done by whoever asks for it. For simulation and small tools."""

    def know(self, source_id: int, name: str) -> None: ...

    def at(self, source_id: int, *, leaving: bool = False) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()

    def of_its_own(self, source_id: int) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()

    def begin(self, source_id: int, work: Callable[[], T]) -> Callable[[], T]:  # noqa: ARG002
        result = work()
        return lambda: result

    def call(self, source_id: int, work: Callable[[], T]) -> T:  # noqa: ARG002
        return work()

    def beat(self) -> None: ...

    def elsewhere(self) -> AbstractContextManager[None]:
        return nullcontext()

    def not_responding(self) -> dict[int, float]:
        return {}


@dataclass(slots=True)
class _Visit:
    source_id: int
    thread: str
    at: float
    may_be_given_up: bool
    depth: int = 0
    elsewhere: bool = False  # it waits for something else now
    given_up: bool = False


@dataclass(slots=True)
class _Outcome(Generic[T]):
    done: threading.Event = field(default_factory=threading.Event)
    result: list[T] = field(default_factory=list)
    error: BaseException | None = None


class Answering:
    """`Inboxes` with threads. `tick` is called about every second."""

    def __init__(
        self,
        clock: Clock,
        log: Log,
        limit_seconds: float,
        on_back: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_back`` hears when an inbox answers again."""
        self._clock, self._log, self._on_back = clock, log, on_back
        self._names: dict[int, str] = {}
        self._limit = limit_seconds
        self._lock = threading.Lock()
        self._visits: dict[int, _Visit] = {}  # by the thread's identifier
        self._since: dict[int, float] = {}
        self._shown_at: dict[int, float] = {}  # when a source has last shown that it answers

    def know(self, source_id: int, name: str) -> None:
        self._names[source_id] = name

    def name(self, source_id: int) -> str:
        return self._names[source_id]

    # -- Inboxes ----------------------------------------------------------------------------------------------------

    @contextmanager
    def at(self, source_id: int, *, leaving: bool = False) -> Iterator[None]:
        visit = self._enter(source_id, refusing=not leaving)
        try:
            yield
        finally:
            self._leave(visit)
        if visit.given_up and not leaving:
            raise _not_responding()

    @contextmanager
    def of_its_own(self, source_id: int) -> Iterator[None]:
        visit = self._enter(source_id, refusing=False, may_be_given_up=False)
        try:
            yield
        finally:
            self._leave(visit)

    def begin(self, source_id: int, work: Callable[[], T]) -> Callable[[], T]:
        with self._lock:
            if source_id in self._since:
                raise _not_responding()
        outcome: _Outcome[T] = _Outcome()
        entered = threading.Event()

        def run() -> None:
            visit = self._enter(source_id, refusing=False)
            visits.append(visit)
            entered.set()
            try:
                outcome.result.append(work())
            except BaseException as error:  # noqa: BLE001  handed to whoever waits for the result
                outcome.error = error
            finally:
                self._leave(visit)
                self.returned()
                outcome.done.set()

        visits: list[_Visit] = []
        threading.Thread(target=run, name=f"inbox-{source_id}", daemon=True).start()
        entered.wait()

        def wait() -> T:
            while not outcome.done.wait(_CHECK_SECONDS):
                self._check()
                if visits[0].given_up:
                    raise _not_responding()
            if outcome.error is not None:
                raise outcome.error
            if visits[0].given_up:
                raise _not_responding()
            return outcome.result[0]

        return wait

    def call(self, source_id: int, work: Callable[[], T]) -> T:
        return self.begin(source_id, work)()

    def beat(self) -> None:
        visit = self._visits.get(threading.get_ident())
        if visit is None:
            return
        with self._lock:
            visit.at = self._shown_at[visit.source_id] = self._clock.monotonic()
            if visit.given_up:
                raise _not_responding()

    def elsewhere(self) -> AbstractContextManager[None]:
        visit = self._visits.get(threading.get_ident())
        return nullcontext() if visit is None or visit.elsewhere else self._outside(visit)

    @contextmanager
    def _outside(self, visit: _Visit) -> Iterator[None]:
        with self._lock:
            visit.elsewhere = True
        try:
            yield
        finally:
            with self._lock:
                visit.elsewhere, visit.at = False, self._clock.monotonic()

    def not_responding(self) -> dict[int, float]:
        now = self._clock.monotonic()
        with self._lock:
            return {source_id: now - since for source_id, since in self._since.items()}

    # -- those who look after it ------------------------------------------------------------------------------------

    def returned(self) -> None:
        """The calling thread has ended the work that it was at, given up or not."""
        with self._lock:
            self._visits.pop(threading.get_ident(), None)

    def hurry(self, limit_seconds: float) -> None:
        """From now on nobody is waited for longer than this."""
        self._limit = min(self._limit, limit_seconds)

    def tick(self) -> list[str]:
        """Say what has fallen silent and what answers again; returns the names of the threads whose work was given up
        and has not ended yet."""
        if self._check():
            self._on_back()
        with self._lock:
            return [visit.thread for visit in self._visits.values() if visit.given_up]

    def gave_up(self, thread: str) -> bool:
        """Whether what the thread of this name is at was given up."""
        with self._lock:
            return any(visit.given_up and visit.thread == thread for visit in self._visits.values())

    def inside(self) -> set[str]:
        """The names of the threads that are at an inbox now: how long they are silent is this module's affair."""
        with self._lock:
            return {v.thread for v in self._visits.values() if v.given_up or (v.depth and not v.elsewhere)}

    # -- details ----------------------------------------------------------------------------------------------------

    def _enter(self, source_id: int, *, refusing: bool, may_be_given_up: bool = True) -> _Visit:
        me = threading.get_ident()
        with self._lock:
            visit = self._visits.get(me)
            if visit is None:
                if refusing and source_id in self._since:
                    raise _not_responding()
                if not any(v.depth and not v.elsewhere and v.source_id == source_id for v in self._visits.values()):
                    self._shown_at[source_id] = self._clock.monotonic()  # there was nobody for it to answer
                visit = self._visits[me] = _Visit(
                    source_id, threading.current_thread().name, self._clock.monotonic(), may_be_given_up
                )
            elif visit.given_up and refusing:
                raise _not_responding()
            visit.depth += 1
            visit.at = self._clock.monotonic()
            return visit

    def _leave(self, visit: _Visit) -> None:
        with self._lock:
            visit.depth -= 1
            visit.at = self._shown_at[visit.source_id] = self._clock.monotonic()
            if not visit.depth and not visit.given_up:
                self._visits.pop(threading.get_ident(), None)

    def _check(self) -> bool:
        """Whether one answers again."""
        now = self._clock.monotonic()
        with self._lock:
            silent: dict[int, float] = {}
            for visit in self._visits.values():
                waits = now - visit.at
                no_sign = now - self._shown_at[visit.source_id]
                # On a slow share others show that it answers; but one file that nobody gets is not waited for either.
                is_there = visit.depth > 0 and not visit.elsewhere
                is_late = is_there and (min(waits, no_sign) > self._limit or waits > PATIENCE * self._limit)
                visit.given_up = visit.given_up or (is_late and visit.may_be_given_up)
                if is_late or visit.given_up:
                    silent[visit.source_id] = min(silent.get(visit.source_id, now), visit.at)
            # One that is silent already counts from when it fell so, though the thread that showed it may be back.
            since = {source_id: self._since.get(source_id, at) for source_id, at in silent.items()}
            fallen, back = since.keys() - self._since.keys(), self._since.keys() - since.keys()
            before, self._since = self._since, since
        for source_id in fallen:
            self._log.error(
                "inbox-not-responding",
                "the inbox does not answer; the other inboxes carry on, and this one resumes when it answers again",
                inbox=self.name(source_id),
                seconds=now - since[source_id],
            )
        for source_id in back:
            self._log.warning(
                "inbox-responding",
                "the inbox answers again",
                inbox=self.name(source_id),
                seconds=now - before[source_id],
            )
        return bool(back)


def _not_responding() -> InboxNotResponding:
    return InboxNotResponding("an inbox does not answer")


def within(seconds: float, work: Callable[[], T]) -> T | None:
    """The result of work that may never end, done by a thread that is left behind then; None if it takes longer.
    Raises as ``work``."""
    outcome: _Outcome[T] = _Outcome()

    def run() -> None:
        try:
            outcome.result.append(work())
        except BaseException as error:  # noqa: BLE001  handed to whoever waits for the result
            outcome.error = error
        outcome.done.set()

    threading.Thread(target=run, name="asked", daemon=True).start()
    if not outcome.done.wait(seconds):
        return None
    if outcome.error is not None:
        raise outcome.error
    return outcome.result[0]
