"""What only the S3 store does: parts, resuming, encryption, the probe, the bucket. Against a real Ceph gateway."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, cast

import botocore.exceptions
import pytest

from dicomwatchd.archive.proof import evidence
from dicomwatchd.archive.stores.budget import ByteBudget
from dicomwatchd.archive.stores.port import Buffer, Receipt
from dicomwatchd.archive.stores.s3.multipart import part_size
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.config.archive import Encryption
from dicomwatchd.errors import (
    ArchiveRefused,
    DicomwatchdError,
    OutOfReach,
    Permanent,
    SourceChanged,
    Stopping,
    Transient,
)
from tests.conformance.conftest import PREFIX, BucketPlace
from tests.conformance.test_store import KEY, MIB, Source, bytes_of
from tests.servers.ceph import KMS_KEY_ID, CephRgw

PARTS: dict[str, Any] = {"single_put_bytes": 4 * MIB, "part_bytes": 5 * MIB}


@contextmanager
def counted(store: S3Store) -> Iterator[list[str]]:
    """The operations that the store sends, in the order they were signed; retries of one count each."""
    sent: list[str] = []
    events = store._bucket.client.meta.events

    def note(operation_name: str, **_: object) -> None:
        sent.append(operation_name)

    events.register("before-sign.s3", note)
    yield sent
    events.unregister("before-sign.s3", note)


class Switch:
    """Says stop after it has been asked ``after`` times."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


# -- parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("follows", [False, True])
def test_a_big_file_goes_in_parts_and_its_etag_is_foretold(s3: BucketPlace, follows: bool) -> None:
    store = s3.open(**PARTS, with_fast_path=False)
    found = store.probe("probe/x/")
    assert found.etag_is_content and found.etag_follows_parts
    store._capabilities = replace(found, etag_follows_parts=follows)
    data = os.urandom(40 * MIB + 7)
    with counted(store) as sent:
        receipt = store.put(KEY, Source(data))
    assert (receipt.created, sent.count("UploadPart")) == (True, 9)
    seen = store.head(KEY)
    assert seen is not None
    assert (seen.size_bytes, seen.etag) == (len(data), receipt.known_etag)
    assert receipt.known_etag is not None and receipt.known_etag.endswith("-9")
    assert (receipt.answered_etag is not None, receipt.expected_etag is not None) == (follows, not follows)
    assert receipt.encryption == seen.encryption == ("aws:kms" if s3.tls else None)
    assert hashlib.sha256(bytes_of(store, KEY)).hexdigest() == receipt.sha256
    [verdict] = evidence.examine(store, [receipt])
    assert (verdict.holds, verdict.verified_by) == (True, "etag-answered" if follows else "etag-md5")
    assert s3.unfinished() == []


def test_a_stopped_upload_goes_on_at_the_part_it_had_reached(s3: BucketPlace) -> None:
    data = os.urandom(40 * MIB)
    stopped = s3.open(**PARTS, stopping=Switch(after=3))
    with pytest.raises(Stopping):
        stopped.put(KEY, Source(data))
    assert stopped.head(KEY) is None
    assert s3.unfinished() == [KEY]
    [upload] = s3.client.list_multipart_uploads(Bucket=s3.bucket)["Uploads"]
    arrived = s3.client.list_parts(Bucket=s3.bucket, Key=PREFIX + KEY, UploadId=upload["UploadId"])["Parts"]
    assert 1 <= len(arrived) <= 3
    resumed = s3.open(**PARTS, with_fast_path=False)
    with counted(resumed) as sent:
        receipt = resumed.put(KEY, Source(data))
    assert receipt.created
    assert (sent.count("UploadPart"), sent.count("CreateMultipartUpload")) == (8 - len(arrived), 0)
    assert bytes_of(resumed, KEY) == data
    assert s3.unfinished() == []


def test_parts_of_other_bytes_or_sizes_are_sent_again(s3: BucketPlace) -> None:
    data = os.urandom(20 * MIB)
    damaged = data[: 2 * MIB] + b"?" + data[2 * MIB + 1 :]
    other_sizes = s3.open(single_put_bytes=4 * MIB, part_bytes=6 * MIB, stopping=Switch(after=3))
    with pytest.raises(Stopping):
        other_sizes.put(KEY, Source(data))
    other_bytes = s3.open(**PARTS, stopping=Switch(after=3))
    with pytest.raises(Stopping):
        other_bytes.put(KEY, Source(damaged, claimed=data))
    store = s3.open(**PARTS)
    receipt = store.put(KEY, Source(data))
    assert receipt.created
    assert bytes_of(store, KEY) == data
    assert store.probe("probe/x/").etag_is_content
    [verdict] = evidence.examine(store, [receipt])
    assert verdict.verified_by == "etag-md5"


def test_a_big_file_that_is_there_is_not_sent_again(s3: BucketPlace) -> None:
    store = s3.open(**PARTS)
    data = os.urandom(11 * MIB)
    first = store.put(KEY, Source(data))
    with counted(store) as sent:
        again = store.put(KEY, Source(data))
    assert sent == ["HeadObject"]
    assert not again.created
    assert (again.expected_etag, again.version_id) == (first.expected_etag, first.version_id)
    other = store.put(KEY, Source(os.urandom(11 * MIB)))
    assert not other.created
    assert bytes_of(store, KEY) == data
    [verdict] = evidence.examine(store, [other])
    assert verdict.problem == "content"


def test_other_parts_of_the_same_bytes_are_no_damage(s3: BucketPlace) -> None:
    data = os.urandom(13 * MIB)
    s3.open(single_put_bytes=4 * MIB, part_bytes=6 * MIB).put(KEY, Source(data))
    store = s3.open(**PARTS)
    store.probe("probe/x/")
    receipt = store.put(KEY, Source(data))
    [verdict] = evidence.examine(store, [receipt])
    assert (verdict.holds, verdict.verified_by) == (True, "read-back")


def test_a_big_file_that_changes_leaves_no_upload_behind(s3: BucketPlace) -> None:
    class Changing(Source):
        def read(self, offset: int, length: int) -> bytes:
            data = super().read(offset, length)
            return data if offset < 10 * MIB else data[:-1] + b"?"

    store = s3.open(**PARTS)
    with pytest.raises(SourceChanged):
        store.put(KEY, Changing(b"x" * (21 * MIB)))
    assert store.head(KEY) is None
    assert s3.unfinished() == []


def test_two_that_send_one_big_file_at_once_do_each_other_no_harm(s3: BucketPlace) -> None:
    data = os.urandom(24 * MIB)
    stopped = s3.open(**PARTS, stopping=Switch(after=2))
    with pytest.raises(Stopping):
        stopped.put(KEY, Source(data))
    outcomes: list[Receipt | DicomwatchdError] = []

    def send() -> None:
        try:
            outcomes.append(s3.open(**PARTS).put(KEY, Source(data)))
        except DicomwatchdError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any(isinstance(outcome, Receipt) for outcome in outcomes)
    assert all(isinstance(outcome, Receipt | Transient) for outcome in outcomes)
    again = s3.open(**PARTS)
    receipt = again.put(KEY, Source(data))
    assert not receipt.created
    assert bytes_of(again, KEY) == data


def test_several_big_files_share_one_budget(s3: BucketPlace) -> None:
    out = [0]
    most = [0]
    lock = threading.Lock()

    class Watched(Source):
        def read(self, offset: int, length: int) -> bytes:
            with lock:
                out[0] += length
                most[0] = max(most[0], out[0] - store_sent[0])
            return super().read(offset, length)

    class Counting(ByteBudget):
        def release(self, size_bytes: int) -> None:
            with lock:
                store_sent[0] += size_bytes
            super().release(size_bytes)

        def release_buffer(self, buffer: bytearray) -> None:
            with lock:
                store_sent[0] += len(buffer)
            super().release_buffer(buffer)

    store_sent = [0]
    store = s3.open(**PARTS, budget=Counting(12 * MIB))
    contents = [os.urandom(16 * MIB) for _ in range(3)]
    threads = [
        threading.Thread(target=store.put, args=(f"big/{number}", Watched(data)))
        for number, data in enumerate(contents)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [bytes_of(store, f"big/{number}") for number in range(3)] == contents
    assert 0 < most[0] <= 12 * MIB


@pytest.mark.parametrize("with_fast_path", [False, True])
def test_two_rooms_are_enough_for_any_number_of_parts(s3: BucketPlace, with_fast_path: bool) -> None:
    """Each room is filled several times: only once its part was sent."""
    rooms: dict[int, bytearray] = {}

    class Counting(ByteBudget):
        def buffer(self, size_bytes: int, stopping: Callable[[], bool]) -> bytearray:
            buffer = super().buffer(size_bytes, stopping)
            rooms[id(buffer)] = buffer
            return buffer

    store = s3.open(**PARTS, budget=Counting(10 * MIB), with_fast_path=with_fast_path)
    store.probe("probe/x/")
    data = os.urandom(41 * MIB)
    receipt = store.put(KEY, Source(data))
    assert sorted(map(len, rooms.values())) == [MIB, 5 * MIB, 5 * MIB]
    assert bytes_of(store, KEY) == data
    [verdict] = evidence.examine(store, [receipt])
    assert (verdict.holds, verdict.verified_by) == (True, "etag-answered")


@pytest.mark.parametrize("way", ["sent", "there already", "unreadable", "changed", "refused", "stopped"])
def test_whatever_becomes_of_a_big_file_its_rooms_are_given_back(s3: BucketPlace, way: str) -> None:
    class Broken(Source):
        def read(self, offset: int, length: int) -> bytes:
            if way == "unreadable" and offset > 10 * MIB:
                raise SourceChanged("gone")
            return super().read(offset, length)

    data = os.urandom(21 * MIB)
    if way == "there already":
        s3.open(**PARTS).put(KEY, Source(data))
    budget = ByteBudget(20 * MIB)
    settings = s3.settings
    if way == "refused":
        settings = settings.model_copy(update={"encryption": Encryption(mode="aws:kms", key_id="no-such-key")})
    stopping = Switch(after=2) if way == "stopped" else Switch(after=1000)
    store = s3.open(**PARTS, budget=budget, settings=settings, stopping=stopping)
    with suppress(DicomwatchdError):
        store.put(KEY, Broken(data, claimed=data[:-1] + b"?" if way == "changed" else data))
    assert (budget._out, budget._spare) == (0, [])


def test_parts_keep_to_the_limits_of_s3() -> None:
    for size_bytes in (17 * MIB, 6 * 10**9, 160 * 2**30, 2**40, 5 * 2**40):
        part_bytes = part_size(size_bytes, 16 * MIB)
        assert part_bytes == part_size(size_bytes, 16 * MIB)
        assert -(-size_bytes // part_bytes) <= 10_000
        assert part_bytes % MIB == 0


# -- one piece ------------------------------------------------------------------------------------------------------


def test_a_small_file_takes_one_request_and_leaves_no_transfer_coding(s3: BucketPlace) -> None:
    store = s3.open(with_fast_path=False)
    store.probe("probe/x/")
    headers: list[Any] = []
    store._bucket.client.meta.events.register(
        "before-send.s3.PutObject", lambda request, **_: headers.append(dict(request.headers.items()))
    )
    with counted(store) as sent:
        store.put(KEY, Buffer.of(b"content"))
    assert sent == ["PutObject"]
    [sent_headers] = headers
    assert "Expect" not in sent_headers
    assert {"x-amz-checksum-sha256", "If-None-Match"} <= set(sent_headers)
    signed = hashlib.sha256(b"content").hexdigest().encode()
    assert sent_headers["X-Amz-Content-SHA256"] == signed, "over https too"
    kept = s3.client.head_object(Bucket=s3.bucket, Key=PREFIX + KEY)
    assert not kept.get("ContentEncoding")
    assert kept["ContentType"] == "application/dicom"
    assert kept["Metadata"] == {}
    if s3.tls:
        assert (kept["ServerSideEncryption"], kept["SSEKMSKeyId"]) == ("aws:kms", KMS_KEY_ID)


def test_what_is_in_memory_goes_in_one_piece_whatever_its_size(s3: BucketPlace) -> None:
    store = s3.open(**PARTS, with_fast_path=False)
    store.probe("probe/x/")
    with counted(store) as sent:
        assert store.put("studies/1/manifests/00000001.json", Buffer.of(b"x" * (9 * MIB))).created
    assert sent == ["PutObject"]


def test_a_body_that_ends_early_is_no_content(s3: BucketPlace) -> None:
    """The server is made to promise more than it sends: the answer's length is raised on the way in."""
    store = s3.open(with_fast_path=False)
    store.put(KEY, Buffer.of(b"x" * 1000))

    def promise_more(parsed: Any, **_: object) -> None:
        parsed["ContentLength"] = 2000

    store._bucket.client.meta.events.register("after-call.s3.GetObject", promise_more)
    with pytest.raises(OutOfReach):
        bytes_of(store, KEY)


@contextmanager
def answer_lost(store: S3Store, operation: str) -> Iterator[None]:
    """The server does the work, and its answer never arrives."""

    def lose(**_: object) -> None:
        raise botocore.exceptions.ConnectionClosedError(endpoint_url="lost")

    events = store._bucket.client.meta.events
    events.register(f"after-call.s3.{operation}", lose)
    yield
    events.unregister(f"after-call.s3.{operation}", lose)


def test_a_lost_answer_to_a_small_file_is_no_loss(s3: BucketPlace) -> None:
    store = s3.open(with_fast_path=False)
    store.probe("probe/x/")
    with answer_lost(store, "PutObject"), pytest.raises(OutOfReach):
        store.put(KEY, Buffer.of(b"content"))
    receipt = store.put(KEY, Buffer.of(b"content"))
    assert not receipt.created
    [verdict] = evidence.examine(store, [receipt])
    assert verdict.holds


def test_a_lost_answer_to_the_completion_of_a_big_file_is_no_loss(s3: BucketPlace) -> None:
    store = s3.open(**PARTS)
    data = os.urandom(11 * MIB)
    with answer_lost(store, "CompleteMultipartUpload"):
        receipt = store.put(KEY, Source(data))
    assert not receipt.created  # by whom is not known; what it holds is for the verification
    assert bytes_of(store, KEY) == data
    assert store.probe("probe/x/").etag_is_content
    [verdict] = evidence.examine(store, [receipt])
    assert (verdict.holds, verdict.verified_by) == (True, "etag-md5")
    assert s3.unfinished() == []


def test_what_appears_under_the_key_while_parts_are_sent_stays(s3: BucketPlace) -> None:
    class Overtaken(Source):
        def read(self, offset: int, length: int) -> bytes:
            if offset:
                s3.overwrite(KEY, b"another's")
            return super().read(offset, length)

    store = s3.open(**PARTS)
    receipt = store.put(KEY, Overtaken(os.urandom(9 * MIB)))
    assert not receipt.created
    assert bytes_of(store, KEY) == b"another's"
    assert s3.unfinished() == []


@pytest.mark.parametrize("operation", ["PutObject", "CompleteMultipartUpload", "UploadPart", "CreateMultipartUpload"])
def test_an_answer_without_the_encryption_asked_for_is_refused(
    rgw_place: Callable[[bool], BucketPlace], operation: str
) -> None:
    """The gateway's own answer to CompleteMultipartUpload has none: there HEAD has the say."""
    place = rgw_place(True)
    place.open().initialise()
    store = place.open(**PARTS, with_fast_path=False)

    def forget(parsed: Any, **_: object) -> None:
        parsed.pop("ServerSideEncryption", None)

    looked_at = "HeadObject" if operation == "CompleteMultipartUpload" else operation
    store._bucket.client.meta.events.register(f"after-call.s3.{looked_at}", forget)
    content = Buffer.of(b"x") if operation == "PutObject" else Source(b"x" * (9 * MIB))
    with pytest.raises(ArchiveRefused):
        store.put(KEY, content)
    assert place.unfinished() == []


# -- encryption -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encryption", [Encryption(mode="aws:kms", key_id="no-such-key"), Encryption(mode="AES256")])
def test_encryption_that_cannot_be_had_stores_nothing(s3: BucketPlace, encryption: Encryption) -> None:
    store = s3.open(settings=s3.settings.model_copy(update={"encryption": encryption}), **PARTS)
    for content in (Buffer.of(b"x"), Source(b"x" * (6 * MIB))):
        with pytest.raises(DicomwatchdError):
            store.put(KEY, content)
        assert s3.open().head(KEY) is None


@pytest.mark.parametrize("encryption", [Encryption(mode="aws:kms", key_id="no-such-key"), Encryption(mode="AES256")])
def test_a_store_that_cannot_encrypt_as_asked_is_refused_at_the_start(
    rgw_place: Callable[[bool], BucketPlace], encryption: Encryption
) -> None:
    place = rgw_place(True)
    place.open().initialise()
    store = place.open(settings=place.settings.model_copy(update={"encryption": encryption}))
    with pytest.raises(ArchiveRefused):
        store.probe("probe/x/")


@pytest.mark.parametrize("with_fast_path", [False, True])
@pytest.mark.parametrize("size_bytes", [10, 9 * MIB])
def test_what_is_there_from_before_the_encryption_was_asked_for_is_taken_as_it_is(
    rgw_place: Callable[[bool], BucketPlace], size_bytes: int, with_fast_path: bool
) -> None:
    """The setting was changed later: nothing that is archived can be encrypted anew, and all of it is still proven."""
    place = rgw_place(True)
    before = place.open(settings=place.settings.model_copy(update={"encryption": Encryption()}), **PARTS)
    place.client.create_bucket(Bucket=place.bucket)
    before.probe("probe/x/")
    data = os.urandom(size_bytes)
    assert before.put(KEY, Source(data)).created
    time.sleep(1.1)
    store = place.open(**PARTS, with_fast_path=with_fast_path)
    store.probe("probe/y/")
    receipt = store.put(KEY, Source(data))
    assert (receipt.created, receipt.encryption) == (False, None)
    [verdict] = evidence.examine(store, [receipt])
    assert verdict.holds


@pytest.mark.parametrize("with_fast_path", [False, True])
@pytest.mark.parametrize("size_bytes", [10, 9 * MIB])
def test_what_was_put_there_unencrypted_since_the_start_is_refused(
    rgw_place: Callable[[bool], BucketPlace], size_bytes: int, with_fast_path: bool
) -> None:
    """A store that stops to encrypt, and whose answer gets lost, has the object when it is sent once more."""
    place = rgw_place(True)
    place.open().initialise()
    store = place.open(**PARTS, with_fast_path=with_fast_path)
    store.probe("probe/x/")
    place.client.delete_bucket_encryption(Bucket=place.bucket)
    careless = place.open(settings=place.settings.model_copy(update={"encryption": Encryption()}), **PARTS)
    data = os.urandom(size_bytes)
    assert careless.put(KEY, Source(data)).encryption is None
    with pytest.raises(ArchiveRefused) as caught:
        store.put(KEY, Source(data))
    assert "since the start" in caught.value.message
    assert place.unfinished() == []
    store.probe("probe/y/")  # doctor, meanwhile: what was found is not forgotten
    with pytest.raises(ArchiveRefused):
        store.put(KEY, Source(data))


def test_what_another_daemon_has_put_there_encrypted_is_taken(s3: BucketPlace) -> None:
    stores = [s3.open(), s3.open()]
    for number, store in enumerate(stores):
        store.probe(f"probe/{number}/")
    assert [store.put(KEY, Buffer.of(b"x")).created for store in stores] == [True, False]


# -- the probe ------------------------------------------------------------------------------------------------------


def test_the_probe_finds_what_this_gateway_is_known_for(s3: BucketPlace) -> None:
    store = s3.open()
    found = store.probe("probe/x/")
    assert store.capabilities is found
    assert (found.etag_is_content, found.checksum_on_head, found.creates_only) == (True, False, True)
    assert found.details["wrong Content-MD5"] == "refused"
    assert found.details["wrong SHA-256 checksum"] == "accepted"
    assert found.details["body altered after signing"] == "refused"
    assert found.details["encryption"] == ("aws:kms" if s3.tls else "none reported")
    assert sum(item.size_bytes for item in store.listing("probe/")) < 2000
    assert s3.unfinished() == []


def test_the_probe_tells_a_bucket_whose_versions_undo_create_only(s3: BucketPlace) -> None:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    store = s3.open()
    assert not store.probe("probe/x/").creates_only
    store.put(KEY, Buffer.of(b"first"))
    assert not store.put(KEY, Buffer.of(b"second")).created
    assert bytes_of(store, KEY) == b"first"


def test_an_etag_that_only_repeats_what_was_sent_proves_nothing(s3: BucketPlace) -> None:
    """A store that took its ETag from our Content-MD5 would answer a PUT without one with some other ETag."""
    store = s3.open()

    def forge(parsed: Any, **_: object) -> None:
        parsed["ETag"] = '"d41d8cd98f00b204e9800998ecf8427e"'

    store._bucket.client.meta.events.register("after-call.s3.HeadObject", forge)
    found = store.probe("probe/x/")
    assert not found.etag_is_content
    assert found.details["ETag is the MD5"] == "no"


def test_a_store_that_forgets_the_encryption_is_refused(s3: BucketPlace) -> None:
    if not s3.tls:
        s3.settings = s3.settings.model_copy(update={"encryption": Encryption(mode="aws:kms", key_id=KMS_KEY_ID)})
    store = s3.open()
    for operation in ("PutObject", "HeadObject"):

        def forget(parsed: Any, **_: object) -> None:
            parsed.pop("ServerSideEncryption", None)

        store._bucket.client.meta.events.register(f"after-call.s3.{operation}", forget)
        with pytest.raises(ArchiveRefused):
            store.probe(f"probe/{operation}/")
        store._bucket.client.meta.events.unregister(f"after-call.s3.{operation}", forget)


# -- the bucket -----------------------------------------------------------------------------------------------------


def test_what_others_have_set_on_the_bucket_stays(s3: BucketPlace) -> None:
    client, name = s3.client, cast(Any, {"Bucket": s3.bucket})
    foreign: Any = {
        "Sid": "Foreign",
        "Effect": "Allow",
        "Principal": {"AWS": ["arn:aws:iam:::user/test"]},
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{s3.bucket}/public/*",
    }
    rule: Any = {"ID": "foreign", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 3}}
    client.put_bucket_policy(**name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [foreign]}))
    client.put_bucket_lifecycle_configuration(**name, LifecycleConfiguration={"Rules": [rule]})
    first = {step.what: step.outcome for step in s3.open().initialise()}
    second = {step.what: step.outcome for step in s3.open().initialise()}
    statements = json.loads(client.get_bucket_policy(**name)["Policy"])["Statement"]
    rules = client.get_bucket_lifecycle_configuration(**name)["Rules"]
    assert [s["Sid"] for s in statements] == (["Foreign", "DicomwatchdTlsOnly"] if s3.tls else ["Foreign"])
    assert {r["ID"] for r in rules} == {
        "foreign",
        f"dicomwatchd-abort-multipart {PREFIX}",
        f"dicomwatchd-probe-expiry {PREFIX}",
    }
    assert first["lifecycle of unfinished uploads and probe objects"] == "set"
    assert set(second.values()) <= {"present", "not supported"}


def test_a_rule_with_what_only_the_store_knows_is_left(s3: BucketPlace) -> None:
    """<ArchiveZone/>, of Ceph: sent back without it the rule would end objects in all zones."""
    client, name = s3.client, cast(Any, {"Bucket": s3.bucket})
    rule: Any = {"ID": "foreign", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 3}}
    sent, came = "request-created.s3.PutBucketLifecycleConfiguration", "after-call.s3.GetBucketLifecycleConfiguration"
    seen: list[bytes] = []

    def extend(request: Any, **_: object) -> None:
        request.data = request.data.replace(b"</Prefix>", b"</Prefix><ArchiveZone/>")
        for header in [one for one in request.headers if one.lower().startswith(("content-md5", "x-amz-checksum"))]:
            del request.headers[header]
        request.headers["Content-MD5"] = base64.b64encode(hashlib.md5(request.data).digest()).decode()

    client.meta.events.register_first(sent, extend)
    client.put_bucket_lifecycle_configuration(**name, LifecycleConfiguration={"Rules": [rule]})
    client.meta.events.unregister(sent, extend)
    client.meta.events.register(came, lambda http_response, **_: seen.append(http_response.content))
    steps = {step.what: step for step in s3.open().initialise()}
    step = steps["lifecycle of unfinished uploads and probe objects"]
    assert step.outcome == "not supported" and "would lose: ArchiveZone" in step.detail
    assert client.get_bucket_lifecycle_configuration(**name)["Rules"][0]["ID"] == "foreign"
    assert b"<ArchiveZone" in seen[-1]


def test_versions_are_left_off_where_they_would_undo_create_only(s3: BucketPlace) -> None:
    """Ceph 18 is such a store. What was tried for it leaves nothing behind."""
    assert "Status" not in s3.client.get_bucket_versioning(Bucket=s3.bucket)
    steps = {step.what: step for step in s3.open().initialise()}
    assert steps["versioning"].outcome == "not supported"
    assert "Status" not in s3.client.get_bucket_versioning(Bucket=s3.bucket)
    assert [b["Name"] for b in s3.client.list_buckets()["Buckets"] if b["Name"].startswith(s3.bucket[:40])] == [
        s3.bucket
    ]
    assert list(s3.open().listing("")) == []


@pytest.mark.parametrize("status", ["Enabled", "Suspended"])
def test_versions_that_the_administrator_has_switched_are_left(s3: BucketPlace, status: Any) -> None:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": status})
    steps = {step.what: step for step in s3.open().initialise()}
    assert s3.client.get_bucket_versioning(Bucket=s3.bucket)["Status"] == status
    assert steps["versioning"].outcome == ("present" if status == "Enabled" else "not supported")
    assert steps["versioning"].detail


def test_the_bucket_is_encrypted_by_default_as_configured(s3: BucketPlace) -> None:
    if s3.tls:
        [rule] = s3.client.get_bucket_encryption(Bucket=s3.bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        assert rule["ApplyServerSideEncryptionByDefault"] == {
            "SSEAlgorithm": "aws:kms",
            "KMSMasterKeyID": KMS_KEY_ID,
        }


# -- trouble --------------------------------------------------------------------------------------------------------


def _attempts(store: S3Store) -> list[Callable[[], object]]:
    return [
        lambda: store.put(KEY, Buffer.of(b"x")),
        lambda: store.put(KEY, Source(b"x" * (6 * MIB))),
        lambda: store.head(KEY),
        lambda: list(store.listing("")),
        lambda: list(store.read(KEY)),
        store.check,
        store.initialise,
        lambda: store.probe("probe/trouble/"),
    ]


@pytest.mark.parametrize(
    ("variable", "value"),
    [("AWS_SECRET_ACCESS_KEY", "rotated"), ("AWS_ACCESS_KEY_ID", "GONE")],
)
def test_credentials_that_were_changed_park_nothing(
    s3: BucketPlace, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    for attempt in _attempts(s3.open(**PARTS)):
        with pytest.raises(Transient) as caught:
            attempt()
        assert (caught.value.code, bool(caught.value.endpoint)) == ("credentials", True)


def test_a_gateway_that_is_down_parks_nothing(s3: BucketPlace, rgw: CephRgw) -> None:
    store = s3.open(**PARTS)
    rgw.pause_gateway()
    try:
        for attempt in _attempts(store)[:6]:
            with pytest.raises(OutOfReach) as caught:
                attempt()
            assert caught.value.endpoint
            assert KEY not in str(caught.value)
    finally:
        rgw.resume_gateway()
    assert store.put(KEY, Buffer.of(b"x")).created


def test_a_certificate_that_is_not_trusted_is_said(rgw_place: Callable[[bool], BucketPlace]) -> None:
    place = rgw_place(True)
    store = place.open(settings=place.settings.model_copy(update={"ca_file": None}))
    with pytest.raises(OutOfReach) as caught:
        store.check()
    assert caught.value.hint is not None and "ca_file" in caught.value.hint


def test_an_endpoint_from_the_environment_is_not_taken(
    rgw_place: Callable[[bool], BucketPlace], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = rgw_place(False)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", place.settings.endpoint_url or "")
    store = place.open(settings=place.settings.model_copy(update={"endpoint_url": None, "region": "eu-west-1"}))
    assert store._bucket.client.meta.endpoint_url.endswith("amazonaws.com")
    assert store.destination.endpoint == "aws:eu-west-1"


def test_a_key_of_another_archive_in_the_bucket_is_not_ours(s3: BucketPlace) -> None:
    s3.client.put_object(Bucket=s3.bucket, Key="archive.json", Body=b"x")
    store = s3.open()
    assert store.head("archive.json") is None
    with pytest.raises(Permanent):
        list(store.read("archive.json"))


@pytest.mark.parametrize("with_fast_path", [True, False])
def test_a_part_is_of_the_version_that_is_named(s3: BucketPlace, with_fast_path: bool) -> None:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    store = s3.open(with_fast_path=with_fast_path)
    receipt = store.put(KEY, Buffer.of(b"the first content"))
    assert receipt.version_id is not None
    s3.overwrite(KEY, b"another content here")
    assert b"".join(store.read(KEY, receipt.version_id, offset_bytes=4, length_bytes=5)) == b"first"
    assert b"".join(store.read(KEY, offset_bytes=8, length_bytes=7)) == b"content"
