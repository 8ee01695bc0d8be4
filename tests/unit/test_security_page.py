"""docs/security.md names the test of each attack: those tests are there, and no attack is without one. The tests that
docs/reliability.md names are there, too."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

from tests.mutants.run import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text()
_NAMED = re.compile(r"tests/[\w/]+\.py(?:::\w+)?")


@cache
def defined(file: str) -> frozenset[str]:
    """The functions of a test file, those of its classes too; nothing where there is no such file."""
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def missing(text: str) -> list[str]:
    """The tests that a text names and that are not there."""
    named = {match[0] for match in _NAMED.finditer(text)}
    return sorted(
        name
        for name in named
        if (parts := name.partition("::"))
        and (not defined(parts[0]) or (parts[2] and (parts[2] not in defined(parts[0]) or parts[2][:5] != "test_")))
    )


def rows(text: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """The section, the headings and the cells of each row of each table."""
    section, headings = "", list[str]()
    for line in text.splitlines():
        if line.startswith("#"):
            section = line.strip("# ")
        elif not line.startswith("|"):
            headings = []
        elif not headings:
            headings = cells(line)
        elif set(line) - set("|-: "):
            yield section, headings, cells(line)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def test_each_test_that_it_names_is_there() -> None:
    assert missing(PAGE) == []
    assert missing(
        "`tests/unit/test_security_page.py::test_of_nothing`, `tests/unit/test_none.py`, `tests/unit/uids.py::x`"
    )


def test_each_test_that_the_page_on_reliability_names_is_there() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    assert missing(page) == []
    files = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(re.findall(r"test_\w+\.py", page)) <= files


def test_each_attack_has_what_was_what_is_and_a_test() -> None:
    attacks = PAGE[PAGE.index("\n## Attacks") : PAGE.index("\n## Limits")]
    seen = list(rows(attacks))
    assert len(seen) > 20
    for section, headings, row in seen:
        assert headings == ["attack", "before", "after", "test"] and len(row) == 4, (section, row)
        assert row[0] and row[2] and _NAMED.search(row[3]), (section, row)


def test_no_row_has_more_or_fewer_cells_than_its_table() -> None:
    assert [row for _, headings, row in rows(PAGE) if len(row) != len(headings)] == []
