"""Character sets: declared, undeclared, misspelt. Names come out right, or are marked with their bytes kept."""

from __future__ import annotations

import base64
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydicom.charset import python_encoding

from dicomwatchd.character_sets import (
    CODECS,
    TERMS,
    USABLE_WHEN_MISSING,
    codec_of,
    corrected,
    is_guessed,
)
from dicomwatchd.intake.dicom import attributes
from dicomwatchd.intake.dicom.attributes import dicom_json, patient_id
from dicomwatchd.intake.dicom.decoding import (
    UNKNOWN_TERM,
    Doubt,
    character_set,
    text_of,
)
from dicomwatchd.intake.dicom.header import Header
from dicomwatchd.intake.dicom.verdict import Damaged
from tests.unit.dicomfiles import data_set, encode, header

_FILES = Path(pydicom.__file__).parent / "data" / "charset_files"
_IVANOV = "Иванов^Пётр"
_CHARSETS, _NAME, _ID = 0x00080005, 0x00100010, 0x00100020
#: What pydicom's files of character sets have for a Patient's Name: the groups, as they are printed in PS3.5 H to K.
_NAMES: dict[str, dict[str, str]] = {
    "chrArab": {"Alphabetic": "قباني^لنزار"},
    "chrFren": {"Alphabetic": "Buc^Jérôme"},
    "chrFrenMulti": {"Alphabetic": "Buc^Jérôme"},
    "chrGerm": {"Alphabetic": "Äneas^Rüdiger"},
    "chrGreek": {"Alphabetic": "Διονυσιος"},
    "chrH31": {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"},
    "chrH32": {"Alphabetic": "ﾔﾏﾀﾞ^ﾀﾛｳ", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"},
    "chrHbrw": {"Alphabetic": "שרון^דבורה"},
    "chrI2": {"Alphabetic": "Hong^Gildong", "Ideographic": "洪^吉洞", "Phonetic": "홍^길동"},
    "chrJapMulti": {"Alphabetic": "やまだ^たろう"},
    "chrJapMultiExplicitIR6": {"Alphabetic": "やまだ^たろう"},
    "chrKoreanMulti": {"Alphabetic": "김희중"},
    "chrRuss": {"Alphabetic": "Люкceмбypг"},
    "chrX1": {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小東"},
    "chrX2": {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"},
}


def _file(charset: bytes | None, name: bytes, patient: bytes = b"P1", *, when_missing: str = "") -> Header:
    """What is read of a file with these very bytes in it."""
    content = encode(data_set(SpecificCharacterSet="ISO_IR 100", PatientName="N" * 60, PatientID="I" * 60))
    for written, raw in ((b"ISO_IR 100", charset or b""), (b"N" * 60, name), (b"I" * 60, patient)):
        assert content.count(written) == 1
        at = content.index(written)
        raw += b" " * (len(raw) % 2)
        content = content[: at - 2] + len(raw).to_bytes(2, "little") + raw + content[at + len(written) :]
    return header(content, charset_when_missing=when_missing)


def _name(found: Header) -> dict[str, Any]:
    return found.study_attributes["00100010"]


def _raw(element: dict[str, Any]) -> bytes:
    return base64.b64decode(element["raw"])


# The chrSQ ones have names within sequences only.
@pytest.mark.parametrize("path", sorted(_FILES.glob("chr[!S]*.dcm")), ids=lambda path: path.stem)
def test_every_name_in_the_files_of_the_standards_examples(path: Path) -> None:
    try:
        found = header(path.read_bytes())
    except Damaged as error:  # some have no pixels
        if error.header is None:
            raise
        found = error.header
    assert not any("character set" in note for note in found.instance.repairs)
    assert _name(found) == {"vr": "PN", "Value": [_NAMES[path.stem]]}, "and no mark"
    assert not is_guessed(found.study_attributes) and not is_guessed(found.series_attributes)


# -- undeclared -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("charset", [None, b"", b"ISO_IR 6", b"ISO 2022 IR 6", b"KLINGON"])
@pytest.mark.parametrize(
    ("codec", "name", "groups"),
    [
        ("cp1251", _IVANOV, {"Alphabetic": _IVANOV}),
        ("utf_8", "Jérôme^Zoë=王^小東", {"Alphabetic": "Jérôme^Zoë", "Ideographic": "王^小東"}),
        ("gbk", "Wang^XiaoDong=王^小东", {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"}),
        # The second byte of 表 is a backslash, that of 十 too; neither divides anything.
        ("cp932", "Omote=表^十=おもて", {"Alphabetic": "Omote", "Ideographic": "表^十", "Phonetic": "おもて"}),
        ("euc_jp", "Yamada=山田^太郎", {"Alphabetic": "Yamada", "Ideographic": "山田^太郎"}),
        ("cp949", "Hong=洪^吉洞=홍^길동", {"Alphabetic": "Hong", "Ideographic": "洪^吉洞", "Phonetic": "홍^길동"}),
        ("big5hkscs", "Wang=王^小東", {"Alphabetic": "Wang", "Ideographic": "王^小東"}),
        ("koi8_r", _IVANOV, {"Alphabetic": _IVANOV}),
        ("iso8859_15", "Cœur^Zoë", {"Alphabetic": "Cœur^Zoë"}),
    ],
)
def test_what_no_file_declares_is_read_as_configured(
    charset: bytes | None, codec: str, name: str, groups: dict[str, str]
) -> None:
    term = corrected(codec)
    assert term is not None and term in USABLE_WHEN_MISSING
    found = _file(charset, name.encode(codec), name[-5:].encode(codec), when_missing=term)
    element = _name(found)
    assert element["Value"] == [groups]
    assert _raw(element).rstrip(b" ") == name.encode(codec)
    assert (element["charset"], element["charset_by"]) == (term, "configuration")
    assert found.patient_id == name[-5:]
    assert "patient ID: its character set is not certain" in found.instance.repairs
    assert not is_guessed(found.study_attributes), "somebody has said so"


def test_utf_8_is_seen_by_its_bytes() -> None:
    element = _name(_file(None, "Müller^Zoë=王^小東".encode()))
    assert element["Value"] == [{"Alphabetic": "Müller^Zoë", "Ideographic": "王^小東"}]
    assert (element["charset"], element["charset_by"]) == ("ISO_IR 192", "guess")
    assert is_guessed({"00100010": element})


@pytest.mark.parametrize("codec", ["cp1251", "gbk", "shift_jis"])
def test_what_nobody_can_tell_keeps_its_bytes(codec: str) -> None:
    raw = {"cp1251": _IVANOV, "gbk": "王^小东", "shift_jis": "山田^太郎"}[codec].encode(codec)
    element = _name(_file(None, raw))
    assert (element["charset"], element["charset_by"]) == ("ISO_IR 100", "guess")
    assert _raw(element).rstrip(b" ") == raw, "so that a wrong guess can be put right"
    assert is_guessed({"00100010": element})


def test_what_is_configured_comes_before_a_guess_and_the_guess_where_it_does_not_fit() -> None:
    # These bytes are sound UTF-8 as well.
    both = "一".encode("gbk")
    assert both.decode("utf_8")
    assert text_of(both, character_set(b""), "GBK") == ("一", Doubt("GBK", "configuration"))
    utf_8 = "ΑΒ€".encode()
    with pytest.raises(UnicodeDecodeError):
        utf_8.decode("cp949")
    assert text_of(utf_8, character_set(b""), "cp949") == ("ΑΒ€", Doubt("ISO_IR 192", "guess"))


def test_what_is_read_in_another_way_is_said_anew() -> None:
    """So that a file which comes once more, after the configuration was put right, adds the right name."""
    raw = _IVANOV.encode("cp1251")
    wrong, right = _file(None, raw), _file(None, raw, when_missing="cp1251")
    assert wrong.identity_digest != right.identity_digest
    assert _file(None, b"DOE").identity_digest == _file(None, b"DOE", when_missing="cp1251").identity_digest


def test_ascii_is_no_guess() -> None:
    found = _file(None, b"DOE^JANE", when_missing="cp1251")
    assert _name(found) == {"vr": "PN", "Value": [{"Alphabetic": "DOE^JANE"}]}
    assert found.instance.repairs == ()


# -- declared, and wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("charset", "raw", "when_missing", "text", "doubt"),
    [
        ("ISO_IR 192", b"Ren\xe9", "", "René", Doubt("ISO_IR 100", "guess")),
        ("ISO_IR 192", "Иванов".encode("cp1251"), "cp1251", "Иванов", Doubt("cp1251", "configuration")),
        # Cut within a character, by a program that counts bytes.
        ("ISO_IR 192", "Иванов".encode()[:-1], "", "Ивано\ufffd", Doubt("ISO_IR 192", "declaration")),
        ("ISO_IR 192", "Иванов".encode()[:-1] + b" ", "cp1251", "Ивано\ufffd ", Doubt("ISO_IR 192", "declaration")),
        ("", "Иванов".encode()[:-1], "", "Ивано\ufffd", Doubt("ISO_IR 192", "guess")),
        ("ISO_IR 126", "Αθήνα".encode("iso8859_7") + b"\xff", "", "Αθήνα\ufffd", Doubt("ISO_IR 126", "declaration")),
        ("GB18030", "王小东".encode("gbk")[:-1], "", "王小\ufffd", Doubt("GB18030", "declaration")),
        # Two-byte characters without the escape sequence that should be before them.
        ("\\ISO 2022 IR 149", "홍길동".encode("euc_kr"), "cp1251", "홍길동", Doubt("ISO 2022 IR 149", "guess")),
        ("\\ISO 2022 IR 144", "Люк".encode("iso8859_5"), "", "Люк", Doubt("ISO 2022 IR 144", "guess")),
        ("\\ISO 2022 IR 144", "Люк".encode(), "", "Люк", Doubt("ISO_IR 192", "guess")),
        ("\\ISO 2022 IR 87", "山田".encode("cp932"), "cp932", "山田", Doubt("cp932", "configuration")),
        # An escape sequence and half a character.
        ("\\ISO 2022 IR 87", b"\x1b$B;", "", "\ufffd", Doubt("ISO_IR 100", "guess")),
    ],
)
def test_a_declared_set_that_does_not_read_the_bytes(
    charset: str, raw: bytes, when_missing: str, text: str, doubt: Doubt
) -> None:
    assert text_of(raw, character_set(charset.encode()), when_missing, is_name=True) == (text, doubt)


def test_a_declared_set_that_reads_the_bytes_is_believed_whatever_is_configured() -> None:
    found = _file(b"ISO_IR 100", b"Buc^J\xe9r\xf4me", when_missing="cp1251")
    assert _name(found) == {"vr": "PN", "Value": [{"Alphabetic": "Buc^Jérôme"}]}


@pytest.mark.parametrize("name", ["Müller^Zoë", "Buc^Jérôme", "Ærø"])
def test_one_name_in_several_sets_is_the_same_text(name: str) -> None:
    files = [
        _file(b"ISO_IR 100", name.encode("latin_1"), name.encode("latin_1")),
        _file(b"ISO_IR 192", name.encode(), name.encode()),
        _file(b"ISO-IR 100", name.encode("latin_1"), name.encode("latin_1")),
        _file(b"utf8", name.encode(), name.encode()),
        _file(None, name.encode(), name.encode()),
        _file(None, name.encode("latin_1"), name.encode("latin_1")),
        _file(b"ISO_IR 6", name.encode("cp1252"), name.encode("cp1252"), when_missing="cp1252"),
        _file(
            b"ISO 2022 IR 6\\ISO 2022 IR 100", b"\x1b-A" + name.encode("latin_1"), b"\x1b-A" + name.encode("latin_1")
        ),
    ]
    assert {found.patient_id for found in files} == {name}
    alphabetic = {found.study_attributes["00100010"]["Value"][0]["Alphabetic"] for found in files}  # type: ignore[index]
    assert alphabetic <= {name} or "^" in name


# -- misspelt -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "term"),
    [
        ("ISO-IR 100", "ISO_IR 100"),
        ("ISO IR 100", "ISO_IR 100"),
        ("ISO_IR_100", "ISO_IR 100"),
        ("ISO_IR100", "ISO_IR 100"),
        ("IR 100", "ISO_IR 100"),
        ("ISO 100", "ISO_IR 100"),
        ("iso_ir 100", "ISO_IR 100"),
        ("latin1", "ISO_IR 100"),
        ("Latin-1", "ISO_IR 100"),
        ("ISO8859-1", "ISO_IR 100"),
        ("ISO-8859-1", "ISO_IR 100"),
        ("ISO_8859-5", "ISO_IR 144"),
        ("ISO IR 192", "ISO_IR 192"),
        ("ISO_IR_192", "ISO_IR 192"),
        ("ISO 2022 IR 192", "ISO_IR 192"),
        ("UTF8", "ISO_IR 192"),
        ("UTF-8", "ISO_IR 192"),
        ("utf-8", "ISO_IR 192"),
        ("gbk", "GBK"),
        ("GB2312", "GBK"),
        ("CP936", "GBK"),
        ("GB 18030", "GB18030"),
        ("gb18030", "GB18030"),
        ("GB18030-2000", "GB18030"),
        ("SHIFT_JIS", "cp932"),
        ("Shift-JIS", "cp932"),
        ("windows-1251", "cp1251"),
        ("CP1251", "cp1251"),
        ("KOI8-R", "koi8_r"),
        ("BIG5", "cp950"),
        ("EUC-KR", "cp949"),
        ("ISO 2022-IR 87", "ISO 2022 IR 87"),
        ("ISO-2022-IR-87", "ISO 2022 IR 87"),
        ("ISO_IR 2022 IR 87", "ISO 2022 IR 87"),
        ("ISO_IR 87", "ISO 2022 IR 87"),
        ("ISO_IR 149", "ISO 2022 IR 149"),
        ("ISO 2022 58", "ISO 2022 IR 58"),
        ("ASCII", "ISO_IR 6"),
        ("ISO-IR 6", "ISO_IR 6"),
    ],
)
def test_misspelt_terms_are_put_right_and_marked(written: str, term: str) -> None:
    found = character_set(written.encode())
    assert (found.term, found.codec) == (term, codec_of(term))
    assert found.notes == (f"character set: a misspelt term, read as {term}",)
    assert character_set(b"ISO_IR 100\\" + written.encode()).notes == found.notes


@pytest.mark.parametrize("term", sorted(TERMS))
def test_right_terms_are_not_marked(term: str) -> None:
    for written in (term, f"{term} ", f" {term}\0", f"\\{term}"):
        assert character_set(written.encode()).notes == ()
    assert "".encode(codec_of(term) or "") == b""


def test_the_terms_are_pydicoms_with_the_same_codecs() -> None:
    import codecs

    theirs = {term: codecs.lookup(codec).name for term, codec in python_encoding.items() if codec != "iso8859"}
    ours = {term: codecs.lookup(codec).name for term, codec in TERMS.items() if codec != "ascii"}
    # It has two misspelt ones, and not yet Latin alphabet No. 9.
    assert {term: codec for term, codec in theirs.items() if corrected(term) == term} == {
        term: codec for term, codec in ours.items() if not term.endswith(" 203")
    }


@pytest.mark.parametrize("name", sorted(USABLE_WHEN_MISSING))
def test_what_may_be_configured_reads_ascii_as_ascii(name: str) -> None:
    """Delimiters, and all of an ID, stay what they are."""
    ascii = bytes(range(0x20, 0x7F))
    assert ascii.decode(USABLE_WHEN_MISSING[name]) == ascii.decode("ascii")
    assert corrected(name) == name and codec_of(name) == USABLE_WHEN_MISSING[name]


def test_no_codec_is_named_by_two_names() -> None:
    assert len(CODECS) == len(set(CODECS)) and not {*CODECS} & {*TERMS}


@pytest.mark.parametrize(
    "written",
    [
        "DOE^JANE", "rot13", "hex", "utf-16", "utf-7", "idna", "unicode_escape", "ISO_IR 99", "ISO_IR 6666", "ISO_IR",
        "ISO 8859", "zlib_codec", "latin1" * 20, "ISO_IR 100^DOE", "JANE ISO_IR 100",
    ],
)  # fmt: skip
def test_a_term_that_nobody_knows_counts_as_none_and_is_not_repeated(written: str) -> None:
    found = character_set(written.encode())
    assert (found.term, found.codec, found.notes) == ("ISO_IR 6", "ascii", (UNKNOWN_TERM,))


# -- hostile --------------------------------------------------------------------------------------------------------


@given(
    charset=st.binary(max_size=60), value=st.binary(max_size=80), when_missing=st.sampled_from(["", "cp1251", "GBK"])
)
@example(charset=b"\\".join([b"X"] * 1000), value=b"\xff" * 4096, when_missing="")
def test_any_bytes_under_any_declaration(charset: bytes, value: bytes, when_missing: str) -> None:
    values = {_CHARSETS: charset, _NAME: value, _ID: value, 0x00080020: value}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = dicom_json(values, attributes.STUDY_TAGS, charset_when_missing=when_missing)
        text = patient_id(values, charset_when_missing=when_missing)
        notes = character_set(charset).notes
    json.dumps(found, allow_nan=False)
    text.encode()
    allowed = {UNKNOWN_TERM} | {f"character set: a misspelt term, read as {term}" for term in (*TERMS, *CODECS)}
    assert set(notes) <= allowed and len(notes) <= 16, "no value of the file is in them"
    for element in found.values():
        if "raw" in element:
            assert value.startswith(_raw(element)) and len(_raw(element)) == min(len(value), attributes.RAW_LIMIT_BYTES)
            assert codec_of(str(element["charset"])) is not None
        else:
            assert value.isascii() or character_set(charset).codec != "ascii" or b"\x1b" in value


_RIGHT = sorted(term for term in TERMS if term in python_encoding and TERMS[term] != "ascii")


@given(
    term=st.sampled_from(_RIGHT),
    extended=st.booleans(),
    value=st.one_of(
        st.binary(max_size=40),
        st.lists(
            st.sampled_from(
                [b"^", b"=", b"\\", b"\x1b(B", b"\x1b$B;3ED", b"\x1b$)C\xfb\xf3", b"\x1b-A\xe9", b"Ab", b"\xb1"]
            ),
            max_size=8,
        ).map(b"".join),
    ),
)
def test_the_same_as_pydicom_where_that_is_sure(term: str, extended: bool, value: bytes) -> None:
    terms = ["ISO 2022 IR 6", term] if extended and term.startswith("ISO 2022") else [term]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Of a whole value: its PersonName divides the bytes, in which a delimiter may be half a character.
        theirs = pydicom.charset.decode_bytes(value, pydicom.charset.convert_encodings(terms), {*b"\\^="})
    assume(not caught)
    ours, doubt = text_of(value, character_set("\\".join(terms).encode()), is_name=True)
    # Bytes above 0x7F that no escape sequence calls up, where ASCII is the first set, are Latin-1 to pydicom.
    assume(not (doubt and len(terms) > 1))
    assert (ours, doubt) == (theirs, None)


def test_no_name_and_no_term_is_in_a_log_a_warning_or_a_note(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        found = [
            _file(charset, b"CANARY^\xe9\xff", b"CANARY\xe9", when_missing=when_missing)
            for charset in (b"CANARY^JANE", b"ISO_IR 192", b"\\CANARY", b"ISO_IR 100\\CANARY\\utf8", None)
            for when_missing in ("", "GBK", "cp1251")
        ]
        caplog.clear()
        for one in found:
            assert "CANARY" not in repr(one) + "".join(one.instance.repairs)
    output = capfd.readouterr()
    assert "CANARY" not in output.out + output.err + caplog.text + "".join(str(one.message) for one in caught)


def test_long_values_are_bounded_and_told() -> None:
    raw = b"\\".join([b"\xcf\xf0\xe8\xe2\xe5\xf2^" * 8] * 70)
    cut: set[int] = set()
    found = dicom_json({0x00101001: raw}, attributes.STUDY_TAGS, cut, charset_when_missing="cp1251")
    assert _raw(found["00101001"]) == raw[: attributes.RAW_LIMIT_BYTES] and cut == {0x00101001}
