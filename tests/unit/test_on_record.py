"""Whether a file says anything new of its study: asked of the state once for all files of a batch that say the same."""

from __future__ import annotations

from typing import cast

import pytest

from dicomwatchd.intake.dicom import attributes
from dicomwatchd.intake.on_record import Record
from dicomwatchd.queue.arrivals import Arrivals
from dicomwatchd.queue.rows import OnRecord
from tests.unit.dicomfiles import STUDY, data_set, encode, header


class State:
    """What `Arrivals` answers, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: OnRecord | None = None

    def on_record(self, *_: str) -> OnRecord | None:
        self.asked += 1
        return self.answer


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def record(state: State) -> Record:
    return Record(cast(Arrivals, state))


def said(number: int = 1, **changes: object) -> bytes:
    return encode(data_set(**{"SOPInstanceUID": f"{STUDY}.1.{number}", **changes}))


def test_of_files_that_say_the_same_the_state_is_asked_once(record: Record, state: State) -> None:
    answers = [record.holds_all_of(header(said(number))) for number in range(1, 5)]
    assert answers == [False, True, True, True], "the first one's attributes go with the batch"
    assert state.asked == 1


def test_once_the_batch_is_on_the_queue_it_is_asked_again(record: Record, state: State) -> None:
    record.holds_all_of(header(said(1)))
    record.flushed()
    assert not record.holds_all_of(header(said(2))), "the study may be on record no more"
    assert state.asked == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"PatientID": "P2"},
        {"PatientName": "SMITH^JOHN"},
        {"IssuerOfPatientID": "OTHER"},
        {"PatientBirthDate": "19700102"},
        {"PatientSex": "O"},
        {"AccessionNumber": "A2"},
        {"StudyID": "another"},
        {"AdmissionID": "another"},
        {"SeriesInstanceUID": f"{STUDY}.2"},
        {"StudyInstanceUID": "1.2.3.4"},
        {"SpecificCharacterSet": "ISO_IR 192"},
        {"StudyDescription": "another"},
        {"ProtocolName": "another"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_file_that_says_something_else_is_never_taken_for_one_that_was_seen(
    record: Record, state: State, changes: dict[str, object]
) -> None:
    record.holds_all_of(header(said(1)))
    record.holds_all_of(header(said(2, **changes)))
    assert state.asked == 2


def test_all_that_is_asked_of_a_file_follows_from_what_is_compared() -> None:
    asked = {*attributes.STUDY_TAGS, *attributes.SERIES_TAGS, *attributes.PATIENT_TAGS, *attributes.ORDER_TAGS}
    asked |= {attributes.ORDER_ISSUER, attributes.SPECIFIC_CHARACTER_SET}
    assert asked == set(attributes.ASKED_OF)


def test_a_second_patient_of_the_same_batch_is_seen(record: Record) -> None:
    first, other = header(said(1)), header(said(2, PatientID="P2"))
    assert [record.holds_all_of(one) for one in (first, other, first, other)] == [False, False, True, True]
