"""Restore drills by the real daemon: what comes back is counted, what does not is found and told, and no copy stays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.synthetic import Made, Maker, Patient
from tests.system.site import CTL, Site
from tests.system.test_damaged_manifest import Shelf
from tests.system.test_journey_s3 import archive_of

MARKER = "ZQXCANARY"

if os.geteuid() != 0:
    pytest.skip("a drill is asked for as root", allow_module_level=True)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    site.init()
    yield site
    site.close()


def archive(site: Site, slices: int = 4, seed: int = 5) -> list[Made]:
    """A study whose files say the marker wherever a name can stand."""
    made = Maker(seed, Patient.marked(MARKER)).ct_series(
        site.inbox / f"{MARKER}^{seed}", slices=slices, study=0, rows=16, columns=16
    )
    site.wait_for(lambda: not any(one.path.exists() for one in made), 90, "the study to be archived")
    return made


def objects(site: Site, study: str) -> list[Path]:
    return sorted((site.root / "archive" / "studies" / study).rglob("*.dcm"))


def drill(site: Site, *study: str, code: int = 0) -> dict[str, Any]:
    done = site.ctl("drill", *study, "--json", check=False)
    assert done.returncode == code, (done.stdout, done.stderr)
    said: dict[str, Any] = site.ctl_json("status")["restore_drill"]
    return {**said, "text": site.ctl("status").stdout, "check": site.ctl("status", "--check", check=False).returncode}


def scratch(site: Site) -> list[Path]:
    return sorted((site.state / "restore-drill").glob("*"))


def test_what_comes_back_and_what_does_not(site: Site) -> None:
    site.start()
    study, other = (archive(site, seed=seed)[0].study_uid for seed in (5, 6))
    said = drill(site, study)
    assert (said["instances"], said["instances_equal"], said["check"]) == (4, 4, 0)
    said = drill(site)
    assert "8 of 8 instances came back equal in the last 30 days (2 studies)" in said["text"]
    assert site.events("restore-drill")[-1]["all_equal_count"] == 8

    # One byte of an object is another one, and it is still as long.
    tampered, missing = objects(site, study)[0], objects(site, other)[0]
    right = tampered.read_bytes()
    tampered.chmod(0o600)
    tampered.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    missing.rename(site.root / "missing")
    for one in (study, other):
        said = drill(site, one, code=1)
    assert (said["instances"], said["instances_equal"], said["check"]) == (16, 14, 1)
    assert [(one["study_uid"], one["code"]) for one in said["failed"]] == [(study, "differs"), (other, "differs")]
    for one in (study, other):
        assert (
            f"Problem: restore drill: study {one} did not come back whole: 1 of 4 instances are missing" in said["text"]
        )
        assert f"dicomwatchctl verify --deep {one}" in said["text"]
    assert [event["study_uid"] for event in site.events("restore-drill-failed")] == [study, other]
    assert site.ctl("verify", "--deep", study, check=False).returncode == 1, "what is advised finds it, too"

    # Once they are put right they are no problem any more, and what was stays in the figures.
    tampered.write_bytes(right)
    (site.root / "missing").rename(missing)
    for one in (study, other):
        said = drill(site, one)
    assert (said["failed"], said["check"], said["instances"] - said["instances_equal"]) == ([], 0, 2)

    manifest = next((site.root / "archive" / "studies" / study / "manifests").iterdir())
    manifest.chmod(0o600)
    manifest.write_bytes(manifest.read_bytes()[:-9])
    said = drill(site, study, code=1)
    assert [one["code"] for one in said["failed"]] == ["manifest"] and "manifest that cannot be used" in said["text"]
    assert site.stop() == 0
    assert scratch(site) == []
    assert (site.state / "restore-drill").stat().st_mode & 0o777 == 0o700
    for what in (said["text"], str(said), site.log_file.read_text()):
        assert MARKER not in what.upper() and str(site.inbox) not in what


def test_an_erased_study_is_none(site: Site) -> None:
    site.start()
    study = archive(site)[0].study_uid
    objects(site, study)[0].rename(site.root / "missing")
    assert drill(site, study, code=1)["check"] == 1
    assert site.stop() == 0
    site.ctl("archive", "erase", study, "--because", "x", "--yes", study, "--no-wait")
    site.start()
    assert site.ctl_json("drill", study, check=False)["outcome"] == "nothing"
    said = drill(site, code=1)
    assert said["failed"] == [] and said["check"] == 0, "what was erased on purpose is no problem any more"
    assert site.stop() == 0


def test_out_of_reach_is_said_otherwise(site: Site) -> None:
    site.start()
    study = archive(site)[0].study_uid
    (site.root / "archive").rename(site.root / "away")
    try:
        for one in ((study,), ()):
            said = site.ctl_json("drill", *one, check=False)
            assert (said["outcome"], said["code"]) == ("not-done", "not-there")
        assert "the archive could not be read" in site.ctl("drill", check=False).stdout
    finally:
        (site.root / "away").rename(site.root / "archive")
    said = drill(site, study)
    assert said["studies"]["not-done"] == 3 and said["failed"] == [] and said["check"] == 0
    assert "4 of 4 instances came back equal" in said["text"]
    assert "not done: 3 while the archive could not be read" in said["text"]
    assert site.stop() == 0


def test_no_room(site: Site) -> None:
    """All of a disk shall stay free: nothing is fetched."""
    site.config["disk_free_warn"] = "100%"
    site.write_config()
    site.start()
    study = archive(site)[0].study_uid
    said = site.ctl_json("drill", study, check=False)
    assert (said["outcome"], said["bytes"]) == ("no-room", 0)
    assert "too little free space" in site.ctl("drill", study, check=False).stdout
    assert site.stop() == 0


def test_by_itself(site: Site) -> None:
    """Nobody asks; and a run that ends when all is done makes none."""
    site.config["restore_drill"] = {"studies_per_day": 10_000}
    site.write_config()
    site.start()
    archive(site)
    site.wait_for(lambda: len(site.events("restore-drill")) >= 2, 60, "two drills")
    assert site.stop() == 0
    made = len(site.events("restore-drill"))
    assert site.once() == 0 and len(site.events("restore-drill")) == made


def _in_the_midst(site: Site, study: str) -> subprocess.Popen[bytes]:
    asking = subprocess.Popen(
        # Whoever runs the tests in the background ignores SIGINT, and so would the command.
        ["env", "--default-signal=INT", CTL, "--config", str(site.config_file), "drill", study],
        env=site.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    site.wait_for(
        lambda: len(list((site.state / "restore-drill").rglob("*.dcm"))) > 3, 60, "a drill to be in the midst"
    )
    return asking


def test_what_a_kill_leaves_is_removed_at_the_start(site: Site) -> None:
    site.start()
    study = archive(site, slices=400)[0].study_uid
    asking = _in_the_midst(site, study)
    site.stop(signal.SIGKILL)
    assert asking.wait(30) == 4
    assert [re.fullmatch("study-[0-9a-f]{16}", path.name) is not None for path in scratch(site)] == [True]
    (site.state / "restore-drill" / "lost+found").mkdir()
    site.start()
    site.wait_for(lambda: site.events("restore-drill-scratch") != [], 60, "what was left to be removed")
    assert [path.name for path in scratch(site)] == ["lost+found"], "and nothing else"
    assert drill(site, study)["instances"] == 400
    assert site.stop() == 0


def test_a_stop_does_not_wait_for_it(site: Site) -> None:
    site.start()
    study = archive(site, slices=400)[0].study_uid
    asking = _in_the_midst(site, study)
    begun = time.monotonic()
    assert site.stop() == 0
    assert time.monotonic() - begun < 50 and scratch(site) == []
    assert asking.wait(30) in (1, 4)
    assert site.events("restore-drill") == [] and site.events("restore-drill-failed") == []


def test_whoever_gives_up_ends_it(site: Site) -> None:
    """Ctrl-C: what nobody waits for is not fetched to its end."""
    site.start()
    study = archive(site, slices=400)[0].study_uid
    asking = _in_the_midst(site, study)
    asking.send_signal(signal.SIGINT)
    asking.wait(30)
    site.wait_for(lambda: site.events("restore-drill-left-out") != [], 60, "the drill to be ended")
    assert site.events("restore-drill-left-out")[-1]["code"] == "given-up"
    site.wait_for(lambda: scratch(site) == [], 60, "its copies to be gone")
    assert drill(site, study)["instances"] == 400
    assert site.stop() == 0


def test_studies_are_archived_meanwhile(site: Site) -> None:
    """A drill of a large study is under way, and new studies do not wait for it."""
    site.start()
    study = archive(site, slices=400)[0].study_uid
    asking = _in_the_midst(site, study)
    archive(site, seed=9)
    assert asking.wait(120) == 0
    assert site.events("restore-drill")[-1]["instances"] == 400
    assert site.stop() == 0


def test_on_s3(tmp_path: Path, rgw: CephRgw, dynamodb: DynamoDBLocal, bucket: str, table_name: str) -> None:
    """Bundles, versions, and a gateway that goes away."""
    archive_config = archive_of(rgw, dynamodb, bucket, table_name) | {"layout": {"kind": "bundled"}}
    site = Site(tmp_path, archive_config, environment=rgw.env())
    site.environment.pop("AWS_CA_BUNDLE", None)
    site.init()
    rgw.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    site.start()
    try:
        study = archive(site, slices=12)[0].study_uid
        said = drill(site)
        assert (said["instances"], said["instances_equal"]) == (12, 12)
        key = site.ctl_json("prove", study)["files"][0]["proof"]["key"]
        Shelf(site, rgw, bucket).damage(key, b"other bytes")
        said = drill(site, study, code=1)
        assert (said["instances"], said["instances_equal"]) == (24, 24), "the versions beneath are there"
        assert [one["code"] for one in said["failed"]] == ["elsewhere"] and "overwritten or deleted" in said["text"]
        rgw.pause_gateway()
        try:
            assert site.ctl_json("drill", study, check=False)["outcome"] == "not-done"
        finally:
            rgw.resume_gateway()
        [version] = [
            one
            for one in rgw.client().list_object_versions(Bucket=bucket)["Versions"]
            if one["Key"].endswith(key) and one["IsLatest"]
        ]
        rgw.client().delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
        assert drill(site, study)["failed"] == []
        assert site.stop() == 0
    finally:
        site.close()
    assert MARKER not in site.log_file.read_text().upper()
