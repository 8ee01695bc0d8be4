"""A real gateway with versioning on: delete markers, overwrites and lifecycle rules in the midst of a shipment. Nothing
is deleted that a plain GET would not return."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dicomwatchd.archive.identity import ArchiveIdentity, write_identity
from dicomwatchd.archive.layout import lineage
from dicomwatchd.archive.proof.evidence import LISTING_PAYS_FROM
from dicomwatchd.archive.proof.verification import verify
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.config.archive import ExpiryAfter, S3Settings
from dicomwatchd.fetch.fetcher import Fetcher
from dicomwatchd.model import Uid
from dicomwatchd.pipeline import stages
from dicomwatchd.pipeline.deletion.proof import LIFETIME_SECONDS
from dicomwatchd.pipeline.shipment import Archive
from tests.faults.shipping import Shipping
from tests.pieces import at
from tests.servers.ceph import CephRgw
from tests.synthetic import Made, Maker
from tests.unit.memory_archive import MemoryCatalogue

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = "radiology/"


class Bucket:
    """The archive's bucket, versioned, seen past the daemon."""

    def __init__(self, rgw: CephRgw, name: str) -> None:
        self.client: S3Client = rgw.client()
        self.name = name
        self._where: Any = {"Bucket": name}

    def keys(self, part: str = ".dcm") -> list[str]:
        listed = self.client.list_objects_v2(**self._where).get("Contents", [])
        return [item["Key"] for item in listed if part in item["Key"]]

    def tag(self, key: str, name: str, value: str) -> None:
        self.client.put_object_tagging(**self._where, Key=key, Tagging={"TagSet": [{"Key": name, "Value": value}]})

    def hide(self, key: str) -> None:
        assert self.client.delete_object(**self._where, Key=key)["DeleteMarker"]

    def overwrite(self, key: str) -> None:
        self.client.put_object(**self._where, Key=key, Body=b"somebody else's")

    def overwrite_alike(self, key: str) -> None:
        body = self.client.get_object(**self._where, Key=key)["Body"].read()
        self.client.put_object(**self._where, Key=key, Body=body)

    def served(self) -> dict[str, str]:
        """Key to the SHA-256 of what a plain GET gives."""
        return {
            key: hashlib.sha256(self.client.get_object(**self._where, Key=key)["Body"].read()).hexdigest()
            for key in self.keys()
        }

    def current_versions(self) -> dict[str, str]:
        listed = self.client.list_object_versions(**self._where).get("Versions", [])
        return {item["Key"]: item["VersionId"] for item in listed if item["IsLatest"]}

    def rules(self, *rules: dict[str, Any]) -> None:
        if rules:
            full = [{"ID": f"rule {number}", "Status": "Enabled", **rule} for number, rule in enumerate(rules)]
            self.client.put_bucket_lifecycle_configuration(
                **self._where,
                LifecycleConfiguration={"Rules": full},  # type: ignore[typeddict-item]
            )
        else:
            self.client.delete_bucket_lifecycle(**self._where)


@contextmanager
def opened(
    rgw: CephRgw, root: Path, patch: pytest.MonkeyPatch, **settings: Any
) -> Iterator[tuple[Bucket, Archive, Shipping]]:
    for variable, value in rgw.env().items():
        patch.setenv(variable, value)
    name, archive_id = f"test-{uuid.uuid4().hex}", str(uuid.uuid4())
    with_fast_path, with_versions = settings.pop("with_fast_path", True), settings.pop("with_versions", True)
    store = S3Store(
        S3Settings(
            kind="s3",
            bucket=name,
            prefix=PREFIX,
            region=rgw.region,
            endpoint_url=rgw.http_endpoint,
            insecure_http=True,
            **settings,
        ),
        connections=4,
        with_fast_path=with_fast_path,
    )
    bucket = Bucket(rgw, name)
    try:
        store.initialise()
        if with_versions:
            bucket.client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        write_identity(store, ArchiveIdentity(archive_id, "2026-01-01T00:00:00.000Z"))
        store.probe("probe/")
        archive = Archive(archive_id, store, MemoryCatalogue())
        shipping = Shipping(root / "site", archive)
        yield bucket, archive, shipping
        shipping.close()
    finally:
        store.close()
        bucket.client.close()


def drop(shipping: Shipping, slices: int) -> list[Made]:
    return Maker(seed=uuid.uuid4().int).ct_series(shipping.inbox / "DOE^JANE", slices=slices, rows=16, columns=16)


def proofs(shipping: Shipping) -> list[dict[str, Any]]:
    with shipping.queue._database.read() as db:
        rows = db.execute("SELECT entry FROM audit ORDER BY sequence").fetchall()
    return [entry for row in rows if (entry := json.loads(row["entry"]))["kind"] == "authorised"]


@pytest.mark.parametrize("attack", ["hide", "overwrite", "overwrite_alike"])
@pytest.mark.parametrize("stage", ["verify", "record", "purge"])
@pytest.mark.parametrize("with_fast_path", [True, False], ids=["short", "long"])
def test_only_what_is_served_is_deleted_here(
    rgw: CephRgw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str, stage: str, with_fast_path: bool
) -> None:
    with opened(rgw, tmp_path, monkeypatch, with_fast_path=with_fast_path) as (bucket, archive, shipping):
        made = drop(shipping, 4)

        def act() -> None:
            for key in bucket.keys()[:2]:
                getattr(bucket, attack)(key)
            if stage != "verify":  # what was verified a moment ago is believed for a while
                shipping.clock.jump(LIFETIME_SECONDS)

        def nothing_lost() -> None:
            here = {hashlib.sha256(path.read_bytes()).hexdigest() for path in shipping.left()}
            assert {one.sha256 for one in made} <= here | set(bucket.served().values())

        with at(stages, stage, act):
            shipping.run(nothing_lost)
        assert (shipping.left(), shipping.parked()) == ([], []), shipping.why()
        served, current = bucket.served(), bucket.current_versions()
        for proven in proofs(shipping)[-len(made) :]:
            assert served[PREFIX + proven["key"]] == proven["sha256"]
            assert current[PREFIX + proven["key"]] == proven["version_id"]
        manifest = lineage.current(archive.store, Uid(made[0].study_uid))
        assert manifest is not None
        assert {served[PREFIX + item.key] for item in manifest.instances} == {one.sha256 for one in made}
        assert verify(archive.store, manifest).holds


def test_what_is_hidden_or_overwritten_afterwards_is_named_and_brought_back(
    rgw: CephRgw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(rgw, tmp_path, monkeypatch) as (bucket, archive, shipping):
        made = drop(shipping, 3)
        shipping.run()
        assert shipping.left() == []
        manifest = lineage.current(archive.store, Uid(made[0].study_uid))
        assert manifest is not None and verify(archive.store, manifest).holds
        hidden, overwritten, _ = bucket.keys()
        bucket.hide(hidden)
        bucket.overwrite(overwritten)
        for deep in (False, True):
            found = verify(archive.store, manifest, deep=deep)
            assert not found.holds and found.held == 1
            assert {(PREFIX + p.key, p.problem) for p in found.problems} == {
                (hidden, "hidden"),
                (overwritten, "overwritten"),
            }
        report = Fetcher(archive.store).fetch(manifest, tmp_path / "fetched")
        assert report.complete and {bad.code for bad in report.bad_objects} == {"hidden", "overwritten"}


ENDS = [
    {"Filter": {"Prefix": ""}, "Expiration": {"Days": 30}},
    {"Filter": {"Prefix": PREFIX + "studies/"}, "Expiration": {"Days": 3650}},
    {"Filter": {"Prefix": "radio"}, "Expiration": {"Date": "2099-01-01T00:00:00Z"}},
]
HARMLESS = [
    {"Filter": {"Prefix": ""}, "Expiration": {"ExpiredObjectDeleteMarker": True}},
    {"Filter": {"Prefix": ""}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}},
    {"Filter": {"Prefix": "cardiology/"}, "Expiration": {"Days": 1}},
    {"Filter": {"Prefix": PREFIX + "probe/"}, "Expiration": {"Days": 1}},
]


@pytest.mark.parametrize("rule", ENDS, ids=range(3))
@pytest.mark.parametrize("when", ["before", "in the midst"])
def test_a_rule_that_ends_objects_stops_deleting_until_it_is_gone(
    rgw: CephRgw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: dict[str, Any], when: str
) -> None:
    with opened(rgw, tmp_path, monkeypatch) as (bucket, archive, shipping):
        made = drop(shipping, 3)

        def put() -> None:
            bucket.rules(*HARMLESS, rule)
            archive.store.refresh_expiry()  # as the daemon does at its start, and in the background

        if when == "before":
            put()
        with at(stages, "record", put if when != "before" else lambda: None):
            shipping.run()
        assert len(shipping.left()) == len(made) and shipping.parked() == []
        assert len(bucket.served()) == len(made)
        assert archive.store.expiry.unaccepted is not None
        shipping.restart()
        shipping.run()
        assert len(shipping.left()) == len(made)
        bucket.rules(*HARMLESS)
        shipping.run()
        assert shipping.left() == [] and shipping.parked() == []


def test_a_rule_for_a_tag_that_only_some_objects_have(
    rgw: CephRgw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were stored while another tag was configured. A listing, which proves as many, does not tell."""
    with opened(rgw, tmp_path, monkeypatch, with_versions=False) as (bucket, archive, shipping):
        made = drop(shipping, LISTING_PAYS_FROM + 2)

        def act() -> None:
            bucket.tag(bucket.keys()[-1], "archive", "ct")
            bucket.rules({"Filter": {"Tag": {"Key": "archive", "Value": "ct"}}, "Expiration": {"Days": 30}})
            assert archive.store.refresh_expiry().unaccepted is None, "the archive's objects have no tag now"

        with at(stages, "verify", act):
            shipping.run()
        assert len(shipping.left()) == len(made) and shipping.parked() == []
        assert archive.store.expiry.unaccepted is not None
        bucket.rules(*HARMLESS)
        shipping.run()
        assert shipping.left() == []


def settled(rules: Callable[[], None], archive: Archive) -> str | None:
    rules()
    return archive.store.refresh_expiry().unaccepted


def test_what_somebody_has_said_yes_to(rgw: CephRgw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(rgw, tmp_path, monkeypatch, accept_expiry=ExpiryAfter(after_days=365)) as (bucket, archive, shipping):
        made = drop(shipping, 1)
        assert settled(lambda: bucket.rules({"Filter": {"Prefix": ""}, "Expiration": {"Days": 364}}), archive)
        shipping.run()
        assert len(shipping.left()) == len(made)
        assert settled(lambda: bucket.rules({"Filter": {"Prefix": ""}, "Expiration": {"Days": 365}}), archive) is None
        shipping.run()
        assert shipping.left() == []
        assert settled(bucket.rules, archive) is None
