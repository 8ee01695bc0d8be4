"""Answers in which something is wrong: whatever byte it is, what leaves the adapter is an error of ours, or the truth
as far as the answer tells it. The answers come over a socket, and one for each byte of them is damaged."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.archive.stores.s3.multipart import MultipartSender
from dicomwatchd.config.archive import Encryption
from dicomwatchd.errors import DicomwatchdError, Transient

HEAD = b'<?xml version="1.0" encoding="UTF-8"?>'
LISTING = HEAD + (
    b"<ListBucketResult><Name>b</Name><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated><Contents><Key>p/a</Key>"
    b'<LastModified>2026-11-24T10:00:00.000Z</LastModified><ETag>"00"</ETag><Size>12</Size></Contents>'
    b"</ListBucketResult>"
)
UPLOADS = HEAD + (
    b"<ListMultipartUploadsResult><Upload><Key>p/a</Key><UploadId>u</UploadId>"
    b"<Initiated>2026-11-24T10:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>"
)
PARTS = HEAD + (
    b"<ListPartsResult><IsTruncated>false</IsTruncated><Part><PartNumber>1</PartNumber><Size>5</Size>"
    b'<ETag>"00"</ETag></Part></ListPartsResult>'
)
BEGUN = HEAD + b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
#: Takes the place of a byte: what no digit, no name and no XML is, and what might be.
INSTEAD = b"\x00</9z"


class _Server(ThreadingHTTPServer):
    body = b""

    class RequestHandlerClass(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet

        def do_GET(self) -> None:
            assert isinstance(self.server, _Server)
            self.send_response_only(200)
            self.send_header("Content-Length", str(len(self.server.body)))
            self.end_headers()
            self.wfile.write(self.server.body)
            self.wfile.flush()

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.RequestHandlerClass)


@contextmanager
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[_Server, S3Bucket]]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with _Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        client = aws.build_client(
            "s3",
            region="us-east-1",
            endpoint_url=f"http://127.0.0.1:{server.server_address[1]}",
            ca_file=None,
            max_connections=1,
            attempts=1,
            s3={"addressing_style": "path"},
        )
        try:
            yield server, S3Bucket(client, "b", "p/", "s3 at test", Encryption(mode="store-default"))
        finally:
            client.close()
            server.shutdown()


def list_objects(bucket: S3Bucket) -> object:
    return [(item.key, item.size_bytes, item.etag) for item in bucket.listing("")]


def sender(bucket: S3Bucket) -> Any:
    return MultipartSender(bucket, None, executor=None, budget=None, part_bytes=5, stopping=bool)  # type: ignore[arg-type]


def list_uploads(bucket: S3Bucket) -> object:
    found: object = sender(bucket)._find_unfinished("a", False)[0]
    return found


def list_parts(bucket: S3Bucket) -> object:
    with bucket.translated("ListParts"):
        known = sender(bucket)._known_parts("a", "u")
    return {number: (part.size_bytes, part.etag) for number, part in known.items()}


def begin(bucket: S3Bucket) -> object:
    begun: object = sender(bucket)._begin("a", False)
    return begun


@pytest.mark.parametrize(
    ("body", "ask", "truth"),
    [
        (LISTING, list_objects, [("a", 12, "00")]),
        (PARTS, list_parts, {1: (5, "00")}),
        (BEGUN, begin, "u"),
    ],
)
def test_one_byte_of_an_answer_is_another(
    body: bytes, ask: Callable[[S3Bucket], object], truth: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = 0
    with bucket(monkeypatch) as (server, there):
        server.body = body
        assert ask(there) == truth
        for at, byte in itertools.product(range(len(body)), INSTEAD):
            server.body = body[:at] + bytes([byte]) + body[at + 1 :]
            try:
                ask(there)
            except DicomwatchdError:
                refused += 1
    assert refused > len(body), "most of what is no answer is taken for none"


def test_uploads_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with bucket(monkeypatch) as (server, there):
        for at, byte in itertools.product(range(len(UPLOADS)), INSTEAD):
            server.body = UPLOADS[:at] + bytes([byte]) + UPLOADS[at + 1 :]
            try:
                assert list_uploads(there) != ""
            except DicomwatchdError:
                continue


@pytest.mark.parametrize(
    ("body", "ask"),
    [
        (LISTING.replace(b"<Size>12</Size>", b""), list_objects),
        (LISTING.replace(b"<Size>12</Size>", b"<Size>many</Size>"), list_objects),
        (LISTING.replace(b"<Key>p/a</Key>", b""), list_objects),
        (LISTING.replace(b"2026-11-24", b"2026-13-24"), list_objects),
        (LISTING.replace(b"2026-11-24", b"yesterday!"), list_objects),
        (LISTING[:-30], list_objects),
        (b"", list_objects),
        (b"<html>sign in first</html>", list_objects),
        (PARTS.replace(b"<PartNumber>1</PartNumber>", b""), list_parts),
        (UPLOADS.replace(b"<Initiated>2026-11-24T10:00:00.000Z</Initiated>", b""), list_uploads),
        (BEGUN.replace(b"UploadId", b"UploadIt"), begin),
        (b"", begin),
    ],
)
def test_what_must_be_in_an_answer_is_missed(
    body: bytes, ask: Callable[[S3Bucket], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with bucket(monkeypatch) as (server, there):
        server.body = body
        with pytest.raises(DicomwatchdError) as caught:
            ask(there)
        assert isinstance(caught.value, Transient)
        assert caught.value.code in ("strange-answer", "server-error")
