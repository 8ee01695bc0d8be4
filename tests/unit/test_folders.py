"""Reading the members of a bundle: each from a descriptor that is compared before and after."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomwatchd.errors import SourceChanged
from dicomwatchd.model import FileIdentity, InstanceHeader, Uid
from dicomwatchd.pipeline.local import Folders
from dicomwatchd.queue.rows import LocalFile, Source
from tests.pieces import at

DATA = bytes(range(256)) * 20


def rewritten(path: Path) -> None:
    """Other bytes of the same length in place, the time set back: only the ctime tells."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert FileIdentity.of(path.stat()) != FileIdentity.of(before)


@pytest.fixture
def found(tmp_path: Path) -> tuple[Source, LocalFile, Path]:
    path = tmp_path / "A" / "IM1"
    path.parent.mkdir()
    path.write_bytes(DATA)
    header = InstanceHeader(Uid("1.2.1"), Uid("1.2.1.1"), Uid("1.2.1.1.1"), "", "")
    file = LocalFile(1, 1, b"A", b"IM1", FileIdentity.of(path.stat()), header, 1, None, None, None, None, None)
    return Source(1, "ct1", os.fsencode(tmp_path), "inbox", delete_local=False), file, path


def read(source: Source, file: LocalFile) -> bytes:
    buffer = bytearray(file.identity.size_bytes)
    with Folders() as folders:
        folders.read(source, file, memoryview(buffer))
    return bytes(buffer)


def test_what_is_read_is_the_file(found: tuple[Source, LocalFile, Path]) -> None:
    source, file, _ = found
    assert read(source, file) == DATA


def test_changed_since_it_was_taken_up(found: tuple[Source, LocalFile, Path]) -> None:
    source, file, path = found
    rewritten(path)
    with pytest.raises(SourceChanged):
        read(source, file)


def test_read_out_of_another_file(found: tuple[Source, LocalFile, Path]) -> None:
    """What has the name by now is not read at all, whatever it becomes afterwards."""
    source, file, path = found
    path.rename(path.with_name("taken"))
    path.write_bytes(DATA)
    touched: list[int] = []
    with at(os, "preadv", lambda: touched.append(1)), pytest.raises(SourceChanged):
        read(source, file)
    assert touched == []


def test_changed_while_it_was_read(found: tuple[Source, LocalFile, Path]) -> None:
    source, file, path = found
    with at(os, "preadv", lambda: rewritten(path), after=True), pytest.raises(SourceChanged):
        read(source, file)


def _replaced(path: Path) -> None:
    path.rename(path.with_name("gone"))
    path.write_bytes(DATA)


def _linked(path: Path) -> None:
    path.rename(path.with_name("gone"))
    path.symlink_to("gone")


@pytest.mark.parametrize("change", [rewritten, _replaced, _linked, Path.unlink])
def test_changed_once_it_was_sent(found: tuple[Source, LocalFile, Path], change: Callable[[Path], None]) -> None:
    source, file, path = found
    with Folders() as folders:
        folders.read(source, file, memoryview(bytearray(len(DATA))))
        folders.require_unchanged(source, file)
        change(path)
        with pytest.raises(SourceChanged):
            folders.require_unchanged(source, file)


def test_no_descriptor_is_left(found: tuple[Source, LocalFile, Path]) -> None:
    source, file, _ = found
    before = len(os.listdir("/proc/self/fd"))
    with Folders() as folders:
        for _ in range(3):
            folders.read(source, file, memoryview(bytearray(len(DATA))))
    assert len(os.listdir("/proc/self/fd")) == before
