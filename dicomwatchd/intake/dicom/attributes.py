"""The patient, study and series attributes the archive keeps beside the objects, as DICOM JSON (PS3.18 Annex F)."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache

from dicomwatchd.intake.dicom.decoding import character_set, text_of
from dicomwatchd.model import BLANK, DicomJson

SPECIFIC_CHARACTER_SET = 0x00080005
PATIENT_ID = 0x00100020

# Tag -> VR, with "+" where several values are allowed (PS3.6). All are text: no bulk data, no sequences. The VR is
# the dictionary's, whatever the file calls it.
STUDY_TAGS: Mapping[int, str] = {
    0x00080020: "DA",  # Study Date
    0x00080030: "TM",  # Study Time
    0x00080050: "SH",  # Accession Number
    0x00080090: "PN",  # Referring Physician's Name
    0x00080201: "SH",  # Timezone Offset From UTC
    0x00081030: "LO",  # Study Description
    0x00081048: "PN+",  # Physician(s) of Record
    0x00081060: "PN+",  # Name of Physician(s) Reading Study
    0x00081080: "LO+",  # Admitting Diagnoses Description
    0x00100010: "PN",  # Patient's Name
    PATIENT_ID: "LO",
    0x00100021: "LO",  # Issuer of Patient ID
    0x00100030: "DA",  # Patient's Birth Date
    0x00100032: "TM",  # Patient's Birth Time
    0x00100040: "CS",  # Patient's Sex
    0x00101000: "LO+",  # Other Patient IDs
    0x00101001: "PN+",  # Other Patient Names
    0x00101010: "AS",  # Patient's Age
    0x00101020: "DS",  # Patient's Size
    0x00101030: "DS",  # Patient's Weight
    0x00102160: "SH",  # Ethnic Group
    0x00102201: "LO",  # Patient Species Description
    0x00102297: "PN",  # Responsible Person
    0x0020000D: "UI",  # Study Instance UID
    0x00200010: "SH",  # Study ID
    0x00380010: "LO",  # Admission ID
}
SERIES_TAGS: Mapping[int, str] = {
    0x00080021: "DA",  # Series Date
    0x00080031: "TM",  # Series Time
    0x00080060: "CS",  # Modality
    0x00080070: "LO",  # Manufacturer
    0x00080080: "LO",  # Institution Name
    0x00081010: "SH",  # Station Name
    0x0008103E: "LO",  # Series Description
    0x00081040: "LO",  # Institutional Department Name
    0x00081050: "PN+",  # Performing Physician's Name
    0x00081070: "PN+",  # Operators' Name
    0x00081090: "LO",  # Manufacturer's Model Name
    0x00180015: "CS",  # Body Part Examined
    0x00181000: "LO",  # Device Serial Number
    0x00181030: "LO",  # Protocol Name
    0x00185100: "CS",  # Patient Position
    0x0020000E: "UI",  # Series Instance UID
    0x00200011: "IS",  # Series Number
    0x00200060: "CS",  # Laterality
    0x00400244: "DA",  # Performed Procedure Step Start Date
    0x00400245: "TM",  # Performed Procedure Step Start Time
    0x00400253: "SH",  # Performed Procedure Step ID
    0x00400254: "LO",  # Performed Procedure Step Description
}

#: What tells patients apart, and orders; see `patients`.
PATIENT_TAGS = (0x00100010, PATIENT_ID, 0x00100021, 0x00100030, 0x00100040)
ORDER_TAGS = (0x00080050, 0x00200010, 0x00380010)
#: Issuer of Accession Number: a sequence, of which one item says who it is by one of these.
ORDER_ISSUER = 0x00080051
LOCAL_ENTITY_ID, UNIVERSAL_ENTITY_ID = 0x00400031, 0x00400032

#: From what stands under these all follows that is asked of a file's attributes.
ASKED_OF = (SPECIFIC_CHARACTER_SET, ORDER_ISSUER, *STUDY_TAGS, *SERIES_TAGS)

#: The greatest length of a value on record, in characters (PS3.5 table 6.2-1): of text, which is cut there, in names
#: each component group. SH has 16; accession numbers are often longer, and are searched for as they are. Of the other
#: VRs, numbers, dates and codes, a cut value would be another value: it is left out when it is longer than any can be.
_TEXT_CHARACTERS: Mapping[str, int] = {"LO": 64, "PN": 64, "SH": 64}
VALUE_CHARACTERS = 64
VALUES_LIMIT = 64
#: Of a raw value: all groups of a name that long, in any character set.
RAW_LIMIT_BYTES = 1024

_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")

_BLANK_BYTES = BLANK.encode("ascii")


def dicom_json(
    values: Mapping[int, bytes],
    tags: Mapping[int, str],
    cut: set[int] | None = None,
    *,
    charset_when_missing: str = "",
) -> DicomJson:
    """The attributes of ``tags`` that are among the raw ``values``; those that are not on record in full are put into
    ``cut``.

    Text is decoded by the Specific Character Set; what cannot be decoded holds U+FFFD in its place. Where that may not
    be what was meant (see `decoding.text_of`), the attribute has three members more: "raw", its bytes in base64,
    "charset", what they were read as, and "charset_by", how that is known; readers of DICOM JSON pass over them. IS
    and DS stay the strings they are, so nothing is rounded and no NaN comes up. Names keep
    their groups. An attribute without a value has "vr" only (PS3.18 F.2.5).
    """
    declared = character_set(values.get(SPECIFIC_CHARACTER_SET, b""))
    attributes: DicomJson = {}
    for tag, kind in tags.items():
        if tag not in values:
            continue
        vr = kind[:2]
        raw = values[tag]
        text, doubt = text_of(raw, declared, charset_when_missing, is_name=vr == "PN")
        parts = text.split("\\") if kind.endswith("+") else [text]
        items, is_whole = _limited([_name(part) if vr == "PN" else _trimmed(part) or None for part in parts], vr)
        if doubt is not None and len(raw) > RAW_LIMIT_BYTES:
            is_whole = False
        if cut is not None and not is_whole:
            cut.add(tag)
        attribute: dict[str, object] = {"vr": vr}
        if any(items):
            attribute["Value"] = [item or None for item in items]
        if doubt is not None:
            attribute |= {
                "raw": b64encode(raw[:RAW_LIMIT_BYTES]).decode("ascii"),
                "charset": doubt.charset,
                "charset_by": doubt.known_by,
            }
        attributes[f"{tag:08X}"] = attribute
    return attributes


def _limited(items: list[dict[str, str] | str | None], vr: str) -> tuple[list[dict[str, str] | str | None], bool]:
    """The values as they go on record, and whether that is all of them."""
    kept = [_short(item, vr) for item in items[:VALUES_LIMIT]]
    return kept, kept == items


def _short(item: dict[str, str] | str | None, vr: str) -> dict[str, str] | str | None:
    if isinstance(item, dict):
        return {group: text[: _TEXT_CHARACTERS[vr]] for group, text in item.items()}
    if item is None or len(item) <= VALUE_CHARACTERS:
        return item
    return item[: _TEXT_CHARACTERS[vr]] if vr in _TEXT_CHARACTERS else None


def filled(values: Mapping[int, bytes], tags: Mapping[int, str]) -> frozenset[str]:
    """The tags, as DICOM JSON has them, whose attribute `dicom_json` gives a value: told without making it, for it is
    asked of every file."""
    names = _names(tuple(tags.items()))
    return frozenset(
        name
        for tag, name, is_cut in names
        if tag in values and (value := values[tag].strip(_BLANK_BYTES)) and (is_cut or len(value) <= VALUE_CHARACTERS)
    )


@lru_cache(8)
def _names(tags: tuple[tuple[int, str], ...]) -> tuple[tuple[int, str, bool], ...]:
    """Tag, the same as text, and whether a long value is cut and not left out."""
    return tuple((tag, f"{tag:08X}", kind[:2] in _TEXT_CHARACTERS) for tag, kind in tags)


def said_digest(values: Mapping[int, bytes], tags: tuple[int, ...], *, charset_when_missing: str = "") -> str:
    """Tells what a file says in these attributes from what another says, by their bytes but for padding, and by what
    these are read as; "" where it says nothing."""
    said = [values.get(tag, b"").strip(_BLANK_BYTES) for tag in tags]
    if not any(said):
        return ""
    said.append(values.get(SPECIFIC_CHARACTER_SET, b"").strip(_BLANK_BYTES))
    if charset_when_missing and not all(map(bytes.isascii, said)):
        said.append(charset_when_missing.encode())
    digest = hashlib.blake2b(digest_size=16)
    for value in said:
        digest.update(b"%d:" % len(value) + value)
    return digest.hexdigest()


def patient_id(values: Mapping[int, bytes], *, charset_when_missing: str = "") -> str:
    """Patient ID (0010,0020) as text, "" when there is none."""
    return text(values, PATIENT_ID, charset_when_missing=charset_when_missing)


def text(values: Mapping[int, bytes], tag: int, *, charset_when_missing: str = "") -> str:
    """An attribute of one text, "" when there is none."""
    declared = character_set(values.get(SPECIFIC_CHARACTER_SET, b""))
    found = _trimmed(text_of(values.get(tag, b""), declared, charset_when_missing)[0])
    return found[: _TEXT_CHARACTERS["LO"]]


def character_set_notes(values: Mapping[int, bytes]) -> tuple[str, ...]:
    """What was put right in the Specific Character Set (0008,0005); no value of the file is in it."""
    return character_set(values.get(SPECIFIC_CHARACTER_SET, b"")).notes


def is_in_doubt(values: Mapping[int, bytes], tag: int, *, charset_when_missing: str = "") -> bool:
    """Whether a value may be another text than was meant."""
    declared = character_set(values.get(SPECIFIC_CHARACTER_SET, b""))
    return text_of(values.get(tag, b""), declared, charset_when_missing)[1] is not None


def _name(text: str) -> dict[str, str]:
    groups = zip(_NAME_GROUPS, text.split("="), strict=False)
    return {name: _trimmed(group) for name, group in groups if _trimmed(group)}


def _trimmed(text: str) -> str:
    return text.strip(" \0")
