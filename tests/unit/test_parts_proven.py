"""An object in parts is proven by the ETag with which its completion was answered, where the probe has shown that this
follows from its parts' and each answer bears that out. Everywhere else: as ever."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import botocore.exceptions
import pytest

from dicomwatchd.archive.stores import etags
from dicomwatchd.archive.stores.budget import ByteBudget
from dicomwatchd.archive.stores.port import Buffer, Capabilities, Content, Receipt, composed
from dicomwatchd.archive.stores.s3 import probe
from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.archive.stores.s3.connection import Response
from dicomwatchd.archive.stores.s3.multipart import MIB, MultipartSender
from dicomwatchd.archive.stores.s3.parts import Means
from dicomwatchd.config.archive import Encryption
from dicomwatchd.errors import Conflict, SourceChanged, Transient
from dicomwatchd.model import Digest, Pieces

KEY = "studies/1.2/series/1.2.3/1.2.3.4/" + "0" * 64 + ".dcm"
PART_BYTES = MIB
DATA = bytes(range(256)) * (2 * MIB // 256) + b"the last part"
PIECES = [DATA[:MIB], DATA[MIB : 2 * MIB], DATA[2 * MIB :]]
BY_ETAGS = Means(by_etags=True)
BY_CHECKSUMS = Means(with_checksums=True)
BY_BOTH = Means(with_checksums=True, by_etags=True)


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()[:32]


def sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode("ascii")


def error(code: str, status: int, operation: str = "UploadPart") -> botocore.exceptions.ClientError:
    details: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(details, operation)


@dataclass
class Events:
    handlers: dict[str, list[Any]] = field(default_factory=dict)

    def register(self, name: str, handler: Any) -> None:
        self.handlers.setdefault(name, []).append(handler)

    def register_first(self, name: str, handler: Any) -> None:
        self.handlers.setdefault(name, []).insert(0, handler)

    def unregister(self, name: str, handler: Any) -> None:
        self.handlers[name].remove(handler)

    def altered(self, name: str, body: bytes) -> bytes:
        request = SimpleNamespace(body=io.BytesIO(body))
        for handler in self.handlers.get(name, []):
            handler(request=request)
        return cast(bytes, request.body.read())


@dataclass
class Upload:
    key: str
    with_checksums: bool
    parts: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)


@dataclass
class Store:
    """A bucket that takes parts: it signs bodies, compares, composes. ``part_etag`` gives that of a part by its bytes,
    and how many were sent in this upload before; ``compose`` that of the object by its parts'; ``tell`` what answer,
    HEAD and listing make of it. ``with_checksums``: it keeps SHA-256 sums, and ``echo`` is what its answers say of
    them."""

    part_etag: Callable[[bytes, int], str] = lambda data, _: sha1(data)
    compose: Callable[[list[str]], str] = lambda found: etags.composed(found) or "none"
    tell: Callable[[str, str], str] = lambda where, etag: etag
    compares_bodies: bool = True
    compares_etags: bool = True
    forgets_etags: bool = True
    with_checksums: bool = False
    echo: Callable[[str], str | None] = lambda checksum: checksum
    gives_checksum: bool = True
    before_completion: Callable[[Upload], None] = lambda upload: None
    after_completion: Callable[[], None] = lambda: None
    objects: dict[str, tuple[str, bytes, str]] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    sent: list[dict[str, Any]] = field(default_factory=list)
    events: Events = field(default_factory=Events)
    numbers: Iterator[int] = field(default_factory=count)

    @property
    def meta(self) -> Any:
        return SimpleNamespace(events=self.events)

    def head_bucket(self, **_: Any) -> dict[str, Any]:
        return {}

    def head_object(self, Key: str, ChecksumMode: str = "", **_: Any) -> dict[str, Any]:
        if Key not in self.objects:
            raise error("404", 404, "HeadObject")
        etag, data, checksum = self.objects[Key]
        kept = {"ChecksumSHA256": checksum} if ChecksumMode and checksum and self.gives_checksum else {}
        return {"ETag": f'"{self.tell("head", etag)}"', "ContentLength": len(data), **kept}

    def list_objects_v2(self, Prefix: str, **_: Any) -> dict[str, Any]:
        found = sorted(key for key in self.objects if key.startswith(Prefix))
        return {
            "Contents": [
                {
                    "Key": key,
                    "Size": len(self.objects[key][1]),
                    "ETag": f'"{self.tell("listing", self.objects[key][0])}"',
                }
                for key in found
            ]
        }

    def list_multipart_uploads(self, Prefix: str, **_: Any) -> dict[str, Any]:
        return {
            "Uploads": [
                {"Key": upload.key, "UploadId": upload_id, "Initiated": datetime.now(UTC)}
                | ({"ChecksumAlgorithm": "SHA256"} if upload.with_checksums else {})
                for upload_id, upload in self.uploads.items()
                if upload.key.startswith(Prefix)
            ]
        }

    def list_parts(self, UploadId: str, **_: Any) -> dict[str, Any]:
        upload = self.uploads[UploadId]
        return {
            "Parts": [
                {"PartNumber": number, "Size": len(data), "ETag": f'"{etag}"'}
                | ({"ChecksumSHA256": sha256(data)} if upload.with_checksums else {})
                for number, (etag, data) in sorted(upload.parts.items())
            ]
        }

    def create_multipart_upload(self, Key: str, ChecksumAlgorithm: str = "", **_: Any) -> dict[str, Any]:
        upload_id = f"upload{next(self.numbers)}"
        self.uploads[upload_id] = Upload(Key, bool(ChecksumAlgorithm) and self.with_checksums)
        return {"UploadId": upload_id}

    def upload_part(
        self, Bucket: str, Key: str, UploadId: str, PartNumber: int, Body: Any, **arguments: Any
    ) -> dict[str, Any]:
        signed, upload = bytes(Body), self.uploads[UploadId]
        self.sent.append(arguments)
        data = self.events.altered("before-send.s3.UploadPart", signed)
        if self.compares_bodies and data != signed:
            raise error("XAmzContentSHA256Mismatch", 400)
        if base64.b64decode(arguments.get("ContentMD5", "")).hex() not in ("", md5(data)):
            raise error("BadDigest", 400)
        if arguments.get("ChecksumSHA256", sha256(data)) != sha256(data):
            raise error("BadDigest", 400)
        upload.parts[PartNumber] = (self.part_etag(data, len(upload.sent)), data)
        upload.sent.append(upload.parts[PartNumber][0])
        echo = self.echo(sha256(data)) if upload.with_checksums and "ChecksumSHA256" in arguments else None
        return {"ETag": f'"{upload.parts[PartNumber][0]}"'} | ({} if echo is None else {"ChecksumSHA256": echo})

    def complete_multipart_upload(
        self, UploadId: str, Key: str, MultipartUpload: Any, IfNoneMatch: str, **_: Any
    ) -> dict[str, Any]:
        if Key in self.objects:
            raise error("PreconditionFailed", 412, "CompleteMultipartUpload")
        upload = self.uploads[UploadId]
        self.before_completion(upload)
        named = {part["PartNumber"]: part["ETag"].strip('"') for part in MultipartUpload["Parts"]}
        kept = {number: upload.parts[number][0] for number in named}
        known = named == kept or (not self.forgets_etags and set(named.values()) <= set(upload.sent))
        if self.compares_etags and not known:
            raise error("InvalidPart", 400, "CompleteMultipartUpload")
        pieces = [upload.parts[number][1] for number in sorted(named)]
        sums = b"".join(hashlib.sha256(piece).digest() for piece in pieces)
        checksum = f"{sha256(sums)}-{len(pieces)}" if upload.with_checksums else ""
        self.objects[Key] = (self.compose(list(kept.values())), b"".join(pieces), checksum)
        del self.uploads[UploadId]
        self.after_completion()
        return {"ETag": f'"{self.tell("answer", self.objects[Key][0])}"'}

    def abort_multipart_upload(self, UploadId: str, **_: Any) -> None:
        self.uploads.pop(UploadId, None)


def bucket_of(store: Store) -> S3Bucket:
    return S3Bucket(
        client=cast(Any, store), name="b", prefix="", endpoint="s3", encryption=Encryption(mode="store-default")
    )


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def put(
    store: Store,
    executor: ThreadPoolExecutor,
    means: Means = BY_ETAGS,
    content: Content | None = None,
    data_plane: Any = None,
) -> Receipt:
    sender = MultipartSender(
        bucket_of(store),
        data_plane,
        executor=executor,
        budget=ByteBudget(),
        part_bytes=PART_BYTES,
        stopping=lambda: False,
        means=lambda: means,
    )
    return sender.put(KEY, content or Buffer.of(DATA))


def of_pieces(etag: Callable[[bytes], str] = sha1) -> str | None:
    return etags.composed([etag(piece) for piece in PIECES])


# -- sending ---------------------------------------------------------------------------------------------------------


def test_the_etag_of_the_completion_stands_for_what_the_store_has_compared(executor: ThreadPoolExecutor) -> None:
    store = Store()
    receipt = put(store, executor)
    assert (receipt.answered_etag, receipt.expected_etag, receipt.expected_checksum) == (of_pieces(), None, None)
    assert receipt.created and receipt.known_etag == store.objects[KEY][0]
    assert store.sent == [{}] * 3, "no MD5 is worked out, and nothing but the signature goes with it"


def test_where_the_store_keeps_checksums_these_stand_for_it_and_no_md5_does(executor: ThreadPoolExecutor) -> None:
    store = Store(with_checksums=True)
    receipt = put(store, executor, BY_CHECKSUMS)
    sums = composed([hashlib.sha256(piece).digest() for piece in PIECES])
    assert (receipt.answered_etag, receipt.expected_etag, receipt.expected_checksum) == (None, None, sums)
    assert sorted(one["ChecksumSHA256"] for one in store.sent) == sorted(map(sha256, PIECES))
    assert not any("ContentMD5" in one for one in store.sent)


def test_where_less_is_shown_the_md5_is_what_counts(executor: ThreadPoolExecutor) -> None:
    store = Store(part_etag=lambda data, _: md5(data))
    receipt = put(store, executor, Means())
    assert (receipt.answered_etag, receipt.expected_etag) == (None, of_pieces(md5))
    assert sorted(one["ContentMD5"] for one in store.sent) == sorted(
        base64.b64encode(bytes.fromhex(md5(piece))).decode("ascii") for piece in PIECES
    )


@pytest.mark.parametrize(
    ("echo", "means", "counts"),
    [
        (lambda checksum: checksum, BY_BOTH, True),
        (lambda _: None, BY_BOTH, False),
        (lambda _: sha256(b"other"), BY_BOTH, False),
        (lambda _: None, BY_ETAGS, True),
    ],
    ids=["ours", "none", "another", "none is kept"],
)
def test_each_answer_to_a_part_has_to_bear_it_out(
    executor: ThreadPoolExecutor, echo: Any, means: Means, counts: bool
) -> None:
    receipt = put(Store(with_checksums=True, echo=echo), executor, means)
    assert receipt.answered_etag == (of_pieces() if counts else None)
    assert (receipt.expected_checksum is not None) is means.with_checksums


def test_an_echo_of_other_bytes_is_never_believed(executor: ThreadPoolExecutor) -> None:
    class Naming(Store):
        def upload_part(self, **arguments: Any) -> dict[str, Any]:  # type: ignore[override]
            return {**super().upload_part(**arguments), "ChecksumSHA256": sha256(b"other")}

    assert put(Naming(), executor).answered_etag is None


@pytest.mark.parametrize(
    "store",
    [
        Store(compose=lambda found: "0" * 32 + "-3"),
        Store(compose=lambda found: etags.composed(found[:1]) or ""),
        Store(compose=lambda found: etags.composed(found[::-1]) or ""),
        Store(compose=lambda found: found[0]),
        Store(tell=lambda where, etag: "" if where == "answer" else etag),
        Store(part_etag=lambda data, number: "opaque"),
    ],
    ids=["constant", "of the first", "of another order", "of one", "no ETag", "opaque"],
)
def test_an_etag_that_does_not_follow_from_the_parts_is_none(store: Store, executor: ThreadPoolExecutor) -> None:
    """The probe has seen it follow, and then it does not: the object is read back, since nothing else tells."""
    receipt = put(store, executor)
    assert (receipt.answered_etag, receipt.expected_etag, receipt.expected_checksum) == (None, None, None)
    assert receipt.created


def replace_a_part(upload: Upload) -> None:
    """Another process sends other bytes as a part of the very upload."""
    upload.parts[2] = (sha1(b"other"), b"other" + upload.parts[2][1][5:])


def test_a_part_that_somebody_else_has_replaced_is_not_completed(executor: ThreadPoolExecutor) -> None:
    store = Store(before_completion=replace_a_part)
    with pytest.raises(Conflict):
        put(store, executor)
    assert store.objects == {}


def test_nor_is_it_believed_where_the_store_does_complete_it(executor: ThreadPoolExecutor) -> None:
    store = Store(before_completion=replace_a_part, compares_etags=False)
    receipt = put(store, executor)
    assert store.objects[KEY][1] != DATA
    assert (receipt.answered_etag, receipt.expected_etag) == (None, None)


def test_a_part_answered_with_the_etag_of_other_bytes_proves_nothing(executor: ThreadPoolExecutor) -> None:
    class Lying(Store):
        def upload_part(self, **arguments: Any) -> dict[str, Any]:  # type: ignore[override]
            answer = super().upload_part(**arguments)
            return {"ETag": f'"{sha1(b"other")}"'} if arguments["PartNumber"] == 2 else answer

    with pytest.raises(Conflict):
        put(Lying(), executor)
    assert put(Lying(compares_etags=False), executor).answered_etag is None


def test_a_completion_whose_answer_was_lost_is_proven_by_what_is_computed_here(executor: ThreadPoolExecutor) -> None:
    """The object may be somebody else's: what it must show is worked out of the file once more."""

    def lose() -> None:
        raise botocore.exceptions.ReadTimeoutError(endpoint_url="s3")

    receipt = put(Store(after_completion=lose), executor)
    assert (receipt.created, receipt.answered_etag, receipt.expected_etag) == (False, None, of_pieces(md5))


def test_a_completion_that_failed_in_a_200_is_none(executor: ThreadPoolExecutor) -> None:
    """botocore finds the error in the body, and raises it."""

    class Failing(Store):
        def complete_multipart_upload(self, **_: Any) -> dict[str, Any]:  # type: ignore[override]
            raise error("InternalError", 200, "CompleteMultipartUpload")

    with pytest.raises(Transient):
        put(Failing(), executor)


@pytest.mark.parametrize("means", [BY_ETAGS, BY_BOTH], ids=["etags", "checksums"])
def test_what_is_there_already_is_proven_by_all_that_is_computed_here(
    executor: ThreadPoolExecutor, means: Means
) -> None:
    store = Store(with_checksums=True)
    put(store, executor, means)
    again = put(store, executor, means)
    assert (again.created, again.answered_etag, again.expected_etag) == (False, None, of_pieces(md5))
    assert (again.expected_checksum is not None) is means.with_checksums


# -- pieces that were hashed before ----------------------------------------------------------------------------------


@dataclass
class Hashed:
    """Content that was ``before`` when it was hashed, in pieces too, and is ``data`` when it is sent."""

    data: bytes
    before: bytes = DATA
    piece_bytes: int = PART_BYTES

    @property
    def digest(self) -> Digest:
        sums = [
            hashlib.sha256(self.before[start : start + self.piece_bytes]).digest()
            for start in range(0, len(self.before), self.piece_bytes)
        ]
        whole = hashlib.sha256(self.before).hexdigest()
        return Digest(whole, len(self.before), Pieces(self.piece_bytes, tuple(sums)))

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]

    def fill(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.data[offset : offset + len(buffer)]


@dataclass
class DataPlane:
    """The short way to the store: it signs the SHA-256 that it is given, and the store compares."""

    store: Store
    is_well: bool = True
    signed: list[str | None] = field(default_factory=list)

    def put_part(
        self, key: str, query: dict[str, str], data: bytearray, headers: dict[str, str], sha256: str | None
    ) -> Response | None:
        self.signed.append(sha256)
        if not self.is_well or sha256 != hashlib.sha256(data).hexdigest():
            return None
        names = {"x-amz-checksum-sha256": "ChecksumSHA256", "content-md5": "ContentMD5"}
        answer = self.store.upload_part(
            Bucket="b",
            Key=key,
            UploadId=query["uploadId"],
            PartNumber=int(query["partNumber"]),
            Body=data,
            **{names[name]: value for name, value in headers.items()},
        )
        checksum = answer.get("ChecksumSHA256")
        return Response(200, {"etag": answer["ETag"]} | ({"x-amz-checksum-sha256": checksum} if checksum else {}))


CHANGED = DATA[: MIB + 5] + b"?" + DATA[MIB + 6 :]


@pytest.mark.parametrize("means", [BY_ETAGS, BY_CHECKSUMS, BY_BOTH], ids=["etags", "checksums", "both"])
@pytest.mark.parametrize("is_well", [True, False])
def test_what_was_worked_out_before_is_what_the_store_compares(
    executor: ThreadPoolExecutor, means: Means, is_well: bool
) -> None:
    store = Store(with_checksums=True)
    data_plane = DataPlane(store, is_well)
    receipt = put(store, executor, means, Hashed(DATA), data_plane)
    assert sorted(map(str, data_plane.signed)) == sorted(hashlib.sha256(piece).hexdigest() for piece in PIECES)
    assert len(store.sent) == 3 and store.objects[KEY][1] == DATA
    assert receipt.answered_etag == (of_pieces() if means.by_etags else None)
    assert (receipt.expected_checksum is not None) is means.with_checksums


@pytest.mark.parametrize("means", [BY_ETAGS, BY_CHECKSUMS, BY_BOTH], ids=["etags", "checksums", "both"])
@pytest.mark.parametrize("is_well", [True, False])
@pytest.mark.parametrize("by_data_plane", [True, False])
def test_what_has_changed_since_is_refused_and_signed_by_nobody_else(
    executor: ThreadPoolExecutor, means: Means, is_well: bool, by_data_plane: bool
) -> None:
    """botocore would sign, and the store take, what is there now."""
    store = Store(with_checksums=True)
    with pytest.raises(SourceChanged):
        put(store, executor, means, Hashed(CHANGED), DataPlane(store, is_well) if by_data_plane else None)
    assert store.objects == {} and store.uploads == {}
    assert all(one.get("ChecksumSHA256") != sha256(CHANGED[MIB : 2 * MIB]) for one in store.sent)
    assert len(store.sent) <= 2


@pytest.mark.parametrize(
    ("means", "piece_bytes"),
    [(Means(), PART_BYTES), (BY_ETAGS, 2 * PART_BYTES)],
    ids=["parts that are not compared", "other pieces"],
)
def test_where_that_is_of_no_use_what_is_sent_is_hashed(
    executor: ThreadPoolExecutor, means: Means, piece_bytes: int
) -> None:
    store = Store(part_etag=lambda data, _: md5(data))
    with pytest.raises(SourceChanged):
        put(store, executor, means, Hashed(CHANGED, piece_bytes=piece_bytes))
    assert store.objects == {}
    assert put(store, executor, means, Hashed(DATA, piece_bytes=piece_bytes)).known_etag == of_pieces(md5)


def test_pieces_are_asked_for_where_parts_are_compared(executor: ThreadPoolExecutor) -> None:
    for means, size in ((Means(), None), (BY_ETAGS, PART_BYTES), (BY_CHECKSUMS, PART_BYTES)):
        sender = MultipartSender(
            bucket_of(Store()),
            None,
            executor=executor,
            budget=ByteBudget(),
            part_bytes=PART_BYTES,
            stopping=lambda: False,
            means=lambda found=means: found,  # type: ignore[misc]
        )
        assert sender.piece_bytes(len(DATA)) == size
        assert sender.piece_bytes(50_000 * MIB) in (None, 5 * MIB), "as it is cut"


# -- parts that were found there -------------------------------------------------------------------------------------


def unfinished(store: Store, *pieces: bytes, etag: Callable[[bytes], str] = md5) -> None:
    parts = {number: (etag(piece), piece) for number, piece in enumerate(pieces, 1)}
    store.uploads["theirs"] = Upload(KEY, store.with_checksums, parts)


def test_parts_that_this_process_has_not_sent_are_known_by_what_is_computed_here(executor: ThreadPoolExecutor) -> None:
    store = Store(part_etag=lambda data, _: md5(data))
    unfinished(store, *PIECES[:2])
    receipt = put(store, executor)
    assert len(store.sent) == 1, "only the last"
    assert (receipt.answered_etag, receipt.expected_etag) == (None, of_pieces(md5))
    assert store.objects[KEY][1] == DATA


def test_parts_of_other_bytes_are_sent_again(executor: ThreadPoolExecutor) -> None:
    store = Store(part_etag=lambda data, _: md5(data))
    unfinished(store, PIECES[0], bytes(MIB))
    receipt = put(store, executor)
    assert len(store.sent) == 2 and store.objects[KEY][1] == DATA
    assert (receipt.answered_etag, receipt.expected_etag) == (None, of_pieces(md5))


def test_a_part_whose_listed_etag_is_not_the_md5_is_sent_again(executor: ThreadPoolExecutor) -> None:
    """ListParts names an ETag, and nobody here knows for which bytes it was given."""
    store = Store()
    unfinished(store, *PIECES[:2], etag=sha1)
    receipt = put(store, executor)
    assert len(store.sent) == 3 and receipt.answered_etag is None


def test_an_upload_without_parts_is_as_good_as_a_new_one(executor: ThreadPoolExecutor) -> None:
    store = Store()
    unfinished(store)
    assert put(store, executor).answered_etag == of_pieces()
    assert store.uploads == {}


def test_parts_that_are_known_by_their_checksum_leave_the_proof_to_it(executor: ThreadPoolExecutor) -> None:
    store = Store(with_checksums=True)
    unfinished(store, *PIECES[:2], etag=sha1)
    receipt = put(store, executor, BY_BOTH)
    assert len(store.sent) == 1 and receipt.answered_etag is None and receipt.expected_checksum is not None
    assert not any("ContentMD5" in one for one in store.sent)


def test_a_part_that_is_there_is_one_that_was_hashed_before(executor: ThreadPoolExecutor) -> None:
    store = Store(with_checksums=True)
    unfinished(store, PIECES[0], CHANGED[MIB : 2 * MIB])
    with pytest.raises(SourceChanged):
        put(store, executor, BY_BOTH, Hashed(CHANGED))
    store = Store(part_etag=lambda data, _: md5(data))
    unfinished(store, PIECES[0], CHANGED[MIB : 2 * MIB])
    with pytest.raises(SourceChanged):
        put(store, executor, BY_ETAGS, Hashed(CHANGED))
    assert store.objects == {}


def test_parts_of_another_checksum_are_sent_again(executor: ThreadPoolExecutor) -> None:
    store = Store(with_checksums=True)
    unfinished(store, PIECES[0], bytes(MIB))
    put(store, executor, BY_BOTH)
    assert len(store.sent) == 2 and store.objects[KEY][1] == DATA


# -- the probe -------------------------------------------------------------------------------------------------------


def probed(store: Store, *, with_checksums: bool = False) -> probe._OfParts:
    return probe._Probe(bucket_of(store), "probe/x/")._multipart(with_checksums=with_checksums)


def test_a_store_whose_etags_follow_the_parts_is_found_out() -> None:
    found = probed(Store())
    assert (found.etag_follows, found.etag_is_md5, found.checksum) == (True, False, False)
    assert probed(Store(part_etag=lambda data, _: md5(data))).etag_is_md5
    found = probed(Store(with_checksums=True), with_checksums=True)
    assert (found.etag_follows, found.checksum) == (True, True)


def other_at(place: str) -> Callable[[str, str], str]:
    return lambda where, etag: "0" * 32 + "-1" if where == place else etag


@pytest.mark.parametrize(
    "store",
    [
        Store(compares_bodies=False),
        Store(compares_etags=False),
        Store(forgets_etags=False),
        Store(part_etag=lambda data, _: "a" * 32),
        Store(part_etag=lambda _, number: md5(b"%d" % number)),
        Store(part_etag=lambda data, number: f"part-{sha1(data)}"),
        Store(part_etag=lambda data, number: ""),
        Store(part_etag=lambda data, _: f"part-{sha1(data)}", tell=lambda where, etag: ""),
        Store(compose=lambda found: "0" * 32 + "-1"),
        Store(compose=lambda found: found[0]),
        Store(tell=other_at("answer")),
        Store(tell=other_at("head")),
        Store(tell=other_at("listing")),
    ],
    ids=[
        "compares no body",
        "completes by any ETag",
        "completes by a replaced part's ETag",
        "a part's ETag stays",
        "a part's ETag counts",
        "a part's ETag is opaque",
        "a part has no ETag",
        "a part's ETag is opaque, and the object has none",
        "the composed one stays",
        "the composed one is a part's",
        "another in the answer",
        "another on HEAD",
        "another in the listing",
    ],
)
def test_one_whose_etags_do_not_is_not_believed(store: Store) -> None:
    assert not probed(store).etag_follows


@pytest.mark.parametrize(
    "store",
    [
        Store(with_checksums=True, echo=lambda _: None),
        Store(with_checksums=True, echo=lambda _: sha256(b"other")),
        Store(with_checksums=True, gives_checksum=False),
    ],
    ids=["not named", "another named", "not kept"],
)
def test_with_checksums_parts_are_tried_just_as_they_are_sent(store: Store) -> None:
    """Where the store takes them, and keeps none, they are sent without: and so nothing was tried."""
    assert not probed(store, with_checksums=True).etag_follows


def test_what_is_backed_says_how_parts_are_sent() -> None:
    for checksums in (False, True):
        for follows in (False, True):
            means = Means.of(Capabilities(checksum_of_parts=checksums, etag_follows_parts=follows))
            assert means == Means(checksums, follows) and means.with_md5 is not (checksums or follows)


def test_what_an_etag_is_composed_of() -> None:
    assert etags.composed([md5(b"a"), md5(b"b")]) == md5(bytes.fromhex(md5(b"a") + md5(b"b"))) + "-2"
    for odd in ([], ["a"], [md5(b"a").upper()], [md5(b"a"), md5(b"b") + "0"], [md5(b"a"), ""], [md5(b"a") + "\n"]):
        assert etags.composed(odd) is None
    assert etags.is_composed(md5(b"a") + "-17")
    for odd_one in (md5(b"a"), "kms-0815", md5(b"a") + "-", md5(b"a") + "-1-1", ""):
        assert not etags.is_composed(odd_one)
