"""Command line of scripts/bench --scale."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.document import write_json
from tests.bench.scale import catalogues, daemons, inboxes, queues, rebuilds
from tests.bench.scale.memory import measure_memory
from tests.bench.scale.rows import Row, document, markdown

DEFAULT_SETTLE_SECONDS = 2.0
CASES = ("queue", "status", "scan", "idle", "arriving", "memory", "catalogue", "rebuild")


def main(arguments: Sequence[str], cache: Path, reports: Path) -> int:
    """``cache`` keeps what is made once; the work of a run lies beside it, on the same file system."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench --scale", description="what must not grow with the backlog; about an hour"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the files and one minute of arrivals")
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--rounds", type=int, metavar="N", help="of queue and scan; default: 7, with --quick 3")
    parser.add_argument("--seconds", type=float, metavar="N", help="of arrivals; default: 600, with --quick 60")
    options = parser.parse_args([argument for argument in arguments if argument != "--scale"])
    share = 10 if options.quick else 1
    rounds = options.rounds or (3 if options.quick else 7)
    seconds = options.seconds or (60.0 if options.quick else 600.0)
    cache.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="scale-", dir=cache))
    cases: dict[str, Callable[[], list[Row]]] = {
        "queue": lambda: queues.measure(cache, work, 1_000_000 // share, rounds),
        "status": lambda: daemons.status(cache, work, 1_000_000 // share),
        "scan": lambda: inboxes.measure(cache, work, 200_000 // share, rounds),
        "idle": lambda: daemons.idle(cache, work, 100_000 // share, 30.0 if options.quick else 120.0),
        "arriving": lambda: (
            daemons.arriving(work, seconds=seconds, settle_seconds=1.0)
            + daemons.arriving(work, seconds=min(seconds, 60.0), settle_seconds=DEFAULT_SETTLE_SECONDS)[:1]
        ),
        "memory": lambda: measure_memory(cache, work, 100 // share),
        "catalogue": lambda: catalogues.measure(cache, 1_000_000 // share, 300_000 // share),
        "rebuild": lambda: rebuilds.measure(work, 10_000 // share),
    }
    rows: list[Row] = []
    begun = time.monotonic()
    try:
        for name, case in cases.items():
            if not options.case or name in options.case:
                print(f"{name}:", flush=True)
                rows += case()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    table = markdown(rows)
    print(f"\n{table}\n\n{time.monotonic() - begun:.0f} s in all")
    name = "bench-scale-quick" if options.quick else "bench-scale"
    write_json(reports / f"{name}.json", document(rows))
    (reports / f"{name}.md").write_text(table + "\n")
    return 0
