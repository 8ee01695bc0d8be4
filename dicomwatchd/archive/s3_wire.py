"""PutObject and GetObject by the short way (`wire`): from boto3's arguments to headers, and back to its answers."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import botocore.session
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from dicomwatchd import __version__
from dicomwatchd.archive import aws
from dicomwatchd.archive.wire import Address, Credentials, Wire
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
}
_ANSWER_HEADERS = {
    "etag": "ETag",
    "x-amz-version-id": "VersionId",
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-server-side-encryption-aws-kms-key-id": "SSEKMSKeyId",
}


def connect(client: S3Client, session: botocore.session.Session, settings: S3Settings) -> Wire | None:
    """The short way to the bucket that ``client`` reaches, with the same credentials and the same trust; None where
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
    return Wire(
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
    wire: Wire, full_key: str, data: bytes, sha256: str, arguments: Mapping[str, str]
) -> dict[str, str] | None:
    """As boto3's put_object where it answers with success; {} where the key is taken; None where the short way did
    not lead to an answer."""
    headers = {_REQUEST_HEADERS[name]: value for name, value in arguments.items()}
    answer = wire.put(full_key, data, sha256=sha256, headers=headers)
    if answer is None:
        return None
    if answer.status != 200:
        return {}
    return {theirs: answer.headers[name] for name, theirs in _ANSWER_HEADERS.items() if name in answer.headers}
