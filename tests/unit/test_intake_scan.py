"""One look at a directory and a walk over all of them: links, pipes, sockets, devices and strange names included."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from dicomwatchd.intake import scan
from dicomwatchd.intake.scan import MAX_DEPTH, Globs, Listing, scan_directory, walk
from dicomwatchd.localfiles import STAGING_NAME, NotRegular, directory, open_root, regular_file
from tests.pieces import at

ALL = Globs(("*",), ())


def listed(root: Path, globs: Globs = ALL) -> dict[bytes, Listing]:
    errors: list[tuple[bytes, int | None]] = []
    fd = open_root(os.fsencode(root))
    try:
        found = dict(walk(fd, globs, lambda parent, error: errors.append((parent, error.errno))))
    finally:
        os.close(fd)
    assert errors == []
    return found


def test_what_is_no_file_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "link-to-folder").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    special = {b"link", b"link-to-folder", b"dangling", b"loop", b"fifo", b"socket"}
    if os.geteuid() == 0:
        os.mknod(tmp_path / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        os.mknod(tmp_path / "disk", 0o600 | stat.S_IFBLK, os.makedev(7, 99))
        special |= {b"device", b"disk"}
    found = listed(tmp_path)
    assert set(found) == {b"", b"folder"}
    assert set(found[b""].files) == {b"file"}
    assert set(found[b""].special) == special
    fd = open_root(os.fsencode(tmp_path))
    for name in special:
        with pytest.raises(NotRegular), regular_file(fd, name):
            pass
    os.close(fd)


def test_names_of_every_kind(tmp_path: Path) -> None:
    names = {b"\xff\xfe", b"a" * 255, "ä".encode() * 127, b" ", b"a\nb", b"-rf", b"*", b"a\\b", b".hidden"}
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
            pass
    assert set(listed(tmp_path)[b""].files) == names


def test_our_own_private_names_are_no_content(tmp_path: Path) -> None:
    private = tmp_path / os.fsdecode(STAGING_NAME)
    private.mkdir()
    (private / "IM1").touch()
    (tmp_path / (private.name + "-IM1")).touch()
    found = listed(tmp_path)
    assert set(found) == {b""} and not found[b""].files


def test_a_hundred_levels_deep(tmp_path: Path) -> None:
    depth = 100
    name = "d" * 200  # far longer than PATH_MAX in the end
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open("IM1", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    found = listed(tmp_path)
    deepest = b"/".join([name.encode()] * depth)
    assert set(found[deepest].files) == {b"IM1"}
    _remove_deep(tmp_path, name)


def test_beyond_the_depth_that_is_walked_is_reported(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(MAX_DEPTH + 3):
        os.mkdir("d", dir_fd=fd)
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    errors: list[int | None] = []
    root = open_root(os.fsencode(tmp_path))
    assert len(list(walk(root, ALL, lambda _, error: errors.append(error.errno)))) == MAX_DEPTH + 1
    os.close(root)
    assert errors == [errno.ENAMETOOLONG]
    _remove_deep(tmp_path, "d")


def _remove_deep(top: Path, name: str) -> None:
    """rmtree of this Python goes by paths, which are too long here."""
    fds = [os.open(top, os.O_RDONLY)]
    while True:
        try:
            fds.append(os.open(name, os.O_RDONLY, dir_fd=fds[-1]))
        except FileNotFoundError:
            break
    for fd in reversed(fds):
        for left in os.listdir(fd):
            if left == name:
                os.rmdir(left, dir_fd=fd)
            elif fd != fds[0]:
                os.unlink(left, dir_fd=fd)
        os.close(fd)


def test_a_directory_swapped_for_a_link_in_the_middle_of_a_walk(tmp_path: Path) -> None:
    outside, inbox = tmp_path / "outside", tmp_path / "inbox"
    outside.mkdir()
    (outside / "secret").touch()
    (inbox / "A").mkdir(parents=True)

    def swap() -> None:
        (inbox / "A").rename(tmp_path / "moved")
        (inbox / "A").symlink_to(outside)

    errors: list[tuple[bytes, int | None]] = []
    fd = open_root(os.fsencode(inbox))
    with at(scan, "scan_directory", swap, after=True):
        found = dict(walk(fd, ALL, lambda parent, error: errors.append((parent, error.errno))))
    os.close(fd)
    assert set(found) == {b""}
    assert errors == [(b"A", errno.ENOTDIR)] or errors == [(b"A", errno.ELOOP)]


def test_a_file_that_goes_while_it_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "A").touch()
    (tmp_path / "B").touch()
    fd = open_root(os.fsencode(tmp_path))

    class Vanishing(Globs):
        def admits(self, parent: bytes, name: bytes) -> bool:
            (tmp_path / "B").unlink(missing_ok=True)
            return super().admits(parent, name)

    assert set(scan_directory(fd, b"", Vanishing(("?",), ())).files) == {b"A"}
    os.close(fd)


@pytest.mark.parametrize("path", [b"..", b"A/../..", b"/etc", b"A//B", b"."])
def test_no_way_out_of_the_root(path: bytes, tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    fd = open_root(os.fsencode(tmp_path))
    with pytest.raises(OSError, match="not a plain relative path") as error, directory(fd, path):
        pass
    os.close(fd)
    assert error.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("include", "exclude", "parent", "name", "admitted"),
    [
        (("*",), (), b"", b"IM1", True),
        (("*.dcm", "IM*"), (), b"", b"IM1", True),
        (("*.dcm",), (), b"", b"IM1", False),
        (("*.dcm",), (), b"", b"IM1.DCM", False),
        (("*",), ("*.tmp",), b"", b"a.tmp", False),
        (("*",), ("*.tmp",), b"tmp", b"a", True),
        (("*",), ("SCRATCH/*",), b"SCRATCH", b"a", False),
        (("*",), ("SCRATCH/*",), b"SCRATCH/B", b"a", False),
        (("*",), ("SCRATCH/*",), b"OTHER", b"a", True),
        (("*",), ("?" * 3,), b"", b"\xff\xfe\xfd", False),
        (("IM??",), (), b"", b"IM01.restored-2", True),
        (("*.dcm",), (), b"", b"IM01.restored-2.dcm", True),
        (("*",), ("*.part",), b"", b"a.restored-1.part", False),
    ],
)
def test_globs(include: tuple[str, ...], exclude: tuple[str, ...], parent: bytes, name: bytes, admitted: bool) -> None:
    assert Globs(include, exclude).admits(parent, name) is admitted
