"""The last look at a real gateway, once files are staged: what is deleted, hidden or overwritten there in between
costs no file, and the look is no request for each file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dicomwatchd.archive.proof import final_check
from dicomwatchd.pipeline.shipment import Archive
from tests.pieces import at
from tests.servers.ceph import CephRgw
from tests.system.test_current_versions import PREFIX, Bucket, drop, opened


def erase(bucket: Bucket, key: str) -> None:
    """Every version of it."""
    for one in bucket.client.list_object_versions(Bucket=bucket.name, Prefix=key).get("Versions", []):
        bucket.client.delete_object(Bucket=bucket.name, Key=key, VersionId=one["VersionId"])


def hide(bucket: Bucket, key: str) -> None:
    bucket.hide(key)


def overwrite(bucket: Bucket, key: str) -> None:
    bucket.overwrite(key)


@pytest.mark.parametrize(
    ("attack", "slices", "with_fast_path"),
    [(erase, 10, True), (hide, 10, False), (hide, 4, True), (overwrite, 10, True)],
    ids=["erased", "hidden", "hidden, by HEAD", "overwritten"],
)
def test_an_object_is_lost_in_between(
    rgw: CephRgw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: object, slices: int, with_fast_path: bool
) -> None:
    assert callable(attack)
    with opened(rgw, tmp_path, monkeypatch, with_fast_path=with_fast_path) as (bucket, archive, shipping):
        made = drop(shipping, slices)
        seen: list[int] = []

        def act() -> None:
            private = shipping.inbox.glob(".dicomwatchd-aside-*/*/*")
            seen.append(len([path for path in private if path.is_file()]))
            attack(bucket, bucket.keys()[0])

        def nothing_lost() -> None:
            here = {hashlib.sha256(path.read_bytes()).hexdigest() for path in shipping.left()}
            assert {one.sha256 for one in made} <= here | set(bucket.served().values())

        with at(final_check, "missing", act):
            shipping.run(nothing_lost)
        assert seen == [slices], "not all of them were staged when the store was asked"
        assert (shipping.left(), shipping.parked()) == ([], []), shipping.why()
        assert {one.sha256 for one in made} <= set(bucket.served().values())
        assert_listed_from_within(archive, bucket)


def assert_listed_from_within(archive: Archive, bucket: Bucket) -> None:
    keys = [key.removeprefix(PREFIX) for key in bucket.keys("")]
    keys = [key for key in keys if key.startswith("studies/")]
    for key in (keys[0], keys[1][:-1], keys[-1]):
        assert [seen.key for seen in archive.store.listing("studies/", key)] == [k for k in keys if k > key]


def test_nothing_is_asked_for_each_file(rgw: CephRgw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(rgw, tmp_path, monkeypatch) as (_, archive, shipping):
        made = drop(shipping, 60)
        asked: list[str] = []
        for name in ("head", "listing"):
            _count(monkeypatch, archive, name, asked)
        with at(final_check, "missing", asked.clear):
            shipping.run(lambda: None)
        assert shipping.left() == [] and len(made) == 60
        assert asked.count("listing") >= 1 and len([one for one in asked if one == "head"]) <= 3, asked


def _count(monkeypatch: pytest.MonkeyPatch, archive: Archive, name: str, asked: list[str]) -> None:
    real = getattr(archive.store, name)

    def counted(*arguments: object, **named: object) -> object:
        asked.append(name)
        return real(*arguments, **named)

    monkeypatch.setattr(archive.store, name, counted)
