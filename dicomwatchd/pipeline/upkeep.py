"""What keeps the state from growing, a small piece at a time, beside everything else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from dicomwatchd.errors import Transient

#: Between two pieces of work: so the rest of the daemon waits for the state no longer than for any other commit.
PIECE_SECONDS = 0.2
#: Between two looks for work. So long it takes at most until what may go has begun to go.
CHECK_SECONDS = 5.0


class Upkeep:
    """``pieces`` each do one small piece of work and tell whether there is more; one thread calls `step`."""

    def __init__(self, pieces: Sequence[Callable[[], bool]]) -> None:
        self._pieces = pieces

    def step(self) -> bool:
        """One piece of each kind; whether there is more. A state whose disk is full is left for later."""
        more = False
        for piece in self._pieces:
            try:
                more = piece() or more
            except Transient:
                return False  # whoever writes next to the full disk says so
        return more

    def run(self, stopping: threading.Event, beat: Callable[[], None]) -> None:
        """The thread, until it is told to stop."""
        while not stopping.is_set():
            beat()
            stopping.wait(PIECE_SECONDS if self.step() else CHECK_SECONDS)
