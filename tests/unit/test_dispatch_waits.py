"""The dispatcher waits for what it waits for: it does not look again and again while nothing can have changed."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from dicomwatchd.archive.stores.port import Content, Receipt
from dicomwatchd.errors import ArchiveRefused, Fatal, OutOfReach
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.dispatch import Dispatcher
from dicomwatchd.pipeline.pool import InlineWorkers
from dicomwatchd.pipeline.shipment import AfterArchive
from tests.pieces import Pieces
from tests.simulation.tiny import instance
from tests.unit.memory_archive import MemoryStore

LOOKED_AT_SECONDS = 1.5


@dataclass
class Slow(MemoryStore):
    """While it is ``away`` it says so; then it lets a sender wait until it may answer."""

    away: Exception | None = None
    asked: threading.Event = field(default_factory=threading.Event)
    under_way: int = 0
    may_answer: threading.Event = field(default_factory=threading.Event)

    def put(self, key: str, content: Content) -> Receipt:
        if self.away is not None:
            raise self.away
        self.asked.set()
        self.under_way += 1
        assert self.may_answer.wait(30)
        return super().put(key, content)


def several(pieces: Pieces) -> None:
    for study in (1, 2, 3):
        uid = Uid(f"1.2.{study}")
        (pieces.inbox / f"IM{study}").write_bytes(instance(uid, f"{uid}.1", f"{uid}.1.1", study))
    pieces.settle()


class Looks:
    """How often the dispatcher asks the state when something is due."""

    def __init__(self, pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        real = pieces.queue.claims.next_try_at

        def counted(*lines: bool) -> float | None:
            self.count += 1
            return real(*lines)

        monkeypatch.setattr(pieces.queue.claims, "next_try_at", counted)

    def in_a_while(self) -> int:
        before = self.count
        time.sleep(LOOKED_AT_SECONDS)
        return self.count - before


def test_while_one_study_finds_out_whether_the_store_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Slow(away=OutOfReach("down", endpoint="x", retry_after_seconds=0.2))
    pieces = Pieces(tmp_path, store=store)
    several(pieces)
    looks = Looks(pieces, monkeypatch)
    dispatcher = Dispatcher(pieces.context, InlineWorkers().lane, 8, Random(1), lambda _: None, lambda _: None)
    stopping = threading.Event()
    thread = threading.Thread(target=dispatcher.run, args=(stopping, lambda: None))
    thread.start()
    try:
        wait_until(lambda: dispatcher.backoff.in_trouble and len(pieces.log.events("study-delayed")) >= 7)
        store.away = None
        assert store.asked.wait(30)
        assert looks.in_a_while() <= 2
        assert store.under_way == 1, "one finds it out, the others wait for its word"
        store.may_answer.set()
        began = time.monotonic()
        wait_until(lambda: not pieces.left())
        assert time.monotonic() - began < 4, "the others go as soon as the one is through, not at the next look"
    finally:
        store.may_answer.set()
        stopping.set()
        dispatcher.wake()
        thread.join(30)
        pieces.close()


def test_after_the_archive_was_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = Pieces(tmp_path, store=Slow(away=ArchiveRefused("not encrypted")))
    several(pieces)
    looks = Looks(pieces, monkeypatch)
    met: list[Fatal] = []
    dispatcher = Dispatcher(pieces.context, InlineWorkers().lane, 1, Random(1), lambda _: None, met.append)
    stopping = threading.Event()
    thread = threading.Thread(target=dispatcher.run, args=(stopping, lambda: None))
    thread.start()
    try:
        wait_until(lambda: bool(met))
        time.sleep(0.2)
        assert looks.in_a_while() <= 2
    finally:
        stopping.set()
        dispatcher.wake()
        thread.join(30)
        pieces.close()


def wait_until(condition: object, seconds: float = 30) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_kept_files_of_a_study_that_is_not_to_be_shipped(tmp_path: Path) -> None:
    """Their time of deletion has come, but their study is parked: that is no reason to look for work without end."""
    store = MemoryStore()
    pieces = Pieces(tmp_path, store=store, after_archive=AfterArchive(delete=False, keep_seconds=100.0))
    several(pieces)
    pieces.ship()
    assert pieces.queue.claims.next_try_at() is not None
    uid = Uid("1.2.1")
    (pieces.inbox / "IM9").write_bytes(instance(uid, f"{uid}.1", f"{uid}.1.9", 9))
    pieces.settle()
    claim = pieces.queue.claims.claim()
    assert claim is not None and claim.study_uid == uid
    pieces.queue.claims.park(claim, code="refused", reason="why")
    pieces.clock.advance(1000)
    pieces.ship()
    for path in pieces.left():
        path.unlink() if path.name in ("IM2", "IM3") else None
    pieces.scan()
    assert pieces.queue.claims.next_try_at() is None
    assert pieces.queue.claims.retry(uid)
    assert pieces.queue.claims.next_try_at() is not None
    pieces.close()
