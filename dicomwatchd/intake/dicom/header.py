"""Reads what the archive goes by from a file's header, and says of every file that cannot be archived why not."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from dicomwatchd.errors import InvalidUid, NotDicom, SourceChanged, Unarchivable
from dicomwatchd.intake.dicom import attributes, completeness
from dicomwatchd.intake.dicom.reading import INFLATED_LIMIT_BYTES, ByteSource, FileBytes, InflatedBytes, SizedSource
from dicomwatchd.intake.dicom.references import may_refer, references_of
from dicomwatchd.intake.dicom.signs import CHOSEN_TAGS as SIGNS_TAGS
from dicomwatchd.intake.dicom.signs import signs_of, text_of
from dicomwatchd.intake.dicom.structure import (
    CUT_OFF_BY_ZEROS,
    EXPLICIT_LITTLE,
    SMALLEST_ELEMENT_BYTES,
    DataSet,
    Encoding,
    encoding_at,
    first_item,
    look_for_zeros,
    walk,
)
from dicomwatchd.intake.dicom.verdict import WHOLE, Completeness, DamageFound, Verdict
from dicomwatchd.model import DicomJson, InstanceHeader, Uid
from dicomwatchd.study_signs import Signs

DICOMDIR_SOP_CLASS = "1.2.840.10008.1.3.10"
IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
_GE_IMPLICIT = "1.2.840.113619.5.2"  # implicit VR little endian, with big endian pixels
# Deflated Explicit VR, JPIP Referenced Deflate, JPIP HTJ2K Referenced Deflate
_DEFLATED = frozenset({DEFLATED_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

_META_SOP_CLASS = 0x00020002
_META_SOP_INSTANCE = 0x00020003
_META_TRANSFER_SYNTAX = 0x00020010
_META_TAGS = frozenset({_META_SOP_CLASS, _META_SOP_INSTANCE, _META_TRANSFER_SYNTAX})
_SOP_CLASS = 0x00080016
_SOP_INSTANCE = 0x00080018
_STUDY = 0x0020000D
_SERIES = 0x0020000E
_UID_TAGS = frozenset({_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES})
_CHOSEN = (
    _UID_TAGS
    | {attributes.SPECIFIC_CHARACTER_SET}
    | attributes.STUDY_TAGS.keys()
    | attributes.SERIES_TAGS.keys()
    | {attributes.ORDER_ISSUER}
    | completeness.CHOSEN_TAGS
    | SIGNS_TAGS
)

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

_LEADING_ZERO = re.compile(r"(?:^|\.)0[0-9]")
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
class Header:
    """What is known of one SOP Instance from its header.

    ``patient_id`` is "" when the file has none. The attributes are worked out when they are asked for: a study of
    thousands of files needs them once for each study and series. Nothing of a patient is in the repr.

    ``verdict`` says whether the file is whole or it cannot be told. With a damaged one the header is in `Damaged`: its
    UIDs are the file's, since they stand before the damage; attributes that come after it are missing.
    """

    instance: InstanceHeader
    patient_id: str = field(repr=False)
    _values: dict[int, bytes] = field(repr=False)
    verdict: Verdict = WHOLE
    _charset_when_missing: str = ""
    _references: tuple[str, ...] = field(default=(), repr=False)
    _big_endian: bool = False

    @property
    def signs(self) -> Signs:
        """What it says of how many instances there should be."""
        return signs_of(self._values, self.instance.sop_class_uid, self._references, big_endian=self._big_endian)

    @property
    def signs_text(self) -> str:
        """`signs` for the state, at less cost."""
        return text_of(self._values, self.instance.sop_class_uid, self._references, self._big_endian)

    @property
    def study_attributes(self) -> DicomJson:
        """Patient and study, as DICOM JSON (PS3.18 Annex F); a new dictionary each time."""
        return self._attributes(attributes.STUDY_TAGS)

    @property
    def filled_study_tags(self) -> frozenset[str]:
        """Those of `study_attributes` that have a value; told at little cost, as are the three below."""
        return attributes.filled(self._values, attributes.STUDY_TAGS)

    @property
    def filled_series_tags(self) -> frozenset[str]:
        return attributes.filled(self._values, attributes.SERIES_TAGS)

    @property
    def identity_digest(self) -> str:
        """The same for files that say the same of their patient, "" for one that says nothing."""
        return self._digest(attributes.PATIENT_TAGS)

    @property
    def order_digest(self) -> str:
        """As `identity_digest`, of the order."""
        return self._digest((*attributes.ORDER_TAGS, attributes.ORDER_ISSUER))

    @property
    def issuer_of_order(self) -> str:
        """Issuer of Accession Number (0008,0051): the entity that it names, "" where there is none."""
        return attributes.text(self._values, attributes.ORDER_ISSUER, charset_when_missing=self._charset_when_missing)

    @property
    def has_long_attributes(self) -> bool:
        """Whether some of them are longer than they can be on record."""
        cut: set[int] = set()
        for tags in (attributes.STUDY_TAGS, attributes.SERIES_TAGS):
            self._attributes(tags, cut)
        return bool(cut)

    @property
    def series_attributes(self) -> DicomJson:
        """The series, as DICOM JSON (PS3.18 Annex F); a new dictionary each time."""
        return self._attributes(attributes.SERIES_TAGS)

    def _digest(self, tags: tuple[int, ...]) -> str:
        return attributes.said_digest(self._values, tags, charset_when_missing=self._charset_when_missing)

    def _attributes(self, tags: Mapping[int, str], cut: set[int] | None = None) -> DicomJson:
        return attributes.dicom_json(self._values, tags, cut, charset_when_missing=self._charset_when_missing)


@dataclass(frozen=True, slots=True)
class Dicomdir:
    """The file is a DICOMDIR (PS3.10 section 8): a table of contents, no instance of a study."""


class Damaged(Unarchivable):
    """The file is DICOM, and something of it is missing or wrong: ``verdict`` says what and where.

    ``header`` is what can be read before that, when the UIDs that the archive goes by are among it: the file can be
    archived as what is left of this instance. None when nobody knows whose it is. The code is "truncated", or
    "malformed" where the bytes are there and are no data set.
    """

    def __init__(self, verdict: Verdict, header: Header | None = None, *, code: str = "truncated") -> None:
        super().__init__(verdict.reason, code=code, hint="send the file again from its source")
        self.verdict = verdict
        self.header = header


@dataclass(frozen=True, slots=True)
class _Meta:
    """The file meta information (PS3.10 section 7.1), empty where it has nothing; the data set starts at ``end``.
    ``charset_when_missing``, of `read_header`, goes along with it."""

    end: int
    sop_class: bytes
    sop_instance: bytes
    transfer_syntax_uid: str
    repairs: list[str]
    charset_when_missing: str = ""


def read_header(
    fd: int,
    size_bytes: int,
    *,
    inflated_limit_bytes: int = INFLATED_LIMIT_BYTES,
    heartbeat: Callable[[], None] = lambda: None,
    charset_when_missing: str = "",
) -> Header | Dicomdir:
    """Read the header of an open regular file of ``size_bytes``, and check that all of its data set is there.

    The descriptor's position is not moved and it is not closed. Pixel data is jumped over, so memory does not grow
    with the file; ``heartbeat`` is called before each read, of which a large file takes many. ``charset_when_missing``
    is what text is read as that no declared character set reads ("": guessed). Raises

    - Damaged when something of the data set is missing or wrong (codes "truncated" and "malformed"), with what could
      be read before;
    - Unarchivable otherwise when the file cannot be archived as it stands, with one of the codes "empty", "not-dicom",
      "no-uid" and "bad-uid" (Study, Series or SOP Instance UID, SOP class), or because it exceeds a limit:
      "malformed" (nested too deeply), "inflated-too-large", "too-many-elements" (both: for a file of its size),
      "tail" (far more than the data set comes after it);
    - SourceChanged when the file has not, or no longer, this size;
    - OSError when the kernel cannot read it.

    No value from the file is in any message or repair note.
    """
    if os.fstat(fd).st_size != size_bytes:
        raise SourceChanged("the size of the file has changed since the scan")
    if size_bytes == 0:
        raise NotDicom("the file is empty", code="empty")
    source = FileBytes(fd, size_bytes, heartbeat)
    meta = _meta(source, charset_when_missing)
    if plain_uid(meta.sop_class) == DICOMDIR_SOP_CLASS:
        return Dicomdir()
    if meta.end >= size_bytes:
        raise _damaged("the file ends before its data set", size_bytes)
    found, transfer_syntax_uid, repairs = _data_set(source, meta, inflated_limit_bytes)
    repairs = [*meta.repairs, *repairs, *found.notes]
    if found.damage is not None:
        offset_bytes = None if meta.transfer_syntax_uid in _DEFLATED else found.end
        verdict = Verdict(Completeness.DAMAGED, found.damage.reason, offset_bytes)
        raise Damaged(verdict, _rest(found, meta, transfer_syntax_uid, repairs, verdict), code=found.damage.code)
    try:
        return _judged(found, meta, transfer_syntax_uid, repairs)
    except Damaged:
        raise
    except Unarchivable as error:
        if found.zeros < SMALLEST_ELEMENT_BYTES:
            raise
        # What is missing may be what the zeros are in the place of.
        raise _damaged(CUT_OFF_BY_ZEROS, found.end) from error


def _judged(found: DataSet, meta: _Meta, transfer_syntax_uid: str, repairs: list[str]) -> Header | Dicomdir:
    """Of a data set that was walked to its end. Raises Damaged, Unarchivable."""
    _require_one_of_each(found)
    sop_class_uid = _uid(found, _SOP_CLASS, repairs, meta.sop_class)
    if sop_class_uid == DICOMDIR_SOP_CLASS:
        return Dicomdir()
    is_deflated = meta.transfer_syntax_uid in _DEFLATED
    verdict, notes = completeness.judge(found, sop_class_uid, transfer_syntax_uid, is_deflated=is_deflated)
    if verdict.completeness is Completeness.DAMAGED:
        if found.zeros:
            found.distrust_zeros()
        if is_deflated:
            verdict = replace(verdict, offset_bytes=None)
        raise Damaged(verdict, _rest(found, meta, transfer_syntax_uid, repairs, verdict))
    return _header(found, meta, sop_class_uid, transfer_syntax_uid, [*repairs, *notes], verdict)


def _damaged(reason: str, offset_bytes: int) -> Damaged:
    return Damaged(Verdict(Completeness.DAMAGED, reason, offset_bytes))


def _rest(found: DataSet, meta: _Meta, transfer_syntax_uid: str, repairs: list[str], verdict: Verdict) -> Header | None:
    """The header of a damaged file, None when a UID cannot be read."""
    repairs = list(repairs)
    try:
        _require_one_of_each(found)
        sop_class_uid = _uid(found, _SOP_CLASS, repairs, meta.sop_class)
        if sop_class_uid == DICOMDIR_SOP_CLASS:
            return None
        return _header(found, meta, sop_class_uid, transfer_syntax_uid, repairs, verdict)
    except Unarchivable:
        return None


def _require_one_of_each(found: DataSet) -> None:
    for tag in found.contradictory & _UID_TAGS:
        raise Unarchivable(f"the {_name(tag)} occurs twice, with different values", code="bad-uid")


def _header(
    found: DataSet, meta: _Meta, sop_class_uid: Uid, transfer_syntax_uid: str, repairs: list[str], verdict: Verdict
) -> Header:
    """Raises Unarchivable when a UID is missing or none."""
    sop_instance_uid = _uid(found, _SOP_INSTANCE, repairs, meta.sop_instance)
    study_uid = _uid(found, _STUDY, repairs)
    series_uid = _uid(found, _SERIES, repairs)
    values = found.values.copy()
    if found.overlong:
        for tag in found.overlong:
            values.pop(tag, None)
        repairs.append("attributes: implausibly long values left out")
    if issuer := values.pop(attributes.ORDER_ISSUER, b""):
        values[attributes.ORDER_ISSUER] = _entity(issuer, found.encoding)
    repairs += attributes.character_set_notes(values)
    charset_when_missing = meta.charset_when_missing
    patient_id = attributes.patient_id(values, charset_when_missing=charset_when_missing)
    if not patient_id.isascii() and attributes.is_in_doubt(
        values, attributes.PATIENT_ID, charset_when_missing=charset_when_missing
    ):
        repairs.append("patient ID: its character set is not certain")
    if "\ufffd" in patient_id:
        repairs.append("patient ID: not all of it could be decoded")
    instance = InstanceHeader(
        study_uid, series_uid, sop_instance_uid, sop_class_uid, transfer_syntax_uid, tuple(repairs)
    )
    return Header(
        instance, patient_id, values, verdict, charset_when_missing, found.references, found.encoding.big_endian
    )


def _entity(issuer: bytes, encoding: Encoding) -> bytes:
    """Who the issuer is (HL7v2 Hierarchic Designator Macro, PS3.3 table 10-17), by the name it has there or by the one
    that it has everywhere."""
    names = (attributes.LOCAL_ENTITY_ID, attributes.UNIVERSAL_ENTITY_ID)
    item = first_item(issuer, encoding, frozenset(names))
    return next((item[name] for name in names if item.get(name, b"").strip(b" \0")), b"")


def elements_allowed(size_bytes: int, *, is_deflated: bool) -> int:
    for_one = PACKED_BYTES_FOR_AN_ELEMENT if is_deflated else BYTES_FOR_AN_ELEMENT
    return min(ELEMENTS_LIMIT, ELEMENTS_FREE + size_bytes // for_one)


def inflated_allowed(packed_bytes: int) -> int:
    return min(INFLATED_LIMIT_BYTES, INFLATED_FREE_BYTES + packed_bytes * INFLATION_RATIO)


def meta_end(source: FileBytes) -> int:
    """Where the data set begins. Raises Unarchivable."""
    return _meta(source).end


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
    return _opened(source, _meta(source), INFLATED_LIMIT_BYTES)


def _opened(source: SizedSource, meta: _Meta, inflated_limit_bytes: int) -> Opened:
    data: ByteSource = source
    start = meta.end
    if meta.transfer_syntax_uid in _DEFLATED:
        limit_bytes = min(inflated_limit_bytes, inflated_allowed(source.size_bytes))
        data, start = InflatedBytes(source, meta.end, limit_bytes), 0
    declared = _declared(meta.transfer_syntax_uid)
    try:
        encoding = encoding_at(data, start, declared)
    except DamageFound as damage:
        raise Damaged(Verdict(Completeness.DAMAGED, damage.reason), code=damage.code) from damage
    is_other = declared is not None and encoding != declared
    return Opened(data, start, encoding, meta.transfer_syntax_uid, is_other)


def _meta(source: SizedSource, charset_when_missing: str = "") -> _Meta:
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
        raise _damaged(found.damage.reason, found.end)
    return _Meta(
        found.end,
        found.values.get(_META_SOP_CLASS, b""),
        found.values.get(_META_SOP_INSTANCE, b""),
        plain_uid(found.values.get(_META_TRANSFER_SYNTAX, b"")),
        repairs,
        charset_when_missing,
    )


def _data_set(source: FileBytes, meta: _Meta, inflated_limit_bytes: int) -> tuple[DataSet, str, list[str]]:
    """The walked data set, its transfer syntax UID, and repair notes."""
    repairs: list[str] = []
    opened = _opened(source, meta, inflated_limit_bytes)
    data, start, encoding = opened.data, opened.start, opened.encoding
    inflated = data if isinstance(data, InflatedBytes) else None
    if opened.is_other:
        repairs.append("transfer syntax: the data set uses another one than declared")
    found = walk(
        data,
        start,
        encoding,
        chosen=_CHOSEN,
        landmarks=completeness.LANDMARKS,
        elements_limit=elements_allowed(source.size_bytes, is_deflated=inflated is not None),
    )
    if inflated is not None and found.damage is None:
        # The walk may stop early where only padding follows; the stream itself must still come to its end.
        try:
            inflated.finish()
            if not inflated.complete:
                raise DamageFound("the deflated data set is cut off")
        except DamageFound as damage:
            found.damage = damage
        if inflated.rest_bytes > 1:
            repairs.append("bytes after the deflated data set do not belong to it")
    elif found.damage is None:
        look_for_zeros(data, found, elements_allowed(source.size_bytes, is_deflated=False))
    if found.damage is None and may_refer(sop_class := found.values.get(_SOP_CLASS, meta.sop_class)):
        study = found.values.get(_STUDY, b"")
        allowed = elements_allowed(source.size_bytes, is_deflated=inflated is not None)
        # What the walk has inflated is gone: it is done once more, for the classes that are read.
        again = data if inflated is None else _opened(source, meta, inflated_limit_bytes).data
        found.references = references_of(again, start, encoding, sop_class, study, allowed)
    transfer_syntax_uid = meta.transfer_syntax_uid
    if not transfer_syntax_uid:
        repairs.append("transfer syntax: not declared, detected from the data set")
        transfer_syntax_uid = IMPLICIT_LITTLE_ENDIAN
        if encoding.explicit:
            transfer_syntax_uid = EXPLICIT_BIG_ENDIAN if encoding.big_endian else EXPLICIT_LITTLE_ENDIAN
        if found.pixel_tag is not None and found.pixel_bytes is None:
            # Encapsulated in a way nobody has named; an empty one is better than a wrong one.
            transfer_syntax_uid = ""
    return found, transfer_syntax_uid, repairs


def _declared(transfer_syntax_uid: str) -> Encoding | None:
    """What a transfer syntax means for the data set; None for private and unknown ones, whose data set tells."""
    if transfer_syntax_uid in (IMPLICIT_LITTLE_ENDIAN, _GE_IMPLICIT):
        return Encoding(explicit=False)
    if transfer_syntax_uid == EXPLICIT_BIG_ENDIAN:
        return Encoding(explicit=True, big_endian=True)
    return Encoding(explicit=True) if transfer_syntax_uid.startswith("1.2.840.10008.1.2.") else None


def _uid(found: DataSet, tag: int, repairs: list[str], fallback: bytes = b"") -> Uid:
    """A checked UID of the data set, or the file meta information's where the data set has none.

    What is unambiguous is accepted and noted: padding around it, leading zeros in a component (kept, since the
    text is the identity), a file meta information that disagrees. Raises Unarchivable "no-uid", "bad-uid".
    """
    name = _name(tag)
    raw = found.values.get(tag)
    stripped = (raw or b"").strip(b"\0 ")
    if not stripped and fallback.strip(b"\0 "):
        repairs.append(f"{name}: missing, taken from the file meta information")
        raw, fallback = fallback, b""
        stripped = raw.strip(b"\0 ")
    if raw is None:
        raise Unarchivable(f"the {name} is missing", code="no-uid")
    try:
        uid = Uid(stripped.decode("ascii", "replace"))
    except InvalidUid as error:
        raise Unarchivable(f"the {name} is not a valid UID", code="bad-uid") from error
    if raw != stripped + b"\0" * (len(stripped) % 2):
        repairs.append(f"{name}: padding dropped")
    if (".0" in uid or uid.startswith("0")) and _LEADING_ZERO.search(uid):
        repairs.append(f"{name}: leading zeros kept")
    other = fallback.strip(b"\0 ")
    if other and other != stripped:
        repairs.append(f"{name}: the file meta information has another one")
    return uid


def plain_uid(raw: bytes) -> str:
    """A UID that is only recorded, "" when it is missing or none."""
    try:
        return Uid(raw.strip(b"\0 ").decode("ascii", "replace"))
    except InvalidUid:
        return ""


def _name(tag: int) -> str:
    names = {_SOP_CLASS: "SOP class UID", _SOP_INSTANCE: "SOP instance UID", _STUDY: "study UID"}
    return names.get(tag, "series UID")
