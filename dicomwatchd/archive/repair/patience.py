"""What is done about trouble that heals by itself, while much work is under way: try again, and tell a place that is
down from one study that never comes through."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from dicomwatchd.errors import OutOfReach, Transient
from dicomwatchd.model import Uid

_R = TypeVar("_R")

#: Different studies that fail, with nothing passing meanwhile, are not the studies' fault.
DOWN_AFTER = 2


class OwnTrouble(Exception):
    """A study failed as often as it was tried, while others passed, or as the first of all. ``error`` is the last."""

    def __init__(self, error: Transient) -> None:
        super().__init__(error.message)
        self.error = error


class Patience:
    """Tries again what fails with Transient, so many times. Safe from many threads.

    ``pause`` gives the seconds to wait after so many failures; ``sleep`` waits, and may raise Stopping. ``waiting``
    hears of each pause before it.
    """

    def __init__(
        self,
        attempts: int,
        *,
        pause: Callable[[int], float],
        sleep: Callable[[float], None],
        waiting: Callable[[Transient, float], None] = lambda *_: None,
    ) -> None:
        self._attempts = attempts
        self._pause = pause
        self._sleep = sleep
        self._waiting = waiting
        self._lock = threading.Lock()
        self._passed = 0
        self._failing: set[Uid] = set()  # since something has passed

    def of_study(self, study_uid: Uid, work: Callable[[], _R]) -> _R:
        """Raises OwnTrouble where it concerns this study, as far as one can tell, and Transient where it does not."""
        began = -1
        for number in range(self._attempts):
            try:
                result = work()
            except Transient as error:
                with self._lock:
                    began = self._passed if began < 0 else began
                    self._failing.add(study_uid)
                if number == self._attempts - 1:
                    if self._is_own(error, began):
                        raise OwnTrouble(error) from error
                    raise
                self._rest(number, error)
            else:
                with self._lock:
                    self._passed += 1
                    self._failing.clear()
                return result
        raise AssertionError("at least one attempt")

    def of_all(self, work: Callable[[], _R]) -> _R:
        """For what is no study's. Raises Transient."""
        for number in range(self._attempts - 1):
            try:
                return work()
            except Transient as error:
                self._rest(number, error)
        return work()

    def _is_own(self, error: Transient, began: int) -> bool:
        if error.endpoint is None and not isinstance(error, OutOfReach):
            return True
        with self._lock:
            return self._passed > began or len(self._failing) < DOWN_AFTER

    def _rest(self, failures: int, error: Transient) -> None:
        seconds = error.retry_after_seconds or self._pause(failures)
        self._waiting(error, seconds)
        self._sleep(seconds)


def impatient() -> Patience:
    """Every failure is the last one."""
    return Patience(1, pause=lambda _: 0.0, sleep=lambda _: None)
