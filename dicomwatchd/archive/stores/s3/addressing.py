"""Where the data plane's requests go: as botocore would send them.

The address is botocore's own: a listing of the bucket is prepared by it, and taken from it right before it would be
sent. So bucket names in the host's name or in the path, regions, dual-stack and FIPS endpoints and the names of
interface endpoints are what its rules make of the settings, whichever those are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import botocore.session
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.archive.stores.s3.connection import Route
from dicomwatchd.archive.stores.s3.data_plane import Address
from dicomwatchd.config.archive import S3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_OPERATION = "before-call.s3.ListObjectsV2"
#: Signature Version 4; S3 Express One Zone and multi-region access points sign otherwise.
_SIGNED_BY = ("v4", "s3v4")
_USUAL_PORTS = {"http": 80, "https": 443}


class _Prepared(Exception):
    """Ends a call of botocore's before it is sent."""


def find(client: S3Client, session: botocore.session.Session, settings: S3Settings) -> Address | None:
    """None where the requests would be signed otherwise than with Signature Version 4 for S3, and where they would go
    through a proxy that is itself spoken to by TLS: whom urllib3 trusts there is not said anywhere.

    Before anybody else uses ``client``: each listing ends here meanwhile."""
    try:
        prepared = _listing(client, settings.bucket)
    except aws.FOREIGN:
        return None  # botocore meets the same, and says what it means
    signing = prepared["context"].get("signing", {})
    if prepared["context"].get("auth_type") not in _SIGNED_BY or signing.get("signing_name") != "s3":
        return None
    proxy = _proxy(client.meta.endpoint_url)
    if proxy is None:
        return None
    parts = urlsplit(prepared["url"])
    usual = parts.port in (None, _USUAL_PORTS[parts.scheme])
    trusted = ""
    if parts.scheme == "https":
        trusted = _trusted(session, settings)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return Address(
        host_header=f"{host}" if usual else f"{host}:{parts.port}",
        tls=parts.scheme == "https",
        base_path=parts.path.rstrip("/"),
        region=signing["region"],
        route=Route(proxy, trusted, bool(trusted) and Path(trusted).is_dir()),
    )


def _listing(client: S3Client, bucket: str) -> dict[str, Any]:
    """The request's parts as botocore has prepared them."""
    found: dict[str, Any] = {}

    def take(params: dict[str, Any], **_: object) -> None:
        found.update(params)
        raise _Prepared

    client.meta.events.register(_OPERATION, take)
    try:
        client.list_objects_v2(Bucket=bucket)
    except _Prepared:
        return found
    finally:
        client.meta.events.unregister(_OPERATION, take)
    raise AssertionError("botocore has sent what it was to prepare")


def _trusted(session: botocore.session.Session, settings: S3Settings) -> str:
    """In botocore's order, which has its own list of authorities at the end."""
    chosen = settings.ca_file or session.get_config_variable("ca_bundle")
    return str(chosen or os.environ.get("REQUESTS_CA_BUNDLE") or get_cert_path(True))


def _proxy(endpoint_url: str) -> str | None:
    """As botocore chooses one, by the endpoint and not by the bucket's name: "" for none."""
    proxy = get_environ_proxies(endpoint_url).get(urlsplit(endpoint_url).scheme, "")
    if proxy.startswith("//"):
        proxy = f"http:{proxy}"
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    return proxy if not proxy or proxy.startswith("http://") else None
