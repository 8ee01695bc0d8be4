"""Studies whose objects the store answers with an error for ever, beside others that are well: these go on, within a
bound; and when the store has healed, the failing ones come to their end, too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from dicomwatchd.pipeline.backoff import ENDPOINT_PAUSE_SECONDS
from tests.simulation.archive import Shelf
from tests.simulation.chance import Fate, Violation
from tests.simulation.folders import Folders, Instance

HEALTHY = "1.2.77"
_TICK_SECONDS = 5.0
_SCAN_SECONDS = 20.0


@dataclass
class Poison:
    """``round`` lets everybody do what there is to do now."""

    fate: Fate
    folders: Folders
    shelf: Shelf
    round: Callable[[], None]

    @property
    def bound_seconds(self) -> float:
        """From the last file of a healthy study to its being archived, however many are failing: two scans find it and
        see it quiet; while all others fail the next study is tried when the endpoint's pause is over, from both ends of
        the line in turn, so that its turn is the second at the latest; and one more for a trial that was under way."""
        plan = self.fate.plan
        return plan.settle_seconds + plan.quiet_seconds + 3 * _SCAN_SECONDS * 1.1 + 3 * (ENDPOINT_PAUSE_SECONDS + 2)

    def told(self) -> None:
        failing = [f"1.2.9{number}" for number in range(self.fate.random.randint(1, 4))]
        self.fate.trace.add("poisoned", *failing)
        self.fate.poisoned = tuple(f"studies/{study}/" for study in failing)
        for study in failing:
            for number in range(2):
                self._drop(study, number)
        self._pass(self.fate.random.choice((60.0, 300.0, 900.0)))
        for number in range(2):
            wanted = {self._drop(HEALTHY, number + 10 * late) for late in range(2)}
            since = self.fate.clock.monotonic()
            while not wanted <= self.shelf.held():
                self._tick()
                if self.fate.clock.monotonic() - since > self.bound_seconds:
                    raise Violation("a healthy study waits for poisoned ones")
        self.fate.poisoned = ()
        self.fate.trace.add("healed")

    def _drop(self, study: str, number: int) -> str:
        """One file that is whole; returns its SHA-256."""
        root = self.folders.roots[0]
        data = self.folders._make(Instance(study, f"{study}.1", f"{study}.1.{number}"))
        self.folders._write(root / f"{study}-{number}-{len(self.folders.valid)}", data)
        return hashlib.sha256(data).hexdigest()

    def _pass(self, seconds: float) -> None:
        end = self.fate.clock.monotonic() + seconds
        while self.fate.clock.monotonic() < end:
            self._tick(6 * _TICK_SECONDS)

    def _tick(self, seconds: float = _TICK_SECONDS) -> None:
        self.fate.clock.advance(seconds)
        self.round()
