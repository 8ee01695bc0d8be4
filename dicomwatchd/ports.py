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
    def now(self) -> float:
        """Seconds since the epoch, UTC: for what is stored. May jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow: for measuring durations."""
        ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class DiskUsage(Protocol):
    """What shutil.disk_usage gives, in bytes."""

    @property
    def total(self) -> int: ...
    @property
    def free(self) -> int: ...


class Map(Protocol):
    """Like the built-in map: results in order, lazily; what ``function`` raises is raised in its place."""

    def __call__(self, function: Callable[[_T], _R], items: Iterable[_T], /) -> Iterator[_R]: ...


class Cancellation(Protocol):
    """Asked between two pieces of long work, by the thread that does it: shows that it is alive, and says whether the
    work is to be left. What takes long are bytes on a slow share as well as very many entries."""

    def __call__(self) -> bool: ...


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
    come from the journal's allow list, so that neither a path nor a patient's name can get in."""

    def debug(self, event: str, message: str, **fields: object) -> None: ...
    def info(self, event: str, message: str, **fields: object) -> None: ...
    def warning(self, event: str, message: str, **fields: object) -> None: ...
    def error(self, event: str, message: str, **fields: object) -> None: ...


def timestamp(seconds: float) -> str:
    """UTC, ISO 8601, milliseconds, "Z": 2026-01-31T12:00:00.000Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
