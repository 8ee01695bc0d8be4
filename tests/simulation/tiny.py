"""Makes DICOM instances of a few hundred bytes by concatenation: thousands of seeds need very many of them."""

from __future__ import annotations

import struct
from functools import lru_cache

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def instance(
    study: str, series: str, sop_instance: str, payload: int, *, patient: str = "P1", edition: int = 0
) -> bytes:
    """A whole CT image of 2 x 2 pixels; another ``payload`` means other pixels and nothing else, another ``edition``
    the same data set in another file."""
    identification = _text(0x0008, 0x0016, b"UI", CT_IMAGE) + _text(0x0008, 0x0018, b"UI", sop_instance)
    pixels = struct.pack("<HH2sHLQ", 0x7FE0, 0x0010, b"OW", 0, 8, payload)
    return (
        struct.pack("<Q", edition) + _meta(sop_instance)[8:] + identification + _rest(study, series, patient) + pixels
    )


def data_set_of(data: bytes) -> bytes:
    """Of a whole instance made here: without preamble, and without what somebody has appended."""
    pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 8)
    before, _, after = data[128:].partition(pixels)
    return before + after[:8]


def patient_of(data: bytes) -> str:
    """Whom an instance made here names; "" where that part of it is missing."""
    start = struct.pack("<HH2sH", 0x0010, 0x0020, b"LO", 2)
    return data.partition(start)[2][:2].decode("ascii", "replace")


def _meta(sop_instance: str) -> bytes:
    rest = (
        _text(0x0002, 0x0002, b"UI", CT_IMAGE)
        + _text(0x0002, 0x0003, b"UI", sop_instance)
        + _text(0x0002, 0x0010, b"UI", EXPLICIT_LITTLE_ENDIAN)
    )
    return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, len(rest)) + rest


@lru_cache(maxsize=1000)
def _rest(study: str, series: str, patient: str) -> bytes:
    return b"".join(
        (
            _text(0x0008, 0x0020, b"DA", "20260131"),
            _text(0x0008, 0x0050, b"SH", "A1"),
            _text(0x0008, 0x0060, b"CS", "CT"),
            _text(0x0010, 0x0010, b"PN", "DOE^JANE"),
            _text(0x0010, 0x0020, b"LO", patient),
            _text(0x0020, 0x000D, b"UI", study),
            _text(0x0020, 0x000E, b"UI", series),
            _number(0x0028, 0x0002, 1),
            _text(0x0028, 0x0004, b"CS", "MONOCHROME2"),
            _number(0x0028, 0x0010, 2),
            _number(0x0028, 0x0011, 2),
            _number(0x0028, 0x0100, 16),
        )
    )


def _text(group: int, element: int, vr: bytes, value: str) -> bytes:
    raw = value.encode("ascii")
    if len(raw) % 2:
        raw += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", group, element, vr, len(raw)) + raw


def _number(group: int, element: int, value: int) -> bytes:
    return struct.pack("<HH2sHH", group, element, b"US", 2, value)
