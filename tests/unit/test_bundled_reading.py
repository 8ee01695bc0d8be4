"""Bundles read: fetched by neighbours, verified member by member, found again without a manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.bundle import Bundle, members_of
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest, empty
from dicomwatchd.archive.proof.verification import verify
from dicomwatchd.errors import OutOfReach
from dicomwatchd.fetch import Fetcher
from dicomwatchd.fetch.report import FetchReport
from dicomwatchd.model import Uid
from tests.unit.memory_archive import SERIES, STUDY, MemoryStore, content, instance

OTHER = Uid(f"{SERIES}.9")
Build = tuple[MemoryStore, Manifest, list[bytes]]


def packed(store: MemoryStore, items: list[ManifestInstance], files: list[bytes]) -> list[ManifestInstance]:
    """Puts the files into one bundle; the instances as the manifest has them then."""
    bundle = Bundle([len(data) for data in files])
    members = []
    for item, data in zip(items, files, strict=True):
        bundle.buffer(len(data))[:] = data
        members.append(bundle.add(item.series_uid, item.sop_instance_uid))
    whole = bytes(bundle.finish().data)
    key = keys.bundle(STUDY, hashlib.sha256(whole).hexdigest())
    store.versions[key] = [whole]
    etag = hashlib.md5(whole, usedforsecurity=False).hexdigest()
    return [
        replace(item, key=key, etag=etag, offset_bytes=member.offset_bytes, object_bytes=len(whole))
        for item, member in zip(items, members, strict=True)
    ]


@pytest.fixture
def built() -> Build:
    """Ten instances of two series in two bundles, and two objects of their own."""
    store = MemoryStore()
    files = [content(number, 2500 + number) for number in range(12)]
    items = [
        instance(SERIES if number < 7 else OTHER, f"{SERIES}.{number:02}", data) for number, data in enumerate(files)
    ]
    listed = packed(store, items[:6], files[:6]) + packed(store, items[6:10], files[6:10]) + items[10:]
    for item, data in zip(items[10:], files[10:], strict=True):
        store.versions[item.key] = [data]
    manifest = empty("archive-1", STUDY).merged(
        listed, attributes={}, series={}, flags=(), damaged_keys=(), created_at="", created_by="tests"
    )
    store.versions[manifest.key] = [manifest.to_bytes()]
    return store, Manifest.from_bytes(manifest.to_bytes()), files


def fetch(store: MemoryStore, manifest: Manifest, target: Path, **options: Any) -> FetchReport:
    return Fetcher(store, threads=3, sleep=lambda _: None).fetch(manifest, target, **options)


def there(target: Path) -> list[bytes]:
    assert not list(target.rglob(".dicomwatchctl*"))
    return sorted(path.read_bytes() for path in target.rglob("*.dcm"))


def bundle_of(manifest: Manifest, number: int) -> str:
    return manifest.instances[number].key


def flip(store: MemoryStore, item: ManifestInstance) -> None:
    at = item.offset_bytes + 7
    data = store.versions[item.key][0]
    store.versions[item.key] = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]]


# -- fetch ----------------------------------------------------------------------------------------------------------


def test_neighbours_come_in_one_read(built: Build, tmp_path: Path) -> None:
    store, manifest, files = built
    report = fetch(store, manifest, tmp_path)
    assert report.complete and report.fetched == 12 and report.fetched_bytes == sum(map(len, files))
    assert there(tmp_path) == sorted(files)
    assert len(store.reads) == 4


def test_a_series_alone(built: Build, tmp_path: Path) -> None:
    store, manifest, files = built
    report = fetch(store, manifest, tmp_path, series=[OTHER])
    assert report.complete and report.fetched == 5
    assert there(tmp_path) == sorted(files[7:])


def test_what_is_there_already_is_not_read_again(built: Build, tmp_path: Path) -> None:
    store, manifest, files = built
    fetch(store, manifest, tmp_path)
    store.reads.clear()
    gone = sorted(tmp_path.rglob("*.dcm"))[2:4]
    for path in gone:
        path.unlink()
    progress: list[int] = []
    report = fetch(store, manifest, tmp_path, progress=lambda p: progress.append(p.bytes_done))
    assert (report.complete, report.fetched, report.already_there) == (True, 2, 10)
    assert len(store.reads) == 1
    assert there(tmp_path) == sorted(files)
    assert max(progress) == sum(map(len, files)) == progress[-1]


def test_one_damaged_member_does_not_take_the_others_with_it(built: Build, tmp_path: Path) -> None:
    store, manifest, files = built
    flip(store, manifest.instances[2])
    progress: list[int] = []
    report = fetch(store, manifest, tmp_path, progress=lambda p: progress.append(p.bytes_done))
    assert not report.complete and report.fetched == 11
    [failure] = report.failed
    assert (failure.code, failure.sop_instance_uid) == ("bad-object", manifest.instances[2].sop_instance_uid)
    assert there(tmp_path) == sorted(data for data in files if data != files[2])
    assert progress[-1] == sum(map(len, files)) - len(files[2])


def _repaired_bundle(store: MemoryStore, item: ManifestInstance, whole: bytes) -> None:
    digest = keys.bundle_sha256(item.key, STUDY)
    assert digest is not None
    store.versions[keys.bundle(STUDY, digest, 2)] = [whole]


def _own_object(store: MemoryStore, item: ManifestInstance, whole: bytes) -> None:
    assert item.is_in_bundle
    data = whole[item.offset_bytes : item.offset_bytes + item.size_bytes]
    store.versions[keys.instance(STUDY, item.series_uid, item.sop_instance_uid, item.sha256)] = [data]


@pytest.mark.parametrize("elsewhere", [_repaired_bundle, _own_object])
@pytest.mark.parametrize("lost", [False, True])
def test_the_bytes_are_found_elsewhere(
    built: Build, tmp_path: Path, elsewhere: Callable[[MemoryStore, ManifestInstance, bytes], None], lost: bool
) -> None:
    store, manifest, files = built
    whole = store.versions[bundle_of(manifest, 2)][0]
    for item in manifest.instances[:6] if lost else manifest.instances[2:3]:
        elsewhere(store, item, whole)
    flip(store, manifest.instances[2])
    if lost:
        del store.versions[bundle_of(manifest, 2)]
    report = fetch(store, manifest, tmp_path)
    assert report.complete and len(report.bad_objects) == (6 if lost else 1)
    assert there(tmp_path) == sorted(files)


@pytest.mark.parametrize("at", [0, 1, 3, 9])
def test_a_read_that_breaks_off_is_gone_on_with(built: Build, tmp_path: Path, at: int) -> None:
    store, manifest, files = built
    broken: list[str] = []

    def tampering(key: str, count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for number, chunk in enumerate(chunks):
            if number == at and count == 1:
                broken.append(key)
                raise OutOfReach("broke off", endpoint="store")
            yield chunk

    store.tampering = tampering
    report = fetch(store, manifest, tmp_path)
    assert report.complete and broken
    assert there(tmp_path) == sorted(files)


@pytest.mark.parametrize(
    "change", [lambda c: c[:-1], lambda c: c + b"x", lambda c: bytes(len(c)), lambda _: b"", lambda c: c[1:]]
)
def test_whatever_comes_in_nothing_wrong_gets_a_name(
    built: Build, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    store, manifest, files = built

    def tampering(_key: str, count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for number, chunk in enumerate(chunks):
            yield change(chunk) if number == count % 3 else chunk

    store.tampering = tampering
    fetch(store, manifest, tmp_path)
    assert all(data in files for data in there(tmp_path))


def test_what_stands_in_the_way_is_reported_and_left(built: Build, tmp_path: Path) -> None:
    store, manifest, files = built
    item = manifest.instances[3]
    (tmp_path / SERIES).mkdir()
    (tmp_path / SERIES / f"{item.sop_instance_uid}.dcm").write_bytes(b"mine")
    report = fetch(store, manifest, tmp_path)
    assert [failure.code for failure in report.failed] == ["target-occupied"]
    assert there(tmp_path) == sorted([*(data for data in files if data != files[3]), b"mine"])


# -- verify ---------------------------------------------------------------------------------------------------------


def test_verify_goes_by_the_listing_of_the_bundle(built: Build) -> None:
    store, manifest, files = built
    found = verify(store, manifest)
    assert (found.holds, found.held, found.read_back, found.unrecorded) == (True, 12, 0, 0)
    assert found.size_bytes == sum(map(len, files))
    assert store.reads == []


def test_verify_deep_reads_each_bundle_once(built: Build) -> None:
    store, manifest, _ = built
    settled: list[int] = []
    found = verify(store, manifest, deep=True, progress=lambda _, size: settled.append(size))
    assert (found.holds, found.read_back) == (True, 12)
    assert len(store.reads) == 4
    assert settled[-1] == found.size_bytes


@pytest.mark.parametrize("deep", [False, True])
def test_verify_names_the_member_that_is_damaged(built: Build, deep: bool) -> None:
    store, manifest, _ = built
    flip(store, manifest.instances[4])
    found = verify(store, manifest, deep=deep)
    [problem] = found.problems
    assert (problem.problem, problem.sop_instance_uid) == ("content", manifest.instances[4].sop_instance_uid)
    assert found.held == 11 and not found.holds


@pytest.mark.parametrize("deep", [False, True])
def test_verify_of_a_bundle_that_is_cut_off_or_gone(built: Build, deep: bool) -> None:
    store, manifest, _ = built
    whole = store.versions[bundle_of(manifest, 0)][0]
    cut = manifest.instances[3].offset_bytes + 5
    store.versions[bundle_of(manifest, 0)] = [whole[:cut]]
    found = verify(store, manifest, deep=deep)
    assert [p.problem for p in found.problems] == ["size"] * 3 and found.held == 9
    del store.versions[bundle_of(manifest, 0)]
    found = verify(store, manifest, deep=deep)
    assert [p.problem for p in found.problems] == ["missing"] * 6


def test_verify_deep_looks_at_places_too(built: Build) -> None:
    """The bundle is whole; the manifest says that a member is where another is."""
    store, manifest, _ = built
    wrong = replace(manifest.instances[0], offset_bytes=manifest.instances[0].offset_bytes + 1)
    lying = replace(manifest, instances=(wrong, *manifest.instances[1:]))
    assert [p.problem for p in verify(store, lying, deep=True).problems] == ["content"]


def test_verify_counts_bundles_of_no_manifest(built: Build) -> None:
    store, manifest, _ = built
    store.versions[keys.bundle(STUDY, "1" * 64)] = [b"x"]
    store.versions[keys.instance(STUDY, SERIES, Uid("1.2.3"), "1" * 64)] = [b"x"]
    assert verify(store, manifest).unrecorded == 2


def test_a_bundle_damaged_on_the_way_is_read_twice(built: Build) -> None:
    store, manifest, _ = built

    def tampering(_key: str, count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        return (bytes(len(chunk)) if count == 1 else chunk for chunk in chunks)

    store.tampering = tampering
    assert verify(store, manifest, deep=True).holds


# -- headers --------------------------------------------------------------------------------------------------------


def test_the_headers_tell_what_the_manifest_does(built: Build) -> None:
    store, manifest, _ = built
    of_bundle = [item for item in manifest.instances if item.key == bundle_of(manifest, 0)]
    found = members_of(store.versions[bundle_of(manifest, 0)][0])
    assert [(m.series_uid, m.sop_instance_uid, m.digest.sha256, m.offset_bytes) for m in found] == [
        (i.series_uid, i.sop_instance_uid, i.sha256, i.offset_bytes) for i in of_bundle
    ]


@pytest.mark.parametrize("junk", [b"", b"x" * 1024, b"\0" * 1024])
def test_what_is_no_bundle_has_no_members(junk: bytes) -> None:
    try:
        assert members_of(junk) == []
    except ValueError:
        return


def test_the_same_members_make_the_same_bundle() -> None:
    store = MemoryStore()
    files = [content(number) for number in range(3)]
    items = [instance(SERIES, f"{SERIES}.{number}", data) for number, data in enumerate(files)]
    assert packed(store, items, files) == packed(store, items, files)
    assert len(store.versions) == 1


def test_a_manifest_with_bundles_is_not_for_a_version_that_knows_none(built: Build) -> None:
    _, manifest, _ = built
    assert manifest.to_bytes().startswith(b'{"archive_id": "archive-1"')
    assert b'"format": "dicomwatchd-manifest/2"' in manifest.to_bytes()
    private_name = replace(manifest, instances=manifest.instances[10:])
    assert b'"format": "dicomwatchd-manifest/1"' in private_name.to_bytes()
    assert b"offset_bytes" not in private_name.to_bytes()
    for text, old, new in (
        (manifest.to_bytes(), b"manifest/2", b"manifest/1"),
        (private_name.to_bytes(), b"manifest/1", b"manifest/2"),
    ):
        with pytest.raises(Exception, match="cannot be read"):
            Manifest.from_bytes(text.replace(old, new))
