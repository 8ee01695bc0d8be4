"""Whether a file is whole: every cut is noticed, everything valid is let through, nothing makes the walk fall over."""

from __future__ import annotations

import json
import os
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicomwatchd.errors import SourceChanged, Unarchivable
from dicomwatchd.intake.dicom import opening, reading, structure
from dicomwatchd.intake.dicom.header import Dicomdir, Header, read_header
from dicomwatchd.intake.dicom.reading import FileBytes, InflatedBytes
from dicomwatchd.intake.dicom.verdict import WHOLE as WHOLE_VERDICT
from dicomwatchd.intake.dicom.verdict import Completeness, Damaged
from tests.unit.dicomfiles import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    GE_PRIVATE,
    IMPLICIT,
    MPEG4,
    RAW_DATA,
    RLE,
    SEQUENCE_END,
    WHOLE,
    compressed,
    data_set,
    document,
    element,
    encode,
    header,
    item,
    nested,
    opened,
    read,
    report,
    waveform,
)

_CODES = {"empty", "not-dicom", "truncated", "no-uid", "bad-uid", "malformed", "inflated-too-large", "tail"}
_WHOLE = {name: make() for name, make in WHOLE.items()}


def code_of(content: bytes, **options: int) -> str:
    with pytest.raises(Unarchivable) as caught:
        read(content, **options)
    return caught.value.code


@pytest.mark.parametrize("name", _WHOLE)
def test_a_whole_file_is_taken_without_a_pixel_note(name: str) -> None:
    repairs = header(_WHOLE[name]).instance.repairs
    assert not [note for note in repairs if "pixel" in note or "padding" in note or "bytes after" in note]


@pytest.mark.parametrize("name", _WHOLE)
def test_no_cut_is_taken_for_whole(name: str) -> None:
    content = _WHOLE[name]
    codes = set()
    with opened(content) as fd:
        for length in range(len(content) - 1, -1, -1):
            os.ftruncate(fd, length)
            with pytest.raises(Unarchivable) as caught:
                read_header(fd, length)
            codes.add(caught.value.code)
    assert codes <= {"truncated", "not-dicom", "empty"}
    assert "truncated" in codes


@pytest.mark.parametrize("name", ["explicit", "implicit", "big endian", "undefined lengths", "JPEG", "SR"])
def test_a_zero_filled_tail_is_noticed_wherever_the_structure_shows_it(name: str) -> None:
    content = _WHOLE[name]
    # Zeros within the last value cannot be told from a black image; the three bytes before it, and the last four of
    # a delimiter, are zeros anyway.
    last = {"JPEG": 4, "SR": 4, "big endian": 128}.get(name, 128 + 3)
    for start in range(132, len(content) - last):
        assert code_of(content[:start] + bytes(len(content) - start)) in ("truncated", "malformed")


@pytest.mark.parametrize("undefined_within", [False, True])
@pytest.mark.parametrize(("transfer_syntax", "length_zeros"), [(EXPLICIT, 1), (IMPLICIT, 3), (BIG_ENDIAN, 0)])
def test_a_zero_filled_tail_is_noticed_in_a_sequence_of_defined_length(
    transfer_syntax: str, length_zeros: int, undefined_within: bool
) -> None:
    """It ends the file, and its own length is whole: the zeros stand in the place of items and elements."""
    data = report()
    data.ContentSequence = nested(undefined=undefined_within)
    data["ContentSequence"].is_undefined_length = False
    data.ContentSequence[0].ConceptCodeSequence[0].CodeMeaning = "first"
    last = Dataset()
    last.CodeValue, last.ConceptCodeSequence = "last", nested(undefined=False)
    last.ConceptCodeSequence[-1].ConceptCodeSequence[-1].ConceptCodeSequence[-1].CodeMeaning = "lastpart"
    data.ContentSequence.append(last)
    content = encode(data, transfer_syntax)
    assert content.endswith(b"lastpart")
    assert header(content).verdict == WHOLE_VERDICT
    for zeros_from in range(400, len(content) - len("lastpart") - length_zeros):
        with pytest.raises(Damaged) as caught:
            read(content[:zeros_from] + bytes(len(content) - zeros_from))
    assert caught.value.verdict.reason == "a sequence or encapsulated pixel data is cut off by zeros"
    assert caught.value.verdict.offset_bytes == content.index(
        {BIG_ENDIAN: b"\0\x40\xa7\x30"}.get(transfer_syntax, b"\x40\0\x30\xa7")
    )
    assert caught.value.header is not None
    # From there on it is the last value alone, and that may be zeros.
    assert header(content[: -len("lastpart")] + bytes(8)).verdict == WHOLE_VERDICT


def test_a_sequence_that_ends_with_zeros_is_whole() -> None:
    """Of which the last value is zero, and of which the last is empty."""
    data = waveform()
    data.WaveformSequence[0][0x54001010].value = bytes(64)
    data.WaveformSequence.append(data.WaveformSequence[0])
    empty = Dataset()
    empty.CodeMeaning = ""
    for sequence in (data.WaveformSequence, Sequence([empty]), Sequence([Dataset()])):
        data.WaveformSequence = sequence
        for transfer_syntax in (EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED):
            assert header(encode(data, transfer_syntax)).verdict == WHOLE_VERDICT


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(_WHOLE)),
    changes=st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 255)), min_size=1, max_size=8),
    tail=st.binary(max_size=24),
)
def test_changed_bytes_never_do_more_than_be_refused(name: str, changes: list[tuple[int, int]], tail: bytes) -> None:
    content = bytearray(_WHOLE[name])
    for position, value in changes:
        content[position % len(content)] = value
    judged(bytes(content) + tail)


@settings(max_examples=800, deadline=None)
@given(start=st.sampled_from([b"", bytes(128) + b"DICM", *(c[:220] for c in _WHOLE.values())]), rest=st.binary())
def test_any_bytes_never_do_more_than_be_refused(start: bytes, rest: bytes) -> None:
    judged(start + rest)


def judged(content: bytes) -> None:
    """Read it; whatever is accepted must be fit to be put into a key and into JSON."""
    try:
        found = read(content)
    except Unarchivable as error:
        code = error.code
    else:
        code = ""
    if code:
        assert code in _CODES
        return
    if isinstance(found, Dicomdir):
        return
    for uid in (found.instance.study_uid, found.instance.series_uid, found.instance.sop_instance_uid):
        assert 0 < len(uid) <= 64
        assert set(uid) <= set("0123456789.")
    json.dumps([found.study_attributes, found.series_attributes], allow_nan=False)


def test_trailing_padding_element_is_part_of_the_data_set() -> None:
    content = encode(data_set()) + element(0xFFFCFFFC, b"OB", bytes(100))
    assert header(content).instance.repairs == ()
    assert code_of(content[:-1]) == "truncated"


def test_digital_signatures_and_private_groups_may_follow_the_pixels() -> None:
    signatures = element(0xFFFAFFFA, b"SQ", item(element(0x04000005, b"US", b"\1\0")))
    content = encode(data_set()) + element(0x7FE10010, b"LO", b"GEMS") + signatures
    assert header(content).instance.repairs == ()


def test_a_cut_within_the_header_of_what_follows_the_pixels_is_noticed() -> None:
    following = element(0xFFFAFFFA, b"SQ", item(element(0x04000005, b"US", b"\1\0")))
    for length in range(1, len(following)):
        assert code_of(encode(data_set()) + following[:length]) == "truncated"


@pytest.mark.parametrize("padding", [1, 7, 8, 100, 70_000])
def test_zeros_after_the_pixels_are_padding(padding: int) -> None:
    assert header(encode(data_set()) + bytes(padding)).instance.repairs == ("zero padding after the data set",)


@pytest.mark.parametrize(
    "tail",
    [b"\x01\0\0\0 stamped by a gateway", b"\0\x90 stamped by a gateway", bytes(12) + b"x", encode(data_set())[-140:]],
    ids=["low group", "high even group", "zeros first", "pixels again"],
)
def test_other_bytes_after_the_pixels_are_noted(tail: bytes) -> None:
    notes = header(encode(data_set()) + tail).instance.repairs
    assert notes == ("bytes after the data set do not belong to it",)


@pytest.mark.parametrize("tail", [b"", b"x"])
def test_far_more_after_the_pixels_than_the_data_set_has_is_not_taken_along(tail: bytes, tmp_path: Path) -> None:
    """A sparse file of a terabyte, a whole slice at its beginning: neither read to its end nor archived."""
    path = tmp_path / "sparse"
    path.write_bytes(encode(data_set()) + tail)
    os.truncate(path, structure.TAIL_LIMIT_BYTES)
    fd = os.open(path, os.O_RDONLY)
    assert isinstance(read_header(fd, structure.TAIL_LIMIT_BYTES), Header)
    os.truncate(path, 1 << 40)
    began = time.monotonic()
    with pytest.raises(Unarchivable) as error:
        read_header(fd, 1 << 40)
    os.close(fd)
    assert error.value.code == "tail"
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("zeros", [8, 100, 512, 5000])
def test_zeros_after_an_object_without_pixels_may_be_a_tail_never_written(zeros: int) -> None:
    content = encode(report())
    assert (len(content) + zeros) % 512
    assert code_of(content + bytes(zeros)) == "truncated"
    empty = encode(data_set(SOPClassUID="1.2.3", Rows=None, PixelData=b""))
    assert header(empty).instance.study_uid
    assert code_of(empty + bytes(zeros)) == "truncated"


@pytest.mark.parametrize("zeros", [1, 2, 7])
def test_zeros_too_few_for_an_element_are_padding(zeros: int) -> None:
    for content in (encode(report()), encode(document()), encode(data_set(SOPClassUID="1.2.3", PixelData=None))):
        assert header(content + bytes(zeros)).instance.repairs == ("zero padding after the data set",)


def test_zeros_that_fill_a_sector_are_padding_where_all_else_is_there() -> None:
    content = encode(report())
    padding = bytes(-len(content) % 512)
    assert len(padding) >= 8
    found = header(content + padding)
    assert found.verdict.completeness is Completeness.WHOLE
    assert found.instance.repairs == ("zero padding after the data set",)
    # Another sector of them is more than padding, and so are those behind an object that nothing closes.
    assert code_of(content + padding + bytes(512)) == "truncated"
    raw = encode(data_set(SOPClassUID=RAW_DATA, PixelData=None))
    assert code_of(raw + bytes(-len(raw) % 512)) == "truncated"
    # The length of an empty one may be the first of the zeros.
    empty = document()
    empty.EncapsulatedDocument = b""
    assert header(encode(empty)).verdict.completeness is Completeness.WHOLE
    assert code_of(encode(empty) + bytes(2)) == "truncated"


def test_pixel_data_longer_than_described_is_noted_and_one_byte_of_padding_is_not() -> None:
    odd = data_set(Rows=3, Columns=3, BitsAllocated=8, PixelData=bytes(10))
    assert header(encode(odd)).instance.repairs == ()
    longer = data_set(Rows=3, Columns=3, BitsAllocated=8, PixelData=bytes(12))
    assert header(encode(longer)).instance.repairs == ("pixel data: longer than rows, columns and frames say",)


@pytest.mark.parametrize(
    "changes",
    [
        {"Rows": 9},
        {"NumberOfFrames": "2"},
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
        {"BitsAllocated": 32},
        {"SamplesPerPixel": 3, "BitsAllocated": 8, "PhotometricInterpretation": "YBR_FULL", "Columns": 16},
    ],
)
def test_pixel_data_shorter_than_described_is_truncated(changes: dict[str, object]) -> None:
    assert code_of(encode(data_set(**changes))) == "truncated"
    assert code_of(encode(data_set(**changes), GE_PRIVATE)) == "truncated"
    # Nobody knows how long the pixels of an unknown private transfer syntax have to be.
    assert header(encode(data_set(**changes), "1.2.3.4.5")).instance.transfer_syntax_uid == "1.2.3.4.5"


@pytest.mark.parametrize(
    "changes",
    [
        {"SamplesPerPixel": 3, "BitsAllocated": 8, "PhotometricInterpretation": "YBR_FULL_422"},
        {
            "SamplesPerPixel": 3,
            "BitsAllocated": 8,
            "PhotometricInterpretation": "YBR_PARTIAL_420",
            "PixelData": bytes(96),
        },
        {"BitsAllocated": 1, "Rows": 31, "Columns": 33},
        {"NumberOfFrames": "4 ", "Rows": 4, "Columns": 4},
        {"NumberOfFrames": "0"},
    ],
)
def test_subsampled_packed_and_multi_frame_pixels_are_measured_right(changes: dict[str, object]) -> None:
    assert header(encode(data_set(**changes))).instance.repairs == ()


def test_float_pixel_data_counts_as_pixels() -> None:
    data = data_set(SOPClassUID="1.2.840.10008.5.1.4.1.1.30", PixelData=None, BitsAllocated=32)
    data.add_new(0x7FE00008, "OF", bytes(8 * 8 * 4))
    assert header(encode(data)).instance.repairs == ()
    data.add_new(0x7FE00008, "OF", bytes(8 * 8 * 4 - 4))
    assert code_of(encode(data)) == "truncated"


def test_an_image_without_pixels_is_not_whole_unless_they_are_elsewhere() -> None:
    assert code_of(encode(data_set(PixelData=None))) == "truncated"
    assert code_of(encode(data_set(PixelData=b""))) == "truncated"
    assert code_of(encode(data_set(PixelData=b"", SOPClassUID="1.2.3"), "1.2.3.4.5")) == "truncated"
    assert code_of(encode(data_set(PixelData=b"", Rows=None))) == "truncated"
    unknown_class = data_set(PixelData=None, SOPClassUID="1.2.3.4.5")
    assert header(encode(unknown_class)).verdict.completeness is Completeness.CANNOT_TELL
    elsewhere = data_set(PixelData=None)
    elsewhere.PixelDataProviderURL = "https://pixels.example/1"
    assert header(encode(elsewhere)).instance.repairs == ()


def test_fewer_fragments_than_frames_are_damage_but_a_film_is_one_fragment() -> None:
    frames = compressed(b"one", b"two")
    assert header(frames).instance.repairs == ()
    assert code_of(frames.replace(b"IS\x02\x002 ", b"IS\x02\x003 ")) == "truncated"
    assert header(frames.removesuffix(SEQUENCE_END) + item() + SEQUENCE_END).instance.repairs == ()
    empty = frames.replace(item(b"two\0"), item())
    assert len(empty) == len(frames) - 4
    assert code_of(empty) == "truncated"
    film = compressed(b"film", transfer_syntax=MPEG4).replace(b"IS\x02\x001 ", b"IS\x02\x0099")
    assert header(film).instance.repairs == ()


def test_native_pixels_under_a_compressed_transfer_syntax_are_noted_and_measured() -> None:
    native = header(encode(data_set(), RLE)).instance
    assert native.repairs == ("pixel data: native, though the transfer syntax is a compressed one",)
    assert code_of(encode(data_set(PixelData=bytes(126)), RLE)) == "truncated"


def test_an_unknown_vr_and_implicit_elements_amid_explicit_ones_are_walked_over() -> None:
    base = encode(data_set(PixelData=None))
    future = struct.pack("<HH2sHL", 0x0029, 0x1010, b"ZZ", 0, 6) + b"future"
    implicit = struct.pack("<HHL", 0x0029, 0x1011, 4) + b"four"
    pixels = element(0x7FE00010, b"OW", bytes(128))
    assert header(base + future + implicit + pixels).instance.repairs == ()
    assert code_of(base + future + implicit + pixels[:-1]) == "truncated"


def test_a_sequence_written_as_un_holds_implicit_items() -> None:
    base = encode(data_set(PixelData=None))
    pixels = element(0x7FE00010, b"OW", bytes(128))
    # The second element's length reads as a VR of the long form: only its item tells that it is none.
    length = int.from_bytes(b"OB", "little")
    inner = struct.pack("<HHL", 0x0008, 0x0100, 4) + b"CODE" + struct.pack("<HHL", 0x0008, 0x0119, length)
    inner += bytes(length)
    unknown = struct.pack("<HH2sHL", 0x0040, 0x0275, b"UN", 0, 0xFFFFFFFF) + item(inner, undefined=True) + SEQUENCE_END
    assert header(base + unknown + pixels).instance.repairs == ()
    # Behind it the items around it go on as explicit.
    around = struct.pack("<HH2sHL", 0x0040, 0x0260, b"SQ", 0, 0xFFFFFFFF)
    around += item(unknown + element(0x00420011, b"OB", b"document"), undefined=True) + SEQUENCE_END
    assert header(base + around + pixels).instance.repairs == ()


def test_a_fragment_of_undefined_length_is_malformed() -> None:
    content = encode(data_set(PixelData=None), RLE)
    start = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + item()
    assert header(content + start + item(b"fragment") + SEQUENCE_END).instance.repairs == ()
    assert code_of(content + start + item(element(0x00080100, b"SH", b"CODE"), undefined=True) + SEQUENCE_END) == (
        "malformed"
    )


def test_values_in_sequences_are_not_taken_for_the_instance_s_own() -> None:
    other = element(0x0020000D, b"UI", b"9.9\0") + element(0x00100020, b"LO", b"OTHR")
    start = struct.pack("<HH2sHL", 0x0008, 0x1110, b"SQ", 0, 0xFFFFFFFF)
    content = start + item(other, undefined=True) + item(other) + SEQUENCE_END
    base = encode(data_set())
    study = base.index(struct.pack("<HH2s", 0x0008, 0x1030, b"LO"))
    found = header(base[:study] + content + base[study:])
    assert (found.instance.study_uid, found.patient_id) == ("1.2.3.4.1", "P1")


@pytest.mark.parametrize(
    "value",
    [
        element(0x00081111, b"LO", b"no item", length=None),
        item(undefined=True)[:-8] + element(0x00081111, b"LO", b"") + SEQUENCE_END,
    ],
    ids=["no item", "wrong delimiter"],
)
def test_a_malformed_sequence_is_refused(value: bytes) -> None:
    start = struct.pack("<HH2sHL", 0x0008, 0x1110, b"SQ", 0, 0xFFFFFFFF)
    assert code_of(encode(report()) + start + value) in ("malformed", "truncated")


def test_nesting_is_the_file_s_choice_and_bounded() -> None:
    start = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF)
    begin = start + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    end = struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + SEQUENCE_END
    base = encode(report()).removesuffix(b"")
    assert header(base + begin * 99 + end * 99).instance.study_uid
    assert code_of(base + begin * 50_000 + end * 50_000) == "malformed"


def test_the_number_of_elements_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "ELEMENTS_LIMIT", 1000)
    content = encode(data_set(PixelData=None)) + element(0x00291010, b"LO", b"") * 1000
    assert code_of(content) == "too-many-elements"


# -- deflated ----------------------------------------------------------------------------------------------------


def deflated(plain: bytes) -> bytes:
    """A deflated file whose data set goes on with these explicit bytes."""
    content = encode(data_set(PixelData=None), DEFLATED)
    start = content.index(DEFLATED.encode()) + len(DEFLATED)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return content[:start] + deflate.compress(inflate.decompress(content[start:]) + plain) + deflate.flush()


def test_a_deflated_data_set_is_inflated_up_to_a_limit_only() -> None:
    content = deflated(element(0x00291010, b"OB", bytes(8_000_000)) + element(0x7FE00010, b"OW", bytes(128)))
    assert len(content) < 10_000
    assert code_of(content, inflated_limit_bytes=1_000_000) == "inflated-too-large"
    tracemalloc.start()
    assert header(content).instance.transfer_syntax_uid == DEFLATED
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1_000_000


def test_a_damaged_deflated_stream_is_refused_and_bytes_after_it_are_noted() -> None:
    content = deflated(element(0x7FE00010, b"OW", bytes(128)))
    start = content.index(DEFLATED.encode()) + len(DEFLATED)
    assert code_of(content[:start] + b"\xff" + content[start + 1 :]) == "malformed"
    assert header(content + b"\0").instance.repairs == ()
    stamped = deflated(element(0x7FE00010, b"OW", bytes(128)) + b"\1\0\0\0" + os.urandom(1_500_000))
    assert header(stamped).instance.repairs == ("bytes after the data set do not belong to it",)
    assert header(content + b"CRC!").instance.repairs == ("bytes after the deflated data set do not belong to it",)


@given(st.lists(st.integers(1, 5000), max_size=30), st.booleans())
@settings(max_examples=60, deadline=None)
def test_inflated_bytes_are_the_bytes_that_were_deflated(steps: list[int], holding: bool) -> None:
    plain = os.urandom(20_000) + bytes(100_000) + os.urandom(20_000)
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = deflate.compress(plain) + deflate.flush()
    with opened(b"meta" + packed) as fd:
        source = InflatedBytes(FileBytes(fd, 4 + len(packed)), 4)
        pos = 0
        for number, step in enumerate(steps):
            assert source.read(pos, step) == plain[pos : pos + step]
            pos += step * (1 + number)
            assert source.holds(pos) == (pos <= len(plain))
            if holding:
                assert source.read(pos, 12) == plain[pos : pos + 12]
        source.finish()
        assert source.complete
        assert source.rest_bytes == 0


# -- how it reads ------------------------------------------------------------------------------------------------


def test_the_descriptor_stays_open_where_it_was() -> None:
    with opened(encode(data_set())) as fd:
        os.lseek(fd, 77, os.SEEK_SET)
        assert isinstance(read_header(fd, os.fstat(fd).st_size), Header)
        assert os.lseek(fd, 0, os.SEEK_CUR) == 77


def test_a_file_of_another_size_has_changed() -> None:
    content = encode(data_set())
    with opened(content) as fd:
        for size_bytes in (len(content) - 1, len(content) + 1, 0):
            with pytest.raises(SourceChanged):
                read_header(fd, size_bytes)
        with pytest.raises(SourceChanged):
            FileBytes(fd, len(content) + 100).read(len(content) - 4, 50)


def test_values_are_jumped_over_and_fragments_are_read_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []

    def counting(fd: int, length: int, offset: int) -> bytes:
        reads.append(length)
        return os.pread(fd, length, offset)

    monkeypatch.setattr(reading, "os", type("Os", (), {"pread": staticmethod(counting)}))
    large = data_set(Rows=1000, Columns=1000, PixelData=bytes(2_000_000))
    large.add_new(0x00291010, "OB", bytes(300_000))
    assert header(encode(large)).instance.repairs == ()
    assert sum(reads) < 30_000

    reads.clear()
    small = compressed(*[b"a fragment of some 40 bytes, not any more"] * 20_000)
    assert header(small).instance.repairs == ()
    assert len(reads) < len(small) / 50_000 + 10


def test_explicit_is_the_encoding_told_where_none_is_declared() -> None:
    assert header(encode(data_set(), meta=False)).instance.transfer_syntax_uid == EXPLICIT
