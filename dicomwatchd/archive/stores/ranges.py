"""Parts of an object: asking a store for one (RFC 9110 section 14), and cutting it out of what comes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dicomwatchd.archive.stores.port import Chunk

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)\Z")


@dataclass(frozen=True, slots=True)
class Wanted:
    """``length_bytes`` bytes of an object, 1 or more, from ``offset_bytes`` on."""

    offset_bytes: int
    length_bytes: int

    def __post_init__(self) -> None:
        if self.offset_bytes < 0 or self.length_bytes < 1:
            raise ValueError("a part of an object begins in it and holds something")

    @property
    def header(self) -> str:
        return f"bytes={self.offset_bytes}-{self.offset_bytes + self.length_bytes - 1}"


def surplus(wanted: Wanted | None, content_range: str | None, body_bytes: int) -> int | None:
    """How many bytes of an answer's body stand before what was wanted; None if it is another part than that.

    A store may ignore Range and answer with the whole object, which is right too. A part that is shorter than what
    was wanted must end where the object ends.
    """
    if content_range is None:
        return wanted.offset_bytes if wanted is not None else 0
    match = _CONTENT_RANGE.match(content_range)
    if wanted is None or match is None:
        return None
    first, last = int(match[1]), int(match[2])
    whole = body_bytes == wanted.length_bytes or match[3] == str(last + 1)
    fits = first == wanted.offset_bytes and last - first + 1 == body_bytes <= wanted.length_bytes
    return 0 if fits and whole else None


def cut(chunks: Iterable[Chunk], skip_bytes: int, length_bytes: int | None) -> Iterator[Chunk]:
    """``length_bytes`` of what comes after the first ``skip_bytes``, or all of it; no more chunks are asked for than
    that takes. Nothing is copied of a chunk that is wanted as it is."""
    for chunk in chunks:
        size = len(chunk)
        if skip_bytes or (length_bytes is not None and size > length_bytes):
            chunk = chunk[skip_bytes : None if length_bytes is None else skip_bytes + length_bytes]
            skip_bytes -= min(skip_bytes, size)
        if length_bytes is not None:
            length_bytes -= len(chunk)
        if chunk:
            yield chunk
        if length_bytes == 0:
            return
