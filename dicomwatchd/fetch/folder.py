"""The folder that a fetch fills: nothing is overwritten, no link followed, and a name means whole bytes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dicomwatchd import localfiles
from dicomwatchd.errors import Permanent
from dicomwatchd.model import Digest

#: Of a file, unless another is asked for. It holds a patient's images.
PRIVATE = 0o600
_PRIVATE_FOLDER = 0o700
_TEMPORARY = re.compile(r"\.dicomwatchctl-fetch-[0-9a-f]{16}\.part\Z")
_CHUNK = 1 << 20
#: What O_DIRECT takes on any common disk: writes of a multiple of this, from pages of memory.
_BLOCK_BYTES = 4096
#: A smaller file goes through the page cache, and to the disk with its last bytes in one request.
_STRAIGHT_BYTES = 128 * 1024


class DiskFull(Permanent):
    """There is no room for another file in the target folder."""

    code = "disk-full"


class Occupied(Permanent):
    """Something else stands where the file, or its series' folder, has to go; it is left as it is."""

    code = "target-occupied"


def folder_mode(mode: int) -> int:
    """Of the folders of files with ``mode``: who may read the files may look them up."""
    return mode | (mode & 0o444) >> 2


class TargetFolder:
    """DIR of a fetch, opened. ``token`` gives 16 hex digits that were not used before; what is made gets ``mode``,
    folders the `folder_mode` of it, and what is there keeps its own."""

    def __init__(self, fd: int, token: Callable[[], str], mode: int) -> None:
        self._fd = fd
        self._token = token
        self._mode = mode

    @classmethod
    @contextmanager
    def opened(cls, path: Path, token: Callable[[], str], mode: int = PRIVATE) -> Iterator[TargetFolder]:
        """DIR is the user's choice: it is made if need be, and may itself be a link. Raises Permanent."""
        try:
            made = not path.is_dir()
            path.mkdir(_PRIVATE_FOLDER, parents=True, exist_ok=True)
            fd = localfiles.open_root(os.fspath(path))
        except FileExistsError as error:
            raise Occupied("is not a folder", path=str(path)) from error
        except OSError as error:
            raise translated(error, "cannot be used as a target folder", path=str(path)) from error
        try:
            if made:
                _give_mode(fd, folder_mode(mode), _PRIVATE_FOLDER)
            yield cls(fd, token, mode)
        finally:
            os.close(fd)

    def below(self, path: str) -> SeriesFolder:
        """A folder below DIR ("" is DIR itself), made if need be with those above it, to be closed. ``path`` is
        "/"-separated, of plain names. Raises Occupied when a link or a file stands there, Permanent."""
        fd = os.dup(self._fd)
        for part in path.split("/") if path else ():
            try:
                deeper = self._entered(fd, os.fsencode(part))
            finally:
                os.close(fd)
            fd = deeper
        return SeriesFolder(fd, self._token, self._mode)

    def _entered(self, above_fd: int, name: bytes) -> int:
        made = False
        try:
            if name in (b"", b".", b".."):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            with suppress(FileExistsError):
                os.mkdir(name, _PRIVATE_FOLDER, dir_fd=above_fd)
                made = True
            fd = localfiles.make_directory(above_fd, name, _PRIVATE_FOLDER)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise Occupied(
                    "a symbolic link or a file is in the way of the series' folder; it was not touched"
                ) from error
            raise translated(error, "the series' folder cannot be created") from error
        try:
            if made:
                _give_mode(fd, folder_mode(self._mode), _PRIVATE_FOLDER)
        except Permanent:
            os.close(fd)
            raise
        return fd

    def flush(self) -> None:
        """Make the names of the series' folders durable. Raises Permanent."""
        _flush(self._fd)


class SeriesFolder:
    """An open folder of files, of one series usually; every name below is relative to its descriptor."""

    def __init__(self, fd: int, token: Callable[[], str], mode: int) -> None:
        self._fd = fd
        self._token = token
        self._mode = mode

    def __enter__(self) -> SeriesFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._fd)

    def remove_leftovers(self) -> int:
        """Remove temporary files of a fetch that was killed; how many. A running fetch holds a lock on its own."""
        removed = 0
        try:
            names = [name for name in os.listdir(self._fd) if _TEMPORARY.match(name)]  # noqa: PTH208  a descriptor
        except OSError as error:
            raise translated(error, "the series' folder cannot be read") from error
        for name in names:
            # Without a lock to be had (some network shares) it may be somebody's: a leftover does no harm.
            with suppress(OSError), localfiles.regular_file(self._fd, os.fsencode(name)) as fd:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(name, dir_fd=self._fd)
                removed += 1
        return removed

    def holds(self, name: str, expected: Digest, still_wanted: Callable[[], None]) -> bool:
        """Whether the file is there with the right bytes. Raises Occupied when it is there with others.

        ``still_wanted`` is called between chunks and may raise.
        """
        try:
            with localfiles.regular_file(self._fd, os.fsencode(name)) as fd:
                found = os.fstat(fd).st_size
                digest = hashlib.sha256()
                while found == expected.size_bytes and (chunk := os.read(fd, _CHUNK)):
                    still_wanted()
                    digest.update(chunk)
                if found == expected.size_bytes and digest.hexdigest() == expected.sha256:
                    # A fetch that was killed may have left the name behind with nothing of it on the disk yet.
                    os.fsync(fd)
                    return True
        except FileNotFoundError:
            return False
        except localfiles.NotRegular as error:
            raise Occupied("a symbolic link, a folder or a device has the file's name; it was not touched") from error
        except OSError as error:
            raise translated(error, "the existing file cannot be read") from error
        raise Occupied(
            "a file with different content already has this name; it was not touched",
            hint="move it away, or fetch into another folder",
        )

    @contextmanager
    def temporary(self) -> Iterator[Temporary]:
        """A new hidden file, locked; gone afterwards unless it was given its name. Raises DiskFull, Permanent."""
        try:
            name, fd = self._create()
        except OSError as error:
            raise translated(error, "no file can be created in the series' folder") from error
        file = Temporary(self._fd, name, fd, self._mode)
        try:
            yield file
        finally:
            with suppress(OSError):
                if not file.named:
                    os.unlink(name, dir_fd=self._fd)
            os.close(fd)

    def _create(self) -> tuple[str, int]:
        while True:
            name = f".dicomwatchctl-fetch-{self._token()}.part"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, PRIVATE, dir_fd=self._fd)
            with suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between creation and lock another fetch may have taken it for a leftover.
            if os.fstat(fd).st_nlink:
                return name, fd
            os.close(fd)

    def flush(self) -> None:
        """Make the names in the folder durable. Raises Permanent."""
        _flush(self._fd)


class Temporary:
    """A file that has no proper name yet."""

    def __init__(self, folder_fd: int, name: str, fd: int, mode: int) -> None:
        self._folder_fd = folder_fd
        self._name = name
        self._fd = fd
        self._mode = mode
        self._begun = False
        self.named = False

    def stream(self) -> BinaryIO:
        """Another way to write to it, to be closed before it gets its name, or flushed."""
        return os.fdopen(os.dup(self._fd), "r+b")

    def rewind(self) -> None:
        """Start over, empty."""
        if not self._begun:
            return
        try:
            os.lseek(self._fd, 0, os.SEEK_SET)
            os.ftruncate(self._fd, 0)
        except OSError as error:
            raise translated(error, "the file cannot be written") from error
        self._begun = False

    def write(self, data: bytes | memoryview, *, whole: bool = False) -> None:
        """Append all of ``data``, or the ``whole`` file's content in one piece. Raises DiskFull, Permanent."""
        rest = memoryview(data)
        fresh, self._begun = not self._begun, True
        try:
            if whole and fresh and len(rest) >= _STRAIGHT_BYTES:
                rest = rest[self._write_straight(rest[: len(rest) - len(rest) % _BLOCK_BYTES]) :]
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise translated(error, "the file cannot be written") from error

    def _write_straight(self, blocks: memoryview) -> int:
        """Whole blocks straight to the disk (open(2), O_DIRECT); how many bytes of them. 0 where the file system or the
        place of ``blocks`` in memory does not allow that, or it failed: the plain way says why.

        The bytes have to be on the disk before the file has its name. A copy of them in the page cache on the way there
        costs more than all else that is done for a file.
        """
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, os.O_DIRECT)
        except OSError:
            return 0
        try:
            return os.write(self._fd, blocks)
        except OSError:
            return 0
        finally:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, 0)

    def publish(self, name: str) -> None:
        """Flush the bytes to the disk, then give the file its name. Raises Occupied if that was taken meanwhile,
        DiskFull, Permanent."""
        _give_mode(self._fd, self._mode, PRIVATE)
        try:
            os.fsync(self._fd)
            localfiles.rename_noreplace(self._folder_fd, os.fsencode(self._name), self._folder_fd, os.fsencode(name))
        except FileExistsError as error:
            raise Occupied("a file with this name appeared in the meantime; it was not touched") from error
        except OSError as error:
            raise translated(error, "the file cannot be finished") from error
        self.named = True


def _give_mode(fd: int, mode: int, made_with: int) -> None:
    """Whatever the umask took away. The private one needs no call: file systems without modes then do, too."""
    if mode == made_with:
        return
    try:
        os.fchmod(fd, mode)
    except OSError as error:
        raise translated(error, "the requested mode cannot be set") from error


def _flush(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: a file system whose directories cannot be flushed
            raise translated(error, "the target folder cannot be flushed to disk") from error


def translated(error: OSError, what: str, *, path: str | None = None) -> Permanent:
    """An error of the file system in words of ours."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            "the disk of the target folder is full",
            hint="free some space and repeat the command: existing files are kept",
            path=path,
        )
    return Permanent(f"{what}: {os.strerror(error.errno or 0)}", code="target-failed", path=path)
