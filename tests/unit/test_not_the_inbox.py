"""What is not the inbox's fault is not put down to it: a state that is busy, an archive in a folder that hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomwatchd.answering import PATIENCE, Answering
from dicomwatchd.archive import keys
from dicomwatchd.archive.stores.directory.store import DirectoryStore
from dicomwatchd.archive.stores.port import Standing
from dicomwatchd.config.archive import DirectorySettings
from tests.pieces import FakeClock, Log, Pieces
from tests.synthetic import Maker

LIMIT = 30.0


class Site:
    """Real threads at a real inbox, on a clock that can be moved on."""

    def __init__(self, root: Path, store: DirectoryStore | None = None) -> None:
        self.clock = FakeClock()
        self.inboxes = Answering(self.clock, Log(), LIMIT)
        self.pieces = Pieces(root, clock=self.clock, answering=self.inboxes, store=store)
        self.threads: list[threading.Thread] = []

    def staged(self, work: Callable[[], object]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self.threads.append(thread)
        thread.start()

    def silent_after(self, seconds: float) -> dict[int, float]:
        self.clock.advance(seconds)
        self.inboxes.tick()
        return self.inboxes.not_responding()

    def join(self) -> None:
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.pieces.close()


@pytest.mark.parametrize("writes", [False, True])
def test_a_state_that_is_busy(site: Site, writes: bool) -> None:
    """Another thread's commit takes long."""
    queue, source_id = site.pieces.queue, site.pieces.sources[0].source_id
    entered = threading.Event()

    def looks() -> None:
        with site.inboxes.at(source_id):
            entered.set()
            if writes:
                queue.quiet.nearly_quiet(source_id)
            else:
                queue.reports.status()

    with queue._database.write():
        site.staged(looks)
        assert entered.wait(60)
        end = time.monotonic() + 30
        while not site.inboxes._visits or not all(visit.elsewhere for visit in site.inboxes._visits.values()):
            assert site.threads[0].is_alive() and time.monotonic() < end
            threading.Event().wait(0.01)
        assert site.silent_after(PATIENCE * LIMIT + 1) == {}
    site.join()


def test_an_archive_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a file is the object itself is asked at the inbox, and of the archive."""
    (tmp_path / "archive").mkdir()
    store = DirectoryStore(DirectorySettings(kind="directory", path=tmp_path / "archive"))
    store.initialise()
    store.probe(keys.PROBE)
    site = Site(tmp_path, store)
    entered, released = threading.Event(), threading.Event()

    def hangs(*_: object) -> Standing:
        entered.set()
        released.wait(60)
        return Standing.APART

    Maker(seed=3).ct_series(site.pieces.inbox / "DOE^JANE", slices=2, rows=16, columns=16)
    site.pieces.settle()
    monkeypatch.setattr(DirectoryStore, "standing", hangs)
    site.staged(site.pieces.ship)
    assert entered.wait(60)
    assert site.silent_after(PATIENCE * LIMIT + 1) == {}
    released.set()
    site.join()
    site.pieces.close()
