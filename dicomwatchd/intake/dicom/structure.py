"""Walks a data set's declared lengths to the end of the file (PS3.5 section 7) and picks chosen values on the way.

pydicom reads a truncated file without a word, so a walk of our own is needed to know that a file is whole. Since
it passes every element anyway, it also takes the few values the archive goes by: one parser, no second opinion,
and none of the values in a library's warnings. Values are jumped over, never loaded.
"""

from __future__ import annotations

import struct
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from pydicom.datadict import dictionary_has_tag, dictionary_VR

from dicomwatchd.errors import Unarchivable
from dicomwatchd.intake.dicom.reading import ByteSource, MemoryBytes
from dicomwatchd.intake.dicom.verdict import DamageFound

PIXEL_DATA = 0x7FE00010
FLOAT_PIXEL_DATA = 0x7FE00008
DOUBLE_PIXEL_DATA = 0x7FE00009
PIXELS = frozenset({PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA})

ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD
_DELIMITERS_GROUP = 0xFFFE
UNDEFINED = 0xFFFFFFFF
_GROUPS_BEHIND_PIXELS = frozenset({0x7FE0, 0xFFFA, 0xFFFC, 0xFFFE})  # signatures, trailing padding

_SHORT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)  # PS3.5 table 7.1-2: 16-bit length
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # PS3.5 table 7.1-1: 32-bit length

#: A chosen value is kept up to this length; what is longer is noted in `DataSet.overlong`.
VALUE_LIMIT_BYTES = 4096
#: Of a chosen sequence of undefined length so much is kept, whatever follows it: enough for the texts of an item.
FIRST_ITEM_BYTES = 512
DEPTH_LIMIT = 100
SMALLEST_ELEMENT_BYTES = 8
#: What writers fill up to. Fewer zeros than this may be padding.
SECTOR_BYTES = 512
CUT_OFF_BY_ZEROS = "the data set is cut off by zeros"
_SEQUENCE_CUT_OFF = "a sequence or encapsulated pixel data is cut off by zeros"
_PADDING = "zero padding after the data set"
#: What may follow a data set that is shorter than this.
TAIL_LIMIT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Encoding:
    """How elements are written: explicit or implicit VR, little or big endian."""

    explicit: bool
    big_endian: bool = False


EXPLICIT_LITTLE = Encoding(explicit=True)


@dataclass(slots=True)
class DataSet:
    """What a walk has found.

    ``values`` are the raw values of the chosen tags, ``overlong`` those too long to be kept, ``contradictory``
    those given twice with different values; ``landmarks`` are those seen, and whether they have a value or items.
    ``pixel_tag`` is the pixel data element that is not empty, at ``pixel_offset``, ``pixel_bytes`` its declared
    length, or None when it is encapsulated in ``fragments`` items with content after the offset table. ``last_tag`` is
    the last element read, at ``last_offset``, ``highest_tag`` the last in the order of a data set; ``end`` is where the
    walk ended, behind it or at the damage. ``zeros`` is how many bytes follow ``end`` to the end of the data where
    these are all zero and fewer than a sector.

    With ``damage`` all the rest is what stands before it.
    """

    encoding: Encoding
    values: dict[int, bytes] = field(default_factory=dict)
    overlong: set[int] = field(default_factory=set)
    landmarks: dict[int, bool] = field(default_factory=dict)
    contradictory: set[int] = field(default_factory=set)
    pixel_tag: int | None = None
    pixel_offset: int = 0
    pixel_bytes: int | None = None
    fragments: int = 0
    last_tag: int = 0
    last_offset: int = 0
    highest_tag: int = 0
    end: int = 0
    zeros: int = 0
    damage: DamageFound | None = None

    def reached(self, tag: int) -> None:
        if tag >> 16 != _DELIMITERS_GROUP:  # one that delimits nothing here has no place in the order
            self.highest_tag = max(self.highest_tag, tag)

    def distrust_zeros(self) -> None:
        """Drop a value that zeros have followed and that ends with one: they may have begun within it."""
        if self.values.get(self.last_tag, b"").endswith(b"\0"):
            del self.values[self.last_tag]

    notes: list[str] = field(default_factory=list)
    #: SOP Instance UIDs that it refers to, of the classes that `references` reads.
    references: tuple[str, ...] = ()

    def short(self, tag: int) -> int | None:
        """The value of a US element, or None when it is not there or not one."""
        value = self.values.get(tag, b"")
        return int.from_bytes(value, "big" if self.encoding.big_endian else "little") if len(value) == 2 else None


def encoding_at(source: ByteSource, offset: int, declared: Encoding | None) -> Encoding:
    """How the data set at ``offset`` is really written, judged by its first element; a data set starts in group
    0008. What cannot be told is taken from ``declared``, or is implicit VR little endian, the default of PS3.5."""
    head = source.read(offset, 6)
    if len(head) < 6:
        return declared or Encoding(explicit=False)
    explicit = is_explicit_at(source, offset)
    if head[:2] == b"\0\x08":
        return Encoding(explicit, big_endian=True)
    if head[:2] == b"\x08\0" or declared is None:
        return Encoding(explicit)
    return Encoding(explicit, declared.big_endian)


def walk(
    source: ByteSource,
    start: int,
    encoding: Encoding,
    *,
    chosen: AbstractSet[int],
    landmarks: AbstractSet[int],
    only_group: int | None = None,
    elements_limit: int,
) -> DataSet:
    """Walk the elements from ``start`` to the end of the data, or to the end of ``only_group``. No tag may be both
    ``chosen`` and one of the ``landmarks``, to which those of pixel data belong.

    Sequences and items of defined length are jumped over as a whole, those of undefined length are walked down to
    their delimiters, encapsulated pixel data fragment by fragment (PS3.5 A.4). Where less is there than is declared,
    zeros stand in the place of an element, or the bytes are no data elements, the walk ends with `DataSet.damage`, and
    what it has found before is handed out. Raises Unarchivable only where it gives up: "too-many-elements" above
    ``elements_limit``, "malformed" for sequences nested too deeply, "tail" below.

    Bytes after the pixel data that are no further elements do no harm to a study: zeros or anything else there is
    noted and accepted, unless it is far more than the data set itself ("tail"). Without pixel data fewer than 8 zeros
    are padding, for they can hold no element; less than a sector of them is for the caller to judge (`DataSet.zeros`);
    more is a tail that was never written.
    """
    found = DataSet(encoding)
    elements = Elements(source, encoding, elements_limit)
    pos = begin = last = start
    tag = 0
    window, base = b"", start  # what is in memory, and where it begins
    try:
        while True:
            begin = pos
            index = pos - base
            if index + 12 > len(window):
                window, index = source.window(pos, 12)
                base = pos - index
                if len(window) - index < SMALLEST_ELEMENT_BYTES:
                    _end(found, window[index:])
                    break
            previous = tag
            tag, length, header_bytes = elements.parse(window, index, encoding.explicit)
            if only_group is not None and tag >> 16 != only_group:
                tag = previous
                break
            if found.pixel_tag is not None and is_foreign(tag, found.pixel_tag):
                tag = previous
                found.notes.append(_what_follows(source, pos))
                break
            if tag == 0:
                found.last_tag = tag = previous
                found.zeros = _zeros_to_the_end(source, pos)
                if not found.zeros:
                    found.distrust_zeros()
                    raise DamageFound(CUT_OFF_BY_ZEROS)
                found.notes.append(_PADDING)
                break
            last = begin
            pos += header_bytes
            if tag < previous:
                found.reached(previous)
            value: bytes | None = None
            if length == UNDEFINED:
                is_pixels = tag in PIXELS
                if tag in chosen:
                    value = source.read(pos, FIRST_ITEM_BYTES)
                pos, items, filled = elements.skip_items(pos, explicit=encoding.explicit, fragments=is_pixels)
                if value is not None:
                    _take(found, tag, value, len(value))
                elif tag in landmarks:
                    found.landmarks[tag] = items > 0
                if is_pixels:
                    found.pixel_tag, found.pixel_bytes, found.fragments = tag, None, filled
                    found.pixel_offset = begin
                continue
            if tag in chosen:
                first, kept = index + header_bytes, min(length, VALUE_LIMIT_BYTES)
                value = window[first : first + kept] if first + kept <= len(window) else source.read(pos, kept)
            pos += length
            if not source.holds(pos):
                raise DamageFound("the file ends inside an element's value")
            if value is not None:  # not before it is known to be all there
                _take(found, tag, value, length)
            elif tag in landmarks:
                found.landmarks[tag] = length > 0
                if length and tag in PIXELS:
                    found.pixel_tag, found.pixel_bytes, found.pixel_offset = tag, length, begin
        found.last_tag = tag
    except DamageFound as damage:
        found.damage = damage
    found.reached(found.last_tag)
    found.last_offset, found.end = last, begin
    return found


def look_for_zeros(source: ByteSource, found: DataSet, elements_limit: int) -> None:
    """Note as damaged a data set whose last element is a sequence of defined length that zeros cut off. It was walked
    to its end, and ``source`` can be read once more.

    The walk jumps over such a sequence, whose length says nothing of a tail that was never written. The zeros of one go
    on to the end, so it is enough to look into what reaches as far: of each sequence the last item, of each item the
    last element. What is malformed otherwise is passed over.
    """
    elements = Elements(source, found.encoding, elements_limit)
    explicit, pos, end = found.encoding.explicit, found.last_offset, found.end
    if found.last_tag in PIXELS or source.read(end - 1, 1) != b"\0":
        return
    try:
        while pos + SMALLEST_ELEMENT_BYTES <= end:
            head = source.read(pos, 12)
            tag, length, header_bytes = elements.parse(head, 0, explicit)
            if pos == found.last_offset and length == UNDEFINED:
                return  # the walk was in there
            pos += header_bytes
            reaches = length == UNDEFINED or pos + length >= end
            if tag == 0 or (length != UNDEFINED and pos + length > end and not any(source.read(end - 8, 8))):
                found.damage, found.end = DamageFound(_SEQUENCE_CUT_OFF), found.last_offset
                return
            if tag == ITEM and reaches:
                explicit = found.encoding.explicit and is_explicit_at(source, pos)
            elif tag >> 16 == _DELIMITERS_GROUP and tag != ITEM:
                explicit = found.encoding.explicit
            elif not reaches or not (length == UNDEFINED or _is_sequence(tag, head)):
                pos += length
    except (DamageFound, Unarchivable):
        return


def _is_sequence(tag: int, head: bytes) -> bool:
    """By its VR, or by what the dictionary says where it has none."""
    return head[4:6] == b"SQ" or (dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ")


def first_item(value: bytes, encoding: Encoding, chosen: AbstractSet[int]) -> dict[int, bytes]:
    """Of a sequence's value, as `walk` has kept it, the ``chosen`` elements of its first item; what is malformed, or in
    a sequence within, is passed over. Raises nothing."""
    elements = Elements(MemoryBytes(value), encoding, len(value) // 8 + 1)
    values: dict[int, bytes] = {}
    try:
        tag, length, pos = elements.parse(value[:12], 0, encoding.explicit) if len(value) >= 8 else (0, 0, 0)
        if tag != ITEM:
            return {}
        end = len(value) if length == UNDEFINED else min(pos + length, len(value))
        while pos + 8 <= end:
            tag, length, header_bytes = elements.parse(value[pos : pos + 12], 0, encoding.explicit)
            pos += header_bytes
            if tag == ITEM_END or length == UNDEFINED or pos + length > end:
                break
            if tag in chosen:
                values.setdefault(tag, value[pos : pos + length])
            pos += length
    except (DamageFound, Unarchivable):
        pass
    return values


def is_foreign(tag: int, pixel_tag: int) -> bool:
    """Whether nothing of a data set can start with this tag behind the pixel data."""
    group = tag >> 16
    return tag <= pixel_tag or (group % 2 == 0 and group not in _GROUPS_BEHIND_PIXELS)


def _take(found: DataSet, tag: int, value: bytes, length: int) -> None:
    if length > VALUE_LIMIT_BYTES:
        found.overlong.add(tag)
    if found.values.setdefault(tag, value) != value:
        found.contradictory.add(tag)


def _end(found: DataSet, rest: bytes) -> None:
    """Judge the fewer than 8 bytes that are left, too few for any element."""
    if not rest:
        return
    if any(rest):
        raise DamageFound("the file ends inside an element's header")
    found.zeros = len(rest)
    found.notes.append(_PADDING)


def _zeros_to_the_end(source: ByteSource, pos: int) -> int:
    """How many bytes are left, 0 when they are not all zero or a sector and more."""
    rest = source.read(pos, SECTOR_BYTES)
    return len(rest) if len(rest) < SECTOR_BYTES and not any(rest) else 0


def _what_follows(source: ByteSource, end: int) -> str:
    """A note on what comes after a data set that ends at ``end``. Raises Unarchivable when that is far more than the
    data set: sparse files have been seen that are a slice and a hole of a terabyte."""
    limit = end + max(end, TAIL_LIMIT_BYTES)
    step = 1024 * 1024
    pos = end
    zeros = True
    while piece := source.read(pos, step):
        pos += len(piece)
        zeros = zeros and piece.count(0) == len(piece)
        if pos > limit:
            raise Unarchivable("far more bytes follow the data set than belong to it", code="tail")
    return _PADDING if zeros else "bytes after the data set do not belong to it"


class Elements:
    """Parses elements' headers and jumps over values of undefined length, counting against the limit."""

    def __init__(self, source: ByteSource, encoding: Encoding, limit: int) -> None:
        self._source = source
        order = ">" if encoding.big_endian else "<"
        self._explicit = struct.Struct(order + "HH2sH").unpack_from
        self._implicit = struct.Struct(order + "HHL").unpack_from
        self._long = struct.Struct(order + "L").unpack_from
        self._left = limit

    def parse(self, data: bytes, at: int, explicit: bool) -> tuple[int, int, int]:
        """(tag, length of the value, length of the header) from 12 bytes, or 8 at the end of the data."""
        self._left -= 1
        if self._left < 0:
            raise Unarchivable("it has too many data elements for its size", code="too-many-elements")
        if explicit:
            group, element, vr, short = self._explicit(data, at)
            tag: int = group << 16 | element
            if vr in _SHORT_VRS and group != _DELIMITERS_GROUP:
                return tag, short, 8
            if group != _DELIMITERS_GROUP and (vr in _LONG_VRS or _is_vr(vr)):
                # A VR of the future has 32 bits for its length, behind two zero bytes (PS3.5 section 7.1.2).
                if short and vr not in _LONG_VRS:
                    return tag, short, 8
                if len(data) - at < 12:
                    raise DamageFound("the file ends inside an element's header")
                return tag, self._long(data, at + 8)[0], 12
            # A delimiter; or an element written with implicit VR amid explicit ones: some writers do that.
        group, element, length = self._implicit(data, at)
        return group << 16 | element, length, 8

    def skip_items(self, pos: int, *, explicit: bool, fragments: bool) -> tuple[int, int, int]:
        """Walk the items of a value of undefined length (PS3.5 7.5.2, A.4) that starts at ``pos``.

        Gives the position after its sequence delimiter, the number of its own items, and how many of them after the
        first are not empty: the fragments behind the offset table. A length that leads beyond the end shows in the next
        header, which is not there. An iteration with a stack of its own, because the depth is the file's choice.
        """
        source = self._source
        outer: list[bool] = []  # for every open item, whether the elements around it are explicit
        in_item = False
        items = filled = 0
        while True:
            head = source.read(pos, 12)
            if len(head) < 8:
                raise DamageFound("the file ends inside a sequence or encapsulated pixel data")
            tag, length, header_bytes = self.parse(head, 0, explicit)
            pos += header_bytes
            if tag == 0:
                raise DamageFound(_SEQUENCE_CUT_OFF)
            if in_item and tag == ITEM_END:
                explicit = outer.pop()
                in_item = False
            elif in_item and length == UNDEFINED:
                in_item = False
            elif in_item:
                pos += length
            elif tag == SEQUENCE_END:
                if not outer:
                    return pos, items, filled
                in_item = True
            elif tag != ITEM or (fragments and length == UNDEFINED):
                raise DamageFound("a sequence or encapsulated pixel data is malformed", "malformed")
            else:
                if not outer:
                    if items and length:
                        filled += 1
                    items += 1
                if length != UNDEFINED:
                    pos += length
                    continue
                if len(outer) >= DEPTH_LIMIT:
                    raise Unarchivable("sequences are nested too deeply", code="malformed")
                outer.append(explicit)
                # An item of a sequence written as UN is implicit amid explicit ones (PS3.5 6.2.2 note 2).
                explicit = explicit and is_explicit_at(source, pos)
                in_item = True


def is_explicit_at(source: ByteSource, pos: int) -> bool:
    return _is_vr(source.read(pos, 6)[4:6])


def _is_vr(field: bytes) -> bool:
    """Whether two bytes are a VR, known or not: as the low half of an implicit length they would mean 16 KB and
    more in the very first element."""
    return field.isalpha() and field.isupper()
