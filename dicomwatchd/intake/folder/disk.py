"""How full the disk of an inbox is, asked now and then by the inbox's own thread: nobody else touches the folder."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass

from dicomwatchd.ports import Clock, DiskUsage

DISK_CHECK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class DiskSeen:
    """``device`` is the file system's number (st_dev), ``monotonic`` when it was asked."""

    usage: DiskUsage
    device: int
    monotonic: float


class Disk:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next_check = 0.0
        #: What `shutil.disk_usage` last said; None if it could not be asked.
        self.seen: DiskSeen | None = None

    def measure_soon(self) -> None:
        """The next `measure` asks, by whichever thread this is called."""
        self._next_check = 0.0

    def measure(self, root_fd: int) -> None:
        """Ask, if that is due."""
        began = self._clock.monotonic()
        if began < self._next_check:
            return
        self._next_check = began + DISK_CHECK_SECONDS
        self.seen = None
        with suppress(OSError):
            # The time is that before the question: what is deleted meanwhile may be in the answer or not.
            self.seen = DiskSeen(shutil.disk_usage(root_fd), os.fstat(root_fd).st_dev, began)
