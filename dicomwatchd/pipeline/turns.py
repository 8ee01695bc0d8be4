"""Large studies take turns: a manifest in the making costs several times its size, until its study is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dicomwatchd.errors import Transient

#: A manifest of 10,000 instances. Of larger ones, one is in memory at a time.
LARGE_BYTES = 8 * 1024**2
RETRY_SECONDS = 30.0


class Turns:
    """Of one process. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[Callable[[int], None]]:
        """For one shipment. What it yields is called with the bytes of a manifest before there are so many; it raises
        Transient while another shipment has a large one: nobody waits in a place that a small study could have."""
        has_turn = False

        def admit(size_bytes: int) -> None:
            nonlocal has_turn
            if has_turn or size_bytes < LARGE_BYTES:
                return
            if not self._lock.acquire(blocking=False):
                raise Transient(
                    "another large study is being recorded", code="large-study", retry_after_seconds=RETRY_SECONDS
                )
            has_turn = True

        try:
            yield admit
        finally:
            if has_turn:
                self._lock.release()
