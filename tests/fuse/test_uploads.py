"""A folder on a medium that fails is handed in: what could not be read is named, and nobody is told to delete it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd import doctor
from tests.fuse.mounted import Mounted
from tests.pieces import Pieces
from tests.synthetic import Maker
from tests.unit.uploading import FILES, Handed, named, put


@pytest.fixture
def pieces(share: Mounted, tmp_path: Path) -> Iterator[Pieces]:
    put(share.backing)
    pieces = Pieces(tmp_path / "site")
    yield pieces
    pieces.close()


@pytest.mark.parametrize("delete", [False, True])
def test_what_a_failing_medium_does_not_give_is_named(delete: bool, share: Mounted, pieces: Pieces) -> None:
    put(share.backing, {"B/IM9": FILES["A/IM1"]})
    share.order(broken=["IM3"], broken_folders=["B"])
    result = Handed(pieces, share.path, delete=delete).go(rounds=120)
    assert not result["complete"] and not result["deletable"]
    assert {"A/IM3", "B"} <= set(named(result)) <= {"A/IM3", "B", "B/IM9"}
    assert (share.backing / "A" / "IM3").exists() and (share.backing / "B" / "IM9").exists()
    share.order()
    result = Handed(pieces, share.path, delete=delete).go(rounds=120)
    assert result["complete"] and len(pieces.archived()) == 6


def test_a_scratched_disc(share: Mounted, tmp_path: Path) -> None:
    """One image cannot be read, and one folder cannot be listed: they are named, and all others are archived."""
    maker = Maker(seed=30)
    files = maker.mr_study(tmp_path / "MR", series=1, slices=3) + maker.ct_series(tmp_path / "CT", slices=4)
    *made, _ = maker.disc(share.backing, files)
    pieces = Pieces(tmp_path / "site")
    try:
        lost = next(one.path for one in made if one.study_uid == files[0].study_uid)
        share.order(broken=[lost.name], broken_folders=["VIEWER"])
        result = Handed(pieces, share.path).go(rounds=120)
        broken = {str(one.path.relative_to(share.backing)) for one in made if one.path.name == lost.name}
        assert not result["complete"] and broken | {"VIEWER"} == set(named(result))
        assert result["verified"] == len(made) - len(broken) and result["dicomdir"]["missing"] == 0
        share.order()
        assert Handed(pieces, share.path).go(rounds=120)["complete"]
    finally:
        pieces.close()


def test_a_folder_that_fails_after_it_was_archived(share: Mounted, pieces: Pieces) -> None:
    handed = Handed(pieces, share.path)
    handed.go(lambda now: now["verified"] == 6, rounds=120)
    share.order(broken_folders=["A"])
    result = handed.go(rounds=120)
    assert not result["deletable"] and "A" in named(result)


@pytest.mark.parametrize("delete", [False, True])
def test_a_stick_that_is_put_in_again_under_another_number(
    delete: bool, share: Mounted, pieces: Pieces, tmp_path: Path
) -> None:
    handed = Handed(pieces, share.path, delete=delete)
    handed.go(lambda now: now["files"] == 6, rounds=120, ship=False)
    device = os.stat(share.path).st_dev
    share.unmount()
    for _ in range(3):
        handed.second(seconds=10)
    assert handed.now["phase"] == "waiting for the folder"
    taken = Mounted(tmp_path, "other")  # takes the number
    try:
        share.mount()
        assert os.stat(share.path).st_dev != device
        result = handed.go(rounds=120)
    finally:
        taken.unmount()
    assert result["complete"] and (result["verified"], result["deleted"]) == (6, 6 if delete else 0)


def test_the_doctor_finds_folders_that_cannot_be_listed(share: Mounted, pieces: Pieces) -> None:
    assert doctor._listable("inbox ct1", share.path).outcome == "good"
    share.order(broken_folders=["A"])
    finding = doctor._listable("inbox ct1", share.path)
    assert finding.outcome == "bad" and "1 cannot be listed (EIO)" in finding.detail
