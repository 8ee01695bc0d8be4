"""The SQLite catalogue's file: absent, foreign, damaged, locked, full, or left behind by a killed process."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dicomwatchd.archive.catalogues.port import OLD_RECORDS
from dicomwatchd.archive.catalogues.sqlite import catalogue as catalogue_module
from dicomwatchd.archive.catalogues.sqlite import search_tables
from dicomwatchd.archive.catalogues.sqlite.catalogue import SCHEMA_VERSION, SqliteCatalogue
from dicomwatchd.archive.documents import study_document
from dicomwatchd.archive.records import Query, StudyRecord
from dicomwatchd.config.archive import SqliteSettings
from dicomwatchd.errors import ArchiveRefused, DicomwatchdError, NotInitialised, NotThere, OutOfReach, Permanent
from dicomwatchd.model import Uid
from dicomwatchd.patients import Identity

STUDY = Uid("1.2.840.1")


def record(revision: int = 1, uid: str = STUDY, padding: int = 0) -> StudyRecord:
    return StudyRecord(
        study_uid=Uid(uid),
        revision=revision,
        manifest_key=f"studies/{uid}/manifests/{revision:08d}.json",
        manifest_sha256=f"{revision:064x}",
        archived_at="2024-11-07T10:00:00Z",
        instances=0,
        size_bytes=0,
        patient_id="CANARY-ID",
        accession_number="",
        study_date="",
        modalities=(),
        flags=(),
        attributes={"00104000": {"vr": "LT", "Value": ["x" * padding]}},
        series=(),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "CANARY^share" / "catalogue.db"


@pytest.fixture
def catalogue(path: Path) -> SqliteCatalogue:
    """Not made yet."""
    return SqliteCatalogue(SqliteSettings(kind="sqlite", path=path), busy_seconds=0.05)


@pytest.fixture
def made(catalogue: SqliteCatalogue) -> SqliteCatalogue:
    catalogue.initialise("archive-1")
    catalogue.put(record())
    return catalogue


def operations(catalogue: SqliteCatalogue) -> dict[str, Callable[[], object]]:
    return {
        "check": catalogue.check,
        "identity": catalogue.identity,
        "get": lambda: catalogue.get(STUDY),
        "put": lambda: catalogue.put(record(7)),
        "search": lambda: list(catalogue.search(Query())),
        "study_uids": lambda: list(catalogue.study_uids()),
    }


def refusals(catalogue: SqliteCatalogue, *, but: tuple[str, ...] = ()) -> set[type[DicomwatchdError]]:
    """The kinds of error that all operations raise, none with a path or a patient in it."""
    kinds = set()
    for name, operation in operations(catalogue).items():
        if name in but:
            continue
        with pytest.raises(DicomwatchdError) as caught:
            operation()
        assert "CANARY" not in str(caught.value)
        kinds.add(type(caught.value))
    return kinds


def test_an_absent_file_is_never_made_by_using_it(catalogue: SqliteCatalogue, path: Path) -> None:
    assert refusals(catalogue) == {NotInitialised, NotThere}
    assert not path.parent.exists()
    path.parent.mkdir()
    assert refusals(catalogue) == {NotInitialised, NotThere}
    assert list(path.parent.iterdir()) == []


def test_an_empty_file_is_no_catalogue_and_stays_empty(catalogue: SqliteCatalogue, path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    assert refusals(catalogue) == {NotInitialised}
    assert path.read_bytes() == b""
    catalogue.initialise("archive-1")  # what a crash in the middle of it leaves
    catalogue.check()


def test_only_owner_and_group_may_read_it(made: SqliteCatalogue, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) & 0o137 == 0
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o027 == 0


def test_no_journal_and_no_shared_memory_stay_behind(made: SqliteCatalogue, path: Path) -> None:
    for operation in operations(made).values():
        operation()
    assert [entry.name for entry in path.parent.iterdir()] == ["catalogue.db"]


def test_garbage_is_refused_and_not_touched(catalogue: SqliteCatalogue, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database at all " * 1000)
    assert refusals(catalogue) == {ArchiveRefused}
    with pytest.raises(ArchiveRefused) as caught:
        catalogue.initialise("archive-1")
    assert "catalogue rebuild" in str(caught.value)
    assert path.read_bytes() == b"not a database at all " * 1000


def test_a_damaged_page_is_refused(made: SqliteCatalogue, path: Path) -> None:
    for number in range(50):
        made.put(record(uid=f"1.2.{number}", padding=5000))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    with pytest.raises(ArchiveRefused) as caught:
        list(made.search(Query()))
    assert caught.value.code == "catalogue-damaged"
    assert "catalogue rebuild" in str(caught.value)


def test_another_programs_database_is_refused(catalogue: SqliteCatalogue, path: Path) -> None:
    path.parent.mkdir()
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE studies (study_uid TEXT)")
    database.close()
    before = path.read_bytes()
    assert refusals(catalogue) == {ArchiveRefused}
    with pytest.raises(ArchiveRefused):
        catalogue.initialise("archive-1")
    assert path.read_bytes() == before


def test_a_newer_programs_catalogue_is_refused(made: SqliteCatalogue, path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    database.close()
    assert refusals(made) == {ArchiveRefused}
    with pytest.raises(ArchiveRefused, match="newer"):
        made.initialise("archive-1")


def test_an_entry_that_cannot_be_read_names_the_rebuild(made: SqliteCatalogue, path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("UPDATE studies SET document = '{'")
    database.commit()
    database.close()
    with pytest.raises(Permanent) as caught:
        made.get(STUDY)
    assert caught.value.code == "catalogue-damaged"
    made.put(record())
    assert made.get(STUDY) == record()


def test_a_locked_file_is_out_of_reach_and_not_waited_for_for_ever(made: SqliteCatalogue, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    assert refusals(made) == {OutOfReach}
    assert time.monotonic() - started < 5
    other.execute("ROLLBACK")
    other.close()
    made.put(record(2))


def test_a_writer_waits_for_another_one(path: Path, made: SqliteCatalogue) -> None:
    patient = SqliteCatalogue(SqliteSettings(kind="sqlite", path=path), busy_seconds=20)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys, time\n"
            "d = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "d.execute('BEGIN EXCLUSIVE')\n"
            "print('held', flush=True)\n"
            "time.sleep(0.4)\n"
            "d.execute('COMMIT')\n",
            str(path),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == b"held\n"
        patient.put(record(2))
    assert patient.get(STUDY) == record(2)
    assert holder.wait() == 0


_DIE_IN_A_WRITE = """
import os, sqlite3, sys
d = sqlite3.connect(sys.argv[1], isolation_level=None)
d.execute("PRAGMA cache_size = 2")
d.execute("BEGIN IMMEDIATE")
for n in range(500):
    d.execute("INSERT INTO series VALUES ('1.2.840.1', ?, ?)", (str(n), "x" * 3000))
d.execute("UPDATE studies SET document = 'half'")
os._exit(9)
"""


def test_what_a_killed_writer_left_is_undone_by_whoever_comes_next(made: SqliteCatalogue, path: Path) -> None:
    """The restarted daemon's check comes first, and it only reads."""
    size = path.stat().st_size
    assert subprocess.run([sys.executable, "-c", _DIE_IN_A_WRITE, str(path)]).returncode == 9
    assert path.with_name("catalogue.db-journal").stat().st_size > 0
    assert path.stat().st_size > size  # the write has reached the file itself
    made.check()
    assert made.get(STUDY) == record()
    assert not path.with_name("catalogue.db-journal").exists()


_FILL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from dicomwatchd.archive.catalogues.sqlite.catalogue import SqliteCatalogue
from dicomwatchd.config.archive import SqliteSettings
from dicomwatchd.errors import OutOfReach
from tests.unit.test_sqlite_catalogue import record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = Path(sys.argv[1]).stat().st_size + 20_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
catalogue = SqliteCatalogue(SqliteSettings(kind="sqlite", path=Path(sys.argv[1])))
try:
    for number in range(2, 200):
        catalogue.put(record(number, padding=number * 1000))
except OutOfReach as error:
    print(number - 1, error)
    assert catalogue.get(record().study_uid) == record(number - 1, padding=(number - 1) * 1000 if number > 2 else 0)
"""


def test_no_room_is_out_of_reach_and_what_was_there_stays(made: SqliteCatalogue, path: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", _FILL, str(path), str(root)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    last, message = done.stdout.split(" ", 1)
    assert "CANARY" not in message
    there = made.get(STUDY)
    assert there is not None and there.revision == int(last)
    made.put(record(500))


_SHIP_FOR_EVER = """
import itertools, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from dicomwatchd.archive.catalogues.sqlite.catalogue import SqliteCatalogue
from dicomwatchd.config.archive import SqliteSettings
from tests.unit.test_sqlite_catalogue import record
catalogue = SqliteCatalogue(SqliteSettings(kind="sqlite", path=Path(sys.argv[1])))
for number in itertools.count(int(sys.argv[3])):
    catalogue.put(record(number, padding=20_000))
    print(number, flush=True)
"""


def test_nothing_that_was_recorded_is_lost_by_a_kill(made: SqliteCatalogue, path: Path) -> None:
    root = Path(__file__).parents[2]
    last = 1
    for delay in (0.001, 0.003, 0.002):
        child = subprocess.Popen(
            [sys.executable, "-c", _SHIP_FOR_EVER, str(path), str(root), str(last + 1)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        with child.stdout:
            said = [int(child.stdout.readline()) for _ in range(5)]
            time.sleep(delay)
            child.kill()
            said += [int(line) for line in child.stdout if line.endswith(b"\n")]
        child.wait()
        made.check()
        there = made.get(STUDY)
        assert there is not None
        assert there == record(there.revision, padding=20_000)
        assert there.revision in (said[-1], said[-1] + 1)
        last = there.revision


def test_a_write_protected_file_can_be_read() -> None:
    """By somebody whom rights concern, which root is not."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "catalogue.db"
        catalogue = SqliteCatalogue(SqliteSettings(kind="sqlite", path=path))
        catalogue.initialise("archive-1")
        catalogue.put(record())
        path.chmod(0o444)
        path.parent.chmod(0o555)
        child = os.fork()
        if child == 0:
            verdict = 1
            try:
                if os.geteuid() == 0:
                    os.setuid(65534)
                catalogue.check()
                assert catalogue.get(STUDY) == record()
                try:
                    catalogue.put(record(2))
                except OutOfReach:
                    verdict = 0
            finally:
                os._exit(verdict)
        _, status = os.waitpid(child, 0)
        path.parent.chmod(0o755)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_folder_in_its_place_is_out_of_reach(catalogue: SqliteCatalogue, path: Path) -> None:
    path.mkdir(parents=True)
    assert refusals(catalogue) == {OutOfReach}


def test_a_query_for_a_patient_uses_the_index(made: SqliteCatalogue, path: Path) -> None:
    database = sqlite3.connect(path)
    for condition, index in (
        ("patient_id = 'x'", "by_patient"),
        ("accession_number = 'x'", "by_accession"),
        ("study_date >= 'x'", "by_study_date"),
    ):
        plan = database.execute(
            "EXPLAIN QUERY PLAN SELECT study_date, study_uid, document FROM studies"
            f" WHERE (study_date, study_uid) < ('9', '9') AND {condition}"
            " ORDER BY study_date DESC, study_uid DESC LIMIT 500"
        ).fetchall()
        assert index in str(plan) and "TEMP B-TREE" not in str(plan), plan
    database.close()


# --- files of earlier versions ---


def made_before(path: Path, *records: StudyRecord) -> None:
    """A catalogue as versions before the search tables made and filled it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as database:
        database.executescript(catalogue_module._SCHEMA)
        database.execute("INSERT INTO identity VALUES ('archive-1')")
    database.close()
    for one in records:
        put_before(path, one)


def put_before(path: Path, one: StudyRecord) -> None:
    row = (
        one.study_uid, one.revision, one.manifest_sha256, one.patient_id, one.accession_number, one.study_date,
        one.archived_at, study_document(one),
    )  # fmt: skip
    with sqlite3.connect(path) as database:
        database.execute("INSERT OR REPLACE INTO studies VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    database.close()


def of(uid: str, *identities: Identity, revision: int = 1) -> StudyRecord:
    first = identities[0]
    return replace(
        record(revision, uid),
        patient_id=first.patient_id,
        attributes={"00100010": {"vr": "PN", "Value": [{"Alphabetic": first.name}]}},
        identities=identities,
        orders=(),
        institutions=("St. Mary",),
    )


DOE, SMITH = Identity("D", name="Doe^Jane"), Identity("S", name="Smith^John")
NAME = Query(name="doe*")


def uids(catalogue: SqliteCatalogue, query: Query) -> list[str]:
    return sorted(one.study_uid for one in catalogue.search(query))


def test_a_file_of_an_earlier_version_serves_as_it_is(catalogue: SqliteCatalogue, path: Path) -> None:
    made_before(path, of("1.1", DOE), of("1.2", SMITH))
    path.chmod(0o440)  # and whoever reads it may be somebody who cannot change it
    assert uids(catalogue, NAME) == ["1.1"]
    assert uids(catalogue, Query(patient_id="S")) == ["1.2"]
    assert catalogue.shortcomings(NAME) == (OLD_RECORDS,)
    assert catalogue.shortcomings(Query()) == catalogue.shortcomings(Query(date_from="20240101")) == ()
    found = catalogue.get(Uid("1.1"))
    assert found is not None and found.identities is None and found.patient_id == "D"


def test_the_tables_come_with_the_first_study_and_miss_nothing(catalogue: SqliteCatalogue, path: Path) -> None:
    made_before(path, of("1.1", DOE), of("1.2", SMITH))
    catalogue.put(of("1.3", DOE, SMITH))
    assert uids(catalogue, NAME) == ["1.1", "1.3"]
    assert uids(catalogue, Query(patient_id="S")) == ["1.2", "1.3"]
    assert uids(catalogue, Query(patient_id="S", name="smith")) == ["1.2", "1.3"]
    assert catalogue.shortcomings(NAME) == (OLD_RECORDS,)
    catalogue.put(of("1.1", DOE))
    catalogue.put(of("1.2", SMITH, DOE))
    assert catalogue.shortcomings(NAME) == ()
    assert uids(catalogue, NAME) == ["1.1", "1.2", "1.3"]


def test_initialising_makes_the_tables(catalogue: SqliteCatalogue, path: Path) -> None:
    made_before(path, of("1.1", DOE))
    outcomes = {step.what: step.outcome for step in catalogue.initialise("archive-1")}
    assert outcomes["catalogue tables"] == "present" and outcomes["catalogue search tables"] == "created"
    assert uids(catalogue, NAME) == ["1.1"]


def test_an_earlier_version_goes_on_with_the_file(catalogue: SqliteCatalogue, path: Path) -> None:
    """What it records is found by what it has, and never by what an older revision named."""
    catalogue.initialise("archive-1")
    catalogue.put(of("1.1", DOE, SMITH))
    put_before(path, of("1.1", DOE, revision=2))
    put_before(path, of("1.2", DOE))
    assert catalogue.shortcomings(NAME) == (OLD_RECORDS,)
    found = catalogue.get(Uid("1.1"))
    assert found is not None and (found.revision, found.identities) == (2, None)
    assert uids(catalogue, NAME) == ["1.1", "1.2"]
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT COUNT(*) FROM unindexed").fetchone() == (2,)
    database.close()
    catalogue.put(of("1.1", DOE, SMITH, revision=3))
    assert uids(catalogue, Query(patient_id="S")) == ["1.1"]


@pytest.mark.parametrize(
    "query",
    [
        Query(patient_id="D"),
        Query(accession_number="A"),
        NAME,
        Query(birth_date="19700101"),
        Query(description="head"),
        Query(institution="st*"),
        Query(archived_from="2024-11-07"),
        Query(patient_id="D", name="doe", date_from="20200101"),
    ],
)
def test_an_index_finds_the_studies(
    made: SqliteCatalogue, path: Path, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_tables, "_is_better_by_date", lambda *_: False)
    with sqlite3.connect(path) as database:
        planned = search_tables.planned(database, query)
        values = (*planned.before, "99999999", "~", *planned.behind, 500)
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {planned.statement}", values)]
    database.close()
    scanned = [line for line in plan if line.startswith("SCAN") and "unindexed" not in line]
    assert all("SUBQUERY" in line or line.startswith("SCAN (") for line in scanned), plan
    assert any("SEARCH studies USING PRIMARY KEY" in line for line in plan), plan
