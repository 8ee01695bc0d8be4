"""The bytes of uploads on the disk: a folder for each upload, and in it names of `places` alone.

``parts`` has what is coming. A file that is whole and flushed goes to its place in ``files``, which is the folder that
the daemon gets; what is there the daemon alone takes away, by its proof, until the upload has ended or nobody has gone
on with it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dicomwatchd.errors import DicomwatchdError, StateFailed, Transient
from dicomwatchd.ports import DiskUsage

#: The daemon gets at it by the staging folder's default ACL, or its group, and removes what it has proven.
_FOLDER_MODE, _FILE_MODE = 0o770, 0o640
_COPY_BYTES = 1 << 20
#: Before the SHA-256 of the SHA-256 sums of a file's pieces of so many bytes. A browser hashes only what it has in
#: memory, and so a large file in pieces.
IN_PIECES = "pieces-"
PIECE_BYTES = 8 << 20


class NoRoom(Transient):
    """The disk is full, or as full as it may get."""

    code = "no-room"


class AnotherOffset(DicomwatchdError):
    """A piece does not begin where the file ends so far, which is at ``offset``."""

    code = "another-offset"

    def __init__(self, offset: int) -> None:
        super().__init__("the piece does not begin where the file ends")
        self.offset = offset


class NotAsAnnounced(DicomwatchdError):
    """The file that came is not what it was said to be."""

    code = "not-as-announced"


class Room:
    """``root`` is there. Safe to be used from any thread, but for two at one file, which `AnotherOffset` tells."""

    def __init__(self, root: Path, usage: Callable[[Path], DiskUsage] = shutil.disk_usage) -> None:
        self._root = root
        self._usage = usage

    def free_bytes(self) -> int:
        """Raises Transient."""
        try:
            return self._usage(self._root).free
        except OSError as error:
            raise _translated(error) from error

    def make(self, upload_id: str) -> None:
        """Raises Transient."""
        try:
            for folder in (self._root / upload_id, self._parts(upload_id), self.files(upload_id)):
                folder.mkdir(mode=_FOLDER_MODE)
                _open_to_the_group(folder)
            _flush(self._root / upload_id)
            _flush(self._root)
        except OSError as error:
            raise _translated(error) from error

    def files(self, upload_id: str) -> Path:
        """The folder that the daemon gets."""
        return self._root / upload_id / "files"

    def size(self, upload_id: str, number: int) -> int:
        """How much of a file that is coming is there. Raises Transient."""
        try:
            return self._part(upload_id, number).stat().st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise _translated(error) from error

    def append(self, upload_id: str, number: int, offset: int, piece: bytes) -> int:
        """How much of the file is there now. Raises AnotherOffset, NoRoom, Transient."""
        try:
            with _opened(self._part(upload_id, number), os.O_RDWR | os.O_CREAT) as fd:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise AnotherOffset(os.fstat(fd).st_size) from None
                if (there := os.fstat(fd).st_size) != offset:
                    raise AnotherOffset(there)
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.pwrite(fd, rest, offset) :]
                    offset = os.fstat(fd).st_size
                return offset
        except OSError as error:
            raise _translated(error) from error

    def finish(self, upload_id: str, number: int, place: str, size_bytes: int, sha256: str) -> None:
        """All of a file is there: it is compared, if its hash is known, flushed, and put to those that the daemon gets.
        What is not as it was announced goes, to be sent again. Raises NotAsAnnounced, StateFailed, Transient."""
        part, whole = self._part(upload_id, number), self.files(upload_id) / place
        try:
            if whole.exists():
                self._require(whole, size_bytes, sha256)
                return  # the answer to an earlier request was lost
            with _opened(part, os.O_RDWR | os.O_CREAT) as fd:
                is_right = os.fstat(fd).st_size == size_bytes and sha256 in ("", sum_of(fd, sha256))
                if is_right:
                    os.fchmod(fd, _FILE_MODE)
                    os.fsync(fd)
            if not is_right:
                part.unlink()
                raise NotAsAnnounced("the file that arrived is not the one that was announced: it is sent again")
            self._publish(part, whole, upload_id)
        except OSError as error:
            raise _translated(error) from error

    def copy(self, upload_id: str, number: int, place: str, source: str, size_bytes: int, sha256: str) -> None:
        """Another of the same content, without its being sent. Raises StateFailed, Transient."""
        part, whole = self._part(upload_id, number), self.files(upload_id) / place
        try:
            if whole.exists():
                self._require(whole, size_bytes, sha256)
                return
            with (
                _opened(self.files(upload_id) / source, os.O_RDONLY) as fd_of_source,
                _opened(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as fd,
            ):
                while piece := os.read(fd_of_source, _COPY_BYTES):
                    rest = memoryview(piece)
                    while rest:  # on a disc that is nearly full less is written
                        rest = rest[os.write(fd, rest) :]
                if os.fstat(fd).st_size != size_bytes or sum_of(fd, sha256) != sha256:
                    raise _is_another()
                os.fchmod(fd, _FILE_MODE)
                os.fsync(fd)
            self._publish(part, whole, upload_id)
        except OSError as error:
            raise _translated(error) from error

    def opened(self, upload_id: str) -> int:
        """An open descriptor of the folder that the daemon gets. Raises Transient."""
        try:
            return os.open(self.files(upload_id), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _translated(error) from error

    def remove(self, upload_id: str) -> None:
        """An upload that nobody goes on with, or that has ended: with what is left of it. Raises Transient."""
        try:
            shutil.rmtree(self._root / upload_id)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _translated(error) from error

    def is_empty(self, upload_id: str) -> bool:
        """Whether the daemon has taken everything away."""
        try:
            return all(path.is_dir() for path in self.files(upload_id).rglob("*"))
        except FileNotFoundError:
            return True
        except OSError as error:
            raise _translated(error) from error

    @staticmethod
    def _require(whole: Path, size_bytes: int, sha256: str) -> None:
        """That this content lies there, and none that was announced under this name before, and came late."""
        with _opened(whole, os.O_RDONLY) as fd:
            if os.fstat(fd).st_size != size_bytes or sha256 not in ("", sum_of(fd, sha256)):
                raise _is_another()

    def _parts(self, upload_id: str) -> Path:
        return self._root / upload_id / "parts"

    def _part(self, upload_id: str, number: int) -> Path:
        return self._parts(upload_id) / f"{number:07}"

    def _publish(self, part: Path, whole: Path, upload_id: str) -> None:
        """No other file has this place (book): nothing is replaced."""
        missing = []
        folder = whole.parent
        while folder != self.files(upload_id) and not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)  # two of its files may come at once
            _open_to_the_group(folder)
            _flush(folder.parent)
        part.rename(whole)
        _flush(whole.parent)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_to_the_group(folder: Path) -> None:
    """Where the umask has taken that away. Under a default ACL, which is how two users get along, it takes nothing; and
    a service that may set no set-group-ID bit may not keep it either."""
    mode = folder.stat().st_mode
    if mode & 0o070 != _FOLDER_MODE & 0o070:
        folder.chmod(_FOLDER_MODE | (mode & 0o2000))


def sum_of(fd: int, like: str) -> str:
    """Of an open file: its SHA-256, or, where ``like`` is one, that of the sums of its pieces. Raises OSError."""
    if not like.startswith(IN_PIECES):
        return _sha256(fd, 0, None).hexdigest()
    digest = hashlib.sha256()
    for begin in range(0, os.fstat(fd).st_size, PIECE_BYTES):
        digest.update(_sha256(fd, begin, begin + PIECE_BYTES).digest())
    return IN_PIECES + digest.hexdigest()


def _sha256(fd: int, at: int, end: int | None) -> hashlib._Hash:
    digest = hashlib.sha256()
    while piece := os.pread(fd, _COPY_BYTES if end is None else min(_COPY_BYTES, end - at), at):
        digest.update(piece)
        at += len(piece)
    return digest


def _is_another() -> StateFailed:
    return StateFailed("what lies in the folder of the uploads is not what was announced", code="staging-other")


def _flush(folder: Path) -> None:
    with _opened(folder, os.O_RDONLY | os.O_DIRECTORY) as fd, suppress(OSError):
        os.fsync(fd)


def _translated(error: OSError) -> DicomwatchdError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoom("the disk for uploads is full")
    if isinstance(error, FileNotFoundError):
        return StateFailed("a folder of the uploads is not there", code="staging-gone")
    return Transient("the disk for uploads cannot be used", code="staging-disk")
