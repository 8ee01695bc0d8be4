"""How many items are under way at once: more while waiting is all that the workers do, fewer when a service says so.

A near store is held up by processors, and more connections than a few only queue there. A far one is held up by the
way there and back, and each connection more is a file more for each of them. What tells the two apart is seen from
here: whether every worker is busy while this process leaves its processor idle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from dicomwatchd.ports import Clock

AT_FIRST = 16
AT_LEAST = 4
#: Up to this share of one processor, waiting is what takes the time. Near a whole one, the interpreter's lock is.
WAITING_SHARE = 0.8
LOOK_SECONDS = 0.4
#: After a service has asked for less it is left in peace for so long.
EASE_SECONDS = 60.0


class Pace:
    """``most`` is never exceeded. `finished` is called by each worker that has come to the end of an item."""

    def __init__(self, most: int, clock: Clock, cpu_seconds: Callable[[], float] = time.process_time) -> None:
        self._most = most
        self._clock = clock
        self._cpu_seconds = cpu_seconds
        self._lock = threading.Lock()
        self._looked_at, self._last = clock.monotonic(), cpu_seconds()
        self._done = 0
        self._idle = 0
        self._not_before = 0.0
        self.limit = min(AT_FIRST, most)

    def finished(self, *, more: bool) -> None:
        """``more``: another item was waiting for this worker already."""
        with self._lock:
            self._done += 1
            self._idle += not more

    def ease(self) -> None:
        """A service asks for fewer requests."""
        with self._lock:
            self.limit = max(min(AT_LEAST, self._most), self.limit // 2)
            self._not_before = self._clock.monotonic() + EASE_SECONDS
            self._done = self._idle = 0

    def look(self) -> bool:
        """To be called every now and then; whether the limit has grown."""
        with self._lock:
            now = self._clock.monotonic()
            elapsed = now - self._looked_at
            if elapsed < LOOK_SECONDS:
                return False
            share = (self._cpu_seconds() - self._last) / elapsed
            self._looked_at, self._last = now, self._cpu_seconds()
            done, self._done = self._done, 0
            idle, self._idle = self._idle, 0
            if self.limit >= self._most or now < self._not_before:
                return False
            if done < self.limit or idle * 10 > done:
                return False  # there is not enough to do to tell
            if share > WAITING_SHARE:
                return False
            self.limit = min(self._most, self.limit * 2)
            return True
