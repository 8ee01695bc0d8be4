"""What the files of a study say of their patient and order, from the file to the search."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicomwatchd.archive.records import Query
from dicomwatchd.intake.dicom.header import Header
from dicomwatchd.model import has_value
from dicomwatchd.patients import IDENTITIES_LIMIT, IDENTITIES_LIMITED, Identity, Order, two_patients
from tests.pieces import Pieces
from tests.unit.dicomfiles import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, STUDY, data_set, encode, header

DOE, SMITH = Identity("P1", name="DOE^JANE"), Identity("P2", name="SMITH^JOHN")


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    made = Pieces(tmp_path)
    yield made
    made.close()


def put(pieces: Pieces, number: int, series: int = 1, **changes: object) -> None:
    uids = {"SOPInstanceUID": f"{STUDY}.{series}.{number}", "SeriesInstanceUID": f"{STUDY}.{series}"}
    pieces.inbox.mkdir(exist_ok=True)
    (pieces.inbox / f"IM{series}{number:04}").write_bytes(encode(data_set(**{**uids, **changes})))


def found(pieces: Pieces, query: Query) -> list[str]:
    return [record.study_uid for record in pieces.catalogue.search(query)]


def test_a_localizer_without_an_id_does_not_hide_its_study(pieces: Pieces) -> None:
    put(pieces, 1, PatientID="", PatientName="", AccessionNumber=None, StudyDescription="")
    put(pieces, 2)
    pieces.run()
    made = pieces.manifest(STUDY)
    assert made.attributes["00100020"] == {"vr": "LO", "Value": ["P1"]}
    assert made.attributes["00081030"]["Value"] == ["Chest"]
    assert made.identities == (DOE,)
    assert made.flags == ()
    assert found(pieces, Query(patient_id="P1")) == found(pieces, Query(accession_number="A1")) == [STUDY]


def test_a_later_revision_fills_what_was_empty_and_changes_nothing(pieces: Pieces) -> None:
    put(pieces, 1, PatientID="", StudyDescription="", SeriesDescription="", BodyPartExamined="HEAD")
    pieces.run()
    first = pieces.manifest(STUDY)
    assert "00100020" not in first.attributes, "what is empty is left to who has it"
    put(pieces, 2, StudyDescription="Abdomen", SeriesDescription="T1", BodyPartExamined="CHEST", PatientName="X^Y")
    pieces.run()
    second = pieces.manifest(STUDY)
    assert second.revision == first.revision + 1
    assert second.attributes["00100020"]["Value"] == ["P1"]
    assert second.attributes["00081030"]["Value"] == ["Abdomen"]
    assert second.attributes["00100010"] == first.attributes["00100010"]
    [of_series] = second.series.values()
    assert of_series["0008103E"]["Value"] == ["T1"] and of_series["00180015"]["Value"] == ["HEAD"]
    assert found(pieces, Query(patient_id="P1")) == [STUDY]


def test_both_patients_find_the_study(pieces: Pieces) -> None:
    put(pieces, 1)
    put(pieces, 2)
    put(pieces, 3, PatientID="P2", PatientName="SMITH^JOHN", AccessionNumber="A2")
    pieces.run()
    made = pieces.manifest(STUDY)
    assert made.identities == (DOE, SMITH)
    assert {order.accession_number for order in made.orders} == {"A1", "A2"}
    assert made.flags == ("patient-id-differs",)
    assert two_patients(made.identities) == (DOE, SMITH)
    for query in (Query(patient_id="P1"), Query(patient_id="P2"), Query(accession_number="A2"), Query(name="smith*")):
        assert found(pieces, query) == [STUDY]
    assert found(pieces, Query(patient_id="P1", name="smith*")) == [], "it is nobody's ID and name"


def test_the_second_patient_may_come_with_a_later_revision_and_after_the_state_was_lost(pieces: Pieces) -> None:
    put(pieces, 1)
    pieces.run()
    pieces.close()
    shutil.rmtree(pieces.state)
    pieces.state.mkdir()
    pieces.start()
    put(pieces, 2, PatientID="P2", PatientName="SMITH^JOHN")
    pieces.run()
    assert pieces.manifest(STUDY).identities == (DOE, SMITH)
    assert found(pieces, Query(patient_id="P1")) == found(pieces, Query(patient_id="P2")) == [STUDY]


def test_attributes_are_worked_out_only_where_a_file_says_something_new(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked_out: list[str] = []
    of_header = vars(Header)["study_attributes"].fget

    def counted(header: Header) -> object:
        worked_out.append(header.instance.sop_instance_uid)
        return of_header(header)

    monkeypatch.setattr(Header, "study_attributes", property(counted))
    for number in range(1, 21):
        name, patient_id = "DOE^JANE^M" if number == 7 else "DOE^JANE", "P1" if number > 3 else ""
        put(pieces, number, PatientName=name, PatientID=patient_id)
    pieces.scan()
    pieces.settle()
    numbers = [int(uid.rpartition(".")[2]) for uid in worked_out]
    assert len(numbers) == 3 and 7 in numbers and min(numbers) <= 3, "one of each kind, in whatever order"
    put(pieces, 30)
    put(pieces, 31, series=2)
    put(pieces, 32, BodyPartExamined="HEAD")
    put(pieces, 33, BodyPartExamined="CHEST")
    pieces.scan()
    pieces.settle()
    numbers = [int(uid.rpartition(".")[2]) for uid in worked_out[3:]]
    assert 31 in numbers and len(numbers) == 2 and numbers[0] + numbers[1] in (31 + 32, 31 + 33)


def test_files_that_each_name_another_patient_are_kept_in_bounds(pieces: Pieces) -> None:
    for number in range(IDENTITIES_LIMIT + 10):
        put(pieces, number + 1, PatientID=f"P{number}")
    pieces.run()
    made = pieces.manifest(STUDY)
    assert len(made.identities) == IDENTITIES_LIMIT
    assert IDENTITIES_LIMITED in made.flags


def test_one_patients_attributes_are_not_filled_up_with_anothers(pieces: Pieces) -> None:
    put(pieces, 1, AccessionNumber="", StudyDescription="")
    pieces.run(1)
    put(pieces, 2, PatientID="P2", PatientName="SMITH^JOHN", PatientBirthDate="19510213", AccessionNumber="A2")
    pieces.run(3)
    said = pieces.manifest(STUDY).attributes
    assert said["00100020"]["Value"] == ["P1"] and said["00081030"]["Value"] == ["Chest"]
    assert "00100030" not in said and "00080050" not in said
    assert found(pieces, Query(birth_date="19510213", patient_id="P2")) == [STUDY]
    put(pieces, 3, PatientBirthDate="19700131")
    pieces.run(3)
    assert pieces.manifest(STUDY).attributes["00100030"]["Value"] == ["19700131"]


def test_patients_are_those_of_files_and_not_put_together(pieces: Pieces) -> None:
    """The attributes are the first of each, from whichever file: they may be nobody's, and hold nothing up."""
    put(pieces, 1, PatientID="", PatientName="DOE^JANE")
    put(pieces, 2, PatientID="", PatientName="DOE^JANE^M", PatientBirthDate="19700131")
    put(pieces, 3, PatientID="P1", PatientName="DOE^JANE^M", PatientBirthDate="19700113")
    pieces.run()
    made = pieces.manifest(STUDY)
    assert len(made.identities) == 3
    assert two_patients(made.identities) is None
    assert found(pieces, Query(patient_id="P1", name="doe jane")) == [STUDY]


def test_what_a_shipment_knows_of_the_identities(pieces: Pieces) -> None:
    put(pieces, 1)
    put(pieces, 2, PatientID="P2")
    pieces.scan()
    pieces.settle()
    claim = pieces.queue.claims.claim()
    assert claim is not None
    facts = pieces.queue.shipments.facts(claim)
    assert two_patients(facts.identities) is not None


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED])
@pytest.mark.parametrize("undefined", [False, True])
def test_the_issuer_of_the_accession_number(syntax: str, undefined: bool) -> None:
    item = Dataset()
    item.LocalNamespaceEntityID = "RIS"
    item.UniversalEntityID = "1.2.3"
    item.is_undefined_length_sequence_item = undefined
    data = data_set(IssuerOfAccessionNumberSequence=Sequence([item]))
    data["IssuerOfAccessionNumberSequence"].is_undefined_length = undefined
    read = header(encode(data, syntax))
    assert read.issuer_of_order == "RIS"
    del item.LocalNamespaceEntityID
    assert header(encode(data, syntax)).issuer_of_order == "1.2.3"
    assert read.order_digest != header(encode(data_set(), syntax)).order_digest
    assert "00080051" not in read.study_attributes
    nothing = data_set(IssuerOfAccessionNumberSequence=Sequence([]))
    assert header(encode(nothing, syntax)).issuer_of_order == ""


def test_orders_have_their_issuer(pieces: Pieces) -> None:
    item = Dataset()
    item.LocalNamespaceEntityID = "RIS"
    put(pieces, 1, IssuerOfAccessionNumberSequence=Sequence([item]), StudyID="S1", AdmissionID="V1")
    pieces.run()
    [order] = pieces.manifest(STUDY).orders
    assert order == Order("A1", "RIS", "S1", "V1")


def test_digests_tell_values_apart_and_not_their_padding() -> None:
    plain = header(encode(data_set()))
    assert plain.identity_digest == header(encode(data_set(PatientID="P1 "))).identity_digest
    assert plain.identity_digest != header(encode(data_set(PatientID="P2"))).identity_digest
    assert plain.identity_digest != header(encode(data_set(PatientID="", IssuerOfPatientID="P1"))).identity_digest
    assert header(encode(data_set(PatientID="", PatientName=""))).identity_digest == ""


@pytest.mark.filterwarnings("ignore:The value length")
def test_what_has_a_value_is_told_alike_in_both_ways() -> None:
    odd = header(
        encode(
            data_set(PatientName="^^", PatientID=" ", PatientSex="X" * 70, PatientWeight="", StudyDescription="x" * 300)
        )
    )
    made = odd.study_attributes
    assert odd.filled_study_tags == {tag for tag, element in made.items() if has_value(element)}
    assert json.dumps(made)
