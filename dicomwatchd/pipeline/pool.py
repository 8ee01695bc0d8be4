"""The worker threads, shared fairly: each shipment has a lane, and the workers take one item of each lane in turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from dicomwatchd.errors import Stopping
from dicomwatchd.ports import Map

T = TypeVar("T")
R = TypeVar("R")


class Workers(Protocol):
    def lane(self) -> Map: ...


class InlineWorkers:
    """No threads at all: everything happens where it is asked for. For simulation and small tools."""

    def lane(self) -> Map:
        return map


class Pool:
    """``workers`` threads. A lane holds at most ``window`` items at once, so memory does not grow with a study."""

    def __init__(self, workers: int, *, beat: Callable[[str], None] = lambda _: None) -> None:
        self._condition = threading.Condition()
        self._lanes: deque[_Lane] = deque()
        self._closed = False
        self._draining = False
        self._beat = beat
        self.busy = 0
        self.size = workers
        self.window = 2 * workers
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True) for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

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

    def close(self) -> None:
        with self._condition:
            self._draining = self._closed = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()

    def _submit(self, lane: _Lane, task: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        with self._condition:
            if not lane.tasks:
                self._lanes.append(lane)
            lane.tasks.append((future, task))
            self._condition.notify()
        return future

    def _work(self) -> None:
        name = threading.current_thread().name
        while True:
            with self._condition:
                while not self._lanes:
                    if self._closed:
                        return
                    self._beat(name)
                    self._condition.wait(5)
                lane = self._lanes.popleft()
                future, task = lane.tasks.popleft()
                if lane.tasks:
                    self._lanes.append(lane)  # at the end of the row: the other lanes come first
                self.busy += 1
            self._beat(name)
            try:
                # False: the lane was left before it began. Once it has begun, its lane waits for its end.
                result = task() if future.set_running_or_notify_cancel() else None
            except BaseException as error:  # noqa: BLE001  handed to whoever waits for the result
                future.set_exception(error)
            else:
                if not future.cancelled():
                    future.set_result(result)
            with self._condition:
                self.busy -= 1


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
