"""How many shipments may be under way, and of which kind: no kind takes the place of another, and none takes one for
ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

#: A shipment that has been under way for so long holds up nobody: another may begin beside it. It may be large, or meet
#: a service that is slow to answer.
LONG_SECONDS = 30.0
#: Shipments of studies that are known to be failing, at once: beside the others, never in their place.
BLAMED_AT_ONCE = 2


class Kind(StrEnum):
    STUDY = "study"
    BLAMED = "blamed"  # its study is known to be failing
    TRIAL = "trial"  # finds out whether an endpoint is back


@dataclass(eq=False, slots=True)
class Slot:
    kind: Kind
    began: float


class Slots:
    """``active`` shipments at once, as many again beside those that take long. Safe to be called from any thread."""

    def __init__(self, active: int, monotonic: Callable[[], float]) -> None:
        self._now = monotonic
        self._lock = threading.Lock()
        self._taken: set[Slot] = set()
        #: Those that take no long time, and all: a trial goes alone, unless the one before does not come to an end.
        self._limits = {
            Kind.STUDY: (active, 2 * active),
            Kind.BLAMED: (BLAMED_AT_ONCE, BLAMED_AT_ONCE),
            Kind.TRIAL: (1, active),
        }

    @property
    def most(self) -> int:
        """Shipments of every kind together, at the most."""
        return sum(most for _, most in self._limits.values())

    def take(self, kind: Kind) -> Slot:
        with self._lock:
            slot = Slot(kind, self._now())
            self._taken.add(slot)
            return slot

    def release(self, slot: Slot) -> None:
        with self._lock:
            self._taken.discard(slot)

    def wait(self, kind: Kind) -> float | None:
        """Seconds until one may begin if none ends before: 0 when one may now, None when one has to end first."""
        with self._lock:
            now = self._now()
            few, most = self._limits[kind]
            ages = sorted(now - slot.began for slot in self._taken if slot.kind is kind)
            young = [age for age in ages if age < LONG_SECONDS]
            if len(ages) >= most:
                return None
            if len(young) < few:
                return 0.0
            return LONG_SECONDS - young[-1] if few < most else None
