"""What an answer must be before anyone reads it: whole, parsed, with the members that this program takes for granted.

botocore checks none of it: a damaged number is a ValueError out of its parser, a damaged tag is a member less.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

import botocore.exceptions
from botocore.parsers import ResponseParserError, ResponseParserFactory
from botocore.utils import parse_timestamp

_LISTED_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z\Z")
#: What a success of an S3 operation holds, and each entry of its list.
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "CreateMultipartUpload": ("UploadId",),
    "UploadPart": ("ETag",),
    "HeadObject": ("ContentLength",),
    "GetObject": ("ContentLength",),
}
_REQUIRED_OF_EACH: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "ListObjectsV2": ("Contents", ("Key", "Size")),
    "ListMultipartUploads": ("Uploads", ("Key", "UploadId", "Initiated")),
    "ListParts": ("Parts", ("PartNumber", "Size", "ETag")),
}
#: Answers that are sent back with a change in them: what the client does not know of them would be lost.
_SENT_BACK = frozenset(("GetBucketLifecycleConfiguration", "GetBucketEncryption"))
#: Where such an answer has the names of what it holds and the client does not know.
UNKNOWN = "UnknownElements"
_NAME = re.compile(r"[A-Za-z0-9]{1,40}\Z")
_ROOTS: Mapping[str, str] = {
    "ListObjectsV2": "ListBucketResult",
    "ListMultipartUploads": "ListMultipartUploadsResult",
    "ListParts": "ListPartsResult",
}


class Parsers(ResponseParserFactory):
    """botocore's parsers, which say ResponseParserError whatever it is that they stumble over."""

    def __init__(self) -> None:
        super().__init__()
        self.set_parser_defaults(timestamp_parser=_timestamp)

    def create_parser(self, protocol_name: str) -> Any:
        return _Guarded(super().create_parser(protocol_name))


class _Guarded:
    def __init__(self, parser: Any) -> None:
        self._parser = parser

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def parse(self, response: Any, shape: Any) -> Any:
        try:
            return self._parser.parse(response, shape)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise ResponseParserError(f"an answer that cannot be read: {type(error).__name__}") from error


def watch(client: Any) -> None:
    """From here on each answer that ``client`` gives to its caller has been looked at."""
    service = client.meta.service_model.service_name
    client.meta.events.register(f"after-call.{service}", _check_crc32 if service == "dynamodb" else _check_members)


def _timestamp(value: Any) -> Any:
    """As botocore reads a timestamp. Its general way takes most of the time of reading a listing, one for each object;
    the form that S3 has in listings is read directly."""
    if isinstance(value, str) and _LISTED_TIME.match(value):
        return datetime.fromisoformat(value)
    return parse_timestamp(value)


def _check_crc32(http_response: Any, **_: object) -> None:
    """DynamoDB says the CRC32 of each answer. botocore repeats a request whose answer does not fit, and takes the
    answer to the last repetition as it is."""
    expected = http_response.headers.get("x-amz-crc32")
    actual = zlib.crc32(http_response.content)
    if expected is not None and expected != str(actual):
        raise botocore.exceptions.ChecksumError(
            checksum_type="crc32", expected_checksum=expected, actual_checksum=str(actual)
        )


def _check_members(http_response: Any, parsed: Any, model: Any, **_: object) -> None:
    if http_response.status_code >= 300:
        return  # an error, which has its own form
    name = model.name
    # Of another server's page botocore makes an empty list.
    if name in _ROOTS and _ROOTS[name].encode() not in http_response.content[:1024]:
        raise ResponseParserError(f"no answer to {name}")
    _require(name, parsed, _REQUIRED.get(name, ()))
    entries, members = _REQUIRED_OF_EACH.get(name, ("", ()))
    for entry in parsed.get(entries, ()) if entries else ():
        _require(name, entry, members)
    if name in _SENT_BACK:
        parsed[UNKNOWN] = sorted(set(_unknown(http_response.content, model.output_shape)))


def _unknown(content: bytes, shape: Any) -> Iterator[str]:
    """The names of elements that are not in the client's model of the answer: Ceph and MinIO have some of their own,
    and Amazon adds others."""
    payload = shape.serialization.get("payload")
    try:
        yield from _not_in(ElementTree.fromstring(content), shape.members[payload] if payload else shape)  # noqa: S314
    except ElementTree.ParseError as error:
        raise ResponseParserError("an answer that cannot be read: ParseError") from error


def _not_in(element: ElementTree.Element, shape: Any) -> Iterator[str]:
    members = {}
    if shape.type_name == "structure":
        members = {one.serialization.get("name", name): one for name, one in shape.members.items()}
    elif shape.type_name == "list":
        members = {shape.member.serialization.get("name", "member"): shape.member}
    for child in element:
        name = child.tag.rpartition("}")[2]
        member = members.get(name)
        if member is None:
            yield name if _NAME.match(name) else "another one"
            continue
        is_flat = member.type_name == "list" and member.serialization.get("flattened")
        yield from _not_in(child, member.member if is_flat else member)


def _require(operation: str, found: Mapping[str, Any], members: Iterable[str]) -> None:
    for member in members:
        if found.get(member) is None:
            raise ResponseParserError(f"an answer to {operation} without {member}")
