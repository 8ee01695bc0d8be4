"""scripts/viewer: what it installs is what was pinned, whole, the same each time, and nothing that asks others."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "viewer"


def packages(viewer_folder: Path) -> Path:
    return viewer_folder.parent / "packages"


def install(folder: Path, from_packages: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(folder), "--packages", str(from_packages)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env={"PATH": "/nonexistent"})


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_packages_make_the_same_folder_again_and_without_npm(viewer_folder: Path, tmp_path: Path) -> None:
    """In the place of an older one, of which nothing is left."""
    shutil.copytree(viewer_folder, tmp_path / "viewer")
    (tmp_path / "viewer" / "older.bundle.js").write_text("")
    (tmp_path / "viewer" / "index.html").write_text("older")
    done = install(tmp_path / "viewer", packages(viewer_folder))
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "viewer") == contents(viewer_folder)
    assert [path.name for path in tmp_path.iterdir()] == ["viewer"], "nothing is left beside it"


def test_the_listing_has_every_file_with_its_hash_and_its_compressed_form(viewer_folder: Path) -> None:
    listed = json.loads((viewer_folder / "viewer.json").read_text())["files"]
    there = contents(viewer_folder)
    compressed = {f"{name}.gz" for name, said in listed.items() if said["gzip"]}
    assert there.keys() == listed.keys() | compressed | {"viewer.json"}
    for name, said in listed.items():
        assert there[name] == said["sha256"]
        if said["gzip"]:
            packed = (viewer_folder / f"{name}.gz").read_bytes()
            assert gzip.decompress(packed) == (viewer_folder / name).read_bytes(), name
    assert sum(path.stat().st_size for path in viewer_folder.glob("*.js.gz")) < 10_000_000


def test_nothing_that_asks_another_host_is_installed(viewer_folder: Path) -> None:
    names = contents(viewer_folder).keys()
    assert not {"app-config.js", "sw.js", "google.js", "silent-refresh.html"} & names
    assert not [
        name for name in names if name.endswith(".map") or name.startswith(("ort/", "dicom-microscopy-viewer/"))
    ]


def test_the_notices_are_there(viewer_folder: Path) -> None:
    notices = (viewer_folder / "THIRD-PARTY-NOTICES.txt").read_text()
    for words in (
        "MIT License",
        "codec-charls",
        "codec-openjpeg",
        "codec-openjph",
        "Independent JPEG Group",
        "React",
        "lodash",
    ):
        assert words in notices, words


def test_the_bill_of_materials_and_the_notices_name_what_the_bundles_name(viewer_folder: Path) -> None:
    """Of the packages, which are not at hand where the bill is made."""
    command = [sys.executable, str(SCRIPT), "--contents", str(packages(viewer_folder))]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert found == SCRIPT.with_name("viewer-contents.txt").read_text()
    assert {"react 18.3.1", "lodash-es -", "@cornerstonejs/codec-libjpeg-turbo-8bit 1.2.2"} <= set(found.splitlines())
    notices = (viewer_folder / "THIRD-PARTY-NOTICES.txt").read_text()
    assert all(f"\n  {line}\n" in notices for line in found.splitlines())


def test_another_package_than_the_pinned_one_is_not_installed(viewer_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(packages(viewer_folder), tmp_path / "packages")
    (package,) = (tmp_path / "packages").glob("ohif-app-*.tgz")
    with package.open("ab") as file:
        file.write(b"\0")
    done = install(tmp_path / "viewer", tmp_path / "packages")
    assert done.returncode == 1 and "nothing was installed" in done.stderr
    assert not (tmp_path / "viewer").exists()


@pytest.mark.parametrize("name", ["precious.txt", "index.html"])
def test_a_folder_of_something_else_is_left_alone(viewer_folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "viewer").mkdir()
    (tmp_path / "viewer" / name).write_text("mine")
    done = install(tmp_path / "viewer", packages(viewer_folder))
    assert done.returncode == 1 and "not made by this script" in done.stderr
    assert (tmp_path / "viewer" / name).read_text() == "mine"
