"""What a rebuild of the catalogue asks of store and catalogue, and how long it takes; for ten million studies by
calculation: of an embedded archive, and of a gateway with DynamoDB Local, which are started for it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.catalogues.sqlite.catalogue import SqliteCatalogue
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest, empty
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.archive.repair.ahead import ahead
from dicomwatchd.archive.repair.progress import Binding, ProgressFile
from dicomwatchd.archive.repair.rebuild import rebuild
from dicomwatchd.archive.stores.directory.store import DirectoryStore
from dicomwatchd.archive.stores.port import Buffer, ObjectStore
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.config.archive import DirectorySettings, Encryption, S3Settings, SqliteSettings
from dicomwatchd.model import Uid
from tests.bench.scale.catalogues import ARCHIVE_ID, study, table_of
from tests.bench.scale.rows import Row
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal

THREADS = 16


class _CountedStore:
    """A store whose requests are counted."""

    def __init__(self, store: ObjectStore) -> None:
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
    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalogue, name)

    def get(self, uid: Uid) -> StudyRecord | None:
        self.calls["get"] += 1
        return self._catalogue.get(uid)

    def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
        self.calls["put"] += 1
        self._catalogue.put(record, instead_of=instead_of)


def manifests(studies: int, instances: int) -> Iterator[Manifest]:
    """Each has ``instances`` that are not there."""
    for number in range(studies):
        one = study(number)
        series = Uid(f"{one.study_uid}.1")
        yield empty(ARCHIVE_ID, one.study_uid).merged(
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


def write_manifests(root: Path, studies: int, instances: int) -> None:
    """An archive in a folder with the manifests alone."""
    store = DirectoryStore(DirectorySettings(kind="directory", path=root))
    store.initialise()
    for made in manifests(studies, instances):
        path = root / made.key
        path.parent.mkdir(parents=True)
        path.write_bytes(made.to_bytes())


def _instances(study_uid: Uid, series: Uid, count: int) -> Iterator[ManifestInstance]:
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


def measure_embedded(work: Path, studies: int, instances: int) -> list[Row]:
    archive, path = work / "archive", work / "rebuilt.db"
    write_manifests(archive, studies, instances)
    rows = []
    for threads in (1, THREADS):
        path.unlink(missing_ok=True)
        catalogue = SqliteCatalogue(SqliteSettings(kind="sqlite", path=path))
        catalogue.initialise(ARCHIVE_ID)
        case = f"rebuild of {studies:,} studies of {instances} instances, embedded archive, {threads} threads"
        for what in ("an empty catalogue", "a complete catalogue"):
            store = DirectoryStore(DirectorySettings(kind="directory", path=archive))
            rows.append(_rebuilt(case, what, store, catalogue, threads, studies, work))
    shutil.rmtree(archive)
    return rows


def measure_gateway(work: Path, studies: int, instances: int) -> list[Row]:
    """On a real gateway and DynamoDB Local, which share the processors with the rebuild."""
    case = f"rebuild of {studies:,} studies of {instances} instances, S3 gateway and DynamoDB Local, {THREADS} threads"
    with CephRgw(work / "rgw") as rgw, DynamoDBLocal(work / "dynamodb") as tables:
        client = rgw.client()
        client.create_bucket(Bucket="archive")
        settings = S3Settings(
            kind="s3",
            bucket="archive",
            prefix="",
            endpoint_url=rgw.http_endpoint,
            region=rgw.region,
            insecure_http=True,
            ca_file=None,
            encryption=Encryption(mode="store-default"),
        )
        os.environ.update(rgw.env())
        with ThreadPoolExecutor(THREADS) as pool:
            filling = S3Store(settings, connections=THREADS)
            list(
                pool.map(lambda made: filling.put(made.key, Buffer.of(made.to_bytes())), manifests(studies, instances))
            )
            filling.close()
        catalogue = DynamoDBCatalogue(table_of(tables), client=tables.client(max_pool_connections=THREADS))
        catalogue.initialise(ARCHIVE_ID)
        rows = []
        for what in ("an empty catalogue", "a complete catalogue"):
            store = S3Store(settings, connections=THREADS)  # not probed, as the command's
            rows.append(_rebuilt(case, what, store, catalogue, THREADS, studies, work))
            store.close()
        client.close()
        return rows


def _rebuilt(
    case: str, what: str, store: ObjectStore, catalogue: Catalogue, threads: int, studies: int, work: Path
) -> Row:
    counted_store, counted_catalogue = _CountedStore(store), _CountedCatalogue(catalogue)
    kept = ProgressFile(work / "progress.json", Binding(ARCHIVE_ID, "x", "x", "x"))
    begun, cpu = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        report = rebuild(counted_store, counted_catalogue, map=ahead(pool, 16 * threads), keep=kept.keep)
    kept.ended()
    assert report.studies == studies and not report.problems
    seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
    calls = {**counted_store.calls, **counted_catalogue.calls}
    print(f"  {case}, {what}: {seconds:.1f} s, {cpu:.1f} s CPU, {calls}", flush=True)
    of_studies = sum(count for name, count in calls.items() if name != "LIST of studies")
    return Row(
        case,
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


def measure(work: Path, studies: int) -> list[Row]:
    return measure_embedded(work, studies, 100) + measure_gateway(work, studies, 100)
