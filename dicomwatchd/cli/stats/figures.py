"""What the history comes to for charts and tables: pure, without a terminal and without HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from dicomwatchd.cli.terminal import output

_HOUR = timedelta(hours=1)
#: Hours that a column may stand for.
_STEPS = (1, 2, 3, 4, 6, 8, 12, 24, 48, 96, 168, 336, 672, 1344, 2688, 5376)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_HOURS = 24


@dataclass(slots=True)
class Bin:
    """What was archived in a part of the time."""

    begins_at: datetime
    shipments: int = 0
    files: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Bins:
    hours: int
    bins: list[Bin]

    @property
    def step(self) -> str:
        """Such as "3 hours" or "day"."""
        days, rest = divmod(self.hours, _DAY_HOURS)
        number, unit = (self.hours, "hour") if rest or not days else (days, "day")
        return unit if number == 1 else f"{number} {unit}s"


class Bucket(NamedTuple):
    name: str
    shipments: int


def binned(history: Mapping[str, Any], most: int) -> Bins:
    """All periods in at most ``most`` parts of the same length: hours, or whole days (UTC) where of one of them only
    the day's sum is kept."""
    periods: Sequence[Mapping[str, Any]] = history["periods"]
    parsed = [(_time(one["begins_at"]), _time(one["ends_at"]), one) for one in periods]
    until = _time(history["until"])
    since = min([_time(history["since"]), *(begin for begin, _, _ in parsed)])
    least = max((_hours(end - begin) for begin, end, _ in parsed), default=1)
    for hours in _STEPS:
        first = _floor(since, hours)
        count = _hours(_floor(until, hours) - first) // hours + 1
        if hours >= least and count <= most:
            break
    found = [Bin(first + number * hours * _HOUR) for number in range(min(count, most))]
    for begin, _, one in parsed:
        at = found[min(_hours(_floor(begin, hours) - first) // hours, len(found) - 1)]
        at.shipments += one["shipments"]
        at.files += one["files"]
        at.bytes += one["bytes"]
    return Bins(hours, found)


def times(history: Mapping[str, Any]) -> list[Bucket]:
    return _named(history["to_archive"]["buckets"], "at_most_seconds", output.duration)


def sizes(history: Mapping[str, Any]) -> list[Bucket]:
    return _named(history["sizes"]["buckets"], "at_most_bytes", _round_size)


def sentence(distribution: Mapping[str, Any], unit: str) -> str:
    """Median and 95th percentile, in words; "" of nothing."""
    if not distribution["shipments"]:
        return ""
    said = output.duration if unit == "seconds" else output.size
    return (
        f"half at most {said(distribution[f'median_{unit}'])}, 95 % at most {said(distribution[f'p95_{unit}'])},"
        f" of {output.count(distribution['shipments'], 'shipment')}"
    )


def _named(buckets: Sequence[Mapping[str, Any]], key: str, said: Any) -> list[Bucket]:
    """Without those at either end that are empty."""
    names = [f"up to {said(one[key])}" for one in buckets[:-1]]
    names.append(f"over {said(buckets[-2][key])}")
    found = [Bucket(name, one["shipments"]) for name, one in zip(names, buckets, strict=True)]
    filled = [number for number, one in enumerate(found) if one.shipments]
    return found[filled[0] : filled[-1] + 1] if filled else []


def _round_size(size_bytes: float) -> str:
    return output.size(size_bytes).replace(".0 ", " ")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _hours(length: timedelta) -> int:
    return round(length / _HOUR)


def _floor(at: datetime, hours: int) -> datetime:
    return _EPOCH + (at - _EPOCH) // (hours * _HOUR) * hours * _HOUR
