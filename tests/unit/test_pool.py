"""The worker threads under attack: errors half-way, callers that stop asking, drains."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dicomwatchd.errors import Stopping, Transient
from dicomwatchd.pipeline.pace import AT_FIRST, AT_LEAST, SLOW_SECONDS, Pace
from dicomwatchd.pipeline.pool import Pool
from dicomwatchd.ports import SystemClock


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(Pace(4, SystemClock()))
    yield pool
    pool.close()


def all_at_rest(pool: Pool) -> bool:
    """Every worker is alive, and none stays busy."""
    end = time.monotonic() + 60
    while pool.busy and time.monotonic() < end:
        time.sleep(0.001)
    return pool.busy == 0 and all(thread.is_alive() for thread in pool._threads)


def test_results_come_in_order(pool: Pool) -> None:
    assert list(pool.lane()(lambda n: n * n, range(100))) == [n * n for n in range(100)]


def test_an_error_half_way_costs_no_worker_and_nothing_runs_after_it(pool: Pool) -> None:
    for _ in range(20):
        left = threading.Event()
        late: list[int] = []

        def work(number: int, left: threading.Event = left, late: list[int] = late) -> int:
            if number == 1:
                raise Transient("the store is down")
            time.sleep(0.002)
            if left.is_set():
                late.append(number)
            return number

        with pytest.raises(Transient):
            list(pool.lane()(work, range(1000)))
        left.set()
        time.sleep(0.005)
        assert late == [], "what was under way comes to its end before the lane is left, the rest never begins"
    assert all_at_rest(pool)
    assert list(pool.lane()(str, range(50))) == [str(n) for n in range(50)]


def test_a_caller_that_stops_asking_costs_no_worker(pool: Pool) -> None:
    for _ in range(20):
        results = pool.lane()(lambda n: time.sleep(0.001), range(1000))
        next(results)
        results.close()  # type: ignore[attr-defined]
    assert all_at_rest(pool)


def test_a_drain_lets_what_is_under_way_end(pool: Pool) -> None:
    done: list[int] = []

    def work(number: int) -> int:
        if number == 5:
            pool.drain()
        done.append(number)
        return number

    got: list[int] = []
    with pytest.raises(Stopping):
        got.extend(pool.lane()(work, range(1000)))
    assert len(done) < 100 and all_at_rest(pool)


def test_a_worker_is_begun_for_each_item_that_would_wait(pool: Pool) -> None:
    assert pool._threads == []
    together = threading.Barrier(4)
    assert list(pool.lane()(lambda _: together.wait(60) >= 0, range(4))) == [True] * 4
    assert list(pool.lane()(lambda _: together.wait(60) >= 0, range(8))) == [True] * 8
    assert len(pool._threads) == 4


class Machine:
    """A clock, and the processor time of this process and of nobody, as a test says."""

    def __init__(self) -> None:
        self.at = self.cpu_seconds = self.idle_seconds = 0.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def passes(self, seconds: float, *, share: float = 0.1, spare: float = 1.0) -> None:
        self.at += seconds
        self.cpu_seconds += seconds * share
        self.idle_seconds += seconds * spare


def pace_of(machine: Machine, most: int = 64) -> Pace:
    return Pace(most, machine, lambda: machine.cpu_seconds, lambda: machine.idle_seconds)


def work(pace: Pace, items: int, waiting: bool = True) -> None:
    for _ in range(items):
        pace.finished(more=waiting)


def test_waiting_for_a_far_store_brings_more_workers() -> None:
    machine = Machine()
    pace = pace_of(machine, 200)
    limits = [pace.limit]
    for share in (0.5, 0.1, 0.1, 0.1, 0.1):
        work(pace, 1000)
        machine.passes(0.5, share=share)
        assert pace.adjust() == (limits[-1] < 200)
        limits.append(pace.limit)
    assert limits == [AT_FIRST, 64, 200, 200, 200, 200]


@pytest.mark.parametrize(
    ("seconds", "share", "spare", "items", "waiting"),
    [
        (0.5, 0.1, 0.1, 1000, True),  # others keep the machine busy
        (0.5, 0.9, 1.0, 1000, True),  # this process has no more to give
        (0.5, 0.1, 1.0, 1, True),  # too little was done to tell
        (0.5, 0.1, 1.0, 1000, False),  # nothing waits for a worker
        (0.1, 0.1, 1.0, 1000, True),  # too early
    ],
)
def test_where_more_workers_would_not_help_there_are_no_more(
    seconds: float, share: float, spare: float, items: int, waiting: bool
) -> None:
    machine = Machine()
    pace = pace_of(machine)
    work(pace, items, waiting)
    machine.passes(seconds, share=share, spare=spare)
    assert not pace.adjust()
    assert pace.limit == AT_FIRST


def test_a_service_that_asks_for_less_gets_less_and_is_left_in_peace() -> None:
    machine = Machine()
    pace = pace_of(machine)
    for expected in (16, 8, AT_LEAST, AT_LEAST):
        pace.slow_down()
        assert pace.limit == expected
    for seconds, grows in ((SLOW_SECONDS - 1, False), (2, True)):
        work(pace, 1000)
        machine.passes(seconds, share=0.5)
        assert pace.adjust() is grows
    assert pace.limit == 2 * AT_LEAST
    assert pace_of(machine, 2).limit == 2


def test_workers_that_come_and_go_lose_nothing() -> None:
    machine = Machine()
    pace = pace_of(machine, 32)
    pool = Pool(pace)
    ended = threading.Event()

    def disturb() -> None:
        for round_ in range(300):
            with pool._condition:
                pace.limit = (1, 2, 32, 5)[round_ % 4]
                pool._condition.notify_all()
            time.sleep(0.001)
        ended.set()

    threading.Thread(target=disturb, daemon=True).start()
    while not ended.is_set():
        assert list(pool.lane()(lambda n: n + 1, range(200))) == list(range(1, 201))
    assert all_at_rest(pool)
    begun = time.monotonic()
    pool.close()
    assert time.monotonic() - begun < 60
    assert not any(thread.is_alive() for thread in pool._threads)
