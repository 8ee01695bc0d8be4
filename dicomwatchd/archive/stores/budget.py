"""The memory budget: how many bytes of files may be in memory at once, in the whole process."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from dicomwatchd.errors import Stopping

BUDGET_BYTES = 64 * 1024 * 1024
#: How often whoever waits asks whether to stop.
WAIT_SECONDS = 0.5

_M_MMAP_THRESHOLD = -3  # mallopt(3)
_OF_ITS_OWN_BYTES = 1024 * 1024


def keep_no_large_blocks() -> None:
    """What is given back to the budget goes back to the system: from now on every large block is a mapping of its own.
    glibc by itself begins to keep blocks of a size once one of them was freed, one such store for each thread."""
    with suppress(OSError, AttributeError):  # another C library, which has no such habit
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _OF_ITS_OWN_BYTES)


def _never() -> bool:
    return False


class ByteBudget:
    """How many bytes of files and of parts of files may be in memory at once, whoever holds them.

    First come, first served: a large request is not passed by small ones that come after it. One above the whole budget
    is let through when nothing else is out, so it cannot wait for ever. Whoever waits asks ``stopping`` all the while,
    which is also how it shows that it is alive.

    A `buffer` comes with its memory. Fresh memory costs the kernel more time than it takes to read a file into it, so
    while somebody is `reusing` buffers, those given back are kept for the next, as far as nobody needs what they take.
    """

    def __init__(self, total_bytes: int = BUDGET_BYTES) -> None:
        self._total = total_bytes
        self._out = 0
        self._changed = threading.Condition()
        self._waiting: dict[object, None] = {}  # in the order in which they came
        self._reusing = 0
        self._spare: list[bytearray] = []
        self._lent: list[_Loan] = []
        self._buffers: dict[int, _Loan] = {}

    def take(self, size_bytes: int, stopping: Callable[[], bool]) -> None:
        """Waits until there is memory for it. Raises Stopping."""
        with self._changed:
            self._wait_for(size_bytes, stopping)
            self._keep_within()
            self._lent.append(_Loan(threading.current_thread().name, size_bytes))

    @contextmanager
    def held(self, size_bytes: int, stopping: Callable[[], bool] = _never) -> Iterator[None]:
        """As `take`, for as long as the context lasts."""
        self.take(size_bytes, stopping)
        try:
            yield
        finally:
            self.release(size_bytes)

    def release(self, size_bytes: int) -> None:
        with self._changed:
            me = threading.current_thread().name
            fitting = [loan for loan in self._lent if loan.size_bytes == size_bytes]
            self._end(next((loan for loan in fitting if loan.thread == me), fitting[0]))

    def write_off(self, thread: str) -> None:
        """What the thread of this name holds does not count any more, nor when it is given back: it waits for an inbox,
        perhaps for ever, and nobody is to wait for its memory."""
        with self._changed:
            for loan in [*self._lent, *self._buffers.values()]:
                if loan.thread == thread and loan.counts:
                    loan.counts = False
                    self._out -= loan.size_bytes
            self._changed.notify_all()

    def _end(self, loan: _Loan) -> None:
        self._lent = [other for other in self._lent if other is not loan]
        if loan.counts:
            self._out -= loan.size_bytes
        self._changed.notify_all()

    def buffer(self, size_bytes: int, stopping: Callable[[], bool]) -> bytearray:
        """As `take`, with the memory, in which anything may stand. It goes back by `release_buffer`, once nobody reads
        or writes it any more."""
        with self._changed:
            self._wait_for(size_bytes, stopping)
            fitting = [number for number, spare in enumerate(self._spare) if len(spare) == size_bytes]
            buffer = self._spare.pop(fitting[-1]) if fitting else None
            self._keep_within()
        loan = _Loan(threading.current_thread().name, size_bytes)
        try:
            buffer = bytearray(size_bytes) if buffer is None else buffer
        except MemoryError:
            with self._changed:
                self._end(loan)
            raise
        with self._changed:
            self._buffers[id(buffer)] = loan  # while it is out nothing else has this id
        return buffer

    def release_buffer(self, buffer: bytearray) -> None:
        with self._changed:
            self._end(self._buffers.pop(id(buffer)))
            if self._reusing:
                self._spare.append(buffer)
                self._keep_within()

    @contextmanager
    def reusing(self) -> Iterator[None]:
        """Within, buffers that were given back are used again."""
        with self._changed:
            self._reusing += 1
        try:
            yield
        finally:
            with self._changed:
                self._reusing -= 1
                if not self._reusing:
                    self._spare.clear()

    def _wait_for(self, size_bytes: int, stopping: Callable[[], bool]) -> None:
        mine = object()
        self._waiting[mine] = None
        try:
            while next(iter(self._waiting)) is not mine or (self._out and self._out + size_bytes > self._total):
                self._changed.wait(WAIT_SECONDS)
                if stopping():
                    raise Stopping("stopped while it waited for memory")
            self._out += size_bytes
        finally:
            del self._waiting[mine]
            self._changed.notify_all()  # whoever is first now may have room enough

    def _keep_within(self) -> None:
        """What is kept for later gives way to what is needed now."""
        while self._spare and self._out + sum(map(len, self._spare)) > self._total:
            self._spare.pop(0)


@dataclass(eq=False, slots=True)
class _Loan:
    """What a thread holds; it does not count once it was written off."""

    thread: str
    size_bytes: int
    counts: bool = True
