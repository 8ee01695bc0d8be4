"""Answers that no honest server gave: made-up errors, and real answers falsified on their way."""

from __future__ import annotations

import hashlib
import json
import random
import re
import zlib
from dataclasses import dataclass, replace

from tests.faults.rules import Fault, Request

_WRONG_MD5 = "0123456789abcdef0123456789abcdef"
_OTHER_VERSION = "a-version-that-is-not-current"
_EXPIRES = 'expiry-date="Fri, 01 Jan 2038 00:00:00 GMT", rule-id="some rule"'

_S3_ERRORS: dict[Fault, tuple[int, str]] = {
    Fault.ERROR_500: (500, "InternalError"),
    Fault.SLOW_DOWN: (503, "SlowDown"),
    Fault.CONFLICT: (409, "ConditionalRequestConflict"),
    Fault.PRECONDITION: (412, "PreconditionFailed"),
    Fault.EXPIRED_TOKEN: (403, "ExpiredToken"),
    Fault.CLOCK_SKEW: (403, "RequestTimeTooSkewed"),
    Fault.UNKNOWN_KEY: (403, "InvalidAccessKeyId"),
    Fault.THROTTLED: (503, "SlowDown"),
    Fault.ERROR_IN_200: (200, "InternalError"),
    Fault.NOT_FOUND: (404, "NoSuchKey"),
    Fault.DELETE_MARKER: (404, "NoSuchKey"),
    Fault.MARKER_NAMED: (405, "MethodNotAllowed"),
    Fault.REFUSED: (400, "InvalidRequest"),
}
_DYNAMODB_ERRORS: dict[Fault, tuple[int, str]] = {
    Fault.ERROR_500: (500, "InternalServerError"),
    Fault.EXPIRED_TOKEN: (400, "ExpiredTokenException"),
    Fault.CLOCK_SKEW: (400, "InvalidSignatureException"),
    Fault.UNKNOWN_KEY: (400, "UnrecognizedClientException"),
    Fault.REFUSED: (400, "ValidationException"),
}


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def without(self, *prefixes: str) -> Response:
        kept = [(name, value) for name, value in self.headers if not name.lower().startswith(prefixes)]
        return replace(self, headers=kept)

    def with_header(self, name: str, value: str) -> Response:
        others = [(n, v) for n, v in self.headers if n.lower() != name.lower()]
        return replace(self, headers=[*others, (name, value)])

    def has(self, name: str) -> bool:
        return any(n.lower() == name.lower() for n, _ in self.headers)


def error_answer(status: int, code: str, request: Request) -> Response:
    """An error as S3 words it; a HEAD gets no body."""
    if request.target:
        common = code.startswith(("Expired", "InvalidSig", "Unrecognized"))
        origin = "com.amazon.coral.service" if common else "com.amazonaws.dynamodb.v20120810"
        body = json.dumps({"__type": f"{origin}#{code}", "message": "made up"}).encode()
        headers = [("Content-Type", "application/x-amz-json-1.0"), ("x-amzn-RequestId", "MADEUP")]
        headers.append(("x-amz-crc32", str(zlib.crc32(body))))
        return Response(status, "Made Up", headers, body)
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>made up</Message>'
        "<RequestId>MADEUP</RequestId></Error>"
    ).encode()
    headers = [("Content-Type", "application/xml"), ("x-amz-request-id", "MADEUP")]
    return Response(status, "Made Up", headers, b"" if request.method == "HEAD" else body)


def made_up(fault: Fault, request: Request) -> Response:
    if request.target:
        status, code = _DYNAMODB_ERRORS.get(fault, (400, "ProvisionedThroughputExceededException"))
    else:
        status, code = _S3_ERRORS[fault]
    answer = error_answer(status, code, request)
    if fault in (Fault.DELETE_MARKER, Fault.MARKER_NAMED):
        return answer.with_header("x-amz-delete-marker", "true").with_header("x-amz-version-id", _OTHER_VERSION)
    return answer


def spoilt(data: bytes, rng: random.Random) -> bytes:
    """The same length, one byte another one."""
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(7))]) + data[at + 1 :]


def falsified(answer: Response, fault: Fault, request: Request, rng: random.Random) -> Response:
    """The answer as a fault leaves it; the same one when the fault has nothing to change in it."""
    if fault is Fault.CORRUPT_RESPONSE:
        return replace(answer, body=spoilt(answer.body, rng))
    if not 200 <= answer.status < 300:
        return answer
    if fault is Fault.NO_ENCRYPTION_ECHO:
        return answer.without("x-amz-server-side-encryption")
    if fault is Fault.OTHER_VERSION:
        return answer.with_header("x-amz-version-id", _OTHER_VERSION)
    if fault is Fault.EXPIRES:
        return answer.with_header("x-amz-expiration", _EXPIRES)
    if fault is Fault.WRONG_CHECKSUM:
        wrong = [(n, "AAAA" + v[4:]) if n.lower().startswith("x-amz-checksum-") else (n, v) for n, v in answer.headers]
        return replace(answer, headers=wrong)
    if fault is Fault.NO_CHECKSUM_ECHO:
        told = [(n, v) for n, v in answer.headers if not n.lower().startswith("x-amz-checksum-")]
        return replace(answer, headers=told)
    if fault is Fault.ETAG_OF_KEY:
        if _is_listing(request) or _is_completion(request):
            return _with_body(answer, _KEY_AND_ETAG.sub(_etag_of_key, answer.body))
        etag = _of_key(request.path.rsplit("/", 1)[-1].encode())
        return answer.with_header("ETag", f'"{etag}"') if answer.has("ETag") else answer
    if fault is Fault.WRONG_ETAG:
        if _is_listing(request) or _is_completion(request):
            body = re.sub(rb"<ETag>[^<]*</ETag>", f"<ETag>&quot;{_WRONG_MD5}&quot;</ETag>".encode(), answer.body)
            return _with_body(answer, body)
        return answer.with_header("ETag", f'"{_WRONG_MD5}"') if answer.has("ETag") else answer
    if fault is Fault.WRONG_SIZE:
        if _is_listing(request):
            return _with_body(answer, re.sub(rb"<Size>(\d+)</Size>", _one_more, answer.body))
        if request.method == "HEAD":
            size = next((int(v) for n, v in answer.headers if n.lower() == "content-length"), 0)
            return answer.with_header("Content-Length", str(size + 1))
    return answer


#: Of each object of a listing, up to its ETag; a key's last part has no letters that would be written otherwise.
_KEY_AND_ETAG = re.compile(rb"(<Key>[^<]*?([^</]+)</Key>.*?)<ETag>[^<]*</ETag>", re.DOTALL)


def _is_listing(request: Request) -> bool:
    return "list-type" in request.query or "versions" in request.query


def _is_completion(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.query


def _etag_of_key(found: re.Match[bytes]) -> bytes:
    return found[1] + f"<ETag>&quot;{_of_key(found[2])}&quot;</ETag>".encode()


def _of_key(name: bytes) -> str:
    return hashlib.md5(name, usedforsecurity=False).hexdigest()


def _one_more(found: re.Match[bytes]) -> bytes:
    return b"<Size>%d</Size>" % (int(found[1]) + 1)


def _with_body(answer: Response, body: bytes) -> Response:
    return replace(answer.with_header("Content-Length", str(len(body))), body=body)
