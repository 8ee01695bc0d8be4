"""A remount, another device number, an inbox made anew: no due time changes, and what is provably the same file is not
read again. Device numbers of before are written into the state, as an earlier mount would have left them there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.intake import comparison
from dicomwatchd.intake.folder import mounts
from dicomwatchd.model import FileIdentity
from dicomwatchd.pipeline.shipment import AfterArchive
from dicomwatchd.queue.bindings.remounts import FORGET_SECONDS, Remounts
from dicomwatchd.queue.rows import identity_text
from tests.pieces import Pieces, at
from tests.synthetic import Made, Maker

WEEK = 7 * 86400.0
BEFORE = 987_654


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False, keep_seconds=WEEK))
    yield pieces
    pieces.close()


@pytest.fixture(autouse=True)
def a_file_system_with_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all that tests run on have one."""
    monkeypatch.setattr(mounts, "file_system_id", lambda fd: "this-one")


def kept(pieces: Pieces) -> list[Made]:
    made = Maker(seed=3).ct_series(pieces.inbox / "DOE", slices=3, series=1, study=0, rows=16, columns=16)
    pieces.settle()
    assert pieces.ship() == 1
    return made


def was_mounted_as(pieces: Pieces, device: int, file_system: str = "this-one") -> None:
    with pieces.queue._database.write() as db:
        db.execute("UPDATE files SET identity = ? || substr(identity, instr(identity, ':'))", (str(device),))
        db.execute("DELETE FROM file_systems")
        db.execute(
            "INSERT INTO file_systems VALUES (?, ?, ?, ?)",
            (pieces.sources[0].source_id, device, file_system, pieces.clock.now()),
        )


def rows(pieces: Pieces) -> list[tuple[str, float]]:
    with pieces.queue._database.read() as db:
        found = db.execute("SELECT state, due_at FROM files ORDER BY file_id").fetchall()
    return [(row["state"], row["due_at"]) for row in found]


def reads_of(pieces: Pieces) -> int:
    pieces.clock.advance(70)
    with at(comparison, "take", lambda: None) as reads:
        pieces.settle()
        pieces.scan()
    return reads[0]


def test_a_file_system_with_a_new_number_is_known_again(pieces: Pieces) -> None:
    kept(pieces)
    before = rows(pieces)
    was_mounted_as(pieces, BEFORE)
    assert reads_of(pieces) == 0 and rows(pieces) == before
    pieces.clock.advance(WEEK)
    pieces.scan()
    pieces.run()
    assert pieces.left() == []


def test_another_file_system_is_read_again(pieces: Pieces) -> None:
    kept(pieces)
    was_mounted_as(pieces, BEFORE, "another-one")
    assert reads_of(pieces) == 3


def test_a_file_system_without_an_id_is_read_again(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "file_system_id", lambda fd: None)
    kept(pieces)
    was_mounted_as(pieces, BEFORE)
    assert reads_of(pieces) == 3


def test_where_no_file_system_was_ever_known_none_is_the_same(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that have no id are not one for that."""
    monkeypatch.setattr(mounts, "file_system_id", lambda fd: None)
    kept(pieces)
    was_mounted_as(pieces, BEFORE)
    with pieces.queue._database.write() as db:
        db.execute("DELETE FROM file_systems")
    assert reads_of(pieces) == 3


def test_a_directory_in_which_no_file_is_the_same_is_not_known_again(pieces: Pieces) -> None:
    """A disk that was restored from an image has the id of the one before, and other files."""
    made = kept(pieces)
    was_mounted_as(pieces, BEFORE)
    source_id, parent = pieces.sources[0].source_id, os.fsencode(made[0].path.parent.relative_to(pieces.inbox))
    known = pieces.queue.arrivals.known(source_id, parent)
    for one in made:
        os.utime(one.path)
    found = {os.fsencode(one.path.name): identity_text(FileIdentity.of(one.path.stat())) for one in made}
    assert known.keys() == found.keys()
    root_fd = os.open(pieces.inbox, os.O_RDONLY)
    try:
        again = mounts.Mounts(source_id, Remounts(pieces.queue._database, pieces.clock)).known_again(
            root_fd, parent, known, found
        )
    finally:
        os.close(root_fd)
    assert not again and pieces.queue.arrivals.known(source_id, parent) == known


def test_a_file_that_has_changed_meanwhile_is_read_again(pieces: Pieces) -> None:
    made = kept(pieces)
    was_mounted_as(pieces, BEFORE)
    os.utime(made[0].path)
    assert reads_of(pieces) == 1


def test_what_has_other_bytes_behind_the_same_identity_is_not_deleted(pieces: Pieces) -> None:
    """Nothing shows it but the bytes: they are compared before the unlink, remounted or not."""
    made = kept(pieces)
    other = made[0].path.read_bytes()[::-1]
    made[0].path.write_bytes(other)
    found = os.stat(made[0].path)
    with pieces.queue._database.write() as db:
        db.execute(
            "UPDATE files SET identity = ? WHERE name = ?",
            (
                f"{BEFORE}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}",
                os.fsencode(made[0].path.name),
            ),
        )
    was_mounted_as(pieces, BEFORE)
    assert reads_of(pieces) == 0
    pieces.clock.advance(WEEK)
    pieces.scan()
    pieces.ship()
    assert pieces.left() == [made[0].path] and made[0].path.read_bytes() == other


def test_an_inbox_made_anew_with_the_same_content_changes_no_due_time(pieces: Pieces, tmp_path: Path) -> None:
    kept(pieces)
    before = rows(pieces)
    shutil.copytree(pieces.inbox, tmp_path / "copy")
    shutil.rmtree(pieces.inbox)
    pieces.inbox.mkdir()
    pieces.clock.advance(3600)
    pieces.scan()
    assert rows(pieces) == []
    shutil.copytree(tmp_path / "copy", pieces.inbox, dirs_exist_ok=True)
    pieces.settle()
    pieces.ship()
    assert rows(pieces) == before


def test_other_content_under_the_name_has_a_due_time_of_its_own(pieces: Pieces) -> None:
    made = kept(pieces)
    [(_, due), *_] = rows(pieces)
    pieces.clock.advance(3600)
    fresh = Maker(seed=9).ct_series(pieces.root / "fresh", slices=1, series=1, study=0, rows=16, columns=16)[0]
    fresh.path.replace(made[0].path)
    pieces.settle()
    pieces.scan()
    pieces.settle()
    pieces.ship()
    assert sorted(at for _, at in rows(pieces))[-1] >= due + 3600


def test_what_was_deleted_leaves_no_due_time(pieces: Pieces) -> None:
    kept(pieces)
    pieces.clock.advance(WEEK + 1)
    pieces.run()
    assert pieces.left() == []
    with pieces.queue._database.read() as db:
        assert db.execute("SELECT COUNT(*) FROM dues").fetchone()[0] == 0


def test_kept_files_of_a_file_system_that_is_away_are_not_forgotten(pieces: Pieces, tmp_path: Path) -> None:
    kept(pieces)
    before = rows(pieces)
    was_mounted_as(pieces, BEFORE, "the-share")
    (pieces.inbox / "DOE").rename(tmp_path / "DOE")
    pieces.clock.advance(70)
    pieces.scan()
    assert rows(pieces) == before
    was_mounted_as(pieces, os.stat(pieces.inbox).st_dev)
    pieces.clock.advance(70)
    pieces.scan()
    assert rows(pieces) == [], "here they are gone"


def test_a_file_system_that_never_came_back(pieces: Pieces, tmp_path: Path) -> None:
    kept(pieces)
    was_mounted_as(pieces, BEFORE, "the-share")
    (pieces.inbox / "DOE").rename(tmp_path / "DOE")
    pieces.clock.advance(FORGET_SECONDS + 70)
    pieces.scan()
    assert rows(pieces) == []
