"""What the program says of pydicom's sample files, against what is known of them, and the page that has it all."""

from __future__ import annotations

import re
from pathlib import Path

import pydicom
import pytest

from dicomwatchd.intake.dicom.header import Header
from tests.samples import (
    HEADER_ALONE,
    NO_PIXELS,
    PAGE,
    Answer,
    Kind,
    Outcome,
    kind_of,
    outcome_of,
    outcomes,
    outcomes_of_cuts,
    page,
    samples,
)

ROOT = Path(__file__).parents[2]
WRITE = "run .venv/bin/python scripts/dicom-outcomes and read the difference"


@pytest.fixture(scope="module")
def found() -> dict[Path, Outcome]:
    return outcomes()


def test_the_page_is_of_the_pydicom_that_is_here() -> None:
    written = re.search(r"pydicom ([0-9.]+) has in its package", PAGE.read_text())
    assert written is not None
    (pinned,) = re.findall(r"(?m)^pydicom==(\S+)", (ROOT / "requirements" / "dev.txt").read_text())
    assert written[1] == pinned, f"requirements/dev.txt takes another pydicom than {PAGE.name} is of: {WRITE}"
    assert pydicom.__version__ == pinned, "another pydicom is installed than requirements/dev.txt takes: install that"


def test_the_page_says_what_the_program_says() -> None:
    """`splitlines`, for a difference that names the files."""
    assert PAGE.read_text().splitlines() == page().splitlines(), WRITE


def test_what_is_known_of_each_file_is_what_the_program_says(found: dict[Path, Outcome]) -> None:
    """No sound file is called damaged; none that was cut, or has no content, is called whole."""
    assert len(found) > 190
    expected = {
        Kind.SOUND: {Answer.WHOLE},
        Kind.CUT: {Answer.DAMAGED},
        Kind.HEADER_ALONE: {Answer.DAMAGED, Answer.QUARANTINED},
        Kind.NO_UID: {Answer.QUARANTINED},
        Kind.DICOMDIR: {Answer.DICOMDIR},
        Kind.NOT_DICOM: {Answer.NOT_DICOM},
    }
    assert {path: one.answer for path, one in found.items() if one.answer not in expected[kind_of(path)]} == {}
    assert {kind_of(path) for path in found} == set(Kind)


def test_the_reasons_are_those_that_are_known(found: dict[Path, Outcome]) -> None:
    for path, one in found.items():
        match kind_of(path):
            case Kind.CUT:
                assert one.verdict is not None
                assert one.verdict.reason == "the file ends inside an element's value"
            case Kind.HEADER_ALONE:
                assert one.verdict is not None
                assert one.verdict.reason == HEADER_ALONE.get(path.name, NO_PIXELS)
                assert one.verdict.offset_bytes == path.stat().st_size
            case Kind.NO_UID:
                assert one.code == "no-uid"
            case _:
                assert one.reason == ""


def uids(header: Header) -> tuple[str, str, str, str]:
    instance = header.instance
    return instance.study_uid, instance.series_uid, instance.sop_instance_uid, instance.sop_class_uid


def test_a_sound_file_that_was_cut_anywhere_is_not_called_whole(found: dict[Path, Outcome]) -> None:
    for path, one in found.items():
        if kind_of(path) is not Kind.SOUND:
            continue
        assert one.header is not None
        for length, cut in outcomes_of_cuts(path):
            if length < 132:
                assert cut.answer in (Answer.NOT_DICOM, Answer.QUARANTINED)
                continue
            assert cut.answer in (Answer.DAMAGED, Answer.QUARANTINED), (path.name, length)
            assert cut.verdict is not None
            assert cut.verdict.offset_bytes is None or cut.verdict.offset_bytes <= length
            if cut.header is not None:
                assert uids(cut.header) == uids(one.header)


def test_what_stands_behind_a_deflated_data_set_is_not_needed() -> None:
    (path,) = (path for path in samples() if path.name == "image_dfl.dcm")
    assert outcome_of(path.read_bytes()[:-8]).answer is Answer.WHOLE
    assert outcome_of(path.read_bytes()[:-9]).answer is Answer.DAMAGED
