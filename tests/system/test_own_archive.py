"""The archive mounted into an inbox, whole and in part, while the daemon runs; and handed to `upload --delete`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.synthetic import Maker
from tests.system import invariants
from tests.system.site import Site

if os.geteuid() != 0 or shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode:
    pytest.skip("mounts need root and a mount namespace", allow_module_level=True)


@pytest.fixture(params=["instance", "bundled"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """With three studies in its archive, two that wait for nothing, and one more way into its inbox."""
    site = Site(tmp_path, inbox={"settle_seconds": 0, "quiet_seconds": 0}, scan_interval_seconds=0.3)
    site.config["archive"]["layout"] = {"kind": request.param}
    site.write_config()
    site.init()
    for seed in (3, 4):
        Maker(seed=seed).ct_series(site.inbox / str(seed), slices=3, rows=16, columns=16)
    assert site.once() == 0, site.log_tail()
    site.launcher = ("unshare", "-m")  # mounts of its own, gone with its last process
    yield site
    site.close()


def test_a_mount_of_the_archive(site: Site) -> None:
    archive = site.root / "archive"
    held = invariants.objects(archive)
    assert len(held) == (6 if site.config["archive"]["layout"]["kind"] == "instance" else 2)
    study = next((archive / "studies").iterdir())
    places = {site.inbox / "whole": archive, site.inbox / "deep" / "studies": archive / "studies"}
    places |= {site.inbox / "one": study, site.root / "handed-in": archive, site.root / "part": study}
    for place in places:
        place.mkdir(parents=True)
    site.start()
    assert site.daemon is not None
    site.launcher = ("nsenter", "-t", str(site.daemon.pid), "-m")
    for place, what in places.items():
        subprocess.run([*site.launcher, "mount", "--bind", str(what), str(place)], check=True)
    [made] = Maker(seed=9).ct_series(site.inbox / "DOE", slices=1, rows=16, columns=16)
    site.wait_for(lambda: not made.path.exists(), 90, "an export beside the mounts to be archived")

    def told() -> bool:
        rows = site.ctl_json("quarantine")["files"]
        return [row["code"] for row in rows].count("own-tree") == 2

    site.wait_for(told, 90, "both marked trees to be told of")
    for folder in ("handed-in", "part"):
        asked = site.ctl("upload", "--delete", "--json", str(site.root / folder), check=False)
        assert asked.returncode != 0, asked.stdout
        if folder == "handed-in":
            assert "belongs to an archive" in asked.stdout + asked.stderr, asked.stderr
        else:
            assert not json.loads(asked.stdout or "{}").get("deletable"), asked.stdout
    if site.config["archive"]["layout"]["kind"] == "instance":
        site.wait_for(
            lambda: bool(site.ctl_json("status")["files"].get("kept", 0) >= 3), 90, "the objects themselves to be kept"
        )
        assert any("own objects" in problem for problem in site.ctl_json("status")["problems"])
    assert site.stop() == 0
    now = invariants.objects(archive)
    assert {path: now.get(path) for path in held} == held, "the archive's only copies are gone"
    for line in site.log_file.read_text().splitlines():
        assert "whole" not in line and "handed-in" not in line, "a path in the log"
