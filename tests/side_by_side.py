"""Which tests may run beside which: the whole suite runs in several workers, each with servers of its own.

`scripts/test` without a path starts one worker more than there are processors, for most tests wait much of the time. A
group of tests runs in one worker, in its order: a file, as its fixtures and its figures are the whole file's, unless
it is named here.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import pytest

from tests.workers import worker

#: What is shared by several files: the figures of all that hypothesis has tried, and systemd.
_TOGETHER = {
    "tests/fuzz/": "fuzz",
    "tests/system/test_service.py": "systemd",
    "tests/system/test_servers.py": "systemd",
}
#: Files of many minutes, and by what in a test's name they come apart: at fixtures that they do not share.
_APART = {
    "tests/simulation/test_simulation.py": r"seeds\[\d+\]|rare|notices",
    "tests/system/test_faults.py": r"bundled|amazon",
    "tests/system/test_journey_s3.py": r"6_gb",
    "tests/system/test_kills.py": r"bundled|fails",
}
#: The longest first, so that no worker is left with one of them when the others have nothing more to do.
_FIRST = (
    "tests/mutants/",
    "tests/system/test_faults.py",
    "tests/system/test_journey_s3.py",
    "tests/simulation/",
    "tests/system/test_kills.py",
    "systemd",
    "tests/system/test_damaged_manifest.py",
    "tests/system/test_outages.py",
    "tests/conformance/",
    "tests/browser/",
    "tests/fuse/",
    "tests/system/",
    "fuzz",
)


def group_of(nodeid: str) -> str:
    path, _, test = nodeid.partition("::")
    for beginning, group in _TOGETHER.items():
        if path.startswith(beginning):
            return group
    found = re.search(_APART[path], test) if path in _APART else None
    return f"{path} {found[0]}" if found else path


def rank(nodeid: str) -> int:
    group = group_of(nodeid)
    return next((number for number, beginning in enumerate(_FIRST) if group.startswith(beginning)), len(_FIRST))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if worker()[1] > 1:
        items.sort(key=lambda item: rank(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As --dist loadfile, with groups in the place of files."""
    config.option.loadscopereorder = False  # else those of the most tests come first, whatever they take
    scheduler = import_module("xdist.scheduler").LoadScopeScheduling(config, log)
    scheduler._split_scope = group_of
    return scheduler
