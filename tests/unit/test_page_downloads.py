"""A study as a ZIP file, for whoever stays and whoever goes."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.routing import Route, Router

from dicomwatchd.web.pages.downloads import MOST_AT_ONCE, Downloads
from dicomwatchd.web.pages.rendering import Pages
from dicomwatchd.web.pages.words import load
from dicomwatchd.web.people import Person, Role
from tests.asgi import Answer, asked
from tests.page import Recorded
from tests.pieces import Log
from tests.synthetic import Maker
from tests.unit.memory_archive import MemoryCatalogue
from tests.unit.test_series import Shelf, shelved

READER = Person("reader", frozenset({Role.READ}))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return shelved(Maker().ct_series(tmp_path / "made", slices=3, rows=16, columns=16))


@pytest.fixture
def page(shelf: Shelf, tmp_path: Path) -> Router:
    parts = SimpleNamespace(
        store=shelf.store, catalogue=MemoryCatalogue(), audit=Recorded(), scratch=tmp_path, log=Log()
    )
    downloads = Downloads(cast(Any, parts), Pages(load(), ""))
    return Router([Route("/studies/{study}/download", downloads.download, methods=["POST"])])


def download(page: Router, shelf: Shelf, *, is_gone: bool = False) -> Answer:
    target = f"/studies/{shelf.study}/download"
    return asked(page, target, "POST", state={"person": READER}, is_gone=is_gone)


def test_it_holds_the_files(page: Router, shelf: Shelf) -> None:
    answer = download(page, shelf)
    assert answer.status == 200 and answer.torn is None
    with zipfile.ZipFile(io.BytesIO(answer.body)) as found:
        held = {found.read(name) for name in found.namelist() if name.startswith("DICOM/")}
    assert held == set(shelf.files.values())


def test_whoever_goes_before_it_begins_takes_no_seat_along(page: Router, shelf: Shelf) -> None:
    """Clicked twice: the browser drops the first one while the study is looked up. Nobody could download any more."""
    for _ in range(MOST_AT_ONCE + 1):
        gone = download(page, shelf, is_gone=True)
        assert gone.status in (0, 200)
    assert download(page, shelf).status == 200
