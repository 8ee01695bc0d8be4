"""Signatures: a request's own is judged as Amazon judges it; what goes on to the store behind is signed anew.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Any
from urllib.parse import quote, unquote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.servers.amazon.message import Request

_FORM = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
    r"SignedHeaders=([^,]+), ?Signature=(\w+)"
)


def scope_of(request: Request) -> tuple[str, str] | None:
    """Access key and region that the request was signed with."""
    found = _FORM.match(request.headers.get("authorization", ""))
    return (found[1], found[3]) if found else None


def fits(request: Request, secret_key: str) -> bool:
    """Whether the signature is that of this request: its method, address, query and signed headers. The payload's hash
    is among the headers, and is compared with the payload elsewhere."""
    found = _FORM.match(request.headers.get("authorization", ""))
    if found is None:
        return False
    _, day, region, service, names, signature = found.groups()
    path, _, query = request.raw_target.partition("?")
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&") if pair)
    encoded = [(quote(unquote(name), safe="-_.~"), quote(unquote(value), safe="-_.~")) for name, value in pairs]
    headers = [f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in names.split(";")]
    payload = request.headers.get("x-amz-content-sha256") or hashlib.sha256(request.body).hexdigest()
    listed = "&".join(f"{name}={value}" for name, value in sorted(encoded))
    canonical = "\n".join((request.method, path, listed, *headers, "", names, payload))
    scope = f"{day}/{region}/{service}/aws4_request"
    moment = request.headers.get("x-amz-date", "")
    to_sign = "\n".join(("AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{secret_key}".encode()
    for step in (day, region, service, "aws4_request"):
        key = hmac.digest(key, step.encode(), "sha256")
    return hmac.compare_digest(hmac.digest(key, to_sign.encode(), "sha256").hex(), signature)


def unchunked(body: bytes) -> tuple[bytes, dict[str, str]]:
    """What came in aws-chunked encoding, and the trailers behind it.
    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html"""
    pieces: list[bytes] = []
    while True:
        line, _, body = body.partition(b"\r\n")
        length = int(line.partition(b";")[0], 16)
        if length == 0:
            break
        pieces.append(body[:length])
        body = body[length + 2 :]
    lines = [line.decode().partition(":") for line in body.split(b"\r\n") if b":" in line]
    return b"".join(pieces), {name.strip().lower(): value.strip() for name, _, value in lines}


class _UnsignedPayload(S3SigV4Auth):
    def payload(self, request: Any) -> str:
        return "UNSIGNED-PAYLOAD"


def signed(method: str, url: str, headers: dict[str, str], credentials: Credentials, region: str) -> dict[str, str]:
    """The headers to send to ``url``, with a signature."""
    request = AWSRequest(method=method, url=url, headers=headers)
    _UnsignedPayload(credentials, "s3", region).add_auth(request)
    return {name: value for name, value in request.prepare().headers.items() if name.lower() != "content-length"}


def encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
