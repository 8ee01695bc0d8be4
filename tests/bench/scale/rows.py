"""One measured figure with its goal, and all of them as a Markdown table and as JSON."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """``figure`` is at most ``goal`` where there is one. ``details`` are the numbers behind the figure."""

    case: str
    what: str
    figure: float
    unit: str
    goal: float | None = None
    details: dict[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        return "reached" if self.figure <= self.goal else "NOT reached"


def markdown(rows: Sequence[Row]) -> str:
    lines = ["| case | what | figure | goal | verdict | behind it |", "|---|---|---|---|---|---|"]
    last = ""
    for row in rows:
        goal = "" if row.goal is None else f"<= {_number(row.goal)} {row.unit}".rstrip()
        behind = ", ".join(f"{name} {_number(value)}" for name, value in row.details.items())
        lines.append(
            f"| {row.case if row.case != last else ''} | {row.what} | {_number(row.figure)} {row.unit} | {goal}"
            f" | {row.verdict} | {behind} |"
        )
        last = row.case
    lines += ["", f"On {os.cpu_count()} cores, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}."]
    return "\n".join(lines)


def document(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
        },
        "rows": [
            {
                "case": row.case,
                "what": row.what,
                "figure": row.figure,
                "unit": row.unit,
                "goal": row.goal,
                "verdict": row.verdict or None,
                "details": row.details,
            }
            for row in rows
        ],
    }


def _number(value: float) -> str:
    if value == int(value) and abs(value) >= 10:
        return f"{int(value):,}"
    return f"{value:.3g}"
