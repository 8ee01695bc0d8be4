"""How much of this machine the answers take up that somebody is taking: what was compared lies in memory, or in a
temporary file, until its last byte has gone. Whoever reads slowly keeps his, so there is an end to it."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from dicomwatchd.series.grouping import Held
from dicomwatchd.web.dicomweb.errors import NoRoom
from dicomwatchd.web.dicomweb.sending import PACE, Pace

#: Of memory so that the unit's limit of 2 GiB is far; of the disk a few of the largest files that there are.
_MOST = Held(512 * 1024**2, 8 * 1024**3)


@dataclass(frozen=True, slots=True)
class Limits:
    """``most`` is held for all answers together, half of it for one person's. One answer alone may take more: what is
    archived is handed out, however large it is. Of what is free on the disk several take no more than half. Who finds
    no room waits for it for ``wait_seconds``."""

    most: Held = _MOST
    wait_seconds: float = 10.0
    pace: Pace = PACE


LIMITS = Limits()
_RETRY_AFTER_SECONDS = 30.0


@dataclass(slots=True)
class _Taken:
    memory_bytes: int = 0
    disk_bytes: int = 0
    by_person: dict[str, Counter[str]] = field(default_factory=dict)

    def change(self, person: str, held: Held, sign: int) -> None:
        self.memory_bytes += sign * held.memory_bytes
        self.disk_bytes += sign * held.disk_bytes
        own = self.by_person.setdefault(person, Counter())
        own["memory"] += sign * held.memory_bytes
        own["disk"] += sign * held.disk_bytes
        if not own["memory"] and not own["disk"]:
            del self.by_person[person]


class Room:
    """To be used on one event loop; places are given back from any thread."""

    def __init__(self, most: Held, free_bytes: Callable[[], int], wait_seconds: float) -> None:
        """``free_bytes`` says how much is free where temporary files lie."""
        self._most, self._free_bytes, self._wait_seconds = most, free_bytes, wait_seconds
        self._lock = threading.Lock()
        self._taken = _Taken()
        self._waiting: dict[asyncio.Future[None], None] = {}

    async def take(self, person: str, wanted: Held) -> Place:
        """Raises NoRoom after a while."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait_seconds
        while (turn := self._turn(loop, person, wanted)) is not None:
            left = until - loop.time()
            try:
                if left <= 0:
                    raise NoRoom("too much is being fetched just now", retry_after_seconds=_RETRY_AFTER_SECONDS)
                await asyncio.wait([turn], timeout=left)
            finally:
                with self._lock:
                    self._waiting.pop(turn, None)

        def give_back() -> None:
            with self._lock:
                self._taken.change(person, wanted, -1)
                has_waiting = bool(self._waiting)
            if has_waiting:  # the loop is woken for nobody: each frame is a place that comes back
                _soon(loop, self._wake)

        return Place(give_back, lambda: _soon(loop, give_back))

    def _turn(self, loop: asyncio.AbstractEventLoop, person: str, wanted: Held) -> asyncio.Future[None] | None:
        """None where it is taken now, otherwise what ends when there may be room."""
        with self._lock:
            if self._fits(person, wanted):
                self._taken.change(person, wanted, +1)
                return None
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting[turn] = None
            return turn

    def _wake(self) -> None:
        with self._lock:
            turns = [turn for turn in self._waiting if not turn.done()]
        for turn in turns:
            turn.set_result(None)

    def _fits(self, person: str, wanted: Held) -> bool:
        most, taken = self._most, self._taken
        own = taken.by_person.get(person, Counter())
        return (
            _has_room(wanted.memory_bytes, taken.memory_bytes, own["memory"], most.memory_bytes)
            and _has_room(wanted.disk_bytes, taken.disk_bytes, own["disk"], most.disk_bytes)
            and self._has_disk(wanted.disk_bytes, taken.disk_bytes)
        )

    def _has_disk(self, wanted: int, taken: int) -> bool:
        if not wanted:
            return True
        free = self._free_bytes()
        return wanted <= free and (not taken or 2 * (taken + wanted) <= free + taken)


def _soon(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop has ended, and everything with it
        loop.call_soon_threadsafe(function)


def _has_room(wanted: int, taken: int, own: int, most: int) -> bool:
    if not wanted:
        return True
    return (not taken or taken + wanted <= most) and (not own or own + wanted <= most // 2)


class Place:
    """Given back once, when it is asked for or when nobody has it any more. ``give_back_later`` takes no lock: what is
    lost may be found so in the middle of anything."""

    def __init__(self, give_back: Callable[[], None], give_back_later: Callable[[], None]) -> None:
        self._is_taken = True
        self._give_back, self._give_back_later = give_back, give_back_later

    def give_back(self) -> None:
        if self._is_taken:
            self._is_taken = False
            self._give_back()

    def __del__(self) -> None:
        if self._is_taken:
            self._give_back_later()

    def until_taken(self, chunks: Generator[bytes, None, None]) -> Iterator[bytes]:
        """The chunks. It is given back behind the last of them, or when they are closed."""
        return _Chunks(chunks, self)


class _Chunks:
    """No generator: one that was never begun would give back nothing when it is closed."""

    def __init__(self, chunks: Generator[bytes, None, None], place: Place) -> None:
        self._chunks, self._place = chunks, place

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except BaseException:
            self._place.give_back()
            raise

    def close(self) -> None:
        try:
            self._chunks.close()
        finally:
            self._place.give_back()
