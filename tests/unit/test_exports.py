"""Whole exports as folders of files, of each of which it is known whether something is missing, taken by the intake and
archived: what is on record of them.

The rules by themselves, with more cases of each: test_study_completeness.py.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pytest
from pydicom.sequence import Sequence

from dicomwatchd.study_completeness import StudyCompleteness
from tests.pieces import Pieces
from tests.unit.dicomfiles import STUDY, data_set, encode
from tests.unit.test_study_completeness import (
    COMPLETE,
    CORONAL,
    ENHANCED_MR,
    GAPS,
    NO_SIGN,
    NOT_KNOWN,
    REPORT,
    TILTED,
    ULTRASOUND,
    Files,
    at,
    concatenated,
    evidence,
    files,
    item,
    no_numbers,
    pet,
    renumbered,
    slide,
)

IMAGES = "1.2.840.10008.5.1.4.1.1."
CR, DX, MAMMOGRAPHY, MR, XA = IMAGES + "1", IMAGES + "1.1", IMAGES + "1.2", IMAGES + "4", IMAGES + "12.1"
ENHANCED_CT, NUCLEAR, SPECTROSCOPY, TOMOSYNTHESIS = IMAGES + "2.1", IMAGES + "20", IMAGES + "4.2", IMAGES + "13.1.3"
SEGMENTATION, CAPTURE, PDF, ECG = IMAGES + "66.4", IMAGES + "7", IMAGES + "104.1", IMAGES + "9.1.1"
KEY_OBJECT, DOSE_REPORT, PRESENTATION = IMAGES + "88.59", IMAGES + "88.67", IMAGES + "11.1"
RT_DOSE, RT_STRUCTURES, RT_PLAN = IMAGES + "481.2", IMAGES + "481.3", IMAGES + "481.5"
#: What an object without pixels does not have.
NO_PIXELS = dict.fromkeys(
    ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation", "PixelData")
)


class Known(NamedTuple):
    """``is_whole`` is the truth; the answer is what can be told of it, with the gaps (code, how many are missing) and
    the signs."""

    what: str
    is_whole: bool
    made: Files
    answer: str
    gaps: tuple[tuple[str, int], ...] = ()
    signs: tuple[str, ...] = ()


def uids(series: int, numbers: Iterable[int]) -> list[str]:
    return [f"{STUDY}.{series}.{number}" for number in numbers]


def flat(number: int) -> dict[str, Any]:
    """An image without a place in the patient."""
    return {}


def one(series: int, sop_class: str, **more: Any) -> Files:
    return files(1, lambda _: {"SOPClassUID": sop_class, **more}, series=series)


def of_class(sop_class: str, make: Callable[[int], dict[str, Any]] = flat) -> Callable[[int], dict[str, Any]]:
    return lambda number: {"SOPClassUID": sop_class, **make(number)}


def frames(sop_class: str, count: int, series: int = 1, **more: Any) -> Files:
    return one(series, sop_class, NumberOfFrames=str(count), PixelData=bytes(128 * count), **more)


def content() -> Sequence:
    return Sequence([item(ValueType="TEXT", TextValue="x")])


def key_objects(series: int, code: str, referred: list[str]) -> Files:
    title = item(CodeValue=code, CodingSchemeDesignator="DCM", CodeMeaning="x")
    return one(
        series,
        KEY_OBJECT,
        ConceptNameCodeSequence=Sequence([title]),
        CurrentRequestedProcedureEvidenceSequence=evidence(STUDY, *referred),
        ContentSequence=content(),
        **NO_PIXELS,
    )


def report(series: int, referred: list[str], sop_class: str = REPORT, study: str = STUDY) -> Files:
    """Of which the evidence is in a study."""
    return one(
        series,
        sop_class,
        CurrentRequestedProcedureEvidenceSequence=evidence(study, *referred),
        ContentSequence=content(),
        **NO_PIXELS,
    )


def presentation(series: int, referred: list[str]) -> Files:
    images = Sequence([item(ReferencedSOPClassUID=CR, ReferencedSOPInstanceUID=uid) for uid in referred])
    return one(
        series,
        PRESENTATION,
        ReferencedSeriesSequence=Sequence([item(SeriesInstanceUID=f"{STUDY}.1", ReferencedImageSequence=images)]),
        DisplayedAreaSelectionSequence=Sequence([item(PresentationSizeMode="SCALE TO FIT")]),
        **NO_PIXELS,
    )


def structures(series: int, referred: list[str], study: str = STUDY) -> Files:
    images = Sequence([item(ReferencedSOPClassUID=CR, ReferencedSOPInstanceUID=uid) for uid in referred])
    of_series = Sequence([item(SeriesInstanceUID=f"{study}.1", ContourImageSequence=images)])
    of_study = Sequence([item(ReferencedSOPInstanceUID=study, RTReferencedSeriesSequence=of_series)])
    frame = item(FrameOfReferenceUID="1.8", RTReferencedStudySequence=of_study)
    return one(
        series,
        RT_STRUCTURES,
        ReferencedFrameOfReferenceSequence=Sequence([frame]),
        RTROIObservationsSequence=Sequence([item(ObservationNumber="1")]),
        **NO_PIXELS,
    )


def planned(series: int) -> Files:
    """A plan, which refers to structures of another study, and a dose."""
    referred = Sequence([item(ReferencedSOPClassUID=RT_STRUCTURES, ReferencedSOPInstanceUID="1.9.9")])
    plan = one(series, RT_PLAN, RTPlanGeometry="PATIENT", ReferencedStructureSetSequence=referred, **NO_PIXELS)
    return plan + frames(RT_DOSE, 4, series + 1, DoseUnits="GY")


def ct(count: int, series: int = 1, first: float = -300, step: float = 2.5, without: Iterable[int] = ()) -> Files:
    return files(count, at(lambda n: first + step * n), series=series, without=without)


def gated(count: int, slices: int, without: Iterable[int] = ()) -> Files:
    """Two R-R intervals, four time slots."""
    made = pet(count, slices, kind="GATED", without=without)
    return [{**one, "NumberOfRRIntervals": 2, "NumberOfTimeSlots": 4} for one in made]


def numbered(made: Files, number_of: Callable[[int], int]) -> Files:
    return [{**one, "InstanceNumber": str(number_of(int(one["InstanceNumber"])))} for one in made]


def others_of_series(made: Files, first: int) -> Files:
    """The same series once more: other instances, numbered on."""
    return [
        {**one, "SOPInstanceUID": f"{STUDY}.1.{first + at}", "InstanceNumber": str(first + at)}
        for at, one in enumerate(made)
    ]


_NOISE = random.Random(7)
_NOISY = [_NOISE.uniform(-0.008, 0.008) for _ in range(40)]


def turned(number: int) -> dict[str, Any]:
    angle = math.radians(15 * number)
    orientation = [math.cos(angle), math.sin(angle), 0, 0, 0, -1]
    return at(lambda _: 0, orientation)(number)


EXPORTS = [
    # One image, and images without a place.
    Known("a chest, one image", True, one(1, CR), NO_SIGN),
    Known("a chest, two views in two series", True, one(1, DX) + one(2, DX), NO_SIGN),
    Known("a mammogram of four views", True, files(4, of_class(MAMMOGRAPHY)), NO_SIGN),
    Known("four images, one lost: too few to tell", False, files(4, of_class(DX), without=[3]), NO_SIGN),
    Known("eight images, one lost", False, files(8, of_class(DX), without=[3]), NOT_KNOWN, (), ("numbers",)),
    Known("CT of which only the numbers are known", True, files(20, flat), NO_SIGN),
    Known("CT by numbers, one lost", False, files(20, flat, without=[8]), NOT_KNOWN, (), ("numbers",)),
    Known("CT by numbers, the last lost", False, files(20, flat, without=[20]), NO_SIGN),
    Known("captures without numbers", True, no_numbers(files(5, of_class(CAPTURE))), NO_SIGN),
    # CT.
    Known("CT, all there", True, ct(24), NO_SIGN),
    Known("CT, one lost", False, ct(24, without=[11]), GAPS, (("slices", 1),)),
    Known("CT, three lost at two places", False, ct(24, without=[5, 6, 17]), GAPS, (("slices", 3),)),
    Known("CT, of which the first half is lost", False, ct(24, without=range(1, 13)), NO_SIGN),
    Known("CT, each file twice", True, [*ct(12), *ct(12)], NO_SIGN),
    Known(
        "CT, each file twice, one lost",
        False,
        [*ct(16, without=[7]), *ct(16, without=[7])],
        GAPS,
        (("slices", 1),),
    ),
    Known("CT, numbered from 1001", True, numbered(ct(16), lambda n: 1000 + n), NO_SIGN),
    Known("CT, numbered against the slices", True, numbered(ct(16), lambda n: 17 - n), NO_SIGN),
    Known(
        "CT, numbered against the slices, one lost",
        False,
        numbered(ct(16, without=[4]), lambda n: 17 - n),
        GAPS,
        (("slices", 1),),
    ),
    Known("CT whose slices overlap", True, ct(24, step=0.75), NO_SIGN),
    Known("CT whose positions are noisy", True, files(24, at(lambda n: 3 * n + _NOISY[n])), NO_SIGN),
    Known(
        "CT whose positions are noisy, one lost",
        False,
        files(24, at(lambda n: 3 * n + _NOISY[n]), without=[9]),
        GAPS,
        (("slices", 1),),
    ),
    Known(
        "CT with a tilted gantry, one lost",
        False,
        files(20, at(lambda n: 5.0 * n, TILTED), without=[9]),
        GAPS,
        (("slices", 1),),
    ),
    Known("localizer and series", True, files(2, flat) + ct(20, 2), NO_SIGN),
    Known(
        "localizer and two series, a slice of the second lost",
        False,
        files(2, flat) + ct(12, 2) + ct(16, 3, without=[6]),
        GAPS,
        (("slices", 1),),
    ),
    Known(
        "neck and chest in one series, numbered through",
        True,
        renumbered(ct(12) + others_of_series(ct(12, first=-200), 13)),
        NO_SIGN,
    ),
    Known(
        "neck and chest in one series, the chest numbered from 101",
        True,
        numbered(ct(12) + others_of_series(ct(12, first=-245), 13), lambda n: n if n <= 12 else n + 88),
        NOT_KNOWN,
        (),
        ("positions", "numbers"),
    ),
    Known(
        "the same, one slice lost",
        False,
        numbered(ct(12, without=[5]) + others_of_series(ct(12, first=-245), 13), lambda n: n if n <= 12 else n + 88),
        GAPS,
        (("slices", 1),),
        ("positions",),
    ),
    Known("four phases of the heart, numbered through", True, files(48, at(lambda n: 2.0 * ((n - 1) % 12))), NO_SIGN),
    Known(
        "four phases, a slice of one lost",
        False,
        files(48, at(lambda n: 2.0 * ((n - 1) % 12)), without=[18]),
        NOT_KNOWN,
        (),
        ("numbers",),
    ),
    Known(
        "four phases, a slice lost in all",
        False,
        files(48, at(lambda n: 2.0 * ((n - 1) % 12)), without=[6, 18, 30, 42]),
        GAPS,
        (("slices", 1),),
    ),
    Known("one place twenty times (bolus tracking)", True, files(20, at(lambda n: 50.0)), NO_SIGN),
    Known(
        "bolus tracking, one lost",
        False,
        files(20, at(lambda n: 50.0), without=[12]),
        NOT_KNOWN,
        (),
        ("numbers",),
    ),
    Known(
        "slices acquired in two passes, odd and even",
        True,
        files(20, at(lambda n: 3.0 * (2 * n if n <= 10 else 2 * (n - 10) + 1))),
        NO_SIGN,
    ),
    Known(
        "odd and even, two neighbours lost",
        False,
        files(20, at(lambda n: 3.0 * (2 * n if n <= 10 else 2 * (n - 10) + 1)), without=[5, 15]),
        GAPS,
        (("slices", 2),),
    ),
    Known(
        "coronal reformat beside the axial series",
        True,
        ct(16) + files(14, at(lambda n: 3.0 * n, CORONAL), series=2),
        NO_SIGN,
    ),
    Known("rotating projections derived from a series", True, ct(10) + files(12, turned, series=2), NO_SIGN),
    Known("whole CT of many frames", True, frames(ENHANCED_CT, 6), NO_SIGN),
    # MR.
    Known("MR, two echoes of each slice", True, files(24, of_class(MR, at(lambda n: 4.0 * ((n - 1) // 2)))), NO_SIGN),
    Known(
        "MR, two echoes, a slice lost in both",
        False,
        files(24, of_class(MR, at(lambda n: 4.0 * ((n - 1) // 2))), without=[9, 10]),
        GAPS,
        (("slices", 1),),
    ),
    Known(
        "MR, two stacks in a series, numbered through",
        True,
        files(24, of_class(MR, at(lambda n: 4.0 * n + (30 if n > 12 else 0)))),
        NO_SIGN,
    ),
    Known(
        "MR, two echoes of two stacks, the second numbered from 101",
        True,
        numbered(
            files(24, of_class(MR, at(lambda n: 4.0 * ((n - 1) // 2) + (24 if n > 12 else 0)))),
            lambda n: n if n <= 12 else n + 88,
        ),
        NOT_KNOWN,
        (),
        ("positions", "numbers"),
    ),
    Known("MR, distances that grow", True, files(16, of_class(MR, at(lambda n: n**1.5))), NO_SIGN),
    Known("MR spectroscopy", True, one(1, SPECTROSCOPY, PixelData=None, SpectroscopyData=bytes(64)), NO_SIGN),
    Known("enhanced MR in three parts", True, concatenated(3), COMPLETE),
    Known("enhanced MR lacks a part of three", False, concatenated(3, without=[2]), GAPS, (("concatenation", 1),)),
    Known(
        "two concatenations, one lacks its last part",
        False,
        concatenated(2) + concatenated(3, series=2, without=[3]),
        GAPS,
        (("concatenation", 1),),
    ),
    Known("one enhanced MR, in no concatenation", True, frames(ENHANCED_MR, 5), NO_SIGN),
    # Nuclear medicine and PET.
    Known("nuclear medicine, one file", True, frames(NUCLEAR, 8), NO_SIGN),
    Known("static PET", True, pet(12, 12), COMPLETE),
    Known(
        "PET beside its CT, a slice of each lost",
        False,
        pet(12, 12, without=[4]) + ct(16, 2, without=[9]),
        GAPS,
        (("pet", 1), ("slices", 1)),
    ),
    Known("PET beside its CT", True, pet(12, 12) + ct(16, 2), NO_SIGN),
    Known("dynamic PET lacks its last time", False, pet(18, 6, 4, "DYNAMIC"), GAPS, (("pet", 6),)),
    Known("gated PET", True, gated(32, 4), COMPLETE),
    Known("gated PET, one lost", False, gated(32, 4, without=[19]), GAPS, (("pet", 1),)),
    Known("PET of three beds, counted for one", True, pet(18, 6, kind="WHOLE BODY"), NO_SIGN),
    # Ultrasound, angiography, slides.
    Known(
        "clips and stills of ultrasound",
        True,
        frames(ULTRASOUND, 3) + files(6, of_class(IMAGES + "6.1"), series=2),
        NO_SIGN,
    ),
    Known("five runs of an angiography", True, files(5, of_class(XA)), NO_SIGN),
    Known("five runs, the fourth lost", False, files(5, of_class(XA), without=[4]), NOT_KNOWN, (), ("numbers",)),
    Known("tomosynthesis of one breast", True, frames(TOMOSYNTHESIS, 6), NO_SIGN),
    Known("a slide with its levels", True, [slide(1, 32, 32, 16), slide(2, 16, 16, 4), slide(3, 8, 8, 1)], COMPLETE),
    Known(
        "a slide, tiles of one level lost", False, [slide(1, 32, 32, 13), slide(2, 16, 16, 4)], GAPS, (("tiles", 3),)
    ),
    Known(
        "a slide of which only some tiles were scanned",
        True,
        [slide(1, 32, 32, 5, DimensionOrganizationType="TILED_SPARSE")],
        NO_SIGN,
    ),
    Known(
        "a slide in two parts, one lost",
        False,
        [slide(1, 32, 32, 8, ConcatenationUID="1.2.9", InConcatenationNumber=1, InConcatenationTotalNumber=2)],
        GAPS,
        (("concatenation", 1),),
    ),
    # What refers to something.
    Known("key images that are there", True, ct(10) + key_objects(2, "113000", uids(1, [3, 7])), NO_SIGN),
    Known(
        "a key image that is lost at the end, where no slice tells",
        False,
        ct(10, without=[10]) + key_objects(2, "113000", uids(1, [3, 10])),
        GAPS,
        (("references", 1),),
    ),
    Known(
        "what was rejected for its quality is missing",
        True,
        files(3, of_class(DX)) + key_objects(2, "113001", uids(1, [4])),
        NO_SIGN,
    ),
    Known("a report and its images", True, files(3, of_class(CR)) + report(2, uids(1, [1, 2, 3])), NO_SIGN),
    Known(
        "a report, two of its images lost",
        False,
        files(3, of_class(CR), without=[2, 3]) + report(2, uids(1, [1, 2, 3])),
        GAPS,
        (("references", 2),),
    ),
    Known(
        "a report that compares with an earlier study",
        True,
        one(1, CR) + report(2, ["1.9.1", "1.9.2"], study="1.2.9"),
        NO_SIGN,
    ),
    Known("a report alone", True, report(1, [], DOSE_REPORT), NO_SIGN),
    Known("a presentation state and its image", True, one(1, CR) + presentation(2, uids(1, [1])), NO_SIGN),
    Known(
        "a presentation state, its image lost",
        False,
        one(1, CR) + presentation(2, uids(3, [1])),
        GAPS,
        (("references", 1),),
    ),
    Known("CT, structures, plan and dose", True, ct(10) + structures(2, uids(1, range(1, 11))) + planned(3), NO_SIGN),
    Known(
        "structures, the last slices lost",
        False,
        ct(10, without=[9, 10]) + structures(2, uids(1, range(1, 11))),
        GAPS,
        (("references", 2),),
    ),
    Known(
        "structures on images of another study",
        True,
        structures(2, ["1.9.1"], study="1.2.9") + planned(3),
        NO_SIGN,
    ),
    Known("a segmentation of a series", True, ct(10) + frames(SEGMENTATION, 3, 2), NO_SIGN),
    Known("PET and a report on it", True, pet(8, 8) + report(2, uids(1, [2])), COMPLETE),
    # Other objects, and what the sender has counted.
    Known("a document", True, one(1, PDF, EncapsulatedDocument=b"%PDF-1.4", **NO_PIXELS), NO_SIGN),
    Known(
        "an electrocardiogram",
        True,
        one(1, ECG, WaveformSequence=Sequence([item(WaveformBitsAllocated=16)]), **NO_PIXELS),
        NO_SIGN,
    ),
    Known(
        "the sender has counted more, the last are lost",
        False,
        files(8, at(lambda n: 2.0 * n, NumberOfSeriesRelatedInstances="10")),
        NOT_KNOWN,
        (),
        ("counted",),
    ),
]


def folder_of(number: int) -> str:
    return f"export{number:02}"


def study_of(number: int) -> str:
    """As long as STUDY, so that it can be put in its place."""
    return f"1.2.5.{100 + number}"


@pytest.fixture(scope="module")
def on_record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, StudyCompleteness]]:
    """Of each export, by what it is: what its manifest says after the daemon's parts have taken and archived it."""
    pieces = Pieces(tmp_path_factory.mktemp("exports"))
    for number, export in enumerate(EXPORTS):
        folder = pieces.inbox / folder_of(number)
        folder.mkdir()
        study = study_of(number).encode()
        assert len(study) == len(STUDY)
        for position, attributes in enumerate(export.made):
            made = encode(data_set(**{"PixelData": bytes(128), **attributes}))
            (folder / f"IM{position:06}").write_bytes(made.replace(STUDY.encode(), study))
    pieces.run()
    found = {}
    for number, export in enumerate(EXPORTS):
        completeness = pieces.manifest(study_of(number)).completeness
        assert completeness is not None
        found[export.what] = completeness
    assert pieces.log.events("quarantined") == [] == pieces.log.events("kept-damaged")
    yield found
    pieces.close()


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.what)
def test_what_is_on_record_of_an_export(export: Known, on_record: dict[str, StudyCompleteness]) -> None:
    found = on_record[export.what]
    assert found.answer == export.answer, found
    assert tuple((one.code, one.missing) for one in found.gaps) == export.gaps
    assert tuple(one.code for one in found.signs) == export.signs


def test_no_whole_export_has_gaps_and_none_with_a_hole_is_complete(on_record: dict[str, StudyCompleteness]) -> None:
    figures = Counter((export.is_whole, str(on_record[export.what].answer)) for export in EXPORTS)
    assert len(on_record) == len(EXPORTS) >= 50
    assert figures[True, GAPS] == 0
    assert figures[False, COMPLETE] == 0
    assert figures[False, GAPS] >= 20 and figures[True, COMPLETE] >= 5
