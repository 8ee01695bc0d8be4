"""A real gateway whose bucket's settings do not protect what it holds: nothing is deleted here until they do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive.stores.s3 import protection
from dicomwatchd.pipeline import stages
from tests.pieces import at
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.synthetic import Maker
from tests.system.site import Site
from tests.system.test_current_versions import Bucket, drop, opened
from tests.system.test_journey_s3 import archive_of


def open_it(client: Any, bucket: str) -> None:
    statement = {
        "Sid": "Anybody",
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    client.put_bucket_policy(Bucket=bucket, Policy=policy)


def make_public(bucket: Bucket) -> None:
    open_it(bucket.client, bucket.name)


def close(bucket: Bucket) -> None:
    bucket.client.delete_bucket_policy(Bucket=bucket.name)


def keep_no_versions(bucket: Bucket) -> None:
    """With versions this gateway overwrites: switched off it goes on to, and keeps nothing."""
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Suspended"})


def keep_versions(bucket: Bucket) -> None:
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})


SETTINGS: dict[str, tuple[Callable[[Bucket], None], Callable[[Bucket], None]]] = {
    "public": (make_public, close),
    "overwritten": (keep_no_versions, keep_versions),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("when", ["before", "in the midst"])
def test_nothing_goes_until_it_is_mended(
    rgw: CephRgw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, when: str
) -> None:
    spoil, mend = SETTINGS[setting]
    with opened(rgw, tmp_path, monkeypatch) as (bucket, archive, shipping):
        made = drop(shipping, 3)

        def put() -> None:
            spoil(bucket)
            archive.store.refresh_expiry()  # as the daemon does at its start, and in the background

        if when == "before":
            put()
        with at(stages, "record", put if when != "before" else lambda: None):
            shipping.run()
        assert len(shipping.left()) == len(made) and shipping.parked() == []
        assert len(bucket.served()) == len(made), "archived all the same"
        assert archive.store.expiry.unprotected is not None
        shipping.restart()
        shipping.run()
        assert len(shipping.left()) == len(made)
        mend(bucket)
        shipping.run()
        assert shipping.left() == [] and shipping.parked() == []


def test_the_daemon_says_so_and_goes_on_when_it_is_mended(
    tmp_path: Path, rgw: CephRgw, dynamodb: DynamoDBLocal, bucket: str, table_name: str
) -> None:
    site = Site(tmp_path, archive_of(rgw, dynamodb, bucket, table_name), environment=rgw.env())
    site.environment.pop("AWS_CA_BUNDLE", None)
    site.init()
    client = rgw.client()
    sound = client.get_bucket_policy(Bucket=bucket)["Policy"]
    open_it(client, bucket)
    made = Maker(seed=71).ct_series(site.inbox, slices=2, rows=16, columns=16)
    try:
        site.start()
        site.wait_for(lambda: site.ctl_json("status")["studies"].get("archived") == 1, 60, "the study to be archived")
        why = protection.PUBLIC.format(because="its policy allows")
        assert why in site.ctl_json("status")["problems"]
        assert len(site.events("archive-unprotected")) == 1
        assert all(one.path.exists() for one in made)
        told = {one["subject"]: one for one in site.ctl_json("doctor", check=False)["findings"]}
        finding = told["bucket: public access"]
        assert (finding["outcome"], finding["essential"], finding["detail"]) == ("bad", True, why)
        assert f"--bucket {bucket}" in finding["fix"]
        said = site.ctl("doctor", check=False)
        assert said.returncode == 1 and "Until then no local file is deleted" in said.stdout
        assert site.stop() == 0
        client.put_bucket_policy(Bucket=bucket, Policy=sound)
        site.start()
        site.wait_for(lambda: not any(one.path.exists() for one in made), 60, "the files to be deleted")
        assert not [one for one in site.ctl_json("status")["problems"] if "open to everybody" in one]
        assert site.stop() == 0
    finally:
        site.close()
        client.close()
