"""What `dicomwatchctl top` asks from second to second: the status, what is on its way, and what is counted.

Taken once a second at most, however many watch, and less often where it takes long: the state is everybody's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from dicomwatchd.ports import Clock, timestamp
from dicomwatchd.prometheus.counts import Counts
from dicomwatchd.prometheus.sampling import rest_seconds
from dicomwatchd.queue.moving import Moving

#: Not more often, however many ask; a little less than a second, in which whoever asks every second comes again.
LEAST_SECONDS = 0.8
#: So many studies of each state are told, and so many shipments that were archived last.
MOST_STUDIES = 30
LAST_ARCHIVED = 10


class LiveView:
    """Says no patient attribute and no path: what the status says, and studies by their UIDs."""

    def __init__(self, status: Callable[[], Mapping[str, Any]], moving: Moving, counts: Counts, clock: Clock) -> None:
        self._status, self._moving, self._counts, self._clock = status, moving, counts, clock
        self._lock = threading.Lock()
        self._newest: dict[str, Any] | None = None
        self._not_before = float("-inf")

    def command(self, _request: Mapping[str, Any], _progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Whoever asks while it is taken waits for that one. Raises Transient, Fatal, Stopping (the state)."""
        with self._lock:
            begun = self._clock.monotonic()
            if self._newest is None or begun >= self._not_before:
                self._newest = self._take(begun)
                ended = self._clock.monotonic()
                self._not_before = ended + rest_seconds(LEAST_SECONDS, ended - begun)
            return self._newest

    def _take(self, begun: float) -> dict[str, Any]:
        counted = self._counts.now()
        return {
            "taken_at": timestamp(self._clock.now()),
            # Differences of counts are divided by differences of these: nobody can set this clock.
            "clock_seconds": round(begun, 3),
            "sent_files": counted.sent_files,
            "sent_bytes": counted.sent_bytes,
            "archived_shipments": counted.events["finished"],
            "files_taken_up": self._moving.files_taken_up(),
            "studies": self._moving.studies(MOST_STUDIES),
            "last_archived": self._moving.last_archived(LAST_ARCHIVED),
            "status": self._status(),
        }
