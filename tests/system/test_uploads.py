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
from tests.synthetic import Maker
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
    )
    log = site.log_file.read_text()
    assert "elsewhere" not in log and str(folder) not in log
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
