"""The S3 store's fast path to a PutObject or an UploadPart: as strict as the long one, and never the last word on a
failure."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dicomwatchd.archive.proof import evidence
from dicomwatchd.archive.stores.port import Buffer, Content
from dicomwatchd.archive.stores.ranges import Wanted
from dicomwatchd.archive.stores.s3.connection import Response
from dicomwatchd.archive.stores.s3.data_plane import Body, S3DataPlane
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.errors import ArchiveRefused, Permanent, Stopping, Transient
from tests.conformance.conftest import PREFIX, BucketPlace
from tests.conformance.test_store import MIB, Source
from tests.conformance.test_store_s3 import PARTS, Switch, counted
from tests.servers.ceph import KMS_KEY_ID, CephRgw
from tests.unit.test_addressing import Proxy

KEY = "studies/1.2/series/1.3/1.4/" + "0" * 64 + ".dcm"


def probed(place: BucketPlace, **options: Any) -> S3Store:
    store = place.open(**options)
    store.probe("probe/x/")
    return store


class Altered:
    """The store's data_plane, with what it sends or answers changed by a test. Counts what came back."""

    def __init__(
        self,
        store: S3Store,
        *,
        request: Callable[[dict[str, Any]], None] = lambda _: None,
        answer: Callable[[Response | None], Response | None] = lambda a: a,
    ) -> None:
        self._request, self._answer = request, answer
        assert store._data_plane is not None
        self._data_plane: S3DataPlane = store._data_plane
        self.responses: list[Response | None] = []
        store._data_plane = store._multipart._data_plane = self  # type: ignore[assignment]

    def put(self, key: str, data: bytes, *, sha256: str, headers: dict[str, str]) -> Response | None:
        call: dict[str, Any] = {"data": data, "sha256": sha256, "headers": headers}
        self._request(call)
        self.responses.append(self._data_plane.put(key, **call))
        return self._answer(self.responses[-1])

    def put_part(
        self, key: str, query: dict[str, str], data: bytearray, headers: dict[str, str], sha256: str | None
    ) -> Response | None:
        call: dict[str, Any] = {"query": query, "data": data, "headers": headers, "sha256": sha256}
        self._request(call)
        self.responses.append(self._data_plane.put_part(key, **call))
        return self._answer(self.responses[-1])

    def get(self, key: str, query: dict[str, str], wanted: Wanted | None = None) -> Body | None:
        return self._data_plane.get(key, query, wanted)

    def head(self, key: str, query: dict[str, str], headers: dict[str, str]) -> Response | None:
        return self._data_plane.head(key, query, headers)

    def listing(self, query: dict[str, str]) -> bytes | None:
        return self._data_plane.listing(query)

    def close(self) -> None:
        self._data_plane.close()


def test_the_short_way_is_taken_and_leaves_the_same_object(s3: BucketPlace) -> None:
    store = probed(s3)
    data_plane = Altered(store)
    receipt = store.put(KEY, Buffer.of(b"content"))
    assert [answer and answer.status for answer in data_plane.responses] == [200]
    assert receipt.created
    kept = s3.client.head_object(Bucket=s3.bucket, Key=PREFIX + KEY)
    assert (kept["ETag"], kept["ContentType"]) == (f'"{receipt.answered_etag}"', "application/dicom")
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
    data_plane = Altered(store)
    assert not store.put(KEY, Buffer.of(b"second")).created
    assert [answer and answer.status for answer in data_plane.responses] == [412]
    assert b"".join(store.read(KEY)) == b"first"


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_001])
def test_sizes(s3: BucketPlace, size: int) -> None:
    store = probed(s3)
    data = bytes(range(256)) * (size // 256 + 1)
    data_plane = Altered(store)
    store.put(KEY, Buffer.of(data[:size]))
    assert [answer and answer.status for answer in data_plane.responses] == [200]
    assert b"".join(store.read(KEY)) == data[:size]


def test_every_character_that_a_key_may_have_is_signed_right(s3: BucketPlace) -> None:
    store = probed(s3)
    data_plane = Altered(store)
    for key in ("aZ09!_.*'()-/x.json", "a!/b*/c'/d(/e)/f-/g_/h.dcm"):
        store.put(key, Buffer.of(b"content"))
        assert b"".join(store.read(key)) == b"content"
    assert [answer and answer.status for answer in data_plane.responses] == [200, 200]


def test_bytes_damaged_on_the_short_way_are_refused_there_and_sent_again(s3: BucketPlace) -> None:
    store = probed(s3)

    def damage(call: dict[str, Any]) -> None:
        call["data"] = call["data"][:-1] + b"?"

    data_plane = Altered(store, request=damage)
    receipt = store.put(KEY, Buffer.of(b"content"))
    assert data_plane.responses == [None]
    assert receipt.created
    assert b"".join(store.read(KEY)) == b"content"


def test_a_lost_answer_is_found_to_be_no_loss(s3: BucketPlace) -> None:
    """The object is there, the answer is not: the long way meets it, and the verification has the say."""
    store = probed(s3)
    data_plane = Altered(store, answer=lambda _: None)
    receipt = store.put(KEY, Buffer.of(b"content"))
    assert [answer and answer.status for answer in data_plane.responses] == [200]
    assert not receipt.created
    [verdict] = evidence.examine(store, [receipt])
    assert verdict.holds


def without(name: str) -> Callable[[Response | None], Response]:
    def forget(answer: Response | None) -> Response:
        assert answer is not None
        return Response(answer.status, {k: v for k, v in answer.headers.items() if name not in k})

    return forget


@pytest.mark.parametrize("content", [Buffer.of(b"content"), Source(b"x" * (9 * MIB))], ids=["one piece", "parts"])
def test_an_answer_without_the_encryption_asked_for_is_refused(
    rgw_place: Callable[[bool], BucketPlace], content: Content
) -> None:
    place = rgw_place(True)
    place.open().initialise()
    store = probed(place, **PARTS)
    Altered(store, answer=without("encryption"))
    with pytest.raises(ArchiveRefused):
        store.put(KEY, content)
    assert place.unfinished() == []


def test_parts_take_the_short_way_and_leave_the_same_object(s3: BucketPlace) -> None:
    store = probed(s3, **PARTS)
    data = os.urandom(21 * MIB)
    data_plane = Altered(store)
    with counted(store) as sent:
        receipt = store.put(KEY, Source(data))
    assert [answer and answer.status for answer in data_plane.responses] == [200] * 5
    assert "CreateMultipartUpload" in sent and "UploadPart" not in sent
    kept = s3.client.head_object(Bucket=s3.bucket, Key=PREFIX + KEY)
    assert (kept["ETag"], kept["ContentType"]) == (f'"{receipt.answered_etag}"', "application/dicom")
    assert not kept.get("ContentEncoding")
    assert kept["Metadata"] == {}
    assert b"".join(store.read(KEY)) == data
    [verdict] = evidence.examine(store, [receipt])
    assert (verdict.holds, verdict.verified_by) == (True, "etag-answered")


def test_a_stopped_upload_goes_on_by_the_short_way(s3: BucketPlace) -> None:
    data = os.urandom(40 * MIB)
    stopped = s3.open(**PARTS, stopping=Switch(after=3))
    with pytest.raises(Stopping):
        stopped.put(KEY, Source(data))
    [upload] = s3.client.list_multipart_uploads(Bucket=s3.bucket)["Uploads"]
    arrived = s3.client.list_parts(Bucket=s3.bucket, Key=PREFIX + KEY, UploadId=upload["UploadId"])["Parts"]
    assert 1 <= len(arrived) <= 3
    store = probed(s3, **PARTS)
    data_plane = Altered(store)
    receipt = store.put(KEY, Source(data))
    assert [answer and answer.status for answer in data_plane.responses] == [200] * (8 - len(arrived))
    [verdict] = evidence.examine(store, [receipt])
    assert verdict.holds
    assert s3.unfinished() == []


def test_a_part_damaged_on_the_short_way_is_refused_there_and_sent_again(s3: BucketPlace) -> None:
    store = probed(s3, **PARTS)

    def damage(call: dict[str, Any]) -> None:
        if call["query"]["partNumber"] == "2":
            call["data"] = call["data"][:-1] + b"?"

    data = b"x" * (13 * MIB)
    assert store.capabilities.etag_follows_parts, "no MD5 goes with a part: what is signed is all there is"
    data_plane = Altered(store, request=damage)
    with counted(store) as sent:
        receipt = store.put(KEY, Source(data))
    assert sorted(answer.status if answer else 0 for answer in data_plane.responses) == [0, 200, 200]
    assert sent.count("UploadPart") == 1
    assert b"".join(store.read(KEY)) == data
    [verdict] = evidence.examine(store, [receipt])
    assert verdict.holds


@pytest.mark.parametrize("answer", [lambda _: None, without("etag")], ids=["lost", "without an ETag"])
def test_a_part_whose_answer_says_nothing_is_sent_again(
    s3: BucketPlace, answer: Callable[[Response | None], Response | None]
) -> None:
    store = probed(s3, **PARTS)
    data = os.urandom(9 * MIB)
    data_plane = Altered(store, answer=answer)
    with counted(store) as sent:
        receipt = store.put(KEY, Source(data))
    assert [kept and kept.status for kept in data_plane.responses] == [200, 200]
    assert sent.count("UploadPart") == 2
    assert b"".join(store.read(KEY)) == data
    [verdict] = evidence.examine(store, [receipt])
    assert verdict.holds


def test_an_upload_that_was_aborted_meanwhile_is_for_the_long_way_to_say(s3: BucketPlace) -> None:
    store = probed(s3, **PARTS)
    aborting = threading.Lock()  # a part that is sent while another one's abort goes on may still be taken

    def abort(call: dict[str, Any]) -> None:
        with aborting, suppress(s3.client.exceptions.ClientError):
            s3.client.abort_multipart_upload(Bucket=s3.bucket, Key=PREFIX + KEY, UploadId=call["query"]["uploadId"])

    data_plane = Altered(store, request=abort)
    with pytest.raises(Transient):
        store.put(KEY, Source(b"x" * (9 * MIB)))
    assert set(data_plane.responses) == {None}
    assert store.head(KEY) is None


def test_a_certificate_that_is_not_trusted_gets_nothing(
    rgw_place: Callable[[bool], BucketPlace], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = rgw_place(True)
    place.open().initialise()
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    place.settings = place.settings.model_copy(update={"ca_file": None})
    store = place.open()
    assert store._data_plane is not None
    assert store._data_plane.put("radiology/x", b"content", sha256="0" * 64, headers={}) is None


def test_reading_takes_the_short_way_and_uses_its_connection_again(s3: BucketPlace) -> None:
    store = probed(s3)
    data = bytes(range(256)) * 12_000
    store.put(KEY, Buffer.of(data))
    asked: list[str] = []
    store._bucket.client.meta.events.register("before-call.s3.GetObject", lambda **_: asked.append("botocore"))
    assert store._data_plane is not None
    for _ in range(3):
        chunks = list(store.read(KEY))
        assert b"".join(chunks) == data
        assert max(map(len, chunks)) <= 1 << 20
        assert len(store._data_plane._idle) == 1
    assert asked == []


def test_a_reading_that_is_given_up_leaves_no_connection_out_of_step(s3: BucketPlace) -> None:
    store = probed(s3)
    data = bytes(range(256)) * 12_000
    store.put(KEY, Buffer.of(data))
    reading = store.read(KEY)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert store._data_plane is not None
    assert len(store._data_plane._idle) == 0
    assert b"".join(store.read(KEY)) == data


def test_a_part_takes_the_short_way_and_uses_its_connection_again(s3: BucketPlace) -> None:
    store = probed(s3)
    data = bytes(range(256)) * 12_000
    store.put(KEY, Buffer.of(data))
    asked: list[str] = []
    store._bucket.client.meta.events.register("before-call.s3.GetObject", lambda **_: asked.append("botocore"))
    assert store._data_plane is not None
    for offset, length in ((0, 1), (17, 2_000_000), (len(data) - 5, 5), (len(data) - 5, 50)):
        assert b"".join(store.read(KEY, offset_bytes=offset, length_bytes=length)) == data[offset : offset + length]
        assert len(store._data_plane._idle) == 1
    assert asked == []


@contextmanager
def by_the_data_plane_alone(store: S3Store) -> Iterator[list[str]]:
    """What botocore is asked meanwhile."""
    asked: list[str] = []
    store._bucket.client.meta.events.register(
        "before-sign.s3", lambda operation_name, **_: asked.append(operation_name)
    )
    yield asked


def exercised(store: S3Store) -> None:
    """Each kind of request once. Raises AssertionError where botocore had to be asked."""
    data = os.urandom(9 * MIB)
    receipt = store.put(KEY.replace("1.4", "1.5"), Source(data))  # its parts
    with by_the_data_plane_alone(store) as asked:
        small = store.put(KEY, Buffer.of(b"content"))
        assert b"".join(store.read(KEY)) == b"content"
        assert (
            b"".join(store.read(receipt.key, offset_bytes=5 * MIB, length_bytes=100)) == data[5 * MIB : 5 * MIB + 100]
        )
        seen = store.head(KEY)
        assert seen is not None and (seen.size_bytes, seen.etag) == (7, small.answered_etag)
        assert [one.key for one in store.listing("studies/")] == [KEY, receipt.key]
    assert asked == []
    assert all(verdict.holds for verdict in evidence.examine(store, [small, receipt]))


def test_a_bucket_that_is_part_of_the_host_s_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at Amazon; over http, and over https with SSE-KMS. libcurl takes what is below localhost for loopback (RFC
    6761), for botocore this does it."""
    resolve = socket.getaddrinfo

    def resolved(host: Any, *more: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if str(host).endswith(".localhost") else host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    virtual = {"addressing_style": "virtual", "payload_signing_enabled": True}
    monkeypatch.setattr("dicomwatchd.archive.stores.s3.store._client_settings", lambda _: virtual)
    with CephRgw(tmp_path / "rgw", name="s3.localhost") as rgw:
        for name, value in rgw.env().items():
            monkeypatch.setenv(name, value)
        for tls in (False, True):
            place = BucketPlace.of_gateway(rgw, f"by-name-{tls:d}", tls=tls)
            place.settings = place.settings.model_copy(update={"endpoint_url": rgw.named_endpoint(tls=tls)})
            store = place.open(**PARTS)
            store.initialise()
            store.probe("probe/x/")
            assert store._data_plane is not None
            address = store._data_plane._address
            assert (address.host_header.partition(":")[0], address.base_path) == (f"by-name-{tls:d}.s3.localhost", "")
            exercised(store)
            place.close()


def test_every_kind_of_request_goes_by_the_data_plane(s3: BucketPlace) -> None:
    exercised(probed(s3, **PARTS))


def test_through_a_tunnel(rgw_place: Callable[[bool], BucketPlace], monkeypatch: pytest.MonkeyPatch) -> None:
    place = rgw_place(True)
    place.open().initialise()
    port = urlsplit(place.settings.endpoint_url or "").port
    assert port is not None
    proxy = Proxy(port)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    store = probed(place, **PARTS)
    exercised(store)
    store.close()
    proxy.close()
    assert len(proxy.heads) > 1
    assert all(head.startswith(b"CONNECT localhost:%d " % port) for head in proxy.heads)


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
    assert short == list(s3.open(with_fast_path=False).listing("studies/"))
