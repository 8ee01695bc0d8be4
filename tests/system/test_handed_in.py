"""Folders handed in by real users to a daemon whose rights go further than theirs: what they could not do themselves is
not done for them, whatever is exchanged under the daemon's hands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.control.client import ControlClient, DaemonRefused
from tests.synthetic import Made, Maker
from tests.system import invariants
from tests.system.site import Site

if os.geteuid() != 0:
    pytest.skip("becoming other users takes root", allow_module_level=True)

ANNA, EMIL, MODALITY = 61001, 61002, 61003
#: The group that may talk to the daemon.
DESK = 62001


@pytest.fixture
def site() -> Iterator[Site]:
    """The daemon is root here, which could do anything with every folder; its archive is a folder of its own. Not below
    pytest's own folder, which other users may not enter."""
    with tempfile.TemporaryDirectory(prefix="dw-handed.") as place:
        root = Path(place)
        root.chmod(0o755)
        site = Site(root, inbox={"settle_seconds": 0, "quiet_seconds": 0}, scan_interval_seconds=0.3)
        site.init()
        yield site
        site.close()


def start(site: Site) -> None:
    (site.state / "control.sock").unlink(missing_ok=True)
    site.start()
    site.state.chmod(0o711)
    os.chown(site.state / "control.sock", 0, DESK)


def as_user(uid: int, work: Callable[[], Any], groups: tuple[int, ...] = (DESK,)) -> Any:
    """The result of work, JSON, that a child does which is this user; an exception as [its code, its message]."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.setgroups(groups)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            try:
                result = work()
            except DaemonRefused as error:
                result = [error.code, error.message]
            except OSError as error:
                result = ["os", os.strerror(error.errno or 0)]
            with os.fdopen(writing, "w") as answer:
                json.dump(result, answer)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text)


def hand_in(site: Site, folder: Path, *, delete: bool = False, wait: bool = True, flags: int = os.O_RDONLY) -> Any:
    fd = os.open(folder, flags | os.O_DIRECTORY)
    try:
        client = ControlClient(site.state / "control.sock")
        return client.call("upload-folder", descriptor=fd, delete=delete, wait=wait, answer_seconds=60)
    finally:
        os.close(fd)


def export(site: Site, name: str, owner: int, mode: int, *, seed: int = 1, slices: int = 4) -> tuple[Path, list[Made]]:
    folder = site.root / name
    made = Maker(seed=seed).ct_series(folder / "CT", slices=slices, rows=16, columns=16)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner, owner)
        path.chmod(mode if path.is_dir() else mode & 0o666)
    return folder, made


def files(folder: Path) -> set[str]:
    """Of a folder from which the daemon deletes: a staging folder may be gone before it is listed, which is no error to
    os.walk()."""
    return {name for _, _, names in os.walk(folder) for name in names}


def said(site: Site) -> str:
    """Everything that the daemon tells anybody."""
    reports = [site.ctl("upload", "list", "--json").stdout, site.ctl("quarantine", "--json").stdout]
    return "".join([*reports, site.ctl("queue", "--json").stdout, site.log_file.read_text()])


def test_a_folder_that_its_caller_cannot_list(site: Site) -> None:
    """By its name, as before; by a descriptor that only names it; in a folder of one's own."""
    folder, made = export(site, "private", MODALITY, 0o700)
    start(site)
    socket_path = site.state / "control.sock"

    def by_name() -> Any:
        return ControlClient(socket_path).call("upload", path=str(folder), delete=True, wait=True)

    assert as_user(ANNA, by_name)[0] == "client-too-old"
    assert as_user(ANNA, lambda: hand_in(site, folder, delete=True)) == ["os", "Permission denied"]
    assert as_user(ANNA, lambda: hand_in(site, folder, delete=True, flags=os.O_PATH))[0] == "no-folder"
    assert files(folder) == {one.path.name for one in made} and not invariants.objects(site.root / "archive")
    theirs = site.root / "annas"
    theirs.mkdir(mode=0o755)
    os.chown(theirs, ANNA, ANNA)
    folder.rename(theirs / "private")
    result = as_user(ANNA, lambda: hand_in(site, theirs, delete=True))
    assert (result["files"], result["complete"]) == (0, False)
    assert [one["name"] for one in result["failed"]] == ["private"]
    assert files(theirs) == {one.path.name for one in made} and not invariants.objects(site.root / "archive")
    assert not [one for one in made if one.path.name in said(site)], "a name of it was told"
    assert site.stop() == 0


@pytest.mark.parametrize("how", ["link", "bind mount", "link over a kill"])
def test_the_folder_is_exchanged_for_the_archive(how: str, site: Site) -> None:
    """A group member's empty folder with --delete becomes, under its path, the archive itself."""
    archive, archived = site.root / "archive", 6
    Maker(seed=3).ct_series(site.inbox / "3", slices=archived, rows=16, columns=16)
    assert site.once() == 0
    held = invariants.objects(archive)
    assert len(held) == archived
    start(site)
    folder = site.root / "annas" / "export"
    folder.mkdir(parents=True)
    os.chown(folder, ANNA, ANNA)
    (folder / "busy").write_bytes(b"\0" * 200)  # held open, so that the upload goes on
    os.chown(folder / "busy", ANNA, ANNA)
    with (folder / "busy").open("ab"):
        handed = as_user(ANNA, lambda: hand_in(site, folder, delete=True, wait=False))
        if how == "link over a kill":
            assert site.stop(signal.SIGKILL)
        if how == "bind mount":
            subprocess.run(["mount", "--bind", str(archive), str(folder)], check=True)
        else:
            folder.rename(folder.with_name("was"))
            folder.symlink_to(archive)
        if how == "link over a kill":
            start(site)
        try:
            time.sleep(3)
        finally:
            if how == "bind mount":
                subprocess.run(["umount", str(folder)], check=True)
        site.ctl("upload", "cancel", handed["upload_id"], "--json", check=False)
    assert invariants.objects(archive) == held, "the archive's only copies are gone"
    assert site.stop() == 0


def test_the_folder_is_moved_and_another_one_put_into_its_place(site: Site) -> None:
    """What was handed in is archived and deleted; what stands under its path then was handed in by nobody."""
    folder, made = export(site, "export", ANNA, 0o700, slices=60)
    other, _ = export(site, "other", ANNA, 0o700, seed=2)
    start(site)
    as_user(ANNA, lambda: hand_in(site, folder, delete=True, wait=False))
    moved = folder.rename(site.root / "moved")
    other.rename(folder)
    before = files(folder)
    site.wait_for(lambda: site.ctl_json("upload", "list")["uploads"][0]["outcome"] is not None, 90, "its end")
    [one] = site.ctl_json("upload", "list")["uploads"]
    assert (one["verified"], one["deleted"], one["deletable"]) == (len(made), len(made), False)
    assert one["asked_by"]["uid"] == ANNA and files(folder) == before and not files(moved)
    assert len(invariants.objects(site.root / "archive")) == len(made)
    assert site.stop() == 0


def test_deleting_takes_the_right_to_delete(site: Site) -> None:
    """In a folder that is readable for all, in a sticky one, and as a member of the folder's group."""
    readable, made = export(site, "readable", MODALITY, 0o755)
    sticky, more = export(site, "sticky", MODALITY, 0o777, seed=2)
    for path in (sticky, sticky / "CT"):
        path.chmod(0o1777)
    shared, last = export(site, "shared", MODALITY, 0o2770, seed=3)
    for path in (shared, *shared.rglob("*")):
        os.chown(path, MODALITY, 62005)
        path.chmod(0o2770 if path.is_dir() else 0o640)
    own = sticky / "CT" / "OWN"
    shutil.copy(last[0].path, own)
    os.chown(own, ANNA, ANNA)
    start(site)
    for folder, names in ((readable, made), (sticky, more)):
        result = as_user(ANNA, partial(hand_in, site, folder, delete=True))
        assert (result["not_yours"], files(folder)) == (len(names), {one.path.name for one in names}), result
    assert not own.exists(), "a file of one's own goes from a sticky folder"
    assert as_user(ANNA, lambda: hand_in(site, shared, delete=True)) == ["os", "Permission denied"]
    result = as_user(ANNA, lambda: hand_in(site, shared, delete=True), (DESK, 62005))
    assert result["deleted"] == len(last) and not files(shared)
    shown = site.ctl("prove", last[0].study_uid).stdout
    assert f"user {ANNA}" in shown
    assert f"user {ANNA}" in site.ctl("upload", "list").stdout
    assert site.stop() == 0


def test_what_a_kill_left_staged_comes_back_and_goes_by_its_own_proof(site: Site) -> None:
    folder, made = export(site, "export", ANNA, 0o700, slices=150)
    start(site)
    as_user(ANNA, lambda: hand_in(site, folder, delete=True, wait=False))
    site.wait_for(lambda: len(files(folder)) < len(made), 90, "the first file to be deleted")
    assert site.stop(signal.SIGKILL)
    start(site)
    site.wait_for(lambda: not files(folder), 90, "the upload to be finished")
    assert len(invariants.objects(site.root / "archive")) == len(made)
    assert site.stop() == 0


def test_many_uploads_and_a_prompt_end(site: Site) -> None:
    """Hundreds are asked for; some are taken in, the others told so, and SIGTERM is obeyed at once."""
    folders = []
    for number in range(300):
        folder = site.root / "many" / str(number)
        folder.mkdir(parents=True)
        os.chown(folder, ANNA if number % 2 else 61100 + number, ANNA)
        folder.chmod(0o755)
        folders.append(folder)
    busy = [(folder / "IM1").open("ab") for folder in folders]  # so that none comes to its end
    for file in busy:
        file.write(b"\0" * 200)
        file.flush()
    start(site)

    def all_of_them(uid: int) -> list[Any]:
        return [hand_in_or_not(folder) for folder in folders if folder.stat().st_uid == uid]

    def hand_in_or_not(folder: Path) -> Any:
        try:
            return hand_in(site, folder, wait=False)["upload_id"]
        except DaemonRefused as error:
            return error.code

    mine = as_user(ANNA, lambda: all_of_them(ANNA))
    assert len([one for one in mine if one != "too-many-uploads"]) == 8
    theirs = [as_user(61100 + number, partial(all_of_them, 61100 + number)) for number in range(0, 60, 2)]
    taken_in = [one for [one] in theirs if one != "too-many-uploads"]
    assert len(taken_in) == 32 - 8
    begun = time.monotonic()
    assert site.stop() == 0
    assert time.monotonic() - begun < 50
    start(site)
    begun = time.monotonic()
    assert site.stop() == 0
    assert time.monotonic() - begun < 50
    for file in busy:
        file.close()
    assert "Traceback" not in site.log_file.read_text()


def test_nobody_from_outside_the_group(site: Site) -> None:
    folder, _ = export(site, "export", EMIL, 0o755)
    start(site)

    def connected() -> Any:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(site.state / "control.sock"))
        return "connected"

    assert as_user(EMIL, connected, ()) == ["os", "Permission denied"]
    assert as_user(EMIL, connected) == "connected"
    assert len(files(folder)) == 4
    assert site.stop() == 0
