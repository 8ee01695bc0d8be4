"""Studies as a ZIP file (PS3.10 and PS3.12 Annex V), written in one go, and under its name only when it is whole."""

from __future__ import annotations

import io
import secrets
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from dicomwatchd.archive.stores.port import CHUNK_BYTES
from dicomwatchd.fetch.folder import PRIVATE, Occupied, TargetFolder, translated

#: Where instances are: beside them are pages for people, whose names no instance may have.
FOLDER = "DICOM"
#: Pixels as they are: what is compressed already only costs time.
_NATIVE = frozenset(("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"))
_UNIX = 3
_REGULAR = 0o100000


class Unseekable(io.RawIOBase):
    """Standard output may be a file that others write to as well: nothing before this is ours to go back to."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._stream.write(cast(bytes, data))

    def flush(self) -> None:
        self._stream.flush()


class ZipWriter:
    """Members have ``mode`` and the time at which this was made. ``deflate``: what is not compressed gets to be."""

    def __init__(self, stream: BinaryIO, *, mode: int = PRIVATE, deflate: bool = False) -> None:
        self._zip = zipfile.ZipFile(stream, "w", allowZip64=True)
        self._mode = mode
        self._deflate = deflate
        self._time = time.localtime()[:6]

    def add(self, path: str, content: BinaryIO, size_bytes: int, transfer_syntax_uid: str) -> None:
        """A DICOM file, its bytes unchanged. Raises DiskFull, Permanent."""
        info = self._info(path, size_bytes, deflate=self._deflate and transfer_syntax_uid in _NATIVE)
        self._write(info, content)

    def add_text(self, path: str, text: bytes) -> None:
        self._write(self._info(path, len(text), deflate=self._deflate), io.BytesIO(text))

    def _info(self, path: str, size_bytes: int, *, deflate: bool) -> zipfile.ZipInfo:
        if path.startswith("/") or "\\" in path or not {"", ".", ".."}.isdisjoint(path.split("/")):
            raise ValueError("a name that leads elsewhere")
        info = zipfile.ZipInfo(path, self._time)
        info.compress_type = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
        info.file_size = size_bytes  # by which it is written as ZIP64 from the beginning
        info.create_system, info.external_attr = _UNIX, (_REGULAR | self._mode) << 16
        return info

    def _write(self, info: zipfile.ZipInfo, content: BinaryIO) -> None:
        try:
            with self._zip.open(info, "w") as member:
                while chunk := content.read(CHUNK_BYTES):
                    member.write(chunk)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise translated(error, "the ZIP file cannot be written") from error

    def finish(self) -> int:
        """Write the list of what is in it, without which nothing takes it for a ZIP file; how large it is. Raises
        DiskFull, Permanent."""
        stream = self._zip.fp
        assert stream is not None  # noqa: S101  nobody has finished it before
        try:
            self._zip.close()
            return stream.tell()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise translated(error, "the ZIP file cannot be written") from error

    def __enter__(self) -> ZipWriter:
        return self

    def __exit__(self, *_: object) -> None:
        """Unless it was finished, what is there stays without its list."""
        self._zip.fp = None


@contextmanager
def new_file(
    path: Path, mode: int = PRIVATE, token: Callable[[], str] = lambda: secrets.token_hex(8)
) -> Iterator[tuple[BinaryIO, Callable[[], None]]]:
    """A file without its name yet, and what gives it that name; gone afterwards unless it was given. Raises Occupied if
    there is something under the name, now or then, Permanent."""
    with TargetFolder.opened(path.parent, token, mode) as target, target.below("") as folder:
        if path.is_symlink() or path.exists():
            raise Occupied("there is already a file of this name; it was not touched", path=str(path))
        folder.remove_leftovers()
        with folder.temporary() as file:
            stream = file.stream()

            def publish() -> None:
                try:
                    stream.flush()
                except OSError as error:
                    raise translated(error, "the file cannot be finished") from error
                file.publish(path.name)
                folder.flush()

            try:
                yield stream, publish
            finally:
                with suppress(OSError):  # of what was never written, and has no name
                    stream.close()
