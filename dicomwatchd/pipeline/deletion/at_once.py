"""How many batches of a purge are at the files of one folder at once.

On a disk of the machine itself deleting is hardly more than the interpreter's own work, of which one thread does as
much as ten: more of them only take its lock from each other, at every one of a file's twenty system calls. Small files
therefore go one batch after the other. Of large ones a few batches go beside each other in what needs no lock, which is
to read and to hash. On a share each waits for its server, and the more of them the better.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from dicomwatchd.answering import Inboxes
from dicomwatchd.errors import InboxNotResponding
from dicomwatchd.localfiles import is_on_a_share
from dicomwatchd.queue.rows import Source

#: Of large files. Measured with 2 processors, 5,000 MR: with 32 the whole job took 1.1 to 1.2 times the CPU of 4.
AT_ONCE = 4
#: Files of up to this size, on the average, are small: to hash one takes less than the rest of its deletion. Measured
#: with 5,000 MR of 40 KB: one batch took 0.93 of the CPU of 4, with fewer changes of thread.
SMALL_BYTES = 128 * 1024
#: A turn is for the others' good: nobody waits for one longer than this, whatever has become of who has it.
MOST_SECONDS = 10.0
_BEAT_SECONDS = 1.0

#: Around the work at a folder's files.
Turn = Callable[[], AbstractContextManager[None]]


class Turns:
    """Of one folder, ``at_once`` of them; ``heartbeat`` is called while one waits."""

    def __init__(
        self, heartbeat: Callable[[], None], at_once: int = AT_ONCE, most_seconds: float = MOST_SECONDS
    ) -> None:
        self._heartbeat, self._most_seconds = heartbeat, most_seconds
        self._free = threading.Semaphore(at_once)

    @contextmanager
    def turn(self) -> Iterator[None]:
        has_turn, waited = self._free.acquire(blocking=False), 0.0
        while not has_turn and waited < self._most_seconds:
            has_turn = self._free.acquire(timeout=_BEAT_SECONDS)
            waited += _BEAT_SECONDS
            self._heartbeat()
        try:
            yield
        finally:
            if has_turn:
                self._free.release()


def turns_at(source: Source, sizes_bytes: Sequence[int], inboxes: Inboxes, heartbeat: Callable[[], None]) -> Turn:
    """For the batches of one purge, whose files in this folder have these sizes. Without limit on a share, and where
    nobody can tell. Raises nothing."""

    def look() -> bool:
        root_fd = source.open()
        try:
            return is_on_a_share(root_fd)
        finally:
            os.close(root_fd)

    try:
        is_shared = inboxes.call(source.source_id, look)
    except (OSError, InboxNotResponding):
        is_shared = True  # whoever deletes meets the same, and says so
    if is_shared:
        return nullcontext
    return Turns(heartbeat, at_once=1 if sum(sizes_bytes) <= SMALL_BYTES * len(sizes_bytes) else AT_ONCE).turn
