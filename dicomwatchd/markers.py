"""The marks by which an archive's folder and a state directory are known again, under whatever path they turn up.

What lies in such a tree is the archive itself, or the daemon's own record: no inbox's content. A second mount, a link,
a folder that was moved: all of them change the path, none of them the mark.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from dicomwatchd.localfiles import FolderGuard, directory, regular_file

#: Names of the program's own, in an inbox, in an archive in a folder, in a state directory. None is ever an export.
OWN = b".dicomwatchd-"
ARCHIVE = OWN + b"archive"
STATE = OWN + b"state"
ARCHIVE_TEXT = b"This folder is an archive of dicomwatchd. Do not write into it by other means.\n"
STATE_TEXT = b"This folder holds the state of a dicomwatchd. Nothing is ever archived out of it.\n"

#: What tells of trees that a program made that wrote no marks yet: the name, what stands beside it, how it begins.
_IDENTITY, _DATABASE = b"archive.json", b"state.db"
_OLDER = {_IDENTITY: (b"studies", b"{"), _DATABASE: (b"lock", b"SQLite format 3\0")}
#: The names to look out for in a directory.
SIGNS = frozenset((ARCHIVE, STATE, *_OLDER))

#: Above this number of folders an inbox is not looked at any further up.
_MOST_ABOVE = 512
_ABOVE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Marked(Exception):
    """A directory, or one above it, is an archive's or a state's. ``name`` is what says so in it."""

    def __init__(self, name: bytes) -> None:
        super().__init__("a folder of an archive or of a daemon's state")
        self.name = name


def sign_in(directory_fd: int, names: Iterable[bytes] = SIGNS) -> bytes | None:
    """The name among ``names`` that marks this directory, None if none does. ``directory_fd`` may be one of O_PATH.
    Raises OSError."""
    for name in sorted(names):  # the mark before what an older release had in its place
        if name not in SIGNS:
            continue
        try:
            found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if name not in _OLDER:
            return name
        if stat.S_ISREG(found.st_mode) and _is_older(directory_fd, name):
            return name
    return None


def _is_older(directory_fd: int, name: bytes) -> bool:
    beside, beginning = _OLDER[name]
    try:
        os.stat(beside, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    try:
        with regular_file(directory_fd, name) as fd:
            return os.pread(fd, len(beginning), 0) == beginning
    except PermissionError:
        return True  # a state is its daemon's alone
    except FileNotFoundError:
        return False


def is_below(directory_fd: int) -> bool:
    """Whether a directory above this one is marked; as far up as this process may look."""
    fd = os.open(".", _ABOVE, dir_fd=directory_fd)
    try:
        here = os.fstat(fd)
        for _ in range(_MOST_ABOVE):
            above = os.open("..", _ABOVE, dir_fd=fd)
            os.close(fd)
            fd = above
            found = os.fstat(fd)
            if (found.st_dev, found.st_ino) == (here.st_dev, here.st_ino):
                break
            here = found
            with suppress(PermissionError):
                if sign_in(fd) is not None:
                    return True
    except PermissionError:
        pass
    finally:
        os.close(fd)
    return False


@contextmanager
def unmarked_directory(root_fd: int, relative: bytes, guard: FolderGuard | None = None) -> Iterator[int]:
    """`localfiles.directory`, of a path on which no directory, from ``root_fd`` on to the last one, is marked. Raises
    Marked, OSError."""

    def may_be_entered(directory_fd: int) -> None:
        if guard is not None:
            guard(directory_fd)
        if (name := sign_in(directory_fd)) is not None:
            raise Marked(name)

    with directory(root_fd, relative, may_be_entered) as fd:
        yield fd


def write(directory_fd: int, name: bytes, text: bytes) -> bool:
    """Put a mark into a directory that has none; whether there was none. Raises OSError."""
    try:
        fd = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory_fd
        )
    except FileExistsError:
        return False
    try:
        os.write(fd, text)
        os.fsync(fd)
    finally:
        os.close(fd)
    return True
