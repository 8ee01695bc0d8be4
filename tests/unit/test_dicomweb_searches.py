"""Searches over a catalogue: pages, bounds, patients and orders that several files name, and who does not wait."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomwatchd.archive.records import Query, SeriesRecord, StudyRecord
from dicomwatchd.errors import StudyNotFound
from dicomwatchd.model import Uid
from dicomwatchd.patients import Identity, Order
from dicomwatchd.series.reader import SeriesReader
from dicomwatchd.web.dicomweb import qido
from dicomwatchd.web.dicomweb.errors import TooMuch
from dicomwatchd.web.dicomweb.matching import parse
from dicomwatchd.web.dicomweb.qido import CUT, Answer, Searcher
from dicomwatchd.web.dicomweb.reading import ArchiveReader
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore


def record(number: int, **changes: object) -> StudyRecord:
    uid = Uid(f"1.2.{number}")
    series = tuple(
        SeriesRecord(
            Uid(f"1.2.{number}.{one}"),
            modality,
            3,
            100,
            {"00080060": {"vr": "CS", "Value": [modality]}, "00200011": {"vr": "IS", "Value": [str(one)]}},
        )
        for one, modality in enumerate(("CT", "MR"), 1)
    )
    made = StudyRecord(
        study_uid=uid,
        revision=1,
        manifest_key="",
        manifest_sha256="",
        archived_at="",
        instances=6,
        size_bytes=200,
        patient_id=f"P{number}",
        accession_number=f"A{number}",
        study_date=f"2024{number // 28 % 12 + 1:02d}{number % 28 + 1:02d}",
        modalities=("CT", "MR"),
        flags=(),
        attributes={
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"Name^{number}"}]},
            "00100020": {"vr": "LO", "Value": [f"P{number}"]},
            "00080050": {"vr": "SH", "Value": [f"A{number}"]},
            "00080020": {"vr": "DA", "Value": [f"2024{number // 28 % 12 + 1:02d}{number % 28 + 1:02d}"]},
        },
        series=series,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


class Counting(MemoryCatalogue):
    looked_at = 0

    def search(self, query: Query) -> Iterator[StudyRecord]:
        for one in super().search(query):
            self.looked_at += 1
            yield one


def searcher(*records: StudyRecord) -> tuple[Searcher, Counting]:
    catalogue = Counting()
    for one in records:
        catalogue.put(one)
    return Searcher(catalogue, ArchiveReader(SeriesReader(MemoryStore(), catalogue))), catalogue


def studies(found: Searcher, *parameters: tuple[str, str]) -> Answer:
    return found.studies(parse(parameters), lambda: False)


def uids(answer: Answer) -> list[object]:
    return [one["0020000D"]["Value"][0] for one in answer.results]  # type: ignore[index]


FORTY, CATALOGUE = searcher(*map(record, range(40)))


@given(st.integers(0, 50), st.integers(1, 50))
def test_pages_are_all_there_is(offset: int, limit: int) -> None:
    """PS3.18 8.3.4.4.1: the same order each time, none twice, none left out, and it is said where there is more."""
    whole = uids(studies(FORTY))
    answer = studies(FORTY, ("offset", str(offset)), ("limit", str(limit)))
    assert uids(answer) == whole[offset : offset + limit]
    assert (CUT in answer.warnings) == (offset + limit < 40)


def test_a_page_reads_little_more_than_itself() -> None:
    CATALOGUE.looked_at = 0
    assert len(studies(FORTY, ("limit", "5")).results) == 5
    assert CATALOGUE.looked_at == 6
    assert studies(FORTY, ("limit", "0")).results == []


def test_an_answer_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qido, "MOST_STUDIES", 10)
    answer = studies(FORTY, ("limit", "1000000000"))
    assert len(answer.results) == 10 and CUT in answer.warnings
    monkeypatch.setattr(qido, "_LOOKED_AT", 20)
    answer = studies(FORTY, ("PatientID", "P?9"))
    assert qido.NOT_ALL_LOOKED_AT in answer.warnings and len(answer.results) <= 2
    with pytest.raises(TooMuch):
        studies(FORTY, ("offset", "30000"))


def test_whoever_has_gone_away_is_not_searched_for() -> None:
    CATALOGUE.looked_at = 0
    FORTY.studies(parse([("PatientID", "nobody*")]), lambda: CATALOGUE.looked_at >= 3)
    assert CATALOGUE.looked_at <= 4


def test_what_is_not_on_record_is_said_and_not_taken_for_a_condition() -> None:
    answer = studies(FORTY, ("SliceThickness", "1"), ("PatientID", "P7"))
    assert uids(answer) == ["1.2.7"] and "not on record" in " ".join(answer.warnings)
    assert uids(studies(FORTY, ("Modality", "MR"), ("PatientID", "P7"))) == ["1.2.7"]
    assert uids(studies(FORTY, ("Modality", "US"), ("PatientID", "P7"))) == []
    assert uids(studies(FORTY, ("StudyInstanceUID", "1.2.7,1.2.9,9.9"))) == ["1.2.7", "1.2.9"]
    assert uids(studies(FORTY, ("StudyInstanceUID", "1.2.7"), ("PatientID", "P9"))) == []


def test_what_is_counted_can_be_searched_by() -> None:
    """An answer has these numbers: a condition on them neither drops out nor finds nothing."""
    assert uids(studies(FORTY, ("NumberOfStudyRelatedInstances", "6"), ("PatientID", "P7"))) == ["1.2.7"]
    assert uids(studies(FORTY, ("NumberOfStudyRelatedSeries", "2"), ("00100020", "P7"))) == ["1.2.7"]
    assert uids(studies(FORTY, ("NumberOfStudyRelatedInstances", "5"))) == []
    found = FORTY.series(Uid("1.2.7"), parse([("NumberOfStudyRelatedSeries", "2")]), lambda: False)
    assert len(found.results) == 2
    assert FORTY.series(Uid("1.2.7"), parse([("NumberOfStudyRelatedSeries", "3")]), lambda: False).results == []


def test_each_patient_and_order_finds_the_study_and_is_the_one_shown() -> None:
    two = record(
        1,
        identities=(Identity("P1", name="Name^1"), Identity("P1", name="Name^Married", birth_date="19700101")),
        orders=(Order("A1"), Order("A2", study_id="S2")),
    )
    found, _ = searcher(two)
    for parameters, name, accession in (
        ([("PatientName", "Name^1")], "Name^1", "A1"),
        ([("PatientName", "*married*"), ("AccessionNumber", "A2")], "Name^Married", "A2"),
        ([("PatientBirthDate", "19700101"), ("StudyID", "S2")], "Name^Married", "A2"),
    ):
        [one] = studies(found, *parameters).results
        assert one["00100010"]["Value"] == [{"Alphabetic": name}] and one["00080050"]["Value"] == [accession]
    # Nobody is both.
    assert studies(found, ("PatientName", "Name^1"), ("PatientBirthDate", "19700101")).results == []


def test_two_patients_are_said() -> None:
    found, _ = searcher(record(1, identities=(Identity("P1", name="A"), Identity("P2", name="B"))))
    assert qido.SEVERAL_PATIENTS in studies(found).warnings
    assert qido.SEVERAL_PATIENTS in found.series(None, parse([]), lambda: False).warnings
    instances = found.instances(None, None, parse([]), lambda: False)
    assert instances.results == [] and qido.SEVERAL_PATIENTS in instances.warnings


def test_series() -> None:
    answer = FORTY.series(Uid("1.2.7"), parse([("Modality", "CT")]), lambda: False)
    [one] = answer.results
    assert one["0020000E"]["Value"] == ["1.2.7.1"] and one["00200011"]["Value"] == [1]
    assert one["00201209"]["Value"] == [3] and "00100010" not in one
    of_all = FORTY.series(None, parse([("Modality", "MR"), ("PatientID", "P7")]), lambda: False)
    [one] = of_all.results
    assert one["0020000E"]["Value"] == ["1.2.7.2"] and one["00100010"]["Value"] == [{"Alphabetic": "Name^7"}]
    with pytest.raises(StudyNotFound):
        FORTY.series(Uid("9.9"), parse([]), lambda: False)
