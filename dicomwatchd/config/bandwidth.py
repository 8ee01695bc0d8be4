"""How much of the line sending may take, by weekday and time of day: `bandwidth` of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

DEFAULT = "default"
UNLIMITED = "unlimited"
#: Below it a file of some size would be under way for days, and what is sent at once would hardly move.
AT_LEAST_BYTES_PER_SECOND = 64_000

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY_MINUTES = 24 * 60
_WEEK_MINUTES = 7 * _DAY_MINUTES
#: Which of them holds in a minute is kept in one byte.
_MOST_RULES = 100

_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([kKMG])(B|bit)/s\Z")
_THOUSANDS = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_DAY = "|".join(_DAYS)
_SPAN = rf"(?:{_DAY})(?:-(?:{_DAY}))?"
_TIME = r"([01][0-9]|2[0-4]):([0-5][0-9])"
_WHEN = re.compile(rf"(?P<days>{_SPAN}(?:,{_SPAN})*)?(?(days)(?: |\Z))(?:{_TIME}-{_TIME})?\Z")


@dataclass(frozen=True, slots=True)
class InForce:
    """``rule`` as it is written in the configuration; ``bytes_per_second`` None: no limit."""

    rule: str
    bytes_per_second: int | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """The limits of a week, and which of them holds in each of its minutes, Monday 00:00 first."""

    limits: tuple[InForce, ...]
    minutes: bytes

    def at(self, local: datetime) -> InForce:
        """What holds at this local time. Nothing is remembered: where a clock is set, or summer ends, what holds is
        what is written for the hour that it shows."""
        return self._at_minute(_minute_of_week(local))

    def next_change(self, local: datetime) -> tuple[float, InForce] | None:
        """When the limit is another one next, in seconds since the epoch; None if it never is. ``local`` is now, in its
        time zone, or the system's."""
        limit = self.at(local).bytes_per_second
        now = _minute_of_week(local)
        ahead = next((n for n in range(1, _WEEK_MINUTES) if self._at_minute(now + n).bytes_per_second != limit), None)
        if ahead is None:
            return None
        begun = local.replace(second=0, microsecond=0).astimezone(UTC)
        if _offset(begun, local) != _offset(begun + timedelta(minutes=ahead), local):
            # Clocks are set until then: an hour on the wall comes twice or not at all, and a weekly one a week later.
            ahead = next(
                n
                for n in range(1, 2 * _WEEK_MINUTES + _DAY_MINUTES)
                if self.at(_there(begun + timedelta(minutes=n), local)).bytes_per_second != limit
            )
        then = begun + timedelta(minutes=ahead)
        return then.timestamp(), self.at(_there(then, local))

    def _at_minute(self, minute: int) -> InForce:
        return self.limits[self.minutes[minute % _WEEK_MINUTES]]


def schedule_of(bandwidth: Mapping[str, str] | None) -> Schedule | None:
    """Of what `Limits` has let pass."""
    if bandwidth is None:
        return None
    limits = [InForce(DEFAULT, _bytes_per_second(bandwidth[DEFAULT]))]
    minutes = bytearray(_WEEK_MINUTES)
    for when, rate in bandwidth.items():
        if when != DEFAULT:
            for minute in _minutes(when):
                minutes[minute] = len(limits)
            limits.append(InForce(when, _bytes_per_second(rate)))
    return Schedule(tuple(limits), bytes(minutes))


def _there(at: datetime, local: datetime) -> datetime:
    """The same moment in the time zone of ``local``; where that names none, in the system's."""
    return at.astimezone(local.tzinfo)


def _offset(at: datetime, local: datetime) -> timedelta | None:
    return _there(at, local).utcoffset()


def _minute_of_week(local: datetime) -> int:
    return local.weekday() * _DAY_MINUTES + local.hour * 60 + local.minute


def _bytes_per_second(rate: str) -> int | None:
    match = _RATE.match(rate)
    return None if match is None else round(float(match[1]) * _THOUSANDS[match[2]] / (8 if match[3] == "bit" else 1))


def _minutes(when: str) -> list[int]:
    """The minutes of the week. What goes over midnight belongs to the day on which it begins."""
    match = _WHEN.match(when)
    assert match is not None  # noqa: S101  the validator has seen to it
    begins, ends = _times(match)
    length = ends - begins if ends > begins else ends - begins + _DAY_MINUTES
    return [
        (day * _DAY_MINUTES + begins + minute) % _WEEK_MINUTES
        for day in sorted(_weekdays(match["days"]))
        for minute in range(length)
    ]


def _times(match: re.Match[str]) -> tuple[int, int]:
    if match[2] is None:
        return 0, _DAY_MINUTES
    return int(match[2]) * 60 + int(match[3]), int(match[4]) * 60 + int(match[5])


def _weekdays(days: str | None) -> set[int]:
    found = set[int]()
    for span in days.split(",") if days else ("Mon-Sun",):
        first, _, last = span.partition("-")
        begins, ends = _DAYS.index(first), _DAYS.index(last or first)
        found |= {(begins + day) % 7 for day in range((ends - begins) % 7 + 1)}
    return found


def _is_when(when: str) -> str:
    if when == DEFAULT:
        return when
    match = _WHEN.match(when)
    if not when or match is None:
        raise ValueError('must be default, or days and times, such as "Mon-Fri 08:00-18:00", Sat,Sun or 22:00-06:00')
    begins, ends = _times(match)
    if begins >= _DAY_MINUTES or ends > _DAY_MINUTES:
        raise ValueError("must name times from 00:00 to 24:00")
    if begins == ends:
        raise ValueError("begins and ends at the same time; a whole day is 00:00-24:00")
    return when


def _is_rate(rate: object) -> object:
    if rate != UNLIMITED:
        if not isinstance(rate, str) or not _RATE.match(rate):
            raise ValueError("must be a rate, such as 10MB/s (bytes) or 80Mbit/s (bits), or unlimited")
        if (_bytes_per_second(rate) or 0) < AT_LEAST_BYTES_PER_SECOND:
            raise ValueError(f"must be at least {AT_LEAST_BYTES_PER_SECOND // 1000}kB/s")
    return rate


def _are_limits(bandwidth: dict[str, str]) -> dict[str, str]:
    """Each minute of the week has one rule, and the order in which they are written means nothing: in a mapping nobody
    looks for an order, and tools that write YAML anew do not keep it."""
    if DEFAULT not in bandwidth:
        raise ValueError("must have the key default: a rate for all other times, or unlimited")
    if len(bandwidth) > _MOST_RULES:
        raise ValueError(f"must have at most {_MOST_RULES} keys")
    rules: dict[int, str] = {}
    for when in bandwidth:
        for minute in _minutes(when) if when != DEFAULT else ():
            if (other := rules.setdefault(minute, when)) != when:
                raise ValueError(
                    f'has two limits for {_said(minute)}: "{other}" and "{when}" overlap; each time may have one'
                )
    return bandwidth


def _said(minute: int) -> str:
    day, of_day = divmod(minute, _DAY_MINUTES)
    return f"{_DAYS[day]} {of_day // 60:02}:{of_day % 60:02}"


#: Rates by the times at which they hold.
Limits = Annotated[
    dict[Annotated[str, AfterValidator(_is_when)], Annotated[str, BeforeValidator(_is_rate)]],
    AfterValidator(_are_limits),
]
