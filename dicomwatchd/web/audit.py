"""The record of access as the rooms write it: each view once, and nothing is handed out that is not on record."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from dicomwatchd.access.record import AccessRecord
from dicomwatchd.model import Uid
from dicomwatchd.ports import Clock
from dicomwatchd.web.people import Person

#: The same person doing the same with the same study within this time is one view: a series is a thousand requests.
SAME_VIEW_SECONDS = 600.0
_MOST_VIEWS = 50_000


class RecordedAccess:
    """An `AccessAudit`. Safe from many threads: whoever comes while the same view is being written waits for it."""

    def __init__(self, record: AccessRecord, clock: Clock) -> None:
        self._record, self._clock = record, clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    def record(self, person: Person, action: str, study_uid: Uid) -> None:
        """Raises StateFailed, StateUnavailable."""
        self.record_each(person, action, [study_uid])

    def record_each(self, person: Person, action: str, study_uids: Iterable[Uid]) -> None:
        """All of them with one write of the disk. Raises StateFailed, StateUnavailable: then none is on record."""
        now = self._clock.monotonic()
        with self._lock:
            wanted = [one for one in dict.fromkeys(study_uids) if self._is_new((person.name, action, str(one)), now)]
            if not wanted:
                return
            self._record.append_each(self._clock.now(), person.name, action, wanted)
            for one in wanted:
                view = (person.name, action, str(one))
                self._seen.pop(view, None)
                self._seen[view] = now
            while len(self._seen) > _MOST_VIEWS:
                self._seen.popitem(last=False)

    def _is_new(self, view: tuple[str, str, str], now: float) -> bool:
        began = self._seen.get(view)
        return began is None or now - began >= SAME_VIEW_SECONDS
