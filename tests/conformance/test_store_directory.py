"""What only the directory store does: links, full and failing disks, unmounted shares, leftovers."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicomwatchd import localfiles
from dicomwatchd.archive.stores.port import Buffer, ObjectStore, Receipt
from dicomwatchd.errors import NotInitialised, OutOfReach, Permanent, Transient
from tests.conformance.conftest import FolderPlace
from tests.conformance.test_store import KEY, MIB, Source, bytes_of

MARKER = ".dicomwatchd-archive"


def files_below(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir()}


def test_no_link_in_the_tree_is_followed(folder: FolderPlace, tmp_path: Path) -> None:
    store = folder.open()
    outside = tmp_path / "outside"
    (outside / "series").mkdir(parents=True)
    (outside / "series" / "secret.dcm").write_bytes(b"secret")
    (folder.path / "studies").mkdir()
    (folder.path / "studies" / "1.2").symlink_to(outside)
    (folder.path / "real").mkdir()
    (folder.path / "real" / "file.dcm").symlink_to(outside / "series" / "secret.dcm")
    (folder.path / "real" / "dangling.dcm").symlink_to(outside / "new.dcm")
    attempts: list[Callable[[str], object]] = [
        lambda key: store.put(key, Buffer.of(b"ours")),
        lambda key: list(store.read(key)),
        lambda key: store.head(key),
    ]
    for key in ("studies/1.2/series/secret.dcm", "studies/1.2/new.dcm", "real/file.dcm", "real/dangling.dcm"):
        for attempt in attempts:
            with pytest.raises(Permanent) as caught:
                attempt(key)
            assert caught.value.code == "foreign-file"
    assert list(store.listing("")) == []
    assert list(store.listing("real/")) == []
    assert files_below(outside) == {"series/secret.dcm"}
    assert (outside / "series" / "secret.dcm").read_bytes() == b"secret"


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_what_is_no_file_is_no_object(folder: FolderPlace, kind: str) -> None:
    store = folder.open()
    (folder.path / "a").mkdir()
    if kind == "fifo":
        os.mkfifo(folder.path / "a" / "x")
    else:
        (folder.path / "a" / "x").mkdir()
    for attempt in (lambda: store.put("a/x", Buffer.of(b"x")), lambda: list(store.read("a/x"))):
        with pytest.raises(Permanent):
            attempt()
    assert list(store.listing("")) == []


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "archive").symlink_to(tmp_path / "disk")
    store = FolderPlace(tmp_path / "archive").open()
    store.initialise()
    store.put(KEY, Buffer.of(b"x"))
    assert (tmp_path / "disk" / KEY).read_bytes() == b"x"


def test_an_unmounted_share_takes_nothing_and_misses_nothing(folder: FolderPlace, tmp_path: Path) -> None:
    store = folder.open()
    store.put(KEY, Buffer.of(b"x"))
    folder.path.rename(tmp_path / "elsewhere")
    folder.path.mkdir()  # the mount point without its share
    attempts: list[Callable[[], object]] = [
        lambda: store.put("a/b", Buffer.of(b"x")),
        lambda: store.head(KEY),
        lambda: list(store.listing("studies/")),
        lambda: list(store.read(KEY)),
    ]
    for attempt in attempts:
        with pytest.raises(OutOfReach):
            attempt()
    with pytest.raises(NotInitialised):
        store.check()
    assert list(folder.path.iterdir()) == []
    folder.path.rmdir()
    (tmp_path / "elsewhere").rename(folder.path)
    assert bytes_of(store, KEY) == b"x"


def test_the_folder_around_the_archive_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotInitialised):
        FolderPlace(tmp_path / "mnt" / "archive").open().initialise()
    assert list(tmp_path.iterdir()) == []


def test_others_may_not_read_the_archive(folder: FolderPlace) -> None:
    old = os.umask(0)
    try:
        folder.open().put(KEY, Buffer.of(b"x"))
    finally:
        os.umask(old)
    assert (folder.path / KEY).stat().st_mode & 0o777 == 0o640
    assert {parent.stat().st_mode & 0o777 for parent in (folder.path / KEY).parents[:6]} == {0o750}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[FolderPlace]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", mount], capture_output=True)
    if done.returncode != 0:
        pytest.skip("this machine does not let root mount a tmpfs")
    place = FolderPlace(mount / "archive")
    place.open().initialise()
    yield place
    subprocess.run(["umount", mount], check=True)


def test_a_full_disk_parks_nothing_and_leaves_nothing(small_disk: FolderPlace) -> None:
    store = small_disk.open()
    for content in (Buffer.of(b"x" * (6 * MIB)), Source(b"x" * (20 * MIB))):
        with pytest.raises(Transient) as caught:
            store.put(KEY, content)
        assert (caught.value.code, bool(caught.value.endpoint)) == ("store-full", True)
        assert files_below(small_disk.path) == {MARKER}
    assert store.put(KEY, Buffer.of(b"x" * MIB)).created


def test_a_read_only_disk_parks_nothing(small_disk: FolderPlace) -> None:
    store = small_disk.open()
    store.put(KEY, Buffer.of(b"x"))
    subprocess.run(["mount", "-o", "remount,ro", small_disk.path.parent], check=True)
    with pytest.raises(OutOfReach):
        store.put("a/b", Buffer.of(b"x"))
    store.check()
    assert bytes_of(store, KEY) == b"x"


def test_after_a_failed_fsync_the_copy_is_thrown_away(folder: FolderPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    store = folder.open()
    real = os.fsync
    inode: list[int] = []

    def failing(fd: int) -> None:
        if not inode and os.fstat(fd).st_size == 1000:
            inode.append(os.fstat(fd).st_ino)
            raise OSError(errno.EIO, "injected")
        real(fd)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OutOfReach):
        store.put(KEY, Buffer.of(b"x" * 1000))
    assert len(inode) == 1
    assert files_below(folder.path) == {MARKER}
    assert store.put(KEY, Buffer.of(b"x" * 1000)).created


def test_file_name_and_every_new_folder_are_made_durable(folder: FolderPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order: content, then name; and again for a file that is found in place, whoever left it."""
    synced: list[str] = []
    real = os.fsync

    def noting(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}").removeprefix(str(folder.path)))
        real(fd)

    monkeypatch.setattr(os, "fsync", noting)
    store = folder.open()
    store.put("a/b/x", Buffer.of(b"x"))
    assert synced[:2] == ["", "/a"]
    assert synced[2].startswith("/a/b/.dicomwatchd-tmp-")
    assert synced[3:] == ["/a/b"]
    synced.clear()
    store.put("a/b/y", Buffer.of(b"y"))
    assert len(synced) == 2
    synced.clear()
    folder.open().put("a/b/x", Buffer.of(b"x"))
    assert synced == ["", "/a", "/a/b/x", "/a/b"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_where_neither_rename_nor_link_is_exclusive_a_name_is_still_taken_once(
    folder: FolderPlace, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, "injected")

    monkeypatch.setattr(localfiles, "rename_noreplace", refused)
    store = folder.open()
    assert store.probe("probe/x/").creates_only
    contents = [Buffer.of(b"%d" % n * 1000) for n in range(8)]
    barrier = threading.Barrier(8)

    def put(content: Buffer) -> Receipt:
        barrier.wait()
        return store.put(KEY, content)

    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(put, contents))
    [winner] = [receipt for receipt in receipts if receipt.created]
    assert Buffer.of(bytes_of(store, KEY)).digest.sha256 == winner.sha256
    assert files_below(folder.path) == {MARKER, KEY}


def test_the_exclusive_rename_falls_back_to_a_link(folder: FolderPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoRenameat2:
        @staticmethod
        def renameat2(*_: object) -> int:
            import ctypes

            ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(localfiles, "_libc", NoRenameat2)
    store: ObjectStore = folder.open()
    assert store.put(KEY, Buffer.of(b"first")).created
    assert not store.put(KEY, Buffer.of(b"second")).created
    assert bytes_of(store, KEY) == b"first"
    assert (folder.path / KEY).stat().st_nlink == 1
    assert files_below(folder.path) == {MARKER, KEY}


def test_leftovers_of_a_crash_are_removed_when_they_are_old(folder: FolderPlace) -> None:
    store = folder.open()
    store.put(KEY, Buffer.of(b"x"))
    parent = (folder.path / KEY).parent
    for name, age_seconds in ((".dicomwatchd-tmp-old", 90_000), (".dicomwatchd-tmp-new", 60), ("old.txt", 90_000)):
        (parent / name).write_bytes(b"partial")
        when = time.time() - age_seconds
        os.utime(parent / name, (when, when))
    os.utime(folder.path / KEY, (0, 0))
    assert KEY in [item.key for item in store.listing("")]
    assert not [item.key for item in store.listing("") if "tmp" in item.key]
    [step] = [step for step in store.initialise() if step.what.startswith("leftovers")]
    assert step.detail == "1 removed"
    assert {path.name for path in parent.iterdir()} == {".dicomwatchd-tmp-new", "old.txt", KEY.rpartition("/")[2]}


def test_our_own_names_are_no_keys(folder: FolderPlace) -> None:
    store = folder.open()
    for key in (MARKER, "a/.dicomwatchd-tmp-x", ".dicomwatchd-x/y"):
        with pytest.raises(Permanent):
            store.put(key, Buffer.of(b"x"))
        with pytest.raises(Permanent):
            store.head(key)


def test_a_name_too_long_for_the_disk_is_permanent(folder: FolderPlace) -> None:
    with pytest.raises(Permanent):
        folder.open().put("a/" + "x" * 256, Buffer.of(b"x"))
