"""The worker threads under attack: errors half-way, callers that stop asking, drains."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dicomwatchd.errors import Stopping, Transient
from dicomwatchd.pipeline.pool import Pool


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(4)
    yield pool
    pool.close()


def all_at_rest(pool: Pool) -> bool:
    """Every worker is alive, and none is busy for longer than a moment."""
    end = time.monotonic() + 2
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
