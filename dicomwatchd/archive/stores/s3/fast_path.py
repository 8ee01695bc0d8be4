"""PutObject, UploadPart, GetObject, HeadObject and ListObjectsV2 by the data plane: from boto3's arguments to headers,
and back to its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_plus
from xml.etree import ElementTree

import botocore.session

from dicomwatchd import __version__
from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.archive.stores.s3 import addressing
from dicomwatchd.archive.stores.s3.data_plane import LENGTH, S3DataPlane
from dicomwatchd.archive.stores.s3.listed import ListedObject, ListedPage, Marker, Paging, VersionsPage
from dicomwatchd.archive.stores.s3.signing import Credentials
from dicomwatchd.archive.stores.uplink import Sending
from dicomwatchd.config.archive import S3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_REQUEST_HEADERS = {
    "ContentType": "content-type",
    "ContentMD5": "content-md5",
    "ChecksumSHA256": "x-amz-checksum-sha256",
    "IfNoneMatch": "if-none-match",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "BucketKeyEnabled": "x-amz-server-side-encryption-bucket-key-enabled",
    "StorageClass": "x-amz-storage-class",
    "Tagging": "x-amz-tagging",
}
_ANSWER_HEADERS = {
    "x-amz-checksum-crc64nvme": "ChecksumCRC64NVME",
    "x-amz-restore": "Restore",
    "x-amz-archive-status": "ArchiveStatus",
    "etag": "ETag",
    "x-amz-checksum-sha256": "ChecksumSHA256",
    "x-amz-expiration": "Expiration",
    "x-amz-version-id": "VersionId",
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-server-side-encryption-aws-kms-key-id": "SSEKMSKeyId",
    "x-amz-storage-class": "StorageClass",
}


def connect(
    client: S3Client,
    session: botocore.session.Session,
    settings: S3Settings,
    sending: Callable[[], Sending | None] = lambda: None,
) -> S3DataPlane | None:
    """The data plane of the bucket that ``client`` reaches, with the same credentials, at the same address, through the
    same proxy and with the same trust. None where botocore alone can: without credentials, and where `addressing` finds
    no way."""
    credentials = session.get_credentials()
    if credentials is None:
        return None
    address = addressing.find(client, session, settings)
    if address is None:
        return None
    return S3DataPlane(
        address, credentials=lambda: _frozen(credentials), user_agent=f"dicomwatchd/{__version__}", sending=sending
    )


def _frozen(credentials: Any) -> Credentials | None:
    try:
        return cast(Credentials, credentials.get_frozen_credentials())
    except aws.FOREIGN:
        return None  # botocore meets the same, and says what it means


def put_object(
    data_plane: S3DataPlane, full_key: str, data: bytes, sha256: str, arguments: Mapping[str, Any]
) -> dict[str, str] | None:
    """As boto3's put_object where it answers with success; {} where the key is taken; None where the fast path did
    not lead to an answer."""
    headers = {_REQUEST_HEADERS[name]: "true" if value is True else value for name, value in arguments.items()}
    response = data_plane.put(full_key, data, sha256=sha256, headers=headers)
    if response is None:
        return None
    if response.status != 200:
        return {}
    return _known(response.headers)


def upload_part(
    data_plane: S3DataPlane,
    full_key: str,
    upload_id: str,
    number: int,
    data: bytearray,
    digests: Mapping[str, str],
    sha256: str | None = None,
) -> dict[str, str] | None:
    """As boto3's upload_part where it answers with success; None where the fast path did not lead to such an answer.
    ``digests`` are boto3's arguments (ContentMD5, ChecksumSHA256), ``sha256`` what is to be signed, in hexadecimal
    digits."""
    headers = {_REQUEST_HEADERS[name]: value for name, value in digests.items()}
    query = {"partNumber": str(number), "uploadId": upload_id}
    response = data_plane.put_part(full_key, query, data, headers, sha256)
    if response is None or not response.headers.get("etag"):
        return None
    return _known(response.headers)


def head_object(data_plane: S3DataPlane, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """As boto3's head_object with these ``arguments`` where it answers with success; {} where there is no such object;
    None where the data plane did not lead to an answer that can be read."""
    query = {"versionId": arguments["VersionId"]} if "VersionId" in arguments else {}
    headers = {"x-amz-checksum-mode": arguments["ChecksumMode"]} if "ChecksumMode" in arguments else {}
    response = data_plane.head(arguments["Key"], query, headers)
    if response is None or response.status != 200:
        return None if response is None else {}
    length, modified = response.headers.get("content-length", ""), response.headers.get("last-modified")
    if not LENGTH.match(length):
        return None
    found: dict[str, Any] = {**_known(response.headers), "ContentLength": int(length)}
    if modified is not None:
        try:
            found["LastModified"] = parsedate_to_datetime(modified)
        except ValueError:
            return None
        if found["LastModified"].tzinfo is None:
            return None
    return found


def _known(headers: Mapping[str, str]) -> dict[str, str]:
    return {theirs: headers[name] for name, theirs in _ANSWER_HEADERS.items() if name in headers}


def about_its_end(headers: Mapping[str, str]) -> dict[str, Any]:
    """Of an answer's headers what tells of the object's end, as boto3 gives it."""
    found: dict[str, Any] = {}
    if expiration := headers.get("x-amz-expiration"):
        found["Expiration"] = expiration
        with suppress(ValueError):
            found["LastModified"] = parsedate_to_datetime(headers.get("last-modified", ""))
    return found


def list_objects(data_plane: S3DataPlane, prefix: str, paging: Paging) -> ListedPage | None:
    """A page of ListObjectsV2 for the full ``prefix``; None where the fast path did not lead to an answer that can be
    read."""
    query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
    if paging.token:
        query["continuation-token"] = paging.token
    if paging.after:
        query["start-after"] = paging.after
    if paging.delimiter:
        query["delimiter"] = paging.delimiter
    response = data_plane.listing(query)
    try:
        return None if response is None else _page(ElementTree.fromstring(response), prefix)  # noqa: S314  botocore's own parser
    except (ElementTree.ParseError, ValueError):
        return None


def list_versions(data_plane: S3DataPlane, prefix: str, marker: Marker | None) -> VersionsPage | None:
    """As `list_objects`, of ListObjectVersions."""
    query = {"versions": "", "prefix": prefix, "encoding-type": "url"}
    if marker is not None:
        query |= {"key-marker": marker.full_key, "version-id-marker": marker.version_id}
    response = data_plane.listing(query)
    try:
        return None if response is None else _versions(ElementTree.fromstring(response), prefix)  # noqa: S314  as above
    except (ElementTree.ParseError, ValueError):
        return None


def _page(root: ElementTree.Element, asked: str) -> ListedPage:
    """Raises ValueError for what is no page, or one of another prefix than was ``asked`` for."""
    tag = _tags(root, "ListBucketResult")
    found = []
    common_prefixes = []
    token, truncated = None, ""
    contents, together, prefix = tag("Contents"), tag("CommonPrefixes"), tag("Prefix")
    of_object = _Tags(tag)
    for element in root:
        if element.tag == contents:
            found.append(_listed({child.tag: child.text or "" for child in element}, of_object))
        elif element.tag == together:
            common_prefixes += [unquote_plus(child.text or "") for child in element if child.tag == prefix]
        elif element.tag == tag("IsTruncated"):
            truncated = element.text or ""
        elif element.tag == tag("NextContinuationToken"):
            token = element.text
        elif element.tag == prefix:
            _require(asked, element.text)
    if truncated not in ("true", "false") or (truncated == "true") != bool(token):
        raise ValueError("a page that does not say whether it is the last")
    return ListedPage(found, token, tuple(common_prefixes))


def _versions(root: ElementTree.Element, asked: str) -> VersionsPage:
    """As `_page`."""
    tag = _tags(root, "ListVersionsResult")
    found: list[tuple[ListedObject, str | None] | None] = []
    values: dict[str, str] = {}
    version, gone, is_latest, version_id = tag("Version"), tag("DeleteMarker"), tag("IsLatest"), tag("VersionId")
    of_object = _Tags(tag)
    for element in root:
        if element.tag == gone:
            found.append(None)
        elif element.tag == version:
            of_version = {child.tag: child.text or "" for child in element}
            latest = of_version.get(is_latest)
            if latest not in ("true", "false"):
                raise ValueError("a version that does not say whether it is the current one")
            listed = _listed(of_version, of_object)
            found.append((listed, of_version.get(version_id) or None) if latest == "true" else None)
        else:
            values[element.tag] = element.text or ""
    _require(asked, values.get(tag("Prefix"), asked))
    truncated = values.get(tag("IsTruncated"), "")
    if truncated not in ("true", "false"):
        raise ValueError("a page that does not say whether it is the last")
    following = unquote_plus(values.get(tag("NextKeyMarker"), "")), values.get(tag("NextVersionIdMarker"), "")
    return VersionsPage(found, Marker(*following) if all(following) else None, truncated == "false")


def _require(asked: str, told: str | None) -> None:
    """An empty listing says nothing else of what it is a listing of. Raises ValueError."""
    if asked not in (told or "", unquote_plus(told or "")):
        raise ValueError("a listing of another prefix")


def _tags(root: ElementTree.Element, of_root: str) -> Callable[[str], str]:
    """The names of elements in the namespace of ``root``. Raises ValueError where that is another element."""
    namespace, _, name = root.tag.rpartition("}")
    if name != of_root:
        raise ValueError("not a listing")
    return lambda name: f"{namespace}}}{name}" if namespace else name


class _Tags:
    def __init__(self, tag: Callable[[str], str]) -> None:
        self.key, self.size, self.etag = tag("Key"), tag("Size"), tag("ETag")
        self.modified, self.storage_class = tag("LastModified"), tag("StorageClass")


def _listed(values: Mapping[str, str], tags: _Tags) -> ListedObject:
    """Raises ValueError."""
    digits = values.get(tags.size, "")
    if tags.key not in values or not (digits.isascii() and digits.isdecimal()):
        raise ValueError("an object without name or size")
    return ListedObject(
        unquote_plus(values[tags.key]),
        int(digits),
        values.get(tags.etag, "").strip('"') or None,
        _seconds(values.get(tags.modified, "")),
        values.get(tags.storage_class) or None,
    )


def _seconds(text: str) -> float | None:
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(text).timestamp()
    return None
