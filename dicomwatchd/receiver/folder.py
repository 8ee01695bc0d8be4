"""An inbox as a receiver writes to it: objects get a name when all of their bytes are on the disk, and not before.

A file on its way has no name at all (O_TMPFILE of open(2)), so whatever ends the receiver leaves nothing behind that
somebody would have to tell from an image and remove: nothing in this program can delete.
"""

from __future__ import annotations

import errno
import os
import secrets
import weakref
from dataclasses import dataclass
from pathlib import Path

from dicomwatchd import localfiles, markers
from dicomwatchd.errors import Misconfigured
from dicomwatchd.model import Uid

#: Of a file in the inbox, before the umask: for its owner, and for the daemon by its group.
_FILE_MODE = 0o660
#: So much is gathered before it is written.
_BLOCK_BYTES = 256 * 1024
#: So much is written to one object between two looks at the disk.
_LOOK_EVERY_BYTES = 1024 * 1024
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


class NoRoom(Exception):
    """The disk has less room left than is to be left, or the object is longer than one may be."""


class Unwritable(Exception):
    """The inbox cannot be written to. ``reason`` is a word for the log."""

    def __init__(self, reason: str, number: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.errno = number


@dataclass(frozen=True, slots=True)
class Limits:
    """``free_share`` of the disk stays free; an object is no longer than ``object_bytes``."""

    free_share: float
    object_bytes: int


class InboxFolder:
    """The folder as it was when the receiver began with it. Another one under its path is not written to: a share that
    was mounted over it since, or went, would hide what was stored. Raises Misconfigured."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits = path, limits
        try:
            self.fd = localfiles.open_root(str(path))
            # Associations that were begun before a reload go on with it.
            self._closing = weakref.finalize(self, os.close, self.fd)
        except OSError as error:
            raise Misconfigured(
                "the folder of a receiver's inbox cannot be opened",
                code="receiver-inbox",
                path=str(path),
                hint="it must exist, and the receiver's user must be able to write to it",
            ) from error
        self._try_out()

    def _try_out(self) -> None:
        try:
            if markers.sign_in(self.fd) is not None or markers.is_below(self.fd):
                raise Misconfigured(
                    "the folder of a receiver's inbox belongs to an archive or a state", code="receiver-inbox"
                )
            with Incoming(self):
                pass
        except (Unwritable, OSError) as error:
            raise Misconfigured(
                "nothing can be stored in the folder of a receiver's inbox",
                code="receiver-inbox",
                path=str(self.path),
                hint="the receiver's user must be able to write to it, and its file system must know O_TMPFILE: a local"
                " one does, a network share does not",
            ) from error
        except NoRoom:
            pass  # it may have room again

    def close(self) -> None:
        """Otherwise it is closed with the last who uses it."""
        self._closing()

    def require_room(self) -> None:
        """Raises NoRoom, Unwritable."""
        try:
            found = os.fstatvfs(self.fd)
        except OSError as error:
            raise Unwritable("inbox-unwritable", error.errno) from error
        if found.f_bavail < found.f_blocks * self.limits.free_share:
            raise NoRoom

    def require_same(self) -> None:
        """Raises Unwritable unless the path still leads to this folder."""
        try:
            there, here = os.stat(self.path), os.fstat(self.fd)
        except OSError as error:
            raise Unwritable("inbox-gone", error.errno) from error
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) or here.st_nlink == 0:
            raise Unwritable("inbox-replaced")


class Incoming:
    """One object on its way into an inbox. To be left as a context, after which it is there by name, or not at all.
    Raises NoRoom, Unwritable."""

    def __init__(self, folder: InboxFolder) -> None:
        self._folder = folder
        folder.require_room()
        folder.require_same()
        try:
            self._fd = localfiles.open_unnamed(folder.fd, _FILE_MODE)
        except OSError as error:
            if error.errno in _NO_UNNAMED:
                raise Unwritable("inbox-without-o-tmpfile", error.errno) from error
            raise _translated(error) from error
        self._block = bytearray()
        self._until_look = _LOOK_EVERY_BYTES
        self.size_bytes = 0

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def write(self, data: bytes | memoryview) -> None:
        """Raises NoRoom, Unwritable."""
        self.size_bytes += len(data)
        if self.size_bytes > self._folder.limits.object_bytes:
            raise NoRoom
        self._block += data
        if len(self._block) >= _BLOCK_BYTES:
            self._flush()

    def _flush(self) -> None:
        with memoryview(self._block) as block:
            written = 0
            while written < len(block):
                try:
                    written += os.write(self._fd, block[written:])
                except OSError as error:
                    raise _translated(error) from error
        self._until_look -= len(self._block)
        self._block.clear()
        if self._until_look <= 0:
            self._until_look = _LOOK_EVERY_BYTES
            self._folder.require_room()

    def keep(self, sop_instance: Uid) -> None:
        """On return the object is in the inbox, whatever happens to the machine. What is there under its name already,
        the same instance with the same or with other bytes, stays as it is: this one gets another name, and what they
        are to each other is for the daemon to see. Raises NoRoom, Unwritable."""
        self._flush()
        try:
            os.fsync(self._fd)
            self._give_name(sop_instance)
            os.fsync(self._folder.fd)
        except OSError as error:
            raise _translated(error) from error
        self._folder.require_same()

    def _give_name(self, sop_instance: Uid) -> None:
        name = f"{sop_instance}.dcm"
        while True:
            try:
                localfiles.give_name(self._fd, self._folder.fd, name.encode("ascii"))
            except FileExistsError:
                name = f"{sop_instance}-{secrets.token_hex(6)}.dcm"
            else:
                return


def _translated(error: OSError) -> NoRoom | Unwritable:
    return NoRoom() if error.errno in _NO_ROOM else Unwritable("inbox-unwritable", error.errno)
