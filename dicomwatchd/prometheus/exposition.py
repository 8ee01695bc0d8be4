"""The figures in Prometheus' text format, from what the status says and what was counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from dicomwatchd.config.metrics import Metrics
from dicomwatchd.config.whole import Config
from dicomwatchd.ports import Clock, Log
from dicomwatchd.prometheus import families
from dicomwatchd.prometheus.counts import Counts
from dicomwatchd.prometheus.listener import Address, Listener
from dicomwatchd.prometheus.sampling import Sampler

#: So long a scrape waits for a new status before it takes the one before; Prometheus' own patience is 10 s.
PATIENCE_SECONDS = 3.0
_OPENMETRICS = "application/openmetrics-text"


class DaemonCollector(Collector):
    """Asked anew for each scrape. ``inboxes`` are the configured ones, by name."""

    def __init__(self, sampler: Sampler, counts: Counts, inboxes: frozenset[str], clock: Clock) -> None:
        self._sampler, self._counts, self._inboxes, self._clock = sampler, counts, inboxes, clock

    def collect(self) -> Iterator[Metric]:
        sample = self._sampler.newest(PATIENCE_SECONDS)
        yield from families.of_the_sample(sample, self._clock.monotonic())
        if sample is not None:
            yield from families.of_the_status(sample.status, self._inboxes)
        yield from families.of_the_counts(self._counts.now())


class Exposition:
    """The figures of one configuration, at its port from `start` to `stop`."""

    def __init__(
        self,
        config: Config,
        settings: Metrics,
        status: Callable[[], Mapping[str, Any]],
        counts: Counts,
        clock: Clock,
        log: Log,
        address: Address | None = None,
    ) -> None:
        """``status`` is what `dicomwatchctl status` prints; it may take its time. ``address``: another than that of the
        settings. Raises OSError when it cannot listen there."""
        self._sampler = Sampler(status, clock, log)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(
            DaemonCollector(self._sampler, counts, frozenset(inbox.name for inbox in config.inboxes), clock)
        )
        ProcessCollector(registry=self._registry)
        self._listener = Listener(address or settings.address, settings.admits, self.text, log)

    @property
    def port(self) -> int:
        return self._listener.port

    def text(self, accept: str) -> tuple[str, bytes]:
        """(content type, content) for an Accept header, of which only the name of the format counts: the library
        repeats what else is in it in the content type."""
        wants = any(one.partition(";")[0].strip() == _OPENMETRICS for one in accept.split(","))
        encode, kind = choose_encoder(f"{_OPENMETRICS};version=1.0.0" if wants else "")
        return kind, encode(self._registry)

    def start(self) -> None:
        self._sampler.start()
        self._listener.start()

    def stop(self) -> None:
        self._sampler.stop()
        self._listener.stop()
