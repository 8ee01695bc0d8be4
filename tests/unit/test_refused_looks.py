"""A policy that allows to list below the archive's prefix only: a store may then say 403 for what is not there.

What is there and refused must stay refused: absence may be said only where a listing shows it. The answers come over a
socket.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.config.archive import S3Settings
from dicomwatchd.errors import NotInitialised, Permanent, Transient

KEY = "studies/1.2/a"
DENIED = b"<Error><Code>AccessDenied</Code></Error>"


def listing(*names: str) -> bytes:
    entries = "".join(f'<Contents><Key>{name}</Key><ETag>"00"</ETag><Size>1</Size></Contents>' for name in names)
    return f"<ListBucketResult><Name>b</Name><KeyCount>1</KeyCount>{entries}</ListBucketResult>".encode()


class _Store(ThreadingHTTPServer):
    """Refuses every look at an object and at the bucket; ``listed`` answers a listing, or None refuses that too."""

    listed: bytes | None = b""
    listing_status = 200

    class RequestHandlerClass(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            assert isinstance(self.server, _Store)
            self.server.asked.append((self.command, self.path))
            is_listing = "list-type=2" in self.path or "versions" in self.path
            body = self.server.listed if is_listing else None
            status = 403 if body is None else self.server.listing_status
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(DENIED if body is None else body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(DENIED if body is None else body)
            self.wfile.flush()

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.RequestHandlerClass)
        self.asked: list[tuple[str, str]] = []


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Store]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    with _Store() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def opened(server: _Store, prefix: str = "rad/") -> Iterator[S3Store]:
    settings = S3Settings(
        kind="s3",
        bucket="bucket",
        ca_file=None,
        prefix=prefix,
        region="us-east-1",
        endpoint_url=f"http://127.0.0.1:{server.server_port}",
        insecure_http=True,
    )
    store = S3Store(settings, connections=1)
    yield store
    store.close()


@pytest.mark.parametrize(
    "listed",
    [
        listing(),
        listing(f"rad/{KEY}b"),
        listing(f"rad/{KEY}/c"),
        listing().replace(b"<KeyCount>", f"<Prefix>rad/{KEY}</Prefix><KeyCount>".encode()),
    ],
)
def test_what_the_listing_does_not_have_is_not_there(store: _Store, listed: bytes) -> None:
    store.listed = listed
    with opened(store) as archive:
        assert archive.head(KEY) is None
        with pytest.raises(Permanent) as absent:
            list(archive.read(KEY))
        assert absent.value.code == "no-such-object"
    assert all(f"prefix=rad%2F{KEY.replace('/', '%2F')}" in path for _, path in store.asked if "list-type" in path)


@pytest.mark.parametrize(
    ("listed", "status"),
    [
        (listing(f"rad/{KEY}"), 200),
        (None, 403),
        (listing(), 500),
        (b"<Portal/>", 200),
        (listing().replace(b"<KeyCount>", b"<Prefix>rad/other</Prefix><KeyCount>"), 200),
    ],
)
def test_what_is_there_or_cannot_be_listed_stays_refused(store: _Store, listed: bytes | None, status: int) -> None:
    store.listed, store.listing_status = listed, status
    with opened(store) as archive:
        for look in (lambda: archive.head(KEY), lambda: list(archive.read(KEY))):
            with pytest.raises(Transient) as refused:
                look()
            assert refused.value.code == "credentials"


def test_of_a_version_a_listing_says_nothing(store: _Store) -> None:
    store.listed = listing()
    with opened(store) as archive:
        for look in (lambda: archive.head(KEY, "v1"), lambda: list(archive.read(KEY, "v1"))):
            with pytest.raises(Transient):
                look()
    assert not [path for _, path in store.asked if "list-type" in path]


def test_below_a_prefix_the_look_at_the_bucket_asks_for_no_more_than_the_prefix(store: _Store) -> None:
    store.listed = listing()
    with opened(store) as archive:
        archive.check()
    ((method, path),) = store.asked
    assert method == "GET" and "prefix=rad%2F" in path


def test_a_bucket_that_is_not_there_is_told_below_a_prefix_too(store: _Store) -> None:
    store.listed, store.listing_status = b"<Error><Code>NoSuchBucket</Code></Error>", 404
    with opened(store) as archive, pytest.raises(NotInitialised):
        archive.check()


def test_a_listing_that_is_answered_as_a_look_at_an_object_says_nothing(store: _Store) -> None:
    """By something in between: to take it for an archive without objects would be to send all of it again."""
    store.listed, store.listing_status = b"<Error><Code>NoSuchKey</Code></Error>", 404
    with opened(store) as archive:
        for look in (archive.listing, archive.common_prefixes, archive.current_versions):
            with pytest.raises(Transient) as strange:
                list(look("studies/"))
            assert strange.value.code == "strange-answer"


def test_without_a_prefix_the_bucket_is_asked_as_ever(store: _Store) -> None:
    store.listed = listing()
    with opened(store, prefix="") as archive, pytest.raises(Transient):
        archive.check()
    assert store.asked[0][0] == "HEAD"
