"""The worker threads, shared fairly: each shipment has a lane, and the workers take one item of each lane in turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from dicomwatchd.errors import Stopping
from dicomwatchd.pipeline.pace import Pace
from dicomwatchd.ports import Map

#: How often a worker without work shows that it is alive.
IDLE_SECONDS = 60.0

T = TypeVar("T")
R = TypeVar("R")


class Workers(Protocol):
    @property
    def size(self) -> int:
        """How many items may be under way at once, as things are."""
        ...

    def lane(self) -> Map: ...
    def slow_down(self) -> None:
        """A service asks for fewer requests at once."""
        ...


class InlineWorkers:
    """No threads at all: everything happens where it is asked for. For simulation and small tools."""

    size = 1

    def lane(self) -> Map:
        return map

    def slow_down(self) -> None: ...


class Pool:
    """As many threads as ``pace`` allows, begun when there is something for them to do. A lane holds at most ``window``
    items at once, so memory does not grow with a study. ``began`` hears of each new thread's name, ``beat`` of each
    sign of life."""

    def __init__(
        self,
        pace: Pace,
        *,
        began: Callable[[str], None] = lambda _: None,
        beat: Callable[[str], None] = lambda _: None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """``ended`` is called by a worker that has come to the end of an item, however it has."""
        self._condition = threading.Condition()
        self._lanes: deque[_Lane] = deque()
        self._closed = False
        self._draining = False
        self._began = began
        self._beat = beat
        self._ended = ended
        self._at: dict[str, Future[Any]] = {}
        self._given_up: set[str] = set()
        self._pace = pace
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._waiting = 0
        self.busy = 0

    @property
    def size(self) -> int:
        """How many items may be under way at once, as things are."""
        return self._pace.limit

    @property
    def window(self) -> int:
        return 2 * self._pace.limit

    def slow_down(self) -> None:
        """A service asks for fewer requests at once."""
        self._pace.slow_down()

    def tick(self) -> None:
        """To be called about every second, or oftener."""
        if self._pace.adjust():
            with self._condition:
                self._condition.notify_all()

    def lane(self) -> Map:
        return _Lane(self)

    def drain(self) -> None:
        """Begin nothing new: every lane raises Stopping once what it has under way is done."""
        with self._condition:
            self._draining = True
            self._condition.notify_all()

    @property
    def draining(self) -> bool:
        return self._draining

    def give_up(self, name: str, error: Exception, still: Callable[[], bool] = lambda: True) -> None:
        """The worker of this name waits for something that may never come: whoever waits for its item gets the
        error, and another worker is begun in its place when there is something to do. ``still``: whether that is so of
        the item that it is at now, since it may just have come back. Unknown names are no fault. When it comes back, it
        is a worker like the others again."""
        with self._condition:
            future = self._at.get(name)
            if future is None or name in self._given_up or not still():
                return
            self._given_up.add(name)
            self.busy -= 1
            if self._lanes and self._present < self._pace.limit:
                self._begin()
            future.set_exception(error)

    @property
    def _present(self) -> int:
        return len(self._threads) - len(self._given_up)

    def close(self) -> None:
        with self._condition:
            self._draining = self._closed = True
            self._condition.notify_all()
        for thread in self._threads:
            while thread.is_alive() and thread.name not in self._given_up:
                thread.join(0.1)

    def _submit(self, lane: _Lane, task: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        with self._condition:
            if not lane.tasks:
                self._lanes.append(lane)
            lane.tasks.append((future, task))
            self._waiting += 1
            if self._waiting > self._idle and self._present < self._pace.limit:
                self._begin()
            else:
                self._condition.notify()
        return future

    def _begin(self) -> None:
        name = f"worker-{len(self._threads)}"
        self._began(name)
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        name = threading.current_thread().name
        while True:
            with self._condition:
                while not self._lanes or self.busy >= self._pace.limit:
                    if self._closed and not self._lanes:
                        self._condition.notify_all()
                        return
                    self._beat(name)
                    self._idle += 1
                    self._condition.wait(IDLE_SECONDS)
                    self._idle -= 1
                lane = self._lanes.popleft()
                future, task = lane.tasks.popleft()
                self._waiting -= 1
                if lane.tasks:
                    self._lanes.append(lane)  # at the end of the row: the other lanes come first
                self.busy += 1
            self._beat(name)
            result, failure = None, None
            # False: the lane was left before it began. Once it has begun, its lane waits for its end.
            if future.set_running_or_notify_cancel():
                with self._condition:
                    self._at[name] = future
                try:
                    result = task()
                except BaseException as error:  # noqa: BLE001  handed to whoever waits for the result
                    failure = error
            with self._condition:
                self._at.pop(name, None)
                was_given_up = name in self._given_up
                self._given_up.discard(name)
                if not was_given_up:
                    self.busy -= 1
            self._ended()
            if failure is not None and not was_given_up:
                future.set_exception(failure)
            elif not (was_given_up or future.cancelled()):
                future.set_result(result)
            with self._condition:
                self._pace.finished(more=bool(self._lanes))


class _Lane:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.tasks: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        waiting: deque[Future[R]] = deque()
        source = iter(items)
        exhausted = False
        try:
            while True:
                while not exhausted and len(waiting) < self._pool.window and not self._pool.draining:
                    try:
                        item = next(source)
                    except StopIteration:
                        exhausted = True
                        break
                    waiting.append(self._pool._submit(self, lambda item=item: function(item)))  # type: ignore[misc]
                if not waiting:
                    if exhausted:
                        return
                    raise Stopping("the daemon is stopping")
                yield waiting.popleft().result()
        finally:
            # An error, or a caller that stops asking: what is under way comes to its end before the lane is left.
            for future in waiting:
                future.cancel()
            for future in waiting:
                if not future.cancelled():
                    future.exception()
