"""Reads a DICOMDIR (PS3.10 section 8, PS3.3 annex F): which images a medium says that it holds.

The records are read as they stand in the file, one after the other: a record that nothing leads to counts as well. Only
then is it asked to which study each belongs, by the offsets that lead from one record to the next: each is followed
once, so there is no loop to fall into. Lengths are believed only as far as the file goes; no value is ever in a
message.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dicomwatchd.errors import Unarchivable
from dicomwatchd.intake.dicom.opening import elements_allowed, meta_end, plain_uid
from dicomwatchd.intake.dicom.reading import FileBytes
from dicomwatchd.intake.dicom.structure import ITEM, ITEM_END, SEQUENCE_END, UNDEFINED, Elements, encoding_at
from dicomwatchd.intake.dicom.verdict import DamageFound

#: A DICOMDIR of 100,000 images, of 500 bytes each, has 50 MB.
LIMIT_BYTES = 64 * 1024**2
LIMIT_IMAGES = 100_000
#: Records of patients, studies, series and images together.
LIMIT_RECORDS = 300_000
#: A file ID has 8 components of 8 characters; media are seen with more.
LIMIT_COMPONENTS = 32
_LIMIT_VALUE_BYTES = 1024

_SEQUENCE = 0x00041220
_IN_USE, _FILE_ID, _KIND = 0x00041410, 0x00041500, 0x00041430
_SOP_INSTANCE, _STUDY = 0x00041511, 0x0020000D
_NEXT, _LOWER = 0x00041400, 0x00041420
_CHOSEN = frozenset({_IN_USE, _FILE_ID, _KIND, _SOP_INSTANCE, _STUDY, _NEXT, _LOWER})
#: Records that stand beside the studies' or above them (PS3.3 F.4), and private ones, of which nobody knows.
_OF_NO_STUDY = (
    b"PATIENT",
    b"HANGING PROTOCOL",
    b"PALETTE",
    b"IMPLANT",
    b"IMPLANT ASSY",
    b"IMPLANT GROUP",
    b"INVENTORY",
    b"PRIVATE",
)


@dataclass(frozen=True, slots=True)
class Listed:
    """One file that a DICOMDIR lists: its path from the DICOMDIR's folder, its SOP Instance UID, "" where the record
    names none, and its study's, "" where it cannot be told for sure."""

    path: bytes
    sop_instance_uid: str
    study_uid: str = ""


@dataclass(slots=True)
class Directory:
    images: list[Listed] = field(default_factory=list, repr=False)
    studies: set[str] = field(default_factory=set, repr=False)

    def by_study(self) -> dict[str, list[str]]:
        """The SOP Instance UIDs that it lists of each study, each once, ascending."""
        found: dict[str, set[str]] = {}
        for one in self.images:
            if one.study_uid and one.sop_instance_uid:
                found.setdefault(one.study_uid, set()).add(one.sop_instance_uid)
        return {study: sorted(uids) for study, uids in sorted(found.items())}


def read_dicomdir(fd: int, size_bytes: int, heartbeat: Callable[[], None] = lambda: None) -> Directory:
    """What an open DICOMDIR lists. Raises Unarchivable where it cannot be read to its end, or is beyond the limits;
    SourceChanged, OSError."""
    if size_bytes > LIMIT_BYTES:
        raise _unreadable("it is too large")
    try:
        return _read(fd, size_bytes, heartbeat)
    except DamageFound as damage:
        raise _unreadable(damage.reason) from damage


def _read(fd: int, size_bytes: int, heartbeat: Callable[[], None]) -> Directory:
    source = FileBytes(fd, size_bytes, heartbeat)
    start = meta_end(source)
    encoding = encoding_at(source, start, None)
    elements = Elements(source, encoding, elements_allowed(size_bytes, is_deflated=False))
    pos = start
    while True:
        head = source.read(pos, 12)
        if len(head) < 8:
            raise _unreadable("it has no list")
        tag, length, header_bytes = elements.parse(head, 0, encoding.explicit)
        pos += header_bytes
        if tag == _SEQUENCE:
            return _Records(source, elements, encoding.explicit, size_bytes).read(pos, length)
        if length == UNDEFINED:
            pos, _, _ = elements.skip_items(pos, explicit=encoding.explicit, fragments=False)
        else:
            pos += length


class _Records:
    def __init__(self, source: FileBytes, elements: Elements, explicit: bool, size_bytes: int) -> None:
        self._source, self._elements, self._explicit, self._size_bytes = source, elements, explicit, size_bytes
        self._found = Directory()
        self._tree = _Tree()

    def read(self, pos: int, length: int) -> Directory:
        end = None if length == UNDEFINED else pos + length
        if end is not None and not self._source.holds(end):
            raise _unreadable("it is cut off")
        count = 0
        while end is None or pos < end:
            head = self._source.read(pos, 8)
            if len(head) < 8:
                raise _unreadable("it is cut off")
            group, element, size = struct.unpack("<HHL", head)
            tag = group << 16 | element
            at, pos = pos, pos + 8
            if tag == SEQUENCE_END:
                break
            if tag != ITEM:
                raise _unreadable("its list is damaged")
            count += 1
            if count > LIMIT_RECORDS:
                raise _unreadable("it has too many records")
            pos = self._record(at, pos, size)
            if end is not None and pos > end:
                raise _unreadable("its list is damaged")
        self._found.images = self._tree.with_studies(self._found.images, self._found.studies)
        return self._found

    def _record(self, at: int, pos: int, size: int) -> int:
        """One record, whose item begins ``at``; returns where it ends."""
        end = None if size == UNDEFINED else pos + size
        if end is not None and not self._source.holds(end):
            raise _unreadable("it is cut off")
        values: dict[int, bytes] = {}
        while end is None or pos < end:
            head = self._source.read(pos, 12)
            if len(head) < 8:
                raise _unreadable("it is cut off")
            tag, length, header_bytes = self._elements.parse(head, 0, self._explicit)
            pos += header_bytes
            if tag == ITEM_END:
                break
            if length == UNDEFINED:
                pos, _, _ = self._elements.skip_items(pos, explicit=self._explicit, fragments=False)
                continue
            if pos + length > (self._size_bytes if end is None else end):
                raise _unreadable("its list is damaged")
            if tag in _CHOSEN and length <= _LIMIT_VALUE_BYTES:
                values[tag] = self._source.read(pos, length)
            pos += length
        self._take(at, values)
        return pos

    def _take(self, at: int, values: dict[int, bytes]) -> None:
        kind = values.get(_KIND, b"").strip(b" \0")
        # One that is not in use was taken out of the list by whoever has changed the medium; others may follow it.
        is_in_use = any(values.get(_IN_USE, b"\xff\xff"))
        study = plain_uid(values.get(_STUDY, b"")) if kind == b"STUDY" and is_in_use else ""
        if study:
            self._found.studies.add(study)
        image = -1
        if is_in_use and (path := _path(values.get(_FILE_ID, b""))):
            if len(self._found.images) >= LIMIT_IMAGES:
                raise _unreadable("it lists too many files")
            image = len(self._found.images)
            self._found.images.append(Listed(path, plain_uid(values.get(_SOP_INSTANCE, b""))))
        following, lower = (_offset(values.get(tag, b"")) for tag in (_NEXT, _LOWER))
        self._tree.add(at, following, lower, study, image, is_study=kind == b"STUDY", is_of_none=kind in _OF_NO_STUDY)


class _Tree:
    """How the records of a DICOMDIR hang together. Of each there are a few numbers, by its place in the file."""

    def __init__(self) -> None:
        self._by_offset: dict[int, int] = {}
        self._following, self._lower = array("Q"), array("Q")
        self._images = array("l")  # -1: none
        self._bars = bytearray()  # records of studies, and those of none
        self._studies: list[tuple[int, str]] = []

    def add(
        self, at: int, following: int, lower: int, study: str, image: int, *, is_study: bool, is_of_none: bool
    ) -> None:
        number = len(self._images)
        self._by_offset[at] = number
        self._following.append(following)
        self._lower.append(lower)
        self._images.append(image)
        self._bars.append(is_study or is_of_none)
        if is_study:
            self._studies.append((number, study))

    def with_studies(self, images: list[Listed], studies: set[str]) -> list[Listed]:
        """The same with the study of each. Where offsets lead from any study to what it consists of, they alone count;
        otherwise the order of the records does, which then is the only one that there is. Of one study is all that
        may be of any."""
        found = [""] * len(images)
        leading = [(number, study) for number, study in self._studies if self._lower[number] in self._by_offset]
        if leading:
            self._follow(leading, found)
        else:
            self._in_order(found)
        if len(studies) == 1 and len(self._studies) == 1:
            [only] = studies
            for number, image in enumerate(self._images):
                if image >= 0 and not self._bars[number]:
                    found[image] = only
        return [replace(one, study_uid=study) if study else one for one, study in zip(images, found, strict=True)]

    def _follow(self, leading: list[tuple[int, str]], found: list[str]) -> None:
        seen = bytearray(len(self._images))
        for number, study in leading:
            waiting = [self._lower[number]]
            while waiting:
                one = self._by_offset.get(waiting.pop())
                if one is None or seen[one] or self._bars[one]:
                    continue
                seen[one] = 1
                if (image := self._images[one]) >= 0:
                    found[image] = study
                waiting += (self._following[one], self._lower[one])

    def _in_order(self, found: list[str]) -> None:
        studies = dict(self._studies)
        study = ""
        for number, image in enumerate(self._images):
            if self._bars[number]:
                study = studies.get(number, "")
            elif image >= 0:
                found[image] = study


def _offset(value: bytes) -> int:
    return int.from_bytes(value, "little") if len(value) == 4 else 0


def _path(file_id: bytes) -> bytes:
    """The components are values of their own; some writers put slashes between them. b"" where it leads nowhere below
    the DICOMDIR's folder."""
    parts = [part for part in (p.strip(b" \0") for p in file_id.replace(b"/", b"\\").split(b"\\")) if part]
    if len(parts) > LIMIT_COMPONENTS or any(part in (b".", b"..") or b"\0" in part for part in parts):
        return b""
    return b"/".join(parts)


def _unreadable(why: str) -> Unarchivable:
    return Unarchivable(why, code="dicomdir")
