"""The fast path on its own: its signature beside botocore's, and what it makes of odd servers."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials

from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.archive.aws import deadlines
from dicomwatchd.archive.stores.s3 import connection, data_plane, fast_path
from dicomwatchd.archive.stores.s3.connection import Connection, Response
from dicomwatchd.archive.stores.s3.data_plane import Address, S3DataPlane
from dicomwatchd.archive.stores.s3.listed import ListedObject, ListedPage, Marker, Paging, VersionsPage

OK = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n'
GET_ABC = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
NOW = 1_700_000_000.0


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer here takes longer, and what waits for one that never comes is seen soon."""
    monkeypatch.setattr(deadlines, "ANSWER_SECONDS", 3.0)
    monkeypatch.setattr(deadlines, "BODY_BYTES_PER_SECOND", 1 << 20)


class Server:
    """Answers each request with the next of ``answers``; b"" closes the connection without one."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = iter(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                with connection, suppress(OSError):
                    while self._one(connection):
                        pass

    def _one(self, connection: socket.socket) -> bool:
        received = b""
        while b"\r\n\r\n" not in received:
            more = connection.recv(65536)
            if not more:
                return False
            received += more
        head, _, body = received.partition(b"\r\n\r\n")
        length = sum(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        while len(body) < length:
            body += connection.recv(65536)
        self.requests.append(head + b"\r\n\r\n" + body)
        answer = next(self._answers, b"")
        connection.sendall(answer)
        return bool(answer)

    def close(self) -> None:
        self._socket.close()


def address(port: int) -> Address:
    return Address(f"127.0.0.1:{port}", False, "/bucket", "eu-central-1")


@contextmanager
def talking(*answers: bytes, token: str | None = None) -> Iterator[tuple[S3DataPlane, Server]]:
    server = Server(list(answers))
    made = S3DataPlane(
        address(server.port),
        credentials=lambda: ReadOnlyCredentials("AKID", "secret", token),  # type: ignore[arg-type,return-value]
        user_agent="test",
        now=lambda: NOW,
        monotonic=lambda: 0.0,
    )
    yield made, server
    made.close()
    server.close()


def put(made: S3DataPlane, data: bytes = b"content", **headers: str) -> Response | None:
    return made.put(
        "a/b!c.dcm",
        data,
        sha256=hashlib.sha256(data).hexdigest(),
        headers={"if-none-match": "*", **{name.replace("_", "-"): value for name, value in headers.items()}},
    )


@pytest.mark.parametrize("token", [None, "session-token"])
def test_the_signature_is_botocores(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    with talking(OK, token=token) as (made, server):
        assert put(made, content_type="application/dicom") is not None
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    sent = dict(line.split(": ", 1) for line in lines)
    assert first == "PUT /bucket/a/b%21c.dcm HTTP/1.1"
    assert body == b"content"

    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: datetime.fromtimestamp(NOW, UTC))
    request = AWSRequest(
        "PUT",
        f"http://127.0.0.1:{server.port}/bucket/a/b%21c.dcm",
        {
            "If-None-Match": "*",
            "Content-Type": "application/dicom",
        },
        data=b"content",
    )
    signer = S3SigV4Auth(Credentials("AKID", "secret", token), "s3", "eu-central-1")
    signer.add_auth(request)
    assert sent["x-amz-date"] == request.headers["X-Amz-Date"]
    assert sent["authorization"] == request.headers["Authorization"]


def test_a_connection_is_used_again() -> None:
    with talking(OK, OK, OK) as (made, server):
        assert [put(made) is not None for _ in range(3)] == [True] * 3
    assert server.connections == 1


def test_a_connection_that_was_closed_meanwhile_is_not_used() -> None:
    with talking(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), OK) as (made, server):
        assert put(made) is not None
        assert put(made) is not None
    assert server.connections == 2


@pytest.mark.parametrize("status", [b"409 Conflict", b"412 Precondition Failed"])
def test_a_key_that_is_taken_is_an_answer(status: bytes) -> None:
    with talking(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\ntaken", OK) as (made, server):
        answer = put(made)
        assert answer is not None and answer.status == int(status[:3])
        assert put(made) is not None
    assert server.connections == 1  # the body was read to its end


ODD = {
    "closed without an answer": b"",
    "an error": b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n",
    "a redirect": b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n",
    "an informational answer": b"HTTP/1.1 100 Continue\r\n\r\n",
    "digits that are none": b"HTTP/1.1 2\xb20 OK\r\nContent-Length: 0\r\n\r\n",
    "a length of digits that are none": b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\nETag: x\r\n\r\n",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n",
    "a folded header": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n x\r\n\r\n",
    "no HTTP": b"SSH-2.0-x\r\n\r\n",
    "an older protocol": b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "two ETags": OK.replace(b"ETag", b'ETag: "y"\r\nETag'),
    "a long head": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + (b"x: " + b"y" * 1000 + b"\r\n") * 70 + b"\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000,
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_anything_but_a_plain_answer_is_none(odd: bytes) -> None:
    with talking(odd) as (made, _):
        assert put(made) is None


def test_an_answer_of_which_the_body_breaks_off_is_none() -> None:
    class Breaking(Server):
        def _one(self, connection: socket.socket) -> bool:
            super()._one(connection)
            return False

    with talking() as (made, _):
        server = Breaking([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"] * 3)
        made._address = address(server.port)
        assert (put(made), put_part(made), made.listing({})) == (None, None, None)
        assert not made._idle
        server.close()


def test_what_libcurl_refuses_is_none() -> None:
    with talking(OK) as (made, _):
        known, made._address = made._address, replace(made._address, host_header="a b:x")
        assert (put(made), put_part(made), made.head("k", {}, {}), made.get("k", {})) == (None,) * 4
        made._address = known
        assert put(made) is not None


def test_an_answer_ends_where_it_says_and_what_comes_behind_it_is_no_answer() -> None:
    """It might be taken for the answer to the next request."""
    more = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx" + OK
    refusal = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"
    for ask in (put, lambda made: list(made.get("key", {}).chunks(10))):
        with talking(more, refusal) as (made, server):
            assert ask(made)
            assert put(made) is None
        assert server.connections == 2


def test_no_server_at_all_is_none() -> None:
    with talking() as (made, server):
        server.close()
        assert put(made) is None


def put_part(made: S3DataPlane, data: bytes = b"content", **headers: str) -> Response | None:
    return made.put_part(
        "a/b!c.dcm",
        {"uploadId": "2~x/+ =", "partNumber": "12"},
        bytearray(data),
        {name.replace("_", "-"): value for name, value in headers.items()},
    )


@pytest.mark.parametrize("token", [None, "session-token"])
def test_a_part_is_signed_as_botocore_does_it(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    data = bytes(range(256)) * 5000  # more than goes out with the head, and more than a piece
    with talking(OK, token=token) as (made, server):
        answer = put_part(made, data, content_md5="abc=")
        assert answer is not None and answer.headers["etag"] == '"x"'
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    sent = dict(line.split(": ", 1) for line in lines)
    assert first == "PUT /bucket/a/b%21c.dcm?partNumber=12&uploadId=2~x%2F%2B%20%3D HTTP/1.1"
    assert body == data
    assert sent["x-amz-content-sha256"] == hashlib.sha256(data).hexdigest()
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: datetime.fromtimestamp(NOW, UTC))
    request = AWSRequest(
        "PUT",
        f"http://127.0.0.1:{server.port}/bucket/a/b%21c.dcm",
        {"Content-MD5": "abc="},
        params={"partNumber": "12", "uploadId": "2~x/+ ="},
        data=data,
    )
    S3SigV4Auth(Credentials("AKID", "secret", token), "s3", "eu-central-1").add_auth(request)
    assert sent["authorization"] == request.headers["Authorization"]


def test_a_part_is_signed_with_what_was_worked_out_of_it() -> None:
    """Whatever is sent: the store compares."""
    given = hashlib.sha256(b"what was hashed").hexdigest()
    with talking(OK) as (made, server):
        query = {"uploadId": "u", "partNumber": "1"}
        assert made.put_part("k", query, bytearray(b"what is sent"), {}, given) is not None
    assert f"\r\nx-amz-content-sha256: {given}\r\n".encode() in server.requests[0]


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_anything_but_a_plain_answer_to_a_part_is_none(odd: bytes) -> None:
    with talking(odd) as (made, _):
        assert put_part(made) is None


@pytest.mark.parametrize(
    "status", [b"404 Not Found", b"409 Conflict", b"412 Precondition Failed", b"204 No Content", b"206 Partial Content"]
)
def test_for_a_part_no_other_status_is_an_answer(status: bytes) -> None:
    with talking(b"HTTP/1.1 " + status + b'\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n') as (made, _):
        assert put_part(made) is None


@pytest.mark.parametrize("etag", [b"", b"ETag: \r\n"], ids=["none", "empty"])
def test_a_part_without_an_etag_is_none(etag: bytes) -> None:
    with talking(b"HTTP/1.1 200 OK\r\n" + etag + b"Content-Length: 0\r\n\r\n") as (made, _):
        assert fast_path.upload_part(made, "key", "upload", 1, bytearray(b"x"), {"ContentMD5": "abc="}) is None


def test_of_a_part_the_answers_encryption_is_handed_on() -> None:
    headers = b"x-amz-server-side-encryption: aws:kms\r\nx-amz-server-side-encryption-aws-kms-key-id: k\r\n\r\n"
    with talking(OK[:-2] + headers) as (made, _):
        assert fast_path.upload_part(made, "key", "upload", 1, bytearray(b"x"), {"ContentMD5": "abc="}) == {
            "ETag": '"x"',
            "ServerSideEncryption": "aws:kms",
            "SSEKMSKeyId": "k",
        }


@pytest.mark.parametrize("value", ["line\r\nx-other: y", "two  blanks", " blank", "ü"])
def test_a_header_that_would_not_be_sent_as_it_is_signed_is_not_sent(value: str) -> None:
    with talking(OK) as (made, server):
        assert put(made, content_type=value) is None
    assert server.requests == []


def test_a_name_that_is_not_resolved_is_none_until_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is not asked for at every file: after some failures the data plane rests, as for any other trouble."""
    asked: list[str] = []
    exchange = Connection.exchange

    def counted(self: Connection, method: str, url: str, *rest: Any) -> Response:
        asked.append(url)
        return exchange(self, method, url, *rest)

    monkeypatch.setattr(Connection, "exchange", counted)
    with talking(OK) as (made, server):
        known, made._address = made._address, replace(made._address, host_header=f"{'x' * 64}.test")  # no name at all
        for _ in range(3 * data_plane.GIVE_UP_AFTER):
            assert put(made) is None
            assert made.get("key", {}) is None
        assert len(asked) == data_plane.GIVE_UP_AFTER
        assert server.requests == []
        made._address = known
        made._monotonic = lambda: data_plane.REST_SECONDS + 1
        assert put(made) is not None


def test_after_failures_in_a_row_it_rests() -> None:
    refusals = [b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"] * data_plane.GIVE_UP_AFTER
    with talking(*refusals, OK) as (made, server):
        for _ in refusals:
            assert put(made) is None
        assert put(made) is None
        assert len(server.requests) == len(refusals)
        made._monotonic = lambda: data_plane.REST_SECONDS + 1
        assert put(made) is not None


def test_a_get_is_signed_as_botocore_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with talking(OK.replace(b"Length: 0\r\n\r\n", b"Length: 3\r\n\r\nabc")) as (made, server):
        body = made.get("a/b!c.dcm", {"versionId": "x/+ ="})
        assert body is not None
        assert list(body.chunks(2)) == [b"ab", b"c"]
    first, *lines = server.requests[0].decode().split("\r\n")
    sent = dict(line.split(": ", 1) for line in lines if line)
    assert first == "GET /bucket/a/b%21c.dcm?versionId=x%2F%2B%20%3D HTTP/1.1"
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: datetime.fromtimestamp(NOW, UTC))
    request = AWSRequest("GET", f"http://127.0.0.1:{server.port}/bucket/a/b%21c.dcm", params={"versionId": "x/+ ="})
    S3SigV4Auth(Credentials("AKID", "secret"), "s3", "eu-central-1").add_auth(request)
    assert sent["authorization"] == request.headers["Authorization"]


def test_a_body_that_breaks_off_is_an_error() -> None:
    class Breaking(Server):
        def _one(self, connection: socket.socket) -> bool:
            super()._one(connection)
            return False

    with talking() as (made, _):
        server = Breaking([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"])
        made._address = address(server.port)
        body = made.get("key", {})
        assert body is not None
        with pytest.raises(OSError, match="missing"):
            list(body.chunks(100))
        assert not made._idle
        server.close()


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_anything_but_a_plain_body_is_none(odd: bytes) -> None:
    with talking(odd) as (made, _):
        assert made.get("key", {}) is None


def test_a_coded_body_is_none() -> None:
    with talking(OK.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")) as (made, _):
        assert made.get("key", {}) is None


LISTING = (
    b'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>'
    b"<Prefix>p/</Prefix><Contents><Key>p/a%26+b</Key><LastModified>2026-01-31T12:00:00.500Z</LastModified><Size>12</Size>"
    b"<ETag>&quot;00ff&quot;</ETag></Contents><Contents><Key>p/c</Key><LastModified>soon</LastModified><Size>0</Size></Contents><NextContinuationToken>on</NextContinuationToken>"
    b"<IsTruncated>true</IsTruncated></ListBucketResult>"
)
PAGE = ListedPage([ListedObject("p/a& b", 12, "00ff", 1769860800.5), ListedObject("p/c", 0, None)], "on")


def chunked(body: bytes, size: int, trailer: bytes = b"") -> bytes:
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    coded = b"".join(b"%X;x=y\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailer + b"\r\n"
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(LISTING), LISTING),
        chunked(LISTING, 10_000),
        chunked(LISTING, 7),
        chunked(LISTING, 100, b"x-checksum: y\r\n"),
    ],
    ids=["with a length", "one chunk", "many chunks", "with a trailer"],
)
def test_a_listing_is_read_whole(answer: bytes) -> None:
    with talking(answer, answer) as (made, server):
        assert fast_path.list_objects(made, "p/", Paging("a+token")) == PAGE
        assert fast_path.list_objects(made, "p/", Paging()) == PAGE
    assert server.connections == 1
    [first, second] = [request.partition(b" HTTP/1.1")[0] for request in server.requests]
    assert first == b"GET /bucket/?continuation-token=a%2Btoken&encoding-type=url&list-type=2&prefix=p%2F"
    assert second == b"GET /bucket/?encoding-type=url&list-type=2&prefix=p%2F"


@pytest.mark.parametrize("coded", [False, True], ids=["with a length", "chunked"])
def test_a_listing_of_more_than_any_page_has_is_none(coded: bool) -> None:
    body = LISTING.replace(b"</ListBucketResult>", b" " * (4 << 20) + b"</ListBucketResult>")
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with talking(chunked(body, 1 << 16) if coded else answer) as (made, _):
        assert fast_path.list_objects(made, "p/", Paging()) is None


def test_common_prefixes_are_read_and_asked_for() -> None:
    of_two = b"".join(b"<CommonPrefixes><Prefix>%s</Prefix></CommonPrefixes>" % one for one in (b"p/a%20b/", b"p/c/"))
    answer = chunked(LISTING.replace(b"</ListBucketResult>", of_two + b"</ListBucketResult>"), 10_000)
    with talking(answer) as (made, server):
        found = fast_path.list_objects(made, "p/", Paging(after="p/a/", delimiter="/"))
    assert found == PAGE._replace(common_prefixes=("p/a b/", "p/c/"))
    assert b"?delimiter=%2F&encoding-type=url&list-type=2&prefix=p%2F&start-after=p%2Fa%2F " in server.requests[0]


@pytest.mark.parametrize(
    "answer",
    [
        *(odd for name, odd in ODD.items() if name != "chunked"),
        b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%s" % (len(LISTING), LISTING),
        chunked(LISTING, 7).replace(b"7;x=y", b"-7", 1),
        chunked(LISTING, 7).replace(b"7;x=y", b"8", 1),
        chunked(LISTING, 7).replace(b"7;x=y", b"fffffff", 1),
        chunked(LISTING, 7).replace(b"7;x=y", b"", 1),
        chunked(LISTING, 10_000).replace(b"chunked", b"gzip, chunked"),
        chunked(LISTING, 10_000).replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n", 1),
    ],
)
def test_a_listing_that_is_no_plain_answer_is_none(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "ANSWER_SECONDS", 0.5)  # for what a chunk promises and does not hold
    with talking(answer) as (made, _):
        assert fast_path.list_objects(made, "p/", Paging()) is None


def test_whatever_byte_of_a_listing_is_another_it_is_a_page_or_none() -> None:
    bodies = [LISTING[:at] + bytes([byte]) + LISTING[at + 1 :] for at in range(len(LISTING)) for byte in b"\x00</9z"]
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies]
    nothing = 0
    with talking(*answers) as (made, _):
        for _ in answers:
            page = fast_path.list_objects(made, "p/", Paging())
            nothing += page is None
            assert page is None or all(item.size_bytes >= 0 for item in page.objects)
    assert nothing > len(LISTING), "most of what is no listing is taken for none"


VERSIONS = (
    b'<?xml version="1.0"?><ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>'
    b"<Prefix>p/</Prefix><KeyMarker></KeyMarker><VersionIdMarker></VersionIdMarker>"
    b"<Version><Key>p/a%26+b</Key><VersionId>v2</VersionId><IsLatest>true</IsLatest>"
    b"<LastModified>2026-01-31T12:00:00.500Z</LastModified><ETag>&quot;00ff&quot;</ETag><Size>12</Size></Version>"
    b"<Version><Key>p/a%26+b</Key><VersionId>v1</VersionId><IsLatest>false</IsLatest><Size>11</Size></Version>"
    b"<DeleteMarker><Key>p/b</Key><VersionId>v1</VersionId><IsLatest>true</IsLatest></DeleteMarker>"
    b"<Version><Key>p/c</Key><VersionId>null</VersionId><IsLatest>true</IsLatest><Size>0</Size></Version>"
    b"<IsTruncated>true</IsTruncated><NextKeyMarker>p/c%2B</NextKeyMarker>"
    b"<NextVersionIdMarker>null</NextVersionIdMarker></ListVersionsResult>"
)
VERSIONS_PAGE = VersionsPage(
    [
        (ListedObject("p/a& b", 12, "00ff", 1769860800.5), "v2"),
        None,
        None,
        (ListedObject("p/c", 0, None), "null"),
    ],
    Marker("p/c+", "null"),
    is_last=False,
)


def whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_versions_are_listed() -> None:
    last = VERSIONS.replace(b"<IsTruncated>true", b"<IsTruncated>false").replace(b"p/c%2B", b"")
    with talking(whole(VERSIONS), whole(last)) as (made, server):
        assert fast_path.list_versions(made, "p/", None) == VERSIONS_PAGE
        assert fast_path.list_versions(made, "p/", Marker("p/c+", "null")) == VERSIONS_PAGE._replace(
            following=None, is_last=True
        )
    [first, second] = [request.partition(b" HTTP/1.1")[0] for request in server.requests]
    assert first == b"GET /bucket/?encoding-type=url&prefix=p%2F&versions="
    assert second == (
        b"GET /bucket/?encoding-type=url&key-marker=p%2Fc%2B&prefix=p%2F&version-id-marker=null&versions="
    )


@pytest.mark.parametrize(
    "body",
    [
        LISTING,
        VERSIONS[:-30],
        VERSIONS.replace(b"<IsLatest>false", b"<IsLatest>perhaps"),
        VERSIONS.replace(b"<IsLatest>true</IsLatest><LastModified>", b"<LastModified>"),
        VERSIONS.replace(b"<Size>12</Size>", b""),
        VERSIONS.replace(b"<Size>11</Size>", b"<Size>-11</Size>"),
        VERSIONS.replace(b"<IsTruncated>true</IsTruncated>", b""),
    ],
)
def test_what_is_no_list_of_versions_is_none(body: bytes) -> None:
    with talking(whole(body)) as (made, _):
        assert fast_path.list_versions(made, "p/", None) is None


def test_whatever_byte_of_a_list_of_versions_is_another_no_old_version_is_shown_as_current() -> None:
    at = VERSIONS.index(b"v1</VersionId><IsLatest>false")
    bodies = [VERSIONS[:n] + bytes([byte]) + VERSIONS[n + 1 :] for n in range(at, at + 60) for byte in b"\x00</9zt"]
    with talking(*map(whole, bodies)) as (made, _):
        for _ in bodies:
            page = fast_path.list_versions(made, "p/", None)
            assert page is None or all(one is None or one[1] != "v1" for one in page.versions)


# --- the connection


def test_what_is_asked_on_one_connection_leaves_nothing_to_the_next_request() -> None:
    with talking(OK, OK, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", GET_ABC, OK, OK, GET_ABC) as (made, server):
        assert put(made, b"first") is not None
        assert put_part(made, b"second") is not None
        assert made.head("k", {}, {}) is not None
        assert b"".join(made.get("k", {}).chunks(10)) == b"abc"  # type: ignore[union-attr]
        assert put(made, b"") is not None
        assert put_part(made, b"") is not None
        assert b"".join(made.get("k", {}).chunks(10)) == b"abc"  # type: ignore[union-attr]
    assert server.connections == 1
    methods = [request.partition(b" ")[0] for request in server.requests]
    assert methods == [b"PUT", b"PUT", b"HEAD", b"GET", b"PUT", b"PUT", b"GET"]
    assert [request.partition(b"\r\n\r\n")[2] for request in server.requests] == [b"first", b"second", *[b""] * 5]
    for request in server.requests:
        names = [line.partition(b":")[0].lower() for line in request.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
        assert len(set(names)) == len(names)
        assert {b"host", b"authorization", b"user-agent"} <= set(names)
        assert not {b"accept", b"expect", b"content-type", b"cookie", b"accept-encoding"} & set(names)
        assert (b"content-length" in names) == request.startswith(b"PUT")


class Leaving(Server):
    """Closes each connection after its first answer, and does not say so."""

    def _one(self, connection: socket.socket) -> bool:
        super()._one(connection)
        return False


def test_a_connection_that_was_closed_without_a_word_is_not_used() -> None:
    with talking() as (made, _):
        server = Leaving([OK] * 4)
        made._address = address(server.port)
        for ask in (put, put_part, put, put_part):
            assert ask(made, b"content") is not None
            time.sleep(0.05)
        assert [request.partition(b"\r\n\r\n")[2] for request in server.requests] == [b"content"] * 4
        assert server.connections == 4
        server.close()


class Silent(Server):
    """The second request of a connection is read, and the connection closed."""

    def _one(self, connection: socket.socket) -> bool:
        seen = len(self.requests)
        if self.connections == 1 and seen == 1:
            while b"content" not in connection.recv(65536):
                pass
            return False
        return super()._one(connection)


@pytest.mark.parametrize("ask", [put, put_part])
def test_what_a_kept_connection_swallowed_is_sent_once_more(ask: Callable[..., Response | None]) -> None:
    """The server may have closed it just before: the whole request goes out again, its body from the beginning."""
    with talking() as (made, _):
        server = Silent([OK] * 2)
        made._address = address(server.port)
        assert ask(made, b"first") is not None
        assert ask(made, b"content") is not None
        assert server.requests[-1].partition(b"\r\n\r\n")[2] == b"content"
        assert server.connections == 2
        server.close()


@pytest.mark.parametrize("ask", [put, put_part])
def test_a_server_that_takes_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[..., Response | None]
) -> None:
    monkeypatch.setattr(deadlines, "ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server, talking() as (made, _):
        made._address = address(server.getsockname()[1])
        began = time.monotonic()
        assert ask(made, bytes(16 << 20)) is None  # the time that a slow line would need for it is an hour
        assert time.monotonic() - began < 10


def test_of_a_body_little_comes_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_AHEAD_BYTES", 1000)
    data = bytes(range(256)) * 8000
    with talking(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data), OK) as (made, server):
        body = made.get("k", {})
        assert body is not None
        time.sleep(0.05)
        room = memoryview(bytearray(70_001))
        came = b""
        for view in body.views(room):
            came += view
            assert body._connection._ahead_bytes < 1000 + 16384
        assert came == data
        assert put(made) is not None
    assert server.connections == 1


def test_nothing_of_what_was_sent_is_kept() -> None:
    """A connection waits for its next request for minutes, and there are many."""
    data = bytes(1000)
    before = sys.getrefcount(data)
    with talking(OK) as (made, _):
        assert put(made, data) is not None
        assert sys.getrefcount(data) == before
        [idle] = made._idle
        assert idle._sent is None


def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Proxies are botocore's to choose, keys its own."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / ".netrc").write_text("default login x password y\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with talking(OK, token="session-token") as (made, server):
        assert put(made) is not None
    assert server.requests[0].lower().count(b"\r\nauthorization:") == 1
    assert b"Basic" not in server.requests[0]


def test_a_child_does_not_get_the_connection() -> None:
    with talking(OK) as (made, _):
        assert put(made) is not None
        [idle] = made._idle
        sockets = [fd for fd in map(int, os.listdir("/proc/self/fd")) if _peer(fd) == made._address.host_header]
        assert sockets and not any(os.get_inheritable(fd) for fd in sockets)
        assert idle is not None


def _peer(fd: int) -> str | None:
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as found:
        return "{}:{}".format(*found.getpeername()[:2])
    return None


def test_from_many_threads() -> None:
    bodies = [bytes([number]) * (1000 * number) for number in range(1, 33)]

    class Each(Server):
        def _serve(self) -> None:
            with suppress(OSError):
                while True:
                    accepted, _ = self._socket.accept()
                    self.connections += 1
                    threading.Thread(target=self._talk, args=(accepted,), daemon=True).start()

        def _talk(self, accepted: socket.socket) -> None:
            with accepted, suppress(OSError):
                while self._one(accepted):
                    pass

    with talking() as (made, _), ThreadPoolExecutor(8) as threads:
        server = Each([OK] * 320)
        made._address = address(server.port)
        assert all(threads.map(lambda body: put(made, body) is not None, bodies * 10))
        assert sorted(r.partition(b"\r\n\r\n")[2] for r in server.requests) == sorted(bodies * 10)
        assert server.connections <= 8
        made.close()
        assert not made._idle
        server.close()


@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found"])
def test_a_look_has_two_answers(status: bytes) -> None:
    answer = b"HTTP/1.1 " + status + b"\r\nContent-Length: 7\r\nx-amz-version-id: v\r\n\r\n"
    with talking(answer, OK) as (made, server):
        found = made.head("a/b!c.dcm", {"versionId": "v"}, {"x-amz-checksum-mode": "ENABLED"})
        assert found is not None and (found.status, found.headers["x-amz-version-id"]) == (int(status[:3]), "v")
        assert put(made) is not None
    assert server.requests[0].startswith(b"HEAD /bucket/a/b%21c.dcm?versionId=v HTTP/1.1\r\n")
    assert server.connections == 1


@pytest.mark.parametrize(
    "odd",
    [
        *(odd for name, odd in ODD.items() if "length" not in name and name != "chunked"),
        ODD["two lengths"],
        *(
            b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"
            for status in (
                b"204 No Content",
                b"206 Partial Content",
                b"403 Forbidden",
                b"405 Method Not Allowed",
                b"400 x",
            )
        ),
    ],
)
def test_a_look_that_is_answered_otherwise_is_none(odd: bytes) -> None:
    with talking(odd) as (made, _):
        assert made.head("k", {}, {}) is None


def looked(made: S3DataPlane, **arguments: str) -> dict[str, Any] | None:
    return fast_path.head_object(made, {"Bucket": "bucket", "Key": "k", **arguments})


def test_a_look_is_answered_as_boto3_answers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"\r\n".join(
        (
            b"HTTP/1.1 200 OK",
            b"Content-Length: 526000",
            b'ETag: "0f"',
            b"Last-Modified: Sat, 31 Jan 2026 12:00:00 GMT",
            b"x-amz-version-id: v",
            b"x-amz-checksum-sha256: abc=",
            b"x-amz-checksum-crc64nvme: def=",
            b"x-amz-server-side-encryption: aws:kms",
            b"x-amz-server-side-encryption-aws-kms-key-id: key",
            b"x-amz-storage-class: GLACIER",
            b'x-amz-restore: ongoing-request="true"',
            b"x-amz-archive-status: ARCHIVE_ACCESS",
            b'x-amz-expiration: expiry-date="x", rule-id="y"',
            b"\r\n",
        )
    )
    for name, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(f"AWS_{name}", value)
    with talking(head, head) as (made, server):
        found = looked(made, VersionId="v", ChecksumMode="ENABLED")
        made.close()  # the server has one connection at a time
        client = aws.build_client(
            "s3", region="x", endpoint_url=f"http://127.0.0.1:{server.port}", ca_file=None, max_connections=1
        )
        theirs: dict[str, Any] = dict(
            client.head_object(Bucket="bucket", Key="k", VersionId="v", ChecksumMode="ENABLED")
        )
        client.close()
    ours, botocores = (request.partition(b"\r\n")[0] for request in server.requests)
    assert ours == botocores
    assert all(b"\r\nx-amz-checksum-mode: ENABLED\r\n" in request for request in server.requests)
    del theirs["ResponseMetadata"], theirs["Metadata"]
    assert found == theirs


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Length: 12a",
        b"X: y",
        b"Content-Length: 1\r\nLast-Modified: soon",
        b"Content-Length: 1\r\nLast-Modified: Sat, 31 Jan 2026 12:00:00 -0000",
    ],
    ids=["length", "no length", "time", "time of no zone"],
)
def test_a_look_that_cannot_be_read_is_none(header: bytes) -> None:
    with talking(b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\n") as (made, _):
        assert looked(made) is None


def test_a_look_at_nothing() -> None:
    with talking(b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\n", b"") as (made, _):
        assert looked(made) == {}
        assert looked(made) is None
