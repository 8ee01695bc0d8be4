"""How many shipments of which kind may be under way at once."""

from __future__ import annotations

import pytest

from dicomwatchd.pipeline.slots import BLAMED_AT_ONCE, LONG_SECONDS, Kind, Slots


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_so_many_at_once_and_a_place_for_each_that_ends(clock: Clock) -> None:
    slots = Slots(3, clock)
    taken = [slots.take(Kind.STUDY) for _ in range(3)]
    assert slots.wait(Kind.STUDY) == LONG_SECONDS
    slots.release(taken[1])
    assert slots.wait(Kind.STUDY) == 0
    slots.release(taken[1])
    slots.take(Kind.STUDY)
    assert slots.wait(Kind.STUDY) == LONG_SECONDS


def test_what_takes_long_holds_up_nobody(clock: Clock) -> None:
    slots = Slots(3, clock)
    for at in (0, 5, 10):
        clock.seconds = at
        slots.take(Kind.STUDY)
    clock.seconds = 12
    assert slots.wait(Kind.STUDY) == LONG_SECONDS - 12, "until the oldest of them counts as one that takes long"
    clock.seconds = LONG_SECONDS
    assert slots.wait(Kind.STUDY) == 0
    slots.take(Kind.STUDY)
    assert slots.wait(Kind.STUDY) == 5


def test_and_yet_there_is_an_end_to_it(clock: Clock) -> None:
    slots = Slots(3, clock)
    taken = []
    for _ in range(6):
        taken.append(slots.take(Kind.STUDY))
        clock.seconds += LONG_SECONDS
    assert slots.wait(Kind.STUDY) is None
    slots.release(taken[0])
    assert slots.wait(Kind.STUDY) == 0


def test_studies_that_are_ill_are_few_and_take_nobodys_place(clock: Clock) -> None:
    slots = Slots(3, clock)
    for _ in range(BLAMED_AT_ONCE):
        assert slots.wait(Kind.BLAMED) == 0
        slots.take(Kind.BLAMED)
    assert slots.wait(Kind.BLAMED) is None and slots.wait(Kind.STUDY) == 0
    clock.seconds = 10 * LONG_SECONDS
    assert slots.wait(Kind.BLAMED) is None


def test_one_trial_at_a_time_unless_it_does_not_come_to_an_end(clock: Clock) -> None:
    slots = Slots(3, clock)
    for _ in range(3):
        slots.take(Kind.STUDY)
    assert slots.wait(Kind.TRIAL) == 0, "whatever else is under way"
    slots.take(Kind.TRIAL)
    assert slots.wait(Kind.TRIAL) == LONG_SECONDS
    for _ in range(2):
        clock.seconds += LONG_SECONDS
        assert slots.wait(Kind.TRIAL) == 0
        slots.take(Kind.TRIAL)
    clock.seconds += LONG_SECONDS
    assert slots.wait(Kind.TRIAL) is None


def test_all_of_them_together(clock: Clock) -> None:
    slots = Slots(8, clock)
    assert slots.most == 16 + BLAMED_AT_ONCE + 8
