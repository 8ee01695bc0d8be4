"""What a search of DICOMweb asks for, and what matches it."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomwatchd.archive.records import Query
from dicomwatchd.errors import InvalidUid
from dicomwatchd.model import DicomJson
from dicomwatchd.web.dicomweb import matching
from dicomwatchd.web.dicomweb.errors import Refused
from dicomwatchd.web.dicomweb.matching import all_match, as_sent, parse
from dicomwatchd.web.dicomweb.qido import query_of

STUDY: DicomJson = {
    "00080020": {"vr": "DA", "Value": ["20240229"]},
    "00080030": {"vr": "TM", "Value": ["101530.25"]},
    "00080050": {"vr": "SH", "Value": ["Acc1"]},
    "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
    "00081030": {"vr": "LO", "Value": ["Schädel  nativ"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller^Käthe", "Ideographic": "山田^太郎"}]},
    "00100020": {"vr": "LO", "Value": ["P0001"]},
    "00200011": {"vr": "IS", "Value": [7]},
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    "00400275": {"vr": "SQ", "Value": [{"00400009": {"vr": "SH", "Value": ["SPS1"]}}]},
    "00080090": {"vr": "PN"},
}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PatientName", "*mül*", True),
        ("PatientName", "*MUL*", False),
        ("PatientName", "müller^käthe", True),
        ("PatientName", "Müller^Käthe^^", True),
        ("PatientName", "Müller", False),
        ("PatientName", "Müller^*", True),
        ("PatientName", "山田*", True),
        ("PatientName", "Müller*=山田*", True),
        ("PatientName", "Müller*=鈴木*", False),
        ("PatientID", "P0001", True),
        ("PatientID", "p0001", False),
        ("PatientID", "P00?1", True),
        ("00100020", "", True),
        ("00100020", "*", True),
        ("ReferringPhysicianName", "*", True),
        ("ReferringPhysicianName", "*x*", False),
        ("PatientBirthDate", "19700101", False),
        ("StudyDate", "20240229", True),
        ("StudyDate", "2024.02.29", True),
        ("StudyDate", "20240228", False),
        ("StudyDate", "20240101-20241231", True),
        ("StudyDate", "-20240228", False),
        ("StudyDate", "20240301-", False),
        ("StudyTime", "1015", True),
        ("StudyTime", "10-11", True),
        ("StudyTime", "101531-", False),
        ("StudyTime", "-10:15:30", True),
        ("ModalitiesInStudy", "SR", True),
        ("ModalitiesInStudy", "MR,CT", True),
        ("ModalitiesInStudy", "MR\\CT", True),
        ("ModalitiesInStudy", "M*", False),
        ("StudyDescription", "schädel nativ", True),
        ("StudyDescription", "*NATIV", True),
        ("StudyInstanceUID", "1.2.3", True),
        ("StudyInstanceUID", "1.2.4,1.2.3", True),
        ("StudyInstanceUID", "1.2.4\\1.2.5", False),
        ("SeriesNumber", "7", True),
        ("SeriesNumber", "07", True),
        ("SeriesNumber", "8", False),
        ("RequestAttributesSequence.ScheduledProcedureStepID", "SPS1", True),
        ("00400275.00400009", "SPS2", False),
        ("accessionnumber", "x", None),
    ],
)
def test_matching(name: str, value: str, expected: bool | None) -> None:
    if expected is None:
        with pytest.raises(Refused):
            parse([(name, value)])
    else:
        assert all_match(parse([(name, value)]).conditions, STUDY) is expected


@pytest.mark.parametrize(
    "parameters",
    [
        [("PatientNam", "x")],
        [("0010002", "x")],
        [("<script>", "x")],
        [("PatientID", "x"), ("00100020", "y")],
        [("limit", "-1")],
        [("limit", "1"), ("limit", "2")],
        [("offset", "1e3")],
        [("limit", "")],
        [("fuzzymatching", "maybe")],
        [("StudyDate", "yesterday")],
        [("StudyDate", "-")],
        [("StudyTime", "1")],
        [("SeriesNumber", "seven")],
        [("PixelData", "x")],
        [("PatientName", "x" * 5000)],
        [("StudyInstanceUID", ",".join(["1.2"] * 1001))],
        [("StudyInstanceUID", ",".join(["1.2.3.4.5.6"] * 400))],
        [(f"{number:08X}", "x") for number in range(0x00110010, 0x00110060)],
        [(".".join([*["00400275"] * 8, "00400009"]), "x")],
    ],
)
def test_what_is_no_search(parameters: list[tuple[str, str]]) -> None:
    with pytest.raises(Refused) as caught:
        parse(parameters)
    assert caught.value.status == 400
    assert "<script>" not in caught.value.message


def test_a_list_of_uids_has_nothing_else() -> None:
    with pytest.raises(InvalidUid):
        parse([("StudyInstanceUID", "1.2.3,../../etc")])


def test_options() -> None:
    asked = parse(
        [
            ("limit", "101"),
            ("offset", "5"),
            ("includefield", "all"),
            ("includefield", "00081030,SliceThickness"),
            ("fuzzymatching", "true"),
            ("accept", "application/dicom+json"),
        ]
    )
    assert (asked.limit, asked.offset, asked.includes_all, asked.conditions) == (101, 5, True, ())
    assert asked.included == {"00081030", "00180050"}
    [warning] = asked.warnings
    assert "fuzzymatching" in warning


def test_what_the_catalogue_is_asked() -> None:
    """By its indexes, and never for less than matches."""
    asked = parse(
        [
            ("PatientID", "P1"),
            ("PatientName", "Mül*"),
            ("PatientBirthDate", "19700101"),
            ("StudyDate", "20240101-"),
            ("AccessionNumber", "A1"),
            ("ModalitiesInStudy", "ct"),
            ("StudyDescription", "*kopf*"),
        ]
    )
    assert query_of(asked.conditions) == Query(
        patient_id="P1",
        name="Mül*",
        birth_date="19700101",
        date_from="20240101",
        accession_number="A1",
        modality="CT",
        description="*kopf*",
    )
    wide = parse(
        [("PatientID", "P*"), ("AccessionNumber", "?"), ("ModalitiesInStudy", "CT,MR"), ("PatientName", "A=B")]
    )
    assert query_of(wide.conditions) == Query()


def test_as_it_is_sent() -> None:
    sent = as_sent(
        {
            "00200011": {"vr": "IS", "Value": ["7"], "charset_by": "guess"},
            "00101030": {"vr": "DS", "Value": ["70.5", "1e999", "x", None]},
            "00080090": {"vr": "PN", "Value": []},
        }
    )
    assert sent == {
        "00080090": {"vr": "PN"},
        "00101030": {"vr": "DS", "Value": [70.5, "1e999", "x", None]},
        "00200011": {"vr": "IS", "Value": [7]},
    }


_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)


@given(st.lists(st.tuples(st.sampled_from(["PatientName", "00081030", "limit", "x", "StudyDate"]) | _TEXT, _TEXT)))
def test_whatever_is_asked_is_understood_or_refused(parameters: list[tuple[str, str]]) -> None:
    try:
        asked = parse(parameters)
    except (Refused, InvalidUid):
        return
    all_match(asked.conditions, STUDY)
    query_of(asked.conditions)


@given(st.text(string.ascii_letters + "äöü", min_size=1, max_size=8), st.data())
def test_a_name_is_found_by_each_part_of_it(name: str, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(name) - 1))
    last = data.draw(st.integers(first + 1, len(name)))
    study: DicomJson = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": name}]}}
    assert all_match(parse([("PatientName", f"*{name[first:last]}*")]).conditions, study)
    assert not all_match(parse([("PatientName", f"*{name[first:last]}1*")]).conditions, study)
    assert matching.matches(parse([("PatientName", name)]).conditions[0], study)
