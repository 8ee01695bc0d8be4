"""The lists of packages in requirements/: complete, of files that are known by their SHA-256, and what pyproject.toml
asks for; and that nothing else is installed."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LISTS = ["bench", "build", "dev", "runtime", "sbom", "systemd", "web"]
_ENTRY = re.compile(
    r"(?P<requirement>[a-z0-9-]+==[^ ;]+(?: ; [^\\]+?)?) \\\n(?P<hashes>(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
)

Lines = dict[str, list[Requirement]]


def listed(name: str) -> Lines:
    """By the package's name, its entries: there are two where machines or Pythons differ."""
    found: Lines = {}
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    for match in _ENTRY.finditer(text):
        requirement = Requirement(match["requirement"])
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def pinned(requirement: Requirement) -> str:
    (only,) = requirement.specifier
    assert only.operator == "=="
    return only.version


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_list_is_known() -> None:
    assert sorted(path.stem for path in (ROOT / "requirements").iterdir()) == LISTS


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_versions_and_hashes_and_nothing_else(name: str) -> None:
    """No index either: where packages come from is the machine's business."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert listed(name)
    options = "--no-binary systemd-python\n" if name == "systemd" else "--only-binary :all:\n--no-binary sdnotify\n"
    comment, _, rest = text.partition("\n")
    assert comment.startswith("# Written by scripts/lock")
    assert _ENTRY.sub("", rest) == f"--require-hashes\n{options}"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("runtime", project()["project"]["dependencies"]),
        ("web", project()["project"]["dependencies"] + project()["project"]["optional-dependencies"]["web"]),
        ("dev", project()["project"]["dependencies"] + project()["project"]["optional-dependencies"]["dev"]),
        ("bench", project()["project"]["dependencies"]),
        ("systemd", project()["project"]["optional-dependencies"]["systemd"]),
        ("build", project()["build-system"]["requires"]),
    ],
)
def test_a_list_is_what_pyproject_asks_for(name: str, wanted: list[str]) -> None:
    found = listed(name)
    requirements = list(map(Requirement, wanted))
    own = [extra for each in requirements if each.name == "dicomwatchd" for extra in each.extras]
    requirements += [
        Requirement(each) for extra in own for each in project()["project"]["optional-dependencies"][extra]
    ]
    for each in requirements:
        if each.name == "dicomwatchd":
            continue
        entries = found.get(canonicalize_name(each.name), [])
        assert entries, f"{each.name} is not in requirements/{name}.txt: scripts/lock --keep"
        for entry in entries:
            assert each.specifier.contains(pinned(entry)), f"{entry} is not {each}: scripts/lock --package {each.name}"


def test_what_is_tested_is_what_is_installed() -> None:
    for installed, lists in (("runtime", ("web", "dev", "bench")), ("web", ("dev",))):
        wanted = {name: list(map(str, entries)) for name, entries in listed(installed).items()}
        for name in lists:
            found = {package: list(map(str, entries)) for package, entries in listed(name).items()}
            assert {package: found.get(package) for package in wanted} == wanted, name
    here: dict[str, str] = {
        canonicalize_name(found.name): found.version for found in importlib.metadata.distributions()
    }
    other = [
        f"{entry}: {here[name]} is here"
        for name, entries in listed("dev").items()
        for entry in entries
        if name in here and (entry.marker is None or entry.marker.evaluate()) and here[name] != pinned(entry)
    ]
    assert not other, "scripts/check makes .venv anew"


# --- what the scripts install


def wheel(folder: Path) -> str:
    """A package that does nothing; its file's SHA-256."""
    path = folder / "nothing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("nothing.py", "")
        archive.writestr("nothing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1.0\n")
        archive.writestr(
            "nothing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("nothing-1.0.dist-info/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("nothing==1.0 --hash=sha256:{sha256}", ""),
        ("nothing==1.0 --hash=sha256:" + "0" * 64, "DO NOT MATCH THE HASHES"),
        ("nothing==1.0", "Hashes are required"),
        ("nothing>=1.0 --hash=sha256:{sha256}", "pinned with =="),
    ],
)
def test_nothing_is_installed_but_the_file_that_is_listed(entry: str, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "requirements"
    folder.mkdir()
    header = (ROOT / "requirements/build.txt").read_text().partition("setuptools")[0]
    (folder / "build.txt").write_text(header)
    (folder / "wanted.txt").write_text(header + entry.format(sha256=wheel(tmp_path)) + "\n")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PIP_")},
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path),
        "PIP_TARGET": str(tmp_path / "target"),
    }
    program = f'. "{ROOT}/scripts/lib.sh"; root="$2"; install_locked "$1" wanted'
    command = ["bash", "-c", program, "install", sys.executable, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    installed = (tmp_path / "target/nothing.py").exists()
    assert (done.returncode == 0, installed) == (not said, not said), done.stderr
    assert said in done.stderr


@pytest.mark.parametrize("script", ["install", "demo", "test", "coverage", "check", "bench", "sbom", "lib.sh"])
def test_no_script_installs_by_name(script: str) -> None:
    text = (ROOT / "scripts" / script).read_text()
    assert not re.search(r"install_program.*\[|pip install [^\n]*(?:\[dev\]|\[systemd\]|>=|==)", text)
    for line in re.findall(r"-m pip install(?:[^\n]*\\\n)*[^\n]*", text):
        assert "--no-deps" in line and "--no-build-isolation" in line, line


@pytest.mark.long  # the tool and its schema are 33 packages from the index, for a document nobody else here reads
def test_the_bill_of_materials_is_the_list(tmp_path: Path) -> None:
    """The script has it checked against CycloneDX's schema."""
    file = tmp_path / "sbom.json"
    done = subprocess.run([ROOT / "scripts/sbom", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    document = json.loads(file.read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["name"] == "dicomwatchd"
    found = {component["purl"] for component in document["components"]}
    *packages, viewer = document["components"]
    wanted = {f"pkg:pypi/{name}@{pinned(entry)}" for name, entries in listed("web").items() for entry in entries}
    assert found - {viewer["purl"]} == wanted
    assert all(component["externalReferences"][0]["hashes"] for component in packages)
    always = {component["name"] for component in packages if component["scope"] == "required"}
    assert always == listed("runtime").keys(), "the page's are optional"

    script = (ROOT / "scripts/viewer").read_text()
    asked = dict(re.findall(r'"(@cornerstonejs/[^"]+)": \(\s+"([^"]+)"', script))
    [(version, sha512)] = re.findall(r'VIEWER: \(\s+"([^"]+)",\s+"([^"]+)"', script)
    assert viewer["purl"] == f"pkg:npm/%40ohif/app@{version}"
    assert viewer["hashes"] == [{"alg": "SHA-512", "content": base64.b64decode(sha512).hex()}]
    inside = {"/".join(filter(None, (one.get("group"), one["name"]))): one for one in viewer["components"]}
    named = dict(line.split() for line in (ROOT / "scripts/viewer-contents.txt").read_text().splitlines())
    assert len(asked) == 3 and inside.keys() == asked.keys() | named.keys()
    assert {name: inside[name].get("version", "-") for name in named} == named
    assert all(inside[name]["hashes"] for name in asked)


# --- with which Python the tests run


def environment_of_the_tests(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What test_environment of lib.sh would make, and says. Its virtual environment is one that is there already."""
    make = 'bootstrap() { echo "${PYTHON:-any} $1 $2"; [ -e "$root/$1" ] || "$real" -m venv --without-pip "$root/$1"; }'
    program = f'set -euo pipefail; . "{ROOT}/scripts/lib.sh"; root=$1 real=$2; {make}; test_environment "${{@:3}}"'
    command = ["bash", "-c", program, "test", str(root), sys.executable, *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_another_python_has_an_environment_of_its_own(tmp_path: Path) -> None:
    python, version = os.path.realpath(sys.executable), platform.python_version()
    says = f"test: Python {version} at {python}, in"
    usual = environment_of_the_tests(tmp_path)
    assert usual.stdout.splitlines() == ["any .venv dev", f"{says} .venv"], usual
    asked = environment_of_the_tests(tmp_path, sys.executable)
    name = f".venv-{version}"
    assert asked.stdout.splitlines() == [f"{python} {name} dev", f"{says} {name}"], asked

    # That of another build of this version is not taken for it.
    (tmp_path / name / "bin/python").unlink()
    (tmp_path / name / "bin/python").symlink_to("/bin/true")
    again = environment_of_the_tests(tmp_path, sys.executable)
    assert again.stdout == asked.stdout, again
    assert os.path.realpath(tmp_path / name / "bin/python") == python


def test_what_is_no_python_is_refused(tmp_path: Path) -> None:
    done = environment_of_the_tests(tmp_path, "/bin/true/python")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "test: /bin/true/python is not a Python >= 3.11 with venv\n"
    assert not list(tmp_path.iterdir())
