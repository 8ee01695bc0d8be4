"""What is asked of the state all day long goes by an index: its cost does not grow with what waits or is archived."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.model import FileState, StudyEvent
from tests.unit.queues import Bench, digest, receipt

#: Tables that hold a row for each file, study, series, deletion or change of state.
LARGE = ("files", "studies", "series", "arrivals", "transitions", "shipments", "audit", "upload_results")


class Recording:
    """The state's connection, with the plan of every statement that goes through it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.plans: dict[str, list[str]] = {}

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        self._explain(sql, values)
        return self._connection.execute(sql, values)

    def executemany(self, sql: str, rows: Sequence[Any]) -> sqlite3.Cursor:
        if rows:
            self._explain(sql, rows[0])
        return self._connection.executemany(sql, rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def _explain(self, sql: str, values: Any) -> None:
        # With the values bound, as they are when it counts: an index of some rows serves no open value.
        if sql.split()[0] in ("SELECT", "UPDATE", "DELETE", "INSERT", "WITH"):
            plan = self._connection.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
            self.plans[sql] = [row["detail"] for row in plan]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.queue.close()


@pytest.fixture
def plans(bench: Bench) -> dict[str, list[str]]:
    database = bench.queue._database
    recording = Recording(database._connection)
    database._connection = recording  # type: ignore[assignment]
    return recording.plans


def complaints(plans: dict[str, list[str]]) -> list[str]:
    """Statements that walk a large table or sort what they find, each with the step that does."""
    scan = re.compile(r"SCAN (\w+)")
    found = []
    for sql, steps in plans.items():
        names = dict((alias, table) for table, alias in re.findall(r"(?:FROM|JOIN) (\w+) (\w+)", sql))
        for step in steps:
            walked = scan.match(step)
            table = walked and names.get(walked[1], walked[1])
            # The smallest or largest value: one step along an index that SQLite calls a scan of all the same.
            if table in LARGE and not _is_one_end(sql, step):
                found.append(f"{step}: {sql}")
            elif "TEMP B-TREE FOR ORDER BY" in step:
                found.append(f"{step}: {sql}")
    return found


def _is_one_end(sql: str, step: str) -> bool:
    return False
