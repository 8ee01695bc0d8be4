"""Which directory record an instance gets, and the keys of each (PS3.3 annex F.5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import UID


class Key(NamedTuple):
    """An attribute of a record. ``invented`` is what stands there where a file has no value, and a record must have
    one (Type 1); None where it may be empty or, if it ``is_optional``, left out."""

    tag: int
    vr: str
    invented: str | None = None
    is_optional: bool = False


#: Invented for numbers: the how-manieth it is, beside its like.
COUNTED = "#"
_DATE, _TIME, _TEXT = "19000101", "000000", "UNKNOWN"


def _key(keyword: str, invented: str | None = None, *, optional: bool = False) -> Key:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword  # noqa: S101  all of them are below
    return Key(tag, dictionary_VR(tag), invented, optional)


_NUMBER = _key("InstanceNumber", COUNTED)
_CONTENT_DATE, _CONTENT_TIME = _key("ContentDate", _DATE), _key("ContentTime", _TIME)
_CREATED = (_NUMBER, _CONTENT_DATE, _CONTENT_TIME)
_IDENTIFIED = (
    *_CREATED,
    _key("ContentLabel", _TEXT),
    _key("ContentDescription"),
    _key("ContentCreatorName"),
)
CONCEPT_NAME = _key("ConceptNameCodeSequence", "")
CONTENT = _key("ContentSequence", optional=True)
REFERENCED_SERIES = _key("ReferencedSeriesSequence", optional=True)
_SIZE = tuple(_key(name, "1") for name in ("NumberOfFrames", "Rows", "Columns", "DataPointRows", "DataPointColumns"))

PATIENT = (
    _key("PatientName"),
    _key("PatientID", _TEXT),
    _key("PatientBirthDate", optional=True),
    _key("PatientSex", optional=True),
)
STUDY = (
    _key("StudyDate", _DATE),
    _key("StudyTime", _TIME),
    _key("AccessionNumber"),
    _key("StudyDescription"),
    _key("StudyID", COUNTED),
)
SERIES = (
    _key("Modality", "OT"),
    _key("SeriesDescription", optional=True),
    _key("SeriesNumber", COUNTED),
)
LEAVES: Mapping[str, tuple[Key, ...]] = {
    "IMAGE": (_NUMBER, *(_key(name, optional=True) for name in ("ImageType", "NumberOfFrames", "Rows", "Columns"))),
    "RT DOSE": (_NUMBER, _key("DoseSummationType", "PLAN")),
    "RT STRUCTURE SET": (
        _NUMBER,
        _key("StructureSetLabel", _TEXT),
        _key("StructureSetDate"),
        _key("StructureSetTime"),
    ),
    "RT PLAN": (_NUMBER, _key("RTPlanLabel", _TEXT), _key("RTPlanDate"), _key("RTPlanTime")),
    "RT TREAT RECORD": (_NUMBER, _key("TreatmentDate"), _key("TreatmentTime")),
    "PRESENTATION": (
        _key("PresentationCreationDate", _DATE),
        _key("PresentationCreationTime", _TIME),
        _NUMBER,
        _key("ContentLabel", _TEXT),
        _key("ContentDescription"),
        _key("ContentCreatorName"),
        REFERENCED_SERIES,
    ),
    "WAVEFORM": _CREATED,
    "SR DOCUMENT": (
        *_CREATED,
        _key("CompletionFlag", "PARTIAL"),
        _key("VerificationFlag", "UNVERIFIED"),
        _key("VerificationDateTime", optional=True),
        CONCEPT_NAME,
        CONTENT,
    ),
    "KEY OBJECT DOC": (*_CREATED, CONCEPT_NAME, CONTENT),
    "SPECTROSCOPY": (*_CREATED, _key("ImageType", "ORIGINAL\\PRIMARY"), *_SIZE),
    "RAW DATA": _CREATED,
    "REGISTRATION": _IDENTIFIED,
    "FIDUCIAL": _IDENTIFIED,
    "VALUE MAP": _IDENTIFIED,
    "MEASUREMENT": _IDENTIFIED,
    "SURFACE": _IDENTIFIED,
    "TRACT": _IDENTIFIED,
    "ANNOTATION": _IDENTIFIED,
    "STEREOMETRIC": (),
    "PLAN": (),
    "SURFACE SCAN": (_CONTENT_DATE, _CONTENT_TIME),
    "ASSESSMENT": (_NUMBER, _key("InstanceCreationDate", _DATE), _key("InstanceCreationTime")),
    "RADIOTHERAPY": (
        _NUMBER,
        _key("UserContentLabel", optional=True),
        _key("UserContentLongLabel", optional=True),
        _key("ContentDescription"),
        _key("ContentCreatorName"),
    ),
    "ENCAP DOC": (
        _key("ContentDate"),
        _key("ContentTime"),
        _NUMBER,
        _key("DocumentTitle"),
        _key("HL7InstanceIdentifier", optional=True),
        _key("ConceptNameCodeSequence"),
        _key("MIMETypeOfEncapsulatedDocument", "application/octet-stream"),
    ),
    "PRIVATE": (),
}
#: Of these records an attribute is a sequence, which has to be read whole.
WITH_SEQUENCES = frozenset(("PRESENTATION", "SR DOCUMENT", "KEY OBJECT DOC", "ENCAP DOC"))

_STANDARD = "1.2.840.10008."
_STORAGE = r"1\.2\.840\.10008\.5\.1\.4\.1\.1\."
#: By SOP class, the first that fits (PS3.3 F.4, PS3.4 B.5).
_CLASSES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (_STORAGE + r"481\.2\Z", "RT DOSE"),
        (_STORAGE + r"481\.3\Z", "RT STRUCTURE SET"),
        (_STORAGE + r"481\.[58]\Z", "RT PLAN"),
        (_STORAGE + r"481\.[4679]\Z", "RT TREAT RECORD"),
        (_STORAGE + r"481\.(?:1|23|24)\Z", "IMAGE"),
        (_STORAGE + r"481\.(?:1[0-9]|2[0125])\Z", "RADIOTHERAPY"),
        (_STORAGE + r"(?:11\.[0-9]+|131)\Z", "PRESENTATION"),
        (_STORAGE + r"9\.[0-9.]+\Z", "WAVEFORM"),
        (_STORAGE + r"88\.59\Z", "KEY OBJECT DOC"),
        (_STORAGE + r"(?:88\.[0-9]+|78\.6|79\.1)\Z", "SR DOCUMENT"),
        (_STORAGE + r"4\.2\Z", "SPECTROSCOPY"),
        (_STORAGE + r"66\.[13]\Z", "REGISTRATION"),
        (_STORAGE + r"66\.2\Z", "FIDUCIAL"),
        (_STORAGE + r"66\.5\Z", "SURFACE"),
        (_STORAGE + r"66\.6\Z", "TRACT"),
        (_STORAGE + r"66\Z", "RAW DATA"),
        (_STORAGE + r"67\Z", "VALUE MAP"),
        (_STORAGE + r"68\.[0-9]+\Z", "SURFACE SCAN"),
        (_STORAGE + r"77\.1\.5\.3\Z", "STEREOMETRIC"),
        (_STORAGE + r"(?:78\.[0-9]+|80\.1)\Z", "MEASUREMENT"),
        (_STORAGE + r"90\.1\Z", "ASSESSMENT"),
        (_STORAGE + r"91\.1\Z", "ANNOTATION"),
        (_STORAGE + r"104\.[0-9]+\Z", "ENCAP DOC"),
        (r"1\.2\.840\.10008\.5\.1\.4\.34\.(?:7|10)\Z", "PLAN"),
    )
)


def record_type(sop_class_uid: str, *, has_pixels: bool) -> str:
    """Of an instance below a series. A class of the standard that is not above is an image if it has rows and columns,
    or is called one; one that is not of the standard is private."""
    for pattern, name in _CLASSES:
        if pattern.match(sop_class_uid):
            return name
    if not sop_class_uid.startswith(_STANDARD):
        return "PRIVATE"
    return "IMAGE" if has_pixels or "Image" in UID(sop_class_uid).name else "RAW DATA"
