"""Who has fallen silent. A clock of another machine may be wrong, so what counts is whether its row changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from dicomwatchd.archive.catalogues.sites import SiteRow
from dicomwatchd.config.sites import LEAST_HEARTBEATS
from dicomwatchd.ports import Clock
from dicomwatchd.sites import report
from dicomwatchd.sites.report import SiteReport

_WATCH_HEARTBEATS = 2.5


@dataclass(frozen=True, slots=True)
class Seen:
    """A site that is not forgotten. ``age_seconds``: for how long nothing has come of it. ``is_alive``: it was seen to
    write, and is not silent; of a site that is neither nothing is known yet."""

    row: SiteRow
    report: SiteReport
    age_seconds: float
    is_silent: bool
    is_alive: bool


@dataclass(slots=True)
class _Known:
    stamp: tuple[int, str]
    since: float  # monotonic, when this stamp was first seen
    has_changed: bool = False  # it was another one before, here
    is_silent: bool = False  # and stays so until its row changes


class Lookout:
    """``silent_after_seconds``: 0 for nobody ever; ``every_seconds``: how often `look` is called. For one thread.

    The age of a site is the time since its row was seen to change. Of one that has not changed since this look-out
    began nothing is known but what its own clock says, or how long it was watched for, whichever is longer. And nobody
    is called silent before he was watched for as long as two of his heartbeats take: after a start, after an outage of
    the catalogue, which kept everybody silent, and after a time in which this daemon did not look itself."""

    def __init__(self, clock: Clock, silent_after_seconds: float, every_seconds: float) -> None:
        self._clock, self._after, self._every = clock, silent_after_seconds, every_seconds
        self._known: dict[str, _Known] = {}
        self._watched_since: float | None = None
        self._looked_at = 0.0

    def lost_sight(self) -> None:
        """The rows could not be read."""
        self._watched_since = None

    def look(self, rows: Iterable[SiteRow]) -> list[Seen]:
        now = self._clock.monotonic()
        if self._watched_since is None or now - self._looked_at > _WATCH_HEARTBEATS * self._every:
            self._watched_since = now
        self._looked_at = now
        before, self._known = self._known, {}
        found = []
        for row in rows:
            said = None if row.is_forgotten else report.read(row.document)
            if said is None:
                continue
            known = before.get(row.site_id)
            if known is None:
                known = _Known(row.stamp, now)
            elif known.stamp != row.stamp:
                known = _Known(row.stamp, now, has_changed=row.beats > known.stamp[0])
            self._known[row.site_id] = known
            age = now - known.since
            if not known.has_changed:
                age = max(age, age_by_clock(said, self._clock.now()))
            has_watched = now - self._watched_since >= _WATCH_HEARTBEATS * said.every_seconds
            known.is_silent = is_silent(said, age, self._after) and (known.is_silent or has_watched)
            found.append(Seen(row, said, age, known.is_silent, known.has_changed and not known.is_silent))
        return found


def is_silent(said: SiteReport, age_seconds: float, after_seconds: float) -> bool:
    """A site that seldom writes has more time."""
    return bool(after_seconds) and age_seconds >= max(after_seconds, LEAST_HEARTBEATS * said.every_seconds)


#: Of a clock that is ahead by less nobody need know.
_AHEAD_SECONDS = 60.0


def age_by_clock(said: SiteReport, now: float) -> float:
    """Seconds, by the clocks of two machines; 0 where its is ahead of ours. ``now``: seconds since the epoch."""
    return max(0.0, now - _at(said, now))


def clock_ahead(said: SiteReport, now: float) -> float:
    """By how many seconds its clock must be ahead of ours; 0 where it need not be, or hardly is."""
    ahead = _at(said, now) - now
    return ahead if ahead >= _AHEAD_SECONDS else 0.0


def _at(said: SiteReport, now: float) -> float:
    try:
        return datetime.fromisoformat(said.at).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):  # the pattern lets days pass that there are not
        return now
