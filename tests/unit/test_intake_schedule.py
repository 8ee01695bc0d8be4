"""When an inbox's thread looks again after it was woken."""

from __future__ import annotations

import threading
from random import Random

import pytest

from dicomwatchd.intake.schedule import GATHER_SECONDS, Schedule
from dicomwatchd.ports import Clock, SystemClock


class _Waking(SystemClock):
    """The thread has waited for ``rested_seconds`` when the event comes."""

    def __init__(self, rested_seconds: float) -> None:
        self._times = iter((100.0, 100.0 + rested_seconds))

    def monotonic(self) -> float:
        return next(self._times)


class _Stopping(threading.Event):
    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0.0)
        return False


def schedule(clock: Clock) -> Schedule:
    return Schedule(60.0, Random(1), clock)


@pytest.mark.parametrize(
    ("rested_seconds", "waits"),
    [(0.0, GATHER_SECONDS), (GATHER_SECONDS / 2, GATHER_SECONDS / 2), (GATHER_SECONDS, None), (0.9, None)],
)
def test_the_first_event_after_a_rest_is_looked_into_at_once(rested_seconds: float, waits: float | None) -> None:
    """A folder that is moved into an inbox at rest need not wait; between two looks there is a pause all the same."""
    stopping = _Stopping()
    made = schedule(_Waking(rested_seconds))
    made.hint(b"A")
    made.wait(5.0, stopping)
    assert stopping.waited == ([] if waits is None else [pytest.approx(waits)])
    assert made.take_hints() == {b"A": False}


def test_what_the_pipeline_asks_for_is_not_gathered() -> None:
    stopping = _Stopping()
    made = schedule(_Waking(0.0))
    made.hint(b"A", alone=True)
    made.wait(5.0, stopping)
    assert stopping.waited == []
