"""One final check serves all workers of a purge who have staged files by then."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from dicomwatchd.archive.proof import final_check
from dicomwatchd.archive.stores.port import ObjectStore, Receipt
from dicomwatchd.errors import Stopping
from dicomwatchd.ports import Cancellation, never_cancelled

_WAIT_SECONDS = 1.0
#: So long a check waits for those who are staging files: one that takes longer is at a slow share, or at large files.
_GATHER_SECONDS = 0.5


@dataclass(slots=True)
class _Round:
    wanted: dict[str, Receipt] = field(default_factory=dict)
    is_over: bool = False
    gone: set[str] = field(default_factory=set)
    error: BaseException | None = None


class FinalCheck:
    """The final checks of one purge. One serves all who have staged their files before it has begun: it waits a little
    for whoever is at that, who comes while one is under way waits for its end, and the next is for all who came
    meanwhile. So a page costs a request or two, however many work on it."""

    def __init__(self, store: ObjectStore, cancelled: Cancellation = never_cancelled) -> None:
        self._store = store
        self._cancelled = cancelled
        self._condition = threading.Condition()
        self._next = _Round()
        self._is_asking = False
        self._staging = 0
        #: Of how many files the object was not there: nothing more goes.
        self.vanished = 0

    @property
    def stops(self) -> bool:
        return self.vanished > 0

    @contextmanager
    def staging(self) -> Iterator[None]:
        """Around the staging of files of which `gone` is asked next."""
        with self._condition:
            self._staging += 1
        try:
            yield
        finally:
            with self._condition:
                self._staging -= 1
                self._condition.notify_all()

    def gone(self, wanted: Mapping[str, Receipt]) -> set[str]:
        """Those of these keys whose objects the store does not show as what they were. Raises Transient, Stopping."""
        with self._condition:
            check = self._next
            check.wanted.update(wanted)
            self._condition.wait_for(lambda: check.is_over or not self._staging, _GATHER_SECONDS)
            while self._is_asking and not check.is_over:
                self._condition.wait(_WAIT_SECONDS)
                if self._cancelled():
                    raise Stopping("stopped while the store was checked")
            if not check.is_over:
                self._is_asking, self._next = True, _Round()
        if not check.is_over:
            self._ask(check)
        if check.error is not None:
            raise check.error
        return check.gone & wanted.keys()

    def _ask(self, check: _Round) -> None:
        try:
            check.gone = final_check.missing(self._store, check.wanted, self._cancelled)
        except BaseException as error:  # noqa: BLE001  all who wait for this check raise it
            check.error = error
        finally:
            with self._condition:
                check.is_over, self._is_asking = True, False
                self._condition.notify_all()

    def note(self, files: int) -> None:
        with self._condition:
            self.vanished += files
