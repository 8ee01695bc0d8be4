"""The bundled layout from inbox to inbox: small files travel together, and nothing of the guarantee changes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd import localfiles
from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import lineage
from dicomwatchd.archive.layout.bundle import Bundle
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.budget import ByteBudget
from dicomwatchd.archive.stores.port import Content, Receipt
from dicomwatchd.errors import OutOfReach
from dicomwatchd.model import FileState, Uid
from dicomwatchd.pipeline import local
from dicomwatchd.pipeline.local import Folders
from dicomwatchd.pipeline.sending import batches as sending
from dicomwatchd.pipeline.shipment import AfterArchive, Bundling, location_of
from dicomwatchd.queue.rows import Claim
from dicomwatchd.queue.shipments import Shipments
from tests.pieces import Pieces, at
from tests.simulation.tiny import instance
from tests.unit.memory_archive import MemoryStore
from tests.unpacking import unpacked

STUDY = Uid("1.2.1")
SERIES = Uid("1.2.1.1")
SMALL = Bundling(below_bytes=4096, size_bytes=8192)


def made(number: int, payload: int | None = None) -> bytes:
    return instance(STUDY, SERIES, f"{SERIES}.{number}", number if payload is None else payload)


def bundled(tmp_path: Path, bundling: Bundling | None = SMALL, **more: Any) -> Pieces:
    return Pieces(tmp_path, bundling=bundling, **more)


def drop(pieces: Pieces, numbers: Iterable[int]) -> list[bytes]:
    files = []
    for number in numbers:
        files.append(made(number))
        (pieces.inbox / f"IM{number:04}").write_bytes(files[-1])
    return files


def objects(pieces: Pieces, part: str) -> list[str]:
    return sorted(key for key in pieces.memory.versions if f"/{part}/" in key)


def in_bundles(pieces: Pieces) -> list[bytes]:
    return sorted(one for key in objects(pieces, "bundles") for one in unpacked(pieces.memory.versions[key][0]))


def check(pieces: Pieces, files: list[bytes]) -> Manifest:
    """All of the files and nothing else are in the manifest, each where it says; the inbox is empty."""
    assert pieces.left() == [], pieces.log.entries
    manifest = pieces.manifest(STUDY)
    found = []
    for item in manifest.instances:
        data = pieces.memory.versions[item.key][-1]
        assert item.object_bytes == len(data)
        if item.is_in_bundle:
            assert keys.bundle_sha256(item.key, STUDY) == hashlib.sha256(data).hexdigest()
            data = data[item.offset_bytes : item.offset_bytes + item.size_bytes]
        assert hashlib.sha256(data).hexdigest() == item.sha256
        found.append(data)
    assert sorted(found) == sorted(set(files))
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    record = pieces.catalogue.get(STUDY)
    assert record == manifest.record()
    assert record.size_bytes == sum(map(len, set(files)))
    return manifest


# -- as it should be ------------------------------------------------------------------------------------------------


def test_small_files_travel_together(tmp_path: Path) -> None:
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 41))
    pieces.run()
    check(pieces, files)
    assert objects(pieces, "series") == []
    bundles = objects(pieces, "bundles")
    assert 1 < len(bundles) < 10
    assert in_bundles(pieces) == sorted(files)
    assert all(len(pieces.memory.versions[key][0]) <= SMALL.size_bytes for key in bundles)
    pieces.close()


def test_tar_unpacks_them(tmp_path: Path) -> None:
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 6))
    pieces.run()
    [key] = objects(pieces, "bundles")
    (tmp_path / "a.tar").write_bytes(pieces.memory.versions[key][0])
    (tmp_path / "out").mkdir()
    command = ["tar", "-C", str(tmp_path / "out"), "-xvf", str(tmp_path / "a.tar")]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stderr == ""
    assert said.stdout.split() == [f"{SERIES}/{SERIES}.{number}.dcm" for number in range(1, 6)]
    assert [(tmp_path / "out" / name).read_bytes() for name in said.stdout.split()] == files
    assert not any(word in pieces.memory.versions[key][0][:512] for word in (b"DOE", b"P1", b"IM0001"))
    pieces.close()


def test_larger_files_and_a_single_one_are_objects_of_their_own(tmp_path: Path) -> None:
    size = len(made(1))
    pieces = bundled(tmp_path, Bundling(below_bytes=size, size_bytes=8192))
    files = drop(pieces, range(1, 4))
    pieces.run()
    check(pieces, files)
    assert (len(objects(pieces, "series")), objects(pieces, "bundles")) == (3, [])
    pieces.bundling = Bundling(below_bytes=size + 1, size_bytes=8192)
    pieces.restart()
    files += drop(pieces, [9])
    pieces.run()
    check(pieces, files)
    assert (len(objects(pieces, "series")), objects(pieces, "bundles")) == (4, [])
    pieces.close()


def test_the_audit_and_the_rows_say_which_part(tmp_path: Path) -> None:
    pieces = bundled(tmp_path)
    drop(pieces, range(1, 4))
    pieces.run()
    manifest = pieces.manifest(STUDY)
    said = [entry.body for entry in pieces.queue.audit.of_study(STUDY) if entry.body["kind"] == "authorised"]
    assert len(said) == 3
    for body in said:
        item = next(i for i in manifest.instances if i.sha256 == body["sha256"])
        assert (body["key"], body["size_bytes"]) == (item.key, item.size_bytes)
        assert (body["offset_bytes"], body["bundle_bytes"]) == (item.offset_bytes, item.object_bytes)
        assert body["bundle_sha256"] == keys.bundle_sha256(item.key, STUDY)
    pieces.close()


def test_the_default_layout_writes_what_it_has_always_written(tmp_path: Path) -> None:
    pieces = bundled(tmp_path, None)
    drop(pieces, range(1, 4))
    pieces.run()
    assert objects(pieces, "bundles") == []
    text = pieces.memory.versions[keys.manifest(STUDY, 1)][0]
    assert b"offset" not in text and b"bundle" not in text
    for entry in pieces.queue.audit.of_study(STUDY):
        assert "offset_bytes" not in entry.body and "bundle_sha256" not in entry.body
    pieces.close()


def test_a_bundle_takes_its_room_from_the_budget(tmp_path: Path) -> None:
    """However many are sent at once: what is in memory is at most what the budget has."""
    taken: list[int] = []

    class Watched(ByteBudget):
        def take(self, size_bytes: int, stopping: Callable[[], bool]) -> None:
            taken.append(size_bytes)
            super().take(size_bytes, stopping)

    pieces = bundled(tmp_path)
    pieces.context = replace(pieces.context, archive=replace(pieces.context.archive, memory=Watched()))
    pieces.dispatcher._context = pieces.context
    drop(pieces, range(1, 20))
    pieces.run()
    sizes = [len(pieces.memory.versions[key][0]) for key in objects(pieces, "bundles")]
    assert sorted(taken) == sorted(sizes)
    pieces.close()


# -- files that are not what they should be -------------------------------------------------------------------------


def _truncate(path: Path) -> None:
    os.truncate(path, 100)


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _rewrite(path: Path) -> None:
    path.write_bytes(made(3, 99))


def _rewrite_with_the_time_set_back(path: Path) -> None:
    before = path.stat()
    _rewrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace(path: Path) -> None:
    other = path.with_name("other.tmp")
    other.write_bytes(made(3, 99))
    other.rename(path)


def _link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


CHANGES: dict[str, Callable[[Path], None]] = {
    "shorter": _truncate,
    "longer": _append,
    "other bytes": _rewrite,
    "other bytes, the time set back": _rewrite_with_the_time_set_back,
    "another file": _replace,
    "a link": _link,
    "gone": Path.unlink,
}
MOMENTS = {
    "before it is read": (Bundle, "buffer", 3, True),
    "once it is opened": (local, "require", 5, True),
    "once it is read": (Bundle, "add", 3, False),
    "while the bundle is sent": (MemoryStore, "put", 1, False),
    "once the bundle is sent": (MemoryStore, "put", 1, True),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_member_that_changes_drops_out_and_the_others_go(tmp_path: Path, change: str, moment: str) -> None:
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 6))
    pieces.settle()
    target, name, when, after = MOMENTS[moment]
    with at(target, name, lambda: CHANGES[change](pieces.inbox / "IM0003"), when=when, after=after) as calls:
        pieces.ship()
    assert calls[0] >= when
    others = [data for data in files if data != made(3)]
    pieces.require_nothing_lost(*others)
    assert pieces.archived() >= {hashlib.sha256(data).hexdigest() for data in others}
    puts = len(objects(pieces, "bundles"))
    pieces.run()
    assert puts == 1
    listed = {item.sha256 for item in pieces.manifest(STUDY).instances}
    assert listed >= {hashlib.sha256(data).hexdigest() for data in others}
    gone = change in ("gone", "shorter", "a link", "longer")
    assert (hashlib.sha256(made(3, 99)).hexdigest() in listed) is not gone
    assert all(path.name in ("IM0003",) for path in pieces.left())
    pieces.close()


def test_truncated_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 6))
    pieces.settle()
    real, calls = os.preadv, []

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        calls.append(fd)
        if len(calls) == 3:
            real(fd, [buffers[0][:50]], offset)
            os.truncate(pieces.inbox / "IM0003", 50)
            return 50
        return real(fd, buffers, offset)

    monkeypatch.setattr("dicomwatchd.filebytes.os.preadv", preadv)
    pieces.ship()
    monkeypatch.undo()
    pieces.run()
    assert [path.name for path in pieces.left()] == ["IM0003"]
    assert {i.sha256 for i in pieces.manifest(STUDY).instances} == {
        hashlib.sha256(data).hexdigest() for data in files if data != made(3)
    }
    pieces.close()


def test_a_short_read_is_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 4))
    pieces.settle()
    real = os.preadv
    monkeypatch.setattr(
        "dicomwatchd.filebytes.os.preadv", lambda fd, buffers, offset: real(fd, [buffers[0][:37]], offset)
    )
    pieces.ship()
    check(pieces, files)
    pieces.close()


def test_a_member_that_may_not_be_read_is_quarantined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = bundled(tmp_path)
    drop(pieces, range(1, 6))
    pieces.settle()
    real = localfiles.regular_file

    def refusing(directory_fd: int, name: bytes) -> Any:
        if name == b"IM0003":
            raise PermissionError(errno.EACCES, "refused")
        return real(directory_fd, name)

    monkeypatch.setattr("dicomwatchd.pipeline.local.regular_file", refusing)
    pieces.ship()
    assert pieces.states() == {"IM0003": "quarantined:no-access"}
    assert len(pieces.manifest(STUDY).instances) == 4
    assert [path.name for path in pieces.left()] == ["IM0003"]
    pieces.close()


def test_nothing_is_sent_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    pieces = bundled(tmp_path)
    drop(pieces, range(1, 4))
    pieces.settle()
    for path in pieces.left():
        path.unlink()
    pieces.ship()
    assert objects(pieces, "bundles") == []
    pieces.close()


def test_an_empty_file_is_no_instance(tmp_path: Path) -> None:
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 4))
    (pieces.inbox / "EMPTY").write_bytes(b"")
    pieces.run(rounds=3)
    assert [path.name for path in pieces.left()] == ["EMPTY"]
    assert pieces.states()["EMPTY"].startswith("quarantined")
    assert in_bundles(pieces) == sorted(files)
    pieces.close()


# -- one UID, one content, twice ------------------------------------------------------------------------------------


def test_two_contents_of_one_uid_are_both_kept(tmp_path: Path) -> None:
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 4))
    files.append(made(2, 77))
    (pieces.inbox / "AGAIN").write_bytes(files[-1])
    pieces.run_and_release()
    manifest = check(pieces, files)
    assert "sop-instance-uid-repeated" in manifest.flags
    [key] = objects(pieces, "bundles")
    assert in_bundles(pieces) == sorted(files)
    heads = pieces.memory.versions[key][0]
    for data in (made(2), made(2, 77)):
        assert f"{SERIES}.2-{hashlib.sha256(data).hexdigest()[:8]}.dcm".encode() in heads
    pieces.close()


@pytest.mark.parametrize("page", [4000, 3])
def test_two_copies_of_one_file_are_one_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    """In one bundle, or in two: both files go, on proofs that the one place in the manifest bears out."""
    monkeypatch.setattr(sending, "SENDING_PAGE", page)
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 7))
    for number in (1, 2):
        folder = pieces.inbox / f"copy{number}"
        folder.mkdir()
        (folder / "IM").write_bytes(made(number))
    pieces.run()
    manifest = check(pieces, files)
    assert len(manifest.instances) == 6 and manifest.revision == 1
    ended = [entry.body["kind"] for entry in pieces.queue.audit.of_study(STUDY)]
    assert ended.count("deleted") == 8
    pieces.close()


# -- a store that does not hold what it was sent --------------------------------------------------------------------


class Damaging(MemoryStore):
    """Keeps other bytes of the first ``times`` bundles, or none."""

    def __init__(self, damage: Callable[[bytes], bytes | None], times: int = 1) -> None:
        super().__init__()
        self.damage, self.times = damage, times
        self.puts: list[str] = []

    def put(self, key: str, content: Content) -> Receipt:
        receipt = super().put(key, content)
        self.puts.append(key)
        if "/bundles/" in key and receipt.created and self.times:
            self.times -= 1
            kept = self.damage(self.versions[key][0])
            if kept is None:
                del self.versions[key]
            else:
                self.versions[key] = [kept]
        return receipt


def _flip(data: bytes) -> bytes:
    return data[:900] + bytes([data[900] ^ 1]) + data[901:]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("damage", [_flip, lambda data: data[:-600], lambda data: data + b"x", lambda _: b""])
def test_a_damaged_bundle_is_sent_again_under_the_next_key(
    tmp_path: Path, damage: Callable[[bytes], bytes], times: int
) -> None:
    store = Damaging(damage, times)
    pieces = bundled(tmp_path, store=store)
    pieces.memory = store
    files = drop(pieces, range(1, 6))
    pieces.run()
    manifest = check(pieces, files)
    first = next(key for key in store.puts if "/bundles/" in key)
    digest = keys.bundle_sha256(first, STUDY)
    assert digest is not None
    assert manifest.damaged_keys == tuple(sorted(keys.bundle(STUDY, digest, n) for n in range(1, times + 1)))
    assert {item.key for item in manifest.instances} == {keys.bundle(STUDY, digest, times + 1)}
    pieces.close()


def test_a_lost_bundle_is_sent_again(tmp_path: Path) -> None:
    store = Damaging(lambda _: None)
    pieces = bundled(tmp_path, store=store)
    pieces.memory = store
    files = drop(pieces, range(1, 6))
    pieces.run()
    manifest = check(pieces, files)
    assert manifest.damaged_keys == ()
    assert len([key for key in store.puts if "/bundles/" in key]) == 2
    pieces.close()


def test_a_store_that_always_damages_deletes_nothing(tmp_path: Path) -> None:
    store = Damaging(_flip, 1000)
    pieces = bundled(tmp_path, store=store)
    pieces.memory = store
    drop(pieces, range(1, 6))
    pieces.run()
    assert len(pieces.left()) == 5
    assert lineage.current(store, STUDY) is None
    pieces.close()


# -- again, and after a restart -------------------------------------------------------------------------------------


def test_what_is_in_a_bundle_already_is_not_sent_again(tmp_path: Path) -> None:
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 6))
    pieces.run()
    [key] = objects(pieces, "bundles")
    drop(pieces, (2, 4))
    pieces.run()
    manifest = check(pieces, files)
    assert (objects(pieces, "bundles"), objects(pieces, "series"), manifest.revision) == ([key], [], 1)
    assert pieces.memory.reads.count(key) >= 1
    pieces.close()


def test_with_new_files_beside_it(tmp_path: Path) -> None:
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 6))
    pieces.run()
    files += drop(pieces, range(4, 9))
    pieces.run()
    manifest = check(pieces, files)
    assert manifest.revision == 2 and len(objects(pieces, "bundles")) == 2
    assert sorted(in_bundles(pieces)) == sorted(set(files))
    pieces.close()


@pytest.mark.parametrize("damage", [_flip, lambda data: data[:-700], None])
def test_a_bundle_that_is_no_longer_good_is_not_relied_on(
    tmp_path: Path, damage: Callable[[bytes], bytes] | None
) -> None:
    """The modality sends again what the archive has lost meanwhile: it is stored anew before it is deleted."""
    pieces = bundled(tmp_path)
    drop(pieces, range(1, 6))
    pieces.run()
    [key] = objects(pieces, "bundles")
    if damage is None:
        del pieces.memory.versions[key]
    else:
        pieces.memory.versions[key] = [damage(pieces.memory.versions[key][0])]
    again = drop(pieces, (1, 2, 3))
    pieces.run()
    assert pieces.left() == []
    assert pieces.archived() >= {hashlib.sha256(data).hexdigest() for data in again}
    manifest = pieces.manifest(STUDY)
    places = {item.sha256: item.key for item in manifest.instances}
    assert all(places[hashlib.sha256(data).hexdigest()] != key for data in again)
    assert len(manifest.instances) == 5, "nothing drops out of a manifest"
    pieces.close()


def test_a_manifest_that_points_to_the_wrong_bytes_is_not_believed(tmp_path: Path) -> None:
    """The newest manifest says that two instances are where others are."""
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 6))
    pieces.run()
    manifest = pieces.manifest(STUDY)
    one, two = manifest.instances[0], manifest.instances[1]
    assert one.size_bytes == two.size_bytes
    exchanged = (replace(one, offset_bytes=two.offset_bytes), replace(two, offset_bytes=one.offset_bytes))
    others = manifest.instances[2:]
    lying = replace(manifest, revision=2, previous_sha256=manifest.sha256, instances=(*exchanged, *others))
    pieces.memory.versions[lying.key] = [lying.to_bytes()]
    pieces.catalogue.put(lying.record())
    drop(pieces, range(1, 6))
    pieces.run()
    check(pieces, files)
    pieces.close()


@pytest.mark.parametrize(("first", "second"), [(None, SMALL), (SMALL, None)])
def test_the_layout_changes_between_two_revisions(
    tmp_path: Path, first: Bundling | None, second: Bundling | None
) -> None:
    pieces = bundled(tmp_path, first)
    files = drop(pieces, range(1, 6))
    pieces.run()
    pieces.bundling = second
    pieces.restart()
    files += drop(pieces, range(4, 9))
    pieces.run()
    manifest = check(pieces, files)
    assert manifest.revision == 2
    assert len({item.is_in_bundle for item in manifest.instances}) == 2
    pieces.close()


@pytest.mark.parametrize("second", [None, SMALL])
def test_the_layout_changes_while_a_shipment_is_under_way(tmp_path: Path, second: Bundling | None) -> None:
    """Copies of one content, sent to two places before and after: still one place in the manifest, and all goes."""
    pieces = bundled(tmp_path, None if second else SMALL)
    files = drop(pieces, range(1, 6))
    pieces.settle()

    def stop() -> None:
        raise OutOfReach("no answer", endpoint="store")

    with at(Shipments, "share_locations", stop):
        pieces.ship()
    (pieces.inbox / "copy").mkdir()
    (pieces.inbox / "copy" / "IM").write_bytes(made(2))
    files += drop(pieces, [9])
    pieces.bundling = second
    pieces.restart()
    pieces.clock.advance(3600)
    pieces.run()
    check(pieces, files)
    pieces.close()


def test_a_bundle_whose_rows_were_not_committed_is_there_already(tmp_path: Path) -> None:
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 6))
    pieces.settle()

    def die() -> None:
        raise KeyboardInterrupt

    with at(Shipments, "stored", die), pytest.raises(KeyboardInterrupt):
        pieces.ship()
    assert len(objects(pieces, "bundles")) == 1
    pieces.restart()
    pieces.run()
    check(pieces, files)
    assert len(objects(pieces, "bundles")) == 1
    pieces.close()


def test_what_was_stored_is_not_sent_again_after_a_restart(tmp_path: Path) -> None:
    store = Damaging(lambda data: data, 0)
    pieces = bundled(tmp_path, store=store)
    pieces.memory = store
    files = drop(pieces, range(1, 31))
    pieces.settle()

    def die() -> None:
        raise KeyboardInterrupt

    with at(Shipments, "share_locations", die), pytest.raises(KeyboardInterrupt):
        pieces.ship()
    sent = list(store.puts)
    pieces.restart()
    pieces.run()
    check(pieces, files)
    assert [key for key in store.puts if "/bundles/" in key] == sent
    pieces.close()


def test_files_that_are_kept_for_a_time(tmp_path: Path) -> None:
    pieces = bundled(tmp_path, after_archive=AfterArchive(delete=False, keep_seconds=1000))
    files = drop(pieces, range(1, 6))
    pieces.settle()
    pieces.ship()
    assert len(pieces.left()) == 5 and set(pieces.states().values()) == {"kept"}
    pieces.clock.advance(1001)
    pieces.ship()
    check(pieces, files)
    pieces.close()


def test_a_bundle_that_is_lost_after_all_before_the_purge_keeps_the_files(tmp_path: Path) -> None:
    pieces = bundled(tmp_path, after_archive=AfterArchive(delete=False, keep_seconds=1000))
    files = drop(pieces, range(1, 6))
    pieces.settle()
    pieces.ship()
    [key] = objects(pieces, "bundles")
    pieces.memory.versions[key] = [_flip(pieces.memory.versions[key][0])]
    pieces.clock.advance(1001)
    pieces.run()
    manifest = check(pieces, files)
    assert manifest.damaged_keys == (key,) and manifest.revision == 2
    pieces.close()


# -- the row --------------------------------------------------------------------------------------------------------


def test_a_row_of_an_object_of_its_own_says_nothing_of_parts(tmp_path: Path) -> None:
    pieces = bundled(tmp_path, None, after_archive=AfterArchive(delete=False))
    drop(pieces, [1])
    pieces.run(rounds=2)
    [[file]] = pieces.queue.shipments.pages(Claim(STUDY, 0, 0, 0), FileState.KEPT, 10)
    assert file.receipt is not None and "part" not in json.loads(file.receipt)
    assert not location_of(file).is_in_bundle
    assert location_of(replace(file, receipt=location_of(file).to_text())) == location_of(file)
    pieces.close()


def test_neighbours_keep_one_directory_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of files in as many folders: never more than one descriptor."""
    pieces = bundled(tmp_path)
    files = []
    for number in range(1, 40):
        folder = pieces.inbox / f"D{number}"
        folder.mkdir()
        files.append(made(number))
        (folder / "IM").write_bytes(files[-1])
    pieces.settle()
    most = [0]
    real = Folders.read

    def read(*arguments: Any) -> None:
        most[0] = max(most[0], len(os.listdir("/proc/self/fd")))
        real(*arguments)

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(Folders, "read", read)
    pieces.ship()
    assert most[0] <= before + 3
    check(pieces, files)
    pieces.close()


# -- without its manifest, and early --------------------------------------------------------------------------------


def test_what_a_damaged_manifest_had_in_bundles_is_found_again(tmp_path: Path) -> None:
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 6))
    pieces.run()
    [key] = objects(pieces, "bundles")
    pieces.memory.versions[keys.manifest(STUDY, 1)] = [b"damaged"]
    files += drop(pieces, [9])
    pieces.run()
    manifest = check(pieces, files)
    assert manifest.revision == 2
    assert {item.key for item in manifest.instances if item.is_in_bundle} == {key}
    assert all(item.repairs for item in manifest.instances if item.key == key)
    pieces.close()


def test_a_damaged_bundle_is_named_when_the_manifest_is_damaged_too(tmp_path: Path) -> None:
    pieces = bundled(tmp_path)
    drop(pieces, range(1, 6))
    pieces.run()
    [key] = objects(pieces, "bundles")
    pieces.memory.versions[key] = [_flip(pieces.memory.versions[key][0])]
    pieces.memory.versions[keys.manifest(STUDY, 1)] = [b"damaged"]
    files = drop(pieces, [9])
    pieces.run()
    manifest = check(pieces, files)
    assert key in manifest.damaged_keys
    pieces.close()


def test_full_bundles_go_while_the_study_arrives(tmp_path: Path) -> None:
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 31))
    pieces.scan()
    pieces.clock.advance(pieces.settings.settle_seconds + 0.1)
    pieces.look()
    assert pieces.ship() == 0
    early = objects(pieces, "bundles")
    states = list(pieces.states().values())
    assert early and 0 < states.count("ready") < states.count("stored")
    assert len(pieces.left()) == 30
    pieces.run()
    check(pieces, files)
    assert len(objects(pieces, "bundles")) == len(early) + 1
    pieces.close()


def test_what_does_not_fill_a_bundle_waits_for_the_others(tmp_path: Path) -> None:
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 4))
    pieces.scan()
    pieces.clock.advance(pieces.settings.settle_seconds + 0.1)
    pieces.look()
    pieces.ship()
    assert set(pieces.states().values()) == {"ready"} and objects(pieces, "bundles") == []
    pieces.run()
    check(pieces, files)
    pieces.close()


def test_a_member_that_changes_after_its_bundle_went_early(tmp_path: Path) -> None:
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 31))
    pieces.scan()
    pieces.clock.advance(pieces.settings.settle_seconds + 0.1)
    pieces.look()
    pieces.ship()
    stored = sorted(name for name, state in pieces.states().items() if state == "stored")[0]
    number = int(stored[2:])
    (pieces.inbox / stored).write_bytes(made(number, 500))
    files[number - 1] = made(number, 500)
    pieces.run()
    check(pieces, files)
    assert made(number) in in_bundles(pieces), "what was sent first stays in its bundle, and in no manifest"
    pieces.close()
