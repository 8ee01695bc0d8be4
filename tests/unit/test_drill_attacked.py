"""What could make a restore drill lie, fetch without end, leave copies, or take the daemon with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.layout.erasures import Erasure
from dicomwatchd.cli.drill import line
from dicomwatchd.config.drill import RestoreDrill
from dicomwatchd.config.loading import parse
from dicomwatchd.daemon.plan import plan_of
from dicomwatchd.drill import scratch, trial
from dicomwatchd.drill.scratch import NAME
from dicomwatchd.errors import OutOfReach, Stopping
from dicomwatchd.fetch import look_up
from dicomwatchd.model import Uid
from dicomwatchd.queue.drills import CUT_OFF, Drilled, Drills, Outcome
from tests import schemas
from tests.unit.memory_archive import STUDY
from tests.unit.test_drill import DAY, Yard, erase


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    yard = Yard(tmp_path)
    yield yard
    yard.bench.queue.close()


def counted(yard: Yard) -> int:
    """Bytes of the last day, which count against the limit."""
    return yard.bench.queue.drills.fetched_bytes(yard.clock.now() - DAY)


# --- the daemon goes on


def test_a_fault_in_a_drill_ends_no_daemon(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.archive()

    def fault(*_: object) -> object:
        raise ValueError("CANARY of a fault")

    monkeypatch.setattr(trial, "_compare", fault)
    yard.clock.seconds += DAY
    yard.drills._due = yard.clock.now()
    yard.drills.step()
    [told] = yard.log.events("restore-drill-fault")
    assert told["error_type"] == "ValueError" and "CANARY" not in repr(yard.log.entries)
    assert yard.left() == [] and yard.document()["instances"] == 0
    # It has its time like any other, and what it has fetched counts: no fault fetches without end.
    assert counted(yard) == 7500
    for _ in range(100):
        yard.drills.step()
    assert len(yard.log.events("restore-drill-fault")) == 1
    monkeypatch.undo()
    yard.day(1)
    assert "equal" in yard.outcomes()


def test_who_waits_for_a_drill_that_has_a_fault_is_told(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yard.drills, "_runs", True)
    monkeypatch.setattr(yard.drills, "_turn", lambda *_: 1 / 0)
    wanted = yard.drills.want(STUDY)
    yard.drills.step()
    assert wanted.done.is_set() and wanted.is_cut_off


# --- the day's bytes


def test_a_drill_that_a_kill_has_cut_off_counts_for_the_day(yard: Yard) -> None:
    """Else a daemon that is killed in each of them would fetch without end, one within minutes of each start."""
    yard.archive()
    with pytest.raises(Stopping):
        yard.trial.of(STUDY, 10**9, _stop_at(4), lambda _: None, lambda size: _note(yard, size))
    assert counted(yard) == 7500 and yard.outcomes() == ["not-done"]
    said = yard.document()
    assert (said["studies"]["not-done"], said["bytes"]) == (0, 0), "it says nothing of the archive"
    assert said["last_at"] is not None, "and is the last one, from which the next has its distance"
    yard.make()
    yard.drills.step()
    assert yard.outcomes() == ["not-done"]


def _stop_at(beat: int) -> Any:
    left = iter(range(beat))

    def stop() -> None:
        if next(left, None) is None:
            raise Stopping("stop")

    return stop


def _note(yard: Yard, size_bytes: int) -> None:
    yard.bench.queue.drills.begin(STUDY, size_bytes)


def test_a_stop_in_the_midst_counts_what_was_to_be_fetched(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.archive()
    beats: list[int] = []
    stopping: Any = SimpleNamespace(is_set=lambda: len(beats) > 4, wait=lambda _: None)
    monkeypatch.setattr(yard.drills, "_stopping", stopping)
    yard.drills._beat = lambda: beats.append(1)
    with pytest.raises(Stopping):
        yard.drills._turn(STUDY, 10**9)
    assert counted(yard) == 7500
    assert [row["code"] for row in yard.bench.rows("SELECT code FROM drills")] == [CUT_OFF]


def test_what_came_counts_whatever_it_was_worth(yard: Yard) -> None:
    """Other bytes, and pieces that had to come again."""
    key = yard.archive().instances[1].key
    yard.store.versions[key] = [yard.store.versions[key][0][:-1] + b"?"]
    drilled = yard.of()
    assert drilled is not None and drilled.outcome is Outcome.FAILED
    assert drilled.size_bytes >= 7500, "the damaged one was fetched, too"

    def away(key: str, _number: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield chunk
            if keys.holds_instances(key):
                raise OutOfReach("away", endpoint="s3")

    yard.store.tampering = away
    drilled = yard.of()
    assert drilled is not None and drilled.outcome is Outcome.NOT_DONE and drilled.size_bytes > 7500


def test_no_more_bytes_than_a_day_has_though_all_turn_out_cold(tmp_path: Path) -> None:
    """One is fetched in part, turns out to be cold, and the next is tried."""
    yard = Yard(tmp_path, RestoreDrill.model_construct(studies_per_day=1, bytes_per_day=16_000))
    asked: list[int] = []

    def of(study: Uid, most_bytes: int, *_: object) -> Drilled:
        asked.append(most_bytes)
        return Drilled(study, Outcome.COLD, "cold-storage", 1, size_bytes=7500)

    yard.drills._trial = SimpleNamespace(of=of)  # type: ignore[assignment]
    for number in range(20):
        yard.archive(Uid(f"1.2.3.{number}"))
    yard.drills._turn(None, 16_000)
    assert asked[:3] == [16_000, 8500, 1000]
    yard.bench.queue.close()


# --- clocks


def test_a_clock_that_was_far_ahead(tmp_path: Path) -> None:
    """What was on record for next year would count for each day until then, and no drill would be made, silently."""
    yard = Yard(tmp_path, RestoreDrill.model_construct(studies_per_day=4, bytes_per_day=8000))
    yard.archive()
    yard.clock.seconds += 400 * DAY
    yard.drills._turn(STUDY, 8000)
    yard.clock.seconds -= 400 * DAY
    assert counted(yard) == 7500
    drills = Drills(yard.bench.queue._database, yard.clock)
    drills.step()
    last = drills.figures().last_at
    assert last is not None and last <= yard.clock.now()
    yard.make()
    yard.day(3)
    assert yard.outcomes().count("equal") >= 3
    yard.bench.queue.close()


# --- what is told


def test_an_old_erasure_excuses_no_manifest_of_today(yard: Yard) -> None:
    """Erased years ago, archived again since, and now its manifest is damaged: that is told, and stays told."""
    manifest = yard.archive()
    assert erasures.create(
        yard.store, Erasure("archive-1", STUDY, 1, "2020-01-31T12:00:00.000Z", "x", 0, "x", through_revision=0)
    )
    yard.store.versions[manifest.key] = [b"{}"]
    drilled = yard.of()
    assert drilled is not None and (drilled.outcome, drilled.code) == (Outcome.FAILED, trial.MANIFEST)
    yard.drills._turn(STUDY, 10**9)
    yard.drills._turn(STUDY, 10**9)
    assert len(yard.problems()) == 1


def test_erased_while_it_was_looked_up(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.archive()
    real = look_up
    looks: list[int] = []

    def looking(*arguments: Any, **more: Any) -> Any:
        looks.append(1)
        if len(looks) == 1:
            [key] = [key for key in yard.store.versions if "manifest" in key]
            yard.store.versions[key] = [b"{}"]
            try:
                return real(*arguments, **more)
            finally:
                erase(yard)
        return real(*arguments, **more)

    monkeypatch.setattr(trial, "look_up", looking)
    assert yard.of() is None and len(looks) == 2


def test_failures_that_nobody_can_put_right_leave_room_for_others(tmp_path: Path) -> None:
    """As many as there are drills a day: half of them are for the rest of the archive."""
    yard = Yard(tmp_path, RestoreDrill(studies_per_day=1))
    for number in range(3):
        key = yard.archive(Uid(f"1.2.3.{number}")).instances[0].key
        del yard.store.versions[key]
        yard.drills._turn(Uid(f"1.2.3.{number}"), 10**9)
    for number in range(30):
        yard.archive(Uid(f"1.2.4.{number}"))
    yard.day(30)
    assert yard.outcomes().count("equal") >= 10 and yard.outcomes().count("failed") >= 10
    assert len(yard.problems()) == 3
    yard.bench.queue.close()


def test_the_line_of_the_status_says_that_a_study_did_not_come_back(yard: Yard) -> None:
    """One without any manifest has no instances that could be counted, and "all came back" would be a lie."""
    yard.archive(Uid("1.2.4.1"))
    yard.drills._turn(Uid("1.2.4.1"), 10**9)
    yard.store.versions[yard.archive().key] = [b"{}"]
    yard.drills._turn(STUDY, 10**9)
    said = yard.document()
    assert (said["instances"], said["instances_equal"]) == (3, 3)
    text = line(said)
    assert text is not None and "(2 studies, 1 of them not as recorded)" in text


def test_however_many_have_failed_all_are_counted(yard: Yard) -> None:
    for number in range(25):
        yard.bench.queue.drills.record(Drilled(f"1.2.{number}", Outcome.FAILED, trial.DIFFERS, 1, 3, 2))
    said = yard.document()
    assert (len(said["failed"]), said["failed_total"]) == (20, 25)


@pytest.mark.parametrize("why", ["too-large", "hangs", "in-trouble"])
def test_drills_that_silently_never_run_are_a_problem(tmp_path: Path, why: str) -> None:
    yard = Yard(tmp_path, RestoreDrill.model_construct(studies_per_day=4, bytes_per_day=8000))
    first = yard.archive()
    yard.day(1)
    assert yard.problems() == []
    if why == "too-large":
        yard.archive(instances=5, before=first)
    yard.trouble = why == "in-trouble"
    if why == "hangs":  # its disk, in the midst of one
        yard.bench.queue.drills.begin(STUDY, 7500)
        yard.clock.seconds += 9 * DAY
    else:
        yard.day(9)
    [problem] = yard.problems()
    assert problem.startswith("restore drill: no study could be fetched for 7 days")
    yard.bench.queue.close()


# --- copies


def test_what_could_not_be_removed_goes_before_the_next(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.archive()

    def fails(*_: object) -> None:
        raise OSError(5, "EIO")

    monkeypatch.setattr(scratch, "_remove", fails)
    tried = yard.trial.of(STUDY, 10**9, yard.beat, lambda _: None)
    assert isinstance(tried, Drilled) and tried.outcome is Outcome.EQUAL and len(yard.left()) == 1
    # As long as it cannot be removed there is not one more.
    tried = yard.trial.of(STUDY, 10**9, yard.beat, lambda _: None)
    assert isinstance(tried, Drilled) and tried.outcome is Outcome.NOT_DONE and len(yard.left()) == 1
    monkeypatch.undo()
    drilled = yard.of()  # which looks that nothing is left
    assert drilled is not None and drilled.outcome is Outcome.EQUAL


def test_small_files_take_whole_blocks(yard: Yard) -> None:
    yard.archive()
    yard.room.free = 10**8 + 7500 + 3 * 4096 - 1
    drilled = yard.of()
    assert drilled is not None and drilled.outcome is Outcome.NO_ROOM


def test_a_disk_that_others_fill_meanwhile(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy makes room: the disk may be that of an inbox."""
    monkeypatch.setattr(trial, "_LOOK_BYTES", 4000)
    yard.archive(instances=20)

    def fill() -> None:
        yard.room.free = 10**8 - 1

    yard.at_beat[8] = fill
    drilled = yard.of()
    assert drilled is not None and drilled.outcome is Outcome.NO_ROOM
    assert 0 < drilled.size_bytes < 50_000 and yard.left() == []


def test_on_the_disk_of_an_inbox_a_copy_is_no_reason_to_delete_early() -> None:
    def share(**of_inbox: object) -> float:
        return plan_of(
            parse(
                {
                    "archive": {
                        "store": {"kind": "directory", "path": "/srv/archive"},
                        "catalogue": {"kind": "sqlite", "path": "/srv/archive/catalogue.db"},
                    },
                    "inboxes": [{"name": "ct1", "path": "/srv/ct1", **of_inbox}],
                    "receivers": [{"name": "r", "ae_title": "A", "inbox": "ct1", "disk_free_min": "20%"}],
                }
            )
        ).free_share

    assert share() == 0.2
    assert share(after_archive={"delete_after": "7d", "disk_free_min": "25%", "disk_free_goal": "40%"}) == 0.4


# --- whoever has asked


def test_a_drill_that_nobody_waits_for_any_more(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the midst of a large study: no more of it is fetched, and what waits for its turn does not begin."""
    yard.archive(instances=50)
    monkeypatch.setattr(yard.drills, "_runs", True)
    wanted, next_one = yard.drills.want(STUDY), yard.drills.want(STUDY)
    yard.drills.give_up(next_one)
    beats: list[int] = []

    def beat() -> None:
        beats.append(1)
        if len(beats) == 9:
            yard.drills.give_up(wanted)

    yard.drills._beat = beat
    yard.drills.step()
    assert wanted.done.is_set() and yard.outcomes() == ["not-done"]
    assert 0 < counted(yard) < 50 * 2500 and yard.left() == []
    yard.drills.step()
    assert yard.outcomes() == ["not-done"] and not next_one.done.is_set()


def test_copies_have_no_names_of_patients(yard: Yard) -> None:
    """What a kill leaves is named by UIDs alone, in a folder of the daemon's own."""
    yard.archive()
    seen: list[str] = []
    yard.at_beat[6] = lambda: seen.extend(str(path) for path in (yard.root / NAME).rglob("*"))
    yard.of()
    assert seen and "CANARY" not in "".join(seen)


def test_the_schema_knows_what_is_counted(yard: Yard) -> None:
    yard.bench.queue.drills.record(Drilled("1.2.1", Outcome.FAILED, trial.DIFFERS, 1, 3, 2))
    schema = schemas.schema("status")["properties"]["restore_drill"]
    assert set(yard.document()) == set(schema["required"])
