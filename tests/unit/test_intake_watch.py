"""Events are hints: the watcher comes back from everything that can happen to it, and nothing depends on it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify_c import InotifyFD

from dicomwatchd.intake.watch import Watcher
from tests.pieces import Log, Pieces


class Told:
    """Stands in for an intake: remembers what it is told."""

    def __init__(self, pieces: Pieces) -> None:
        self.intake = pieces.intakes[0]
        self._inbox, self._folders = pieces.inbox, 0
        self.hints: list[tuple[bytes, bool]] = []
        self.scans = 0
        self.intake.hint = self._hint  # type: ignore[method-assign]
        self.intake.scan_soon = self._scan_soon  # type: ignore[method-assign]

    def _hint(self, parent: bytes, *, deep: bool = False, alone: bool = False) -> None:
        self.hints.append((parent, deep))

    def _scan_soon(self) -> None:
        self.scans += 1

    def wait_for(self, hint: tuple[bytes, bool]) -> None:
        wait(lambda: hint in self.hints)

    def forget(self) -> None:
        """All that has been done by now: what happens last is told last."""
        self._folders += 1
        last = f"last{self._folders}"
        (self._inbox / last).mkdir()
        self.wait_for((last.encode(), True))
        self.hints.clear()


def wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    pieces.scan()
    yield pieces
    pieces.close()


@pytest.fixture
def told(pieces: Pieces) -> Told:
    return Told(pieces)


@pytest.fixture
def watcher(pieces: Pieces, told: Told) -> Iterator[Watcher]:
    watcher = Watcher(pieces.intakes, pieces.log)
    watcher.start()
    yield watcher
    watcher.stop()


def sees(pieces: Pieces, told: Told, name: str) -> None:
    told.forget()
    (pieces.inbox / name).write_bytes(b"x")
    told.wait_for((b"", False))


def test_what_happens_is_told(pieces: Pieces, told: Told, watcher: Watcher) -> None:
    assert told.scans == 1, "whatever came before the watch"
    sees(pieces, told, "IM1")
    (pieces.inbox / "A").mkdir()
    told.wait_for((b"A", True))
    told.forget()
    (pieces.inbox / "A" / "IM1").write_bytes(b"x")
    told.wait_for((b"A", False))
    told.forget()
    (pieces.inbox / "A").rename(pieces.inbox / "B")
    told.wait_for((b"B", True))
    told.forget()
    os.rename(os.fsencode(pieces.inbox / "B" / "IM1"), os.path.join(os.fsencode(pieces.inbox), b"\xff"))
    told.wait_for((b"", False))


def test_reading_tells_nothing(pieces: Pieces, told: Told, watcher: Watcher) -> None:
    sees(pieces, told, "IM1")
    told.forget()
    (pieces.inbox / "IM1").read_bytes()
    time.sleep(0.2)
    assert told.hints == []


def test_our_own_doings_tell_nothing(pieces: Pieces, told: Told, watcher: Watcher) -> None:
    (pieces.inbox / ".dicomwatchd-aside" / "A").mkdir(parents=True)
    (pieces.inbox / ".dicomwatchd-aside" / "A" / "IM1").touch()
    time.sleep(0.3)
    assert not [hint for hint in told.hints if b"aside" in hint[0]]


def watched() -> set[int]:
    """The inodes that this process watches, as the kernel has them (proc(5), fdinfo of inotify)."""
    found = set()
    for entry in Path("/proc/self/fdinfo").iterdir():
        with suppress(FileNotFoundError):
            found |= {int(inode, 16) for inode in re.findall(r"^inotify .*\bino:([0-9a-f]+)", entry.read_text(), re.M)}
    return found


def test_our_own_folders_are_not_watched(pieces: Pieces, told: Told) -> None:
    """Neither that of the last run nor one that is made now, nor what is in it; what comes back out of it is told."""
    before, now = pieces.inbox / ".dicomwatchd-before", pieces.inbox / "A" / ".dicomwatchd-now"
    (before / "B").mkdir(parents=True)
    (before / "B" / "IM1").write_bytes(b"x")
    (pieces.inbox / "A").mkdir()
    watcher = Watcher(pieces.intakes, pieces.log)
    watcher.start()
    wait(lambda: (pieces.inbox / "A").stat().st_ino in watched())
    (now / "B").mkdir(parents=True)
    sees(pieces, told, "IM2")
    (pieces.inbox / "IM2").rename(now / "B" / "IM2")
    told.wait_for((b"", False))
    told.forget()
    (before / "B" / "IM1").rename(pieces.inbox / "A" / "IM1")
    told.wait_for((b"A", False))
    (pieces.inbox / "C").mkdir()
    wait(lambda: (pieces.inbox / "C").stat().st_ino in watched())
    assert watched().isdisjoint(path.stat().st_ino for path in (before, before / "B", now, now / "B"))
    watcher.stop()


def moved_away_and_made_again(pieces: Pieces, told: Told) -> None:
    """As when somebody puts an export aside, and the modality sends the same folder again: the old one is still
    watched, and had the new one's path."""
    (pieces.inbox / "CT").mkdir()
    told.wait_for((b"CT", True))
    (pieces.inbox / "CT").rename(pieces.root / "put aside")
    told.forget()
    (pieces.inbox / "CT").mkdir()
    told.wait_for((b"CT", True))


def readers(watcher: Watcher) -> list[bool]:
    assert watcher._observer is not None
    return [thread.is_alive() for thread in threading.enumerate() if isinstance(thread, InotifyFD)]


def test_a_folder_is_moved_away_made_again_and_both_go(pieces: Pieces, told: Told, watcher: Watcher) -> None:
    moved_away_and_made_again(pieces, told)
    (pieces.inbox / "CT").rmdir()
    (pieces.root / "put aside").rmdir()
    for name in ("IM1", "IM2", "IM3"):
        sees(pieces, told, name)
    assert readers(watcher) == [True]


def test_a_folder_whose_name_was_another_s_ends_no_watching(pieces: Pieces, told: Told, watcher: Watcher) -> None:
    """Neither at a stop nor where the watch is made anew is anything left open."""
    moved_away_and_made_again(pieces, told)
    (pieces.inbox / "CT").rename(pieces.inbox / "MR")
    told.wait_for((b"MR", True))
    pieces.inbox.rename(pieces.root / "old")
    pieces.inbox.mkdir()
    pieces.look()
    watcher.tick()
    sees(pieces, told, "IM1")
    moved_away_again = pieces.root / "put aside"
    moved_away_again.rename(pieces.root / "long ago")
    moved_away_and_made_again(pieces, told)
    (pieces.inbox / "CT").rename(pieces.inbox / "MR")
    told.wait_for((b"MR", True))
    watcher.stop()
    assert readers(watcher) == []


def test_a_reader_of_events_that_died_is_made_anew(
    pieces: Pieces, told: Told, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The observer and its emitters live on without it, and hear nothing."""

    def fails(*_: object) -> None:
        raise KeyError(7)

    monkeypatch.setattr("threading.excepthook", lambda _: None)
    with monkeypatch.context() as patch:
        patch.setattr(InotifyFD, "handle_event", fails)
        (pieces.inbox / "IM1").touch()
        wait(lambda: True not in readers(watcher))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        watcher.tick()
    assert told.scans == 2, "what happened meanwhile"
    assert len(os.listdir("/proc/self/fd")) == before, "the dead one's are closed"
    sees(pieces, told, "IM2")
    assert readers(watcher) == [True]


def test_an_inbox_that_is_a_link_is_watched(pieces: Pieces, told: Told) -> None:
    """Which the administrator has chosen; and one that leads elsewhere now is another folder."""
    for name in ("first", "second"):
        (pieces.root / name).mkdir()
    pieces.inbox.rmdir()
    pieces.inbox.symlink_to(pieces.root / "first")
    watcher = Watcher(pieces.intakes, pieces.log)
    watcher.start()
    sees(pieces, told, "IM1")
    (pieces.inbox / "A").mkdir()
    told.wait_for((b"A", True))
    told.forget()
    (pieces.inbox / "A" / "IM1").touch()
    told.wait_for((b"A", False))
    # A link within it is nobody's folder.
    (pieces.inbox / "link").symlink_to(pieces.root / "second")
    told.forget()
    (pieces.root / "second" / "IM1").touch()
    time.sleep(0.2)
    assert told.hints == []
    pieces.inbox.unlink()
    pieces.inbox.symlink_to(pieces.root / "second")
    watcher.tick()
    sees(pieces, told, "IM2")
    watcher.stop()


def test_names_that_begin_with_dots(pieces: Pieces, told: Told, watcher: Watcher) -> None:
    (pieces.inbox / "..A").mkdir()
    told.wait_for((b"..A", True))
    told.forget()
    (pieces.inbox / "..A" / "IM1").touch()
    told.wait_for((b"..A", False))


def test_an_emitter_that_died_is_made_anew(pieces: Pieces, told: Told, watcher: Watcher) -> None:
    sees(pieces, told, "IM1")
    assert watcher._observer is not None
    [emitter] = watcher._observer.emitters
    emitter.stop()
    emitter.join(60)
    watcher.tick()
    assert told.scans == 2, "what happened meanwhile"
    sees(pieces, told, "IM2")


def test_a_dispatcher_of_events_that_died_is_made_anew(pieces: Pieces, told: Told, watcher: Watcher) -> None:
    assert watcher._observer is not None
    watcher._observer.stop()
    watcher._observer.join(60)
    watcher.tick()
    assert told.scans == 2
    sees(pieces, told, "IM2")


def test_the_inbox_goes_and_is_made_anew(pieces: Pieces, told: Told, watcher: Watcher) -> None:
    shutil.rmtree(pieces.inbox)
    pieces.look()
    observer = watcher._observer
    assert observer is not None
    wait(lambda: not any(e.is_alive() for e in observer.emitters))
    watcher.tick()
    watcher.tick()
    assert len(pieces.log.events("intake-unwatched")) == 1, "said once"
    pieces.inbox.mkdir()
    pieces.look()
    watcher.tick()
    sees(pieces, told, "IM1")


def test_another_folder_stands_in_the_inbox_s_place(pieces: Pieces, told: Told, watcher: Watcher) -> None:
    """As when a share is mounted: the old one is still there, and still watched, and nobody's business."""
    pieces.inbox.rename(pieces.root / "old")
    pieces.inbox.mkdir()
    pieces.look()
    watcher.tick()
    sees(pieces, told, "IM1")
    told.forget()
    (pieces.root / "old" / "IM1").touch()
    time.sleep(0.2)
    assert told.hints == []


def test_no_watches_left(pieces: Pieces, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(pieces.intakes, pieces.log)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "inotify watch limit reached")

    with monkeypatch.context() as patch:
        patch.setattr(BaseObserver, "schedule", full)
        watcher.start()
        for _ in range(3):
            watcher.tick()
    log: Log = pieces.log
    assert [e["errno"] for e in log.events("intake-unwatched")] == [errno.ENOSPC]
    watcher.tick()
    assert told.scans == 1
    sees(pieces, told, "IM1")
    watcher.stop()


def test_no_inotify_at_all(pieces: Pieces, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """EMFILE: the limit of inotify instances of a user is reached."""

    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    monkeypatch.setattr(InotifyFD, "_instance", None)
    monkeypatch.setattr(InotifyFD, "_create_inotify_fd", none_left)
    watcher = Watcher(pieces.intakes, pieces.log)
    watcher.start()
    watcher.tick()
    assert [e["errno"] for e in pieces.log.events("intake-unwatched")] == [errno.EMFILE]
    watcher.stop()
