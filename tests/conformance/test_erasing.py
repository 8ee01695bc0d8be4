"""Erasing on real servers: a folder and SQLite, a Ceph gateway and DynamoDB Local, and as Amazon's documentation has
it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.erasing import factory
from dicomwatchd.archive.erasing.erasure import Eraser, Who
from dicomwatchd.archive.erasing.port import RecordEraser
from dicomwatchd.archive.factory import open_catalogue
from dicomwatchd.archive.identity import ArchiveIdentity, write_identity
from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.repair.rebuild import rebuild
from dicomwatchd.archive.stores.port import Buffer, ObjectStore
from dicomwatchd.cli.app import root
from dicomwatchd.config.archive import CatalogueSettings, DynamoDBSettings, SqliteSettings, StoreSettings
from dicomwatchd.errors import Permanent, StudyErased
from dicomwatchd.fetch import look_up
from dicomwatchd.model import Uid
from dicomwatchd.patients import Identity
from dicomwatchd.series.reader import SeriesReader
from tests import schemas
from tests.conformance.conftest import PREFIX, BucketPlace, FolderPlace, Place
from tests.conformance.test_amazon_store import at_amazon
from tests.servers.dynamodb import DynamoDBLocal
from tests.unit.memory_archive import OTHER_SERIES, SERIES, STUDY, MemoryStore, archive, content

__all__ = ["at_amazon"]

ARCHIVE_ID = "archive-1"
ARCHIVE = "3f1d0a52-6a5c-4f0e-9d39-0c8a35a1a111"
NEIGHBOUR = Uid(f"{STUDY}1")
WHO = Who(0, "root")


def put_study(store: ObjectStore, catalogue: Catalogue, study: Uid = STUDY) -> Manifest:
    """Two revisions, whose patients differ, so that the catalogue has items of all kinds."""
    memory = MemoryStore()
    files = [(SERIES if n < 3 else OTHER_SERIES, f"1.2.{n}", content(n)) for n in range(6)]
    first = archive(memory, files[:4], study=study)
    catalogue.put(first.record())
    others = [Identity(patient_id=f"P{n}", name=f"CANARY^{n}", birth_date="19700101") for n in range(3)]
    second = archive(memory, files[4:], study=study, before=first, identities=others)
    for key, versions in memory.versions.items():
        store.put(key, Buffer.of(versions[0]))
    catalogue.put(second.record())
    return second


class Site:
    """An archive of some kind; ``eraser`` waits for nobody."""

    def __init__(self, store: ObjectStore, settings: StoreSettings, catalogue: CatalogueSettings) -> None:
        self.store, self.settings = store, settings
        self.catalogue = open_catalogue(catalogue)
        self.catalogue.initialise(ARCHIVE_ID)
        self.records: RecordEraser = factory.open_records(catalogue)
        self.eraser = Eraser(
            ARCHIVE_ID, store, factory.open_objects(settings, connections=4), self.records, settle_seconds=0.0
        )

    def keys(self, prefix: str) -> list[str]:
        return [seen.key for seen in self.store.listing(prefix)]


@pytest.fixture(params=["sqlite", "dynamodb"])
def catalogue_settings(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> CatalogueSettings:
    if request.param == "sqlite":
        return SqliteSettings(kind="sqlite", path=tmp_path / "catalogue.db")
    server: DynamoDBLocal = request.getfixturevalue("dynamodb")
    for name, value in server.env().items():
        monkeypatch.setenv(name, value)
    return DynamoDBSettings(
        kind="dynamodb",
        table=request.getfixturevalue("table_name"),
        region=server.region,
        endpoint_url=server.http_endpoint,
        ca_file=None,
        insecure_http=True,
    )


@pytest.fixture
def site(catalogue_settings: CatalogueSettings, place: Place, store: ObjectStore) -> Site:
    if isinstance(place, FolderPlace):
        settings: StoreSettings = _folder(place)
    else:
        assert isinstance(place, BucketPlace)
        settings = place.settings
    return Site(store, settings, catalogue_settings)


def _folder(place: FolderPlace) -> StoreSettings:
    from dicomwatchd.config.archive import DirectorySettings

    return DirectorySettings(kind="directory", path=place.path)


def test_nothing_is_left_and_nothing_else_goes(site: Site, place: Place) -> None:
    if isinstance(place, BucketPlace):
        place.client.put_bucket_versioning(Bucket=place.bucket, VersioningConfiguration={"Status": "Enabled"})
    manifest = put_study(site.store, site.catalogue)
    neighbour = put_study(site.store, site.catalogue, NEIGHBOUR)
    if isinstance(place, BucketPlace):
        item, other = manifest.instances[0], manifest.instances[1]
        place.overwrite(item.key, b"a second version")
        place.client.delete_object(Bucket=place.bucket, Key=PREFIX + other.key)
        place.client.delete_object(Bucket=place.bucket, Key=PREFIX + other.key)
        place.client.create_multipart_upload(Bucket=place.bucket, Key=f"{PREFIX}{keys.study_prefix(STUDY)}series/1/2/x")
        place.client.create_multipart_upload(Bucket=place.bucket, Key=f"{PREFIX}{keys.study_prefix(NEIGHBOUR)}x")
    found = site.eraser.survey(STUDY)
    assert found.objects == found.manifests + found.instances == 8
    assert found.records == site.records.entries(STUDY) > 4
    if isinstance(place, BucketPlace):
        # Ceph makes one marker of two deletions, Amazon two.
        assert (found.versions, found.unfinished) == (9, 1) and found.delete_markers in (1, 2)
        with pytest.raises(Permanent) as refused:
            site.eraser.erase(STUDY, "request 17", WHO)
        assert refused.value.code == "being-sent", "it was begun a moment ago"
        later = Eraser(
            ARCHIVE_ID,
            site.store,
            site.eraser.objects,
            site.records,
            settle_seconds=0.0,
            now=lambda: time.time() + 3600,
        )
        report = later.erase(STUDY, "request 17", WHO)
        assert (report.deleted, report.aborted) == (9 + found.delete_markers, 1)
        assert place.unfinished() == [f"{keys.study_prefix(NEIGHBOUR)}x"]
        versions = place.client.list_object_versions(Bucket=place.bucket, Prefix=PREFIX + keys.study_prefix(STUDY))
        assert not versions.get("Versions") and not versions.get("DeleteMarkers")
    else:
        report = site.eraser.erase(STUDY, "request 17", WHO)
    assert report.is_complete and report.refused == 0 and report.records == found.records
    assert site.records.entries(STUDY) == 0 and site.catalogue.get(STUDY) is None
    assert site.keys(keys.study_prefix(STUDY)) == []
    assert site.keys(keys.ERASED) == [keys.erasure_end(STUDY, 1), keys.erasure(STUDY, 1)]
    assert erasures.newest(site.store, STUDY) == report.erasure
    with pytest.raises(StudyErased):
        look_up(site.store, site.catalogue, STUDY)
    assert look_up(site.store, site.catalogue, NEIGHBOUR).manifest == neighbour
    assert site.catalogue.get(NEIGHBOUR) is not None
    rebuilt = rebuild(site.store, site.catalogue)
    assert (rebuilt.studies, rebuilt.erased) == (1, 0) and site.catalogue.get(STUDY) is None


def test_what_viewers_read_of_it_goes_too(site: Site, place: Place) -> None:
    """Series objects hold the headers of the images: whom they are of, too."""
    if isinstance(place, BucketPlace):
        place.client.put_bucket_versioning(Bucket=place.bucket, VersioningConfiguration={"Status": "Enabled"})
    for study in (STUDY, NEIGHBOUR):
        put_study(site.store, site.catalogue, study)
        reader = SeriesReader(site.store, site.catalogue, writes=True)
        for series in (SERIES, OTHER_SERIES):
            assert not reader.series(study, series).is_stored
            assert SeriesReader(site.store, site.catalogue).series(study, series).is_stored
    found = site.eraser.survey(STUDY)
    assert (found.series_objects, found.others) == (2, 0)
    assert site.eraser.erase(STUDY, "request 17", WHO).is_complete
    assert site.keys(keys.study_prefix(STUDY)) == []
    with pytest.raises(StudyErased):
        reader.series(STUDY, SERIES)
    assert site.keys(keys.study_prefix(STUDY)) == []
    assert SeriesReader(site.store, site.catalogue).series(NEIGHBOUR, SERIES).is_stored


def test_a_bucket_without_versions(s3: BucketPlace, tmp_path: Path) -> None:
    store = s3.open()
    store.probe("probe/fixture/")
    site = Site(store, s3.settings, SqliteSettings(kind="sqlite", path=tmp_path / "catalogue.db"))
    put_study(site.store, site.catalogue)
    report = site.eraser.erase(STUDY, "request 17", WHO)
    assert report.is_complete and report.deleted == 8 and site.keys(keys.study_prefix(STUDY)) == []


def test_it_may_be_archived_again_and_erased_again(site: Site) -> None:
    put_study(site.store, site.catalogue)
    assert site.eraser.erase(STUDY, "request 17", WHO).is_complete
    assert site.eraser.survey(STUDY).is_empty
    manifest = put_study(site.store, site.catalogue)
    assert site.catalogue.get(STUDY) is not None, "as a program of an earlier version would"
    with pytest.raises(StudyErased):
        look_up(site.store, site.catalogue, STUDY)
    report = site.eraser.erase(STUDY, "request 17, once more", WHO)
    assert report.is_complete and report.erasure.number == 2
    assert report.erasure.through_revision > manifest.revision


# -- as Amazon's documentation has it ---------------------------------------------------------------------------------


def test_more_versions_than_a_page_at_amazon(at_amazon: Callable[..., Any], tmp_path: Path) -> None:
    place = at_amazon(kms=False)
    store = place.ready()
    prefix = keys.study_prefix(STUDY)
    for number in range(1100):
        place.s3.put_object(**place.of(f"{prefix}series/1.2/1.3/{number % 4}"), Body=b"x")
    for number in range(4):
        place.s3.delete_object(**place.of(f"{prefix}series/1.2/1.3/{number}"))
    place.s3.put_object(**place.of(f"{keys.study_prefix(NEIGHBOUR)}x"), Body=b"x")
    site = Site(store, place.settings, SqliteSettings(kind="sqlite", path=tmp_path / "catalogue.db"))
    place.amazon.forget()
    report = site.eraser.erase(STUDY, "request 17", WHO)
    assert (report.found.versions, report.found.delete_markers, report.deleted) == (1100, 4, 1104)
    assert report.is_complete and site.keys("studies/") == [f"{keys.study_prefix(NEIGHBOUR)}x"]


@pytest.mark.parametrize("kind", ["GOVERNANCE", "COMPLIANCE", "hold"])
def test_object_lock_at_amazon(at_amazon: Callable[..., Any], tmp_path: Path, kind: str) -> None:
    place = at_amazon(kms=False)
    place.s3.create_bucket(Bucket=place.bucket, ObjectLockEnabledForBucket=True)
    store = place.ready()
    site = Site(store, place.settings, SqliteSettings(kind="sqlite", path=tmp_path / "catalogue.db"))
    manifest = put_study(site.store, site.catalogue)
    locked: Any = place.of(manifest.instances[2].key)
    until = datetime.now(UTC) + timedelta(seconds=15)
    if kind == "hold":
        place.s3.put_object_legal_hold(**locked, LegalHold={"Status": "ON"})
    else:
        place.s3.put_object_retention(**locked, Retention={"Mode": kind, "RetainUntilDate": until})
    with pytest.raises(Permanent) as refused:
        site.eraser.erase(STUDY, "request 17", WHO)
    assert refused.value.code == "object-locked"
    assert ("legal hold" if kind == "hold" else until.strftime("%Y-%m-%dT%H:%M:%S")) in refused.value.message
    assert len(site.keys(keys.study_prefix(STUDY))) == 8 and site.catalogue.get(STUDY) is not None
    assert erasures.newest(site.store, STUDY) is None
    if kind == "hold":
        place.s3.put_object_legal_hold(**locked, LegalHold={"Status": "OFF"})
    else:
        time.sleep(max(0.0, (until - datetime.now(UTC)).total_seconds()) + 1)
    assert site.eraser.erase(STUDY, "request 17", WHO).is_complete


def test_what_the_store_itself_refuses_is_told(at_amazon: Callable[..., Any], tmp_path: Path) -> None:
    """A version that is locked after it was looked at: the store refuses it alone, within a 200."""
    place = at_amazon(kms=False)
    place.s3.create_bucket(Bucket=place.bucket, ObjectLockEnabledForBucket=True)
    store = place.ready()
    site = Site(store, place.settings, SqliteSettings(kind="sqlite", path=tmp_path / "catalogue.db"))
    manifest = put_study(site.store, site.catalogue)
    locked: Any = place.of(manifest.instances[2].key)

    def lock(_seconds: float) -> None:
        place.s3.put_object_legal_hold(**locked, LegalHold={"Status": "ON"})

    eraser = Eraser(ARCHIVE_ID, store, site.eraser.objects, site.records, settle_seconds=0.01, sleep=lock)
    report = eraser.erase(STUDY, "request 17", WHO)
    assert not report.is_complete and report.refused == 1 and report.left.versions == 1
    assert report.refusals[0].key == manifest.instances[2].key and report.refusals[0].code == "AccessDenied"
    assert site.keys(keys.study_prefix(STUDY)) == [manifest.instances[2].key]
    with pytest.raises(StudyErased):
        look_up(store, site.catalogue, STUDY)
    rebuild(store, site.catalogue)
    assert site.catalogue.get(STUDY) is None
    place.s3.put_object_legal_hold(**locked, LegalHold={"Status": "OFF"})
    assert site.eraser.erase(STUDY, "request 17", WHO).is_complete


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_at_a_gateway(s3: BucketPlace, dynamodb: DynamoDBLocal, table_name: str) -> None:
    settings = DynamoDBSettings(
        kind="dynamodb",
        table=table_name,
        region=s3.settings.region,
        endpoint_url=dynamodb.https_endpoint if s3.tls else dynamodb.http_endpoint,
        ca_file=s3.settings.ca_file,
        insecure_http=not s3.tls,
    )
    store = s3.open()
    store.probe("probe/fixture/")
    write_identity(store, ArchiveIdentity(ARCHIVE, "2026-01-31T12:00:00.000Z"))
    with open_catalogue_of(settings) as catalogue:
        catalogue.initialise(ARCHIVE)
        put_study(store, catalogue)
        erase = ("erase", STUDY, "--because", "request 17", "--no-wait")
        assert ctl(s3, settings, *erase).exit_code == 2
        tried = ctl(s3, settings, "erase", STUDY, "--dry-run", "--json")
        assert tried.exit_code == 0 and json.loads(tried.stdout)["found"]["instances"] == 6, tried.output
        done = ctl(s3, settings, *erase, "--yes", STUDY, "--json")
        assert done.exit_code == 0 and json.loads(done.stdout)["complete"], done.output
        assert ctl(s3, settings, *erase, "--yes", STUDY).exit_code == 0, "nothing is left to do"
        [record] = json.loads(ctl(s3, settings, "erased", "--json").stdout)["erased"]
        assert (record["study_uid"], record["number"], record["because"]) == (STUDY, 1, "request 17")
        assert catalogue.get(STUDY) is None


@contextmanager
def open_catalogue_of(settings: DynamoDBSettings) -> Iterator[Catalogue]:
    catalogue = open_catalogue(settings)
    try:
        yield catalogue
    finally:
        catalogue.close()


def ctl(place: BucketPlace, table: DynamoDBSettings, *arguments: str) -> Result:
    where = ["--bucket", place.bucket, "--prefix", PREFIX, "--endpoint-url", str(place.settings.endpoint_url)]
    where += ["--table", table.table, "--table-endpoint-url", str(table.endpoint_url), "--region", str(table.region)]
    where += ["--ca-file", str(place.settings.ca_file)] if place.tls else ["--insecure-http"]
    result = CliRunner().invoke(root, ["archive", *arguments, *where])
    if "--json" in arguments:
        schemas.check_output(["archive", *arguments], result.stdout, result.exit_code)
    return result
