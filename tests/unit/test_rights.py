"""What another user may do, judged by the daemon, is what the kernel lets that user do: both are asked about the same
files, with many modes, owners, groups and ACLs."""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dicomwatchd.localfiles import opened_again
from dicomwatchd.rights import ENTER, READ, WRITE, Asker, NotForTheAsker

if os.geteuid() != 0:
    pytest.skip("becoming another user takes root", allow_module_level=True)

ME, OTHER = 61001, 61002
MINE, ALSO_MINE, THEIRS = 62001, 62002, 62003
ASKER = Asker(ME, MINE, frozenset({ALSO_MINE}))


def as_user(asker: Asker, work: Callable[[], Any]) -> Any:
    """The result of what a child does that is this user. To be able to look at files of the test, it gets
    descriptors."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            os.setgroups(sorted(asker.groups))
            os.setresgid(asker.gid, asker.gid, asker.gid)
            os.setresuid(asker.uid, asker.uid, asker.uid)
            with os.fdopen(writing, "w") as answer:
                json.dump(work(), answer)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(text)


def acl(*entries: tuple[int, int, int]) -> bytes:
    """As the kernel keeps it: in the order of tags, and of ids."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in sorted(entries))


def some_acl(random: Random) -> bytes:
    nobody = 0xFFFFFFFF
    named = [(0x02, random.randrange(8), uid) for uid in (ME, OTHER) if random.random() < 0.4]
    named += [(0x08, random.randrange(8), gid) for gid in (MINE, ALSO_MINE, THEIRS) if random.random() < 0.4]
    fixed = [(tag, random.randrange(8), nobody) for tag in (0x01, 0x04, 0x20)]
    if named or random.random() < 0.3:
        fixed.append((0x10, random.randrange(8), nobody))
    return acl(*fixed, *named)


def test_reading_writing_and_entering(tmp_path: Path) -> None:
    random = Random(1)
    tmp_path.chmod(0o711)
    fds, has_acl = [], 0
    for number in range(600):
        path = tmp_path / str(number)
        path.mkdir()
        os.chown(path, random.choice((ME, OTHER)), random.choice((MINE, ALSO_MINE, THEIRS)))
        path.chmod(random.randrange(0o1000))
        if number % 2:
            with suppress(OSError):  # a file system without ACLs
                os.setxattr(path, "system.posix_acl_access", some_acl(random))
                has_acl += 1
        fds.append(os.open(path, os.O_RDONLY))

    def asked() -> list[int]:
        return [
            sum(way for way in (READ, WRITE, ENTER) if os.access(str(number), way, dir_fd=here))
            for number in range(600)
        ]

    here = os.open(tmp_path, os.O_RDONLY)
    kernel = as_user(ASKER, asked)
    judged = [sum(way for way in (READ, WRITE, ENTER) if ASKER.may(fd, way)) for fd in fds]
    # Not the lists themselves: to say how two long ones differ takes longer than a test may.
    assert not [number for number, (mine, its) in enumerate(zip(judged, kernel, strict=True)) if mine != its][:5]
    assert len(set(kernel)) == 8, "every combination is among them"
    assert has_acl in (0, 300)
    root = Asker(0, 0)
    assert all(root.may(fd, READ | WRITE | ENTER) for fd in fds)
    for fd in (*fds, here):
        os.close(fd)


def test_removing(tmp_path: Path) -> None:
    """Write access to the folder, and in a sticky one the file or the folder as one's own."""
    cases: list[Path] = []
    tmp_path.chmod(0o711)
    for mode in (0o700, 0o770, 0o777, 0o1777, 0o1770, 0o775, 0o733, 0o1733, 0o766):
        for owner in (ME, OTHER):
            for of_file in (ME, OTHER):
                folder = tmp_path / str(len(cases))
                folder.mkdir()
                (folder / "file").touch()
                os.chown(folder / "file", of_file, THEIRS)
                os.chown(folder, owner, MINE)
                folder.chmod(mode)
                cases.append(folder)
    here = os.open(tmp_path, os.O_RDONLY)
    fds = [os.open(folder, os.O_RDONLY) for folder in cases]
    judged = [ASKER.may_remove(fd, os.stat("file", dir_fd=fd)) for fd in fds]

    def removed() -> list[bool]:
        found = []
        for number in range(len(cases)):
            try:
                os.unlink(f"{number}/file", dir_fd=here)
            except OSError:
                found.append(False)
            else:
                found.append(True)
        return found

    assert judged == as_user(ASKER, removed)
    assert {True, False} == set(judged)
    for fd in (*fds, here):
        os.close(fd)


def test_an_acl_that_cannot_be_understood_allows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o770)
    fd = os.open(tmp_path, os.O_RDONLY)
    for raw in (b"", b"\x03\0\0\0", b"\x02\0\0\0" + b"x" * 7):
        monkeypatch.setattr(os, "getxattr", lambda *_, raw=raw: raw)
        with pytest.raises(OSError, match="unknown form"):
            ASKER.may(fd, READ)

    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, "I/O error")

    tmp_path.chmod(0o770)
    monkeypatch.setattr(os, "getxattr", fails)
    with pytest.raises(OSError, match="I/O"):
        ASKER.may(fd, READ)
    os.close(fd)


def test_a_folder_that_may_be_entered_and_not_listed(tmp_path: Path) -> None:
    os.chown(tmp_path, OTHER, THEIRS)
    for mode, may in ((0o755, True), (0o711, False), (0o744, False), (0o700, False)):
        tmp_path.chmod(mode)
        fd = os.open(tmp_path, os.O_RDONLY)
        again = opened_again(fd)
        if may:
            ASKER.require_entered(again)
        else:
            with pytest.raises(NotForTheAsker):
                ASKER.require_entered(again)
        os.close(again)
        os.close(fd)
