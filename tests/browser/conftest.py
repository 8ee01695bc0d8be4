"""One browser, and one viewer from the registry, for a file of tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.cache import cached_viewer
from tests.browser.chromium import chromium
from tests.conftest import skip_unless_available


@pytest.fixture(scope="session")
def viewer_folder() -> Path:
    """What scripts/viewer installs."""
    skip_unless_available("browser")
    return cached_viewer()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For a file and no longer: Playwright's event loop is in the way of others in this thread."""
    skip_unless_available("browser")
    with chromium() as started:
        yield started
