"""What the role may do is asked by requests that can take nothing away, and what the answers say is told apart."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.preflight import rights
from dicomwatchd.archive.preflight.rights import RoleChecks
from dicomwatchd.archive.stores.port import Capabilities
from dicomwatchd.findings import Finding
from tests.unit.test_data_plane import Server
from tests.unit.test_ranges import answer, answering

NAME = "0123456789abcdef" * 2
TRUSTED = Capabilities(details={"wrong Content-MD5": "refused"})


def error(status: str, code: str) -> bytes:
    return answer(status, f"<Error><Code>{code}</Code></Error>".encode())


DENIED = error("403 Forbidden", "AccessDenied")
GONE = b"HTTP/1.1 204 No Content\r\n\r\n"
PRECONDITION = error("412 Precondition Failed", "PreconditionFailed")
NO_KEY = error("404 Not Found", "NoSuchKey")
NO_VERSION = error("404 Not Found", "NoSuchVersion")
BAD_DIGEST = error("400 Bad Request", "BadDigest")
STRANGE = error("400 Bad Request", "InvalidRequest")
EXPIRED = error("400 Bad Request", "ExpiredToken")


def deleting(monkeypatch: pytest.MonkeyPatch, *answers: bytes) -> tuple[Finding, Server]:
    with answering(monkeypatch, False, *answers) as (store, server):
        return RoleChecks(store.bucket, TRUSTED, lambda: NAME).deleting(), server


def overwriting(monkeypatch: pytest.MonkeyPatch, *answers: bytes) -> tuple[Finding, Server]:
    with answering(monkeypatch, False, *answers) as (store, server):
        return RoleChecks(store.bucket, TRUSTED, lambda: NAME).overwriting(), server


def test_the_key_is_nobodys_and_is_another_one_each_time() -> None:
    key = rights.nobodys_key(lambda: NAME)
    assert key.startswith(keys.STUDIES) and NAME in key
    assert keys.parse_study(key[: key.index("/", len(keys.STUDIES)) + 1]) is None
    assert not keys.holds_instances(key) and keys.parse_instance(key) is None
    assert rights.nobodys_key(lambda: "other") != key


def test_the_requests_can_only_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"/bucket/{rights.nobodys_key(lambda: NAME)}"
    _, server = deleting(monkeypatch, DENIED, DENIED)
    of_version, of_current = (request.decode() for request in server.requests)
    assert of_version.startswith(f"DELETE {path}?versionId=null HTTP")
    assert of_current.startswith(f"DELETE {path} HTTP")
    assert re.search(r'\r\nif-match: "0{32}"\r\n', of_current, re.IGNORECASE)
    _, server = overwriting(monkeypatch, DENIED)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    sent = head.decode()
    assert sent.startswith(f"PUT {path} HTTP")
    assert re.search(r'\r\nif-match: "0{32}"(\r\n|\Z)', sent, re.IGNORECASE)
    assert "if-none-match" not in sent.lower(), "a policy for creations would let that through"
    named = re.search(r"\r\ncontent-md5: ([^\r]+)", sent, re.IGNORECASE)
    assert named is not None and body
    assert base64.b64decode(named[1]) != hashlib.md5(body, usedforsecurity=False).digest()


def test_a_store_that_takes_wrong_bytes_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for details in ({}, {"wrong Content-MD5": "accepted"}):
        with answering(monkeypatch, False, GONE) as (store, server):
            found = RoleChecks(store.bucket, Capabilities(details=details), lambda: NAME).overwriting()
        assert found.outcome == "unknown" and server.requests == []


@pytest.mark.parametrize("said", [GONE, NO_VERSION, NO_KEY, PRECONDITION], ids=["204", "version", "key", "412"])
def test_a_role_that_could_delete_versions(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    found, server = deleting(monkeypatch, said)
    assert found.outcome == "note" and "for good" in found.detail and found.fix
    assert len(server.requests) == 1, "and no delete marker is asked for"


@pytest.mark.parametrize("said", [GONE, NO_KEY, PRECONDITION], ids=["204", "key", "412"])
def test_a_role_that_could_hide_objects(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    found, _ = deleting(monkeypatch, DENIED, said)
    assert found.outcome == "note" and "delete markers" in found.detail


def test_a_role_that_can_do_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = deleting(monkeypatch, DENIED, DENIED)
    assert (found.outcome, found.fix) == ("good", None)
    found, _ = overwriting(monkeypatch, DENIED)
    assert (found.outcome, found.fix) == ("good", None)


@pytest.mark.parametrize("answers", [(STRANGE, DENIED), (DENIED, STRANGE), (EXPIRED, EXPIRED)], ids=["1", "2", "both"])
def test_an_answer_that_tells_nothing_is_no_pass(monkeypatch: pytest.MonkeyPatch, answers: tuple[bytes, bytes]) -> None:
    found, _ = deleting(monkeypatch, *answers)
    assert found.outcome == "unknown" and found.fix is None


@pytest.mark.parametrize("said", [BAD_DIGEST, PRECONDITION, NO_KEY, GONE], ids=["digest", "412", "404", "204"])
def test_a_role_that_could_overwrite(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    found, _ = overwriting(monkeypatch, said)
    assert found.outcome == "note" and "other bytes" in found.detail


def test_a_refusal_of_another_kind_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = overwriting(monkeypatch, STRANGE)
    assert found.outcome == "unknown" and "InvalidRequest" in found.detail
