"""The archive seen through another file system, under other numbers and other names: that its objects are no exports is
told by nothing but that they are gone when these files are staged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuse.mounted import Mounted
from tests.unit.test_own_trees import House, house, without_marks


def test_the_archive_through_a_second_file_system(
    share: Mounted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = house(tmp_path / "site")
    held = found.objects()
    assert len(held) == 3
    without_marks(monkeypatch)
    moved(found, share)
    share.order(names={f"IM{number}": Path(key).name for number, key in enumerate(held)})
    for _ in range(4):
        found.pieces.run(2)
        found.pieces.clock.advance(2000)
    assert found.objects() == held, "the archive's only copies are gone"
    assert set(found.kept().values()) == {"kept:own-object"} and set(found.kept()) == {"IM0", "IM1", "IM2"}
    assert found.pieces.log.events("deletion-stopped")
    found.pieces.close()


def moved(found: House, share: Mounted) -> None:
    """The archive lies on the share by now, and the share is an inbox."""
    there = share.backing / "x"
    found.archive.rename(there)
    found.archive.symlink_to(there)
    found.pieces.inboxes = [share.path]
    found.pieces.restart()
