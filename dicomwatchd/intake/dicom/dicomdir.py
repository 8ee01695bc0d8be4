"""Reads a DICOMDIR (PS3.10 section 8, PS3.3 annex F): which images a medium says that it holds.

The records are read as they stand in the file, one after the other, and no offset in them is followed: so there is no
loop to fall into, and a record that nothing leads to counts as well. Lengths are believed only as far as the file
goes; no value is ever in a message.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from dicomwatchd.errors import Unarchivable
from dicomwatchd.intake.dicom.header import elements_allowed, meta_end, plain_uid
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
_CHOSEN = frozenset({_IN_USE, _FILE_ID, _KIND, _SOP_INSTANCE, _STUDY})


@dataclass(frozen=True, slots=True)
class Listed:
    """One file that a DICOMDIR lists: its path from the DICOMDIR's folder, and its SOP Instance UID, "" where the
    record names none."""

    path: bytes
    sop_instance_uid: str


@dataclass(slots=True)
class Directory:
    images: list[Listed] = field(default_factory=list, repr=False)
    studies: set[str] = field(default_factory=set, repr=False)


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
            pos += 8
            if tag == SEQUENCE_END:
                break
            if tag != ITEM:
                raise _unreadable("its list is damaged")
            count += 1
            if count > LIMIT_RECORDS:
                raise _unreadable("it has too many records")
            pos = self._record(pos, size)
            if end is not None and pos > end:
                raise _unreadable("its list is damaged")
        return self._found

    def _record(self, pos: int, size: int) -> int:
        """One record; returns where it ends."""
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
        self._take(values)
        return pos

    def _take(self, values: dict[int, bytes]) -> None:
        in_use = values.get(_IN_USE, b"\xff\xff")
        if not any(in_use):
            return  # taken out of the list by whoever has changed the medium
        if values.get(_KIND, b"").strip(b" \0") == b"STUDY" and (study := plain_uid(values.get(_STUDY, b""))):
            self._found.studies.add(study)
        path = _path(values.get(_FILE_ID, b""))
        if path:
            if len(self._found.images) >= LIMIT_IMAGES:
                raise _unreadable("it lists too many files")
            self._found.images.append(Listed(path, plain_uid(values.get(_SOP_INSTANCE, b""))))


def _path(file_id: bytes) -> bytes:
    """The components are values of their own; some writers put slashes between them. b"" where it leads nowhere below
    the DICOMDIR's folder."""
    parts = [part for part in (p.strip(b" \0") for p in file_id.replace(b"/", b"\\").split(b"\\")) if part]
    if len(parts) > LIMIT_COMPONENTS or any(part in (b".", b"..") or b"\0" in part for part in parts):
        return b""
    return b"/".join(parts)


def _unreadable(why: str) -> Unarchivable:
    return Unarchivable(why, code="dicomdir")
