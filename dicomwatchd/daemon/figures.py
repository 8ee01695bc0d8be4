"""The port for Prometheus of one configuration: served as soon as it can be, and nothing else waits for that.

Any user of the machine may have taken the port, before the start or between two configurations. No figure is worth the
archiving: the daemon says so, and tries again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dicomwatchd.config.metrics import Metrics
from dicomwatchd.config.whole import Config
from dicomwatchd.ports import Clock, Log
from dicomwatchd.prometheus.counts import Counts
from dicomwatchd.telemetry.fields import error_fields

if TYPE_CHECKING:
    from dicomwatchd.prometheus.exposition import Exposition

#: How often it is tried again.
AGAIN_SECONDS = 15.0


class FiguresPort:
    """One thread calls `tick` and `stop`."""

    def __init__(
        self, config: Config, status: Callable[[], Mapping[str, Any]], counts: Counts, clock: Clock, log: Log
    ) -> None:
        """``status`` is what `dicomwatchctl status` prints; it may take its time."""
        self._config, self._status, self._counts, self._clock, self._log = config, status, counts, clock, log
        self._exposition: Exposition | None = None
        self._again_at = float("-inf")
        self._is_over = False
        #: Why nobody can have the figures, for whoever asks for the status.
        self.problem: str | None = None

    def tick(self) -> None:
        """To be called every second or so. Raises nothing."""
        settings = self._config.metrics
        if settings is None or self._exposition is not None or self._is_over:
            return
        if (now := self._clock.monotonic()) < self._again_at:
            return
        self._again_at = now + AGAIN_SECONDS
        try:
            self._exposition = self._begun(settings)
        except (OSError, ImportError, RuntimeError) as error:
            if self.problem is None:
                self._log.error(
                    "metrics-not-served",
                    "nobody can fetch the figures: the address of metrics.listen cannot be had; it is tried again",
                    **error_fields(error),
                )
            self.problem = f"metrics.listen cannot be listened at ({_why(error)}): Prometheus gets no figures"
            return
        if self.problem is not None:
            self.problem = None
            self._log.info("metrics-served", "the figures can be fetched again")

    def _begun(self, settings: Metrics) -> Exposition:
        """Raises OSError, ImportError, and RuntimeError where no thread is to be had."""
        # Only for whoever has it configured: its library costs every start 30 ms.
        from dicomwatchd.prometheus.exposition import Exposition

        exposition = Exposition(self._config, settings, self._status, self._counts, self._clock, self._log)
        try:
            exposition.start()
        except RuntimeError:
            exposition.stop()
            raise
        return exposition

    def stop(self) -> None:
        """Whoever is connected is cut off."""
        self._is_over = True
        if self._exposition is not None:
            self._exposition.stop()


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return os.strerror(error.errno or 0)
    return "prometheus-client is not installed" if isinstance(error, ImportError) else "no thread is to be had"
