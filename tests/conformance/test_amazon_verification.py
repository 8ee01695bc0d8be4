"""`archive verify` at Amazon, as its documentation has it (`tests/servers/amazon`): a walk of the listing, and an
inventory that is made from a listing of versions, with checksums as a batch job would work them out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
from dicomwatchd.archive.erasing.dynamodb import DynamoDBRecords
from dicomwatchd.archive.fixity.progress import Totals
from dicomwatchd.archive.identity import ArchiveIdentity, write_identity
from dicomwatchd.archive.layout.erasures import Erasure
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.port import Buffer
from dicomwatchd.cli.app import root
from dicomwatchd.config.archive import DynamoDBSettings
from dicomwatchd.model import Uid
from dicomwatchd.ports import timestamp
from tests import amazon_reports, schemas
from tests.amazon_reports import Row
from tests.conformance.test_amazon_store import PREFIX, Place, at_amazon
from tests.unit.memory_archive import SERIES, MemoryStore, archive, content

__all__ = ["at_amazon"]

IDENTITY = ArchiveIdentity("0b0a3a0e-5f0e-4f5e-9d0e-1f6f3a1c2d3e", "2026-01-31T12:00:00.000Z")
MADE = 4_000_000_000.0  # by the clock of whoever has made the inventory: after all that is in it
#: What the stack's FetchPolicy allows (etc/aws/archive.yaml), with HEAD as a GET without its body.
READING = {
    "ListObjectsV2",
    "GetObject",
    "HeadObject",
    "HeadBucket",
    "DescribeTable",
    "GetItem",
    "BatchGetItem",
    "Query",
}


@dataclass
class Site:
    """An archive at Amazon with its catalogue, and a bucket for reports."""

    place: Place
    table: str
    folder: Path
    studies: list[Manifest] = field(default_factory=list)

    @property
    def reports(self) -> str:
        return f"{self.place.bucket}-reports"

    def fill(self, studies: int, files: int) -> None:
        store = self.place.ready()
        catalogue = DynamoDBCatalogue(
            DynamoDBSettings(
                kind="dynamodb",
                table=self.table,
                region="us-east-1",
                ca_file=self.place.amazon.ca_file,
                insecure_http=False,
            )
        )
        write_identity(store, IDENTITY)
        catalogue.initialise(IDENTITY.archive_id)
        for number in range(studies):
            study, memory = Uid(f"1.2.{number}"), MemoryStore()
            made = archive(
                memory,
                [(SERIES, f"{study}.{n}", content(100 * number + n)) for n in range(files)],
                study=study,
                archive_id=IDENTITY.archive_id,
            )
            items = []
            for item in made.instances:
                store.put(item.key, Buffer.of(memory.versions[item.key][0]))
                seen = store.head(item.key)
                assert seen is not None
                items.append(replace(item, etag=seen.etag, version_id=seen.version_id))
            made = replace(made, instances=tuple(items))
            store.put(made.key, Buffer.of(made.to_bytes()))
            catalogue.put(made.record())
            self.studies.append(made)
        catalogue.close()
        self.place.s3.create_bucket(Bucket=self.reports)

    def forget(self, study: Manifest) -> None:
        """Of the catalogue alone, as an erasure does it first."""
        settings = DynamoDBSettings(
            kind="dynamodb",
            table=self.table,
            region="us-east-1",
            ca_file=self.place.amazon.ca_file,
            insecure_http=False,
        )
        records = DynamoDBRecords(settings)
        assert records.erase(study.study_uid)
        records.close()

    def verify(self, *options: str, code: int = 0) -> dict[str, Any]:
        arguments = [
            *("archive", "verify", "--pace", "100000", "--bucket", self.place.bucket, "--prefix", PREFIX),
            *("--region", "us-east-1", "--ca-file", str(self.place.amazon.ca_file), "--table", self.table),
            *("--state-directory", str(self.folder), "--json", *options),
        ]
        result = CliRunner().invoke(root, arguments, catch_exceptions=False)
        assert result.exit_code == code, result.output
        schemas.check_output(arguments, result.stdout, result.exit_code)
        found: dict[str, Any] = json.loads(result.stdout) if result.stdout else {"stderr": result.stderr}
        return found

    def inventory(self) -> str:
        """Made of a listing of all versions, and put where Amazon puts it."""
        rows = []
        for page in self.place.s3.get_paginator("list_object_versions").paginate(Bucket=self.place.bucket):
            for one in page.get("Versions", []):
                row = Row(one["Key"], one["Size"], one["ETag"].strip('"'), one["VersionId"], one["IsLatest"])
                rows.append(replace(row, modified=one["LastModified"].isoformat()))
            for marker in page.get("DeleteMarkers", []):
                rows.append(Row(marker["Key"], None, "", marker["VersionId"], marker["IsLatest"], is_marker=True))
        self._put(amazon_reports.inventory(self.place.bucket, rows, MADE, prefix="inventories/"))
        return f"s3://{self.reports}/inventories/"

    def checksums(self) -> str:
        """Of what is current."""
        tasks = []
        for one in self.place.s3.list_objects_v2(Bucket=self.place.bucket)["Contents"]:
            found = self.place.s3.get_object(Bucket=self.place.bucket, Key=one["Key"])
            sha256 = hashlib.sha256(found["Body"].read()).hexdigest()
            task = amazon_reports.task(
                self.place.bucket, one["Key"], sha256, one["ETag"].strip('"'), found["VersionId"]
            )
            tasks.append(task)
        self._put(amazon_reports.completion(tasks, prefix="jobs/"))
        return f"s3://{self.reports}/jobs/"

    def _put(self, files: dict[str, bytes]) -> None:
        for key, data in files.items():
            self.place.s3.put_object(Bucket=self.reports, Key=key, Body=data)


@pytest.fixture(params=["aws:kms", "AES256"])
def site(request: pytest.FixtureRequest, at_amazon: Callable[..., Place], table_name: str, tmp_path: Path) -> Site:
    site = Site(at_amazon(kms=request.param == "aws:kms"), table_name, tmp_path)
    site.fill(studies=3, files=4)
    site.place.amazon.forget()
    return site


def studies(found: dict[str, Any]) -> tuple[int, ...]:
    said = found["run"]["studies"]
    return said["proven"], said["not_covered"], said["unproven"], said["with_problems"]


def test_a_walk_of_the_listing(site: Site) -> None:
    found = site.verify()
    assert studies(found) == (3, 0, 0, 0) and found["run"]["studies_proven_by"]["etag"] == 3
    asked = site.place.amazon.requests()
    assert {name.rpartition(".")[2] for name in asked} <= READING, "whoever may read the archive may verify it"
    assert asked.count("GetObject") == 4, "the archive's identity, and a manifest each"


def test_a_walk_goes_on_where_it_was(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_shown: Any, totals: Totals) -> None:
        if totals.studies == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("dicomwatchd.cli.studies.verify_archive._show", stop)
        patched.setattr("dicomwatchd.archive.fixity.progress._COMMIT_SECONDS", 0.0)
        site.verify(code=130)
    assert site.verify("--status", code=1)["run"]["studies"]["total"] == 2
    site.place.amazon.forget()
    found = site.verify()
    assert studies(found) == (3, 0, 0, 0) and found["run"]["resumed"] == 1
    assert site.place.amazon.requests().count("GetObject") == 2, "the archive's identity, and the third manifest"


def test_a_walk_finds_what_is_wrong(site: Site) -> None:
    s3, first = site.place.s3, [study.instances[0] for study in site.studies]
    s3.delete_object(**site.place.of(first[0].key))
    s3.put_object(**site.place.of(first[1].key), Body=b"short")
    s3.put_object(**site.place.of(first[2].key), Body=bytes(first[2].size_bytes))
    found = site.verify(code=1)
    assert studies(found) == (0, 0, 1, 2)
    assert {(one["kind"], one["key"]) for one in found["findings"]} == {
        ("missing", first[0].key),
        ("size", first[1].key),
        ("etag", first[2].key),
    }
    for item in first:
        versions = s3.list_object_versions(Bucket=site.place.bucket, Prefix=PREFIX + item.key)
        for one in (*versions.get("Versions", ()), *versions.get("DeleteMarkers", ())):
            if one["IsLatest"]:
                s3.delete_object(**site.place.of(item.key), VersionId=one["VersionId"])
    assert studies(site.verify()) == (3, 0, 0, 0), "nothing of it was changed by looking"


def test_an_inventory_and_checksums_in_a_bucket(site: Site) -> None:
    reports = ("--inventory", site.inventory(), "--checksums", site.checksums())
    site.place.amazon.forget()
    found = site.verify(*reports)
    assert studies(found) == (3, 0, 0, 0) and found["run"]["studies_proven_by"]["checksum"] == 3
    assert (found["run"]["source"], found["run"]["reports"]["checksums"]) == ("inventory", 15), "manifests, too"
    asked = site.place.amazon.requests()
    assert {name.rpartition(".")[2] for name in asked} <= READING


def test_an_inventory_finds_what_is_wrong(site: Site) -> None:
    s3, first = site.place.s3, [study.instances[0] for study in site.studies]
    s3.delete_object(**site.place.of(first[0].key))
    s3.put_object(**site.place.of(first[1].key), Body=b"short")
    s3.put_object(**site.place.of(first[2].key), Body=bytes(first[2].size_bytes))
    found = site.verify("--inventory", site.inventory(), "--checksums", site.checksums(), code=1)
    assert studies(found) == (0, 0, 0, 3)
    assert {(one["kind"], one["key"]) for one in found["findings"]} == {
        ("hidden", first[0].key),
        ("size", first[1].key),
        ("content", first[2].key),
    }
    assert (found["run"]["reports"]["other_versions"], found["run"]["reports"]["delete_markers"]) == (3, 1)


def test_what_an_erasure_has_left(site: Site) -> None:
    """By a walk and by an inventory; and nothing is said of a study of which all is gone."""
    s3, study = site.place.s3, site.studies[1]
    erased_at = timestamp(time.time() + 60)
    erasure = Erasure(IDENTITY.archive_id, study.study_uid, 1, erased_at, "request 17/2026", 0, "root", 101)
    s3.put_object(**site.place.of(erasure.key), Body=erasure.to_bytes())
    left = {*(item.key for item in study.instances), study.key, None}
    for options in ((), ("--inventory", site.inventory(), "--checksums", site.checksums())):
        found = site.verify(*options, code=1)
        assert studies(found) == (2, 0, 0, 1) and found["run"]["left_erased"] == 1
        assert {(one["kind"], one["key"]) for one in found["findings"]} == {("left-erased", key) for key in left}
    s3.delete_object(**site.place.of(study.key))  # that puts a delete marker over it
    hidden = ("--inventory", site.inventory())
    keys_left = {one["key"] for one in site.verify(*hidden, code=1)["findings"]}
    assert keys_left == left, "what is under a delete marker is there"
    assert {one["key"] for one in site.verify(code=1)["findings"]} == left - {study.key}, "which no listing shows"
    for page in s3.get_paginator("list_object_versions").paginate(
        Bucket=site.place.bucket, Prefix=PREFIX + keys.study_prefix(study.study_uid)
    ):
        for one in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
            s3.delete_object(Bucket=site.place.bucket, Key=one["Key"], VersionId=one["VersionId"])
    assert {one["key"] for one in site.verify(code=1)["findings"]} == {None}, "the catalogue's entry"
    site.forget(study)
    for reports in ((), ("--inventory", site.inventory())):
        found = site.verify(*reports)
        assert studies(found) == (2, 0, 0, 0) and found["run"]["left_erased"] == 0


def test_a_rebuild_of_an_empty_catalogue_fetches_each_manifest_once(site: Site) -> None:
    """By its ETag, or under SSE-KMS by its checksum."""
    for study in site.studies:
        site.forget(study)
    site.place.amazon.forget()
    arguments = [
        *("catalogue", "rebuild", "--bucket", site.place.bucket, "--prefix", PREFIX, "--region", "us-east-1"),
        *("--ca-file", str(site.place.amazon.ca_file), "--table", site.table, "--json"),
    ]
    result = CliRunner().invoke(root, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and json.loads(result.stdout)["recorded"] == 3, result.output
    fetched = [e.key for e in site.place.amazon.exchanges() if e.operation == "GetObject" and "/manifests/" in e.key]
    assert len(fetched) == 3
    assert studies(site.verify()) == (3, 0, 0, 0)


def test_a_copy_in_place_is_proven_by_its_checksum(site: Site) -> None:
    """As another storage class or key is given: under SSE-KMS the ETag is another one from then on."""
    key = site.place.amazon.keys.create("alias/next")
    for item in site.studies[1].instances:
        source: Any = site.place.of(item.key)
        site.place.s3.copy_object(**source, CopySource=source, ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    assert studies(site.verify(code=1)) == (2, 0, 1, 0)
    found = site.verify("--inventory", site.inventory(), "--checksums", site.checksums())
    assert studies(found) == (3, 0, 0, 0) and found["run"]["studies_proven_by"]["checksum"] == 3


def test_reports_of_another_bucket_or_none(site: Site) -> None:
    assert "no inventory" in site.verify("--inventory", f"s3://{site.reports}/", code=1)["stderr"]
    where = site.inventory()
    files = amazon_reports.inventory("another-bucket", [Row("x", 1, "e")], MADE, prefix="others/")
    site._put(files)
    assert "of other buckets" in site.verify("--inventory", f"s3://{site.reports}/others/", code=1)["stderr"]
    name = next(name for name in files if name.endswith("manifest.json"))
    said = site.verify("--inventory", f"s3://{site.reports}/{name}", code=1)["stderr"]
    assert "is of bucket another-bucket" in said
    task = amazon_reports.task("another-bucket", PREFIX + site.studies[0].instances[0].key, "0" * 64, "e")
    site._put(amazon_reports.completion([task], prefix="others/"))
    said = site.verify("--inventory", where, "--checksums", f"s3://{site.reports}/others/", code=1)["stderr"]
    assert "of another bucket" in said
    assert not (site.folder / "archive-verification.db").exists(), "nothing was said of any study"


def test_bundles_and_manifests_are_objects_like_others(site: Site) -> None:
    study = site.studies[0]
    store = site.place.open()
    members = [b"".join(store.read(item.key)) for item in study.instances]
    tar = b"".join(members)
    key = keys.bundle(study.study_uid, hashlib.sha256(tar).hexdigest())
    store.put(key, Buffer.of(tar))
    seen = store.head(key)
    assert seen is not None
    at, items = 0, []
    for item in study.instances:
        items.append(replace(item, key=key, etag=seen.etag, version_id=None, offset_bytes=at, object_bytes=len(tar)))
        at += item.size_bytes
    bundled = replace(
        study, study_uid=study.study_uid, revision=2, previous_sha256=study.sha256, instances=tuple(items)
    )
    store.put(bundled.key, Buffer.of(bundled.to_bytes()))
    found = site.verify(code=1)
    assert [one["kind"] for one in found["findings"]] == ["catalogue-behind"]
    assert found["run"]["not_in_any_manifest"]["copies"] == 4, "each alone is a copy of what is in the bundle"
