"""Amazon's names: which service, region and bucket a host and a path are about.

https://docs.aws.amazon.com/general/latest/gr/s3.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/privatelink-interface-endpoints.html
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

REGIONS: Final = ("us-east-1", "eu-central-1")
"""Those that the server's certificate is for."""
INTERFACE_ENDPOINT: Final = "https://bucket.vpce-1a2b3c4d-5e6f.s3.{region}.vpce.amazonaws.com"

_S3 = re.compile(
    r"(?:(?P<bucket>[a-z0-9.-]+)\.)?s3(?:-fips)?(?:\.dualstack)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com\Z"
)
_GLOBAL = re.compile(r"(?:(?P<bucket>[a-z0-9.-]+)\.)?s3\.amazonaws\.com\Z")
_INTERFACE = re.compile(
    r"(?:(?P<bucket>[a-z0-9.-]+)\.)?bucket\.vpce-[a-z0-9-]+\.s3\.(?P<region>[a-z0-9-]+)\.vpce\.amazonaws\.com\Z"
)
_DYNAMODB = re.compile(r"(?:\d+\.ddb|dynamodb)\.(?P<region>[a-z0-9-]+)\.amazonaws\.com\Z")


class Place(NamedTuple):
    """``bucket`` is None where the path names it."""

    service: str
    region: str
    bucket: str | None


def place_of(host: str) -> Place | None:
    """None for a name that is not Amazon's."""
    name = host.rpartition(":")[0] if re.search(r":\d+\Z", host) else host
    if found := _DYNAMODB.match(name):
        return Place("dynamodb", found["region"], None)
    if found := _GLOBAL.match(name):
        return Place("s3", REGIONS[0], found["bucket"])
    if found := _INTERFACE.match(name) or _S3.match(name):
        return Place("s3", found["region"], found["bucket"])
    return None


def certificate_names() -> list[str]:
    """What a certificate must be for; a wildcard stands for one label."""
    found = []
    for region in REGIONS:
        interface = INTERFACE_ENDPOINT.format(region=region).removeprefix("https://")
        found += [f"s3.{region}.amazonaws.com", f"*.s3.{region}.amazonaws.com", interface, f"*.{interface}"]
        found += [f"dynamodb.{region}.amazonaws.com", f"*.ddb.{region}.amazonaws.com"]
    return [*found, "s3.amazonaws.com", "*.s3.amazonaws.com"]
