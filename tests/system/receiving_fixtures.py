"""Fixtures of tests with a receiver, to be imported. Apart from `receiving`, which benchmarks use without pytest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.receiving import Receiving
from tests.system.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, inbox={"settle_seconds": 0})
    yield site
    site.close()


@pytest.fixture
def receiving(site: Site) -> Iterator[Receiving]:
    """Of the fixture `site`, not started; import both."""
    receiving = Receiving(site)
    yield receiving
    receiving.close()
