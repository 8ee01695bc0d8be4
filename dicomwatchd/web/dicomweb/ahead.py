"""What a viewer asks for next: it searches a study's series, then reads all of their headers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from threading import BoundedSemaphore

from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.model import Uid

#: So many studies at once, and none waits: whoever asks for the headers has them read in any case.
_AT_ONCE = 2


class ReadAhead:
    """Calls ``read`` (`SeriesReader.read_ahead`) in a thread of ``executor`` with a study that somebody looks at."""

    def __init__(self, read: Callable[[Uid], None], executor: Executor) -> None:
        self._read, self._executor = read, executor
        self._places = BoundedSemaphore(_AT_ONCE)

    def begin(self, study_uid: Uid) -> None:
        if not self._places.acquire(blocking=False):
            return
        try:
            self._executor.submit(self._take, study_uid)
        except RuntimeError:  # there are no threads any more
            self._places.release()

    def _take(self, study_uid: Uid) -> None:
        try:
            with suppress(DicomwatchdError):  # whoever asks for what cannot be read is told so
                self._read(study_uid)
        finally:
            self._places.release()
