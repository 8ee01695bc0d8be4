"""Silent inboxes: what is told of one, by its own rhythm, and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from dicomwatchd.alarms.rhythm import judge, local_time
from dicomwatchd.queue.hours import KEEP_HOURS, Hour
from tests import rhythms
from tests.rhythms import ZONE, clinic, cut, detected, emergency, lived, number, office, told, twice_a_month
from tests.unit.queues import Bench

SPRING, AUTUMN = date(2026, 3, 29), date(2026, 10, 25)


def office_weeks(weeks: int = 8, begin: date = date(2026, 1, 12), seed: int = 1) -> list[Hour]:
    return lived(office, seed, begin, begin + timedelta(weeks=weeks))


def at(day: date, hour: int) -> int:
    return number(datetime(day.year, day.month, day.day, hour, tzinfo=ZONE))


def index_of(hours: list[Hour], day: date, hour: int) -> int:
    return next(index for index, one in enumerate(hours) if one.number == at(day, hour))


def silent_from(hours: list[Hour], index: int) -> datetime | None:
    """When it is told, local time, if nothing comes from there on."""
    found = detected(hours, index)
    return None if found is None else datetime.fromtimestamp(hours[index + found[0]].number * 3600, ZONE)


def test_a_ct_that_is_cut_off_on_a_monday_is_told_of_on_that_day() -> None:
    hours = office_weeks(10)
    when = silent_from(hours, index_of(hours, date(2026, 3, 9), 9))
    assert when is not None and when.date() == date(2026, 3, 9) and 15 <= when.hour <= 19


def test_nights_and_weekends_do_not_count() -> None:
    """Cut off on Friday evening: told on Monday, when as much was missed, and not at the weekend."""
    hours = office_weeks(10)
    when = silent_from(hours, index_of(hours, date(2026, 3, 6), 19))
    assert when is not None and when.date() == date(2026, 3, 9) and 13 <= when.hour <= 17


def test_at_night_it_is_silent_and_nobody_says_so() -> None:
    hours = office_weeks(9)
    assert list(told(hours)) == []


def test_an_emergency_room_is_told_of_within_the_night() -> None:
    hours = lived(emergency, 3, date(2026, 1, 12), date(2026, 3, 30))
    assert list(told(hours)) == []
    found = detected(hours, index_of(hours, date(2026, 3, 10), 22))
    assert found is not None and 9 <= found[0] <= 18


def test_what_is_used_twice_a_month_is_never_told_of() -> None:
    for seed in range(5):
        hours = lived(twice_a_month(seed), seed, date(2026, 1, 1), date(2027, 1, 1))
        assert any(one.files for one in hours) and list(told(hours, every=6)) == []
        assert list(told(cut(hours, len(hours) // 3), every=24)) == [], "not even when it is used no more"


def test_a_holiday_week_is_told_once_and_not_again_in_the_next() -> None:
    """Nobody can know it is one; but two days off a week later are nothing new."""
    begin = date(2026, 1, 12)
    hours = lived(office, 4, begin, begin + timedelta(weeks=14))
    off = {date(2026, 3, 9) + timedelta(days=day) for day in range(5)} | {date(2026, 3, 26), date(2026, 3, 27)}
    hours = [
        Hour(one.number, 0 if datetime.fromtimestamp(one.number * 3600, ZONE).date() in off else one.files, 3600.0)
        for one in hours
        if datetime.fromtimestamp(one.number * 3600, ZONE).date() < date(2026, 4, 3)
    ]
    [alarm] = told(hours)
    assert alarm.day == date(2026, 3, 9)
    assert alarm.ended == at(date(2026, 3, 16), 7) or alarm.ended == at(date(2026, 3, 16), 8)


def test_a_new_inbox_is_learnt_first() -> None:
    for days, has_rhythm in ((10, False), (20, False), (26, True)):
        hours = lived(office, 5, date(2026, 1, 12), date(2026, 1, 12) + timedelta(days=days))
        now = hours[-1].number + 1
        assert judge(hours, now, rhythms.local).has_rhythm is has_rhythm
        week_of_silence = [Hour(now + more, 0, 3600.0) for more in range(7 * 24)]
        judged = judge([*hours, *week_of_silence], now + 7 * 24, rhythms.local)
        assert judged.is_silent is has_rhythm
    assert not judge([], 100).is_silent
    assert not judge([Hour(number, 0, 3600.0) for number in range(2000)], 2000).is_silent, "nothing ever came"


def test_three_weeks_are_learnt_though_there_are_days_enough() -> None:
    for days, has_rhythm in ((19, False), (23, True)):
        hours = lived(emergency, 5, date(2026, 1, 12), date(2026, 1, 12) + timedelta(days=days))
        assert judge(hours, hours[-1].number + 1, rhythms.local).has_rhythm is has_rhythm


def test_the_hour_that_is_is_missed_by_nobody_yet() -> None:
    """Something comes in every hour; so each that is over counts one, and the seventh makes it silent."""
    hours = [Hour(number, 1, 3600.0) for number in range(1000)]
    last = hours[-1].number
    for missed, is_silent in ((6, False), (7, True)):
        now = last + missed + 1
        silence = [Hour(number, 0, 3600.0) for number in range(last + 1, now + 1)]
        judged = judge([*hours, *silence], now)
        assert (judged.missed_hours, judged.is_silent) == (missed, is_silent)


def test_what_has_not_come_yet_ends_no_silence() -> None:
    hours = [Hour(number, 1, 3600.0) for number in range(1000)] + [Hour(1000 + more, 0, 3600.0) for more in range(20)]
    assert judge(hours, 1020).is_silent
    assert judge([*hours, Hour(3000, 1, 3600.0)], 1020).is_silent


def test_a_silence_of_ten_weeks_ago_is_no_measure() -> None:
    busy = [Hour(number, 1, 3600.0) for number in range(KEEP_HOURS + 500)]
    for begin, known in ((10, 0.0), (KEEP_HOURS, 1.0)):
        hours = [Hour(one.number, int(not begin <= one.number < begin + 100), 3600.0) for one in busy]
        judged = judge(hours, hours[-1].number + 1)
        assert (judged.known_hours >= 50) is bool(known), judged


def test_hours_in_which_nobody_looked_say_nothing() -> None:
    """The daemon was stopped for a week, or the inbox could not be opened; or the clock was set ahead by one."""
    hours = office_weeks(9)
    cut_at = index_of(hours, date(2026, 3, 9), 7)
    unwatched = [*hours[:cut_at], *(Hour(one.number, 0, 1700.0) for one in hours[cut_at:])]
    assert not judge(unwatched, hours[-1].number + 1, rhythms.local).is_silent
    ahead = hours[:cut_at]
    assert not judge(ahead, ahead[-1].number + 7 * 24, rhythms.local).is_silent
    a_few = [*ahead, *(Hour(ahead[-1].number + 7 * 24 + more, 0, 3600.0) for more in range(5))]
    assert not judge(a_few, a_few[-1].number + 1, rhythms.local).is_silent, "five hours are no silence"


def test_a_clock_that_was_set_back_says_nothing() -> None:
    hours = office_weeks(9)
    assert not judge(hours, hours[-1].number - 100, rhythms.local).is_silent


@pytest.mark.parametrize("change", [SPRING, AUTUMN])
def test_when_summer_begins_or_ends(change: date) -> None:
    """The clock's hours are those of the people: the day after is as busy as ever, and a breakdown is told as soon."""
    begin = change - timedelta(weeks=9)
    hours = lived(office, 6, begin - timedelta(days=begin.weekday()), change + timedelta(days=12))
    off = rhythms.HOLIDAYS
    alarms = [one for one in told(hours) if one.day not in off]
    assert alarms == []
    monday = change + timedelta(days=1)
    when = silent_from(hours, index_of(hours, monday, 9))
    assert when is not None and when.date() in (monday, monday + timedelta(days=1))
    night = lived(emergency, 7, change - timedelta(weeks=5), change + timedelta(days=5))
    assert list(told(night)) == []


def test_what_comes_in_the_hour_that_is_ends_it() -> None:
    hours = office_weeks(10)
    broken = cut(hours, index_of(hours, date(2026, 3, 9), 7))
    now = at(date(2026, 3, 10), 12)
    before = [one for one in broken if one.number < now]
    assert judge(before, now, rhythms.local).is_silent
    assert not judge([*before, Hour(now, 1, 10.0)], now, rhythms.local).is_silent


def test_a_year_and_its_breakdowns() -> None:
    """False alarms come on holidays alone, and breakdowns are told of; docs/design.md has the figures of more seeds."""
    whole = (date(2026, 1, 1), date(2027, 1, 1))
    off = rhythms.HOLIDAYS | rhythms.QUIET_DAYS
    around = {day + timedelta(days=more) for day in off for more in (0, 1)}
    for rhythm, most in ((office, 6), (emergency, 0), (clinic, 3)):
        alarms = list(told(lived(rhythm, 11, *whole), every=3))
        assert all(one.day in around for one in alarms) and len(alarms) <= most, (rhythm, [one.day for one in alarms])
    # After a holiday it takes twice that day: what has been known of an inbox is not far beyond what it knows.
    for rhythm, most in ((office, 30), (emergency, 20)):
        hours = lived(rhythm, 12, *whole)
        for week in (10, 20, 30, 40):
            found = detected(hours, (week * 7 + 2) * 24 + 10, every=2)
            assert found is not None and found[1] <= most, (rhythm, week, found)


def test_local_time_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        for day in (SPRING, AUTUMN, date(2026, 7, 1)):
            for hour in range(at(day, 0), at(day, 0) + 30):
                assert local_time(hour) == rhythms.local(hour)
    finally:
        monkeypatch.undo()
        time.tzset()


# -- on record --------------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.queue.close()


def test_what_comes_is_put_down_by_the_hour(bench: Bench) -> None:
    hours, source = bench.queue.hours, bench.source.source_id
    bench.add("IM1", "IM2")
    hours.write({source: 60.0})
    hours.write({source: 60.0})
    assert hours.of(source) == [Hour(hours.now, 2, 120.0)]
    bench.clock.seconds += 3600
    bench.add("IM3", study="1.2.9")
    hours.write({source: 50.0})
    bench.reopen()
    hours = bench.queue.hours
    assert hours.of(source) == [Hour(hours.now - 1, 2, 120.0), Hour(hours.now, 1, 50.0)]
    assert hours.of(source + 1) == []


def test_what_is_on_record_is_bounded(bench: Bench) -> None:
    """Eight weeks before the last arrival, and of the silence after it; however long that lasts."""
    hours, source = bench.queue.hours, bench.source.source_id
    for _ in range(KEEP_HOURS + 100):
        bench.clock.seconds += 3600
        hours.note(source, 1)
        hours.write({source: 3600.0})
    hours.prune()
    assert len(hours.of(source)) == KEEP_HOURS
    last = hours.now
    for _ in range(KEEP_HOURS + 100):
        bench.clock.seconds += 3600
        hours.write({source: 3600.0})
        if hours.now % 50 == 0:
            hours.prune()
    hours.prune()
    found = hours.of(source)
    assert len(found) == 2 * KEEP_HOURS + 1 and found[0].number == last - KEEP_HOURS + 1
    assert judge(found, hours.now).is_silent, "and it is still known to be silent"


def test_a_clock_that_was_years_ahead_leaves_no_hours_that_have_not_come(bench: Bench) -> None:
    hours, source = bench.queue.hours, bench.source.source_id
    hours.note(source, 1)
    hours.write({source: 60.0})
    now = hours.now
    bench.clock.seconds += 10 * 365 * 86400
    hours.note(source, 1)
    hours.write({source: 60.0})
    bench.clock.seconds -= 10 * 365 * 86400
    hours.write({source: 60.0})
    assert [one.number for one in hours.of(source)] == [now]


@pytest.mark.parametrize("years", [-50, -0.05, 0.01, 1, 30])
def test_a_clock_that_is_wrong_for_an_hour_takes_nothing_away_that_was_learnt(bench: Bench, years: float) -> None:
    """A machine without a battery begins in another year, until it has the time from the network. Files come
    meanwhile, what is old is pruned, and the daemon is restarted."""
    hours, source = bench.queue.hours, bench.source.source_id
    for _ in range(KEEP_HOURS - 10):
        bench.clock.seconds += 3600
        hours.note(source, 1)
        hours.write({source: 3600.0})
    learnt, wrong = hours.of(source), round(years * 365 * 24) * 3600
    bench.clock.seconds += wrong
    for _ in range(2):
        hours.note(source, 1)
        hours.write({source: 60.0})
        hours.prune()
        assert not judge(hours.of(source), hours.now).is_silent
    bench.reopen()
    hours = bench.queue.hours
    bench.clock.seconds -= wrong
    hours.write({source: 60.0})
    hours.prune()
    assert {one.number for one in learnt} <= {one.number for one in hours.of(source)}
    judged = judge(hours.of(source), hours.now)
    assert judged.has_rhythm and judged.silent_hours <= 1
    assert all(one.number <= hours.now for one in hours.of(source)), "what has not come yet says nothing"


def test_what_a_clock_that_was_ahead_has_put_down_takes_no_place(bench: Bench) -> None:
    hours, source = bench.queue.hours, bench.source.source_id

    def pass_by(number: int) -> None:
        for _ in range(number):
            bench.clock.seconds += 3600
            hours.note(source, 1)
            hours.write({source: 3600.0})
        hours.prune()

    pass_by(KEEP_HOURS)
    bench.clock.seconds += 365 * 86400
    pass_by(50)
    bench.clock.seconds -= 365 * 86400
    pass_by(60)
    assert len(hours.of(source)) == KEEP_HOURS


def test_a_clock_that_jumps_without_end_fills_nothing(bench: Bench) -> None:
    hours, source = bench.queue.hours, bench.source.source_id
    begun = bench.clock.seconds
    for jump in range(3 * KEEP_HOURS):
        bench.clock.seconds = begun + (jump * 7919 % 100_003) * 3600
        hours.note(source, 1)
        hours.write({source: 60.0})
        if not jump % 100:
            hours.prune()
    bench.clock.seconds = begun + 200_000 * 3600
    hours.write({source: 60.0})
    hours.prune()
    assert len(hours.of(source)) <= KEEP_HOURS + 1
