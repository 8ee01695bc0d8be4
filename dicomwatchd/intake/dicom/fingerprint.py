"""What tells whether two files are the same data set, or at least have the same pixels: two digests of one file.

That of the data set leaves out what a program may write otherwise without changing anything: preamble and file meta
information, VRs, lengths of sequences and items given or delimited, deflation, group lengths, the offset table of
encapsulated pixel data, bytes behind a data set that are no elements. It is a SHA-256 over the elements in the order of
the file, each written as `_Writer` does. That of the content is taken in the same way over the element that carries it.
Nothing is decoded: the same pixels in another compression are others.

What stands in the place of something that is left out, and has content of its own, is no such thing: a first fragment
where there should be an offset table, a long value under the tag of a group length, elements behind the pixel data that
belong before it. Other programs read them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from pydicom.datadict import dictionary_VR

from dicomwatchd.errors import Unarchivable
from dicomwatchd.intake.dicom.opening import (
    DEFLATED_LITTLE_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    Opened,
    elements_allowed,
    open_data_set,
)
from dicomwatchd.intake.dicom.reading import SizedSource
from dicomwatchd.intake.dicom.structure import (
    DEPTH_LIMIT,
    ITEM,
    ITEM_END,
    PIXELS,
    SEQUENCE_END,
    SMALLEST_ELEMENT_BYTES,
    UNDEFINED,
    Elements,
    is_explicit_at,
    is_foreign,
)
from dicomwatchd.intake.dicom.verdict import DamageFound
from dicomwatchd.model import DataSetDigest

#: Spectroscopy Data, Encapsulated Document, Waveform Sequence.
_CONTENT = PIXELS | {0x56000020, 0x00420011, 0x54000100}
_TRAILING_PADDING = 0xFFFCFFFC
_GROUP_LENGTH_BYTES = 4
_AT_ONCE_BYTES = 256 * 1024
#: One as good as the other; a file that declares none is written in one of them, or as nobody knows.
_LITTLE_ENDIAN = frozenset({"", IMPLICIT_LITTLE_ENDIAN, EXPLICIT_LITTLE_ENDIAN, DEFLATED_LITTLE_ENDIAN})

#: What a data set is made of, in front of each part. Lengths stand only before values, as 64 bits.
_VALUE, _SEQUENCE, _SEQUENCE_END, _ITEM, _ITEM_END = b"V", b"S", b"s", b"I", b"i"
_TAG = struct.Struct(">L").pack
_LENGTH = struct.Struct(">Q").pack


def digest_of(source: SizedSource, heartbeat: Callable[[], None] = lambda: None) -> DataSetDigest:
    """Of a file, read once from its beginning to the end of its data set; of one whose data set cannot be read to its
    end, nothing. Raises what reading raises; no value of the file is in any message."""
    try:
        opened = open_data_set(source)
        return _Reader(source, opened, heartbeat).read()
    except (DamageFound, Unarchivable):
        return DataSetDigest("", "")


class _Writer:
    """Both digests. How values are written, in the byte order of the transfer syntax or compressed in the way of
    another, is part of either; so are the VRs of big endian ones, for they tell what is swapped."""

    def __init__(self, written_as: bytes) -> None:
        self._data_set = hashlib.sha256(written_as)
        self._content = hashlib.sha256(written_as)
        self.is_content = self.has_content = False

    def write(self, data: bytes) -> None:
        self._data_set.update(data)
        if self.is_content:
            self._content.update(data)

    def copy(self) -> _Writer:
        """As it is now, to go back to."""
        same = _Writer(b"")
        same._data_set, same._content = self._data_set.copy(), self._content.copy()
        same.is_content, same.has_content = self.is_content, self.has_content
        return same

    def digest(self) -> DataSetDigest:
        return DataSetDigest(self._data_set.hexdigest(), self._content.hexdigest() if self.has_content else "")


@dataclass(slots=True)
class _Open:
    """A sequence or an item that is not at its end; ``end`` is None where a delimiter tells. ``is_explicit`` says so of
    the elements within. Encapsulated pixel data is a sequence of fragments."""

    is_sequence: bool
    end: int | None
    is_explicit: bool
    is_pixels: bool = False
    items: int = 0


class _Reader:
    def __init__(self, source: SizedSource, opened: Opened, heartbeat: Callable[[], None]) -> None:
        self._data, self._pos, self._is_explicit = opened.data, opened.start, opened.encoding.explicit
        self._heartbeat = heartbeat
        allowed = elements_allowed(source.size_bytes, is_deflated=opened.data is not source)
        self._elements = Elements(opened.data, opened.encoding, allowed)
        self._writer = _Writer(_written_as(opened))
        self._has_swapped_values = opened.encoding.big_endian
        self._open: list[_Open] = []
        self._pixel_tag = 0
        self._is_behind = False

    def read(self) -> DataSetDigest:
        while self._step() and not self._is_behind:
            pass
        if self._is_behind:
            self._read_what_is_behind()
        return self._writer.digest()

    def _read_what_is_behind(self) -> None:
        """Behind the pixel data, elements that do not belong there: as many as are whole. What follows them is none."""
        before = self._writer.copy()
        try:
            is_more = True
            while is_more:
                self._close_what_ends_here()
                if not self._open:
                    before = self._writer.copy()
                is_more = self._step()
        except (DamageFound, Unarchivable):
            self._writer = before

    def _step(self) -> bool:
        """One element, item or delimiter; False behind the last."""
        self._close_what_ends_here()
        head = self._data.read(self._pos, 12)
        within = self._open[-1] if self._open else None
        if len(head) < SMALLEST_ELEMENT_BYTES:
            if within is not None:
                raise DamageFound("the data set ends within a sequence")
            return False
        if within is not None and within.is_sequence:
            self._item(head, within)
            return True
        is_explicit = self._is_explicit if within is None else within.is_explicit
        tag, length, header_bytes = self._elements.parse(head, 0, is_explicit)
        if within is None:
            if tag == 0:
                return False
            if self._pixel_tag and not self._is_behind and is_foreign(tag, self._pixel_tag):
                self._is_behind = True
                return True
            self._writer.is_content = tag in _CONTENT and length > 0
            self._writer.has_content |= self._writer.is_content
            if tag in PIXELS and length:
                self._pixel_tag = tag
        self._pos += header_bytes
        if tag == ITEM_END:
            if within is None or within.end is not None:
                raise DamageFound("an item ends that has not begun", "malformed")
            self._close()
        else:
            self._element(tag, length, head[4:6] if is_explicit else b"", is_explicit)
        return True

    def _element(self, tag: int, length: int, vr: bytes, is_explicit: bool) -> None:
        head = _TAG(tag) + vr if self._has_swapped_values else _TAG(tag)
        if length == UNDEFINED or _is_sequence(tag, vr, is_explicit):
            if len(self._open) >= 2 * DEPTH_LIMIT:
                raise Unarchivable("sequences are nested too deeply", code="malformed")
            self._writer.write(head + _SEQUENCE)
            end = None if length == UNDEFINED else self._pos + length
            is_pixels = end is None and tag in PIXELS
            self._open.append(_Open(True, end, is_explicit, is_pixels))
        elif (tag & 0xFFFF == 0 and tag and length == _GROUP_LENGTH_BYTES) or tag == _TRAILING_PADDING:
            self._pos += length
        else:
            self._writer.write(head)
            self._value(length)

    def _item(self, head: bytes, sequence: _Open) -> None:
        tag, length, header_bytes = self._elements.parse(head, 0, sequence.is_explicit)
        self._pos += header_bytes
        if tag == SEQUENCE_END and sequence.end is None:
            self._close()
        elif tag != ITEM or (sequence.is_pixels and length == UNDEFINED):
            raise DamageFound("a sequence is malformed", "malformed")
        elif sequence.is_pixels:
            sequence.items += 1
            if sequence.items == 1:
                self._offset_table(length)
            elif length:
                self._value(length)
        else:
            self._writer.write(_ITEM)
            # An item of a sequence written as UN is implicit amid explicit ones (PS3.5 6.2.2 note 2).
            is_explicit = sequence.is_explicit and is_explicit_at(self._data, self._pos)
            self._open.append(_Open(False, None if length == UNDEFINED else self._pos + length, is_explicit))

    def _offset_table(self, length: int) -> None:
        """The first item (PS3.5 A.4): an index, which is left out. Some writers have none, and begin with the first
        fragment; no codec's begins as a table does."""
        before, index = self._writer.copy(), _Index()
        self._value(length, index.take)
        if index.holds:
            self._writer = before

    def _value(self, length: int, seen: Callable[[bytes], None] = lambda _: None) -> None:
        self._writer.write(_VALUE + _LENGTH(length))
        left = length
        while left:
            self._heartbeat()
            piece = self._data.read(self._pos, min(left, _AT_ONCE_BYTES))
            if not piece:
                raise DamageFound("the file ends inside an element's value")
            self._writer.write(piece)
            seen(piece)
            self._pos += len(piece)
            left -= len(piece)

    def _close_what_ends_here(self) -> None:
        while self._open and (end := self._open[-1].end) is not None and self._pos >= end:
            if self._pos > end:
                raise DamageFound("an element is longer than what it is in", "malformed")
            self._close()

    def _close(self) -> None:
        self._writer.write(_SEQUENCE_END if self._open.pop().is_sequence else _ITEM_END)


class _Index:
    """Whether bytes are an offset table, or nothing: offsets of 32 bits, the first of them 0, each beyond the last."""

    def __init__(self) -> None:
        self._last = -1
        self._rest = b""
        self._is_ascending = True

    def take(self, piece: bytes) -> None:
        data = self._rest + piece if self._rest else piece
        whole = len(data) // 4 * 4
        self._rest = data[whole:]
        if self._is_ascending and whole:
            offsets = struct.unpack(f"<{whole // 4}L", data[:whole])
            follows = self._last < offsets[0] if self._last >= 0 else offsets[0] == 0
            self._is_ascending = follows and all(one < other for one, other in pairwise(offsets))
            self._last = offsets[-1]

    @property
    def holds(self) -> bool:
        return self._is_ascending and not self._rest


def _is_sequence(tag: int, vr: bytes, is_explicit: bool) -> bool:
    """Of a given length. With implicit VRs the dictionary tells (PS3.6); it knows no private ones."""
    if is_explicit:
        return vr == b"SQ"
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False


def _written_as(opened: Opened) -> bytes:
    if opened.encoding.big_endian:
        return b"big endian"
    uid = opened.transfer_syntax_uid
    return b"" if uid in _LITTLE_ENDIAN else uid.encode("ascii") + b"\0"
