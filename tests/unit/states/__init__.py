"""States as released versions of the program left them, as SQL: with something of everything in each."""

from __future__ import annotations

import sqlite3
from pathlib import Path

#: By the version of the state.
RELEASED = {int(path.stem.rpartition("-")[2]): path for path in Path(__file__).parent.glob("version-*.sql")}


def restore(version: int, state_directory: Path) -> None:
    with sqlite3.connect(state_directory / "state.db") as database:
        database.executescript(RELEASED[version].read_text(encoding="utf-8"))
    database.close()
