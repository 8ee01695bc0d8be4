"""The memory budget: how much may be out at once, and which memory is used again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from dicomwatchd.archive.stores.budget import ByteBudget
from dicomwatchd.errors import Stopping


def never() -> bool:
    return False


def full(budget: ByteBudget, size_bytes: int) -> bool:
    """Whether ``size_bytes`` are not to be had now."""
    try:
        budget.take(size_bytes, lambda: True)
    except Stopping:
        return True
    budget.release(size_bytes)
    return False


def test_what_is_out_is_bounded_and_one_that_is_too_large_goes_alone() -> None:
    budget = ByteBudget(100)
    buffer = budget.buffer(60, never)
    assert not full(budget, 40) and full(budget, 41)
    budget.release_buffer(buffer)
    assert not full(budget, 1000)
    large = budget.buffer(1000, never)
    assert len(large) == 1000 and full(budget, 1)


def test_a_room_is_used_again_only_while_somebody_says_so() -> None:
    budget = ByteBudget(100)
    with budget.reusing():
        first = budget.buffer(50, never)
        with budget.reusing():
            second = budget.buffer(50, never)
            assert second is not first
            budget.release_buffer(second)
        assert budget.buffer(50, never) is second
        budget.release_buffer(second)
        budget.release_buffer(first)
        assert {id(budget.buffer(50, never)) for _ in range(2)} == {id(first), id(second)}
        budget.release_buffer(first)
        budget.release_buffer(second)
    assert budget._spare == []
    budget.release_buffer(budget.buffer(50, never))
    assert budget._spare == []


def test_a_room_of_another_size_is_another_room() -> None:
    budget = ByteBudget(100)
    with budget.reusing():
        buffer = budget.buffer(50, never)
        budget.release_buffer(buffer)
        assert len(budget.buffer(20, never)) == 20
        assert budget.buffer(50, never) is buffer


def test_spare_rooms_count_and_give_way_to_whoever_needs_the_budget() -> None:
    budget = ByteBudget(100)
    with budget.reusing():
        rooms = [budget.buffer(25, never) for _ in range(4)]
        for buffer in rooms:
            budget.release_buffer(buffer)
        assert len(budget._spare) == 4
        with budget.held(30):
            assert len(budget._spare) == 2
        larger = budget.buffer(60, never)
        assert len(budget._spare) == 1
        budget.release_buffer(larger)
        assert budget._out + sum(map(len, budget._spare)) <= 100
        large = budget.buffer(500, never)
        assert budget._spare == []
        budget.release_buffer(large)
        assert budget._spare == []


def test_a_room_that_cannot_be_had_takes_nothing() -> None:
    budget = ByteBudget(1 << 62)
    with pytest.raises(MemoryError):
        budget.buffer(1 << 60, never)
    assert budget._out == 0


def test_whoever_waits_for_a_room_gets_it_when_one_comes_back() -> None:
    budget = ByteBudget(100)
    got: list[bytearray] = []
    with budget.reusing():
        buffer = budget.buffer(100, never)
        waiting = threading.Thread(target=lambda: got.append(budget.buffer(100, never)))
        waiting.start()
        budget.release_buffer(buffer)
        waiting.join(10)
    assert got == [buffer] and got[0] is buffer


# -- first come, first served -----------------------------------------------------------------------------------------


class Waiter:
    """A thread that asks for memory, and tells when it has it."""

    def __init__(self, budget: ByteBudget, size_bytes: int, order: list[str], name: str) -> None:
        self.asked = 0
        self.stop = False
        self.stopped = False
        self._budget, self._size_bytes, self._order, self._name = budget, size_bytes, order, name
        before = len(budget._waiting)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        until(lambda: len(budget._waiting) > before or bool(order and order[-1] == name))

    def _run(self) -> None:
        try:
            self._budget.take(self._size_bytes, self._stopping)
        except Stopping:
            self.stopped = True
        else:
            self._order.append(self._name)

    def _stopping(self) -> bool:
        self.asked += 1
        return self.stop


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_large_request_is_not_passed_by_small_ones() -> None:
    budget, order = ByteBudget(100), list[str]()
    budget.take(50, never)
    large = Waiter(budget, 90, order, "large")
    small = [Waiter(budget, 10, order, f"small {number}") for number in range(3)]
    assert order == [], "there is room for the small ones, but they came later"
    budget.release(50)
    until(lambda: len(order) >= 2)
    assert order[0] == "large" and order[1].startswith("small"), "and ten bytes are left for one of the others"
    assert budget._out == 100 and len(order) == 2
    budget.release(90)
    until(lambda: len(order) == 4)
    assert order == ["large", "small 0", "small 1", "small 2"]
    for waiter in (large, *small):
        waiter.thread.join(60)


def test_those_that_wait_are_served_in_their_order() -> None:
    budget, order = ByteBudget(10), list[str]()
    budget.take(10, never)
    waiters = [Waiter(budget, 10, order, str(number)) for number in range(6)]
    for number in range(6):
        budget.release(10)
        until(lambda number=number: len(order) == number + 1)  # type: ignore[misc]
    assert order == [str(number) for number in range(6)]
    for waiter in waiters:
        waiter.thread.join(60)


def test_one_that_stops_makes_way_for_the_next() -> None:
    budget, order = ByteBudget(100), list[str]()
    budget.take(50, never)
    large = Waiter(budget, 1000, order, "large")
    small = Waiter(budget, 10, order, "small")
    large.stop = True
    small.thread.join(60)
    large.thread.join(60)
    assert order == ["small"] and large.stopped
    assert budget._out == 60 and not budget._waiting


def test_who_waits_shows_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomwatchd.archive.stores.budget.WAIT_SECONDS", 0.01)
    budget, order = ByteBudget(100), list[str]()
    budget.take(100, never)
    first, second = Waiter(budget, 10, order, "first"), Waiter(budget, 10, order, "second")
    until(lambda: first.asked > 3 and second.asked > 3)
    budget.release(100)
    first.thread.join(60)
    second.thread.join(60)
    assert order == ["first", "second"]


def test_one_above_the_whole_budget_goes_alone_when_its_turn_comes() -> None:
    budget, order = ByteBudget(100), list[str]()
    budget.take(40, never)
    large = Waiter(budget, 500, order, "large")
    small = Waiter(budget, 10, order, "small")
    budget.release(40)
    large.thread.join(60)
    assert order == ["large"]
    budget.release(500)
    small.thread.join(60)
    assert order == ["large", "small"]


def test_a_failure_while_waiting_leaves_nobody_behind() -> None:
    budget = ByteBudget(100)
    budget.take(100, never)
    with pytest.raises(ZeroDivisionError):
        budget.take(1, lambda: bool(1 // 0))
    assert not budget._waiting and budget._out == 100
    with pytest.raises(Stopping), budget.held(1, lambda: True):
        pass
    assert not budget._waiting and budget._out == 100
