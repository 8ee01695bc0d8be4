"""What the archive goes by in a header: UIDs and their repairs, what is no instance, and real files of many makers."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pydicom
import pytest

from dicomwatchd.errors import Unarchivable
from dicomwatchd.intake.dicom.attributes import SERIES_TAGS, STUDY_TAGS
from dicomwatchd.intake.dicom.header import Dicomdir, Header, read_header
from dicomwatchd.model import InstanceHeader, Uid
from tests.unit.dicomfiles import (
    BIG_ENDIAN,
    CT,
    EXPLICIT,
    GE_PRIVATE,
    IMPLICIT,
    INSTANCE,
    RLE,
    SERIES,
    STUDY,
    compressed,
    data_set,
    element,
    encode,
    header,
    read,
)

_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def refusal(content: bytes) -> Unarchivable:
    with pytest.raises(Unarchivable) as caught:
        read(content)
    return caught.value


def with_raw(keyword: str, raw: bytes, *, meta: bytes | None = None) -> bytes:
    """A slice whose element has this raw value; the file meta information keeps the usual one, or has ``meta``."""
    placeholder = "9" * len(raw)
    content = encode(data_set(**{keyword: placeholder}))
    content = content.replace(placeholder.encode() + b"\0" * (len(raw) % 2), raw)
    at = content.index(b"\x08\0", content.index(EXPLICIT.encode()))
    head, body = content[:at], content[at:]
    if len(raw) % 2:
        # The raw value is odd on purpose: its element says so.
        tag = {"StudyInstanceUID": b"\x20\0\x0d\0UI"}[keyword]
        body = body.replace(tag + bytes([len(raw) + 1]), tag + bytes([len(raw)]))
    return head + body


def test_the_header_of_a_plain_slice() -> None:
    found = header(encode(data_set()))
    assert found.instance == InstanceHeader(Uid(STUDY), Uid(SERIES), Uid(INSTANCE), CT, EXPLICIT)
    assert found.patient_id == "P1"


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, GE_PRIVATE, "1.2.3.4.5.6"])
def test_transfer_syntaxes_known_private_and_unknown(transfer_syntax: str) -> None:
    assert header(encode(data_set(), transfer_syntax)).instance == InstanceHeader(
        Uid(STUDY), Uid(SERIES), Uid(INSTANCE), CT, transfer_syntax
    )


def test_a_data_set_in_another_encoding_than_declared_is_read_and_noted() -> None:
    content = encode(data_set(), IMPLICIT)
    lying = content.replace(b"\x12\x00" + IMPLICIT.encode() + b"\0", b"\x14\x00" + EXPLICIT.encode() + b"\0")
    assert lying != content
    found = header(lying).instance
    assert found.transfer_syntax_uid == EXPLICIT
    assert found.repairs == ("transfer syntax: the data set uses another one than declared",)


def test_compressed_pixels_of_nobody_knows_what_are_not_called_native() -> None:
    content = compressed(b"frame", transfer_syntax=RLE)
    nameless = content.replace(RLE.encode(), b"x" * len(RLE))
    found = header(nameless).instance
    assert found.transfer_syntax_uid == ""
    assert "transfer syntax: not declared, detected from the data set" in found.repairs


@pytest.mark.parametrize(
    ("raw", "uid", "note"),
    [
        (b"1.2.3.99\0\0", "1.2.3.99", "study UID: padding dropped"),
        (b"1.2.3.99  ", "1.2.3.99", "study UID: padding dropped"),
        (b"1.2.3.9 ", "1.2.3.9", "study UID: padding dropped"),
        (b" 1.2.3.9", "1.2.3.9", "study UID: padding dropped"),
        (b"1.2.003.99", "1.2.003.99", "study UID: leading zeros kept"),
        (b"1.2.0.10", "1.2.0.10", None),
        (b"1.2.3.9", "1.2.3.9", "study UID: padding dropped"),
    ],
)
def test_what_is_unambiguous_is_accepted_and_noted(raw: bytes, uid: str, note: str | None) -> None:
    found = header(with_raw("StudyInstanceUID", raw)).instance
    assert found.study_uid == uid
    assert found.repairs == ((note,) if note else ())


@pytest.mark.parametrize(
    "raw",
    [b"", b"\0\0", b"../../etc/passwd", b"1..2", b".1.2", b"1.2.", b"1.2.3.4\\1.2.3", b"1.2.3.a.b", b"1." * 32 + b"12"],
)
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_what_is_no_uid_is_refused(raw: bytes, keyword: str) -> None:
    tag = {"StudyInstanceUID": 0x0020000D, "SeriesInstanceUID": 0x0020000E}[keyword]
    content = encode(data_set(**{keyword: None, "PixelData": None}))
    assert refusal(content + element(tag, b"UI", raw) + element(0x7FE00010, b"OW", bytes(128))).code == "bad-uid"


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_a_missing_uid_is_said_to_be_missing(keyword: str) -> None:
    assert refusal(encode(data_set(**{keyword: None}))).code == "no-uid"


@pytest.mark.parametrize("value", [None, ""])
def test_sop_uids_fall_back_to_the_file_meta_information(value: str | None) -> None:
    found = header(encode(data_set(SOPClassUID=value, SOPInstanceUID=value))).instance if value is None else None
    if found is None:
        whole = encode(data_set())
        at = whole.index(b"\x08\0\x16\0UI")
        emptied = whole[at:].replace(b"\x16\0UI\x1a\0" + CT.encode() + b"\0", b"\x16\0UI\0\0")
        emptied = emptied.replace(b"\x18\0UI\x0e\0" + INSTANCE.encode() + b"\0", b"\x18\0UI\0\0")
        found = header(whole[:at] + emptied).instance
    assert (found.sop_class_uid, found.sop_instance_uid) == (CT, INSTANCE)
    assert found.repairs == (
        "SOP class UID: missing, taken from the file meta information",
        "SOP instance UID: missing, taken from the file meta information",
    )


def test_sop_uids_missing_everywhere_are_refused() -> None:
    content = encode(data_set(SOPInstanceUID=None), meta=False)
    assert refusal(content).code == "no-uid"
    content = encode(data_set(SOPClassUID=None), meta=False)
    assert refusal(content).code == "no-uid"


def test_the_data_set_goes_before_a_file_meta_information_that_disagrees() -> None:
    content = encode(data_set())
    at = content.index(INSTANCE.encode())
    found = header(content[:at] + b"7" + content[at + 1 :]).instance
    assert found.sop_instance_uid == INSTANCE
    assert found.repairs == ("SOP instance UID: the file meta information has another one",)


def test_a_uid_given_twice_differently_is_refused() -> None:
    content = encode(data_set(PixelData=None))
    pixels = element(0x7FE00010, b"OW", bytes(128))
    same = content + element(0x0020000D, b"UI", STUDY.encode() + b"\0") + pixels
    assert header(same).instance.study_uid == STUDY
    assert refusal(content + element(0x0020000D, b"UI", b"9.9.9.9\0") + pixels).code == "bad-uid"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty"),
        (b"\0", "not-dicom"),
        (b"Dear colleague,\nthank you for sending me your patient.\n" * 9, "not-dicom"),
        (b"\x08\0 some text that starts like group 0008", "not-dicom"),
        (bytes(4096), "not-dicom"),
        (b"\x7fELF" + os.urandom(4000), "not-dicom"),
        (b"PK\x03\x04" + os.urandom(4000), "not-dicom"),
        (bytes(128) + b"DICM", "truncated"),
        (bytes(128) + b"DICM" + bytes(4000), "truncated"),
    ],
)
def test_what_is_no_dicom(content: bytes, code: str) -> None:
    assert refusal(content).code == code


def test_an_overlong_attribute_is_left_out_and_noted() -> None:
    content = encode(data_set(PixelData=None))
    comment = element(0x00101001, b"PN", b"x" * 5000)
    found = header(content + comment + element(0x7FE00010, b"OW", bytes(128)))
    assert "00101001" not in found.study_attributes
    assert found.instance.repairs == ("attributes: implausibly long values left out",)


# -- pydicom's own samples: real files of many makers ----------------------------------------------------------------

#: What is wrong with the samples that are refused, looked at one by one.
_REFUSED = {
    "ExplVR_BigEndNoMeta": "truncated",  # a plan of a patient, shortened to the elements before its beams
    "ExplVR_LitEndNoMeta": "truncated",  # the same
    "JPEGLSNearLossless_08": "no-uid",
    "JPEGLSNearLossless_16": "no-uid",
    "MR_truncated": "truncated",
    "SC_rgb_jls_lossy_line": "no-uid",
    "SC_rgb_jls_lossy_sample": "no-uid",
    "UN_sequence": "truncated",  # an image class, no pixels
    "empty_charset_LEI": "no-uid",
    "meta_missing_tsyntax": "no-uid",
    "nested_priv_SQ": "no-uid",
    "no_meta": "not-dicom",  # a stray byte before the first element
    "no_meta_group_length": "truncated",  # an image class, no pixels
    "priv_SQ": "truncated",  # an image class, no pixels
    "rtplan_truncated": "truncated",
}


def opened_header(path: Path) -> Header | Dicomdir:
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_header(fd, path.stat().st_size)
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", sorted(_FILES.glob("*.dcm")), ids=lambda path: path.stem)
def test_agrees_with_pydicom_on_its_own_samples(path: Path) -> None:
    if path.stem in _REFUSED:
        with pytest.raises(Unarchivable) as caught:
            opened_header(path)
        assert caught.value.code == _REFUSED[path.stem]
        return
    found = opened_header(path)
    assert isinstance(found, Header)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(path, force=True)
        uids = (str(data.StudyInstanceUID), str(data.SOPInstanceUID), str(data.SeriesInstanceUID))
        patient_id = str(data.get("PatientID", "") or "")
        attributes = as_json(data)
    instance = found.instance
    assert (instance.study_uid, instance.sop_instance_uid, instance.series_uid) == uids
    assert found.patient_id == patient_id
    assert {**found.study_attributes, **found.series_attributes} == attributes


def as_json(data: pydicom.Dataset) -> dict[str, dict[str, object]]:
    """pydicom's DICOM JSON of the attributes that are kept, with IS and DS as they stand in the file."""
    found = {}
    for tag, kind in {**STUDY_TAGS, **SERIES_TAGS}.items():
        if tag not in data:
            continue
        one = data[tag]
        attribute = {"vr": kind[:2], **one.to_json_dict(None, 1024)}
        attribute["vr"] = kind[:2]
        if kind[:2] in ("IS", "DS") and "Value" in attribute:
            attribute["Value"] = [one.value.original_string.strip()]
        found[f"{tag:08X}"] = attribute
    return found


@pytest.mark.parametrize("path", sorted((_FILES / "dicomdirtests").glob("DICOMDIR*")), ids=lambda path: path.name)
def test_a_dicomdir_is_known_for_what_it_is(path: Path) -> None:
    assert opened_header(path) == Dicomdir()
