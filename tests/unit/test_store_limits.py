"""A store that lies about sizes, goes on without end, or drips: what is read of it ends, in bytes and in time. The real
adapters against a server on a socket that answers as it likes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.aws import deadlines
from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
from dicomwatchd.archive.layout import manifests
from dicomwatchd.archive.layout.bundle import BUNDLE_LIMIT_BYTES, read_back
from dicomwatchd.archive.layout.manifest import empty
from dicomwatchd.archive.proof.evidence import examine
from dicomwatchd.archive.stores.port import Receipt
from dicomwatchd.archive.stores.reading import MANIFEST_LIMIT_BYTES, at_most
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.config.archive import DynamoDBSettings, S3Settings
from dicomwatchd.errors import BadManifest, DicomwatchdError, Permanent, Transient
from dicomwatchd.model import Uid
from tests.unit.memory_archive import MemoryStore

KIB, MIB = 1024, 1024**2
ZEROS = bytes(64 * KIB)
#: What tells a limit in bytes from none: without one a test would last until the limit in time.
ENOUGH_BYTES = 256 * MIB
#: One byte, or chunk, after the other, for longer than a test takes it for dripping.
DRIPS: dict[str, Any] = {"pause_seconds": 0.02, "most_bytes": 600}
STUDY = Uid("1.2.3")


class Endless:
    """Answers each request with this head, and then with zeros, for as long as somebody reads: ``bytes_each`` every
    ``pause_seconds``."""

    def __init__(self, head: bytes, body: bytes = ZEROS, pause_seconds: float = 0.0, most_bytes: int = 1 << 62) -> None:
        self._head, self._body, self._pause_seconds, self._most_bytes = head, body, pause_seconds, most_bytes
        self.sent_bytes = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(65536)
            connection.sendall(self._head)
            sent = 0
            while sent < self._most_bytes:
                connection.sendall(self._body)
                sent += len(self._body)
                self.sent_bytes += len(self._body)
                time.sleep(self._pause_seconds)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(f"AWS_{name}", value)


@contextmanager
def lying(head: bytes, *, with_fast_path: bool, **how: Any) -> Iterator[tuple[S3Store, Endless]]:
    with ExitStack() as stack:
        server = stack.enter_context(closing(Endless(head, **how)))
        settings = S3Settings.model_validate(
            {"kind": "s3", "bucket": "bucket", "region": "x", "endpoint_url": server.url, "insecure_http": True}
        )
        yield stack.enter_context(closing(S3Store(settings, connections=2, with_fast_path=with_fast_path))), server


WAYS = pytest.mark.parametrize("with_fast_path", [True, False], ids=["fast path", "botocore"])


def head(length: object, *more: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", *([] if length is None else [f"Content-Length: {length}"]), 'ETag: "x"', *more]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


# --- sizes


@WAYS
def test_read_back_stops_behind_the_receipt_s_size(with_fast_path: bool) -> None:
    """Before: 16 GB were read for a receipt of 1,000 bytes."""
    with lying(head(16 << 30), with_fast_path=with_fast_path, most_bytes=ENOUGH_BYTES) as (store, server):
        [verdict] = examine(store, [Receipt("a/b/c", 1000, "0" * 64, created=True)])
        assert not verdict.holds
        assert verdict.problem == "size"
        assert server.sent_bytes < 40 * MIB, "twice, and what the kernel holds"


@WAYS
def test_a_document_is_read_up_to_its_limit(with_fast_path: bool) -> None:
    with lying(head(40 << 30), with_fast_path=with_fast_path, most_bytes=ENOUGH_BYTES) as (store, server):
        assert len(at_most(store, "a/b", 3 * MIB)) == 3 * MIB + 1
        assert server.sent_bytes < 40 * MIB


class Large(MemoryStore):
    """Holds one object under every key, of more than anybody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.read_bytes = 0

    def read(self, *_: Any, **__: Any) -> Iterator[bytes]:
        for _piece in range(2 * max(BUNDLE_LIMIT_BYTES, MANIFEST_LIMIT_BYTES) // MIB):
            self.read_bytes += MIB
            yield bytes(MIB)


def test_a_manifest_without_end() -> None:
    """Before: a manifest of 40 GB was read into memory, twice."""
    key = keys.manifest(STUDY, 1)
    with pytest.raises(Permanent, match="larger than any manifest") as refused:
        manifests.load(Large(), key)
    assert refused.value.code == BadManifest.code
    store = Large()
    with pytest.raises(Permanent) as refused:
        manifests.load(store, key, size_bytes=40 << 30)
    assert refused.value.code == BadManifest.code
    assert store.read_bytes == 0, "its listing says enough"
    with pytest.raises(Transient):
        manifests.load(store, key, size_bytes=1000)
    assert store.read_bytes <= 2 * MIB


def test_a_manifest_that_nobody_would_read_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MANIFEST_LIMIT_BYTES", 100)
    store = MemoryStore()
    with pytest.raises(Permanent) as refused:
        manifests.create(store, replace(empty("a" * 36, STUDY), revision=1))
    assert refused.value.code == "manifest-too-large"
    assert not list(store.listing(""))


def test_a_bundle_without_end() -> None:
    store = Large()
    assert read_back(store, "a/b", None, []).size_bytes > BUNDLE_LIMIT_BYTES
    assert store.read_bytes <= BUNDLE_LIMIT_BYTES + 2 * MIB


def test_the_most_of_a_manifest_is_enough_for_a_study_of_100_000_instances() -> None:
    assert MANIFEST_LIMIT_BYTES > 100_000 * 1200, "790 bytes each with usual paths"


@WAYS
@pytest.mark.parametrize("length", ["9" * 5000, "-5", "1e9", "0x10", "٣"], ids=["digits", "minus", "e", "x", "arab"])
def test_a_length_that_is_none(length: str, with_fast_path: bool) -> None:
    """Before: a ValueError out of the reading thread."""
    raw = head("LENGTH").replace(b"LENGTH", length.encode("utf-8"))
    with lying(raw, with_fast_path=with_fast_path, most_bytes=0) as (store, _), pytest.raises(DicomwatchdError):
        at_most(store, "a/b", 1000)


@WAYS
def test_a_head_without_end(with_fast_path: bool) -> None:
    with lying(b"HTTP/1.1 200 OK\r\n", with_fast_path=with_fast_path, body=b"X-Filler: " + b"x" * 60_000 + b"\r\n") as (
        store,
        server,
    ):
        with pytest.raises(DicomwatchdError):
            at_most(store, "a/b", 1000)
        assert server.sent_bytes < 80 * MIB


@WAYS
@pytest.mark.parametrize("chunked", [True, False])
def test_a_listing_without_end(with_fast_path: bool, chunked: bool) -> None:
    """Before, by way of botocore: as much memory as the answer has."""
    first = head(None, "Transfer-Encoding: chunked") if chunked else head(16 << 30)
    body = b"10000\r\n" + ZEROS + b"\r\n" if chunked else ZEROS
    with lying(first, with_fast_path=with_fast_path, body=body, most_bytes=ENOUGH_BYTES) as (store, server):
        with pytest.raises(DicomwatchdError):
            list(store.listing("a/"))
        assert server.sent_bytes < 200 * MIB, "three attempts"


def test_items_of_a_table_without_end() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(closing(Endless(head(16 << 30), most_bytes=ENOUGH_BYTES)))
        settings = DynamoDBSettings(
            kind="dynamodb",
            table="table",
            region="eu-central-1",
            endpoint_url=server.url,
            insecure_http=True,
            ca_file=None,
        )
        catalogue = stack.enter_context(closing(DynamoDBCatalogue(settings)))
        with pytest.raises(DicomwatchdError):
            catalogue.get(STUDY)
        assert server.sent_bytes < 200 * MIB


# --- time


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "ANSWER_SECONDS", 0.6)
    monkeypatch.setattr(deadlines, "BODY_BYTES_PER_SECOND", 1 << 40)


@pytest.mark.parametrize(("part", "with_fast_path"), [("head", True), ("body", True), ("body", False)])
@pytest.mark.usefixtures("hasty")
def test_an_answer_that_drips(part: str, with_fast_path: bool) -> None:
    """Before: each byte was in time, so it held its thread for ever. The head of an answer to botocore is its own, up
    to a hundred lines of 64 KiB."""
    first = head(1000) if part == "body" else b"HTTP/1.1 200 OK\r\nX: "
    with lying(first, with_fast_path=with_fast_path, body=b"x", **DRIPS) as (store, _):
        began = time.monotonic()
        if part == "head":
            assert store._data_plane is not None
            assert store._data_plane.get("a/b", {}) is None
        else:
            with pytest.raises(Transient):
                at_most(store, "a/b", 1000)
        assert time.monotonic() - began < 10


def test_chunks_that_drip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "ANSWER_SECONDS", 0.6)
    monkeypatch.setattr(deadlines, "BODY_BYTES_PER_SECOND", 1 << 40)
    first = head(None, "Transfer-Encoding: chunked")
    with lying(first, with_fast_path=True, body=b"1\r\nx\r\n", **{**DRIPS, "most_bytes": 3600}) as (store, _):
        assert store._data_plane is not None
        began = time.monotonic()
        assert store._data_plane.listing({}) is None
        assert time.monotonic() - began < 10


def test_time_is_that_of_waiting_not_of_whoever_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A reader that writes to a slow disk takes its time."""
    monkeypatch.setattr(deadlines, "ANSWER_SECONDS", 0.6)
    monkeypatch.setattr(deadlines, "BODY_BYTES_PER_SECOND", 1 << 40)
    with lying(head(4 * MIB), with_fast_path=True, most_bytes=4 * MIB) as (store, _):
        came = 0
        for chunk in store.read("a/b"):
            came += len(chunk)
            time.sleep(0.3)
        assert came == 4 * MIB
