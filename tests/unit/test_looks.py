"""HeadObject by the data plane: what the store makes of it, and what botocore is asked then."""

from __future__ import annotations

import pytest

from dicomwatchd.errors import CredentialsRefused, NotThere, Transient
from tests.unit.test_ranges import answering

KEY = "studies/1.2/series/1.3/1.4/" + "0" * 64 + ".dcm"


def look(status: str, *headers: str, length: object = 7) -> bytes:
    """Its connection is closed, for the server has one at a time."""
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {length}", "Connection: close", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def test_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = ('ETag: "0f"', "x-amz-version-id: v", "x-amz-server-side-encryption: AES256")
    with answering(monkeypatch, True, look("200 OK", *headers)) as (store, server):
        found = store.head(KEY, "v")
    assert found is not None
    assert (found.key, found.size_bytes, found.etag, found.version_id, found.encryption) == (
        KEY,
        7,
        "0f",
        "v",
        "AES256",
    )
    assert len(server.requests) == 1 and b"?versionId=v " in server.requests[0]


def test_absence_needs_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A HEAD has no body: a missing object and a missing bucket look alike."""
    with answering(monkeypatch, True, look("404 Not Found"), look("200 OK")) as (store, server):
        assert store.head(KEY) is None
        assert [request.partition(b" HTTP")[0] for request in server.requests] == [
            b"HEAD /bucket/" + KEY.encode(),
            b"HEAD /bucket",
        ]
    with (
        answering(monkeypatch, True, look("404 Not Found"), look("404 Not Found")) as (store, _),
        pytest.raises(NotThere),
    ):
        store.head(KEY)


def test_a_refusal_is_botocores_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = look("403 Forbidden", length=0)
    with answering(monkeypatch, True, *[refused] * 6) as (store, _), pytest.raises(CredentialsRefused):
        store.head(KEY)


@pytest.mark.parametrize(
    "odd", [look("200 OK", length="7a"), look("200 OK", "Last-Modified: soon")], ids=["length", "time"]
)
def test_an_answer_that_cannot_be_read_is_none(monkeypatch: pytest.MonkeyPatch, odd: bytes) -> None:
    with answering(monkeypatch, True, *[odd] * 8) as (store, server), pytest.raises(Transient):
        store.head(KEY)
    assert len(server.requests) >= 2
