"""How much memory the daemon takes for a thousand files, and for a hundred times as many."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.bench import measure
from tests.bench.scale.files import Press, inbox_of
from tests.bench.scale.rows import Row
from tests.bench.scale.states import FILES_A_STUDY
from tests.system.site import Site

FEW = 1000
RSS_GOAL_MB = 200.0
#: No more for more files; what a run of the same work differs by from the next is allowed.
TIMES_GOAL = 1.1


def measure_memory(folder: Path, work: Path, times: int) -> list[Row]:
    """`dicomwatchd --once` with the embedded archive: the peak of its process, from the first file to the last unlink.
    In many studies, and (told, not judged) all in one, whose manifest lists them all."""
    files = FEW * times
    few, many = (
        _peak_mb(work, f"memory-{count}", inbox_of(folder, count // FILES_A_STUDY, FILES_A_STUDY))
        for count in (FEW, files)
    )
    private_name = _peak_mb(work, "memory-alone", _one_study(work, files))
    return [
        Row(f"{files:,} files in {files // FILES_A_STUDY:,} studies", "peak RSS", many, "MB", RSS_GOAL_MB),
        Row(
            f"{files:,} files in {files // FILES_A_STUDY:,} studies",
            f"peak RSS, against {FEW:,} files",
            many / few,
            "times",
            TIMES_GOAL,
            {f"MB with {FEW:,} files": few, f"MB with {files:,} files in one study": private_name},
        ),
    ]


def _one_study(work: Path, files: int) -> Path:
    inbox, press = work / "one-study", Press()
    for number in range(files):
        folder = inbox / f"SE{number // 1000:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"IM{number:06d}").write_bytes(press.instance(0, number))
    return inbox


def _peak_mb(work: Path, name: str, files: Path) -> float:
    site = Site(work / name)
    site.config |= {"workers": 16, "log_level": "INFO"}
    site.config["inboxes"][0] |= {"settle_seconds": 0, "quiet_seconds": 0}
    site.write_config()
    site.init()
    shutil.copytree(files, site.inbox, copy_function=os.link, dirs_exist_ok=True)
    command = [sys.executable, "-m", "dicomwatchd", "--config", str(site.config_file), "--once"]
    measured = measure.run(command, env=site.environment, log=site.log_file, timeout_seconds=3600)
    assert not site.left()
    shutil.rmtree(site.root)
    return measured.peak_rss_bytes / 1e6
