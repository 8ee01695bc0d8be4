"""What the work cost: CPU and memory of this process, and the time each stage of a shipment took."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from dicomwatchd.ports import Clock, SystemClock


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """CPU time of this process so far (user and system, all threads) and its resident memory, where known."""

    cpu_seconds: float
    rss_bytes: int | None


def process_usage() -> ProcessUsage:
    """Of this process. Where /proc is hidden it falls back to getrusage(2), which does not know
    the memory in use now."""
    try:
        process = psutil.Process()
        with process.oneshot():
            times = process.cpu_times()
            return ProcessUsage(times.user + times.system, process.memory_info().rss)
    except (psutil.Error, OSError):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return ProcessUsage(usage.ru_utime + usage.ru_stime, None)


class StageClock:
    """Wall time by stage. A stage may be entered again, and by several threads: it all adds up."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts the time spent inside, also when it ends with an error."""
        begun = self._clock.monotonic()
        try:
            yield
        finally:
            self.add(name, self._clock.monotonic() - begun)

    def add(self, name: str, seconds: float) -> None:
        with self._lock:
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def seconds(self) -> dict[str, float]:
        """Seconds by stage, in the order in which the stages were first left."""
        with self._lock:
            return dict(self._seconds)

    def fields(self) -> dict[str, float]:
        """The same, named as the journal wants it: ``upload_seconds`` ..."""
        return {f"{name}_seconds": seconds for name, seconds in self.seconds().items()}
