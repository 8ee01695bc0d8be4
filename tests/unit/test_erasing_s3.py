"""Erasing on S3, against answers that a store may give: pages, refusals within a 200, locks, answers that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import botocore.exceptions
import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.erasing.erasure import Eraser, Who
from dicomwatchd.archive.erasing.port import StoredVersion
from dicomwatchd.archive.erasing.s3 import S3Eraser
from dicomwatchd.archive.layout import erasures
from dicomwatchd.config.archive import S3Settings
from dicomwatchd.errors import CredentialsRefused, Permanent, Transient
from dicomwatchd.model import Uid
from tests.unit.erasing import BECAUSE, WHO, MemoryRecords
from tests.unit.memory_archive import SERIES, STUDY, MemoryCatalogue, MemoryStore

PREFIX = "radiology/"
NEIGHBOUR = Uid(f"{STUDY}.1")
SETTINGS = S3Settings(kind="s3", bucket="bucket", prefix=PREFIX, region="us-east-1", ca_file=None, insecure_http=False)


def refused(operation: str, code: str, status: int = 403) -> botocore.exceptions.ClientError:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(response, operation)


class FakeS3:
    """As much of a client as erasing uses. A version is (full key, version id, size, is it a marker)."""

    def __init__(self, page: int = 1000) -> None:
        self.page = page
        self.objects: list[tuple[str, str, int, bool]] = []
        self.uploads: list[tuple[str, str]] = []
        self.requests: list[str] = []
        self.retentions: dict[tuple[str, str], tuple[str, datetime]] = {}
        self.holds: set[tuple[str, str]] = set()
        self.has_lock = False
        #: By version id, why it is not deleted.
        self.errors: dict[str, str] = {}
        self.fails: Callable[[str], None] = lambda _operation: None

    class meta:
        region_name = "us-east-1"

        class events:
            @staticmethod
            def register(*_: object) -> None:
                pass

    def _begin(self, operation: str) -> None:
        self.requests.append(operation)
        self.fails(operation)

    def list_object_versions(self, *, Bucket: str, Prefix: str, KeyMarker: str = "", VersionIdMarker: str = "") -> Any:
        self._begin("ListObjectVersions")
        found = sorted(one for one in self.objects if one[0].startswith(Prefix))
        found = [one for one in found if (one[0], one[1]) > (KeyMarker, VersionIdMarker)]
        page, rest = found[: self.page], found[self.page :]
        answer: dict[str, Any] = {
            "Versions": [
                {"Key": k, "VersionId": v, "Size": s, "IsLatest": True} for k, v, s, marker in page if not marker
            ],
            "DeleteMarkers": [{"Key": k, "VersionId": v, "IsLatest": True} for k, v, _, marker in page if marker],
            "IsTruncated": bool(rest),
        }
        if rest:
            answer |= {"NextKeyMarker": page[-1][0], "NextVersionIdMarker": page[-1][1]}
        return answer

    def list_multipart_uploads(self, *, Bucket: str, Prefix: str, KeyMarker: str = "", UploadIdMarker: str = "") -> Any:
        self._begin("ListMultipartUploads")
        found = sorted(one for one in self.uploads if one[0].startswith(Prefix) and one > (KeyMarker, UploadIdMarker))
        page, rest = found[: self.page], found[self.page :]
        answer: dict[str, Any] = {"Uploads": [{"Key": k, "UploadId": u} for k, u in page], "IsTruncated": bool(rest)}
        if rest:
            answer |= {"NextKeyMarker": page[-1][0], "NextUploadIdMarker": page[-1][1]}
        return answer

    def get_object_lock_configuration(self, *, Bucket: str) -> Any:
        self._begin("GetObjectLockConfiguration")
        if not self.has_lock:
            raise refused("GetObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", 404)
        return {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}}

    def get_object_retention(self, *, Bucket: str, Key: str, VersionId: str) -> Any:
        self._begin("GetObjectRetention")
        if (Key, VersionId) not in self.retentions:
            raise refused("GetObjectRetention", "NoSuchObjectLockConfiguration", 404)
        mode, until = self.retentions[Key, VersionId]
        return {"Retention": {"Mode": mode, "RetainUntilDate": until}}

    def get_object_legal_hold(self, *, Bucket: str, Key: str, VersionId: str) -> Any:
        self._begin("GetObjectLegalHold")
        return {"LegalHold": {"Status": "ON" if (Key, VersionId) in self.holds else "OFF"}}

    def delete_objects(self, *, Bucket: str, Delete: Any) -> Any:
        self._begin("DeleteObjects")
        assert len(Delete["Objects"]) <= 1000
        errors, gone = [], set()
        for one in Delete["Objects"]:
            if code := self.errors.get(one["VersionId"]):
                errors.append({"Key": one["Key"], "VersionId": one["VersionId"], "Code": code})
            else:
                gone.add((one["Key"], one["VersionId"]))
        self.objects = [one for one in self.objects if one[:2] not in gone]
        return {"Errors": errors} if errors else {}

    def abort_multipart_upload(self, *, Bucket: str, Key: str, UploadId: str) -> None:
        self._begin("AbortMultipartUpload")
        if (Key, UploadId) not in self.uploads:
            raise refused("AbortMultipartUpload", "NoSuchUpload", 404)
        self.uploads.remove((Key, UploadId))

    def close(self) -> None:
        pass


class Site:
    def __init__(self, page: int = 1000) -> None:
        self.s3 = FakeS3(page)
        self.store = MemoryStore()
        objects = S3Eraser(SETTINGS, connections=1, client=self.s3)  # type: ignore[arg-type]
        self.objects = objects
        self.eraser = Eraser("archive-1", self.store, objects, MemoryRecords(MemoryCatalogue()), settle_seconds=0.0)

    def add(self, number: int, study: Uid = STUDY, version: str = "v1", marker: bool = False) -> str:
        key = PREFIX + keys.instance(study, SERIES, Uid(f"1.2.{number}"), "0" * 64)
        self.s3.objects.append((key, version, 0 if marker else 10, marker))
        return key

    def left(self, study: Uid = STUDY) -> int:
        prefix = PREFIX + keys.study_prefix(study)
        return sum(one[0].startswith(prefix) for one in self.s3.objects)


@pytest.fixture
def site() -> Site:
    return Site()


def test_ten_thousand_versions_and_their_neighbours(site: Site) -> None:
    for number in range(2500):
        for version in ("v1", "v2", "v3"):
            site.add(number, version=version)
        site.add(number, version="v4", marker=True)
        if number % 100 == 0:
            site.add(number, study=NEIGHBOUR)
            site.add(number, study=Uid(f"{STUDY}1"))
    report = site.eraser.erase(STUDY, BECAUSE, WHO)
    assert (report.found.versions, report.found.delete_markers, report.found.objects) == (7500, 2500, 2500)
    assert report.found.size_bytes == 75_000
    assert report.is_complete and report.deleted == 10_000
    assert site.left() == 0 and site.left(NEIGHBOUR) == 25 and site.left(Uid(f"{STUDY}1")) == 25
    assert site.s3.requests.count("DeleteObjects") == 10
    assert site.s3.requests.count("GetObjectRetention") == 0, "without Object Lock nothing is asked for each version"


def test_unfinished_uploads_in_pages(site: Site) -> None:
    site.s3.page = 3
    site.add(1)
    for number in range(10):
        for study in (STUDY, NEIGHBOUR):
            site.s3.uploads.append((PREFIX + keys.study_prefix(study) + f"series/1.2/{number}", f"u{number}"))
    report = site.eraser.erase(STUDY, BECAUSE, WHO)
    assert report.aborted == 10 and report.is_complete and len(site.s3.uploads) == 10


def test_an_upload_that_ends_meanwhile(site: Site) -> None:
    site.add(1)
    key = PREFIX + keys.study_prefix(STUDY) + "series/1.2/9"
    site.s3.uploads.append((key, "u"))

    def fails(operation: str) -> None:
        if operation == "AbortMultipartUpload":
            site.s3.uploads.clear()
            site.s3.objects.append((key, "late", 10, False))

    site.s3.fails = fails
    report = site.eraser.erase(STUDY, BECAUSE, WHO)
    assert report.is_complete and site.left() == 0


def test_refusals_within_a_200(site: Site) -> None:
    for number in range(50):
        site.add(number, version=f"v{number}")
    site.s3.errors = {"v7": "AccessDenied", "v9": "InternalError"}
    report = site.eraser.erase(STUDY, BECAUSE, WHO)
    assert not report.is_complete and report.refused == 2 and report.left.versions == 2
    assert {one.code for one in report.refusals} == {"AccessDenied", "InternalError"}
    assert all(one.key.startswith("studies/") for one in report.refusals)
    site.s3.errors = {}
    assert site.eraser.erase(STUDY, BECAUSE, WHO).is_complete


def test_a_version_that_is_gone_already_is_no_refusal(site: Site) -> None:
    site.add(1)
    site.s3.errors = {"v1": "NoSuchVersion"}
    assert site.objects.erase([StoredVersion("studies/1/x", "v1", 1)]) == []


def test_rights_that_end_half_way(site: Site) -> None:
    for number in range(3000):
        site.add(number)
    calls = 0

    def fails(operation: str) -> None:
        nonlocal calls
        calls += operation == "DeleteObjects"
        if calls == 2:
            raise refused("DeleteObjects", "AccessDenied")

    site.s3.fails = fails
    with pytest.raises(CredentialsRefused):
        site.eraser.erase(STUDY, BECAUSE, WHO)
    assert site.left() == 2000 and erasures.newest_number(site.store, STUDY) == 1, "it counts as erased"
    site.s3.fails = lambda _: None
    report = site.eraser.erase(STUDY, "the same", Who(0, "root"))
    assert report.is_complete and report.deleted == 2000 and report.erasure.number == 2


@pytest.mark.parametrize("what", ["retention", "hold", "over"])
def test_object_lock(site: Site, what: str) -> None:
    site.s3.has_lock = True
    for number in range(5):
        site.add(number)
    site.add(5, version="m", marker=True)
    key = site.add(6, version="old")
    until = datetime(2100 if what == "retention" else 2020, 1, 2, tzinfo=UTC)
    if what == "hold":
        site.s3.holds.add((key, "old"))
    else:
        site.s3.retentions[key, "old"] = ("GOVERNANCE", until)
    if what == "over":
        assert site.eraser.erase(STUDY, BECAUSE, WHO).is_complete
        return
    with pytest.raises(Permanent, match="2100-01-02T00:00:00" if what == "retention" else "legal hold"):
        site.eraser.erase(STUDY, BECAUSE, WHO)
    assert site.left() == 7 and "DeleteObjects" not in site.s3.requests
    assert erasures.newest_number(site.store, STUDY) == 0
    assert [one.mode for one in site.eraser.survey(STUDY).locks] == [
        "GOVERNANCE" if what == "retention" else "LEGAL HOLD"
    ]


@pytest.mark.parametrize(
    "operation",
    [
        "GetObjectLockConfiguration",
        "GetObjectRetention",
        "GetObjectLegalHold",
        "ListObjectVersions",
        "ListMultipartUploads",
    ],
)
def test_what_may_not_be_asked_is_no_leave_to_delete(site: Site, operation: str) -> None:
    site.s3.has_lock = True
    site.add(1)

    def fails(asked: str) -> None:
        if asked == operation:
            raise refused(operation, "AccessDenied")

    site.s3.fails = fails
    with pytest.raises(CredentialsRefused):
        site.eraser.erase(STUDY, BECAUSE, WHO)
    assert site.left() == 1 and erasures.newest_number(site.store, STUDY) == 0


def test_a_store_that_knows_nothing_of_locks(site: Site) -> None:
    site.add(1)

    def fails(asked: str) -> None:
        if asked == "GetObjectLockConfiguration":
            raise refused(asked, "NotImplemented", 501)

    site.s3.fails = fails
    assert site.eraser.erase(STUDY, BECAUSE, WHO).is_complete


def test_a_listing_that_gives_what_was_not_asked_for(site: Site) -> None:
    """Nothing outside of the study is deleted, whatever the store lists."""
    site.add(1)
    other = site.add(1, study=NEIGHBOUR)
    real = site.s3.list_object_versions

    def wrong(**arguments: Any) -> Any:
        return real(**{**arguments, "Prefix": PREFIX})

    site.s3.list_object_versions = wrong  # type: ignore[method-assign]
    with pytest.raises(Transient) as error:
        site.eraser.erase(STUDY, BECAUSE, WHO)
    assert error.value.code == "strange-answer" and (other, "v1", 10, False) in site.s3.objects and site.left() == 1


@pytest.mark.parametrize("markers", [{}, {"NextKeyMarker": "radiology/studies/x"}])
def test_a_listing_that_does_not_go_on(site: Site, markers: dict[str, str]) -> None:
    def stuck(**_: Any) -> Any:
        site.s3.requests.append("ListObjectVersions")
        assert len(site.s3.requests) < 10
        return {"Versions": [], "IsTruncated": True, **markers}

    site.s3.list_object_versions = stuck  # type: ignore[method-assign]
    with pytest.raises(Transient) as error:
        site.eraser.survey(STUDY)
    assert error.value.code == "strange-answer"
