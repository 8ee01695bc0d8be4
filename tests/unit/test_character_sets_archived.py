"""What was read of files without a character set, or with a wrong one, from the inbox to the archive and its search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive.records import Query
from tests.pieces import Pieces
from tests.unit.dicomfiles import STUDY, data_set, encode


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    made = Pieces(tmp_path)
    yield made
    made.close()


def _put(pieces: Pieces, number: int, name: bytes, charset: str | None = None, patient: bytes = b"P1") -> None:
    name += b" " * (len(name) % 2)
    patient += b" " * (len(patient) % 2)
    data = data_set(
        SpecificCharacterSet=charset,
        SOPInstanceUID=f"{STUDY}.1.{number}",
        PatientName="~" * len(name),
        PatientID="#" * len(patient),
    )
    content = encode(data).replace(b"~" * len(name), name).replace(b"#" * len(patient), patient)
    pieces.inbox.mkdir(exist_ok=True)
    (pieces.inbox / f"IM{number}").write_bytes(content)


def _found(pieces: Pieces, **query: Any) -> bool:
    return [record.study_uid for record in pieces.catalogue.search(Query(**query))] == [STUDY]


def test_each_component_group_is_found_in_unicode(pieces: Pieces) -> None:
    _put(pieces, 1, "Yamada^Tarou=山田^太郎=やまだ^たろう".encode("cp932"), charset=None)
    pieces.close()
    pieces.settings = replace(pieces.settings, charset_when_missing="cp932")
    pieces.start()
    pieces.run()
    for name in ("yamada*", "山田*", "*太郎", "やまだ*"):
        assert _found(pieces, name=name), name
    assert pieces.manifest(STUDY).flags == ()


def test_one_patient_in_several_sets_is_one_identity(pieces: Pieces) -> None:
    name, patient = "Müller^Zoë", "Ü1"
    _put(pieces, 1, name.encode("latin_1"), "ISO_IR 100", patient.encode("latin_1"))
    _put(pieces, 2, name.encode(), "ISO_IR 192", patient.encode())
    _put(pieces, 3, name.encode(), None, patient.encode())
    _put(pieces, 4, name.encode("latin_1"), None, patient.encode("latin_1"))
    pieces.run()
    made = pieces.manifest(STUDY)
    assert len(made.instances) == 4 and len(made.identities) == 1
    assert made.identities[0].name == name and made.identities[0].patient_id == patient
    assert "patient-id-differs" not in made.flags
    assert _found(pieces, name="müller*") and _found(pieces, patient_id=patient)


def test_after_a_wrong_guess_a_file_that_comes_again_makes_the_right_name_found(pieces: Pieces) -> None:
    name = "Иванов^Пётр".encode("cp1251")
    _put(pieces, 1, name)
    pieces.run()
    first = pieces.manifest(STUDY)
    assert first.flags == ("charset-guessed",) and not _found(pieces, name="иванов*")
    pieces.close()
    pieces.settings = replace(pieces.settings, charset_when_missing="cp1251")
    pieces.start()
    _put(pieces, 1, name)
    pieces.run()
    second = pieces.manifest(STUDY)
    assert second.revision == 2 and second.instances == first.instances
    assert _found(pieces, name="иванов*")
    assert second.attributes == first.attributes, "what was recorded first stays, with its bytes"
    assert pieces.left() == []


def test_a_patient_id_that_is_read_in_another_way_holds_the_study(pieces: Pieces) -> None:
    """Nobody but a person knows that these are one patient; nothing is deleted until somebody says so."""
    _put(pieces, 1, b"DOE^JANE", patient="П1".encode("cp1251"))
    pieces.run()
    assert pieces.left() == []
    pieces.close()
    pieces.settings = replace(pieces.settings, charset_when_missing="cp1251")
    pieces.start()
    _put(pieces, 2, b"DOE^JANE", patient="П1".encode("cp1251"))
    pieces.run(3)
    assert [path.name for path in pieces.left()] == ["IM2"]
    assert set(pieces.states().values()) == {"kept:held"}
    assert _found(pieces, patient_id="П1") and "patient-id-differs" in pieces.manifest(STUDY).flags
