"""Bytes that come in chunks, read forward only: a file on its way out of a store, or what a deflated one inflates
to."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator

from dicomwatchd.intake.dicom.opening import inflated_allowed
from dicomwatchd.intake.dicom.reading import INFLATED_LIMIT_BYTES
from dicomwatchd.series.unreadable import Unreadable

_INFLATED_STEP_BYTES = 256 * 1024


class Forward:
    """``at`` is where the next byte stands. Every byte that comes is hashed, whether it was asked for or not, unless
    their ``sha256`` is known beforehand."""

    def __init__(self, chunks: Iterable[bytes | memoryview], sha256: str = "") -> None:
        self._chunks = iter(chunks)
        self._known = sha256
        self._sha256 = hashlib.sha256()
        self._chunk = b""
        self._index = 0
        self.at = 0

    def peek(self, length: int) -> bytes:
        """The next bytes, which stay; fewer where there are no more."""
        while len(self._chunk) - self._index < length:
            more = self._next()
            if not more:
                break
            self._chunk, self._index = self._chunk[self._index :] + more, 0
        return self._chunk[self._index : self._index + length]

    def take(self, length: int) -> bytes:
        """The next bytes; fewer where there are no more."""
        index = self._index
        if index + length <= len(self._chunk):  # nearly always
            self._index = index + length
            self.at += length
            return self._chunk[index : index + length]
        return b"".join(self.pieces(length))

    def skip(self, length: int) -> int:
        """Passes over so many bytes, and says over how many."""
        return sum(len(piece) for piece in self.pieces(length))

    def pieces(self, length: int) -> Iterator[memoryview]:
        """The next bytes as they come; fewer where there are no more."""
        while length > 0:
            if self._index == len(self._chunk):
                self._chunk, self._index = self._next(), 0
                if not self._chunk:
                    return
            piece = memoryview(self._chunk)[self._index : self._index + length]
            self._index += len(piece)
            self.at += len(piece)
            length -= len(piece)
            yield piece

    def rest(self) -> Iterator[memoryview]:
        """All that is left, as it comes."""
        while True:
            before = self.at
            yield from self.pieces(len(self._chunk) - self._index or 1)
            if self.at == before:
                return

    def finish(self) -> str:
        """Takes what is left; the SHA-256 of all that has come, as 64 hexadecimal digits."""
        for _ in self.rest():
            pass
        return self._known or self._sha256.hexdigest()

    def _next(self) -> bytes:
        for chunk in self._chunks:
            if chunk:
                if not self._known:
                    self._sha256.update(chunk)
                return bytes(chunk)
        return b""


def inflated(packed: Forward, packed_bytes: int) -> Iterator[bytes]:
    """What the rest of a file inflates to (PS3.5 section A.5), a step at a time. ``packed_bytes`` is the size of the
    file, by which the limit goes. Raises Unreadable."""
    left = min(INFLATED_LIMIT_BYTES, inflated_allowed(packed_bytes))
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    for piece in packed.rest():
        todo: bytes | memoryview = piece
        while todo and not stream.eof:
            try:
                found = stream.decompress(todo, _INFLATED_STEP_BYTES)
            except zlib.error as error:
                raise Unreadable("the deflated data set is damaged") from error
            left -= len(found)
            if left < 0:
                raise Unreadable("it inflates to too much data for its size")
            todo = stream.unconsumed_tail
            yield found
        if stream.eof:
            return
