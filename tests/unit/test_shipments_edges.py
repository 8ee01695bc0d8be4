"""Shipments at the edge: with nothing left to ship, with a catalogue that missed a revision, with clocks that jump."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive.layout import lineage
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest, empty
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.archive.stores.port import Content, Receipt
from dicomwatchd.errors import OutOfReach, Permanent, Unarchivable
from dicomwatchd.model import Digest, StudyState, Uid
from dicomwatchd.pipeline import stages
from dicomwatchd.pipeline.deletion import fresh
from dicomwatchd.pipeline.shipment import AfterArchive
from tests.pieces import ARCHIVE_ID, Pieces, at
from tests.simulation.tiny import instance
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore, archive

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

    def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
        if self.away:
            raise OutOfReach("the catalogue does not answer", endpoint="catalogue")
        super().put(record, instead_of=instead_of)


def study_state(pieces: Pieces) -> str | None:
    shown = pieces.queue.reports.show(STUDY)
    return None if shown is None else str(shown["state"])


def test_what_is_listed_already_is_not_held_a_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = Pieces(tmp_path)
    (pieces.inbox / "IM1").write_bytes(DATA)
    pieces.run()
    added: list[int] = []
    merged = Manifest.merged

    def watched(manifest: Manifest, instances: Iterable[ManifestInstance], **rest: Any) -> Manifest:
        new = tuple(instances)
        added.append(len(new))
        return merged(manifest, new, **rest)

    monkeypatch.setattr(Manifest, "merged", watched)
    for name in ("IM2", "IM3"):
        (pieces.inbox / name).write_bytes(DATA)
    pieces.run()
    assert added and not any(added) and not list(pieces.inbox.iterdir())


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
    assert pieces.queue.claims.retry(STUDY)
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


def test_what_was_not_verified_is_not_recorded(tmp_path: Path) -> None:
    """It is tried again, and not left claimed by nobody."""
    pieces = Pieces(tmp_path)
    (pieces.inbox / "IM1").write_bytes(DATA)
    pieces.settle()

    def forget_evidence() -> None:
        with pieces.queue._database.write() as db:
            db.execute("UPDATE files SET evidence = NULL")

    with at(stages, "record", forget_evidence):
        pieces.ship()
    assert not [key for key in pieces.memory.versions if "/manifests/" in key]
    assert study_state(pieces) == StudyState.QUEUED
    pieces.run()
    assert pieces.left() == []
    pieces.close()


# -- manifests ------------------------------------------------------------------------------------------------------


def test_the_manifest_of_another_archive_is_not_added_to(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    file = pieces.inbox / "IM1"
    file.write_bytes(DATA)
    foreign = empty("another-archive", STUDY).merged(
        [],
        attributes={"00100020": {"vr": "LO", "Value": ["P1"]}},
        series={},
        flags=(),
        damaged_keys=(),
        created_at="",
        created_by="",
    )
    pieces.memory.versions[foreign.key] = [foreign.to_bytes()]
    pieces.run(rounds=3)
    assert file.read_bytes() == DATA
    assert [key for key in pieces.memory.versions if "/manifests/" in key] == [foreign.key]
    assert study_state(pieces) == StudyState.PARKED
    pieces.close()


@dataclass
class RacedStore(MemoryStore):
    """Another site creates the very revision that is about to be created, each time until ``races`` are over."""

    races: int = 1

    def put(self, key: str, content: Content) -> Receipt:
        if "/manifests/" in key and self.races:
            self.races -= 1
            number = len(self.versions)
            series = Uid(f"{STUDY}.9")
            files = [(series, f"{series}.{number}", b"from another %d" % number)]
            archive(self, files, study=STUDY, before=self._latest(), attributes={})
        return super().put(key, content)

    def _latest(self) -> Manifest:
        return lineage.current(self, STUDY) or empty(ARCHIVE_ID, STUDY)


@pytest.mark.parametrize("races", [1, 3])
def test_a_revision_that_was_taken_meanwhile_is_merged(tmp_path: Path, races: int) -> None:
    store = RacedStore(races=races)
    pieces = Pieces(tmp_path, store=store)
    (pieces.inbox / "IM1").write_bytes(DATA)
    pieces.run()
    assert pieces.left() == []
    latest = lineage.current(store, STUDY)
    assert latest is not None
    assert (latest.revision, len(latest.instances)) == (races + 1, races + 1)
    assert hashlib.sha256(DATA).hexdigest() in {item.sha256 for item in latest.instances}
    record = pieces.catalogue.get(STUDY)
    assert record == latest.record()
    pieces.close()


@dataclass
class LosingStore(MemoryStore):
    """Says yes to a manifest, and keeps nothing of it."""

    losses: int = 1

    def put(self, key: str, content: Content) -> Receipt:
        if "/manifests/" in key and self.losses:
            self.losses -= 1
            return Receipt(key, content.digest.size_bytes, content.digest.sha256, created=True)
        return super().put(key, content)


@pytest.mark.parametrize("losses", [1, 3])
def test_a_manifest_that_did_not_stay_parks_nothing(tmp_path: Path, losses: int) -> None:
    pieces = Pieces(tmp_path, store=LosingStore(losses=losses))
    file = pieces.inbox / "IM1"
    file.write_bytes(DATA)
    pieces.settle()
    pieces.ship()
    assert file.read_bytes() == DATA
    pieces.run(rounds=12)
    assert pieces.log.events("study-parked") == []
    assert pieces.left() == []
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
    assert pieces.queue.claims.next_try_at() is None
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
    with at(fresh, "recorded", lambda: pieces.clock.advance(seconds), after=True):
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


@dataclass
class InParts(MemoryStore):
    """Which sends whatever has more than 100 bytes in parts, and has them compared."""

    single_put_bytes: int = 100
    sent: list[Digest] = field(default_factory=list)

    def piece_bytes(self, size_bytes: int) -> int | None:
        return 1 << 20

    def put(self, key: str, content: Content) -> Receipt:
        if key.endswith(".dcm"):
            self.sent.append(content.digest)
        return super().put(key, content)


def test_a_large_file_is_hashed_in_the_parts_that_the_store_compares(tmp_path: Path) -> None:
    store = InParts()
    pieces = Pieces(tmp_path, store=store)
    (pieces.inbox / "IM1").write_bytes(DATA)
    pieces.run()
    [digest] = store.sent
    assert digest.pieces is not None and digest.pieces.sha256s == (hashlib.sha256(DATA).digest(),)
    assert digest.sha256 == hashlib.sha256(DATA).hexdigest()
    assert not list(pieces.inbox.iterdir())
