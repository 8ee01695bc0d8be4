"""An inbox on a clock of the test's own: what is taken up, when a study is quiet, and what is left alone."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd import localfiles
from dicomwatchd.errors import StateUnavailable, Transient
from dicomwatchd.intake import scan
from dicomwatchd.intake import take as take_module
from dicomwatchd.intake.dicom import header as header_module
from dicomwatchd.model import StudyState
from dicomwatchd.pipeline import local as local_module
from dicomwatchd.pipeline.deletion import proof as proof_module
from dicomwatchd.pipeline.local import Folders
from dicomwatchd.pipeline.shipment import AfterArchive
from dicomwatchd.queue.arrivals import Arrivals
from tests.pieces import Pieces, at
from tests.synthetic import Made, Maker


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path, inboxes=2)
    yield pieces
    pieces.close()


def slices(folder: Path, count: int = 1, *, first: int = 1, maker: Maker | None = None) -> list[Made]:
    maker = maker or Maker(seed=3)
    return maker.ct_series(folder, slices=count, first=first, series=1, study=0, rows=16, columns=16)


def state(pieces: Pieces, study: str) -> str | None:
    found = pieces.queue.reports.show(study)
    return None if found is None else found["state"]


# -- quiet ------------------------------------------------------------------------------------------------------------


def test_a_study_is_shipped_when_it_has_been_quiet(pieces: Pieces) -> None:
    [made] = slices(pieces.inbox / "DOE")
    pieces.scan()
    assert pieces.states() == {}, "it has not settled"
    pieces.clock.advance(2.1)
    pieces.look()
    assert state(pieces, made.study_uid) == StudyState.ARRIVING
    pieces.clock.advance(9.9)
    pieces.look()
    assert pieces.ship() == 0
    pieces.clock.advance(0.2)
    pieces.look()
    assert pieces.ship() == 1
    assert pieces.left() == [] and pieces.archived() == {made.sha256}
    assert list(pieces.inbox.iterdir()) == [] and pieces.inbox.is_dir()


def test_a_new_file_restarts_the_quiet_time_even_one_nobody_told_of(pieces: Pieces) -> None:
    """The last look before a study counts as quiet sees what no event has told."""
    made = slices(pieces.inbox / "DOE")
    pieces.scan()
    pieces.clock.advance(2.1)
    pieces.look()
    pieces.clock.advance(8)
    made += slices(pieces.inbox / "DOE", first=2)
    pieces.clock.advance(2.1)  # the first slice's quiet time is over
    pieces.look()
    assert pieces.ship() == 0
    pieces.clock.advance(9)
    pieces.look()
    assert pieces.ship() == 0
    pieces.clock.advance(1.1)
    pieces.look()
    assert pieces.ship() == 1
    assert pieces.manifest(made[0].study_uid).revision == 1
    assert pieces.archived() == {m.sha256 for m in made}


def test_a_file_still_being_written_beside_it_holds_the_study(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, trust_ctime=False)  # this clock runs ahead of the kernel's
    made = slices(pieces.inbox / "DOE")
    growing = pieces.inbox / "DOE" / "IM0002"
    pieces.scan()
    pieces.clock.advance(2.1)
    pieces.look()
    for step in range(10):
        growing.write_bytes(b"x" * (step + 1))
        pieces.scan()
        pieces.clock.advance(1.5)
        pieces.look()
    assert pieces.ship() == 0
    pieces.clock.advance(700)  # not since times out of mind
    growing.write_bytes(b"y")
    pieces.scan()
    assert pieces.ship() == 1
    assert pieces.archived() == {m.sha256 for m in made}
    pieces.close()


def test_one_study_in_two_inboxes_is_quiet_when_it_is_quiet_in_both(tmp_path: Path) -> None:
    two = Pieces(tmp_path, inboxes=2, trust_ctime=False)  # this clock runs ahead of the kernel's
    maker = Maker(seed=3)
    made = slices(two.inboxes[0], maker=maker)
    two.scan()
    two.clock.advance(2.1)
    two.look()
    two.clock.advance(8)
    made += slices(two.inboxes[1], first=2, maker=maker)
    two.scan()
    two.clock.advance(2.2)
    two.look()
    assert two.ship() == 0, "the second inbox's slice has only just come"
    two.clock.advance(9.8)
    two.look()
    assert two.ship() == 0
    two.clock.advance(0.5)
    two.look()
    assert two.ship() == 1
    assert two.left() == [] and two.manifest(made[0].study_uid).revision == 1
    assert two.archived() == {m.sha256 for m in made}
    two.close()


def test_an_inbox_that_is_away_holds_back_the_studies_it_has_a_part_of(two: Pieces) -> None:
    """Nothing is concluded from its silence."""
    maker = Maker(seed=3)
    slices(two.inboxes[0], maker=maker)
    slices(two.inboxes[1], first=2, maker=maker)
    two.scan()
    two.clock.advance(2.1)
    two.look()
    two.inboxes[1].rename(two.root / "away")
    two.clock.advance(30)
    two.scan()
    assert two.ship() == 0
    (two.root / "away").rename(two.inboxes[1])
    two.run()
    assert two.left() == []


def test_late_slices_make_the_next_revision(pieces: Pieces) -> None:
    maker = Maker(seed=3)
    made = slices(pieces.inbox / "DOE", 2, maker=maker)
    pieces.run()
    made += slices(pieces.inbox / "DOE", 2, first=3, maker=maker)
    pieces.run()
    manifest = pieces.manifest(made[0].study_uid)
    assert manifest.revision == 2
    assert {item.sha256 for item in manifest.instances} == {m.sha256 for m in made} == pieces.archived()


def test_the_same_files_again_change_nothing_and_go(pieces: Pieces) -> None:
    made = slices(pieces.inbox / "DOE", 3)
    pieces.run()
    slices(pieces.inbox / "AGAIN", 3)
    pieces.run()
    assert pieces.left() == []
    assert pieces.manifest(made[0].study_uid).revision == 1


def test_two_copies_of_one_file_at_once(pieces: Pieces) -> None:
    [made] = slices(pieces.inbox / "A")
    slices(pieces.inbox / "B")
    pieces.run()
    assert pieces.left() == [] and pieces.archived() == {made.sha256}
    assert len(pieces.manifest(made.study_uid).instances) == 1


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_keep(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False))
    [made] = slices(pieces.inbox)
    pieces.run()
    assert [p.name for p in pieces.left()] == ["IM0001"] and pieces.archived() == {made.sha256}
    pieces.restart()
    pieces.run()
    assert len(pieces.left()) == 1 and pieces.manifest(made.study_uid).revision == 1
    pieces.close()


def test_delete_after(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False, keep_seconds=3600))
    [made] = slices(pieces.inbox)
    pieces.settle()
    pieces.ship()
    assert len(pieces.left()) == 1
    pieces.clock.advance(3500)
    pieces.scan()
    assert pieces.ship() == 0 and len(pieces.left()) == 1
    pieces.clock.advance(200)
    reads = len(pieces.memory.reads)
    assert pieces.ship() == 1
    assert pieces.left() == []
    assert len(pieces.memory.reads) > reads, "it is proven again before it goes"
    assert pieces.manifest(made.study_uid).revision == 1
    pieces.close()


def test_a_kept_file_that_was_changed_is_archived_and_not_deleted_in_its_old_one_s_place(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False, keep_seconds=3600))
    [made] = slices(pieces.inbox)
    pieces.settle()
    pieces.ship()
    old = made.path.read_bytes()
    new = old[:-1] + bytes([old[-1] ^ 1])
    made.path.write_bytes(new)
    pieces.clock.advance(3700)
    pieces.ship()
    assert made.path.read_bytes() == new
    pieces.run()
    pieces.require_nothing_lost(old, new)
    assert len(pieces.archived()) == 2
    pieces.close()


# -- what is left alone -----------------------------------------------------------------------------------------------


def test_what_is_no_file_is_quarantined_and_never_opened(pieces: Pieces, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    [secret] = slices(outside)
    (pieces.inbox / "link").symlink_to(secret.path)
    (pieces.inbox / "folder").symlink_to(outside)
    os.mkfifo(pieces.inbox / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(pieces.inbox / "socket"))
    pieces.run(2)
    assert pieces.states() == dict.fromkeys(("link", "folder", "fifo", "socket"), "quarantined:not-a-file")
    assert pieces.archived() == set() and secret.path.exists()
    assert len(list(pieces.inbox.iterdir())) == 4
    (pieces.inbox / "fifo").unlink()
    (pieces.inbox / "link").unlink()
    [made] = slices(pieces.inbox)
    made.path.rename(pieces.inbox / "link")
    pieces.run()
    assert pieces.states() == dict.fromkeys(("folder", "socket"), "quarantined:not-a-file")
    assert pieces.archived() == {made.sha256}


def test_junk_stays_where_it_is_and_holds_up_nobody(pieces: Pieces) -> None:
    maker = Maker(seed=3)
    junk = maker.junk(pieces.inbox / "DOE")
    made = slices(pieces.inbox / "DOE", 2, maker=maker)
    pieces.run(2)
    assert {p.name for p in pieces.left()} == {m.path.name for m in junk}
    assert all(text.startswith("quarantined:") for text in pieces.states().values())
    assert pieces.archived() == {m.sha256 for m in made}
    assert (pieces.inbox / "DOE").is_dir()


def test_a_dicomdir_is_known_for_what_it_is(pieces: Pieces) -> None:
    maker = Maker(seed=3)
    made = maker.media(pieces.inbox / "CD", slices(pieces.root / "made", 2, maker=maker))
    pieces.run(3)
    assert [p.name for p in pieces.left()] == ["DICOMDIR"]
    assert pieces.states() == {"DICOMDIR": "ignored:dicomdir"}
    assert pieces.archived() == {m.sha256 for m in made[:-1]}


def test_excluded_files_are_not_even_known(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, include=("IM*",), exclude=("*2", "NOT/*"))
    slices(pieces.inbox / "DOE", 3)
    slices(pieces.inbox / "NOT", 1, first=9)
    (pieces.inbox / "DOE" / "notes.txt").touch()
    pieces.run(2)
    assert [str(p.relative_to(pieces.inbox)) for p in pieces.left()] == ["DOE/IM0002", "DOE/notes.txt", "NOT/IM0009"]
    assert pieces.states() == {}
    pieces.close()


def test_a_file_that_cannot_be_read_is_quarantined_until_that_changes(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    [made] = slices(pieces.inbox)
    real = os.open

    def refuse(path: object, *arguments: object, **named: object) -> int:
        if path == b"IM0001":
            raise PermissionError(errno.EACCES, "no", str(path))
        return real(path, *arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        pieces.run(2)
        assert pieces.states() == {"IM0001": "quarantined:no-access"}
    pieces.clock.advance(100)
    pieces.run()
    assert pieces.left() == [], "rights of a folder or of the daemon leave no trace in the file: it is tried again"
    assert pieces.archived() == {made.sha256}


def test_a_fault_of_ours_that_one_file_meets_stops_nobody(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    made = slices(pieces.inbox, 2)
    real = header_module.read_header

    def faulty(fd: int, size_bytes: int, **options: Any) -> object:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("IM0001"):
            raise RecursionError("DOE^JANE")
        return real(fd, size_bytes, **options)

    monkeypatch.setattr("dicomwatchd.intake.take.read_header", faulty)
    pieces.run(2)
    assert pieces.states() == {"IM0001": "quarantined:unexpected"}
    assert pieces.archived() == {made[1].sha256}
    assert "DOE" not in repr(pieces.log.entries)


# -- things that move -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["grows", "shrinks", "is replaced", "goes", "becomes a link", "becomes a fifo"])
@pytest.mark.parametrize("moment", ["regular_file", "identity", "read_header"])
@pytest.mark.parametrize("after", [False, True])
def test_a_file_that_changes_while_its_header_is_read(change: str, moment: str, after: bool, pieces: Pieces) -> None:
    [made] = slices(pieces.inbox)
    data = made.path.read_bytes()
    final: list[bytes] = []

    def meddle() -> None:
        path = made.path
        match change:
            case "grows":
                _write(path, data + b"\0" * 16)
                final.append(data + b"\0" * 16)
            case "shrinks":
                os.truncate(os.open(path, os.O_WRONLY | os.O_NONBLOCK), 10) if not _leased(path) else None
            case "is replaced":
                path.with_name("x.part").write_bytes(data[:-1] + b"!")
                path.with_name("x.part").rename(path)
                final.append(data[:-1] + b"!")
            case "goes":
                path.unlink()
            case "becomes a link":
                path.rename(pieces.root / "elsewhere")
                path.symlink_to(pieces.root / "elsewhere")
            case _:
                path.unlink()
                os.mkfifo(path)

    pieces.clock.advance(10)
    with at(take_module, moment, meddle, after=after):
        pieces.scan()
    pieces.run(3)
    assert pieces.fatal is None
    pieces.require_nothing_lost(*final)
    if change == "becomes a link":
        assert pieces.states() == {"IM0001": "quarantined:not-a-file"}
        assert (pieces.root / "elsewhere").exists()
    elif change == "becomes a fifo":
        assert pieces.states() == {"IM0001": "quarantined:not-a-file"}
    elif final:
        assert pieces.left() == [], pieces.states()


def _leased(path: Path) -> bool:
    """Whether opening it for writing would have to wait for a lease."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except BlockingIOError:
        return True
    return False


def _write(path: Path, data: bytes) -> None:
    """In place where no lease stands in the way, by a new file otherwise: this thread holds the lease itself."""
    if _leased(path):
        path.with_name("y.part").write_bytes(data)
        path.with_name("y.part").rename(path)
    else:
        path.write_bytes(data)


MOMENTS_OF_A_SHIPMENT = {
    "before it is sent": (Folders, "opened", 1),
    "while it is sent": (local_module, "read_exactly", 1),
    "before it is deleted": (Folders, "opened", 2),
    "before it is staged": (proof_module, "stage_file", 1),
    "after it was staged": (proof_module, "_differs", 1),
}


@pytest.mark.parametrize("moment", MOMENTS_OF_A_SHIPMENT)
@pytest.mark.parametrize("what", ["file becomes a link", "folder becomes a link", "folder goes", "folder is made anew"])
def test_links_swapped_in_mid_flight(what: str, moment: str, pieces: Pieces) -> None:
    """Nothing outside the inbox is read into the archive or deleted, whatever the links; nothing inside is lost."""
    outside = pieces.root / "outside"
    [victim] = Maker(seed=9).ct_series(outside, slices=1, rows=16, columns=16)
    [made] = slices(pieces.inbox / "DOE")
    data = made.path.read_bytes()
    moved = pieces.root / "moved"

    def swap() -> None:
        if what == "file becomes a link":
            if made.path.exists():
                made.path.rename(moved)
            made.path.symlink_to(victim.path)
        else:
            made.path.parent.rename(moved)
            if what == "folder becomes a link":
                made.path.parent.symlink_to(outside)
            elif what == "folder is made anew":
                made.path.parent.mkdir()

    pieces.settle()
    module, name, when = MOMENTS_OF_A_SHIPMENT[moment]
    with at(module, name, swap, when=when):
        pieces.ship()
    pieces.run(3)
    assert victim.path.exists() and victim.sha256 not in pieces.archived()
    here = [p.read_bytes() for p in [*pieces.left(), moved, *moved.rglob("*")] if p.is_file() and not p.is_symlink()]
    assert data in here or made.sha256 in pieces.archived()
    assert not list((pieces.inbox / os.fsdecode(localfiles.STAGING_NAME)).rglob("IM*"))
    assert pieces.queue.reports.unfinished()["parked"] == 0


def test_hard_links_are_safe(pieces: Pieces, tmp_path: Path) -> None:
    [made] = slices(pieces.inbox / "A")
    outside = tmp_path / "outside"
    os.link(made.path, outside)
    (pieces.inbox / "B").mkdir()
    os.link(made.path, pieces.inbox / "B" / "IM0001")
    pieces.run()
    assert pieces.left() == []
    assert pieces.archived() == {made.sha256}
    assert outside.read_bytes() and outside.stat().st_nlink == 1
    assert pieces.manifest(made.study_uid).revision == 1


def test_renamed_while_it_waits(pieces: Pieces) -> None:
    [made] = slices(pieces.inbox / "DOE")
    pieces.scan()
    pieces.clock.advance(2.1)
    pieces.look()
    (pieces.inbox / "DOE").rename(pieces.inbox / "ROE")
    pieces.run()
    assert pieces.left() == [] and pieces.archived() == {made.sha256}
    assert [i.original_path for i in pieces.manifest(made.study_uid).instances] == ["ROE/IM0001"]


# -- the inbox itself -------------------------------------------------------------------------------------------------


def test_an_inbox_that_goes_and_comes_back(pieces: Pieces) -> None:
    [made] = slices(pieces.inbox / "DOE")
    pieces.scan()
    pieces.clock.advance(2.1)
    pieces.look()
    away = pieces.root / "away"
    pieces.inbox.rename(away)
    for _ in range(3):
        pieces.clock.advance(100)
        pieces.scan()
        pieces.ship()
    assert len(pieces.log.events("inbox-unavailable")) == 1, "said once"
    assert not pieces.intakes[0].available
    assert state(pieces, made.study_uid) == StudyState.ARRIVING
    away.rename(pieces.inbox)
    pieces.run()
    assert pieces.left() == [] and pieces.archived() == {made.sha256}


def test_an_inbox_that_is_unmounted_and_mounted_again(pieces: Pieces) -> None:
    """An empty folder stands there meanwhile."""
    [made] = slices(pieces.inbox / "DOE")
    pieces.settle()
    away = pieces.root / "away"
    pieces.inbox.rename(away)
    pieces.inbox.mkdir()
    for _ in range(3):
        pieces.clock.advance(100)
        pieces.scan()
        pieces.ship()
    assert len(pieces.log.events("intake-replaced")) == 1
    assert not [e for e in pieces.queue.audit.of_study(made.study_uid) if e.body["kind"] == "deleted"]
    pieces.inbox.rmdir()
    away.rename(pieces.inbox)
    pieces.run()
    assert pieces.left() == [] and pieces.archived() == {made.sha256}


def test_an_inbox_made_anew_is_watched_and_scanned(pieces: Pieces) -> None:
    pieces.scan()
    shutil.rmtree(pieces.inbox)
    pieces.look()
    pieces.inbox.mkdir()
    [made] = slices(pieces.inbox)
    pieces.look()
    pieces.clock.advance(2.1)
    pieces.look()
    assert state(pieces, made.study_uid) == StudyState.ARRIVING, "without waiting for the next scan"


# -- looks ------------------------------------------------------------------------------------------------------------


def test_everything_is_found_without_a_single_event(pieces: Pieces) -> None:
    pieces.scan()
    [made] = slices(pieces.inbox / "A" / "B")
    pieces.look()
    assert not pieces.intakes[0]._settling, "no event, no look"
    pieces.clock.advance(pieces.settings.scan_interval_seconds * 1.1)
    pieces.look()
    pieces.clock.advance(0.1)
    pieces.look()
    assert state(pieces, made.study_uid) == StudyState.ARRIVING


@pytest.mark.parametrize("deep", [False, True])
def test_a_hint_is_followed_at_once(deep: bool, pieces: Pieces) -> None:
    pieces.scan()
    slices(pieces.inbox / "A" / "B")
    pieces.clock.advance(10)
    pieces.intakes[0].hint(b"A" if deep else b"A/B", deep=deep)
    pieces.look()
    assert pieces.states() == {"IM0001": "ready"}


def test_a_hint_about_what_is_not_there_is_harmless(pieces: Pieces) -> None:
    pieces.scan()
    for hint in (b"gone", b"a/b/c", b"\xff"):
        pieces.intakes[0].hint(hint)
        pieces.intakes[0].hint(hint, deep=True)
    pieces.look()


def test_at_rest_is_said_only_when_everything_was_seen(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    intake = pieces.intakes[0]
    assert (intake.scans, intake.at_rest) == (0, False)
    pieces.scan()
    assert (intake.at_rest, intake.saw_everything) == (True, True)
    slices(pieces.inbox / "A")
    real = scan.scan_directory

    def refuse(fd: int, parent: bytes, globs: scan.Globs, *more: Any) -> scan.Listing:
        if parent == b"A":
            raise PermissionError(errno.EACCES, "no")
        return real(fd, parent, globs, *more)

    with monkeypatch.context() as patch:
        patch.setattr(scan, "scan_directory", refuse)
        pieces.scan()
        assert (intake.at_rest, intake.saw_everything) == (True, False)
    pieces.scan()
    assert (intake.at_rest, intake.saw_everything) == (False, True)


def test_more_changing_files_than_are_remembered(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    intake = pieces.intakes[0]
    monkeypatch.setattr(intake._settling, "_limit", 2)
    for number in range(4):
        slices(pieces.inbox / f"{number}", first=number + 1)
    pieces.scan()
    pieces.clock.advance(2.1)
    pieces.look()
    assert not intake.at_rest or len(pieces.states()) == 4
    for _ in range(3):
        pieces.clock.advance(2.1)
        pieces.look()
    assert len(pieces.states()) == 4, "they do not wait for the next scan by the timer"


def test_a_queue_that_cannot_be_written_loses_nothing(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    [made] = slices(pieces.inbox)
    pieces.clock.advance(10)

    def full(*_: object, **__: object) -> None:
        raise StateUnavailable("full", code="state-full")

    with monkeypatch.context() as patch:
        patch.setattr(Arrivals, "add", full)
        with pytest.raises(Transient):
            pieces.scan()
        assert not pieces.intakes[0].at_rest, "what was found is on no queue"
    pieces.run()
    assert pieces.left() == [] and pieces.archived() == {made.sha256}


def test_an_inbox_taken_out_of_the_configuration_holds_no_study(two: Pieces) -> None:
    """A slice that comes elsewhere restarts the study's timers, also that of the inbox at which nobody looks."""
    maker = Maker(seed=3)
    made = slices(two.inboxes[0], maker=maker) + slices(two.inboxes[1], first=2, maker=maker)
    two.scan()
    two.clock.advance(2.1)
    two.look()
    two.inboxes.pop(0)
    two.restart()
    made += slices(two.inboxes[0], first=3, maker=maker)
    two.settle()
    two.parts.tick()
    two.ship()
    assert two.archived() == {m.sha256 for m in made} and two.queue.reports.unfinished()["moving"] == 0


def test_an_inbox_that_was_removed_holds_no_study(two: Pieces) -> None:
    maker = Maker(seed=3)
    slices(two.inboxes[0], maker=maker)
    made = slices(two.inboxes[1], first=2, maker=maker)
    two.scan()
    two.clock.advance(2.1)
    two.look()
    shutil.rmtree(two.inboxes[0])
    two.look()
    assert [intake.holds for intake in two.intakes] == [True, True], "it may be back in a moment"
    for _ in range(3):
        two.clock.advance(10.1)
        two.look()
        two.parts.tick()
        two.ship()
    assert [intake.holds for intake in two.intakes] == [False, True]
    assert two.archived() == {m.sha256 for m in made} and two.queue.reports.unfinished()["moving"] == 0
    two.inboxes[0].mkdir()
    two.look()
    assert two.intakes[0].holds


def test_a_stop_does_not_wait_for_the_end_of_a_look(pieces: Pieces) -> None:
    """Whoever may write to an inbox, or hands a folder in (/proc), decides how long one takes."""
    made = [slices(pieces.inbox / f"{number:03}", first=number)[0] for number in range(1, 61)]
    stopping, beats = threading.Event(), 0

    def beat() -> None:
        nonlocal beats
        beats += 1
        if beats == 8:
            stopping.set()

    [intake] = pieces.intakes
    intake.run(stopping, beat)
    assert beats == 8 and intake.scans == 0
    pieces.restart()
    pieces.run(3)
    assert {one.sha256 for one in made} <= pieces.archived() and pieces.left() == []
