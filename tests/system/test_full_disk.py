"""A real file system that is too full, and a real daemon that keeps files there for a week."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.synthetic import Maker
from tests.system import invariants
from tests.system.invariants import Embedded
from tests.system.site import Site

MB = 1_000_000


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    rule = {"delete_after": "7d", "disk_free_min": "30%", "disk_free_goal": "50%"}
    site = Site(tmp_path, inbox={"after_archive": rule})
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(site.inbox)], check=False)
    if mounted.returncode:
        pytest.skip("a file system can be mounted by root alone")
    try:
        site.init()
        yield site
        site.close()
    finally:
        subprocess.run(["umount", "-l", str(site.inbox)], check=True)


def free_share(folder: Path) -> float:
    found = os.statvfs(folder)
    return found.f_bavail / found.f_blocks


def fill(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as other:
        while other.write(bytes(4096)):
            pass


def test_it_is_emptied_as_far_as_is_called_for_and_what_is_not_archived_stays(site: Site) -> None:
    site.start()
    studies = []
    for seed in range(1, 6):
        studies.append(Maker(seed).ct_series(site.inbox / str(seed), slices=4, rows=512, columns=512))
        archived = len(studies)
        site.wait_for(lambda archived=archived: len(site.events("study-archived")) == archived, 60, "it is archived")  # type: ignore[misc]
        site.wait_for(lambda: not site.ctl_json("queue")["studies"], 60, "it is at rest")
    made = [one for study in studies for one in study]
    (site.inbox / "readme").write_text("no DICOM")
    assert all(one.path.exists() for one in made) and free_share(site.inbox) > 0.3
    # Somebody else's file.
    (site.inbox / "other.bin").write_bytes(bytes(3 * MB))
    assert free_share(site.inbox) < 0.3
    site.wait_for(lambda: free_share(site.inbox) >= 0.5, 120, "room")
    site.wait_for(lambda: bool(site.events("disk-has-room")), 60, "that to be seen")
    left = [sum(one.path.exists() for one in study) for study in studies]
    assert left == sorted(left) and left[0] == 0 and left[-1] == 4, "the oldest have gone"
    assert 0.5 <= free_share(site.inbox) < 0.56, "and no more than is called for"
    status = site.ctl_json("status")
    assert status["deleting_early"] == []

    # Full to the last byte of what is not archived.
    fill(site.inbox / "other2.bin")
    assert free_share(site.inbox) == 0
    site.wait_for(lambda: bool(site.events("disk-stays-full")), 180, "that nothing more can go")
    assert not any(one.path.exists() for one in made)
    assert all((site.inbox / name).exists() for name in ("readme", "other.bin", "other2.bin"))
    status = site.ctl_json("status")
    assert status["deleting_early"] == ["inbox1"]
    assert any("no more files on it can be deleted early" in problem for problem in status["problems"])
    assert "deleted before their time" in site.ctl("status").stdout
    assert site.stop() == 0
    for study in studies:
        Embedded(site.root / "archive").require_whole(study[0].study_uid, [one.sha256 for one in study], revision=1)
    invariants.require_whole_audit(site.state, [one.sha256 for one in made])
