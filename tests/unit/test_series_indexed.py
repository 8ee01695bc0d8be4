"""Series objects among the rest of an archive: written by a command, counted as derived, lost without loss, and erased
with their study."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.model import Uid
from dicomwatchd.series.reader import SeriesReader
from tests.synthetic import Maker
from tests.unit.erasing import BECAUSE
from tests.unit.test_cli_archive import Site, bare, site

__all__ = ["bare", "site"]


@pytest.fixture
def study(site: Site, tmp_path: Path) -> Manifest:
    """Two series of an MR study."""
    made = Maker().mr_study(tmp_path / "made", series=2, slices=2)
    files = [(Uid(one.series_uid), one.sop_instance_uid, one.path.read_bytes()) for one in made]
    return site.add(files, study=Uid(made[0].study_uid))


def indexes(site: Site) -> list[Path]:
    return sorted((site.archive / "studies").rglob("*.json.gz"))


def test_what_is_archived_already_gets_them(site: Site, study: Manifest) -> None:
    done = site.json("archive", "index")
    assert (done["studies"], done["series"], done["written"], done["present"]) == (1, 2, 2, 0)
    assert done["instances_read"] == 4 and done["problems"] == []
    assert done["bytes_read"] == sum(item.size_bytes for item in study.instances)
    found = indexes(site)
    assert len(found) == 2 and sum(one.stat().st_size for one in found) == done["bytes_written"]
    again = site.json("archive", "index", "--study", study.study_uid)
    assert (again["written"], again["present"], again["instances_read"]) == (0, 2, 0)
    assert indexes(site) == found

    reader = SeriesReader(site.store())
    for series in {item.series_uid for item in study.instances}:
        assert reader.series(study.study_uid, series).is_stored


def test_since(site: Site, study: Manifest) -> None:
    assert site.json("archive", "index", "--since", "2030-01-01")["studies"] == 0
    assert site.json("archive", "index", "--since", "2020-01-01")["written"] == 2
    assert site.ctl("archive", "index", "--since", "2020-01-01", "--study", study.study_uid).exit_code == 2


def test_what_cannot_be_read_is_told_and_stops_no_other(site: Site, study: Manifest) -> None:
    (site.archive / study.instances[0].key).write_bytes(b"other")
    done = site.json("archive", "index", code=1)
    assert (done["written"], done["incomplete"]) == (1, 1)
    [problem] = done["problems"]
    assert problem["series_uid"] == study.instances[0].series_uid and problem["code"] == "bad-object"
    result = site.ctl("archive", "index")
    assert result.exit_code == 1 and "1 with files that cannot be read" in result.output
    assert site.json("archive", "index", "--study", "1.2.3", code=1)["gone"] == 1


def test_they_are_derived_and_nothing_of_the_archive(site: Site, study: Manifest, tmp_path: Path) -> None:
    site.json("archive", "index")
    verified = site.json("archive", "verify", "--state-directory", str(tmp_path), "--pace", "10000")
    others = verified["run"]["not_in_any_manifest"]
    assert others["derived"] == 2
    for one in indexes(site):
        os.utime(one, (1, 1))
    assert others["objects"] == others["on_their_way"] == others["copies"] == others["other_keys"] == 0
    for how in ((), ("--deep",)):
        looked = site.json("verify", study.study_uid, *how)
        assert looked["unrecorded"] == 0
    rebuilt = site.json("catalogue", "rebuild")
    assert rebuilt["problems"] == [] and rebuilt["studies"] == 1
    for one in indexes(site):
        one.chmod(0o600)
        one.unlink()
    assert site.json("archive", "verify", "--state-directory", str(tmp_path), "--pace", "10000")["run"]["studies"] == {
        "total": 1,
        "proven": 1,
        "not_covered": 0,
        "unproven": 0,
        "with_problems": 0,
    }
    assert SeriesReader(site.store()).series(study.study_uid, study.instances[0].series_uid).instances


def test_they_are_erased_with_their_study(site: Site, study: Manifest) -> None:
    site.json("archive", "index")
    tried = site.json("archive", "erase", study.study_uid, "--dry-run")
    assert tried["found"]["series_objects"] == 2 and tried["found"]["others"] == 0
    asked = ("archive", "erase", study.study_uid, "--because", BECAUSE, "--yes", study.study_uid, "--no-wait")
    assert site.ctl(*asked).exit_code == 0
    assert indexes(site) == []
    assert list((site.archive / "studies").iterdir()) == []
    done = site.json("archive", "index", "--study", study.study_uid, code=1)
    assert done["gone"] == 1 and indexes(site) == []


def test_one_that_is_left_of_an_erased_study_is_named(site: Site, study: Manifest, tmp_path: Path) -> None:
    site.json("archive", "index")
    kept = {one: one.read_bytes() for one in indexes(site)}
    asked = ("archive", "erase", study.study_uid, "--because", BECAUSE, "--yes", study.study_uid, "--no-wait")
    assert site.ctl(*asked).exit_code == 0
    left, data = next(iter(kept.items()))
    left.parent.mkdir(parents=True)
    left.write_bytes(data)
    os.utime(left, (1, 1))
    verified = site.json("archive", "verify", "--state-directory", str(tmp_path), "--pace", "10000", code=1)
    assert verified["run"]["left_erased"] == 1
    assert [one["kind"] for one in verified["findings"]] == ["left-erased"]
    assert keys.parse_series_index(verified["findings"][0]["key"]) is not None
