"""Work that may never end, as on a share whose server is away: done by a thread that is left behind then."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Away(Exception):
    """What was begun before has not come back yet."""


class Work(Generic[T]):
    """``done`` is set at its end."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.done = threading.Event()
        self._work = work
        self._result: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        """The thread."""
        try:
            self._result.append(self._work())
        except BaseException as error:  # noqa: BLE001  handed to whoever waits for the result
            self._error = error
        self.done.set()

    def take(self) -> T:
        """The result of what is done. Raises as the work."""
        if self._error is not None:
            raise self._error
        return self._result[0]


class Aside:
    """One at a time: so however long it lasts, one thread is left behind and no more."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None

    def begin(self, work: Callable[[], T]) -> Work[T]:
        """Raises Away; OSError where no thread is to be had."""
        if self._thread is not None and self._thread.is_alive():
            raise Away
        begun = Work(work)
        self._thread = threading.Thread(target=begun.run, name=self._name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
        return begun

    def within(self, seconds: float, work: Callable[[], T]) -> T:
        """The result. Raises as `begin`; Away also where it takes longer; and as ``work``."""
        begun = self.begin(work)
        if not begun.done.wait(seconds):
            raise Away
        return begun.take()
