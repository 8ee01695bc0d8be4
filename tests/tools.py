"""Other programs that read DICOM, for a second opinion. A test that needs one that is not there fails."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import pytest

#: Debian's package of each.
PACKAGES = {"dcmdump": "dcmtk", "dcmftest": "dcmtk", "dciodvfy": "dicom3tools"}
_BROKEN = re.compile(r"^E: dcmdump: .*: reading file: (.*)$", re.MULTILINE)
_MISSING = re.compile(r"^Error - Missing attribute Type 1C? .*Element=<(\w+)>", re.MULTILINE)
#: Paths on one command line. dcmdump's exit code is how many of them it cannot read, in eight bits.
_AT_ONCE = 200


class Ended(Exception):
    """A program came to no answer."""


def needed(*programs: str) -> None:
    """Fails the test where one is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.fail(
                f"{program} is not installed: scripts/setup-test-machine installs it (Debian's package"
                f" {PACKAGES[program]})",
                pytrace=False,
            )


def broken_by_dcmdump(paths: Iterable[Path]) -> set[Path]:
    """The files that DCMTK cannot read to their end."""
    needed("dcmdump")
    found: set[Path] = set()
    for some in _in_parts(paths):
        command = ["dcmdump", *map(str, some)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        named = {Path(path) for path in _BROKEN.findall(done.stderr.decode("utf-8", "replace"))}
        assert bool(named) == (done.returncode != 0), done.stderr
        assert named <= set(some), named - set(some)
        found |= named
    return found


def dicom_by_dcmftest(paths: Iterable[Path]) -> set[Path]:
    """The files that DCMTK takes for DICOM files."""
    needed("dcmftest")
    found: set[Path] = set()
    for some in _in_parts(paths):
        done = subprocess.run(["dcmftest", *map(str, some)], capture_output=True, check=False, text=True)
        answers = done.stdout.splitlines()
        assert len(answers) == len(some), done.stderr
        found |= {Path(line.removeprefix("yes: ")) for line in answers if line.startswith("yes: ")}
    return found


def missing_by_dciodvfy(path: Path) -> frozenset[str] | None:
    """Keywords of the Type 1 elements (1C where its condition holds) that dicom3tools misses; None where it does not
    know the class. Raises Ended where a fault of its own stops it."""
    needed("dciodvfy")
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, check=False)
    said = done.stderr.decode("latin_1")
    if done.returncode not in (0, 1):
        raise Ended(f"dciodvfy ended with {done.returncode} at {path.name}")
    if "Information Object Not found" in said:
        return None
    return frozenset(_MISSING.findall(said))


def _in_parts(paths: Iterable[Path]) -> Iterable[Sequence[Path]]:
    left = iter(paths)
    while some := list(islice(left, _AT_ONCE)):
        yield some
