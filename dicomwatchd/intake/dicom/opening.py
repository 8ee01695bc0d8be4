"""How a file is opened: its file meta information (PS3.10 section 7.1), where its data set begins and
how it is written, and how much of a file is read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dicomwatchd.errors import InvalidUid, NotDicom
from dicomwatchd.intake.dicom.reading import INFLATED_LIMIT_BYTES, ByteSource, InflatedBytes, SizedSource
from dicomwatchd.intake.dicom.structure import EXPLICIT_LITTLE, Encoding, encoding_at, walk
from dicomwatchd.intake.dicom.verdict import Completeness, Damaged, DamageFound, Verdict
from dicomwatchd.model import Uid

DICOMDIR_SOP_CLASS = "1.2.840.10008.1.3.10"
IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
_GE_IMPLICIT = "1.2.840.113619.5.2"  # implicit VR little endian, with big endian pixels
# Deflated Explicit VR, JPIP Referenced Deflate, JPIP HTJ2K Referenced Deflate
DEFLATED = frozenset({DEFLATED_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

_META_SOP_CLASS = 0x00020002
_META_SOP_INSTANCE = 0x00020003
_META_TRANSFER_SYNTAX = 0x00020010
_META_TAGS = frozenset({_META_SOP_CLASS, _META_SOP_INSTANCE, _META_TRANSFER_SYNTAX})

#: How many elements a file is read for: so many, and one more for so many of its bytes. Each costs about a microsecond,
#: and the smallest takes 8 bytes, far fewer where it is deflated: without a limit 94 KB took 7 s. Real data sets have
#: 16 bytes and more for each: an enhanced image of 30,000 frames has a million, deflated ones come to 3 packed bytes.
ELEMENTS_FREE = 300_000
BYTES_FOR_AN_ELEMENT = 16
PACKED_BYTES_FOR_AN_ELEMENT = 4
ELEMENTS_LIMIT = 20_000_000
#: What a deflated data set may inflate to: so much, and so many bytes more for each that is packed. Deflate makes 1,032
#: of one at most, which only masks that are empty come near to.
INFLATED_FREE_BYTES = 128 * 1024**2
INFLATION_RATIO = 250

_PREAMBLE_BYTES = 128
# The header of the first element of a file without preamble: in the group of the file meta information or of the
# identification, explicit with one of the VRs found there, or implicit with a short value.
_BARE_START = re.compile(
    rb"\x02\0[\0-\x18]\0(?:UL|OB|UI)"
    rb"|\x08\0[\0-\x60]\0(?:UL|CS|UI|DA|TM|SH|LO)"
    rb"|\x08\0[\0-\x60]\0[\0-\xff]\0\0\0"
    rb"|\0\x08\0[\0-\x60](?:UL|CS|UI|DA|TM|SH|LO)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Meta:
    """The file meta information (PS3.10 section 7.1), empty where it has nothing; the data set starts at ``end``.
    ``charset_when_missing``, of `header.read_header`, goes along with it."""

    end: int
    sop_class: bytes
    sop_instance: bytes
    transfer_syntax_uid: str
    repairs: list[str]
    charset_when_missing: str = ""


def elements_allowed(size_bytes: int, *, is_deflated: bool) -> int:
    for_one = PACKED_BYTES_FOR_AN_ELEMENT if is_deflated else BYTES_FOR_AN_ELEMENT
    return min(ELEMENTS_LIMIT, ELEMENTS_FREE + size_bytes // for_one)


def inflated_allowed(packed_bytes: int) -> int:
    return min(INFLATED_LIMIT_BYTES, INFLATED_FREE_BYTES + packed_bytes * INFLATION_RATIO)


def meta_end(source: SizedSource) -> int:
    """Where the data set begins. Raises Unarchivable."""
    return read_meta(source).end


@dataclass(frozen=True, slots=True)
class Opened:
    """A data set to be read from ``start`` on; ``transfer_syntax_uid`` as declared, ``is_other`` if the data set uses
    another one."""

    data: ByteSource
    start: int
    encoding: Encoding
    transfer_syntax_uid: str
    is_other: bool


def open_data_set(source: SizedSource) -> Opened:
    """The data set behind the file meta information, inflated where it is deflated. Raises Unarchivable."""
    return open_behind(source, read_meta(source), INFLATED_LIMIT_BYTES)


def open_behind(source: SizedSource, meta: Meta, inflated_limit_bytes: int) -> Opened:
    data: ByteSource = source
    start = meta.end
    if meta.transfer_syntax_uid in DEFLATED:
        limit_bytes = min(inflated_limit_bytes, inflated_allowed(source.size_bytes))
        data, start = InflatedBytes(source, meta.end, limit_bytes), 0
    declared = declared_encoding(meta.transfer_syntax_uid)
    try:
        encoding = encoding_at(data, start, declared)
    except DamageFound as damage:
        raise Damaged(Verdict(Completeness.DAMAGED, damage.reason), code=damage.code) from damage
    is_other = declared is not None and encoding != declared
    return Opened(data, start, encoding, meta.transfer_syntax_uid, is_other)


def read_meta(source: SizedSource, charset_when_missing: str = "") -> Meta:
    """The file meta information, always explicit VR little endian. Raises Damaged, and Unarchivable "not-dicom"."""
    repairs = []
    start = _PREAMBLE_BYTES + 4
    if source.read(_PREAMBLE_BYTES, 4) != b"DICM":
        # pydicom's force=True would take anything, plain text and empty files too.
        if not _BARE_START.match(source.read(0, 8)):
            raise NotDicom("the file is not DICOM")
        start = 0
        repairs.append("no preamble: read as a bare data set")
    found = walk(
        source,
        start,
        EXPLICIT_LITTLE,
        chosen=_META_TAGS,
        landmarks=frozenset(),
        only_group=0x0002,
        elements_limit=elements_allowed(source.size_bytes, is_deflated=False),
    )
    if found.damage is not None:
        raise damaged_at(found.damage.reason, found.end)
    return Meta(
        found.end,
        found.values.get(_META_SOP_CLASS, b""),
        found.values.get(_META_SOP_INSTANCE, b""),
        plain_uid(found.values.get(_META_TRANSFER_SYNTAX, b"")),
        repairs,
        charset_when_missing,
    )


def declared_encoding(transfer_syntax_uid: str) -> Encoding | None:
    """What a transfer syntax means for the data set; None for private and unknown ones, whose data set tells."""
    if transfer_syntax_uid in (IMPLICIT_LITTLE_ENDIAN, _GE_IMPLICIT):
        return Encoding(explicit=False)
    if transfer_syntax_uid == EXPLICIT_BIG_ENDIAN:
        return Encoding(explicit=True, big_endian=True)
    return Encoding(explicit=True) if transfer_syntax_uid.startswith("1.2.840.10008.1.2.") else None


def plain_uid(raw: bytes) -> str:
    """A UID that is only recorded, "" when it is missing or none."""
    try:
        return Uid(raw.strip(b"\0 ").decode("ascii", "replace"))
    except InvalidUid:
        return ""


def damaged_at(reason: str, offset_bytes: int) -> Damaged:
    return Damaged(Verdict(Completeness.DAMAGED, reason, offset_bytes))
