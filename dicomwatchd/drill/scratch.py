"""Where the copies of a drill lie while they are compared: a private folder of its own, in the state directory.

It may be a mount of its own, where the state's disk is small. Nothing in it but folders that a drill has made is ever
removed.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dicomwatchd.errors import Permanent
from dicomwatchd.ports import DiskUsage

NAME = "restore-drill"
_OURS = re.compile(r"study-[0-9a-f]{16}\Z")
_PRIVATE = 0o700
#: Of common file systems: on the average half of a file's last one is empty, of a small file's nearly all of it.
_BLOCK_BYTES = 4096


class ScratchUnusable(Permanent):
    """The folder for the copies cannot be made or used."""

    code = "scratch"


class Scratch:
    """``token`` gives 16 hex digits that were not used before. ``free_share`` of the disk is left free whatever is
    fetched: below it the daemon warns."""

    def __init__(
        self,
        state_directory: Path,
        token: Callable[[], str],
        free_share: float,
        disk_usage: Callable[[Path], DiskUsage] = shutil.disk_usage,
    ) -> None:
        self._state = state_directory
        self._path = state_directory / NAME
        self._token = token
        self._free_share = free_share
        self._disk_usage = disk_usage

    def clear(self) -> int:
        """Remove what killed drills have left; how many folders. Raises ScratchUnusable."""
        with self._opened() as fd:
            return _clear(fd)

    def has_room(self, size_bytes: int, files: int = 0) -> bool:
        """Whether so much more fits, in so many files: each takes whole blocks. Raises ScratchUnusable."""
        with self._opened():
            usage = self._disk_usage(self._path)
        return usage.free - size_bytes - files * _BLOCK_BYTES >= usage.total * self._free_share

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A new folder, gone afterwards with all that is in it; what could not be removed after an earlier drill goes
        first. Raises ScratchUnusable."""
        name = f"study-{self._token()}"
        with self._opened() as fd:
            _clear(fd)
            os.mkdir(name, _PRIVATE, dir_fd=fd)
            try:
                yield self._path / name
            finally:
                with suppress(OSError):  # what stays goes before the next drill
                    _remove(fd, name)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """A descriptor of the folder, which is made if need be; a link there is not followed."""
        fd = -1
        try:
            with suppress(FileExistsError):
                self._path.mkdir(_PRIVATE)
            fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            found = os.fstat(fd)
            if found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise ScratchUnusable(
                    "the folder for the copies is not private",
                    hint=f"{NAME} in the state directory must belong to the daemon's user, with mode 0700",
                )
            yield fd
        except OSError as error:
            raise ScratchUnusable(
                f"the folder for the copies cannot be used: {os.strerror(error.errno or 0)}",
                hint=f"look at {NAME} in the state directory",
            ) from error
        finally:
            if fd >= 0:
                os.close(fd)


def _clear(folder_fd: int) -> int:
    """Raises OSError."""
    removed = 0
    for name in os.listdir(folder_fd):
        if _OURS.match(name) and stat.S_ISDIR(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode):
            _remove(folder_fd, name)
            removed += 1
    return removed


def _remove(folder_fd: int, name: str) -> None:
    """Raises OSError."""
    shutil.rmtree(name, dir_fd=folder_fd)
