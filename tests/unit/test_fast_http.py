"""The fast path on its own: its signature beside botocore's, and what it makes of odd servers."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials

from dicomwatchd.archive.stores.s3 import fast_http, fast_path
from dicomwatchd.archive.stores.s3.bucket import ListedObject, ListedPage, Paging
from dicomwatchd.archive.stores.s3.fast_http import Address, S3DataPlane

OK = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n'
NOW = 1_700_000_000.0


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


@contextmanager
def talking(*answers: bytes, token: str | None = None) -> Iterator[tuple[S3DataPlane, Server]]:
    server = Server(list(answers))
    made = S3DataPlane(
        Address("127.0.0.1", server.port, False, "/bucket"),
        region="eu-central-1",
        credentials=lambda: ReadOnlyCredentials("AKID", "secret", token),  # type: ignore[arg-type,return-value]
        tls=None,
        user_agent="test",
        now=lambda: NOW,
        monotonic=lambda: 0.0,
    )
    yield made, server
    made.close()
    server.close()


def put(made: S3DataPlane, data: bytes = b"content", **headers: str) -> fast_http.Response | None:
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
    "more than it says": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy",
    "a folded header": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n x\r\n\r\n",
    "no HTTP": b"SSH-2.0-x\r\n\r\n",
    "an older protocol": b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000,
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_anything_but_a_plain_answer_is_none(odd: bytes) -> None:
    with talking(odd) as (made, _):
        assert put(made) is None


def test_no_server_at_all_is_none() -> None:
    with talking() as (made, server):
        server.close()
        assert put(made) is None


def put_part(made: S3DataPlane, data: bytes = b"content", **headers: str) -> fast_http.Response | None:
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
    """And it is not asked for at every file: after some failures the fast path rests, as for any other trouble."""
    asked = []

    def unresolved(*_: object, **__: object) -> None:
        asked.append(1)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with talking(OK) as (made, server):
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", unresolved)
            for _ in range(3 * fast_http.GIVE_UP_AFTER):
                assert put(made) is None
                assert made.get("key", {}) is None
        assert len(asked) == fast_http.GIVE_UP_AFTER
        assert server.requests == []
        made._monotonic = lambda: fast_http.REST_SECONDS + 1
        assert put(made) is not None


def test_after_failures_in_a_row_it_rests() -> None:
    refusals = [b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"] * fast_http.GIVE_UP_AFTER
    with talking(*refusals, OK) as (made, server):
        for _ in refusals:
            assert put(made) is None
        assert put(made) is None
        assert len(server.requests) == len(refusals)
        made._monotonic = lambda: fast_http.REST_SECONDS + 1
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
        made._address = Address("127.0.0.1", server.port, False, "/bucket")
        body = made.get("key", {})
        assert body is not None
        with pytest.raises(OSError, match="closed"):
            list(body.chunks(100))
        assert not made._idle
        server.close()


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_anything_but_a_plain_body_is_none(odd: bytes) -> None:
    if odd == ODD["more than it says"]:
        return  # the body ends where it says, and the connection is not used again
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
        *(odd for name, odd in ODD.items() if name not in ("chunked", "more than it says")),
        chunked(LISTING, 7).replace(b"7;x=y", b"-7", 1),
        chunked(LISTING, 7).replace(b"7;x=y", b"8", 1),
        chunked(LISTING, 7).replace(b"7;x=y", b"fffffff", 1),
        chunked(LISTING, 7).replace(b"7;x=y", b"", 1),
        chunked(LISTING, 10_000).replace(b"chunked", b"gzip, chunked"),
        chunked(LISTING, 10_000).replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n", 1),
    ],
)
def test_a_listing_that_is_no_plain_answer_is_none(answer: bytes) -> None:
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
