"""What other programs do to a file at each step of its deletion: its content is in the inbox or the archive after."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomwatchd import localfiles
from dicomwatchd.intake import take as take_module
from dicomwatchd.pipeline.deletion import proof as proof_module
from dicomwatchd.pipeline.deletion.staging import recover
from dicomwatchd.pipeline.deletion.staging import staged as staging_module
from dicomwatchd.pipeline.deletion.staging.staged import beside
from dicomwatchd.pipeline.deletion.vetoes import unleased as unleased_module
from dicomwatchd.pipeline.local import Folders
from tests.leases import wait_at_lease
from tests.pieces import Pieces, at, left_staged, stage_file
from tests.synthetic import Maker


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


def one_file(pieces: Pieces, name: str = "IM0001") -> tuple[Path, bytes]:
    [made] = Maker(seed=3).ct_series(pieces.inbox / "DOE^JANE", slices=1, rows=16, columns=16)
    path = made.path.with_name(name)
    made.path.rename(path)
    return path, path.read_bytes()


def other_version(data: bytes) -> bytes:
    """Of the same size, with other pixels."""
    return data[:-8] + bytes(byte ^ 0xFF for byte in data[-8:])


def rewrite(path: Path, data: bytes) -> None:
    """In place, size and time kept, as rsync --inplace -t does."""
    stat = path.stat()
    with path.open("r+b") as file:
        file.write(data)
        file.flush()
        os.utime(file.fileno(), ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replace(path: Path, data: bytes) -> None:
    new = path.with_name("." + path.name[:200] + ".part")
    new.write_bytes(data)
    new.rename(path)


def no_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is for a daemon that does not own the files and has no CAP_LEASE, and on network shares."""

    @contextmanager
    def none(_fd: int) -> Iterator[bool]:
        yield False

    monkeypatch.setattr(proof_module, "read_lease", none)
    monkeypatch.setattr(unleased_module, "read_lease", none)
    monkeypatch.setattr(staging_module, "read_lease", none)
    monkeypatch.setattr(take_module, "read_lease", none)


#: Where to meet the deletion: (module, function, after it rather than before). All of them come once for one file, but
#: that it is opened, which it is for being sent too.
MOMENTS: dict[str, tuple[object, str, bool]] = {
    "before it is opened": (Folders, "opened", False),
    "before it is compared": (proof_module, "identity", False),
    "before it is staged": (proof_module, "stage_file", False),
    "when it was staged": (proof_module, "_differs", False),
    "before it is hashed": (proof_module, "sha256_of", False),
    "when it was hashed": (proof_module, "sha256_of", True),
    "when the lease was looked at": (proof_module, "lease_held", True),
    "before it is unlinked": (os, "unlink", False),
    "when it was unlinked": (os, "unlink", True),
}
CHANGES = ("rewritten", "replaced", "appended", "truncated", "made anew", "written by an old descriptor", "mapped")


class Meddler:
    """Does something to a file in a thread of its own: opening a file under a lease waits for the lease's end."""

    def __init__(self, pieces: Pieces, path: Path, change: str) -> None:
        self._path, self._change = path, change
        self._inbox = pieces.inbox
        self.old = path.read_bytes()
        self.written: list[bytes] = []
        # Held from long before; with leases at work its file is never even taken up.
        self._fd = os.open(path, os.O_RDWR) if change == "written by an old descriptor" else -1
        self._thread: threading.Thread | None = None

    def __call__(self) -> None:
        self._thread = threading.Thread(target=self._meddle)
        self._thread.start()
        wait_at_lease(self._thread)

    def finish(self) -> None:
        if self._thread is not None:
            self._thread.join(60)
            assert not self._thread.is_alive()
        if self._fd >= 0:
            os.close(self._fd)

    def _meddle(self) -> None:
        with suppress(FileNotFoundError):  # it came too late, and its program hears of that
            self._do()

    def _do(self) -> None:
        new = other_version(self.old)
        # Wherever its inode stands now, as a program does that had looked the name up just before.
        there = self._path if self._path.exists() else stage_file(self._inbox, f"DOE^JANE/{self._path.name}")
        match self._change:
            case "replaced":
                replace(self._path, new)
            case "made anew":
                self._path.unlink(missing_ok=True)
                self._path.write_bytes(new)
            case "rewritten":
                rewrite(there, new)
            case "appended":
                new = self.old + b"\0" * 8
                with there.open("r+b") as file:
                    file.seek(0, os.SEEK_END)
                    file.write(b"\0" * 8)
            case "truncated":
                new = self.old[:-4]
                os.truncate(there, len(new))
            case "written by an old descriptor":
                os.pwrite(self._fd, new, 0)
            case "mapped":
                with there.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
                    memory[:] = new
        self.written.append(new)


@pytest.mark.parametrize(
    ("leases", "moment"),
    [("leases", moment) for moment in MOMENTS]
    + [("no leases", moment) for moment in MOMENTS if moment != "when the lease was looked at"],
)
@pytest.mark.parametrize("change", CHANGES)
def test_changed_at_every_step(
    moment: str, leases: str, change: str, pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name, after = MOMENTS[moment]
    if leases == "no leases":
        no_leases(monkeypatch)
    path, old = one_file(pieces)
    meddler = Meddler(pieces, path, change)
    pieces.settle()
    when = 2 if name == "opened" else 1
    with at(module, name, meddler, when=when, after=after) as calls:
        pieces.ship()
    meddler.finish()
    if change == "written by an old descriptor" and leases == "leases":
        assert pieces.states() == {}, "a file that a program has open for writing was taken up"
        assert path.read_bytes() == old
        return
    assert calls[0] >= when, "the moment did not come"
    assert len(meddler.written) == 1 or moment == "when it was unlinked"
    pieces.require_nothing_lost(*meddler.written)
    assert not left_staged(pieces.inbox), "a file was left staged"
    pieces.run_and_release()
    if change != "truncated":
        assert pieces.left() == []
        assert {hashlib.sha256(data).hexdigest() for data in (old, *meddler.written)} <= pieces.archived()


# -- file systems with fewer talents ----------------------------------------------------------------------------------


def without_strict_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS: renameat2 refuses the flag."""

    def refuse(*_: object) -> None:
        raise localfiles.NoStrictRename(errno.EINVAL, "no strict rename")

    monkeypatch.setattr(localfiles, "_renameat2", refuse)


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize("step", ["link", "rename", "unlink", "stat"])
def test_replaced_while_it_is_set_aside_without_a_strict_rename(
    step: str, pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link and an unlink in place of a rename would unlink what has been put there in between."""
    without_strict_rename(monkeypatch)
    path, old = one_file(pieces)
    new = other_version(old)
    pieces.settle()
    real_rename = os.rename
    done: list[bool] = []

    def put_there() -> None:
        if path.parent.exists() and not done:
            done.append(True)
            path.with_name("part").write_bytes(new)
            real_rename(path.with_name("part"), path)

    for when in range(1, 12):
        for after in (False, True):
            done.clear()
            with at(os, step, put_there, when=when, after=after):
                pieces.ship()
            pieces.require_nothing_lost(old, *([new] if done else []))
            pieces.run_and_release()
            assert pieces.left() == []
            pieces.require_nothing_lost(old, *([new] if done else []))
            pieces.memory.versions.clear()
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(old)
            pieces.settle()


@pytest.mark.parametrize("links", [True, False])
def test_put_back_without_a_strict_rename(links: bool, pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    without_strict_rename(monkeypatch)
    if not links:
        without_links(monkeypatch)
    path, old = one_file(pieces)
    new = other_version(old)
    pieces.settle()

    def meddle() -> None:
        rewrite(staged_of(pieces, path), old[:-1] + b"x")
        path.write_bytes(new)

    with at(proof_module, "_differs", meddle):
        no_leases(monkeypatch)
        pieces.ship()
    assert sorted(p.read_bytes() for p in pieces.left()) == sorted([old[:-1] + b"x", new])
    assert path.read_bytes() == new
    pieces.run_and_release()
    assert pieces.left() == []


def staged_of(pieces: Pieces, path: Path) -> Path:
    return stage_file(pieces.inbox, path.relative_to(pieces.inbox))


def test_a_full_disk_takes_no_directory_and_still_gets_emptied(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    one_file(pieces, "N" * 250)
    pieces.settle()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(staging_module, "make_directories", full)
    pieces.ship()
    assert pieces.left() == []


def test_a_crash_on_a_full_disk_is_put_right(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    path, old = one_file(pieces)
    pieces.settle()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(staging_module, "make_directories", full)
        crash(pieces)
    [private] = [p.name for p in pieces.left()]
    assert re.fullmatch(r"\.dicomwatchd-aside-~[0-9a-f]{16}~IM0001", private)
    pieces.scan()
    assert pieces.states() == {"IM0001": "deleting"}, "what is staged is nothing to take up"
    pieces.restart()
    assert path.read_bytes() == old
    pieces.run()
    assert pieces.left() == []


def crash(pieces: Pieces) -> None:
    """End a shipment right after a file was staged, as SIGKILL does: nothing is put back or written down."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof_module, "restore", die)
        patch.setattr(type(pieces.queue.deletions), "purged", die)
        with pytest.raises(KeyboardInterrupt), at(proof_module, "_differs", die):
            pieces.ship()


def test_tidied_away_by_another_shipment_meanwhile(pieces: Pieces) -> None:
    one_file(pieces)
    pieces.settle()

    def tidy() -> None:
        [private] = pieces.inbox.glob(".dicomwatchd-aside-*")
        (private / "DOE^JANE").rmdir()
        (private / ".dicomwatchd-lock").unlink()
        private.rmdir()

    with at(staging_module, "rename_to_private", tidy):
        pieces.ship()
    assert pieces.left() == []
    assert pieces.log.events("study-delayed") == []


# -- a batch of one folder -----------------------------------------------------------------------------------------

#: Before the second of three files in one folder is deleted: (target, function, its how-many-th call).
MIDST = {
    "before it is opened": (Folders, "opened", 5),  # three for sending before
    "before it is staged": (proof_module, "stage_file", 2),
    "when it was staged": (proof_module, "_differs", 2),
    "before it is unlinked": (os, "unlink", 2),
}


@pytest.mark.parametrize("moment", MIDST)
@pytest.mark.parametrize(
    "what", ["moved", "exchanged for another", "exchanged for a link", "removed with all files", "tidied aside", "file"]
)
def test_the_folder_changes_in_the_midst_of_a_batch(what: str, moment: str, pieces: Pieces) -> None:
    """The folder that stays open between two files is not looked up again: whatever it is meanwhile, what is deleted is
    in the archive, and what stands in its place is not touched."""
    folder, moved = pieces.inbox / "DOE", pieces.root / "moved"
    made = Maker(seed=3).ct_series(folder, slices=3, rows=16, columns=16)
    data = [one.path.read_bytes() for one in made]
    others = {one.path.name: other_version(one.path.read_bytes()) for one in made}
    pieces.settle()

    def change() -> None:
        match what:
            case "moved":
                folder.rename(moved)
            case "exchanged for another" | "exchanged for a link":
                folder.rename(moved)
                place = folder if what == "exchanged for another" else pieces.root / "elsewhere"
                place.mkdir()
                for name, content in others.items():
                    (place / name).write_bytes(content)
                if place != folder:
                    folder.symlink_to(place)
            case "removed with all files":
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()
            case "tidied aside":
                for private in pieces.inbox.glob(".dicomwatchd-aside-*"):
                    with suppress(OSError):
                        (private / "DOE").rmdir()
                        (private / ".dicomwatchd-lock").unlink()
                        private.rmdir()
            case "file":
                replace(made[1].path, others[made[1].path.name])

    target, name, when = MIDST[moment]
    with at(target, name, change, when=when) as calls:
        pieces.ship()
    assert calls[0] >= when, "the moment did not come"
    archived = pieces.archived()
    everywhere = {path.read_bytes() for path in pieces.root.rglob("*") if path.is_file() and not path.is_symlink()}
    if what != "removed with all files":
        assert all(one in everywhere or hashlib.sha256(one).hexdigest() in archived for one in data)
    if what.startswith("exchanged"):
        assert set(others.values()) <= everywhere
    if what == "file":
        other = others[made[1].path.name]
        assert other in everywhere or hashlib.sha256(other).hexdigest() in archived
    assert not left_staged(pieces.inbox), "a file was left staged"
    if what == "tidied aside":
        assert pieces.left() == [] and pieces.log.events("study-delayed") == []
    pieces.run_and_release()
    if what != "exchanged for a link":
        assert pieces.left() == []
    assert pieces.queue.reports.unfinished()["parked"] == 0


# -- what cannot be put back ------------------------------------------------------------------------------------------


def test_left_staged_is_mended_without_a_restart(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    path, old = one_file(pieces)
    new = other_version(old)
    pieces.settle()

    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, "broken")

    no_leases(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(staging_module, "move_back", broken)
        with at(proof_module, "_differs", lambda: rewrite(staged_of(pieces, path), new)):
            pieces.ship()
        assert staged_of(pieces, path).read_bytes() == new
    pieces.run_and_release()
    pieces.require_nothing_lost(old, new)
    assert pieces.left() == []
    assert hashlib.sha256(new).hexdigest() in pieces.archived()


def test_an_inbox_that_comes_back_after_a_crash_is_mended(pieces: Pieces) -> None:
    path, old = one_file(pieces)
    pieces.settle()
    crash(pieces)
    away = pieces.inbox.with_name("away")
    pieces.close()
    pieces.inbox.rename(away)
    pieces.start()
    pieces.look()
    away.rename(pieces.inbox)
    pieces.look()
    assert path.read_bytes() == old
    pieces.run()
    assert pieces.left() == []
    study = next(key.split("/")[1] for key in pieces.memory.versions)
    assert [entry.body["kind"] for entry in pieces.queue.audit.of_study(study)][:2] == ["authorised", "restored"]


def test_an_inbox_that_is_not_mounted_is_no_evidence_of_deletion(pieces: Pieces, tmp_path: Path) -> None:
    """After a crash, its empty mount point stands where the inbox was: the record must not say "deleted"."""
    one_file(pieces)
    pieces.settle()
    crash(pieces)
    pieces.close()
    pieces.inbox.rename(tmp_path / "unmounted")
    with pytest.MonkeyPatch.context() as patch:
        pieces.inbox.mkdir()
        patch.setattr(recover, "_device", lambda *_: 12345)  # the mount point lies on another file system
        pieces.start()
    pieces.look()
    study = next(key.split("/")[1] for key in pieces.memory.versions)
    assert [entry.body["kind"] for entry in pieces.queue.audit.of_study(study)] == ["authorised", "gone"]
    pieces.inbox.rmdir()
    (tmp_path / "unmounted").rename(pieces.inbox)
    pieces.run()
    assert pieces.left() == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EPERM])
def test_a_file_system_that_renames_and_does_not_unlink(
    number: int, pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Staging a file and putting it back moves its ctime. That is no change of anybody's: the study must not
    arrive anew for it, and be tried without a pause, for good."""
    path, old = one_file(pieces)
    real = os.unlink

    def refuse(name: str | bytes, *arguments: object, **named: object) -> None:
        if name == b"IM0001":
            raise OSError(number, "refused")
        real(name, *arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        for _ in range(5):
            pieces.settle()
            pieces.ship()
        assert path.read_bytes() == old
        study = next(key.split("/")[1] for key in pieces.memory.versions)
        [row] = pieces.queue.reports.queue(10)
        entries = [entry.body["kind"] for entry in pieces.queue.audit.of_study(study)]
        if number == errno.EPERM:
            assert (row["state"], row["code"]) == ("parked", "cannot-delete")
            assert entries == ["authorised", "untouched"]
            assert pieces.queue.claims.retry(study)
        else:
            assert (row["state"], row["code"]) == ("queued", "local-eio")
            assert row["attempts"] >= 2
            assert entries == ["authorised", "untouched"] * row["attempts"]
    pieces.clock.advance(1000)
    pieces.run()
    assert pieces.left() == [] and not list(pieces.inbox.iterdir())
    assert pieces.manifest(study).revision == 1


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        (b"IM0001", 1, b"IM0001.restored-1"),
        (b"IM0001.dcm", 2, b"IM0001.restored-2.dcm"),
        (b"IM0001.restored-1.dcm", 2, b"IM0001.restored-2.dcm"),
        (b".dcm", 1, b".dcm.restored-1"),
        (b"1.2.840.10008.99999999999999999999999", 1, b"1.2.840.10008.99999999999999999999999.restored-1"),
        (b"\xff\xfe.dcm", 1, b"\xff\xfe.restored-1.dcm"),
    ],
)
def test_the_name_beside(name: bytes, number: int, expected: bytes) -> None:
    assert beside(name, number) == expected


@given(st.binary(min_size=1, max_size=255) | st.text(min_size=1, max_size=120).map(str.encode), st.integers(1, 2**48))
def test_any_name_beside_fits(name: bytes, number: int) -> None:
    name = name.replace(b"/", b"_").replace(b"\0", b"_")[:255]
    made = beside(name, number)
    assert 0 < len(made) <= 255 and made != name and b"/" not in made and b"\0" not in made
    if is_utf8(name):
        assert is_utf8(made)
    assert beside(beside(name, 1), number) == made or len(name) > 230


def is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_a_255_byte_name_is_put_back_beside_its_own(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    path, old = one_file(pieces, "ä" * 125 + "e.dcm")
    new = other_version(old)
    pieces.settle()

    def meddle() -> None:
        rewrite(staged_of(pieces, path), old[:-1] + b"x")
        path.write_bytes(new)

    no_leases(monkeypatch)
    with at(proof_module, "_differs", meddle):
        pieces.ship()
    names = [p.name for p in pieces.left()]
    assert len(names) == 2 and all(name.endswith(".dcm") for name in names)
    pieces.run_and_release()
    assert pieces.left() == []


def test_what_was_put_back_beside_its_name_is_taken_up_whatever_the_globs(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, include=("IM????",), exclude=("*restored*",))
    path, _ = one_file(pieces)
    path.rename(path.with_name("IM0001.restored-1"))
    pieces.run()
    assert pieces.left() == []
    pieces.close()


# -- leases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_system", sorted(localfiles._SHARED))
def test_a_network_share_s_answer_to_a_lease_is_not_believed(
    file_system: int, pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS and CIFS say EAGAIN where they merely have no delegation; a file there would never be taken up."""

    def refuse(_fd: int, command: int, *_: object) -> int:
        assert command not in (fcntl.F_SETLEASE, fcntl.F_SETSIG)
        return 0

    one_file(pieces)
    monkeypatch.setattr(localfiles, "_file_system", lambda _: file_system)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    pieces.run()
    assert pieces.left() == []


@pytest.mark.parametrize(
    "file_system", [0x47504653, 0x19830326, 0xAAD7AAEA, 0xBEEFDEAD, 0xA501FCF5, 0x786F4256, 0xBACBACBC, 0x7C7C6673]
)
def test_a_lease_of_this_machine_says_nothing_of_the_others_of_a_cluster_or_of_the_host(
    file_system: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives one wherever a file system does not object, and knows nobody who writes from elsewhere."""
    monkeypatch.setattr(localfiles, "_file_system", lambda _: file_system)
    (tmp_path / "IM1").write_bytes(b"content")
    with (tmp_path / "IM1").open("rb") as file, localfiles.read_lease(file.fileno()) as leased:
        assert not leased


def test_the_file_system_of_a_file_is_known(tmp_path: Path) -> None:
    with open("/proc/self/stat") as file:
        assert localfiles._file_system(file.fileno()) == 0x9FA0  # PROC_SUPER_MAGIC
    with (tmp_path / "x").open("w") as file:
        assert localfiles._file_system(file.fileno()) not in (0, 0x9FA0)
