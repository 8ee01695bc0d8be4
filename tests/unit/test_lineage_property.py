"""Honest manifests with any set of forged ones between them: no content that an honest one lists is hidden, no place is
lost, no patient is exchanged in silence, and the daemon's next revision puts all in order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as some

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import lineage, manifests
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest, empty
from dicomwatchd.archive.repair.union import recovered
from dicomwatchd.fetch import Doubts, look_up
from dicomwatchd.model import Uid
from tests.unit.memory_archive import PATIENT, SERIES, STUDY, MemoryCatalogue, MemoryStore, content, instance

OTHER = {**PATIENT, "00100020": {"vr": "LO", "Value": ["SOMEBODY-ELSE"]}}
NUMBERS = (*range(1, 14), 700, 1500, 2600, keys.HIGHEST_REVISION)
ARCHIVE_ID = "archive-1"


def item_of(number: int) -> ManifestInstance:
    return instance(SERIES, f"1.2.{number}", content(number, 320))


@dataclass
class World:
    store: MemoryStore
    honest: list[Manifest]
    forged: list[Manifest]
    catalogue: MemoryCatalogue


def grown(before: Manifest, items: list[ManifestInstance], **changes: Any) -> Manifest:
    told: dict[str, Any] = {"attributes": PATIENT, "series": {}, "flags": (), "damaged_keys": ()}
    return before.merged(items, **{**told, **changes}, created_at=f"t{before.revision}", created_by="tests")


@some.composite
def worlds(draw: some.DrawFn) -> World:
    store = MemoryStore()
    honest: list[Manifest] = []
    current, first = empty(ARCHIVE_ID, STUDY), draw(some.sampled_from((1, 1, 1, 4)))
    for number in range(draw(some.integers(1, 4))):
        item = item_of(number)
        store.versions[item.key] = [content(number, 320)]
        items = [item]
        is_repaired = draw(some.booleans())
        if honest and is_repaired:  # the one before was damaged, and repaired
            old = current.instances[-1]
            repaired = replace(old, key=old.key.replace(".dcm", "-2.dcm"))
            store.versions[repaired.key] = store.versions[old.key]
            items.append(repaired)
        current = grown(current, items)
        if not honest:
            current = replace(current, revision=first)
        honest.append(current)
        store.versions[current.key] = [current.to_bytes()]
    forged: list[Manifest] = []
    for _ in range(draw(some.integers(0, 5))):
        revision = draw(some.sampled_from(NUMBERS))
        if keys.manifest(STUDY, revision) in store.versions:
            continue
        if draw(some.integers(0, 5)) == 0:
            store.versions[keys.manifest(STUDY, revision)] = [b"{}"]
            continue
        model = draw(some.sampled_from([*honest, *forged]))
        kept = [item for item in model.instances if draw(some.integers(0, 3))]
        if draw(some.integers(0, 3)) == 0:
            kept = [
                replace(item, key=keys.instance(STUDY, SERIES, item.sop_instance_uid, item.sha256, 9)) for item in kept
            ]
        if draw(some.integers(0, 3)) == 0:
            kept = [replace(item, size_bytes=item.size_bytes + 1, object_bytes=item.size_bytes + 1) for item in kept]
        kept += [item_of(number) for number in draw(some.lists(some.integers(20, 23), unique=True, max_size=2))]
        named = draw(some.lists(some.sampled_from(NUMBERS), unique=True, max_size=3))
        one = replace(
            model,
            revision=revision,
            previous_sha256=draw(some.sampled_from([None, "0" * 64, *(m.sha256 for m in (*honest, *forged))])),
            instances=tuple({item.content: item for item in kept}.values()),
            attributes=draw(some.sampled_from((PATIENT, PATIENT, OTHER, {}))),
            damaged_keys=tuple(keys.manifest(STUDY, number) for number in named),
            created_at=f"f{revision}",
        )
        forged.append(one)
        store.versions[one.key] = [one.to_bytes()]
    known = draw(some.sampled_from([None, *honest[-2:]]))
    return World(store, honest, forged, MemoryCatalogue({STUDY: known.record()} if known is not None else {}))


@settings(max_examples=250, deadline=None, derandomize=True)
@given(worlds(), some.booleans())
def test_nothing_honest_is_hidden(world: World, below: bool) -> None:
    told: list[int] = []
    doubts = Doubts(lambda revision, _: told.append(revision), lambda revision, _: told.append(revision))
    found = look_up(world.store, world.catalogue, STUDY, doubts=doubts, below=below)
    listed = {item.content: item for item in found.manifest.instances}
    for item in world.honest[-1].instances:
        places = (listed[item.content], *found.elsewhere.get(item.content, ()))
        assert item.place in {place.place for place in places}, "a place is lost"
    honest_name = PATIENT["00100020"]
    if not told:
        assert found.manifest.attributes.get("00100020") == honest_name, "another patient, and not a word"
        vouched = world.catalogue.records.get(STUDY)
        for one in world.forged:
            if vouched is None or below or one.revision > vouched.revision:
                assert {item.content for item in one.instances} <= listed.keys(), "left out without a word"
    if not world.forged and all(data != [b"{}"] for data in world.store.versions.values()):
        assert told == [], "an honest study is accused"
        assert found.manifest == world.honest[-1]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(worlds())
def test_the_next_revision_puts_all_in_order(world: World) -> None:
    """As the daemon makes it: readers with the catalogue's word have nothing to tell afterwards, and every honest
    content is at a place that holds it."""
    store = world.store
    listed = manifests.listed(store, STUDY)
    record = world.catalogue.records.get(STUDY)
    vouched = lineage.vouched_for(store, listed, record)
    found = lineage.trace(store, listed, vouched, archive_id=ARCHIVE_ID)
    current = found.current or empty(ARCHIVE_ID, STUDY)
    base = recovered(found, current, store, map)
    staged = [keys.manifest(STUDY, one.revision) for one in found.disregarded]
    staged += [one.key for one in found.refused]
    made = replace(
        grown(base, [item_of(50)], damaged_keys=staged),
        revision=found.free_above(max(current.revision, record.revision if record else 0)),
        previous_sha256=current.sha256 if current.revision else None,
    )
    assert made.revision < keys.HIGHEST_REVISION
    store.versions[made.key] = [made.to_bytes()]
    told: list[int] = []
    doubts = Doubts(lambda revision, _: told.append(revision), lambda revision, _: told.append(revision))
    after = look_up(store, MemoryCatalogue({STUDY: made.record()}), STUDY, doubts=doubts)
    assert after.manifest == made and told == []
    listed_now = {item.content: item for item in made.instances}
    for item in world.honest[-1].instances:
        key = listed_now[item.content].key
        assert store.versions[key][0] == content(int(Uid(item.sop_instance_uid).rpartition(".")[2]), 320)
        assert listed_now[item.content].size_bytes == 320
    assert {
        i.content for one in world.forged if one.revision > (record.revision if record else 0) for i in one.instances
    } <= {*listed_now}
