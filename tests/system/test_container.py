"""The image of Containerfile: built from a clean Debian, and run as it is meant to be."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import skip_unless_available
from tests.installing import fetch_wheels
from tests.servers import debian
from tests.synthetic import Maker, Patient

#: Of which the first test has the build in it.
pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
UID = 10104
IMAGE, BASE = "localhost/dicomwatchd-test", "localhost/debian-test"
#: As docs/operations.md has it: nothing of the image can be written to, and there are no rights but the user's own.
CONFINED = ["--read-only", "--tmpfs=/tmp:mode=1777", "--cap-drop=all", "--security-opt=no-new-privileges"]
#: crun runs nothing where both versions of cgroups are in use, though it is to make none: it is shown the second alone.
UNIFIED = (
    []
    if Path("/sys/fs/cgroup/cgroup.controllers").exists()
    else [
        *("unshare", "--mount", "sh", "-c"),
        'umount --recursive --lazy /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"',
        "sh",
    ]
)
LIMITS = {"nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "nproc": resource.getrlimit(resource.RLIMIT_NPROC)}
CONFIG = """
scan_interval_seconds: 2
inboxes:
  - {name: ct1, path: /srv/dicom/ct1, settle_seconds: 0.2, quiet_seconds: 1}
archive:
  store: {kind: directory, path: /srv/archive}
  catalogue: {kind: sqlite, path: /srv/archive/catalogue.db}
"""


class Podman:
    """podman with images and containers of its own below ``folder``, and nothing of the machine's."""

    def __init__(self, folder: Path) -> None:
        self._storage = [f"--root={folder}/storage", f"--runroot={folder}/run", f"--tmpdir={folder}/tmp"]
        self._options = ["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=none"]

    def __call__(self, *arguments: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        command = [*UNIFIED, "podman", *self._storage, *self._options, *arguments]
        # Its health checks go by timers of a systemd, which need not be here; the test runs them itself.
        environ = {**os.environ, "DISABLE_HC_SYSTEMD": "true"}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, f"{arguments[0]}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        # Limits by cgroups are the machine's business, and not given out everywhere; neither is a network.
        around = ["--ulimit=host", "--cgroups=disabled", "--network=none", "--log-driver=k8s-file", *CONFINED]
        return self("run", *around, *arguments, check=check)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    skip_unless_available("containers")
    with tempfile.TemporaryDirectory(prefix="dicomwatchd-container.") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def podman(scratch: Path) -> Iterator[Podman]:
    """With the image."""
    own = Podman(scratch / "podman")
    wheels = fetch_wheels("/usr/bin/python3", scratch)
    # A build would raise them to what podman takes for usual, which not every root may do.
    limits = [f"--ulimit={name}={hard}:{hard}" for name, (_, hard) in LIMITS.items() if hard != resource.RLIM_INFINITY]
    own("import", str(debian.clean_root()), BASE, timeout=120)
    arguments = [f"--build-arg={one}" for one in (f"BASE={BASE}", "PIP_NO_INDEX=1", "PIP_FIND_LINKS=/wheels")]
    try:
        build = ["--isolation=chroot", "--layers=false", "--format=docker", "--network=host", *limits, *arguments]
        build += [f"--volume={wheels}:/wheels:ro", f"--tag={IMAGE}", f"--file={ROOT}/Containerfile"]
        own("build", *build, str(ROOT), timeout=280)
        yield own
    finally:
        own("rm", "--all", "--force", "--time=0", check=False)
        own("rmi", "--all", "--force", check=False, timeout=120)


def test_the_image_says_how_it_is_to_be_run(podman: Podman) -> None:
    [image] = json.loads(podman("image", "inspect", IMAGE).stdout)
    config: dict[str, Any] = image["Config"]
    assert config["User"] == f"{UID}:{UID}"
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert set(config["Volumes"]) == {"/var/lib/dicomwatchd", "/srv/dicom"}
    assert image["Healthcheck"]["Test"] == ["CMD", "dicomwatchctl", "status"]
    assert config["Cmd"] == ["dicomwatchd"]


@pytest.fixture
def volumes(scratch: Path) -> Iterator[dict[str, Path]]:
    """Where in the container, and the folder here, as the container's user has it."""
    folders = {
        place: scratch / "volumes" / place.strip("/").replace("/", "-")
        for place in ("/srv/dicom", "/srv/archive", "/var/lib/dicomwatchd")
    }
    for folder in folders.values():
        folder.mkdir(parents=True)
    (folders["/srv/dicom"] / "ct1").mkdir()
    for folder in (*folders.values(), folders["/srv/dicom"] / "ct1"):
        os.chown(folder, UID, UID)
    (scratch / "volumes/config.yaml").write_text(CONFIG)
    yield folders
    shutil.rmtree(scratch / "volumes")


def test_a_study_is_archived_by_a_user_without_rights_on_a_file_system_that_cannot_be_written(
    podman: Podman, volumes: dict[str, Path], scratch: Path
) -> None:
    mounts = [f"--volume={folder}:{place}" for place, folder in volumes.items()]
    mounts += [f"--volume={scratch}/volumes/config.yaml:/etc/dicomwatchd/config.yaml:ro"]
    podman.run("--rm", *mounts, IMAGE, "dicomwatchctl", "archive", "init")
    podman.run("--detach", "--name=daemon", *mounts, IMAGE)

    def says() -> str:
        return podman("logs", "daemon").stderr

    try:
        wait_for(lambda: '"event": "started"' in says(), 60, says)
        maker = Maker(1, Patient.marked("CANARY^JANE"))
        made = maker.ct_series(scratch / "volumes/made", slices=4, rows=64, columns=64)
        for path in (scratch / "volumes/made", *(scratch / "volumes/made").rglob("*")):
            os.chown(path, UID, UID)
        inbox = volumes["/srv/dicom"] / "ct1"
        (scratch / "volumes/made").rename(inbox / "CANARY-study")
        wait_for(lambda: not [path for path in inbox.rglob("*") if path.is_file()], 60, says)
        assert {f"{one.sha256}.dcm" for one in made} <= {path.name for path in volumes["/srv/archive"].rglob("*.dcm")}
        assert podman("healthcheck", "run", "daemon").returncode == 0
        assert podman("exec", "daemon", "sh", "-c", "touch /opt/x /etc/x", check=False).returncode != 0
        identity = podman("exec", "daemon", "sh", "-c", "id -u; grep CapEff /proc/1/status").stdout.split()
        assert identity == [str(UID), "CapEff:", "0" * 16]
        podman("stop", "--time=60", "daemon", timeout=90)
        entries = [json.loads(line) for line in says().splitlines()]
        assert {"started", "study-archived", "stopped"} <= {entry["event"] for entry in entries}
        assert "CANARY" not in says(), "a patient, or a path"
        [ended] = json.loads(podman("container", "inspect", "daemon").stdout)
        assert ended["State"]["ExitCode"] == 0
    finally:
        podman("rm", "--force", "--time=0", "daemon", check=False)


def wait_for(condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds} s: {what()}"
        time.sleep(0.2)
