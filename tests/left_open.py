"""Descriptors that tests leave open. A few thousand tests run in one process: where one of them leaves many, select(),
which knows none above 1,023, fails in whatever comes after it, far from its cause and in some runs alone."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

#: Of a whole process, the connections to its servers among them; about 70 are what is usual.
MOST = 300
#: How many more are told of again, of a later test.
STEP = 100
_MOST = pytest.StashKey[int]()


def _open() -> list[str]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the listing's own
            found.append(os.readlink(entry))
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    yield
    most = item.config.stash.get(_MOST, MOST)
    if len(os.listdir("/proc/self/fd")) <= most:
        return
    gc.collect()
    found = _open()
    if len(found) > most:
        item.config.stash[_MOST] = len(found) + STEP
        kinds = Counter("".join("N" if letter.isdigit() else letter for letter in name) for name in found)
        pytest.fail(f"{len(found)} descriptors are open: {kinds.most_common(8)}", pytrace=False)
