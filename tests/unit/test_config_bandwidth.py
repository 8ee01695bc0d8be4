"""`bandwidth` of the configuration: which limit holds when, and what is refused."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dicomwatchd.config import loading
from dicomwatchd.config.bandwidth import InForce, Schedule, schedule_of
from dicomwatchd.errors import ConfigError
from tests.unit.test_config import with_inbox

WORKING_HOURS = "Mon-Fri 08:00-18:00"
MONDAY = datetime(2026, 11, 30)
BERLIN = ZoneInfo("Europe/Berlin")


def schedule(bandwidth: dict[str, str]) -> Schedule:
    found = schedule_of(loading.parse({**with_inbox(), "bandwidth": bandwidth}).bandwidth)
    assert found is not None
    return found


def limit(of: Schedule, local: datetime) -> int | None:
    return of.at(local).bytes_per_second


def test_without_it_nothing_is_limited() -> None:
    assert schedule_of(loading.parse(with_inbox()).bandwidth) is None


@pytest.mark.parametrize(
    ("rate", "bytes_per_second"),
    [
        ("64kB/s", 64_000),
        ("64KB/s", 64_000),
        ("1.5MB/s", 1_500_000),
        ("10 MB/s", 10_000_000),
        ("2GB/s", 2_000_000_000),
        ("80Mbit/s", 10_000_000),
        ("1Gbit/s", 125_000_000),
        ("512kbit/s", 64_000),
        ("unlimited", None),
    ],
)
def test_rates(rate: str, bytes_per_second: int | None) -> None:
    assert limit(schedule({"default": rate}), MONDAY) == bytes_per_second


def test_working_hours() -> None:
    found = schedule({"default": "50MB/s", WORKING_HOURS: "10MB/s"})
    for day in range(7):
        for minute in range(24 * 60):
            at = MONDAY + timedelta(days=day, minutes=minute, seconds=59)
            assert limit(found, at) == (10_000_000 if day < 5 and 8 <= at.hour < 18 else 50_000_000)
    assert found.at(MONDAY.replace(hour=9)) == InForce(WORKING_HOURS, 10_000_000)
    assert found.at(MONDAY) == InForce("default", 50_000_000)


def test_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    found = schedule({"default": "1MB/s", "Fri,Sun 22:00-06:00": "unlimited"})
    free = [hour for hour in range(7 * 24) if limit(found, MONDAY + timedelta(hours=hour)) is None]
    assert free == [*range(6), *range(4 * 24 + 22, 5 * 24 + 6), *range(6 * 24 + 22, 7 * 24)]


@pytest.mark.parametrize(
    ("when", "days"),
    [("Sat,Sun", {5, 6}), ("Fri-Mon", {4, 5, 6, 0}), ("Mon-Tue,Thu", {0, 1, 3}), ("00:00-24:00", set(range(7)))],
)
def test_days(when: str, days: set[int]) -> None:
    found = schedule({"default": "1MB/s", when: "2MB/s"})
    assert {day for day in range(7) if limit(found, MONDAY + timedelta(days=day, hours=12)) == 2_000_000} == days
    assert {day for day in range(7) if limit(found, MONDAY + timedelta(days=day)) == 2_000_000} == days


@pytest.mark.parametrize(
    ("bandwidth", "place", "why"),
    [
        (None, None, None),
        ("10MB/s", "bandwidth", "must be a mapping"),
        ({}, "bandwidth", "must have the key default: a rate for all other times, or unlimited"),
        ({WORKING_HOURS: "1MB/s"}, "bandwidth", "must have the key default: a rate for all other times, or unlimited"),
        ({"default": "1MB/s", 7: "1MB/s"}, "bandwidth.7", "must be text; put it in quotes"),
        *(
            (
                {"default": rate},
                "bandwidth.default",
                "must be a rate, such as 10MB/s (bytes) or 80Mbit/s (bits), or unlimited",
            )
            for rate in (5000000, None, "", "10", "10MB", "10Mb/s", "10 mb/s", "-1MB/s", "1e3MB/s", "٧MB/s", "1MB/s\n")
        ),
        ({"default": "63.9kB/s"}, "bandwidth.default", "must be at least 64kB/s"),
        ({"default": "0MB/s"}, "bandwidth.default", "must be at least 64kB/s"),
        *(
            (
                {"default": "1MB/s", when: "2MB/s"},
                f"bandwidth.{when}",
                'must be default, or days and times, such as "Mon-Fri 08:00-18:00", Sat,Sun or 22:00-06:00',
            )
            for when in ("mon", "Mon 8:00-9:00", "Mon 08:00", "Montag", "Mon 08:60-09:00", "Mon, Tue", "25:00-26:00")
        ),
        ({"default": "1MB/s", "24:00-06:00": "2MB/s"}, "bandwidth.24:00-06:00", "must name times from 00:00 to 24:00"),
        ({"default": "1MB/s", "06:00-24:30": "2MB/s"}, "bandwidth.06:00-24:30", "must name times from 00:00 to 24:00"),
        (
            {"default": "1MB/s", "08:00-08:00": "2MB/s"},
            "bandwidth.08:00-08:00",
            "begins and ends at the same time; a whole day is 00:00-24:00",
        ),
        (
            {"default": "1MB/s", "Mon-Fri 08:00-18:00": "2MB/s", "Wed": "3MB/s"},
            "bandwidth",
            'has two limits for Wed 08:00: "Mon-Fri 08:00-18:00" and "Wed" overlap; each time may have one',
        ),
        (
            {"default": "1MB/s", "Mon 00:00-02:00": "2MB/s", "Sun 22:00-01:00": "3MB/s"},
            "bandwidth",
            'has two limits for Mon 00:00: "Mon 00:00-02:00" and "Sun 22:00-01:00" overlap; each time may have one',
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_plainly(bandwidth: Any, place: str | None, why: str | None) -> None:
    data = {**with_inbox(), "bandwidth": bandwidth}
    if place is None:
        assert loading.parse(data).bandwidth is None
        return
    with pytest.raises(ConfigError) as raised:
        loading.parse(data)
    assert raised.value.problems == [(place, why)]


def test_the_next_change() -> None:
    found = schedule({"default": "50MB/s", WORKING_HOURS: "10MB/s", "Sat": "50MB/s"})
    assert found.next_change(MONDAY.replace(hour=7, minute=59, second=30)) == (
        MONDAY.replace(hour=8).timestamp(),
        InForce(WORKING_HOURS, 10_000_000),
    )
    # Another rule with the same limit is no change.
    assert found.next_change(MONDAY + timedelta(days=4, hours=18)) == (
        (MONDAY + timedelta(days=7, hours=8)).timestamp(),
        InForce(WORKING_HOURS, 10_000_000),
    )
    assert schedule({"default": "1MB/s", "Sat": "1MB/s"}).next_change(MONDAY) is None


def test_summer_ends_and_begins() -> None:
    """By the clock on the wall: the hour that comes twice has its limit twice, and none is lost for long."""
    found = schedule({"default": "50MB/s", "02:00-03:00": "10MB/s"})
    twice = datetime(2026, 10, 25, 0, 30, tzinfo=ZoneInfo("UTC"))  # 02:30 of summer time, and an hour later 02:30 again
    seen = [limit(found, (twice + timedelta(hours=ahead)).astimezone(BERLIN)) for ahead in range(-1, 3)]
    assert seen == [50_000_000, 10_000_000, 10_000_000, 50_000_000]
    skipped = datetime(2026, 3, 29, 0, 30, tzinfo=ZoneInfo("UTC"))  # 01:30; 03:30 comes next
    seen = [limit(found, (skipped + timedelta(hours=ahead)).astimezone(BERLIN)) for ahead in range(3)]
    assert seen == [50_000_000, 50_000_000, 50_000_000]
    # What is shown as the next change is the hour on the wall, on the other side as well.
    working = schedule({"default": "50MB/s", WORKING_HOURS: "10MB/s"})
    [at, _] = working.next_change(datetime(2026, 10, 24, 12, tzinfo=BERLIN)) or [None, None]
    assert at == datetime(2026, 10, 26, 8, tzinfo=BERLIN).timestamp()


@pytest.mark.parametrize(
    ("limits", "begins"),
    [
        ("02:00-03:00", datetime(2026, 10, 24, 20, tzinfo=UTC)),
        ("02:50-04:00", datetime(2026, 10, 24, 20, tzinfo=UTC)),
        ("02:10-02:20", datetime(2026, 10, 24, 20, tzinfo=UTC)),
        ("22:00-02:30", datetime(2026, 10, 24, 20, tzinfo=UTC)),
        ("02:00-03:00", datetime(2027, 3, 27, 20, tzinfo=UTC)),
        ("02:50-04:00", datetime(2027, 3, 27, 20, tzinfo=UTC)),
        ("02:10-02:20", datetime(2027, 3, 27, 20, tzinfo=UTC)),
        ("22:00-02:30", datetime(2027, 3, 27, 20, tzinfo=UTC)),
        ("Mon 00:00-00:01", datetime(2027, 3, 27, 20, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize("zone", [BERLIN, None], ids=["named", "of the system"])
def test_the_next_change_in_the_night_in_which_clocks_are_set(
    monkeypatch: pytest.MonkeyPatch, zone: ZoneInfo | None, limits: str, begins: datetime
) -> None:
    """Whenever somebody asks, it is the first minute in which another limit holds: an hour comes twice, or not."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        found = schedule({"default": "50MB/s", limits: "10MB/s"})

        def at(minute: int) -> datetime:
            there = datetime.fromtimestamp(begins.timestamp() + 60 * minute, BERLIN)
            return there if zone else there.replace(tzinfo=None)

        holding = [found.at(at(minute)).bytes_per_second for minute in range(36 * 60)]
        for now in range(0, 10 * 60, 7):
            then = next((n for n in range(now, len(holding)) if holding[n] != holding[now]), None)
            if then is not None:
                assert found.next_change(at(now).replace(second=31)) == (at(then).timestamp(), found.at(at(then)))
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("days_before", range(9))
def test_a_weekly_hour_that_does_not_come_in_the_week_in_which_clocks_are_set(days_before: int) -> None:
    found = schedule({"default": "50MB/s", "Sun 02:00-03:00": "10MB/s"})
    set_on = datetime(2027, 3, 28, 0, 30, tzinfo=BERLIN)
    then = found.next_change(set_on - timedelta(days=days_before))
    week = 28 + 7 if days_before < 7 else 21
    day = datetime(2027, 3, 1, 2, tzinfo=BERLIN) + timedelta(days=week - 1)
    assert then == (day.timestamp(), found.at(day))
