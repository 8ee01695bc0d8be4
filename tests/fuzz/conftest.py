"""Counts what hypothesis has tried, for docs/reliability.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.figures import Figures

_HERE = Path(__file__).parent
_tried: dict[str, int] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> object:
    outcome = yield
    given = _settings(item)
    if item.path.is_relative_to(_HERE) and given is not None:
        _tried[item.nodeid] = given.max_examples
    return outcome


def _settings(item: pytest.Item) -> Any:
    return getattr(getattr(item, "obj", None), "_hypothesis_internal_use_settings", None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Only when every fuzz test there is has run and passed."""
    mine = [item for item in session.items if item.path.is_relative_to(_HERE)]
    wanted = {item.nodeid for item in mine if _settings(item) is not None}
    if session.testsfailed or {item.path for item in mine} != set(_HERE.glob("test_*.py")) or wanted != _tried.keys():
        return
    Figures(
        name="fuzz",
        what="random UIDs, keys, manifests, control messages and configurations",
        tried=sum(_tried.values()),
        details={test.rpartition("::")[2]: count for test, count in sorted(_tried.items())},
    ).write()
