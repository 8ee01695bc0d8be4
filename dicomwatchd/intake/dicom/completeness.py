"""Judges whether a data set whose lengths all add up also holds what its own attributes, or its class, call for."""

from __future__ import annotations

import re
from functools import lru_cache

import pydicom.config
from pydicom.uid import UID

from dicomwatchd.intake.dicom.structure import (
    DOUBLE_PIXEL_DATA,
    FLOAT_PIXEL_DATA,
    PIXEL_DATA,
    DataSet,
    truncated,
)

_SAMPLES = 0x00280002
_PHOTOMETRIC = 0x00280004
_FRAMES = 0x00280008
_ROWS = 0x00280010
_COLUMNS = 0x00280011
_BITS_ALLOCATED = 0x00280100
CHOSEN_TAGS = frozenset({_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _BITS_ALLOCATED})

_PIXEL_DATA_URL = 0x00287FE0
_PIXELS = frozenset({PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA, _PIXEL_DATA_URL})
_WAVEFORMS = frozenset({0x54000100})
_CONTENT = frozenset({0x0040A730})
_DOCUMENT = frozenset({0x00420011})
LANDMARKS = _PIXELS | _WAVEFORMS | _CONTENT | _DOCUMENT

_NATIVE = frozenset(
    {
        "1.2.840.10008.1.2",  # Implicit VR Little Endian
        "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
        "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
        "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
        "1.2.840.113619.5.2",  # GE's private one
    }
)
# MPEG and HEVC: a whole film is one fragment or any number of them.
_VIDEO = re.compile(r"1\.2\.840\.10008\.1\.2\.4\.10\d(\.1)?\Z")
_STANDARD_ENCAPSULATED = re.compile(r"1\.2\.840\.10008\.1\.2\.(4|5|8)(\.|\Z)")


def check(found: DataSet, sop_class_uid: str, transfer_syntax_uid: str) -> list[str]:
    """Notes on what is odd; raises Unarchivable (code "truncated") where something is missing.

    A cut between two elements leaves all lengths whole. It shows when the SOP class needs an element that is not
    there, or Rows and Columns are there and no pixels.

    Native pixel data shorter than Rows x Columns x Samples x Frames x Bits Allocated is taken for cut off, even
    though its own length is whole: a converter that runs out of input writes just that, and no viewer can show
    it. Longer is odd but complete: accepted with a note, one byte of padding without. 4:2:2 and 4:2:0 photometric
    interpretations count as subsampled, since a file that is not is merely longer. Encapsulated pixel data has its
    end delimiter; with fewer fragments than frames it is accepted with a note, and so is native pixel data of full
    length under a compressed transfer syntax. Objects without Rows, and transfer syntaxes nobody knows, are not
    measured.
    """
    needed = _needed(sop_class_uid) or (_PIXELS if found.short(_ROWS) and found.short(_COLUMNS) else frozenset())
    if needed and not needed & found.present:
        raise truncated("the data set ends before the element with its content")
    if found.pixel_tag is None:
        return []
    frames = _frames(found)
    encapsulated = _STANDARD_ENCAPSULATED.match(transfer_syntax_uid) is not None
    if found.pixel_bytes is None:
        short = encapsulated and not _VIDEO.match(transfer_syntax_uid) and found.fragments < frames
        return ["pixel data: fewer fragments than frames"] if short else []
    notes = ["pixel data: native, though the transfer syntax is a compressed one"] if encapsulated else []
    expected_bytes = _native_bytes(found, frames)
    if expected_bytes is None or not (encapsulated or transfer_syntax_uid in _NATIVE):
        return notes
    if found.pixel_bytes < expected_bytes:
        raise truncated("the pixel data is shorter than rows, columns and frames say")
    if found.pixel_bytes > expected_bytes + 1:
        notes.append("pixel data: longer than rows, columns and frames say")
    return notes


def _native_bytes(found: DataSet, frames: int) -> int | None:
    rows, columns, bits = found.short(_ROWS), found.short(_COLUMNS), found.short(_BITS_ALLOCATED)
    if not rows or not columns or not bits:
        return None
    samples = found.short(_SAMPLES) or 1
    bits_per_pixel = bits * samples
    photometric = found.values.get(_PHOTOMETRIC, b"").strip(b" \0")
    if samples == 3 and photometric.endswith((b"_422", b"_420")):
        bits_per_pixel = bits * 2 if photometric.endswith(b"_422") else bits * 3 // 2
    return -(-rows * columns * bits_per_pixel * frames // 8)


def _frames(found: DataSet) -> int:
    text = found.values.get(_FRAMES, b"").strip(b" \0+")
    return max(1, int(text)) if text.isdigit() and len(text) <= 12 else 1


@lru_cache(256)
def _needed(sop_class_uid: str) -> frozenset[int]:
    """Of which elements a class needs one, told by the class's name (PS3.4 B.5)."""
    name = UID(sop_class_uid, validation_mode=pydicom.config.IGNORE).name
    if "Image Storage" in name or name in ("Segmentation Storage", "Parametric Map Storage"):
        return _PIXELS
    if name.endswith("SR Storage") or name == "Key Object Selection Document Storage":
        return _CONTENT
    if name.startswith("Encapsulated "):
        return _DOCUMENT
    if name.endswith("Waveform Storage"):
        return _WAVEFORMS
    return frozenset()
