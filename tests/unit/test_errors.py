"""Errors are told apart by their class: nothing steers by the text of a code, which is for people."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

from dicomwatchd import errors
from dicomwatchd.errors import DicomwatchdError

ROOT = Path(__file__).parents[2]
CLASSES = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}


def test_no_error_is_raised_as_its_kind_where_it_has_a_class_of_its_own() -> None:
    """It would have the right code, and be taken for another one. In a test's stand-in, too."""
    assert list(_found("dicomwatchd", _is_of_another_class)) == []
    assert list(_found("tests", _is_of_another_class)) == []


def test_no_code_is_compared_with_a_text() -> None:
    assert list(_found("dicomwatchd", _compares_a_code)) == []


def test_both_are_noticed() -> None:
    assert _is_of_another_class(ast.parse('Permanent("no", code="no-such-object")', mode="eval").body)
    assert not _is_of_another_class(ast.parse('OutOfReach("no", code="refused")', mode="eval").body)
    assert _compares_a_code(ast.parse('error.code not in ("a", "b")', mode="eval").body)


def _found(folder: str, is_wrong: Callable[[ast.AST], bool]) -> Iterator[str]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        text = path.read_text("utf-8")
        if path != Path(__file__) and ("code=" in text or ".code" in text):
            for node in ast.walk(ast.parse(text)):
                if is_wrong(node):
                    yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def _is_of_another_class(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in CLASSES:
        return False
    kind = CLASSES[node.func.id]
    codes = [one.value.value for one in node.keywords if one.arg == "code" and isinstance(one.value, ast.Constant)]
    return any(
        other.code in codes
        for other in CLASSES.values()
        if issubclass(other, DicomwatchdError) and issubclass(other, kind) and other is not kind
    )


def _compares_a_code(node: ast.AST) -> bool:
    if not isinstance(node, ast.Compare):
        return False
    sides = [node.left, *node.comparators]
    return any(isinstance(side, ast.Attribute) and side.attr == "code" for side in sides) and any(
        isinstance(inner, ast.Constant) and isinstance(inner.value, str) for side in sides for inner in ast.walk(side)
    )
