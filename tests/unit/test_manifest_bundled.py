"""Manifests with instances in bundles: what is refused, and what holds of everything that is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.errors import Permanent
from dicomwatchd.model import Uid
from tests.unit.test_manifest import FIRST, STUDY, add, instance, json_values, sha

BUNDLE = keys.bundle(STUDY, sha("the bundle"))


def member(number: int, offset: int, *, size: int = 100, whole: int = 4096, key: str = BUNDLE) -> ManifestInstance:
    return replace(instance(number, size_bytes=size), key=key, offset_bytes=offset, object_bytes=whole)


MIXED = add(FIRST, member(11, 512), member(12, 1536), member(13, 2560, size=1000), instance(14))
MEMBERS = [number for number, item in enumerate(MIXED.instances) if item.is_in_bundle]
A, B, C = MEMBERS


def changed(*changes: tuple[int, str, Any]) -> bytes:
    raw = json.loads(MIXED.to_bytes())
    for number, name, value in changes:
        raw["instances"][number][name] = value
    return json.dumps(raw).encode()


def without(number: int, name: str) -> bytes:
    raw = json.loads(MIXED.to_bytes())
    del raw["instances"][number][name]
    return json.dumps(raw).encode()


def test_a_mixed_manifest_is_read_as_it_was_written() -> None:
    assert Manifest.from_bytes(MIXED.to_bytes()) == MIXED
    assert Manifest.from_bytes(changed()) == MIXED
    lines = MIXED.to_bytes().decode().splitlines()
    assert sum('"offset_bytes"' in line for line in lines) == 3


HOSTILE = {
    "an offset below 0": changed((A, "offset_bytes", -1)),
    "an offset that is text": changed((A, "offset_bytes", "512")),
    "an offset that is a fraction": changed((A, "offset_bytes", 512.0)),
    "an offset that is true": changed((A, "offset_bytes", True)),
    "an offset beyond the end": changed((C, "offset_bytes", 3097)),
    "far beyond the end": changed((C, "offset_bytes", 10**30)),
    "no offset": without(A, "offset_bytes"),
    "no bundle's size": without(A, "bundle_bytes"),
    "an offset alone": changed((A, "bundle_bytes", None)),
    "a bundle's size alone": changed((A, "offset_bytes", None)),
    "neither, in a bundle": changed((A, "offset_bytes", None), (A, "bundle_bytes", None)),
    "both, in an object of its own": changed((0, "offset_bytes", 0), (0, "bundle_bytes", 100)),
    "an object's size by another name": changed((0, "object_bytes", 100)),
    "a bundle's size by another name": changed((A, "object_bytes", 4096)),
    "an empty member": changed((A, "size_bytes", 0)),
    "a bundle of nothing": changed((A, "bundle_bytes", 0)),
    "a bundle beyond any store": changed((A, "bundle_bytes", 10**30)),
    "another size of the same bundle": changed((A, "bundle_bytes", 8192)),
    "two at one place": changed((A, "offset_bytes", 1536)),
    "two that overlap in a byte": changed((A, "offset_bytes", 1437)),
    "one within another": changed((A, "offset_bytes", 2700)),
    "the bundle of another study": changed((A, "key", keys.bundle(Uid("1.2.3"), sha("the bundle")))),
    "no bundle's key": changed((A, "key", f"studies/{STUDY}/bundles/x.tar")),
    "a key that climbs": changed((A, "key", f"studies/{STUDY}/bundles/../{sha('x')}.tar")),
    "a key with repair 1": changed((A, "key", BUNDLE.replace(".tar", "-1.tar"))),
    "a key with a line feed": changed((A, "key", BUNDLE + "\n")),
    "a key that is a list": changed((A, "key", [BUNDLE])),
    "a digest in capitals": changed((A, "sha256", "A" * 64)),
    "a digest cut short": changed((A, "sha256", "ab")),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_refused(data: bytes) -> None:
    with pytest.raises(Permanent) as caught:
        Manifest.from_bytes(data)
    assert caught.value.code == "bad-manifest"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (((A, "offset_bytes", 1436),), "it ends where the next begins"),
        (((C, "offset_bytes", 3096),), "up to the last byte"),
        (((A, "offset_bytes", 0),), "from the first byte"),
        (((A, "key", BUNDLE.replace(".tar", "-2.tar")), (A, "offset_bytes", 1536)), "the repair is another bundle"),
    ],
)
def test_taken(change: tuple[tuple[int, str, Any], ...], why: str) -> None:
    assert len(Manifest.from_bytes(changed(*change)).instances) == len(MIXED.instances), why


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_fuzz_of_one_value(data: st.DataObject) -> None:
    raw = json.loads(MIXED.to_bytes())
    number = data.draw(st.sampled_from(MEMBERS))
    name = data.draw(st.sampled_from(sorted(raw["instances"][number])))
    raw["instances"][number][name] = data.draw(json_values | st.integers(-5, 5000))
    _all_holds(json.dumps(raw).encode())


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.integers(-10, 5000), st.integers(-1, 3000), st.sampled_from([1000, 4096])), max_size=6))
def test_fuzz_of_places(places: list[tuple[int, int, int]]) -> None:
    """Whatever places a manifest names: taken are those that lie in their bundle and apart from each other."""
    items = tuple(member(n, offset, size=size, whole=whole) for n, (offset, size, whole) in enumerate(places))
    good = all(o >= 0 and s > 0 and o + s <= w for o, s, w in places) and len({w for _, _, w in places}) <= 1
    spans = sorted((o, s) for o, s, _ in places)
    good = good and all(o + s <= after for (o, s), (after, _) in pairwise(spans))
    assert _all_holds(replace(FIRST, instances=items).to_bytes()) is good


def _all_holds(data: bytes) -> bool:
    try:
        read = Manifest.from_bytes(data)
    except Permanent:
        return False
    taken: dict[str, set[int]] = {}
    for item in read.instances:
        if not item.is_in_bundle:
            assert item.key.startswith(keys.series_prefix(read.study_uid, item.series_uid))
            assert (item.offset_bytes, item.object_bytes) == (0, item.size_bytes)
            continue
        assert keys.bundle_sha256(item.key, read.study_uid) is not None
        assert 0 <= item.offset_bytes < item.offset_bytes + item.size_bytes <= item.object_bytes
        mine = set(range(item.offset_bytes, item.offset_bytes + item.size_bytes))
        assert not mine & taken.setdefault(item.key, set())
        taken[item.key] |= mine
    if read.study_uid == STUDY and read.revision < 99_999_999:
        following = add(read, instance(77), member(78, 0, key=keys.bundle(STUDY, sha("another"))))
        assert Manifest.from_bytes(following.to_bytes()) == following
    assert read.record().size_bytes == sum(item.size_bytes for item in read.instances)
    return True


# -- merging --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [False, True])
def test_a_repaired_bundle_takes_the_place_of_the_damaged_one(damaged: bool) -> None:
    repaired = keys.bundle(STUDY, sha("the bundle"), 2)
    new = [member(11, 512, key=repaired), member(12, 1536, key=repaired)]
    following = add(MIXED, *new, damaged_keys=(BUNDLE,) if damaged else ())
    places = {str(item.sop_instance_uid): item.key for item in following.instances}
    assert places["1.2.840.1.7.11"] == places["1.2.840.1.7.12"] == repaired
    assert places["1.2.840.1.7.13"] == BUNDLE, "nothing drops out"


def test_the_damaged_bundle_does_not_come_back() -> None:
    repaired = keys.bundle(STUDY, sha("the bundle"), 2)
    following = add(MIXED, member(11, 512, key=repaired), damaged_keys=(BUNDLE,))
    again = add(following, member(11, 512))
    assert again is following
