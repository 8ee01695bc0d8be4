"""What a scrape costs: what `status` asks of a state with so many files waiting, and the text for Prometheus.

python -m tests.bench.scrape [FILES]       1,000,000 by default, 100 to a study; takes half a minute to fill
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

from prometheus_client import CollectorRegistry, generate_latest

from dicomwatchd.daemon.live import LAST_ARCHIVED, MOST_STUDIES
from dicomwatchd.ports import SystemClock
from dicomwatchd.prometheus.counts import Counts
from dicomwatchd.prometheus.exposition import DaemonCollector
from dicomwatchd.prometheus.sampling import Sampler
from dicomwatchd.queue import Queue, open_queue
from dicomwatchd.queue.database.schema import DATABASE
from tests.pieces import Log
from tests.unit.test_metrics import STATUS

_ROUNDS = 20
_FILES_A_STUDY = 100


def main(files: int) -> None:
    with tempfile.TemporaryDirectory(prefix="dicomwatchd-scrape.") as name:
        queue = open_queue(Path(name), SystemClock(), lambda _: None)
        queue.close()
        _fill(Path(name) / DATABASE, files)
        queue = open_queue(Path(name), SystemClock(), lambda _: None)
        _say(f"what status asks of a state with {files:,} files waiting", lambda: _asked(queue))
        _say("what top asks of it beside that", lambda: _watched(queue))
        queue.close()
    sampler = Sampler(lambda: STATUS, SystemClock(), Log())
    sampler.start()
    sampler.newest(10)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DaemonCollector(sampler, Counts(), frozenset({"ct1", "us1"}), SystemClock()))
    sys.stdout.write(f"bytes of the text: {len(generate_latest(registry)):,}\n")
    _say("the text", lambda: generate_latest(registry))
    sampler.stop()


def _asked(queue: Queue) -> None:
    queue.reports.status()
    queue.holds.count()
    queue.audit.head()
    queue.reports.former_places()
    queue.reports.own_objects()
    queue.reports.kept_elsewhere()


def _watched(queue: Queue) -> None:
    queue.moving.studies(MOST_STUDIES)
    queue.moving.last_archived(LAST_ARCHIVED)
    queue.moving.files_taken_up()


def _fill(database: Path, files: int) -> None:
    """By SQL, since nothing but the number of rows counts here; the triggers do their work."""
    now = time.time()
    with closing(sqlite3.connect(database)) as db, db:
        db.execute(
            "INSERT INTO sources (name, path, kind, delete_local, created_at) VALUES ('ct1', x'2f', 'inbox', 0, ?)",
            (now,),
        )
        db.executemany(
            "INSERT INTO studies (study_uid, state, changed_at, waits_since, queued_at) VALUES (?, ?, ?, ?, ?)",
            (
                (
                    f"2.25.{number}",
                    *(("queued", now, now - number, now) if number % 2 else ("arriving", now, now, None)),
                )
                for number in range(files // _FILES_A_STUDY)
            ),
        )
        db.executemany(
            "INSERT INTO files (source_id, dir, name, identity, size_bytes, state, seen_at, study_uid)"
            " VALUES (1, x'', ?, '1:2:3:4:5', 500000, 'ready', ?, ?)",
            ((b"%d" % number, now, f"2.25.{number // _FILES_A_STUDY}") for number in range(files)),
        )


def _say(what: str, do: Callable[[], object]) -> None:
    seconds = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        do()
        seconds.append(time.perf_counter() - begun)
    sys.stdout.write(f"{what}: median {median(seconds) * 1e3:.1f} ms, at most {max(seconds) * 1e3:.1f} ms\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1_000_000)
