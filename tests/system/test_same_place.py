"""A real gateway on which the archive's bucket is made anew, or the keys become those of another account with a bucket
of that name, while studies are on their way. What is sent there is not in the archive, and costs no file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dicomwatchd.pipeline import stages
from tests.pieces import at
from tests.servers.ceph import CephRgw
from tests.system.test_current_versions import Bucket, drop, opened


def made_anew(bucket: Bucket) -> None:
    for key in bucket.keys(""):
        bucket.client.delete_object(Bucket=bucket.name, Key=key)
    bucket.client.delete_bucket(Bucket=bucket.name)
    bucket.client.create_bucket(Bucket=bucket.name)


@pytest.mark.parametrize("stage", ["upload", "verify", "record"])
@pytest.mark.parametrize("with_fast_path", [True, False], ids=["short", "long"])
def test_a_bucket_that_is_made_anew(
    rgw: CephRgw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, with_fast_path: bool
) -> None:
    settings = {"with_fast_path": with_fast_path, "with_versions": False}
    with opened(rgw, tmp_path, monkeypatch, **settings) as (bucket, _, shipping):
        made = drop(shipping, 10)
        with at(stages, stage, lambda: made_anew(bucket)) as calls:
            for _ in range(6):
                shipping.step()
        assert calls[0]
        here = {hashlib.sha256(path.read_bytes()).hexdigest() for path in shipping.left()}
        assert here == {one.sha256 for one in made}, "files went into a bucket that is not the archive"
        assert shipping.parked() == [] and shipping.fatal is None, shipping.why()
        assert "not-there" in {str(fields.get("code")) for event, _, fields in shipping.log.entries}
