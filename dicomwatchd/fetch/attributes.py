"""Reading the DICOM JSON of a manifest, whatever it holds."""

from __future__ import annotations

from dicomwatchd.model import DicomJson

_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


def text(attributes: DicomJson, tag: str) -> str:
    """The first value, of a name the first group that it has; "" where there is none."""
    element = attributes.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    value = values[0] if isinstance(values, list) and values else None
    if isinstance(value, dict):
        value = next((value[group] for group in _GROUPS if value.get(group)), None)
    return value.strip() if isinstance(value, str) else ""
