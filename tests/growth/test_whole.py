"""The memory of `archive verify` does not grow with the archive: it holds a study's manifest, and so many rows of a
report. A million objects are for the long run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

#: Of what the allocator keeps, and how large the last study's manifest happens to be.
LEEWAY_MB = 12
MOST_MB = 150


def run(folder: Path, studies: int, *rows_at_once: str) -> dict[str, Any]:
    folder.mkdir()
    found: dict[str, Any] = {}
    for _ in ("written", "read"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.growth.whole", str(studies), "500", "inventory", str(folder), *rows_at_once],
            cwd=Path(__file__).parents[2],
            check=True,
            capture_output=True,
            text=True,
        )
        found = json.loads(done.stdout)
    assert (found["objects"], found["by"]) == (500 * studies, {"checksum": studies})
    return found


def test_four_times_the_archive_takes_no_more_memory(tmp_path: Path) -> None:
    few, many = run(tmp_path / "few", 8, "1000"), run(tmp_path / "many", 32, "1000")
    assert many["peak_mb"] < few["peak_mb"] + LEEWAY_MB, (few, many)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_million_objects(tmp_path: Path) -> None:
    assert run(tmp_path / "million", 2000)["peak_mb"] < MOST_MB
