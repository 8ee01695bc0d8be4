"""The daemons of one archive: no older heartbeat over a newer one, who is silent and who is not, and nobody's way."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dicomwatchd.archive.catalogues.sites import FORGOTTEN, SiteRow
from dicomwatchd.config.sites import Site, Sites
from dicomwatchd.errors import (
    ArchiveRefused,
    CredentialsRefused,
    DicomwatchdError,
    Fatal,
    OutOfReach,
    StateFailed,
    StateUnavailable,
)
from dicomwatchd.ports import timestamp
from dicomwatchd.queue.archived import ArchivedTotals, Totals
from dicomwatchd.sites import report
from dicomwatchd.sites.lookout import Lookout, is_silent
from dicomwatchd.sites.own import OwnRow
from dicomwatchd.sites.report import MOST_BYTES, SiteReport, plain_name
from dicomwatchd.sites.rounds import MOST_NAMED, MOST_TOLD, REFUSED, REFUSED_AGAIN_SECONDS, Own, SiteRounds
from tests.many_sites import STATUS
from tests.pieces import Log
from tests.unit.queues import Bench, StandingClock

ARCHIVED = Totals(7, 900, 12345, "2026-01-31T11:30:00.000Z")


@dataclass
class Table:
    """As the catalogue keeps it, and as unwilling as it is told to be."""

    kept: dict[str, SiteRow] = field(default_factory=dict)
    fault: DicomwatchdError | None = None
    refuses: str = ""
    loses_answer: int = 0
    meanwhile: Callable[[], None] | None = None
    writes: int = 0
    reads: int = 0

    def _ask(self, what: str) -> None:
        if self.fault is not None and self.refuses in ("", what):
            raise self.fault

    def rows(self) -> list[SiteRow]:
        self.reads += 1
        self._ask("rows")
        return [self.kept[site_id] for site_id in sorted(self.kept)]

    def row(self, site_id: str) -> SiteRow | None:
        self._ask("row")
        return self.kept.get(site_id)

    def write(self, row: SiteRow, over: tuple[int, str] | None) -> bool:
        self.writes += 1
        self._ask("write")
        if (action := self.meanwhile) is not None:
            self.meanwhile = None
            action()
        there = self.kept.get(row.site_id)
        if there is not None and there.stamp != over:
            return False
        self.kept[row.site_id] = row
        if self.loses_answer:
            self.loses_answer -= 1
            return False  # as of a second attempt of the client, which finds what the first has written
        return True

    def close(self) -> None:
        pass


def made(name: str = "ct", at: str = "2027-01-15T08:00:00.000Z", **more: Any) -> SiteReport:
    return replace(
        SiteReport(name, f"{name}-host", at, 300, "1.0", at, 0, 0, 0, 0, 0, 0, 0, 0, 0, "", 0, (), ""), **more
    )


class Daemon:
    def __init__(
        self, table: Table, clock: StandingClock, site: int = 1, *, run: str = "", name: str = "", **plan: Any
    ) -> None:
        self.log, self.clock, self.table = Log(), clock, table
        self.status: Callable[[], dict[str, Any]] = lambda: STATUS
        self.reachable: Callable[[], object] = lambda: "archive-1"
        own = Own(f"{site:032x}", run or f"{site:016x}", name or f"site{site}", f"host{site}")
        self.rounds = SiteRounds(
            table,
            own,
            Sites(**plan),
            clock,
            Random(site),
            self.log,
            status=lambda: self.status(),
            archived=lambda: ARCHIVED,
            reachable=lambda: self.reachable(),
        )

    def names(self) -> list[str]:
        return [event for event, _, _ in self.log.entries]

    def said(self) -> SiteReport:
        found = report.read(self.table.kept[f"{int(self.rounds._own.site_id, 16):032x}"].document)
        assert found is not None
        return found


def passing(clock: StandingClock, seconds: float, *daemons: Daemon) -> None:
    end = clock.seconds + seconds
    while clock.seconds < end:
        for daemon in daemons:
            daemon.rounds.step()
        clock.seconds += 1


# -- one row --------------------------------------------------------------------------------------------------------


def test_an_older_heartbeat_never_gets_over_a_newer_one() -> None:
    """Whatever clocks say: the request of a thread that was left behind comes late."""
    table = Table()
    old, new = OwnRow(table, "s", "old"), OwnRow(table, "s", "new")
    assert old.write(made(at="2027-01-15T08:00:00Z"))
    late = SiteRow("s", 2, "old", "late")
    assert new.write(made(at="2027-01-15T07:00:00Z"))  # its clock was set back
    assert table.write(late, (1, "old")) is False
    kept = table.kept["s"]
    assert (kept.beats, kept.run) == (2, "new")
    assert new.write(made()) and table.kept["s"].beats == 3 and new.twin == ""


def test_an_answer_that_was_lost_is_no_twin() -> None:
    table = Table(loses_answer=1)
    own = OwnRow(table, "s", "mine")
    assert own.write(made()) and own.write(made())
    assert table.kept["s"].beats == 2 and own.twin == ""
    table.loses_answer = 1
    assert own.write(made()) and table.kept["s"].beats == 3 and own.twin == ""


def test_a_write_that_timed_out_and_was_there_all_the_same_is_no_twin() -> None:
    table = Table()
    own = OwnRow(table, "s", "mine")
    assert own.write(made())
    table.fault = OutOfReach("no answer")
    table.refuses = "none"

    def lands_and_times_out() -> None:
        table.kept["s"] = SiteRow("s", 2, "mine", made(at="2027-01-15T08:05:00Z").to_text())
        raise OutOfReach("no answer")

    table.meanwhile = lands_and_times_out
    with pytest.raises(OutOfReach):
        own.write(made(at="2027-01-15T08:05:00Z"))
    assert own.write(made(at="2027-01-15T08:10:00Z")) and own.twin == ""
    kept = table.kept["s"]
    assert kept.beats == 3 and "08:10" in kept.document


def test_a_machine_that_was_copied_while_it_ran_is_a_twin() -> None:
    """Even the run is the same."""
    table = Table()
    own = OwnRow(table, "s", "mine")
    assert own.write(made())
    table.kept["s"] = SiteRow("s", 2, "mine", made(host="copy", at="2027-01-15T08:05:00Z").to_text())
    assert own.write(made(at="2027-01-15T08:05:01Z")) and own.twin == "copy"


def test_a_restart_is_no_twin_and_a_cloned_machine_is_one_at_both() -> None:
    table = Table()
    first = OwnRow(table, "s", "a")
    assert first.write(made("one"))
    second = OwnRow(table, "s", "b")
    assert second.write(made("two"))
    assert second.twin == ""  # for all that it knows the first has ended
    for own, name, other in ((first, "one", "two-host"), (second, "two", "one-host"), (first, "one", "two-host")):
        assert own.write(made(name)) and own.twin == other
        assert json.loads(table.kept["s"].document)["twin"] == other
    for _ in range(4):  # the other one was stopped
        assert first.write(made("one"))
    assert first.twin == ""


def test_who_was_forgotten_and_lives_comes_back() -> None:
    table = Table()
    own = OwnRow(table, "s", "mine")
    assert own.write(made())
    there = table.kept["s"]
    assert table.write(SiteRow("s", there.beats + 1, FORGOTTEN, "{}"), there.stamp)
    assert own.write(made()) and own.twin == ""
    assert (table.kept["s"].beats, table.kept["s"].run) == (3, "mine")


def test_a_catalogue_that_was_emptied() -> None:
    table = Table()
    own = OwnRow(table, "s", "mine")
    assert own.write(made()) and own.write(made())
    table.kept.clear()
    assert own.write(made()) and table.kept["s"].beats == 3


def test_a_stop_waits_for_no_further_attempt() -> None:
    table = Table({"s": row(9, made("other"), "s")})
    assert not OwnRow(table, "s", "mine").write(made(), lambda: True) and table.writes == 1
    assert table.kept["s"].beats == 9


def test_a_race_for_one_row_ends() -> None:
    table = Table()
    own = OwnRow(table, "s", "mine")

    def other() -> None:
        there = table.kept.get("s")
        table.kept["s"] = SiteRow("s", (there.beats if there else 0) + 1, "other", "{}")
        table.meanwhile = other

    table.meanwhile = other
    assert own.write(made()) is False and table.writes == 3


# -- what is said ---------------------------------------------------------------------------------------------------


def test_what_is_said_comes_back_and_fits_into_the_cheapest_item() -> None:
    long = "h" * 63
    full = made(long, codes=tuple(f"code-{n:027d}" for n in range(30)), host=long, twin=long)
    full = replace(full, backlog_bytes=10**15, archived_bytes=10**17, archived_files=10**12, problems=99)
    text = full.to_text()
    assert len(text) <= MOST_BYTES
    back = report.read(text)
    assert back is not None and replace(back, codes=()) == replace(full, codes=()) and back.codes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"name": "ct"}',
        '{"name": "a b", "at": "2027-01-15T08:00:00Z"}',
        '{"name": "ct\\u001b[31m", "at": "2027-01-15T08:00:00Z"}',
        '{"name": "ct", "at": "yesterday"}',
        "[" * 100_000,
    ],
)
def test_a_strangers_row_is_none(text: str) -> None:
    assert report.read(text) is None


def test_a_strangers_values_are_empty() -> None:
    raw = {"name": "ct", "at": "2027-01-15T08:00:00Z", "host": "Doe^Jane", "version": "x" * 99, "held": -1}
    raw |= {"parked": "7", "problems": 1e300, "codes": ["ok", "Doe^Jane", 7], "every_seconds": 10**9, "later": 1}
    found = report.read(json.dumps(raw))
    assert found is not None
    assert (found.host, found.version, found.held, found.parked, found.problems) == ("", "", 0, 0, 0)
    assert found.codes == ("ok",) and found.every_seconds == 86400


def test_a_machine_of_any_name() -> None:
    assert plain_name("ct-1.hospital.example") == "ct-1.hospital.example"
    assert plain_name("-_Röntgen 1") == "R-ntgen-1"
    assert plain_name("") == "unnamed" and len(plain_name("x" * 200)) == 63


def test_a_heartbeat_tells_figures_and_no_study() -> None:
    table = Table()
    daemon = Daemon(table, StandingClock())
    passing(daemon.clock, 40, daemon)
    said = daemon.said()
    assert (said.backlog_files, said.backlog_bytes, said.oldest_unarchived_seconds) == (15, 1500, 75)
    assert (said.held, said.parked, said.quarantined, said.problems) == (3, 2, 1, 1)
    assert (said.archived_studies, said.archived_files, said.archived_bytes) == (7, 900, 12345)
    assert said.codes == ("parked", "held", "quarantine")
    assert "1.2.3" not in table.kept[f"{1:032x}"].document


def test_every_word_for_what_is_amiss() -> None:
    bad = {
        **STATUS,
        "inboxes": [{"state": "unavailable", "unreadable": 0, "receivers": [{"listening": False}]}],
        "disks": [{"almost_full": True}],
        "audit": {"problems": 1},
        "capabilities": {"creates_only": False},
        "backoff": {"s3": 1.0},
        "archive_verification": {"last_complete": {"with_problems": 1}},
        "restore_drill": {"failed": [{"study_uid": "1.2.3"}]},
    }
    assert len(report.codes_of(bad)) == 11


# -- who is silent --------------------------------------------------------------------------------------------------


def row(beats: int, said: SiteReport, site_id: str = "x") -> SiteRow:
    return SiteRow(site_id, beats, "r", said.to_text())


def test_silence_is_told_once_and_so_is_its_end() -> None:
    table, clock = Table(), StandingClock()
    one, other = Daemon(table, clock, 1), Daemon(table, clock, 2)
    passing(clock, 2000, one, other)
    assert one.rounds.problems() == [] and one.rounds.document()["seen"] == 1
    passing(clock, 3100, one)
    assert "site-silent" not in one.names()
    passing(clock, 3300, one)
    assert one.names().count("site-silent") == 1
    [problem] = one.rounds.problems()
    assert problem.startswith("site site2 (host host2) has been silent for ")
    assert one.rounds.document()["silent"] == 1
    table.fault = OutOfReach("away")  # an outage in between is no sign of life
    passing(clock, 1000, one)
    table.fault = None
    passing(clock, 1000, one)
    assert one.names() == ["site-silent"] and one.rounds.document()["silent"] == 1
    passing(clock, 700, one, other)
    assert one.names().count("site-back") == 1 and one.rounds.problems() == []
    assert not {"site-silent", "site-back"} & set(other.names())


def test_nobody_is_called_silent_after_an_outage_that_kept_all_silent() -> None:
    table, clock = Table(), StandingClock()
    daemons = [Daemon(table, clock, number) for number in range(1, 6)]
    passing(clock, 1000, *daemons)
    table.fault = OutOfReach("away")
    for daemon in daemons:
        daemon.reachable = lambda: (_ for _ in ()).throw(OutOfReach("away"))
    passing(clock, 3 * 3600, *daemons)
    table.fault = None
    passing(clock, 1500, *daemons)
    assert [daemon.names() for daemon in daemons] == [[]] * 5
    # The same after hours in which most of them did not run at all.
    passing(clock, 3 * 3600, daemons[0])
    said = daemons[0].names()
    passing(clock, 700, *daemons)
    assert said == ["site-silent"] * 4 and daemons[0].names() == [*said, *["site-back"] * 4]
    daemons = daemons[1:]
    assert [daemon.names() for daemon in daemons] == [[]] * 4


@pytest.mark.parametrize("wrong_seconds", [-86400.0, 86400.0])
def test_a_clock_that_is_wrong_makes_nobody_silent_and_hides_nobody(wrong_seconds: float) -> None:
    clock = StandingClock()
    lookout = Lookout(clock, 3600, 300)
    for beats in range(1, 30):
        said = made(at=timestamp(clock.seconds + wrong_seconds))
        [seen] = lookout.look([row(beats, said)])
        assert not seen.is_silent, beats
        clock.seconds += 300
    for _ in range(30):
        [seen] = lookout.look([row(29, said)])
        clock.seconds += 300
    assert seen.is_silent


def test_what_was_silent_before_the_start_is_told_soon_and_not_at_once() -> None:
    clock = StandingClock()
    lookout = Lookout(clock, 3600, 300)
    old = row(9, made(at="2020-01-01T00:00:00Z"))
    assert not lookout.look([old])[0].is_silent
    clock.seconds += 400
    assert not lookout.look([old])[0].is_silent
    clock.seconds += 360
    assert lookout.look([old])[0].is_silent


def test_what_could_not_be_read_was_not_watched() -> None:
    clock = StandingClock()
    lookout = Lookout(clock, 3600, 300)
    old = row(9, made(at="2020-01-01T00:00:00Z"))
    for seconds in (0, 400):
        clock.seconds += seconds
        assert not lookout.look([old])[0].is_silent
    lookout.lost_sight()
    for seconds, expected in ((360, False), (400, False), (360, True)):
        clock.seconds += seconds
        assert lookout.look([old])[0].is_silent is expected


def test_one_heartbeat_that_fails_is_lost_sight() -> None:
    table, clock = Table(), StandingClock()
    table.kept["x"] = row(9, made(at="2020-01-01T00:00:00Z"))
    daemon = Daemon(table, clock)
    daemon.reachable = lambda: (_ for _ in ()).throw(OutOfReach("away"))

    def until(condition: Callable[[], bool]) -> float:
        for _ in range(2000):
            if condition():
                return clock.seconds
            passing(clock, 1, daemon)
        raise AssertionError("never")

    until(lambda: table.reads == 2)
    table.fault, writes = OutOfReach("away"), table.writes
    until(lambda: table.writes > writes)
    table.fault, reads = None, table.reads
    back = until(lambda: table.reads > reads)
    silent = until(lambda: "site-silent" in daemon.names())
    assert silent - back >= 2.5 * 300 - 2


def test_who_is_silent_is_not_alive_and_who_is_forgotten_is_nothing() -> None:
    clock = StandingClock()
    lookout = Lookout(clock, 3600, 300)
    for beats in (1, 2):
        [seen] = lookout.look([row(beats, made(at=timestamp(clock.seconds)))])
        clock.seconds += 300
    assert seen.is_alive and not seen.is_silent
    for _ in range(15):
        [seen] = lookout.look([row(2, seen.report)])
        clock.seconds += 300
    assert seen.is_silent and not seen.is_alive
    assert lookout.look([SiteRow("x", 3, FORGOTTEN, seen.report.to_text())]) == []
    assert not is_silent(seen.report, 1e9, 0) and is_silent(seen.report, 1e9, 3600)


def test_who_seldom_writes_has_more_time() -> None:
    clock = StandingClock()
    lookout = Lookout(clock, 3600, 300)
    slow = row(1, made(every_seconds=7200, at="2027-01-15T08:00:00Z"))
    ages = []
    for _ in range(200):
        [seen] = lookout.look([slow])
        if seen.is_silent:
            ages.append(seen.age_seconds)
        clock.seconds += 300
    assert ages[0] >= 3 * 7200


def test_zero_turns_the_alarm_off_and_reads_nothing() -> None:
    table, clock = Table(), StandingClock()
    table.kept["x"] = row(1, made(at="2020-01-01T00:00:00Z"))
    daemon = Daemon(table, clock, silent_after=0)
    passing(clock, 2000, daemon)
    assert table.reads == 0 and daemon.rounds.problems() == [] and table.writes > 3


def test_two_of_one_name_are_told_apart_and_told() -> None:
    table, clock = Table(), StandingClock()
    one, other = Daemon(table, clock, 1, name="ct"), Daemon(table, clock, 2, name="ct")
    passing(clock, 2000, one, other)
    assert one.names() == ["site-name-twice"] == other.names()
    assert "on host host2, is called ct, too" in one.rounds.problems()[0]
    # What a state that was lost has left is no other daemon; silent it is, until somebody forgets it.
    reborn = Daemon(table, clock, 3, name="mr")
    table.kept[f"{4:032x}"] = row(5, made("mr"), f"{4:032x}")
    passing(clock, 2000, reborn)
    assert "site-name-twice" not in reborn.names()


def test_a_cloned_machine_is_a_problem_at_both() -> None:
    table, clock = Table(), StandingClock()
    one, clone = Daemon(table, clock, 1, run="aa"), Daemon(table, clock, 1, run="bb")
    passing(clock, 2000, one, clone)
    for daemon in (one, clone):
        assert daemon.names() == ["site-state-twice"]
        assert "works with a copy of this daemon's state" in daemon.rounds.problems()[0]


def test_a_million_rows_of_a_thief_fill_no_status() -> None:
    table, clock = Table(), StandingClock()
    for number in range(5 * MOST_NAMED):
        table.kept[f"{number:032x}"] = row(1, made(f"x{number}", at="2020-01-01T00:00:00Z"), f"{number:032x}")
    daemon = Daemon(table, clock, 10**6)
    passing(clock, 1500, daemon)
    assert len(daemon.rounds.document()["others"]) == MOST_NAMED
    assert len(daemon.rounds.problems()) == MOST_NAMED + 1
    assert len(daemon.names()) == MOST_TOLD


# -- in nobody's way ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refused", ["write", "rows"])
@pytest.mark.parametrize("error", [CredentialsRefused("no"), ArchiveRefused("no")])
def test_what_is_refused_is_said_once_and_seldom_tried(refused: str, error: DicomwatchdError) -> None:
    table, clock = Table(fault=error, refuses=refused), StandingClock()
    daemon = Daemon(table, clock)
    passing(clock, 6 * REFUSED_AGAIN_SECONDS, daemon)
    assert daemon.names() == ["sites-refused"] and daemon.rounds.problems() == [REFUSED]
    assert table.writes <= 8
    table.fault = None
    passing(clock, REFUSED_AGAIN_SECONDS + 10, daemon)
    assert daemon.rounds.problems() == [] and table.kept


def test_credentials_that_serve_for_nothing_are_no_matter_of_the_heartbeat() -> None:
    table, clock = Table(fault=CredentialsRefused("expired")), StandingClock()
    daemon = Daemon(table, clock)

    def expired() -> object:
        raise CredentialsRefused("expired")

    daemon.reachable = expired
    passing(clock, 5000, daemon)
    assert daemon.names() == [] and daemon.rounds.problems() == []


def test_an_outage_is_told_by_others() -> None:
    table, clock = Table(fault=OutOfReach("away")), StandingClock()
    daemon = Daemon(table, clock)
    passing(clock, 5000, daemon)
    assert daemon.names() == [] and daemon.rounds.problems() == [] and 10 < table.writes < 25


def test_a_state_that_is_busy_or_broken() -> None:
    table, clock = Table(), StandingClock()
    daemon = Daemon(table, clock)

    def raising(error: DicomwatchdError) -> Callable[[], dict[str, Any]]:
        def status() -> dict[str, Any]:
            raise error

        return status

    daemon.status = raising(StateUnavailable("its disk is full"))
    passing(clock, 1000, daemon)
    assert table.writes == 0 and daemon.names() == []
    daemon.status = raising(StateFailed("damaged"))
    with pytest.raises(Fatal):
        passing(clock, 1000, daemon)


def test_the_thread_ends_when_it_is_told_to() -> None:
    daemon = Daemon(Table(), StandingClock())
    stopping = threading.Event()
    beats: list[int] = []
    thread = threading.Thread(target=daemon.rounds.run, args=(stopping, lambda: beats.append(1)))
    thread.start()
    stopping.set()
    thread.join(5)
    assert not thread.is_alive()


def test_heartbeats_do_not_stay_together() -> None:
    table, clock = Table(), StandingClock()
    daemon, written = Daemon(table, clock), list[float]()
    for _ in range(5000):
        writes = table.writes
        passing(clock, 1, daemon)
        written += [clock.seconds] * (table.writes - writes)
    between = [later - earlier for earlier, later in pairwise(written)]
    assert len(set(between)) > 5 and min(between) >= 239 and max(between) <= 361


def test_daemons_that_start_together_do_not_write_together() -> None:
    table, clock = Table(), StandingClock()
    daemons = [Daemon(table, clock, number) for number in range(1, 101)]
    most = 0
    for _ in range(3600):
        before = table.writes
        for daemon in daemons:
            daemon.rounds.step()
        most = max(most, table.writes - before)
        clock.seconds += 1
    assert most <= 15 and 100 * 11 <= table.writes <= 100 * 14


def test_what_was_archived_is_read_once_and_survives_pruning(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    def finish(files: int) -> None:
        claim = bench.claimed(f"IM{files}", study=f"1.2.{files}")
        bench.record(claim)
        bench.queue.shipments.finish(
            claim,
            {"source": "ct1", "revision": 1, "started_at": 0.0, "files": files, "bytes": 10 * files, "retries": 0}
            | {"stages": {}},
        )

    assert bench.queue.archived.totals() == Totals()
    finish(3)
    at = timestamp(bench.clock.seconds)
    assert bench.queue.archived.totals() == Totals(1, 3, 30, at)
    finish(5)
    both = bench.queue.archived.totals()
    assert both == Totals(2, 8, 80, timestamp(bench.clock.seconds))
    bench.clock.seconds += 90 * 86400
    while bench.queue.pruning.step():
        pass
    assert bench.rows("SELECT * FROM shipments") == []
    assert bench.queue.archived.totals() == both
    fresh = ArchivedTotals(bench.queue._database).totals()
    assert (fresh.studies, fresh.files, fresh.bytes) == (2, 8, 80) and fresh.last_at.endswith("T00:00:00.000Z")
    finish(7)
    assert bench.queue.archived.totals().files == 15 == ArchivedTotals(bench.queue._database).totals().files
    bench.queue.close()


# -- the configuration ----------------------------------------------------------------------------------------------


def test_the_configuration() -> None:
    assert (Sites().heartbeat_seconds, Sites().silent_after_seconds) == (300, 3600)
    off = Sites.model_validate({"heartbeat": 0, "silent_after": 0})
    assert (off.heartbeat_seconds, off.silent_after_seconds) == (0, 0)
    assert Site().name is None and Site(name="ct-1.north").name == "ct-1.north"


@pytest.mark.parametrize(
    "wrong",
    [
        {"heartbeat": "5"},
        {"heartbeat": 5},
        {"heartbeat": True},
        {"heartbeat": "2d", "silent_after": "9d"},
        {"heartbeat": "30m"},
        {"silent_after": "10m"},
        {"surprise": 1},
    ],
)
def test_what_cannot_be_configured(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"heartbeat|silent_after|surprise"):
        Sites.model_validate(wrong)


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 64, "a/b"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="short name"):
        Site(name=name)
