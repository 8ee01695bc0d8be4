"""What stands before a data set in a file (PS3.10 section 7.1): preamble, prefix and File Meta Information."""

from __future__ import annotations

import struct

from dicomwatchd import __version__
from dicomwatchd.model import Uid

#: Of this program as a receiver; below 2.25 (PS3.5 section B.2), made once and for ever.
IMPLEMENTATION_CLASS_UID = "2.25.306178350715473078341623967174707966"
IMPLEMENTATION_VERSION = f"DICOMWATCHD_{__version__}"[:16].rstrip(".")

_LONG = (b"OB",)


def beginning(sop_class: Uid, sop_instance: Uid, transfer_syntax: Uid, source_ae_title: str) -> bytes:
    """All of a file up to its data set. ``source_ae_title`` is what the peer calls itself."""
    elements = b"".join(
        (
            _element(0x0001, b"OB", b"\0\1"),
            _element(0x0002, b"UI", sop_class.encode()),
            _element(0x0003, b"UI", sop_instance.encode()),
            _element(0x0010, b"UI", transfer_syntax.encode()),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode()),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION.encode()),
            _element(0x0016, b"AE", source_ae_title.encode("ascii", "replace")) if source_ae_title else b"",
        )
    )
    return b"\0" * 128 + b"DICM" + _element(0x0000, b"UL", struct.pack("<L", len(elements))) + elements


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    """Explicit VR Little Endian."""
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    head = struct.pack("<HH2s", 0x0002, element, vr)
    return head + (struct.pack("<HL", 0, len(value)) if vr in _LONG else struct.pack("<H", len(value))) + value
