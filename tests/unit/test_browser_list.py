"""docs/viewer.md lists what is tried in a browser: each test that is there, and no other."""

from __future__ import annotations

import re

from tests.mutants.run import ROOT
from tests.unit.test_security_page import defined

_NAMED = re.compile(r"`(tests/browser/test_\w+\.py)::(test_\w+)`")


def test_each_test_in_a_browser_is_in_the_list_and_no_other() -> None:
    listed = _NAMED.findall((ROOT / "docs" / "viewer.md").read_text())
    there = {
        (file, test)
        for file in (path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "browser").glob("test_*.py"))
        for test in defined(file)
        if test.startswith("test_")
    }
    assert set(listed) == there and len(listed) == len(there), set(listed) ^ there
