"""What lies in cold storage is proven without being read, is nobody's trouble but its own, and counts as held."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.layout.manifests import load
from dicomwatchd.archive.layout.variants import Grade
from dicomwatchd.archive.proof import evidence
from dicomwatchd.archive.proof.verification import verify
from dicomwatchd.archive.repair import salvage
from dicomwatchd.archive.stores.port import Capabilities, ObjectStore, Receipt, Restore, StoredObject
from dicomwatchd.errors import ColdObject, Transient
from dicomwatchd.fetch import Fetcher
from tests.pieces import Pieces
from tests.unit import test_versions
from tests.unit.memory_archive import OTHER_SERIES, SERIES, STUDY, MemoryStore, archive, content
from tests.unit.test_evidence_clauses import DATA, OneObjectStore, md5, receipt, sha256
from tests.unit.test_healed_keys import WaveringStore
from tests.unit.test_ranges import answer, answering, both_ways
from tests.unit.test_versions import EDITED, FIRST, put

GLACIER = "GLACIER"
BACK = Restore(is_under_way=False)
UNDER_WAY = Restore(is_under_way=True)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def study(store: MemoryStore) -> Manifest:
    """Four instances in two series."""
    return archive(store, [(SERIES if n < 2 else OTHER_SERIES, f"1.2.{n}", content(n)) for n in range(4)])


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


# -- what S3 says ----------------------------------------------------------------------------------------------------

IN_GLACIER = ("x-amz-storage-class: GLACIER",)
UNTIL = 'expiry-date="Fri, 01 Jan 2038 00:00:00 GMT"'
SAID: dict[str, tuple[tuple[str, ...], StoredObject]] = {
    "the usual class": ((), StoredObject("a", 1)),
    "another one that is read at once": (
        ("x-amz-storage-class: GLACIER_IR",),
        StoredObject("a", 1, storage_class="GLACIER_IR"),
    ),
    "cold": (IN_GLACIER, StoredObject("a", 1, storage_class=GLACIER, is_cold=True)),
    "colder": (
        ("x-amz-storage-class: DEEP_ARCHIVE",),
        StoredObject("a", 1, storage_class="DEEP_ARCHIVE", is_cold=True),
    ),
    "on its way back": (
        (*IN_GLACIER, 'x-amz-restore: ongoing-request="true"'),
        StoredObject("a", 1, storage_class=GLACIER, is_cold=True, restore=UNDER_WAY),
    ),
    "back": (
        (*IN_GLACIER, f'x-amz-restore: ongoing-request="false", {UNTIL}'),
        StoredObject("a", 1, storage_class=GLACIER, restore=Restore(False, 2145916800.0)),
    ),
    "back, with a date that is none": (
        (*IN_GLACIER, 'x-amz-restore: ongoing-request="false", expiry-date="soon"'),
        StoredObject("a", 1, storage_class=GLACIER, restore=BACK),
    ),
    "words that are not understood": (
        (*IN_GLACIER, "x-amz-restore: perhaps"),
        StoredObject("a", 1, storage_class=GLACIER, is_cold=True),
    ),
    "moved there by its class": (
        ("x-amz-storage-class: INTELLIGENT_TIERING", "x-amz-archive-status: ARCHIVE_ACCESS"),
        StoredObject("a", 1, storage_class="INTELLIGENT_TIERING", is_cold=True),
    ),
    "not yet moved there by its class": (
        ("x-amz-storage-class: INTELLIGENT_TIERING",),
        StoredObject("a", 1, storage_class="INTELLIGENT_TIERING"),
    ),
}


@pytest.mark.parametrize(("headers", "expected"), SAID.values(), ids=SAID.keys())
def test_a_look_at_an_object_tells_whether_it_can_be_read(
    monkeypatch: pytest.MonkeyPatch, headers: tuple[str, ...], expected: StoredObject
) -> None:
    head = answer("200 OK", b"", *headers).replace(b"Content-Length: 0", b"Content-Length: 1")
    with answering(monkeypatch, False, head) as (store, _):
        assert store.head("a") == replace(expected, etag="x")


LISTED = "".join(
    f"<Contents><Key>{key}</Key><Size>1</Size><StorageClass>{name}</StorageClass></Contents>"
    for key, name in (("a", "STANDARD"), ("b", "GLACIER"), ("c", "GLACIER_IR"), ("d", "DEEP_ARCHIVE"))
)


@both_ways
def test_a_listing_tells_by_the_class(monkeypatch: pytest.MonkeyPatch, with_fast_path: bool) -> None:
    page = f"<ListBucketResult><IsTruncated>false</IsTruncated>{LISTED}</ListBucketResult>".encode()
    with answering(monkeypatch, with_fast_path, answer("200 OK", page)) as (store, _):
        assert [(seen.storage_class, seen.is_cold) for seen in store.listing("")] == [
            (None, False),
            ("GLACIER", True),
            ("GLACIER_IR", False),
            ("DEEP_ARCHIVE", True),
        ]


@both_ways
def test_what_cannot_be_read_is_a_matter_of_that_object(monkeypatch: pytest.MonkeyPatch, with_fast_path: bool) -> None:
    body = b"<Error><Code>InvalidObjectState</Code><StorageClass>GLACIER</StorageClass></Error>"
    refused = answer("403 Forbidden", body)
    with answering(monkeypatch, with_fast_path, refused, refused) as (store, server):
        with pytest.raises(ColdObject):
            list(store.read("a"))
        assert len(server.requests) == (2 if with_fast_path else 1)


# -- the judge of evidence -------------------------------------------------------------------------------------------


@dataclass
class Frozen(OneObjectStore):
    """Its objects are in cold storage. ``is_told`` False: a listing or a HEAD does not say so."""

    is_told: bool = True

    def _seen(self, key: str) -> StoredObject | None:
        seen = super()._seen(key)
        return seen and replace(seen, is_cold=self.is_told, storage_class=GLACIER)

    def read(self, key: str, version_id: str | None = None) -> Iterator[bytes]:
        self.calls.append(("read", version_id))
        raise ColdObject("no")


def judge(store: Frozen, *receipts: Receipt, deep: bool = False) -> list[evidence.Verdict]:
    return list(evidence.examine(cast(ObjectStore, store), receipts, deep=deep))


@pytest.mark.parametrize("many", [False, True])
def test_etag_and_checksum_prove_what_is_cold_without_a_read(many: bool) -> None:
    wanted = [receipt(number) for number in range(evidence.LISTING_PAYS_FROM if many else 1)]
    for backs in (Capabilities(etag_is_content=True), Capabilities(checksum_on_head=True)):
        store = Frozen(
            DATA, backs, etag=md5(DATA), checksum=f"sha256:{sha256(DATA)}", keys=tuple(one.key for one in wanted)
        )
        assert all(verdict.holds for verdict in judge(store, *wanted))
        assert "read" not in {call for call, _ in store.calls}


@pytest.mark.parametrize("backs", [Capabilities(etag_is_content=True), Capabilities(checksum_on_head=True)])
def test_what_proves_nothing_is_not_read_back(backs: Capabilities) -> None:
    store = Frozen(DATA, backs, etag="0" * 32)
    (verdict,) = judge(store, receipt())
    assert (verdict.holds, verdict.verified_by, verdict.problem) == (False, "", "cold")
    assert "read" not in {call for call, _ in store.calls}


def test_what_turns_out_to_be_cold_when_it_is_read_proves_nothing() -> None:
    for deep in (False, True):
        store = Frozen(DATA, Capabilities(), is_told=False)
        (verdict,) = judge(store, receipt(), deep=deep)
        assert (verdict.holds, verdict.problem) == (False, "cold")
        assert [call for call, _ in store.calls].count("read") == 1


def test_a_cold_object_of_another_size_is_another_one() -> None:
    store = Frozen(DATA, Capabilities(etag_is_content=True), etag="0" * 32, said_size=len(DATA) + 1)
    (verdict,) = judge(store, receipt())
    assert (verdict.holds, verdict.problem) == (False, "size")


# -- a shipment ------------------------------------------------------------------------------------------------------


def freeze(store: MemoryStore) -> None:
    for key in store.versions:
        if keys.parse_instance(key):
            store.cold[key] = GLACIER


def test_a_file_whose_object_is_cold_is_proven_by_its_etag(tmp_path: Path) -> None:
    """It comes again, years later: its bytes are not read."""
    store = WaveringStore()  # knows the ETag of what it is sent
    pieces = Pieces(tmp_path, store=store)
    put(pieces, "A", FIRST)
    pieces.run()
    freeze(store)
    store.reads.clear()
    put(pieces, "A", FIRST)
    pieces.run()
    assert pieces.left() == [] and not store.cold.keys() & set(store.reads)
    pieces.close()


def test_a_file_whose_object_is_cold_and_unproven_waits_and_is_sent_nowhere_else(pieces: Pieces) -> None:
    pieces.memory.capabilities = Capabilities()
    put(pieces, "A", FIRST)
    pieces.run()
    freeze(pieces.memory)
    there = {key for key in pieces.memory.versions if keys.parse_instance(key)}
    put(pieces, "A", FIRST)
    pieces.run(3)
    assert pieces.left() != [] and pieces.fatal is None
    assert {key for key in pieces.memory.versions if keys.parse_instance(key)} == there
    assert "cold-storage" in {entry["code"] for entry in pieces.log.events("study-delayed")}
    pieces.memory.restores = dict.fromkeys(pieces.memory.cold, BACK)
    pieces.queue.claims.retry(test_versions.STUDY)
    pieces.run(3)
    assert pieces.left() == []


def test_a_study_whose_manifest_is_cold_says_what_to_restore(pieces: Pieces) -> None:
    put(pieces, "A", FIRST)
    pieces.run()
    manifests = [key for key in pieces.memory.versions if keys.parse_manifest(key)]
    pieces.memory.cold = dict.fromkeys(manifests, GLACIER)
    put(pieces, "B", test_versions.content(2))
    pieces.run(3)
    assert [path.name for path in pieces.left()] == ["B"] and pieces.fatal is None
    assert [entry["code"] for entry in pieces.log.events("study-parked")] == ["cold-storage"]
    with pytest.raises(ColdObject, match="a manifest of the study is in cold storage"):
        load(pieces.memory, manifests[0])
    pieces.memory.restores = dict.fromkeys(manifests, BACK)
    pieces.queue.claims.retry(test_versions.STUDY)
    pieces.run(3)
    assert pieces.left() == []


def test_a_version_in_cold_storage_is_one_that_cannot_be_compared(pieces: Pieces) -> None:
    """No trouble with the whole archive: the study goes on, and the files of that image are kept."""
    put(pieces, "A", FIRST)
    pieces.run()
    freeze(pieces.memory)
    put(pieces, "B", EDITED)
    put(pieces, "other", test_versions.content(2))
    pieces.run(3)
    assert pieces.fatal is None
    assert pieces.states() == {"B": "kept:held"} and test_versions.grades(pieces) == [Grade.CONFLICT]


def test_what_only_a_damaged_manifest_listed_is_waited_for(store: MemoryStore, study: Manifest) -> None:
    """What were left out now would be left out for good."""
    item = study.instances[0]
    store.cold[item.key] = GLACIER
    with pytest.raises(Transient):
        salvage.unlisted(store, STUDY, (), damaged=(), now="", map=map)
    store.restores[item.key] = BACK
    assert len(salvage.unlisted(store, STUDY, (), damaged=(), now="", map=map).instances) == 4


# -- verify ----------------------------------------------------------------------------------------------------------


def test_a_study_in_cold_storage_is_held_by_its_listing(store: MemoryStore, study: Manifest) -> None:
    freeze(store)
    found = verify(store, study)
    assert found.holds and (found.held, found.cold, store.reads) == (4, 0, [])


def test_a_deep_look_reads_what_is_warm_or_back(store: MemoryStore, study: Manifest) -> None:
    one, other, *_ = (item.key for item in study.instances)
    store.cold = {one: GLACIER, other: GLACIER}
    store.restores = {other: BACK}
    found = verify(store, study, deep=True)
    assert found.holds and (found.held, found.cold, found.read_back) == (4, 1, 3)


def test_a_cold_object_that_is_not_as_recorded_is_not_held(store: MemoryStore, study: Manifest) -> None:
    bad = study.instances[1].key
    freeze(store)
    store.versions[bad] = [bytes(len(store.versions[bad][0]))]
    for deep in (False, True):
        found = verify(store, study, deep=deep)
        assert not found.holds and [(p.key, p.problem) for p in found.problems] == [(bad, "cold")]


def test_a_cold_copy_of_a_listed_bundle_is_no_stray(store: MemoryStore, study: Manifest) -> None:
    one, other, *_ = study.instances
    bundle, another = keys.bundle(STUDY, "1" * 64), keys.bundle(STUDY, "2" * 64)
    items = (replace(one, key=bundle, object_bytes=9000, offset_bytes=512, etag=None), *study.instances[1:])
    store.versions[bundle] = [bytes(9000)]
    for key in (keys.bundle(STUDY, "1" * 64, 2), another):
        store.versions[key] = [bytes(9000)]
        store.cold[key] = GLACIER
    found = verify(store, replace(study, instances=items))
    assert found.holds and [entry.key for entry in found.unlisted] == [another]
    assert other.key not in store.reads


# -- fetch -----------------------------------------------------------------------------------------------------------


def test_a_cold_file_costs_itself(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    store.cold[study.instances[0].key] = GLACIER
    report = Fetcher(store, threads=2).fetch(study, tmp_path / "out")
    assert (report.fetched, [one.code for one in report.failed]) == (3, ["cold-storage"])


def test_what_is_known_to_be_cold_is_not_asked_for(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    _, second, *_ = study.instances
    Fetcher(store).fetch(study, tmp_path / "out", series={SERIES})
    (tmp_path / "out" / SERIES / f"{second.sop_instance_uid}.dcm").unlink()
    freeze(store)
    store.reads.clear()
    report = Fetcher(store).fetch(study, tmp_path / "out", cold=study.instances)
    assert (report.already_there, report.fetched, len(report.failed)) == (1, 0, 3)
    assert store.reads == [] and {one.code for one in report.failed} == {"cold-storage"}


def test_a_warm_copy_of_a_cold_object_will_do(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    item = study.instances[0]
    store.cold[item.key] = GLACIER
    copy = keys.instance(STUDY, item.series_uid, item.sop_instance_uid, item.sha256, 2)
    store.versions[copy] = list(store.versions[item.key])
    report = Fetcher(store).fetch(study, tmp_path / "out")
    assert report.complete
    path = tmp_path / "out" / item.series_uid / f"{item.sop_instance_uid}.dcm"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == item.sha256
