"""Made-up rhythms of inboxes over a year, and what the rule of silent inboxes makes of them.

`python -m tests.rhythms` prints how often each is told of although nothing is wrong, and after how long when something
is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from random import Random
from statistics import median
from zoneinfo import ZoneInfo

from dicomwatchd.alarms.rhythm import Judged, Local, judge
from dicomwatchd.queue.hours import KEEP_HOURS, Hour

ZONE = ZoneInfo("Europe/Berlin")
YEAR = 2026
#: Of this year, in North Rhine-Westphalia, on weekdays.
HOLIDAYS = frozenset(date(YEAR, m, d) for m, d in ((1, 1), (4, 3), (4, 6), (5, 1), (5, 14), (5, 25), (6, 4), (12, 25)))
#: Between the years hardly anybody works.
QUIET_DAYS = frozenset(date(YEAR, 12, day) for day in (24, 28, 29, 30, 31))

#: How many studies an hour has on the average, by its local begin.
Rhythm = Callable[[datetime], float]


def number(at: datetime) -> int:
    """Of the hour since the epoch."""
    return int(at.timestamp() // 3600)


@lru_cache(None)
def local(hour: int) -> Local:
    at = datetime.fromtimestamp(hour * 3600 + 1800, ZONE)
    return Local(at.toordinal(), at.weekday() * 24 + at.hour)


def office(at: datetime) -> float:
    """A CT of a practice: Monday to Friday, 7 to 19; a lunch that is quieter; nobody on holidays."""
    if at.weekday() > 4 or not 7 <= at.hour < 19 or at.date() in HOLIDAYS | QUIET_DAYS:
        return 0.0
    return 1.0 if at.hour == 12 else 3.0


def emergency(at: datetime) -> float:
    """Every day and night, less at night."""
    return 0.5 if at.hour < 6 else 2.0


def clinic(at: datetime) -> float:
    """The ultrasound of a ward: weekday mornings, a few studies."""
    return 0.4 if at.weekday() < 5 and 8 <= at.hour < 16 and at.date() not in HOLIDAYS else 0.0


def twice_a_month(seed: int) -> Rhythm:
    """Used on two days of a month that nobody knows beforehand, for a few hours."""
    random = Random(seed)
    days = {date(YEAR, month, random.randint(1, 28)) for month in range(1, 13) for _ in range(2)}
    return lambda at: 2.0 if at.date() in days and 9 <= at.hour < 13 else 0.0


def lived(rhythm: Rhythm, seed: int, begin: date, end: date) -> list[Hour]:
    """Every hour of these days, watched, with what has come in it."""
    random = Random(seed)
    at, until = (
        number(datetime(begin.year, begin.month, begin.day, tzinfo=ZONE)),
        datetime(end.year, end.month, end.day, tzinfo=ZONE),
    )
    found = []
    for hour in range(at, number(until)):
        share = 1.0 - math.exp(-rhythm(datetime.fromtimestamp(hour * 3600, ZONE)))
        found.append(Hour(hour, 40 if random.random() < share else 0, 3600.0))
    return found


@dataclass(frozen=True)
class Told:
    """An alarm, by the hours in which it began and ended; ``judged`` when it began."""

    begun: int
    ended: int | None
    judged: Judged

    @property
    def day(self) -> date:
        return datetime.fromtimestamp(self.begun * 3600, UTC).astimezone(ZONE).date()


def told(hours: list[Hour], every: int = 1) -> Iterator[Told]:
    """The alarms that a daemon would give that has lived through these hours, and looks ``every`` so many."""
    last, begun = -1, None
    for index, hour in enumerate(hours):
        if hour.files:
            if begun is not None:
                yield Told(begun[0], hour.number, begun[1])
                begun = None
            last = index
        elif begun is None and last >= 0 and index - last > 6 and index % every == 0:
            judged = judge(hours[max(0, last - KEEP_HOURS) : index], hour.number, local)
            if judged.is_silent:
                begun = (hour.number, judged)
    if begun is not None:
        yield Told(begun[0], None, begun[1])


def cut(hours: list[Hour], at: int) -> list[Hour]:
    """From there on nothing comes any more."""
    return [Hour(one.number, one.files if index < at else 0, one.watched_seconds) for index, one in enumerate(hours)]


def detected(hours: list[Hour], at: int, every: int = 1) -> tuple[int, int] | None:
    """After how many hours it is told that nothing has come since ``at``, and in how many of these something would
    have; None: not within four weeks."""
    longest = at + 28 * 24
    broken = cut(hours, at)
    last = max(index for index in range(at) if hours[index].files)
    for index in range(max(at, last + 7), min(longest, len(hours)), every):
        if judge(broken[max(0, last - KEEP_HOURS) : index], hours[index].number, local).is_silent:
            return index - at, sum(one.files > 0 for one in hours[at:index])
    return None


RHYTHMS: dict[str, Callable[[int], Rhythm]] = {
    "CT, Mon-Fri 7-19": lambda _: office,
    "emergency room, always": lambda _: emergency,
    "ultrasound, Mon-Fri 8-16, a third of the hours": lambda _: clinic,
    "twice a month": twice_a_month,
}


def _print(seeds: Iterable[int]) -> None:
    for name, rhythm in RHYTHMS.items():
        false, on_holidays, after, missed, never = 0, 0, [], [], 0
        seeds = list(seeds)
        for seed in seeds:
            hours = lived(rhythm(seed), seed, date(YEAR, 1, 1), date(YEAR + 1, 1, 1))
            alarms = list(told(hours))
            off = HOLIDAYS | QUIET_DAYS
            around = {day + timedelta(days=more) for day in off for more in (0, 1)}
            false += len(alarms)
            on_holidays += sum(one.day in around for one in alarms)
            random = Random(seed)
            for _ in range(10):
                found = detected(hours, random.randrange(70 * 24, 330 * 24))
                if found is None:
                    never += 1
                else:
                    after.append(found[0])
                    missed.append(found[1])
        ahead = (
            f"told after {median(after):.0f} h (at most {max(after)} h), {median(missed):.0f} busy hours missed"
            f" (at most {max(missed)})"
            if after
            else "never told"
        )
        print(
            f"{name}: {false / len(seeds):.1f} alarms a year while nothing is wrong, {on_holidays / len(seeds):.1f} of"
            f" them on holidays; of {10 * len(seeds)} breakdowns {never} not told within four weeks; {ahead}"
        )


if __name__ == "__main__":
    _print(range(5))
