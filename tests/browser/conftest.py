"""One browser, and one viewer from the registry, for a file of tests."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import chromium
from tests.conftest import skip_unless_available

_SCRIPT = Path(__file__).parents[2] / "scripts" / "viewer"


@pytest.fixture(scope="session")
def viewer_folder() -> Path:
    """What scripts/viewer installs, kept in the user's cache until the script changes; so are the packages."""
    skip_unless_available("browser")
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For a file and no longer: Playwright's event loop is in the way of others in this thread."""
    skip_unless_available("browser")
    with chromium() as started:
        yield started
