"""The newest status, taken by a thread of its own, so that nobody who asks for it waits for a busy state.

Whoever asks has it taken anew, waits for a moment, and gets what there is then, with the time when it was taken.
However many ask, taking it has the state for a small share of the time only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dicomwatchd.errors import DicomwatchdError, Stopping
from dicomwatchd.ports import Clock, Log
from dicomwatchd.telemetry.fields import error_fields

#: Not more often, however many ask.
LEAST_SECONDS = 1.0
#: After one that took a second there are so many without.
REST = 20.0
#: But not longer: one that waited for a disk for minutes says nothing of what the next will take.
LONGEST_REST_SECONDS = 30.0


def rest_seconds(least_seconds: float, took_seconds: float) -> float:
    """How long the state is left alone after something that took so long of it."""
    return min(max(least_seconds, REST * took_seconds), LONGEST_REST_SECONDS)


@dataclass(frozen=True, slots=True)
class Sample:
    """``status`` as `dicomwatchctl status` tells it, taken at ``taken_at`` (monotonic seconds), in ``seconds``."""

    status: Mapping[str, Any]
    taken_at: float
    seconds: float


class Sampler:
    """From `start` to `stop`. ``take`` may block; it is called in the sampler's thread alone."""

    def __init__(self, take: Callable[[], Mapping[str, Any]], clock: Clock, log: Log) -> None:
        self._take, self._clock, self._log = take, clock, log
        self._changed = threading.Condition()
        self._sample: Sample | None = None
        self._rounds = 0  # that came to an end, with a sample or without
        self._not_before = float("-inf")
        self._wanted = self._stopping = self._is_failing = False
        self._thread = threading.Thread(target=self._run, name="metrics-sampler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Asks it to end, and does not wait: it may be waiting for the state."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def newest(self, patience_seconds: float) -> Sample | None:
        """The newest sample, taken now if that ends in time; None while there is none."""
        with self._changed:
            if not self._stopping and self._clock.monotonic() >= self._not_before:
                before = self._rounds
                self._wanted = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._rounds != before or self._stopping, patience_seconds)
            return self._sample

    def _run(self) -> None:
        while self._is_asked():
            begun = self._clock.monotonic()
            try:
                sample = self._one(begun)
            except Stopping:  # the state is closed
                return
            with self._changed:
                self._sample = sample or self._sample
                self._rounds += 1
                self._wanted = False  # whoever asked meanwhile has got this one
                ended = self._clock.monotonic()
                self._not_before = ended + rest_seconds(LEAST_SECONDS, ended - begun)
                self._changed.notify_all()

    def _is_asked(self) -> bool:
        """Waits until somebody does; False when it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._stopping)
            self._wanted = False
            return not self._stopping

    def _one(self, begun: float) -> Sample | None:
        """Raises Stopping."""
        try:
            status = self._take()
        except Stopping:
            raise
        except DicomwatchdError as error:
            self._say(error)
            return None
        except Exception as error:  # noqa: BLE001  the top of this thread: no figure is worth the daemon's life
            self._say(error)
            return None
        self._is_failing = False
        return Sample(status, begun, self._clock.monotonic() - begun)

    def _say(self, error: Exception) -> None:
        """Once until it works again."""
        if not self._is_failing:
            self._is_failing = True
            self._log.warning(
                "metrics-stale", "the figures for Prometheus cannot be read at the moment", **error_fields(error)
            )
