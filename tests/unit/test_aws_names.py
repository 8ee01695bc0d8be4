"""Which endpoints are Amazon's own, by their names."""

from __future__ import annotations

import pytest

from dicomwatchd.archive.aws.clients import build_client, is_amazon


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://s3.eu-central-1.amazonaws.com", "eu-central-1"),
        ("https://bucket.vpce-1a2b3c4d-5e6f.s3.eu-central-1.vpce.amazonaws.com", "eu-central-1"),
        ("https://bucket.vpce-1a2b3c4d-5e6f.s3.eu-central-1.vpce.amazonaws.com/", "eu-central-1"),
        ("https://s3-fips.us-gov-west-1.amazonaws.com:443", "us-gov-west-1"),
        ("https://s3.dualstack.ap-southeast-2.amazonaws.com", "ap-southeast-2"),
        ("https://s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("https://s3.amazonaws.com", "us-east-1"),
    ],
)
def test_amazons_names_are_known_with_their_region(url: str, region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    assert is_amazon(url)
    client = build_client("s3", region=None, endpoint_url=url, ca_file=None, max_connections=1)
    assert client.meta.region_name == region
    client.close()


@pytest.mark.parametrize(
    "url",
    [
        "https://rgw.example.org",
        "https://amazonaws.com.example.org",
        "https://notamazonaws.com",
        "https://s3.eu-central-1.amazonaws.com.example.org",
        "http://127.0.0.1:8000",
        "http://[::1]:8000",
    ],
)
def test_others_are_not_amazon(url: str) -> None:
    assert not is_amazon(url)


def test_without_an_endpoint_it_is_amazon() -> None:
    assert is_amazon(None)
