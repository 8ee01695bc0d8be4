"""Opening the state: who may, what it refuses, and what a full or damaged disk does to it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dicomwatchd.errors import DicomwatchdError, Fatal, Stopping, Transient
from dicomwatchd.model import StudyEvent, StudyState
from dicomwatchd.queue import known_archive_id, open_queue, open_queue_to_read
from dicomwatchd.queue.database.schema import DATABASE, VERSION, Database, open_writer
from dicomwatchd.queue.database.steps import STEPS, Step
from dicomwatchd.queue.rows import Root, Transition
from tests.unit.queues import STUDY, Bench, StandingClock

COLOUR = Step("files have a colour", "ALTER TABLE files ADD COLUMN colour TEXT;")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.queue.close()


def refused(directory: Path) -> DicomwatchdError:
    with pytest.raises(DicomwatchdError) as caught:
        open_queue(directory, StandingClock(), lambda _: None).close()
    assert str(directory) not in str(caught.value)
    return caught.value


# -- who may --------------------------------------------------------------------------------------------------------


def test_a_second_daemon_is_refused(bench: Bench) -> None:
    error = refused(bench.directory)
    assert isinstance(error, Fatal)
    assert error.code == "state-locked"
    bench.add("IM1")  # the first one goes on


def test_a_second_daemon_in_another_process_is_refused(bench: Bench) -> None:
    program = (
        "import sys; from pathlib import Path; from dicomwatchd.queue.database.schema import open_writer\n"
        "from dicomwatchd.errors import Fatal\n"
        "try: open_writer(Path(sys.argv[1]))\n"
        "except Fatal as error: print(error.code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, bench.directory], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "state-locked\n"


def test_the_place_is_free_once_the_first_has_closed(bench: Bench) -> None:
    bench.reopen()
    bench.add("IM1")


def test_a_refused_opening_holds_no_lock(bench: Bench) -> None:
    bench.run(f"PRAGMA user_version = {VERSION + 1}")
    bench.queue.close()
    assert refused(bench.directory).code == "state-newer"
    assert refused(bench.directory).code == "state-newer"


def test_it_is_for_the_daemon_alone(bench: Bench) -> None:
    for path in bench.directory.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name


# -- the version gate -----------------------------------------------------------------------------------------------


def test_a_new_state_has_the_version(bench: Bench) -> None:
    assert bench.rows("PRAGMA user_version")[0][0] == VERSION
    assert bench.rows("PRAGMA journal_mode")[0][0] == "wal"
    assert bench.rows("PRAGMA synchronous")[0][0] == 2  # FULL


def test_a_newer_programs_state_is_left_alone(bench: Bench) -> None:
    bench.add("IM1")
    bench.run(f"PRAGMA user_version = {VERSION + 1}")
    bench.queue.close()
    before = (bench.directory / DATABASE).read_bytes()
    error = refused(bench.directory)
    assert isinstance(error, Fatal)
    assert (bench.directory / DATABASE).read_bytes() == before
    with pytest.raises(Fatal):
        open_queue_to_read(bench.directory, bench.clock)


def test_a_start_that_was_killed_before_the_tables_were_made(tmp_path: Path) -> None:
    (tmp_path / DATABASE).touch()
    assert open_queue_to_read(tmp_path, StandingClock()) is None
    bench = Bench(tmp_path)
    bench.add("IM1")
    bench.queue.close()


def test_tables_are_made_at_once_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(Fatal):
        open_writer(tmp_path, [Step("nonsense", STEPS[0].sql + "CREATE TABLE nonsense (;")])
    bench = Bench(tmp_path)
    bench.add("IM1")
    bench.queue.close()


def test_an_older_state_is_brought_up_to_date_and_loses_nothing(bench: Bench) -> None:
    bench.add("IM1")
    before = [tuple(row) for row in bench.rows("SELECT * FROM files")]
    bench.queue.close()
    later = [*STEPS, COLOUR, Step("all are grey", "UPDATE files SET colour = 'grey';")]
    database = open_writer(bench.directory, later)
    with database.read() as db:
        found = [tuple(row) for row in db.execute("SELECT * FROM files")]
        version = db.execute("PRAGMA user_version").fetchone()[0]
    database.close()
    assert (found, version) == ([(*row, "grey") for row in before], len(later))
    assert refused(bench.directory).code == "state-newer", "an older program leaves it alone"


def test_a_step_that_fails_leaves_the_state_at_the_last_one_that_did_not(bench: Bench) -> None:
    bench.add("IM1")
    bench.queue.close()
    with pytest.raises(Fatal):
        open_writer(
            bench.directory,
            [*STEPS, COLOUR, Step("nonsense", "DELETE FROM files; CREATE TABLE nonsense (;")],
        )
    database = open_writer(bench.directory, [*STEPS, COLOUR])
    with database.read() as db:
        assert db.execute("SELECT COUNT(*), COUNT(colour) FROM files").fetchone()[:] == (1, 0)
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(STEPS) + 1
    database.close()


# -- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_something_else_in_its_place(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DATABASE).write_bytes(content)
    error = refused(tmp_path)
    assert isinstance(error, Fatal)
    assert error.code.startswith(("state-notadb", "state-corrupt"))
    assert "rebuilds" in str(error)
    assert (tmp_path / DATABASE).read_bytes() == content


@pytest.mark.parametrize("seed", range(6))
def test_pages_overwritten(bench: Bench, seed: int) -> None:
    """Told at the latest when the page is used; never an error of another kind, and the lock is given up."""
    bench.add(*(f"IM{number}" for number in range(200)))
    bench.queue.close()
    path = bench.directory / DATABASE
    data = bytearray(path.read_bytes())
    for page in range(1 + seed, len(data) // 4096, 6):
        data[page * 4096 : (page + 1) * 4096] = os.urandom(4096)
    path.write_bytes(data)
    try:
        bench.queue = open_queue(bench.directory, bench.clock, lambda _: None)
    except Fatal:
        shutil.copy(path, path.with_suffix(".bad"))
        path.unlink()
        bench.queue = open_queue(bench.directory, bench.clock, lambda _: None)
        return
    with pytest.raises(Fatal) as caught:
        use_all(bench)
    assert caught.value.code.startswith("state-")


def use_all(bench: Bench) -> None:
    for table in ("files", "studies", "series", "arrivals", "transitions", "meta", "sources", "audit", "shipments"):
        bench.rows(f"SELECT * FROM {table}")
    bench.add("IM1", "IM2")
    bench.wait_until_quiet()


def test_the_directory_is_gone(tmp_path: Path) -> None:
    assert isinstance(refused(tmp_path / "nowhere"), Fatal)


def test_a_directory_in_the_databases_place(tmp_path: Path) -> None:
    (tmp_path / DATABASE).mkdir()
    assert isinstance(refused(tmp_path), Fatal)


# -- a full disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1024k", "none", path], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def fill(directory: Path) -> Path:
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


def add_many(bench: Bench) -> None:
    for number in range(2000):
        bench.add(f"MORE{number}")


def test_a_full_disk_is_transient_and_heals(small_disk: Path) -> None:
    bench = Bench(small_disk)
    bench.add("IM1")
    filler = fill(small_disk)
    with pytest.raises(Transient) as caught:
        add_many(bench)
    assert (caught.value.code, caught.value.endpoint) == ("state-full", "state")
    for _ in range(3):  # and stays so
        with pytest.raises(Transient):
            add_many(bench)
    known = {row[0] for row in bench.rows("SELECT name FROM files")}
    assert b"IM1" in known
    filler.unlink()
    bench.add("LATER")
    bench.wait_until_quiet()
    assert {file.name for file in bench.files(bench.claim())} == known | {b"LATER"}
    assert bench.rows("PRAGMA integrity_check")[0][0] == "ok"
    bench.queue.close()


def test_a_start_on_a_full_disk_is_transient(small_disk: Path) -> None:
    filler = fill(small_disk)
    error = refused(small_disk)
    assert isinstance(error, Transient)
    filler.unlink()
    bench = Bench(small_disk)
    bench.add("IM1")
    bench.queue.close()


def test_a_database_that_may_not_grow(bench: Bench) -> None:
    """SQLITE_FULL ends the transaction by itself, which must not turn into another error."""
    bench.rows("PRAGMA max_page_count = 30")
    with pytest.raises(Transient) as caught:
        bench.add(*(f"IM{number}" for number in range(1000)))
    assert caught.value.code == "state-full"
    assert bench.rows("SELECT COUNT(*) FROM files")[0][0] == 0
    bench.add("IM1")
    assert bench.rows("SELECT COUNT(*) FROM files")[0][0] == 1


class _Commits:
    """A connection whose next COMMIT fails, as it does on a disk that is full or broken."""

    def __init__(self, connection: sqlite3.Connection, error: sqlite3.Error) -> None:
        self._connection, self._error = connection, error
        self.armed = True

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def execute(self, sql: str, *arguments: object) -> sqlite3.Cursor:
        if sql == "COMMIT" and self.armed:
            self.armed = False
            raise self._error
        return self._connection.execute(sql, *arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "kind"), [("SQLITE_FULL", Transient), ("SQLITE_BUSY", Transient), ("SQLITE_IOERR_WRITE", Fatal)]
)
def test_a_commit_that_fails_leaves_nothing_open(
    bench: Bench, name: str, kind: type[DicomwatchdError], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = sqlite3.OperationalError("no")
    error.sqlite_errorname = name
    database: Database = bench.queue._database
    monkeypatch.setattr(database, "_connection", _Commits(database._connection, error))
    with pytest.raises(kind):
        bench.add("IM1")
    assert bench.rows("SELECT COUNT(*) FROM files")[0][0] == 0
    bench.add("IM2")
    assert bench.rows("SELECT name FROM files")[0][0] == b"IM2"


def test_a_transition_is_announced_once_it_is_durable(tmp_path: Path) -> None:
    """To somebody who may use the state himself."""
    seen: list[tuple[Transition, str]] = []

    place = Bench(tmp_path)

    def announced(transition: Transition) -> None:
        with closing(sqlite3.connect(tmp_path / DATABASE)) as other:
            seen.append((transition, other.execute("SELECT state FROM studies").fetchone()[0]))
        place.queue.roots.see(place.source.source_id, Root(1, len(seen), ""))

    place.queue.close()
    place.queue = open_queue(tmp_path, place.clock, announced)
    place.claimed()
    place.queue.close()
    assert [(move.event, move.new, state) for move, state in seen] == [
        (StudyEvent.QUIET, StudyState.QUEUED, "queued"),
        (StudyEvent.CLAIMED, StudyState.UPLOADING, "uploading"),
    ]


def test_what_is_taken_back_is_not_announced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.add("IM1")
    error = sqlite3.OperationalError("no")
    error.sqlite_errorname = "SQLITE_FULL"
    database: Database = bench.queue._database
    monkeypatch.setattr(database, "_connection", commits := _Commits(database._connection, error))
    commits.armed = False
    bench.clock.seconds += 60
    bench.queue.quiet.nearly_quiet(bench.source.source_id)
    commits.armed = True
    with pytest.raises(Transient):
        bench.queue.quiet.confirm_quiet(bench.source.source_id, [STUDY], bench.clock.now())
    assert bench.moves == [] and bench.state() == "arriving"
    bench.queue.quiet.confirm_quiet(bench.source.source_id, [STUDY], bench.clock.now())
    assert [move.event for move in bench.moves] == [StudyEvent.QUIET]


def test_a_change_that_leaves_a_study_as_it_is_is_not_announced(bench: Bench) -> None:
    bench.add("IM1")
    bench.add("IM2")
    assert bench.moves == []
    bench.wait_until_quiet()
    assert bench.queue.claims.retry(STUDY), "it is queued, and put first"
    assert [(move.event, move.new) for move in bench.moves] == [
        (StudyEvent.QUIET, StudyState.QUEUED),
        (StudyEvent.RETRY, StudyState.QUEUED),
    ]


def test_an_exception_in_a_transaction_takes_it_back(bench: Bench) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(bench)
    assert bench.rows("SELECT * FROM meta WHERE key = 'a'") == []
    bench.add("IM1")


def interrupted(bench: Bench) -> None:
    with bench.queue._database.write() as db:
        db.execute("INSERT INTO meta VALUES ('a', 'b')")
        raise KeyboardInterrupt


# -- reading --------------------------------------------------------------------------------------------------------


def test_there_is_nothing_to_read(tmp_path: Path) -> None:
    assert open_queue_to_read(tmp_path, StandingClock()) is None
    assert known_archive_id(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_reading_beside_a_running_daemon(bench: Bench) -> None:
    bench.add("IM1")
    reader = open_queue_to_read(bench.directory, bench.clock)
    assert reader is not None
    bench.wait_until_quiet()
    assert reader.reports.status()["studies"] == {StudyState.QUEUED: 1}
    with pytest.raises(Fatal):
        reader.arrivals.scanned(1)
    reader.close()
    assert bench.state() is StudyState.QUEUED


def test_reading_after_the_daemon_has_stopped(bench: Bench) -> None:
    bench.queue.binding.bind("archive-1", "place")
    bench.claimed()
    bench.queue.close()
    before = {path.name: path.read_bytes() for path in bench.directory.iterdir()}
    reader = open_queue_to_read(bench.directory, bench.clock)
    assert reader is not None
    assert reader.reports.show(STUDY) is not None
    reader.close()
    assert known_archive_id(bench.directory) == "archive-1"
    assert (bench.directory / DATABASE).read_bytes() == before[DATABASE]
    bench.queue = open_queue(bench.directory, bench.clock, lambda _: None)


# -- what the state is bound to -------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [("archive-2", "place"), ("archive-1", "elsewhere")])
def test_another_destination_makes_all_receipts_worthless(bench: Bench, changed: tuple[str, str]) -> None:
    assert not bench.queue.binding.bind("archive-1", "place")
    claim = bench.claimed("IM1", "IM2")
    bench.record(claim)
    bench.reopen()
    assert bench.queue.binding.bind(*changed)
    bench.queue.claims.recover()
    again = bench.claim()
    files = bench.files(again)
    assert [file.name for file in files] == [b"IM1", b"IM2"]
    assert {(file.receipt, file.verified_by) for file in files} == {(None, None)}


def test_the_same_destination_keeps_what_was_sent(bench: Bench) -> None:
    bench.queue.binding.bind("archive-1", "place")
    bench.record(bench.claimed())
    bench.reopen()
    assert not bench.queue.binding.bind("archive-1", "place")
    bench.queue.claims.recover()
    assert bench.files(bench.claim()) == []


# -- kept files, and another destination ----------------------------------------------------------------------------


def keep_all(bench: Bench, *names: str, due_at: float | None = None) -> None:
    claim = bench.claimed(*names)
    bench.queue.deletions.keep(claim, bench.record(claim), due_at)
    bench.finish(claim)


@pytest.mark.parametrize("changed", [("archive-2", "place"), ("archive-1", "elsewhere")])
def test_kept_files_are_sent_to_another_destination(bench: Bench, changed: tuple[str, str]) -> None:
    bench.queue.binding.bind("archive-1", "place")
    keep_all(bench, "IM1", "IM2")
    assert bench.queue.binding.send_kept_again([bench.source.source_id]) == (0, 0), "they are where they should be"
    bench.reopen()
    bench.queue.binding.bind(*changed)
    bench.queue.claims.recover()
    assert bench.queue.binding.send_kept_again([bench.source.source_id]) == (2, 1)
    assert bench.state() is StudyState.ARRIVING
    bench.wait_until_quiet()
    files = bench.files(bench.claim())
    assert [(file.name, file.receipt, file.verified_by) for file in files] == [
        (b"IM1", None, None),
        (b"IM2", None, None),
    ]


def test_a_kept_file_does_not_fall_due_on_the_old_word(bench: Bench) -> None:
    """Neither before it was sent to the new place, nor while nobody looks at its source."""
    bench.queue.binding.bind("archive-1", "place")
    keep_all(bench, "IM1", due_at=bench.clock.seconds + 100)
    bench.reopen()
    bench.queue.binding.bind("archive-1", "elsewhere")
    bench.queue.claims.recover()
    bench.clock.seconds += 1000
    assert bench.queue.claims.next_try_at() is None
    bench.queue.claims.queue_due()
    assert bench.state() is StudyState.ARCHIVED
    assert bench.queue.binding.send_kept_again([]) == (0, 0)
    assert bench.queue.reports.kept_elsewhere() == {"ct1": 1}
    bench.reopen()
    assert not bench.queue.binding.bind("archive-1", "elsewhere")
    assert bench.queue.binding.send_kept_again([bench.source.source_id]) == (1, 1), "its inbox is back"
    assert bench.queue.reports.kept_elsewhere() == {}
    bench.wait_until_quiet()
    [file] = bench.files(bench.claim())
    assert file.due_at is not None


def test_a_crash_between_binding_and_sending_again(bench: Bench) -> None:
    bench.queue.binding.bind("archive-1", "place")
    keep_all(bench, "IM1")
    bench.reopen()
    assert bench.queue.binding.bind("archive-1", "elsewhere")
    bench.reopen()
    assert not bench.queue.binding.bind("archive-1", "elsewhere")
    assert bench.queue.binding.send_kept_again([bench.source.source_id]) == (1, 1)


@pytest.mark.parametrize("parked", [True, False])
def test_kept_files_of_a_study_on_its_way_go_with_it(bench: Bench, parked: bool) -> None:
    """A parked study stays parked: its fault may be there at the new place too. `retry` sends all of it."""
    bench.queue.binding.bind("archive-1", "place")
    keep_all(bench, "IM1")
    claim = bench.claimed("IM2")
    if parked:
        bench.queue.claims.park(claim, code="refused", reason="refused")
    bench.reopen()
    bench.queue.binding.bind("archive-1", "elsewhere")
    bench.queue.claims.recover()
    assert bench.queue.binding.send_kept_again([bench.source.source_id]) == (1, 1)
    if parked:
        assert bench.state() is StudyState.PARKED
        assert bench.queue.claims.retry(STUDY)
    assert [file.name for file in bench.files(bench.claim())] == [b"IM1", b"IM2"]


def test_a_state_that_was_closed_stops_who_comes_late(tmp_path: Path) -> None:
    """A thread that was left at an inbox that does not answer, and wakes up after the daemon's stop: it drops its work,
    and reports no damage."""
    bench = Bench(tmp_path)
    bench.queue.close()
    with pytest.raises(Stopping):
        bench.queue.reports.status()
    with pytest.raises(Stopping):
        bench.add("IM1")
    bench.queue.close()
