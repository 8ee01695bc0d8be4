"""Whole, damaged, cannot tell: objects of every class in every encoding, cut anywhere, and the verdict on each."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_description, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from dicomwatchd.errors import Unarchivable
from dicomwatchd.intake.dicom import completeness
from dicomwatchd.intake.dicom import header as header_module
from dicomwatchd.intake.dicom.header import Header
from dicomwatchd.intake.dicom.sop_classes import CONTENT, ELEMENTS
from dicomwatchd.intake.dicom.verdict import WHOLE, Completeness, Damaged, Verdict
from tests.unit.dicomfiles import (
    BIG_ENDIAN,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    INSTANCE,
    JPEG,
    RAW_DATA,
    RLE,
    SEQUENCE_END,
    SERIES,
    STUDY,
    compressed,
    data_set,
    document,
    element,
    encode,
    header,
    item,
    read,
    report,
)
from tests.unit.test_header import as_json

SPECTROSCOPY = "1.2.840.10008.5.1.4.1.1.4.2"
SIEMENS_CSA = "1.3.12.2.1107.5.9.1"
PRIVATE_ULTRASOUND = "1.2.840.113543.6.6.1.3.10002"
SOFTCOPY = "1.2.840.10008.5.1.4.1.1.11.1"
RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
RT_STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
RT_PLAN = "1.2.840.10008.5.1.4.1.1.481.5"
NOTHING_OWED = (RAW_DATA, SIEMENS_CSA, PRIVATE_ULTRASOUND, "1.2.840.10008.5.1.4.1.1.78.1", "1.2.3.4.5")
NATIVE = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)
URL = 0x00287FE0


def damage(content: bytes) -> Damaged:
    with pytest.raises(Damaged) as caught:
        read(content)
    return caught.value


def bare(sop_class: str, **changes: object) -> Dataset:
    """An object without an image's attributes, unless they are among the changes."""
    gone = ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation", "PixelData")
    return data_set(**{**dict.fromkeys(gone), "SOPClassUID": sop_class, **changes})


def sequence(*items: Dataset) -> Sequence:
    return Sequence(items or [bare_item()])


def bare_item(**values: object) -> Dataset:
    inner = Dataset()
    for keyword, value in {"CodeValue": "1", **values}.items():
        setattr(inner, keyword, value)
    return inner


# -- the table ---------------------------------------------------------------------------------------------------


def test_the_table_names_elements_of_the_dictionary() -> None:
    assert set(CONTENT.values()) == set(ELEMENTS)
    assert completeness.LANDMARKS.isdisjoint(header_module._CHOSEN)
    for name, tags in ELEMENTS.items():
        assert list(tags) == sorted(tags)
        assert name in {dictionary_description(tag) for tag in tags}
        assert set(tags) <= completeness.LANDMARKS
        assert all(dictionary_VR(tag) in ("SQ", "OB", "OF", "OD", "OB or OW", "UR") for tag in tags)


@pytest.mark.parametrize(
    ("sop_class", "name"),
    [
        (CT, "Pixel Data"),
        ("1.2.840.10008.5.1.4.1.1.6", "Pixel Data"),  # retired
        ("1.2.840.10008.5.1.4.1.1.66.4", "Pixel Data"),  # Segmentation
        ("1.2.840.10008.5.1.4.1.1.30", "Pixel Data"),  # Parametric Map: one of three kinds
        (RT_DOSE, "Pixel Data"),
        (SPECTROSCOPY, "Spectroscopy Data"),
        ("1.2.840.10008.5.1.4.1.1.9.1.1", "Waveform Sequence"),
        ("1.2.840.10008.5.1.4.1.1.88.59", "Content Sequence"),  # Key Object Selection
        ("1.2.840.10008.5.1.4.1.1.104.1", "Encapsulated Document"),
        (RT_STRUCTURES, "RT ROI Observations Sequence"),
        (RT_PLAN, "Referenced Structure Set Sequence"),
        (SOFTCOPY, "Displayed Area Selection Sequence"),
        ("1.2.840.10008.5.1.4.1.1.66.1", "Registration Sequence"),
        ("1.2.840.10008.5.1.4.1.1.66.2", "Fiducial Set Sequence"),
        ("1.2.840.10008.5.1.4.1.1.66.5", "Surface Sequence"),
        ("1.2.840.10008.5.1.4.1.1.66.6", "Track Set Sequence"),
        ("1.2.840.10008.5.1.4.1.1.67", "Referenced Image Real World Value Mapping Sequence"),
        ("1.2.840.10008.5.1.4.1.1.77.1.5.3", "Stereo Pairs Sequence"),
        *((sop_class, None) for sop_class in NOTHING_OWED),
    ],
)
def test_what_some_classes_call_for(sop_class: str, name: str | None) -> None:
    assert CONTENT.get(sop_class) == name


# -- sound, and once held ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sop_class", NOTHING_OWED)
@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
def test_rows_and_columns_call_for_no_pixels_in_a_class_that_does_not(sop_class: str, transfer_syntax: str) -> None:
    data = data_set(SOPClassUID=sop_class, PixelData=None)
    data.add_new(0x00290010, "LO", "SIEMENS CSA HEADER")
    data.add_new(0x00291010, "OB", b"SV10data")
    data.add_new(0x7FE10010, "LO", "PRIVATE")
    data.add_new(0x7FE11010, "OB", b"bulk")
    verdict = header(encode(data, transfer_syntax)).verdict
    assert verdict.completeness is Completeness.CANNOT_TELL
    assert verdict.reason and verdict.offset_bytes is None
    # Where there are pixels they are measured as ever, and they close the object.
    with_pixels = data_set(SOPClassUID=sop_class)
    assert header(encode(with_pixels, transfer_syntax)).verdict == WHOLE
    short = encode(data_set(SOPClassUID=sop_class, Rows=9), transfer_syntax)
    assert damage(short).verdict.reason == "the pixel data is shorter than rows, columns and frames say"


def test_the_end_of_a_deflated_stream_or_trailing_padding_closes_any_object() -> None:
    assert header(encode(bare(RAW_DATA), DEFLATED)).verdict == WHOLE
    assert header(encode(bare(RAW_DATA)) + element(0xFFFCFFFC, b"OB", bytes(8))).verdict == WHOLE
    signatures = element(0xFFFAFFFA, b"SQ", item(element(0x04000005, b"US", b"\1\0")))
    assert header(encode(bare(RAW_DATA)) + signatures).verdict == WHOLE


def test_a_delimiter_that_delimits_nothing_closes_no_object() -> None:
    assert damage(encode(bare(CT)) + SEQUENCE_END).verdict.reason.startswith("the data set ends before the Pixel Data")
    pixels = element(0x7FE00010, b"OW", bytes(128))
    assert header(encode(data_set(PixelData=None)) + SEQUENCE_END + pixels).verdict == WHOLE


def test_spectroscopy_is_whole_with_its_data() -> None:
    data = data_set(SOPClassUID=SPECTROSCOPY, PixelData=None)
    assert "ends before the Spectroscopy Data" in damage(encode(data)).verdict.reason
    data.add_new(0x56000020, "OF", bytes(64))
    assert header(encode(data)).verdict == WHOLE


def test_pixels_on_a_server_count_as_pixels() -> None:
    elsewhere = data_set(PixelData=None, PixelDataProviderURL="https://pixels.example/1")
    for syntax in ("1.2.840.10008.1.2.4.94", EXPLICIT):
        assert header(encode(elsewhere, syntax)).verdict == WHOLE


def test_what_a_device_has_left_out_is_noted_when_later_elements_are_there() -> None:
    structures = bare(RT_STRUCTURES, StructureSetROISequence=sequence(), ROIContourSequence=sequence())
    assert damage(encode(structures)).verdict.completeness is Completeness.DAMAGED
    structures.ApprovalStatus = "UNAPPROVED"
    found = header(encode(structures))
    assert found.verdict == WHOLE
    assert found.instance.repairs == ("RT ROI Observations Sequence: required by its class, but not in the file",)
    # In a file whose elements are out of order, too.
    out_of_order = encode(bare(CT)) + element(0x7FE10010, b"LO", b"GEMS") + element(0x00291010, b"LO", b"last")
    assert header(out_of_order).verdict == WHOLE


def test_an_element_that_is_there_and_empty_was_not_cut_off() -> None:
    empty = document()
    empty.EncapsulatedDocument = b""
    assert header(encode(empty)).verdict == WHOLE
    assert header(encode(bare(RT_STRUCTURES, RTROIObservationsSequence=Sequence()))).verdict == WHOLE


def test_what_the_standard_excuses() -> None:
    no_regions = bare(RT_STRUCTURES, StructureSetROISequence=Sequence())
    assert header(encode(no_regions)).verdict == WHOLE
    no_regions["StructureSetROISequence"].is_undefined_length = True
    assert header(encode(no_regions)).verdict == WHOLE

    histogram = bare(RT_DOSE, DoseUnits="GY", DoseType="PHYSICAL", DVHSequence=sequence())
    assert header(encode(histogram)).verdict == WHOLE
    points = bare(RT_DOSE, DoseUnits="GY", DoseType="PHYSICAL")
    assert header(encode(points)).verdict.completeness is Completeness.CANNOT_TELL
    assert damage(encode(bare(RT_DOSE))).verdict.reason.startswith("the data set ends before the Pixel Data")
    grid = data_set(SOPClassUID=RT_DOSE, DoseUnits="GY", DVHSequence=sequence(), PixelData=None)
    assert damage(encode(grid)).verdict.reason.startswith("the data set ends before the Pixel Data")

    device = bare(RT_PLAN, RTPlanGeometry="TREATMENT_DEVICE")
    assert header(encode(device)).verdict.completeness is Completeness.CANNOT_TELL
    assert header(encode(bare(RT_PLAN, RTPlanGeometry="TREATMENT_DEVICE", BeamSequence=sequence()))).verdict == WHOLE
    patient = bare(RT_PLAN, RTPlanGeometry="PATIENT", BeamSequence=sequence())
    assert "Referenced Structure Set Sequence" in damage(encode(patient)).verdict.reason
    assert damage(encode(bare(RT_PLAN))).verdict.completeness is Completeness.DAMAGED


# -- damaged: what is handed out -----------------------------------------------------------------------------------


def test_damage_says_where_it_begins_and_whose_file_it_is() -> None:
    content = encode(data_set())
    pixels = content.index(b"\xe0\x7f\x10\0")
    cut = damage(content[:-1])
    assert cut.code == "truncated"
    assert cut.verdict == Verdict(Completeness.DAMAGED, "the file ends inside an element's value", pixels)
    assert cut.message == cut.verdict.reason
    assert cut.header is not None and cut.header.verdict == cut.verdict
    assert uids(cut.header) == (STUDY, SERIES, INSTANCE, CT)
    assert cut.header.patient_id == "P1"
    assert cut.header.study_attributes["00081030"] == {"vr": "LO", "Value": ["Chest"]}

    boundary = damage(content[:pixels])
    assert boundary.verdict.offset_bytes == pixels
    assert boundary.header is not None

    series = content.index(SERIES.encode() + b"\0", pixels - 150)
    early = damage(content[: series + 3])
    assert early.header is None
    assert early.verdict.offset_bytes == series - 8


def test_damage_within_items_is_told_of_the_element_that_has_them() -> None:
    content = encode(report())
    start = content.index(b"\x40\0\x30\xa7SQ")
    for length in range(start + 1, len(content)):
        assert damage(content[:length]).verdict.offset_bytes == start


def test_a_malformed_sequence_is_damage_and_what_stands_before_it_is_handed_out() -> None:
    content = encode(report()).removesuffix(SEQUENCE_END) + element(0x00081111, b"LO", b"no item")
    found = damage(content)
    assert (found.code, found.verdict.completeness) == ("malformed", Completeness.DAMAGED)
    assert found.header is not None and uids(found.header)[0] == STUDY


def test_a_damaged_deflated_stream_gives_what_was_inflated_before() -> None:
    large = data_set(Rows=300, Columns=300, PixelData=os.urandom(180_000))
    content = encode(large, DEFLATED)
    for length in (len(content) - 1, len(content) // 2):
        found = damage(content[:length])
        assert found.verdict.offset_bytes is None
        assert found.header is not None and uids(found.header) == (STUDY, SERIES, INSTANCE, CT)
    at_its_start = content.index(DEFLATED.encode()) + len(DEFLATED)
    nothing = damage(content[:at_its_start] + b"\xff" * 40)
    assert (nothing.code, nothing.header) == ("malformed", None)


def test_short_pixels_and_too_few_fragments_are_told_of_the_pixel_data() -> None:
    short = encode(data_set(Rows=9))
    found = damage(short)
    assert found.verdict.offset_bytes == short.index(b"\xe0\x7f\x10\0")
    assert found.header is not None
    few = compressed(b"one", b"two").replace(b"IS\x02\x002 ", b"IS\x02\x003 ")
    found = damage(few)
    assert found.verdict == Verdict(
        Completeness.DAMAGED, "the pixel data has fewer fragments than frames", few.index(b"\xe0\x7f\x10\0")
    )
    assert found.header is not None
    uncompressed = compressed(b"one", b"two", transfer_syntax="1.2.840.10008.1.2.1.98")
    assert header(uncompressed).verdict == WHOLE
    assert damage(uncompressed.replace(b"IS\x02\x002 ", b"IS\x02\x003 ")).header is not None


def test_a_uid_that_zeros_may_have_shortened_is_not_believed() -> None:
    """A tail that was never written begins anywhere, in a UID too: what is left of it is another UID."""
    content = encode(data_set())
    start = content.index(b"\x20\0\x0d\0UI", content.index(b"Chest")) + 8
    series = content.index(b"\x20\0\x0e\0UI", start)
    assert content[start:series] == STUDY.encode() + b"\0"
    for zeros_from in range(132, len(content) - 128 - 8):
        found = damage(content[:zeros_from] + bytes(len(content) - zeros_from))
        if found.header is not None:
            assert uids(found.header) == (STUDY, SERIES, INSTANCE, CT)
    assert found.header is not None


def test_two_different_uids_of_one_kind_give_no_header() -> None:
    content = encode(data_set(PixelData=None)) + element(0x0020000D, b"UI", b"9.9.9.9\0")
    assert damage(content + element(0x7FE00010, b"OW", bytes(128))[:-1]).header is None


def test_what_exceeds_a_limit_is_not_called_damaged() -> None:
    start = bytes.fromhex("40 00 30 a7") + b"SQ\0\0\xff\xff\xff\xff"
    deep = encode(report()) + (start + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 5000
    with pytest.raises(Unarchivable, match="nested too deeply") as caught:
        read(deep)
    assert not isinstance(caught.value, Damaged)
    inflating = encode(data_set(Rows=4000, Columns=4000, PixelData=bytes(32_000_000)), DEFLATED)
    with pytest.raises(Unarchivable, match="inflates to too much") as caught:
        read(inflating, inflated_limit_bytes=1_000_000)
    assert not isinstance(caught.value, Damaged)


def uids(found: Header) -> tuple[str, str, str, str]:
    instance = found.instance
    return instance.study_uid, instance.series_uid, instance.sop_instance_uid, instance.sop_class_uid


# -- any object, cut anywhere --------------------------------------------------------------------------------------

text = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\^="), max_size=20).map(
    str.strip
)


@st.composite
def items_of(draw: st.DrawFn, depth: int = 2) -> Sequence:
    inner = []
    for _ in range(draw(st.integers(1, 2))):
        one = bare_item(CodeMeaning=draw(text))
        if depth > 1 and draw(st.booleans()):
            one.ConceptCodeSequence = draw(items_of(depth - 1))
            one["ConceptCodeSequence"].is_undefined_length = draw(st.booleans())
        one.is_undefined_length_sequence_item = draw(st.booleans())
        inner.append(one)
    return Sequence(inner)


@st.composite
def objects(draw: st.DrawFn) -> tuple[Dataset, str, int | None]:
    """A data set, its transfer syntax, and the tag that it may be cut behind: None when it owes nothing."""
    sop_class = draw(st.sampled_from([*CONTENT, *NOTHING_OWED]))
    name = CONTENT.get(sop_class)
    data = bare(sop_class, StudyDescription=draw(text), PatientName=draw(text), AccessionNumber=draw(text))
    transfer_syntax = draw(st.sampled_from(NATIVE))
    for tag in draw(st.lists(st.sampled_from([0x00081140, 0x00400555, 0x01000420, 0x52009229]), unique=True)):
        add_sequence(draw, data, tag)
    if draw(st.booleans()):
        data.add_new(0x00290010, "LO", "PRIVATE")
        data.add_new(0x00291010, draw(st.sampled_from(["OB", "LO", "UN"])), b"x" * draw(st.integers(0, 20)))
    owed = None
    if name == "Pixel Data":
        transfer_syntax = draw(st.sampled_from([*NATIVE, JPEG, RLE]))
        owed = add_pixels(draw, data, encapsulated=transfer_syntax in (JPEG, RLE))
    elif name is not None:
        (owed,) = ELEMENTS[name]
        if dictionary_VR(owed) == "SQ":
            add_sequence(draw, data, owed)
        else:
            data.add_new(owed, dictionary_VR(owed), bytes(range(1, 1 + 4 * draw(st.integers(1, 9)))))
        if sop_class == RT_STRUCTURES:
            data.StructureSetROISequence = sequence()
    for tag in draw(st.lists(st.sampled_from([0x7FE10010, 0xFFFCFFFC]), unique=True)):
        data.add_new(tag, "OB" if tag == 0xFFFCFFFC else "LO", b"1234" if tag == 0xFFFCFFFC else "PRIVATE")
    return data, transfer_syntax, owed


def add_sequence(draw: st.DrawFn, data: Dataset, tag: int) -> None:
    data.add_new(tag, "SQ", draw(items_of()))
    data[tag].is_undefined_length = draw(st.booleans())


def add_pixels(draw: st.DrawFn, data: Dataset, *, encapsulated: bool) -> int:
    frames, rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns, data.NumberOfFrames = rows, columns, str(frames)
    if encapsulated:
        data.BitsAllocated = 8
        data.add_new(0x7FE00010, "OB", encapsulate([b"\xff" * draw(st.integers(2, 20)) for _ in range(frames)]))
        data[0x7FE00010].is_undefined_length = True
        return 0x7FE00010
    tag, vr, bits = draw(st.sampled_from([(0x7FE00010, "OW", 16), (0x7FE00008, "OF", 32), (0x7FE00009, "OD", 64)]))
    data.BitsAllocated = bits
    data.add_new(tag, vr, b"\x11" * (rows * columns * frames * bits // 8))
    return tag


def boundaries(data: Dataset, transfer_syntax: str) -> Iterator[tuple[int, int]]:
    """Of each element: where it ends in the file, and its tag."""
    tags = list(data.keys())
    tags.sort()
    for number in range(len(tags)):
        first = Dataset({tag: data[tag] for tag in tags[: number + 1]})
        first.SOPClassUID, first.SOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID  # for the meta group
        yield len(encode(first, transfer_syntax)), int(tags[number])


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(made=objects(), choice=st.data())
def test_any_object_is_whole_and_no_cut_of_it_is(made: tuple[Dataset, str, int | None], choice: st.DataObject) -> None:
    data, transfer_syntax, owed = made
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = encode(data, transfer_syntax)
        ends = dict(boundaries(data, transfer_syntax)) if transfer_syntax != DEFLATED else {}
    whole = header(content)
    closed = owed is not None or transfer_syntax == DEFLATED or 0xFFFCFFFC in data
    assert whole.verdict.completeness is (Completeness.WHOLE if closed else Completeness.CANNOT_TELL)
    expected = (STUDY, SERIES, INSTANCE, str(data.SOPClassUID))
    assert uids(whole) == expected
    assert_agrees(whole, content)

    starts = sorted(ends)
    near = [at + by for at in starts for by in (-1, 0, 1, 4)]
    drawn = choice.draw(st.lists(st.integers(132, len(content) - 1), max_size=20))
    uids_end = next((at for at, tag in ends.items() if tag == 0x0020000E), len(content))
    for length in {*near, *drawn}:
        if not 132 <= length < len(content):
            continue
        before = max((at for at in starts if at <= length), default=0)
        rest = content[before:length]
        # Up to seven zeros that begin the next element look like padding: no more than a boundary tells.
        at_boundary = before > 0 and len(rest) < 8 and not any(rest)
        may_end = owed is None or (before > 0 and ends[before] >= owed)
        cut = outcome(content[:length])
        if isinstance(cut, Header):
            assert at_boundary and may_end, length
            assert uids(cut) == expected
            continue
        if not isinstance(cut, Damaged):
            assert cut.code == "no-uid"
            assert at_boundary and owed is None and before < uids_end
            continue
        assert not (at_boundary and may_end), (length, cut.verdict)
        if before > 0:
            assert cut.verdict.offset_bytes == before
        if cut.header is not None:
            assert uids(cut.header) == expected
            assert cut.header.verdict == cut.verdict
        elif transfer_syntax != DEFLATED:
            # A UID that a zero follows is not believed.
            assert before < uids_end or (rest and not any(rest))


def assert_agrees(found: Header, content: bytes) -> None:
    """With what pydicom reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(io.BytesIO(content))
        assert uids(found) == (data.StudyInstanceUID, data.SeriesInstanceUID, data.SOPInstanceUID, data.SOPClassUID)
        assert found.patient_id == data.PatientID
        assert {**found.study_attributes, **found.series_attributes} == as_json(data)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(made=objects(), share=st.floats(0, 1), sector=st.booleans())
def test_an_unwritten_tail_never_gives_wrong_uids(
    made: tuple[Dataset, str, int | None], share: float, sector: bool
) -> None:
    data, transfer_syntax, _ = made
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = encode(data, transfer_syntax)
    start = 132 + int(share * (len(content) - 132))
    size = len(content) + (-len(content) % 512 if sector else 0)
    found = outcome(content[:start] + bytes(size - start))
    if isinstance(found, Damaged):
        assert found.header is None or uids(found.header) == (STUDY, SERIES, INSTANCE, data.SOPClassUID)
    elif isinstance(found, Header):
        assert uids(found) == (STUDY, SERIES, INSTANCE, data.SOPClassUID)
    else:
        assert found.code in ("no-uid", "bad-uid")


def outcome(content: bytes) -> Header | Unarchivable:
    try:
        return header(content)
    except Unarchivable as error:
        return error
