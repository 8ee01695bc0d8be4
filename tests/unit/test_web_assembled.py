"""The web process' application as it is put together: every address is behind every layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from dicomwatchd.access.record import AccessRecord
from dicomwatchd.access.tokens import TokenFile
from dicomwatchd.config import loading
from dicomwatchd.series.reader import SeriesReader
from dicomwatchd.web.app import assemble
from dicomwatchd.web.audit import RecordedAccess
from dicomwatchd.web.parts import Parts
from dicomwatchd.web.process import Process
from tests.asgi import Inline, asked
from tests.pieces import FakeClock, Log
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore

ARCHIVE = {"store": {"kind": "directory", "path": "/a"}, "catalogue": {"kind": "sqlite", "path": "/a/c.db"}}
#: One of each room, and one that is nowhere.
ADDRESSES = ("/", "/access", "/dicom-web/studies", "/dicom-web/studies/1.2.3/metadata", "/uploads", "/nowhere")


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ASGIApp]:
    read = loading.parse({"archive": ARCHIVE, "web": {"tokens": True, "state": str(tmp_path), "viewer": str(tmp_path)}})
    assert read.web is not None
    clock, threads, store, catalogue = FakeClock(), Inline(), MemoryStore(), MemoryCatalogue()
    log: Any = Log()
    record = AccessRecord(tmp_path, writing=True)
    parts = Parts(
        config=read,
        web=read.web.model_copy(update={"viewer": None}),
        store=store,
        catalogue=catalogue,
        series=SeriesReader(store, catalogue),
        audit=RecordedAccess(record, clock),
        threads=threads,  # type: ignore[arg-type]
        pictures=threads,  # type: ignore[arg-type]
        clock=clock,
        log=log,
    )
    with ExitStack() as stack:
        stack.callback(record.close)
        yield assemble(parts, Process(read, read.web, log, clock)._doors(), record, stack)


def test_no_room_is_open_to_nobody(app: ASGIApp) -> None:
    for target in ADDRESSES:
        assert asked(app, target).status == 401, target
        page = asked(app, target, headers={"Accept": "text/html"})
        assert page.status == 303 and page.headers["location"].startswith("/login"), target
    assert asked(app, "/health").text == "ok\n"
    assert asked(app, "/health/x").status == 401


def test_every_answer_has_what_browsers_are_told(app: ASGIApp, tmp_path: Path) -> None:
    text = TokenFile(tmp_path).add("all", ["read", "upload", "administrate"], 0, None)
    for target in (*ADDRESSES, "/login", "/health"):
        for headers in ({}, {"Authorization": f"Bearer {text}"}):
            answer = asked(app, target, headers=headers)
            assert answer.torn is None and answer.status in (200, 204, 303, 401, 404), target
            assert "default-src 'none'" in answer.headers["content-security-policy"], target
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "public" not in answer.headers["cache-control"]


def test_no_room_is_reached_by_an_unsound_request(app: ASGIApp, tmp_path: Path) -> None:
    text = TokenFile(tmp_path).add("all", ["read", "upload", "administrate"], 0, None)
    for target in ADDRESSES:
        assert asked(app, target, headers={"Host": "evil.example.org"}).status == 421
        assert asked(app, f"{target}?{'x' * 9000}", headers={"Authorization": f"Bearer {text}"}).status == 414
