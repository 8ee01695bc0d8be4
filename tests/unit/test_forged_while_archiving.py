"""Manifests that somebody else has put into the archive, and the daemon: the study goes on, its files are deleted on
the daemon's own revision alone, and that lists what every honest one listed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import lineage, manifests
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.repair.rebuild import rebuild
from dicomwatchd.archive.stores.port import Capabilities, Chunk
from dicomwatchd.errors import ArchiveRefused, CredentialsRefused, Transient
from dicomwatchd.fetch import Doubts, Fetcher, look_up, plan
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.deletion import fresh
from tests.pieces import Pieces, at
from tests.simulation.tiny import instance
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore
from tests.unit.test_forged_manifests import (
    FORGED,
    Forge,
    of_a_newer_program,
    past_the_newest_with_an_image_more,
)
from tests.unit.test_forged_manifests import at as forged_at

STUDY = Uid("1.2.1")
SERIES = Uid("1.2.1.1")
DATA = [instance(STUDY, SERIES, f"{SERIES}.{number}", number) for number in range(1, 6)]
SHA256 = [hashlib.sha256(data).hexdigest() for data in DATA]
NOBODY = Doubts(lambda *_: None, lambda *_: None)


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    """Two revisions are archived, of a file each."""
    pieces = Pieces(tmp_path)
    for number in (0, 1):
        drop(pieces, number)
        pieces.run()
    assert pieces.left() == []
    yield pieces
    pieces.close()


def drop(pieces: Pieces, number: int) -> None:
    (pieces.inbox / f"IM{number}").write_bytes(DATA[number])


def honest(pieces: Pieces) -> list[Manifest]:
    return [manifests.load(pieces.store, keys.manifest(STUDY, revision)) for revision in (1, 2)]


def plant(pieces: Pieces, forged: list[tuple[str, bytes]]) -> None:
    for key, data in forged:
        assert key not in pieces.memory.versions
        pieces.memory.versions[key] = [data]


def recorded(pieces: Pieces) -> Manifest:
    """What the catalogue vouches for."""
    record = pieces.catalogue.get(STUDY)
    assert record is not None
    found = lineage.vouched_for(pieces.store, manifests.listed(pieces.store, STUDY), record)
    assert found is not None and found.record() == record
    return found


def contents(manifest: Manifest) -> set[str]:
    return {item.sha256 for item in manifest.instances}


@pytest.mark.parametrize("forge", FORGED)
def test_the_study_goes_on(pieces: Pieces, forge: Forge) -> None:
    forged = forge(honest(pieces))
    plant(pieces, forged)
    drop(pieces, 2)
    pieces.run()
    assert pieces.left() == [] and pieces.log.events("study-parked") == []
    found = recorded(pieces)
    assert found.revision == 3 + sum(keys.manifest(STUDY, n) == key for n in (3, 4) for key, _ in forged)
    assert contents(found) >= set(SHA256[:3])
    assert found.attributes == honest(pieces)[0].attributes
    assert {key for key, _ in forged} <= set(found.damaged_keys)
    told = pieces.log.events("manifest-disregarded") + pieces.log.events("manifest-unreadable")
    assert len(told) == len(forged)
    # From now on everything is accounted for, with the catalogue's word and without.
    for catalogue in (pieces.catalogue, None):
        assert contents(plan(pieces.store, catalogue, STUDY)) == contents(found)
    drop(pieces, 3)
    pieces.run()
    assert pieces.left() == [] and recorded(pieces).revision == found.revision + 1
    assert len(pieces.log.events("manifest-disregarded") + pieces.log.events("manifest-unreadable")) == len(forged)


@pytest.mark.parametrize("forge", [forge for forge in FORGED if forge is not of_a_newer_program])
def test_the_study_goes_on_with_an_empty_catalogue(pieces: Pieces, forge: Forge) -> None:
    plant(pieces, forge(honest(pieces)))
    assert isinstance(pieces.catalogue, MemoryCatalogue)
    pieces.catalogue.records.clear()
    drop(pieces, 2)
    pieces.run()
    assert pieces.left() == [] and pieces.log.events("study-parked") == []
    assert contents(recorded(pieces)) >= set(SHA256[:3])
    assert contents(plan(pieces.store, None, STUDY)) >= set(SHA256[:3])


def test_nothing_new_and_a_forged_one(pieces: Pieces) -> None:
    """The file that comes is archived already, and the forged one lists it alone: it is not what the proof rests on."""
    top = honest(pieces)[1]
    listed = tuple(item for item in top.instances if item.sha256 == SHA256[0])
    plant(pieces, [forged_at(top, 3, previous_sha256=top.sha256, instances=listed)])
    drop(pieces, 0)
    rested: list[Manifest] = []
    real = fresh.recorded

    def noting(last: fresh.Recorded, *others: object) -> fresh.Recorded:
        rested.append(last.manifest)
        return real(last, *others)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fresh, "recorded", noting)
        pieces.run()
    assert pieces.left() == []
    assert {(one.revision, contents(one) == set(SHA256[:2])) for one in rested} == {(4, True)}


def test_a_first_revision_that_was_there_before_the_study(tmp_path: Path) -> None:
    """With the highest number there is, and with number 1."""
    pieces = Pieces(tmp_path)
    drop(pieces, 0)
    pieces.run()
    first = pieces.manifest(STUDY)
    for revision in (1, keys.HIGHEST_REVISION):
        other = Pieces(tmp_path / str(revision))
        plant(other, [forged_at(first, revision, instances=(), archive_id=other.context.archive.archive_id)])
        drop(other, 1)
        other.run()
        assert other.left() == []
        assert recorded(other).revision == (2 if revision == 1 else 1)
        assert SHA256[1] in contents(plan(other.store, other.catalogue, STUDY))
        other.close()
    pieces.close()


def test_a_place_that_is_none(pieces: Pieces, tmp_path: Path) -> None:
    """It goes on from the newest, and says of an image that it lies where nothing does: the bytes decide."""
    top = honest(pieces)[1]
    moved = tuple(replace(item, key=item.key.replace(".dcm", "-7.dcm")) for item in top.instances)
    plant(pieces, [forged_at(top, 3, previous_sha256=top.sha256, instances=moved)])
    found = look_up(pieces.store, pieces.catalogue, STUDY)
    report = Fetcher(pieces.store).fetch(found.manifest, tmp_path / "out", elsewhere=found.elsewhere)
    assert report.complete and len(report.bad_objects) == 2
    drop(pieces, 2)
    pieces.run()
    assert pieces.left() == []
    assert {item.key for item in recorded(pieces).instances} >= {item.key for item in top.instances}


class Asked(MemoryStore):
    """As S3, which is asked for a version in the URL."""

    def read(self, key: str, version_id: str | None = None, **how: Any) -> Iterator[Chunk]:
        quote(version_id or "")
        return super().read(key, version_id, **how)


def test_a_place_in_a_version_that_no_request_can_name(tmp_path: Path) -> None:
    """Before: fetch and verify ended with a fault of the program, at each try."""
    store = Asked()
    pieces = Pieces(tmp_path, store=store)
    for number in (0, 1):
        drop(pieces, number)
        pieces.run()
    top = honest(pieces)[1]
    moved = tuple(replace(i, key=i.key.replace(".dcm", "-7.dcm"), version_id="\ud800") for i in top.instances)
    key, data = forged_at(top, 3, previous_sha256=top.sha256, instances=moved)
    store.versions[key] = [data]
    told: list[int] = []
    doubts = replace(NOBODY, unreadable=lambda revision, _: told.append(revision))
    for catalogue in (pieces.catalogue, None):
        found = look_up(pieces.store, catalogue, STUDY, doubts=doubts)
        report = Fetcher(pieces.store).fetch(found.manifest, tmp_path / "out", elsewhere=found.elsewhere)
        assert report.complete and told.pop() == 3
    drop(pieces, 2)
    pieces.run()
    assert pieces.left() == [] and contents(recorded(pieces)) == set(SHA256[:3])
    pieces.close()


def test_bytes_of_a_bundle_that_two_revisions_divide_otherwise(tmp_path: Path) -> None:
    """One manifest could not hold both, and could never be read again: the bytes tell which stays."""
    from dicomwatchd.pipeline.shipment import Bundling

    pieces = Pieces(tmp_path, bundling=Bundling(1 << 20, 8 << 20))
    for number in (0, 1, 2):
        drop(pieces, number)
    pieces.run()
    first = pieces.manifest(STUDY)
    assert all(item.is_in_bundle for item in first.instances)
    victim = first.instances[0]
    false = replace(victim, sop_instance_uid=Uid("1.2.9"), sha256="a" * 64, offset_bytes=victim.offset_bytes + 8)
    plant(pieces, [forged_at(first, 2, previous_sha256=None, instances=(false,))])
    told: list[int] = []
    planned = plan(pieces.store, None, STUDY, doubts=replace(NOBODY, disregarded=lambda n, _: told.append(n)))
    assert told == [2] and len(planned.instances) == 4
    drop(pieces, 3)
    pieces.run()
    assert pieces.left() == []
    assert contents(recorded(pieces)) == set(SHA256[:4])
    assert {item.content: item for item in recorded(pieces).instances}[victim.content] == victim
    pieces.close()


def test_a_place_in_a_bundle_that_is_none(tmp_path: Path) -> None:
    """A listing leads to no bundle: the place is known from the revision below alone."""
    from dicomwatchd.pipeline.shipment import Bundling

    pieces = Pieces(tmp_path, bundling=Bundling(1 << 20, 8 << 20))
    for number in (0, 1, 2):
        drop(pieces, number)
    pieces.run()
    first = pieces.manifest(STUDY)
    moved = tuple(replace(item, key=keys.bundle(STUDY, "c" * 64)) for item in first.instances)
    plant(pieces, [forged_at(first, 2, previous_sha256=first.sha256, instances=moved)])
    found = look_up(pieces.store, pieces.catalogue, STUDY)
    report = Fetcher(pieces.store).fetch(found.manifest, tmp_path / "out", elsewhere=found.elsewhere)
    assert found.manifest.revision == 2 and report.complete and len(report.bad_objects) == 3
    pieces.close()


def test_the_highest_that_lists_everything_is_the_current_one(pieces: Pieces) -> None:
    first, second = honest(pieces)
    plant(pieces, [forged_at(first, 3, previous_sha256=first.sha256, created_at="later")])
    assert plan(pieces.store, None, STUDY, doubts=NOBODY) == second


def test_a_newer_programs_with_no_word_of_the_catalogue(pieces: Pieces) -> None:
    assert isinstance(pieces.catalogue, MemoryCatalogue)
    pieces.catalogue.records.clear()
    plant(pieces, of_a_newer_program(honest(pieces)))
    drop(pieces, 2)
    pieces.run(rounds=2)
    assert [entry["code"] for entry in pieces.log.events("study-parked")] == ["newer-manifest"]


def test_a_record_that_was_rebuilt_from_disagreeing_ones_vouches_for_nothing(pieces: Pieces) -> None:
    first = honest(pieces)[0]
    plant(pieces, past_the_newest_with_an_image_more(honest(pieces)))
    assert isinstance(pieces.catalogue, MemoryCatalogue)
    pieces.catalogue.records.clear()
    pieces.catalogue.archive_id = first.archive_id
    rebuild(pieces.store, pieces.catalogue)
    assert pieces.catalogue.records[STUDY].flags == (lineage.DISPUTED,)
    drop(pieces, 2)
    pieces.run()
    assert pieces.left() == [] and contents(recorded(pieces)) >= set(SHA256[:3])
    assert recorded(pieces).flags == first.flags


def test_what_comes_later_cannot_be_passed_over_beforehand(pieces: Pieces) -> None:
    """One that counts names keys that nothing has yet: the next revision does not take them over."""
    top = honest(pieces)[1]
    future = tuple(keys.manifest(STUDY, number) for number in range(4, 20))
    plant(pieces, [forged_at(top, 3, previous_sha256=top.sha256, damaged_keys=future)])
    drop(pieces, 2)
    pieces.run()
    found = recorded(pieces)
    assert (found.revision, found.damaged_keys) == (4, ())


def test_a_thousand_of_them_cost_a_reading_each_and_one_revision(pieces: Pieces) -> None:
    top = honest(pieces)[1]
    many = [forged_at(top, revision, previous_sha256=None, instances=()) for revision in range(3, 1003)]
    plant(pieces, many)
    pieces.memory.reads.clear()
    drop(pieces, 2)
    pieces.run()
    assert pieces.left() == []
    found = recorded(pieces)
    assert found.revision == 1003
    read = sum("/manifests/" in key for key in pieces.memory.reads)
    assert read <= 2 * 1000 + 10
    assert len(pieces.log.events("manifest-disregarded")) == 20, "and the journal is not filled"
    pieces.memory.reads.clear()
    assert contents(plan(pieces.store, pieces.catalogue, STUDY)) == set(SHA256[:3])
    assert pieces.memory.reads == [found.key]


def test_what_is_too_much_is_named_and_not_read(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    top = honest(pieces)[1]
    plant(pieces, [forged_at(top, revision, previous_sha256=None, instances=()) for revision in range(3, 13)])
    monkeypatch.setattr(lineage, "LIMIT_REVISIONS", 4)
    told: list[int] = []
    doubts = Doubts(lambda revision, _: told.append(revision), lambda *_: None)
    assert contents(plan(pieces.store, pieces.catalogue, STUDY, doubts=doubts)) == set(SHA256[:2])
    assert told == list(range(12, 6, -1))
    for name in ("LIMIT_BYTES", "LIMIT_EACH_BYTES"):
        monkeypatch.setattr(lineage, "LIMIT_REVISIONS", 100)
        monkeypatch.setattr(lineage, name, 10)
        told.clear()
        pieces.memory.reads.clear()
        plan(pieces.store, pieces.catalogue, STUDY, doubts=doubts)
        assert told == list(range(12, 2, -1)) and len(pieces.memory.reads) == 1
        monkeypatch.undo()
    drop(pieces, 2)
    pieces.run()
    assert pieces.left() == [] and contents(recorded(pieces)) == set(SHA256[:3])


def test_two_daemons_and_a_forged_one_between_them(pieces: Pieces) -> None:
    """Right before the daemon's manifest comes, somebody takes its number."""
    top = honest(pieces)[1]

    def take() -> None:
        plant(pieces, [forged_at(top, 3, previous_sha256=None, instances=top.instances[:1])])

    drop(pieces, 2)
    with at(manifests, "create", take):
        pieces.run()
    assert pieces.left() == []
    assert (recorded(pieces).revision, contents(recorded(pieces))) == (4, set(SHA256[:3]))


# -- what the program itself has always done is no matter -----------------------------------------------------------


def test_repairs_damage_and_gaps_of_our_own_are_in_order(pieces: Pieces) -> None:
    store = pieces.memory
    second = keys.manifest(STUDY, 2)
    kept = store.versions[second]
    store.versions[second] = [b""]  # damaged
    drop(pieces, 2)
    pieces.run()
    store.versions[second] = kept  # and healed: 2 and 3 both go on from 1
    drop(pieces, 3)
    pieces.run()
    assert isinstance(pieces.catalogue, MemoryCatalogue)
    record = pieces.catalogue.records[STUDY]
    assert record.revision == 4
    for catalogue in (pieces.catalogue, None):
        assert contents(plan(store, catalogue, STUDY)) == set(SHA256[:4])
    store.versions[keys.manifest(STUDY, 3)] = [b"{}"]  # one below the newest is damaged by now
    assert contents(plan(store, None, STUDY)) == set(SHA256[:4])
    looked = look_up(store, pieces.catalogue, STUDY, below=True)
    assert contents(looked.manifest) == set(SHA256[:4])


def test_versions_and_repairs_of_an_instance_keep_the_line(tmp_path: Path) -> None:
    from tests.unit.memory_archive import STUDY as OTHER
    from tests.unit.memory_archive import archive, content

    store = MemoryStore()
    first = archive(store, [(SERIES, "1.2.5", content(1))])
    item: ManifestInstance = first.instances[0]
    repaired = first.merged(
        [replace(item, key=item.key.replace(".dcm", "-2.dcm"))],
        attributes={},
        series={},
        flags=(),
        damaged_keys=(item.key,),
        created_at="t",
        created_by="x",
    )
    renewed = repaired.merged(
        [replace(repaired.instances[0], version_id="7")],
        attributes={"00100030": {"vr": "DA"}},
        series={},
        flags=(),
        damaged_keys=(),
        created_at="t",
        created_by="x",
    )
    for one in (repaired, renewed):
        store.versions[one.key] = [one.to_bytes()]
    assert plan(store, None, OTHER) == renewed


def test_what_an_honest_study_of_forty_revisions_costs(tmp_path: Path) -> None:
    """With the catalogue's word the newest alone is read, as ever; without it every one."""
    from tests.unit.memory_archive import STUDY as OTHER
    from tests.unit.memory_archive import archive, content

    store = MemoryStore(capabilities=Capabilities(etag_is_content=True))
    newest = archive(store, [(SERIES, "1.2.0", content(0))])
    for number in range(1, 40):
        newest = archive(store, [(SERIES, f"1.2.{number}", content(number))], before=newest)
    catalogue = MemoryCatalogue({OTHER: newest.record()})
    store.reads.clear()
    assert plan(store, catalogue, OTHER) == newest and store.reads == [newest.key]
    store.reads.clear()
    assert plan(store, None, OTHER) == newest and len(store.reads) == 40
    store.reads.clear()
    assert look_up(store, catalogue, OTHER, below=True).manifest == newest and len(store.reads) == 40
    behind = MemoryCatalogue({OTHER: manifests.load(store, keys.manifest(OTHER, 39)).record()})
    store.reads.clear()
    assert plan(store, behind, OTHER) == newest and len(store.reads) == 2


# -- objects of somebody else's that he lets nobody read --------------------------------------------------------------


@dataclass
class Withheld(MemoryStore):
    """As a bucket where an object belongs to who created it: the archive is answered with 403."""

    withheld: set[str] = field(default_factory=set)
    refusal: ArchiveRefused | Transient = field(default_factory=lambda: ArchiveRefused("access denied"))

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
        if key in self.withheld:
            raise self.refusal
        return super().read(
            key, version_id, offset_bytes=offset_bytes, length_bytes=length_bytes, buffer=buffer, checksum=checksum
        )


def ended(pieces: Pieces) -> bool:
    return pieces.fatal is not None


@pytest.mark.parametrize("refusal", [ArchiveRefused("access denied"), CredentialsRefused("403", endpoint="store")])
def test_a_manifest_that_nobody_may_read_stops_nothing_but_itself(
    tmp_path: Path, refusal: ArchiveRefused | Transient
) -> None:
    store = Withheld(refusal=refusal)
    pieces = Pieces(tmp_path, store=store)
    first, third = keys.manifest(STUDY, 1), keys.manifest(STUDY, 3)
    store.versions[first] = [b"{}"]  # before the study is there at all
    store.withheld.add(first)
    drop(pieces, 0)
    pieces.run()
    assert not ended(pieces) and pieces.left() == []
    assert (recorded(pieces).revision, recorded(pieces).damaged_keys) == (2, (first,))
    store.versions[third] = [b"{}"]
    store.withheld.add(third)
    told: list[int] = []
    doubts = replace(NOBODY, unreadable=lambda revision, _: told.append(revision))
    for catalogue in (pieces.catalogue, None):
        assert contents(plan(store, catalogue, STUDY, doubts=doubts)) == {SHA256[0]}
    assert told == [3, 3]
    drop(pieces, 1)
    pieces.run()
    assert not ended(pieces) and pieces.left() == [] and recorded(pieces).revision == 4
    assert contents(plan(store, pieces.catalogue, STUDY)) == set(SHA256[:2])
    # What the catalogue names is the archive's own, and if that is withheld, something is wrong with the archive.
    store.withheld.add(keys.manifest(STUDY, 4))
    drop(pieces, 2)
    pieces.run(rounds=2)
    assert ended(pieces) is isinstance(refusal, ArchiveRefused) and pieces.left() != []
    with pytest.raises(type(refusal)):
        plan(store, pieces.catalogue, STUDY, doubts=doubts)
    pieces.close()


@pytest.mark.parametrize("refusal", [ArchiveRefused("access denied"), CredentialsRefused("403", endpoint="store")])
@pytest.mark.parametrize("of_bundle", [False, True])
def test_an_object_that_nobody_may_read_holds_up_its_study_alone(
    tmp_path: Path, refusal: ArchiveRefused | Transient, of_bundle: bool
) -> None:
    """What junk in a manifest's place has it look for. Left out it would be so for good, so the study waits, and says
    so; the daemon goes on, and nothing is taken for trouble with the archive."""
    store = Withheld(refusal=refusal)
    pieces = Pieces(tmp_path, store=store)
    drop(pieces, 0)
    pieces.run()
    store.versions[keys.manifest(STUDY, 2)] = [b"{}"]
    planted = keys.bundle(STUDY, "b" * 64) if of_bundle else keys.instance(STUDY, SERIES, Uid("1.2.99"), "b" * 64)
    store.versions[planted] = [b"mine"]
    store.withheld.add(planted)
    drop(pieces, 1)
    pieces.run(rounds=2)
    assert not ended(pieces) and pieces.left() != []
    [*_, told] = pieces.log.events("study-delayed")
    assert told["code"] == "unreadable-object" and told.get("endpoint") is None
    store.withheld.clear()
    del store.versions[planted]
    pieces.clock.advance(10_000)
    pieces.run()
    assert pieces.left() == [] and recorded(pieces).revision == 3
    pieces.close()


@pytest.mark.parametrize("refusal", [ArchiveRefused("access denied"), CredentialsRefused("403", endpoint="store")])
def test_a_place_that_nobody_may_read_stops_nothing(tmp_path: Path, refusal: ArchiveRefused | Transient) -> None:
    store = Withheld(refusal=refusal)
    pieces = Pieces(tmp_path, store=store)
    for number in (0, 1):
        drop(pieces, number)
        pieces.run()
    top = honest(pieces)[1]
    first = top.instances[0]
    planted = keys.instance(STUDY, SERIES, first.sop_instance_uid, first.sha256, 9)
    moved = (replace(first, key=planted), *top.instances[1:])
    forged, data = forged_at(top, 3, previous_sha256=top.sha256, instances=moved)
    store.versions |= {planted: [b"mine"], forged: [data]}
    store.withheld.add(planted)
    assert isinstance(pieces.catalogue, MemoryCatalogue)
    pieces.catalogue.records.clear()
    drop(pieces, 2)
    pieces.run()
    assert not ended(pieces) and pieces.left() == []
    assert contents(recorded(pieces)) == set(SHA256[:3])
    assert all(item.key != planted for item in recorded(pieces).instances)
    pieces.close()


def bloated(top: Manifest, how: str) -> Manifest:
    if how == "images":  # that are not there, in a revision that does not count
        number = {f"1.9.{n}": replace(top.instances[0], sop_instance_uid=Uid(f"1.9.{n}")) for n in range(50)}
        items = [
            replace(item, key=keys.instance(STUDY, SERIES, item.sop_instance_uid, item.sha256))
            for item in number.values()
        ]
        return replace(top, revision=3, previous_sha256=None, instances=tuple(items))
    long = "x" * 20_000
    changes = {
        "attributes": {"attributes": {**top.attributes, "00081030": {"vr": "LO", "Value": [long]}}},
        "flags": {"flags": (long,)},
        "damaged keys": {"damaged_keys": (long,)},
    }[how]
    return replace(top, revision=3, previous_sha256=top.sha256, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["images", "attributes", "flags", "damaged keys"])
def test_a_manifest_that_leaves_no_room_for_the_next(pieces: Pieces, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """All that it lists and the study's own would be more than one manifest may be. The study goes on from what the
    catalogue vouches for, and the planted one stays what it is, told by whoever reads it."""
    planted = bloated(honest(pieces)[1], how)
    for module, name in ((manifests, "MANIFEST_LIMIT_BYTES"), (lineage, "LIMIT_EACH_BYTES")):
        monkeypatch.setattr(module, name, len(planted.to_bytes()) + 100)
    plant(pieces, [(planted.key, planted.to_bytes())])
    for number in (2, 3):
        drop(pieces, number)
        pieces.run()
        assert pieces.left() == [] and pieces.log.events("study-parked") == []
    assert recorded(pieces).revision == 5 and contents(recorded(pieces)) == set(SHA256[:4])
    told: list[int] = []
    doubts = Doubts(lambda revision, _: told.append(revision), lambda revision, _: told.append(revision))
    found = look_up(pieces.store, pieces.catalogue, STUDY, doubts=doubts, below=True)
    assert contents(found.manifest) == set(SHA256[:4]) and (told == [3]) is (how == "images")


def test_a_record_of_another_manifest_vouches_for_none(pieces: Pieces) -> None:
    record = replace(honest(pieces)[1].record(), manifest_sha256="0" * 64)
    assert lineage.vouched_for(pieces.store, manifests.listed(pieces.store, STUDY), record) is None


def test_one_that_was_made_over_damage_counts_when_that_has_healed(pieces: Pieces) -> None:
    first, second = honest(pieces)
    later = replace(second, previous_sha256=None, damaged_keys=(first.key,))
    pieces.memory.versions[second.key] = [later.to_bytes()]
    found = lineage.trace(pieces.store, manifests.listed(pieces.store, STUDY), None)
    assert found.holds and found.current is not None and found.current.sha256 == later.sha256
