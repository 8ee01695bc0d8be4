"""Several daemons at one inbox, and what a crash of one of them leaves aside: whatever the file system knows of strict
renames and of locks, no file is lost, none takes another's place, and none stays staged for ever."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicomwatchd import localfiles
from dicomwatchd.intake.folder.leftovers import PATIENCE, Leftovers
from dicomwatchd.intake.scan import Listing
from dicomwatchd.localfiles import directory, open_root
from dicomwatchd.pipeline.deletion import proof as proof_module
from dicomwatchd.pipeline.deletion.staging import private
from dicomwatchd.pipeline.deletion.staging import staged as staging_module
from dicomwatchd.pipeline.deletion.staging.recover import bring_back
from dicomwatchd.pipeline.deletion.staging.staged import (
    StagingArea,
    StagingFolders,
    _new_copy,
    original_name,
    private_name,
    stage_file,
)
from dicomwatchd.queue.bindings.remounts import FORGET_SECONDS
from dicomwatchd.queue.rows import Source
from tests.pieces import Log, Pieces, at, left_staged
from tests.synthetic import Made, Maker
from tests.unit.test_deletion_races import crash, other_version, without_links, without_strict_rename

TALENTS = (
    "all",
    "nothing",
    *(
        pytest.param(some, marks=pytest.mark.long)
        for some in ("no strict renames", "no strict renames, no links", "no locks")
    ),
)


@pytest.fixture(params=TALENTS)
def talents(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the inbox's file system can do."""
    if "strict" in request.param or request.param == "nothing":
        without_strict_rename(monkeypatch)
    if "links" in request.param or request.param == "nothing":
        without_links(monkeypatch)
    if "locks" in request.param or request.param == "nothing":
        without_locks(monkeypatch)
    return str(request.param)


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS without its lock daemon. The state's own lock is on another file system."""
    real = fcntl.flock

    def refuse(fd: int, operation: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".dicomwatchd-lock"):
            raise OSError(errno.ENOLCK, "no locks available")
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", refuse)


# -- two daemons ------------------------------------------------------------------------------------------------------


@dataclass
class Two:
    """Two daemons with states of their own, one inbox and one archive."""

    one: Pieces
    other: Pieces

    @property
    def inbox(self) -> Path:
        return self.one.inbox

    def require_nothing_lost(self, *contents: bytes) -> None:
        here = [p.read_bytes() for p in self.inbox.rglob("*") if p.is_file()]
        for content in contents:
            assert content in here or hashlib.sha256(content).hexdigest() in self.one.archived(), "lost"

    def run(self) -> None:
        for _ in range(4):
            for pieces in (self.one, self.other):
                pieces.clock.advance(1000)
                pieces.run(3)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    one = Pieces(tmp_path / "one")
    other = Pieces(tmp_path / "other", store=one.memory, catalogue=one.catalogue)
    other.memory = one.memory
    other.close()
    other.inboxes = one.inboxes
    other.start()
    yield Two(one, other)
    one.close()
    other.close()


def drop(two: Two, slices: int = 2) -> list[Made]:
    return Maker(seed=3).ct_series(two.inbox / "DOE^JANE", slices=slices, rows=16, columns=16)


#: Where to meet the deletion of the first of two files by the one: (target, function, after it).
STEPS: dict[str, tuple[object, str, bool]] = {
    "before the private directory is made": (private, "make", False),
    "when the private directory was made": (private, "make", True),
    "before it is locked": (private, "_lock", False),
    "before it is staged": (staging_module, "rename_to_private", False),
    "when it was staged": (staging_module, "rename_to_private", True),
    "before it is compared": (proof_module, "_differs", False),
    "when it was compared": (proof_module, "_differs", True),
    "when it was unlinked": (os, "unlink", True),
}


def ships(two: Two) -> None:
    """The other does all that it would do, while the one stands still."""
    two.other.clock.advance(1000)
    two.other.run(2)


def recovers(two: Two) -> None:
    """The other starts: and brings back what it finds aside."""
    bring_back(two.other.sources[0], Log())


def recovers_halfway(two: Two) -> None:
    """The other starts, and is killed once it has brought back what it found aside, before it has tidied up."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(private, "remove_empty", die)
        bring_back(two.other.sources[0], Log())


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("what", [ships, recovers, recovers_halfway], ids=["ships", "recovers", "recovers-halfway"])
def test_the_other_comes_in_between(two: Two, talents: str, step: str, what: Callable[[Two], None]) -> None:
    made = drop(two)
    contents = [one.path.read_bytes() for one in made]
    two.one.settle()
    two.other.settle()
    target, name, after = STEPS[step]
    if step.endswith(("is made", "was made")):
        target = staging_module
    done: list[bool] = []

    def meanwhile() -> None:
        if not done:
            done.append(True)
            what(two)
            two.require_nothing_lost(*contents)

    with at(target, name, meanwhile, after=after):
        two.one.ship()
    assert done, "the moment did not come"
    two.require_nothing_lost(*contents)
    two.run()
    assert not left_staged(two.inbox), "staged for ever"
    assert [p for p in two.inbox.rglob("*") if p.is_file()] == []
    assert {hashlib.sha256(content).hexdigest() for content in contents} <= two.one.archived()


@pytest.mark.parametrize("step", STEPS)
def test_the_name_is_given_anew_meanwhile(two: Two, talents: str, step: str) -> None:
    """The modality writes another file under the name of the one that is staged, and the other ships it."""
    made = drop(two, slices=1)
    old = made[0].path.read_bytes()
    new = other_version(old)
    two.one.settle()
    target, name, after = STEPS[step]
    if step.endswith(("is made", "was made")):
        target = staging_module

    def meanwhile() -> None:
        made[0].path.parent.mkdir(exist_ok=True)
        part = made[0].path.with_name("part")
        part.write_bytes(new)
        part.rename(made[0].path)
        ships(two)

    with at(target, name, meanwhile, after=after) as calls:
        two.one.ship()
    assert calls[0]
    two.require_nothing_lost(old, new)
    two.run()
    for one in (two.one, two.other):
        one.run_and_release()
    assert [p for p in two.inbox.rglob("*") if p.is_file()] == []
    assert {hashlib.sha256(data).hexdigest() for data in (old, new)} <= two.one.archived()


@pytest.mark.parametrize("step", [step for step in STEPS if step != "when the private directory was made"])
def test_killed_at_each_step_and_brought_back_by_the_other(two: Two, talents: str, step: str) -> None:
    made = drop(two)
    contents = [one.path.read_bytes() for one in made]
    two.one.settle()
    target, name, after = STEPS[step]
    if step.endswith("is made"):
        target = staging_module

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(proof_module, "restore", die)
        patch.setattr(type(two.one.queue.deletions), "purged", die)
        patch.setattr(private.Private, "release", lambda self: os.close(self.lock_fd))  # as the kernel does
        stack.enter_context(at(target, name, die, after=after))
        stack.enter_context(pytest.raises(KeyboardInterrupt))
        two.one.ship()
    two.require_nothing_lost(*contents)
    two.one.close()
    # The other has been running all the time; it finds what is staged by its looks alone.
    for _ in range(4):
        two.other.clock.advance(1000)
        two.other.run(2)
    assert not left_staged(two.inbox), "staged for ever"
    assert [p for p in two.inbox.rglob("*") if p.is_file()] == []
    two.one.start()


# -- private directories ----------------------------------------------------------------------------------------------


def source_of(inbox: Path) -> Source:
    return Source(1, "ct1", os.fsencode(inbox), "inbox", delete_local=False)


def test_what_somebody_is_at_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "IM1").write_bytes(b"x")
    root_fd = open_root(os.fsencode(tmp_path))
    with (
        StagingFolders() as places,
        directory(root_fd, b"A") as fd,
        stage_file(places, source_of(tmp_path), b"A", b"IM1", fd),
    ):
        found = bring_back(source_of(tmp_path), Log())
        assert (found.restored, found.left, found.owned) == (0, 0, 1) and not found.is_through
        assert len(left_staged(tmp_path)) == 1
    found = bring_back(source_of(tmp_path), Log())
    assert (found.restored, found.owned) == (1, 0) and found.is_through
    assert (tmp_path / "A" / "IM1").read_bytes() == b"x"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["A"]
    os.close(root_fd)


def test_private_names_are_never_the_same(tmp_path: Path) -> None:
    fd = open_root(os.fsencode(tmp_path))
    made = [private.make(fd) for _ in range(20)]
    assert len({one.name for one in made}) == 20
    assert all(path.stat().st_mode & 0o777 == 0o700 for path in tmp_path.iterdir())
    for one in made:
        one.release()
    assert list(tmp_path.iterdir()) == []
    os.close(fd)


def test_what_is_not_empty_is_not_removed(tmp_path: Path) -> None:
    fd = open_root(os.fsencode(tmp_path))
    one = private.make(fd)
    place = tmp_path / os.fsdecode(one.name)
    (place / "A" / "B").mkdir(parents=True)
    (place / "C" / "D").mkdir(parents=True)
    (place / "A" / "IM1").write_bytes(b"x")
    one.release()
    assert sorted(p.relative_to(place).as_posix() for p in place.rglob("*")) == ["A", "A/IM1"]
    os.close(fd)


def test_what_the_first_release_has_left_is_brought_back(tmp_path: Path) -> None:
    for name in (".dicomwatchd-aside/A/IM1", ".dicomwatchd-aside/IM2", "B/.dicomwatchd-aside/IM3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "B" / ".dicomwatchd-aside-IM4").write_bytes(b"4")
    assert bring_back(source_of(tmp_path), Log()).restored == 4
    found = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert found == ["A/IM1", "B/IM3", "B/IM4", "IM2"]
    assert not list(tmp_path.rglob(".dicomwatchd*"))


@pytest.mark.parametrize("name", [b"IM1", b"N" * 255, "ä".encode() * 120, b"-", b"~0123456789abcdef~x"])
def test_the_name_of_what_lies_alone(name: bytes) -> None:
    made = private_name(name)
    assert len(made) <= 255 and made != private_name(name)
    assert name.endswith(original_name(made)) and (len(name) > 200 or original_name(made) == name)


def test_what_share_clients_leave_of_files_that_were_open_is_not_deleted(tmp_path: Path) -> None:
    """`.nfs...` and `.fuse_hidden...` hold what was unlinked while it was open: if it is still there after a crash, it
    is a file like another."""
    place = tmp_path / ".dicomwatchd-aside-0123" / "A"
    place.mkdir(parents=True)
    (place / ".nfs0000001").write_bytes(b"x")
    bring_back(source_of(tmp_path), Log())
    assert (tmp_path / "A" / ".nfs0000001").read_bytes() == b"x"
    assert not (tmp_path / ".dicomwatchd-aside-0123").exists()


def test_a_tree_built_to_stop_the_start(tmp_path: Path) -> None:
    """1,100 folders deep: whoever may write to an inbox can make that. What is not out of reach is brought back."""
    fd = open_root(os.fsencode(tmp_path))
    try:
        os.close(localfiles.make_directories(fd, [b".dicomwatchd-aside-x", *[b"a"] * 1100], 0o700))
        (tmp_path / ".dicomwatchd-aside-x" / "a" / "IM1").write_bytes(b"x")
        found = bring_back(source_of(tmp_path), Log())
        assert found.restored == 1 and found.left == 1
        assert (tmp_path / "a" / "IM1").read_bytes() == b"x"
    finally:  # what is so deep neither pytest nor shutil.rmtree can take away
        os.close(fd)
        subprocess.run(["rm", "-rf", "--", *map(str, tmp_path.iterdir())], check=True)


def test_one_bad_entry_costs_that_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / ".dicomwatchd-aside-0123"
    place.mkdir()
    for name in ("IM1", "IM2"):
        (place / name).write_bytes(b"x")

    class Bad:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self._entry = entry.name, entry

        def is_dir(self, *, follow_symlinks: bool) -> bool:
            if self.name == "IM1":
                raise OSError(errno.EIO, "broken")
            return self._entry.is_dir(follow_symlinks=follow_symlinks)

    real = os.scandir

    class Listing:
        def __init__(self, fd: int) -> None:
            self._real = real(fd)

        def __enter__(self) -> Iterator[Bad]:
            return iter([Bad(entry) for entry in self._real])

        def __exit__(self, *_: object) -> None:
            self._real.close()

    monkeypatch.setattr(os, "scandir", Listing)
    found = bring_back(source_of(tmp_path), Log())
    assert found.restored == 1 and found.left >= 1
    assert (tmp_path / "IM2").exists() and (place / "IM1").exists()


def test_a_directory_that_is_taken_away_before_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = open_root(os.fsencode(tmp_path))
    with at(private, "_lock", lambda: bring_back(source_of(tmp_path), Log())) as calls:
        one = private.make(fd)
    assert calls[0] >= 2
    with private.left_behind(one.fd) as is_left:
        assert not is_left
    one.release()
    os.close(fd)


# -- looks find what is staged for long ------------------------------------------------------------------------------


def test_what_lies_aside_at_two_looks_is_brought_back() -> None:
    found = Leftovers()

    def look(*names: bytes) -> bool:
        found.begin_scan()
        found.see(b"A", Listing(private=list(names)))
        met = found.end_scan()
        assert met <= {b"A"}
        return bool(met)

    assert [look(b"x"), look(b"y"), look(b"x", b"z")] == [False, False, False]
    assert look(b"x") is True
    assert [look(b"x") for _ in range(PATIENCE - 1)] == [False] * (PATIENCE - 1)
    assert look(b"x") is True
    assert look() is False


# -- descriptors ------------------------------------------------------------------------------------------------------


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_no_descriptor_is_closed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed twice it may be somebody else's by then."""
    inbox = tmp_path / "inbox"
    (inbox / "A").mkdir(parents=True)
    fd = os.open(inbox / "A", os.O_RDONLY)
    (inbox / "A").rmdir()
    inbox.rmdir()
    closed: list[int] = []
    real = os.close

    def close(one: int) -> None:
        closed.append(one)
        real(one)

    before = open_fds()
    monkeypatch.setattr(os, "close", close)
    with pytest.raises(FileNotFoundError), _new_copy(source_of(inbox), fd, b"IM1"):
        pass
    monkeypatch.undo()
    assert len(closed) == len(set(closed)) == 1 and open_fds() == before
    os.close(fd)


def test_a_staging_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "IM1").write_bytes(b"x")
    before = open_fds()
    staging = StagingArea()
    fd = os.open(tmp_path / "A", os.O_RDONLY)
    with StagingFolders(staging) as places, stage_file(places, source_of(tmp_path), b"A", b"IM1", fd) as staged:
        os.unlink(staged.name, dir_fd=staged.fd)
        places.give_up(source_of(tmp_path), b"A")
    staging.close()
    os.close(fd)
    assert open_fds() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "A"]


@pytest.mark.parametrize("where", ["_new_copy", "_copy"])
def test_what_is_written_late_is_saved_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "IM1"
    path.write_bytes(b"written late")
    fd = os.open(path, os.O_RDONLY)
    directory_fd = open_root(os.fsencode(tmp_path))
    path.unlink()
    real, tries = getattr(staging_module, where), []

    def full(*arguments: object) -> object:
        tries.append(1)
        if len(tries) <= 3:
            raise OSError(errno.ENOSPC, "full")
        return real(*arguments)

    monkeypatch.setattr(staging_module, where, full)
    monkeypatch.setattr(staging_module, "_SAVE_PAUSE_SECONDS", 0.01)
    assert staging_module.save_late_writes(fd, "another digest", source_of(tmp_path), directory_fd, b"IM1")
    assert path.read_bytes() == b"written late" and len(tries) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["IM1"]
    os.close(fd)
    os.close(directory_fd)


# -- an inbox's path is changed ---------------------------------------------------------------------------------------


def moved_after_a_crash(pieces: Pieces) -> tuple[Path, Path, bytes]:
    """A file is staged; then the inbox has another path in the configuration. (old folder, file, content)"""
    [made] = Maker(seed=3).ct_series(pieces.inbox / "DOE", slices=1, rows=16, columns=16)
    data = made.path.read_bytes()
    pieces.settle()
    crash(pieces)
    pieces.close()
    old = pieces.inboxes[0]
    pieces.inboxes[0] = pieces.root / "new" / old.name
    pieces.inboxes[0].mkdir(parents=True)
    return old, made.path, data


def former(pieces: Pieces) -> list[str]:
    return pieces.queue.reports.former_places()


def test_an_inbox_whose_path_was_changed_after_a_crash(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    _, path, data = moved_after_a_crash(pieces)
    pieces.start()
    assert path.read_bytes() == data, "back where it was"
    assert former(pieces) == []
    study = next(key.split("/")[1] for key in pieces.memory.versions)
    assert [e.body["kind"] for e in pieces.queue.audit.of_study(study)] == ["authorised", "restored"]
    pieces.run(2)
    assert path.exists(), "it is no inbox any more"
    pieces.close()


def test_whose_former_folder_is_away(tmp_path: Path) -> None:
    """It is said, and kept in mind, over any number of starts."""
    pieces = Pieces(tmp_path)
    old, path, data = moved_after_a_crash(pieces)
    old.rename(tmp_path / "away")
    study = next(key.split("/")[1] for key in pieces.memory.versions)
    for _ in range(3):
        pieces.start()
        [name] = former(pieces)
        assert name.startswith("inbox1-left-")
        assert [e.body["kind"] for e in pieces.queue.audit.of_study(study)] == ["authorised"]
        pieces.close()
    (tmp_path / "away").rename(old)
    pieces.start()
    assert path.read_bytes() == data and former(pieces) == []
    pieces.close()


def test_a_folder_that_was_moved_with_its_inbox_is_not_told_of_for_ever(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    pieces.close()
    old = pieces.inboxes[0]
    pieces.inboxes[0] = tmp_path / "new" / old.name
    pieces.inboxes[0].parent.mkdir()
    old.rename(pieces.inboxes[0])
    pieces.start()
    assert len(former(pieces)) == 1, "it may be a share that is not mounted now"
    pieces.restart()
    assert len(former(pieces)) == 1, "a start does not forget it before its time"
    pieces.clock.advance(FORGET_SECONDS + 60)
    assert former(pieces) == []
    pieces.restart()
    assert [source.kind for source in pieces.queue.arrivals.sources()] == ["inbox"]
    pieces.close()


def test_an_open_deletion_is_told_of_however_long_its_folder_is_away(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    old, path, data = moved_after_a_crash(pieces)
    old.rename(tmp_path / "away")
    pieces.clock.advance(FORGET_SECONDS + 60)
    for _ in range(2):
        pieces.start()
        pieces.clock.advance(FORGET_SECONDS + 60)
        assert len(former(pieces)) == 1
        pieces.close()
    (tmp_path / "away").rename(old)
    pieces.start()
    assert path.read_bytes() == data and former(pieces) == []
    pieces.close()


def test_an_inbox_taken_out_of_the_configuration_after_a_crash(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, inboxes=2)
    [made] = Maker(seed=3).ct_series(pieces.inbox / "DOE", slices=1, rows=16, columns=16)
    data = made.path.read_bytes()
    pieces.settle()
    crash(pieces)
    pieces.close()
    old = pieces.inboxes.pop(0)
    old.rename(tmp_path / "away")
    pieces.start()
    assert former(pieces) == ["inbox1"]
    (tmp_path / "away").rename(old)
    pieces.restart()
    assert made.path.read_bytes() == data and former(pieces) == []
    pieces.close()


def test_there_and_back(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    old, path, data = moved_after_a_crash(pieces)
    old.rename(tmp_path / "away")
    pieces.start()
    pieces.close()
    (tmp_path / "away").rename(old)
    pieces.inboxes[0] = old
    pieces.start()
    assert path.read_bytes() == data
    pieces.run()
    assert pieces.left() == [] and former(pieces) == []
    pieces.close()


def test_a_deletion_of_an_inbox_that_is_away_stays_open(tmp_path: Path) -> None:
    """The study is shipped again, from another inbox; how the deletion ended is not known before the inbox is back."""
    pieces = Pieces(tmp_path, inboxes=2)
    [made] = Maker(seed=3).ct_series(pieces.inbox / "DOE", slices=1, rows=16, columns=16)
    pieces.settle()
    crash(pieces)
    pieces.close()
    away = tmp_path / "away"
    pieces.inbox.rename(away)
    pieces.start()
    Maker(seed=3).ct_series(pieces.inboxes[1], slices=2, rows=16, columns=16)
    pieces.run(3)
    study = next(key.split("/")[1] for key in pieces.memory.versions)
    entries = [e.body["kind"] for e in pieces.queue.audit.of_study(study)]
    assert "gone" not in entries and "restored" not in entries
    away.rename(pieces.inbox)
    pieces.look()
    assert [e.body["kind"] for e in pieces.queue.audit.of_study(study)][-1] == "restored"
    assert made.path.exists()
    pieces.run(3)
    assert pieces.left() == []
    pieces.close()


# -- its own looks, while it is at a file -----------------------------------------------------------------------------


def _full(parent_fd: int) -> private.Private:
    raise OSError(errno.ENOSPC, "no space left on device")


@pytest.mark.parametrize("why", ["no locks", "a full disk"])
def test_its_own_looks_leave_alone_what_it_is_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """A large file is compared for longer than two looks are apart. Where no lock tells that somebody is at it, the
    daemon would bring its own file back, find it gone, and begin again: for ever."""
    if why == "no locks":
        without_locks(monkeypatch)
    else:
        monkeypatch.setattr(staging_module, "make", _full)
    pieces = Pieces(tmp_path)
    made = Maker(seed=3).ct_series(pieces.inbox / "DOE^JANE", slices=2, rows=16, columns=16)
    pieces.settle()

    def looks() -> None:
        for _ in range(4):
            pieces.clock.advance(70)
            pieces.scan()

    with at(proof_module, "_differs", looks):
        pieces.ship()
    assert pieces.left() == [] and pieces.log.events("recover-restored") == []
    with pieces.queue._database.read() as db:
        kinds = [row[0] for row in db.execute("SELECT json_extract(entry, '$.kind') FROM audit")]
    assert kinds == ["authorised"] * 2 + ["deleted"] * 2
    assert {one.sha256 for one in made} == pieces.archived()
    pieces.close()


def test_what_another_daemon_left_is_brought_back_beside_what_it_is_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_locks(monkeypatch)
    pieces = Pieces(tmp_path)
    Maker(seed=3).ct_series(pieces.inbox / "DOE^JANE", slices=1, rows=16, columns=16)
    left = pieces.inbox / ".dicomwatchd-aside-0123456789abcdef" / "B" / "IM7"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of a daemon that died")
    pieces.settle()

    def looks() -> None:
        for _ in range(4):
            pieces.clock.advance(70)
            pieces.scan()
        assert (pieces.inbox / "B" / "IM7").read_bytes() == b"of a daemon that died"

    with at(proof_module, "_differs", looks) as calls:
        pieces.ship()
    assert calls == [1] and [path.name for path in pieces.left()] == ["IM7"]
    pieces.close()
