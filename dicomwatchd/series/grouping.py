"""Which frames are read together, and what is kept of an answer on this machine until somebody has taken it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dicomwatchd.fetch.spool import MEMORY_BYTES
from dicomwatchd.series.pixels import Frame

#: What lies between two frames that are read together is read, too: up to here that costs less than a request.
GAP_BYTES = 256 * 1024
#: Frames that are read together take so many bytes at most, unless one alone takes more.
TOGETHER_BYTES = 8 * 1024**2
#: From the first to the last byte of a frame. Above it, it is compared in a temporary file, and not in memory: nobody
#: says that the pieces of a frame are near to each other, or that a frame is small.
IN_MEMORY_BYTES = 32 * 1024**2


class Held(NamedTuple):
    """Bytes in memory, and in temporary files."""

    memory_bytes: int
    disk_bytes: int


def held_for_file(size_bytes: int) -> Held:
    """By `Contents.file` and `bulk`."""
    return Held(size_bytes, 0) if size_bytes <= MEMORY_BYTES else Held(0, size_bytes)


def held_for_frames(frames: Sequence[Frame]) -> Held:
    """By `Contents.frames`, of a file that is not deflated: at most."""
    in_memory = [frame.size_bytes for frame in frames if is_in_memory([frame])]
    on_disk = [frame.size_bytes for frame in frames if not is_in_memory([frame])]
    return Held(min(sum(in_memory), max([TOGETHER_BYTES, *in_memory])), max(on_disk, default=0))


def held_for_inflated(packed_bytes: int, frames: Sequence[Frame]) -> Held:
    """The same, of a deflated file: first all of it, then beside it the frames."""
    packed = held_for_file(packed_bytes)
    taken = held_for_file(sum(frame.size_bytes for frame in set(frames)))
    return Held(packed.memory_bytes + taken.memory_bytes, packed.disk_bytes + taken.disk_bytes)


def is_in_memory(group: Sequence[Frame]) -> bool:
    """Whether what is read together is compared there."""
    begin, end = span(group)
    return end - begin <= IN_MEMORY_BYTES


def span(frames: Sequence[Frame]) -> tuple[int, int]:
    """Where the first piece begins and the last one ends: each stands behind the one before it (`document`)."""
    return frames[0].pieces[0][0], frames[-1].pieces[-1][0] + frames[-1].pieces[-1][1]


def together(frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    """Those that are read at once: each behind the one before it, and not far."""
    group: list[Frame] = []
    for frame in frames:
        if group:
            begin = group[0].pieces[0][0]
            last = group[-1].pieces[-1]
            gap = frame.pieces[0][0] - (last[0] + last[1])
            end = frame.pieces[-1][0] + frame.pieces[-1][1]
            if not 0 <= gap <= GAP_BYTES or end - begin > TOGETHER_BYTES:
                yield group
                group = []
        group.append(frame)
    if group:
        yield group
