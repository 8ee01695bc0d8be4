"""Durable, create-only files below one folder: what the directory store does to the file system, call by call."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from dicomwatchd import localfiles, markers
from dicomwatchd.archive.stores.port import Chunk
from dicomwatchd.errors import DicomwatchdError, OutOfReach, Permanent, Transient

#: Names of our own beside the objects; no key may hold one.
OWN = markers.OWN
TEMPORARY = OWN + b"tmp-"

_DIRECTORY_MODE = 0o750
_FILE_MODE = 0o640
_MOST_REMEMBERED = 10_000

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
_OURS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN))
_REFUSED = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))
_IN_THE_WAY = frozenset((errno.ELOOP, errno.ENOTDIR, errno.EISDIR))
_NO_LINKS = frozenset((errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EINVAL))


def translate(error: OSError, operation: str, endpoint: str) -> DicomwatchdError:
    """What an error of the archive's file system means to us; nothing that heals by itself becomes Permanent."""
    name = errno.errorcode.get(error.errno or 0, "unknown")
    what = f"{operation} failed: {name}"
    if error.errno in _FULL:
        hint = "the archive's file system is full or its quota is exhausted"
        return Transient(what, code="store-full", hint=hint, endpoint=endpoint)
    if error.errno in _OURS:
        return Transient(what, code="short-of-resources")
    if error.errno in _REFUSED:
        hint = "the archive's folder is read-only or its owner and permissions deny access"
        return OutOfReach(what, code="refused", hint=hint, endpoint=endpoint)
    if error.errno in _IN_THE_WAY or isinstance(error, localfiles.NotRegular):
        hint = "the archive's folder contains a symbolic link or special file where none belongs"
        return Permanent(what, code="foreign-file", hint=hint)
    if error.errno == errno.ENAMETOOLONG:
        return Permanent(what, code="bad-key", hint="the archive's file system does not support names this long")
    hint = "check the archive's file system: is the share mounted, and its server running?"
    return OutOfReach(what, hint=hint, endpoint=endpoint)


@contextmanager
def translated(operation: str, endpoint: str) -> Iterator[None]:
    """Only the archive's own files are to be touched inside: an OSError of a source would be taken for theirs."""
    try:
        yield
    except OSError as error:
        raise translate(error, operation, endpoint) from error


class DurableFolders:
    """Makes folders, and sees to it once that each of them survives a power cut."""

    def __init__(self) -> None:
        self._durable: set[bytes] = set()
        self._lock = threading.Lock()

    @contextmanager
    def open(self, root_fd: int, relative: bytes) -> Iterator[int]:
        """A descriptor of the folder ``relative`` below the root, made if it is not there. No link is followed.
        Raises OSError."""
        fd = os.dup(root_fd)
        try:
            seen = os.fstat(root_fd)
            path = b"%d:%d" % (seen.st_dev, seen.st_ino)
            for name in relative.split(b"/") if relative else ():
                path = path + b"/" + name
                made = _make(fd, name)
                deeper = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                try:
                    # One that was there may be another thread's, or a crashed run's, that never reached the fsync.
                    if made or path not in self._durable:
                        sync_folder(fd)
                        self._remember(path)
                except BaseException:
                    os.close(deeper)
                    raise
                os.close(fd)
                fd = deeper
            yield fd
        finally:
            os.close(fd)

    def _remember(self, path: bytes) -> None:
        with self._lock:
            if len(self._durable) >= _MOST_REMEMBERED:
                self._durable.clear()
            self._durable.add(path)


def _make(parent_fd: int, name: bytes) -> bool:
    try:
        os.mkdir(name, _DIRECTORY_MODE, dir_fd=parent_fd)
    except FileExistsError:
        return False
    return True


@contextmanager
def temporary(folder_fd: int, random_name: str) -> Iterator[tuple[int, bytes]]:
    """A new file under a name of our own, gone again at the end unless it was renamed. Raises OSError."""
    name = TEMPORARY + random_name.encode("ascii")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, _FILE_MODE, dir_fd=folder_fd)
    try:
        yield fd, name
    finally:
        os.close(fd)
        with suppress(OSError):
            os.unlink(name, dir_fd=folder_fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Raises OSError."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def publish(folder_fd: int, temporary_name: bytes, name: bytes) -> bool:
    """Give a finished file its name; False if the name is taken. Never replaces anything. Raises OSError."""
    try:
        localfiles.rename_noreplace(folder_fd, temporary_name, folder_fd, name)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _publish_by_placeholder(folder_fd, temporary_name, name)
    return True


def _publish_by_placeholder(folder_fd: int, temporary_name: bytes, name: bytes) -> bool:
    """For file systems with neither renameat2 nor hard links (some NAS shares): an empty file takes the name, which
    only one of several can create, and is then replaced by the full one. A crash in between leaves the empty file:
    verification finds it, and the repair takes the next free key."""
    try:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE, dir_fd=folder_fd))
    except FileExistsError:
        return False
    os.rename(temporary_name, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
    return True


def refuses_second_name(folder_fd: int, random_name: str) -> bool:
    """Whether `publish` gives a name once only on this file system, found by trying. Raises OSError."""
    name = TEMPORARY + random_name.encode("ascii") + b"-name"
    try:
        taken = []
        for attempt in ("first", "second"):
            with temporary(folder_fd, f"{random_name}-{attempt}") as (fd, temporary_name):
                write_all(fd, attempt.encode("ascii"))
                taken.append(publish(folder_fd, temporary_name, name))
        with localfiles.regular_file(folder_fd, name) as fd:
            return taken == [True, False] and os.read(fd, 16) == b"first"
    finally:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder_fd)


def sync_folder(folder_fd: int) -> None:
    """Make the names in a folder durable, where the file system knows of such a thing. Raises OSError."""
    try:
        os.fsync(folder_fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise


def make_durable(folder_fd: int, name: bytes) -> None:
    """For a file found in place: whoever put it there may have crashed before its fsync. Raises OSError."""
    with localfiles.regular_file(folder_fd, name) as fd:
        os.fsync(fd)
    sync_folder(folder_fd)


def remove_leftovers(root_fd: int, older_than: Callable[[float], bool]) -> int:
    """Remove temporary files that a crash has left anywhere below the root; returns how many. Nothing else of the
    tree is touched, and no link followed. ``older_than`` is asked with each one's mtime. Raises OSError."""
    removed = 0
    for _, _, names, folder_fd in os.fwalk(b".", dir_fd=root_fd, follow_symlinks=False):
        for name in names:
            if not name.startswith(TEMPORARY):
                continue
            with suppress(FileNotFoundError):
                if older_than(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mtime):
                    os.unlink(name, dir_fd=folder_fd)
                    removed += 1
    return removed


def read_at(fd: int, offset_bytes: int, length_bytes: int, buffer: memoryview | None) -> Chunk:
    """As pread(2), into ``buffer`` where that is given. Raises OSError."""
    if buffer is None:
        return os.pread(fd, length_bytes, offset_bytes)
    view = buffer[:length_bytes]
    return view[: os.preadv(fd, [view], offset_bytes)]
