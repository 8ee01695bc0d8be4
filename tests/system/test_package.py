"""The Debian packages on a clean Debian under a real systemd: installed, upgraded, refused, removed, purged.

First the daemon's alone, as most machines have it; then the page's beside it, through everything that comes after."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.cache import cached_viewer
from tests.conftest import skip_unless_available
from tests.installing import copy_checkout, fetch_wheels
from tests.servers import debian
from tests.servers.systemd import SystemdLab
from tests.synthetic import Made, Maker, Patient
from tests.system.packaged import Packages, build, built_before, needed, relabelled, repacked, substitute

#: Of which the first test has the build in it.
pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
NEXT = "0.99.0"
INBOX, ARCHIVE, STATE = "/srv/dicom/ct1", "/srv/archive", "/var/lib/dicomwatchd"
CONFIG_FILE = "/etc/dicomwatchd/config.yaml"
WEB, WEB_STATE = "dicomwatchd-web", "/var/lib/dicomwatchd-web"
URL = "http://127.0.0.1:8442"
BUSY = "/home/anna/export/busy"

CONFIG = f"""
# as this hospital has it
scan_interval_seconds: 2
workers: 4
inboxes:
  - {{name: ct1, path: {INBOX}, settle_seconds: 0.2, quiet_seconds: 4}}
archive:
  store: {{kind: directory, path: {ARCHIVE}}}
  catalogue: {{kind: sqlite, path: {ARCHIVE}/catalogue.db}}
"""


# --- the packages


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dicomwatchd-package.") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def wheels(scratch: Path) -> Path:
    skip_unless_available("packages")
    return fetch_wheels("/usr/bin/python3", scratch, "web")


@pytest.fixture(scope="module")
def packages(scratch: Path, request: pytest.FixtureRequest) -> Packages:
    """DICOMWATCHD_TEST_PACKAGE names that of the daemon, where both were built before."""
    skip_unless_available("packages")
    if given := os.environ.get("DICOMWATCHD_TEST_PACKAGE"):
        return built_before(Path(given))
    wheels: Path = request.getfixturevalue("wheels")
    return build(ROOT, scratch / "first", wheels, "--uncompressed", SOURCE_DATE_EPOCH="1790000000")


@pytest.fixture(scope="module")
def next_packages(scratch: Path, packages: Packages) -> Packages:
    """Of a version to come, with another sample of a configuration."""

    def change(tree: Path) -> None:
        [version] = tree.glob("usr/lib/dicomwatchd/lib/python3*/site-packages/dicomwatchd/__init__.py")
        substitute(version, r'__version__ = "[^"]+"', f'__version__ = "{NEXT}"')
        with (tree / "usr/share/dicomwatchd/config.yaml").open("a") as sample:
            sample.write("# There is more in the next version.\n")

    (scratch / "next-web").mkdir()
    return Packages(
        repacked(packages.base, scratch / "next", NEXT, change),
        relabelled(packages.web, scratch / "next-web", NEXT),
    )


@pytest.fixture(scope="module")
def older_package(scratch: Path, packages: Packages) -> Path:
    """One whose program knows a step less of the state's tables."""

    def change(scripts: Path) -> None:
        [known] = re.findall(r"(?m)^state_version=(\d+)$", (scripts / "preinst").read_text())
        substitute(scripts / "preinst", r"(?m)^state_version=\d+$", f"state_version={int(known) - 1}")

    (scratch / "older").mkdir()
    return relabelled(packages.base, scratch / "older", "0.0.9", change)


@pytest.fixture(scope="module")
def compressed(scratch: Path, wheels: Path) -> Packages:
    """As they are handed to people."""
    return build(ROOT, scratch / "compressed", wheels, SOURCE_DATE_EPOCH="1790000000")


@pytest.mark.long
def test_the_same_sources_make_the_same_bytes(compressed: Packages, scratch: Path, wheels: Path) -> None:
    """In another folder, at another time, in another place of the world."""
    checkout = copy_checkout(scratch / "a-folder-with-a-longer-name")
    again = build(checkout, scratch / "again", wheels, SOURCE_DATE_EPOCH="1790000000", TZ="Asia/Tokyo", LANG="de_DE")
    for one, other in zip(again, compressed, strict=True):
        assert one.name == other.name
        assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest(), one.name
        listed = subprocess.run(["dpkg-deb", "--contents", one], capture_output=True, text=True, check=True).stdout
        assert {line.split()[1] for line in listed.splitlines()} == {"root/root"}
        assert len({line.split()[3] for line in listed.splitlines()}) == 1, "times of its own"
        assert str(scratch) not in listed and "__pycache__" not in listed


@pytest.mark.long
def test_lintian_finds_nothing(compressed: Packages) -> None:
    done = subprocess.run(
        ["lintian", "--fail-on", "error,warning", "--allow-root", "--tag-display-limit", "0", *compressed],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- a clean Debian


@pytest.fixture(scope="module")
def lab(scratch: Path, packages: Packages, next_packages: Packages, older_package: Path) -> Iterator[SystemdLab]:
    """With what the packages depend on, and nothing else; without a network."""
    skip_unless_available("systemd")
    lower = debian.unpack(debian.clean_root(needed(packages)), scratch / "root")
    # Below the lab, whose own layer is in memory.
    source = lower / "src"
    source.mkdir()
    given = {"this": packages.base, "this-web": packages.web, "next": next_packages.base, "next-web": next_packages.web}
    for name, path in {**given, "older": older_package}.items():
        shutil.copy(path, source / f"{name}.deb")
    for name in ("scripts", "systemd", "etc"):
        shutil.copytree(ROOT / name, source / "dicomwatchd" / name)
    shutil.copytree(cached_viewer().parent / "packages", source / "viewer")
    with (
        tempfile.TemporaryDirectory(prefix="dicomwatchd-lab.") as directory,
        SystemdLab(Path(directory) / "lab", lower=lower) as running,
    ):
        yield running


def dpkg(lab: SystemdLab, *arguments: str, fails: bool = False) -> str:
    done = lab.sh("dpkg", *arguments, check=False, timeout=240)
    said = done.stdout + done.stderr
    assert (done.returncode != 0) == fails, said
    return said


def status_of(lab: SystemdLab, package: str = "dicomwatchd") -> str:
    """As in `ii 0.1.0-1`."""
    wanted = ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}${Version}", package]
    return lab.sh(*wanted, check=False).stdout


def show(lab: SystemdLab, name: str, unit: str = "dicomwatchd") -> str:
    return lab.sh("systemctl", "show", "--value", "--property", name, unit).stdout.strip()


def ctl(lab: SystemdLab, *arguments: str, user: str = "dicomwatchd", check: bool = True) -> str:
    done = lab.sh("runuser", "-u", user, "--", "dicomwatchctl", *arguments, check=check)
    return done.stdout + done.stderr


def hashes(lab: SystemdLab, *folders: str) -> str:
    found = lab.sh("find", *folders, "-type", "f", "-exec", "sha256sum", "{}", "+").stdout
    return "\n".join(sorted(found.splitlines()))


def wait_for(condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds} s: {what()}"
        time.sleep(0.1)


def make_study(lab: SystemdLab, target: str, seed: int, owner: str) -> list[Made]:
    maker = Maker(seed, Patient.marked("CANARY^JANE"))
    with tempfile.TemporaryDirectory() as name:
        made = maker.ct_series(Path(name) / f"study-{seed}", slices=4, rows=64, columns=64)
        shutil.copytree(name, lab.root / target.strip("/"), dirs_exist_ok=True)
    lab.sh("chown", "-R", owner, target)
    return made


def wait_until_archived(lab: SystemdLab, files: list[Made]) -> None:
    wanted = {f"{made.sha256}.dcm" for made in files}

    def held() -> bool:
        return wanted <= set(lab.sh("find", ARCHIVE, "-name", "*.dcm", "-printf", "%f\n").stdout.split())

    wait_for(held, 120, lambda: lab.sh("journalctl", "-u", "dicomwatchd", "-o", "cat", "-n", "40").stdout)


def wait_until_deleted(lab: SystemdLab) -> None:
    def left() -> str:
        # What goes while find looks is an error to it: it has to look again.
        found = lab.sh("find", INBOX, "-type", "f", "!", "-name", "notes.txt", check=False)
        return found.stdout + found.stderr

    wait_for(lambda: not left(), 120, left)


def test_it_refuses_a_machine_that_the_script_has_installed(lab: SystemdLab) -> None:
    unit = lab.root / "etc/systemd/system/dicomwatchd.service"
    unit.write_text((ROOT / "systemd/dicomwatchd.service").read_text())
    for package in ("this", "this-web"):
        said = dpkg(lab, "--install", f"/src/{package}.deb", fails=True)
        assert "scripts/install --uninstall" in said
    assert not (lab.root / "usr/lib/dicomwatchd/bin").exists()
    assert not (lab.root / "usr/lib/dicomwatchd-web/bin").exists()
    unit.unlink()


def test_a_clean_debian_has_all_that_it_needs_and_nothing_is_started(lab: SystemdLab) -> None:
    said = dpkg(lab, "--install", "/src/this.deb")
    assert "not started yet" in said
    assert status_of(lab).startswith("ii ")
    for unit in ("dicomwatchd", "dicomwatchd-receiver"):
        assert (show(lab, "ActiveState", unit), show(lab, "UnitFileState", unit)) == ("inactive", "disabled")
        assert lab.sh("systemd-analyze", "verify", "--man=no", f"{unit}.service").stderr == ""
        assert lab.sh("systemctl", "preset", unit).returncode == 0
        assert show(lab, "UnitFileState", unit) == "disabled", "a first boot would enable it"
    assert not (lab.root / CONFIG_FILE.strip("/")).exists(), "setup never changes one that is there"
    assert (lab.root / "usr/share/dicomwatchd/config.yaml").read_text() == (ROOT / "etc/config.yaml").read_text()
    assert lab.sh("stat", "-c", "%U:%G %a", STATE).stdout == "dicomwatchd:dicomwatchd 750\n"
    assert lab.sh("getent", "passwd", "dicomwatchd").stdout.strip().endswith(f":{STATE}:/usr/sbin/nologin")
    assert lab.sh("getent", "passwd", "dicomwatchd-receiver").stdout.strip().endswith(":/nonexistent:/usr/sbin/nologin")
    check_program(lab, "dicomwatchd")
    imports = "import systemd.journal, boto3, pycurl, pydantic, pydicom, pynetdicom, psutil, yaml, watchdog, pycdlib"
    lab.sh("runuser", "-u", "dicomwatchd", "--", "/usr/lib/dicomwatchd/bin/python", "-Ic", imports)
    only_ours = "import sys; sys.exit(any('dist-packages' in path for path in sys.path))"
    lab.sh("/usr/lib/dicomwatchd/bin/python", "-Ic", only_ours)
    first_steps = (lab.root / "usr/share/doc/dicomwatchd/README.Debian").read_text()
    assert "dicomwatchctl setup" in first_steps and "/usr/share/dicomwatchd/config.yaml" in first_steps
    assert "config.yaml.sample" not in first_steps


def check_program(lab: SystemdLab, package: str) -> None:
    """Nobody but root may change it, it has every library that it wants, and it is what dpkg has unpacked."""
    folder = f"/usr/lib/{package}"
    assert lab.sh("find", folder, "(", "!", "-user", "root", "-o", "-perm", "/022", ")", "!", "-type", "l").stdout == ""
    every = f"find {folder} -name '*.so*' -exec ldd {{}} + 2>&1 | grep 'not found' || true"
    assert lab.sh("sh", "-c", every).stdout == ""
    assert lab.sh("dpkg", "--verify", package).stdout == ""


def test_the_script_refuses_a_machine_with_the_package(lab: SystemdLab) -> None:
    for arguments in ([], ["--uninstall"]):
        done = lab.sh("/src/dicomwatchd/scripts/install", *arguments, check=False)
        assert (done.returncode, "the Debian package dicomwatchd is installed" in done.stderr) == (1, True), done.stderr
    assert show(lab, "LoadState") == "loaded"


@pytest.fixture(scope="module")
def service(lab: SystemdLab) -> SystemdLab:
    """The package's service at work, with an archive in a folder; and a user who may hand in folders."""
    (lab.root / CONFIG_FILE.strip("/")).write_text(CONFIG)
    lab.sh("useradd", "--system", "--user-group", "modality")
    lab.sh("useradd", "--create-home", "--groups", "dicomwatchd", "anna")
    lab.sh("chmod", "0700", "/home/anna")
    lab.sh("install", "-d", "-o", "modality", "-g", "dicomwatchd", "-m", "2770", INBOX)
    lab.sh("install", "-d", "-o", "dicomwatchd", "-g", "dicomwatchd", "-m", "0750", ARCHIVE)
    lab.sh("dicomwatchctl", "config", "check")
    lab.sh("dicomwatchd-folders")
    ctl(lab, "archive", "init")
    lab.sh("systemctl", "enable", "--now", "dicomwatchd")
    (lab.root / INBOX.strip("/") / "notes.txt").write_text("no image, and nobody's to delete")
    return lab


def test_a_study_is_archived_and_its_originals_deleted(service: SystemdLab) -> None:
    made = drop(service, 1)
    wait_until_archived(service, made)
    wait_until_deleted(service)
    service.sh("journalctl", "--sync")
    told = service.sh("journalctl", "-u", "dicomwatchd", "-o", "json", "--all").stdout
    assert '"DICOMWATCHD_EVENT":"study-archived"' in told, "not as structured fields"


def test_the_page_is_a_package_of_its_own_and_starts_nothing(service: SystemdLab) -> None:
    pid = show(service, "MainPID")
    said = dpkg(service, "--install", "/src/this-web.deb")
    assert "not started yet" in said and status_of(service, WEB).startswith("ii ")
    assert (show(service, "ActiveState", WEB), show(service, "UnitFileState", WEB)) == ("inactive", "disabled")
    assert service.sh("systemctl", "preset", WEB).returncode == 0
    assert show(service, "UnitFileState", WEB) == "disabled", "a first boot would enable it"
    assert service.sh("systemd-analyze", "verify", "--man=no", f"{WEB}.service").stderr == ""
    assert service.sh("stat", "-c", "%U:%G %a", WEB_STATE).stdout == f"{WEB}:{WEB} 700\n"
    assert service.sh("getent", "passwd", WEB).stdout.strip().endswith(f":{WEB_STATE}:/usr/sbin/nologin")
    check_program(service, WEB)
    imports = "import authlib, httpx, jinja2, multipart, numpy, PIL.Image, jpeg_ls, openjpeg, starlette, uvicorn"
    service.sh(
        "runuser", "-u", WEB, "--", f"/usr/lib/{WEB}/bin/python", "-Ic", f"{imports}, dicomwatchd, systemd.journal"
    )
    for name in ("numpy", "starlette"):
        found = service.sh("/usr/lib/dicomwatchd/bin/python", "-Ic", f"import {name}", check=False)
        assert "ModuleNotFoundError" in found.stderr, "the daemon would load it"
    assert show(service, "MainPID") == pid, "the daemon has nothing to do with it"
    steps = (service.root / f"usr/share/doc/{WEB}/README.Debian").read_text()
    assert "dicomwatchd-viewer\n" in steps and "systemctl enable --now dicomwatchd-web" in steps


def test_the_page_shows_what_was_archived(service: SystemdLab) -> None:
    """By what README.Debian says and nothing else. Without a configuration of its own it does not start."""
    assert service.sh("dicomwatchd-web", check=False).returncode == 2
    service.sh("setfacl", "-R", "-m", f"u:{WEB}:rX", "-m", f"d:u:{WEB}:rX", ARCHIVE)
    # The machine has no npm and no network.
    refused = service.sh("dicomwatchd-viewer", check=False)
    assert refused.returncode == 1 and "--packages DIR" in refused.stderr
    service.sh("dicomwatchd-viewer", "--packages", "/src/viewer", timeout=240)
    (service.root / CONFIG_FILE.strip("/")).write_text(CONFIG + "web: {tokens: true}\n")
    service.sh("dicomwatchd-folders")
    service.sh("systemctl", "restart", "dicomwatchd", timeout=120)
    service.sh("systemctl", "enable", "--now", WEB, timeout=120)
    assert show(service, "ActiveState", WEB) == "active"
    token = service.sh("dicomwatchctl", "web", "token", "desk", "--role", "read").stdout.strip()
    (service.root / "run/token").write_text(token)
    assert asked(service, "/health") == "ok\n"
    assert asked(service, "/dicom-web/studies", token="nobody's") == "401"
    assert "OHIF" in asked(service, "/viewer?StudyInstanceUIDs=1.2.3"), "the viewer is not found by its link"
    check_page(service, 1)


def check_page(lab: SystemdLab, *seeds: int) -> None:
    """Whoever has the token of before finds these studies."""
    found = json.loads(asked(lab, "/dicom-web/studies"))
    uids = {study["0020000D"]["Value"][0] for study in found}
    assert {Maker(seed, Patient.marked("CANARY^JANE")).study_uid(0) for seed in seeds} <= uids


def asked(lab: SystemdLab, path: str, token: str | None = None) -> str:
    """What the page answers, from inside the lab, which has a loopback of its own; the status if it is not 200."""
    program = """
import sys, httpx
headers = {"Authorization": f"Bearer {sys.argv[2]}", "Accept": "text/html, application/dicom+json;q=0.9, */*;q=0.8"}
answer = httpx.get(sys.argv[1], headers=headers, timeout=60)
print(answer.text if answer.status_code == 200 else answer.status_code, end="")"""
    token = (lab.root / "run/token").read_text() if token is None else token
    return lab.sh(f"/usr/lib/{WEB}/bin/python", "-Ic", program, URL + path, token, timeout=120).stdout


def drop(lab: SystemdLab, seed: int) -> list[Made]:
    made = make_study(lab, f"/srv/export-{seed}", seed, "modality:dicomwatchd")
    lab.sh("chmod", "-R", "g+rwX", f"/srv/export-{seed}")
    lab.sh("mv", f"/srv/export-{seed}", f"{INBOX}/study-{seed}")
    return made


def test_an_upgrade_keeps_the_configuration_and_what_is_on_its_way(service: SystemdLab) -> None:
    """A study that is not quiet yet, and a folder in a home that the daemon reaches by an open descriptor alone."""
    handed_in = make_study(service, "/home/anna/export", 2, "anna:anna")
    service.sh("chmod", "-R", "u=rwX,go=rX", "/home/anna/export")
    # Held open, so that the upload does not come to its end before the upgrade.
    service.sh("sh", "-c", f"sleep 120 >>{BUSY} 2>/dev/null </dev/null & echo $! >/run/busy.pid")
    service.sh("sh", "-c", f"head -c 200 /dev/zero >>{BUSY}; chown anna {BUSY}; chmod 0644 {BUSY}")
    ctl(service, "upload", "/home/anna/export", "--no-wait", user="anna", check=False)
    wait_for(lambda: show(service, "NFileDescriptorStore") == "1", 60, lambda: "systemd does not keep the folder")
    dropped = drop(service, 3)
    before, config = show(service, "MainPID"), hashes(service, "/etc/dicomwatchd")
    web_before, web_mode = show(service, "MainPID", WEB), state_of_web(service)

    alone = dpkg(service, "--install", "/src/next.deb", fails=True)
    assert "breaks dicomwatchd-web" in alone and show(service, "MainPID") == before, "two versions in one process"
    dpkg(service, "--install", "/src/next-web.deb", "/src/next.deb")
    assert NEXT in status_of(service) and NEXT in status_of(service, WEB)
    assert NEXT in ctl(service, "--version")
    assert hashes(service, "/etc/dicomwatchd") == config
    assert "the next version" in (service.root / "usr/share/dicomwatchd/config.yaml").read_text()
    assert (show(service, "ActiveState"), show(service, "UnitFileState")) == ("active", "enabled")
    assert show(service, "MainPID") not in ("0", before)
    assert show(service, "ActiveState", "dicomwatchd-receiver") == "inactive", "it did not run before"
    assert show(service, "NFileDescriptorStore") == "1", "the folder is no longer open"
    assert show(service, "FileDescriptorStorePreserve") == "restart"
    assert not (service.root / "run/dicomwatchd.upgrade").exists()
    assert (show(service, "ActiveState", WEB), show(service, "UnitFileState", WEB)) == ("active", "enabled")
    assert show(service, "MainPID", WEB) not in ("0", web_before)
    assert state_of_web(service) == web_mode
    assert not (service.root / "run/dicomwatchd-web.upgrade").exists()
    check_page(service, 1)
    assert "OHIF" in asked(service, "/viewer?StudyInstanceUIDs=1.2.3")

    service.sh("sh", "-c", f"kill $(cat /run/busy.pid); rm {BUSY}")
    said = ctl(service, "upload", "/home/anna/export", user="anna", check=False)
    assert "All 4 files" in said or "4 of" in said, said
    wait_until_archived(service, handed_in)
    wait_until_archived(service, dropped)
    wait_until_deleted(service)
    check_page(service, 1, 2, 3)


def state_of_web(lab: SystemdLab) -> str:
    """Mode and ACL: with another mask the daemon would not reach what is handed in."""
    return lab.sh("getfacl", "--absolute-names", WEB_STATE, f"{WEB_STATE}/uploads").stdout


def test_an_older_version_that_cannot_read_the_state_is_refused_and_the_daemon_goes_on(service: SystemdLab) -> None:
    said = dpkg(service, "--force-breaks", "--install", "/src/older.deb", fails=True)
    assert "was written by a newer version" in said and "Nothing was changed" in said
    assert status_of(service).startswith("ii ") and NEXT in status_of(service)
    assert (show(service, "ActiveState"), show(service, "ActiveState", WEB)) == ("active", "active")
    wait_until_archived(service, drop(service, 4))


def test_what_does_not_run_is_not_started_and_a_downgrade_that_knows_the_state_goes(service: SystemdLab) -> None:
    wait_until_deleted(service)
    service.sh("systemctl", "stop", "dicomwatchd")
    state = hashes(service, STATE)
    # As apt does it, which may take the first before the other.
    dpkg(service, "--auto-deconfigure", "--install", "/src/this.deb", "/src/this-web.deb")
    assert NEXT not in status_of(service) and NEXT not in status_of(service, WEB)
    assert status_of(service, WEB).startswith("ii ")
    assert show(service, "ActiveState", WEB) == "active", "it did run"
    check_page(service, 1, 2, 3)
    assert (show(service, "ActiveState"), show(service, "UnitFileState")) == ("inactive", "enabled")
    assert hashes(service, STATE) == state
    service.sh("systemctl", "start", "dicomwatchd")


def test_removing_stops_it_and_keeps_what_is_not_the_program_s(service: SystemdLab) -> None:
    config = hashes(service, "/etc/dicomwatchd")
    assert "dicomwatchd-web depends on dicomwatchd" in dpkg(service, "--remove", "dicomwatchd", fails=True)
    dpkg(service, "--remove", WEB)
    assert (show(service, "LoadState", WEB), show(service, "ActiveState")) == ("not-found", "active")
    assert not os.path.lexists(service.root / "usr/lib/dicomwatchd-web")
    # While the page had the catalogue open, a stop of the daemon left SQLite's log beside it: the next one moves it in.
    service.sh("systemctl", "restart", "dicomwatchd", timeout=120)
    kept = hashes(service, "/etc/dicomwatchd", INBOX, ARCHIVE)
    assert set(config.splitlines()) <= set(kept.splitlines())
    dpkg(service, "--remove", "dicomwatchd")
    assert status_of(service).startswith("rc ")
    assert hashes(service, "/etc/dicomwatchd", INBOX, ARCHIVE) == kept
    assert show(service, "LoadState") == "not-found"
    for path in ("usr/lib/dicomwatchd", "usr/bin/dicomwatchctl", "usr/share/dicomwatchd", "run/dicomwatchd.upgrade"):
        assert not os.path.lexists(service.root / path), path
    assert (service.root / STATE.strip("/") / "state.db").exists()


def test_purging_takes_the_configuration_and_never_the_proof(service: SystemdLab) -> None:
    (service.root / "etc/dicomwatchd/ca.pem").write_text("of the administrator")
    (service.root / "etc/dicomwatchd/aws.credentials").write_text("[default]\n")
    kept = hashes(service, STATE, INBOX, ARCHIVE)
    assert f"{STATE}/state.db" in kept and f"{INBOX}/notes.txt" in kept and f"{ARCHIVE}/archive.json" in kept
    (service.root / "etc/dicomwatchd/web.credentials").write_text("[default]\n")
    accesses = hashes(service, WEB_STATE)
    assert f"{WEB_STATE}/access.sqlite" in accesses and f"{WEB_STATE}/tokens.json" in accesses
    said = dpkg(service, "--purge", WEB)
    assert f"kept: {WEB_STATE}, with the record of access" in said
    remaining = [line for line in accesses.splitlines() if not line.endswith("tokens.json")]
    assert hashes(service, WEB_STATE).splitlines() == remaining
    assert not (service.root / "var/lib/dicomwatchd-viewer").exists()
    assert service.sh("getent", "passwd", WEB).stdout
    assert (service.root / CONFIG_FILE.strip("/")).exists(), "that is the daemon's"
    said = dpkg(service, "--purge", "dicomwatchd")
    assert f"kept: {STATE}, with the queue and the record of deletions" in said
    assert "kept: what else is in /etc/dicomwatchd" in said
    assert hashes(service, STATE, INBOX, ARCHIVE) == kept
    left = service.sh("find", "/etc", "-name", "*dicomwatchd*", "-o", "-path", "/etc/dicomwatchd/*").stdout.split()
    assert sorted(left) == ["/etc/dicomwatchd", "/etc/dicomwatchd/ca.pem"]
    assert service.sh("getent", "passwd", "dicomwatchd").stdout
    assert not service.sh("find", "/var/lib/dpkg/info", "-name", "dicomwatchd*.*").stdout


def test_a_new_installation_goes_on_with_what_was_kept(service: SystemdLab) -> None:
    dpkg(service, "--install", "/src/this.deb")
    assert not (service.root / CONFIG_FILE.strip("/")).exists()
    (service.root / CONFIG_FILE.strip("/")).write_text(CONFIG)
    service.sh("dicomwatchd-folders")
    service.sh("systemctl", "start", "dicomwatchd")
    made = drop(service, 5)
    wait_until_archived(service, made)
    earlier = Maker(1, Patient.marked("CANARY^JANE")).study_uid(0)
    assert "No deleted file" not in ctl(service, "prove", earlier)  # which ends with 1 then
