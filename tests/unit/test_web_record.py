"""The record of access: chained, searched, never cut, and nothing is handed out that it does not have."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from dicomwatchd.access.record import FILE_NAME, FIRST, AccessRecord, Wanted
from dicomwatchd.errors import StateFailed, StateUnavailable
from dicomwatchd.model import Uid
from dicomwatchd.web.audit import SAME_VIEW_SECONDS, RecordedAccess
from dicomwatchd.web.people import Person, Role
from tests.pieces import FakeClock

READER = Person("müller", frozenset({Role.READ}))
STUDY, OTHER = Uid("1.2.3"), Uid("1.2.4")


@pytest.fixture
def record(tmp_path: Path) -> AccessRecord:
    return AccessRecord(tmp_path, writing=True)


def change(folder: Path, sql: str) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME)) as db, db:
        assert db.execute(sql).rowcount > 0


def test_entries_are_found_by_whom_what_and_when(record: AccessRecord, tmp_path: Path) -> None:
    for number in range(5):
        record.append(100.0 + number, "a" if number % 2 else "b", "frames", STUDY if number < 3 else OTHER)
    assert [one.sequence for one in record.search(Wanted())] == [5, 4, 3, 2, 1]
    assert [one.sequence for one in record.search(Wanted(person="a"))] == [4, 2]
    assert [one.sequence for one in record.search(Wanted(study_uid=OTHER))] == [5, 4]
    assert [one.sequence for one in record.search(Wanted(since=101.0, before=103.0))] == [3, 2]
    assert [one.sequence for one in record.search(Wanted(), before_sequence=3, limit=1)] == [2]
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_the_chain_goes_on_after_a_restart(record: AccessRecord, tmp_path: Path) -> None:
    record.append(1.0, "a", "page", STUDY)
    record.close()
    again = AccessRecord(tmp_path, writing=True)
    again.append(2.0, "a", "page", OTHER)
    checked = again.check()
    assert (checked.broken_at, checked.entries) == (None, 2)
    assert again.head() == (2, checked.head) and checked.head != FIRST


@pytest.mark.parametrize(
    ("sql", "broken_at"),
    [
        ("UPDATE access SET person = 'x' WHERE sequence = 2", 2),
        ("UPDATE access SET at = 7 WHERE sequence = 2", 2),
        ("UPDATE access SET study_uid = '1.9' WHERE sequence = 3", 3),
        ("UPDATE access SET action = 'x' WHERE sequence = 1", 1),
        ("UPDATE access SET entry = '{}' WHERE sequence = 3", 3),
        ("UPDATE access SET hash = 'x' WHERE sequence = 1", 1),
        ("DELETE FROM access WHERE sequence = 2", 2),
        ("DELETE FROM access WHERE sequence = 1", 1),
        ("UPDATE access SET sequence = 9 WHERE sequence = 3", 3),
    ],
)
def test_what_was_changed_is_found(record: AccessRecord, tmp_path: Path, sql: str, broken_at: int) -> None:
    for number in range(3):
        record.append(float(number), "a", "page", STUDY)
    change(tmp_path, sql)
    assert record.check().broken_at == broken_at


def test_a_rewritten_entry_does_not_fit_the_next(record: AccessRecord, tmp_path: Path) -> None:
    """Even with a hash that fits it."""
    for number in range(3):
        record.append(float(number), "a", "page", STUDY)
    folder = tmp_path / "other"
    folder.mkdir()
    forged = AccessRecord(folder, writing=True)
    for person in ("a", "x"):
        forged.append(float(person == "x"), person, "page", STUDY)
    with closing(sqlite3.connect(folder / FILE_NAME)) as db:
        person, entry, digest = db.execute("SELECT person, entry, hash FROM access WHERE sequence = 2").fetchone()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db, db:
        db.execute("UPDATE access SET person = ?, entry = ?, hash = ? WHERE sequence = 2", (person, entry, digest))
    assert record.check().broken_at == 3


def test_an_entry_is_written_in_one_way(record: AccessRecord, tmp_path: Path) -> None:
    """Else two texts with two hashes would say the same."""
    record.append(1.0, "a", "page", STUDY)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db, db:
        [entry] = db.execute("SELECT entry FROM access").fetchone()
        other = entry.replace(",", ", ")
        db.execute("UPDATE access SET entry = ?, hash = ?", (other, hashlib.sha256(other.encode()).hexdigest()))
    assert record.check().broken_at == 1


def test_an_entry_that_was_left_out_is_missed_where_the_hashes_fit(record: AccessRecord, tmp_path: Path) -> None:
    """Numbers alone tell of what was left out at the beginning by whoever makes the chain anew."""
    entry = {"sequence": 2, "previous": FIRST, "at": 1.0, "person": "a", "action": "page", "study_uid": STUDY}
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db, db:
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        db.execute("INSERT INTO access VALUES (2, 1.0, 'a', 'page', ?, ?, ?)", (STUDY, text, sha256))
    assert record.check().broken_at == 1


def test_what_is_appended_is_on_disk(record: AccessRecord) -> None:
    assert record._writer is not None
    assert record._writer.execute("PRAGMA synchronous").fetchone()[0] == 2, "FULL"


def test_many_threads_make_one_chain(record: AccessRecord) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: record.append(float(number), "a", "page", STUDY), range(40)))
    assert (record.check().broken_at, record.check().entries) == (None, 40)


def test_one_view_is_one_entry(record: AccessRecord) -> None:
    clock = FakeClock()
    audit = RecordedAccess(record, clock)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: audit.record(READER, "frames", STUDY), range(200)))
    audit.record(READER, "metadata", STUDY)
    audit.record(READER, "frames", OTHER)
    audit.record(Person("meier", READER.roles), "frames", STUDY)
    assert record.check().entries == 4
    clock.advance(SAME_VIEW_SECONDS + 1)
    audit.record(READER, "frames", STUDY)
    assert record.check().entries == 5


def test_what_is_not_remembered_any_more_is_another_view(record: AccessRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomwatchd.web.audit._MOST_VIEWS", 2)
    audit = RecordedAccess(record, FakeClock())
    for study in ("1.2.1", "1.2.2", "1.2.3", "1.2.3", "1.2.1"):
        audit.record(READER, "frames", Uid(study))
    assert [one.study_uid for one in record.search(Wanted())] == ["1.2.1", "1.2.3", "1.2.2", "1.2.1"]


def commits(folder: Path) -> int:
    """How often the file was changed, as it counts itself (sqlite.org/fileformat2.html, 1.3.7)."""
    return int.from_bytes((folder / FILE_NAME).read_bytes()[24:28])


def test_the_views_of_a_search_are_written_at_once(record: AccessRecord, tmp_path: Path) -> None:
    audit = RecordedAccess(record, FakeClock())
    audit.record(READER, "search", Uid("1.2.7"))
    before = commits(tmp_path)
    studies = [Uid(f"1.2.{number}") for number in range(500)]
    audit.record_each(READER, "search", [*studies, *studies])
    assert commits(tmp_path) == before + 1, "one transaction"
    found = record.search(Wanted())
    assert [one.study_uid for one in reversed(found)] == ["1.2.7", *(one for one in studies if one != "1.2.7")]
    assert (record.check().broken_at, record.check().entries) == (None, 500)
    audit.record_each(READER, "search", studies)
    audit.record_each(READER, "search", [])
    assert commits(tmp_path) == before + 1, "all of it is on record"
    audit.record(READER, "search", OTHER)
    audit.record(READER, "metadata", OTHER)
    assert (record.check().broken_at, record.check().entries) == (None, 501)


def test_of_several_views_all_are_on_record_or_none(record: AccessRecord, tmp_path: Path) -> None:
    audit, studies = RecordedAccess(record, FakeClock()), [Uid(f"1.2.{number}") for number in range(20)]
    audit.record(READER, "search", STUDY)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.executescript(
            "CREATE TRIGGER full BEFORE INSERT ON access WHEN NEW.study_uid = '1.2.17'"
            " BEGIN SELECT RAISE(ABORT, 'full'); END;"
        )
    for _ in range(2):
        with pytest.raises((StateFailed, StateUnavailable)):
            audit.record_each(READER, "search", studies)
        assert record.check().entries == 1
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.executescript("DROP TRIGGER full;")
    audit.record_each(READER, "search", studies)
    assert (record.check().broken_at, record.check().entries) == (None, 20)


def test_what_cannot_be_written_is_raised_and_asked_again(record: AccessRecord, tmp_path: Path) -> None:
    audit = RecordedAccess(record, FakeClock())
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.executescript("CREATE TRIGGER full BEFORE INSERT ON access BEGIN SELECT RAISE(ABORT, 'full'); END;")
    for _ in range(2):
        with pytest.raises((StateFailed, StateUnavailable)):
            audit.record(READER, "frames", STUDY)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.executescript("DROP TRIGGER full;")
    audit.record(READER, "frames", STUDY)
    assert record.check().entries == 1


def test_another_program_s_file_and_a_link_are_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.executescript("CREATE TABLE x (y); PRAGMA user_version = 1;")
    with pytest.raises(StateFailed):
        AccessRecord(tmp_path, writing=True)
    os.rename(tmp_path / FILE_NAME, tmp_path / "elsewhere")
    (tmp_path / FILE_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateUnavailable):
        AccessRecord(tmp_path, writing=True)


def test_a_newer_version_s_record_is_left_alone(record: AccessRecord, tmp_path: Path) -> None:
    record.close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(StateFailed):
        AccessRecord(tmp_path, writing=True)
    with pytest.raises(StateFailed):
        AccessRecord(tmp_path, writing=False).search(Wanted())


def test_where_there_is_no_record_a_reader_is_told(tmp_path: Path) -> None:
    with pytest.raises(StateUnavailable):
        AccessRecord(tmp_path, writing=False).search(Wanted())
    assert not list(tmp_path.iterdir())
