"""docs/security.md names the test of each attack: those tests are there, and no attack is without one. The tests that
docs/reliability.md and docs/compliance.md name are there, too, and so is whatever else the latter names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import get_args

from dicomwatchd.cli.app import root
from dicomwatchd.config.archive import Encryption
from tests.mutants.run import ROOT
from tests.unit.test_cli_man import commands, options_of

PAGE = (ROOT / "docs" / "security.md").read_text()
COMPLIANCE = (ROOT / "docs" / "compliance.md").read_text()
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
    for page in (PAGE, COMPLIANCE):
        assert [row for _, headings, row in rows(page) if len(row) != len(headings)] == []


# -- docs/compliance.md -----------------------------------------------------------------------------------------------


def code_of(page: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", page)


def test_each_file_and_test_that_the_page_on_laws_names_is_there() -> None:
    assert missing(COMPLIANCE) == []
    named = {
        code for code in code_of(COMPLIANCE) if re.match(r"(dicomwatchd|docs|etc|requirements|scripts|systemd)/", code)
    }
    assert len(named) > 15
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_each_command_and_option_that_the_page_on_laws_names_is_there() -> None:
    known = dict(commands(root))
    named = [code.split()[1:] for code in code_of(COMPLIANCE) if code.startswith("dicomwatchctl ")]
    assert len(named) > 20
    for words in named:
        command = known.get(" ".join(words[:2])) or known.get(words[0])
        assert command is not None, words
        assert {word for word in words if word.startswith("--")} <= options_of(command), words


def test_what_the_page_on_laws_names_of_the_template_and_the_log_is_there() -> None:
    template = (ROOT / "etc" / "aws" / "archive.yaml").read_text()
    unit = (ROOT / "systemd" / "dicomwatchd.service").read_text()
    drop_in = (ROOT / "dicomwatchd" / "unit" / "drop_in.py").read_text()
    names = {code for code in code_of(COMPLIANCE) if re.fullmatch(r"(?:[A-Z][a-z]+){2,}(?:Arn|Ids)?", code)}
    assert len(names) > 15
    assert sorted(name for name in names if not re.search(rf"\b{name}\b", template)) == []
    for setting in re.findall(r"`([A-Z]\w+=\w*)`", COMPLIANCE):
        assert setting in unit + drop_in, setting
    told = (ROOT / "docs" / "operations.md").read_text()
    events = [
        code for code in code_of(COMPLIANCE) if re.fullmatch(r"(audit|association|deletion|manifest|store)-\w+", code)
    ]
    assert len(events) > 4
    assert [event for event in events if event != "store-default" and f"| `{event}` |" not in told] == []


def anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page, flags=re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_each_link_of_the_page_on_laws_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", COMPLIANCE)
    assert len(links) > 30
    for file, anchor in links:
        target = (ROOT / "docs" / file) if file else ROOT / "docs" / "compliance.md"
        assert target.is_file(), file
        assert not anchor or anchor in anchors(target.read_text()), (file, anchor)


def test_each_safeguard_has_its_row() -> None:
    """All standards and specifications of 164.312, those of the others that the page is for, and the articles."""
    seen = {(section.split(":")[0], row[0].partition(" ")[0]) for section, _, row in rows(COMPLIANCE) if len(row) == 5}
    technical = {first for section, first in seen if section == "HIPAA" and first.startswith("(")}
    assert technical == {
        "(a)(1)", "(a)(2)(i)", "(a)(2)(ii)", "(a)(2)(iii)", "(a)(2)(iv)", "(b)", "(c)(1)", "(c)(2)", "(d)",
        "(e)(1)", "(e)(2)(i)", "(e)(2)(ii)",
    }  # fmt: skip
    articles = {first.rstrip(",") for section, first in seen if section == "GDPR"}
    assert {"5(1)(e)", "5(1)(f)", "17", "25", "28", "30", "33", *(f"32(1)({letter})" for letter in "abcd")} <= articles
    for section, _, row in rows(COMPLIANCE):
        if section.startswith(("HIPAA", "GDPR")):
            assert all(row), (section, row[0])
        if section.startswith("HIPAA"):
            assert re.search(r"\*\*required\*\*|\*\*addressable\*\*|standard|\(a\), \(b\), \(c\)", row[0]), row[0]


def test_each_way_of_encryption_has_its_row() -> None:
    modes = get_args(Encryption.model_fields["mode"].annotation)
    assert len(modes) == 3
    places = [row[0] for _, headings, row in rows(COMPLIANCE) if headings[0] == "place"]
    assert [mode for mode in modes if not any(f"mode: {mode}" in place for place in places)] == []
    assert [row[0] for _, headings, row in rows(COMPLIANCE) if headings[0] == "place" and not all(row)] == []
