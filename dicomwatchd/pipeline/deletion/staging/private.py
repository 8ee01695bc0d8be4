"""The private directories of an inbox: where files are staged, out of everybody's way, until all is decided.

Each belongs to one purge: its name is random, so that no other daemon on the same share ever chooses it, whatever the
file system knows of strict renames; and its owner holds a lock on a file in it for as long as it lives, so that others
leave alone what is under way and bring back what a crash has left. Where locks are not to be had every directory counts
as left: to bring back a file that its owner is still at is a disturbance, and no loss (see `staging`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum

from dicomwatchd.intake.scan import MAX_DEPTH
from dicomwatchd.localfiles import STAGING_NAME, directory, is_our_own, is_private_to_us

MODE = 0o700
#: Before the random digits of a private directory's name. The first release had one directory, named `STAGING_NAME`.
PREFIX = STAGING_NAME + b"-"
LOCK = b".dicomwatchd-lock"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES = 10


@dataclass(frozen=True, slots=True)
class Private:
    """One private directory, open, in the open directory ``parent_fd``; the descriptors are its own. ``is_locked`` is
    False where the file system gives no locks."""

    parent_fd: int
    name: bytes
    fd: int
    lock_fd: int
    is_locked: bool

    def release(self) -> None:
        """Give it up: remove what of it is empty. What is still in it is for `recover` to bring back."""
        # The lock's file is closed before it is removed: a share gives a file that is open another name instead.
        os.close(self.lock_fd)
        with suppress(OSError):
            remove_empty(self.parent_fd, self.name, self.fd)
        os.close(self.fd)
        os.close(self.parent_fd)


def make(parent_fd: int) -> Private:
    """A new private directory in ``parent_fd``. Raises OSError."""
    for _ in range(_TRIES):
        name = PREFIX + secrets.token_hex(8).encode("ascii")
        try:
            os.mkdir(name, MODE, dir_fd=parent_fd)
        except FileExistsError:
            continue
        if (made := _owned(parent_fd, name)) is not None:
            return made
    raise OSError(errno.EAGAIN, "no private directory can be created")


def _owned(parent_fd: int, name: bytes) -> Private | None:
    """None where another daemon has taken the directory, still empty, for one that was left."""
    fds: list[int] = []
    try:
        fds.append(os.dup(parent_fd))
        fds.append(os.open(name, _DIRECTORY, dir_fd=parent_fd))
        if not is_taken_back(fds[1]):  # somebody has been quick, and put his own in its place
            _close(fds)
            return None
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fds.append(os.open(LOCK, flags, 0o600, dir_fd=fds[1]))
        held = _lock(fds[2])
        if held is not Held.BY_ANOTHER and os.fstat(fds[2]).st_nlink:
            return Private(fds[0], name, fds[1], fds[2], held is Held.BY_US)
    except OSError as error:
        _close(fds)
        with suppress(OSError):
            os.rmdir(name, dir_fd=parent_fd)
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
            return None
        raise
    _close(fds)
    return None


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


class Held(Enum):
    """Whose a lock is. UNKNOWN: the file system gives none, or none that says so."""

    BY_US = "us"
    BY_ANOTHER = "another"
    UNKNOWN = "unknown"


def _lock(fd: int) -> Held:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Held.BY_ANOTHER
    except OSError:
        return Held.UNKNOWN
    return Held.BY_US


@contextmanager
def left_behind(private_fd: int) -> Iterator[bool]:
    """Whether nobody owns this private directory any more; while the context lasts nobody else takes it for left
    either, where there are locks. Raises OSError."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(LOCK, flags, dir_fd=private_fd)
    except FileNotFoundError:
        yield True  # of the first release; or made, or released, a moment ago, and then there is nothing in it
        return
    try:
        yield _lock(fd) is not Held.BY_ANOTHER
    finally:
        os.close(fd)


def try_locks(directory_fd: int) -> bool:
    """Whether a lock is to be had in this private directory's file system that another descriptor sees."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(LOCK, flags, dir_fd=directory_fd)
    try:
        return _lock(fd) is Held.BY_ANOTHER
    finally:
        os.close(fd)


def is_private(name: bytes) -> bool:
    """Whether a directory of this name is a private one, of this release or of the first."""
    return name == STAGING_NAME or name.startswith(PREFIX)


def is_ours(fd: int) -> bool:
    """Whether an open private directory is the daemon's own. Another's is left alone: what lies in it was not staged
    by us, however it is called, and however much it is."""
    return is_private_to_us(fd, os.fstat(fd))


def is_taken_back(fd: int) -> bool:
    """Whether an open private directory is the daemon's own, and is private again: somebody may have opened all of an
    inbox to its group since (chmod -R, setfacl -R), and what lies there is not to stay for that."""
    if is_our_own(fd, found := os.fstat(fd)) and found.st_mode & 0o022:
        with suppress(OSError):
            os.fchmod(fd, MODE)
    return is_ours(fd)


def remove_empty(parent_fd: int, name: bytes, fd: int) -> None:
    """Remove a private directory, open as ``fd``, and those below it, as far as they are empty. Raises OSError."""
    found = [relative for relative, _ in below(fd)]
    with suppress(FileNotFoundError):
        os.unlink(LOCK, dir_fd=fd)  # our own, and it holds nothing
    for relative in reversed(found):
        parent, _, last = relative.rpartition(b"/")
        with suppress(OSError), directory(fd, parent) as above_fd:
            os.rmdir(last, dir_fd=above_fd)
    try:
        os.rmdir(name, dir_fd=parent_fd)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOENT):
            raise


def below(
    fd: int, on_error: Callable[[OSError], None] = lambda _: None, most: int = MAX_DEPTH
) -> Iterator[tuple[bytes, int]]:
    """Every directory below the open directory ``fd``, parents first: (its path, its depth). One that cannot be
    listed is told to ``on_error`` and passed over; those deeper than ``most`` as well."""
    todo = [(b"", 0)]
    while todo:
        relative, depth = todo.pop()
        if relative:
            yield relative, depth
        if depth > most:
            on_error(OSError(errno.ENAMETOOLONG, "too deep"))
            continue
        try:
            with directory(fd, relative) as here_fd:
                names = [name for name, is_directory in entries(here_fd, on_error) if is_directory]
        except OSError as error:
            on_error(error)
            continue
        todo += [(relative + b"/" + name if relative else name, depth + 1) for name in names]


def entries(fd: int, on_error: Callable[[OSError], None] = lambda _: None) -> list[tuple[bytes, bool]]:
    """(name, whether it is a directory) of everything in an open directory; an entry that does not say is told, and
    costs that entry. Raises OSError."""
    found: list[tuple[bytes, bool]] = []
    with os.scandir(fd) as listing:
        for entry in listing:
            try:
                found.append((os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)))
            except OSError as error:
                on_error(error)
    return found
