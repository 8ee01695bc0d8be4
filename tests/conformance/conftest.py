"""The stores that the conformance suite runs against: a folder, a real Ceph gateway over http and over https, and
Amazon as documented."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from dicomwatchd.archive.stores.directory.store import DirectoryStore
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.config.archive import DirectorySettings, Encryption, S3Settings
from tests.servers.amazon import Amazon
from tests.servers.ceph import KMS_KEY_ID, CephRgw

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = "radiology/"


class Place:
    """Where one test's objects are kept. ``open`` gives one more adapter for the very same place."""

    kind: str

    def open(self, **options: Any) -> ObjectStore:
        raise NotImplementedError

    def overwrite(self, key: str, data: bytes) -> None:
        """Put other bytes under a key, past the adapter: damage."""
        raise NotImplementedError


class FolderPlace(Place):
    def __init__(self, path: Path) -> None:
        self.kind = "directory"
        self.path = path

    def open(self, **options: Any) -> DirectoryStore:
        return DirectoryStore(DirectorySettings(kind="directory", path=self.path), **options)

    def overwrite(self, key: str, data: bytes) -> None:
        (self.path / key).write_bytes(data)


class BucketPlace(Place):
    def __init__(self, client: S3Client, settings: S3Settings) -> None:
        self.kind = "s3"
        self.client = client
        self.bucket = settings.bucket
        self.settings = settings
        self._opened: list[S3Store] = []

    @classmethod
    def of_gateway(cls, rgw: CephRgw, bucket: str, *, tls: bool) -> Self:
        settings = S3Settings(
            kind="s3",
            bucket=bucket,
            prefix=PREFIX,
            region=rgw.region,
            endpoint_url=rgw.https_endpoint if tls else rgw.http_endpoint,
            ca_file=rgw.ca_file if tls else None,
            insecure_http=not tls,
            encryption=Encryption(mode="aws:kms", key_id=KMS_KEY_ID) if tls else Encryption(),
        )
        return cls(rgw.client(tls=tls), settings)

    @classmethod
    def of_amazon(cls, amazon: Amazon, bucket: str) -> Self:
        settings = S3Settings(
            kind="s3",
            bucket=bucket,
            prefix=PREFIX,
            region="us-east-1",
            insecure_http=False,
            ca_file=amazon.ca_file,
            encryption=Encryption(mode="aws:kms", key_id=amazon.keys.create(f"alias/{bucket}")),
        )
        return cls(amazon.s3(request_checksum_calculation="when_required"), settings)

    @property
    def tls(self) -> bool:
        return not self.settings.insecure_http

    def open(self, **options: Any) -> S3Store:
        settings = options.pop("settings", self.settings)
        store = S3Store(settings, **{"connections": 16, **options})
        self._opened.append(store)
        return store

    def overwrite(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=PREFIX + key, Body=data)

    def unfinished(self) -> list[str]:
        """The keys of multipart uploads that were neither completed nor aborted."""
        uploads = self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return [upload["Key"].removeprefix(PREFIX) for upload in uploads]

    def close(self) -> None:
        for store in self._opened:
            store.close()
        self.client.close()


@pytest.fixture
def rgw_place(
    request: pytest.FixtureRequest, rgw: CephRgw, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[bool], BucketPlace]]:
    """Makes the place in a bucket that does not exist yet; the argument is whether to use https and SSE-KMS."""
    for name, value in rgw.env().items():
        monkeypatch.setenv(name, value)
    made: list[BucketPlace] = []

    def make(tls: bool) -> BucketPlace:
        made.append(BucketPlace.of_gateway(rgw, bucket, tls=tls))
        return made[-1]

    yield make
    for place in made:
        place.close()


@pytest.fixture
def amazon_place(amazon: Amazon, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketPlace]:
    for name, value in amazon.env().items():
        monkeypatch.setenv(name, value)
    place = BucketPlace.of_amazon(amazon, bucket)
    yield place
    place.close()


@pytest.fixture(params=["directory", "rgw-http", "rgw-https-kms", "amazon"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place of each kind, not initialised."""
    if request.param == "directory":
        return FolderPlace(tmp_path / "archive")
    if request.param == "amazon":
        at_amazon: Place = request.getfixturevalue("amazon_place")
        return at_amazon
    made: Place = request.getfixturevalue("rgw_place")(request.param == "rgw-https-kms")
    return made


@pytest.fixture(params=[False, True], ids=["rgw-http", "rgw-https-kms"])
def s3(request: pytest.FixtureRequest, rgw_place: Callable[[bool], BucketPlace]) -> BucketPlace:
    """A bucket, initialised."""
    place = rgw_place(request.param)
    place.open().initialise()
    return place


@pytest.fixture
def folder(tmp_path: Path) -> FolderPlace:
    """A folder, initialised."""
    place = FolderPlace(tmp_path / "archive")
    place.open().initialise()
    return place


@pytest.fixture
def store(place: Place) -> ObjectStore:
    """An initialised and probed store of each kind."""
    made = place.open()
    made.initialise()
    made.probe("probe/fixture/")
    return made
