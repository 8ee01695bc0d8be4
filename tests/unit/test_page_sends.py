"""Sends from the page: what the journal hears of one that could not be."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from dicomwatchd.telemetry.journal import Journal, JsonLines
from dicomwatchd.web.pages.rendering import Pages
from dicomwatchd.web.pages.sends import Sending, Sends
from dicomwatchd.web.pages.words import load
from tests.synthetic import Maker
from tests.unit.memory_archive import MemoryCatalogue
from tests.unit.test_series import erased, shelved


def test_the_reason_of_an_erasure_is_not_in_the_journal(tmp_path: Path) -> None:
    shelf = shelved(Maker().ct_series(tmp_path / "made", slices=1, rows=16, columns=16))
    erased(shelf)
    stream = StringIO()
    parts = SimpleNamespace(
        store=shelf.store,
        catalogue=MemoryCatalogue(),
        destinations={"pacs": None},
        scratch=tmp_path,
        log=Journal(JsonLines(stream), strict=True),
    )
    sending = Sending("reader", shelf.study, "pacs")
    Sends(cast(Any, parts), Pages(load(), ""))._run(sending)
    assert sending.has_ended.is_set() and "was erased" in sending.trouble
    assert '"study-erased"' in stream.getvalue()
    assert "asked for" not in sending.trouble + stream.getvalue()
