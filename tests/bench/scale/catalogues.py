"""What searches of a large catalogue read, and what a rebuild asks of store and catalogue; for ten times as many by
calculation. SQLite and the embedded archive; with DynamoDB Local, which is started for it, the table's pages as well.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
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
from dicomwatchd.archive.layout.manifest import empty
from dicomwatchd.archive.records import Query, StudyRecord
from dicomwatchd.archive.repair.ahead import ahead
from dicomwatchd.archive.repair.progress import Binding, ProgressFile
from dicomwatchd.archive.repair.rebuild import rebuild
from dicomwatchd.archive.stores.directory.store import DirectoryStore
from dicomwatchd.config import DirectorySettings, DynamoDBSettings, SqliteSettings
from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.patients import Identity, Order
from dicomwatchd.study_completeness import GAPS
from tests.bench.scale.rows import Row
from tests.servers.dynamodb import DynamoDBLocal

ARCHIVE_ID = "archive-of-benchmarks"
#: As `search` shows by default.
SHOWN = 1000
THREADS = 16
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


def measure_dynamodb(work: Path, studies: int) -> list[Row]:
    with DynamoDBLocal(work / "dynamodb") as server:
        client = server.client(max_pool_connections=8)
        settings = DynamoDBSettings(
            kind="dynamodb",
            table="catalogue",
            region=server.region,
            endpoint_url=server.http_endpoint,
            ca_file=None,
            insecure_http=True,
        )
        catalogue = DynamoDBCatalogue(settings, client=client)
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


def _most_requests(found: int, entries: int) -> float:
    """The pages of its answer: four parts of an index, each begun with small pages, what is named a hundred at a time,
    and of a name's pattern the pages of all names that have it."""
    return 4 * 5 + found / 100 + 3 + entries / 5000


# -- the rebuild ------------------------------------------------------------------------------------------------------


class _CountedStore:
    """A store whose requests are counted."""

    def __init__(self, store: DirectoryStore) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def common_prefixes(self, prefix: str, after: str = "") -> Iterator[str]:
        for number, one in enumerate(self._store.common_prefixes(prefix, after)):
            if number % 1000 == 0:
                self.calls["LIST of studies"] += 1
            yield one

    def listing(self, *what: Any) -> Any:
        self.calls["LIST of a study"] += 1
        return self._store.listing(*what)

    def read(self, *what: Any, **how: Any) -> Any:
        self.calls["GET"] += 1
        return self._store.read(*what, **how)


class _CountedCatalogue:
    def __init__(self, catalogue: SqliteCatalogue) -> None:
        self._catalogue = catalogue
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalogue, name)

    def get(self, uid: Uid) -> StudyRecord | None:
        self.calls["get"] += 1
        return self._catalogue.get(uid)

    def put(self, record: StudyRecord) -> None:
        self.calls["put"] += 1
        self._catalogue.put(record)


def write_manifests(root: Path, studies: int, instances: int) -> None:
    """An archive in a folder with the manifests alone; each has ``instances`` that are not there."""
    store = DirectoryStore(DirectorySettings(kind="directory", path=root))
    store.initialise()
    for number in range(studies):
        one = study(number)
        series = Uid(f"{one.study_uid}.1")
        made = empty(ARCHIVE_ID, one.study_uid).merged(
            _instances(one.study_uid, series, instances),
            attributes=one.attributes,
            series={series: {"00080060": {"vr": "CS", "Value": list(one.modalities[:1])}}},
            flags=[],
            damaged_keys=[],
            created_at=one.archived_at,
            created_by="benchmark",
            identities=one.identities or (),
            orders=one.orders or (),
        )
        path = root / made.key
        path.parent.mkdir(parents=True)
        path.write_bytes(made.to_bytes())


def _instances(study_uid: Uid, series: Uid, count: int) -> Iterator[Any]:
    from dicomwatchd.archive import keys
    from dicomwatchd.archive.layout.instance import ManifestInstance

    for number in range(count):
        sha256, uid = f"{number:064x}", Uid(f"{series}.{number}")
        key = keys.instance(study_uid, series, uid, sha256)
        yield ManifestInstance(
            series_uid=series,
            sop_instance_uid=uid,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            key=key,
            size_bytes=526_000,
            object_bytes=526_000,
            sha256=sha256,
            etag=sha256[:32],
            version_id=None,
            original_path=f"PAT/ST/SE/IM{number:06d}",
            inbox="ct1",
            stored_at="2026-11-24T10:00:00.000Z",
            verified_by="etag-md5",
            repairs=(),
            offset_bytes=0,
        )


def measure_rebuild(work: Path, studies: int, instances: int) -> list[Row]:
    archive, path = work / "archive", work / "rebuilt.db"
    write_manifests(archive, studies, instances)
    rows = []
    for threads in (1, THREADS):
        path.unlink(missing_ok=True)
        catalogue = _CountedCatalogue(SqliteCatalogue(SqliteSettings(kind="sqlite", path=path)))
        catalogue.initialise(ARCHIVE_ID)
        for what in ("an empty catalogue", "a complete catalogue"):
            store = _CountedStore(DirectoryStore(DirectorySettings(kind="directory", path=archive)))
            catalogue.calls.clear()
            kept = ProgressFile(work / "progress.json", Binding(ARCHIVE_ID, "x", "x", "x"))
            begun, cpu = time.monotonic(), time.process_time()
            with ThreadPoolExecutor(threads) as pool:
                report = rebuild(
                    store,
                    catalogue,
                    map=ahead(pool, 16 * threads),
                    keep=kept.keep,
                )
            kept.ended()
            assert report.studies == studies and not report.problems
            seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
            calls = {**store.calls, **catalogue.calls}
            print(f"  {what}, {threads} threads: {seconds:.1f} s, {cpu:.1f} s CPU, {calls}", flush=True)
            of_studies = sum(count for name, count in calls.items() if name != "LIST of studies")
            rows.append(
                Row(
                    f"rebuild of {studies:,} studies of {instances} instances, embedded archive, {threads} threads",
                    f"{what}: requests a study",
                    of_studies / studies,
                    "",
                    5 if "empty" in what else 4,
                    {
                        **{f"{name} a study": count / studies for name, count in calls.items()},
                        "ms a study": seconds / studies * 1000,
                        "ms CPU a study": cpu / studies * 1000,
                        "hours for ten million, calculated": seconds / studies * 1e7 / 3600,
                    },
                )
            )
    shutil.rmtree(archive)
    return rows


def measure(folder: Path, work: Path, studies: int, table_studies: int, rebuilt: int) -> list[Row]:
    parts: list[Callable[[], list[Row]]] = [
        lambda: measure_rebuild(work, rebuilt, 100),
        lambda: measure_sqlite(folder, studies),
        lambda: measure_dynamodb(work, table_studies),
    ]
    return [row for part in parts for row in part()]
