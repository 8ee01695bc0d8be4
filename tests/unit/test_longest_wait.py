"""For how long the oldest study has had files that are not archived: from the first of them on, until they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.model import StudyState
from dicomwatchd.queue.database.schema import open_writer
from dicomwatchd.queue.database.steps import STEPS
from tests.unit.queues import STUDY, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.queue.close()


def waits(bench: Bench) -> tuple[float | None, float | None]:
    """(of a study on its way, of a parked one)"""
    status = bench.queue.reports.status()
    return status["oldest_unarchived_seconds"], status["oldest_parked_seconds"]


def test_from_its_first_file_on_to_its_end(bench: Bench) -> None:
    assert waits(bench) == (None, None)
    bench.add("IM1")
    bench.clock.seconds += 30
    bench.add("IM2")
    assert waits(bench) == (30, None)
    bench.wait_until_quiet()
    claim = bench.claim()
    files = bench.record(claim)
    assert waits(bench) == (90, None) and bench.state() is StudyState.PURGING
    bench.queue.deletions.keep(claim, files, bench.clock.now() + 100)
    bench.finish(claim)
    assert waits(bench) == (None, None)


def test_a_kept_file_that_falls_due_does_not_wait_and_a_new_one_does(bench: Bench) -> None:
    claim = bench.claimed("IM1")
    bench.queue.deletions.keep(claim, bench.record(claim), bench.clock.now() + 100)
    bench.finish(claim)
    bench.clock.seconds += 1000
    bench.queue.claims.queue_due()
    assert bench.state() is StudyState.QUEUED and waits(bench) == (None, None)
    bench.add("IM2")
    bench.clock.seconds += 7
    assert waits(bench) == (7, None)


def test_a_change_while_files_are_deleted_waits_from_then_on_at_the_latest(bench: Bench) -> None:
    claim = bench.claimed("IM1")
    bench.record(claim)
    bench.clock.seconds += 10
    bench.add("IM2")
    assert bench.state() is StudyState.PURGING
    bench.run("DELETE FROM files WHERE state = 'stored'")
    bench.finish(claim)
    bench.clock.seconds += 5
    assert bench.state() is StudyState.ARRIVING
    found, _ = waits(bench)
    assert found is not None and 5 <= found <= 15


def test_the_oldest_of_all_and_parked_ones_apart(bench: Bench) -> None:
    claim = bench.claimed("IM1")
    bench.add("IM2", study="1.2.3.4")
    bench.clock.seconds += 10
    bench.add("IM3", study="1.2.3.5")
    assert waits(bench) == (70, None)
    bench.queue.claims.park(claim, code="x", reason="x")
    assert waits(bench) == (10, 70)
    assert bench.queue.claims.retry(claim.study_uid)
    assert waits(bench) == (70, None)


def test_a_state_of_before_knows_it_as_well_as_it_can(tmp_path: Path) -> None:
    before = next(number for number, step in enumerate(STEPS) if "waits_since" in step.sql)
    database = open_writer(tmp_path, STEPS[:before])
    with database.write() as db:
        for uid, state, queued_at, changed_at in (
            (STUDY, "queued", 400.0, 900.0),
            ("1.2.4", "arriving", None, 700.0),
            ("1.2.5", "archived", 100.0, 100.0),
        ):
            db.execute(
                "INSERT INTO studies (study_uid, state, queued_at, changed_at) VALUES (?, ?, ?, ?)",
                (uid, state, queued_at, changed_at),
            )
    database.close()
    bench = Bench(tmp_path)
    known = {row["study_uid"]: row["waits_since"] for row in bench.rows("SELECT * FROM studies")}
    assert known == {STUDY: 400.0, "1.2.4": 700.0, "1.2.5": None}
    bench.queue.close()
