"""What the running daemon says of the limit on sending: to the journal when it changes, and to whoever asks."""

from __future__ import annotations

from typing import Any

from dicomwatchd.archive.stores.uplink import Uplink
from dicomwatchd.config.bandwidth import InForce
from dicomwatchd.ports import Log, timestamp


class BandwidthReporter:
    def __init__(self, uplink: Uplink, log: Log) -> None:
        self._uplink, self._log = uplink, log
        self._told: int | None = None

    def tick(self) -> None:
        """To be called every second or so: it is also what makes the limit follow the time of day."""
        in_force = self._uplink.look()
        limit = None if in_force is None else in_force.bytes_per_second
        if limit == self._told:
            return
        self._told = limit
        if limit is None:
            self._log.info("bandwidth-changed", "sending to the archive is no longer limited")
        else:
            self._log.info(
                "bandwidth-changed",
                "sending to the archive is limited to {limit_mb_per_second} MB/s",
                limit_mb_per_second=limit / 1e6,
            )

    def document(self) -> dict[str, Any] | None:
        """None where no limit is configured."""
        in_force = self._uplink.look()
        if in_force is None:
            return None
        change = self._uplink.next_change()
        return _document(in_force) | {
            "next_change": None if change is None else {"at": timestamp(change[0]), **_document(change[1])}
        }


def _document(limit: InForce) -> dict[str, Any]:
    return {"rule": limit.rule, "bytes_per_second": limit.bytes_per_second}
