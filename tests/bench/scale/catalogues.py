"""What searches of a large catalogue read: of SQLite, and of DynamoDB Local, which is started for it."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
from dicomwatchd.archive.catalogues.dynamodb.items import to_items
from dicomwatchd.archive.catalogues.sqlite.catalogue import SqliteCatalogue
from dicomwatchd.archive.catalogues.sqlite.search_tables import search_terms
from dicomwatchd.archive.documents import index_text, naming_document, study_document
from dicomwatchd.archive.records import Query, StudyRecord
from dicomwatchd.config.archive import DynamoDBSettings, SqliteSettings
from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.patients import Identity, Order
from dicomwatchd.study_completeness import GAPS
from tests.bench.scale.rows import Row
from tests.servers.dynamodb import DynamoDBLocal

ARCHIVE_ID = "archive-of-benchmarks"
#: As `search` shows by default.
SHOWN = 1000
#: A page of an index that holds the studies themselves, and one that names them; of the service's own megabyte.
PAGE_BYTES = 1_000_000

_MODALITIES = ("CT",) * 30 + ("CR",) * 25 + ("MR",) * 20 + ("US",) * 15 + ("MG",) * 6 + ("XA",) * 4
_ENDS = ("ller", "nner", "s", "th", "ckel", "bert")
_FAMILIES = [f"{a}{b}{c}" for a in "BDFHKLMNPRSTW" for b in ("a", "e", "i", "o", "ar", "en") for c in _ENDS]


def _scattered(number: int) -> int:
    """Knuth's multiplicative hash: the same for a number always, and far from its neighbours'."""
    return (number * 2654435761 + 12345) % 2**32 * 2654435761 % 2**32 // 16


def study(number: int) -> StudyRecord:
    """The same for a number always: four studies a patient, ten years, one OPT study in 2,000, gaps in one of 50."""
    patient = number // 4
    of_patient, chance = _scattered(patient), _scattered(number + 10**9)
    born = f"{1930 + of_patient % 90}{of_patient // 90 % 12 + 1:02d}{of_patient // 1080 % 28 + 1:02d}"
    name = f"{_FAMILIES[of_patient // 7 % len(_FAMILIES)]}^{'ABCDEFGHIJ'[of_patient % 10]}{patient % 1000}"
    date = f"{2016 + chance % 10}{chance // 10 % 12 + 1:02d}{chance // 120 % 28 + 1:02d}"
    modality = "OPT" if number % 2000 == 7 else _MODALITIES[chance // 4000 % len(_MODALITIES)]
    modalities = (modality, "SR") if number % 5 == 0 else (modality,)
    uid = Uid(f"1.2.840.99999.{number % 97}.{number}")
    attributes: DicomJson = {
        "00080020": {"vr": "DA", "Value": [date]},
        "00080030": {"vr": "TM", "Value": ["101500"]},
        "00080050": {"vr": "SH", "Value": [f"A{number:08d}"]},
        "00080090": {"vr": "PN", "Value": [{"Alphabetic": "Referring^Physician"}]},
        "00081030": {"vr": "LO", "Value": [f"{modality} of part {number % 40}"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": name}]},
        "00100020": {"vr": "LO", "Value": [f"P{patient:07d}"]},
        "00100030": {"vr": "DA", "Value": [born]},
        "00100040": {"vr": "CS", "Value": ["F"]},
        "0020000D": {"vr": "UI", "Value": [str(uid)]},
        "00200010": {"vr": "SH", "Value": [str(number)]},
    }
    return StudyRecord(
        study_uid=uid,
        revision=1,
        manifest_key=f"studies/{uid}/manifests/00000001.json",
        manifest_sha256=f"{number:064x}",
        archived_at=f"{date[:4]}-{date[4:6]}-{date[6:]}T{number % 24:02d}:15:00.000Z",
        instances=500,
        size_bytes=260_000_000,
        patient_id=f"P{patient:07d}",
        accession_number=f"A{number:08d}",
        study_date=date,
        modalities=modalities,
        flags=(GAPS,) if number % 50 == 11 else (),
        attributes=attributes,
        series=(),
        identities=(Identity(f"P{patient:07d}", "HOSPITAL", name, born, "F"),),
        orders=(Order(f"A{number:08d}", "", str(number)),),
        institutions=("General Hospital" if number % 10 else "Eye Clinic",),
    )


@dataclass(frozen=True, slots=True)
class Kind:
    """``grows``: its answer has ten times as many studies where the catalogue has."""

    name: str
    query: Query
    grows: bool = True


def kinds(studies: int) -> list[Kind]:
    one = study(studies // 2)
    identities = one.identities or ()
    return [
        Kind("patient ID", Query(patient_id=one.patient_id), grows=False),
        Kind("accession number", Query(accession_number=one.accession_number), grows=False),
        Kind("name", Query(name=identities[0].name), grows=False),
        Kind("name, a pattern", Query(name=f"{identities[0].name[:6]}*")),
        Kind("birth date", Query(birth_date=identities[0].birth_date)),
        Kind("study date, one day", Query(date_from=one.study_date, date_to=one.study_date)),
        Kind("study date, an open range", Query(date_from="20240101")),
        Kind("a common modality", Query(modality="CT")),
        Kind("a rare modality", Query(modality="OPT")),
        Kind("a modality that is not there", Query(modality="XYZ"), grows=False),
        Kind("a modality, one month", Query(modality="CT", date_from="20200301", date_to="20200331")),
        Kind("archived since a week", Query(archived_from="2025-12-22")),
        Kind("incomplete", Query(is_incomplete=True)),
        Kind("no condition", Query()),
    ]


# -- SQLite ---------------------------------------------------------------------------------------------------------


class _Counting(sqlite3.Connection):
    documents = 0

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        if " IN (" in sql:
            _Counting.documents += len(values)
        return super().execute(sql, values)


def filled_sqlite(folder: Path, studies: int) -> Path:
    """Kept for the next run; the rows that `put` writes, in few transactions and in an order that suits the pages."""
    path = folder / f"catalogue-{studies}.db"
    if path.exists():
        return path
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    SqliteCatalogue(SqliteSettings(kind="sqlite", path=fresh)).initialise(ARCHIVE_ID)
    with closing(sqlite3.connect(fresh, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA cache_size = -2000000")
        triggers = [row[0] for row in database.execute("SELECT sql FROM sqlite_schema WHERE type = 'trigger'")]
        for name in ("recorded", "recorded_modalities"):
            database.execute(f"DROP TRIGGER {name}")
        for begin in range(0, studies, 50_000):
            rows, names, terms, modalities = [], [], [], []
            for number in range(begin, min(begin + 50_000, studies)):
                one = study(number)
                rows.append((
                    one.study_uid, one.revision, one.manifest_sha256, index_text(one.patient_id),
                    index_text(one.accession_number), one.study_date, one.archived_at, study_document(one),
                ))  # fmt: skip
                names.append((one.study_uid, one.manifest_sha256, naming_document(one)))
                terms += [(*term, one.study_uid) for term in search_terms(one)]
                modalities += [(modality, one.study_date, one.study_uid) for modality in one.modalities]
            database.execute("BEGIN")
            for table, marks, found in (
                ("studies", "?, ?, ?, ?, ?, ?, ?, ?", rows),
                ("naming", "?, ?, ?", names),
                ("terms", "?, ?, ?", terms),
                ("modalities", "?, ?, ?", modalities),
            ):
                found.sort()
                database.executemany(f"INSERT INTO {table} VALUES ({marks})", found)
            database.execute("COMMIT")
        for trigger in triggers:
            database.execute(trigger)
    fresh.rename(path)
    return path


def measure_sqlite(folder: Path, studies: int) -> list[Row]:
    begun = time.monotonic()
    path = filled_sqlite(folder, studies)
    print(f"  filled in {time.monotonic() - begun:.0f} s: {path.stat().st_size / 1e6:.0f} MB", flush=True)
    catalogue = SqliteCatalogue(SqliteSettings(kind="sqlite", path=path))
    case = f"{studies:,} studies in SQLite, search, {SHOWN:,} shown"
    rows = []
    connect = sqlite3.connect
    sqlite3.connect = lambda *place, **how: connect(*place, **how, factory=_Counting)  # type: ignore[assignment]
    try:
        for kind in kinds(studies):
            _Counting.documents = 0
            begun = time.monotonic()
            found = len(list(islice(catalogue.search(kind.query), SHOWN)))
            seconds = time.monotonic() - begun
            details = {"studies found": float(found), "ms": seconds * 1000}
            rows.append(
                Row(case, f"{kind.name}: studies read above those found", _Counting.documents - found, "", 500, details)
            )
            print(f"  {kind.name}: {found} found, {_Counting.documents} read, {seconds * 1000:.1f} ms", flush=True)
    finally:
        sqlite3.connect = connect
    return rows


# -- DynamoDB -------------------------------------------------------------------------------------------------------


class _Capacity:
    """Asks the service for what each request costs, and adds it up."""

    def __init__(self, client: Any) -> None:
        self.units = 0.0
        self.calls: Counter[str] = Counter()
        self.items = 0
        for name in ("Query", "BatchGetItem", "GetItem"):
            client.meta.events.register(f"provide-client-params.dynamodb.{name}", self._ask)
        client.meta.events.register("after-call.dynamodb", self._note)

    def _ask(self, params: dict[str, Any], **_: object) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"

    def _note(self, parsed: Any, model: Any, **_: object) -> None:
        self.calls[model.name] += 1
        self.items += parsed.get("ScannedCount", 0)
        said = parsed.get("ConsumedCapacity", [])
        for one in said if isinstance(said, list) else [said]:
            self.units += one["CapacityUnits"]

    def clear(self) -> None:
        self.units, self.items = 0.0, 0
        self.calls.clear()


def fill_dynamodb(client: Any, table: str, studies: int) -> int:
    """How many items there are now. Without those of series, which no search reads."""

    def write(numbers: range) -> int:
        items = []
        for number in numbers:
            made = to_items(study(number))
            items += [made.study, *made.also]
        for begin in range(0, len(items), 25):
            wanted: Any = {table: [{"PutRequest": {"Item": item}} for item in items[begin : begin + 25]]}
            while wanted:
                wanted = client.batch_write_item(RequestItems=wanted)["UnprocessedItems"]
        return len(items)

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(write, (range(at, min(at + 100, studies)) for at in range(0, studies, 100))))


def measure_dynamodb(studies: int) -> list[Row]:
    in_memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with (
        tempfile.TemporaryDirectory(prefix="dicomwatchd-bench.", dir=in_memory) as work,
        DynamoDBLocal(Path(work) / "dynamodb") as server,
    ):
        client = server.client(max_pool_connections=8)
        catalogue = DynamoDBCatalogue(table_of(server), client=client)
        catalogue.initialise(ARCHIVE_ID)
        begun = time.monotonic()
        items = fill_dynamodb(client, "catalogue", studies)
        print(f"  {items:,} items of {studies:,} studies in {time.monotonic() - begun:.0f} s", flush=True)
        capacity = _Capacity(client)
        case = f"{items:,} items of {studies:,} studies in DynamoDB Local, search, {SHOWN:,} shown"
        rows = []
        for kind in kinds(studies):
            list(islice(catalogue.search(kind.query), 1))
            capacity.clear()
            begun = time.monotonic()
            found = len(list(islice(catalogue.search(kind.query), SHOWN)))
            seconds = time.monotonic() - begun
            requests = sum(capacity.calls.values())
            details = {
                "studies found": float(found),
                "read units": capacity.units,
                "entries read": float(capacity.items),
                "s": seconds,
            }
            rows.append(
                Row(case, f"{kind.name}: requests", requests, "", _most_requests(found, capacity.items), details)
            )
            print(
                f"  {kind.name}: {found} found, {dict(capacity.calls)}, {capacity.items} entries,"
                f" {capacity.units:.1f} RCU, {seconds:.2f} s",
                flush=True,
            )
        client.close()
        return rows


def table_of(server: DynamoDBLocal) -> DynamoDBSettings:
    return DynamoDBSettings(
        kind="dynamodb",
        table="catalogue",
        region=server.region,
        endpoint_url=server.http_endpoint,
        ca_file=None,
        insecure_http=True,
    )


def _most_requests(found: int, entries: int) -> float:
    """The pages of its answer: four parts of an index, each begun with small pages, what is named a hundred at a time,
    and of a name's pattern the pages of all names that have it."""
    return 4 * 5 + found / 100 + 3 + entries / 5000


def measure(folder: Path, studies: int, table_studies: int) -> list[Row]:
    return measure_sqlite(folder, studies) + measure_dynamodb(table_studies)
