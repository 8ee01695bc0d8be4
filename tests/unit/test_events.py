"""The administrator's table of events is whole: every event that the program can log, and none that it cannot."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error"}
#: Named in the table by the way, and no events.
NO_EVENTS = {"too-large", "own-object"}
#: Logged at the level that it comes with, so by no method of a level's name.
AT_ANY_LEVEL = {"library": "telemetry/foreign.py"}


def logged() -> Iterator[str]:
    for path in (ROOT / "dicomwatchd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                event = node.args[0] if node.args else None
                if isinstance(event, ast.Constant) and isinstance(event.value, str):
                    yield event.value


def told() -> set[str]:
    section = (ROOT / "docs" / "operations.md").read_text().partition("## Watching over it")[2].partition("\n## ")[0]
    first_cells = re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE)
    return {name for cell in first_cells for name in re.findall(r"`([a-z-]+)`", cell)}


def test_every_event_is_told_of() -> None:
    also = {"inbox-responding", "kept-own-object", "retried-after-upgrade"}  # in the text of others' lines
    text = (ROOT / "docs" / "operations.md").read_text()
    assert all(f"`{event}`" in text for event in also)
    assert all(f'"{event}"' in (ROOT / "dicomwatchd" / file).read_text() for event, file in AT_ANY_LEVEL.items())
    assert (set(logged()) | set(AT_ANY_LEVEL)) - also == told() - NO_EVENTS
