"""Long work on a slow share: whoever does it shows signs of life, and leaves it when the daemon is to stop.

A share that gives 4 KB a second, on virtual time, stands for a huge file on one that gives a megabyte: what counts is
how long a thread is silent between two signs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd import filebytes
from dicomwatchd.archive.layout import bundle as bundles
from dicomwatchd.archive.stores.port import Content, Receipt
from dicomwatchd.daemon.supervisor import LOOP_SILENCE_SECONDS, WORKER_SILENCE_SECONDS
from dicomwatchd.errors import SourceChanged, Stopping
from dicomwatchd.intake import scan
from dicomwatchd.pipeline.deletion import proof
from dicomwatchd.pipeline.deletion.staging import staged as staging
from dicomwatchd.pipeline.shipment import Bundling
from dicomwatchd.ports import stop_check, until_cancelled
from dicomwatchd.queue.rows import Source
from tests.pieces import Pieces
from tests.synthetic import Maker
from tests.unit.memory_archive import MemoryStore

BYTES_A_SECOND = 4096.0
#: Takes longer than a worker may be silent, many times over.
LARGE_BYTES = 8 << 20


class Share:
    """Reading and writing takes time, on a clock of its own. As a sign it measures the silence before it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = self.last = self.longest = 0.0
        self.signs = 0
        self.stop_at = float("inf")
        for name in ("pread", "preadv", "pwrite"):
            monkeypatch.setattr(os, name, self._slow(getattr(os, name)))

    def _slow(self, real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            result = real(*arguments)
            self.takes(len(result) if isinstance(result, bytes) else result)
            return result

        return call

    def takes(self, size_bytes: int) -> None:
        self.seconds += size_bytes / BYTES_A_SECOND

    def __call__(self) -> bool:
        self.signs += 1
        self.longest = max(self.longest, self.seconds - self.last)
        self.last = self.seconds
        return self.seconds >= self.stop_at


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> Share:
    return Share(monkeypatch)


@pytest.fixture
def large(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(LARGE_BYTES)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


class SlowStore(MemoryStore):
    """Takes large objects in parts, and gives them out as slowly as the share."""

    share: Share

    def put(self, key: str, content: Content) -> Receipt:
        size, part = content.digest.size_bytes, 1 << 18
        data = bytearray(size)
        for start in range(0, size, part):
            content.fill(start, memoryview(data)[start : start + part])
        self.versions.setdefault(key, [bytes(data)])
        return Receipt(key, size, content.digest.sha256, True)

    def read(self, key: str, version_id: str | None = None, **options: Any) -> Iterator[Any]:
        for chunk in super().read(key, version_id, **options):
            self.share.takes(len(chunk))
            yield chunk


def shipping(root: Path, share: Share, **how: Any) -> tuple[Pieces, list[Path]]:
    """A study of one large file that is quiet, and whose shipment is to ask the share."""
    store = SlowStore(single_put_bytes=1 << 16, chunk_bytes=1 << 18)
    store.share = share
    pieces = Pieces(root, store=store, **how)
    made = Maker(seed=5).us_multiframe(pieces.inbox, frames=60, compressed=False, rows=240, columns=320)
    assert made[0].size_bytes / BYTES_A_SECOND > WORKER_SILENCE_SECONDS
    pieces.settle()
    pieces.cancelled = share
    share.last = share.seconds
    return pieces, [one.path for one in made]


# -- the whole way ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leases", [True, False])
def test_a_large_file_is_sent_read_back_compared_and_deleted_with_signs_of_life(
    tmp_path: Path, share: Share, monkeypatch: pytest.MonkeyPatch, leases: bool
) -> None:
    if not leases:
        without_leases(monkeypatch)
    pieces, [path] = shipping(tmp_path, share)
    before = share.seconds
    pieces.ship()
    assert not path.exists()
    # Hashed, sent, read back, hashed once more; and after the unlink again, where no lease tells.
    assert share.seconds - before > (4 if leases else 5) * WORKER_SILENCE_SECONDS
    assert share.longest < LOOP_SILENCE_SECONDS
    pieces.close()


def test_small_files_in_a_bundle(tmp_path: Path, share: Share) -> None:
    store = SlowStore(single_put_bytes=1 << 16, chunk_bytes=1 << 18)
    store.share = share
    pieces = Pieces(tmp_path, store=store, bundling=Bundling(1 << 20, 4 << 20))
    Maker(seed=3).ct_series(pieces.inbox, slices=30, rows=256, columns=256)
    pieces.settle()
    pieces.cancelled = share
    share.last = share.seconds
    pieces.ship()
    assert pieces.left() == []
    assert share.longest < LOOP_SILENCE_SECONDS
    pieces.close()


@pytest.mark.parametrize("share_of_the_way", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_stopping_is_obeyed_soon_wherever_it_is(tmp_path: Path, share: Share, share_of_the_way: float) -> None:
    pieces, [path] = shipping(tmp_path, share)
    content, before = path.read_bytes(), share.seconds
    share.stop_at = before + share_of_the_way * 4 * len(content) / BYTES_A_SECOND
    pieces.ship()
    assert share.seconds - share.stop_at < LOOP_SILENCE_SECONDS
    assert path.read_bytes() == content, "it stands where it was"
    assert [one for one in pieces.inbox.rglob("*") if one.is_file()] == [path]
    share.stop_at = float("inf")
    pieces.run()
    assert pieces.left() == [] and hashlib.sha256(content).hexdigest() in {
        hashlib.sha256(found[-1]).hexdigest()
        for found in pieces.store.versions.values()  # type: ignore[attr-defined]
    }
    pieces.close()


# -- piece by piece ---------------------------------------------------------------------------------------------------


def test_hashing_asks_between_two_pieces(share: Share, large: int) -> None:
    assert filebytes.sha256_of(large, LARGE_BYTES, stop_check(share)) == hashlib.sha256(bytes(LARGE_BYTES)).hexdigest()
    assert share.longest <= filebytes.CHUNK_BYTES / BYTES_A_SECOND
    share.stop_at = share.seconds + 100
    with pytest.raises(Stopping):
        filebytes.sha256_of(large, LARGE_BYTES, stop_check(share))
    assert share.seconds - share.stop_at <= filebytes.CHUNK_BYTES / BYTES_A_SECOND


def test_reading_into_memory_asks_as_well(share: Share, large: int) -> None:
    filebytes.fill(large, 0, memoryview(bytearray(LARGE_BYTES)), stop_check(share))
    assert share.longest <= filebytes.PIECE_BYTES / BYTES_A_SECOND
    share.stop_at = share.seconds
    with pytest.raises(Stopping):
        filebytes.fill(large, 0, memoryview(bytearray(LARGE_BYTES)), stop_check(share))
    with pytest.raises(SourceChanged):
        filebytes.fill(large, 0, memoryview(bytearray(LARGE_BYTES + 1)))


def test_a_read_that_comes_in_crumbs_asks_between_them(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: real(fd, min(length, 1000), offset))
    signs: list[int] = []
    assert filebytes.read_exactly(large, 0, 10_000, stop_check(Counted(signs))) == bytes(10_000)
    assert len(signs) == 9
    with pytest.raises(Stopping):
        filebytes.read_exactly(large, 0, 10_000, stop_check(lambda: True))


def test_what_is_copied_back_shows_life_and_is_not_left(tmp_path: Path, share: Share, large: int) -> None:
    """A program has written to the file while it was deleted: what it wrote is saved, whatever the daemon is told."""
    folder = os.open(tmp_path, os.O_RDONLY)
    os.unlink("large", dir_fd=folder)
    share.stop_at = 0.0
    assert staging.save_late_writes(
        large,
        "0" * 64,
        Source(1, "inbox1", os.fsencode(tmp_path), "inbox", False),
        folder,
        b"IM1",
        lambda: as_beat(share),
    )
    assert (tmp_path / "IM1").stat().st_size == LARGE_BYTES
    assert share.longest < LOOP_SILENCE_SECONDS
    os.close(folder)


def test_a_bundle_that_is_read_back(share: Share) -> None:
    store = SlowStore(chunk_bytes=1 << 18)
    store.share = share
    store.versions["bundle"] = [bytes(LARGE_BYTES)]
    bundles.read_back(store, "bundle", None, (), share)
    assert 0 < share.longest <= 100
    share.stop_at = share.seconds
    with pytest.raises(Stopping):
        bundles.read_back(store, "bundle", None, (), share)


def test_the_pieces_of_long_work() -> None:
    signs: list[int] = []
    assert list(until_cancelled(Counted(signs), range(5))) == list(range(5))
    assert len(signs) == 5
    taken: list[int] = []
    with pytest.raises(Stopping):
        taken.extend(until_cancelled(lambda: len(taken) >= 0, range(5)))
    assert taken == []
    asked: list[int] = []
    ask = stop_check(lambda: True, lambda: asked.append(1), lambda: asked.append(2))
    with pytest.raises(Stopping):
        ask()
    assert asked == [1, 2]


# -- the intake -------------------------------------------------------------------------------------------------------


def test_a_look_at_very_many_entries(tmp_path: Path) -> None:
    for number in range(3 * scan.SIGN_EVERY):
        (tmp_path / str(number)).touch()
    signs: list[int] = []
    fd = os.open(tmp_path, os.O_RDONLY)
    scan.scan_directory(fd, b"", scan.Globs(("*",), ()), lambda: signs.append(1))
    assert len(signs) == 4
    signs.clear()
    list(scan.walk(fd, scan.Globs(("*",), ()), lambda *_: None, heartbeat=lambda: signs.append(1)))
    assert len(signs) == 4
    os.close(fd)


def test_the_walk_over_a_large_header(tmp_path: Path, share: Share) -> None:
    """Of a file of many fragments each one's head is read: the thread of the inbox is not silent meanwhile."""
    Maker(seed=5).us_multiframe(tmp_path / "inbox1", frames=400, rows=24, columns=4096)
    pieces = Pieces(tmp_path)
    pieces.clock.advance(10)
    share.last = share.seconds
    for intake in pieces.intakes:
        intake.step(lambda: as_beat(share))
    assert pieces.states() and set(pieces.states().values()) == {"ready"}
    assert share.signs > 100 and share.longest <= 70_000 / BYTES_A_SECOND
    pieces.close()


# -- details ----------------------------------------------------------------------------------------------------------


class Counted:
    """A sign that keeps how often it was asked."""

    def __init__(self, asked: list[int]) -> None:
        self._asked = asked

    def __call__(self) -> bool:
        self._asked.append(1)
        return False


def as_beat(share: Share) -> None:
    share()


def without_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def no_lease(_: int) -> Iterator[bool]:
        yield False

    for module in (proof, staging):
        monkeypatch.setattr(module, "read_lease", no_lease)
