"""The S3 store's short way to a PutObject: as strict as the long one, and never the last word on a failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dicomwatchd.archive import evidence
from dicomwatchd.archive.ranges import Wanted
from dicomwatchd.archive.s3 import S3Store
from dicomwatchd.archive.store import Buffer
from dicomwatchd.archive.wire import Answer, Body, Wire
from dicomwatchd.errors import ArchiveRefused, Permanent
from tests.conformance.conftest import PREFIX, BucketPlace
from tests.servers.ceph import KMS_KEY_ID

KEY = "studies/1.2/series/1.3/1.4/" + "0" * 64 + ".dcm"


def probed(place: BucketPlace) -> S3Store:
    store = place.open()
    store.probe("probe/x/")
    return store


class Altered:
    """The store's wire, with what it sends or answers changed by a test. Counts what came back."""

    def __init__(
        self,
        store: S3Store,
        *,
        request: Callable[[dict[str, Any]], None] = lambda _: None,
        answer: Callable[[Answer | None], Answer | None] = lambda a: a,
    ) -> None:
        self._request, self._answer = request, answer
        assert store._wire is not None
        self._wire: Wire = store._wire
        self.answers: list[Answer | None] = []
        store._wire = self  # type: ignore[assignment]

    def put(self, key: str, data: bytes, *, sha256: str, headers: dict[str, str]) -> Answer | None:
        call: dict[str, Any] = {"data": data, "sha256": sha256, "headers": headers}
        self._request(call)
        self.answers.append(self._wire.put(key, **call))
        return self._answer(self.answers[-1])

    def get(self, key: str, query: dict[str, str], wanted: Wanted | None = None) -> Body | None:
        return self._wire.get(key, query, wanted)

    def listing(self, query: dict[str, str]) -> bytes | None:
        return self._wire.listing(query)

    def close(self) -> None:
        self._wire.close()


def test_the_short_way_is_taken_and_leaves_the_same_object(s3: BucketPlace) -> None:
    store = probed(s3)
    wire = Altered(store)
    receipt = store.put(KEY, Buffer.of(b"content"))
    assert [answer and answer.status for answer in wire.answers] == [200]
    assert receipt.created
    kept = s3.client.head_object(Bucket=s3.bucket, Key=PREFIX + KEY)
    assert (kept["ETag"], kept["ContentType"]) == (f'"{receipt.expected_etag}"', "application/dicom")
    assert not kept.get("ContentEncoding")
    assert kept["Metadata"] == {}
    if s3.tls:
        assert (kept["ServerSideEncryption"], kept["SSEKMSKeyId"]) == ("aws:kms", KMS_KEY_ID)
        assert receipt.encryption == "aws:kms"
    [verdict] = evidence.examine(store, [receipt])
    assert verdict.holds


def test_a_key_that_is_taken_is_left_as_it_is(s3: BucketPlace) -> None:
    store = probed(s3)
    assert store.put(KEY, Buffer.of(b"first")).created
    wire = Altered(store)
    assert not store.put(KEY, Buffer.of(b"second")).created
    assert [answer and answer.status for answer in wire.answers] == [412]
    assert b"".join(store.read(KEY)) == b"first"


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_001])
def test_sizes(s3: BucketPlace, size: int) -> None:
    store = probed(s3)
    data = bytes(range(256)) * (size // 256 + 1)
    wire = Altered(store)
    store.put(KEY, Buffer.of(data[:size]))
    assert [answer and answer.status for answer in wire.answers] == [200]
    assert b"".join(store.read(KEY)) == data[:size]


def test_every_character_that_a_key_may_have_is_signed_right(s3: BucketPlace) -> None:
    store = probed(s3)
    wire = Altered(store)
    for key in ("aZ09!_.*'()-/x.json", "a!/b*/c'/d(/e)/f-/g_/h.dcm"):
        store.put(key, Buffer.of(b"content"))
        assert b"".join(store.read(key)) == b"content"
    assert [answer and answer.status for answer in wire.answers] == [200, 200]


def test_bytes_damaged_on_the_short_way_are_refused_there_and_sent_again(s3: BucketPlace) -> None:
    store = probed(s3)

    def damage(call: dict[str, Any]) -> None:
        call["data"] = call["data"][:-1] + b"?"

    wire = Altered(store, request=damage)
    receipt = store.put(KEY, Buffer.of(b"content"))
    assert wire.answers == [None]
    assert receipt.created
    assert b"".join(store.read(KEY)) == b"content"


def test_a_lost_answer_is_found_to_be_no_loss(s3: BucketPlace) -> None:
    """The object is there, the answer is not: the long way meets it, and the verification has the say."""
    store = probed(s3)
    wire = Altered(store, answer=lambda _: None)
    receipt = store.put(KEY, Buffer.of(b"content"))
    assert [answer and answer.status for answer in wire.answers] == [200]
    assert not receipt.created
    [verdict] = evidence.examine(store, [receipt])
    assert verdict.holds


def test_an_answer_without_the_encryption_asked_for_is_refused(rgw_place: Callable[[bool], BucketPlace]) -> None:
    place = rgw_place(True)
    place.open().initialise()
    store = probed(place)

    def forget(answer: Answer | None) -> Answer:
        assert answer is not None
        return Answer(answer.status, {k: v for k, v in answer.headers.items() if "encryption" not in k})

    Altered(store, answer=forget)
    with pytest.raises(ArchiveRefused):
        store.put(KEY, Buffer.of(b"content"))


def test_a_certificate_that_is_not_trusted_gets_nothing(
    rgw_place: Callable[[bool], BucketPlace], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = rgw_place(True)
    place.open().initialise()
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    place.settings = place.settings.model_copy(update={"ca_file": None})
    store = place.open()
    assert store._wire is not None
    assert store._wire.put("radiology/x", b"content", sha256="0" * 64, headers={}) is None


def test_reading_takes_the_short_way_and_uses_its_connection_again(s3: BucketPlace) -> None:
    store = probed(s3)
    data = bytes(range(256)) * 12_000
    store.put(KEY, Buffer.of(data))
    asked: list[str] = []
    store._bucket.client.meta.events.register("before-call.s3.GetObject", lambda **_: asked.append("botocore"))
    assert store._wire is not None
    for _ in range(3):
        chunks = list(store.read(KEY))
        assert b"".join(chunks) == data
        assert max(map(len, chunks)) <= 1 << 20
        assert len(store._wire._idle) == 1
    assert asked == []


def test_a_reading_that_is_given_up_leaves_no_connection_out_of_step(s3: BucketPlace) -> None:
    store = probed(s3)
    data = bytes(range(256)) * 12_000
    store.put(KEY, Buffer.of(data))
    reading = store.read(KEY)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert store._wire is not None
    assert len(store._wire._idle) == 0
    assert b"".join(store.read(KEY)) == data


def test_a_part_takes_the_short_way_and_uses_its_connection_again(s3: BucketPlace) -> None:
    store = probed(s3)
    data = bytes(range(256)) * 12_000
    store.put(KEY, Buffer.of(data))
    asked: list[str] = []
    store._bucket.client.meta.events.register("before-call.s3.GetObject", lambda **_: asked.append("botocore"))
    assert store._wire is not None
    for offset, length in ((0, 1), (17, 2_000_000), (len(data) - 5, 5), (len(data) - 5, 50)):
        assert b"".join(store.read(KEY, offset_bytes=offset, length_bytes=length)) == data[offset : offset + length]
        assert len(store._wire._idle) == 1
    assert asked == []


def test_what_is_not_there_is_for_the_long_way_to_say(s3: BucketPlace) -> None:
    store = probed(s3)
    with pytest.raises(Permanent) as caught:
        list(store.read(KEY))
    assert caught.value.code == "no-such-object"


def test_a_listing_by_the_short_way_is_the_long_ones(s3: BucketPlace) -> None:
    store = probed(s3)
    for number in range(3):
        store.put(KEY.replace("1.4", f"1.4.{number}"), Buffer.of(bytes(number)))
    sent: list[str] = []
    store._bucket.client.meta.events.register("before-sign.s3", lambda operation_name, **_: sent.append(operation_name))
    short = list(store.listing("studies/"))
    assert (len(short), sent) == (3, [])
    assert short == list(s3.open(short_way=False).listing("studies/"))
