"""The first start under a real systemd: what scripts/install has left, and one command after it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import schemas
from tests.installing import copy_checkout
from tests.servers.systemd import SystemdLab
from tests.system.test_service import (
    CTL,
    drop,
    install,
    is_archived,
    put,
    show,
    wait_until_empty,
    wheels,
)

__all__ = ["wheels"]

INBOX = "srv/dicom/ct1"
OPTIONS = ("--inbox", f"/{INBOX}", "--store", "/srv/archive", "--quiet-seconds", "1", "--after-archiving", "delete")


@pytest.fixture(scope="module")
def lab(wheels: Path) -> Iterator[SystemdLab]:
    def prepare(root: Path) -> None:
        copy_checkout(root / "src/dicomwatchd")
        shutil.copytree(wheels, root / "src/wheels")
        for leftover in ("etc/dicomwatchd", "opt/dicomwatchd", "var/lib/dicomwatchd", "srv/archive", "srv/dicom"):
            shutil.rmtree(root / leftover, ignore_errors=True)

    with (
        tempfile.TemporaryDirectory(prefix="dicomwatchd-lab.") as directory,
        SystemdLab(Path(directory) / "lab", prepare=prepare) as running,
    ):
        running.sh("useradd", "--system", "--user-group", "modality")
        running.sh("groupadd", "--system", "dicom")
        running.sh("usermod", "--append", "--groups", "dicom", "modality")
        assert "dicomwatchctl setup" in install(running)
        yield running


def setup(lab: SystemdLab, *options: str, code: int = 0) -> tuple[dict[str, Any], str]:
    done = lab.sh(CTL, "setup", "--yes", "--json", *options, check=False, timeout=240)
    assert done.returncode == code, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    schemas.check("setup", said)
    return said, done.stderr


def test_a_dry_run_shows_all_and_does_nothing(lab: SystemdLab) -> None:
    said, shown = setup(lab, *OPTIONS, "--dry-run")
    assert {one["outcome"] for one in said["steps"]} == {"planned", "already"} and said["changed"]
    assert "$ systemctl enable --now dicomwatchd.service" in shown and "needs root and systemd" in shown
    assert show(lab, "UnitFileState") == "disabled" and not (lab.root / "srv/dicom").exists()
    refused = lab.sh("runuser", "-u", "modality", "--", CTL, "setup", "--yes", check=False)
    assert refused.returncode == 2 and "sudo dicomwatchctl setup" in refused.stderr


def test_the_whole_of_it_fails_in_the_middle_and_goes_on(lab: SystemdLab) -> None:
    put(lab, "run/systemd/system/dicomwatchd.service.d/broken.conf", "[Service]\nExecStartPre=/bin/false\n")
    lab.sh("systemctl", "daemon-reload")
    failed, _ = setup(lab, *OPTIONS, code=1)
    lab.sh("rm", "/run/systemd/system/dicomwatchd.service.d/broken.conf")
    lab.sh("systemctl", "daemon-reload")
    [wrong] = [one for one in failed["steps"] if one["outcome"] == "failed"]
    assert wrong["step"] == "service" and "journalctl" in failed["what_to_do"]
    assert "after_archive: keep" in (lab.root / "etc/dicomwatchd/config.yaml").read_text()

    said, shown = setup(lab, *OPTIONS)
    outcomes = {one["step"]: one["outcome"] for one in said["steps"]}
    assert outcomes["configuration"] == outcomes["inbox ct1"] == outcomes["rights ct1"] == "already"
    assert outcomes["service"] == outcomes["test-study"] == outcomes["after-archiving"] == "done"
    assert said["test_study"]["proven"] and " s  archived" in shown
    assert (show(lab, "ActiveState"), show(lab, "UnitFileState")) == ("active", "enabled")
    assert lab.sh("stat", "-c", "%U:%G %a", "/srv/archive").stdout == "dicomwatchd:dicomwatchd 750\n"
    assert lab.sh("stat", "-c", "%U:%G", f"/{INBOX}").stdout == "dicomwatchd:dicomwatchd\n"
    assert "default:user:dicomwatchd:rwx" in lab.sh("getfacl", "-p", f"/{INBOX}").stdout
    assert not [path for path in lab.sh("find", "/srv/archive", "-user", "root").stdout.splitlines() if path], (
        "what the daemon cannot write to"
    )


def test_the_second_time_changes_nothing(lab: SystemdLab) -> None:
    content = (lab.root / "etc/dicomwatchd/config.yaml").read_bytes()
    pid = show(lab, "MainPID")
    said, _ = setup(lab, *OPTIONS)
    assert not said["changed"] and {one["outcome"] for one in said["steps"]} == {"already", "checked"}
    assert (lab.root / "etc/dicomwatchd/config.yaml").read_bytes() == content and show(lab, "MainPID") == pid


def test_what_a_modality_drops_then_is_archived_and_deleted(lab: SystemdLab) -> None:
    lab.sh("sh", "-c", f"rm /{INBOX}/TEST-SETUP-*")
    lab.sh("setfacl", "-m", "u:modality:rwx", f"/{INBOX}")
    _, files = drop(lab, 71, inbox=INBOX)
    wait_until_empty(lab, INBOX)
    assert is_archived(lab, files)


def test_a_test_study_can_be_sent_at_any_time_and_is_deleted_on_proof(lab: SystemdLab) -> None:
    done = lab.sh(CTL, "setup", "test-study", "--json", timeout=200)
    said = json.loads(done.stdout)
    schemas.check("setup-test-study", said)
    assert said["proven"] and said["local_file"] == "deleted" and "was deleted on proof" in done.stderr
    lab.sh("journalctl", "--sync")
    assert "TEST^SETUP" not in lab.sh("journalctl", "-o", "export", "-u", "dicomwatchd").stdout
