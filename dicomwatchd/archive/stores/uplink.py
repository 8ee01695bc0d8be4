"""What sending to the archive takes of the line: no more than the configuration allows at this time, all threads of the
process together.

The limit is on the bytes of objects and parts that are handed to the network, those sent once more included, and a
kilobyte for what surrounds each. What is asked and read (HEAD, GET, listings, the catalogue) is not counted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import BinaryIO

from dicomwatchd.config.bandwidth import InForce, Schedule
from dicomwatchd.errors import Stopping
from dicomwatchd.ports import Clock

#: How often the time of day is looked at, and whoever waits asks whether to stop and shows that it is alive.
LOOK_SECONDS = 1.0
#: What was not used may be caught up with for so long: the time by which a thread wakes too late.
CATCH_UP_SECONDS = 0.1
#: So many of the pieces that are sent in turn make a second, so that everybody's turn comes before a server loses its
#: patience: with 256 threads, every 4 s.
_PIECES_PER_SECOND = 64
_PIECE_BYTES_AT_MOST = 128 * 1024
#: No thread wakes sooner.
_SHORTEST_SECONDS = 0.001
#: Of a request and its answer, beside what is sent.
_HEAD_BYTES = 1024
#: What is no larger begins in turn with the pieces of what has begun, and not behind all that waits to begin: the head
#: of the record of deletions above all, which a stop and a reload wait for.
_SMALL_BYTES = 4096


def _wait(woken: threading.Event, seconds: float) -> None:
    woken.wait(seconds)


class Uplink:
    """One for the whole process; it stays when the configuration is another. Without a schedule nobody waits here, and
    no time is spent. Times of day are those of the machine's time zone."""

    def __init__(
        self,
        clock: Clock,
        local: Callable[[float], datetime] = datetime.fromtimestamp,
        wait: Callable[[threading.Event, float], None] = _wait,
    ) -> None:
        """``wait`` returns once the event is set or so many seconds have gone, or before."""
        self._clock, self._local, self._wait = clock, local, wait
        self._lock = threading.Lock()
        self._schedule: Schedule | None = None
        self._in_force: InForce | None = None
        self._look_at = 0.0
        self._allowed_bytes = 0.0
        self._filled_at = clock.monotonic()
        #: Who waits in the middle of something, and who to begin, in the order in which they came.
        self._begun: dict[threading.Event, None] = {}
        self._new: dict[threading.Event, None] = {}
        #: Of these, who has only little to send.
        self._small: dict[threading.Event, None] = {}
        self._small_is_next = True

    def follow(self, schedule: Schedule | None) -> None:
        """From now on; whoever waits goes by it, too."""
        with self._lock:
            self._schedule = schedule
            self._look()
            self._wake_first()

    def look(self) -> InForce | None:
        """To be called every second or so: what holds now; None where no limit is configured at all."""
        with self._lock:
            self._look()
            self._wake_first()
            return self._in_force

    def next_change(self) -> tuple[float, InForce] | None:
        """When the limit is another one next, in seconds since the epoch; None if it never is."""
        schedule = self._schedule
        return None if schedule is None else schedule.next_change(self._local(self._clock.now()))

    def sending(self, stopping: Callable[[], bool]) -> Sending | None:
        """For something that is to be sent; None where no limit is configured. ``stopping`` is asked while it waits."""
        return None if self._schedule is None else Sending(self, stopping)

    def take(self, most_bytes: int, stopping: Callable[[], bool], *, begins: bool) -> int:
        """Waits until something may be sent; returns how many bytes, at most ``most_bytes``. Raises Stopping.

        Whoever is in the middle of something comes first, in turn, so that as few things are under way at once as make
        full use of the limit, and none of them stands still. What is small waits for one piece of these at most."""
        if most_bytes <= 0:
            return 0
        line, woken = self._line(most_bytes, begins=begins), threading.Event()
        with self._lock:
            line[woken] = None
        try:
            while True:
                with self._lock:
                    size_bytes, seconds = self._allowed(woken, most_bytes, _HEAD_BYTES if begins else 0)
                if size_bytes:
                    return size_bytes
                self._wait(woken, seconds)
                woken.clear()
                if stopping():
                    raise Stopping("stopped while it waited for its share of the line")
        finally:
            with self._lock:
                del line[woken]
                self._wake_first()

    def _allowed(self, woken: threading.Event, most_bytes: int, head_bytes: int) -> tuple[int, float]:
        """How many bytes may be sent now; where none may, for how long to wait before asking again."""
        now = self._clock.monotonic()
        if now >= self._look_at:
            self._look()
        rate = self._rate()
        if rate is None:
            return min(most_bytes, _PIECE_BYTES_AT_MOST), 0.0
        if woken is not self._first():
            return 0, LOOK_SECONDS
        size_bytes = min(most_bytes, _PIECE_BYTES_AT_MOST, rate // _PIECES_PER_SECOND)
        self._fill(now, rate)
        missing = size_bytes + head_bytes - self._allowed_bytes
        if missing > 0:
            return 0, min(max(missing / rate, _SHORTEST_SECONDS), LOOK_SECONDS)
        self._allowed_bytes -= size_bytes + head_bytes
        self._small_is_next = woken not in self._small
        return size_bytes, 0.0

    def _line(self, most_bytes: int, *, begins: bool) -> dict[threading.Event, None]:
        if not begins:
            return self._begun
        return self._small if most_bytes <= _SMALL_BYTES else self._new

    def _fill(self, now: float, rate: int) -> None:
        # However the time has jumped, no more is allowed than for the time to catch up with.
        earned = max(0.0, now - self._filled_at) * rate
        self._filled_at = now
        self._allowed_bytes = min(self._allowed_bytes + earned, CATCH_UP_SECONDS * rate + _HEAD_BYTES)

    def _look(self) -> None:
        now = self._clock.monotonic()
        if (rate := self._rate()) is not None:
            self._fill(now, rate)  # what was earned until now is by the old limit
        self._look_at = now + LOOK_SECONDS
        schedule = self._schedule
        self._in_force = None if schedule is None else schedule.at(self._local(self._clock.now()))
        if rate is None:
            self._filled_at, self._allowed_bytes = now, 0.0

    def _rate(self) -> int | None:
        return None if self._in_force is None else self._in_force.bytes_per_second

    def _first(self) -> threading.Event | None:
        others = (self._begun, self._new)
        lines = (self._small, *others) if self._small_is_next else (*others, self._small)
        return next((woken for line in lines for woken in line), None)

    def _wake_first(self) -> None:
        if self._rate() is None:
            for woken in (*self._begun, *self._small, *self._new):
                woken.set()
        elif (first := self._first()) is not None:
            first.set()


class Sending:
    """Something that is sent: `begin`, then `next` again and again until all has gone."""

    def __init__(self, uplink: Uplink, stopping: Callable[[], bool]) -> None:
        self._uplink, self._stopping = uplink, stopping
        self._allowed_bytes = 0

    def begin(self, size_bytes: int) -> None:
        """Waits until its first piece may be sent; to be called before the request is made, so that no server waits
        for it. Raises Stopping."""
        self._allowed_bytes = self._uplink.take(size_bytes, self._stopping, begins=True)

    def next(self, most_bytes: int) -> int:
        """Waits until more may be sent; how many bytes, at least one. Raises Stopping."""
        if not self._allowed_bytes:
            return self._uplink.take(most_bytes, self._stopping, begins=False)
        size_bytes = min(self._allowed_bytes, most_bytes)
        self._allowed_bytes -= size_bytes
        return size_bytes

    def pieces(self, data: bytes) -> Iterator[memoryview]:
        """All of it, each piece when it may be sent. Raises Stopping."""
        self.begin(len(data))
        left = memoryview(data)
        while left:
            size_bytes = self.next(len(left))
            yield left[:size_bytes]
            left = left[size_bytes:]


class PacedBody:
    """A file that is read as fast as it may be sent, for a library that sends what it reads until nothing comes."""

    def __init__(self, file: BinaryIO, sending: Sending) -> None:
        self._file, self._sending = file, sending
        at = file.tell()
        self._end = file.seek(0, os.SEEK_END)
        file.seek(at)

    def read(self, size_bytes: int = -1) -> bytes:
        """What may be sent now: at its end nothing, before it at least a byte, even where more is asked for. Raises
        Stopping."""
        left = self._end - self._file.tell()
        most = left if size_bytes < 0 else min(left, size_bytes)
        return self._file.read(self._sending.next(most) if most else 0)

    def seek(self, offset: int, whence: int = 0) -> int:
        """io.IOBase's."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """io.IOBase's."""
        return self._file.tell()
