"""What viewers read of a series, written by the real daemon: for both layouts, after the deletion, and gone with its
study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.archive.stores.directory.store import DirectoryStore
from dicomwatchd.config.archive import DirectorySettings
from dicomwatchd.series.reader import SeriesReader
from tests.synthetic import Maker, Patient
from tests.system.site import Site

CANARY = Patient.marked("CANARY^JANE")


@pytest.fixture(params=["instances", "bundled"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    site = Site(tmp_path, series_objects="as-sent")
    if request.param == "bundled":
        site.config["archive"]["layout"] = {"kind": "bundled"}
        site.write_config()
    yield site
    site.close()


def objects(site: Site) -> list[Path]:
    return sorted((site.root / "archive" / "studies").rglob("*.json.gz"))


def test_the_daemon_writes_them_and_erasing_takes_them(site: Site) -> None:
    site.init()
    maker = Maker(patient=CANARY)
    made = maker.mr_study(site.inbox / "mr", series=2, slices=3)
    study = made[0].study_uid
    site.start()
    site.wait_until_empty()
    site.wait_for(lambda: len(objects(site)) == 2, 120, "the series objects")

    store = DirectoryStore(DirectorySettings(kind="directory", path=site.root / "archive"))
    for series in {one.series_uid for one in made}:
        found = SeriesReader(store).series(study, series)
        assert found.is_stored and len(found.instances) == 3
        anew = SeriesReader(store, stored=False).series(study, series)
        assert [one.entry for one in found.instances] == [one.entry for one in anew.instances]
        for one in found.instances:
            [frame] = map(b"".join, SeriesReader(store).contents.frames(one, [1]))
            assert len(frame) == 140 * 140 * 2
    done = site.ctl_json("archive", "index")
    assert (done["present"], done["written"]) == (2, 0)
    assert site.ctl("verify", study, "--deep").returncode == 0

    late = maker.mr_study(site.inbox / "late", series=1, slices=2, study=0)
    site.wait_until_empty()
    site.wait_for(lambda: len(objects(site)) == 3, 120, "that of a third series")
    assert {one.series_uid for one in late}.isdisjoint(one.series_uid for one in made)

    site.stop()
    said = site.log_file.read_text(errors="replace")
    assert "CANARY" not in said and "Traceback" not in said
    erase = ("archive", "erase", study, "--because", "asked for", "--no-wait", "--yes", study)
    found_by_erase = site.ctl_json(*erase)["found"]
    assert found_by_erase["series_objects"] == 3
    assert objects(site) == []
    assert [path for path in (site.root / "archive" / "studies").rglob("*") if path.is_file()] == []
