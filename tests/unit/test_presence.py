"""When an inbox is mended: what a crash has left staged must not wait for the next start of the daemon."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomwatchd.intake.folder.presence import Presence
from dicomwatchd.localfiles import STAGING_NAME
from tests.pieces import Log, Pieces


def look(presence: Presence, path: Path) -> bool:
    """As the intake does it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        presence.away(error)
        return False
    try:
        return presence.here(fd)
    finally:
        os.close(fd)


def root_of(path: Path) -> tuple[int, int]:
    return path.stat().st_dev, path.stat().st_ino


def test_the_folder_that_was_mended_at_start(tmp_path: Path) -> None:
    presence = Presence("ct1", Log(), root_of(tmp_path))
    assert [look(presence, tmp_path) for _ in range(3)] == [False] * 3


def test_a_folder_that_nobody_has_mended(tmp_path: Path) -> None:
    """It was away at the start, and back before the first look."""
    presence = Presence("ct1", Log(), None)
    assert [look(presence, tmp_path) for _ in range(3)] == [True, False, False]


def test_another_folder_than_the_one_that_was_mended(tmp_path: Path) -> None:
    """The empty mount point was there at the start; the share is mounted over it before the first look."""
    presence = Presence("ct1", Log(), (1, 1))
    assert [look(presence, tmp_path) for _ in range(3)] == [True, False, False]


def test_away_and_back(tmp_path: Path) -> None:
    presence = Presence("ct1", Log(), root_of(tmp_path))
    assert [look(presence, path) for path in (tmp_path, tmp_path / "nowhere", tmp_path, tmp_path)] == [
        False,
        False,
        True,
        False,
    ]
    assert not presence.is_away


def _away_at_the_start(pieces: Pieces) -> Callable[[], object]:
    elsewhere = pieces.inbox.with_name("elsewhere")
    pieces.inbox.rename(elsewhere)
    return lambda: elsewhere.rename(pieces.inbox)


def _empty_mount_point_at_the_start(pieces: Pieces) -> Callable[[], object]:
    back = _away_at_the_start(pieces)
    pieces.inbox.mkdir()

    def mount() -> None:
        pieces.inbox.rmdir()
        back()

    return mount


@pytest.mark.parametrize("leave", [_away_at_the_start, _empty_mount_point_at_the_start])
@pytest.mark.parametrize("looked_at_meanwhile", [False, True])
def test_what_lies_aside_comes_back_with_its_inbox(
    tmp_path: Path, leave: Callable[[Pieces], Callable[[], object]], looked_at_meanwhile: bool
) -> None:
    pieces = Pieces(tmp_path)
    pieces.close()
    staged = pieces.inbox / os.fsdecode(STAGING_NAME) / "A"
    staged.mkdir(parents=True)
    (staged / "IM1").write_bytes(b"staged before the crash")
    come_back = leave(pieces)
    pieces.start()
    if looked_at_meanwhile:
        pieces.look()
    come_back()
    pieces.look()
    assert (pieces.inbox / "A" / "IM1").read_bytes() == b"staged before the crash"
    pieces.close()
