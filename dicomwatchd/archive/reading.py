"""Documents out of a store, read whole into memory: never more of one than such a document can have."""

from __future__ import annotations

from dicomwatchd.archive.store import ObjectStore

#: A manifest of 150,000 instances has 120 MB, and costs six times as much of memory while it is made and compared.
MANIFEST_LIMIT_BYTES = 128 * 1024**2


def at_most(store: ObjectStore, key: str, limit_bytes: int) -> bytes:
    """The object's bytes; of one that has more, ``limit_bytes`` + 1 of them. Raises as `ObjectStore.read`."""
    pieces: list[bytes] = []
    left = limit_bytes + 1
    for chunk in store.read(key):
        piece = bytes(chunk[:left])
        pieces.append(piece)
        left -= len(piece)
        if not left:
            break
    return b"".join(pieces)
