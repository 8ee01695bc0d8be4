"""An inbox that was exchanged, by whatever means: what is in it is archived, and nothing there goes until somebody has
said that it is meant, or it is the folder again that it was."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.control import peer as control_peer
from dicomwatchd.control.peer import Descriptors, Request
from dicomwatchd.daemon.commands import commands
from dicomwatchd.errors import DicomwatchdError, Permanent
from dicomwatchd.intake.folder import mounts
from dicomwatchd.intake.folder.mounts import root_of
from dicomwatchd.localfiles import open_root
from dicomwatchd.pipeline.deletion import proof as proof_module
from dicomwatchd.pipeline.shipment import AfterArchive
from dicomwatchd.queue.bindings.roots import RootObservation
from dicomwatchd.queue.rows import Root
from dicomwatchd.rights import Asker
from tests.pieces import Pieces, at
from tests.synthetic import Made, Maker


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    """One study went through an inbox already."""
    pieces = Pieces(tmp_path)
    drop(pieces, 1)
    pieces.run()
    assert pieces.left() == []
    yield pieces
    pieces.close()


def drop(pieces: Pieces, seed: int, count: int = 2) -> list[Made]:
    return Maker(seed=seed).ct_series(pieces.inbox / f"DOE{seed}", slices=count, rows=16, columns=16)


def rename(pieces: Pieces) -> None:
    pieces.inbox.rename(pieces.root / "away")
    pieces.inbox.mkdir()


def link(pieces: Pieces) -> None:
    (pieces.root / "other").mkdir()
    pieces.inbox.rename(pieces.root / "away")
    pieces.inbox.symlink_to(pieces.root / "other")


def remove(pieces: Pieces) -> None:
    """The inode may be given to the new folder: the file system tells when it was made."""
    shutil.rmtree(pieces.inbox)
    pieces.inbox.mkdir()


EXCHANGES: list[Callable[[Pieces], None]] = [rename, link, remove]


def folders(pieces: Pieces) -> list[bool]:
    """Of each inbox, whether it was exchanged."""
    return [pin.exchanged_at is not None for pin in pieces.queue.roots.pins()]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_nothing_goes_until_it_is_confirmed(pieces: Pieces, exchange: Callable[[Pieces], None]) -> None:
    exchange(pieces)
    made = drop(pieces, 2)
    pieces.run(3)
    assert all(one.path.exists() for one in made)
    assert {one.sha256 for one in made} <= pieces.archived(), "to archive it harms nobody"
    assert set(pieces.states().values()) == {"kept:exchanged"}
    with pieces.queue._database.read() as db:
        [row] = db.execute("SELECT COUNT(*) FROM audit WHERE entry LIKE '%\"authorised\"%'").fetchall()
    assert row[0] == 2, "a deletion that is not to be is on record"
    assert pieces.log.events("inbox-exchanged") == [{"inbox": "inbox1"}] and folders(pieces) == [True]
    pieces.restart()
    pieces.run(2)
    assert all(one.path.exists() for one in made)
    assert pieces.queue.roots.confirm("inbox1", {"uid": 7}) == 2
    pieces.run(2)
    assert pieces.left() == [] and folders(pieces) == [False]
    with pieces.queue._database.read() as db:
        entries = [row["entry"] for row in db.execute("SELECT entry FROM audit WHERE study_uid = ''")]
    assert len(entries) == 1 and '"kind":"inbox-confirmed"' in entries[0] and '"uid":7' in entries[0]
    assert pieces.queue.audit.broken_at() is None
    assert str(pieces.inbox) not in entries[0]


def test_it_is_confirmed_by_who_runs_the_daemon_alone(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before: a member of the daemon's group who may rename above an inbox put another user's folder into its place,
    confirmed it, and had files deleted there that he could not delete himself."""
    rename(pieces)
    made = drop(pieces, 2)
    pieces.run(3)
    uploads, prover = pieces.parts.uploads, pieces.parts.prover
    confirm = commands(pieces.queue, lambda _: {}, list, uploads, lambda: None, prover)["inbox-confirm"]

    def by(uid: int) -> Any:
        monkeypatch.setattr(control_peer, "asker_of", lambda _: Asker(uid, 62001))
        with socket.socket(socket.AF_UNIX) as connection:
            request = Request({"name": "inbox1"}, connection, Descriptors(connection))
            return confirm(request, lambda _: None)

    with pytest.raises(Permanent) as refused:
        by(61002)
    assert refused.value.code == "not-yours"
    with pytest.raises(DicomwatchdError):
        confirm({"name": "inbox1"}, lambda _: None)
    pieces.run(2)
    assert all(one.path.exists() for one in made) and folders(pieces) == [True]
    assert by(os.geteuid()) == {"inbox": "inbox1", "files": 2}
    pieces.run(2)
    assert pieces.left() == [] and folders(pieces) == [False]


def test_the_folder_that_it_was_needs_no_word(pieces: Pieces) -> None:
    rename(pieces)
    made = drop(pieces, 2)
    pieces.run(2)
    assert all(one.path.exists() for one in made) and folders(pieces) == [True]
    shutil.rmtree(pieces.inbox)
    (pieces.root / "away").rename(pieces.inbox)
    drop(pieces, 3)
    pieces.run(3)
    assert pieces.left() == [] and folders(pieces) == [False]


@pytest.mark.parametrize("moment", ["authorise", "stage_file"])
def test_exchanged_in_the_midst_of_a_deletion(pieces: Pieces, moment: str) -> None:
    """After the intake has looked: the descriptor that a deletion starts from is looked at itself."""
    made = drop(pieces, 2)
    pieces.settle()

    def exchange() -> None:
        pieces.inbox.rename(pieces.root / "away")
        shutil.copytree(pieces.root / "away", pieces.inbox, copy_function=os.link)

    target = type(pieces.queue.deletions) if moment == "authorise" else proof_module
    with at(target, moment, exchange):
        pieces.ship()
    assert all(one.path.exists() for one in made), "a file of another folder is gone"
    assert set(pieces.states().values()) == {"kept:exchanged"}
    pieces.run(1)
    assert folders(pieces) == [True] and all(one.path.exists() for one in made)


def test_an_exchange_between_two_looks_keeps_nothing_for_good(pieces: Pieces) -> None:
    """A deletion alone has met it; nothing of it was put on record as a deletion that was to be."""
    made = drop(pieces, 2)
    pieces.settle()

    def exchange() -> None:
        rename(pieces)

    with at(type(pieces.queue.deletions), "authorise", exchange):
        pieces.ship()
    assert set(pieces.states().values()) == {"kept:exchanged"}
    pieces.inbox.rmdir()
    (pieces.root / "away").rename(pieces.inbox)
    pieces.run(3)
    assert not any(one.path.exists() for one in made) and folders(pieces) == [False]


def test_what_falls_due_stays_too(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False, keep_seconds=1000.0))
    made = drop(pieces, 2)
    pieces.run(1)
    pieces.inbox.rename(tmp_path / "away")
    shutil.copytree(tmp_path / "away", pieces.inbox)
    pieces.run(1)
    pieces.clock.advance(3000)
    pieces.run(2)
    assert all(one.path.exists() for one in made)
    pieces.queue.roots.confirm("inbox1", {})
    pieces.run(2)
    assert pieces.left() == []
    pieces.close()


def test_the_first_that_is_seen_is_the_inbox(tmp_path: Path) -> None:
    """Whenever that is: at the first start of this version, or once it can be opened."""
    pieces = Pieces(tmp_path)
    pieces.inbox.rename(tmp_path / "away")
    with pieces.queue._database.write() as db:
        db.execute("DELETE FROM roots")
    pieces.restart()
    assert [pin.is_seen for pin in pieces.queue.roots.pins()] == [False]
    (tmp_path / "away").rename(pieces.inbox)
    made = drop(pieces, 2)
    pieces.run(3)
    assert not any(one.path.exists() for one in made) and folders(pieces) == [False]
    pieces.close()


def test_another_path_is_another_inbox(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    drop(pieces, 1)
    pieces.run()
    assert [pin.is_seen for pin in pieces.queue.roots.pins()] == [True]
    pieces.inboxes[0] = tmp_path / "elsewhere" / "inbox1"
    pieces.inbox.mkdir(parents=True)
    pieces.restart()
    made = drop(pieces, 2)
    pieces.run(3)
    assert not any(one.path.exists() for one in made)
    pieces.close()


HERE = Root(10, 2, "fs", "5/6")


@pytest.mark.parametrize(
    ("found", "is_same"),
    [
        (Root(11, 2, "fs", "5/6"), True),  # mounted again under another number
        (Root(11, 2, "fs", ""), True),  # by a kernel that does not tell when it was made
        (Root(10, 3, "fs", "5/6"), False),
        (Root(10, 2, "other", "5/6"), False),  # another share, which was given the number
        (Root(10, 2, "fs", "7/6"), False),  # removed, and made anew with the inode
        (Root(11, 2, "", "5/6"), False),
        (Root(11, 2, "fs", "5/0"), True),  # by a kernel that does not tell the generation
        (Root(11, 2, "fs", "0/6"), True),
        (Root(11, 2, "fs", "0/7"), False),
    ],
)
def test_what_is_the_same_folder(pieces: Pieces, found: Root, is_same: bool) -> None:
    roots, source_id = pieces.queue.roots, pieces.sources[0].source_id
    with pieces.queue._database.write() as db:
        db.execute("DELETE FROM roots")
    assert roots.see(source_id, HERE) == (RootObservation.PINNED, 0)
    assert roots.see(source_id, found)[0] is (RootObservation.PINNED if is_same else RootObservation.EXCHANGED)
    assert roots.is_pinned(source_id, found) is is_same and roots.is_exchanged(source_id) is not is_same
    if not is_same:
        assert roots.see(source_id, found)[0] is RootObservation.STILL_EXCHANGED
        assert roots.is_pinned(source_id, HERE)
    with pytest.raises(Permanent):
        roots.confirm("no such inbox", {})


def test_nothing_to_confirm(pieces: Pieces) -> None:
    with pytest.raises(Permanent, match="nothing to confirm"):
        pieces.queue.roots.confirm("inbox1", {})


def test_a_folder_made_anew_is_another_one(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        (tmp_path / "x").mkdir()
        fd = open_root(os.fsencode(tmp_path / "x"))
        seen.append(root_of(fd))
        os.close(fd)
        (tmp_path / "x").rmdir()
    assert not seen[0].is_same(seen[1])


def test_away_between_two_looks(pieces: Pieces) -> None:
    """A share that comes and goes: only the deletion has met the bare mount point, so no look tells that it is over."""
    made = drop(pieces, 2)
    pieces.settle()

    def unmounted() -> None:
        pieces.inbox.rename(pieces.root / "away")
        pieces.inbox.mkdir()

    with at(type(pieces.queue.deletions), "authorise", unmounted):
        pieces.ship()
    pieces.inbox.rmdir()
    (pieces.root / "away").rename(pieces.inbox)
    assert set(pieces.states().values()) == {"kept:exchanged"} and all(one.path.exists() for one in made)
    pieces.run(2)
    assert pieces.left() == [] and folders(pieces) == [False]


UUID, OTHER_UUID = "0f" * 16, "f0" * 16
BY_UDEV = f"E:ID_FS_UUID={UUID[:8]}-{UUID[8:12]}-{UUID[12:16]}-{UUID[16:20]}-{UUID[20:]}"


def told(monkeypatch: pytest.MonkeyPatch, folder: Path, uuid: str, by_udev: str | None, kind: str = "ext4") -> Root:
    """What is told of a folder by a kernel, and an udev, of this kind."""
    monkeypatch.setattr(mounts, "_uuid", lambda fd: uuid)
    monkeypatch.setattr(mounts, "_uuid_by_udev", lambda device: by_udev)
    monkeypatch.setattr(mounts, "_mount_of", lambda fd: (kind, "/dev/sda1"))
    fd = open_root(os.fsencode(folder))
    try:
        return root_of(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("", BY_UDEV), (UUID, BY_UDEV)),  # ioctl(2) tells the UUID from Linux 6.9 on
        (("", BY_UDEV), (UUID, None)),
        ((UUID, None), ("", BY_UDEV)),
        (("", None), (UUID, None)),
    ],
)
def test_another_kernel_makes_no_other_inbox(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: tuple[str, str | None],
    after: tuple[str, str | None],
) -> None:
    first = told(monkeypatch, tmp_path, *before)
    assert told(monkeypatch, tmp_path, *after).is_same(first)


def test_another_file_system_is_another_one_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = told(monkeypatch, tmp_path, UUID, BY_UDEV)
    assert not told(monkeypatch, tmp_path, OTHER_UUID, None).is_same(first), "though all else is what it was"
    nameless = told(monkeypatch, tmp_path, "0" * 32, None, "xfs")
    assert "uuid=" not in nameless.file_system, "a UUID of zeros tells nothing"


def mounts_whole(folder: Path) -> str:
    fd = open_root(os.fsencode(folder))
    try:
        return f"whole={mounts.file_system_id(fd)}"
    finally:
        os.close(fd)


def test_what_an_older_state_knows_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One id without a kind: of the file system as a whole."""
    found = told(monkeypatch, tmp_path, UUID, None)
    older = found._replace(file_system=mounts_whole(tmp_path).partition("=")[2], birth="")
    assert found.is_same(older) and not found.is_same(older._replace(file_system="0" * 32))


def test_a_bare_mount_point_is_no_inbox(tmp_path: Path) -> None:
    """At the first start of this version, or of the machine, the share may not be there yet: nothing is in the folder,
    and whatever is mounted there later needs nobody's word."""
    pieces = Pieces(tmp_path)
    pieces.run(1)
    assert [pin.is_seen for pin in pieces.queue.roots.pins()] == [False]
    rename(pieces)  # the share is mounted
    made = drop(pieces, 2)
    pieces.run(3)
    assert not any(one.path.exists() for one in made) and folders(pieces) == [False]
    pieces.inbox.rename(tmp_path / "share")
    pieces.inbox.mkdir()  # and is away again
    pieces.run(1)
    assert folders(pieces) == [False] and not pieces.log.events("inbox-exchanged"), "nobody is to confirm that"
    made = drop(pieces, 3)
    pieces.run(3)
    assert all(one.path.exists() for one in made) and folders(pieces) == [True]
    pieces.close()


def test_the_first_deletion_pins_what_no_look_has(tmp_path: Path) -> None:
    """What comes into an empty inbox is archived long before the next whole look."""
    pieces = Pieces(tmp_path)
    pieces.run(1)
    made = drop(pieces, 2)
    with at(type(pieces.queue.deletions), "authorise", lambda: _forget(pieces)):
        pieces.run(1)
    assert not any(one.path.exists() for one in made)
    assert [pin.is_seen for pin in pieces.queue.roots.pins()] == [True]
    pieces.close()


def _forget(pieces: Pieces) -> None:
    with pieces.queue._database.write() as db:
        db.execute("DELETE FROM roots")
