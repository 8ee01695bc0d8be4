"""Reports of Amazon's on the objects of a bucket: where their files are, and how they are read and checked."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol
from urllib.parse import quote, unquote

from dicomwatchd.archive.stores.port import Chunk, ObjectStore
from dicomwatchd.archive.stores.reading import at_most, values
from dicomwatchd.errors import NoSuchObject, Permanent

#: A report's manifest names its files: 10^9 objects are some thousands, of three values each.
_MANIFEST_BYTES = 16 * 1024 * 1024
_MANIFEST_VALUES = 200_000
_READ_BYTES = 1024 * 1024
#: Of a row: a key has 1,024 bytes at most, an access control list some thousands.
_LINE_CHARACTERS = 100_000
_PLAIN = re.compile(r"[A-Za-z0-9!_.*'()/-]+\Z")
_MD5 = re.compile(r"[0-9a-f]{32}\Z")


def bad(what: str, hint: str | None = None) -> Permanent:
    """A report that cannot be used; nothing is said of any object by it."""
    return Permanent(what, code="bad-report", hint=hint)


class Place(Protocol):
    """Where the files of a report are."""

    def whole(self, name: str) -> bytes | None:
        """A small file; None where it is not there. Raises Permanent, Transient."""
        ...

    def chunks(self, name: str) -> Iterator[Chunk]:
        """A file that may be large. Raises Permanent where it is not there; Transient."""
        ...


@dataclass(frozen=True, slots=True)
class InFolder:
    """Files that somebody has copied here. A manifest names them by their keys in the bucket: what counts is the last
    part of the name, beside the manifest, or in the folder beside it or above it where the bucket has them."""

    folder: Path

    def whole(self, name: str) -> bytes | None:
        path = self._path(name)
        if path is None:
            return None
        with _readable(path), path.open("rb") as file:
            return _limited(file.read(_MANIFEST_BYTES + 1))

    def chunks(self, name: str) -> Iterator[Chunk]:
        path = self._path(name)
        if path is None:
            raise bad(f"a file of the report is missing: {PurePosixPath(name).name}", "copy it beside the manifest")
        with _readable(path), path.open("rb") as file:
            while data := file.read(_READ_BYTES):
                yield data

    def _path(self, name: str) -> Path | None:
        last = PurePosixPath(name).name
        above = self.folder.parent
        places = (self.folder, self.folder / "data", self.folder / "results", above / "data", above / "results")
        return next((place / last for place in places if last not in ("", "..") and (place / last).is_file()), None)


@dataclass(frozen=True, slots=True)
class InBucket:
    """Files where Amazon has put them. ``store`` is of the whole bucket."""

    store: ObjectStore

    def whole(self, name: str) -> bytes | None:
        try:
            return _limited(at_most(self.store, name, _MANIFEST_BYTES))
        except NoSuchObject:
            return None

    def chunks(self, name: str) -> Iterator[Chunk]:
        try:
            yield from self.store.read(name)
        except NoSuchObject as error:
            raise bad(f"a file of the report is missing: {PurePosixPath(name).name}") from error


def _limited(data: bytes) -> bytes:
    if len(data) > _MANIFEST_BYTES or values(data) > _MANIFEST_VALUES:
        raise bad("the manifest of a report is larger than any")
    return data


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Permanent("a file of the report cannot be read", code="bad-report", path=str(path)) from error


@dataclass(frozen=True, slots=True)
class DataFile:
    """``md5`` in lower-case hexadecimal; None where nobody vouches for the file."""

    name: str
    md5: str | None
    size_bytes: int | None = None


def checked_md5(value: object) -> str:
    """Raises ValueError, TypeError, AttributeError."""
    if not _MD5.match(found := value.lower()):  # type: ignore[attr-defined]
        raise ValueError("no MD5")
    return str(found)


def rows(place: Place, file: DataFile, *, compressed: bool) -> Iterator[Sequence[str]]:
    """The rows of a CSV file (RFC 4180). The MD5 is compared when all of it has been read: what was taken from it until
    then is worth nothing if this raises. Raises Permanent (code "bad-report"), Transient."""
    name = PurePosixPath(file.name).name
    raw = _Hashing(place.chunks(file.name))
    binary: IO[bytes] = io.BufferedReader(raw, _READ_BYTES)
    if compressed:
        binary = gzip.GzipFile(fileobj=binary)  # type: ignore[assignment]
    try:
        # What is no UTF-8 is in no key of ours; what is longer than a line can be has too few columns.
        text = io.TextIOWrapper(binary, "utf-8", "surrogateescape", newline="")
        yield from csv.reader(iter(lambda: text.readline(_LINE_CHARACTERS), ""))
    except EOFError as error:
        raise bad(f"{name} of the report ends early", "copy it anew") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise bad(f"{name} of the report is damaged: it cannot be decompressed", "copy it anew") from error
    except csv.Error as error:
        raise bad(f"{name} of the report is no CSV") from error
    if file.size_bytes is not None and raw.size_bytes != file.size_bytes:
        raise bad(f"{name} of the report has another size than its manifest says", "copy it anew")
    if file.md5 is not None and raw.md5.hexdigest() != file.md5:
        raise bad(f"{name} of the report has another MD5 than its manifest says", "copy it anew")


class _Hashing(io.RawIOBase):
    """The bytes of some chunks, hashed as they are read."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._chunks, self._left = chunks, memoryview(b"")
        self.md5, self.size_bytes = hashlib.md5(usedforsecurity=False), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(bytes(chunk))
            self.md5.update(self._left)
            self.size_bytes += len(self._left)
        length = min(len(buffer), len(self._left))
        buffer[:length] = self._left[:length]
        self._left = self._left[length:]
        return length


def plain_key(raw: str) -> str:
    """A key as the archive writes it: reports have it URL-encoded (RFC 3986). One that no archive could have stays
    encoded, so that it is one line of plain characters, and no other one's."""
    if _PLAIN.match(raw):
        return raw
    return quote(unquote(raw, errors="surrogateescape"), safe="/!_.*'()-", errors="surrogateescape")


def optional(value: str) -> str | None:
    """A version or an ETag. "null" is the version of what was stored without versions: it names no content."""
    value = value.strip('"')
    if "\t" in value or "\n" in value:
        raise ValueError("no version and no ETag")
    return value if value not in ("", "null") else None
