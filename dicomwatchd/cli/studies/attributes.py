"""Reading DICOM JSON (PS3.18 Annex F) for people; only `search` and `show` may print what comes out."""

from __future__ import annotations

from dicomwatchd.model import DicomJson

PATIENT_NAME = "00100010"
PATIENT_ID = "00100020"
BIRTH_DATE = "00100030"
SEX = "00100040"
STUDY_DESCRIPTION = "00081030"
SERIES_DESCRIPTION = "0008103E"
SERIES_NUMBER = "00200011"


def text(attributes: DicomJson, tag: str) -> str:
    """The values of an attribute, joined; of a name its alphabetic group, then ideographic and phonetic ones."""
    values = attributes.get(tag, {}).get("Value", [])
    if not isinstance(values, list):
        return ""
    return ", ".join(_one(value) for value in values if value is not None)


def date(value: str) -> str:
    """20260131 -> 2026-01-31; anything else as it is."""
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if len(value) == 8 and value.isdecimal() else value


def _one(value: object) -> str:
    if isinstance(value, dict):
        groups = [value.get(group) for group in ("Alphabetic", "Ideographic", "Phonetic")]
        return " = ".join(str(group) for group in groups if group)
    return str(value)
