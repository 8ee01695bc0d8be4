"""How many items are under way at once: more while waiting is all that the workers do, fewer when a service says so.

A near store is held up by processors, and more connections than a few only queue there. A far one is held up by the
way there and back, and each connection more is a file more for each of them. What tells the two apart is seen from
here: whether every worker is busy while this process leaves its processor idle, and the machine has one to give.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psutil

from dicomwatchd.ports import Clock

AT_FIRST = 32
AT_LEAST = 4
#: Up to this share of one processor, waiting is what takes the time. Near a whole one, the interpreter's lock is.
WAITING_SHARE = 0.8
#: A machine with less of a processor to spare than this makes its processes wait for it.
SPARE_SHARE = 0.25
CHECK_SECONDS = 0.4
#: One in so many workers must have come to the end of an item between two looks.
DONE_SHARE = 8
#: After a service has asked for less it is left in peace for so long.
SLOW_SECONDS = 60.0


def machine_idle_seconds() -> float:
    """Of all processors together, since the machine was started."""
    times = psutil.cpu_times()
    return float(times.idle + times.iowait)


class Pace:
    """``most`` is never exceeded. `finished` is called by each worker that has come to the end of an item."""

    def __init__(
        self,
        most: int,
        clock: Clock,
        cpu_seconds: Callable[[], float] = time.process_time,
        idle_seconds: Callable[[], float] = machine_idle_seconds,
    ) -> None:
        self._most = most
        self._clock = clock
        self._cpu_seconds = cpu_seconds
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._measured_at, self._last, self._last_idle = clock.monotonic(), cpu_seconds(), idle_seconds()
        self._done = 0
        self._idle = 0
        self._not_before = 0.0
        self.limit = min(AT_FIRST, most)

    def finished(self, *, more: bool) -> None:
        """``more``: another item was waiting for this worker already."""
        with self._lock:
            self._done += 1
            self._idle += not more

    def slow_down(self) -> None:
        """A service asks for fewer requests."""
        with self._lock:
            self.limit = max(min(AT_LEAST, self._most), self.limit // 2)
            self._not_before = self._clock.monotonic() + SLOW_SECONDS
            self._done = self._idle = 0

    def adjust(self) -> bool:
        """To be called every now and then; whether the limit has grown."""
        with self._lock:
            now = self._clock.monotonic()
            elapsed = now - self._measured_at
            if elapsed < CHECK_SECONDS:
                return False
            used, unused = self._cpu_seconds(), self._idle_seconds()
            share, spare = (used - self._last) / elapsed, (unused - self._last_idle) / elapsed
            self._measured_at, self._last, self._last_idle = now, used, unused
            done, self._done = self._done, 0
            idle, self._idle = self._idle, 0
            if self.limit >= self._most or now < self._not_before:
                return False
            if done * DONE_SHARE < self.limit or idle * 10 > done:
                return False  # there is not enough to do to tell; or large files on a narrow way, which stays narrow
            if share > WAITING_SHARE or spare < SPARE_SHARE:
                return False
            # The more the processor idles, the larger the step.
            self.limit = min(self._most, self.limit * (4 if share < WAITING_SHARE / 3 else 2))
            return True
