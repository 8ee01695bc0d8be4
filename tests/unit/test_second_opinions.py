"""Whole or not: what DCMTK and dicom3tools think of the same files.

DCMTK follows lengths, as the program does, and does not ask what a class must have; dicom3tools asks that, of the
classes that it knows. Where they differ from the program, the difference is named here, with its reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.datadict import dictionary_keyword, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicomwatchd.intake.dicom.sop_classes import CONTENT, ELEMENTS
from dicomwatchd.intake.dicom.verdict import WHOLE
from tests.samples import Answer, Kind, Outcome, cuts, kind_of, outcome_of, outcomes, samples
from tests.synthetic import Maker
from tests.tools import Ended, broken_by_dcmdump, dicom_by_dcmftest, missing_by_dciodvfy
from tests.unit import dicomfiles
from tests.unit.dicomfiles import BIG_ENDIAN, EXPLICIT, IMPLICIT, data_set, encode, header
from tests.unit.test_synthetic import everything
from tests.unit.test_whole import bare, damage, sequence

#: Whole to us, broken to DCMTK. It declares Explicit VR and is written in Implicit VR; we read it as what it is, and
#: its manifest notes that. pydicom reads it, too.
ONLY_DCMTK_CANNOT_READ = {"SC_rgb_jpeg.dcm"}
#: DICOM to us and not to dcmftest: they have no preamble, which their manifests note.
NO_PREAMBLE = "no preamble: read as a bare data set"
#: Zeros that we take for padding, and DCMTK reads as an element with a tag of zeros: where all that the class requires
#: is there, they may be pixels that are black (docs/dicom.md, "What does not count as damage").
PADDING = "zero padding after the data set"

#: What dicom3tools does not ask for, and we do. Content Sequence is conditional to it: a report may be a title alone,
#: which none of the samples is. Of Parametric Map it does not know the three kinds of pixels.
NOT_ASKED = {
    "Content Sequence": ("1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.78.6"),
    "Pixel Data": ("1.2.840.10008.5.1.4.1.1.30",),
}
#: At which dicom3tools ends with a failed assertion: pixels of 32 bits.
ENDS_AT = {"badVR.dcm", "rtdose.dcm", "rtdose_1frame.dcm", "rtdose_expb.dcm", "rtdose_expb_1frame.dcm"}


@pytest.fixture(scope="module")
def found() -> dict[Path, Outcome]:
    return outcomes()


def write(folder: Path, contents: Iterator[bytes]) -> dict[Path, bytes]:
    made = {}
    for number, content in enumerate(contents):
        path = folder / f"{number:05}"
        path.write_bytes(content)
        made[path] = content
    return made


def is_called_whole(one: Outcome) -> bool:
    return one.answer in (Answer.WHOLE, Answer.CANNOT_TELL)


# -- DCMTK ---------------------------------------------------------------------------------------------------------


def test_dcmtk_reads_each_sample_that_we_call_whole_to_its_end(found: dict[Path, Outcome]) -> None:
    broken = broken_by_dcmdump(found)
    ours = {path for path, one in found.items() if one.answer in (Answer.WHOLE, Answer.CANNOT_TELL, Answer.DICOMDIR)}
    assert len(ours) > 110
    assert {path.name for path in broken & ours} == ONLY_DCMTK_CANNOT_READ
    # And what is broken to DCMTK is what was cut, or no DICOM. The rest of what we call damaged lacks its content.
    assert {kind_of(path) for path in broken - ours} == {Kind.CUT, Kind.NOT_DICOM}
    assert {path for path in found if kind_of(path) is Kind.CUT} <= broken


def test_dcmftest_takes_the_same_for_dicom(found: dict[Path, Outcome]) -> None:
    theirs = dicom_by_dcmftest(found)
    ours = {path for path, one in found.items() if one.answer is not Answer.NOT_DICOM}
    assert theirs <= ours
    for path in ours - theirs:
        one = found[path]
        assert path.read_bytes()[128:132] != b"DICM"
        assert one.header is None or NO_PREAMBLE in one.header.instance.repairs


def test_what_dcmtk_cannot_read_to_its_end_is_not_called_whole(tmp_path: Path) -> None:
    """Sound samples and files of every encoding, cut anywhere, or with zeros instead of what was cut off."""
    sound = [path for path in samples() if kind_of(path) is Kind.SOUND and path.name not in ONLY_DCMTK_CANNOT_READ]
    whole = [path.read_bytes() for path in sound if path.stat().st_size < 20_000]
    whole += [make() for make in dicomfiles.WHOLE.values()]

    def damaged() -> Iterator[bytes]:
        for number, content in enumerate(whole):
            for length in itertools.islice(cuts(content), number % 4, None, 4):
                yield content[:length]
                yield content[:length] + bytes(len(content) - length)

    made = write(tmp_path, damaged())
    assert len(made) > 1500
    broken = broken_by_dcmdump(made)
    assert len(broken) > len(made) // 2
    wrong = [one for path in broken if is_called_whole(one := outcome_of(made[path]))]
    assert [one for one in wrong if one.header is None or PADDING not in one.header.instance.repairs] == []
    assert len(wrong) < len(made) // 50


def test_dcmtk_reads_what_we_call_whole_of_synthetic_files(tmp_path: Path) -> None:
    made = [one.path for one in everything(Maker(4), tmp_path)]
    encodings = write(tmp_path, (make() for make in dicomfiles.WHOLE.values()))
    for path in (*made, *encodings):
        assert is_called_whole(outcome_of(path.read_bytes())), path
    assert broken_by_dcmdump([*made, *encodings]) == set()


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
def test_dcmtk_thinks_so_too(transfer_syntax: str, tmp_path: Path) -> None:
    """DCMTK follows the lengths as well. What a class must have it does not ask for."""
    paths = []
    for name, tags in ELEMENTS.items():
        content = encode(with_content(next(uid for uid, of in CONTENT.items() if of == name)), transfer_syntax)
        assert header(content).verdict == WHOLE
        path = tmp_path / f"{tags[-1]:08X}"
        path.write_bytes(content)
        paths.append(path)
    assert broken_by_dcmdump(paths) == set()
    for path in paths[::8]:
        content = path.read_bytes()
        for missing in (1, 3, 14):
            path.write_bytes(content[:-missing])
            assert broken_by_dcmdump([path]) == {path}
            assert damage(content[:-missing]).header is not None


# -- dicom3tools ---------------------------------------------------------------------------------------------------


def without_content(sop_class: str) -> Dataset:
    """An object without the element that its class requires, so that the condition on it holds, where there is one."""
    match CONTENT[sop_class]:
        case "Pixel Data":
            return data_set(SOPClassUID=sop_class, PixelData=None, DoseType="PHYSICAL", DoseUnits="GY")
        case "Content Sequence":
            return bare(sop_class, ValueType="CONTAINER")
        case "Referenced Structure Set Sequence":
            return bare(sop_class, RTPlanGeometry="PATIENT")
    return bare(sop_class)


def with_content(sop_class: str) -> Dataset:
    data = without_content(sop_class)
    tag = ELEMENTS[CONTENT[sop_class]][-1]
    if dictionary_VR(tag) == "SQ":
        data.add_new(tag, "SQ", sequence())
    else:
        size = 128 if tag == 0x7FE00010 else 64
        data.add_new(tag, "OW" if tag == 0x7FE00010 else dictionary_VR(tag), bytes(range(1, size + 1)))
    return data


def test_dicom3tools_misses_what_we_miss(tmp_path: Path) -> None:
    """The element that carries the content, of every class of the table that dicom3tools knows."""
    agreed, not_asked, not_known = [], [], []
    path = tmp_path / "object"
    for sop_class, name in CONTENT.items():
        content = encode(without_content(sop_class))
        assert f"ends before the {name}" in damage(content).verdict.reason
        path.write_bytes(content)
        missing = missing_by_dciodvfy(path)
        keywords = {dictionary_keyword(tag) for tag in ELEMENTS[name]}
        if missing is None:
            not_known.append(sop_class)
        elif missing & keywords:
            path.write_bytes(encode(with_content(sop_class)))
            there = missing_by_dciodvfy(path)
            assert there is not None and not there & keywords, UID(sop_class).name
            assert header(path.read_bytes()).verdict == WHOLE
            agreed.append(sop_class)
        else:
            assert sop_class.startswith(NOT_ASKED.get(name, ())), UID(sop_class).name
            not_asked.append(sop_class)
    assert len(agreed) >= 87
    assert {CONTENT[sop_class] for sop_class in agreed} >= {
        "Pixel Data",
        "Spectroscopy Data",
        "Waveform Sequence",
        "Encapsulated Document",
        "RT ROI Observations Sequence",
        "Referenced Structure Set Sequence",
        "Displayed Area Selection Sequence",
        "Registration Sequence",
    }


def test_dicom3tools_misses_no_content_of_a_sample_that_we_call_whole(found: dict[Path, Outcome]) -> None:
    known = 0
    ended = set()
    for path, one in found.items():
        if one.header is None or one.answer not in (Answer.WHOLE, Answer.DAMAGED) or kind_of(path) is Kind.CUT:
            continue
        try:
            missing = missing_by_dciodvfy(path)
        except Ended:
            ended.add(path.name)
            continue
        name = CONTENT.get(one.header.instance.sop_class_uid)
        if missing is None or name is None:
            continue
        known += 1
        is_missing = bool(missing & {dictionary_keyword(tag) for tag in ELEMENTS[name]})
        assert is_missing == (one.answer is Answer.DAMAGED), path.name
    assert known > 100
    assert ended == ENDS_AT
