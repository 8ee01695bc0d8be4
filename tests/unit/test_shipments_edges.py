"""Shipments at the edge: with nothing left to ship, with a catalogue that missed a revision, with clocks that jump."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dicomwatchd.archive.catalogue import StudyRecord
from dicomwatchd.archive.store import Content, Receipt
from dicomwatchd.errors import OutOfReach, Permanent, Unarchivable
from dicomwatchd.model import StudyState, Uid
from tests.pieces import Pieces
from tests.simulation.tiny import instance
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore

STUDY = Uid("1.2.1")
DATA = instance(STUDY, "1.2.1.1", "1.2.1.1.1", 1)
OTHER = instance(STUDY, "1.2.1.1", "1.2.1.1.2", 2)


@dataclass
class RefusingStore(MemoryStore):
    refusal: Exception | None = None

    def put(self, key: str, content: Content) -> Receipt:
        if self.refusal is not None and key.endswith(".dcm"):
            raise self.refusal
        return super().put(key, content)


@dataclass
class AbsentCatalogue(MemoryCatalogue):
    away: bool = True

    def put(self, record: StudyRecord) -> None:
        if self.away:
            raise OutOfReach("the catalogue does not answer", endpoint="catalogue")
        super().put(record)


def study_state(pieces: Pieces) -> str | None:
    shown = pieces.queue.reports.show(STUDY)
    return None if shown is None else str(shown["state"])


def test_a_parked_study_whose_files_are_gone_is_forgotten_on_retry(tmp_path: Path) -> None:
    store = RefusingStore(refusal=Permanent("no", code="no-proof"))
    pieces = Pieces(tmp_path, store=store)
    file = pieces.inbox / "IM1"
    file.write_bytes(DATA)
    pieces.run(rounds=3)
    assert study_state(pieces) == StudyState.PARKED
    file.unlink()
    pieces.scan()
    store.refusal = None
    assert pieces.queue.shipments.retry(STUDY)
    pieces.run()
    assert study_state(pieces) is None
    assert store.versions == {}
    assert pieces.queue.reports.unfinished()["moving"] == 0
    pieces.close()


def test_a_study_none_of_whose_files_can_be_archived_leaves_no_manifest(tmp_path: Path) -> None:
    store = RefusingStore(refusal=Unarchivable("may not be read", code="unreadable"))
    pieces = Pieces(tmp_path, store=store)
    (pieces.inbox / "IM1").write_bytes(DATA)
    pieces.run(rounds=3)
    assert pieces.states() == {"IM1": "quarantined:unreadable"}
    assert study_state(pieces) is None
    assert store.versions == {}
    assert pieces.catalogue.get(STUDY) is None
    assert pieces.log.events("study-archived") == []
    pieces.close()


def test_a_catalogue_that_missed_a_revision_gets_it_though_the_files_are_gone(tmp_path: Path) -> None:
    """The manifest is in the store; then a person takes the files away before the catalogue can be reached again."""
    catalogue = AbsentCatalogue()
    pieces = Pieces(tmp_path, catalogue=catalogue)
    file = pieces.inbox / "IM1"
    file.write_bytes(DATA)
    pieces.settle()
    pieces.ship()
    assert pieces.manifest(STUDY).revision == 1
    file.unlink()
    pieces.scan()
    catalogue.away = False
    pieces.run()
    assert catalogue.records[STUDY] == pieces.manifest(STUDY).record()
    assert pieces.manifest(STUDY).revision == 1
    assert study_state(pieces) == StudyState.ARCHIVED
    pieces.close()


def test_an_archived_study_whose_late_file_is_gone_ships_nothing(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    (pieces.inbox / "IM1").write_bytes(DATA)
    pieces.run()
    (pieces.inbox / "IM2").write_bytes(OTHER)
    pieces.scan()
    pieces.clock.advance(3)
    pieces.look()
    assert study_state(pieces) == StudyState.ARRIVING
    (pieces.inbox / "IM2").unlink()
    before = dict(pieces.memory.versions)
    pieces.run()
    assert study_state(pieces) == StudyState.ARCHIVED
    assert pieces.memory.versions == before
    pieces.close()
