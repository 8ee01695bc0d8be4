"""The Debian packages, made for tests: built without a network, and packed again as those of other versions."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.installing import offline


class Packages(NamedTuple):
    """What one run of scripts/build-deb makes: the daemon's package, and the page's."""

    base: Path
    web: Path


def build(checkout: Path, output: Path, wheels: Path, *options: str, **more: str) -> Packages:
    """The packages that scripts/build-deb of ``checkout`` makes, without a network."""
    command = [str(checkout / "scripts/build-deb"), "--output", str(output), "--revision", "1", *options]
    done = subprocess.run(command, env={**os.environ, **offline(wheels), **more}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    base, web = map(Path, done.stdout.splitlines()[-2:])
    return Packages(base, web)


def built_before(base: Path) -> Packages:
    return Packages(base, base.with_name(base.name.replace("dicomwatchd_", "dicomwatchd-web_")))


def field(package: Path, name: str) -> str:
    done = subprocess.run(["dpkg-deb", "--field", package, name], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def needed(packages: Packages) -> list[str]:
    """The names of Debian's packages that both depend on."""
    listed = ", ".join(field(package, "Depends") for package in packages)
    return sorted({one.split()[0] for one in listed.split(",")} - {"dicomwatchd"})


def repacked(package: Path, tree: Path, version: str, change: Callable[[Path], None]) -> Path:
    """The package of another version: a build takes a minute, and packing what was built does not."""
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    change(tree)
    _renumber(package, tree / "DEBIAN/control", version)
    target = tree.with_suffix(".deb")
    sums = "find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums"
    subprocess.run(["sh", "-c", sums], cwd=tree, check=True)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, target], check=True)
    return target


def relabelled(package: Path, tree: Path, version: str, change: Callable[[Path], None] | None = None) -> Path:
    """The same files as another version, and perhaps with other scripts: quicker still, as no file is unpacked."""
    subprocess.run(["dpkg-deb", "--control", package, tree / "control"], check=True)
    if change is not None:
        change(tree / "control")
    _renumber(package, tree / "control/control", version)
    (tree / "debian-binary").write_text("2.0\n")
    subprocess.run(["tar", "-cf", "control.tar", "--owner=0", "--group=0", "-C", "control", "."], cwd=tree, check=True)
    with (tree / "data.tar").open("wb") as data:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=data, check=True)
    target = tree.with_suffix(".deb")
    subprocess.run(["ar", "rc", target, "debian-binary", "control.tar", "data.tar"], cwd=tree, check=True)
    (tree / "data.tar").unlink()
    return target


def _renumber(package: Path, control: Path, version: str) -> None:
    control.write_text(control.read_text().replace(field(package, "Version"), f"{version}-1"))


def substitute(path: Path, pattern: str, by: str) -> None:
    text, found = re.subn(pattern, by, path.read_text())
    assert found == 1, path
    path.write_text(text)
