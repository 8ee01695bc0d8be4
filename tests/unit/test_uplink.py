"""The limit on sending, with a clock of the test's: how much it lets through, to whom, and what changes it."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep

import pytest

from dicomwatchd.archive.stores.directory.store import DirectoryStore
from dicomwatchd.archive.stores.port import Buffer
from dicomwatchd.archive.stores.uplink import CATCH_UP_SECONDS, PacedBody, Uplink
from dicomwatchd.config.archive import DirectorySettings
from dicomwatchd.config.bandwidth import schedule_of
from dicomwatchd.errors import Stopping
from dicomwatchd.ports import SystemClock

RATE = 1_000_000
#: A Monday, 07:59:50.
BEFORE_EIGHT = datetime(2026, 11, 30, 7, 59, 50, tzinfo=UTC).timestamp()


class Waiting:
    """A clock that goes on only while somebody waits."""

    def __init__(self, now: float = BEFORE_EIGHT) -> None:
        self.wall = now
        self.passed = 0.0
        self.waits = 0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.passed

    def wait(self, woken: threading.Event, seconds: float) -> None:
        if not woken.is_set():
            self.waits += 1
            self.go(seconds)

    def go(self, seconds: float) -> None:
        self.passed += seconds
        self.wall += seconds


def never() -> bool:
    return False


def limited(clock: Waiting, bandwidth: dict[str, str] | None = None) -> Uplink:
    uplink = Uplink(clock, lambda at: datetime.fromtimestamp(at, UTC), clock.wait)
    uplink.follow(schedule_of(bandwidth or {"default": "1MB/s"}))
    return uplink


def send(uplink: Uplink, size_bytes: int) -> int:
    """The pieces that it went in."""
    sending = uplink.sending(never)
    assert sending is not None
    return sum(1 for _ in sending.pieces(bytes(size_bytes)))


def test_it_takes_as_long_as_the_limit_says() -> None:
    clock = Waiting()
    uplink = limited(clock)
    send(uplink, 10 * RATE)
    assert clock.passed == pytest.approx(10.0, rel=0.01)
    # Nothing is saved for later while nobody sends.
    clock.go(3600)
    began = clock.passed
    send(uplink, RATE)
    assert clock.passed - began > 1.0 - CATCH_UP_SECONDS - 0.01


def test_small_objects_are_counted_with_what_surrounds_them() -> None:
    clock = Waiting()
    uplink = limited(clock)
    for _ in range(1000):
        send(uplink, 1000)
    assert clock.passed == pytest.approx(2.0, rel=0.1)


def test_without_a_limit_there_is_nothing_to_ask() -> None:
    clock = Waiting()
    uplink = Uplink(clock, wait=clock.wait)
    assert uplink.sending(never) is None
    assert uplink.look() is None
    assert uplink.next_change() is None


def test_while_it_is_unlimited_nobody_waits() -> None:
    clock = Waiting()
    send(limited(clock, {"default": "unlimited"}), 100 * RATE)
    assert clock.waits == 0


def test_the_time_of_day_changes_it_in_the_middle_of_something() -> None:
    clock = Waiting()
    uplink = limited(clock, {"default": "1MB/s", "08:00-18:00": "100kB/s"})
    send(uplink, 10 * RATE + 100_000)  # ten seconds before eight, and one after
    assert clock.passed == pytest.approx(11.0, abs=0.3)
    in_force = uplink.look()
    assert in_force is not None and (in_force.rule, in_force.bytes_per_second) == ("08:00-18:00", 100_000)
    assert uplink.next_change() == (BEFORE_EIGHT + 10 + 36000, uplink._schedule.limits[0])  # type: ignore[union-attr]


@pytest.mark.parametrize("jump_seconds", [-86400.0 * 400, -3600.0, 3600.0, 86400.0 * 400])
def test_a_clock_that_jumps_changes_no_more_than_which_limit_holds(jump_seconds: float) -> None:
    clock = Waiting()
    uplink = limited(clock, {"default": "1MB/s", "08:00-18:00": "2MB/s"})
    send(uplink, RATE)
    clock.wall += jump_seconds
    began = clock.passed
    send(uplink, 10 * RATE)
    assert 4.5 < clock.passed - began < 10.5


def test_a_machine_that_slept_catches_up_with_nothing() -> None:
    clock = Waiting()
    uplink = limited(clock)
    sending = uplink.sending(never)
    assert sending is not None
    pieces = sending.pieces(bytes(3 * RATE))
    next(pieces)
    clock.go(100)
    began = clock.passed
    for _ in pieces:
        pass
    assert clock.passed - began > 3.0 - CATCH_UP_SECONDS - 0.1


def test_a_lower_limit_holds_from_now_on_and_a_higher_one_too() -> None:
    clock = Waiting()
    uplink = limited(clock)
    sending = uplink.sending(never)
    assert sending is not None
    sent = 0
    for piece in sending.pieces(bytes(4 * RATE)):
        sent += len(piece)
        if RATE < sent < 1.1 * RATE:
            uplink.follow(schedule_of({"default": "100kB/s"}))
        if 2 * RATE < sent < 2.1 * RATE:
            uplink.follow(None)
    assert clock.passed == pytest.approx(1 + 10, rel=0.1)


def test_whoever_stops_does_not_wait() -> None:
    clock = Waiting()
    asked: list[float] = []

    def stopping() -> bool:
        asked.append(clock.passed)
        return clock.passed > 5

    sending = limited(clock).sending(stopping)
    assert sending is not None
    with pytest.raises(Stopping):
        for _ in sending.pieces(bytes(100 * RATE)):
            pass
    assert clock.passed < 6.1
    assert max(later - earlier for earlier, later in pairwise(asked)) <= 1.0
    send(limited(clock), 1000)  # and is in nobody's way


def test_what_has_begun_goes_on_before_others_begin() -> None:
    """Real threads and a real clock: all of them finish, and those in the middle are never left waiting for those who
    come later."""
    uplink = Uplink(SystemClock())
    uplink.follow(schedule_of({"default": "10MB/s"}))
    clock, events = SystemClock(), list[tuple[float, int, str]]()

    def one(number: int) -> None:
        sending = uplink.sending(never)
        assert sending is not None
        for _ in sending.pieces(bytes(500_000)):
            events.append((clock.monotonic(), number, "piece"))
        events.append((clock.monotonic(), number, "end"))

    began = clock.monotonic()
    threads = [threading.Thread(target=one, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = clock.monotonic() - began
    assert 1.6 - CATCH_UP_SECONDS - 0.02 < seconds < 30.0
    # As few are under way as are of use: the first ends long before the last begins.
    first_end = min(at for at, _, what in events if what == "end")
    last_begin = max(min(at for at, other, _ in events if other == number) for number in range(32))
    assert first_end - began < seconds / 3 and last_begin > first_end
    gaps = [
        later - earlier
        for number in range(32)
        for own in [[at for at, other, _ in events if other == number]]
        for earlier, later in pairwise(own)
    ]
    assert max(gaps) < max(1.0, seconds / 3)


class Held(Waiting):
    """Whoever waits is held until it is let go, which is when time has gone on."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.lock = list[threading.Event](), threading.Condition()

    def wait(self, woken: threading.Event, seconds: float) -> None:
        let_go = threading.Event()
        with self.lock:
            self.held.append(let_go)
            self.lock.notify_all()
        assert let_go.wait(60)

    def until(self, number: int) -> None:
        """So many wait."""
        with self.lock:
            assert self.lock.wait_for(lambda: len(self.held) >= number, 60)

    def let_go(self, seconds: float) -> None:
        self.go(seconds)
        with self.lock:
            held, self.held = self.held, []
        for one in held:
            one.set()


@pytest.mark.parametrize("size_bytes", [100_000, 100])
def test_who_has_begun_comes_before_who_came_earlier_and_has_not(size_bytes: int) -> None:
    clock, ended = Held(), list[str]()
    uplink = limited(clock)

    def take(name: str, begins: bool) -> None:
        uplink.take(size_bytes, never, begins=begins)
        ended.append(name)

    def somebody() -> str:
        end = monotonic() + 60
        while not ended:
            assert monotonic() < end
            sleep(0.001)
        return ended[0]

    piece_seconds = (min(size_bytes, RATE // 64) + 1024) / RATE
    threads = []
    for number, (name, begins) in enumerate((("new", True), ("begun", False)), 1):
        threads.append(threading.Thread(target=take, args=(name, begins)))
        threads[-1].start()
        clock.until(number)
    if size_bytes < 4096:  # what is small comes first once; then it is the turn of the others
        clock.let_go(piece_seconds)
        assert somebody() == "new"
        threads[0].join(60)
        threads[0] = threading.Thread(target=take, args=("new", True))
        threads[0].start()
        clock.until(2)
        ended.clear()
    clock.let_go(piece_seconds)
    assert somebody() == "begun"
    threads[1].join(60)
    clock.until(1)
    clock.let_go(1.0)
    threads[0].join(60)
    assert ended == ["begun", "new"]


def test_what_is_small_waits_for_one_piece_and_not_for_all_that_has_come_before() -> None:
    """A stop and a reload wait for the head of the record of deletions, a line of text: behind all that waits at a
    narrow line it would be hours, after which systemd kills the daemon."""
    uplink = Uplink(SystemClock())
    uplink.follow(schedule_of({"default": "500kB/s"}))
    over, ended = threading.Event(), list[int]()

    def large() -> None:
        sending = uplink.sending(over.is_set)
        assert sending is not None
        with suppress(Stopping):
            for _ in sending.pieces(bytes(50_000_000)):
                ended.append(1)

    threads = [threading.Thread(target=large) for _ in range(16)]
    for thread in threads:
        thread.start()
    try:
        clock = SystemClock()
        while len(ended) < 3:
            over.wait(0.01)
        for size in (300, 4096):
            began, pieces = clock.monotonic(), len(ended)
            send(uplink, size)
            assert clock.monotonic() - began < 20.0
        # Many of them, as of small images, do not keep the others from going on.
        pieces = len(ended)
        for _ in range(20):
            send(uplink, 300)
        assert len(ended) - pieces >= 15
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_body_for_a_library() -> None:
    clock = Waiting()
    uplink = limited(clock)
    sending = uplink.sending(never)
    assert sending is not None
    data = bytes(range(256)) * 4000
    body = PacedBody(BytesIO(data), sending)
    found = b""
    while piece := body.read(16384):
        found += piece
    assert found == data
    assert clock.passed == pytest.approx(1.0, rel=0.15)
    assert (body.seek(0), body.tell(), body.read(3), body.seek(0, 2), body.read(9)) == (0, 0, data[:3], len(data), b"")


def test_a_folder_is_an_archive_too(tmp_path: Path) -> None:
    clock = Waiting()
    store = DirectoryStore(DirectorySettings(kind="directory", path=tmp_path / "archive"), uplink=limited(clock))
    store.initialise()
    clock.passed = 0.0
    store.put("studies/x", Buffer(bytes(3 * RATE)))
    assert clock.passed == pytest.approx(3.0, rel=0.1)
