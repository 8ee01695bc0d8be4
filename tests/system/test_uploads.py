"""Uploaded folders, with the real programs: what lets a person delete is true, every upload can be listed,
watched and cancelled, and what came of it is told after a restart too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import schemas
from tests.discs import make_image
from tests.synthetic import Made, Maker
from tests.system.site import CTL, Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def shown(site: Site, upload_id: str) -> dict[str, Any]:
    """Which has exit code 0 only once all of it is verified."""
    found = site.ctl_json("upload", "show", upload_id, check=False)
    assert isinstance(found, dict)
    return found


def test_what_was_not_seen_is_named_and_the_folder_is_not_to_be_deleted(site: Site) -> None:
    site.init()
    folder = site.root / "stick"
    Maker(seed=1).mr_study(folder / "MR", series=1, slices=3)
    deep = b"/".join([os.fsencode(folder), *[b"d"] * 258])
    os.makedirs(deep)
    Path(os.fsdecode(deep), "IM1").write_bytes(b"who knows")
    (folder / "elsewhere").symlink_to("/usr")
    site.start()
    said = site.ctl("upload", str(folder), check=False)
    assert said.returncode == 1 and "may now" not in said.stdout
    assert "Do not delete" in said.stdout and "elsewhere: " in said.stdout and "folders deep" in said.stdout
    assert "3 of 4 files are verified" in said.stdout
    (folder / "elsewhere").unlink()
    subprocess.run(["rm", "-rf", str(folder / "d")], check=True)
    said = site.ctl("upload", str(folder))
    assert said.stdout == (
        "All 3 files are verified in the archive. The folder was not changed; the local copies may now be deleted.\n"
        "There is no sign that images of the study are missing.\n"
    )
    log = site.log_file.read_text()
    assert "elsewhere" not in log and str(folder) not in log
    assert site.stop() == 0


@pytest.fixture
def made(site: Site) -> list[Made]:
    """Of two studies, on a patient's CD, with the DICOMDIR last."""
    maker, here = Maker(seed=4), site.root / "scanner"
    files = maker.mr_study(here / "MR", series=1, slices=3) + maker.ct_series(here / "CT", slices=4)
    return maker.disc(site.root / "cdrom", files)


def test_a_patients_cd_ends_well(site: Site, made: list[Made]) -> None:
    """What it holds beside the images is left alone; the DICOMDIR says that none is missing."""
    site.init()
    site.start()
    said = site.ctl("upload", str(site.root / "cdrom"))
    assert said.stdout == (
        "All 7 images of 2 studies are verified in the archive, as the disc's own list (DICOMDIR) has them."
        " The folder was not changed; the local copies of the archived files may now be deleted.\n"
        "11 other files are not DICOM (a viewer, a text, a picture or the like) and were left alone: they are not in"
        " the archive.\n"
        "The DICOMDIR, which only lists the other files, is still there.\n"
        "No image of the 2 studies is missing, as the DICOMDIR has them.\n"
    )
    gone = made[0].path
    gone.rename(site.root / "elsewhere")
    again = site.ctl_json("upload", str(site.root / "cdrom"))
    assert again["dicomdir"]["archived_before"] == 1 and again["not_dicom"] == 11 and not again["deletable"]
    assert {str(one.study_uid) for one in made[:-1]} == {s["study_uid"] for s in site.ctl_json("search")["studies"]}
    log = site.log_file.read_text()
    assert gone.name not in log and "PT000000" not in log and "AUTORUN" not in log
    assert site.stop() == 0


def test_a_scratched_cd_says_which_images_are_missing(site: Site, made: list[Made]) -> None:
    site.init()
    missing, damaged = made[0].path, made[1].path
    missing.unlink()
    damaged.write_bytes(bytes(100))
    site.start()
    said = site.ctl("upload", str(site.root / "cdrom"), check=False)
    assert said.returncode == 1 and "may now" not in said.stdout
    assert "5 of 6 files are verified in the archive." in said.stdout
    for path, why in ((missing, "is listed in the DICOMDIR, but is not there"), (damaged, "not DICOM: damaged?")):
        assert f"  {path.relative_to(site.root / 'cdrom')}: " in said.stdout and why in said.stdout
    assert "Of the 7 images of 2 studies on the disc's own list (DICOMDIR), 1 is missing" in said.stdout
    assert site.stop() == 0


def test_the_image_of_a_cd(site: Site, made: list[Made]) -> None:
    site.init()
    work = site.root / "work"
    work.mkdir()
    site.environment["TMPDIR"] = str(work)
    image = make_image(site.root / "cdrom", site.root / "disc.iso")
    before = image.read_bytes()
    site.start()
    said = site.ctl("upload", str(image))
    assert "All 7 images of 2 studies are verified in the archive" in said.stdout
    assert "The disc image was not changed. It is no longer needed for these images." in said.stdout
    assert image.read_bytes() == before
    assert [path for path in work.rglob("*") if path.is_file()] == [], "what was unpacked is gone"
    found = site.ctl_json("upload", str(image))
    assert (found["path"], found["disc_image"], found["complete"]) == (str(image), True, True)
    for option in ("--delete", "--no-wait"):
        assert site.ctl("upload", str(image), option, check=False).returncode == 2
    (site.root / "text").write_text("no disc")
    refused = site.ctl("upload", str(site.root / "text"), check=False)
    assert refused.returncode == 1 and "not the image of a disc" in refused.stderr
    assert site.ctl("upload", str(site.root / "nothing"), check=False).returncode == 2
    image.write_bytes(before[: before.index(made[0].path.read_bytes()) + 5000])
    cut = site.ctl("upload", str(image), check=False)
    assert cut.returncode == 1 and "Not archived" in cut.stdout and "image is cut off" in cut.stderr
    site.ctl("fetch", made[0].study_uid, "-o", str(site.root / "out"))
    assert site.stop() == 0


def test_the_upload_of_an_image_that_is_broken_off_is_cancelled(site: Site, made: list[Made]) -> None:
    """Its files are there only while the command runs."""
    site.init()
    (site.root / "work").mkdir()
    site.environment["TMPDIR"] = str(site.root / "work")
    image = make_image(site.root / "cdrom", site.root / "disc.iso")
    site.start()
    (site.root / "archive").rename(site.root / "archive-away")  # so that it cannot end before it is broken off
    # Whoever runs the tests in the background ignores SIGINT, and so would the command.
    command = ["env", "--default-signal=INT", CTL, "--config", str(site.config_file), "upload", str(image)]
    waiting = subprocess.Popen(command, env=site.environment, stderr=subprocess.PIPE)
    site.wait_for(lambda: bool(site.ctl_json("upload", "list")["uploads"]), 90, "the upload to be under way")
    waiting.send_signal(signal.SIGINT)
    _, stderr = waiting.communicate(timeout=60)
    assert waiting.returncode == 130 and b"the upload was cancelled" in stderr
    [line] = site.ctl_json("upload", "list")["uploads"]
    assert line["outcome"] == "cancelled"
    assert [path for path in (site.root / "work").rglob("*") if path.is_file()] == []
    assert site.stop() == 0


def test_results_outlive_the_daemon_and_a_kill(site: Site) -> None:
    site.init()
    folder = site.root / "export"
    made = Maker(seed=2).ct_series(folder, slices=60)
    site.start()
    handed = json.loads(site.ctl("upload", str(folder), "--no-wait", "--json", check=False).stdout)
    upload_id = handed["upload_id"]
    assert not handed["done"] and not handed["deletable"]
    assert site.stop(signal.SIGKILL) != 0
    without = site.ctl("upload", "show", upload_id, check=False)
    assert without.returncode == 1 and "Do not delete anything yet" in without.stdout
    (site.state / "control.sock").unlink()  # which a killed daemon leaves behind
    site.start()
    again = json.loads(site.ctl("upload", str(folder), "--json").stdout)
    assert again["upload_id"] == upload_id, "the same command follows the upload that runs"
    assert again["deletable"] and again["verified"] == len(made)
    assert site.stop() == 0
    assert shown(site, upload_id) == again
    [line] = site.ctl_json("upload", "list")["uploads"]
    assert (line["upload_id"], line["outcome"], line["verified"]) == (upload_id, "finished", len(made))
    site.start()
    assert shown(site, upload_id) == again
    assert upload_id in site.ctl("upload", "list").stdout
    assert site.ctl("upload", "cancel", upload_id, check=False).returncode == 1
    assert site.ctl("upload", "cancel", "upload-0", check=False).returncode == 1
    assert site.ctl("upload", "show", "upload-0", check=False).returncode == 1


def test_an_upload_is_cancelled_and_its_files_stay(site: Site) -> None:
    """While it is being shipped and deleted, and somebody waits for it."""
    site.init()
    folder = site.root / "export"
    made = Maker(seed=3).ct_series(folder, slices=200)
    site.start()
    waiting = subprocess.Popen(
        [CTL, "--config", str(site.config_file), "upload", str(folder), "--delete", "--json"],
        env=site.environment,
        stdout=subprocess.PIPE,
    )
    uploads: list[dict[str, Any]] = []

    def under_way() -> bool:
        uploads[:] = site.ctl_json("upload", "list")["uploads"]
        return bool(uploads) and uploads[0]["files"] > 0

    site.wait_for(under_way, 90, "the upload to be under way")
    upload_id = uploads[0]["upload_id"]
    said = json.loads(site.ctl("upload", "cancel", upload_id, "--json", check=False).stdout)
    assert said["done"]
    left = {path for path in folder.rglob("*") if path.is_file()}
    answer = json.loads(waiting.communicate(timeout=90)[0])
    schemas.check("upload", answer)
    assert answer == said
    assert waiting.returncode == (0 if said["complete"] else 1)
    if said["outcome"] == "cancelled":  # else the machine was quicker than this test
        assert said["deleted"] == len(made) - len(left)
        assert said["complete"] is False
        site.wait_for(lambda: not site.ctl_json("queue")["studies"], 90, "no study to wait for the cancelled upload")
        assert {path for path in folder.rglob("*") if path.is_file()} == left
    assert upload_id not in json.dumps(site.ctl_json("status"))
    if left:
        assert site.ctl("upload", str(folder), "--delete").returncode == 0
    site.ctl("fetch", made[0].study_uid, "-o", str(site.root / "out"))
    assert len(list((site.root / "out").rglob("*.dcm"))) == len(made)
    assert site.stop() == 0
