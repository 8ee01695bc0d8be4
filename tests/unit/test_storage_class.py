"""Instances and bundles are stored in the class and with the tag that were asked for, documents as ever; a store that
does otherwise is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import botocore.exceptions
import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.stores.port import Buffer
from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.archive.stores.s3.probe import _Probe
from dicomwatchd.config.archive import Encryption, ObjectTag, S3Settings
from dicomwatchd.config.loading import parse
from dicomwatchd.config.whole import Config
from dicomwatchd.errors import ArchiveRefused, ConfigError, CredentialsRefused
from dicomwatchd.model import Uid
from tests.unit.test_ranges import answer, answering, both_ways

STUDY, SERIES = Uid("1.2"), Uid("1.2.1")
SHA256 = hashlib.sha256(b"").hexdigest()
TAG = ObjectTag(key="archive", value="images/ct")
MOVED = {
    "an instance": keys.instance(STUDY, SERIES, Uid("1.2.1.1"), SHA256),
    "its repair": keys.instance(STUDY, SERIES, Uid("1.2.1.1"), SHA256, 2),
    "a bundle": keys.bundle(STUDY, SHA256),
}
KEPT = {
    "a manifest": keys.manifest(STUDY, 1),
    "a DICOMDIR": keys.export(STUDY, SHA256),
    "the identity": keys.IDENTITY,
    "a checkpoint": keys.audit_checkpoint("0" * 32, 1),
    "the probe": f"{keys.PROBE}x/plain",
}


def bucket(**changes: Any) -> S3Bucket:
    encryption = Encryption(mode="AES256")
    return S3Bucket(client=cast(Any, None), name="b", prefix="p/", endpoint="s3", encryption=encryption, **changes)


@pytest.mark.parametrize("key", MOVED.values(), ids=MOVED.keys())
def test_instances_are_stored_as_asked(key: str) -> None:
    arguments = bucket(storage_class="GLACIER_IR", tag=TAG).creation(key)
    assert (arguments["StorageClass"], arguments["Tagging"]) == ("GLACIER_IR", "archive=images%2Fct")
    assert arguments["ServerSideEncryption"] == "AES256"
    assert "Tagging" not in bucket(storage_class="GLACIER_IR").creation(key)


@pytest.mark.parametrize("key", KEPT.values(), ids=KEPT.keys())
def test_documents_are_stored_as_ever(key: str) -> None:
    assert bucket(storage_class="GLACIER_IR", tag=TAG).creation(key) == bucket().creation(key)


def test_without_a_word_nothing_is_sent() -> None:
    assert set(bucket().creation(MOVED["an instance"])) == {"ServerSideEncryption", "ContentType"}


# -- the configuration ------------------------------------------------------------------------------------------------


def settings(**changes: Any) -> S3Settings:
    archive = {
        "store": {"kind": "s3", "bucket": "bucket", **changes},
        "catalogue": {"kind": "sqlite", "path": "/srv/c"},
    }
    found: Config = parse({"archive": archive})
    assert isinstance(found.archive.store, S3Settings)
    return found.archive.store


def test_three_classes_are_taken() -> None:
    assert (settings().storage_class, settings().tag) == (None, None)
    for name in ("STANDARD", "INTELLIGENT_TIERING", "GLACIER_IR"):
        assert settings(storage_class=name).storage_class == name
    assert settings(tag={"key": "archive", "value": "images/ct"}).tag == TAG


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("GLACIER", "restored"),
        ("DEEP_ARCHIVE", "archive init --lifecycle"),
        ("STANDARD_IA", "GLACIER_IR"),
        ("ONEZONE_IA", "one availability zone"),
        ("REDUCED_REDUNDANCY", "fewer copies"),
        ("glacier_ir", "must be STANDARD, INTELLIGENT_TIERING or GLACIER_IR"),
    ],
)
def test_the_others_are_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        settings(storage_class=name)
    assert [where for where, _ in caught.value.problems] == ["archive.store.storage_class"]


@pytest.mark.parametrize(
    "tag",
    [
        {"key": "aws:x", "value": "a"},
        {"key": "AWS:x", "value": "a"},
        {"key": "", "value": "a"},
        {"key": "a b", "value": "a"},
        {"key": "a", "value": "a&b=c"},
        {"key": "a" * 129, "value": "a"},
        {"key": "a"},
        "a=b",
    ],
)
def test_a_tag_is_what_every_store_takes(tag: Any) -> None:
    with pytest.raises(ConfigError, match=r"archive\.store\.tag"):
        settings(tag=tag)


# -- on the wire ------------------------------------------------------------------------------------------------------

ASKED = {"storage_class": "GLACIER_IR", "tag": {"key": "archive", "value": "images/ct"}}


@both_ways
@pytest.mark.parametrize("echo", [(), ("x-amz-storage-class: GLACIER_IR",)])
def test_both_are_sent_and_signed(monkeypatch: pytest.MonkeyPatch, with_fast_path: bool, echo: tuple[str, ...]) -> None:
    with answering(monkeypatch, with_fast_path, answer("200 OK", b"", *echo), **ASKED) as (store, server):
        store._capabilities = store.capabilities.__class__(creates_only=True)
        store.put(MOVED["an instance"], Buffer.of(b""))
        head = server.requests[0].split(b"\r\n\r\n")[0].lower()
        assert b"\r\nx-amz-storage-class: glacier_ir\r\n" in head and b"\r\nx-amz-tagging: archive=images%2fct" in head
        [signed] = [line for line in head.split(b"\r\n") if line.startswith(b"authorization:")]
        assert b"x-amz-storage-class" in signed and b"x-amz-tagging" in signed


@both_ways
def test_an_echo_of_another_class_is_refused(monkeypatch: pytest.MonkeyPatch, with_fast_path: bool) -> None:
    other = answer("200 OK", b"", "x-amz-storage-class: GLACIER")
    with answering(monkeypatch, with_fast_path, other, other, **ASKED) as (store, _):
        store._capabilities = store.capabilities.__class__(creates_only=True)
        with pytest.raises(ArchiveRefused):
            store.put(MOVED["an instance"], Buffer.of(b""))
        store.put(KEPT["a manifest"], Buffer.of(b""))


def test_the_sample_configuration_names_both() -> None:
    text = (Path(__file__).parents[2] / "etc" / "config.yaml").read_text()
    assert "storage_class" in text and "tag:" in text


# -- the probe --------------------------------------------------------------------------------------------------------


class Client:
    """Takes an object, or refuses it; HEAD shows it in the class ``shown``."""

    def __init__(self, shown: str | None = None, refusal: tuple[str, int] | None = None) -> None:
        self.shown, self.refusal = shown, refusal
        self.asked: list[dict[str, Any]] = []

    def put_object(self, **arguments: Any) -> dict[str, Any]:
        self.asked.append(arguments)
        if self.refusal is not None:
            code, status = self.refusal
            details: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
            raise botocore.exceptions.ClientError(details, "PutObject")
        return {"ServerSideEncryption": "AES256"}

    def head_object(self, **_: Any) -> dict[str, Any]:
        return {"ContentLength": 1, **({"StorageClass": self.shown} if self.shown else {})}


def probed(client: Client, **changes: Any) -> dict[str, str]:
    found = _Probe(replace(bucket(**changes), client=cast(Any, client)), "probe/x/")
    found._kept_as_asked()
    return found._details


def test_the_probe_tries_both_where_they_are_asked_for() -> None:
    client = Client("GLACIER_IR")
    assert probed(client, storage_class="GLACIER_IR", tag=TAG) == {
        "storage class of instances": "GLACIER_IR",
        "tag of instances": "accepted",
    }
    [asked] = client.asked
    assert (asked["Key"], asked["StorageClass"], asked["Tagging"]) == (
        "p/probe/x/class",
        "GLACIER_IR",
        "archive=images%2Fct",
    )
    assert probed(Client(), storage_class="STANDARD") == {"storage class of instances": "STANDARD"}
    silent = Client()
    assert probed(silent) == {} and silent.asked == []


@pytest.mark.parametrize("shown", [None, "GLACIER", "a class\nwith more"])
def test_a_store_that_keeps_them_elsewhere_is_refused(shown: str | None) -> None:
    with pytest.raises(ArchiveRefused, match="GLACIER_IR") as caught:
        probed(Client(shown), storage_class="GLACIER_IR")
    assert "\n" not in caught.value.message


def test_a_store_that_takes_no_such_objects_is_refused() -> None:
    with pytest.raises(ArchiveRefused, match="storage class or tag"):
        probed(Client(refusal=("InvalidStorageClass", 400)), storage_class="GLACIER_IR")


def test_who_may_not_set_tags_is_told_so() -> None:
    with pytest.raises(CredentialsRefused, match="s3:PutObjectTagging"):
        probed(Client(refusal=("AccessDenied", 403)), tag=TAG)
