"""Two files are the same data set whatever their meta group, lengths and VRs say, and have the same pixels or not."""

from __future__ import annotations

import hashlib
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

from dicomwatchd.errors import Unarchivable
from dicomwatchd.intake.dicom.fingerprint import digest_of
from dicomwatchd.intake.dicom.header import Header, read_header
from dicomwatchd.intake.dicom.reading import FileBytes, StreamedBytes
from dicomwatchd.model import DataSetDigest

UID = "1.2.826.0.1.3680043.8.498.1"


def _digest(data: bytes, chunk_bytes: int = 1 << 20) -> DataSetDigest:
    chunks = (data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes))
    source = StreamedBytes(chunks, len(data))
    found = digest_of(source)
    assert source.finish() == hashlib.sha256(data).hexdigest()
    return found


def _image(**more: object) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", UID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = UID + ".1", UID + ".2"
    ds.PatientName, ds.PatientID = "Doe^Jane", "P1"
    ds.Rows = ds.Columns = 8
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 16, 16, 15, 0, 1
    item, inner = Dataset(), Dataset()
    inner.CodeValue, inner.CodeMeaning = "1", "one"
    item.ReferencedSOPInstanceUID = UID + ".3"
    item.PurposeOfReferenceCodeSequence = Sequence([inner])
    ds.ReferencedImageSequence = Sequence([item, Dataset()])
    ds.ProcedureCodeSequence = Sequence([])
    ds.PixelData = bytes(range(128))
    ds["PixelData"].VR = "OW"
    for name, value in more.items():
        setattr(ds, name, value)
    return ds


def _written(ds: Dataset, syntax: str = ExplicitVRLittleEndian, *, delimited: bool = False, title: str = "A") -> bytes:
    ds = Dataset(ds)
    for element in ds.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = delimited
            for item in element.value:
                item.is_undefined_length_sequence_item = delimited
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.SourceApplicationEntityTitle = title
    out = BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue()


def _encapsulated(frames: list[bytes], *, has_offsets: bool, syntax: str = JPEGBaseline8Bit) -> bytes:
    ds = _image()
    ds.PixelData = encapsulate(frames, has_bot=has_offsets)
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return _written(ds, syntax)


def _bare(data: bytes) -> bytes:
    """Without preamble and file meta information."""
    length = struct.unpack("<L", data[140:144])[0]
    return data[144 + length :]


def test_how_it_is_written_makes_no_other_data_set() -> None:
    one = _digest(_written(_image()))
    assert one.data_set_sha256 and one.content_sha256
    others = {
        "another meta group": _written(_image(), title="ANOTHER"),
        "another preamble": b"II*\0" + _written(_image())[4:],
        "no meta group": _bare(_written(_image())),
        "delimited": _written(_image(), delimited=True),
        "implicit": _written(_image(), ImplicitVRLittleEndian),
        "implicit, delimited": _written(_image(), ImplicitVRLittleEndian, delimited=True),
        "deflated": _written(_image(), DeflatedExplicitVRLittleEndian),
        "deflated, delimited": _written(_image(), DeflatedExplicitVRLittleEndian, delimited=True),
        "padded": _written(_image()) + bytes(64),
        "garbage behind it": _written(_image()) + b"\x08\0\x05\0CS\x20\0AB",
        "text behind it": _written(_image()) + b"-----END OF FILE-----\r\n",
        "much behind it": _written(_image()) + b"\x01\2" * 50_000,
        "trailing padding": _written(_image()) + struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, 20) + bytes(20),
        "a group length": _with_group_length(_written(_image())),
    }
    assert {name: _digest(data) for name, data in others.items()} == dict.fromkeys(others, one)


def _with_group_length(data: bytes) -> bytes:
    length = struct.unpack("<L", data[140:144])[0]
    start = 144 + length
    return data[:start] + struct.pack("<HH2sHL", 0x0008, 0, b"UL", 4, 999) + data[start:]


@pytest.mark.parametrize(
    "edit",
    [
        lambda ds: setattr(ds, "PatientName", "Doe^June"),
        lambda ds: setattr(ds, "PatientName", "Doe^Jane^"),
        lambda ds: delattr(ds, "PatientID"),
        lambda ds: setattr(ds, "PatientComments", "x"),
        lambda ds: setattr(ds.ReferencedImageSequence[0].PurposeOfReferenceCodeSequence[0], "CodeMeaning", "on"),
        lambda ds: ds.ReferencedImageSequence.append(Dataset()),
        lambda ds: ds.ReferencedImageSequence.pop(),
        lambda ds: delattr(ds, "ProcedureCodeSequence"),
        lambda ds: ds.add_new(0x00091001, "LO", "private"),
    ],
)
def test_another_header_over_the_same_pixels(edit: Callable[[Dataset], None]) -> None:
    one, ds = _digest(_written(_image())), _image()
    edit(ds)
    for delimited in (False, True):
        other = _digest(_written(ds, delimited=delimited))
        assert other.data_set_sha256 != one.data_set_sha256
        assert other.content_sha256 == one.content_sha256


def test_other_pixels() -> None:
    one = _digest(_written(_image()))
    other = _digest(_written(_image(PixelData=bytes(range(127)) + b"\0")))
    assert other.data_set_sha256 != one.data_set_sha256
    assert other.content_sha256 != one.content_sha256 != ""


def test_where_values_end_and_items_begin_counts() -> None:
    """The same bytes, distributed in another way over elements and items."""
    first, second = Dataset(), Dataset()
    first.CodeValue, second.CodeMeaning = "1", "one"
    both = Dataset()
    both.CodeValue, both.CodeMeaning = "1", "one"
    shapes = [Sequence([first, second]), Sequence([both]), Sequence([both, Dataset()]), Sequence([Dataset(), both])]
    found = {_digest(_written(_image(ProcedureCodeSequence=one))).data_set_sha256 for one in shapes}
    assert len(found) == len(shapes)


def test_no_two_data_sets_are_written_alike() -> None:
    """Where a value ends is on record, and where an item does: text may look like what follows it."""
    apart, together = _image(), _image()
    apart.add_new(0x00091001, "UN", b"ab")
    apart.add_new(0x00091002, "UN", b"cd")
    together.add_new(0x00091001, "UN", b"ab" + struct.pack(">L", 0x00091002) + b"cd")
    assert len({_digest(_written(ds)).data_set_sha256 for ds in (_image(), apart, together)}) == 3
    item, other = Dataset(), Dataset()
    item.CodeValue, other.CodeValue = "1", "2"
    one, two, nested = Dataset(), Dataset(), Dataset()
    one.ConceptCodeSequence, two.ConceptCodeSequence = Sequence([item, other]), Sequence([item])
    nested.ConceptCodeSequence = Sequence([])
    shapes = [
        Sequence([one]),
        Sequence([two, other]),
        Sequence([two]),
        Sequence([two, Dataset()]),
        Sequence([Dataset(), two]),
        Sequence([nested, item]),
        Sequence([nested]),
        Sequence([Dataset()]),
        Sequence([Dataset(), Dataset()]),
        Sequence([]),
    ]
    digests = {_digest(_written(_image(ProcedureCodeSequence=shape))).data_set_sha256 for shape in shapes}
    assert len(digests) == len(shapes)


def _element(tag: int, vr: bytes, value: bytes, *, is_big_endian: bool = False) -> bytes:
    order = ">" if is_big_endian else "<"
    if vr in (b"OB", b"OW", b"SQ", b"UN"):
        return struct.pack(order + "HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, len(value)) + value
    return struct.pack(order + "HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


@pytest.mark.parametrize("padding", [b"", bytes(64), b"\x08\0\x05\0CS\x20\0AB"])
@pytest.mark.parametrize(
    ("tag", "vr", "one", "other"),
    [
        (0x60003000, b"OW", b"1234", b"4321"),
        (0x00080005, b"CS", b"AB", b"AC"),
        (0x00100010, b"PN", b"DOE^JANE", b"ROE^JOHN"),
        (0x7FE00010, b"OW", b"1234", b"4321"),
        (0x00081115, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, 0), b""),
    ],
)
def test_elements_behind_the_pixel_data_count(tag: int, vr: bytes, one: bytes, other: bytes, padding: bytes) -> None:
    """Out of order, but other programs read them: an overlay of an old scanner, a name that stands twice."""
    data = _written(_image())
    found = [_digest(data + _element(tag, vr, value) + padding) for value in (one, other)]
    found += [_digest(data + padding)]
    assert len({each.data_set_sha256 for each in found}) == 3 and "" not in {each.data_set_sha256 for each in found}
    assert found[2] == _digest(data)
    is_other_image = tag == 0x7FE00010
    assert len({each.content_sha256 for each in found}) == (3 if is_other_image else 1)


def test_a_long_value_under_the_tag_of_a_group_length_counts() -> None:
    data = _written(_image())
    start = 144 + struct.unpack("<L", data[140:144])[0]
    found = {
        _digest(data[:start] + _element(0x00090000, b"OB", value) + data[start:]).data_set_sha256
        for value in (b"", b"12345678", b"87654321")
    }
    assert len({*found, _digest(data).data_set_sha256}) == 4


def test_zeros_in_the_place_of_elements_count() -> None:
    """An item that was not written to its end, where the length of its sequence jumps over it."""
    data = _written(_image())
    start = 144 + struct.unpack("<L", data[140:144])[0]
    items = [struct.pack("<HHL", 0xFFFE, 0xE000, len(value)) + value for value in (b"", bytes(8), bytes(64))]
    found = {_digest(data[:start] + _element(0x00081032, b"SQ", item) + data[start:]).data_set_sha256 for item in items}
    assert len(found) == 3


@pytest.mark.parametrize("first", [b"\xff\xd8" + bytes(30), b"\0\0\0\0" + b"\xff" * 28, b"\0\0\0\0\x08\0"])
def test_a_first_fragment_without_an_offset_table_before_it_counts(first: bytes) -> None:
    def image(*fragments: bytes) -> bytes:
        data = _encapsulated([b"\xff\xd8"], has_offsets=True)
        at = data.rindex(b"\xe0\x7f\x10\0OB") + 12
        items = (struct.pack("<HHL", 0xFFFE, 0xE000, len(one)) + one for one in fragments)
        return data[:at] + b"".join(items) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)

    found = {_digest(image(one, b"\xff\xd8" + bytes(20))) for one in (b"", b"\xff\xd9" + first[2:], first)}
    assert len({one.data_set_sha256 for one in found}) == len({one.content_sha256 for one in found}) == 3


def test_an_offset_table_of_many_frames_is_none_of_it() -> None:
    frames = [b"\xff\xd8" + bytes(6)] * 70_000
    assert _digest(_encapsulated(frames, has_offsets=True)) == _digest(_encapsulated(frames, has_offsets=False))


def test_vrs_count_where_they_say_what_is_swapped() -> None:
    data = _written(_image(), ExplicitVRBigEndian)
    other = data.replace(b"\x7f\xe0\x00\x10OW", b"\x7f\xe0\x00\x10OB")
    assert other != data and _digest(other).content_sha256 != _digest(data).content_sha256


def test_byte_order_and_compression_are_part_of_it() -> None:
    frames = [b"\xff\xd8" + bytes(30), b"\xff\xd8" + bytes(20)]
    one = _digest(_encapsulated(frames, has_offsets=True))
    assert one == _digest(_encapsulated(frames, has_offsets=False))
    assert one.content_sha256 != _digest(_encapsulated(frames[::-1], has_offsets=True)).content_sha256
    assert (
        one.content_sha256 != _digest(_encapsulated(frames, has_offsets=True, syntax=JPEG2000Lossless)).content_sha256
    )
    assert _digest(_written(_image(), ExplicitVRBigEndian)).content_sha256 not in {
        "",
        _digest(_written(_image())).content_sha256,
    }


def test_without_pixels_there_is_no_content() -> None:
    ds = _image()
    del ds.PixelData
    assert _digest(_written(ds)).content_sha256 == ""
    assert _digest(_written(_image(PixelData=b""))).content_sha256 == ""


def test_what_cannot_be_read_to_its_end_has_no_digest() -> None:
    data = _written(_image(), delimited=True)
    cut_within_sequence = data[: data.index(b"\xfe\xff\x0d\xe0")]
    assert _digest(cut_within_sequence) == DataSetDigest("", "")
    assert _digest(b"no DICOM at all, but long enough to be read") == DataSetDigest("", "")
    assert _digest(_written(_image())[:-1]) == DataSetDigest("", "")
    sequence = struct.pack("<HH2sHL", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    nested = (sequence + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)) * 5000
    assert _digest(_bare(_written(_image()))[:50] + nested) == DataSetDigest("", "")


def _sound_files() -> Iterator[Path]:
    root = Path(pydicom.data.__file__).parent
    for path in sorted([*root.glob("test_files/*.dcm"), *root.glob("charset_files/*.dcm")]):
        fd = os.open(path, os.O_RDONLY)
        try:
            if isinstance(read_header(fd, path.stat().st_size), Header):
                yield path
        except Unarchivable:
            pass
        finally:
            os.close(fd)


def test_every_sound_file_has_a_digest_however_it_is_read() -> None:
    found: dict[Path, DataSetDigest] = {}
    sure = random.Random(1)
    for path in _sound_files():
        data = path.read_bytes()
        found[path] = _digest(data, sure.choice([1 << 20, 4096, 777]))
        with path.open("rb") as file:
            assert digest_of(FileBytes(file.fileno(), len(data))) == found[path], path.name
    assert len(found) > 70
    assert [path.name for path, digest in found.items() if not digest.data_set_sha256] == []


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pydicom_writing_a_file_anew_keeps_its_digest() -> None:
    """As a PACS exports again what it was sent."""
    same: set[str] = set()
    others: set[str] = set()
    for path in _sound_files():
        ds = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in ds.file_meta or ds.file_meta.TransferSyntaxUID.is_compressed:
            continue
        for element in ds.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = not element.is_undefined_length
        out = BytesIO()
        ds.save_as(out)
        is_same = _digest(out.getvalue()).data_set_sha256 == _digest(path.read_bytes()).data_set_sha256
        (same if is_same else others).add(path.name)
    assert len(same) > 35
    assert others == {"chrX1.dcm", "chrX2.dcm"}  # it drops the "=" at the end of a name


@given(st.binary(max_size=300), st.integers(0, 2000), st.integers(1, 4096))
def test_whatever_the_bytes_it_ends_in_a_digest(noise: bytes, at: int, chunk_bytes: int) -> None:
    data = _written(_image())
    _digest(data[:at] + noise + data[at + len(noise) :], chunk_bytes)


def test_a_large_file_takes_little_memory() -> None:
    import tracemalloc

    start = _written(_image(PixelData=b""))
    pixels = struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OW", 0, 64 << 20)
    start = start[: start.rindex(b"\xe0\x7f\x10\x00")] + pixels
    piece = bytes(1 << 20)
    tracemalloc.start()
    try:
        source = StreamedBytes(iter([start, *[piece] * 64]), len(start) + (64 << 20))
        assert digest_of(source).content_sha256
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "element",
    [
        struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, 64 << 20),
        struct.pack("<HH2sHL", 0x0009, 0x0000, b"OB", 0, 64 << 20),
        struct.pack("<HH2sHLHHL", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 64 << 20),
    ],
    ids=["padding", "group length", "offset table"],
)
def test_what_is_jumped_over_takes_little_memory(element: bytes) -> None:
    import tracemalloc

    start = _written(_image(PixelData=b""))
    start = start[: start.rindex(b"\xe0\x7f\x10\x00")] + element
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    piece = bytes(1 << 20)
    tracemalloc.start()
    try:
        digest_of(StreamedBytes(iter([start, *[piece] * 64, end]), len(start) + (64 << 20) + len(end)))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_long_element_of_the_meta_group_takes_little_memory() -> None:
    import tracemalloc

    data, more = _written(_image()), struct.pack("<HH2sHL", 0x0002, 0x0102, b"OB", 0, 64 << 20)
    end = 144 + struct.unpack("<L", data[140:144])[0]
    piece = bytes(1 << 20)
    tracemalloc.start()
    try:
        source = StreamedBytes(iter([data[:end], more, *[piece] * 64, data[end:]]), len(data) + len(more) + (64 << 20))
        assert digest_of(source) == _digest(data)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_deflated_bomb_ends() -> None:
    start = _written(_image(), DeflatedExplicitVRLittleEndian)
    length = struct.unpack("<L", start[140:144])[0]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflate.compress(_bare(_written(_image()))[:-140]) + deflate.compress(bytes(300 << 20)) + deflate.flush()
    _digest(start[: 144 + length] + bomb)
