"""A request as it came to Amazon's door, what is passed on of it, and answers worded as Amazon words them."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, unquote_plus
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from tests.servers.amazon.memory import Facts

#: Of a bucket (no key) and of an object: method and the telling part of the query, the first that fits.
_OF_BUCKET = (
    ("PUT", "encryption", "PutBucketEncryption"),
    ("GET", "encryption", "GetBucketEncryption"),
    ("PUT", "object-lock", "PutObjectLockConfiguration"),
    ("GET", "location", "GetBucketLocation"),
    ("GET", "versions", "ListObjectVersions"),
    ("GET", "uploads", "ListMultipartUploads"),
    ("GET", "list-type", "ListObjectsV2"),
)
_OF_OBJECT = (
    ("PUT", "partNumber", "UploadPart"),
    ("POST", "uploads", "CreateMultipartUpload"),
    ("POST", "uploadId", "CompleteMultipartUpload"),
    ("GET", "uploadId", "ListParts"),
    ("DELETE", "uploadId", "AbortMultipartUpload"),
    ("POST", "restore", "RestoreObject"),
)
#: Parts of a query that make another request of a bucket or an object than the plain one.
_SUBRESOURCES = frozenset(
    (
        *("acl", "attributes", "cors", "encryption", "legal-hold", "lifecycle", "location", "logging", "notification"),
        *("object-lock", "policy", "policyStatus", "publicAccessBlock", "replication", "retention", "tagging"),
        "versioning",
    )
)


@dataclass(slots=True)
class Request:
    """``path`` is "/bucket/key" however the bucket was named, percent-encoded as it came; header names in lower case.
    ``region`` is that of the endpoint. ``forwarded`` and ``body`` are what goes on to the store behind, ``facts`` what
    is kept of the object that this is about, ``notes`` a rule's own, from `before` to `after`."""

    method: str
    host: str
    raw_target: str
    service: str
    region: str
    path: str
    raw_query: str
    headers: dict[str, str]
    body: bytes
    forwarded: dict[str, str] = field(default_factory=dict)
    facts: Facts | None = None
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.raw_query, keep_blank_values=True))

    @property
    def bucket(self) -> str:
        return self.path.lstrip("/").partition("/")[0]

    @property
    def key(self) -> str:
        return unquote(self.path.lstrip("/").partition("/")[2])

    @property
    def target(self) -> str:
        """DynamoDB's operation."""
        return self.headers.get("x-amz-target", "").rpartition(".")[2]

    @property
    def operation(self) -> str:
        """As the API reference names it; "" for what no rule is about."""
        query = self.query
        for method, part, name in _OF_OBJECT if self.key else _OF_BUCKET:
            if self.method == method and part in query:
                return name
        if not _SUBRESOURCES.isdisjoint(query) or not self.bucket:
            return ""
        if not self.key:
            return {"PUT": "CreateBucket", "HEAD": "HeadBucket", "DELETE": "DeleteBucket"}.get(self.method, "")
        if self.method == "PUT":
            return "CopyObject" if "x-amz-copy-source" in self.headers else "PutObject"
        return {"HEAD": "HeadObject", "GET": "GetObject", "DELETE": "DeleteObject"}.get(self.method, "")


@dataclass(frozen=True, slots=True)
class Answer:
    """Header names in lower case."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300

    def having(self, headers: dict[str, str]) -> Answer:
        return replace(self, headers={**self.headers, **headers})

    def saying(self, body: bytes) -> Answer:
        return replace(self, body=body, headers={**self.headers, "content-length": str(len(body))})


def refused(request: Request, status: int, code: str, message: str, **more: str) -> Answer:
    """An error of S3; a HEAD has no body to give a reason in.
    https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html"""
    told = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in more.items())
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{escape(message)}</Message>{told}'
        "<RequestId>4442587FB7D0A2F9</RequestId></Error>"
    ).encode()
    headers = {"content-type": "application/xml", "x-amz-request-id": "4442587FB7D0A2F9"}
    if request.method == "HEAD":
        return Answer(status, {**headers, "content-length": "0"})
    return Answer(status, headers).saying(body)


def refused_by_dynamodb(
    status: int, code: str, message: str, origin: str = "com.amazonaws.dynamodb.v20120810"
) -> Answer:
    """https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html"""
    body = json.dumps({"__type": f"{origin}#{code}", "message": message}).encode()
    headers = {"content-type": "application/x-amz-json-1.0", "x-amz-crc32": str(zlib.crc32(body))}
    return Answer(status, headers).saying(body)


def element(body: bytes, name: str) -> str | None:
    """The text of the first such element."""
    found = re.search(rf"<{name}>([^<]*)</{name}>".encode(), body)
    return unescaped(found[1]) if found else None


def unescaped(text: bytes) -> str:
    plain = text.decode()
    for entity, character in (("&quot;", '"'), ("&#34;", '"'), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        plain = plain.replace(entity, character)
    return plain


def with_each(body: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """Each element of that name as ``change`` leaves it, begin and end among it."""
    return re.sub(rf"<{name}>.*?</{name}>".encode(), lambda found: change(found[0]), body, flags=re.DOTALL)


def with_text(block: bytes, name: str, text: str) -> bytes:
    """The block with another text in its element of that name, which is put at its end where there is none."""
    made = f"<{name}>{escape(text)}</{name}>".encode()
    changed, count = re.subn(rf"<{name}>[^<]*</{name}>".encode(), lambda _: made, block, count=1)
    if count:
        return changed
    at = block.rindex(b"</")
    return block[:at] + made + block[at:]


def listed_key(block: bytes, body: bytes) -> str:
    """The key that an element of a listing is about."""
    key = element(block, "Key") or ""
    return unquote_plus(key) if b"<EncodingType>url</EncodingType>" in body else key
