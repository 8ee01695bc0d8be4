"""The service as it is installed: scripts/install, the unit's sandbox, and one study's journey under a real systemd."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import schemas
from tests.conftest import skip_unless_available
from tests.installing import copy_checkout, fetch_wheels
from tests.servers.systemd import SystemdLab
from tests.synthetic import Made, Maker, Patient

ROOT = Path(__file__).parents[2]
CANARY = "CANARY^JANE"
CTL = "/usr/local/bin/dicomwatchctl"
FOLDERS = "/usr/local/sbin/dicomwatchd-folders"
INBOX = "srv/dicom/ct 1 100%"  # a blank and a percent sign, which systemd's syntax takes for something else
SECOND_INBOX = "srv/dicom/mr1"
ARCHIVE = "srv/archive"

CONFIG = f"""
scan_interval_seconds: 2
log_level: DEBUG
workers: 4
metrics: {{listen: "127.0.0.1:9187"}}
inboxes:
  - {{name: ct1, path: "/{INBOX}", settle_seconds: 0.2, quiet_seconds: 1}}
archive:
  store: {{kind: directory, path: /{ARCHIVE}}}
  catalogue: {{kind: sqlite, path: /{ARCHIVE}/catalogue.db}}
"""

#: Any user of the machine may ask, in this case one who may do nothing else.
FIGURES = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:9187/metrics').read().decode())"

#: For a test there is less time than for a hospital. The modality's group is the documented way to its files.
TEST_DROP_IN = """
[Service]
SupplementaryGroups=dicom
WatchdogSec=3
RestartSec=0.2
"""


# --- a lab in which scripts/install has run, without a network


@pytest.fixture(scope="module")
def wheels() -> Iterator[Path]:
    """Every file that scripts/install asks pip for, for the Python that it will choose."""
    skip_unless_available("systemd")
    with tempfile.TemporaryDirectory(prefix="dicomwatchd-wheels.") as name:
        folder = Path(name)
        script = f'. "{ROOT}/scripts/lib.sh"; find_service_python'
        python = subprocess.run(["bash", "-c", script], capture_output=True, text=True).stdout.strip()
        if not python:
            pytest.skip("no Python >= 3.11 outside of home folders; scripts/setup-test-machine installs Debian's")
        yield fetch_wheels(python, folder)


@pytest.fixture(scope="module")
def lab(wheels: Path) -> Iterator[SystemdLab]:
    def prepare(root: Path) -> None:
        copy_checkout(root / "src/dicomwatchd")
        shutil.copytree(wheels, root / "src/wheels")
        for leftover in ("etc/dicomwatchd", "opt/dicomwatchd", "var/lib/dicomwatchd"):
            shutil.rmtree(root / leftover, ignore_errors=True)

    with (
        tempfile.TemporaryDirectory(prefix="dicomwatchd-lab.") as directory,
        SystemdLab(Path(directory) / "lab", prepare=prepare) as running,
    ):
        running.sh("useradd", "--system", "--user-group", "modality")
        running.sh("groupadd", "--system", "dicom")
        running.sh("usermod", "--append", "--groups", "dicom", "modality")
        install(running)
        assert not (running.root / "etc/dicomwatchd/config.yaml").exists(), "it is dicomwatchctl setup that writes one"
        running.sh("cp", "/etc/dicomwatchd/config.yaml.sample", "/etc/dicomwatchd/config.yaml")
        running.sh(FOLDERS)
        yield running


def install(lab: SystemdLab, *arguments: str) -> str:
    pip = ["PIP_NO_INDEX=1", "PIP_FIND_LINKS=/src/wheels"]
    done = lab.sh("env", *pip, "/src/dicomwatchd/scripts/install", *arguments, timeout=240)
    return done.stdout + done.stderr


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def show(lab: SystemdLab, name: str, unit: str = "dicomwatchd") -> str:
    return lab.sh("systemctl", "show", "--value", "--property", name, unit).stdout.strip()


def entries(lab: SystemdLab, event: str | None = None) -> list[dict[str, Any]]:
    lab.sh("journalctl", "--sync")
    lines = lab.sh("journalctl", "-u", "dicomwatchd", "-o", "json", "--all").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    return [entry for entry in found if event is None or entry.get("DICOMWATCHD_EVENT") == event]


def put(lab: SystemdLab, path: str, text: str) -> None:
    target = lab.root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


# --- the installation


def test_the_installation_is_what_it_says_and_starts_nothing(lab: SystemdLab) -> None:
    assert show(lab, "ActiveState") == "inactive"
    assert show(lab, "UnitFileState") == "disabled"
    assert lab.sh("systemd-analyze", "verify", "--man=no", "dicomwatchd.service").stderr == ""
    assert lab.sh(CTL, "--help").stdout.startswith("Usage: dicomwatchctl")
    checked = lab.sh(CTL, "config", "check", check=False)
    assert (checked.returncode, "inboxes[0].path: is not a folder" in checked.stderr) == (2, True)
    assert lab.sh("stat", "-c", "%U %a", "/var/lib/dicomwatchd").stdout == "dicomwatchd 750\n"
    assert lab.sh("getent", "passwd", "dicomwatchd").stdout.strip().endswith(":/var/lib/dicomwatchd:/usr/sbin/nologin")
    # what the service runs belongs to root, and everybody may read it
    special = lab.sh(
        "find", "/opt/dicomwatchd", "(", "!", "-user", "root", "-o", "-perm", "/022", ")", "!", "-type", "l"
    )
    assert special.stdout == ""
    lab.sh("runuser", "-u", "dicomwatchd", "--", "/opt/dicomwatchd/bin/python", "-c", "import systemd.journal, boto3")
    assert 'ReadWritePaths="-/srv/dicom/ct1"' in lab.sh("systemctl", "cat", "dicomwatchd").stdout


def test_a_second_installation_changes_nothing_of_ours(lab: SystemdLab) -> None:
    config = lab.root / "etc/dicomwatchd/config.yaml"
    config.write_text(config.read_text() + "# mine\n")
    said = install(lab)
    assert "leaving /etc/dicomwatchd/config.yaml unchanged" in said
    assert "virtual environment" not in said
    assert config.read_text().endswith("# mine\n")
    assert lab.sh(CTL, "--help").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--prefix", "/root/x"], "cannot read home folders"),
        (["--prefix", "relative"], "absolute path"),
        (["--prefix", "/opt/a b"], "absolute path"),
        (["--prefix", "/usr"], "was not created by this script"),
    ],
)
def test_a_prefix_that_cannot_be_is_refused(arguments: list[str], reason: str, lab: SystemdLab) -> None:
    done = lab.sh("/src/dicomwatchd/scripts/install", *arguments, check=False)
    assert done.returncode == 1
    assert reason in done.stderr


# --- the sandbox


PROBE = r"""
import ctypes, fcntl, json, os, resource, socket, sqlite3, sys
import boto3, psutil, pydicom, pydantic, watchdog.observers, systemd.journal, sdnotify

def attempt(action):
    try:
        return action() or "yes"
    except OSError as error:
        return os.strerror(error.errno)

def lease(path):
    fd = os.open(path, os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)

def write(path):
    with open(path, "w") as file:
        file.write("x")

def watch(path):
    observer = watchdog.observers.Observer()
    observer.schedule(watchdog.events.FileSystemEventHandler(), path, recursive=True)
    observer.start(); observer.stop(); observer.join()

def unshare():
    new_user = 0x10000000
    if ctypes.CDLL(None, use_errno=True).unshare(new_user):
        raise OSError(ctypes.get_errno(), "")

connection = sqlite3.connect("/var/lib/dicomwatchd/probe.db")
connection.execute("PRAGMA journal_mode=WAL")
client = boto3.client("s3", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
inbox = sys.argv[1]
elsewhere = ["/srv/dicom/mr1", "/media", "/etc", "/opt/dicomwatchd"]
theirs = inbox + "/theirs"
print(json.dumps({
    "user": os.geteuid() != 0,
    "lease on a file of another user's": attempt(lambda: lease(theirs)),
    "delete a file of another user's": attempt(lambda: os.unlink(inbox + "/theirs2")),
    "rename in the inbox": attempt(lambda: os.rename(theirs, inbox + "/renamed")),
    "watch": attempt(lambda: watch(inbox)),
    "resolve a name": bool(socket.getaddrinfo("localhost", 443)),
    "write elsewhere": [attempt(lambda: write(path + "/x")) for path in elsewhere],
    "write state": attempt(lambda: write("/var/lib/dicomwatchd/x")),
    "read a CD": attempt(lambda: os.listdir("/media")) == ["cd"] and open("/media/cd/IM1").read(),
    "homes": attempt(lambda: os.listdir("/root")),
    "memory": psutil.virtual_memory().total > 0 and psutil.Process().memory_info().rss > 0,
    "cpu": psutil.cpu_percent() >= 0 and psutil.Process().cpu_times().user > 0,
    "others": [p.pid for p in psutil.process_iter() if p.pid != os.getpid()],
    "raw socket": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "new namespace": attempt(unshare),
    "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")],
    "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
}))
"""


PROBED = "/srv/dicom/probe"


@pytest.fixture
def probed(lab: SystemdLab) -> Iterator[SystemdLab]:
    """An inbox of a modality's on a file system of its own, and a CD."""
    lab.sh("mkdir", "-p", PROBED, "/srv/dicom/mr1", "/media/cd")
    lab.sh("sh", "-c", f"mount -t tmpfs probe {PROBED} && echo x >{PROBED}/theirs && echo x >{PROBED}/theirs2")
    lab.sh("sh", "-c", f"chown -R modality:dicom {PROBED}; chmod 2770 {PROBED}; chmod 0660 {PROBED}/*")
    lab.sh("sh", "-c", "echo cd >/media/cd/IM1")
    lab.sh("chmod", "0777", "/srv/dicom/mr1")  # it is the sandbox that has to refuse
    yield lab
    lab.sh("umount", PROBED)


def probe(lab: SystemdLab, more: str = "", program: str = PROBE) -> dict[str, Any]:
    """What the program above, or another, finds under the unit's own lines, followed by those in ``more``."""
    put(lab, "usr/local/lib/probe.py", program)
    unit = (ROOT / "systemd/dicomwatchd.service").read_text()
    unit = re.sub(r"(?m)^ExecStart=.*", f"ExecStart=/opt/dicomwatchd/bin/python /usr/local/lib/probe.py {PROBED}", unit)
    unit = re.sub(r"(?m)^(Type|Restart|WatchdogSec)=.*", "", unit).replace("[Service]", "[Service]\nType=oneshot")
    put(lab, "etc/systemd/system/probe.service", unit)
    settings = [
        "SupplementaryGroups=dicom",
        f"ReadWritePaths={PROBED}",
        "StandardOutput=truncate:/run/probe.json",
        "StandardError=journal",  # where watchdog may say that its thread has ended
        more,
    ]
    put(lab, "etc/systemd/system/probe.service.d/test.conf", "\n".join(["[Service]", *settings, ""]))
    lab.sh("systemctl", "daemon-reload")
    done = lab.sh("systemctl", "start", "probe", check=False)
    assert done.returncode == 0, lab.sh("journalctl", "-u", "probe", "-o", "cat").stdout
    found = json.loads((lab.root / "run/probe.json").read_text())
    assert isinstance(found, dict)
    return found


def test_the_sandbox_lets_the_daemon_work_and_nothing_else(probed: SystemdLab) -> None:
    assert probe(probed) == {
        "user": True,
        "lease on a file of another user's": "yes",
        "delete a file of another user's": "yes",
        "rename in the inbox": "yes",
        "watch": "yes",
        "resolve a name": True,
        "write elsewhere": ["Read-only file system"] * 4,
        "write state": "yes",
        "read a CD": "cd\n",
        "homes": "Permission denied",
        "memory": True,
        "cpu": True,
        "others": [],
        "raw socket": "Address family not supported by protocol",
        "new namespace": "Operation not permitted",
        "capabilities": ["0000000010000000"],
        "core": 1,
    }


@pytest.mark.parametrize("more", ["PrivateUsers=yes", "AmbientCapabilities=\nCapabilityBoundingSet="])
def test_why_the_unit_has_cap_lease_and_no_private_users(more: str, probed: SystemdLab) -> None:
    assert probe(probed, more)["lease on a file of another user's"] == "Permission denied"


# --- keys and addresses, with a server at one address and at another

STORE, FORMER, LATER = "store.hospital.test", "10.77.0.1", "10.77.0.2"
KEY_ID, KEY = "AKIAHOSPITAL", "hidden-key-of-the-hospital"
S3_CONFIG = f"""
inboxes:
  - {{name: mr1, path: "/{SECOND_INBOX}"}}
archive:
  store: {{kind: s3, bucket: archive, region: x, endpoint_url: "http://{STORE}:7480", insecure_http: true}}
  catalogue: {{kind: sqlite, path: /var/lib/dicomwatchd/catalogue.db}}
"""
REACHING = f"""
import json, os, socket
from dicomwatchd.archive.aws.clients import new_session

def attempt(action):
    try:
        return action() and "yes"
    except OSError as error:
        return type(error).__name__

found = new_session().get_credentials()
print(json.dumps({{
    "key": [found.access_key, found.secret_key],
    "in the environment": "{KEY}" in open("/proc/self/environ").read(),
    "the file itself": attempt(lambda: open("/etc/dicomwatchd/aws.credentials").read()),
    "reached": [attempt(lambda: socket.create_connection((host, 7480), 1))
                for host in ("{STORE}", "{FORMER}", "{LATER}", "127.0.0.1")],
}}))
"""


@pytest.fixture
def hospital(probed: SystemdLab) -> Iterator[SystemdLab]:
    """A server that answers, though not as a store does, and the service's configuration for it."""
    lab = probed
    for address in (FORMER, LATER):
        lab.sh("ip", "address", "replace", f"{address}/32", "dev", "lo")
    lab.sh(
        "systemd-run", "--collect", "--unit=server", "python3", "-m", "http.server", "7480", "--directory", "/var/empty"
    )
    kept = {name: (lab.root / name).read_text() for name in ("etc/hosts", "etc/dicomwatchd/config.yaml")}
    put(lab, "etc/hosts", f"127.0.0.1 localhost\n{FORMER} {STORE}\n")
    put(lab, "etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    put(lab, "etc/dicomwatchd/config.yaml", S3_CONFIG)
    put(lab, "etc/dicomwatchd/aws.credentials", f"[default]\naws_access_key_id={KEY_ID}\naws_secret_access_key={KEY}\n")
    (lab.root / "etc/dicomwatchd/aws.credentials").chmod(0o600)
    yield lab
    lab.sh("systemctl", "stop", "server", "dicomwatchd")
    lab.sh("rm", "/etc/dicomwatchd/aws.credentials")
    for name, text in kept.items():
        put(lab, name, text)
    lab.sh(FOLDERS, check=False)


def test_the_daemon_has_its_keys_and_reaches_its_store_and_nothing_else(hospital: SystemdLab) -> None:
    said = hospital.sh(FOLDERS).stdout
    assert f"may connect to 127.0.0.0/8 ::1/128 {FORMER}: " in said
    drop_in = (hospital.root / "etc/systemd/system/dicomwatchd.service.d/folders.conf").read_text()
    lines = "\n".join(line for line in drop_in.splitlines() if not line.startswith("["))
    without = "\n".join(line for line in lines.splitlines() if not line.startswith("IPAddress"))
    wanted = {
        "key": [KEY_ID, KEY],
        "in the environment": False,
        "the file itself": "PermissionError",
        "reached": ["yes", "yes", "TimeoutError", "yes"],
    }
    assert probe(hospital, lines, REACHING) == wanted
    assert probe(hospital, without, REACHING) == {**wanted, "reached": ["yes"] * 4}, "this test would not notice"
    assert analysed(hospital) <= 1.2
    assert "any address" not in said
    assert "may connect to every address: as requested" in hospital.sh(FOLDERS, "--addresses", "any").stdout
    assert "may connect to every address" in hospital.sh(FOLDERS).stdout, "forgotten by the next run"
    assert f"may connect to 127.0.0.0/8 ::1/128 {FORMER}: " in hospital.sh(FOLDERS, "--addresses", "known").stdout


def analysed(lab: SystemdLab) -> float:
    said = lab.sh("systemd-analyze", "security", "--no-pager", "dicomwatchd.service").stdout
    found = re.search(r"exposure level for \S+: ([0-9.]+)", said)
    assert found is not None, said[-300:]
    return float(found[1])


def findings_of(lab: SystemdLab) -> dict[str, dict[str, str]]:
    """What the doctor finds, by subject."""
    answer = json.loads(lab.sh(CTL, "doctor", "--json", check=False).stdout)
    schemas.check("doctor", answer)
    return {one["subject"]: one for one in answer["findings"]}


def test_a_store_that_has_moved_is_told_apart_from_one_that_is_dead(hospital: SystemdLab) -> None:
    mend = "run dicomwatchd-folders as root, then restart the service"
    hospital.sh(FOLDERS)
    put(hospital, "etc/hosts", f"127.0.0.1 localhost\n{LATER} {STORE}\n")
    before = len(entries(hospital, "refused"))
    assert hospital.sh("systemctl", "start", "dicomwatchd", check=False).returncode != 0
    hospital.sh("systemctl", "stop", "dicomwatchd")
    refused = entries(hospital, "refused")[before]
    assert (refused["DICOMWATCHD_CODE"], mend in refused["MESSAGE"]) == ("out-of-reach", True)

    findings = findings_of(hospital)
    assert findings["addresses"]["outcome"] == "bad"
    assert f"{STORE} at {LATER}: not among the addresses" in findings["addresses"]["detail"]
    assert mend in findings["addresses"]["detail"]
    assert findings["keys in /etc/dicomwatchd/aws.credentials"]["outcome"] == "good"

    hospital.sh(FOLDERS)
    before = len(entries(hospital, "refused"))
    hospital.sh("systemctl", "start", "dicomwatchd", check=False)
    hospital.sh("systemctl", "stop", "dicomwatchd")
    assert entries(hospital, "refused")[before]["DICOMWATCHD_CODE"] != "out-of-reach", "it is reached now"
    findings = findings_of(hospital)
    assert findings["addresses"]["outcome"] == "good"


# --- the service


@pytest.fixture(scope="module")
def service(lab: SystemdLab) -> SystemdLab:
    """The lab with the service at work on one inbox of a modality's and an archive in a folder."""
    put(lab, "etc/dicomwatchd/config.yaml", CONFIG)
    put(lab, "etc/systemd/system/dicomwatchd.service.d/test.conf", TEST_DROP_IN)
    for inbox in (INBOX, SECOND_INBOX):
        lab.sh("install", "-d", "-o", "modality", "-g", "dicom", "-m", "2770", f"/{inbox}")
    lab.sh("install", "-d", "-o", "dicomwatchd", "-g", "dicomwatchd", "-m", "0750", f"/{ARCHIVE}")
    assert lab.sh(CTL, "config", "check").returncode == 0
    lab.sh(FOLDERS)

    not_yet = lab.sh("systemctl", "start", "dicomwatchd", check=False)
    assert not_yet.returncode != 0, "it started without an archive"
    assert any("dicomwatchctl archive init" in entry["MESSAGE"] for entry in entries(lab, "refused"))
    lab.sh("systemctl", "stop", "dicomwatchd")

    lab.sh("runuser", "-u", "dicomwatchd", "--", CTL, "archive", "init")
    lab.sh("systemctl", "start", "dicomwatchd")
    return lab


def drop(lab: SystemdLab, seed: int, *, inbox: str = INBOX, slices: int = 5) -> tuple[str, list[Made]]:
    """A study of a marked patient, put into the inbox by the modality's user; its UID and files."""
    maker = Maker(seed, Patient.marked(CANARY))
    with tempfile.TemporaryDirectory() as name:
        made = maker.ct_series(Path(name) / CANARY, slices=slices, rows=64, columns=64)
        shutil.copytree(name, lab.root / "srv/export", dirs_exist_ok=True)
    lab.sh("chown", "-R", "modality:dicom", "/srv/export")
    lab.sh("chmod", "-R", "g+rwX", "/srv/export")
    copy = ["cp", "-r", f"/srv/export/{CANARY}", f"/{inbox}/{CANARY}-{seed}"]
    lab.sh("runuser", "-u", "modality", "--", "sh", "-c", 'umask 0007; exec "$@"', "sh", *copy)
    lab.sh("rm", "-r", "/srv/export")
    return maker.study_uid(0), made


def is_archived(lab: SystemdLab, files: list[Made]) -> bool:
    held = set(lab.sh("find", f"/{ARCHIVE}", "-name", "*.dcm", "-printf", "%f\n").stdout.split())
    return {f"{made.sha256}.dcm" for made in files} <= held


def wait_until_empty(lab: SystemdLab, inbox: str = INBOX, seconds: float = 60) -> None:
    """Until no original is left; otherwise fails with what the daemon says about it."""
    deadline = time.monotonic() + seconds
    # What goes while find looks is an error to it: it has to look again.
    while (found := lab.sh("find", f"/{inbox}", "-type", "f", "-ls", check=False)).returncode or found.stdout:
        if time.monotonic() > deadline:
            said = lab.sh("journalctl", "-u", "dicomwatchd", "-o", "cat", "-n", "60").stdout
            pytest.fail(f"after {seconds} s there is still\n{found.stdout}\n{show(lab, 'StatusText')}\n{said}")
        time.sleep(0.1)


def test_a_study_is_archived_and_its_originals_deleted(service: SystemdLab) -> None:
    assert show(service, "ActiveState") == "active"
    assert show(service, "SubState") == "running"
    uid, files = drop(service, 1)
    wait_until_empty(service)
    assert is_archived(service, files)

    wait_for(lambda: bool(about(service, uid)), 60, "the journal to speak of the study")
    told = about(service, uid)
    last = told[-1]
    assert last["SYSLOG_IDENTIFIER"] == "dicomwatchd"
    assert last["_SYSTEMD_UNIT"] == "dicomwatchd.service"
    assert last["_TRANSPORT"] == "journal", "not as structured fields"
    assert int(last["PRIORITY"]) >= 6
    assert len(told) < 20, "logged by file"
    assert any(entry.get("DICOMWATCHD_FILES") == "5" for entry in told)
    assert re.search(r"\d", show(service, "StatusText"))
    figures = service.sh("runuser", "-u", "modality", "--", "/usr/bin/python3", "-c", FIGURES).stdout
    assert 'dicomwatchd_studies{state="archived"} 1' in figures and "process_open_fds" in figures
    assert uid not in figures and CANARY not in figures


def about(lab: SystemdLab, study_uid: str) -> list[dict[str, Any]]:
    return [entry for entry in entries(lab) if entry.get("DICOMWATCHD_STUDY_UID") == study_uid]


def test_a_reload_takes_a_good_configuration_and_keeps_the_old_one_otherwise(service: SystemdLab) -> None:
    pid = show(service, "MainPID")
    more = CONFIG.replace(
        "archive:\n", f"  - {{name: mr1, path: /{SECOND_INBOX}, settle_seconds: 0.2, quiet_seconds: 1}}\narchive:\n", 1
    )
    put(service, "etc/dicomwatchd/config.yaml", more)
    service.sh("systemctl", "reload", "dicomwatchd", timeout=30)
    assert show(service, "MainPID") == pid
    assert entries(service, "reloaded")[-1]["DICOMWATCHD_INBOXES"] == "2"

    put(service, "etc/dicomwatchd/config.yaml", "inboxes: 7\n")
    service.sh("systemctl", "reload", "dicomwatchd", timeout=30)
    assert (show(service, "MainPID"), show(service, "ActiveState")) == (pid, "active")
    assert entries(service, "reload-refused")
    _, files = drop(service, 2)
    wait_until_empty(service)
    assert is_archived(service, files)
    put(service, "etc/dicomwatchd/config.yaml", CONFIG)
    service.sh("systemctl", "reload", "dicomwatchd", timeout=30)


ON_ALARM = """#!/bin/sh
{
  cat
  id -un
  touch /etc/written 2>/dev/null || echo cannot write there
  grep -E '^NoNewPrivs|^oom' /proc/self/status
  env
  logger -t on-alarm heard
} >>/run/dicomwatchd/heard
"""


def test_a_command_for_alarms_runs_in_the_sandbox(service: SystemdLab) -> None:
    put(service, "etc/dicomwatchd/on-alarm", ON_ALARM)
    service.sh("chmod", "755", "/etc/dicomwatchd/on-alarm")
    impatient = CONFIG.replace("quiet_seconds: 1", "quiet_seconds: 15")
    put(
        service,
        "etc/dicomwatchd/config.yaml",
        f"{impatient}alarms: {{oldest_file_hours: 0.0001}}\non_alarm: [/etc/dicomwatchd/on-alarm]\n",
    )
    service.sh("systemctl", "reload", "dicomwatchd", timeout=30)
    drop(service, 21)
    wait_for(lambda: bool(entries(service, "alarm-begun")), 60, "an alarm")
    wait_until_empty(service)
    wait_for(lambda: bool(entries(service, "alarm-ended")), 60, "its end")

    def heard() -> str:
        return service.sh("cat", "/run/dicomwatchd/heard", check=False).stdout

    wait_for(lambda: '"ended"' in heard(), 60, "the command to hear of it")
    said = heard()
    assert said.count('"event": "begun"') == said.count('"event": "ended"') == 1 and '"alarm": "oldest-file"' in said
    assert "\ndicomwatchd\n" in said and "\ncannot write there\n" in said and re.search(r"NoNewPrivs:\s*1", said)
    assert not re.search(r"AWS_|NOTIFY_|CREDENTIALS|JOURNAL", said) and CANARY not in said
    assert not entries(service, "alarm-hook-failed")
    put(service, "etc/dicomwatchd/config.yaml", CONFIG)
    service.sh("systemctl", "reload", "dicomwatchd", timeout=30)
    service.sh("rm", "/etc/dicomwatchd/on-alarm", "/run/dicomwatchd/heard")


RECEIVED = "srv/dicom/received"
RECEIVER = f"""receivers:
  - name: ct
    ae_title: ARCHIVE
    inbox: received
    listen: 0.0.0.0:11112
    allow: [{{ae_title: CT1, address: 127.0.0.1}}]
inboxes:
  - {{name: received, path: /{RECEIVED}, settle_seconds: 0, quiet_seconds: 1}}
"""


def test_a_receiver_s_objects_are_archived_and_it_can_touch_nothing_else(service: SystemdLab) -> None:
    receiver = "dicomwatchd-receiver"
    assert lab_says(service, "is-enabled", receiver) == "disabled"
    assert service.sh("systemd-analyze", "verify", "--man=no", f"{receiver}.service").stderr == ""
    service.sh("install", "-d", "-o", receiver, "-g", "dicomwatchd", "-m", "2770", f"/{RECEIVED}")
    put(service, "etc/dicomwatchd/config.yaml", CONFIG.replace("inboxes:\n", RECEIVER, 1))
    said = service.sh(FOLDERS).stdout
    assert f"{receiver}.service.d/folders.conf" in said
    service.sh("systemctl", "restart", "dicomwatchd", timeout=60)
    assert findings_of(service)["receiver ct"]["outcome"] == "bad"
    service.sh("systemctl", "start", receiver)
    assert show(service, "ActiveState", receiver) == "active"
    assert findings_of(service)["receiver ct"]["outcome"] == "good"

    maker = Maker(9, Patient.marked(CANARY))
    with tempfile.TemporaryDirectory() as name:
        made = maker.ct_series(Path(name) / CANARY, slices=3, rows=64, columns=64)
        shutil.copytree(name, service.root / "srv/export")
    service.sh("storescu", "-aet", "CT1", "-aec", "ARCHIVE", "+sd", "127.0.0.1", "11112", f"/srv/export/{CANARY}")
    assert service.sh("echoscu", "-aet", "CT2", "-aec", "ARCHIVE", "127.0.0.1", "11112", check=False).returncode
    service.sh("rm", "-r", "/srv/export")
    wait_until_empty(service, RECEIVED)
    wait_for(lambda: bool(about(service, made[0].study_uid)), 60, "the study to be archived")
    wait_for(
        lambda: any(e["DICOMWATCHD_EVENT"] == "study-archived" for e in about(service, made[0].study_uid)), 60, "it"
    )

    pid = show(service, "MainPID", receiver)
    inside = ["nsenter", "--target", pid, "--mount", "--", "setpriv", "--reuid", receiver, "--regid", receiver]
    for place in ("/var/lib/dicomwatchd", f"/{ARCHIVE}", "/etc/dicomwatchd/aws.credentials", f"/{INBOX}"):
        assert service.sh(*inside, "--clear-groups", "ls", place, check=False).returncode, place
    writes = [*inside, "--clear-groups", "touch"]
    assert service.sh(*writes, f"/{RECEIVED}/.probe", check=False).returncode == 0, "this test would not notice"
    service.sh("rm", f"/{RECEIVED}/.probe")
    assert service.sh(*writes, "/tmp/../srv/probe", check=False).returncode
    assert "0000000000000000" in service.sh("grep", "CapEff", f"/proc/{pid}/status").stdout

    service.sh("systemctl", "reload", receiver, timeout=30)
    assert show(service, "MainPID", receiver) == pid
    service.sh("systemctl", "stop", receiver, timeout=60)
    assert show(service, "Result", receiver) == "success"
    log = service.sh("journalctl", "-u", receiver, "-o", "cat", "--all").stdout
    assert "3 objects stored" in log and "CANARY" not in log and f"/{RECEIVED}" not in log
    put(service, "etc/dicomwatchd/config.yaml", CONFIG)
    service.sh(FOLDERS)
    service.sh("systemctl", "restart", "dicomwatchd", timeout=60)


def lab_says(lab: SystemdLab, *asked: str) -> str:
    return lab.sh("systemctl", *asked, check=False).stdout.strip()


def test_a_hung_daemon_is_killed_and_its_successor_goes_on(service: SystemdLab) -> None:
    pid, restarts = show(service, "MainPID"), int(show(service, "NRestarts"))
    fed = show(service, "WatchdogTimestampMonotonic")
    wait_for(lambda: show(service, "WatchdogTimestampMonotonic") != fed, 60, "the watchdog to be fed")
    service.sh("kill", "-STOP", pid)
    _, files = drop(service, 3)
    wait_for(lambda: int(show(service, "NRestarts")) > restarts, 60, "systemd to notice")
    wait_for(lambda: show(service, "ActiveState") == "active", 60, "the successor")
    assert show(service, "MainPID") != pid
    wait_until_empty(service)
    assert is_archived(service, files)


# --- folders that are handed in by an ordinary user of the daemon's group


@pytest.fixture(scope="module")
def anna(service: SystemdLab) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs dicomwatchctl as a user whose home nobody else may enter."""
    service.sh("useradd", "--create-home", "--groups", "dicomwatchd", "anna")
    service.sh("chmod", "0700", "/home/anna")

    def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return service.sh("runuser", "-u", "anna", "--", CTL, *arguments, check=check, timeout=120)

    return run


def export(lab: SystemdLab, place: str, seed: int, slices: int = 4) -> list[Made]:
    """A study of Anna's, as programs of hers write it: everybody may read it who gets there."""
    maker = Maker(seed, Patient.marked(CANARY))
    with tempfile.TemporaryDirectory() as name:
        made = maker.ct_series(Path(name) / CANARY, slices=slices, rows=64, columns=64)
        shutil.copytree(name, lab.root / place.strip("/"), dirs_exist_ok=True)
    lab.sh("chown", "-R", "anna:anna", place)
    lab.sh("chmod", "-R", "u=rwX,go=rX", place)
    return made


def test_a_folder_below_a_home_is_archived(
    service: SystemdLab, anna: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Which the sandbox hides (ProtectHome=yes), and which the daemon's user may not reach by its path."""
    made = export(service, "/home/anna/export", 21)
    said = anna("upload", "/home/anna/export")
    assert said.stdout.startswith("All 4 files are verified in the archive. The folder was not changed; the local")
    assert is_archived(service, made)


def test_deleting_below_a_home_takes_an_acl_and_the_answer_says_which(
    service: SystemdLab, anna: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    made = export(service, "/home/anna/export2", 22)
    refused = anna("upload", "/home/anna/export2", "--delete", check=False)
    assert refused.returncode == 1 and "the daemon may not delete in this folder" in refused.stderr
    [line] = re.findall(r"setfacl -R -m u:dicomwatchd:rwX FOLDER", refused.stderr)
    if shutil.which("setfacl") is None:
        service.sh("chgrp", "-R", "dicomwatchd", "/home/anna/export2")
        service.sh("chmod", "-R", "g+rwX", "/home/anna/export2")
    else:
        command = line.replace("FOLDER", "/home/anna/export2").split()
        service.sh("runuser", "-u", "anna", "--", *command)
    said = anna("upload", "/home/anna/export2", "--delete")
    assert said.stdout.startswith("All 4 files are verified in the archive. The local copies were deleted.\n")
    assert is_archived(service, made) and service.sh("find", "/home/anna/export2", "-type", "f").stdout == ""
    told = anna("prove", made[0].study_uid).stdout
    uid = service.sh("id", "-u", "anna").stdout.strip()
    assert f"user {uid} anna" in told
    listed = anna("upload", "list").stdout
    assert "anna" in listed and "/home/anna/export2" in listed


def test_what_the_daemon_may_not_read_is_named_with_what_to_do(
    service: SystemdLab, anna: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    export(service, "/home/anna/export3", 23)
    [name] = service.sh("sh", "-c", f"ls /home/anna/export3/{CANARY} | head -1").stdout.split()
    service.sh("chmod", "0600", f"/home/anna/export3/{CANARY}/{name}")
    service.sh("install", "-d", "-o", "anna", "-m", "0700", "/home/anna/export3/mine")
    said = anna("upload", "/home/anna/export3", check=False)
    assert said.returncode == 1 and "3 of 4 files are verified" in said.stdout
    assert said.stdout.count("setfacl -R -m u:dicomwatchd:rX FOLDER") == 2, said.stdout
    assert "mine: the daemon may not list this folder" in said.stdout
    service.sh("chmod", "0700", "/home/anna/export3")
    whole = anna("upload", "/home/anna/export3", check=False)
    assert whole.returncode == 1 and "the daemon may not read the folder" in whole.stderr
    assert "setfacl -R -m u:dicomwatchd:rX FOLDER" in whole.stderr


def test_a_stick_below_a_users_own_folder(
    service: SystemdLab, anna: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Mounted as desktops do: below a folder that only its user may enter, after the daemon was started; and a CD."""
    service.sh("install", "-d", "-o", "anna", "-m", "0700", "/media/anna")
    service.sh("install", "-d", "/media/anna/STICK", "/media/cdrom")
    uid = service.sh("id", "-u", "anna").stdout.strip()
    for place, options in (("/media/anna/STICK", f"uid={uid},mode=0755"), ("/media/cdrom", "mode=0755")):
        service.sh("mount", "-t", "tmpfs", "-o", options, "medium", place)
        made = export(service, place, 24 if "STICK" in place else 25)
        if place == "/media/cdrom":
            service.sh("chown", "-R", "root:root", place)
            service.sh("mount", "-o", "remount,ro", place)
        said = anna("upload", place)
        place_said = "The folder was not changed; the local" if "STICK" in place else "The medium is read-only: nothing"
        assert said.stdout.startswith(f"All 4 files are verified in the archive. {place_said}"), said.stdout
        assert is_archived(service, made)
        wait_until_unmounted(service, place)


def wait_until_unmounted(lab: SystemdLab, place: str) -> None:
    """Busy for as long as anybody has it open, which ends a moment after the upload."""
    wait_for(lambda: lab.sh("umount", place, check=False).returncode == 0, 60, "the medium's release")


def test_a_folder_below_a_home_stays_open_over_a_restart(
    service: SystemdLab, anna: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """By systemd's store of descriptors: nothing else leads there."""
    made = export(service, "/home/anna/export4", 26)
    # Held open, so that the upload does not come to its end before the restart.
    service.sh("sh", "-c", "sleep 60 >>/home/anna/export4/busy 2>/dev/null </dev/null & echo $! >/run/busy.pid")
    service.sh("sh", "-c", "head -c 200 /dev/zero >>/home/anna/export4/busy; chmod 0644 /home/anna/export4/busy")
    service.sh("chown", "anna", "/home/anna/export4/busy")
    before = int(show(service, "NFileDescriptorStore") or 0)
    anna("upload", "/home/anna/export4", "--no-wait", check=False)
    wait_for(lambda: int(show(service, "NFileDescriptorStore")) == before + 1, 60, "systemd to keep the folder")
    pid = show(service, "MainPID")
    service.sh("kill", "-KILL", pid)
    wait_for(lambda: show(service, "MainPID") not in ("0", pid), 60, "the successor")
    wait_for(lambda: show(service, "ActiveState") == "active", 60, "the successor to be ready")
    service.sh("sh", "-c", "kill $(cat /run/busy.pid); rm /home/anna/export4/busy")
    said = anna("upload", "/home/anna/export4", check=False)
    assert "4 of" in said.stdout or said.stdout.startswith("All 4 files"), said.stdout + said.stderr
    assert is_archived(service, made)
    wait_for(lambda: int(show(service, "NFileDescriptorStore")) == before, 60, "the store to be as before")


def test_stopping_ends_cleanly(service: SystemdLab) -> None:
    begun = time.monotonic()
    service.sh("systemctl", "stop", "dicomwatchd")
    assert time.monotonic() - begun < 20
    assert (show(service, "ActiveState"), show(service, "Result")) == ("inactive", "success")
    assert show(service, "ExecMainStatus") == "0"
    assert entries(service, "stopped")
    _, files = drop(service, 4)
    service.sh("systemctl", "start", "dicomwatchd")
    wait_until_empty(service)
    assert is_archived(service, files)


def test_no_patient_and_no_path_is_in_the_journal(service: SystemdLab) -> None:
    """At DEBUG, after reloads, a kill and restarts; in every field of every entry about the service, systemd's too."""
    status = service.sh("systemctl", "status", "dicomwatchd").stdout
    secrets = ("CANARY", "IM0001", "/home/anna/export", "STICK", f"/{INBOX}", f"/{SECOND_INBOX}")

    def found(*of: str) -> list[str]:
        service.sh("journalctl", "--sync")
        lines = (service.sh("journalctl", "-o", "export", "--all", *of).stdout + status).splitlines()
        assert any(line.startswith("DICOMWATCHD_STUDY_UID=") for line in lines)
        return [secret for secret in secrets if any(secret in line for line in lines)]

    assert not found("-u", "dicomwatchd")
    ours = [entry for entry in entries(service) if entry.get("_COMM") == "dicomwatchd"]
    assert ours
    assert not [entry for entry in ours if "DICOMWATCHD_REFUSED_FIELDS" in entry], "a field was refused"
    assert not [entry for entry in ours if entry.get("DICOMWATCHD_EVENT") == "crash"]
    assert all("DICOMWATCHD_EVENT" in entry for entry in ours), "something wrote past the journal"
    service.sh("logger", "--", f"/{INBOX}/{CANARY}/IM0001")
    assert {"CANARY", "IM0001", f"/{INBOX}"} <= set(found()), "this test would not notice"


def test_uninstalling_keeps_what_cannot_be_made_again(service: SystemdLab) -> None:
    said = install(service, "--uninstall")
    assert "kept: the configuration" in said
    assert show(service, "LoadState") == "not-found"
    gone = (
        "opt/dicomwatchd",
        "usr/local/bin/dicomwatchd",
        "usr/local/bin/dicomwatchd-receive",
        "usr/local/bin/dicomwatchctl",
        "usr/local/sbin/dicomwatchd-folders",
        "etc/systemd/system/dicomwatchd-receiver.service",
        "etc/systemd/system/dicomwatchd-receiver.service.d",
    )
    for path in (*gone, "etc/systemd/system/dicomwatchd.service"):
        assert not os.path.lexists(service.root / path), path
    for path in ("etc/dicomwatchd/config.yaml", "var/lib/dicomwatchd", f"{ARCHIVE}/archive.json"):
        assert (service.root / path).exists(), path
    assert install(service, "--uninstall"), "a second time is no fault"
