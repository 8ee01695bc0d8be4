"""One entry that cannot be read costs that entry; what comes back under another device number is what it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.intake import comparison
from dicomwatchd.pipeline.shipment import AfterArchive
from tests.fuse.mounted import Mounted
from tests.pieces import Pieces, at
from tests.synthetic import Made, Maker

WEEK = 7 * 86400.0


@pytest.fixture
def pieces(share: Mounted, tmp_path: Path) -> Iterator[Pieces]:
    found = on_share(share, tmp_path)
    yield found
    found.close()


def on_share(share: Mounted, tmp_path: Path, after_archive: AfterArchive | None = None) -> Pieces:
    pieces = Pieces(tmp_path / "site", inboxes=0, after_archive=after_archive)
    pieces.inboxes = [share.path]
    pieces.restart()
    return pieces


def slices(share: Mounted, count: int) -> list[Made]:
    maker = Maker(seed=3)
    return maker.ct_series(share.backing / "DOE", slices=count, series=1, study=0, rows=16, columns=16)


def test_one_entry_that_cannot_be_looked_at_costs_that_entry(share: Mounted, pieces: Pieces) -> None:
    made = slices(share, 5)
    share.order(broken=[made[2].path.name])
    rounds(pieces)
    assert pieces.archived() == {m.sha256 for m in made if m is not made[2]}
    assert pieces.states() == {made[2].path.name: "quarantined:unreadable"}
    [told] = pieces.log.events("intake-unreadable")
    assert told["unreadable_count"] == 1 and pieces.intakes[0].unreadable == 1
    assert not pieces.intakes[0].saw_everything
    share.order()
    rounds(pieces)
    assert pieces.archived() == {m.sha256 for m in made} and left(share) == [] and pieces.intakes[0].unreadable == 0


def test_a_folder_that_cannot_be_listed_costs_that_folder(share: Mounted, pieces: Pieces) -> None:
    made = slices(share, 2)
    (share.backing / "ILL").mkdir()
    share.order(broken_folders=["ILL"])
    rounds(pieces)
    assert pieces.archived() == {m.sha256 for m in made}
    assert pieces.states() == {"ILL": "quarantined:unreadable"}
    share.order()
    pieces.scan()
    assert pieces.states() == {}


def test_a_remount_changes_no_due_time_and_reads_no_file_again(share: Mounted, tmp_path: Path) -> None:
    pieces = on_share(share, tmp_path, AfterArchive(delete=False, keep_seconds=WEEK))
    made = slices(share, 3)
    rounds(pieces)
    dues = rows(pieces)
    assert len(dues) == 3
    device = os.stat(share.path).st_dev
    share.unmount()
    pieces.clock.advance(3600)
    pieces.scan()
    pieces.clock.advance(3)
    pieces.scan()
    assert rows(pieces) == dues, "an empty mount point says nothing of what was mounted there"
    taken = Mounted(tmp_path, "other")  # takes the number
    try:
        share.mount()
        assert os.stat(share.path).st_dev != device
        with at(comparison, "take", lambda: None) as reads:
            pieces.restart()
            pieces.settle()
            pieces.scan()
        assert reads == [0]
        assert rows(pieces) == dues
        pieces.clock.advance(WEEK - 3600 * 2)
        pieces.scan()
        assert pieces.ship() == 0 and len(left(share)) == 3
        pieces.clock.advance(3600 * 2)
        rounds(pieces)
        assert left(share) == [] and pieces.archived() == {m.sha256 for m in made}
    finally:
        taken.unmount()
        pieces.close()


def rounds(pieces: Pieces) -> None:
    for _ in range(2):
        pieces.settle()
        pieces.ship()
        pieces.clock.advance(pieces.settings.scan_interval_seconds * 1.2)


def left(share: Mounted) -> list[Path]:
    return [path for path in share.backing.rglob("*") if not path.is_dir()]


def rows(pieces: Pieces) -> list[tuple[str, float, str]]:
    with pieces.queue._database.read() as db:
        return [
            (row["state"], row["due_at"], row["identity"].partition(":")[2])
            for row in db.execute("SELECT * FROM files ORDER BY file_id")
        ]
