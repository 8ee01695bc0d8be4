"""A folder that was handed in is dealt with by the rights of whoever did so: what he may not read is left out, what he
may not delete stays. The tests run as root, as a daemon would whose own rights go further than anybody's."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.control import peer as control_peer
from dicomwatchd.control.peer import Descriptors, Request
from dicomwatchd.daemon.commands import commands
from dicomwatchd.errors import Permanent
from dicomwatchd.intake.folder.mounts import file_system_id
from dicomwatchd.localfiles import birth
from dicomwatchd.pipeline.deletion import batch, proof
from dicomwatchd.rights import Asker
from dicomwatchd.upload_text import sentences
from dicomwatchd.uploads import folders as handed_module
from dicomwatchd.uploads import reception
from dicomwatchd.uploads.folders import UploadFolders
from tests.pieces import Pieces, at
from tests.simulation.tiny import instance
from tests.unit.uploading import FILES, STUDY, Handed, hand_in, named, put

if os.geteuid() != 0:
    pytest.skip("giving files to other users takes root", allow_module_level=True)

ANNA = Asker(61001, 62001, frozenset({62002}), "anna")
EMIL = Asker(61002, 62003)
PRIVATE = {f"B/SECRET{number}": instance("1.2.5", "1.2.5.1", f"1.2.5.1.{number}", number) for number in range(1, 4)}


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    tmp_path.chmod(0o755)
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Anna's, with nothing in it that anybody else may read."""
    folder = tmp_path / "export"
    put(folder)
    give(folder, ANNA, 0o700, 0o600)
    return folder


def give(folder: Path, to: Asker, of_folders: int, of_files: int) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, to.uid, to.gid)
        path.chmod(of_folders if path.is_dir() else of_files)


class By(Handed):
    def __init__(self, asker: Asker, pieces: Pieces, folder: Path, *, delete: bool = False) -> None:
        self.pieces, self.folder, self.delete = pieces, folder, delete
        self.name = hand_in(pieces.parts.uploads, folder, delete=delete, asker=asker)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_ones_own_folder_is_archived_and_deleted(pieces: Pieces, folder: Path) -> None:
    result = By(ANNA, pieces, folder, delete=True).go()
    assert (result["verified"], result["deleted"], result["complete"]) == (6, 6, True)
    assert files(folder) == set() and list(folder.iterdir()) == []
    assert result["asked_by"] == {"uid": ANNA.uid, "login": "anna"}


def test_who_asked_is_in_the_audit_chain(pieces: Pieces, folder: Path) -> None:
    By(ANNA, pieces, folder, delete=True).go()
    entries = [entry.body for entry in pieces.queue.audit.of_study(STUDY)]
    authorised = [body["asked_by"] for body in entries if body["kind"] == "authorised"]
    assert authorised == [{"uid": ANNA.uid, "login": "anna"}] * 6
    proofs = pieces.queue.audit.proofs(STUDY)
    assert proofs["chain_holds"] and proofs["files"][0]["proof"]["asked_by"]["uid"] == ANNA.uid
    assert [fields["uid"] for fields in pieces.log.events("upload-started")] == [ANNA.uid]
    assert "anna" not in json.dumps([fields for _, _, fields in pieces.log.entries])


@pytest.mark.parametrize("delete", [False, True])
def test_a_folder_of_another_user_is_refused(delete: bool, pieces: Pieces, folder: Path) -> None:
    with pytest.raises(Permanent) as refused:
        By(EMIL, pieces, folder, delete=delete)
    assert refused.value.code == "not-yours"
    assert not pieces.queue.uploads.all(10) and not pieces.archived()


@pytest.mark.parametrize("mode", [0o700, 0o711, 0o744])
@pytest.mark.parametrize("delete", [False, True])
def test_a_folder_below_that_may_not_be_listed(mode: int, delete: bool, pieces: Pieces, folder: Path) -> None:
    """Nothing in it is archived or deleted, and no name of it is told."""
    put(folder, PRIVATE)
    give(folder / "B", EMIL, mode, 0o644)
    result = By(ANNA, pieces, folder, delete=delete).go()
    assert (result["verified"], result["deletable"], result["files"]) == (6, False, 6)
    assert list(named(result)) == ["B"] and "the user who started the upload may not list it" in named(result)["B"]
    assert "SECRET" not in json.dumps(result)
    assert {name for name in files(folder) if name.startswith("B/")} == set(PRIVATE)
    assert len(pieces.archived()) == 6 and pieces.queue.reports.show("1.2.5") is None


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o004])
def test_files_that_may_not_be_read(mode: int, pieces: Pieces, folder: Path) -> None:
    """They are named, for the folder that they lie in may be listed; their bytes go nowhere."""
    put(folder, PRIVATE)
    give(folder / "B", ANNA, 0o700, 0o600)
    for name in PRIVATE:
        os.chown(folder / name, *((EMIL.uid, EMIL.gid) if mode != 0o004 else (ANNA.uid, EMIL.gid)))
        (folder / name).chmod(mode)
    result = By(ANNA, pieces, folder, delete=True).go()
    assert (result["verified"], result["deleted"], result["deletable"]) == (6, 6, False)
    assert set(named(result)) == set(PRIVATE) == files(folder)
    assert all("may not read it" in reason for reason in named(result).values())
    assert len(pieces.archived()) == 6


def sticky(folder: Path) -> None:
    os.chown(folder, EMIL.uid, 62002)
    folder.chmod(0o1770)
    for path in folder.iterdir():
        os.chown(path, EMIL.uid, 62002)


def read_only(folder: Path) -> None:
    os.chown(folder, EMIL.uid, EMIL.gid)
    folder.chmod(0o755)


def not_to_be_entered(folder: Path) -> None:
    folder.chmod(0o400)


@pytest.mark.parametrize("how", [sticky, read_only])
def test_files_that_may_not_be_deleted_stay(how: object, pieces: Pieces, folder: Path) -> None:
    put(folder, PRIVATE)
    give(folder / "B", ANNA, 0o700, 0o644)
    assert callable(how)
    how(folder / "B")
    result = By(ANNA, pieces, folder, delete=True).go()
    assert (result["verified"], result["deleted"], result["not_yours"]) == (9, 6, 3)
    assert files(folder) == set(PRIVATE), "and the rest is gone"
    said = "\n".join(sentences(result, delete=True))
    assert "3 of them were kept because the user who started the upload may not delete them" in said
    [row] = {row["code"] for row in pieces.queue.reports.queue(10)} or [None]
    assert row is None
    entries = [entry.body["kind"] for entry in pieces.queue.audit.of_study("1.2.5")]
    assert entries == [], "no deletion is on record that nobody was allowed to ask for"


def test_a_right_that_is_taken_away_after_it_was_put_on_record(pieces: Pieces, folder: Path) -> None:
    """Between the authorisation and the unlink of the first file."""
    handed = By(ANNA, pieces, folder, delete=True)
    with at(batch, "delete_on_proof", lambda: read_only(folder / "A")):
        result = handed.go()
    assert result["deleted"] == 0 and result["not_yours"] == 6 and files(folder) == set(FILES)
    kinds = {entry.body["kind"] for entry in pieces.queue.audit.of_study(STUDY)}
    assert kinds == {"authorised", "untouched"}


def test_a_member_of_the_files_group(pieces: Pieces, folder: Path) -> None:
    give(folder, EMIL, 0o2770, 0o640)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, EMIL.uid, 62002)
        path.chmod(0o2770 if path.is_dir() else 0o640)
    result = By(ANNA, pieces, folder, delete=True).go()
    assert (result["deleted"], files(folder)) == (6, set())
    put(folder)
    give(folder, EMIL, 0o2770, 0o640)
    with pytest.raises(Permanent, match="may not list"):
        By(ANNA, pieces, folder, delete=True)


def test_an_emptied_folder_stays_where_its_asker_may_not_remove_it(pieces: Pieces, folder: Path) -> None:
    os.chown(folder, EMIL.uid, EMIL.gid)
    folder.chmod(0o755)
    result = By(ANNA, pieces, folder, delete=True).go()
    assert result["deleted"] == 6 and (folder / "A").is_dir()


def test_a_folder_that_is_closed_to_its_asker_meanwhile(pieces: Pieces, folder: Path) -> None:
    """After the first look, before anything was read to be sent."""
    put(folder, PRIVATE)
    give(folder, ANNA, 0o700, 0o600)
    handed = By(ANNA, pieces, folder, delete=True)
    handed.go(lambda now: now["files"] == 9, ship=False)
    os.chown(folder / "B", EMIL.uid, EMIL.gid)
    result = handed.go()
    assert result["verified"] == 6 and not result["deletable"]
    assert files(folder) == set(PRIVATE) and len(pieces.archived()) == 6


def test_root_may_all(pieces: Pieces, folder: Path) -> None:
    sticky(folder / "A")
    assert By(Asker(0, 0), pieces, folder, delete=True).go()["deleted"] == 6


class Crash(BaseException):
    pass


def crash(*_: object, **__: object) -> None:
    raise Crash


def crash_with_staged_files(handed: By) -> None:
    with pytest.raises(Crash), at(proof, "_unlink_if_same", crash), at(proof, "restore", lambda: None):
        handed.go()


def test_what_a_crash_left_staged_comes_back(pieces: Pieces, folder: Path) -> None:
    """And only then goes, on a proof of its own, by the rights of whoever had asked."""
    handed = By(ANNA, pieces, folder, delete=True)

    crash_with_staged_files(handed)
    pieces.restart()
    assert files(folder) == set(FILES), "they are back"
    assert handed.go()["deleted"] == 6


def test_what_a_crash_of_an_older_version_left_staged_comes_back(pieces: Pieces, folder: Path) -> None:
    """Its state knows the folder by one id of the file system, and not who had asked."""
    handed = By(ANNA, pieces, folder, delete=True)

    crash_with_staged_files(handed)
    fd = os.open(folder, os.O_RDONLY)
    root = f"{folder.stat().st_dev}:{folder.stat().st_ino}:{file_system_id(fd) or ''}"
    os.close(fd)
    with pieces.queue._database.write() as db:
        db.execute("UPDATE uploads SET asker = NULL, root = ?", (root,))
    pieces.close()
    # A new process, to which nobody has handed anything.
    pieces.start()
    assert files(folder) == set(FILES), "they are back"
    assert handed.go()["outcome"] == "cancelled"


def test_what_a_crash_left_staged_is_not_looked_for_in_another_folder(pieces: Pieces, folder: Path) -> None:
    handed = By(ANNA, pieces, folder, delete=True)

    with pytest.raises(Crash), at(pieces.queue.deletions, "purged", crash):
        handed.go()
    pieces.close()
    folder.rename(folder.with_name("moved"))
    put(folder, {".dicomwatchd-aside-00/A/OTHER": b"somebody else's"})
    pieces.start()
    handed.second()
    assert (folder / ".dicomwatchd-aside-00/A/OTHER").exists() and not (folder / "A").exists()


# -- one job a folder, and so many jobs -------------------------------------------------------------------------------


def test_the_folder_of_another_users_upload(pieces: Pieces, folder: Path) -> None:
    give(folder, ANNA, 0o755, 0o644)
    handed = By(ANNA, pieces, folder)
    with pytest.raises(Permanent, match="for another user") as refused:
        By(EMIL, pieces, folder)
    assert handed.name in str(refused.value.hint)
    assert By(Asker(0, 0), pieces, folder).name == handed.name == By(ANNA, pieces, folder).name


def test_another_users_upload_is_not_cancelled(pieces: Pieces, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed = By(ANNA, pieces, folder)
    jobs, prover = pieces.parts.uploads, pieces.parts.prover
    cancel = commands(pieces.queue, lambda _: {}, list, jobs, lambda: None, prover)["upload-cancel"]

    def by(asker: Asker) -> Any:
        monkeypatch.setattr(control_peer, "asker_of", lambda _: asker)
        with socket.socket(socket.AF_UNIX) as connection:
            return cancel(Request({"upload_id": handed.name}, connection, Descriptors(connection)), lambda _: None)

    with pytest.raises(Permanent) as refused:
        by(EMIL)
    assert refused.value.code == "not-yours" and not handed.now["done"]
    assert by(ANNA)["outcome"] == "cancelled"
    handed = By(ANNA, pieces, folder)
    assert by(Asker(0, 0))["outcome"] == "cancelled" == by(EMIL)["outcome"]


def test_so_many_uploads_of_one_user_and_in_all(
    pieces: Pieces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "MOST_UPLOADS", 6)
    monkeypatch.setattr(reception, "MOST_OF_ONE", 2)

    def another() -> Path:
        made = tmp_path / f"export{len(list(tmp_path.iterdir()))}"
        made.mkdir(mode=0o755)
        return made

    names = [By(ANNA, pieces, another()).name for _ in range(2)]
    with pytest.raises(Permanent) as refused:
        By(ANNA, pieces, another())
    assert refused.value.code == "too-many-uploads"
    names += [By(EMIL, pieces, another()).name for _ in range(2)]
    root = Asker(0, 0)
    names += [By(root, pieces, another()).name for _ in range(2)]
    with pytest.raises(Permanent):
        By(root, pieces, another())
    pieces.parts.uploads.cancel(names[0])
    By(ANNA, pieces, another())


# -- descriptors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "pipe", "socket", "device", "O_PATH", "removed"])
def test_what_is_no_folder_that_is_open_for_listing(kind: str, pieces: Pieces, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    more: list[int] = []
    if kind == "file":
        fd = os.open(pieces.state / "state.db", os.O_RDWR)
    elif kind == "pipe":
        fd, *more = os.pipe()
    elif kind == "socket":
        one, other = socket.socketpair()
        fd, more = one.detach(), [other.detach()]
    elif kind == "device":
        fd = os.open("/dev/null", os.O_RDONLY)
    else:
        fd = os.open(place, os.O_PATH if kind == "O_PATH" else os.O_RDONLY)
        if kind == "removed":
            place.rmdir()
    with pytest.raises(Permanent) as refused:
        pieces.parts.uploads.start(fd, ANNA, delete=True)
    assert refused.value.code == "no-folder"
    for one_fd in (fd, *more):
        os.close(one_fd)


class Kept:
    def __init__(self) -> None:
        self.names: dict[str, tuple[int, int]] = {}

    def keep(self, name: str, fd: int) -> None:
        found = os.fstat(fd)
        self.names[name] = (found.st_dev, found.st_ino)

    def forget(self, name: str) -> None:
        self.names.pop(name, None)


def test_what_the_service_manager_kept_is_compared_with_what_is_on_record(pieces: Pieces, folder: Path) -> None:
    """A descriptor of the right folder is gone on with, wherever that stands by now; another one is not."""
    handed = By(ANNA, pieces, folder)
    handed.go(lambda now: now["files"] == 6, ship=False)
    known = pieces.queue.uploads.known(handed.name)
    assert known is not None
    moved = folder.rename(folder.with_name("moved"))
    put(folder)
    keeper = Kept()
    again = UploadFolders(keeper, {handed.name: os.open(moved, os.O_RDONLY), "upload-x": os.open("/", os.O_RDONLY)})
    fd = again.attached(known.upload).source.open()
    assert os.path.samestat(os.fstat(fd), moved.stat()) and not keeper.names, "it has that one, and room for few"
    again.let_go_but({handed.name})
    assert "upload-x" not in again._kept
    again.let_go(handed.name)
    assert keeper.names == {} and birth(fd)
    os.close(fd)
    wrong = UploadFolders(Kept(), {handed.name: os.open(folder, os.O_RDONLY)})
    with pytest.raises(OSError, match="another folder"):
        wrong.attached(known.upload).source.open()
    again.let_go(handed.name)
    wrong.let_go(handed.name)


def test_what_the_service_manager_kept_stays_until_it_can_be_looked_at(
    pieces: Pieces, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No path leads into a home, and files of it may be staged."""
    handed = By(ANNA, pieces, folder)
    handed.go(lambda now: now["files"] == 6, ship=False)
    known = pieces.queue.uploads.known(handed.name)
    assert known is not None
    moved = folder.rename(folder.with_name("moved"))
    again = UploadFolders(Kept(), {handed.name: os.open(moved, os.O_RDONLY)})

    def fails(fd: int) -> int:
        raise OSError(errno.EIO, "now")

    with monkeypatch.context() as patched:
        patched.setattr(handed_module, "opened_again", fails)
        with pytest.raises(FileNotFoundError):
            again.attached(known.upload).source.open()
    fd = again.attached(known.upload).source.open()
    assert os.path.samestat(os.fstat(fd), moved.stat())
    os.close(fd)
    again.let_go(handed.name)


def test_a_folder_is_not_found_again_once_its_upload_is_over(pieces: Pieces, folder: Path) -> None:
    """A thread that was about to look at it when the upload ended would have it open for as long as the daemon runs:
    the medium could not be taken out."""
    handed = By(ANNA, pieces, folder)
    handed.go(lambda now: now["files"] == 6, ship=False)
    known = pieces.queue.uploads.known(handed.name)
    assert known is not None
    keeper = Kept()
    folders = UploadFolders(keeper)
    source = folders.attached(known.upload).source
    os.close(source.open())
    assert list(keeper.names) == [handed.name], "by its path, and kept from then on"
    before = os.listdir("/proc/self/fd")
    folders.let_go(handed.name)
    with pytest.raises(OSError, match="the upload is over"):
        source.open()
    assert keeper.names == {} and len(os.listdir("/proc/self/fd")) == len(before) - 1


def test_no_descriptor_stays_open(pieces: Pieces, tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for number in range(5):
        folder = tmp_path / f"export{number}"
        put(folder)
        give(folder, ANNA, 0o700, 0o600)
        By(ANNA, pieces, folder, delete=number % 2 == 0).go()
    assert count() == before
