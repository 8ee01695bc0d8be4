"""Touching files in folders that others write to: never through a symbolic link, never by a long path.

Paths below a root are bytes, "/"-separated and relative; they are walked one component at a time from an open
directory, so neither a swapped link nor PATH_MAX plays a part.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

from dicomwatchd.model import FileIdentity

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO must not wait for a writer. It means nothing to a regular file.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

#: The private directory a file is renamed into before its last comparison; never part of an inbox's content. What it is
#: called on the disk stays: a daemon of another version at the same inbox must know it for what it is.
STAGING_NAME = b".dicomwatchd-aside"

#: What `beside` puts into a name that is taken (pipeline.deletion.staging); globs are matched as if it were not there.
RESTORED = rb"\.restored-[0-9]+(?=(?:\.[^.]{0,16})?\Z)"

#: File systems whose leases speak of this machine alone, or not at all: NFS and CIFS answer "somebody writes" where
#: they only have no delegation. f_type of statfs(2).
_SHARED = frozenset(
    {
        0x6969,  # NFS
        0x517B,  # SMB
        0xFF534D42,  # CIFS
        0xFE534D42,  # SMB2
        0x65735546,  # FUSE
        0x01021997,  # 9P
        0x00C36400,  # Ceph
        0x5346414F,  # OpenAFS
        0x6B414653,  # AFS
        0x0BD00BD0,  # Lustre
        0x01161970,  # GFS2
        0x7461636F,  # OCFS2
        0x73757245,  # Coda
        0x786F4256,  # VirtualBox's shared folders
        0xBACBACBC,  # VMware's
        0x7C7C6673,  # Parallels'
    }
)
#: Of several machines, too, and keep owners as a disk does.
_OF_CLUSTERS = frozenset(
    {
        0x47504653,  # GPFS
        0x19830326,  # BeeGFS
        0xAAD7AAEA,  # PanFS
        0xBEEFDEAD,  # StorNext
        0xA501FCF5,  # VxFS
    }
)
_IN_MEMORY = frozenset({0x01021994, 0x858458F6})  # tmpfs, ramfs
#: Where the owner of a file is not what the file system keeps but what it is mounted with, or another machine's.
_OWNERS_NOT_KEPT = _SHARED | {
    0x4D44,  # FAT
    0x2011BAB0,  # exFAT
    0x5346544E,  # NTFS
    0x7366746E,  # NTFS3
}
_RENAME_NOREPLACE = 1
_AT_EMPTY_PATH, _STATX_BTIME = 0x1000, 0x800
_FS_IOC_GETVERSION = 0x80087601
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
_libc = ctypes.CDLL(None, use_errno=True)


class NotRegular(OSError):
    """Something else than a regular file stands under the name."""


def open_root(path: bytes | str) -> int:
    """A descriptor of a folder named in the configuration; a link there is the administrator's choice."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


#: Gets the descriptor of a directory on the way; raises where it may not be entered.
FolderGuard = Callable[[int], None]


def opened_again(fd: int) -> int:
    """Another descriptor of an open folder, with a place of its own in the listing. Raises OSError."""
    return os.open(b".", _DIRECTORY, dir_fd=fd)


def path_of(fd: int) -> bytes:
    """What the kernel calls an open folder now, as seen from where it was opened. Raises OSError."""
    return os.readlink(b"/proc/self/fd/%d" % fd)


def open_directory(root_fd: int, relative: bytes, guard: FolderGuard | None = None) -> int:
    """A descriptor of the directory ``relative`` below ``root_fd`` (b"" is the root itself). ``guard`` is asked of
    every directory from the root on. Raises OSError."""
    fd = os.dup(root_fd)
    try:
        if guard is not None:
            guard(fd)
        for part in relative.split(b"/") if relative else ():
            if part in (b"", b".", b".."):
                raise OSError(errno.EINVAL, "not a plain relative path")
            deeper = os.open(part, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = deeper
            if guard is not None:
                guard(fd)
    except BaseException:  # nobody else knows of the descriptor
        os.close(fd)
        raise
    return fd


@contextmanager
def directory(root_fd: int, relative: bytes, guard: FolderGuard | None = None) -> Iterator[int]:
    """`open_directory`, closed in the end."""
    fd = open_directory(root_fd, relative, guard)
    try:
        yield fd
    finally:
        os.close(fd)


class KeptOpen:
    """A descriptor that is opened when it is first asked for, and stays open until one for something else is. To be
    left as a context."""

    def __init__(self) -> None:
        self._open: tuple[object, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()

    def keep(self, what: object, opening: Callable[[], int]) -> int:
        """Still this object's own. Raises as ``opening``."""
        if self._open is None or self._open[0] != what:
            self.forget()
            self._open = what, opening()
        return self._open[1]

    def forget(self) -> None:
        for fd in self._taken():
            os.close(fd)

    def _taken(self) -> list[int]:
        """What is open, if anything is, for the caller to close."""
        taken, self._open = self._open, None
        return [] if taken is None else [taken[1]]


def make_directory(parent_fd: int, name: bytes, mode: int) -> int:
    """Open ``name`` below ``parent_fd``, making it if it is not there; returns the descriptor."""
    with suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent_fd)
    return os.open(name, _DIRECTORY, dir_fd=parent_fd)


def make_directories(start_fd: int, parts: Iterable[bytes], mode: int) -> int:
    """Open the directory that ``parts`` lead to, one below the other from ``start_fd``, making what is not there;
    returns the descriptor. Raises OSError."""
    fd = os.dup(start_fd)
    for part in parts:
        try:
            deeper = make_directory(fd, part, mode)
        finally:
            os.close(fd)
        fd = deeper
    return fd


@contextmanager
def regular_file(directory_fd: int, name: bytes) -> Iterator[int]:
    """A read-only descriptor of a regular file. Raises NotRegular for anything else, OSError."""
    try:
        fd = os.open(name, _FILE, dir_fd=directory_fd)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a symbolic link; a socket
            raise NotRegular(error.errno, "not a regular file") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotRegular(errno.EINVAL, "not a regular file")
        yield fd
    finally:
        os.close(fd)


def open_unnamed(directory_fd: int, mode: int) -> int:
    """A new file without a name, of which nothing is left if nobody gives it one (O_TMPFILE of open(2)); a local file
    system is needed. Raises OSError."""
    return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode, dir_fd=directory_fd)


def give_name(fd: int, directory_fd: int, name: bytes) -> None:
    """Of a file that has none. Raises FileExistsError where the name is taken, OSError."""
    # By /proc, for AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH (open(2), O_TMPFILE).
    os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory_fd, follow_symlinks=True)


def put_whole(directory_fd: int, name: bytes, data: bytes, mode: int) -> None:
    """A new file that gets its name once all of ``data`` is on the disk; on return the name is, too. Raises as
    `open_unnamed` and `give_name`."""
    fd = open_unnamed(directory_fd, mode)
    try:
        os.fchmod(fd, mode)  # whatever the umask
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
        give_name(fd, directory_fd, name)
        os.fsync(directory_fd)
    finally:
        os.close(fd)


def identity(fd: int) -> FileIdentity:
    return FileIdentity.of(os.fstat(fd))


class NoStrictRename(OSError):
    """The file system knows no rename that refuses to replace, nor hard links."""


def rename_noreplace(old_fd: int, old: bytes, new_fd: int, new: bytes) -> None:
    """Rename ``old``, a private name that nobody else puts anything under, to ``new``. FileExistsError if that is
    taken. Raises NoStrictRename, OSError."""
    try:
        _renameat2(old_fd, old, new_fd, new)
    except NoStrictRename:
        # Some network and FUSE file systems do not know the flag: a hard link is as strict, where it is known.
        try:
            os.link(old, new, src_dir_fd=old_fd, dst_dir_fd=new_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise NoStrictRename(error.errno, "neither a strict rename nor a link") from error
            raise
        os.unlink(old, dir_fd=old_fd)


def rename_to_private(old_fd: int, old: bytes, private_fd: int, private: bytes) -> None:
    """Rename whatever stands under ``old`` to a name that nobody else uses. FileExistsError if that is taken.

    Never by link and unlink: between the two somebody may put another file under the old name. Raises OSError.
    """
    try:
        _renameat2(old_fd, old, private_fd, private)
    except NoStrictRename:
        with suppress(FileNotFoundError):
            os.stat(private, dir_fd=private_fd, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, "the private name is taken") from None
        os.rename(old, private, src_dir_fd=old_fd, dst_dir_fd=private_fd)


def renames_strictly(directory_fd: int, name: bytes) -> bool:
    """Whether this file system knows RENAME_NOREPLACE, tried on a file of one's own: its name is taken. Raises
    OSError."""
    try:
        _renameat2(directory_fd, name, directory_fd, name)
    except FileExistsError:
        return True
    except NoStrictRename:
        return False
    return True


def _renameat2(old_fd: int, old: bytes, new_fd: int, new: bytes) -> None:
    """renameat2(2) with RENAME_NOREPLACE."""
    result = _libc.renameat2(old_fd, ctypes.c_char_p(old), new_fd, ctypes.c_char_p(new), _RENAME_NOREPLACE)
    if result == 0:
        return
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):
        raise NoStrictRename(number, "no strict rename")
    raise OSError(number, os.strerror(number))


class WriterPresent(Exception):
    """Somebody holds the file open for writing."""


@contextmanager
def read_lease(fd: int) -> Iterator[bool]:
    """Hold a read lease (fcntl(2) F_SETLEASE) on a file: nobody has it open for writing, or mapped so, and nobody can
    open it so meanwhile. Yields False where leases are not to be had (not the owner, no CAP_LEASE, a network share).
    Raises WriterPresent.
    """
    if is_on_a_share(fd):
        yield False
        return
    # A lease that is broken sends SIGIO, which would end the process; SIGURG is ignored by default.
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise WriterPresent from error
        yield False
        return
    try:
        yield True
    finally:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def is_on_a_share(fd: int) -> bool:
    """Whether the file system of an open file is another machine's, or another program's."""
    found = _file_system(fd)
    return found in _SHARED or found in _OF_CLUSTERS


def is_in_memory(fd: int) -> bool:
    """Whether nothing of the file system of an open file outlives a power cut."""
    return _file_system(fd) in _IN_MEMORY


def _file_system(fd: int) -> int:
    """f_type of fstatfs(2), 0 where it is not known. The first field of the structure, a word of the machine."""
    buffer = ctypes.create_string_buffer(512)
    if _libc.fstatfs(fd, buffer) != 0:
        return 0
    return int(ctypes.c_ulong.from_buffer(buffer).value) & 0xFFFFFFFF


def birth(fd: int) -> str:
    """What tells an open folder from a later one that was given the same inode: when it was made (statx(2)) and its
    inode's generation (ioctl_iflags(2)), as far as the file system tells; "" where it tells nothing."""
    known = (_made_ns(fd), _generation(fd))
    return "/".join(map(str, known)) if any(known) else ""


def _made_ns(fd: int) -> int:
    buffer = ctypes.create_string_buffer(256)
    if not hasattr(_libc, "statx") or _libc.statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer) != 0:
        return 0
    if not ctypes.c_uint32.from_buffer(buffer).value & _STATX_BTIME:
        return 0
    seconds, nanoseconds = ctypes.c_int64.from_buffer(buffer, 80), ctypes.c_uint32.from_buffer(buffer, 88)
    return seconds.value * 1_000_000_000 + nanoseconds.value


def _generation(fd: int) -> int:
    buffer = bytearray(8)
    with suppress(OSError):
        fcntl.ioctl(fd, _FS_IOC_GETVERSION, buffer)
        return int.from_bytes(buffer[:4], "little")
    return 0


def lease_held(fd: int) -> bool:
    """Whether the read lease on ``fd`` is still whole: nobody has begun to open the file for writing."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK


def is_private_to_us(directory_fd: int, found: os.stat_result) -> bool:
    """Whether nobody but this process's user can put anything into a directory, ``found``, that is in or is the open
    directory: its owner, and that others may not write. True where the file system does not tell."""
    return is_our_own(directory_fd, found) and (
        not found.st_mode & 0o022 or _file_system(directory_fd) in _OWNERS_NOT_KEPT
    )


def is_our_own(directory_fd: int, found: os.stat_result) -> bool:
    """Whether this process's user is the owner. True where the file system does not tell."""
    return found.st_uid == os.geteuid() or _file_system(directory_fd) in _OWNERS_NOT_KEPT


def printable(path: bytes) -> str:
    """A path as text that JSON and terminals can take; what is not UTF-8 becomes \\xNN."""
    return path.decode("utf-8", "backslashreplace")
