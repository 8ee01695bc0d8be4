"""What an installation in a test begins with: a checkout, and every file that it asks pip for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def copy_checkout(target: Path) -> Path:
    """What a clone of this commit holds, with the changes made since."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


def fetch_wheels(python: str, folder: Path, name: str = "runtime") -> Path:
    """A folder of what requirements/build.txt and NAME.txt list for ``python``; ``folder`` must exist."""
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
    pip = [f"{folder}/venv/bin/python", "-m", "pip"]
    lists = [f"--requirement={ROOT}/requirements/{name}.txt" for name in ("build", name)]
    # What has no wheel is built to be looked at, by what the first list holds and by nothing fetched for it.
    for action in (["install", lists[0]], ["download", f"--dest={folder}/wheels", *lists]):
        command = [*pip, *action, "-q", "--no-deps", "--no-build-isolation"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    return folder / "wheels"


def offline(wheels: Path) -> dict[str, str]:
    """The environment in which pip takes nothing but the files in the folder."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
