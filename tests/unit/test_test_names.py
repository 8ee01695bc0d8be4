"""No test is named after the time at which it was found.

The workers that share the tests find them each for itself; names that differ by a second end the whole run, once in a
while."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.mutants.run import ROOT

_CLOCKS = {
    *(f"time.{name}{unit}" for name in ("time", "monotonic", "perf_counter") for unit in ("", "_ns")),
    *(
        f"{name}.{now}"
        for name in ("datetime", "datetime.datetime", "dt.datetime")
        for now in ("now", "utcnow", "today")
    ),
    *(f"{name}.today" for name in ("date", "datetime.date", "dt.date")),
}


def _when_found(node: ast.AST) -> Iterator[ast.AST]:
    """What runs while the tests of a module are found: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in (*child.decorator_list, child.args):
                yield part
                yield from _when_found(part)
        elif not isinstance(child, ast.Lambda):
            yield child
            yield from _when_found(child)


def _clocks_read(source: str) -> list[int]:
    """The lines of a module that read a clock while its tests are found."""
    return [
        node.lineno
        for node in _when_found(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in _CLOCKS
    ]


def test_no_clock_is_read_while_tests_are_found() -> None:
    sources = {path.relative_to(ROOT): path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    assert len(sources) > 300
    assert {path: lines for path, source in sources.items() if (lines := _clocks_read(source))} == {}


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import time\nNOW = int(time.time())\n", [2]),
        ("@parametrize('at', [{'iat': time.time() + 1}], ids=repr)\ndef test_it(at): ...\n", [1]),
        ("class TestIt:\n    @given(datetime.now())\n    def test_it(self): ...\n", [2]),
        ("def made(at=date.today()): ...\n", [1]),
        ("def test_it():\n    time.time()\n", []),
        ("clock = lambda: time.time()\nother = time.time\n", []),
    ],
)
def test_a_clock_is_noticed_where_it_would_name_a_test(source: str, lines: list[int]) -> None:
    assert _clocks_read(source) == lines
