"""A file-set as the image of a disc (ISO 9660; PS3.12 annexes for CD and DVD), ready to be burnt or mounted."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import BinaryIO, Self, cast

import pycdlib
from pycdlib.pycdlibexception import PyCdlibException

from dicomwatchd.archive.stores.port import CHUNK_BYTES
from dicomwatchd.errors import Permanent
from dicomwatchd.fetch.folder import translated

#: A longer file takes several extents, which level 1 does not know.
_LEVEL_1_BYTES = 0xFFFFF800
_VOLUME = "DICOM"


class _Window(io.RawIOBase):
    """Some bytes of a file, as a file; each reads from its own place, whoever has read before."""

    def __init__(self, file: BinaryIO, begin: int, size_bytes: int) -> None:
        self._file, self._begin, self._size, self._at = file, begin, size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        self._file.seek(self._begin + self._at)
        data = self._file.read(left if size is None or size < 0 else min(size, left))
        self._at += len(data)
        return data


class IsoWriter:
    """Takes files of 8.3 names. An image begins with its directories, so what comes is kept in one file without a name,
    in ``directory``, until all of it is there: for a moment that takes the room of the image once more."""

    def __init__(self, stream: BinaryIO, directory: Path) -> None:
        self._stream = stream
        self._found: list[tuple[str, int, int]] = []
        try:
            self._kept = cast(BinaryIO, tempfile.TemporaryFile(dir=directory))  # noqa: SIM115  for as long as this lives
        except OSError as error:
            raise translated(error, "no temporary file can be created") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    def add(self, path: str, content: BinaryIO, size_bytes: int, transfer_syntax_uid: str) -> None:  # noqa: ARG002
        """Raises DiskFull, Permanent."""
        begin = self._kept.seek(0, io.SEEK_END)
        try:
            while chunk := content.read(CHUNK_BYTES):
                self._kept.write(chunk)
        except OSError as error:
            raise translated(error, "the temporary file cannot be written") from error
        self._found.append((path, begin, size_bytes))

    def add_text(self, path: str, text: bytes) -> None:
        self.add(path, io.BytesIO(text), len(text), "")

    def finish(self) -> int:
        """Write the image; how large it is. Raises DiskFull, Permanent."""
        disc = pycdlib.PyCdlib()
        try:
            self._kept.flush()
            large = any(size > _LEVEL_1_BYTES for _, _, size in self._found)
            disc.new(interchange_level=3 if large else 1, vol_ident=_VOLUME)
            for folder in sorted({up for path, _, _ in self._found for up in _above(path)}):
                disc.add_directory(f"/{folder}")
            for path, begin, size_bytes in self._found:
                name = path if "." in path else f"{path}."
                window = cast(BinaryIO, _Window(self._kept, begin, size_bytes))
                disc.add_fp(window, size_bytes, f"/{name};1")
            disc.write_fp(self._stream)
            self._stream.flush()
        except OSError as error:
            raise translated(error, "the image of the disc cannot be written") from error
        except PyCdlibException as error:
            raise Permanent("the files do not fit an ISO 9660 file system", code="no-image") from error
        finally:
            disc.close()
        return self._stream.seek(0, io.SEEK_END)


def _above(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
