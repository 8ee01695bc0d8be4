"""Patient, study and series attributes as DICOM JSON: decoded without loss, without a warning, without a failure."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomwatchd.errors import Unarchivable
from dicomwatchd.intake.dicom import attributes
from dicomwatchd.intake.dicom.attributes import dicom_json, patient_id
from dicomwatchd.intake.dicom.decoding import character_set, text_of
from tests.unit.dicomfiles import data_set, encode, header

_DATA = Path(pydicom.__file__).parent / "data"
# The chrSQ ones have names within sequences only.
_SAMPLES = sorted(p for p in (_DATA / "charset_files").glob("*.dcm") if not p.stem.startswith("chrSQ"))
_CHARSETS = 0x00080005
_NAME = 0x00100010
_ID = 0x00100020


def test_values_are_the_strings_of_the_file() -> None:
    data = data_set(PatientSize="1.70", PatientWeight="", SeriesNumber=None)
    content = encode(data)
    found = header(content)
    assert found.study_attributes["00101020"] == {"vr": "DS", "Value": ["1.70"]}
    assert found.study_attributes["00101030"] == {"vr": "DS"}
    assert found.study_attributes["0020000D"] == {"vr": "UI", "Value": ["1.2.3.4.1"]}
    assert "00200011" not in found.series_attributes
    assert found.series_attributes["00080060"] == {"vr": "CS", "Value": ["CT"]}
    assert not {*found.study_attributes} & {*found.series_attributes}


def test_is_and_ds_that_are_no_numbers_stay_text() -> None:
    values = {0x00101020: b"NaN ", 0x00101030: b"1e999"}
    assert dicom_json(values, attributes.STUDY_TAGS) == {
        "00101020": {"vr": "DS", "Value": ["NaN"]},
        "00101030": {"vr": "DS", "Value": ["1e999"]},
    }


def test_only_attributes_that_may_have_several_values_are_split() -> None:
    values = {_ID: b"A\\B ", 0x00101000: b"X\\\\Y "}
    found = dicom_json(values, attributes.STUDY_TAGS)
    assert found["00100020"]["Value"] == ["A\\B"]
    assert found["00101000"]["Value"] == ["X", None, "Y"]
    assert patient_id(values) == "A\\B"


@pytest.mark.parametrize(
    ("charset", "raw", "name"),
    [
        (b"", b"DOE^JANE", {"Alphabetic": "DOE^JANE"}),
        (b"ISO_IR 100", b"Buc^J\xe9r\xf4me", {"Alphabetic": "Buc^Jérôme"}),
        (b"ISO-IR 144", "Люк ".encode("iso8859-5"), {"Alphabetic": "Люк"}),
        (b"iso 2022-IR 144 ", "Люк ".encode("iso8859-5"), {"Alphabetic": "Люк"}),
        (b"ISO_IR 192", "Wang^XiaoDong=王^小東=".encode(), {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小東"}),
        (b"GB18030", "Wang^Dong=王^小东".encode("gb18030"), {"Alphabetic": "Wang^Dong", "Ideographic": "王^小东"}),
        (
            b"\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"},
        ),
        (
            b"\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            {"Alphabetic": "Hong^Gildong", "Ideographic": "洪^吉洞", "Phonetic": "홍^길동"},
        ),
        (
            b"\\ISO 2022 IR 58",
            b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
            {"Alphabetic": "Zhang^XiaoDong", "Ideographic": "张^小东"},
        ),
        (b"ISO_IR 144", "Люкceмбypг".encode("iso8859-5"), {"Alphabetic": "Люкceмбypг"}),
        # "=" (0x3D) and "^" (0x5E) occur within two-byte characters too.
        (b"\\ISO 2022 IR 87", b"A=\x1b$B=U\x1b(B^\x1b$B^5\x1b(B", {"Alphabetic": "A", "Ideographic": "春^浹"}),
        # A delimiter ends a code extension.
        (
            b"ISO 2022 IR 100\\ISO 2022 IR 144",
            b"\x1b-L" + "Люк".encode("iso8859-5") + b"^J\xe9r\xf4me",
            {"Alphabetic": "Люк^Jérôme"},
        ),
        (b"ISO_IR 192\\ISO 2022 IR 87", "Jérôme".encode(), {"Alphabetic": "Jérôme"}),
    ],
)  # fmt: skip
def test_names_keep_their_groups_in_any_character_set(charset: bytes, raw: bytes, name: dict[str, str]) -> None:
    found = dicom_json({_CHARSETS: charset, _NAME: raw}, attributes.STUDY_TAGS)
    assert found["00100010"] == {"vr": "PN", "Value": [name]}


def test_a_patient_id_that_cannot_be_decoded_is_noted() -> None:
    # 0xFF is no character of ISO 8859-7.
    content = encode(data_set(SpecificCharacterSet="ISO_IR 126", PatientID="P~1")).replace(b"P~1", b"P\xff1")
    found = header(content)
    assert found.patient_id == "P\ufffd1"
    assert "patient ID: not all of it could be decoded" in found.instance.repairs


def test_a_patient_id_that_is_missing_is_empty() -> None:
    assert header(encode(data_set(PatientID=None))).patient_id == ""


@given(charset=st.binary(max_size=40), value=st.binary(max_size=60), is_name=st.booleans())
def test_decoding_never_fails_and_gives_text_fit_for_json(charset: bytes, value: bytes, is_name: bool) -> None:
    text_of(value, character_set(charset), is_name=is_name)[0].encode("utf-8")
    found = dicom_json({_CHARSETS: charset, _NAME: value, _ID: value, 0x00080020: value}, attributes.STUDY_TAGS)
    json.dumps(found, allow_nan=False)


@given(charset=st.sampled_from(sorted(term.encode() for term in pydicom.charset.python_encoding)), value=st.binary())
def test_decoding_with_every_known_character_set(charset: bytes, value: bytes) -> None:
    for both in (charset, b"\\" + charset, charset + b"\\ISO 2022 IR 87"):
        text_of(b"x\x1b$)C" + value + b"\x1b" + value, character_set(both), is_name=True)[0].encode("utf-8")


def test_no_value_reaches_a_warning_a_log_a_message_or_a_repr(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    marker = "CANARY^JANE"
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("ignore")
        data = data_set(PatientName=marker, PatientID=marker, SpecificCharacterSet=marker)
        data.PatientBirthDate = f"{marker} 1970"
        content = encode(data)
        hurt = [
            content.replace(b"1.2.3.4.1.1.1\0", marker.encode() + b"\0\0\0"),
            content.replace(b"1.2.3.4.1.1", marker.encode()),
            content.replace(b"1.2.840.10008.1.2.1\0", marker.encode().ljust(20, b"\0")),
        ]
        warnings.simplefilter("always")
        caplog.clear()
        capfd.readouterr()
        found = header(content)
        assert found.study_attributes["00100030"]["Value"] == [f"{marker} 1970"]
        said = [repr(found), *found.instance.repairs]
        for damaged in hurt:
            try:
                said.append(repr(header(damaged).instance))
            except Unarchivable as error:
                said.append(f"{error!r} {error} {error.__cause__!r}")
    output = capfd.readouterr()
    assert [str(warning.message) for warning in caught] == []
    assert marker not in "".join(said) + output.out + output.err + caplog.text


@pytest.mark.parametrize("path", _SAMPLES, ids=lambda path: path.stem)
def test_agrees_with_pydicom_on_its_own_character_set_samples(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(path)
        expected = data.PatientName
        raw = data.PatientName.original_string if "PatientName" in data else b""
        charset = data.get("SpecificCharacterSet", "")
    terms = [charset] if isinstance(charset, str) else list(charset or [""])
    found = dicom_json({_CHARSETS: "\\".join(terms).encode(), _NAME: raw}, attributes.STUDY_TAGS)
    groups = {"Alphabetic": expected.alphabetic, "Ideographic": expected.ideographic, "Phonetic": expected.phonetic}
    assert found["00100010"]["Value"] == [{key: text for key, text in groups.items() if text}]
