"""Whether inboxes answer: who is given up and when, what is refused, and that what was given up drops its work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from dicomwatchd.answering import PATIENCE, Answering
from dicomwatchd.errors import InboxNotResponding, Transient
from dicomwatchd.pipeline.pace import Pace
from dicomwatchd.pipeline.pool import Pool
from dicomwatchd.ports import SystemClock
from tests.pieces import Log

LIMIT = 30.0
HUNG, OTHER = 1, 2


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds

    monotonic = now


class Bench:
    """A clock that stands still, and threads that wait for an event as they would for a share."""

    def __init__(self) -> None:
        self.clock, self.log, self.back = Clock(), Log(), 0
        self.inboxes = Answering(self.clock, self.log, LIMIT, self._on_back)
        for source_id in (HUNG, OTHER):
            self.inboxes.know(source_id, f"inbox{source_id}")
        self.released = threading.Event()
        self.errors: list[BaseException] = []
        self.threads: list[threading.Thread] = []

    def _on_back(self) -> None:
        self.back += 1

    def visit(
        self,
        work: Callable[[], object] | None = None,
        source_id: int = HUNG,
        *,
        own: bool = False,
        afterwards: Callable[[], object] = lambda: None,
    ) -> str:
        """A thread at an inbox, which waits until `release`, and then does ``work`` there, and ``afterwards`` what it
        still has to do elsewhere; its name."""
        entered = threading.Event()

        def run() -> None:
            try:
                with self.inboxes.of_its_own(source_id) if own else self.inboxes.at(source_id):
                    entered.set()
                    self.released.wait(60)
                    if work is not None:
                        work()
            except BaseException as error:  # noqa: BLE001  to be looked at
                self.errors.append(error)
            afterwards()
            self.inboxes.returned()

        thread = threading.Thread(target=run, daemon=True)
        self.threads.append(thread)
        thread.start()
        assert entered.wait(60)
        return thread.name

    def pass_time(self, seconds: float) -> list[str]:
        self.clock.seconds += seconds
        return self.inboxes.tick()

    def release(self) -> None:
        self.released.set()
        for thread in self.threads:
            thread.join(60)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.release()


def test_what_answers_in_time_is_let_alone(bench: Bench) -> None:
    bench.visit()
    assert bench.pass_time(LIMIT) == [] and bench.inboxes.not_responding() == {}
    bench.release()
    assert bench.errors == [] and bench.inboxes.inside() == set()


def test_one_that_does_not_answer_is_told_of_once_and_asked_no_more(bench: Bench) -> None:
    name = bench.visit()
    assert bench.pass_time(LIMIT + 1) == [name] and bench.inboxes.gave_up(name)
    assert bench.pass_time(10) == [name]
    assert bench.inboxes.not_responding() == {HUNG: LIMIT + 11}
    assert [e["inbox"] for e in bench.log.events("inbox-not-responding")] == ["inbox1"]
    with pytest.raises(InboxNotResponding), bench.inboxes.at(HUNG):
        pass
    with pytest.raises(InboxNotResponding):
        bench.inboxes.begin(HUNG, lambda: None)
    with bench.inboxes.at(HUNG, leaving=True), bench.inboxes.of_its_own(HUNG):
        pass
    with bench.inboxes.at(OTHER):
        pass


def test_what_was_given_up_drops_its_work_when_it_comes_back(bench: Bench) -> None:
    done: list[str] = []

    def work() -> None:
        bench.inboxes.beat()
        done.append("what nobody waits for any more")

    bench.visit(work)
    bench.pass_time(LIMIT + 1)
    bench.release()
    assert [type(error) for error in bench.errors] == [InboxNotResponding] and done == []


def test_it_drops_its_result_too(bench: Bench) -> None:
    bench.visit()
    bench.pass_time(LIMIT + 1)
    bench.release()
    assert [type(error) for error in bench.errors] == [InboxNotResponding]


def test_nothing_new_begins_before_the_last_one_given_up_has_ended(bench: Bench) -> None:
    still = threading.Event()
    bench.visit(lambda: still.wait(60))
    bench.pass_time(LIMIT + 1)
    bench.released.set()
    assert HUNG in bench.inboxes.not_responding()
    bench.pass_time(1)
    assert HUNG in bench.inboxes.not_responding() and bench.back == 0, "it is back, and has not ended yet"
    still.set()
    bench.release()
    bench.pass_time(1)
    assert bench.inboxes.not_responding() == {} and bench.back == 1
    assert [e["inbox"] for e in bench.log.events("inbox-responding")] == ["inbox1"]
    with bench.inboxes.at(HUNG):
        pass


def test_one_that_has_left_the_inbox_counts_until_it_has_ended(bench: Bench) -> None:
    """It is no longer inside, and still about: what it holds (a worker's place, a lane) is not free yet."""
    left, ended = threading.Event(), threading.Event()

    def afterwards() -> None:
        left.set()
        ended.wait(60)

    name = bench.visit(afterwards=afterwards)
    bench.pass_time(LIMIT + 1)
    bench.released.set()
    assert left.wait(60)
    assert bench.pass_time(1) == [name] and bench.inboxes.gave_up(name)
    assert HUNG in bench.inboxes.not_responding() and bench.back == 0
    with pytest.raises(InboxNotResponding), bench.inboxes.at(HUNG):
        pass
    ended.set()
    bench.release()
    assert bench.pass_time(1) == [] and bench.inboxes.not_responding() == {} and bench.back == 1


def test_on_a_slow_share_the_answers_to_others_count(bench: Bench) -> None:
    name = bench.visit()
    for _ in range(PATIENCE - 1):
        with bench.inboxes.at(HUNG):
            pass
        assert bench.pass_time(LIMIT) == []
    with bench.inboxes.at(HUNG):
        pass
    assert bench.pass_time(LIMIT) == []
    with bench.inboxes.at(HUNG):
        pass
    assert bench.pass_time(1) == [name], "but one file that nobody gets is not waited for for ever"
    assert bench.inboxes.not_responding() == {HUNG: PATIENCE * LIMIT + 1}, "though others had an answer a moment ago"


def test_signs_of_life_keep_long_work_going(bench: Bench) -> None:
    with bench.inboxes.at(HUNG):
        for _ in range(3 * PATIENCE):
            bench.clock.seconds += LIMIT - 1
            bench.inboxes.beat()
            assert bench.inboxes.tick() == []


def test_an_inbox_s_own_thread_is_never_given_up_but_tells(bench: Bench) -> None:
    bench.visit(bench.inboxes.beat, own=True)
    assert bench.pass_time(LIMIT + 1) == [] and bench.inboxes.not_responding() == {HUNG: LIMIT + 1}
    bench.release()
    bench.pass_time(1)
    assert bench.errors == [] and bench.inboxes.not_responding() == {} and bench.back == 1


def test_who_waits_for_something_else_says_nothing_of_the_inbox(bench: Bench) -> None:
    """The state on a busy disk, an archive on a share that hangs: the inbox is not to blame, and the watchdog is to
    know of it."""
    entered, back = threading.Event(), threading.Event()

    def work() -> None:
        with bench.inboxes.elsewhere(), bench.inboxes.elsewhere():
            entered.set()
            back.wait(60)
        bench.released.clear()
        entered.clear()
        left.set()
        bench.released.wait(60)

    left = threading.Event()
    name = bench.visit(work)
    bench.released.set()
    assert entered.wait(60)
    assert bench.pass_time(PATIENCE * LIMIT + 1) == [] and bench.inboxes.not_responding() == {}
    assert bench.inboxes.inside() == set()
    with bench.inboxes.at(HUNG):
        pass
    back.set()
    assert left.wait(60)
    assert bench.inboxes.inside() == {name} and bench.pass_time(LIMIT) == []
    assert bench.pass_time(1) == [name], "but of the inbox again when it is back there"
    with bench.inboxes.elsewhere():
        pass  # a thread that is at no inbox


def test_work_that_is_done_for_somebody_who_waits(bench: Bench) -> None:
    assert bench.inboxes.call(HUNG, lambda: 7) == 7
    with pytest.raises(Transient, match="the state"):
        bench.inboxes.call(HUNG, _fails)
    wait = bench.inboxes.begin(HUNG, lambda: bench.released.wait(60))
    bench.clock.seconds += LIMIT + 1
    with pytest.raises(InboxNotResponding):
        wait()


def _fails() -> None:
    raise Transient("the state is full")


def test_at_a_stop_nobody_is_waited_for_that_long(bench: Bench) -> None:
    name = bench.visit()
    bench.inboxes.hurry(1.0)
    assert bench.pass_time(2) == [name]


def test_the_watchdog_is_told_who_is_inside(bench: Bench) -> None:
    name = bench.visit()
    assert bench.inboxes.inside() == {name}
    bench.release()
    assert bench.inboxes.inside() == set()


# -- the workers ------------------------------------------------------------------------------------------------------


@pytest.fixture
def pool(bench: Bench) -> Iterator[Pool]:
    pool = Pool(Pace(2, SystemClock()), ended=bench.inboxes.returned)
    yield pool
    bench.release()
    pool.close()


def give_up(bench: Bench, pool: Pool) -> None:
    for name in bench.pass_time(LIMIT + 1):
        pool.give_up(name, InboxNotResponding("an inbox does not answer"), partial(bench.inboxes.gave_up, name))


def hang(bench: Bench, pool: Pool, count: int) -> list[BaseException]:
    """So many items that wait for the inbox, each in a lane of its own; what those who wait for them get."""
    entered = threading.Semaphore(0)
    found: list[BaseException] = []

    def item(_: int) -> None:
        with bench.inboxes.at(HUNG):
            entered.release()
            bench.released.wait(60)

    def lane() -> None:
        try:
            list(pool.lane()(item, [1]))
        except InboxNotResponding as error:
            found.append(error)

    for _ in range(count):
        thread = threading.Thread(target=lane, daemon=True)
        bench.threads.append(thread)
        thread.start()
    for _ in range(count):
        assert entered.acquire(timeout=60)
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def test_workers_that_wait_for_an_inbox_are_made_up_for(bench: Bench, pool: Pool) -> None:
    found = hang(bench, pool, 2)
    assert pool.busy == 2
    give_up(bench, pool)
    wait_for(lambda: len(found) == 2)
    assert pool.busy == 0
    assert list(pool.lane()(lambda n: n, range(20))) == list(range(20)), "others do the work"
    assert len(pool._threads) <= 4, "one for each that waits, and no more"
    with pytest.raises(InboxNotResponding):
        list(pool.lane()(lambda _: bench.inboxes.call(HUNG, int), [1]))
    bench.release()
    wait_for(lambda: not pool._given_up)
    assert list(pool.lane()(lambda n: n, range(20))) == list(range(20))
    assert pool.busy == 0 and len(pool._threads) <= 4


def test_a_worker_that_has_just_come_back_is_not_given_up(bench: Bench, pool: Pool) -> None:
    """Its next item is another one."""
    hang(bench, pool, 1)
    [name] = bench.pass_time(LIMIT + 1)
    bench.release()
    going, end = threading.Event(), threading.Event()
    results: list[object] = []

    def begun() -> bool:
        going.set()
        return True

    thread = threading.Thread(
        target=lambda: results.extend(pool.lane()(lambda _: begun() and end.wait(60), [1])), daemon=True
    )
    thread.start()
    assert going.wait(60)
    pool.give_up(name, InboxNotResponding("an inbox does not answer"), partial(bench.inboxes.gave_up, name))
    end.set()
    thread.join(60)
    assert len(results) == 1


def test_a_pool_closes_without_those_who_wait(bench: Bench, pool: Pool) -> None:
    hang(bench, pool, 1)
    give_up(bench, pool)
    closing = threading.Thread(target=pool.close, daemon=True)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
