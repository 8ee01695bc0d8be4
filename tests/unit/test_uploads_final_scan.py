"""The sentence on which a person deletes a folder is said only when everything in it was seen, twice, and is archived;
whatever is not is named."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.intake import final_scan, scan
from dicomwatchd.intake.dicom.header import read_header
from dicomwatchd.intake.final_scan import FinalScan
from dicomwatchd.upload_text import all_verified, sentences
from dicomwatchd.uploads.job import UNREAD_SECONDS, UNSETTLED_SECONDS
from tests.pieces import Pieces, at
from tests.simulation.tiny import instance
from tests.unit.uploading import FILES, STUDY, Handed, named, put, unlistable

MORE = {f"B/IM{number}": instance(STUDY, "1.2.1.2", f"1.2.1.2.{number}", number) for number in range(1, 7)}


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    put(folder)
    return folder


def said(result: dict[str, Any], *, delete: bool = False) -> str:
    text = "\n".join(sentences(result, delete=delete))
    assert ("may now be deleted" in text) == (result["deletable"] and not delete and not result["deleted"])
    assert all_verified(result) == result["complete"]
    return text


def require_not_deletable(result: dict[str, Any]) -> dict[str, str]:
    assert not result["deletable"] and not result["complete"]
    assert "Do not delete" in said(result)
    assert len(result["failed"]) == result["failed_files"] > 0
    return named(result)


def test_a_folder_in_order_may_be_deleted(pieces: Pieces, folder: Path) -> None:
    put(folder, MORE)
    result = Handed(pieces, folder).go()
    assert said(result) == (
        "All 12 files are verified in the archive. The folder was not changed; the local copies may now be deleted.\n"
        "There is no sign that images of the study are missing."
    )
    assert len(pieces.archived()) == 12 and len(list(folder.rglob("IM*"))) == 12


@pytest.mark.parametrize("delete", [False, True])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_folder_that_cannot_be_listed(
    number: int, delete: bool, pieces: Pieces, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, MORE)
    with unlistable(monkeypatch, b"B", number):
        result = Handed(pieces, folder, delete=delete).go()
    assert result["verified"] == 6
    names = require_not_deletable(result)
    assert list(names) == ["B"]
    assert ("read access" if number == errno.EACCES else "EIO") in names["B"]
    assert len(list(folder.rglob("IM*"))) == (6 if delete else 12)


def test_a_folder_that_can_be_listed_no_more_after_it_was_archived(
    pieces: Pieces, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, MORE)
    handed = Handed(pieces, folder)
    handed.go(lambda now: now["verified"] == 12)
    with unlistable(monkeypatch, b"B"):
        assert list(require_not_deletable(handed.go())) == ["B"]


def test_a_file_that_cannot_be_looked_at(pieces: Pieces, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry that gives EIO to a stat, on a scratched disc."""
    real = os.scandir

    class Bad:
        name = "BAD"

        def is_dir(self, **_: Any) -> bool:
            return False

        def stat(self, **_: Any) -> Any:
            raise OSError(errno.EIO, "I/O error")

    class Scan:
        def __init__(self, fd: int) -> None:
            self.fd, self.of = fd, real(fd)

        def __enter__(self) -> Any:
            entries = list(self.of)
            return [*entries, *([Bad()] if {e.name for e in entries} & {"IM1"} else [])]

        def __exit__(self, *_: object) -> None:
            self.of.close()

    handed = Handed(pieces, folder)
    handed.go(lambda now: now["verified"] == 6)
    monkeypatch.setattr(os, "scandir", Scan)
    monkeypatch.setattr(os, "scandir", Scan)
    names = require_not_deletable(handed.go())
    assert "EIO" in names["A/BAD"]


@pytest.mark.parametrize(("number", "waits"), [(errno.EIO, False), (errno.ETIMEDOUT, True)])
def test_a_file_that_cannot_be_read_is_named(
    number: int, waits: bool, pieces: Pieces, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once where the medium has lost it; otherwise it may be read in a while."""

    def read(fd: int, size_bytes: int, **options: Any) -> Any:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("IM3"):
            raise OSError(number, "error")
        return read_header(fd, size_bytes, **options)

    monkeypatch.setattr("dicomwatchd.intake.take.read_header", read)
    pieces.clock.advance(60)  # the files are older than that, as those of a disc are
    handed = Handed(pieces, folder)
    handed.go(lambda now: now["verified"] == 5)
    began = pieces.clock.monotonic()
    names = require_not_deletable(handed.go(rounds=100))
    assert "cannot be read" in names["A/IM3"] and len(names) == 1
    assert (pieces.clock.monotonic() - began >= UNREAD_SECONDS) == waits


def test_a_file_that_is_written_on_and_on_is_named_in_the_end(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder)
    handed.go(lambda now: now["verified"] == 6)
    began = pieces.clock.monotonic()
    with (folder / "A" / "LATE").open("ab") as late:
        looks = 0
        while not handed.now["done"] and (looks := looks + 1) < 1000:
            late.write(b"x")
            late.flush()
            handed.second(seconds=10)
    names = require_not_deletable(handed.now)
    assert "still being written" in names["A/LATE"]
    assert pieces.clock.monotonic() - began >= UNSETTLED_SECONDS


def test_what_comes_late_is_archived_too(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder)
    with at(FinalScan, "_scan", lambda: put(folder, MORE)):
        result = handed.go()
    assert result["verified"] == 12 and result["deletable"]


def test_what_comes_between_the_two_last_looks_is_archived_too(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder)
    with at(FinalScan, "_scan", lambda: put(folder, MORE), after=True):
        result = handed.go()
    assert result["verified"] == 12 and result["deletable"]


@contextmanager
def before_every_final_scan(action: Callable[[], None]) -> Iterator[None]:
    real = FinalScan._scan

    def look(self: FinalScan, *rest: Any) -> Any:
        action()
        return real(self, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FinalScan, "_scan", look)
        yield


def test_a_folder_that_grows_at_every_last_look_ends_and_the_last_one_is_named(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder)
    numbers = iter(range(100, 200))

    def grow() -> None:
        put(folder, {f"A/IM{(n := next(numbers))}": instance(STUDY, "1.2.1.1", f"1.2.1.1.{n}", n)})

    with before_every_final_scan(grow):
        names = require_not_deletable(handed.go())
    assert len(names) == 1 and "arrived late" in names[next(iter(names))]


def test_a_file_that_is_replaced_by_another_of_its_size(pieces: Pieces, folder: Path) -> None:
    """With its times set back, as rsync -t does: the kernel's ctime tells."""
    handed = Handed(pieces, folder)
    target = folder / "A" / "IM3"
    old = target.stat()
    other = bytearray(FILES["A/IM3"])
    other[0] ^= 1  # of the preamble: another file, and no other version

    def replace() -> None:
        target.write_bytes(bytes(other))
        os.utime(target, ns=(old.st_atime_ns, old.st_mtime_ns))

    with at(FinalScan, "_scan", replace, when=2):
        result = handed.go()
    assert len(pieces.archived()) == 7 and result["deletable"] and result["verified"] == 6


def test_a_file_that_is_replaced_each_time_is_named(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder)

    def write() -> None:
        (folder / "A" / "IM3").write_bytes(FILES["A/IM3"])

    with before_every_final_scan(write):
        names = require_not_deletable(handed.go())
    assert "has changed" in names["A/IM3"] and len(names) == 1


def test_a_file_that_vanishes_before_it_is_archived(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder)
    handed.go(lambda now: now["files"] == 6, ship=False)
    (folder / "A" / "IM3").unlink()
    result = handed.go()
    assert result["verified"] == 5
    assert "disappeared before it was archived" in require_not_deletable(result)["A/IM3"]


def test_a_file_that_vanishes_after_it_was_archived(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder)
    handed.go(lambda now: now["verified"] == 6)
    (folder / "A" / "IM3").unlink()
    assert "disappeared from the folder" in require_not_deletable(handed.go())["A/IM3"]


def test_a_folder_that_vanishes_whole_with_what_was_archived(pieces: Pieces, folder: Path) -> None:
    put(folder, MORE)
    handed = Handed(pieces, folder)
    handed.go(lambda now: now["verified"] == 12)
    for path in (folder / "B").iterdir():
        path.unlink()
    (folder / "B").rmdir()
    assert set(require_not_deletable(handed.go())) == set(MORE)


def test_what_is_no_file_is_named(pieces: Pieces, folder: Path) -> None:
    (folder / "link").symlink_to("A/IM1")
    (folder / "loop").symlink_to(".")
    os.mkfifo(folder / "fifo")
    place = socket.socket(socket.AF_UNIX)
    place.bind(str(folder / "socket"))
    names = require_not_deletable(Handed(pieces, folder).go())
    place.close()
    assert set(names) == {"link", "loop", "fifo", "socket"}


def test_names_that_are_no_utf_8(pieces: Pieces, folder: Path) -> None:
    odd = os.fsencode(folder) + b"/A/\xff\xfe\n"
    Path(os.fsdecode(odd)).write_bytes(bytes(128) + b"DICM")
    assert list(require_not_deletable(Handed(pieces, folder).go())) == ["A/\\xff\\xfe\n"]


@pytest.mark.parametrize("delete", [False, True])
def test_hard_links_are_files_like_others(delete: bool, pieces: Pieces, folder: Path) -> None:
    os.link(folder / "A" / "IM1", folder / "again")
    result = Handed(pieces, folder, delete=delete).go()
    assert result["verified"] == 7 and result["complete"]
    assert (result["deleted"], len(list(folder.rglob("*IM*")))) == ((7, 0) if delete else (0, 6))


def test_a_table_of_contents_is_no_hindrance_and_is_said(pieces: Pieces, tmp_path: Path) -> None:
    from tests.synthetic import Maker

    medium, maker = tmp_path / "cdrom", Maker(seed=10)
    maker.media(medium, maker.mr_study(tmp_path / "staging", series=1, slices=2))
    result = Handed(pieces, medium).go()
    assert result["deletable"] and result["ignored"] == 1
    assert "DICOMDIR" in said(result)


def test_what_lies_in_a_private_folder_is_named_and_stays(pieces: Pieces, folder: Path) -> None:
    private = folder / ".dicomwatchd-aside" / "A"
    private.mkdir(parents=True)
    (private / "IM9").write_bytes(b"x")
    names = require_not_deletable(Handed(pieces, folder).go())
    assert list(names) == [".dicomwatchd-aside/A/IM9"]
    assert (private / "IM9").exists()


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_archive_below_the_folder_is_named_and_is_no_success(when: str, pieces: Pieces, folder: Path) -> None:
    """Under whatever path it is mounted: its files are nobody's exports. The mark may come late."""
    put(folder / "backup", {"studies/1.2.9/IM1": instance("1.2.9", "1.2.9.1", "1.2.9.1.1", 1)})
    mark = folder / "backup" / ".dicomwatchd-archive"
    if when == "before":
        mark.touch()
    handed = Handed(pieces, folder)
    handed.go(lambda now: now["verified"] >= 6)
    mark.touch()
    names = require_not_deletable(handed.go())
    assert any("backup" in name and "folder of an archive" in why for name, why in names.items())


def test_private_names_are_named(pieces: Pieces, folder: Path) -> None:
    (folder / ".dicomwatchd-notes").write_bytes(b"x")
    assert list(require_not_deletable(Handed(pieces, folder).go())) == [".dicomwatchd-notes"]


def test_what_lies_too_deep_is_named(pieces: Pieces, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MAX_DEPTH", 3)
    monkeypatch.setattr(final_scan, "MAX_DEPTH", 3)
    put(folder, {"1/2/3/4/5/IM1": FILES["A/IM1"]})
    assert list(require_not_deletable(Handed(pieces, folder).go())) == ["1/2/3/4"]


def test_a_folder_without_files(pieces: Pieces, tmp_path: Path) -> None:
    (tmp_path / "empty" / "A").mkdir(parents=True)
    result = Handed(pieces, tmp_path / "empty").go()
    assert not result["deletable"] and "no file that can be archived" in said(result)


def test_deleting_says_what_is_true(pieces: Pieces, folder: Path) -> None:
    put(folder, {"A/notes.dcm": b"no DICOM"})
    result = Handed(pieces, folder, delete=True).go()
    assert list(require_not_deletable(result)) == ["A/notes.dcm"]
    assert "6 local copies of verified files were deleted" in said(result, delete=True)
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["notes.dcm"]


def test_all_deleted(pieces: Pieces, folder: Path) -> None:
    result = Handed(pieces, folder, delete=True).go()
    assert said(result, delete=True) == (
        "All 6 files are verified in the archive. The local copies were deleted.\n"
        "There is no sign that images of the study are missing."
    )
    assert folder.is_dir() and not list(folder.iterdir())


def test_a_crash_between_a_deletion_and_its_record_loses_no_count(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder, delete=True)

    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    handed.go(lambda now: now["files"] == 6, ship=False)
    with pytest.raises(Crash), at(pieces.queue.deletions, "purged", crash):
        handed.go()
    assert not list(folder.rglob("IM*"))
    pieces.restart()
    result = handed.go()
    assert (result["verified"], result["deleted"], result["files"]) == (6, 6, 6) and result["complete"]


@pytest.mark.parametrize("when", ["looking", "shipping", "checking"])
@pytest.mark.parametrize("delete", [False, True])
def test_a_restart_in_the_middle(when: str, delete: bool, pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder, delete=delete)
    stages: dict[str, Callable[[dict[str, Any]], bool]] = {
        "looking": lambda now: now["files"] == 6,
        "shipping": lambda now: now["verified"] == 6,
        "checking": lambda now: now["phase"] == "checking",
    }
    handed.go(stages[when], ship=when != "looking")
    pieces.restart()
    result = handed.go()
    assert result["verified"] == 6 and result["complete"] and result["deletable"]
    pieces.restart()
    assert handed.now == result


def test_a_state_that_does_not_answer_delays_the_final_scan(
    pieces: Pieces, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicomwatchd.errors import Transient

    handed = Handed(pieces, folder)
    handed.go(lambda now: now["verified"] == 6)
    calls = []

    def busy(*_: object) -> Any:
        calls.append(1)
        raise Transient("the state database cannot be written at the moment", endpoint="state")

    with monkeypatch.context() as patch:
        patch.setattr(pieces.queue.uploads, "vanished", busy)
        with pytest.raises(Transient):
            handed.go()
    assert len(calls) == 1
    assert handed.go()["deletable"]


def test_many_files_are_counted_and_some_are_named(
    pieces: Pieces, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(final_scan, "LISTED", 5)
    put(folder, {f"junk/J{number}.dcm": b"junk" for number in range(1200)})
    result = Handed(pieces, folder).go()
    assert result["failed_files"] == 1200 and len(result["failed"]) == 1000
    assert "1,180 more; --json lists 1,000 of them" in said(result)


def test_a_last_look_that_the_folder_breaks_off_is_not_waited_for(
    pieces: Pieces, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder may be there again before anybody has seen that it was away."""
    handed = Handed(pieces, folder)
    [intake] = [intake for intake in pieces.parts.sources.every_intake() if intake.source.kind == "upload"]

    def is_there_after_a_step() -> bool:
        intake.step()
        return intake.available

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(final_scan, "root_of", broken)
        handed.go(lambda now: now["phase"] == "checking")
        assert not is_there_after_a_step()
    assert is_there_after_a_step()
    assert handed.go()["complete"]


@pytest.mark.parametrize(
    ("name", "data", "is_nothing"),
    [
        (".dicomwatchd-aside-0123456789abcdef/.dicomwatchd-lock", b"", True),
        ("A/.dicomwatchd-aside-0123456789abcdef/.dicomwatchd-lock", b"", True),
        (".dicomwatchd-aside-0123456789abcdef/.dicomwatchd-lock", b"x", False),
        (".dicomwatchd-aside-0123456789abcdef/IM1", b"", False),
        ("A/.dicomwatchd-lock", b"", False),
    ],
)
def test_the_lock_that_another_daemon_has_left_is_nothing(
    name: str, data: bytes, is_nothing: bool, pieces: Pieces, folder: Path
) -> None:
    put(folder, {name: data})
    result = Handed(pieces, folder).go()
    assert result["deletable"] == is_nothing
    assert list(named(result)) == ([] if is_nothing else [name])
