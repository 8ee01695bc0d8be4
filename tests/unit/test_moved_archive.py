"""The configuration names another place: what is still here, kept files included, goes there too, and nothing is
deleted on the old place's word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.archive.stores.port import Content, Destination, Receipt
from dicomwatchd.model import FileState, Uid
from dicomwatchd.pipeline.shipment import AfterArchive
from tests.pieces import Pieces
from tests.simulation.tiny import instance
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore

STUDY = Uid("1.2.1")
FILES = {f"IM{number}": instance(STUDY, "1.2.1.1", f"1.2.1.1.{number}", number) for number in range(1, 4)}
KEEP = AfterArchive(delete=False)
WEEK = 7 * 86400.0


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    """Three files of one study, archived and kept."""
    pieces = Pieces(tmp_path, after_archive=KEEP)
    for name, data in FILES.items():
        (pieces.inbox / name).write_bytes(data)
    pieces.run()
    assert set(pieces.states().values()) == {FileState.KEPT}
    yield pieces
    pieces.close()


class Forgetful(MemoryStore):
    """Says that it has taken what it is sent, and has not."""

    def put(self, key: str, content: Content) -> Receipt:
        return Receipt(key, content.digest.size_bytes, content.digest.sha256, created=True)


def move_to(pieces: Pieces, store: MemoryStore) -> None:
    store.destination = Destination("memory", "memory", "elsewhere", "")
    pieces.close()
    pieces.memory = pieces.store = store
    pieces.catalogue = MemoryCatalogue()
    pieces.start()


def test_kept_files_are_archived_at_the_new_place_too(pieces: Pieces) -> None:
    old = pieces.archived()
    move_to(pieces, MemoryStore())
    assert set(pieces.states().values()) == {FileState.READY}, "the status tells that they wait"
    pieces.run()
    assert pieces.archived() == old
    assert len(pieces.manifest(STUDY).instances) == 3
    assert set(pieces.states().values()) == {FileState.KEPT}
    assert {path.name for path in pieces.left()} == set(FILES)
    assert pieces.queue.audit.of_study(STUDY) == []


def test_once_is_enough(pieces: Pieces) -> None:
    move_to(pieces, MemoryStore())
    pieces.run()
    shipped = len(pieces.queue.reports.stats(7)["days"]), pieces.queue.reports.progress()
    pieces.restart()
    pieces.run()
    assert (len(pieces.queue.reports.stats(7)["days"]), pieces.queue.reports.progress()) == shipped


def test_back_and_forth(pieces: Pieces) -> None:
    first = pieces.memory
    move_to(pieces, MemoryStore())
    pieces.close()
    pieces.memory = pieces.store = first
    pieces.start()
    assert set(pieces.states().values()) == {FileState.READY}
    pieces.run()
    assert set(pieces.states().values()) == {FileState.KEPT}


@pytest.mark.parametrize("rule", [AfterArchive(delete=True), AfterArchive(delete=False, keep_seconds=WEEK)])
def test_nothing_goes_on_the_old_word(pieces: Pieces, rule: AfterArchive) -> None:
    """The new place takes everything and holds nothing; the files are long due."""
    pieces.after_archive = rule
    move_to(pieces, Forgetful())
    for _ in range(4):
        pieces.clock.advance(2 * WEEK)
        pieces.run(2)
    assert {path.name for path in pieces.left()} == set(FILES)
    assert pieces.queue.audit.of_study(STUDY) == []


def test_due_files_go_once_the_new_place_holds_them(pieces: Pieces) -> None:
    pieces.after_archive = AfterArchive(delete=True)
    move_to(pieces, MemoryStore())
    pieces.run()
    assert pieces.left() == []
    assert len(pieces.archived()) == 3
    assert {e.body["destination"] for e in pieces.queue.audit.of_study(STUDY) if "destination" in e.body} == {
        "memory|memory|elsewhere|"
    }


def test_a_kept_file_that_has_changed_meanwhile(pieces: Pieces) -> None:
    new = FILES["IM1"][:-8] + bytes(8)
    pieces.close()
    (pieces.inbox / "IM1").write_bytes(new)
    move_to(pieces, MemoryStore())
    pieces.run()
    pieces.require_nothing_lost(new)
    assert set(pieces.states().values()) == {FileState.KEPT}
    assert len(pieces.manifest(STUDY).instances) == 3
