"""Small whole DICOM files in many encodings, as bytes, for the tests of the header reader."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import UID

from dicomwatchd.intake.dicom.header import Dicomdir, Header, read_header

CT = "1.2.840.10008.5.1.4.1.1.2"
RAW_DATA = "1.2.840.10008.5.1.4.1.1.66"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
JPEG, RLE, MPEG4 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.102"
GE_PRIVATE = "1.2.840.113619.5.2"

STUDY, SERIES, INSTANCE = "1.2.3.4.1", "1.2.3.4.1.1", "1.2.3.4.1.1.1"


def data_set(**changes: object) -> Dataset:
    """An 8 x 8 CT slice; a change to None takes the element out."""
    data = Dataset()
    values: dict[str, object] = {
        "SOPClassUID": CT,
        "SOPInstanceUID": INSTANCE,
        "StudyDate": "20240102",
        "AccessionNumber": "A1",
        "Modality": "CT",
        "StudyDescription": "Chest",
        "PatientName": "DOE^JANE",
        "PatientID": "P1",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "SeriesNumber": "1",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 8,
        "Columns": 8,
        "BitsAllocated": 16,
        "PixelData": bytes(range(1, 129)),
    }
    for keyword, value in {**values, **changes}.items():
        if value is not None:
            setattr(data, keyword, value)
    return data


def encode(data: Dataset, transfer_syntax: str = EXPLICIT, *, preamble: bool = True, meta: bool = True) -> bytes:
    """The file of a data set. A private transfer syntax is written as implicit VR little endian."""
    big = transfer_syntax == BIG_ENDIAN
    implicit = not transfer_syntax.startswith("1.2.840.10008.1.2.")
    body = io.BytesIO()
    if "PixelData" in data and data["PixelData"].VR not in ("OB", "OW"):
        data["PixelData"].VR = "OW"
    if "PixelData" in data and data["PixelData"].is_undefined_length:
        data["PixelData"].VR = "OB"
    plain = Dataset(data)
    plain.save_as(body, implicit_vr=implicit, little_endian=not big)
    content = body.getvalue()
    if transfer_syntax == DEFLATED:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        content = deflate.compress(content) + deflate.flush()
    head = b""
    if meta:
        file_meta = FileMetaDataset()
        file_meta.MediaStorageSOPClassUID = UID(str(data.get("SOPClassUID", CT)))
        file_meta.MediaStorageSOPInstanceUID = UID(str(data.get("SOPInstanceUID", INSTANCE)))
        file_meta.TransferSyntaxUID = UID(transfer_syntax)
        meta_file = DicomBytesIO()
        write_file_meta_info(meta_file, file_meta, enforce_standard=False)
        head = meta_file.getvalue()
    return (bytes(128) + b"DICM" if preamble else b"") + head + content


def compressed(*frames: bytes, transfer_syntax: str = JPEG, extended: bool = False, **changes: object) -> bytes:
    """An encapsulated image of these frames."""
    data = data_set(BitsAllocated=8, NumberOfFrames=str(len(frames)), PixelData=None, **changes)
    if extended:
        data.PixelData, data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = encapsulate_extended(list(frames))
    else:
        data.PixelData = encapsulate(list(frames))
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    return encode(data, transfer_syntax)


def nested(depth: int = 3, *, undefined: bool = True) -> Sequence:
    """A sequence of two items within a sequence within a sequence."""
    items = []
    for number in range(2):
        item = Dataset()
        item.CodeValue = str(number)
        if depth > 1:
            item.ConceptCodeSequence = nested(depth - 1, undefined=undefined)
            item["ConceptCodeSequence"].is_undefined_length = undefined
        item.is_undefined_length_sequence_item = undefined
        items.append(item)
    return Sequence(items)


def with_sequences(*, undefined: bool) -> Dataset:
    data = data_set(RequestAttributesSequence=nested(undefined=undefined))
    data["RequestAttributesSequence"].is_undefined_length = undefined
    return data


def report() -> Dataset:
    data = data_set(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11",
        Modality="SR",
        **dict.fromkeys(("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PixelData")),
    )
    del data.PhotometricInterpretation
    data.ValueType = "CONTAINER"
    data.ContentSequence = nested()
    data["ContentSequence"].is_undefined_length = True
    return data


def document() -> Dataset:
    data = report()
    del data.ContentSequence
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    data.EncapsulatedDocument = b"%PDF-1.4 \xff%%EOF "
    return data


def waveform() -> Dataset:
    data = report()
    del data.ContentSequence
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.9.1.1"
    channel = Dataset()
    channel.WaveformBitsAllocated = 16
    channel.WaveformSampleInterpretation = "SS"
    channel.add_new(0x54001010, "OW", bytes(range(1, 65)))
    data.WaveformSequence = Sequence([channel])
    return data


#: Whole files whose last element holds the content, so that no cut of them is whole.
WHOLE: dict[str, Callable[[], bytes]] = {
    "explicit": lambda: encode(data_set()),
    "implicit": lambda: encode(data_set(), IMPLICIT),
    "big endian": lambda: encode(data_set(), BIG_ENDIAN),
    "deflated": lambda: encode(data_set(), DEFLATED),
    "private": lambda: encode(data_set(), GE_PRIVATE),
    "no preamble": lambda: encode(data_set(), preamble=False),
    "no meta, explicit": lambda: encode(data_set(), preamble=False, meta=False),
    "no meta, implicit": lambda: encode(data_set(), IMPLICIT, preamble=False, meta=False),
    "no meta, big endian": lambda: encode(data_set(), BIG_ENDIAN, preamble=False, meta=False),
    "undefined lengths": lambda: encode(with_sequences(undefined=True)),
    "undefined lengths, implicit": lambda: encode(with_sequences(undefined=True), IMPLICIT),
    "defined lengths": lambda: encode(with_sequences(undefined=False)),
    "JPEG": lambda: compressed(b"\xff\xd8first", b"\xff\xd8second frame", b"\xff\xd8third\xff\xd9"),
    "extended offsets": lambda: compressed(b"first", b"second", extended=True),
    "SR": lambda: encode(report()),
    "PDF": lambda: encode(document()),
    "ECG": lambda: encode(waveform()),
}


@contextmanager
def opened(content: bytes) -> Iterator[int]:
    """A descriptor of an unnamed file with this content."""
    fd = os.memfd_create("dicom")
    try:
        os.write(fd, content)
        yield fd
    finally:
        os.close(fd)


def read(content: bytes, **options: Any) -> Header | Dicomdir:
    with opened(content) as fd:
        return read_header(fd, len(content), **options)


def header(content: bytes, **options: Any) -> Header:
    found = read(content, **options)
    assert isinstance(found, Header)
    return found


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """One explicit little endian element, of which ``length`` may claim another length."""
    size = len(value) if length is None else length
    start = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    long = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    return start + (struct.pack("<HL", 0, size) if long else struct.pack("<H", size)) + value


def item(content: bytes = b"", *, undefined: bool = False) -> bytes:
    length = 0xFFFFFFFF if undefined else len(content)
    end = struct.pack("<HHL", 0xFFFE, 0xE00D, 0) if undefined else b""
    return struct.pack("<HHL", 0xFFFE, 0xE000, length) + content + end


SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
