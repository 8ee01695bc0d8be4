"""dicomwatchd-web as installed by scripts/install --with-web: the unit's sandbox under a real systemd, its exposure."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    assert exposure(lab, WEB) <= 1.2

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


def test_what_is_handed_in_on_the_page_is_archived_and_gone(lab: SystemdLab) -> None:
    """Each process in the sandbox of its own unit and as its own user, with nothing by hand but the archive's ACL."""
    lab.sh("install", "-d", "-o", "dicomwatchd", "-g", "dicomwatchd", "-m", "2770", "/srv/dicom")
    # The lab's own disk is smaller than what the page leaves free.
    owner = f"uid={lab.sh('id', '-u', WEB).stdout.strip()},gid={lab.sh('id', '-g', WEB).stdout.strip()}"
    lab.sh("mount", "-t", "tmpfs", "-o", f"size=4g,mode=700,{owner}", "uploads", f"/var/lib/{WEB}")
    put(lab, "etc/dicomwatchd/aws.credentials", "[default]\n")
    lab.sh("chmod", "600", "/etc/dicomwatchd/aws.credentials")
    lab.sh(FOLDERS)
    assert lab.sh("id", "-nG", WEB).stdout.split() == [WEB] and lab.sh("id", "-nG", "dicomwatchd").stdout.split() == [
        "dicomwatchd"
    ]
    lab.sh("systemctl", "start", "dicomwatchd", WEB, timeout=60)
    with tempfile.TemporaryDirectory() as name:
        made = Maker(9, Patient.marked("CANARY^JANE")).ct_series(Path(name), slices=3, rows=16, columns=16)
        files = {f"CT/{one.path.name}": one.path.read_bytes() for one in made}
    token = lab.sh(CTL, "web", "token", "desk", "--role", "read", "--role", "upload").stdout.strip()
    page = Page(lab, token)

    upload = page.json("POST", "/uploads", b"{}")["upload"]
    said = [
        {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "modified": 1}
        for name, data in files.items()
    ]
    told = page.json("POST", f"/uploads/{upload}/files", json.dumps({"files": said}).encode())["files"]
    for one, data in zip(told, files.values(), strict=True):
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        put_there = f"/uploads/{upload}/files/{one['number']}?offset=0"
        page.json("PUT", put_there, data, "-H", f"Content-Digest: sha-256=:{digest}:")
    page.json("POST", f"/uploads/{upload}/finish", json.dumps({"files": len(files)}).encode())
    wait_for(lambda: page.json("GET", f"/uploads/{upload}/state", b"")["ended"], 120, "the upload to end")

    sentence = "All 3 files are verified in the archive. The local copies were deleted."
    assert sentence in " ".join(page.get(f"/uploads/{upload}").split())
    staging = f"/var/lib/{WEB}/uploads"
    left = ["find", staging, "-type", "f", "!", "-name", "uploads.db*"]
    assert lab.sh(*left).stdout == ""
    wait_for(lambda: lab.sh("ls", f"{staging}/{upload}", check=False).returncode != 0, 60, "its folder to go")
    [study] = json.loads(page.get("/dicom-web/studies", "application/dicom+json"))
    assert study["0020000D"]["Value"] == [made[0].study_uid]
    assert lab.sh("find", f"/{ARCHIVE}", "-path", f"*{made[0].study_uid}*", "-type", "f").stdout


def test_neither_gets_more_of_the_other_than_it_needs(lab: SystemdLab) -> None:
    """With the two of the test above at work."""
    of_web, of_daemon = (within(lab, unit) for unit in (WEB, "dicomwatchd"))
    of_state = lab.sh("find", "/var/lib/dicomwatchd", "!", "-name", "control.sock").stdout.splitlines()
    assert {"/var/lib/dicomwatchd", "/var/lib/dicomwatchd/state.db"} < set(of_state), "this test would not notice"
    for place in (*of_state, "/etc/dicomwatchd/aws.credentials"):
        for look in ("cat", "touch") if (lab.root / place[1:]).is_file() else ("ls", "rmdir"):
            assert lab.sh(*of_web, look, place, check=False).returncode, (look, place)
    assert lab.sh(*of_web, CTL, "doctor", check=False).returncode
    assert "the web process may not ask for that" in lab.sh(*of_web, CTL, "retry", "1.2.3", check=False).stderr
    assert lab.sh(*of_web, CTL, "upload", "list").returncode == 0, "this test would not notice"

    state = f"/var/lib/{WEB}"
    for place in ("tokens.json", "access.sqlite", "uploads/uploads.db"):
        assert lab.sh("ls", f"{state}/{place}").returncode == 0, "this test would not notice"
        assert lab.sh(*of_daemon, "cat", f"{state}/{place}", check=False).returncode, place
        assert lab.sh(*of_daemon, "rm", "-f", f"{state}/{place}", check=False).returncode, place
    for place in (state, f"{state}/uploads"):
        assert lab.sh(*of_daemon, "ls", place, check=False).returncode, place
        assert lab.sh(*of_daemon, "touch", f"{place}/x", check=False).returncode, place
    # By its path, as after a restart of the machine: it gets through to what is handed in, and may empty that.
    lab.sh(*of_web, "mkdir", "-m", "770", f"{state}/uploads/two")
    lab.sh(*of_web, "touch", f"{state}/uploads/two/x")
    lab.sh(*of_daemon, "rm", f"{state}/uploads/two/x")
    lab.sh(*of_web, "rmdir", f"{state}/uploads/two")
    for unit, most in ((WEB, 1.2), ("dicomwatchd", 1.5)):
        assert exposure(lab, unit) <= most, unit
    lab.sh("systemctl", "stop", "dicomwatchd", WEB, timeout=120)


def test_an_upload_goes_on_over_restarts_of_either_unit(lab: SystemdLab) -> None:
    """While it comes, is handed in and is archived; one, the other, and both at once; by systemctl and
    by SIGKILL. Nothing is sent twice, it is handed in once, and its sentence is true."""
    put(lab, "etc/dicomwatchd/config.yaml", CONFIG + "bandwidth: {default: 1MB/s}\n")  # so that there is a middle
    for unit in (WEB, "dicomwatchd"):
        put(lab, f"etc/systemd/system/{unit}.service.d/test.conf", "[Service]\nRestartSec=0.2\n")
    lab.sh("systemctl", "daemon-reload")
    lab.sh("systemctl", "start", "dicomwatchd", WEB, timeout=60)
    with tempfile.TemporaryDirectory() as name:
        made = Maker(10, Patient.marked("CANARY^JANE")).ct_series(Path(name), slices=24)
        files = [(f"CT/{one.path.name}", one.path.read_bytes()) for one in made]
    token = lab.sh(CTL, "web", "token", "stick", "--role", "read", "--role", "upload").stdout.strip()
    handed_in = events_of_web(lab, "web-upload-handed-in")
    page = Page(lab, token)
    upload = page.json("POST", "/uploads", b"{}")["upload"]
    sending = Sending(upload, files)

    sending.go_on(page, 8)
    sending.half_a_file(page, 8)
    lab.sh("systemctl", "restart", WEB, timeout=60)
    page = Page(lab, token)
    assert sending.there(page) == 8
    sending.go_on(page, 13)
    kill(lab, WEB)
    page = Page(lab, token)
    assert sending.there(page) == 13
    lab.sh("systemctl", "restart", "--no-block", "dicomwatchd")
    sending.go_on(page, len(files))
    assert sending.sent_bytes == sum(len(data) for _, data in files), "no byte was sent twice"

    page.json("POST", f"/uploads/{upload}/finish", json.dumps({"files": len(files)}).encode())
    lab.sh("systemctl", "restart", WEB, "dicomwatchd", timeout=120)
    page = Page(lab, token)
    for killed in (["dicomwatchd"], [WEB], ["dicomwatchd", WEB]):
        wait_until_it_archives(page, upload)
        kill(lab, *killed)
        page = Page(lab, token)
    lab.sh("systemctl", "stop", "dicomwatchd", timeout=120)
    wait_for(lambda: "does not go on" in page.state(upload)["text"], 60, "the page to tell")
    put(lab, "etc/dicomwatchd/config.yaml", CONFIG)
    lab.sh("systemctl", "start", "dicomwatchd", timeout=60)
    wait_for(lambda: page.state(upload)["ended"], 180, "the upload to end")

    told = " ".join(page.get(f"/uploads/{upload}").split())
    assert "All 24 files are verified in the archive. The local copies were deleted." in told, told
    assert events_of_web(lab, "web-upload-handed-in") == handed_in + 1
    assert sum(one["path"].endswith(f"/{upload}/files") for one in uploads_of_daemon(lab)) == 1
    study = made[0].study_uid
    stored = lab.sh("find", f"/{ARCHIVE}", "-path", f"*{study}*", "-name", "*.dcm").stdout.split()
    assert len(stored) == len(made)
    assert lab.sh("runuser", "-u", "dicomwatchd", "--", CTL, "verify", study, "--deep", timeout=120).returncode == 0
    lab.sh("systemctl", "stop", "dicomwatchd", WEB, timeout=120)
    for unit in (WEB, "dicomwatchd"):
        (lab.root / f"etc/systemd/system/{unit}.service.d/test.conf").unlink()
    lab.sh("systemctl", "daemon-reload")


class Sending:
    """What upload.js does, in parts: ``sent_bytes`` counts every byte that it has sent."""

    def __init__(self, upload: str, files: list[tuple[str, bytes]]) -> None:
        self._upload, self._files, self.sent_bytes = upload, files, 0

    def places(self, page: Page) -> list[dict[str, Any]]:
        said = [
            {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "modified": 1}
            for name, data in self._files
        ]
        answer = page.json("POST", f"/uploads/{self._upload}/files", json.dumps({"files": said}).encode())
        return list(answer["files"])

    def there(self, page: Page) -> int:
        return sum(bool(one["there"]) for one in self.places(page))

    def go_on(self, page: Page, until: int) -> None:
        """From where each stands."""
        for number, one in enumerate(self.places(page)[:until]):
            if not one["there"]:
                self._put(page, one["number"], one["offset"], self._files[number][1][one["offset"] :])

    def half_a_file(self, page: Page, number: int) -> None:
        data = self._files[number][1]
        self._put(page, self.places(page)[number]["number"], 0, data[: len(data) // 2])

    def _put(self, page: Page, number: int, offset: int, piece: bytes) -> None:
        digest = base64.b64encode(hashlib.sha256(piece).digest()).decode()
        place = f"/uploads/{self._upload}/files/{number}?offset={offset}"
        page.json("PUT", place, piece, "-H", f"Content-Digest: sha-256=:{digest}:")
        self.sent_bytes += len(piece)


def kill(lab: SystemdLab, *units: str) -> None:
    """With SIGKILL, all at once; returns when systemd has started them anew."""
    before = {unit: show(lab, "MainPID", unit) for unit in units}
    lab.sh("kill", "-KILL", *before.values())
    wait_for(lambda: all(show(lab, "MainPID", one) not in (before[one], "0") for one in units), 60, "systemd to notice")
    wait_for(lambda: all(show(lab, "ActiveState", one) == "active" for one in units), 120, "the successors")


def wait_until_it_archives(page: Page, upload: str) -> None:
    def is_at_it() -> bool:
        state = page.state(upload)
        assert not state["ended"], "it was to be interrupted before"
        return bool(state["stage"] == "handed in" and state["total"])

    wait_for(is_at_it, 120, "the daemon to be at it")


def events_of_web(lab: SystemdLab, event: str) -> int:
    lab.sh("journalctl", "--sync")
    return lab.sh("journalctl", "-u", WEB, "-o", "json", "--all").stdout.count(f'"DICOMWATCHD_EVENT":"{event}"')


def uploads_of_daemon(lab: SystemdLab) -> list[dict[str, Any]]:
    return list(json.loads(lab.sh(CTL, "upload", "list", "--json").stdout)["uploads"])


class Page:
    """A browser in which somebody has logged in, and what the page's script asks for, from inside the lab, which has a
    loopback of its own."""

    def __init__(self, lab: SystemdLab, token: str) -> None:
        self._lab = lab
        (lab.root / "srv/sent").touch()
        self._asked("/login")
        self._asked("/login", "--data-urlencode", f"token={token}", "--data-urlencode", "next=/uploads")

    def json(self, method: str, path: str, body: bytes, *options: str) -> Any:
        (self._lab.root / "srv/sent").write_bytes(body)
        sent = [] if method == "GET" else ["--data-binary", "@/srv/sent"]
        return json.loads(self._asked(path, "-X", method, "-H", "Accept: application/json", *sent, *options))

    def state(self, upload: str) -> Any:
        return self.json("GET", f"/uploads/{upload}/state", b"")

    def get(self, path: str, kind: str = "text/html") -> str:
        return self._asked(path, "-H", f"Accept: {kind}")

    def _asked(self, path: str, *options: str) -> str:
        known = ["--cookie", "/srv/cookies", "--cookie-jar", "/srv/cookies", "-H", "Sec-Fetch-Site: same-origin"]
        return self._lab.sh("curl", "--silent", "--show-error", "--fail-with-body", *known, *options, URL + path).stdout


def within(lab: SystemdLab, unit: str) -> list[str]:
    """Begins a command that sees and may what the unit's process does."""
    pid = show(lab, "MainPID", unit)
    groups = lab.sh("grep", "^Groups:", f"/proc/{pid}/status").stdout.split()[1:]
    return [
        *("nsenter", "--target", pid, "--mount", "--", "setpriv", "--reuid", unit, "--regid", unit),
        *(("--groups", ",".join(groups)) if groups else ("--clear-groups",)),
        "--bounding-set=-all",
    ]


def exposure(lab: SystemdLab, unit: str) -> float:
    said = lab.sh("systemd-analyze", "security", "--no-pager", f"{unit}.service").stdout
    found = re.search(r"exposure level for \S+: ([0-9.]+)", said)
    assert found is not None, said[-300:]
    return float(found[1])


def test_a_state_elsewhere_needs_nothing_by_hand(lab: SystemdLab) -> None:
    put(lab, "etc/dicomwatchd/config.yaml", CONFIG.replace("tokens: true", "tokens: true, state: /srv/page/state"))
    assert "cannot be made" in lab.sh(FOLDERS).stderr, "what it should lie on is not there"
    lab.sh("install", "-d", "/srv/page")
    assert "made /srv/page/state" in lab.sh(FOLDERS).stdout
    assert "made" not in lab.sh(FOLDERS).stdout
    assert (
        lab.sh("stat", "-c", "%U:%G", "/srv/page/state", "/srv/page/state/uploads").stdout.split()
        == [f"{WEB}:{WEB}"] * 2
    )
    assert lab.sh("stat", "-c", "%a", "/srv/page/state").stdout == "710\n"
    lab.sh("systemctl", "start", WEB)
    token = lab.sh(CTL, "web", "token", "away", "--role", "administrate").stdout.strip()
    assert fetched(lab, "/access", "-H", f"Authorization: Bearer {token}").endswith("200")
    assert lab.sh("ls", "/srv/page/state/access.sqlite", "/srv/page/state/tokens.json").returncode == 0
    of_web = within(lab, WEB)
    assert lab.sh(*of_web, "touch", "/srv/page/state/x").returncode == 0
    assert lab.sh(*of_web, "touch", "/srv/page/x", check=False).returncode
    assert exposure(lab, WEB) <= 1.2
    lab.sh("systemctl", "stop", WEB, timeout=60)
    put(lab, "etc/dicomwatchd/config.yaml", CONFIG)
    lab.sh(FOLDERS)


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
