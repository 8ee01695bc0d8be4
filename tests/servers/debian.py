"""A clean Debian of this machine's release: nothing but what every Debian has, and the packages that are asked for.

Made by mmdebstrap from the mirrors that apt uses here, once, and kept as a tar file between test runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.servers.processes import ServerError

_TIMEOUT_SECONDS: Final = 600
#: Where Debian and its derivatives keep the list of mirrors of an installation.
_SOURCES: Final = tuple(Path("/etc/apt/sources.list.d") / name for name in ("debian.sources", "ubuntu.sources"))


def cache_directory() -> Path:
    """Where the tar files are kept."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_home) / "dicomwatchd-tests"


def clean_root(packages: Sequence[str] = ()) -> Path:
    """The tar file of a root with ``packages`` and what they depend on; raises ServerError where it cannot be made.

    It appears by one rename, complete, and under a lock: test runs that start together make it once.
    """
    release = platform.freedesktop_os_release()
    names = sorted(packages)
    digest = hashlib.sha256(" ".join((release["ID"], release["VERSION_CODENAME"], *names)).encode()).hexdigest()
    made = cache_directory() / f"debian-{release['VERSION_CODENAME']}-{digest[:12]}.tar"
    made.parent.mkdir(parents=True, exist_ok=True)
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if made.exists():
            return made
        print(f"making a clean {release['PRETTY_NAME']} in {made} ...", file=sys.stderr)
        # In /tmp: mmdebstrap's apt downloads as a user who may not look into the cache of root's.
        with tempfile.TemporaryDirectory(prefix="dicomwatchd-debian.") as name:
            scratch = Path(name)
            scratch.chmod(0o755)
            _make(scratch / "root.tar", release["VERSION_CODENAME"], names, scratch)
            subprocess.run(["cp", scratch / "root.tar", made.with_suffix(".new")], check=True)
            made.with_suffix(".new").rename(made)
    return made


def _make(target: Path, codename: str, packages: list[str], scratch: Path) -> None:
    command = ["mmdebstrap", "--variant=minbase", "--format=tar"]
    if packages:
        command.append(f"--include={','.join(packages)}")
    # How apt fetches here (proxies, checks): a root is made as the machine's own packages are installed.
    options = ["apt-config", "dump", "--no-empty", "--format", '%F "%v";%n', "Acquire"]
    asked = subprocess.run(options, capture_output=True, text=True, check=True).stdout
    own = [line for line in asked.splitlines() if not line.startswith(("Acquire::IndexTargets", "Acquire::cdrom"))]
    (scratch / "apt.conf").write_text("\n".join(own) + "\n")
    command += [f"--aptopt={scratch}/apt.conf", codename, str(target)]
    command += [str(path) for path in _SOURCES if path.exists()][:1]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
    if done.returncode != 0:
        raise ServerError(f"mmdebstrap ended with {done.returncode}:\n{done.stderr[-3000:]}")


def unpack(root: Path, target: Path) -> Path:
    """Unpacks a root of clean_root() into ``target``, which is made; as root, for its owners and modes."""
    target.mkdir()
    subprocess.run(["tar", "-xpf", root, "-C", target, "--numeric-owner", "--exclude=./dev/*"], check=True)
    return target
