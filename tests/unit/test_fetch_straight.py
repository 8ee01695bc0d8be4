"""Files that are written past the page cache: the same bytes, whatever the file system makes of it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.port import CHUNK_BYTES
from dicomwatchd.errors import OutOfReach
from dicomwatchd.fetch import Fetcher
from dicomwatchd.fetch.report import FetchReport
from tests.unit.memory_archive import SERIES, MemoryStore, archive, content
from tests.unit.test_bundled_reading import packed

SIZE = 300_001
SIZES = [131_071, 131_072, 131_073, 40 * 4096, 40 * 4096 + 1, SIZE, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1]


def fetch(store: MemoryStore, manifest: Manifest, folder: Path) -> FetchReport:
    return Fetcher(store, threads=2, sleep=lambda _seconds: None).fetch(manifest, folder)


def fetched(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(chunk_bytes=CHUNK_BYTES)


@pytest.fixture
def straight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long each write was that went past the page cache. Skips where the file system knows none."""
    fd = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)
    except OSError:
        pytest.skip("SKIPPED: the file system of the tests has no O_DIRECT")
    finally:
        os.close(fd)
    lengths: list[int] = []
    write = os.write

    def watched(fd: int, data: memoryview) -> int:
        written = write(fd, data)
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            lengths.append(written)
        return written

    monkeypatch.setattr(os, "write", watched)
    return lengths


@pytest.mark.parametrize("size", SIZES)
def test_every_size_comes_whole(store: MemoryStore, tmp_path: Path, straight: list[int], size: int) -> None:
    manifest = archive(store, [(SERIES, "1.2.1", content(1, size))])
    assert fetch(store, manifest, tmp_path).complete
    assert fetched(tmp_path) == [content(1, size)]
    assert straight == ([size - size % 4096] if 131_072 <= size <= CHUNK_BYTES else [])


def test_members_of_a_bundle_too(store: MemoryStore, tmp_path: Path, straight: list[int]) -> None:
    files = [content(number, SIZE + number * 1000) for number in range(9)]
    manifest = archive(store, [(SERIES, f"1.2.{number}", data) for number, data in enumerate(files)])
    in_bundle = packed(store, list(manifest.instances), files)
    store.reads.clear()
    bundled = manifest.merged(
        in_bundle, attributes={}, series={}, flags=(), damaged_keys=(), created_at="", created_by="tests"
    )
    assert fetch(store, bundled, tmp_path).complete
    assert len(store.reads) == 1
    assert fetched(tmp_path) == sorted(files)
    assert len(straight) == 9


def test_a_file_system_without_it(store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = fcntl.fcntl

    def refusing(fd: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return control(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refusing)
    manifest = archive(store, [(SERIES, "1.2.1", content(1, SIZE))])
    assert fetch(store, manifest, tmp_path).complete
    assert fetched(tmp_path) == [content(1, SIZE)]


@pytest.mark.parametrize("fault", [errno.EINVAL, errno.EOPNOTSUPP, errno.EIO])
@pytest.mark.usefixtures("straight")
def test_one_that_fails_in_the_middle(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    write = os.write

    def failing(fd: int, data: memoryview) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(fault, os.strerror(fault))
        return write(fd, data)

    monkeypatch.setattr(os, "write", failing)
    manifest = archive(store, [(SERIES, "1.2.1", content(1, SIZE))])
    assert fetch(store, manifest, tmp_path).complete
    assert fetched(tmp_path) == [content(1, SIZE)]


def test_one_that_writes_less_than_was_asked_for(
    store: MemoryStore, tmp_path: Path, straight: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:8192]))
    manifest = archive(store, [(SERIES, "1.2.1", content(1, SIZE))])
    assert fetch(store, manifest, tmp_path).complete
    assert fetched(tmp_path) == [content(1, SIZE)]
    assert straight == [8192]


@pytest.mark.usefixtures("straight")
def test_what_is_wrong_is_said_by_the_plain_write(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int, _data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    manifest = archive(store, [(SERIES, "1.2.1", content(1, SIZE))])
    report = fetch(store, manifest, tmp_path)
    assert report.stopped is not None and report.stopped.code == "disk-full"
    assert fetched(tmp_path) == []


def test_a_read_that_breaks_off_behind_the_last_byte(store: MemoryStore, tmp_path: Path, straight: list[int]) -> None:
    def broken(_key: str, count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield from chunks
        if count == 1:
            raise OutOfReach("broke off", endpoint="memory")

    manifest = archive(store, [(SERIES, "1.2.1", content(1, SIZE))])
    store.tampering = broken
    assert fetch(store, manifest, tmp_path).complete
    assert fetched(tmp_path) == [content(1, SIZE)]
    assert straight == [SIZE - SIZE % 4096] * 2


def test_wrong_bytes_get_no_name(store: MemoryStore, tmp_path: Path, straight: list[int]) -> None:
    manifest = archive(store, [(SERIES, "1.2.1", content(1, SIZE))])
    (item,) = manifest.instances
    store.versions[item.key] = [content(2, SIZE)]
    report = fetch(store, manifest, tmp_path)
    assert [failure.code for failure in report.failed] == ["bad-object"]
    assert fetched(tmp_path) == []
    assert straight
