"""How full the disk of an inbox is, asked now and then by the inbox's own thread: nobody else touches the folder."""

from __future__ import annotations

import shutil
from contextlib import suppress

from dicomwatchd.ports import Clock, DiskUsage

DISK_CHECK_SECONDS = 60.0


class Disk:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next_check = 0.0
        #: What `shutil.disk_usage` last said; None if it could not be asked.
        self.usage: DiskUsage | None = None

    def measure(self, root_fd: int) -> None:
        """Ask, if that is due."""
        if self._clock.monotonic() < self._next_check:
            return
        self._next_check = self._clock.monotonic() + DISK_CHECK_SECONDS
        self.usage = None
        with suppress(OSError):
            self.usage = shutil.disk_usage(root_fd)
