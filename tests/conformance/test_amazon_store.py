"""The S3 store at Amazon: as Amazon's documentation has it (`tests/servers/amazon`), by Amazon's own names."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from botocore.credentials import Credentials

from dicomwatchd.archive.proof import evidence
from dicomwatchd.archive.proof.verification import verify
from dicomwatchd.archive.stores.port import Receipt
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.config.archive import Encryption, S3Settings
from dicomwatchd.errors import CredentialsRefused, Stopping
from tests.conformance.test_store import KEY, MIB, Source, bytes_of
from tests.conformance.test_store_s3 import Switch, counted
from tests.servers.amazon import Amazon
from tests.unit.memory_archive import SERIES, MemoryStore, archive, content

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = "radiology/"
BIG: Any = {"single_put_bytes": 4 * MIB, "part_bytes": 5 * MIB}
FRANKFURT = "eu-central-1"
PROBED_PARTS = 6  # of the probe that comes with `Place.ready`


class Place:
    """An archive in a bucket at Amazon. ``s3`` is boto3, for what others do there."""

    def __init__(self, amazon: Amazon, bucket: str, *, kms: bool = True) -> None:
        self.amazon = amazon
        self.bucket = bucket
        self.s3: S3Client = amazon.s3(request_checksum_calculation="when_required")
        self.kms_key = amazon.keys.create("alias/dicom") if kms else None
        self.settings = S3Settings(
            kind="s3",
            bucket=bucket,
            prefix=PREFIX,
            region="us-east-1",
            insecure_http=False,
            ca_file=amazon.ca_file,
            encryption=Encryption(mode="aws:kms", key_id=self.kms_key) if kms else Encryption(mode="AES256"),
        )
        self._opened: list[S3Store] = []

    def open(self, **options: Any) -> S3Store:
        settings = options.pop("settings", self.settings)
        self._opened.append(S3Store(settings, **{"connections": 8, **options}))
        return self._opened[-1]

    def ready(self, **options: Any) -> S3Store:
        """Initialised and probed."""
        store = self.open(**options)
        store.initialise()
        store.probe("probe/fixture/")
        return store

    def of(self, key: str) -> dict[str, Any]:
        return {"Bucket": self.bucket, "Key": PREFIX + key}

    def close(self) -> None:
        for store in self._opened:
            store.close()
        self.s3.close()


@pytest.fixture
def at_amazon(amazon: Amazon, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Place]]:
    for name, value in amazon.env().items():
        monkeypatch.setenv(name, value)
    made: list[Place] = []

    def make(**options: Any) -> Place:
        made.append(Place(amazon, bucket, **options))
        return made[-1]

    yield make
    for place in made:
        place.close()
    amazon.keys.without_use.clear()


@pytest.fixture
def place(at_amazon: Callable[..., Place]) -> Place:
    """Under SSE-KMS."""
    return at_amazon()


def examined(store: S3Store, *receipts: Receipt) -> list[evidence.Verdict]:
    return list(evidence.examine(store, receipts, now=time.time))


# -- what the current version is ------------------------------------------------------------------------------------


def test_a_study_that_was_copied_in_place_is_verified_by_what_is_current(place: Place) -> None:
    """The batch copy of operations.md makes a new version of each object, and a rule ends the old ones."""
    store, model = place.ready(), MemoryStore()
    study = archive(model, [(SERIES, f"1.2.{n}", content(n)) for n in range(3)])
    receipts = {item.key: store.put(item.key, Source(model.versions[item.key][0])) for item in study.instances}
    items = [replace(item, version_id=receipts[item.key].version_id) for item in study.instances]
    study = replace(study, instances=tuple(items))
    assert all(item.version_id for item in study.instances)
    key = place.amazon.keys.create("alias/next")
    for item in study.instances:
        source: Any = place.of(item.key)
        place.s3.copy_object(**source, CopySource=source, ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    for deep in (False, True):
        assert verify(store, study, deep=deep).holds
    for item in study.instances:
        place.s3.delete_object(**place.of(item.key), VersionId=item.version_id or "")
    for deep in (False, True):
        assert verify(store, study, deep=deep).holds
    spoilt = study.instances[1]
    place.s3.put_object(**place.of(spoilt.key), Body=bytes(spoilt.size_bytes))
    for deep in (False, True):
        found = verify(store, study, deep=deep)
        assert not found.holds and [problem.key for problem in found.problems] == [spoilt.key]


# -- interface endpoints ---------------------------------------------------------------------------------------------


def test_a_bucket_is_made_through_an_interface_endpoint(place: Place) -> None:
    endpoint = place.amazon.interface_endpoint(FRANKFURT)
    settings = place.settings.model_copy(update={"endpoint_url": endpoint, "region": FRANKFURT})
    store = place.open(settings=settings)
    done = {step.what: step.outcome for step in store.initialise()}
    assert (done["bucket"], done["versioning"]) == ("created", "set")
    there = place.amazon.s3(FRANKFURT)
    assert there.get_bucket_location(Bucket=place.bucket)["LocationConstraint"] == FRANKFURT
    assert there.get_bucket_versioning(Bucket=place.bucket)["Status"] == "Enabled"
    store.probe("probe/fixture/")
    receipt = store.put(KEY, Source(b"small"))
    assert bytes_of(store, KEY) == b"small" and receipt.version_id


# -- multipart under SSE-KMS -----------------------------------------------------------------------------------------


def test_a_large_object_under_kms_is_proven_without_reading_it_back(place: Place) -> None:
    store = place.ready(**BIG)
    receipt = store.put(KEY, Source(bytes(range(256)) * (12 * MIB // 256)))
    place.amazon.forget()
    (verdict,) = examined(store, receipt)
    assert (verdict.holds, verdict.verified_by) == (True, evidence.Method.CHECKSUM)
    assert "GetObject" not in place.amazon.requests()


def test_a_store_that_keeps_checksums_of_parts_is_found_out(place: Place) -> None:
    found = place.ready().capabilities
    assert (found.etag_is_content, found.checksum_on_head, found.checksum_of_parts) == (False, True, True)
    assert (found.etag_follows_content, found.echoes_checksum, found.lists_versions) == (True, True, True)
    assert not found.etag_follows_parts, "under KMS the ETag of parts is composed of nothing that is known"
    assert found.details["wrong SHA-256 checksum of a part"] == "refused"
    assert found.details["HEAD gives the SHA-256 of parts"] == "yes"


def test_where_the_etag_follows_the_parts_no_md5_is_worked_out(at_amazon: Callable[..., Place]) -> None:
    place = at_amazon(kms=False)
    store = place.ready(**BIG)
    receipt = store.put(KEY, Source(bytes(9 * MIB)))
    assert receipt.expected_checksum is not None and receipt.expected_etag is None
    (verdict,) = examined(store, receipt)
    assert (verdict.holds, verdict.verified_by) == (True, evidence.Method.ANSWERED_ETAG)


def test_a_large_object_that_is_there_is_proven_by_its_checksum_too(place: Place) -> None:
    store = place.ready(**BIG)
    first = store.put(KEY, Source(bytes(9 * MIB)))
    again = store.put(KEY, Source(bytes(9 * MIB)))
    assert not again.created and again.expected_checksum == first.expected_checksum
    assert [verdict.verified_by for verdict in examined(store, again)] == [evidence.Method.CHECKSUM]


def test_other_bytes_under_the_key_are_found_out(place: Place) -> None:
    store = place.ready(**BIG)
    receipt = store.put(KEY, Source(bytes(9 * MIB)))
    place.s3.put_object(**place.of(KEY), Body=b"x" * 9 * MIB)
    (verdict,) = examined(store, receipt)
    assert (verdict.holds, verdict.problem) == (False, "content")


def test_an_upload_with_checksums_goes_on_at_the_part_it_had_reached(place: Place) -> None:
    data = bytes(range(256)) * (14 * MIB // 256)
    store = place.ready(**BIG, stopping=Switch(2))
    with pytest.raises(Stopping):
        store.put(KEY, Source(data))
    place.amazon.forget()
    later = place.ready(**BIG)
    receipt = later.put(KEY, Source(data))
    asked = place.amazon.requests()
    assert asked.count("UploadPart") < 3 + PROBED_PARTS
    assert [verdict.verified_by for verdict in examined(later, receipt)] == [evidence.Method.CHECKSUM]


@pytest.mark.parametrize("with_checksums", [False, True])
def test_an_upload_that_was_begun_otherwise_is_not_gone_on_with(place: Place, with_checksums: bool) -> None:
    """Amazon takes parts with a checksum where the upload was begun with that algorithm, and there alone."""
    store = place.ready(**BIG)
    begun: Any = {} if with_checksums else {"ChecksumAlgorithm": "SHA256"}
    place.s3.create_multipart_upload(
        **place.of(KEY), ServerSideEncryption="aws:kms", SSEKMSKeyId=place.kms_key or "", **begun
    )
    if not with_checksums:
        store._capabilities = replace(store.capabilities, checksum_of_parts=False)
    receipt = store.put(KEY, Source(bytes(9 * MIB)))
    assert (receipt.expected_checksum is not None) is with_checksums
    (verdict,) = examined(store, receipt)
    assert verdict.holds


def test_the_fast_path_sends_the_checksums_of_parts(place: Place) -> None:
    """As at an interface endpoint with a private name, which is reached without botocore."""
    settings = place.settings.model_copy(update={"endpoint_url": place.amazon.direct_endpoint})
    store = place.ready(**BIG, settings=settings)
    assert store.capabilities.checksum_of_parts
    receipt = store.put(KEY, Source(bytes(9 * MIB)))
    assert [verdict.verified_by for verdict in examined(store, receipt)] == [evidence.Method.CHECKSUM]


# -- evidence without a request an object ----------------------------------------------------------------------------


def test_a_series_under_kms_with_versions_is_proven_by_one_listing(place: Place) -> None:
    store = place.ready()
    keys = [f"studies/1.2/series/1.2.3/1.2.3.{n}/{n:064}.dcm" for n in range(30)]
    receipts = [store.put(key, Source(b"object %d" % n)) for n, key in enumerate(keys)]
    place.amazon.forget()
    found = examined(store, *receipts)
    assert {(verdict.holds, verdict.verified_by) for verdict in found} == {(True, evidence.Method.ANSWERED_ETAG)}
    assert place.amazon.requests() == ["ListObjectVersions"]
    assert [verdict.seen.version_id for verdict in found if verdict.seen] == [one.version_id for one in receipts]


def test_what_somebody_has_put_over_an_object_or_deleted_of_such_a_series_is_seen(place: Place) -> None:
    store = place.ready()
    keys = [f"studies/1.2/series/1.2.3/1.2.3.{n}/{n:064}.dcm" for n in range(12)]
    receipts = {key: store.put(key, Source(b"object %02d" % n)) for n, key in enumerate(keys)}
    place.s3.put_object(**place.of(keys[1]), Body=b"object 00")
    same = place.s3.put_object(**place.of(keys[2]), Body=b"object 02")
    place.s3.delete_object(**place.of(keys[3]))
    found = {verdict.receipt.key: verdict for verdict in examined(store, *receipts.values())}
    assert {key: verdict.problem for key, verdict in found.items() if not verdict.holds} == {
        keys[1]: "content",
        keys[3]: "missing",
    }
    seen = found[keys[2]].seen
    assert seen is not None and seen.version_id == same["VersionId"], (
        "the same bytes again: that is what is current now"
    )
    assert found[keys[2]].verified_by == evidence.Method.READ_BACK


@pytest.mark.parametrize("by_botocore", [False, True])
def test_versions_are_listed_page_by_page(place: Place, monkeypatch: pytest.MonkeyPatch, by_botocore: bool) -> None:
    store = place.ready()
    keys = [f"studies/1.2/series/1.2.3/1.2.3.{n:02}/{n:064}.dcm" for n in range(7)]
    for key in keys:
        for _ in range(3):
            place.s3.put_object(**place.of(key), Body=b"object")
    place.s3.delete_object(**place.of(keys[4]))
    two_at_a_time: Any = lambda params, **_: {**params, "MaxKeys": 2}  # noqa: E731
    data_plane = store._data_plane
    assert data_plane is not None
    if by_botocore:
        store._data_plane = None
        store._bucket.client.meta.events.register("provide-client-params.s3.ListObjectVersions", two_at_a_time)
    else:
        listing = data_plane.listing
        monkeypatch.setattr(data_plane, "listing", lambda query: listing({**query, "max-keys": "2"}))
        monkeypatch.setattr(store._bucket.client, "list_object_versions", None)  # nobody asks it
    found = [seen and seen.key for seen in store.current_versions("studies/")]
    assert [key for key in found if key] == [key for key in keys if key != keys[4]]
    assert found.count(None) == 7 * 3 + 1 - 6
    for seen in store.current_versions("studies/"):
        if seen is not None:
            looked_at = store.head(seen.key)
            assert looked_at is not None and seen.version_id == looked_at.version_id and seen.etag == looked_at.etag


def test_who_may_not_list_versions_asks_for_each_object(place: Place) -> None:
    store = place.ready()
    store._capabilities = replace(store.capabilities, lists_versions=False)
    keys = [f"studies/1.2/series/1.2.3/1.2.3.{n}/{n:064}.dcm" for n in range(9)]
    receipts = [store.put(key, Source(b"object")) for key in keys]
    place.amazon.forget()
    assert all(verdict.holds for verdict in examined(store, *receipts))
    assert place.amazon.requests() == ["HeadObject"] * 9


# -- Object Lock -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kms", [False, True])
def test_a_bucket_with_object_lock_takes_an_archive(at_amazon: Callable[..., Place], kms: bool) -> None:
    place = at_amazon(kms=kms)
    place.s3.create_bucket(Bucket=place.bucket, ObjectLockEnabledForBucket=True)
    retention: Any = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    place.s3.put_object_lock_configuration(
        Bucket=place.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention}
    )
    store = place.ready(**BIG)
    assert store.capabilities.creates_only
    big = "studies/1.2/series/1.2.3/1.2.3.5/" + "0" * 64 + ".dcm"
    receipts = [store.put(KEY, Source(b"small")), store.put(big, Source(bytes(9 * MIB)))]
    place.amazon.forget()
    assert all(verdict.holds for verdict in examined(store, *receipts))
    assert "GetObject" not in place.amazon.requests()


# -- Bucket Keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [10, 9 * MIB])
def test_objects_are_sent_with_a_bucket_key(place: Place, size_bytes: int) -> None:
    place.s3.create_bucket(Bucket=place.bucket)  # without a default encryption
    store = place.open(**BIG)
    assert store.probe("probe/fixture/").details["S3 Bucket Key"] == "yes"
    store.put(KEY, Source(bytes(size_bytes)))
    assert place.s3.head_object(**place.of(KEY))["BucketKeyEnabled"] is True


@pytest.mark.parametrize("url", ["interface", "direct"])
def test_another_endpoint_gets_a_bucket_key_if_it_is_amazons(place: Place, url: str) -> None:
    place.s3.create_bucket(Bucket=place.bucket)
    endpoint = place.amazon.interface_endpoint() if url == "interface" else place.amazon.direct_endpoint
    store = place.open(settings=place.settings.model_copy(update={"endpoint_url": endpoint}))
    found = store.probe("probe/fixture/").details.get("S3 Bucket Key")
    store.put(KEY, Source(b"small"))
    sent = place.s3.head_object(**place.of(KEY)).get("BucketKeyEnabled")
    assert (found, sent) == (("yes", True) if url == "interface" else (None, None))


def test_the_fast_path_sends_a_bucket_key(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.s3.create_bucket(Bucket=place.bucket)
    monkeypatch.setattr("dicomwatchd.archive.aws.clients.is_amazon", lambda _: True)
    store = place.open(settings=place.settings.model_copy(update={"endpoint_url": place.amazon.direct_endpoint}))
    store.probe("probe/fixture/")
    with counted(store) as sent:
        store.put(KEY, Source(b"small"))
    assert "PutObject" not in sent
    assert place.s3.head_object(**place.of(KEY))["BucketKeyEnabled"] is True


def test_a_default_encryption_without_a_bucket_key_is_told_of(place: Place) -> None:
    place.s3.create_bucket(Bucket=place.bucket)
    by_default: Any = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": place.kms_key}
    rule: Any = {"ApplyServerSideEncryptionByDefault": by_default, "BucketKeyEnabled": False}
    place.s3.put_bucket_encryption(Bucket=place.bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    (step,) = [step for step in place.open().initialise() if step.what == "default encryption"]
    assert step.outcome == "present" and "without an S3 Bucket Key" in step.detail
    [kept] = place.s3.get_bucket_encryption(Bucket=place.bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert kept == rule, "what others have set there is left alone"


def test_init_sets_a_default_encryption_with_a_bucket_key(place: Place) -> None:
    for outcome in ("set", "present"):
        (step,) = [step for step in place.open().initialise() if step.what == "default encryption"]
        assert (step.outcome, step.detail) == (outcome, "")
    [kept] = place.s3.get_bucket_encryption(Bucket=place.bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert kept["BucketKeyEnabled"] is True


# -- an object that may not be decrypted ------------------------------------------------------------------------------


def test_an_object_that_may_not_be_decrypted_concerns_itself_alone(place: Place) -> None:
    store = place.ready()
    other = "studies/1.3/series/1.2.3/1.2.3.5/" + "0" * 64 + ".dcm"
    old = place.amazon.keys.create("alias/old")
    sent: Any = place.of(KEY)
    sha256 = base64.b64encode(hashlib.sha256(b"old").digest()).decode()
    place.s3.put_object(**sent, Body=b"old", ServerSideEncryption="aws:kms", SSEKMSKeyId=old, ChecksumSHA256=sha256)
    place.amazon.keys.without_use.add(old)
    fine = store.put(other, Source(b"new"))
    kept = Receipt(
        KEY,
        3,
        hashlib.sha256(b"old").hexdigest(),
        False,
        expected_checksum="sha256:" + hashlib.sha256(b"old").hexdigest(),
    )
    found = {verdict.receipt.key: (verdict.holds, verdict.problem) for verdict in examined(store, kept, fine)}
    assert found == {KEY: (False, "unreadable"), other: (True, "")}
    seen = store.head(KEY)
    assert seen is not None and (seen.size_bytes, seen.is_withheld, seen.checksum) == (3, True, None)
    readable = store.head(other)
    assert readable is not None and not readable.is_withheld and readable.checksum is not None


def test_a_series_whose_key_was_disabled_since_it_was_sent_is_not_proven_by_a_listing(place: Place) -> None:
    """ETags stay as they were, and a listing does not tell what may be decrypted: local files that were kept until now
    are the only ones that anybody can still read."""
    sending = place.ready()
    keys = [f"studies/1.2/series/1.2.3/1.2.3.{n}/{n:064}.dcm" for n in range(12)]
    receipts = [sending.put(key, Source(b"object %02d" % n)) for n, key in enumerate(keys)]
    assert all(receipt.answered_etag and receipt.encryption == "aws:kms" for receipt in receipts)
    place.amazon.keys.without_use.add(place.kms_key or "")
    following = Encryption(mode="aws:kms", key_id=place.amazon.keys.create("alias/following"))
    store = place.open(settings=place.settings.model_copy(update={"encryption": following}))
    store.probe("probe/fixture/")
    assert store.capabilities.etag_follows_content and store.capabilities.lists_versions
    an_hour_later = time.time() + 3600
    found = list(evidence.examine(store, receipts, now=lambda: an_hour_later))
    assert {(verdict.holds, verdict.problem) for verdict in found} == {(False, "unreadable")}


@pytest.mark.parametrize("times", [1, 2])
def test_credentials_that_are_refused_concern_everything(
    place: Place, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal without a reason (HEAD) is never taken for one object's, if the next look is refused, too."""
    store = place.ready()
    receipt = store.put(KEY, Source(b"new"))
    store._bucket.client.meta.events.register_first("before-sign.s3", _unknown_key)
    assert store._data_plane is not None
    monkeypatch.setattr(store._data_plane, "_credentials", STRANGER.get_frozen_credentials)
    with pytest.raises(CredentialsRefused) as refused:
        examined(store, *[receipt] * times)
    assert refused.value.endpoint is not None
    with pytest.raises(CredentialsRefused):
        store.head(KEY)


STRANGER = Credentials("AKIASTRANGER", "another secret")


def _unknown_key(request: Any, request_signer: Any, **_: Any) -> None:
    request_signer._credentials = STRANGER


# -- what is there already --------------------------------------------------------------------------------------------


def test_a_study_that_is_there_is_not_sent_again(place: Place) -> None:
    """As after a state was lost; what comes anew among it is sent, and all of it is proven as ever."""
    objects = {f"studies/1.2/series/1.2.3/1.2.3.{n}/{n:064}.dcm": b"object %d" % n for n in range(12)}
    first = place.ready()
    sent = {key: first.put(key, Source(data)) for key, data in objects.items()}
    store = place.open()
    store.probe("probe/fixture/")
    new = {"studies/1.2/series/1.2.3/1.2.3.99/" + "9" * 64 + ".dcm": b"new"}
    place.amazon.forget()
    receipts = [store.put(key, Source(data)) for key, data in [*list(objects.items())[:6], *new.items()]]
    receipts += [store.put(key, Source(data)) for key, data in list(objects.items())[6:]]
    asked = place.amazon.requests()
    assert asked.count("PutObject") == 3, "the first, the new one, and the one that comes after that"
    assert asked.count("HeadObject") == 13
    assert [receipt.created for receipt in receipts] == [False] * 6 + [True] + [False] * 6
    for receipt in receipts:
        if not receipt.created:
            assert replace(receipt, created=True, expected_etag=None) == sent[receipt.key]
    place.amazon.forget()
    assert all(verdict.holds for verdict in examined(store, *receipts))
    assert place.amazon.requests() == ["ListObjectVersions"]


def test_other_bytes_under_a_key_that_is_likely_taken_are_found_out(place: Place) -> None:
    store = place.ready()
    keys = [f"studies/1.2/series/1.2.3/1.2.3.{n}/{n:064}.dcm" for n in range(3)]
    for key in keys:
        place.s3.put_object(
            **place.of(key), Body=b"others", ServerSideEncryption="aws:kms", SSEKMSKeyId=place.kms_key or ""
        )
    receipts = [store.put(key, Source(b"object")) for key in keys]
    found = {(verdict.holds, verdict.problem) for verdict in examined(store, *receipts)}
    assert found == {(False, "content")}
