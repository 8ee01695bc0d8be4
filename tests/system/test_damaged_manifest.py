"""A manifest that is damaged in the store: its study goes on above it, and nothing that it listed is forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.servers.ceph import CephRgw
from tests.synthetic import Made, Maker
from tests.system.site import Site, embedded_archive
from tests.system.test_journey_s3 import archive_of, expected, fetched

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda good: good[: len(good) // 2],
    "other bytes": lambda good: bytes(len(good)),
}


class Shelf:
    """The store of a site, past the program: objects are read and, which the program never does, overwritten."""

    def __init__(self, site: Site, rgw: CephRgw | None, bucket: str) -> None:
        self._folder = site.root / "archive"
        self._bucket = bucket
        self._client: Any = rgw and boto3.client(
            "s3",
            endpoint_url=rgw.https_endpoint,
            verify=str(rgw.ca_file),
            region_name=rgw.region,
            aws_access_key_id=rgw.access_key,
            aws_secret_access_key=rgw.secret_key,
        )

    def read(self, key: str) -> bytes:
        if self._client is None:
            return (self._folder / key).read_bytes()
        return bytes(self._client.get_object(Bucket=self._bucket, Key=f"radiology/{key}")["Body"].read())

    def damage(self, key: str, data: bytes) -> None:
        if self._client is None:
            path = self._folder / key
            path.unlink()
            path.write_bytes(data)
        else:
            self._client.put_object(Bucket=self._bucket, Key=f"radiology/{key}", Body=data)


@pytest.fixture(params=["embedded", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Site, Shelf]]:
    rgw, bucket, environment = None, "", {}
    if request.param == "embedded":
        archive = embedded_archive(tmp_path)
        (tmp_path / "archive").mkdir()
    else:
        rgw, bucket = request.getfixturevalue("rgw"), request.getfixturevalue("bucket")
        dynamodb, table = request.getfixturevalue("dynamodb"), request.getfixturevalue("table_name")
        archive, environment = archive_of(rgw, dynamodb, bucket, table), rgw.env()
    site = Site(tmp_path, archive, environment=environment)
    site.environment.pop("AWS_CA_BUNDLE", None)
    site.init()
    yield site, Shelf(site, rgw, bucket)
    site.close()


def manifest_key(study: str, revision: int) -> str:
    return f"studies/{study}/manifests/{revision:08d}.json"


def ship(site: Site, maker: Maker, first: int, slices: int, series: int = 1) -> list[Made]:
    made = maker.ct_series(site.inbox / "ct", slices=slices, first=first, rows=16, columns=16, study=0, series=series)
    assert site.once() == 0, site.log_tail()
    assert site.left() == []
    return made


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_manifest_is_damaged(place: tuple[Site, Shelf], damage: str) -> None:
    site, shelf = place
    maker = Maker(seed=7)
    made = ship(site, maker, 1, 3)
    made += ship(site, maker, 4, 2, series=2)  # what revision 2 alone lists, and no inbox has any more
    study = made[0].study_uid
    second = manifest_key(study, 2)
    bad = DAMAGES[damage](shelf.read(second))
    shelf.damage(second, bad)

    # Before anything repairs it: what can be told is told, and that it may not be all is said.
    result = site.ctl("verify", study, "--json", check=False)
    assert result.returncode == 1
    answer = json.loads(result.stdout)
    assert (answer["revision"], answer["unreadable_revisions"], answer["holds"]) == (1, [2], False)
    for options in ((), ("--no-catalogue",)):
        out = site.root / f"early{len(options)}"
        result = site.ctl("fetch", study, "-o", str(out), "--json", *options, check=False)
        assert result.returncode == 1
        answer = json.loads(result.stdout)
        assert (answer["revision"], answer["unreadable_revisions"], answer["complete"]) == (1, [2], False)
        assert answer["fetched"] == 3
        assert sum(path.is_file() for path in out.rglob("*")) == 3
    result = site.ctl("fetch", study, "-o", str(site.root / "early0"), check=False)
    assert result.returncode == 1
    assert "revision 2" in result.stderr
    assert site.ctl("catalogue", "rebuild", check=False).returncode == 1

    made += ship(site, maker, 6, 1)
    assert site.events("study-parked") == []
    assert [entry["revision"] for entry in site.events("manifest-unreadable")] == [2]
    assert shelf.read(second) == bad, "nothing in the store is overwritten"
    third = json.loads(shelf.read(manifest_key(study, 3)))
    assert third["damaged_keys"] == [second]
    assert {item["sha256"] for item in third["instances"]} == {m.sha256 for m in made}
    assert fetched(site, study) == expected(made)
    assert site.ctl_json("verify", study, "--deep")["holds"] is True
    shown = site.ctl_json("show", study)["archive"]
    assert (shown["revision"], shown["instances"]) == (3, 6)
    # What the catalogue knew of the series that only the damaged manifest described is still known.
    assert {s["series_uid"]: s["modality"] for s in shown["series"]} == dict.fromkeys(
        sorted({m.series_uid for m in made}), "CT"
    )
    assert site.ctl("catalogue", "rebuild").returncode == 0

    made += ship(site, maker, 7, 1)  # and it is named once, not for ever anew
    assert len(site.events("manifest-unreadable")) == 1
    assert fetched(site, study) == expected(made)


def test_no_manifest_can_be_read(place: tuple[Site, Shelf]) -> None:
    site, shelf = place
    maker = Maker(seed=8)
    made = ship(site, maker, 1, 3)
    study = made[0].study_uid
    shelf.damage(manifest_key(study, 1), b"{}")
    result = site.ctl("fetch", study, "-o", str(site.root / "early"), check=False)
    assert result.returncode == 1
    assert not (site.root / "early").exists()
    made += ship(site, maker, 4, 1)
    assert json.loads(shelf.read(manifest_key(study, 2)))["damaged_keys"] == [manifest_key(study, 1)]
    assert fetched(site, study) == expected(made)
    shown = site.ctl_json("show", study)["archive"]
    assert shown["attributes"], "what the catalogue knew of the patient is in the manifest again"


def test_the_files_of_a_damaged_study_come_back_by_fetch_and_upload(place: tuple[Site, Shelf]) -> None:
    """What docs/operations.md tells the operator to do when no new slice will come."""
    site, shelf = place
    maker = Maker(seed=9)
    made = ship(site, maker, 1, 2)
    made += ship(site, maker, 3, 1)
    study = made[0].study_uid
    shelf.damage(manifest_key(study, 2), b"")
    out = site.root / "what-can-be-had"
    assert site.ctl("fetch", study, "-o", str(out), check=False).returncode == 1
    site.start()
    site.ctl("upload", str(out))
    assert site.stop() == 0
    assert fetched(site, study) == expected(made)
