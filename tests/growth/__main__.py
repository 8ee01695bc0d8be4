"""python -m tests.growth --days 365 [--studies 1000] [--files 20] [--state FOLDER] [--seconds N]

Lives through the days and prints, as JSON lines, what there is at the end of each; at last, as a table, the
figures of docs/reliability.md. The folder is best on a memory file system: it is not the commits that are measured.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.figures import Figures
from tests.growth.year import Day, Hospital, peak_rss_bytes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.growth", description=__doc__)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--studies", type=int, default=1000, help="a day")
    parser.add_argument("--files", type=int, default=20, help="of each study")
    parser.add_argument("--state", type=Path, help="where the state and the archive are made")
    parser.add_argument("--seconds", type=float, help="stop after this time, at the end of a day")
    given = parser.parse_args()
    root = Path(
        tempfile.mkdtemp(prefix="growth-", dir=given.state or ("/dev/shm" if Path("/dev/shm").is_dir() else None))
    )
    end = time.monotonic() + given.seconds if given.seconds else None
    days: list[Day] = []
    hospital = Hospital(root, studies=given.studies, files=given.files)
    try:
        for _ in range(given.days):
            begun = time.process_time()
            days.append(hospital.live())
            print(days[-1].as_json()[:-1] + f', "cpu_seconds": {time.process_time() - begun:.1f}}}', flush=True)
            if end is not None and time.monotonic() > end:
                break
        broken, entries = hospital.queue.audit.check()
        first = hospital.parts.prover.prove(hospital.study(0))
        print(table(days, given.files))
        print(f"rows: {hospital.rows()}")
        print(
            f"chain: {entries} entries, broken at {broken}; the first study's proof holds: {first['archived']['holds']}"
            f", {len(first['files'])} of {given.files} files; problems in the log: {len(hospital.log.entries)};"
            f" peak RSS {peak_rss_bytes() / 1e6:.0f} MB"
        )
        Figures(
            "growth", f"simulated days of {given.studies:,} studies with {given.files} files each", tried=len(days)
        ).write()
        return 0 if broken is None and first["archived"]["holds"] and len(first["files"]) == given.files else 1
    finally:
        hospital.close()
        shutil.rmtree(root, ignore_errors=True)


def table(days: list[Day], files: int) -> str:
    lines = ["| day | studies | state MB | of it free | WAL MB | RSS MB | entries here | segments | MB | heads | MB |"]
    lines.append("|" + "---|" * 11)
    for day in days:
        if day.day in (1, 2, 7, 30, 31, 60, 90, 120, 180, 270, 365) or day is days[-1]:
            lines.append(
                f"| {day.day} | {day.studies:,} | {day.state_bytes / 1e6:.1f} | {day.free_bytes / 1e6:.1f}"
                f" | {day.wal_bytes / 1e6:.1f} | {day.rss_bytes / 1e6:.0f} | {day.audit_entries_here:,}"
                f" | {day.segments:,} | {day.segment_bytes / 1e6:.1f} | {day.heads:,} | {day.head_bytes / 1e6:.1f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
