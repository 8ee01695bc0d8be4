"""At three in the morning one starts at the table "By symptom" of docs/operations.md: every alert, every problem that
`status` lists and every event that is a warning or an error leads somewhere from there; and no link leads nowhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd import doctor
from dicomwatchd.archive.fixity.findings import KINDS
from dicomwatchd.pipeline.deletion.early import STAYS_FULL
from dicomwatchd.unit.receivers import NOBODY
from tests import alerts
from tests.unit.test_security_page import anchors, cells

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TABLE = (DOCS / "operations.md").read_text().partition("\n## By symptom\n")[2].partition("\n## ")[0]
#: Where the sentences are made that `status` lists as problems.
PROBLEMS = {
    "daemon/status.py": ("status",),
    "daemon/drill_report.py": ("problems", "sentence"),
    "alarms/rounds.py": ("problems",),
    "audit/checkpoints.py": ("problem",),
    "audit/sealing.py": ("problem",),
}
#: What stands within or before another of these.
WITHIN = ("restore drill: study … ", "run dicomwatchctl verify --deep ")
#: Those that other modules have as constants, and what the store says of rules that would end the archive.
CONSTANTS = (
    doctor.EXCHANGED,
    doctor.OVERWRITES,
    NOBODY,
    STAYS_FULL,
    "a lifecycle rule of the bucket expires objects of the archive after 30 days",
    "the store says that it will expire objects of the archive, one of them tomorrow",
)


def rows() -> list[tuple[str, str]]:
    found = [cells(line) for line in TABLE.splitlines() if line.startswith("|")][2:]
    return [(seen, start) for seen, start in found]


def quoted() -> set[str]:
    return {sentence for seen, _ in rows() for sentence in re.findall(r'"([^"]+)"', seen)}


def named() -> set[str]:
    return {name for seen, _ in rows() for name in re.findall(r"`([^`]+)`", seen)}


def strings(tree: ast.AST) -> Iterator[str]:
    """Each text of the program, an f-string as what is constant in it, and "…" between."""
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "…".join(str(p.value) for p in node.values if isinstance(p, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value


def problems() -> Iterator[str]:
    for file, names in PROBLEMS.items():
        tree = ast.parse((ROOT / "dicomwatchd" / file).read_text())
        functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for name in names:
            told = ast.get_docstring(functions[name], clean=False)
            for text in strings(functions[name]):
                if " " in text.strip() and len(text) > 20 and text not in (told, *WITHIN):
                    yield text
    yield from CONSTANTS


def at_level(*levels: str) -> set[str]:
    return {
        node.args[0].value
        for path in (ROOT / "dicomwatchd").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in levels
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def test_every_alert_leads_somewhere() -> None:
    assert sorted({rule["alert"] for rule in alerts.rules()} - named()) == []


def test_every_warning_and_error_of_the_journal_leads_somewhere() -> None:
    wanted = at_level("warning", "error")
    assert len(wanted) > 60
    assert sorted(wanted - named()) == []


def test_every_problem_of_status_leads_somewhere() -> None:
    wanted = list(problems())
    assert len(wanted) > 20
    assert [text for text in wanted if not any(sentence in text for sentence in quoted())] == []


def test_what_the_table_names_is_there() -> None:
    program = [text for path in (ROOT / "dicomwatchd").rglob("*.py") for text in strings(ast.parse(path.read_text()))]
    program += [kind.reason for kind in KINDS.values()]
    assert [sentence for sentence in quoted() if not any(sentence in text for text in program)] == []
    events = at_level("info", "warning", "error")
    known = events | {rule["alert"] for rule in alerts.rules()}
    others = {"library", "status", "search", "credentials", "encryption-key", "ResourceNotFoundException"}
    assert sorted(named() - known - others) == []


def test_every_row_has_a_place_to_start_at() -> None:
    assert len(rows()) > 30
    assert [seen for seen, start in rows() if "](" not in start] == []


@pytest.mark.parametrize("page", ["operations.md", "disaster.md", "amazon.md"])
def test_each_link_of_the_page_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", (DOCS / page).read_text())
    assert len(links) > 10
    for file, anchor in links:
        if file.startswith(("http:", "https:")):
            continue
        target = DOCS / file if file else DOCS / page
        assert target.exists(), (file, anchor)
        assert not anchor or anchor in anchors(target.read_text()), (file, anchor)
