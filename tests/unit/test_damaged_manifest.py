"""What counts as a manifest that is damaged in the store, what never does, and what is found again without it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.layout.manifests import load
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.archive.stores.port import Capabilities, Chunk, Content, Receipt, StoredObject
from dicomwatchd.errors import (
    ColdObject,
    DicomwatchdError,
    NoSuchObject,
    OutOfReach,
    Permanent,
    RequestRefused,
    RevisionConflict,
    Transient,
)
from dicomwatchd.fetch import Doubts, plan
from dicomwatchd.model import Uid
from tests.pieces import ARCHIVE_ID, Pieces
from tests.simulation.tiny import instance
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore, archive, content

STUDY = Uid("1.2.1")
SERIES = "1.2.1.1"
DATA = [instance(STUDY, SERIES, f"{SERIES}.{number}", number) for number in range(1, 5)]
SHA256 = [hashlib.sha256(data).hexdigest() for data in DATA]
SECOND = keys.manifest(STUDY, 2)
NOBODY = Doubts(lambda *_: None, lambda *_: None)


@dataclass
class Shelf(MemoryStore):
    """Manifests may be refused, or not be there although they are listed."""

    refusal: DicomwatchdError | None = None

    def read(
        self,
        key: str,
        version_id: str | None = None,
        *,
        offset_bytes: int = 0,
        length_bytes: int | None = None,
        buffer: memoryview | None = None,
        checksum: Callable[[str], None] | None = None,
    ) -> Iterator[Chunk]:
        if self.refusal is not None and key == SECOND:
            raise self.refusal
        return super().read(
            key, version_id, offset_bytes=offset_bytes, length_bytes=length_bytes, buffer=buffer, checksum=checksum
        )


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    """Two revisions are archived: what the second lists is nowhere but in the store."""
    pieces = Pieces(tmp_path, store=Shelf())
    for number in (0, 1):
        drop(pieces, number)
        pieces.run()
    assert pieces.left() == []
    assert pieces.manifest(STUDY).revision == 2
    yield pieces
    pieces.close()


def shelf(pieces: Pieces) -> Shelf:
    assert isinstance(pieces.store, Shelf)
    return pieces.store


def drop(pieces: Pieces, number: int) -> None:
    (pieces.inbox / f"IM{number}").write_bytes(DATA[number])


def listed(pieces: Pieces) -> set[str]:
    return {item.sha256 for item in pieces.manifest(STUDY).instances}


def damage(pieces: Pieces, data: bytes = b"") -> None:
    shelf(pieces).versions[SECOND] = [data]


# -- what is trouble, and no damage ----------------------------------------------------------------------------------


def cut(key: str, count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    if key == SECOND:
        yield next(chunks)[: 100 * count]
    else:
        yield from chunks


def cut_alike(key: str, _count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same twice, and less than the store lists."""
    return iter([next(chunks)[:100]]) if key == SECOND else chunks


def empty_at_first(key: str, count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    return iter([]) if key == SECOND and count % 2 else chunks


@pytest.mark.parametrize("tampering", [cut, cut_alike, empty_at_first])
def test_what_is_damaged_on_the_way_is_not_damaged(
    pieces: Pieces, tampering: Callable[[str, int, Iterator[bytes]], Iterator[bytes]]
) -> None:
    store = shelf(pieces)
    store.reads.clear()
    store.tampering = tampering
    drop(pieces, 2)
    pieces.settle()
    pieces.ship()
    assert pieces.log.events("manifest-unreadable") == []
    assert keys.manifest(STUDY, 3) not in store.versions
    assert pieces.log.events("study-parked") == []
    store.reads.clear()
    with pytest.raises(Transient):
        plan(store, None, STUDY, doubts=NOBODY)
    store.tampering = None
    pieces.run()
    assert listed(pieces) == set(SHA256[:3])
    assert pieces.manifest(STUDY).damaged_keys == ()


@pytest.mark.parametrize(
    ("refusal", "parks"),
    [
        (OutOfReach("down", endpoint="x"), False),
        (Transient("a hiccup"), False),
        (NoSuchObject("gone since the listing"), False),
        (ColdObject("in cold storage"), True),
    ],
)
def test_what_the_store_does_not_give_is_not_damaged(pieces: Pieces, refusal: DicomwatchdError, parks: bool) -> None:
    shelf(pieces).refusal = refusal
    drop(pieces, 2)
    pieces.run(rounds=3)
    assert pieces.left() != []
    assert pieces.log.events("manifest-unreadable") == []
    assert bool(pieces.log.events("study-parked")) is parks
    with pytest.raises(Transient if isinstance(refusal, NoSuchObject) else type(refusal)):
        plan(shelf(pieces), None, STUDY, doubts=NOBODY)
    shelf(pieces).refusal = None
    pieces.queue.claims.retry(STUDY)
    pieces.run()
    assert listed(pieces) == set(SHA256[:3])


def test_a_newer_programs_manifest_is_left_to_the_newer_program(pieces: Pieces) -> None:
    data = shelf(pieces).versions[SECOND][0].replace(b"dicomwatchd-manifest/1", b"dicomwatchd-manifest/4")
    damage(pieces, data)
    drop(pieces, 2)
    pieces.settle()
    pieces.ship()
    assert [entry["code"] for entry in pieces.log.events("study-parked")] == ["newer-manifest"]
    assert keys.manifest(STUDY, 3) not in shelf(pieces).versions
    told: list[str] = []
    found = plan(shelf(pieces), None, STUDY, doubts=replace(NOBODY, unreadable=lambda _, text: told.append(text)))
    assert found.revision == 1 and "newer" in told[0]


# -- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_etag", [False, True])
@pytest.mark.parametrize("data", [b"", b"{}", b"\x00" * 500])
def test_the_study_goes_on_above_it(pieces: Pieces, data: bytes, by_etag: bool) -> None:
    shelf(pieces).capabilities = Capabilities(etag_is_content=by_etag)
    damage(pieces, data)
    drop(pieces, 2)
    pieces.run()
    assert pieces.left() == []
    found = pieces.manifest(STUDY)
    assert (found.revision, found.damaged_keys) == (3, (SECOND,))
    assert listed(pieces) == set(SHA256[:3])
    assert pieces.catalogue.get(STUDY) == found.record()
    assert shelf(pieces).versions[SECOND] == [data]
    for item in found.instances:
        assert hashlib.sha256(shelf(pieces).versions[item.key][0]).hexdigest() == item.sha256


def test_a_manifest_of_another_study_under_its_key(pieces: Pieces) -> None:
    other = archive(MemoryStore(), [(Uid("1.2.9.1"), "1.2.9.1.1", content(1))], study=Uid("1.2.9"))
    damage(pieces, other.to_bytes())
    drop(pieces, 2)
    pieces.run()
    assert listed(pieces) == set(SHA256[:3])


def test_another_archives_manifest_is_not_passed_over(pieces: Pieces) -> None:
    """It is whole: the place is wrong, not the object."""
    foreign = Manifest.from_bytes(
        shelf(pieces).versions[SECOND][0].replace(ARCHIVE_ID.encode(), ARCHIVE_ID[::-1].encode())
    )
    damage(pieces, foreign.to_bytes())
    drop(pieces, 2)
    pieces.run()
    assert [entry["code"] for entry in pieces.log.events("study-parked")] == ["foreign-manifest"]
    assert keys.manifest(STUDY, 3) not in shelf(pieces).versions


def test_several_in_a_row_and_none_that_can_be_read(pieces: Pieces) -> None:
    store = shelf(pieces)
    damage(pieces)
    store.versions[keys.manifest(STUDY, 1)] = [b"no JSON"]
    drop(pieces, 2)
    pieces.run()
    found = pieces.manifest(STUDY)
    assert (found.revision, found.previous_sha256) == (3, None)
    assert found.damaged_keys == (keys.manifest(STUDY, 1), SECOND)
    assert listed(pieces) == set(SHA256[:3])
    drop(pieces, 3)
    pieces.run()
    assert pieces.manifest(STUDY).revision == 4
    assert len(pieces.log.events("manifest-unreadable")) == 2, "what is named once is not looked at again"


def test_the_slice_alone_that_the_damaged_one_listed(pieces: Pieces) -> None:
    """Nothing new in the shipment, and still a new revision: the study is whole again."""
    damage(pieces)
    drop(pieces, 0)
    pieces.run()
    assert pieces.left() == []
    assert (pieces.manifest(STUDY).revision, listed(pieces)) == (3, set(SHA256[:2]))


def test_it_turns_bad_between_listing_and_catalogue(pieces: Pieces) -> None:
    """The catalogue has revision 2, the store none that can be read: fetch says so, whatever the catalogue knows."""
    record = pieces.catalogue.get(STUDY)
    assert record is not None
    damage(pieces)
    told: list[int] = []
    for catalogue in (MemoryCatalogue({STUDY: record}), MemoryCatalogue(), None):
        found = plan(
            shelf(pieces),
            catalogue,
            STUDY,
            doubts=replace(NOBODY, unreadable=lambda revision, _: told.append(revision)),
        )
        assert found.revision == 1
    assert told == [2, 2, 2]
    with pytest.raises(Permanent) as caught:  # whoever does not ask for less gets no less
        plan(shelf(pieces), None, STUDY)
    assert caught.value.code == "bad-manifest"
    shelf(pieces).versions[keys.manifest(STUDY, 1)] = [b""]
    with pytest.raises(Permanent) as caught:
        plan(shelf(pieces), None, STUDY, doubts=NOBODY)
    assert caught.value.code == "bad-manifest"


# -- found again -----------------------------------------------------------------------------------------------------


def test_an_object_with_other_bytes_is_not_listed_and_named(pieces: Pieces) -> None:
    store = shelf(pieces)
    [key] = [key for key in store.versions if SHA256[1] in key]
    store.versions[key] = [b"something else"]
    repair = key.replace(".dcm", "-2.dcm")
    store.versions[repair] = [DATA[1]]
    damage(pieces)
    drop(pieces, 2)
    pieces.run()
    found = pieces.manifest(STUDY)
    assert listed(pieces) == set(SHA256[:3])
    assert {item.key for item in found.instances if item.sha256 == SHA256[1]} == {repair}
    assert set(found.damaged_keys) == {SECOND, key}


def test_what_cannot_be_read_back_is_waited_for(pieces: Pieces) -> None:
    """It is the only word of that instance: to go on without it would be to forget it."""
    store = shelf(pieces)
    damage(pieces)
    [key] = [key for key in store.versions if SHA256[1] in key]

    def broken(read: str, _count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        if read == key:
            raise RequestRefused("the store has lost a block")
        return chunks

    store.tampering = broken
    drop(pieces, 2)
    pieces.settle()
    pieces.ship()
    assert keys.manifest(STUDY, 3) not in store.versions
    assert pieces.log.events("study-parked") == []
    store.tampering = None
    pieces.run()
    assert listed(pieces) == set(SHA256[:3])


def test_the_catalogues_words_are_kept(pieces: Pieces) -> None:
    record = pieces.catalogue.get(STUDY)
    assert record is not None
    damage(pieces)
    shelf(pieces).versions[keys.manifest(STUDY, 1)] = [b""]
    drop(pieces, 2)
    pieces.run()
    found = pieces.manifest(STUDY).record()
    assert found.attributes == record.attributes
    assert {one.series_uid: one.attributes for one in found.series} == {
        one.series_uid: one.attributes for one in record.series
    }
    assert found.flags == record.flags


def test_an_instance_key_and_what_is_none() -> None:
    for attempt in (1, 2, 999_999):
        key = keys.instance(STUDY, Uid("1.3"), Uid("1.4"), "a" * 64, attempt)
        assert keys.parse_instance(key) == (STUDY, Uid("1.3"), Uid("1.4"), "a" * 64)
    for other in (
        keys.manifest(STUDY, 1),
        keys.instance(STUDY, Uid("1.3"), Uid("1.4"), "a" * 64).replace("1.3", "1..3"),
        keys.instance(STUDY, Uid("1.3"), Uid("1.4"), "a" * 64).replace(".dcm", "-1.dcm"),
        keys.instance(STUDY, Uid("1.3"), Uid("1.4"), "a" * 64).replace(".dcm", "-02.dcm"),
        keys.instance(STUDY, Uid("1.3"), Uid("1.4"), "a" * 64) + "/x",
    ):
        assert keys.parse_instance(other) is None
    assert keys.parse_manifest("studies/1.2/manifests/1.json") is None


# -- overwritten -----------------------------------------------------------------------------------------------------


@dataclass
class StrictCatalogue(MemoryCatalogue):
    def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
        there = self.records.get(record.study_uid)
        if there is not None and there.revision >= record.revision and there != record:
            raise RevisionConflict("taken")
        super().put(record, instead_of=instead_of)


@dataclass
class OverwritingStore(MemoryStore):
    """Ignores If-None-Match. Right before our manifest comes, another daemon has recorded its own as that revision."""

    catalogue: MemoryCatalogue | None = None
    others: int = 1

    def put(self, key: str, content: Content) -> Receipt:
        if "/manifests/" in key and self.others:
            self.others -= 1
            files = [(Uid(f"{STUDY}.9"), f"{STUDY}.9.1", DATA[3])]
            theirs = archive(self, files, study=STUDY, attributes={}, archive_id=ARCHIVE_ID)
            assert self.catalogue is not None and theirs.key == key
            self.catalogue.put(theirs.record())
            del self.versions[key]
        return super().put(key, content)


def test_what_an_overwritten_manifest_listed_is_found_again(tmp_path: Path) -> None:
    """The other daemon has read its manifest back, recorded it, and deleted its files."""
    catalogue = StrictCatalogue()
    pieces = Pieces(tmp_path, store=OverwritingStore(catalogue=catalogue), catalogue=catalogue)
    drop(pieces, 0)
    pieces.run()
    assert pieces.left() == []
    assert listed(pieces) == {SHA256[0], SHA256[3]}
    assert catalogue.records[STUDY] == pieces.manifest(STUDY).record()
    assert [entry["revision"] for entry in pieces.log.events("catalogue-ahead")] == [1]
    pieces.close()


def test_a_catalogue_ahead_of_the_store(tmp_path: Path) -> None:
    """The store was brought back from an older copy. What it has is recorded, and no series that it lacks."""
    catalogue = StrictCatalogue()
    pieces = Pieces(tmp_path, catalogue=catalogue)
    drop(pieces, 0)
    pieces.run()
    other = Uid(f"{STUDY}.9")
    record = archive(MemoryStore(), [(other, f"{other}.1", DATA[3])], study=STUDY).record()
    catalogue.records[STUDY] = replace(record, revision=5)
    drop(pieces, 1)
    pieces.run()
    found = pieces.manifest(STUDY)
    assert found.revision == 6
    assert listed(pieces) == set(SHA256[:2])
    assert {one.series_uid for one in found.record().series} == {SERIES}
    pieces.close()


def test_a_catalogue_ahead_of_the_store_though_no_file_is_left(tmp_path: Path) -> None:
    catalogue = StrictCatalogue(fault=OutOfReach("down", endpoint="x"))
    pieces = Pieces(tmp_path, catalogue=catalogue)
    drop(pieces, 0)
    pieces.settle()
    pieces.ship()
    assert pieces.manifest(STUDY).revision == 1
    (pieces.inbox / "IM0").unlink()
    catalogue.fault = None
    catalogue.records[STUDY] = replace(pieces.manifest(STUDY).record(), revision=5)
    pieces.scan()
    pieces.run()
    assert pieces.manifest(STUDY).revision == 6
    assert catalogue.records[STUDY] == pieces.manifest(STUDY).record()
    assert pieces.queue.reports.unfinished()["moving"] == 0
    pieces.close()


class Meanwhile(MemoryCatalogue):
    """Before it first answers ``then`` happens, once."""

    then: Callable[[], object] | None = None

    def get(self, study_uid: Uid) -> StudyRecord | None:
        if self.then is not None:
            then, self.then = self.then, None
            then()
        return super().get(study_uid)


def recorded_by_another(pieces: Pieces) -> tuple[Manifest, Manifest]:
    """Another daemon puts the next revision, with an instance more, into store and catalogue; (it, the instance)."""
    theirs = archive(MemoryStore(), [(Uid(SERIES), f"{SERIES}.4", DATA[3])], study=STUDY)
    found = pieces.manifest(STUDY).merged(
        theirs.instances,
        attributes={},
        series={},
        flags=(),
        damaged_keys=(),
        created_at="2026-01-01T00:00:00.000Z",
        created_by="another daemon",
    )
    shelf(pieces).versions[found.key] = [found.to_bytes()]
    pieces.catalogue.put(found.record())
    return found, theirs


def test_another_daemon_records_the_study_between_the_listing_and_the_catalogue(tmp_path: Path) -> None:
    """The catalogue then names a revision that is not in the listing, and all the same is in the store: what comes next
    goes on from it."""
    catalogue = Meanwhile()
    pieces = Pieces(tmp_path, store=Shelf(), catalogue=catalogue)
    for number in (0, 1):
        drop(pieces, number)
        pieces.run()

    catalogue.then = lambda: recorded_by_another(pieces)
    drop(pieces, 2)
    pieces.run()
    third, fourth = (load(pieces.store, keys.manifest(STUDY, revision)) for revision in (3, 4))
    assert fourth.previous_sha256 == third.sha256
    assert not pieces.log.events("catalogue-ahead") and not pieces.log.events("manifest-disregarded")
    pieces.close()


class Late(Shelf):
    """Its listings are as old as those of a folder on a share, of which the kernel remembers what was in it; what is
    asked for by its name the server is asked for."""

    unseen: frozenset[str] = frozenset()

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        return (one for one in super().listing(prefix, after) if one.key not in self.unseen)


def test_a_listing_that_does_not_show_yet_what_another_daemon_has_recorded(tmp_path: Path) -> None:
    """What comes next goes on from it all the same: a revision that left out what that one lists would be the one that
    the catalogue names, and readers go by."""
    late = Late()
    pieces = Pieces(tmp_path, store=late)
    for number in (0, 1):
        drop(pieces, number)
        pieces.run()
    third, theirs = recorded_by_another(pieces)
    late.unseen = frozenset({third.key, *(one.key for one in theirs.instances)})
    drop(pieces, 2)
    pieces.run()
    late.unseen = frozenset()
    fourth = load(pieces.store, keys.manifest(STUDY, 4))
    assert fourth.previous_sha256 == third.sha256
    assert {one.sha256 for one in fourth.instances} >= {one.sha256 for one in theirs.instances}
    assert pieces.catalogue.get(STUDY) == fourth.record()
    assert not pieces.log.events("catalogue-ahead") and not pieces.log.events("manifest-disregarded")
    pieces.close()
