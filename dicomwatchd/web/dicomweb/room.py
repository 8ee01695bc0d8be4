"""How much of this machine the answers take up that somebody is taking: what was compared lies in memory, or in a
temporary file, until its last byte has gone. Whoever reads slowly keeps his, so there is an end to it."""

from __future__ import annotations

import asyncio
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
        self._taken = _Taken()
        self._waiting: dict[asyncio.Future[None], None] = {}

    async def take(self, person: str, wanted: Held) -> Place:
        """Raises NoRoom after a while."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait_seconds
        while not self._fits(person, wanted):
            left = until - loop.time()
            if left <= 0:
                raise NoRoom("too much is being fetched just now", retry_after_seconds=_RETRY_AFTER_SECONDS)
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting[turn] = None
            try:
                await asyncio.wait([turn], timeout=left)
            finally:
                self._waiting.pop(turn, None)
        self._taken.change(person, wanted, +1)
        return Place(lambda: self._give_back(loop, person, wanted))

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

    def _give_back(self, loop: asyncio.AbstractEventLoop, person: str, held: Held) -> None:
        def given() -> None:
            self._taken.change(person, held, -1)
            for turn in self._waiting:
                if not turn.done():
                    turn.set_result(None)

        with suppress(RuntimeError):  # the loop has ended, and everything with it
            loop.call_soon_threadsafe(given)


def _has_room(wanted: int, taken: int, own: int, most: int) -> bool:
    if not wanted:
        return True
    return (not taken or taken + wanted <= most) and (not own or own + wanted <= most // 2)


class Place:
    """Given back once, when it is asked for or when nobody has it any more."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def give_back(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    def __del__(self) -> None:
        self.give_back()

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
