"""One entry that does not say what it is, a listing that breaks off: that entry, and nothing else, is not taken."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pieces import Pieces
from tests.synthetic import Made, Maker


class Disk:
    """What the disk does to whoever lists a folder: ``broken`` names fail with EIO, and after ``breaks_after`` entries
    the listing does."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.breaks_after: int | None = None

    def scandir(self, fd: int) -> Listing:
        return Listing(sorted(_scandir(fd), key=lambda entry: entry.name), self)


class Listing:
    def __init__(self, entries: list[os.DirEntry[str]], disk: Disk) -> None:
        self._entries, self._disk, self._given = iter(entries), disk, 0

    def __enter__(self) -> Listing:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._given == self._disk.breaks_after:
            raise OSError(errno.EIO, "the disk")
        self._given += 1
        entry = next(self._entries)
        return Broken(entry) if entry.name in self._disk.broken else entry


class Broken:
    def __init__(self, entry: os.DirEntry[str]) -> None:
        self.name = entry.name

    def is_dir(self, *, follow_symlinks: bool) -> bool:
        return False

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        raise OSError(errno.EIO, "the disk")


_scandir = os.scandir


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(os, "scandir", lambda fd: disk.scandir(fd) if isinstance(fd, int) else _scandir(fd))
    return disk


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


def slices(pieces: Pieces, count: int = 3) -> list[Made]:
    return Maker(seed=3).ct_series(pieces.inbox / "DOE", slices=count, series=1, study=0, rows=16, columns=16)


def test_the_others_are_taken_and_it_is_named(pieces: Pieces, disk: Disk) -> None:
    made = slices(pieces)
    disk.broken = {made[1].path.name}
    pieces.settle()
    [beside] = pieces.queue.reports.show(made[0].study_uid)["unreadable"]  # type: ignore[index]
    assert beside["name"] == f"DOE/{made[1].path.name}"
    pieces.ship()
    assert pieces.archived() == {made[0].sha256, made[2].sha256} and pieces.left() == [made[1].path]
    assert pieces.states() == {made[1].path.name: "quarantined:unreadable"}
    assert pieces.intakes[0].unreadable == 1 and not pieces.intakes[0].saw_everything
    for _ in range(2):
        pieces.scan()
    [told] = pieces.log.events("intake-unreadable")
    assert told == {"inbox": "inbox1", "unreadable_count": 1, "errno": None}, "once, and without a name"
    disk.broken = set()
    pieces.run()
    assert pieces.archived() == {m.sha256 for m in made} and pieces.left() == []
    assert len(pieces.log.events("intake-readable")) == 1


def test_a_file_that_is_known_is_not_gone_because_it_cannot_be_looked_at(pieces: Pieces, disk: Disk) -> None:
    made = slices(pieces)
    pieces.scan()
    pieces.clock.advance(2.1)
    pieces.look()
    before = pieces.states()
    disk.broken = {made[1].path.name}
    pieces.scan()
    assert pieces.states() == before


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_listing_that_breaks_off_makes_nothing_gone(pieces: Pieces, disk: Disk, after: int) -> None:
    slices(pieces)
    pieces.scan()
    pieces.clock.advance(2.1)
    pieces.look()
    before = pieces.states()
    disk.breaks_after = after
    pieces.scan()
    assert before.items() <= pieces.states().items()
    assert pieces.intakes[0].unreadable >= 1
    disk.breaks_after = None
    pieces.scan()
    assert pieces.states() == before and pieces.intakes[0].unreadable == 0


def test_what_was_listed_before_it_broke_off_is_taken(pieces: Pieces, disk: Disk) -> None:
    made = slices(pieces)
    disk.breaks_after = 2
    pieces.settle()
    pieces.ship()
    assert pieces.archived() == {m.sha256 for m in made[:2]}
