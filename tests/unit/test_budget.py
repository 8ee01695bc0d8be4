"""The memory budget: how much may be out at once, and which memory is used again."""

from __future__ import annotations

import threading

import pytest

from dicomwatchd.archive.budget import ByteBudget
from dicomwatchd.errors import Stopping


def never() -> bool:
    return False


def full(budget: ByteBudget, size_bytes: int) -> bool:
    """Whether ``size_bytes`` are not to be had now."""
    try:
        budget.take(size_bytes, lambda: True)
    except Stopping:
        return True
    budget.give_back(size_bytes)
    return False


def test_what_is_out_is_bounded_and_one_that_is_too_large_goes_alone() -> None:
    budget = ByteBudget(100)
    room = budget.room(60, never)
    assert not full(budget, 40) and full(budget, 41)
    budget.give_back_room(room)
    assert not full(budget, 1000)
    large = budget.room(1000, never)
    assert len(large) == 1000 and full(budget, 1)


def test_a_room_is_used_again_only_while_somebody_says_so() -> None:
    budget = ByteBudget(100)
    with budget.reusing():
        first = budget.room(50, never)
        with budget.reusing():
            second = budget.room(50, never)
            assert second is not first
            budget.give_back_room(second)
        assert budget.room(50, never) is second
        budget.give_back_room(second)
        budget.give_back_room(first)
        assert {id(budget.room(50, never)) for _ in range(2)} == {id(first), id(second)}
        budget.give_back_room(first)
        budget.give_back_room(second)
    assert budget._spare == []
    budget.give_back_room(budget.room(50, never))
    assert budget._spare == []


def test_a_room_of_another_size_is_another_room() -> None:
    budget = ByteBudget(100)
    with budget.reusing():
        room = budget.room(50, never)
        budget.give_back_room(room)
        assert len(budget.room(20, never)) == 20
        assert budget.room(50, never) is room


def test_spare_rooms_count_and_give_way_to_whoever_needs_the_budget() -> None:
    budget = ByteBudget(100)
    with budget.reusing():
        rooms = [budget.room(25, never) for _ in range(4)]
        for room in rooms:
            budget.give_back_room(room)
        assert len(budget._spare) == 4
        with budget.held(30):
            assert len(budget._spare) == 2
        larger = budget.room(60, never)
        assert len(budget._spare) == 1
        budget.give_back_room(larger)
        assert budget._out + sum(map(len, budget._spare)) <= 100
        large = budget.room(500, never)
        assert budget._spare == []
        budget.give_back_room(large)
        assert budget._spare == []


def test_a_room_that_cannot_be_had_takes_nothing() -> None:
    budget = ByteBudget(1 << 62)
    with pytest.raises(MemoryError):
        budget.room(1 << 60, never)
    assert budget._out == 0


def test_whoever_waits_for_a_room_gets_it_when_one_comes_back() -> None:
    budget = ByteBudget(100)
    got: list[bytearray] = []
    with budget.reusing():
        room = budget.room(100, never)
        waiting = threading.Thread(target=lambda: got.append(budget.room(100, never)))
        waiting.start()
        budget.give_back_room(room)
        waiting.join(10)
    assert got == [room] and got[0] is room
