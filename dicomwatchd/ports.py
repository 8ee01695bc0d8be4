"""What comes in from outside to nearly every part: the time, the log, and the threads behind a map."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from dicomwatchd.errors import Stopping

_T = TypeVar("_T")
_R = TypeVar("_R")


class Clock(Protocol):
    """The time, for whoever stores or measures it. Raises nothing."""

    def now(self) -> float:
        """Seconds since the epoch, UTC: for what is stored. May jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow: for measuring durations."""
        ...


class SystemClock:
    """The machine's clocks, as `Clock` wants them."""

    def now(self) -> float:
        """CLOCK_REALTIME of clock_gettime(2)."""
        return time.time()

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC of clock_gettime(2): it stands still while the machine sleeps."""
        return time.monotonic()


class DiskUsage(Protocol):
    """What shutil.disk_usage gives, in bytes."""

    @property
    def total(self) -> int:
        """Bytes of the file system (f_blocks of statvfs(3))."""
        ...

    @property
    def free(self) -> int:
        """Bytes that are free to us, who are not root (f_bavail of statvfs(3))."""
        ...


class Map(Protocol):
    """Like the built-in map: results in order, lazily; what ``function`` raises is raised in its place."""

    def __call__(self, function: Callable[[_T], _R], items: Iterable[_T], /) -> Iterator[_R]:
        """``function`` is called once for each item, perhaps in other threads and several at once."""
        ...


class Cancellation(Protocol):
    """Asked between two pieces of long work, by the thread that does it: shows that it is alive, and says whether the
    work is to be left. What takes long are bytes on a slow share as well as very many entries."""

    def __call__(self) -> bool:
        """True: leave off where that is safe. Returns at once; raises nothing."""
        ...


def never_cancelled() -> bool:
    """For work that nobody watches and nobody stops."""
    return False


def until_cancelled(cancelled: Cancellation, pieces: Iterable[_T]) -> Iterator[_T]:
    """The pieces of long work, asked before each. Raises Stopping."""
    for piece in pieces:
        if cancelled():
            raise Stopping("stopped in the middle of long work")
        yield piece


def stop_check(cancelled: Cancellation, *heartbeat: Callable[[], None]) -> Callable[[], None]:
    """To be called between two pieces: asks all of these. Raises Stopping."""

    def ask() -> None:
        for one in heartbeat:
            one()
        if cancelled():
            raise Stopping("stopped in the middle of long work")

    return ask


class Log(Protocol):
    """The journal as its users see it. ``message`` is a constant or the message of an error of our own; ``fields``
    come from the journal's allow list (`telemetry.fields`), which also has their units, so that neither a path nor a
    patient's name can get in. ``event`` is lower-case words joined by hyphens. Raises nothing in the daemon, in tests
    ValueError for a field that is not allowed."""

    def debug(self, event: str, message: str, **fields: object) -> None:
        """What helps to find a fault (syslog priority 7)."""
        ...

    def info(self, event: str, message: str, **fields: object) -> None:
        """What went as it should (syslog priority 6)."""
        ...

    def warning(self, event: str, message: str, **fields: object) -> None:
        """What a person should know of, while the work goes on (syslog priority 4)."""
        ...

    def error(self, event: str, message: str, **fields: object) -> None:
        """What waits for a person (syslog priority 3)."""
        ...


def timestamp(seconds: float) -> str:
    """``seconds`` since the epoch as UTC, ISO 8601, milliseconds, "Z": 2026-01-31T12:00:00.000Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
