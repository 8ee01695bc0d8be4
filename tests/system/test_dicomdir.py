"""An export with a DICOMDIR in a watched folder, with the real programs: what is missing is waited for, named, and
archived without in the end; the DICOMDIR is archived with the study and comes back."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.synthetic import Made, Maker
from tests.system.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, max_wait_seconds=600)
    site.init()
    yield site
    site.close()


def export(site: Site) -> tuple[list[Made], Path]:
    """An export of which one image has not come; where that is."""
    maker = Maker(seed=3)
    made = maker.media(site.root / "export", maker.ct_series(site.root / "made", slices=5))
    late = site.root / "late"
    shutil.move(made[1].path, late)
    shutil.copytree(site.root / "export", site.inbox / "CD")
    return made, late


def test_what_a_dicomdir_lists_is_waited_for_and_the_dicomdir_comes_back(site: Site) -> None:
    made, late = export(site)
    study = made[0].study_uid
    site.start()
    site.wait_for(lambda: bool(site.events("study-waits")), 60, "the study to wait")
    assert site.events("study-waits")[0]["missing_files"] == 1
    [queued] = site.ctl_json("queue")["studies"]
    assert queued["waits_for_listed"]["missing"] == 1
    assert site.ctl_json("status")["studies_waiting_for_listed"] == 1
    assert "1 study waits for images that a DICOMDIR lists" in site.ctl("status").stdout
    shown = site.ctl_json("show", study)
    assert shown["local"]["listed"]["missing_uids"] == [made[1].sop_instance_uid]
    assert made[1].sop_instance_uid in site.ctl("show", study).stdout
    site.stop(signal.SIGKILL)
    (site.state / "control.sock").unlink()
    site.start()
    assert site.ctl_json("status")["studies_waiting_for_listed"] == 1, "a restart goes on waiting"
    shutil.move(late, site.inbox / "CD" / made[1].path.relative_to(site.root / "export"))
    site.wait_for(lambda: bool(site.events("study-archived")), 60, "the study to be archived")
    site.wait_for(lambda: [path.name for path in site.left()] == ["DICOMDIR"], 60, "all but the DICOMDIR to be deleted")
    assert not site.events("study-incomplete")
    site.stop()
    shown = site.ctl_json("show", study)["archive"]
    assert shown["completeness"]["answer"] == "complete" and shown["missing_uids"] == []
    assert "yes, all that a DICOMDIR lists is there" in site.ctl("show", study).stdout
    found = site.ctl_json("verify", study, "--deep")
    assert (found["holds"], found["dicomdirs"], found["instances"], found["unlisted"]) == (True, 1, 5, [])
    out = site.root / "out"
    fetched = site.ctl_json("fetch", study, "-o", str(out), "--with-dicomdir")
    assert fetched["complete"] and fetched["dicomdirs"][0]["reason"] == ""
    content = (site.root / "export" / "DICOMDIR").read_bytes()
    assert (out / fetched["dicomdirs"][0]["name"]).read_bytes() == content
    assert len(list(out.rglob("*.dcm"))) == 5
    assert site.ctl_json("fetch", study, "-o", str(out))["dicomdirs"] is None
    [kept] = (site.root / "archive").rglob("*.dicomdir")
    kept.unlink()
    assert site.ctl("verify", study, check=False).returncode == 1
    assert "A DICOMDIR that was archived with the study is not held" in site.ctl("verify", study, check=False).stdout
    again = site.ctl("fetch", study, "-o", str(site.root / "again"), "--with-dicomdir", check=False)
    assert again.returncode == 1 and "the object is missing from the store" in again.stdout


def test_in_the_end_it_is_archived_without(site: Site) -> None:
    site.config["max_wait_seconds"] = 2
    site.write_config()
    made, _ = export(site)
    site.start()
    site.wait_for(lambda: bool(site.events("study-archived")), 60, "the study to be archived")
    assert [one["missing_files"] for one in site.events("study-incomplete")] == [1]
    site.stop()
    shown = site.ctl_json("show", made[0].study_uid)["archive"]
    assert shown["completeness"]["answer"] == "gaps" and shown["missing_uids"] == [made[1].sop_instance_uid]
    assert [one["study_uid"] for one in site.ctl_json("search", "--incomplete")["studies"]] == [made[0].study_uid]


def test_once_does_not_wait(site: Site) -> None:
    made, _ = export(site)
    assert site.once() == 0
    assert site.ctl_json("show", made[0].study_uid)["archive"]["instances"] == 4
    text = site.log_file.read_text()
    assert "CD/" not in text and "study-waits" not in text
