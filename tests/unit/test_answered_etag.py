"""The ETag with which a store answers counts where the probe has shown that it follows the content, and each answer
bears it out; everywhere else the MD5 is worked out here, as ever."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from dicomwatchd.archive.stores.port import Buffer, Capabilities, StoredObject
from dicomwatchd.archive.stores.s3 import probe
from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.config.archive import Encryption, S3Settings
from dicomwatchd.errors import Conflict, CredentialsRefused, OutOfReach, Permanent, Throttled

DATA = b"content"
MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
SHA256 = base64.b64encode(hashlib.sha256(DATA).digest()).decode("ascii")
OTHER_SHA256 = base64.b64encode(hashlib.sha256(b"other").digest()).decode("ascii")
SETTINGS = S3Settings(
    kind="s3",
    bucket="archive",
    prefix="",
    region="eu-central-1",
    insecure_http=False,
    ca_file=None,
    encryption=Encryption(mode="store-default"),
)
KEY = "studies/1.2/series/1.2.3/1.2.3.4/" + "0" * 64 + ".dcm"


class Answering(S3Store):
    """Whose store answers each creation so; ``sent`` are the arguments that it was sent."""

    def __init__(self, capabilities: Capabilities, response: dict[str, str] | StoredObject) -> None:
        super().__init__(SETTINGS, connections=1, with_fast_path=False)
        self._capabilities = capabilities
        self._response = response
        self.sent: dict[str, Any] = {}

    def _create(self, key: str, data: bytes, sha256: str, arguments: Any) -> Any:
        self.sent = arguments
        return self._response


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")


@pytest.mark.parametrize("follows", [False, True])
@pytest.mark.parametrize("echoes", [False, True])
@pytest.mark.parametrize("echo", [SHA256, OTHER_SHA256, None])
@pytest.mark.parametrize("etag", ['"kms-0815"', '""', None])
def test_an_answer_counts_where_it_bears_out_what_the_probe_has_shown(
    follows: bool, echoes: bool, echo: str | None, etag: str | None
) -> None:
    answer = {"ETag": etag, "ChecksumSHA256": echo, "ServerSideEncryption": "AES256"}
    capabilities = Capabilities(etag_follows_content=follows, echoes_checksum=echoes, creates_only=True)
    store = Answering(capabilities, {name: value for name, value in answer.items() if value is not None})
    receipt = store.put(KEY, Buffer(DATA))
    counts = follows and etag == '"kms-0815"' and (echo == SHA256 or (echo is None and not echoes))
    assert receipt.answered_etag == ("kms-0815" if counts else None)
    assert receipt.expected_etag == (None if counts else MD5)
    assert receipt.created and receipt.expected_checksum == f"sha256:{hashlib.sha256(DATA).hexdigest()}"
    # What the store is to compare goes with the body in any case.
    assert store.sent["ChecksumSHA256"] == SHA256
    assert ("ContentMD5" in store.sent) is not follows
    store.close()


def test_what_was_there_before_is_known_by_what_is_computed_here() -> None:
    """Nobody knows what its ETag was given for, but where its checksum, which the store has compared, is beside it."""
    ours, other = (f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (DATA, b"other"))
    for follows, on_head, checksum, etag in (
        (True, True, ours, "kms-0815"),
        (True, True, other, None),
        (True, True, None, None),
        (True, False, ours, None),
        (False, True, ours, None),
    ):
        backs = Capabilities(etag_follows_content=follows, checksum_on_head=on_head, creates_only=True)
        there = StoredObject(KEY, len(DATA), etag="kms-0815", version_id="v7", checksum=checksum)
        store = Answering(backs, there)
        receipt = store.put(KEY, Buffer(DATA))
        assert (receipt.answered_etag, receipt.expected_etag, receipt.created) == (etag, MD5, False)
        assert receipt.version_id == "v7"
        store.close()


# -- the probe -------------------------------------------------------------------------------------------------------


@dataclass
class Bucket:
    """An honest one, with versions; ``etag`` says what an object's ETag is, ``tell`` what answer, HEAD and listing make
    of it; ``refuses`` is the error of an overwriting."""

    etag: Any = lambda key, data: hashlib.sha1(data, usedforsecurity=False).hexdigest()
    tell: Any = lambda where, etag: etag
    refuses: Exception | None = None
    version: Any = lambda where: "v1"
    denies_versions: bool = False
    objects: dict[str, bytes] = field(default_factory=dict)
    endpoint: str = "store"
    wants_bucket_keys: bool = False

    @property
    def client(self) -> Any:
        return self

    @property
    def encryption(self) -> Any:
        return SETTINGS.encryption

    def address(self, key: str) -> dict[str, str]:
        return {"Key": key}

    def creation(self, key: str) -> dict[str, str]:
        return {}

    def translated(self, operation: str) -> AbstractContextManager[None]:
        return nullcontext()

    def check_encryption(self, response: Any) -> None: ...

    def put_object(self, Key: str, Body: bytes, ChecksumSHA256: str, IfNoneMatch: str = "") -> dict[str, str]:
        assert base64.b64decode(ChecksumSHA256) == hashlib.sha256(Body).digest()
        if Key in self.objects:
            assert not IfNoneMatch
            if self.refuses is not None:
                raise self.refuses
        else:
            assert IfNoneMatch == "*"
        self.objects[Key] = Body
        return {"ETag": f'"{self._told("answer", Key)}"', "VersionId": self.version("answer")}

    def _told(self, where: str, key: str) -> str:
        return self.tell(where, self.etag(key, self.objects[key])) or ""

    def head(self, key: str) -> StoredObject | None:
        return StoredObject(key, len(self.objects[key]), etag=self._told("head", key) or None)

    def listing(self, prefix: str) -> Iterator[StoredObject]:
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield StoredObject(key, len(self.objects[key]), etag=self._told("listing", key) or None)

    def current_versions(self, prefix: str) -> Iterator[StoredObject | None]:
        if self.denies_versions:
            raise CredentialsRefused("ListObjectVersions failed: AccessDenied (403)", endpoint="store")
        yield None
        for key in sorted(self.objects):
            if key.startswith(prefix):
                etag, version_id = self._told("versions", key), self.version("versions")
                yield StoredObject(key, len(self.objects[key]), etag=etag or None, version_id=version_id)


def of(bucket: Bucket) -> probe._Probe:
    return probe._Probe(cast(S3Bucket, bucket), "probe/x/")


def other_at(place: str) -> Any:
    return lambda where, etag: etag[::-1] if where == place else etag


def none_at(*places: str) -> Any:
    return lambda where, etag: None if where in places else etag


def changes(bucket: Bucket) -> bool:
    return of(bucket)._etag_changes(of(bucket)._plain_put().etag)


def by_content(changes: str) -> Any:
    """An ETag for each object of the probe's, that of the first of two contents as given."""
    return lambda key, data: {b"changes": changes, b"changed": "2"}.get(data.split()[-1], "plain")


def test_an_etag_that_follows_the_content_is_found_out() -> None:
    assert changes(Bucket(etag=by_content("1")))
    bucket = Bucket()
    assert changes(bucket)
    assert len(bucket.objects) == 2 and of(Bucket())._plain_put().etag_is_shown


@pytest.mark.parametrize(
    "bucket",
    [
        Bucket(etag=lambda key, data: hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()),
        Bucket(etag=lambda key, data: f"etag-{len(data)}"),
        Bucket(etag=lambda key, data: "constant"),
        Bucket(etag=lambda key, data: "2" if data.endswith(b"changed\n") else "1"),
        Bucket(etag=lambda key, data: "1" if data.endswith(b"changes\n") else "2"),
        Bucket(etag=lambda key, data: "" if data.endswith(b"changes\n") else "etag"),
        Bucket(etag=by_content("1"), tell=lambda where, etag: "2" if where == "listing" and etag == "1" else etag),
        Bucket(etag=by_content("")),
        Bucket(tell=other_at("answer")),
        Bucket(tell=other_at("head")),
        Bucket(tell=other_at("listing")),
        Bucket(tell=none_at("head")),
        Bucket(tell=none_at("listing")),
        Bucket(tell=none_at("answer", "head", "listing")),
        Bucket(refuses=Permanent("not allowed")),
        Bucket(refuses=Conflict("PutObject failed: ObjectUnderRetention (409)")),
        Bucket(refuses=CredentialsRefused("not allowed", endpoint="store")),
    ],
    ids=["of-key", "of-length", "constant", "counts", "counts-down", "only-of-the-second", *map(str, range(11))],
)
def test_one_that_does_not_is_not_believed(bucket: Bucket) -> None:
    """One that counts what was put under a key is the same again once that was deleted and something else put there."""
    assert not changes(bucket)


@pytest.mark.parametrize("error", [Throttled("slow"), OutOfReach("no answer", endpoint="store")])
def test_trouble_with_an_overwriting_is_no_answer(error: Exception) -> None:
    with pytest.raises(type(error)):
        changes(Bucket(refuses=error))


def test_a_key_of_the_probe_that_is_taken_already_is_trouble() -> None:
    """By an attempt of its own whose answer was lost: the place is used up, and another one tells."""

    class Taken(Bucket):
        def put_object(self, Key: str, Body: bytes, ChecksumSHA256: str, IfNoneMatch: str = "") -> dict[str, str]:
            if Key.endswith("changing"):
                raise Conflict("PutObject failed: PreconditionFailed (412)")
            return super().put_object(Key, Body, ChecksumSHA256, IfNoneMatch)

    with pytest.raises(Conflict):
        changes(Taken())


@pytest.mark.parametrize(
    "tell",
    [other_at("answer"), other_at("head"), other_at("listing"), none_at("answer", "head", "listing")],
)
def test_an_etag_that_is_not_the_same_everywhere_is_not_believed(tell: Any) -> None:
    assert not of(Bucket(tell=tell))._plain_put().etag_is_shown


@pytest.mark.parametrize(
    ("bucket", "lists"),
    [
        (Bucket(), True),
        (Bucket(version=lambda where: None), False),
        (Bucket(version=lambda where: where), False),
        (Bucket(tell=other_at("versions")), False),
        (Bucket(denies_versions=True), False),
    ],
)
def test_a_store_that_shows_which_version_is_current_is_found_out(bucket: Bucket, lists: bool) -> None:
    assert of(bucket)._plain_put().is_listed_by_version is lists
