"""Judges whether a data set whose lengths all add up also holds what its own attributes, or its class, call for.

A cut between two elements leaves all lengths whole. It shows where the SOP class has an element that carries its
content (`sop_classes.CONTENT`, out of PS3.3) and the data set ends before the place of that element. Elements stand in
ascending order: when one of a later place is there, the other was not cut off but left out by the device that wrote the
file, as devices do with what the standard demands, and the file is whole. Of a class without such an element, a private
one above all, it cannot be told, unless pixel data or one of the elements that close a data set stand at the end.
"""

from __future__ import annotations

import re

from dicomwatchd.intake.dicom.sop_classes import CONTENT, ELEMENTS
from dicomwatchd.intake.dicom.structure import CUT_OFF_BY_ZEROS, SECTOR_BYTES, SMALLEST_ELEMENT_BYTES, DataSet
from dicomwatchd.intake.dicom.verdict import WHOLE, Completeness, Verdict

_SAMPLES = 0x00280002
_PHOTOMETRIC = 0x00280004
_FRAMES = 0x00280008
_ROWS = 0x00280010
_COLUMNS = 0x00280011
_BITS_ALLOCATED = 0x00280100
_PLAN_GEOMETRY = 0x300A000C
CHOSEN_TAGS = frozenset({_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _BITS_ALLOCATED, _PLAN_GEOMETRY})

_PIXEL_DATA = "Pixel Data"
_URL = 0x00287FE0  # Pixel Data Provider URL: the pixels are on a server
_PIXELS = frozenset(ELEMENTS[_PIXEL_DATA]) - {_URL}
_DOSE_UNITS = 0x30040002  # Type 1
_DVH = 0x30040050
_STRUCTURE_SET_ROIS = 0x30060020
#: Beams, brachytherapy setups, ion beams: what a plan plans.
_PLANNED = frozenset({0x300A00B0, 0x300A0230, 0x300A03A2})
LANDMARKS = frozenset({tag for tags in ELEMENTS.values() for tag in tags} | {_DVH, _STRUCTURE_SET_ROIS} | _PLANNED)
_CLOSING = 0xFFFA0000  # digital signatures and trailing padding stand behind everything else

_RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
_RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_RT_PLANS = frozenset({"1.2.840.10008.5.1.4.1.1.481.5", "1.2.840.10008.5.1.4.1.1.481.8"})

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
# Compressed ones, and Encapsulated Uncompressed.
_STANDARD_ENCAPSULATED = re.compile(r"1\.2\.840\.10008\.1\.2\.((4|5|8)(\.|\Z)|1\.98\Z)")

_NOTHING_CLOSES = "this kind of object has no required element at its end, so a cut there would not be noticed"
_UNKNOWN_CLASS = (
    "the SOP class is private or unknown, and there is no pixel data: a cut between elements would not be noticed"
)


def judge(
    found: DataSet, sop_class_uid: str, transfer_syntax_uid: str, *, is_deflated: bool
) -> tuple[Verdict, list[str]]:
    """The verdict, and notes on what is odd about a data set that was walked to its end.

    Native pixel data shorter than Rows x Columns x Samples x Frames x Bits Allocated is taken for cut off, even
    though its own length is whole: a converter that runs out of input writes just that, and no viewer can show
    it. Longer is odd but complete: accepted with a note, one byte of padding without. 4:2:2 and 4:2:0 photometric
    interpretations count as subsampled, since a file that is not is merely longer. Encapsulated pixel data has its
    end delimiter, and at least one fragment with content for each frame. Native pixel data of full length under a
    compressed transfer syntax is accepted with a note. Pixel data of objects without Rows, and of transfer syntaxes
    nobody knows, is not measured.

    Zeros at the end that could hold elements are padding only where everything else says whole, and where they fill
    the last sector of the file. A deflated data set has an end of its own: nothing before it is cut off unnoticed.
    """
    notes: list[str] = []
    reason = _pixels_amiss(found, sop_class_uid, transfer_syntax_uid, notes)
    if reason:
        return Verdict(Completeness.DAMAGED, reason, found.pixel_offset or found.end), notes
    verdict = _content(found, sop_class_uid, notes)
    if found.zeros and _may_be_unwritten(found, sop_class_uid, verdict, is_deflated=is_deflated):
        return Verdict(Completeness.DAMAGED, CUT_OFF_BY_ZEROS, found.end), notes
    if is_deflated and verdict.completeness is Completeness.CANNOT_TELL:
        return WHOLE, notes
    return verdict, notes


def _content(found: DataSet, sop_class_uid: str, notes: list[str]) -> Verdict:
    is_closed = found.pixel_tag is not None or found.highest_tag >= _CLOSING
    name = CONTENT.get(sop_class_uid)
    if name is None:
        if is_closed:
            return WHOLE
        return Verdict(Completeness.CANNOT_TELL, _NOTHING_CLOSES if _is_standard(sop_class_uid) else _UNKNOWN_CLASS)
    tags = ELEMENTS[name]
    if not found.landmarks.keys().isdisjoint(tags):
        return WHOLE
    if is_closed or found.highest_tag > max(tags):
        notes.append(f"{name}: required by its class, but not in the file")
        return WHOLE
    return _excused(found, sop_class_uid) or Verdict(
        Completeness.DAMAGED, f"the data set ends before the {name} that its class requires", found.end
    )


def _excused(found: DataSet, sop_class_uid: str) -> Verdict | None:
    """What a data set without the element of its class is where the standard has a condition on that element."""
    has = found.landmarks
    if sop_class_uid == _RT_STRUCTURE_SET and has.get(_STRUCTURE_SET_ROIS) is False:
        return WHOLE  # no region of interest, nothing observed of any
    is_grid = found.short(_ROWS) or found.short(_COLUMNS)
    if sop_class_uid == _RT_DOSE and not is_grid and found.highest_tag >= _DOSE_UNITS:
        # Dose-volume histograms, or doses at points.
        return WHOLE if _DVH in has else Verdict(Completeness.CANNOT_TELL, _NOTHING_CLOSES)
    if sop_class_uid in _RT_PLANS and found.values.get(_PLAN_GEOMETRY, b"").strip(b" \0") == b"TREATMENT_DEVICE":
        return WHOLE if _PLANNED & has.keys() else Verdict(Completeness.CANNOT_TELL, _NOTHING_CLOSES)
    return None


def _may_be_unwritten(found: DataSet, sop_class_uid: str, verdict: Verdict, *, is_deflated: bool) -> bool:
    """Whether the zeros behind a data set may be a part of it that was never written."""
    seen = [found.landmarks[tag] for tag in ELEMENTS.get(CONTENT.get(sop_class_uid, ""), ()) if tag in found.landmarks]
    if seen and not any(seen):
        return True  # its length may be one of the zeros
    if found.zeros < SMALLEST_ELEMENT_BYTES:
        return False
    fills_a_sector = not is_deflated and (found.end + found.zeros) % SECTOR_BYTES == 0
    return not fills_a_sector or verdict.completeness is not Completeness.WHOLE


def _pixels_amiss(found: DataSet, sop_class_uid: str, transfer_syntax_uid: str, notes: list[str]) -> str:
    """Why the pixel data is not whole, "" when it is, or there is none."""
    if found.pixel_tag is None:
        if _PIXELS.isdisjoint(found.landmarks) or found.landmarks.get(_URL):
            return ""
        is_image = found.short(_ROWS) and found.short(_COLUMNS)
        return "the pixel data is empty" if is_image or CONTENT.get(sop_class_uid) == _PIXEL_DATA else ""
    frames = _frames(found)
    encapsulated = _STANDARD_ENCAPSULATED.match(transfer_syntax_uid) is not None
    if found.pixel_bytes is None:
        is_short = encapsulated and not _VIDEO.match(transfer_syntax_uid) and found.fragments < frames
        return "the pixel data has fewer fragments than frames" if is_short else ""
    if encapsulated:
        notes.append("pixel data: native, though the transfer syntax is a compressed one")
    expected_bytes = _native_bytes(found, frames)
    if expected_bytes is None or not (encapsulated or transfer_syntax_uid in _NATIVE):
        return ""
    if found.pixel_bytes < expected_bytes:
        return "the pixel data is shorter than rows, columns and frames say"
    if found.pixel_bytes > expected_bytes + 1:
        notes.append("pixel data: longer than rows, columns and frames say")
    return ""


def _is_standard(sop_class_uid: str) -> bool:
    return sop_class_uid.startswith("1.2.840.10008.")


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
