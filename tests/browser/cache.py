"""The viewer as scripts/viewer installs it, kept between runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

_SCRIPT = Path(__file__).parents[2] / "scripts" / "viewer"


def cached_viewer() -> Path:
    """In the user's cache, until the script changes; so are the packages. Made under a lock, complete by one rename."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = cache_home / "dicomwatchd-tests" / "viewer"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / hashlib.sha256(_SCRIPT.read_bytes()).hexdigest()[:16]
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            for old in cache.iterdir():
                if old.is_dir() and old.name != "packages":
                    shutil.rmtree(old)
            command = [sys.executable, str(_SCRIPT), str(folder), "--fetch", str(cache / "packages")]
            subprocess.run(command, check=True, timeout=600)
    return folder
