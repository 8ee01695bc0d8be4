"""A state that a released program has left is brought up to date, loses nothing, and goes on."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path

import pytest

from dicomwatchd.model import StudyState, Uid
from dicomwatchd.patients import Identity, Order, distinct
from dicomwatchd.queue import open_queue
from dicomwatchd.queue.database.schema import DATABASE, VERSION, open_writer
from dicomwatchd.queue.database.steps import STEPS
from dicomwatchd.queue.rows import Claim
from tests.pieces import FakeClock
from tests.unit.queues import Bench
from tests.unit.states import RELEASED, restore

#: The steps of released programs, by the SHA-256 of each: they are never changed.
OF_RELEASES = (
    "8e50fc0676626608f6119a6b6e6b4ec03960205eb04f0a449fbd64db5ce7a0f6",
    "288df3feaf0caadf59bcd25b1d0fdbca144e6c8c7d49fed40c65b3b6454408dc",
    "d538948bee3252449d5d45069d5bdbf3014940e918bde4632fed8ebc7282813e",
    "29587d816f3eabab4785f419d21c20f2da068d4e892aa3efa701b11241370574",
)
OLD = sorted(RELEASED)


def rows(directory: Path) -> dict[str, list[dict[str, object]]]:
    """Everything in the state, by table."""
    with sqlite3.connect(directory / DATABASE) as database:
        database.row_factory = sqlite3.Row
        names = [row["name"] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {name: [dict(row) for row in database.execute(f'SELECT * FROM "{name}"')] for name in sorted(names)}
    database.close()
    return found


def schema(directory: Path) -> set[tuple[str, ...]]:
    with sqlite3.connect(directory / DATABASE) as database:
        found = {tuple(row) for row in database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")}
    database.close()
    return found


def test_there_is_one_to_be_tried() -> None:
    assert OLD


def test_each_step_has_a_name_of_its_own() -> None:
    assert len({step.name for step in STEPS}) == len(STEPS) == VERSION


def test_released_steps_are_as_they_were() -> None:
    made = [hashlib.sha256(step.sql.encode()).hexdigest() for step in STEPS]
    assert tuple(made[: len(OF_RELEASES)]) == OF_RELEASES


@pytest.mark.parametrize("version", OLD)
def test_nothing_is_lost(version: int, tmp_path: Path) -> None:
    """Every table has its rows, and every row what it had; what was added to it is the new version's."""
    restore(version, tmp_path)
    before = rows(tmp_path)
    assert all(before[name] for name in before if name != "sqlite_sequence"), "every table has something in it"
    open_writer(tmp_path).close()
    after = rows(tmp_path)
    # What was deleted of a folder that was handed in is counted, file by file no more.
    results = before.pop("upload_results")
    deleted = [row for row in results if row["outcome"] == "deleted"]
    assert [row for row in results if row not in deleted + after["upload_results"]] == []
    assert sum(int(str(row["deleted_files"])) for row in after["uploads"]) >= len(deleted) > 0
    for table in ("files", "file_counts"):  # the state has another name since
        before[table] = [row | {"state": "deleting"} if row["state"] == "aside" else row for row in before[table]]
    for table, known in before.items():
        kept = [{name: row[name] for name in known[0]} for row in after[table]]
        assert [row for row in known if row not in kept] == [], table
        if table != "meta":
            assert len(kept) == len(known), table


@pytest.mark.parametrize("version", OLD)
def test_it_becomes_what_a_new_one_is(version: int, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    restore(version, tmp_path / "old")
    open_writer(tmp_path / "old").close()
    open_writer(tmp_path / "new").close()
    assert {(kind, name) for kind, name, *_ in schema(tmp_path / "old")} == {
        (kind, name) for kind, name, *_ in schema(tmp_path / "new")
    }


@pytest.mark.parametrize("version", OLD)
def test_a_start_killed_between_two_steps_goes_on(version: int, tmp_path: Path) -> None:
    for done in range(version, VERSION + 1):
        directory = tmp_path / str(done)
        directory.mkdir()
        restore(version, directory)
        open_writer(directory, STEPS[:done]).close()
        open_writer(directory).close()
        assert rows(directory) == rows(tmp_path / str(version))


@pytest.mark.parametrize("version", OLD)
def test_it_goes_on(version: int, tmp_path: Path) -> None:
    restore(version, tmp_path)
    bench = Bench(tmp_path)
    queue = bench.queue
    bench.clock.seconds += 3600
    assert queue.audit.broken_at() is None
    assert [staged.study_uid for staged in queue.deletions.pending()] == ["1.2.4"]
    queue.claims.recover()
    proofs = queue.audit.proofs("1.2.1")
    assert [file["outcome"] for file in proofs["files"]] == ["deleted", "deleted", "restored"]
    assert {bench.claim().study_uid, bench.claim().study_uid} == {"1.2.4", "1.2.6"}
    shown = queue.reports.show("1.2.3")
    assert shown is not None and (shown["state"], shown["code"]) == (StudyState.PARKED, "no-proof")
    assert queue.reports.status()["files"]["kept"] == 2
    bench._inode = 100
    claim = bench.claimed("LATER", study="1.2.7")
    queue.deletions.purged("1.2.7", bench.authorise(claim), [], [])
    bench.finish(claim)
    assert bench.state("1.2.7") is StudyState.ARCHIVED and queue.audit.broken_at() is None
    bench.queue.close()


def test_an_upload_that_is_being_cancelled_is_known_by_the_new_names(tmp_path: Path) -> None:
    """How far it had come is in the state as text, by the names that it was written with."""
    before = next(number for number, step in enumerate(STEPS) if "'deleting'" in step.sql)
    database = open_writer(tmp_path, STEPS[:before])
    far = {
        **dict.fromkeys(("files", "size_bytes", "verified", "verified_size_bytes", "deleted", "ignored"), 1),
        **dict.fromkeys(("waiting", "failed", "aside", "no_right"), 2),
        "named": [['an "aside": file', "why"]],
    }
    with database.write() as transaction:
        transaction.execute(
            "INSERT INTO uploads (source_id, name, path, delete_local, started_at, stage, deleted_files, result)"
            " VALUES (7, 'upload-7', X'2F61', 1, 1800000000.0, 'cancelling', 1, ?)",
            (json.dumps(far),),
        )
    database.close()
    queue = open_queue(tmp_path, FakeClock(), lambda *_: None)
    try:
        assert queue.uploads.progress(7).deleting == 2
        assert queue.uploads.failed(7, 10) == [(b'an "aside": file', "why")]
    finally:
        queue.close()


@pytest.mark.parametrize("version", OLD)
def test_whom_the_first_file_named_is_still_known(version: int, tmp_path: Path) -> None:
    restore(version, tmp_path)
    queue = open_queue(tmp_path, FakeClock(), lambda _: None)
    with queue._database.read() as db:
        studies = db.execute("SELECT study_uid, attributes FROM studies WHERE attributes != '{}'").fetchall()
    assert studies
    for row in studies:
        attributes = json.loads(row["attributes"])
        facts = queue.shipments.facts(Claim(Uid(row["study_uid"]), 1, 0, 0))
        assert facts.identities == distinct([Identity.of(attributes)])
        assert facts.orders == distinct([Order.of(attributes)])
    queue.close()
