"""Whether all of a study is there: exports of which it is known, made file by file, read as the intake reads them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicomwatchd.intake.dicom.header import Header
from dicomwatchd.intake.dicom.reading import MemoryBytes
from dicomwatchd.intake.dicom.references import references_of
from dicomwatchd.intake.dicom.signs import signs_of, text_of
from dicomwatchd.intake.dicom.structure import Encoding
from dicomwatchd.study_completeness import (
    LIMIT_FINDINGS,
    PET,
    SeriesContent,
    StudyCompleteness,
    judged,
)
from dicomwatchd.study_signs import LIMIT_NUMBERS, LIMIT_REFERENCES, Concatenation, Part, SeriesSigns, Signs
from tests.unit.dicomfiles import (
    BIG_ENDIAN,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    STUDY,
    data_set,
    encode,
    read,
    report,
)

ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
REPORT = "1.2.840.10008.5.1.4.1.1.88.11"

AXIAL: list[float] = [1, 0, 0, 0, 1, 0]
CORONAL: list[float] = [1, 0, 0, 0, 0, -1]
SAGITTAL: list[float] = [0, 1, 0, 0, 0, -1]
_TILT = math.radians(18)
TILTED = [1, 0, 0, 0, math.cos(_TILT), math.sin(_TILT)]

#: Attributes by keyword, one dictionary for each file.
Files = list[dict[str, Any]]


def files(count: int, make: Callable[[int], dict[str, Any]], *, series: int = 1, without: Iterable[int] = ()) -> Files:
    """The files 1 to ``count`` of a series, without some."""
    return [
        {
            "SeriesInstanceUID": f"{STUDY}.{series}",
            "SOPInstanceUID": f"{STUDY}.{series}.{number}",
            "InstanceNumber": str(number),
            **make(number),
        }
        for number in range(1, count + 1)
        if number not in set(without)
    ]


def at(
    z: Callable[[int], float], orientation: list[float] = AXIAL, x: float = -120.5, **more: Any
) -> Callable[[int], dict[str, Any]]:
    """Slices of which the n-th stands at ``z``."""

    def slice_of(number: int) -> dict[str, Any]:
        return {
            "ImageOrientationPatient": [f"{cosine:.6f}" for cosine in orientation],
            "ImagePositionPatient": [x, -130.25, f"{z(number):.3f}"],
            **more,
        }

    return slice_of


def axial(number: int) -> dict[str, Any]:
    return at(lambda n: -300 + 2.5 * n)(number)


def coronal(number: int) -> dict[str, Any]:
    return {
        "ImageOrientationPatient": CORONAL,
        "ImagePositionPatient": [-100, f"{-90 + 3.3 * number:.2f}", 40],
    }


def renumbered(made: Files) -> Files:
    return [{**one, "InstanceNumber": str(number)} for number, one in enumerate(made, 1)]


def no_numbers(made: Files) -> Files:
    return [{**one, "InstanceNumber": None} for one in made]


def pet(count: int, slices: int, times: int = 1, kind: str = "STATIC", without: Iterable[int] = ()) -> Files:
    def make(number: int) -> dict[str, Any]:
        return {
            **at(lambda n: -400 + 3.27 * ((n - 1) % slices))(number),
            "SOPClassUID": PET,
            "SeriesType": [kind, "IMAGE"],
            "NumberOfSlices": slices,
            "NumberOfTimeSlices": times if kind == "DYNAMIC" else None,
        }

    return files(count, make, without=without)


def concatenated(
    parts: int, *, total: bool = True, frames: int = 4, without: Iterable[int] = (), series: int = 1, **more: Any
) -> Files:
    def make(number: int) -> dict[str, Any]:
        return {
            "SOPClassUID": ENHANCED_MR,
            "ConcatenationUID": f"{STUDY}.99.{series}",
            "InConcatenationNumber": number,
            "InConcatenationTotalNumber": parts if total else None,
            "NumberOfFrames": str(frames),
            "PixelData": bytes(128 * frames),
            "InstanceNumber": "1",
            **more,
        }

    return files(parts, make, series=series, without=without)


def slide(level: int, columns: int, rows: int, frames: int, **more: Any) -> dict[str, Any]:
    return {
        "SeriesInstanceUID": f"{STUDY}.1",
        "SOPInstanceUID": f"{STUDY}.1.{level}",
        "SOPClassUID": WHOLE_SLIDE,
        "InstanceNumber": str(level),
        "TotalPixelMatrixColumns": columns,
        "TotalPixelMatrixRows": rows,
        "DimensionOrganizationType": "TILED_FULL",
        "NumberOfFrames": str(frames),
        "PixelData": bytes(128 * frames),
        **more,
    }


def ultrasound(number: int) -> dict[str, Any]:
    return {"SOPClassUID": ULTRASOUND, "NumberOfFrames": "2", "PixelData": bytes(256)}


def turned(number: int) -> list[float]:
    angle = math.radians(15 * number)
    return [math.cos(angle), math.sin(angle), 0, 0, 0, -1]


class Export(NamedTuple):
    what: str
    made: Files
    answer: str
    gaps: tuple[tuple[str, int], ...] = ()  # code, how many are missing
    signs: tuple[str, ...] = ()


NO_SIGN, GAPS, COMPLETE, NOT_KNOWN = "no sign of a gap", "gaps", "complete", "not known"

EXPORTS = [
    Export("a whole CT series", files(40, axial), NO_SIGN),
    Export("a slice in the middle is missing", files(40, axial, without=[17]), GAPS, (("slices", 1),)),
    Export("two places", files(40, axial, without=[17, 30]), GAPS, (("slices", 2),)),
    Export("a block is missing", files(60, axial, without=range(20, 40)), GAPS, (("slices", 20),)),
    Export("the last slice is missing, which nothing tells", files(40, axial, without=[40]), NO_SIGN),
    Export("the first slices are missing, which nothing tells", files(40, axial, without=[1, 2]), NO_SIGN),
    Export("from bottom to top", files(40, at(lambda n: 300 - 2.5 * n), without=[9]), GAPS, (("slices", 1),)),
    Export("counted from 0", [{**f, "InstanceNumber": str(i)} for i, f in enumerate(files(30, axial))], NO_SIGN),
    Export("numbered through in spite of a hole", renumbered(files(40, axial, without=[17])), NO_SIGN),
    Export("no numbers, a slice is missing", no_numbers(files(40, axial, without=[17])), GAPS, (("slices", 1),)),
    Export("no numbers, all there", no_numbers(files(40, axial)), NO_SIGN),
    Export(
        "no numbers, a wide hole",
        no_numbers(files(40, axial, without=range(10, 20))),
        NOT_KNOWN,
        signs=("positions",),
    ),
    Export("no numbers, few slices", no_numbers(files(9, axial, without=[4])), NOT_KNOWN, signs=("positions",)),
    Export("too few slices for a verdict", files(5, axial, without=[3]), NOT_KNOWN, signs=("numbers",)),
    Export("coronal, a slice is missing", files(30, coronal, without=[12]), GAPS, (("slices", 1),)),
    Export("coronal, all there", files(30, coronal), NO_SIGN),
    Export("a tilted gantry", files(30, at(lambda n: 5.0 * n, TILTED)), NO_SIGN),
    Export(
        "a tilted gantry, a slice is missing",
        files(30, at(lambda n: 5.0 * n, TILTED), without=[11]),
        GAPS,
        (("slices", 1),),
    ),
    Export("irregular distances", files(30, at(lambda n: n * n * 0.7)), NO_SIGN),
    Export(
        "irregular, a number is missing", files(30, at(lambda n: n * n * 0.7), without=[8]), NOT_KNOWN, (), ("numbers",)
    ),
    Export("thin slices, then thick ones", files(30, at(lambda n: 3.0 * min(n, 12) + 8.0 * max(0, n - 12))), NO_SIGN),
    Export("distances that were rounded", files(60, at(lambda n: round(n * 0.977, 1))), NO_SIGN),
    Export("an isotropic one of 0.3 mm", files(90, at(lambda n: n * 0.3), without=[44]), GAPS, (("slices", 1),)),
    Export(
        "two stacks in a series, numbered through",
        files(40, at(lambda n: 4.0 * n if n <= 20 else 4.0 * n + 60)),
        NO_SIGN,
    ),
    Export(
        "two stacks in a series, one lacks a slice",
        files(40, at(lambda n: 4.0 * n if n <= 20 else 4.0 * n + 61.5), without=[7]),
        NOT_KNOWN,
        signs=("numbers",),
    ),
    Export(
        "two stacks, each numbered from 1",
        [
            {**f, "InstanceNumber": str((i - 1) % 20 + 1)}
            for i, f in enumerate(files(40, at(lambda n: 4.0 * n if n <= 20 else 4.0 * n + 60)), 1)
        ],
        NOT_KNOWN,
        signs=("positions",),
    ),
    Export("a localizer of three planes", files(3, coronal) + files(3, axial, series=2), NO_SIGN),
    Export(
        "three planes in one series",
        renumbered(
            [
                {**f, "SOPInstanceUID": f"{STUDY}.1.{i}"}
                for i, f in enumerate(files(9, axial) + files(9, coronal) + files(9, at(lambda n: 0, SAGITTAL)), 1)
            ]
        ),
        NO_SIGN,
    ),
    Export("multi-echo, slice by slice", files(60, at(lambda n: 3.0 * ((n - 1) // 3))), NO_SIGN),
    Export(
        "multi-echo, one echo of a slice is missing",
        files(60, at(lambda n: 3.0 * ((n - 1) // 3)), without=[31]),
        NOT_KNOWN,
        signs=("numbers",),
    ),
    Export(
        "multi-echo, a slice is missing in all",
        files(60, at(lambda n: 3.0 * ((n - 1) % 20)), without=[7, 27, 47]),
        GAPS,
        (("slices", 1),),
    ),
    Export("dynamic MR, phase by phase", files(60, at(lambda n: 3.0 * ((n - 1) % 20))), NO_SIGN),
    Export("diffusion, all at one number each second", files(40, at(lambda n: 3.0 * n, InstanceNumber="1")), NO_SIGN),
    Export(
        "every second number, as of an acquisition that was split",
        [{**f, "InstanceNumber": str(2 * i)} for i, f in enumerate(files(30, axial), 1)],
        NO_SIGN,
    ),
    Export("radial projections", files(12, lambda n: at(lambda _: 0, turned(n))(n)), NO_SIGN),
    Export("cine ultrasound", files(12, ultrasound), NO_SIGN),
    Export("cine ultrasound, numbers are missing", files(12, ultrasound, without=[5]), NOT_KNOWN, signs=("numbers",)),
    Export("one secondary capture", files(1, lambda n: {}), NO_SIGN),
    Export(
        "numbers out of order of magnitude",
        [{**f, "InstanceNumber": f"{7**i}"} for i, f in enumerate(files(9, axial))],
        NO_SIGN,
    ),
    Export("a whole concatenation", concatenated(4), COMPLETE),
    Export("a concatenation lacks a part", concatenated(4, without=[2]), GAPS, (("concatenation", 1),)),
    Export("a concatenation lacks its last part", concatenated(4, without=[4]), GAPS, (("concatenation", 1),)),
    Export("no total is said, all there", concatenated(4, total=False), NO_SIGN),
    Export(
        "no total is said, a part is missing", concatenated(4, total=False, without=[2]), GAPS, (("concatenation", 1),)
    ),
    Export("a concatenation and a CT series", concatenated(3) + files(20, axial, series=2), NO_SIGN),
    Export(
        "a whole concatenation beside one that is none",
        concatenated(3) + concatenated(3, series=2, without=[1]),
        GAPS,
        (("concatenation", 1),),
    ),
    Export("static PET", pet(20, 20), COMPLETE),
    Export("static PET lacks its last slice", pet(20, 20, without=[20]), GAPS, (("pet", 1),)),
    Export("dynamic PET", pet(32, 8, 4, "DYNAMIC"), COMPLETE),
    Export("dynamic PET lacks a slice of one frame", pet(32, 8, 4, "DYNAMIC", without=[22]), GAPS, (("pet", 1),)),
    Export("PET of several beds, counted for each", pet(24, 12, kind="WHOLE BODY"), NO_SIGN),
    Export("dynamic PET lacks the last time", pet(24, 8, 4, "DYNAMIC"), GAPS, (("pet", 8),)),
    Export("PET and an addendum", pet(20, 20) + files(1, lambda n: {"SOPClassUID": REPORT}, series=2), COMPLETE),
    Export(
        "a CT series and an addendum", files(20, axial) + files(1, lambda n: {"SOPClassUID": REPORT}, series=2), NO_SIGN
    ),
    Export("a whole slide", [slide(1, 64, 40, 40), slide(2, 16, 10, 4), slide(3, 7, 8, 1)], COMPLETE),
    Export("a slide lacks tiles", [slide(1, 64, 40, 37), slide(2, 16, 10, 4)], GAPS, (("tiles", 3),)),
    Export(
        "a slide of two focal planes",
        [slide(1, 16, 16, 8, TotalPixelMatrixFocalPlanes=2, NumberOfOpticalPaths=1)],
        COMPLETE,
    ),
    Export(
        "a sparse slide, of which nothing is known",
        [slide(1, 64, 40, 11, DimensionOrganizationType="TILED_SPARSE")],
        NO_SIGN,
    ),
    Export(
        "a slide in a concatenation",
        [slide(n, 64, 40, 20, ConcatenationUID="1.2.9", InConcatenationNumber=n) for n in (1, 2)],
        COMPLETE,
    ),
    Export(
        "a slide in a concatenation that lacks a part",
        [slide(1, 64, 40, 20, ConcatenationUID="1.2.9", InConcatenationNumber=1)],
        GAPS,
        (("tiles", 20),),
    ),
    Export(
        "the sender has counted more in the series",
        files(20, at(lambda n: 2.0 * n, NumberOfSeriesRelatedInstances="24")),
        NOT_KNOWN,
        signs=("counted",),
    ),
    Export(
        "the sender has counted them all",
        files(20, at(lambda n: 2.0 * n, NumberOfSeriesRelatedInstances="20", NumberOfStudyRelatedInstances="20")),
        NO_SIGN,
    ),
    Export(
        "the sender has counted more in the study",
        files(20, at(lambda n: 2.0 * n, NumberOfStudyRelatedInstances="300")),
        NOT_KNOWN,
        signs=("counted",),
    ),
]


def header_of(attributes: dict[str, Any], syntax: str = EXPLICIT) -> Header:
    found = read(encode(data_set(**{"PixelData": bytes(128), **attributes}), syntax))
    assert isinstance(found, Header)
    return found


def study_of(made: Files, syntax: str = EXPLICIT) -> StudyCompleteness:
    signs: dict[str, SeriesSigns] = {}
    content: dict[str, dict[str, set[str]]] = {}
    for attributes in made:
        header = header_of(attributes, syntax)
        instance = header.instance
        series = signs.setdefault(instance.series_uid, SeriesSigns())
        assert Signs.of(header.signs_text) == header.signs and header.signs.text == header.signs_text
        series.take(instance.sop_instance_uid, header.signs)
        of_class = content.setdefault(instance.series_uid, {}).setdefault(instance.sop_class_uid, set())
        of_class.add(instance.sop_instance_uid)
    again = {uid: SeriesSigns.of(json.loads(json.dumps(one.document()))) for uid, one in signs.items()}
    assert again == signs
    found = judged({uid: SeriesContent(one) for uid, one in content.items()}, again)
    assert StudyCompleteness.of(json.loads(json.dumps(found.document()))) == found
    return found


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.what)
def test_exports_of_which_it_is_known(export: Export) -> None:
    found = study_of(export.made)
    assert found.answer == export.answer, found
    assert tuple((one.code, one.missing) for one in found.gaps) == export.gaps
    assert tuple(one.code for one in found.signs) == export.signs
    assert bool(found.evidence) >= (found.answer == COMPLETE)


@pytest.mark.parametrize("syntax", [IMPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize("what", ["a concatenation lacks a part", "PET and an addendum", "a slide lacks tiles"])
def test_the_encoding_does_not_count(what: str, syntax: str) -> None:
    export = next(one for one in EXPORTS if one.what == what)
    assert study_of(export.made, syntax) == study_of(export.made)


def test_no_value_of_a_file_is_in_a_finding() -> None:
    found = study_of(files(40, lambda n: {**axial(n), "SeriesDescription": "SECRET"}, without=[3, 9]))
    assert [one.text for one in found.gaps] == ["2 slices are missing between slices at equal distances"]
    assert "SECRET" not in repr(found)


@pytest.mark.parametrize(
    "attributes",
    [
        {"ImagePositionPatient": [1, 2, 3]},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0], "ImagePositionPatient": [1, 2, 3]},
        {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0], "ImagePositionPatient": [1, 2, 3]},
        {"InConcatenationNumber": 1},
        {"SOPClassUID": PET, "NumberOfSlices": 0},
        {"SOPClassUID": PET, "NumberOfSlices": 9, "SeriesType": ["STATIC", "REPROJECTION"]},
        {"DimensionOrganizationType": "TILED_FULL"},
        {"InstanceNumber": ""},
    ],
)
def test_what_is_not_all_there_says_nothing(attributes: dict[str, Any]) -> None:
    assert header_of(attributes).signs_text == ""


@pytest.mark.parametrize("tag", [0x00200013, 0x00200032, 0x00200037, 0x00209161, 0x00280008, 0x00201208])
@given(value=st.binary(max_size=40))
def test_no_value_raises(tag: int, value: bytes) -> None:
    values = {
        0x00200032: b"1\\2\\3",
        0x00200037: b"1\\0\\0\\0\\1\\0",
        0x00209161: b"1.2",
        0x00209162: b"\1\0",
        0x00209311: b"TILED_FULL",
        0x00480006: b"\x10\0\0\0",
        tag: value,
    }
    found = signs_of(values, PET, big_endian=False)
    assert Signs.of(found.text) == found
    series = SeriesSigns()
    series.take("1.2", found)
    assert SeriesSigns.of(json.loads(json.dumps(series.document()))) == series


def as_json(signs: Signs) -> str:
    """What a library makes of it."""
    raw = {
        "n": signs.number,
        "o": None if signs.position_um is None else signs.orientation,
        "p": signs.position_um,
        "c": signs.part and [signs.part.concatenation, signs.part.number, signs.part.total],
        "s": signs.slices or None,
        "t": signs.tiles or None,
        "f": signs.frames or None if signs.tiles else None,
        "i": signs.in_series or None,
        "a": signs.in_study or None,
        "r": " ".join(signs.references) or None,
    }
    said = {key: value for key, value in raw.items() if value is not None}
    return json.dumps(said, separators=(",", ":")) if said else ""


def _or(*plain: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from(plain) | st.binary(max_size=20)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            0x00200013: _or(b"7", b"-7 ", b" 12", b"7\0", b"1_0", b"2147483648", b"0" * 17 + b"7", b"+3", b""),
            0x00200032: _or(b"1\\2\\3", b"-100.5\\-1e2\\16 ", b"1\\2\\3\0", b"1\\2", b"1\\nan\\3", b"9e5\\9e5\\inf")
            | st.floats(-2e9, 2e9).map(lambda z: f"0\\0\\{z}".encode()),
            0x00200037: _or(b"1\\0\\0\\0\\1\\0", b"0.6\\0.8\\0\\-0.8\\0.6\\0 ", b"1\\0\\0\\1\\0\\0", b"1\\0\\0\\0\\1"),
            0x00209161: _or(b"1.2", b"1.2\0", b"1..2", b'"'),
            0x00209162: _or(b"\1\0", b"\0\0"),
            0x00209163: _or(b"\4\0"),
            0x00209311: _or(b"TILED_FULL", b"TILED_SPARSE"),
            0x00201208: _or(b"12", b"0"),
            0x00201209: _or(b"9 "),
            0x00540081: _or(b"\5\0"),
            0x00480006: _or(b"\x10\0\0\0"),
            0x00480007: _or(b"\x10\0\0\0"),
            0x00280008: _or(b"4"),
            0x00280010: _or(b"\4\0"),
            0x00280011: _or(b"\4\0"),
        },
    ),
    st.sampled_from([PET, CT]),
    st.sampled_from([(), ("1.2",), ("1.2", "1.3")]),
    st.booleans(),
)
def test_the_short_way_to_the_text_is_the_long_one(
    values: dict[int, bytes], sop_class: str, references: tuple[str, ...], big_endian: bool
) -> None:
    signs = signs_of(values, sop_class, references, big_endian=big_endian)
    assert text_of(values, sop_class, references, big_endian) == signs.text == as_json(signs)
    assert Signs.of(signs.text) == signs


@given(st.lists(st.sets(st.integers(-5000, 5000)), max_size=4))
def test_signs_put_together_in_any_order_are_the_same(parts: list[set[int]]) -> None:
    def made(numbers: set[int]) -> SeriesSigns:
        return SeriesSigns(numbers=set(numbers), positions={"1,0,0,0,1,0": set(numbers)} if numbers else {})

    forth, back, whole = SeriesSigns(), SeriesSigns(), made(set().union(*parts))
    for part in parts:
        forth.add(made(part))
        forth.add(made(part))
    for part in reversed(parts):
        back.add(SeriesSigns.of(made(part).document()))
    assert forth == back == whole == SeriesSigns.of(whole.document())


def test_a_regular_series_takes_a_line() -> None:
    series = SeriesSigns()
    for number in range(1, 2001):
        series.take(f"1.{number}", Signs(number=number, orientation="1000,0,0,0,1000,0", position_um=2500 * number))
    assert series.document() == {
        "numbers": "1+1*1999",
        "positions": {"1000,0,0,0,1000,0": "2500+2500*1999"},
    }


def test_what_is_more_than_is_kept_is_said() -> None:
    series = SeriesSigns()
    series.add(SeriesSigns(numbers=set(range(LIMIT_NUMBERS + 1))))
    series.take("1", Signs(number=5))
    assert series.numbers == set()
    found = judged({"1.2": SeriesContent({CT: {"1"}})}, {"1.2": series})
    assert (found.answer, [one.code for one in found.signs]) == (NOT_KNOWN, ["too-many"])


def test_of_many_findings_some_are_on_record() -> None:
    gap = SeriesSigns(concatenations={"1.9": Concatenation(3, 0, {1: 1})})
    uids = [f"1.2.{number}" for number in range(LIMIT_FINDINGS + 5)]
    found = judged({uid: SeriesContent({CT: {f"{uid}.1"}}) for uid in uids}, dict.fromkeys(uids, gap))
    assert len(found.gaps) == LIMIT_FINDINGS


def test_a_series_of_an_earlier_version_is_not_known() -> None:
    content = {"1.2": SeriesContent({CT: {"1"}}), "1.3": SeriesContent({CT: {"2"}})}
    assert judged(content, {"1.2": SeriesSigns()}).answer == NOT_KNOWN
    gap = SeriesSigns(concatenations={"1.9": Concatenation(3, 0, {1: 1})})
    assert judged(content, {"1.2": gap}).answer == GAPS


def test_what_is_referred_to_and_not_there_is_a_gap() -> None:
    content = {"1.2": SeriesContent({CT: {"1", "2"}}), "1.3": SeriesContent({REPORT: {"9"}})}
    signs = {"1.2": SeriesSigns(), "1.3": SeriesSigns()}
    signs["1.3"].take("9", Signs(references=("1", "2")))
    assert judged(content, signs).answer == NO_SIGN
    signs["1.3"].take("9", Signs(references=("3",)))
    found = judged(content, signs)
    assert [(one.code, one.series_uid, one.missing) for one in found.gaps] == [("references", "1.3", 1)]


@pytest.mark.parametrize(
    "raw",
    [
        {"numbers": "1+1*999999"},
        {"numbers": "1+1*99999 2+1*99999"},
        {"numbers": "x"},
        {"numbers": 7},
        {"positions": {"1": "9999999999999"}},
        {"slices": -1},
        {"slices": True},
        {"concatenations": {"a": {"total": 1, "tiles": 0, "frames": ""}}},
        {"concatenations": {"1.2": {"total": 1}}},
        {"tiles": "1.2:1"},
        {"references": "x"},
        [],
    ],
)
def test_signs_that_are_none(raw: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        SeriesSigns.of(raw)


def test_the_text_of_an_instance_is_short() -> None:
    text = header_of({**axial(7), "InstanceNumber": "7"}).signs_text
    assert text == '{"n":7,"o":"1000,0,0,0,1000,0","p":-282500}'
    part = Signs(part=Part("1.2", 2, 3), frames=4, tiles=0)
    assert json.loads(part.text) == {"c": ["1.2", 2, 3]}


def item(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def evidence(study: str, *uids: str) -> Sequence:
    images = Sequence([item(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID=uid) for uid in uids])
    series = Sequence([item(SeriesInstanceUID="1.9.1", ReferencedSOPSequence=images)])
    return Sequence([item(StudyInstanceUID=study, ReferencedSeriesSequence=series)])


def key_object(code: str, *uids: str, other: str = "7.7") -> Dataset:
    data = report()
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.59"
    data.ConceptNameCodeSequence = Sequence([item(CodeValue=code, CodingSchemeDesignator="DCM", CodeMeaning="x")])
    data.CurrentRequestedProcedureEvidenceSequence = Sequence([*evidence(STUDY, *uids), *evidence("1.2.999", other)])
    return data


def presentation_state(*uids: str) -> Dataset:
    images = Sequence([item(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID=uid) for uid in uids])
    data = data_set(SOPClassUID="1.2.840.10008.5.1.4.1.1.11.1", PixelData=None)
    data.ReferencedSeriesSequence = Sequence([item(SeriesInstanceUID="1.9.1", ReferencedImageSequence=images)])
    data.DisplayedAreaSelectionSequence = Sequence([item(PresentationSizeMode="SCALE TO FIT")])
    return data


def structure_set(study: str, *uids: str) -> Dataset:
    images = Sequence([item(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID=uid) for uid in uids])
    series = Sequence([item(SeriesInstanceUID="1.9.1", ContourImageSequence=images)])
    studies = Sequence([item(ReferencedSOPInstanceUID=study, RTReferencedSeriesSequence=series)])
    data = data_set(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3", PixelData=None)
    data.ReferencedFrameOfReferenceSequence = Sequence(
        [item(FrameOfReferenceUID="1.8", RTReferencedStudySequence=studies)]
    )
    data.RTROIObservationsSequence = Sequence([item(ObservationNumber="1")])
    return data


def undefined(data: Dataset) -> Dataset:
    """With sequences and items of undefined length."""
    for element in data:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for one in element.value:
                one.is_undefined_length_sequence_item = True
                undefined(one)
    return data


def references(data: Dataset, syntax: str = EXPLICIT) -> tuple[str, ...]:
    found = read(encode(data, syntax))
    assert isinstance(found, Header)
    return found.signs.references


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED])
@pytest.mark.parametrize("is_undefined", [False, True])
def test_what_reports_and_others_refer_to(syntax: str, is_undefined: bool) -> None:
    for data in (
        key_object("113000", "1.2.3", "1.2.4", "1.2.3"),
        presentation_state("1.2.3", "1.2.4"),
        structure_set(STUDY, "1.2.3", "1.2.4"),
    ):
        assert references(undefined(data) if is_undefined else data, syntax) == ("1.2.3", "1.2.4")
    assert references(structure_set("1.2.999", "1.2.3"), syntax) == (), "of another study"


def test_references_of_a_large_deflated_report_are_read() -> None:
    """What is inflated is read forward only: the walk has passed them when they are read."""
    data = key_object("113000", "1.2.3", "1.2.4")
    data.ContentSequence[0].TextValue = "\n".join(str(number) for number in range(100_000))
    assert references(data, DEFLATED) == references(data, EXPLICIT) == ("1.2.3", "1.2.4")


def test_what_was_rejected_is_not_missing() -> None:
    assert references(key_object("113001", "1.2.3")) == ()
    assert references(data_set(ReferencedSeriesSequence=evidence(STUDY, "1.2.3"))) == (), "an image says nothing so"


def test_many_references_are_bounded() -> None:
    many = [f"1.2.{number}" for number in range(LIMIT_REFERENCES + 50)]
    assert references(presentation_state(*many)) == tuple(many[:LIMIT_REFERENCES])


@given(at=st.integers(140, 900), byte=st.integers(0, 255))
def test_references_of_a_broken_file_raise_nothing(at: int, byte: int) -> None:
    data = bytearray(encode(key_object("113000", "1.2.3", "1.2.4")))
    data[min(at, len(data) - 1)] = byte
    source = MemoryBytes(bytes(data[128 + 4 :]))
    found = references_of(source, 0, Encoding(explicit=True), b"1.2.840.10008.5.1.4.1.1.88.59", b"1.2", 1000)
    assert isinstance(found, tuple)
