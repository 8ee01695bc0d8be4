"""dicomwatchd-web as installed by scripts/install --with-web: the unit's sandbox under a real systemd, its exposure."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import skip_unless_available
from tests.installing import copy_checkout, fetch_wheels
from tests.servers.systemd import SystemdLab
from tests.synthetic import Maker, Patient
from tests.system.test_service import ARCHIVE, CTL, FOLDERS, install, lab_says, put, show, wait_for

ROOT = Path(__file__).parents[2]
WEB = "dicomwatchd-web"
URL = "http://127.0.0.1:8442"
CONFIG = f"""
inboxes:
  - {{name: ct1, path: /srv/dicom}}
archive:
  store: {{kind: directory, path: /{ARCHIVE}}}
  catalogue: {{kind: sqlite, path: /{ARCHIVE}/catalogue.db}}
web: {{tokens: true}}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[SystemdLab]:
    skip_unless_available("systemd")
    script = f'. "{ROOT}/scripts/lib.sh"; find_service_python'
    python = subprocess.run(["bash", "-c", script], capture_output=True, text=True).stdout.strip()
    if not python:
        pytest.skip("no Python >= 3.11 outside of home folders; scripts/setup-test-machine installs Debian's")
    with tempfile.TemporaryDirectory(prefix="dicomwatchd-lab.") as directory:
        folder = Path(directory)
        (folder / "wheels").mkdir()
        wheels = fetch_wheels(python, folder / "wheels", "web")

        def prepare(root: Path) -> None:
            copy_checkout(root / "src/dicomwatchd")
            shutil.copytree(wheels, root / "src/wheels")
            # No way to its registry here, which it would try for minutes: the page is installed without the viewer.
            (root / "usr/sbin").mkdir(parents=True, exist_ok=True)
            (root / "usr/sbin/npm").write_text("#!/bin/sh\nexit 1\n")
            (root / "usr/sbin/npm").chmod(0o755)
            for leftover in ("etc/dicomwatchd", "opt/dicomwatchd", "var/lib/dicomwatchd", "var/lib/dicomwatchd-web"):
                shutil.rmtree(root / leftover, ignore_errors=True)

        with SystemdLab(folder / "lab", prepare=prepare) as running:
            running.sh("install", "-d", "/srv/dicom")
            put(running, "etc/dicomwatchd/config.yaml", CONFIG)
            install(running, "--with-web")
            running.sh("install", "-d", "-o", "dicomwatchd", "-g", "dicomwatchd", "-m", "750", f"/{ARCHIVE}")
            running.sh("setfacl", "-R", "-m", f"u:{WEB}:rX", "-m", f"d:u:{WEB}:rX", f"/{ARCHIVE}")
            running.sh("runuser", "-u", "dicomwatchd", "--", CTL, "archive", "init")
            yield running


def fetched(lab: SystemdLab, path: str, *options: str) -> str:
    return lab.sh("curl", "--silent", "--write-out", "%{http_code}", *options, URL + path, check=False).stdout


def test_it_reads_the_archive_and_can_touch_nothing_else(lab: SystemdLab) -> None:
    assert lab_says(lab, "is-enabled", WEB) == "disabled"
    assert lab.sh("systemd-analyze", "verify", "--man=no", f"{WEB}.service").stderr == ""
    assert "may connect" in lab.sh(FOLDERS).stdout
    drop_in = (lab.root / f"etc/systemd/system/{WEB}.service.d/folders.conf").read_text()
    assert "IPAddressAllow=127.0.0.0/8 ::1/128\n" in drop_in and "ReadWritePaths" not in drop_in
    said = lab.sh("systemd-analyze", "security", "--no-pager", f"{WEB}.service").stdout
    found = re.search(r"exposure level for \S+: ([0-9.]+)", said)
    assert found is not None and float(found[1]) <= 1.2, said[-300:]

    lab.sh("systemctl", "start", WEB)
    assert show(lab, "ActiveState", WEB) == "active"
    assert fetched(lab, "/health") == "ok\n200"
    assert fetched(lab, "/nowhere").endswith("401")
    token = lab.sh(CTL, "web", "token", "ct", "--role", "read").stdout.strip()
    assert fetched(lab, "/nowhere", "-H", f"Authorization: Bearer {token}").endswith("404")
    assert lab.sh("stat", "-c", "%U %a", f"/var/lib/{WEB}/tokens.json").stdout == f"{WEB} 600\n"

    pid = show(lab, "MainPID", WEB)
    inside = ["nsenter", "--target", pid, "--mount", "--", "setpriv", "--reuid", WEB, "--regid", WEB, "--clear-groups"]
    assert lab.sh(*inside, "cat", f"/{ARCHIVE}/archive.json").stdout
    for place in ("/etc/dicomwatchd/aws.credentials", "/var/lib/dicomwatchd"):
        assert lab.sh(*inside, "ls", place, check=False).returncode, place
    for place in (f"/{ARCHIVE}/x", f"/{ARCHIVE}/archive.json", "/srv/dicom/x", "/etc/x"):
        assert lab.sh(*inside, "touch", place, check=False).returncode, place
    assert lab.sh(*inside, "touch", f"/var/lib/{WEB}/x").returncode == 0, "this test would not notice"
    assert lab.sh(*inside, "rm", f"/var/lib/{WEB}/x").returncode == 0
    assert "0000000000000000" in lab.sh("grep", "CapEff", f"/proc/{pid}/status").stdout

    lab.sh("systemctl", "reload", WEB, timeout=60)
    assert show(lab, "MainPID", WEB) == pid
    lab.sh("systemctl", "stop", WEB, timeout=60)
    assert show(lab, "Result", WEB) == "success"
    log = lab.sh("journalctl", "-u", WEB, "-o", "cat", "--all").stdout
    assert "the web process listens" in log and token not in log and f"/{ARCHIVE}" not in log


def test_what_is_handed_in_goes_to_the_daemon(lab: SystemdLab) -> None:
    """As the page does it, by the groups that docs/web.md names: from the process' own sandbox."""
    lab.sh("usermod", "-aG", "dicomwatchd", WEB)
    lab.sh("usermod", "-aG", WEB, "dicomwatchd")
    lab.sh("install", "-d", "-o", "dicomwatchd", "-g", "dicomwatchd", "-m", "2770", "/srv/dicom")
    lab.sh("systemctl", "start", "dicomwatchd", WEB, timeout=60)
    with tempfile.TemporaryDirectory() as name:
        [made] = Maker(9, Patient.marked("CANARY^JANE")).ct_series(Path(name), slices=1, rows=16, columns=16)
        shutil.copy(made.path, lab.root / "srv/image.dcm")
    pid = show(lab, "MainPID", WEB)
    inside = ["nsenter", "--target", pid, "--mount", "--", "setpriv", "--reuid", WEB, "--regid", WEB, "--init-groups"]
    folder = f"/var/lib/{WEB}/uploads/one"
    lab.sh(*inside, "mkdir", "-p", "-m", "770", folder)
    lab.sh(*inside, "cp", "/srv/image.dcm", f"{folder}/x")
    lab.sh(*inside, "chmod", "640", f"{folder}/x")
    lab.sh(*inside, CTL, "upload", folder, "--delete", "--wait", timeout=120)
    assert lab.sh("ls", folder).stdout == ""
    lab.sh("systemctl", "stop", "dicomwatchd", WEB, timeout=120)


def test_a_hung_process_is_killed(lab: SystemdLab) -> None:
    put(lab, f"etc/systemd/system/{WEB}.service.d/test.conf", "[Service]\nWatchdogSec=3\nRestartSec=0.2\n")
    lab.sh("systemctl", "daemon-reload")
    lab.sh("systemctl", "start", WEB)
    pid = show(lab, "MainPID", WEB)
    lab.sh("kill", "-STOP", pid)
    wait_for(lambda: show(lab, "MainPID", WEB) not in (pid, "0"), 60, "systemd to notice")
    wait_for(lambda: show(lab, "ActiveState", WEB) == "active", 60, "the successor")
    lab.sh("systemctl", "stop", WEB, timeout=60)


def test_uninstalling_keeps_the_record_of_access(lab: SystemdLab) -> None:
    said = install(lab, "--uninstall")
    assert f"kept: the record of access in /var/lib/{WEB}" in said
    assert (lab.root / f"var/lib/{WEB}/access.sqlite").exists()
    for path in (f"etc/systemd/system/{WEB}.service", f"usr/local/bin/{WEB}"):
        assert not (lab.root / path).exists(), path
    assert not (lab.root / f"etc/systemd/system/{WEB}.service.d/folders.conf").exists()
