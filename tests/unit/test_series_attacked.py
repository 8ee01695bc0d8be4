"""Files made to be a burden to whoever writes series objects beside archiving them."""

from __future__ import annotations

import struct
import tracemalloc
from typing import cast

import pytest

from dicomwatchd.model import InstanceHeader, Uid
from dicomwatchd.ports import Log, SystemClock
from dicomwatchd.series.extract import Extracted, extract
from dicomwatchd.series.sent import SentSeries
from dicomwatchd.series.unreadable import TooManyFrames
from tests.unit.memory_archive import MemoryStore

JPEG, EXPLICIT = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1"


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    group, number = tag >> 16, tag & 0xFFFF
    if vr == b"OB":
        return struct.pack("<HH2sHL", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def file(transfer_syntax_uid: str, frames: int, pixels: bytes) -> bytes:
    meta = element(0x00020010, b"UI", transfer_syntax_uid.encode().ljust(22, b"\0"))
    return b"".join(
        (
            bytes(128),
            b"DICM",
            element(0x00020000, b"UL", struct.pack("<L", len(meta))),
            meta,
            element(0x00280002, b"US", struct.pack("<H", 1)),
            element(0x00280004, b"CS", b"MONOCHROME2 "),
            element(0x00280008, b"IS", str(frames).encode().ljust(8)),
            element(0x00280010, b"US", struct.pack("<H", 1)),
            element(0x00280011, b"US", struct.pack("<H", 1)),
            element(0x00280100, b"US", struct.pack("<H", 8)),
            pixels,
        )
    )


def fragmented(number: int) -> bytes:
    """Each fragment is four bytes, and looks as if a frame began and ended with it."""
    begin = struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    fragment = struct.pack("<HHL", 0xFFFE, 0xE000, 4) + b"\xff\xd8\xff\xd9"
    return file(JPEG, 7, begin + fragment * number + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))


def native(number: int) -> bytes:
    return file(EXPLICIT, number, element(0x7FE00010, b"OB", bytes(number)))


def looked_at(data: bytes) -> SentSeries:
    series = SentSeries(
        MemoryStore(), SystemClock(), cast(Log, None), reads_back=False, cpu_seconds=lambda: 0.0, kept_bytes=1 << 30
    )
    header = InstanceHeader(Uid("1.2"), Uid("1.2.3"), Uid("1.2.3.4"), "1.2.840.10008.5.1.4.1.1.2", "")
    series.look(header, "0" * 64, data)
    return series


@pytest.mark.parametrize("data", [fragmented(120_000), native(120_000)], ids=["fragments", "frames"])
def test_a_small_file_of_countless_frames_takes_little_memory_and_is_given_up(data: bytes) -> None:
    """Eight workers may be at such files at once, and after the end of a process that was killed for its memory all of
    them would be again."""
    tracemalloc.start()
    try:
        series = looked_at(data)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 64 << 20
    assert (series.looked_at, series.given_up, series._kept_bytes) == (0, 1, 0)


@pytest.mark.parametrize("data", [native(5_000), fragmented(5_000)], ids=["frames", "fragments"])
def test_an_image_of_5000_frames_is_looked_at(data: bytes) -> None:
    series = looked_at(data)
    assert (series.looked_at, series.given_up) == (1, 0)


def test_whoever_reads_it_alone_has_no_such_limit() -> None:
    found: Extracted = extract([native(60_000)], 60_000)
    assert found.pixels is not None and len(found.pixels.frames) == 60_000
    with pytest.raises(TooManyFrames):
        extract([native(60_000)], 60_000, frames_limit=59_999)
