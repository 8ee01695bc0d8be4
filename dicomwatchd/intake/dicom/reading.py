"""Reads bytes of an open file at given offsets, plain or inflated, and never more of it than a small window."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from dicomwatchd.errors import SourceChanged, Unarchivable
from dicomwatchd.intake.dicom.verdict import DamageFound

_FIRST_WINDOW_BYTES = 16 * 1024  # the whole header of most instances, in one read
_JUMP_WINDOW_BYTES = 4 * 1024  # after a jump over a value: the page that holds the next element's header
_NEAR_WINDOW_BYTES = 64 * 1024  # when the walk goes on where the window ended
_INFLATE_STEP_BYTES = 64 * 1024
_KEPT_BYTES = 64 * 1024  # of what was read of a stream
INFLATED_LIMIT_BYTES = 1024**3


class ByteSource(Protocol):
    """Bytes by offset, to be asked for in ascending order."""

    def read(self, offset: int, length: int) -> bytes:
        """The bytes at ``offset``; fewer than ``length`` only where the data ends."""
        ...

    def window(self, offset: int, length: int) -> tuple[bytes, int]:
        """Bytes that are in memory, and where among them those at ``offset`` begin: ``length`` of them at least, fewer
        only where the data ends."""
        ...

    def holds(self, end: int) -> bool:
        """Whether there are at least ``end`` bytes. Nothing before ``end`` is asked for afterwards."""
        ...


class SizedSource(ByteSource, Protocol):
    """All of a file."""

    @property
    def size_bytes(self) -> int: ...


class MemoryBytes:
    """Bytes that are there already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    def window(self, offset: int, _length: int) -> tuple[bytes, int]:
        return self._data, offset

    def holds(self, end: int) -> bool:
        return end <= len(self._data)


class FileBytes:
    """An open regular file of ``size_bytes``; neither closes the descriptor nor moves its position.

    Raises SourceChanged when the file is shorter than it was said to be; the kernel's OSError, as opening the file
    does, when it cannot be read.
    """

    def __init__(self, fd: int, size_bytes: int, heartbeat: Callable[[], None] = lambda: None) -> None:
        self._fd = fd
        self._heartbeat = heartbeat
        self.size_bytes = size_bytes
        self._at = 0
        self._window = self._pread(0, min(_FIRST_WINDOW_BYTES, size_bytes))

    def read(self, offset: int, length: int) -> bytes:
        window, start = self.window(offset, length)
        return window[start : start + length]

    def window(self, offset: int, length: int) -> tuple[bytes, int]:
        start = offset - self._at
        if start < 0 or start + length > len(self._window):
            self._move(offset, length)
            start = 0
        return self._window, start

    def holds(self, end: int) -> bool:
        return end <= self.size_bytes

    def _move(self, offset: int, length: int) -> None:
        # Headers that follow each other closely are worth a large window; after a jump over a long value it would
        # only drag pixel data through memory.
        gap = offset - self._at - len(self._window)
        ahead = _NEAR_WINDOW_BYTES if gap < _JUMP_WINDOW_BYTES else _JUMP_WINDOW_BYTES
        self._window = self._pread(offset, max(0, min(max(length, ahead), self.size_bytes - offset)))
        self._at = offset

    def _pread(self, offset: int, length: int) -> bytes:
        pieces = []
        while length > 0:
            self._heartbeat()
            piece = os.pread(self._fd, length, offset)
            if not piece:
                raise SourceChanged("the file became shorter while its header was read")
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class StreamedBytes:
    """A file of ``size_bytes`` that comes in chunks, as out of a store; goes forward only, and keeps a little of what
    was read. All that comes is hashed on its way."""

    def __init__(self, chunks: Iterator[bytes | memoryview], size_bytes: int) -> None:
        self._chunks = chunks
        self._sha256 = hashlib.sha256()
        self._buffer = bytearray()
        self._at = 0
        self.size_bytes = size_bytes

    def read(self, offset: int, length: int) -> bytes:
        if offset < self._at:
            raise ValueError("a stream is read forward only")
        self._drop_before(offset - _KEPT_BYTES)
        while self._at + len(self._buffer) < offset + length and self._take():
            self._drop_before(offset - _KEPT_BYTES)  # a value that is jumped over may be most of the file
        start = offset - self._at
        return bytes(self._buffer[start : start + length])

    def window(self, offset: int, length: int) -> tuple[bytes, int]:
        return self.read(offset, length), 0

    def holds(self, end: int) -> bool:
        return end <= self.size_bytes

    def finish(self) -> str:
        """Takes what is left, and gives the SHA-256 of all that has come, as 64 hexadecimal digits."""
        self._buffer.clear()
        while self._take():
            self._buffer.clear()
        return self._sha256.hexdigest()

    def _drop_before(self, offset: int) -> None:
        dropped = min(offset - self._at, len(self._buffer))
        if dropped > 0:
            del self._buffer[:dropped]
            self._at += dropped

    def _take(self) -> bool:
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self._sha256.update(chunk)
        self._buffer += chunk
        return True


class InflatedBytes:
    """What the deflated rest of a file (PS3.5 A.5) inflates to, from ``start`` on; goes forward only.

    Inflates step by step and keeps one step, so neither an honest volume nor a bomb fills the memory; the limit
    bounds the time. Raises DamageFound when the stream is damaged, Unarchivable "inflated-too-large" beyond
    ``limit_bytes``.
    """

    def __init__(self, packed: SizedSource, start: int, limit_bytes: int = INFLATED_LIMIT_BYTES) -> None:
        self._packed = packed
        self._next = start
        self._limit_bytes = limit_bytes
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._at = 0
        self._window = b""

    @property
    def complete(self) -> bool:
        """Whether the deflated stream has come to its own end."""
        return self._inflate.eof

    @property
    def rest_bytes(self) -> int:
        """How many bytes of the file follow the deflated stream; 0 until it is complete."""
        return self._packed.size_bytes - self._next + len(self._inflate.unused_data) if self.complete else 0

    def read(self, offset: int, length: int) -> bytes:
        window, start = self.window(offset, length)
        return window[start : start + length]

    def window(self, offset: int, length: int) -> tuple[bytes, int]:
        if offset < self._at:
            raise ValueError("an inflated data set is read forward only")
        while self._at + len(self._window) < offset + length and self._step(keep_from=offset):
            pass
        return self._window, min(offset - self._at, len(self._window))

    def holds(self, end: int) -> bool:
        while self._at + len(self._window) < end and self._step(keep_from=end):
            pass
        return self._at + len(self._window) >= end

    def finish(self) -> None:
        """Inflate what is left of the stream, so that `complete` is known."""
        while self._step(keep_from=self._at + len(self._window)):
            pass

    def _step(self, keep_from: int) -> bool:
        """Inflate a little more and drop what lies before ``keep_from``; False when there is no more."""
        if self._inflate.eof:
            return False
        packed = self._inflate.unconsumed_tail
        if not packed:
            packed = self._packed.read(self._next, _INFLATE_STEP_BYTES)
            self._next += len(packed)
        try:
            # Without input it may still give what it holds back.
            piece = self._inflate.decompress(packed, _INFLATE_STEP_BYTES)
        except zlib.error as error:
            raise DamageFound("the deflated data set is damaged", "malformed") from error
        dropped = min(max(keep_from - self._at, 0), len(self._window))
        self._window = self._window[dropped:] + piece
        self._at += dropped
        if self._at + len(self._window) > self._limit_bytes:
            raise Unarchivable(
                "it inflates to too much data for its size; store it uncompressed to have it archived",
                code="inflated-too-large",
            )
        return bool(packed or piece)
