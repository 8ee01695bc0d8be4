"""Documents out of a store, read whole into memory: never more of one than such a document can have."""

from __future__ import annotations

from collections.abc import Iterator

from dicomwatchd.archive.stores.port import Chunk, ObjectStore

#: A manifest of 150,000 instances has 120 MB, and costs six times as much of memory while it is made and compared.
MANIFEST_LIMIT_BYTES = 128 * 1024**2

#: Values of JSON that a manifest may have: so many in any case, and one for every so many of its bytes. Each costs up
#: to 100 bytes of memory, whatever it says: 128 MiB of "{}," would cost 3.5 GiB. An instance has 17 in 400 bytes at
#: least, and 8 MiB of attributes have two million at most.
VALUES_ALLOWED = 2_000_000
BYTES_PER_VALUE = 16

_PIECE_BYTES = 1024**2


def with_checksum(store: ObjectStore, key: str, limit_bytes: int) -> tuple[bytes, str | None]:
    """As `at_most`, with the checksum of the object that the store gives with it, None where it gives none."""
    told: list[str] = []
    data = _first(store.read(key, checksum=told.append), limit_bytes)
    return data, told[0] if told else None


def at_most(store: ObjectStore, key: str, limit_bytes: int) -> bytes:
    """The object's bytes; of one that has more, ``limit_bytes`` + 1 of them. Raises as `ObjectStore.read`."""
    return _first(store.read(key), limit_bytes)


def _first(chunks: Iterator[Chunk], limit_bytes: int) -> bytes:
    pieces: list[bytes] = []
    left = limit_bytes + 1
    for chunk in chunks:
        piece = bytes(chunk[:left])
        pieces.append(piece)
        left -= len(piece)
        if not left:
            break
    return b"".join(pieces)


def values(text: bytes) -> int:
    """How many values of JSON, about, a text has: all that it could have, strings with such characters counted in."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def has_too_many_values(text: bytes) -> bool:
    """Whether reading it as JSON would cost far more memory than a manifest of this size."""
    allowed = VALUES_ALLOWED + len(text) // BYTES_PER_VALUE
    return values(text) > allowed and _values_outside_of_strings(text) > allowed


def _values_outside_of_strings(text: bytes) -> int:
    """A path may be made of commas. A piece at a time, since one of nothing but quotation marks takes much memory."""
    found, begin, inside = 0, 0, False
    while begin < len(text):
        piece = text[begin : begin + _PIECE_BYTES]
        end = begin + len(piece)
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # what it escapes stands behind
            end += 1
        parts = text[begin:end].replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')
        found += values(b"".join(parts[inside::2]))
        inside ^= len(parts) % 2 == 0
        begin = end
    return found
