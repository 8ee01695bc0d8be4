"""Room for one instance that is on its way to somewhere that takes it in one go: without a name, gone when closed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from dicomwatchd.fetch.folder import translated

#: Larger ones lie on the disk.
MEMORY_BYTES = 2 << 20


class Spool:
    """A file of which nobody knows, in memory if ``size_bytes`` is small, otherwise in ``directory``. To be closed."""

    def __init__(self, size_bytes: int, directory: Path) -> None:
        try:
            if size_bytes <= MEMORY_BYTES:
                fd = os.memfd_create("instance", os.MFD_CLOEXEC)
            else:
                with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
                    fd = os.dup(file.fileno())
        except OSError as error:
            raise translated(error, "no temporary file can be created") from error
        self._fd = fd
        self._is_empty = True

    @property
    def path(self) -> Path:
        """By which this process, and nobody else, opens it again."""
        return Path(f"/proc/self/fd/{self._fd}")

    def rewind(self) -> None:
        if self._is_empty:
            return
        try:
            os.lseek(self._fd, 0, os.SEEK_SET)
            os.ftruncate(self._fd, 0)
        except OSError as error:
            raise translated(error, "the temporary file cannot be written") from error
        self._is_empty = True

    def write(self, data: bytes | memoryview, *, whole: bool = False) -> None:  # noqa: ARG002  as other sinks have it
        rest = memoryview(data)
        self._is_empty = False
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise translated(error, "the temporary file cannot be written") from error

    def reading(self) -> BinaryIO:
        """From its first byte, to be closed; the spool stays."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        return open(self._fd, "rb", closefd=False)

    def close(self) -> None:
        os.close(self._fd)
