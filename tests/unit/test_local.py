"""Reading a file for its upload: what is hashed is what is sent, and what has changed is noticed at every step."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from dicomwatchd import filebytes
from dicomwatchd.errors import SourceChanged, Transient, Unarchivable
from dicomwatchd.model import FileIdentity, InstanceHeader, Pieces, Uid
from dicomwatchd.pipeline import local
from dicomwatchd.pipeline.local import Folders, content_of
from dicomwatchd.queue.rows import LocalFile, Source
from tests.pieces import at

DATA = bytes(range(256)) * 20
BOTH = pytest.mark.parametrize("in_memory", [1 << 20, 100], ids=["one-piece", "in-parts"])


@pytest.fixture
def place(tmp_path: Path) -> tuple[Source, LocalFile, Path]:
    path = tmp_path / "A" / "IM1"
    path.parent.mkdir()
    path.write_bytes(DATA)
    header = InstanceHeader(Uid("1.2.1"), Uid("1.2.1.1"), Uid("1.2.1.1.1"), "", "")
    identity = FileIdentity.of(path.stat())
    file = LocalFile(1, 1, b"A", b"IM1", identity, header, 1, None, None, None, None, None)
    return Source(1, "ct1", os.fsencode(tmp_path), "inbox", delete_local=False), file, path


Place = tuple[Source, LocalFile, Path]


@BOTH
def test_the_digest_is_that_of_the_bytes(place: Place, in_memory: int) -> None:
    source, file, _ = place
    with Folders() as folders, content_of(folders, source, file, in_memory) as content:
        assert content.digest.sha256 == hashlib.sha256(DATA).hexdigest()
        assert content.digest.size_bytes == len(DATA)
        assert content.read(0, len(DATA)) == DATA
        assert content.read(100, 50) == DATA[100:150]
        buffer = bytearray(b"?" * 60)
        content.fill(100, memoryview(buffer)[5:55])
        assert buffer == b"?" * 5 + DATA[100:150] + b"?" * 5


@pytest.mark.parametrize("length", [1, 6, 7, 8, 13, 14, 15, 21, 28, 29, 42, len(DATA)])
@pytest.mark.parametrize("piece_bytes", [7, 14, 35])
def test_pieces_are_hashed_with_the_whole(
    place: Place, monkeypatch: pytest.MonkeyPatch, length: int, piece_bytes: int
) -> None:
    source, file, _ = place
    monkeypatch.setattr(filebytes, "PIECE_BYTES", 7)
    beats = []
    with Folders() as folders, folders.opened(source, file) as (_, fd):
        found = filebytes.sha256_in_pieces(fd, length, piece_bytes, lambda: beats.append(1))
        with pytest.raises(SourceChanged):
            filebytes.sha256_in_pieces(fd, len(DATA) + 1, piece_bytes)
    data = DATA[:length]
    pieces = [data[start : start + piece_bytes] for start in range(0, length, piece_bytes)]
    assert found == (hashlib.sha256(data).hexdigest(), tuple(hashlib.sha256(piece).digest() for piece in pieces))
    assert len(beats) == -(-length // 7)


@pytest.mark.parametrize(
    ("in_memory", "piece_bytes", "asked"), [(0, 1 << 20, 1), (0, None, 1), (len(DATA), 1 << 20, 0)]
)
def test_pieces_of_what_is_sent_in_parts_alone(
    place: Place, in_memory: int, piece_bytes: int | None, asked: int
) -> None:
    source, file, _ = place
    sizes: list[int] = []

    def pieces_of(size_bytes: int) -> int | None:
        sizes.append(size_bytes)
        return piece_bytes

    with Folders() as folders, content_of(folders, source, file, in_memory, piece_bytes=pieces_of) as content:
        assert content.digest.sha256 == hashlib.sha256(DATA).hexdigest()
        pieces = content.digest.pieces
    assert sizes == [len(DATA)] * asked
    assert pieces == (Pieces(1 << 20, (hashlib.sha256(DATA).digest(),)) if asked and piece_bytes else None)


def test_reading_and_hashing_go_on_where_the_kernel_gives_less_than_asked(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, file, _ = place
    real = os.preadv
    monkeypatch.setattr(filebytes, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(os, "preadv", lambda fd, rooms, offset: real(fd, [rooms[0][:7]], offset))
    with Folders() as folders, folders.opened(source, file) as (_, fd):
        for length in (0, 1, 7, 999, 1000, 1001, len(DATA)):
            assert filebytes.sha256_of(fd, length) == hashlib.sha256(DATA[:length]).hexdigest()
        buffer = bytearray(500)
        filebytes.fill(fd, 1234, memoryview(buffer))
        assert buffer == DATA[1234:1734]


def test_a_file_that_ends_before_the_room_is_full_has_changed(place: Place) -> None:
    source, file, _ = place
    with Folders() as folders, folders.opened(source, file) as (_, fd):
        for beyond in (len(DATA) - 10, len(DATA), len(DATA) + 10):
            with pytest.raises(SourceChanged):
                filebytes.fill(fd, beyond, memoryview(bytearray(20)))
        with pytest.raises(SourceChanged):
            filebytes.sha256_of(fd, len(DATA) + 1)


def _rewritten(path: Path) -> None:
    """Other bytes, size and time kept."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"NEW")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(DATA)
    other.rename(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "appended": lambda path: path.open("ab").write(b"more"),
    "truncated": lambda path: os.truncate(path, 100),
    "rewritten": _rewritten,
    "touched": lambda path: path.chmod(0o600),
}


@BOTH
@pytest.mark.parametrize("change", [*CHANGES.values(), _replaced], ids=[*CHANGES, "replaced"])
def test_changed_before(place: Place, in_memory: int, change: Callable[[Path], object]) -> None:
    source, file, path = place
    change(path)
    with pytest.raises(SourceChanged), Folders() as folders, content_of(folders, source, file, in_memory):
        pytest.fail("it was read")
    with pytest.raises(SourceChanged), Folders() as folders, folders.opened(source, file):
        pytest.fail("it was opened")


def _reads(in_memory: int) -> tuple[ModuleType, str]:
    return (local, "read_exactly") if in_memory > len(DATA) else (filebytes, "fill")


@BOTH
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("after", [False, True])
def test_changed_while_it_is_read(place: Place, in_memory: int, change: Callable[[Path], object], after: bool) -> None:
    source, file, path = place
    with (
        at(*_reads(in_memory), lambda: change(path), after=after),
        pytest.raises(SourceChanged),
        Folders() as folders,
        content_of(folders, source, file, in_memory),
    ):
        pytest.fail("it was handed on")


@BOTH
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_while_it_is_sent(place: Place, in_memory: int, change: Callable[[Path], object]) -> None:
    source, file, path = place
    with pytest.raises(SourceChanged):
        send(source, file, in_memory, lambda: change(path))


def send(source: Source, file: LocalFile, in_memory: int, meanwhile: Callable[[], object]) -> None:
    with Folders() as folders, content_of(folders, source, file, in_memory) as content:
        content.read(0, 50)
        meanwhile()


@BOTH
def test_renamed_while_it_is_sent(place: Place, in_memory: int) -> None:
    """The bytes are the same ones; the name is looked up anew later. A rename moves the ctime, so it is noticed."""
    source, file, path = place
    with pytest.raises(SourceChanged):
        send(source, file, in_memory, lambda: path.rename(path.with_name("IM2")))


@pytest.mark.parametrize("what", ["gone", "link", "directory", "fifo", "folder-gone"])
def test_something_else_under_its_name(place: Place, what: str) -> None:
    source, file, path = place
    path.unlink()
    if what == "link":
        path.symlink_to("/etc/hostname")
    elif what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "folder-gone":
        path.parent.rmdir()
    with pytest.raises(SourceChanged), Folders() as folders, folders.opened(source, file):
        pytest.fail("it was opened")


@BOTH
@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [(13, Unarchivable, "no-access"), (1, Unarchivable, "no-access"), (5, Transient, "local-eio")],
)
def test_errors_of_the_kernel(
    place: Place, in_memory: int, number: int, kind: type[Exception], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, file, path = place

    def fail(*_: object) -> bytes:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(*_reads(in_memory), fail)
    with pytest.raises(kind) as caught, Folders() as folders, content_of(folders, source, file, in_memory):
        pytest.fail("it was read")
    assert getattr(caught.value, "code", "") == code
    assert "IM1" not in str(caught.value)
