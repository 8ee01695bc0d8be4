"""What is counted as it happens: events of studies, what shipments took, by what files were verified.

Plain numbers, so that a daemon without ``metrics`` pays no more for them than a few additions a study.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from dicomwatchd.archive.proof.evidence import Method
from dicomwatchd.model import StudyEvent
from dicomwatchd.pipeline.shipment import Shipment
from dicomwatchd.queue.rows import Transition

STAGES = ("upload", "verify", "record", "purge")

#: From a stage that asks one thing of a store nearby to a study of a hundred gigabytes on a narrow line.
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
#: From one radiograph to whole slides.
BYTES = (1e5, 1e6, 1e7, 5e7, 1e8, 5e8, 1e9, 5e9, 1e10, 1e11)
FILES = (1.0, 5.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 20000.0)


@dataclass(slots=True)
class Histogram:
    """How often a value was at most each of ``bounds``, and the sum of all. Not safe by itself."""

    bounds: tuple[float, ...]
    sum: float = 0.0
    within: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.within = self.within or [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.within[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, number of values up to it), the last one "+Inf", as Prometheus has them."""
        found, total = list[tuple[str, float]](), 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.within, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


@dataclass(frozen=True, slots=True)
class Counted:
    """The figures of one moment. Seconds, bytes and files of shipments are by stage; what was sent counts at once."""

    events: Mapping[str, int]
    verified_files: Mapping[str, int]
    retries: int
    sent_files: int
    sent_bytes: int
    seconds: Mapping[str, Histogram]
    bytes: Mapping[str, Histogram]
    files: Mapping[str, Histogram]


class Counts:
    """From the daemon's start on, whatever is reloaded. Safe to be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # All of them from the beginning: what appears with its first count has no rate.
        self._events = dict.fromkeys((event.value for event in StudyEvent), 0)
        self._verified = dict.fromkeys((method.value for method in Method), 0)
        self._retries = 0
        self._sent_files = self._sent_bytes = 0
        self._seconds = {stage: Histogram(SECONDS) for stage in STAGES}
        self._bytes = {stage: Histogram(BYTES) for stage in STAGES}
        self._files = {stage: Histogram(FILES) for stage in STAGES}

    def changed(self, transition: Transition) -> None:
        with self._lock:
            self._events[transition.event.value] += 1

    def sent(self, size_bytes: int) -> None:
        """A file was sent, and created in the store."""
        with self._lock:
            self._sent_files += 1
            self._sent_bytes += size_bytes

    def shipped(self, shipment: Shipment) -> None:
        """The same figures that the journal has of it (`StatusReporter.shipped`)."""
        seconds, early = shipment.stages.seconds(), shipment.early
        moved = {
            "upload": (early.files + shipment.sent_files, early.bytes + shipment.sent_bytes),
            "verify": (shipment.files, shipment.bytes),
            "record": (shipment.files, shipment.bytes),
            "purge": (shipment.deleted_files, shipment.deleted_bytes),
        }
        with self._lock:
            self._retries += shipment.retries
            for stage, (files, size_bytes) in moved.items():
                self._seconds[stage].add(seconds.get(stage, 0.0))
                self._files[stage].add(files)
                self._bytes[stage].add(size_bytes)
            for method, count in shipment.verified_files.items():
                self._verified[method] = self._verified.get(method, 0) + count

    def now(self) -> Counted:
        with self._lock:
            return Counted(
                dict(self._events),
                dict(self._verified),
                self._retries,
                self._sent_files,
                self._sent_bytes,
                *(
                    {stage: Histogram(one.bounds, one.sum, list(one.within)) for stage, one in by_stage.items()}
                    for by_stage in (self._seconds, self._bytes, self._files)
                ),
            )
