"""What of an inbox is to be scanned next, and when: hints, bursts of them, and the time of the next whole scan.

Any thread may ask for a scan; the inbox's own works it off.
"""

from __future__ import annotations

import threading
from random import Random

from dicomwatchd.ports import Clock

#: Pause between two looks in which a burst of events gathers.
GATHER_SECONDS = 0.2


class Schedule:
    def __init__(self, scan_interval_seconds: float, random: Random, clock: Clock) -> None:
        self._interval_seconds = scan_interval_seconds
        self._random = random
        self._clock = clock
        self._hints_lock = threading.Lock()
        self._hints: dict[bytes, bool] = {}
        self._wake = threading.Event()
        self._burst = False
        #: When the next whole scan is due, monotonic.
        self.next_scan = 0.0

    # -- from any thread ----------------------------------------------------------------------------------------

    def hint(self, parent: bytes, *, deep: bool = False, alone: bool = False) -> None:
        """Something may have happened in this directory; ``deep``: or anywhere below it. ``alone``: it is not the first
        of a burst of events, which are better looked into together."""
        with self._hints_lock:
            self._hints[parent] = self._hints.get(parent, False) or deep
        self._burst = self._burst or not alone
        self._wake.set()

    def scan_soon(self) -> None:
        """A whole scan is due, and nobody waits for the end of a pause."""
        self.scan_next()
        self._wake.set()

    def scan_next(self) -> None:
        """A whole scan is due."""
        self.next_scan = 0.0

    def wake(self) -> None:
        self._wake.set()

    @property
    def has_hints(self) -> bool:
        return bool(self._hints)

    # -- from the inbox's own -----------------------------------------------------------------------------------

    def take_hints(self) -> dict[bytes, bool]:
        """Directories in which something may have happened, and whether that may be anywhere below them."""
        with self._hints_lock:
            hints, self._hints = self._hints, {}
        return hints

    def begin_scan(self, began: float) -> None:
        """A whole scan begins, at this monotonic time."""
        # Jitter, so that many inboxes and many daemons do not look at one file server in step.
        self.next_scan = began + self._interval_seconds * self._random.uniform(0.9, 1.1)

    def cannot_scan(self, monotonic: float) -> None:
        """The inbox is not there now: a whole scan is due within an interval."""
        self.next_scan = min(self.next_scan, monotonic + self._interval_seconds)

    def wait(self, pause_seconds: float, stopping: threading.Event) -> None:
        """Until something is asked for, or the pause is over. The first event after a rest is looked into at once,
        those behind it together."""
        began = self._clock.monotonic()
        self._wake.wait(min(pause_seconds, 1.0))
        if self._wake.is_set() and not stopping.is_set():
            self._wake.clear()
            if self._burst:
                self._burst = False
                rested_seconds = self._clock.monotonic() - began
                if rested_seconds < GATHER_SECONDS:
                    stopping.wait(GATHER_SECONDS - rested_seconds)
