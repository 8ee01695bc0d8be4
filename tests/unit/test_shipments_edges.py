"""Shipments at the edge: with nothing left to ship, with a catalogue that missed a revision, with clocks that jump."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from dicomwatchd.archive.catalogue import StudyRecord
from dicomwatchd.archive.store import Content, Receipt
from dicomwatchd.errors import OutOfReach, Permanent, Unarchivable
from dicomwatchd.model import StudyState, Uid
from dicomwatchd.pipeline import stages
from dicomwatchd.pipeline.stages import AfterArchive
from tests.pieces import Pieces, at
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


# -- what is kept ---------------------------------------------------------------------------------------------------


def test_a_kept_file_goes_when_it_is_due(tmp_path: Path) -> None:
    pieces = kept(tmp_path)
    pieces.clock.advance(90)
    pieces.run(rounds=2)
    assert len(pieces.left()) == 1
    pieces.clock.advance(1000)
    pieces.run()
    assert pieces.left() == []
    pieces.close()


def test_a_kept_file_stays_when_the_rule_says_so_by_now(tmp_path: Path) -> None:
    """It was to be kept for some time; meanwhile somebody has configured that nothing is to be deleted."""
    pieces = kept(tmp_path)
    pieces.after_archive = AfterArchive(delete=False)
    pieces.clock.advance(2000)
    pieces.run()
    assert len(pieces.left()) == 1
    assert pieces.states() == {"IM1": "kept"}
    assert pieces.queue.shipments.next_try_at() is None
    pieces.close()


def kept(tmp_path: Path) -> Pieces:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False, keep_seconds=1000))
    (pieces.inbox / "IM1").write_bytes(DATA)
    pieces.run(rounds=2)
    assert pieces.states() == {"IM1": "kept"}
    return pieces


# -- clocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [10_000.0, -10_000.0])
def test_a_clock_set_between_evidence_and_proof_parks_nothing(tmp_path: Path, seconds: float) -> None:
    pieces = Pieces(tmp_path)
    (pieces.inbox / "IM1").write_bytes(DATA)
    pieces.settle()
    with at(stages, "_freshly_verified", lambda: pieces.clock.advance(seconds), after=True):
        pieces.ship()
    assert study_state(pieces) == StudyState.QUEUED
    assert len(pieces.left()) == 1
    pieces.run()
    assert pieces.left() == []
    pieces.close()


@pytest.mark.parametrize("seconds", [600.0, -600.0])
def test_evidence_that_grows_old_is_gathered_again(tmp_path: Path, seconds: float) -> None:
    """Half its lifetime has passed by the time the purge begins, or the clock says that it is of the future."""
    pieces = Pieces(tmp_path)
    (pieces.inbox / "IM1").write_bytes(DATA)
    pieces.settle()
    with at(stages, "purge", lambda: pieces.clock.advance(seconds)):
        pieces.memory.reads.clear()
        pieces.ship()
    objects = [key for key in pieces.memory.reads if key.endswith(".dcm")]
    assert len(objects) == 2  # read back after the upload, and once more
    assert pieces.left() == []
    pieces.close()


def test_an_object_that_is_lost_before_the_purge(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    (pieces.inbox / "IM1").write_bytes(DATA)
    pieces.settle()

    def lose() -> None:
        pieces.clock.advance(600)
        for key in [key for key in pieces.memory.versions if key.endswith(".dcm")]:
            del pieces.memory.versions[key]

    with at(stages, "purge", lose):
        pieces.ship()
    assert len(pieces.left()) == 1
    pieces.run()
    assert pieces.left() == []
    assert len(pieces.archived()) == 1
    pieces.close()
