"""Reads what the archive goes by from a file's header, and says of every file that cannot be archived why not."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from dicomwatchd.errors import InvalidUid, NotDicom, SourceChanged, Unarchivable
from dicomwatchd.intake.dicom import attributes, completeness
from dicomwatchd.intake.dicom.opening import (
    DEFLATED,
    DICOMDIR_SOP_CLASS,
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    Meta,
    damaged_at,
    elements_allowed,
    open_behind,
    plain_uid,
    read_meta,
)
from dicomwatchd.intake.dicom.reading import INFLATED_LIMIT_BYTES, FileBytes, InflatedBytes
from dicomwatchd.intake.dicom.references import may_refer, references_of
from dicomwatchd.intake.dicom.signs import CHOSEN_TAGS as SIGNS_TAGS
from dicomwatchd.intake.dicom.signs import signs_of, text_of
from dicomwatchd.intake.dicom.structure import (
    CUT_OFF_BY_ZEROS,
    SMALLEST_ELEMENT_BYTES,
    DataSet,
    Encoding,
    first_item,
    look_for_zeros,
    walk,
)
from dicomwatchd.intake.dicom.verdict import WHOLE, Completeness, Damaged, DamageFound, Verdict
from dicomwatchd.model import DicomJson, InstanceHeader, Uid
from dicomwatchd.study_signs import Signs

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

_LEADING_ZERO = re.compile(r"(?:^|\.)0[0-9]")


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
    def said(self) -> tuple[bytes | None, ...]:
        """Equal for files of which all that follows here is equal: most files of a series, told at the least cost."""
        return tuple(map(self._values.get, attributes.ASKED_OF))

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
    meta = read_meta(source, charset_when_missing)
    if plain_uid(meta.sop_class) == DICOMDIR_SOP_CLASS:
        return Dicomdir()
    if meta.end >= size_bytes:
        raise damaged_at("the file ends before its data set", size_bytes)
    found, transfer_syntax_uid, repairs = _data_set(source, meta, inflated_limit_bytes)
    repairs = [*meta.repairs, *repairs, *found.notes]
    if found.damage is not None:
        offset_bytes = None if meta.transfer_syntax_uid in DEFLATED else found.end
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
        raise damaged_at(CUT_OFF_BY_ZEROS, found.end) from error


def _judged(found: DataSet, meta: Meta, transfer_syntax_uid: str, repairs: list[str]) -> Header | Dicomdir:
    """Of a data set that was walked to its end. Raises Damaged, Unarchivable."""
    _require_one_of_each(found)
    sop_class_uid = _uid(found, _SOP_CLASS, repairs, meta.sop_class)
    if sop_class_uid == DICOMDIR_SOP_CLASS:
        return Dicomdir()
    is_deflated = meta.transfer_syntax_uid in DEFLATED
    verdict, notes = completeness.judge(found, sop_class_uid, transfer_syntax_uid, is_deflated=is_deflated)
    if verdict.completeness is Completeness.DAMAGED:
        if found.zeros:
            found.distrust_zeros()
        if is_deflated:
            verdict = replace(verdict, offset_bytes=None)
        raise Damaged(verdict, _rest(found, meta, transfer_syntax_uid, repairs, verdict))
    return _header(found, meta, sop_class_uid, transfer_syntax_uid, [*repairs, *notes], verdict)


def _rest(found: DataSet, meta: Meta, transfer_syntax_uid: str, repairs: list[str], verdict: Verdict) -> Header | None:
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
    found: DataSet, meta: Meta, sop_class_uid: Uid, transfer_syntax_uid: str, repairs: list[str], verdict: Verdict
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


def _data_set(source: FileBytes, meta: Meta, inflated_limit_bytes: int) -> tuple[DataSet, str, list[str]]:
    """The walked data set, its transfer syntax UID, and repair notes."""
    repairs: list[str] = []
    opened = open_behind(source, meta, inflated_limit_bytes)
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
        again = data if inflated is None else open_behind(source, meta, inflated_limit_bytes).data
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


def _name(tag: int) -> str:
    names = {_SOP_CLASS: "SOP class UID", _SOP_INSTANCE: "SOP instance UID", _STUDY: "study UID"}
    return names.get(tag, "series UID")
