"""Which endpoints are Amazon's own, by their names."""

from __future__ import annotations

import pytest

from dicomwatchd.archive.aws.clients import build_client, is_amazon, location
from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.config.archive import DynamoDBSettings, S3Settings


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


@pytest.mark.parametrize(
    "url",
    [
        None,
        "https://s3.eu-central-1.amazonaws.com",
        "https://s3.dualstack.eu-central-1.amazonaws.com/",
        "https://bucket.vpce-1a2b3c4d-5e6f.s3.eu-central-1.vpce.amazonaws.com",
    ],
)
def test_a_bucket_is_the_same_by_each_of_amazons_names(url: str | None) -> None:
    """A state is bound to its archive's destination: another way to it must not send everything again."""
    archive = {"region": "eu-central-1", "endpoint_url": url}
    table = {**archive, "endpoint_url": url and url.replace("s3", "dynamodb")}
    store = S3Store(
        S3Settings.model_validate({"kind": "s3", "bucket": "hospital", **archive}), connections=1, with_fast_path=False
    )
    catalogue = DynamoDBCatalogue(DynamoDBSettings.model_validate({"kind": "dynamodb", "table": "studies", **table}))
    assert str(store.destination) == "s3|aws:eu-central-1|hospital|"
    assert catalogue.name == "dynamodb|aws:eu-central-1|studies"
    store.close()
    catalogue.close()


def test_another_region_and_another_service_are_other_places() -> None:
    assert location("eu-central-1", "https://s3.eu-north-1.amazonaws.com") == "aws:eu-north-1"
    assert location("eu-central-1", "https://s3.amazonaws.com") == "aws:eu-central-1"
    assert location("eu-central-1", "https://rgw.example.org/") == "https://rgw.example.org"
