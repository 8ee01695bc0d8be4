"""What verify says of stores that have ETags and versions, which the embedded archive has not."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.proof.verification import verify
from dicomwatchd.errors import OutOfReach
from tests.unit.memory_archive import SERIES, MemoryStore, archive, content


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def study(store: MemoryStore) -> Manifest:
    return archive(store, [(SERIES, f"1.2.{n}", content(n)) for n in range(3)])


def test_a_listing_that_agrees_costs_no_read(store: MemoryStore, study: Manifest) -> None:
    found = verify(store, study)
    assert found.holds and (found.held, found.read_back) == (3, 0) and store.reads == []


def test_another_etag_is_looked_into_and_may_be_harmless(store: MemoryStore, study: Manifest) -> None:
    """A store that re-encrypts an object gives it another ETag."""
    first, *others = study.instances
    found = verify(store, replace(study, instances=(replace(first, etag="0" * 32), *others)))
    assert found.holds and found.read_back == 1 and store.reads == [first.key]


def test_other_bytes_of_the_same_size_are_found_by_their_etag(store: MemoryStore, study: Manifest) -> None:
    bad = study.instances[1]
    store.versions[bad.key] = [bytes(bad.size_bytes)]
    found = verify(store, study)
    assert not found.holds and [(p.key, p.problem) for p in found.problems] == [(bad.key, "content")]
    assert (found.instances, found.held) == (3, 2)


def test_a_store_without_etags_is_judged_by_size(store: MemoryStore, study: Manifest) -> None:
    unknown = replace(study, instances=tuple(replace(item, etag=None) for item in study.instances))
    assert verify(store, unknown).read_back == 0
    store.versions[study.instances[0].key] = [b"short"]
    assert [p.problem for p in verify(store, unknown).problems] == ["size"]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("bundled", [False, True])
def test_what_lies_under_a_marker_or_a_newer_version_is_not_held(
    store: MemoryStore, study: Manifest, deep: bool, bundled: bool
) -> None:
    """Though the recorded version is still there: a rule of the bucket may end it, and nobody is served it."""
    items = tuple(replace(item, version_id="0") for item in study.instances)
    if bundled:
        tar = store.versions[items[0].key][0] + store.versions[items[1].key][0]
        key = keys.bundle(study.study_uid, hashlib.sha256(tar).hexdigest())
        store.versions[key] = [tar]
        etag = hashlib.md5(tar, usedforsecurity=False).hexdigest()
        of_bundle: dict[str, Any] = {"key": key, "object_bytes": len(tar), "etag": etag}
        items = (
            replace(items[0], offset_bytes=0, **of_bundle),
            replace(items[1], offset_bytes=items[0].size_bytes, **of_bundle),
            items[2],
        )
    versioned = replace(study, instances=items)
    assert verify(store, versioned, deep=deep).holds
    store.overwrite(items[0].key, b"newer")
    store.mark_deleted(items[2].key)
    found = verify(store, versioned, deep=deep)
    assert not found.holds and found.held == (0 if bundled else 1)
    assert {(p.sop_instance_uid, p.problem) for p in found.problems} == {
        (items[0].sop_instance_uid, "overwritten"),
        *([(items[1].sop_instance_uid, "overwritten")] if bundled else []),
        (items[2].sop_instance_uid, "hidden"),
    }
    assert found.overwritten == (items[0].key,)
    for key in (items[0].key, items[2].key):  # and once the versions below are gone, the bytes are
        store.versions[key][0] = b"gone"
    assert {p.problem for p in verify(store, versioned, deep=deep).problems} == {"size", "missing"}


def test_the_same_bytes_in_a_newer_version_are_held(store: MemoryStore, study: Manifest) -> None:
    versioned = replace(study, instances=tuple(replace(item, version_id="0") for item in study.instances))
    key = study.instances[0].key
    store.overwrite(key, store.versions[key][0])
    assert verify(store, versioned).holds and verify(store, versioned, deep=True).holds


def test_deep_reads_every_byte(store: MemoryStore, study: Manifest) -> None:
    seen: list[tuple[int, int]] = []
    found = verify(store, study, deep=True, progress=lambda files, size: seen.append((files, size)))
    assert found.holds and found.read_back == 3
    assert sorted(store.reads) == sorted(item.key for item in study.instances)
    assert [files for files, _ in seen] == [1, 2, 3] and seen[-1][1] == found.size_bytes


def test_an_object_that_the_listing_left_out_is_asked_for(
    store: MemoryStore, study: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = study.instances[0].key
    listing = store.listing
    monkeypatch.setattr(store, "listing", lambda prefix: (o for o in listing(prefix) if o.key != hidden))
    assert verify(store, study).holds
    del store.versions[hidden]
    assert [p.problem for p in verify(store, study).problems] == ["missing"]


def test_a_store_that_is_down_is_no_verdict(store: MemoryStore, study: Manifest) -> None:
    store.fault = OutOfReach("down", endpoint="s3")
    with pytest.raises(OutOfReach):
        verify(store, study)
