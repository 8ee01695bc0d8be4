"""What is told of an instance while its bytes pass: the same as pydicom makes of it, and something of any file."""

from __future__ import annotations

import hashlib
import json
import struct
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG4HP41,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from dicomwatchd.series import extract as module
from dicomwatchd.series.extract import Extracted, extract
from dicomwatchd.series.values import INLINE_BINARY_BYTES, Seen
from tests.synthetic import Maker

#: Those that come with the package; the others would be downloaded.
TEST_FILES = sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm"))


def extracted(data: bytes, chunk_bytes: int = 1 << 20, **others: Any) -> Extracted:
    chunks = (data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes))
    found = extract(chunks, len(data), **others)
    assert (found.sha256, found.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    return found


def inflated(data: bytes, found: Extracted) -> bytes:
    """What offsets count in."""
    if not found.is_deflated:
        return data
    import zlib

    read = pydicom.dcmread(BytesIO(data), stop_before_pixels=True)
    begin = 132 + 12 + read.file_meta.FileMetaInformationGroupLength
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[begin:])


def frames_of(data: bytes, found: Extracted) -> list[bytes]:
    assert found.pixels is not None
    whole = inflated(data, found)
    frames = [b"".join(whole[at : at + length] for at, length in one.pieces) for one in found.pixels.frames]
    assert [hashlib.sha256(one).hexdigest() for one in frames] == [one.sha256 for one in found.pixels.frames]
    return frames


def by_pydicom(data: bytes) -> tuple[dict[str, Any], list[bytes] | None]:
    """DICOM JSON without bulk data, group lengths and padding; and the frames."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = pydicom.dcmread(BytesIO(data), force=True)
        frames = None
        if "PixelData" in read and read.get("Rows"):
            number = int(read.get("NumberOfFrames", 1))
            if read["PixelData"].is_undefined_length:
                frames = list(generate_frames(read.PixelData, number_of_frames=number))
            else:
                each = len(read.PixelData) // number
                frames = [read.PixelData[at * each : (at + 1) * each] for at in range(number)]
        as_json = read.to_json_dict(
            bulk_data_threshold=INLINE_BINARY_BYTES + 1,
            bulk_data_element_handler=lambda _: "bulk",
            suppress_invalid_tags=True,
        )
    return {tag: one for tag, one in as_json.items() if tag[4:] != "0000" and tag != "FFFCFFFC"}, frames


def alike(one: Any) -> Any:
    """Where pydicom writes the same otherwise: an empty sequence, empty text among values, padding within, pixels and
    what is unknown, by its length."""
    if isinstance(one, dict):
        found = {name: alike(value) for name, value in one.items()}
        if found.get("Value") == [] or "BulkDataURI" in found or found.get("vr") == "UN":
            return {"vr": found["vr"]}
        if "7FE00010" in found:
            found["7FE00010"] = "pixels"
        return found
    if isinstance(one, list):
        return [alike(value) for value in one]
    return (one.rstrip(" ") or None) if isinstance(one, str) else one


def compare(data: bytes) -> Extracted:
    found = extracted(data)
    theirs, frames = by_pydicom(data)
    json.dumps(found.attributes, allow_nan=False)
    assert alike(found.attributes) == alike(theirs)
    assert found.unreadable == "" and found.left_out == ()
    if frames is not None:
        assert are_the_same(frames_of(data, found), frames)
    for place, bulk in found.bulk.items():
        whole = inflated(data, found)
        if "/" not in place and not found.is_big_endian:
            value = pydicom.dcmread(BytesIO(data), force=True)[int(place, 16)].value
            if isinstance(value, bytes):
                assert whole[bulk.offset_bytes : bulk.offset_bytes + bulk.length_bytes] == value
    return found


def written(data: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    data.file_meta.TransferSyntaxUID = UID(syntax)
    if syntax != RLELossless and not UID(syntax).is_encapsulated and "PixelData" in data:
        data["PixelData"].VR = "OW"
    into = BytesIO()
    little, implicit = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    pydicom.dcmwrite(into, data, enforce_file_format=True, little_endian=little, implicit_vr=implicit)
    return into.getvalue()


def slice_(tmp_path: Path, **changes: Any) -> Dataset:
    made = Maker().ct_series(tmp_path / "made", slices=1, rows=8, columns=8)
    read = pydicom.dcmread(made[0].path)
    for name, value in changes.items():
        setattr(read, name, value)
    return read


# --- as pydicom has it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ct", "mr", "us", "sr", "mixed"])
def test_what_the_synthetic_studies_have(tmp_path: Path, kind: str) -> None:
    for made in Maker().study(tmp_path, kind, slices=3):
        compare(made.path.read_bytes())


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_each_way_to_write_a_data_set(tmp_path: Path, syntax: str) -> None:
    read = slice_(tmp_path)
    item = Dataset()
    item.CodeValue, item.CodeMeaning = "1", "nested"
    item.PurposeOfReferenceCodeSequence = Sequence([Dataset()])
    read.DerivationCodeSequence = Sequence([item, Dataset()])
    read.add_new(0x00280106, "US", 7)
    read.add_new(0x00090010, "LO", "SOMEBODY")
    read.add_new(0x00091001, "FD", [0.5, 1e300])
    read.add_new(0x00091002, "AT", [0x00100010, 0x7FE00010])
    read.add_new(0x00091003, "UN", b"\1\2\3\4")
    read.add_new(0x00091004, "OF", struct.pack("<3f", 1, 2, 3))
    if syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian):
        for tag in (0x00091001, 0x00091002, 0x00091003, 0x00091004):
            del read[tag]  # without a VR, or with bytes that pydicom does not turn round
    found = compare(written(read, syntax))
    assert found.pixels is not None and found.pixels.known_by == "computed"
    assert found.is_deflated is (syntax == DeflatedExplicitVRLittleEndian)
    assert found.is_big_endian is (syntax == ExplicitVRBigEndian)


NOT_ALIKE = {
    "badVR.dcm": "pydicom leaves out numbers that are none, and misses what is behind them",
    "SC_rgb_jpeg_dcmd.dcm": "declared as what it is not",
    "no_meta.dcm": "its first element is none",
    "rtplan_truncated.dcm": "cut off",
    "MR_truncated.dcm": "cut off",
    "UN_sequence.dcm": "",
    "bad_sequence.dcm": "",
}


@pytest.mark.skipif(not TEST_FILES, reason="pydicom came without its test files")
@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.name)
def test_what_pydicom_is_tested_with(path: Path) -> None:
    data = path.read_bytes()
    found = extracted(data)
    json.dumps(found.attributes, allow_nan=False)
    if path.name in NOT_ALIKE:
        return
    theirs, frames = by_pydicom(data)
    # What is no value of its VR pydicom leaves out, with all of the sequence that it is in.
    assert {tag: one for tag, one in alike(found.attributes).items() if tag in theirs} == alike(theirs)
    if frames is not None and found.pixels is not None and found.pixels.known_by:
        assert are_the_same(frames_of(data, found), frames)


def are_the_same(ours: list[bytes], theirs: list[bytes]) -> bool:
    """But for padding behind the last."""
    return len(ours) == len(theirs) and all(
        one == two
        or (two.startswith(one) and not any(two[len(one) :]))
        or (one.startswith(two) and len(one) - len(two) == 1)
        for one, two in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 192", "Müller^Jürgen"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 144", "Люкceмбypг"),
    ],
)
def test_names_in_every_script(tmp_path: Path, charset: Any, name: str) -> None:
    read = slice_(tmp_path)
    read.SpecificCharacterSet = charset
    read.PatientName = name
    read.PatientComments = "a\\b"
    item = Dataset()
    item.PersonName = name
    read.VerifyingObserverSequence = Sequence([item])
    found = compare(written(read))
    values: Any = found.attributes["00100010"]["Value"]
    assert values[0]["Alphabetic"] == name.split("=")[0]


def test_numbers_that_are_none_stay_what_they_are(tmp_path: Path) -> None:
    data = written(slice_(tmp_path)).replace(b"120 ", b"12O ")
    assert extracted(data).attributes["00180060"] == {"vr": "DS", "Value": ["12O"]}
    read = slice_(tmp_path / "2")
    read.add_new(0x00189087, "FD", [float("nan"), float("inf"), float("-inf"), 1.5])
    assert extracted(written(read)).attributes["00189087"] == {"vr": "FD", "Value": ["NaN", "inf", "-inf", 1.5]}


def test_signed_values_where_pixels_are(tmp_path: Path) -> None:
    for representation, wanted in ((0, 0xFFFE), (1, -2)):
        read = slice_(tmp_path / str(representation), PixelRepresentation=representation)
        read.add_new(0x00280106, "US" if representation == 0 else "SS", wanted)
        found = extracted(written(read, ImplicitVRLittleEndian)).attributes["00280106"]
        assert found == {"vr": "US" if representation == 0 else "SS", "Value": [wanted]}


def test_what_is_long_stays_in_the_file(tmp_path: Path) -> None:
    read = slice_(tmp_path)
    read.RedPaletteColorLookupTableData = b"\1\2" * 40_000
    item = Dataset()
    item.WaveformData = b"\3\4" * 5_000
    item.WaveformBitsAllocated = 16
    read.WaveformSequence = Sequence([Dataset(), item])
    data = written(read)
    found = extracted(data)
    assert set(found.bulk) == {"00281201", "54000100/1/54001010"}
    assert found.attributes["00281201"] == {"vr": "OW"}
    for place, content in (("00281201", b"\1\2" * 40_000), ("54000100/1/54001010", b"\3\4" * 5_000)):
        bulk = found.bulk[place]
        assert data[bulk.offset_bytes : bulk.offset_bytes + bulk.length_bytes] == content


# --- frames ----------------------------------------------------------------------------------------------------------


def jpeg(number: int, length: int) -> bytes:
    return b"\xff\xd8\xff\xe0" + bytes([number]) * (length - 6) + b"\xff\xd9"


def compressed(tmp_path: Path, pixels: bytes, frames: int, syntax: str = JPEGBaseline8Bit, **changes: Any) -> bytes:
    read = slice_(tmp_path, NumberOfFrames=frames, **changes)
    read.PixelData = pixels
    read["PixelData"].VR = "OB"
    read["PixelData"].is_undefined_length = True
    return written(read, syntax)


def test_fragments_by_the_basic_offset_table(tmp_path: Path) -> None:
    frames = [jpeg(number, 100 + 20 * number) for number in range(5)]
    data = compressed(tmp_path, encapsulate(frames, fragments_per_frame=3), 5)
    found = compare(data)
    assert found.pixels is not None and found.pixels.known_by == "basic-offset-table"
    assert [one[: len(two)] for one, two in zip(frames_of(data, found), frames, strict=True)] == frames


def test_fragments_by_their_markers(tmp_path: Path) -> None:
    frames = [jpeg(number, 100 + 20 * number) for number in range(5)]
    data = compressed(tmp_path, encapsulate(frames, fragments_per_frame=3, has_bot=False), 5)
    found = compare(data)
    assert found.pixels is not None and found.pixels.known_by == "markers"


def test_the_extended_offset_table_knows_of_padding(tmp_path: Path) -> None:
    frames = [jpeg(number, 101 + 20 * number) for number in range(4)]
    pixels, offsets, _ = encapsulate_extended(frames)
    lengths = struct.pack("<4Q", *map(len, frames))
    data = compressed(tmp_path, pixels, 4, ExtendedOffsetTable=offsets, ExtendedOffsetTableLengths=lengths)
    found = extracted(data)
    assert found.pixels is not None and found.pixels.known_by == "extended-offset-table"
    assert frames_of(data, found) == frames
    wrong = struct.pack("<4Q", 0, 1, 2, 3)
    data = compressed(tmp_path / "2", pixels, 4, ExtendedOffsetTable=wrong, ExtendedOffsetTableLengths=lengths)
    assert extracted(data).pixels.why_not == "its extended offset table does not fit its fragments"  # type: ignore[union-attr]


def test_one_frame_of_many_fragments(tmp_path: Path) -> None:
    frame = jpeg(7, 1000)
    data = compressed(tmp_path, encapsulate([frame], fragments_per_frame=7), 1)
    assert frames_of(data, compare(data)) == [frame]


@pytest.mark.parametrize(
    ("pixels", "frames", "syntax", "why_not"),
    [
        (encapsulate([b"\0\1" * 50] * 3, fragments_per_frame=2, has_bot=False), 3, RLELossless, "nothing says which"),
        (encapsulate([jpeg(1, 100)] * 3, fragments_per_frame=2, has_bot=False), 4, JPEGBaseline8Bit, "nothing says"),
        (encapsulate([jpeg(1, 100)] * 3, fragments_per_frame=2), 4, JPEGBaseline8Bit, "its basic offset table does"),
        (encapsulate([b"\0\0\1\xba" * 50], has_bot=False), 30, MPEG4HP41, "it is video"),
        (encapsulate([jpeg(1, 100)] * 3), 10**9, JPEGBaseline8Bit, "it has more frames than are listed"),
    ],
    ids=["no markers", "another number", "a wrong table", "video", "too many"],
)
def test_frames_that_cannot_be_told(tmp_path: Path, pixels: bytes, frames: int, syntax: str, why_not: str) -> None:
    found = extracted(compressed(tmp_path, pixels, frames, syntax)).pixels
    assert found is not None and found.frames == () and found.known_by == ""
    assert found.why_not.startswith(why_not)


@pytest.mark.parametrize(
    ("changes", "why_not"),
    [
        ({"Rows": 9}, "its pixel data has another length"),
        ({"NumberOfFrames": 3}, "its pixel data has another length"),
        ({"NumberOfFrames": 2, "Rows": 3}, "its pixel data has another length"),
        ({"NumberOfFrames": 0}, "the data set does not say"),
        ({"Rows": None}, "the data set does not say"),
        ({"BitsAllocated": 1, "NumberOfFrames": 20, "Rows": 7, "Columns": 7}, "its frames do not begin at bytes"),
    ],
)
def test_native_frames_that_cannot_be_told(tmp_path: Path, changes: dict[str, Any], why_not: str) -> None:
    found = extracted(written(slice_(tmp_path, **changes))).pixels
    assert found is not None and found.frames == ()
    assert found.why_not.startswith(why_not)


def test_native_frames_of_other_kinds(tmp_path: Path) -> None:
    """128 bytes each time."""
    kinds: list[dict[str, Any]] = [
        {"BitsAllocated": 1, "NumberOfFrames": 16},
        {"NumberOfFrames": 1, "BitsAllocated": 1, "Rows": 32, "Columns": 31},
        {"BitsAllocated": 8, "SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422"},
        {"BitsAllocated": 8, "NumberOfFrames": 2},
    ]
    for number, changes in enumerate(kinds):
        data = written(slice_(tmp_path / str(number), **changes))
        found = extracted(data)
        assert found.pixels is not None and found.pixels.known_by == "computed", changes
        frames = frames_of(data, found)
        assert len(frames) == changes.get("NumberOfFrames", 1)
        assert b"".join(frames) == pydicom.dcmread(BytesIO(data)).PixelData[: sum(map(len, frames))]


def test_frames_of_an_odd_length_in_words_of_big_endian(tmp_path: Path) -> None:
    """The last byte of each is behind the first of the next."""
    for frames, rows, columns in ((2, 8, 7), (2, 9, 7), (1, 9, 7)):
        read = slice_(tmp_path / f"{rows}{frames}", BitsAllocated=8, NumberOfFrames=frames, Rows=rows, Columns=columns)
        read.PixelData = bytes(frames * rows * columns + frames * rows * columns % 2)
        found = extracted(written(read, ExplicitVRBigEndian)).pixels
        assert found is not None
        lengths = [one.pieces[0][1] for one in found.frames]
        assert lengths == {(2, 8): [56, 56], (2, 9): [], (1, 9): [64]}[frames, rows]


def test_pixels_in_floating_point(tmp_path: Path) -> None:
    read = slice_(tmp_path, BitsAllocated=32)
    del read.PixelData
    read.FloatPixelData = struct.pack("<64f", *range(64))
    data = written(read)
    found = extracted(data)
    assert found.pixels is not None and found.pixels.tag == "7FE00008"
    assert frames_of(data, found) == [read.FloatPixelData]


# --- any bytes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("valid")
    read = slice_(folder)
    item = Dataset()
    item.CodeValue = "1"
    read.DerivationCodeSequence = Sequence([item, Dataset()])
    read.DerivationCodeSequence.is_undefined_length = True
    frames = [jpeg(number, 60) for number in range(3)]
    return [
        written(read),
        written(read, ImplicitVRLittleEndian),
        written(read, DeflatedExplicitVRLittleEndian),
        compressed(folder / "2", encapsulate(frames, fragments_per_frame=2), 3),
        Maker().structured_report(folder / "sr")[0].path.read_bytes(),
    ]


@pytest.mark.parametrize("chunk_bytes", [1, 7, 64, 1000])
def test_the_chunks_do_not_matter(valid: list[bytes], chunk_bytes: int) -> None:
    for data in valid:
        assert extracted(data, chunk_bytes) == extracted(data)
        assert extracted(data, seen=Seen()) == extracted(data)


def test_each_place_to_be_cut_off(valid: list[bytes]) -> None:
    for data in valid:
        whole = extracted(data)
        for length in range(0, len(data), 3):
            found = extracted(data[:length])
            for tag, element in found.attributes.items():
                if not found.is_deflated and element.get("vr") != "SQ" and tag not in found.bulk:
                    assert element == whole.attributes[tag]
            if found.pixels is not None and found.pixels.known_by:
                assert whole.pixels is not None and found.pixels.frames == whole.pixels.frames


def check_any(data: bytes) -> None:
    found = extracted(data)
    json.dumps(found.attributes, allow_nan=False)
    end = len(data) if not found.is_deflated else 1 << 30
    for bulk in found.bulk.values():
        assert bulk.offset_bytes >= 0 and bulk.offset_bytes + bulk.length_bytes <= end
    if found.pixels is not None:
        assert bool(found.pixels.known_by) == bool(found.pixels.frames) != bool(found.pixels.why_not)
        for frame in found.pixels.frames:
            for at, length in frame.pieces:
                assert found.pixels.offset_bytes <= at < at + length <= end


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    number=st.integers(0, 4),
    changes=st.lists(
        st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=6), st.booleans()), min_size=1, max_size=8
    ),
)
def test_any_bytes_are_read_to_their_end(
    valid: list[bytes], number: int, changes: list[tuple[int, bytes, bool]]
) -> None:
    data = bytearray(valid[number])
    for at, raw, is_put_between in changes:
        at %= len(data) + 1
        data[at : at if is_put_between else at + len(raw)] = raw
    check_any(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
@example(b"\x08\0\x05\0CS\xff\xff")
def test_noise(noise: bytes) -> None:
    check_any(noise)
    check_any(bytes(128) + b"DICM" + noise)


def deep(levels: int, *, is_defined: bool) -> bytes:
    """Sequences in sequences."""
    inner = b""
    for _ in range(levels):
        if is_defined:
            item = struct.pack("<HHL", 0xFFFE, 0xE000, len(inner)) + inner
            inner = struct.pack("<HH2sHL", 0x0008, 0x1115, b"SQ", 0, len(item)) + item
        else:
            item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
            inner = struct.pack("<HH2sHL", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF) + item
            inner += struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return inner


@pytest.mark.parametrize("is_defined", [True, False])
def test_nested_without_end(is_defined: bool) -> None:
    head = struct.pack("<HH2sH", 0x0008, 0x0016, b"UI", 4) + b"1.2\0"
    tail = struct.pack("<HH2sH", 0x0010, 0x0010, b"PN", 4) + b"A^B "
    check_any(head + deep(5000, is_defined=is_defined) + tail)
    found = extracted(head + deep(50, is_defined=is_defined) + tail)
    assert "00100010" in found.attributes and found.left_out == ()
    found = extracted(head + deep(200, is_defined=is_defined) + tail)
    if is_defined:  # it is known where it ends
        assert "00100010" in found.attributes and found.left_out
    else:
        assert found.unreadable == "sequences are nested too deeply"


def test_a_header_of_very_many_elements_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ELEMENTS_LIMIT", 1000)
    head = struct.pack("<HH2sH", 0x0008, 0x0016, b"UI", 4) + b"1.2\0"
    small = b"".join(struct.pack("<HH2sH", 0x0011, 0x1000 + number % 0xEFFF, b"LO", 0) for number in range(5000))
    found = extract([head + small], len(head + small), elements_limit=1000)
    assert found.unreadable == "its header has more than is read" and len(found.attributes) <= 1000


def test_a_deflated_bomb(tmp_path: Path) -> None:
    import zlib

    plain = written(slice_(tmp_path), DeflatedExplicitVRLittleEndian)
    read = pydicom.dcmread(BytesIO(plain), stop_before_pixels=True)
    begin = 132 + 12 + read.file_meta.FileMetaInformationGroupLength
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    element = struct.pack("<HH2sHL", 0x0008, 0x0016, b"OB", 0, 0xFFFFFFF0)
    packed = [packer.compress(element)] + [packer.compress(bytes(1 << 20)) for _ in range(300)] + [packer.flush()]
    found = extracted(plain[:begin] + b"".join(packed))
    assert found.unreadable == "it inflates to too much data for its size"
