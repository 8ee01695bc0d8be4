"""Quiet timers over one and two sources, what the intake adds and forgets, and clocks that are set back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.model import FileState, StudyState
from dicomwatchd.queue.rows import Arrival, Source
from tests.unit.queues import STUDY, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.queue.close()


@pytest.fixture
def second(bench: Bench) -> Source:
    return bench.queue.arrivals.add_source("ct2", b"/other", "inbox")


def quiet(bench: Bench, source: Source, looked_at: float | None = None) -> list[str]:
    nearly = list(bench.queue.quiet.nearly_quiet(source.source_id))
    bench.queue.quiet.confirm_quiet(source.source_id, nearly, looked_at or bench.clock.now())
    return nearly


# -- one source -----------------------------------------------------------------------------------------------------


def test_a_study_is_queued_once_it_was_quiet_for_its_time(bench: Bench) -> None:
    bench.add("IM1", quiet_seconds=60)
    assert bench.queue.quiet.next_quiet_at(bench.source.source_id) == bench.clock.now() + 60
    bench.clock.seconds += 59
    assert quiet(bench, bench.source) == []
    assert bench.state() is StudyState.ARRIVING
    bench.clock.seconds += 1
    assert bench.queue.quiet.nearly_quiet(bench.source.source_id) == {STUDY: [b"A"]}
    quiet(bench, bench.source)
    assert bench.state() is StudyState.QUEUED


def test_a_look_that_began_before_the_time_was_over_says_nothing(bench: Bench) -> None:
    bench.add("IM1", quiet_seconds=60)
    began = bench.clock.now() + 59
    bench.clock.seconds += 61
    quiet(bench, bench.source, looked_at=began)
    assert bench.state() is StudyState.ARRIVING


def test_a_late_file_starts_the_time_anew(bench: Bench) -> None:
    bench.add("IM1", quiet_seconds=60)
    bench.clock.seconds += 50
    bench.add("IM2", quiet_seconds=60)
    bench.clock.seconds += 50
    assert quiet(bench, bench.source) == []
    bench.clock.seconds += 10
    assert quiet(bench, bench.source) == [STUDY]


def test_postponed(bench: Bench) -> None:
    bench.add("IM1", quiet_seconds=60)
    bench.clock.seconds += 60
    bench.queue.quiet.postpone(bench.source.source_id, [STUDY], 10)
    assert quiet(bench, bench.source) == []
    bench.clock.seconds += 10
    assert quiet(bench, bench.source) == [STUDY]


@pytest.mark.parametrize("state", [StudyState.QUEUED, StudyState.UPLOADING, StudyState.PARKED, StudyState.ARCHIVED])
def test_a_new_file_brings_a_study_back_to_arriving(bench: Bench, state: StudyState) -> None:
    bench.add("IM1")
    bench.wait_until_quiet()
    bench.run("UPDATE studies SET state = ?", state)
    bench.add("IM2")
    assert bench.state() is StudyState.ARRIVING
    bench.wait_until_quiet()
    assert bench.state() is StudyState.QUEUED


def test_a_directory_is_known_when_nothing_in_it_calls_for_a_second_thought(bench: Bench) -> None:
    arrivals, source_id = bench.queue.arrivals, bench.source.source_id

    def is_known(files: dict[bytes, str]) -> bool:
        return arrivals.is_known(source_id, b"A", files, ("barred",))

    assert is_known({})
    bench.add("IM1", "IM2")
    files = {name: known.identity for name, known in arrivals.known(source_id, b"A").items()}
    assert is_known(files)
    assert not is_known(files | {b"IM1": "1:2:3:4:5"}), "changed"
    assert not is_known(files | {b"IM3": "1:2:3:4:5"}), "new"
    assert not is_known({b"IM1": files[b"IM1"]}), "gone"
    assert not is_known({}), "all gone"
    bench.queue.arrivals.add(
        source_id, [Arrival(b"A", b"IM3", bench.identity(), FileState.QUARANTINED, code="barred", reason="x")], 0
    )
    barred = files | {b"IM3": arrivals.known(source_id, b"A")[b"IM3"].identity}
    assert not is_known(barred), "the daemon may be let in by now"
    assert not is_known(files), "it is gone"
    bench.run("UPDATE files SET code = 'truncated' WHERE name = ?", b"IM3")
    assert is_known(barred), "it is junk, and stays so until it changes"


def test_a_study_whose_files_are_gone_is_forgotten(bench: Bench) -> None:
    bench.add("IM1", "IM2")
    bench.queue.arrivals.forget([row[0] for row in bench.rows("SELECT file_id FROM files")])
    bench.wait_until_quiet()
    assert bench.state() is None
    assert bench.rows("SELECT * FROM arrivals") == []


def test_an_archived_study_whose_new_file_is_gone_is_archived_again(bench: Bench) -> None:
    claim = bench.claimed()
    bench.queue.deletions.purged(STUDY, bench.authorise(claim), [], [])
    bench.finish(claim)
    bench.add("IM2")
    bench.queue.arrivals.forget([row[0] for row in bench.rows("SELECT file_id FROM files")])
    bench.wait_until_quiet()
    assert bench.state() is StudyState.ARCHIVED
    assert bench.queue.reports.unfinished()["moving"] == 0


def test_a_file_that_went_to_another_study(bench: Bench) -> None:
    bench.add("IM1", study="1.2.1")
    bench.add("IM1", study="1.2.2")
    bench.wait_until_quiet("1.2.2")
    bench.wait_until_quiet("1.2.1")
    assert bench.state("1.2.1") is None
    assert bench.state("1.2.2") is StudyState.QUEUED


def test_a_file_that_became_junk(bench: Bench) -> None:
    bench.add("IM1", "IM2")
    junk = Arrival(b"A", b"IM1", bench.identity(), FileState.QUARANTINED, code="truncated", reason="cut")
    bench.queue.arrivals.add(bench.source.source_id, [junk], 60)
    bench.wait_until_quiet()
    claim = bench.claim()
    assert [file.name for file in bench.files(claim)] == [b"IM2"]
    assert [row["code"] for row in bench.queue.reports.quarantine(10)] == ["truncated"]


def test_a_second_patient_id_is_said(bench: Bench) -> None:
    arrivals = [bench.arrival("IM1", patient="P1"), bench.arrival("IM2", patient="P2")]
    bench.queue.arrivals.add(bench.source.source_id, arrivals, 60)
    bench.wait_until_quiet()
    facts = bench.queue.shipments.facts(bench.claim())
    assert facts.flags == ("patient-id-differs",)
    assert facts.attributes == {"00100020": {"vr": "LO", "Value": ["P1"]}}


def test_the_attributes_of_a_series_are_known_once_it_was_added(bench: Bench) -> None:
    assert not bench.queue.arrivals.on_record(STUDY, f"{STUDY}.1", "", "")
    bench.add("IM1")
    assert bench.queue.arrivals.on_record(STUDY, f"{STUDY}.1", "", "")
    bench.queue.arrivals.forget([row[0] for row in bench.rows("SELECT file_id FROM files")])
    bench.wait_until_quiet()
    # The study was forgotten, and its attributes with it.
    assert not bench.queue.arrivals.on_record(STUDY, f"{STUDY}.1", "", "")


# -- two sources ----------------------------------------------------------------------------------------------------


def test_a_study_is_quiet_when_both_sources_say_so(bench: Bench, second: Source) -> None:
    bench.add("IM1")
    bench.add("IM2", source=second)
    bench.clock.seconds += 60
    quiet(bench, bench.source)
    assert bench.state() is StudyState.ARRIVING
    quiet(bench, second)
    assert bench.state() is StudyState.QUEUED


def test_a_file_at_one_source_restarts_the_time_at_both(bench: Bench, second: Source) -> None:
    bench.add("IM1")
    bench.add("IM2", source=second)
    bench.clock.seconds += 60
    quiet(bench, bench.source)
    bench.add("IM3", source=second)
    quiet(bench, second)
    assert quiet(bench, bench.source) == []
    bench.clock.seconds += 60
    quiet(bench, second)
    assert bench.state() is StudyState.ARRIVING  # the first source was not looked at since
    quiet(bench, bench.source)
    assert bench.state() is StudyState.QUEUED


def test_the_longer_time_of_two_sources_counts(bench: Bench, second: Source) -> None:
    bench.add("IM1", quiet_seconds=100)
    bench.add("IM2", source=second, quiet_seconds=10)
    bench.clock.seconds += 99
    assert quiet(bench, bench.source) == []
    quiet(bench, second)
    assert bench.state() is StudyState.ARRIVING
    bench.clock.seconds += 1
    quiet(bench, bench.source)
    quiet(bench, second)
    assert bench.state() is StudyState.QUEUED


def test_a_source_that_nobody_looks_at_any_more_holds_nothing_up(bench: Bench, second: Source) -> None:
    bench.add("IM1")
    bench.add("IM2", source=second)
    bench.clock.seconds += 60
    quiet(bench, bench.source)
    bench.queue.quiet.retire([bench.source.source_id])
    assert bench.state() is StudyState.QUEUED


def test_a_source_that_nobody_looks_at_holds_nothing_up_whatever_comes_elsewhere(bench: Bench, second: Source) -> None:
    """A file in the one inbox restarts the study's timers in both: in the other there is nobody to see them run out."""
    bench.add("IM1")
    bench.add("IM2", source=second)
    bench.queue.quiet.retire([bench.source.source_id])
    bench.add("IM3")
    bench.clock.seconds += 60
    quiet(bench, bench.source)
    assert bench.state() is StudyState.ARRIVING
    bench.queue.quiet.retire([bench.source.source_id])
    assert bench.state() is StudyState.QUEUED


def test_a_source_that_has_moved_starts_anew(bench: Bench) -> None:
    bench.add("IM1")
    moved = bench.queue.arrivals.add_source("ct1", b"/elsewhere", "inbox")
    assert (moved.source_id, moved.path) == (bench.source.source_id, b"/elsewhere")
    assert bench.rows("SELECT * FROM files") == []


# -- clocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late_file", [False, True])
def test_a_clock_set_back_makes_the_time_run_anew_and_no_longer(bench: Bench, late_file: bool) -> None:
    bench.add("IM1", quiet_seconds=60)
    bench.clock.seconds -= 86400
    if late_file:
        bench.add("IM2", quiet_seconds=60)
    due = bench.queue.quiet.next_quiet_at(bench.source.source_id)
    assert due is not None
    assert due <= bench.clock.now() + 60
    quiet(bench, bench.source)
    assert bench.state() is StudyState.ARRIVING
    bench.clock.seconds += 60
    quiet(bench, bench.source)
    assert bench.state() is StudyState.QUEUED


def test_a_clock_set_back_between_two_postponements(bench: Bench) -> None:
    bench.add("IM1", quiet_seconds=60)
    bench.queue.quiet.postpone(bench.source.source_id, [STUDY], 100)
    bench.clock.seconds -= 86400
    bench.queue.quiet.postpone(bench.source.source_id, [STUDY], 10)
    bench.clock.seconds += 101
    assert quiet(bench, bench.source) == [STUDY]


def test_a_clock_corrected_by_a_moment_changes_nothing(bench: Bench) -> None:
    bench.add("IM1", quiet_seconds=60)
    due = bench.queue.quiet.next_quiet_at(bench.source.source_id)
    bench.clock.seconds -= 0.5
    bench.queue.quiet.nearly_quiet(bench.source.source_id)
    assert bench.queue.quiet.next_quiet_at(bench.source.source_id) == due
