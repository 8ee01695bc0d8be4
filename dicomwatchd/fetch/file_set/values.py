"""What a directory record says of an instance, out of its file: text by the character set that the file declares,
rightly or not, and nothing that a record may not hold."""

from __future__ import annotations

import re
import struct
import unicodedata
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pydicom
from pydicom import config as pydicom_config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sequence import Sequence

from dicomwatchd.fetch.file_set import record_types
from dicomwatchd.fetch.file_set.record_types import LEAVES, WITH_SEQUENCES, record_type
from dicomwatchd.intake.dicom.decoding import character_set, text_of
from dicomwatchd.intake.dicom.opening import DEFLATED, elements_allowed, open_behind, plain_uid, read_meta
from dicomwatchd.intake.dicom.reading import INFLATED_LIMIT_BYTES, FileBytes
from dicomwatchd.intake.dicom.structure import walk

_CHARSET, _SOP_CLASS, _ROWS, _COLUMNS, _FRAMES = 0x00080005, 0x00080016, 0x00280010, 0x00280011, 0x00280008
_MAGIC_AT, _MAGIC = 128, b"DICM"
_HAS_CONCEPT_MOD = "HAS CONCEPT MOD"
#: A document whose sequences are wanted is read whole, up to here, and to this depth.
_DOCUMENT_BYTES = 32 << 20
_DEEPEST = 8
#: What pydicom makes of a document that is damaged: it has no sequences then.
_DAMAGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    InvalidDicomError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_CHARACTERS: Mapping[str, int] = {"CS": 16, "SH": 16, "LO": 64, "ST": 1024, "PN": 194, "UT": 1024}
_TEXTS = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UT"))
_FORMS = {
    "DA": re.compile(r"[0-9]{8}\Z"),
    "TM": re.compile(r"[0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?\Z"),
    "DT": re.compile(r"[0-9]{4,14}(?:\.[0-9]{1,6})?(?:[+-][0-9]{4})?\Z"),
    "IS": re.compile(r"[+-]?[0-9]{1,11}\Z"),
    "CS": re.compile(r"[A-Z0-9 _]+\Z"),
    "UI": re.compile(r"[0-9.]{1,64}\Z"),
}
_FLAT = {key.tag: key for keys in (record_types.PATIENT, record_types.STUDY, record_types.SERIES, *LEAVES.values())
         for key in keys if key.vr != "SQ"}  # fmt: skip
#: What stands in for the date of a study that has none.
_OTHER_DATES, _OTHER_TIMES = (0x00080021, 0x00080022, 0x00080023), (0x00080031, 0x00080032, 0x00080033)
_CHOSEN = frozenset((*_FLAT, *_OTHER_DATES, *_OTHER_TIMES, _CHARSET, _SOP_CLASS, _ROWS, _COLUMNS, _FRAMES))


@dataclass(slots=True)
class Said:
    """``texts`` are fit for a record, by tag; ``sequences`` too. Not ``is_part_10``: the file begins without file meta
    information, and may be no member of a file-set."""

    sop_class_uid: str
    record_type: str
    is_part_10: bool
    texts: dict[int, str] = field(default_factory=dict)
    sequences: dict[int, list[Dataset]] = field(default_factory=dict)


def read(file: BinaryIO, size_bytes: int, sop_class_uid: str, charset_when_missing: str = "") -> Said:
    """Raises Unarchivable where it is not DICOM."""
    source = FileBytes(file.fileno(), size_bytes)
    meta = read_meta(source)
    opened = open_behind(source, meta, INFLATED_LIMIT_BYTES)
    allowed = elements_allowed(size_bytes, is_deflated=meta.transfer_syntax_uid in DEFLATED)
    found = walk(
        opened.data, opened.start, opened.encoding, chosen=_CHOSEN, landmarks=frozenset(), elements_limit=allowed
    )
    declared = character_set(found.values.get(_CHARSET, b""))
    its_class = sop_class_uid or plain_uid(found.values.get(_SOP_CLASS, b"")) or plain_uid(meta.sop_class)
    said = Said(its_class, "", is_part_10(source))
    numbers = {tag: found.short(tag) for tag in (_ROWS, _COLUMNS)}
    for tag, raw in found.values.items():
        vr = _FLAT[tag].vr if tag in _FLAT else "DA" if tag in _OTHER_DATES else "TM" if tag in _OTHER_TIMES else ""
        if vr in ("US", "UL"):
            text = str(int.from_bytes(raw, "big" if found.encoding.big_endian else "little")) if raw else ""
        elif vr:
            text = fit(text_of(raw, declared, charset_when_missing, is_name=vr == "PN")[0], vr)
        else:
            continue
        if text:
            said.texts[tag] = text
    _stand_in(said.texts, 0x00080020, _OTHER_DATES)
    _stand_in(said.texts, 0x00080030, _OTHER_TIMES)
    said.record_type = record_type(said.sop_class_uid, has_pixels=None not in numbers.values())
    if (
        said.record_type in WITH_SEQUENCES
        and size_bytes <= _DOCUMENT_BYTES
        and meta.transfer_syntax_uid not in DEFLATED
    ):
        wanted = [key.tag for key in LEAVES[said.record_type] if key.vr == "SQ"]
        said.sequences = _sequences(file, wanted, charset_when_missing)
    return said


def is_part_10(source: FileBytes) -> bool:
    return source.read(_MAGIC_AT, len(_MAGIC)) == _MAGIC


def _stand_in(texts: dict[int, str], tag: int, others: Iterable[int]) -> None:
    other = next((texts[one] for one in others if one in texts), None)
    if tag not in texts and other is not None:
        texts[tag] = other


def fit(text: str, vr: str) -> str:
    """As an element of this VR may hold it, "" where that is nothing; of texts the first of several."""
    several = [_one(value, vr) for value in text.split("\\")]
    return "\\".join(several) if vr in ("CS", "IS") and all(several) else several[0]


def _one(value: str, vr: str) -> str:
    plain = "".join(" " if unicodedata.category(one) in ("Cc", "Cs") else one for one in value).strip()
    if vr == "DA":
        plain = plain.replace(".", "")
    if vr == "CS":
        plain = plain.upper()
    if vr in _FORMS:
        return plain if _FORMS[vr].match(plain) and len(plain) <= _CHARACTERS.get(vr, 64) else ""
    return plain[: _CHARACTERS.get(vr, 64)].strip()


def _sequences(file: BinaryIO, tags: list[int], charset_when_missing: str) -> dict[int, list[Dataset]]:
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they hold values
        try:
            read = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=[*tags, _CHARSET])
            raw: Any = read.get_item(_CHARSET)
            declared = character_set(raw.value if isinstance(raw, RawDataElement) and raw.value else b"")

            def text(value: bytes, vr: str) -> str:
                return fit(text_of(value, declared, charset_when_missing, is_name=vr == "PN")[0], vr)

            found = {tag: [_copy(item, text, 0) for item in read[tag].value] for tag in tags if tag in read}
        except _DAMAGED:
            return {}
    if record_types.CONTENT.tag in found:
        items = found[record_types.CONTENT.tag]
        found[record_types.CONTENT.tag] = [one for one in items if one.get("RelationshipType") == _HAS_CONCEPT_MOD]
    return {tag: items for tag, items in found.items() if items}


def _copy(item: Dataset, text: Callable[[bytes, str], str], depth: int) -> Dataset:
    """Texts, UIDs and sequences of an item, in words of ours: nothing else is in what a record holds."""
    made = Dataset()
    for tag in list(item.keys()):
        raw: Any = item.get_item(tag)
        vr = (raw.VR if raw is not None else None) or dictionary_VR(tag)
        if vr == "SQ" and depth < _DEEPEST:
            made.add(element(tag, vr, Sequence(_copy(one, text, depth + 1) for one in item[tag].value)))
        elif isinstance(raw, RawDataElement) and vr in _TEXTS and (value := text(raw.value or b"", vr)):
            made.add(element(tag, vr, value))
    return made


def element(tag: int, vr: str, value: object) -> DataElement:
    """Not validated, which pydicom does in warnings that hold the value."""
    return DataElement(tag, vr, value, validation_mode=pydicom_config.IGNORE)
