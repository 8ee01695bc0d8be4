"""What somebody who may write to an inbox can build there stops neither the start nor a deletion: a search for what
is staged ends in time and goes on beside the work, and another user's private directory is none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dicomwatchd import localfiles, markers
from dicomwatchd.intake.folder.leftovers import Leftovers
from dicomwatchd.intake.scan import Globs, Listing, scan_directory
from dicomwatchd.localfiles import open_root
from dicomwatchd.pipeline.deletion.staging import private, recover
from dicomwatchd.pipeline.deletion.staging import staged as staging
from dicomwatchd.pipeline.deletion.staging.recover import bring_back
from dicomwatchd.queue.rows import Source
from dicomwatchd.telemetry.health import EXTEND_SECONDS, ServiceManager
from tests.pieces import FakeClock, Log, Pieces
from tests.synthetic import Maker

SOMEBODY = 12345

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders to others")

#: For what is patched in it by its name.
RECOVER = "dicomwatchd.pipeline.deletion.staging.recover"


def source_of(inbox: Path) -> Source:
    return Source(1, "ct1", os.fsencode(inbox), "inbox", delete_local=False)


def plant_staged(folder: Path, name: str = ".dicomwatchd-aside-0123456789abcdef") -> Path:
    place = folder / name / "A"
    place.mkdir(parents=True)
    (place / "IM1").write_bytes(b"x")
    return place.parent


@as_root
def test_another_user_s_private_directory_is_left_alone(tmp_path: Path) -> None:
    theirs, ours = plant_staged(tmp_path, ".dicomwatchd-aside"), plant_staged(tmp_path / "B")
    os.chown(theirs, SOMEBODY, SOMEBODY)
    found = bring_back(source_of(tmp_path), Log())
    assert (found.restored, found.left, found.is_through) == (1, 0, True)
    assert (theirs / "A" / "IM1").exists() and not ours.exists()


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_ours_is_ours_when_an_inbox_was_opened_to_its_group(tmp_path: Path, mode: int) -> None:
    """As by chmod -R, or setfacl -R, in the hope to mend something: what is staged comes back all the same."""
    pieces = Pieces(tmp_path)
    pieces.close()
    for place in (plant_staged(pieces.inbox), plant_staged(pieces.inbox / "B")):
        place.chmod(mode)
    pieces.start()
    assert (pieces.inbox / "A" / "IM1").exists() and (pieces.inbox / "B" / "A" / "IM1").exists()
    place = plant_staged(pieces.inbox / "C")
    place.chmod(mode)
    for _ in range(3):
        pieces.scan()
    assert (pieces.inbox / "C" / "A" / "IM1").exists() and not place.exists()
    pieces.close()


def test_it_is_private_again_before_anything_is_done_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = plant_staged(tmp_path)
    place.chmod(0o777)
    modes = []
    real = staging.move_back

    def noted(*arguments: object) -> bytes:
        modes.append(place.stat().st_mode & 0o777)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(recover, "move_back", noted)
    assert bring_back(source_of(tmp_path), Log()).restored == 1 and modes == [0o700]


def test_how_a_deletion_ended_is_known_there_too(tmp_path: Path) -> None:
    """Otherwise what still is staged would be on record as deleted."""
    place = plant_staged(tmp_path)
    place.chmod(0o770)
    found = recover._scan(source_of(tmp_path), b"A", lambda: None)
    assert found is not None and found.staged.keys() == {(place / "A" / "IM1").stat().st_ino}


def test_a_file_system_that_gives_new_folders_another_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By inherited ACLs: deleting goes on, in a private directory that is one."""
    real = os.mkdir

    def mkdir(name: bytes, mode: int, *, dir_fd: int) -> None:
        real(name, mode, dir_fd=dir_fd)
        os.chmod(name, 0o770, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", mkdir)
    fd = open_root(os.fsencode(tmp_path))
    one = private.make(fd)
    assert os.fstat(one.fd).st_mode & 0o777 == 0o700
    one.release()
    os.close(fd)
    assert list(tmp_path.iterdir()) == []


def test_the_folders_below_a_planted_one_are_not_all_listed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = plant_staged(tmp_path)
    for number in range(20):
        (place / f"F{number}" / "G").mkdir(parents=True)
    listed = [0]
    real = private.entries

    def entries(*arguments: object) -> list[tuple[bytes, bool]]:
        listed[0] += 1
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(private, "entries", entries)
    monkeypatch.setattr(f"{RECOVER}.time.monotonic", lambda: 100.0 if listed[0] > 4 else 0.0)
    found = bring_back(source_of(tmp_path), Log())
    assert not found.is_searched and listed[0] < 10


@as_root
def test_where_owners_are_not_kept_they_tell_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a share that is mounted with one owner for all, ours looks like everybody's."""
    os.chown(plant_staged(tmp_path), SOMEBODY, SOMEBODY)
    monkeypatch.setattr(localfiles, "_file_system", lambda _: 0xFF534D42)
    assert bring_back(source_of(tmp_path), Log()).restored == 1


@as_root
def test_one_that_is_exchanged_while_it_is_made_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = os.mkdir, [0]

    def mkdir(name: bytes, mode: int, *, dir_fd: int) -> None:
        real(name, mode, dir_fd=dir_fd)
        made[0] += 1
        if made[0] == 1:
            os.chown(tmp_path / os.fsdecode(name), SOMEBODY, SOMEBODY)

    monkeypatch.setattr(os, "mkdir", mkdir)
    fd = open_root(os.fsencode(tmp_path))
    one = private.make(fd)
    assert made[0] == 2 and os.fstat(one.fd).st_uid == os.geteuid()
    one.release()
    os.close(fd)


@as_root
def test_it_is_told_of_and_stops_no_deletion(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    theirs = [plant_staged(pieces.inbox, ".dicomwatchd-aside"), plant_staged(pieces.inbox / "B")]
    for place in theirs:
        os.chown(place, SOMEBODY, SOMEBODY)
    made = Maker(seed=3).ct_series(pieces.inbox / "DOE", slices=2, rows=16, columns=16)
    pieces.run(3)
    assert not any(one.path.exists() for one in made)
    told = {(os.path.relpath(row["path"], pieces.inbox), row["code"]) for row in pieces.queue.reports.quarantine(10)}
    assert told == {(".dicomwatchd-aside", "not-ours"), ("B/.dicomwatchd-aside-0123456789abcdef", "not-ours")}
    rows = pieces.queue.reports.quarantine(10)
    pieces.clock.advance(5)
    pieces.scan()
    assert pieces.queue.reports.quarantine(10) == rows, "told anew by each look"
    for place in theirs:
        assert (place / "A" / "IM1").exists()
        subprocess.run(["rm", "-r", str(place)], check=True)
    pieces.scan()
    assert pieces.queue.reports.quarantine(10) == []
    pieces.close()


@as_root
def test_it_leaves_no_deletion_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where the daemon may not even look into it."""
    theirs = plant_staged(tmp_path)
    os.chown(theirs, SOMEBODY, SOMEBODY)
    real = os.open

    def refuse(path: bytes, *arguments: object, **named: object) -> int:
        if path == os.fsencode(theirs.name):
            raise PermissionError(13, "not yours")
        return real(path, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    place = recover._scan(source_of(tmp_path), b"A", lambda: None)
    assert place is not None and place.here == {} and place.staged == {}
    assert bring_back(source_of(tmp_path), Log()).left == 0


def test_a_search_that_takes_too_long_is_left_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it did not come to comes back once the intake has looked at the inbox."""
    pieces = Pieces(tmp_path)
    plant_staged(pieces.inbox / "B")
    pieces.close()
    monkeypatch.setattr(recover, "SEARCH_SECONDS", -1.0)
    pieces.start()
    [told] = pieces.log.events("recover-unfinished")
    assert told == {"inbox": "inbox1"}
    unsearched = [pieces.intakes[0].unsearched]
    assert (pieces.inbox / "B").exists()
    monkeypatch.undo()
    pieces.scan()
    pieces.scan()
    assert (pieces.inbox / "B" / "A" / "IM1").read_bytes() == b"x"
    assert [*unsearched, pieces.intakes[0].unsearched] == [True, False]
    pieces.close()


def test_what_lies_at_the_top_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_staged(tmp_path)
    for number in range(50):
        (tmp_path / f"F{number}").mkdir()
    calls = [0]
    monkeypatch.setattr(recover, "SEARCH_SECONDS", 0.0)
    monkeypatch.setattr(f"{RECOVER}.time.monotonic", lambda: 0.0 if calls[0] < 5 else 1.0)

    def count() -> None:
        calls[0] += 1

    found = bring_back(source_of(tmp_path), Log(), count)
    assert found.restored == 1 and not found.is_searched and not found.is_through


def test_only_the_directories_that_were_named(tmp_path: Path) -> None:
    for name in ("A", "B", "A/C"):
        plant_staged(tmp_path / name)
    assert bring_back(source_of(tmp_path), Log(), only=[b"A"]).restored == 1
    assert (tmp_path / "A" / "A" / "IM1").exists()
    assert not (tmp_path / "B" / "A").exists() and not (tmp_path / "A" / "C" / "A").exists()


def test_after_a_search_that_was_left_one_look_is_enough() -> None:
    found = Leftovers(eager=True)
    found.begin_scan()
    found.see(b"A", Listing(private=[b"x"]))
    assert found.end_scan() == {b"A"} and not found.eager


def test_no_more_is_told_than_anybody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = plant_staged(tmp_path)
    for number in range(100):
        (place / f"F{number}").write_bytes(b"x")

    def refuse(*_: object) -> bytes:
        raise OSError(5, "no")

    monkeypatch.setattr(recover, "move_back", refuse)
    log = Log()
    assert bring_back(source_of(tmp_path), log).left == 101
    assert len(log.events("recover-failed")) == recover.MOST_TOLD


@as_root
def test_a_listing_tells_them_apart(tmp_path: Path) -> None:
    os.chown(plant_staged(tmp_path, ".dicomwatchd-aside"), SOMEBODY, SOMEBODY)
    plant_staged(tmp_path)
    fd = open_root(os.fsencode(tmp_path))
    listing = scan_directory(fd, b"", Globs(["*"], []))
    assert list(listing.foreign) == [b".dicomwatchd-aside"] and len(listing.private) == 1
    os.close(fd)


def test_the_start_asks_for_more_time_while_it_is_at_work() -> None:
    sent: list[str] = []
    clock = FakeClock()
    service = ServiceManager(sent.append, clock=clock)
    for _ in range(10):
        service.extend()
    assert sent == [f"EXTEND_TIMEOUT_USEC={int(EXTEND_SECONDS * 1e6)}"]
    clock.advance(EXTEND_SECONDS / 6 + 1)
    service.extend()
    assert len(sent) == 2


def test_a_mark_in_an_inbox_stops_that_inbox_alone(tmp_path: Path) -> None:
    """Whoever may write to an inbox can put an archive's mark into it. Safety has it that nothing there is looked at;
    the others go on, it is told, and once the mark is gone all is as before."""
    pieces = Pieces(tmp_path, inboxes=2)
    mark = pieces.inboxes[0] / os.fsdecode(markers.ARCHIVE)
    mark.touch()
    made = [Maker(seed=number).ct_series(inbox, slices=1)[0] for number, inbox in enumerate(pieces.inboxes)]
    pieces.run(3)
    assert made[0].path.exists() and not made[1].path.exists()
    assert pieces.log.events("inbox-own-tree")
    pieces.restart()
    pieces.run(2)
    assert made[0].path.exists()
    mark.unlink()
    pieces.run(4)
    assert not made[0].path.exists()
    pieces.close()
