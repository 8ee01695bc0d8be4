"""How often somebody may do something: counted in windows of time, for as many as can be remembered."""

from __future__ import annotations

import threading
from collections import OrderedDict

from dicomwatchd.ports import Clock

_MOST_KEYS = 10_000


class Rate:
    """``limit`` times in ``window_seconds`` for each key. Safe from many threads."""

    def __init__(self, limit: int, window_seconds: float, clock: Clock) -> None:
        self._limit, self._window_seconds, self._clock = limit, window_seconds, clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def wait_seconds(self, key: str) -> float:
        """How long until it may be done again; 0: it may. Counts nothing."""
        with self._lock:
            since, count = self._seen.get(key, (0.0, 0))
            left = since + self._window_seconds - self._clock.monotonic()
            return left if count >= self._limit and left > 0 else 0.0

    def count(self, key: str) -> None:
        """It was done once more."""
        with self._lock:
            now = self._clock.monotonic()
            since, count = self._seen.pop(key, (now, 0))
            if now - since >= self._window_seconds:
                since, count = now, 0
            self._seen[key] = (since, count + 1)
            if len(self._seen) > _MOST_KEYS:
                self._seen.popitem(last=False)
