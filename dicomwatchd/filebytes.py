"""The bytes of an open file: exactly so many of them, or their hash, with a sign of life on the way.

Raises SourceChanged where the file has fewer than it was said to have; the kernel's OSError.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from dicomwatchd.errors import SourceChanged

#: Small enough to be in the processor's cache still when it is hashed.
CHUNK_BYTES = 1 << 18
#: Read in one go. A share that gives a megabyte a second to all who ask shows in between that it answers.
PIECE_BYTES = 1 << 20


def _nothing() -> None: ...


def read_exactly(fd: int, offset: int, length: int, heartbeat: Callable[[], None] = _nothing) -> bytes:
    """``heartbeat`` is called after each piece."""
    first = os.pread(fd, min(length, PIECE_BYTES), offset)
    if len(first) == length:
        return first
    parts, have = [first], len(first)
    while have < length:
        heartbeat()
        part = os.pread(fd, min(length - have, PIECE_BYTES), offset + have)
        if not part:
            raise SourceChanged("the file became shorter while it was read")
        parts.append(part)
        have += len(part)
    return b"".join(parts)


def fill(fd: int, offset: int, buffer: memoryview, heartbeat: Callable[[], None] = _nothing) -> None:
    """As `read_exactly`, into memory that is there: fresh memory costs the kernel more than the reading does."""
    filled = 0
    while filled < len(buffer):
        if filled:
            heartbeat()
        count = os.preadv(fd, [buffer[filled : filled + PIECE_BYTES]], offset + filled)
        if not count:
            raise SourceChanged("the file became shorter while it was read")
        filled += count


def sha256_of(fd: int, size_bytes: int, heartbeat: Callable[[], None] = _nothing) -> str:
    """SHA-256 of an open file's first ``size_bytes``, in lower-case hex, in flat memory. ``heartbeat`` is called after
    each piece."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(CHUNK_BYTES, size_bytes)))
    for offset in range(0, size_bytes, CHUNK_BYTES):
        chunk = buffer[: size_bytes - offset]
        fill(fd, offset, chunk)
        digest.update(chunk)
        heartbeat()
    return digest.hexdigest()


def sha256_in_pieces(
    fd: int, size_bytes: int, piece_bytes: int, heartbeat: Callable[[], None] = _nothing
) -> tuple[str, tuple[bytes, ...]]:
    """As `sha256_of`, and the SHA-256 of each piece: from one reading of the bytes. ``piece_bytes`` is a multiple of
    PIECE_BYTES.

    The pieces are hashed beside the whole, in a second thread: the whole cannot be divided.
    """
    whole, pieces, before = hashlib.sha256(), [], None
    buffers = [memoryview(bytearray(min(PIECE_BYTES, size_bytes))) for _ in range(2)]
    with ThreadPoolExecutor(1, thread_name_prefix="sha256") as beside:
        for number, offset in enumerate(range(0, size_bytes, PIECE_BYTES)):
            chunk = buffers[number % 2][: size_bytes - offset]
            fill(fd, offset, chunk)  # the buffer before this one may still be hashed
            if before is not None:
                before.result()
            if offset % piece_bytes == 0:
                pieces.append(hashlib.sha256())
            before = beside.submit(pieces[-1].update, chunk)
            whole.update(chunk)
            heartbeat()
        if before is not None:
            before.result()
    return whole.hexdigest(), tuple(piece.digest() for piece in pieces)
