"""Folders on FUSE for the tests here, gone when they end, whatever they have come to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuse.mounted import Mounted, skip_unless_mountable


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Mounted]:
    skip_unless_mountable()
    mounted = Mounted(tmp_path)
    try:
        yield mounted
    finally:
        mounted.unmount()
