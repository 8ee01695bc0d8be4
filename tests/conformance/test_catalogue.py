"""What every catalogue must do, run against SQLite and against DynamoDB Local over http and https."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
from dicomwatchd.archive.catalogues.port import NO_INDEX, Catalogue
from dicomwatchd.archive.catalogues.sqlite.catalogue import SqliteCatalogue
from dicomwatchd.archive.documents import LEFT_OUT
from dicomwatchd.archive.records import Query, SeriesRecord, StudyRecord, place
from dicomwatchd.config.archive import DynamoDBSettings, SqliteSettings
from dicomwatchd.errors import ArchiveRefused, NotInitialised, OutOfReach, RevisionConflict
from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.patients import IDENTITIES_LIMIT, Identity, Order
from dicomwatchd.study_completeness import GAPS, Answer, Finding, StudyCompleteness
from tests.servers.amazon import Amazon
from tests.servers.dynamodb import DynamoDBLocal

ARCHIVE_ID = "archive-1"

Factory = Callable[[], Catalogue]


@pytest.fixture(params=["sqlite", "dynamodb-http", "dynamodb-https", "amazon"])
def another(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Factory]:
    """Makes one more adapter instance for the same, not yet initialised, catalogue."""
    made: list[Catalogue] = []
    build: Factory
    if request.param == "sqlite":
        directory: Path = request.getfixturevalue("tmp_path")
        sqlite = SqliteSettings(kind="sqlite", path=directory / "not yet made" / "catalogue.db")
        build = lambda: SqliteCatalogue(sqlite)  # noqa: E731
    elif request.param == "amazon":
        amazon: Amazon = request.getfixturevalue("amazon")
        for name, value in amazon.env().items():
            monkeypatch.setenv(name, value)
        table: str = request.getfixturevalue("table_name")
        at_amazon = DynamoDBSettings.model_validate(
            {"kind": "dynamodb", "table": table, "region": "us-east-1", "ca_file": amazon.ca_file}
        )
        build = lambda: DynamoDBCatalogue(at_amazon, sleep=lambda seconds: time.sleep(0.02))  # noqa: E731
    else:
        server: DynamoDBLocal = request.getfixturevalue("dynamodb")
        tls = request.param == "dynamodb-https"
        settings = DynamoDBSettings(
            kind="dynamodb",
            table=request.getfixturevalue("table_name"),
            region=server.region,
            endpoint_url=server.https_endpoint if tls else server.http_endpoint,
            ca_file=server.ca_file if tls else None,
            insecure_http=not tls,
        )
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        build = lambda: DynamoDBCatalogue(settings, sleep=lambda seconds: time.sleep(0.02))  # noqa: E731

    def factory() -> Catalogue:
        made.append(build())
        return made[-1]

    yield factory
    for catalogue in made:
        catalogue.close()


@pytest.fixture
def catalogue(another: Factory) -> Catalogue:
    made = another()
    made.initialise(ARCHIVE_ID)
    return made


def series(
    study: str, number: int = 1, modality: str = "CT", instances: int = 10, attributes: DicomJson | None = None
) -> SeriesRecord:
    return SeriesRecord(
        series_uid=Uid(f"{study}.{number:05d}"),
        modality=modality,
        instances=instances,
        size_bytes=instances * 526_000,
        attributes={"0008103E": {"vr": "LO", "Value": [f"Schädel {number}"]}} if attributes is None else attributes,
    )


def study(
    uid: str = "1.2.840.1",
    revision: int = 1,
    *,
    sha: str = "",
    patient_id: str = "PID-1",
    accession_number: str = "A-1",
    study_date: str = "20241107",
    of: tuple[SeriesRecord, ...] | None = None,
    attributes: DicomJson | None = None,
) -> StudyRecord:
    records = (series(uid),) if of is None else of
    return StudyRecord(
        study_uid=Uid(uid),
        revision=revision,
        manifest_key=keys.manifest(Uid(uid), revision),
        manifest_sha256=(sha or f"{revision:x}") * (64 // len(sha or f"{revision:x}")),
        archived_at=f"2024-11-07T10:00:{revision % 60:02d}Z",
        instances=sum(one.instances for one in records),
        size_bytes=sum(one.size_bytes for one in records),
        patient_id=patient_id,
        accession_number=accession_number,
        study_date=study_date,
        modalities=tuple(sorted({one.modality for one in records if one.modality})),
        flags=("patient-id-differs",),
        attributes={"00100020": {"vr": "LO", "Value": [patient_id]}} if attributes is None else attributes,
        series=records,
    )


def found(catalogue: Catalogue, query: Query) -> list[str]:
    return [record.study_uid for record in catalogue.search(query)]


# --- one study ---


def test_nothing_is_there_at_first(catalogue: Catalogue) -> None:
    assert catalogue.get(Uid("1.2.3")) is None
    assert list(catalogue.study_uids()) == []
    assert list(catalogue.search(Query())) == []


def test_a_study_comes_back_equal(catalogue: Catalogue, another: Factory) -> None:
    record = study()
    catalogue.put(record)
    assert catalogue.get(record.study_uid) == record
    assert another().get(record.study_uid) == record
    assert catalogue.get(Uid("1.2.840.10")) is None
    assert catalogue.get(Uid("1.2.840")) is None


def test_every_kind_of_value_comes_back_equal(catalogue: Catalogue) -> None:
    attributes: DicomJson = {
        "00100010": {
            "vr": "PN",
            "Value": [{"Alphabetic": "Wáng^Xiǎo", "Ideographic": "王^小東", "Phonetic": "ワン^シャオ"}],
        },
        "00100020": {"vr": "LO"},
        "00081140": {
            "vr": "SQ",
            "Value": [{"00081155": {"vr": "UI", "Value": ["1.2"]}}, {}, {"00091001": {"vr": "UN", "InlineBinary": ""}}],
        },
        "00101030": {"vr": "DS", "Value": ["71.50", None, ""]},
        "00189087": {"vr": "FD", "Value": [0.1, -1e300, 1e-300, 3.0, 0]},
        "00280010": {"vr": "US", "Value": [2**64, -1, 0]},
        "00104000": {"vr": "LT", "Value": ["two\r\nlines\0\t\"'\\ 🩻 \ud800"]},
    }
    record = study(attributes=attributes, of=(series("1.2.840.1", attributes=attributes), series("1.2.840.1", 2)))
    catalogue.put(record)
    again = catalogue.get(record.study_uid)
    assert again == record
    assert again is not None
    numbers = again.attributes["00189087"]["Value"]
    assert isinstance(numbers, list) and isinstance(numbers[3], float) and isinstance(numbers[4], int)


@pytest.mark.parametrize(
    "text", ["", " ", "x" * 5000, "ü" * 3000, "\ud800", "a\0b", "'; DROP TABLE studies; --", "#", "~", "%_*"]
)
def test_odd_patient_ids_and_accession_numbers(catalogue: Catalogue, text: str) -> None:
    record = study(patient_id=text[:1000], accession_number=text[:1000])
    catalogue.put(record)
    catalogue.put(study("1.2.840.2"))
    assert catalogue.get(record.study_uid) == record
    assert found(catalogue, Query(patient_id=text[:1000])) == ["1.2.840.1"]
    assert found(catalogue, Query(accession_number=text[:1000])) == ["1.2.840.1"]
    assert found(catalogue, Query(patient_id=text[:1000], date_from="20241107")) == ["1.2.840.1"]


def test_long_ids_that_differ_only_at_their_end(catalogue: Catalogue) -> None:
    catalogue.put(study("1.1", patient_id="p" * 900 + "1", accession_number="a" * 900 + "1"))
    catalogue.put(study("1.2", patient_id="p" * 900 + "2", accession_number="a" * 900 + "2"))
    assert found(catalogue, Query(patient_id="p" * 900 + "2")) == ["1.2"]
    assert found(catalogue, Query(accession_number="a" * 900 + "1")) == ["1.1"]
    assert found(catalogue, Query(patient_id="p" * 900)) == []


def test_a_study_of_no_series(catalogue: Catalogue) -> None:
    record = study(of=())
    catalogue.put(record)
    assert catalogue.get(record.study_uid) == record


@pytest.mark.parametrize("count", [100, 101, 300, 2500])
def test_a_study_of_many_series(catalogue: Catalogue, count: int) -> None:
    uid = "1.2.840.1"
    record = study(uid, of=tuple(series(uid, number) for number in range(count)))
    catalogue.put(record)
    assert catalogue.get(record.study_uid) == record
    grown = study(uid, 2, of=(*record.series, series(uid, count)))
    catalogue.put(grown)
    assert catalogue.get(record.study_uid) == grown


def test_series_of_more_than_one_answer(catalogue: Catalogue) -> None:
    """100 series of 250 KB are more than the 16 MB that DynamoDB reads at once."""
    uid = "1.2.840.1"
    text: DicomJson = {"00104000": {"vr": "UT", "Value": ["x" * 250_000]}}
    record = study(uid, of=tuple(series(uid, number, attributes=text) for number in range(100)))
    catalogue.put(record)
    again = catalogue.get(record.study_uid)
    assert again is not None
    assert again == record


def test_attributes_beyond_measure_do_not_keep_a_study_out(catalogue: Catalogue) -> None:
    """All of it where the catalogue can; otherwise everything small, and a flag. Never a refusal."""
    small: DicomJson = {"00100020": {"vr": "LO", "Value": ["PID-1"]}, "00081030": {"vr": "LO", "Value": ["Kopf"]}}
    huge: DicomJson = {**small, "00104000": {"vr": "UT", "Value": ["é" * 300_000]}}
    uid = "1.2.840.1"
    record = study(uid, attributes=huge, of=(series(uid), series(uid, 2, attributes=huge)))
    catalogue.put(record)
    again = catalogue.get(record.study_uid)
    assert again is not None
    assert (again == record) == isinstance(catalogue, SqliteCatalogue)
    if again != record:
        assert again.flags == (LEFT_OUT, "patient-id-differs")
        assert again.attributes == small
        assert again.series == (record.series[0], replace(record.series[1], attributes=small))
        assert replace(again, flags=record.flags, attributes=huge, series=record.series) == record
    assert found(catalogue, Query(patient_id="PID-1")) == [uid]
    catalogue.put(record)
    catalogue.put(study(uid, 2))
    assert catalogue.get(record.study_uid) == study(uid, 2)


def test_a_hostile_files_identifiers_do_not_keep_a_study_out(catalogue: Catalogue) -> None:
    uid = "1.2.840.1"
    many = tuple(series(uid, number, modality=f"{number}" * 20_000) for number in range(30))
    record = study(uid, patient_id="🩻" * 100_000, accession_number="🩻" * 100_000, of=many)
    catalogue.put(record)
    again = catalogue.get(record.study_uid)
    assert again is not None
    assert (again.revision, again.manifest_sha256, again.instances) == (1, record.manifest_sha256, 300)
    assert again == record if isinstance(catalogue, SqliteCatalogue) else LEFT_OUT in again.flags


# --- revisions ---


def test_recording_twice_changes_nothing(catalogue: Catalogue) -> None:
    record = study()
    catalogue.put(record)
    catalogue.put(record)
    assert catalogue.get(record.study_uid) == record
    assert list(catalogue.study_uids()) == [record.study_uid]


def test_a_newer_revision_takes_the_place_of_the_older(catalogue: Catalogue) -> None:
    uid = "1.2.840.1"
    catalogue.put(study(uid, 1, of=(series(uid, 1), series(uid, 2))))
    changed = study(
        uid,
        5,
        of=(series(uid, 1), series(uid, 2, instances=11), series(uid, 3, "MR")),
        patient_id="PID-9",
        accession_number="A-9",
        study_date="20230101",
    )
    catalogue.put(changed)
    assert catalogue.get(changed.study_uid) == changed
    assert found(catalogue, Query(patient_id="PID-9")) == [uid]
    assert found(catalogue, Query(patient_id="PID-1")) == []
    assert found(catalogue, Query(accession_number="A-1")) == []
    assert found(catalogue, Query(date_from="20241107")) == []
    assert found(catalogue, Query()) == [uid]


@pytest.mark.parametrize(
    ("revision", "sha"), [(1, "1"), (2, "f"), (1, "2")], ids=["older", "other manifest", "older, same digest"]
)
def test_an_older_or_another_revision_is_a_conflict(catalogue: Catalogue, revision: int, sha: str) -> None:
    uid = "1.2.840.1"
    current = study(uid, 2, sha="2", of=(series(uid, 1, instances=20),))
    catalogue.put(current)
    with pytest.raises(RevisionConflict):
        catalogue.put(study(uid, revision, sha=sha, of=(series(uid, 1, instances=1), series(uid, 2)), patient_id="X"))
    assert catalogue.get(current.study_uid) == current
    assert found(catalogue, Query(patient_id="X")) == []


@pytest.mark.parametrize("there", [None, 1, 2], ids=["none", "an older one", "the one meant"])
def test_a_revision_that_passes_others_over_is_recorded_in_the_place_of_one_alone(
    catalogue: Catalogue, there: int | None
) -> None:
    """It is newer than what is there, and all the same a conflict where that is another than it was made from."""
    uid = "1.2.840.1"
    if there is not None:
        catalogue.put(study(uid, there, of=(series(uid, 1),)))
    newer = study(uid, 4, of=(series(uid, 1), series(uid, 2)))
    before = catalogue.get(newer.study_uid)
    if there == 2:
        for _ in range(2):  # as where the answer was lost
            catalogue.put(newer, instead_of=study(uid, 2).manifest_sha256)
        assert catalogue.get(newer.study_uid) == newer
        with pytest.raises(RevisionConflict):
            catalogue.put(study(uid, 5), instead_of=study(uid, 2).manifest_sha256)
        assert catalogue.get(newer.study_uid) == newer
    else:
        with pytest.raises(RevisionConflict):
            catalogue.put(newer, instead_of=study(uid, 2).manifest_sha256)
        assert catalogue.get(newer.study_uid) == before
    with pytest.raises(RevisionConflict):
        catalogue.put(study(uid, 1, sha="b"), instead_of=study(uid, there or 2).manifest_sha256)


def test_revisions_are_numbers_and_not_text(catalogue: Catalogue) -> None:
    uid = "1.2.840.1"
    for revision in (9, 10, 99_999_999):
        catalogue.put(study(uid, revision, sha="a"))
    with pytest.raises(RevisionConflict):
        catalogue.put(study(uid, 11, sha="a"))


def test_of_two_writers_of_one_revision_exactly_one_wins(another: Factory) -> None:
    first, second = another(), another()
    first.initialise(ARCHIVE_ID)
    for round_number in range(10):
        uid = f"1.2.840.{round_number + 1}"
        first.put(study(uid, 1, of=(series(uid, 1), series(uid, 2))))
        start = threading.Barrier(2)
        records = [study(uid, 2, sha=sha, of=(series(uid, 1, instances=n), series(uid, 2), series(uid, 3)))
                   for sha, n in (("a", 11), ("b", 12))]  # fmt: skip

        def ship(catalogue: Catalogue, record: StudyRecord, start: threading.Barrier = start) -> bool:
            start.wait()
            try:
                catalogue.put(record)
            except RevisionConflict:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            won = list(pool.map(ship, (first, second), records))
        assert sorted(won) == [False, True]
        assert first.get(Uid(uid)) == records[won.index(True)]


def test_readers_see_whole_revisions_only(another: Factory) -> None:
    """Every record read while revisions are written is exactly one that was written, and never an older one."""
    writer, reader = another(), another()
    writer.initialise(ARCHIVE_ID)
    uid = "1.2.840.1"
    revisions = [
        study(uid, n, sha=f"{n:02x}", of=tuple(series(uid, s, instances=n) for s in range(4))) for n in range(1, 41)
    ]
    writer.put(revisions[0])
    done = threading.Event()
    seen: list[StudyRecord | None] = []

    def read() -> None:
        while not done.is_set():
            seen.append(reader.get(Uid(uid)))

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        try:
            for number, record in enumerate(revisions[1:]):
                writer.put(record)
                end = time.monotonic() + 5
                while len(seen) <= number // 10 and time.monotonic() < end:
                    time.sleep(0.001)  # on a machine with much else to do, the reader has to get its turn
        finally:
            done.set()
        reading.result()
    assert len(seen) > 3
    last = 1
    for read_record in seen:
        assert read_record is not None
        assert read_record == revisions[read_record.revision - 1]
        assert read_record.revision >= last
        last = read_record.revision


def test_many_threads_share_one_adapter(catalogue: Catalogue) -> None:
    records = [study(f"1.2.840.{n}") for n in range(1, 41)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(catalogue.put, records))
        assert list(pool.map(catalogue.get, [record.study_uid for record in records])) == records
    assert sorted(catalogue.study_uids()) == sorted(record.study_uid for record in records)


# --- searching ---

STUDIES = [
    study("1.1", patient_id="P1", accession_number="A1", study_date="20230101"),
    study("1.2", patient_id="P1", accession_number="A2", study_date="20241231", of=(series("1.2", modality="MR"),)),
    study("1.3", patient_id="P1", accession_number="", study_date=""),
    study("1.4", patient_id="P2", accession_number="A1", study_date="20241231"),
    study("1.5", patient_id="", accession_number="A5", study_date="19691231",
          of=(series("1.5", 1, "CT"), series("1.5", 2, "SR"))),
    study("1.6", patient_id="p1", accession_number="a1", study_date="29991231"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(), ["1.6", "1.4", "1.2", "1.1", "1.5", "1.3"]),
        (Query(patient_id="P1"), ["1.2", "1.1", "1.3"]),
        (Query(patient_id="p1"), ["1.6"]),
        (Query(patient_id="P"), []),
        (Query(patient_id=""), ["1.5"]),
        (Query(accession_number="A1"), ["1.4", "1.1"]),
        (Query(accession_number=""), ["1.3"]),
        (Query(patient_id="P1", accession_number="A1"), ["1.1"]),
        (Query(patient_id="P2", accession_number="A2"), []),
        (Query(date_from="20241231"), ["1.6", "1.4", "1.2"]),
        (Query(date_from="20241231", date_to="20241231"), ["1.4", "1.2"]),
        (Query(date_to="20230101"), ["1.1", "1.5"]),
        (Query(date_to="20221231"), ["1.5"]),
        (Query(date_from="20230102", date_to="20241230"), []),
        (Query(date_from="20250101", date_to="20240101"), []),
        (Query(date_from="99990101"), []),
        (Query(patient_id="P1", date_from="20230101"), ["1.2", "1.1"]),
        (Query(patient_id="P1", date_to="20230101"), ["1.1"]),
        (Query(patient_id="", date_from="19000101"), ["1.5"]),
        (Query(accession_number="A1", date_from="20240101"), ["1.4"]),
        (Query(accession_number="A1", date_from="20250101", date_to="20240101"), []),
        (Query(modality="MR"), ["1.2"]),
        (Query(modality="SR"), ["1.5"]),
        (Query(modality="CT", patient_id="P1"), ["1.1", "1.3"]),
        (Query(modality="CT", patient_id="P1", accession_number="A1", date_from="2023", date_to="2024"), ["1.1"]),
        (Query(modality="XX"), []),
        (Query(modality=""), []),
    ],
)  # fmt: skip
def test_search(stocked: Catalogue, query: Query, expected: list[str]) -> None:
    assert found(stocked, query) == expected


@pytest.fixture
def stocked(catalogue: Catalogue) -> Catalogue:
    for record in random.sample(STUDIES, len(STUDIES)):
        catalogue.put(record)
    return catalogue


def test_what_a_search_gives_is_the_study(stocked: Catalogue) -> None:
    for record in stocked.search(Query()):
        assert replace(record, series=()) == replace(STUDIES[int(record.study_uid[-1]) - 1], series=())


def test_a_result_of_many_pages_is_whole_and_in_order(catalogue: Catalogue) -> None:
    """More than 1 MB and more than every adapter's page, many studies on one day."""
    rng = random.Random(1)
    padding: DicomJson = {"00104000": {"vr": "LT", "Value": ["x" * 2500]}}
    records = [
        study(f"1.2.{n}", study_date=f"202411{rng.randint(1, 5):02d}" if n % 7 else "", attributes=padding)
        for n in range(1, 1251)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(catalogue.put, records))
    expected = sorted(records, key=lambda record: (record.study_date, record.study_uid), reverse=True)
    for query in (Query(), Query(patient_id="PID-1"), Query(accession_number="A-1")):
        assert found(catalogue, query) == [record.study_uid for record in expected]
    middle = Query(date_from="20241102", date_to="20241104")
    assert found(catalogue, middle) == [
        record.study_uid for record in expected if "20241102" <= record.study_date <= "20241104"
    ]
    assert sorted(catalogue.study_uids()) == sorted(record.study_uid for record in records)


def test_writing_goes_on_while_somebody_reads_a_list(catalogue: Catalogue) -> None:
    """Also with an iterator that was left half-way."""
    for number in range(1, 4):
        catalogue.put(study(f"1.2.{number}"))
    reading, listing = catalogue.search(Query()), catalogue.study_uids()
    next(reading), next(listing)
    catalogue.put(study("1.2.4"))
    catalogue.put(study("1.2.1", 2))
    assert len(list(reading)) >= 2


# --- being there ---


def test_before_it_was_made(another: Factory) -> None:
    catalogue = another()
    for operation in (catalogue.check, catalogue.identity):
        with pytest.raises(NotInitialised) as caught:
            operation()
        assert "archive init" in str(caught.value)
    reads: list[Callable[[], object]] = [
        lambda: catalogue.get(Uid("1.2")),
        lambda: list(catalogue.search(Query())),
        lambda: list(catalogue.study_uids()),
        lambda: catalogue.put(study()),
    ]
    for read in reads:
        with pytest.raises(OutOfReach) as unreachable:
            read()
        assert unreachable.value.code == "not-there"
        assert unreachable.value.endpoint
    with pytest.raises(NotInitialised):  # nothing of this has made it
        catalogue.check()


def test_initialising_twice_changes_nothing(another: Factory) -> None:
    catalogue = another()
    first = catalogue.initialise(ARCHIVE_ID)
    assert {step.outcome for step in first} <= {"created", "set", "not supported"}
    assert first[0].outcome == "created"
    catalogue.put(study())
    for again in (catalogue, another()):
        again.check()
        assert again.identity() == ARCHIVE_ID
        steps = again.initialise(ARCHIVE_ID)
        assert [step.what for step in steps] == [step.what for step in first]
        assert {step.outcome for step in steps} <= {"present", "not supported"}
        assert again.get(Uid("1.2.840.1")) == study()


def test_another_archives_catalogue_is_refused(catalogue: Catalogue, another: Factory) -> None:
    with pytest.raises(ArchiveRefused):
        another().initialise("archive-2")
    assert catalogue.identity() == ARCHIVE_ID


def test_two_at_once_make_one_catalogue(another: Factory) -> None:
    """As many identities as there may be: one. Whoever comes too late is told."""
    start = threading.Barrier(2)

    def make(archive_id: str) -> object:
        catalogue = another()
        start.wait()
        try:
            return catalogue.initialise(archive_id)
        except (ArchiveRefused, NotInitialised, OutOfReach) as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(make, ("archive-1", "archive-2")))
    winner = another().identity()
    assert winner in ("archive-1", "archive-2")
    assert isinstance(results[int(winner == "archive-1")], ArchiveRefused)


def test_the_name_says_which_one_it_is(another: Factory) -> None:
    name = another().name
    assert name == another().name
    kind, _, rest = name.partition("|")
    assert kind in ("sqlite", "dynamodb") and rest


# --- every patient and order of a study ---

DOE = Identity("D1", "CLINIC", "Doe^Jane=山田^花子", "19700131", "F")
SMITH = Identity("S1", "", "Smith^John^^Dr", "19800101", "M")


def of(uid: str, *identities: Identity, date: str = "20240101", **changes: object) -> StudyRecord:
    """As a manifest gives it: the first patient is whom the attributes name."""
    first = identities[0]
    groups = zip(("Alphabetic", "Ideographic"), first.name.split("="), strict=False)
    attributes: DicomJson = {
        "00100010": {"vr": "PN", "Value": [dict(groups)]},
        "00100020": {"vr": "LO", "Value": [first.patient_id]},
        "00100021": {"vr": "LO", "Value": [first.issuer]},
        "00100030": {"vr": "DA", "Value": [first.birth_date]},
        "00100040": {"vr": "CS", "Value": [first.sex]},
        "00081030": {"vr": "LO", "Value": [changes.pop("description", "Head")]},
    }
    record = study(uid, patient_id=first.patient_id, study_date=date, attributes=attributes)
    named: dict[str, object] = {
        "identities": identities,
        "orders": (Order("A-1"),),
        "institutions": ("St. Mary",),
        **changes,
    }
    return replace(record, **named)  # type: ignore[arg-type]


NAMED = [
    of("2.1", DOE, date="20240101"),
    of("2.2", SMITH, date="20240102", description="MR Knee left", institutions=("Clinic of Trier", "Other")),
    of("2.3", DOE, SMITH, date="20240103", orders=(Order("A-1"), Order("B-7", "RIS"))),
    of("2.4", replace(DOE, birth_date="19990909", name="DOE^JANETTE"), date="", orders=()),
    of(
        "2.5",
        replace(SMITH, patient_id="D1", issuer="ELSEWHERE"),
        date="20240105",
        flags=(GAPS,),
        completeness=StudyCompleteness(Answer.GAPS, (Finding("slices", "2.5.00001", "one slice is missing", 1),)),
    ),
]


@pytest.fixture
def named(catalogue: Catalogue) -> Catalogue:
    for record in random.sample(NAMED, len(NAMED)):
        catalogue.put(record)
    return catalogue


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(patient_id="S1"), ["2.3", "2.2"]),
        (Query(patient_id="D1"), ["2.5", "2.3", "2.1", "2.4"]),
        (Query(patient_id="D1", issuer="clinic "), ["2.3", "2.1", "2.4"]),
        (Query(patient_id="D1", issuer=""), []),
        (Query(patient_id="S1", name="doe*"), []),
        (Query(patient_id="S1", date_from="20240103"), ["2.3"]),
        (Query(patient_id="S1", before="20240103#2.3"), ["2.2"]),
        (Query(accession_number="B-7"), ["2.3"]),
        (Query(accession_number="B-7", date_to="20231231"), []),
        (Query(name="doe"), ["2.3", "2.1", "2.4"]),
        (Query(name="DOE^JANE"), ["2.3", "2.1"]),
        (Query(name="doe*"), ["2.3", "2.1", "2.4"]),
        (Query(name="do"), []),
        (Query(name="smith john"), ["2.5", "2.3", "2.2"]),
        (Query(name="*j?n*"), ["2.3", "2.1", "2.4"]),
        (Query(name="*"), ["2.5", "2.3", "2.2", "2.1", "2.4"]),
        (Query(name="山田*"), ["2.3", "2.1"]),
        (Query(name="smith", date_from="20240103", date_to="20240104"), ["2.3"]),
        (Query(name="smith", before="20240105#2.5"), ["2.3", "2.2"]),
        (Query(name="doe", date_to="20240102"), ["2.1"]),
        (Query(birth_date="19800101"), ["2.5", "2.3", "2.2"]),
        (Query(birth_date="19800101", name="smith", modality="CT"), ["2.5", "2.3", "2.2"]),
        (Query(birth_date="19800101", name="doe"), []),
        (Query(birth_date="19800101", date_from="20240105"), ["2.5"]),
        (Query(birth_date="1980"), []),
        (Query(description="mr knee"), ["2.2"]),
        (Query(description="*KNEE*", date_from="20240103"), []),
        (Query(institution="clinic*"), ["2.2"]),
        (Query(institution="st. mary", name="doe"), ["2.3", "2.1", "2.4"]),
        (Query(archived_from="2024-11-07T10:00:01"), ["2.5", "2.3", "2.2", "2.1", "2.4"]),
        (Query(archived_from="2024-11-07", patient_id="S1"), ["2.3", "2.2"]),
        (Query(archived_from="2024-11-07", date_from="20240102", date_to="20240103"), ["2.3", "2.2"]),
        (Query(archived_from="2024-11-07", before="20240102#2.2"), ["2.1", "2.4"]),
        (Query(archived_from="2024-11-08"), []),
        (Query(is_incomplete=True), ["2.5"]),
        (Query(is_incomplete=True, name="smith"), ["2.5"]),
        (Query(is_incomplete=True, patient_id="S1"), []),
        (Query(is_incomplete=True, date_to="20240104"), []),
        (Query(before="20240102#2.2"), ["2.1", "2.4"]),
        (Query(before="20240102#2.2", date_from="20240101"), ["2.1"]),
        (Query(before="20240102#2.2", date_from="20240103"), []),
        (Query(before="-#2.4"), []),
    ],
)  # fmt: skip
def test_search_by_whom_and_what(named: Catalogue, query: Query, expected: list[str]) -> None:
    assert found(named, query) == expected
    is_alone = (query.description or query.institution) and not query.is_of_patient
    unserved = (NO_INDEX,) if is_alone and isinstance(named, DynamoDBCatalogue) else ()
    if not (query.name or "x").startswith("*"):
        assert named.shortcomings(query) == unserved


def test_whom_a_study_names_comes_back(named: Catalogue) -> None:
    for record in NAMED:
        assert named.get(record.study_uid) == record
    assert {record.study_uid: record.identities for record in named.search(Query())} == {
        record.study_uid: record.identities for record in NAMED
    }


def test_a_revision_that_fills_the_date_and_adds_a_patient(catalogue: Catalogue) -> None:
    """What an earlier revision has left in the indexes finds nothing twice, and nothing that is not so."""
    first = of("2.1", replace(DOE, name="DOE^J"), SMITH, date="")
    catalogue.put(first)
    assert found(catalogue, Query(patient_id="S1")) == ["2.1"]
    third = Identity("T1", name="Third^One", birth_date="19900101")
    dated = replace(
        of("2.1", replace(DOE, name="DOE^J"), SMITH, third, date="20240101"), revision=2, manifest_sha256="2" * 64
    )
    catalogue.put(dated)
    for query in (
        Query(patient_id="S1"),
        Query(patient_id="T1"),
        Query(name="smith"),
        Query(birth_date="19900101"),
        Query(name="doe j", date_from="20240101"),
    ):
        assert found(catalogue, query) == ["2.1"]
    assert found(catalogue, Query(patient_id="S1", date_to="20231231")) == []


def test_a_gap_that_was_filled_is_found_no_more(catalogue: Catalogue) -> None:
    lacking = NAMED[-1]
    catalogue.put(lacking)
    assert found(catalogue, Query(is_incomplete=True)) == ["2.5"]
    whole = StudyCompleteness(Answer.NO_SIGN)
    catalogue.put(replace(lacking, revision=2, manifest_sha256="2" * 64, flags=(), completeness=whole))
    assert found(catalogue, Query(is_incomplete=True)) == []


def test_as_many_patients_as_are_kept_and_odd_ones(catalogue: Catalogue) -> None:
    many = tuple(
        Identity(f"P{number}", "I" * 64, "é" * 60 + f"{number:04}=" + "東" * 64, "19700101")
        for number in range(IDENTITIES_LIMIT)
    )
    orders = tuple(Order("a" * 60 + str(number), "x" * 64) for number in range(IDENTITIES_LIMIT))
    record = of("2.1", *many, orders=orders)
    catalogue.put(record)
    catalogue.put(of("2.2", Identity("#", name="#^\ud800^\0*?", birth_date="#"), date="20200101"))
    again = catalogue.get(record.study_uid)
    assert again is not None and again.identities
    assert again == record or LEFT_OUT in again.flags
    assert again.identities == many[: len(again.identities)] and len(again.identities) >= 5
    assert found(catalogue, Query(patient_id="P3")) == ["2.1"]
    assert found(catalogue, Query(name="é" * 60 + "0003")) == ["2.1"]
    assert found(catalogue, Query(patient_id="#", birth_date="#")) == ["2.2"]
    assert found(catalogue, Query(birth_date="#")) == ["2.2"]
    assert found(catalogue, Query(name="# *")) == ["2.2"]


def test_many_names_come_in_order_and_page_by_page(catalogue: Catalogue) -> None:
    records = [
        of(f"2.{n}", replace(DOE, name=f"Doe^J{n % 7}", patient_id=f"D{n}"), date=f"2024{n % 12 + 1:02d}01")
        for n in range(1, 121)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(catalogue.put, records))
    expected = sorted(records, key=lambda record: (record.study_date, record.study_uid), reverse=True)
    uids = [record.study_uid for record in expected]
    assert found(catalogue, Query(name="doe*")) == found(catalogue, Query(birth_date="19700131")) == uids
    assert found(catalogue, Query(archived_from="2024")) == uids
    assert found(catalogue, Query(name="doe", before=place(expected[49]))) == uids[50:]
