"""DICOM JSON (PS3.18 Annex F) as people read it."""

from __future__ import annotations

from dicomwatchd.model import DicomJson

_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


def texts(attributes: DicomJson, tag: str) -> str:
    """The values of an attribute, joined; "" where there is none."""
    element = attributes.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    if not isinstance(values, list):
        return ""
    return ", ".join(_one(value) for value in values if value is not None)


def name_of(attributes: DicomJson) -> str:
    """Patient's Name (0010,0010) as it is read: "Doe, Jane" for "Doe^Jane"."""
    return person_name(texts(attributes, "00100010"))


def person_name(text: str) -> str:
    """The first component group's family and given names with a comma, what else there is after them (PS3.5 6.2.1)."""
    groups = []
    for group in text.split("="):
        parts = [part.strip() for part in group.split("^")]
        family, given = parts[0], " ".join(part for part in parts[1:3] if part)
        rest = " ".join(part for part in parts[3:] if part)
        shown = ", ".join(part for part in (family, given) if part)
        groups.append(f"{shown} ({rest})" if rest else shown)
    return " = ".join(group.strip() for group in groups if group.strip())


def _one(value: object) -> str:
    if isinstance(value, dict):
        return "=".join(str(value.get(group) or "") for group in _GROUPS).rstrip("=")
    return str(value)
