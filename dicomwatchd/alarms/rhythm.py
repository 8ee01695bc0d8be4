"""Whether an inbox is silent far beyond its own rhythm. Pure; why it is so and not otherwise: docs/design.md.

What is counted is not time but *hours in which something would have come*: each hour in which nothing did counts as the
share of the past weeks in which something came in that hour of that weekday. A night, or a weekend, of a scanner that
never works then counts nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from dicomwatchd.queue.hours import HOUR_SECONDS, KEEP_HOURS, Hour

#: No rhythm is known before so much of it was seen: three weeks, and arrivals on 16 different days of the last eight
#: weeks. What is used less often than twice a week has none that could be missed.
LEARNING_HOURS = 21 * 24
ACTIVE_DAYS = 16
#: Silent is what has missed more than twice what it missed at most in the last eight weeks, and more than six hours.
FACTOR = 2.0
MISSED_HOURS = 6.0
#: An hour in which nobody looked for half of it or longer says nothing.
_WATCHED_SECONDS = HOUR_SECONDS / 2


@dataclass(frozen=True, slots=True)
class Local:
    """``day`` is a date's ordinal, ``slot`` the hour of the week, 0 to 167, in local time."""

    day: int
    slot: int


@dataclass(frozen=True, slots=True)
class Judged:
    """``has_rhythm``: enough is known. ``silent_hours`` since the last hour with an arrival; ``missed_hours``: in so
    many of them something would have come; ``known_hours``: the most that was missed between two arrivals before."""

    is_silent: bool = False
    has_rhythm: bool = False
    silent_hours: int = 0
    missed_hours: float = 0.0
    known_hours: float = 0.0


def local_time(hour: int) -> Local:
    """Of the middle of an hour, where this machine is. The hour that comes twice when summer ends is one slot, twice;
    the one that is left out in spring is missed by nobody."""
    at = time.localtime((hour + 0.5) * HOUR_SECONDS)
    return Local(date(at.tm_year, at.tm_mon, at.tm_mday).toordinal(), at.tm_wday * 24 + at.tm_hour)


def judge(hours: Sequence[Hour], now: int, local: Callable[[int], Local] = local_time) -> Judged:
    """``hours`` in their order; ``now`` is the number of the hour that is, which has not ended and counts only if
    something has come in it."""
    seen = [(one.number, one.files > 0) for one in hours if one.files or one.watched_seconds > _WATCHED_SECONDS]
    last = max((number for number, came in seen if came and number <= now), default=None)
    if last is None:
        return Judged()
    past = [(local(number), came) for number, came in seen if last - KEEP_HOURS < number <= last]
    silence = [number for number, _ in seen if last < number < now]
    first = next(number for number, _ in seen if last - KEEP_HOURS < number)
    active_days = {at.day for at, came in past if came}
    if last - first < LEARNING_HOURS or len(active_days) < ACTIVE_DAYS:
        return Judged(silent_hours=now - last)
    watched, active = [0] * 168, [0] * 168
    for at, came in past:
        watched[at.slot] += 1
        active[at.slot] += came
    share = [of / all_of if all_of else 0.0 for of, all_of in zip(active, watched, strict=True)]
    known = missed = 0.0
    for at, came in past:
        missed = 0.0 if came else missed + share[at.slot]
        known = max(known, missed)
    missed = sum(share[local(number).slot] for number in silence)
    return Judged(missed > max(MISSED_HOURS, FACTOR * known), True, now - last, missed, known)
