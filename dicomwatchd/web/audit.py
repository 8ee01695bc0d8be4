"""The record of access as the rooms write it: each view once, and nothing is handed out that is not on record."""

from __future__ import annotations

import threading
from collections import OrderedDict

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
        view, now = (person.name, action, str(study_uid)), self._clock.monotonic()
        with self._lock:
            began = self._seen.get(view)
            if began is not None and now - began < SAME_VIEW_SECONDS:
                return
            self._record.append(self._clock.now(), person.name, action, study_uid)
            self._seen.pop(view, None)
            self._seen[view] = now
            if len(self._seen) > _MOST_VIEWS:
                self._seen.popitem(last=False)
