"""What a search of the SQLite catalogue reads: an index for each usual kind, and no more studies than it answers."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dicomwatchd.archive.catalogues.sqlite import catalogue as catalogue_module
from dicomwatchd.archive.catalogues.sqlite import search_tables
from dicomwatchd.archive.catalogues.sqlite.catalogue import SqliteCatalogue
from dicomwatchd.archive.records import Query, StudyRecord, place
from dicomwatchd.config.archive import SqliteSettings
from dicomwatchd.patients import Identity, Order
from dicomwatchd.study_completeness import GAPS
from tests.unit.test_sqlite_catalogue import made_before, put_before
from tests.unit.test_sqlite_catalogue import record as one_record

STUDIES = 400
PAGE = 10
LARGE = ("studies", "series", "naming", "terms", "modalities")


def study(number: int) -> StudyRecord:
    """Every 40th has gaps, an OPT series and another institution; five have the same patient, one has no date."""
    date = f"2024{number % 12 + 1:02d}{number % 28 + 1:02d}" if number else ""
    rare = number % 40 == 7
    return replace(
        one_record(1, f"1.2.{number}"),
        patient_id=f"P{number // 5}",
        accession_number=f"A{number}",
        study_date=date,
        archived_at=f"2025-01-{number % 28 + 1:02d}T{number % 24:02d}:00:00Z",
        modalities=("OPT", "SR") if rare else ("CT",),
        flags=(GAPS,) if rare else (),
        attributes={"00081030": {"vr": "LO", "Value": ["Fundus" if rare else "Chest"]}},
        identities=(
            Identity(f"P{number // 5}", name=f"Doe{number // 5}^Jane", birth_date=f"19{number // 5 % 100:02d}0101"),
        ),
        orders=(Order(f"A{number}"),),
        institutions=("Eye Clinic" if rare else "St. Mary",),
    )


RECORDS = [study(number) for number in range(STUDIES)]


class Recording(sqlite3.Connection):
    """Explains each statement as it runs, and counts the documents that are read."""

    plans: ClassVar[dict[str, list[str]]] = {}
    documents = 0

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        cursor = super().execute(sql, values)
        if sql.startswith("SELECT") and "sqlite_schema" not in sql:
            plan = super().execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
            Recording.plans[sql] = [row[3] for row in plan]
        if ".document" in sql and " IN (" in sql:
            Recording.documents += len(values)
        return cursor


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalogue.db"


@pytest.fixture
def stocked(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteCatalogue]:
    made = SqliteCatalogue(SqliteSettings(kind="sqlite", path=path))
    made.initialise("archive-1")
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN")
        for one in RECORDS:
            put_in(database, one)
        database.execute("COMMIT")
    monkeypatch.setattr(catalogue_module, "PAGE_ROWS", PAGE)
    monkeypatch.setattr(search_tables, "PAGE_ROWS", PAGE)
    monkeypatch.setattr(search_tables._plan, "__defaults__", (PAGE,))
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *place, **how: connect(*place, **how, factory=Recording))
    Recording.plans, Recording.documents = {}, 0
    yield made
    monkeypatch.undo()


def put_in(database: sqlite3.Connection, one: StudyRecord) -> None:
    """As `put`, without a transaction of its own."""
    from dicomwatchd.archive.documents import study_document

    row = (
        one.study_uid, one.revision, one.manifest_sha256, one.patient_id, one.accession_number, one.study_date,
        one.archived_at, study_document(one),
    )  # fmt: skip
    database.execute("INSERT OR REPLACE INTO studies VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    search_tables.index_study(database, one)


def walks() -> list[str]:
    """Steps that go through all of a large table."""
    return [
        f"{step}: {sql}"
        for sql, steps in Recording.plans.items()
        for step in steps
        if (walk := re.match(r"SCAN (\w+)", step)) and walk[1] in LARGE
    ]


def by(condition: Callable[[StudyRecord], bool]) -> list[str]:
    return [one.study_uid for one in sorted(RECORDS, key=place, reverse=True) if condition(one)]


KINDS: list[tuple[Query, Callable[[StudyRecord], bool]]] = [
    (Query(patient_id="P7"), lambda one: one.patient_id == "P7"),
    (Query(accession_number="A77"), lambda one: one.accession_number == "A77"),
    (Query(name="doe7"), lambda one: one.patient_id == "P7"),
    (Query(name="doe7*"), lambda one: one.patient_id.startswith("P7")),
    (Query(birth_date="19070101"), lambda one: one.patient_id == "P7"),
    (Query(date_from="20240301", date_to="20240310"), lambda one: "20240301" <= one.study_date <= "20240310"),
    (Query(date_from="20241201"), lambda one: one.study_date >= "20241201"),
    (Query(date_to="20240105"), lambda one: "" < one.study_date <= "20240105"),
    (Query(modality="OPT"), lambda one: "OPT" in one.modalities),
    (Query(modality="SR"), lambda one: "SR" in one.modalities),
    (Query(modality="XA"), lambda one: False),
    (
        Query(modality="OPT", date_from="20240401", date_to="20240930"),
        lambda one: "OPT" in one.modalities and "20240401" <= one.study_date <= "20240930",
    ),
    (
        Query(modality="OPT", before="20240808#1.2.7"),
        lambda one: "OPT" in one.modalities and place(one) < "20240808#1.2.7",
    ),
    (Query(archived_from="2025-01-28"), lambda one: one.archived_at >= "2025-01-28"),
    (Query(is_incomplete=True), lambda one: bool(one.flags)),
    (Query(description="fundus"), lambda one: bool(one.flags)),
    (Query(institution="eye*"), lambda one: bool(one.flags)),
    (
        Query(patient_id="P7", institution="st. mary", modality="CT"),
        lambda one: one.patient_id == "P7" and not one.flags,
    ),
    (Query(institution="st. mary", date_from="20240105", date_to="20240105"), lambda one: one.study_date == "20240105"),
    (
        Query(archived_from="2025-01-01", date_from="20240105", date_to="20240105"),
        lambda one: one.study_date == "20240105",
    ),
]


@pytest.mark.parametrize(("query", "condition"), KINDS, ids=[str(number) for number in range(len(KINDS))])
def test_no_more_studies_are_read_than_the_answer_has(
    stocked: SqliteCatalogue, query: Query, condition: Callable[[StudyRecord], bool]
) -> None:
    found = [one.study_uid for one in stocked.search(query)]
    assert found == by(condition)
    assert not walks()
    assert Recording.documents <= len(found) + PAGE


def test_a_list_reads_as_many_pages_as_are_taken(stocked: SqliteCatalogue) -> None:
    for query in (Query(), Query(modality="CT"), Query(institution="st. mary", modality="CT")):
        Recording.documents = 0
        assert len(list(islice(stocked.search(query), 25))) == 25
        assert Recording.documents <= 3 * PAGE
    assert not walks()


@pytest.mark.parametrize("query", [Query(institution="st. mary"), Query(description="chest"), Query(name="doe*")])
def test_what_very_many_studies_have_is_met_soon(
    stocked: SqliteCatalogue, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_tables, "_SORTED_ROWS", 50)
    assert len(list(islice(stocked.search(query), 25))) == 25
    assert Recording.documents <= 5 * PAGE and not walks()
    assert not any("TEMP B-TREE FOR ORDER BY" in step for steps in Recording.plans.values() for step in steps)


def test_more_keys_than_are_sorted_at_once(stocked: SqliteCatalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_tables, "_SORTED_ROWS", 7)
    monkeypatch.setattr(search_tables, "_is_better_by_date", lambda *_: False)
    for query, condition in KINDS:
        assert [one.study_uid for one in stocked.search(query)] == by(condition), query


def test_modalities_follow_what_any_version_writes(stocked: SqliteCatalogue, path: Path) -> None:
    """Triggers fill the table; an entry that is no JSON has none."""
    put_before(path, replace(RECORDS[7], revision=2, modalities=("XA",), study_date="20250101"))
    assert [one.study_uid for one in stocked.search(Query(modality="XA"))] == ["1.2.7"]
    assert "1.2.7" not in [one.study_uid for one in stocked.search(Query(modality="OPT"))]
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT OR REPLACE INTO studies VALUES ('1.2.7', 3, 'x', '', '', '', '', 'no JSON')")
    assert list(stocked.search(Query(modality="XA"))) == []


def test_a_file_of_an_earlier_version_gets_the_table(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few studies when the first is recorded; with many by `archive init`, and until then all are read."""
    catalogue = SqliteCatalogue(SqliteSettings(kind="sqlite", path=path))
    made_before(path, *RECORDS[:10])
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT OR REPLACE INTO studies VALUES ('1.9', 1, 'x', '', '', '', '', 'no JSON')")
    opt = Query(modality="OPT")
    monkeypatch.setattr(search_tables, "_FEW_STUDIES", 3)
    [said] = catalogue.shortcomings(opt)
    assert "archive init" in said
    catalogue.put(RECORDS[20])
    assert catalogue.shortcomings(opt) == (said,)
    assert catalogue.shortcomings(Query()) == ()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM studies WHERE study_uid = '1.9'")
    assert [one.study_uid for one in catalogue.search(opt)] == ["1.2.7"]
    outcomes = {step.what: step.outcome for step in catalogue.initialise("archive-1")}
    assert outcomes["catalogue search tables"] == "created"
    assert catalogue.shortcomings(opt) == ()
    assert [one.study_uid for one in catalogue.search(opt)] == ["1.2.7"]
    small = path.with_name("small.db")
    made_before(small, *RECORDS[:3])
    few = SqliteCatalogue(SqliteSettings(kind="sqlite", path=small))
    few.put(RECORDS[7])
    assert few.shortcomings(opt) == () and [one.study_uid for one in few.search(opt)] == ["1.2.7"]
    assert len(list(few.search(Query(modality="CT")))) == 3
