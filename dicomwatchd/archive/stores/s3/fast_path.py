"""PutObject, UploadPart, GetObject and ListObjectsV2 by the fast path (`data_plane`): from boto3's arguments to
headers, and back to its answers."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_plus, urlsplit
from xml.etree import ElementTree

import botocore.session
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from dicomwatchd import __version__
from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.archive.stores.s3.bucket import ListedObject, ListedPage, Paging
from dicomwatchd.archive.stores.s3.fast_http import Address, S3DataPlane
from dicomwatchd.archive.stores.s3.signing import Credentials
from dicomwatchd.config import S3Settings

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
    "etag": "ETag",
    "x-amz-checksum-sha256": "ChecksumSHA256",
    "x-amz-expiration": "Expiration",
    "x-amz-version-id": "VersionId",
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-server-side-encryption-aws-kms-key-id": "SSEKMSKeyId",
    "x-amz-storage-class": "StorageClass",
}


def connect(client: S3Client, session: botocore.session.Session, settings: S3Settings) -> S3DataPlane | None:
    """The fast path to the bucket that ``client`` reaches, with the same credentials and the same trust; None where
    there is none: through a proxy, and at Amazon, whose many kinds of addresses are for botocore to know."""
    url = settings.endpoint_url
    if url is None or get_environ_proxies(url):
        return None
    parts = urlsplit(url)
    tls = None
    if parts.scheme == "https":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.load_verify_locations(
            str(settings.ca_file or session.get_config_variable("ca_bundle") or get_cert_path(True))
        )
    credentials = session.get_credentials()
    if credentials is None or parts.hostname is None:
        return None
    return S3DataPlane(
        Address(parts.hostname, parts.port or (443 if tls else 80), tls is not None, f"/{settings.bucket}"),
        region=client.meta.region_name,
        credentials=lambda: _frozen(credentials),
        tls=tls,
        user_agent=f"dicomwatchd/{__version__}",
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
    data_plane: S3DataPlane, full_key: str, upload_id: str, number: int, data: bytearray, digests: Mapping[str, str]
) -> dict[str, str] | None:
    """As boto3's upload_part where it answers with success; None where the fast path did not lead to such an answer.
    ``digests`` are boto3's arguments (ContentMD5)."""
    headers = {_REQUEST_HEADERS[name]: value for name, value in digests.items()}
    response = data_plane.put_part(full_key, {"partNumber": str(number), "uploadId": upload_id}, data, headers)
    if response is None or not response.headers.get("etag"):
        return None
    return _known(response.headers)


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
        return None if response is None else _page(ElementTree.fromstring(response))  # noqa: S314  botocore's own parser
    except (ElementTree.ParseError, ValueError):
        return None


def _page(root: ElementTree.Element) -> ListedPage:
    """Raises ValueError for what is no page."""
    namespace, _, name = root.tag.rpartition("}")
    if name != "ListBucketResult":
        raise ValueError("not a listing")
    names = ("Key", "Size", "ETag", "LastModified", "StorageClass", "Contents", "CommonPrefixes", "Prefix")
    tags = (f"{namespace}}}{n}" if namespace else n for n in names)
    key, size, etag, modified, storage_class, contents, together, prefix = tags
    found = []
    common_prefixes = []
    token, truncated = None, ""
    for element in root:
        if element.tag == contents:
            values = {child.tag: child.text or "" for child in element}
            digits = values.get(size, "")
            if key not in values or not (digits.isascii() and digits.isdecimal()):
                raise ValueError("an object without name or size")
            found.append(
                ListedObject(
                    unquote_plus(values[key]),
                    int(digits),
                    values.get(etag, "").strip('"') or None,
                    _seconds(values.get(modified, "")),
                    values.get(storage_class) or None,
                )
            )
        elif element.tag == together:
            common_prefixes += [unquote_plus(child.text or "") for child in element if child.tag == prefix]
        elif element.tag.endswith("IsTruncated"):
            truncated = element.text or ""
        elif element.tag.endswith("NextContinuationToken"):
            token = element.text
    if truncated not in ("true", "false") or (truncated == "true") != bool(token):
        raise ValueError("a page that does not say whether it is the last")
    return ListedPage(found, token, tuple(common_prefixes))


def _seconds(text: str) -> float | None:
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(text).timestamp()
    return None
