"""The patient, study and series attributes the archive keeps beside the objects, as DICOM JSON (PS3.18 Annex F)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache

from pydicom.charset import CODES_TO_ENCODINGS, default_encoding, python_encoding

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

#: The greatest length of a value on record, in characters (PS3.5 table 6.2-1): of text, which is cut there, in names
#: each component group. SH has 16; accession numbers are often longer, and are searched for as they are. Of the other
#: VRs, numbers, dates and codes, a cut value would be another value: it is left out when it is longer than any can be.
_TEXT_CHARACTERS: Mapping[str, int] = {"LO": 64, "PN": 64, "SH": 64}
VALUE_CHARACTERS = 64
VALUES_LIMIT = 64

_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")

_BLANK_BYTES = BLANK.encode("ascii")
_ESC = b"\x1b"
_FRAGMENTS = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")
# Codecs that take escape sequences in themselves.
_STATEFUL = frozenset({"iso2022_jp", "iso2022_jp_2"})
_NAME_RESETS = re.compile(rb"[\\^=]")  # PS3.5 6.1.2.5.3
_TEXT_RESETS = re.compile(rb"[\\\t\n\f\r]")


def dicom_json(values: Mapping[int, bytes], tags: Mapping[int, str], cut: set[int] | None = None) -> DicomJson:
    """The attributes of ``tags`` that are among the raw ``values``; those that are not on record in full are put into
    ``cut``.

    Text is decoded by the Specific Character Set; what cannot be decoded holds U+FFFD in its place (the archived
    file has the bytes). IS and DS stay the strings they are, so nothing is rounded and no NaN comes up. Names keep
    their groups. An attribute without a value has "vr" only (PS3.18 F.2.5).
    """
    codec = initial_codec(values.get(SPECIFIC_CHARACTER_SET, b""))
    attributes: DicomJson = {}
    for tag, kind in tags.items():
        if tag not in values:
            continue
        vr = kind[:2]
        text = decode(values[tag], codec, is_name=vr == "PN")
        parts = text.split("\\") if kind.endswith("+") else [text]
        items, is_whole = _limited([_name(part) if vr == "PN" else _trimmed(part) or None for part in parts], vr)
        if cut is not None and not is_whole:
            cut.add(tag)
        attribute: dict[str, object] = {"vr": vr}
        if any(items):
            attribute["Value"] = [item or None for item in items]
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


def said_digest(values: Mapping[int, bytes], tags: tuple[int, ...]) -> str:
    """Tells what a file says in these attributes from what another says, by their bytes but for padding; "" where it
    says nothing."""
    said = [values.get(tag, b"").strip(_BLANK_BYTES) for tag in tags]
    if not any(said):
        return ""
    said.append(values.get(SPECIFIC_CHARACTER_SET, b"").strip(_BLANK_BYTES))
    digest = hashlib.blake2b(digest_size=16)
    for value in said:
        digest.update(b"%d:" % len(value) + value)
    return digest.hexdigest()


def patient_id(values: Mapping[int, bytes]) -> str:
    """Patient ID (0010,0020) as text, "" when there is none."""
    return text(values, PATIENT_ID)


def text(values: Mapping[int, bytes], tag: int) -> str:
    """An attribute of one text, "" when there is none."""
    found = _trimmed(decode(values.get(tag, b""), initial_codec(values.get(SPECIFIC_CHARACTER_SET, b""))))
    return found[: _TEXT_CHARACTERS["LO"]]


@lru_cache(64)
def initial_codec(specific_character_set: bytes) -> str:
    """Python's codec for the first term of (0008,0005); the others, if any, are called up by escape sequences.

    A term nobody knows counts as the default repertoire, read as Latin-1, which loses no byte. Never warns and
    never raises; pydicom's own conversion puts the value into a warning.
    """
    term = _term(specific_character_set.decode(default_encoding).split("\\")[0])
    return python_encoding.get(term, default_encoding)


def decode(value: bytes, codec: str, *, is_name: bool = False) -> str:
    """Decode a raw text value, with code extensions (PS3.5 6.1.2.5); U+FFFD stands for what cannot be decoded."""
    if _ESC not in value:
        return value.decode(codec, "replace")
    resets = _NAME_RESETS if is_name else _TEXT_RESETS
    return "".join(_decode_fragment(fragment, codec, resets) for fragment in _FRAGMENTS.findall(value))


def _decode_fragment(fragment: bytes, first: str, resets: re.Pattern[bytes]) -> str:
    escape = fragment[: 4 if fragment.startswith((b"\x1b$(", b"\x1b$)")) else 3]
    codec = CODES_TO_ENCODINGS.get(escape)
    if codec is None:
        return fragment.decode(first, "replace")
    if codec in _STATEFUL:
        return fragment.decode(codec, "replace")
    body = fragment[len(escape) :]
    reset = resets.search(body)
    cut = reset.start() if reset else len(body)
    return body[:cut].decode(codec, "replace") + body[cut:].decode(first, "replace")


def _term(text: str) -> str:
    """A defined term of (0008,0005), common misspellings put right ("ISO-IR 100", "ISO 2022-IR 87")."""
    text = _trimmed(text)
    match = re.match(r"ISO[ _-]?(2022)?[ _-]?IR[ _-]?(\d+)\Z", text, re.IGNORECASE)
    if match is None:
        return text
    return f"ISO 2022 IR {match[2]}" if match[1] else f"ISO_IR {match[2]}"


def _name(text: str) -> dict[str, str]:
    groups = zip(_NAME_GROUPS, text.split("="), strict=False)
    return {name: _trimmed(group) for name, group in groups if _trimmed(group)}


def _trimmed(text: str) -> str:
    return text.strip(" \0")
