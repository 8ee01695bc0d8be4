"""One instance on its way past: its header as DICOM JSON (PS3.18 Annex F), where its bulk data stands, and where its
frames are, each with its SHA-256. The bytes come once, in order; pixels are hashed and never kept.

A walk of our own, and not pydicom's data set made JSON: that takes ten times as long, needs the file whole, puts values
of patients into warnings, and refuses all of a file for one value. How what is read compares with pydicom's is tested.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from dicomwatchd.intake.dicom.decoding import CharacterSet, character_set
from dicomwatchd.intake.dicom.opening import DEFLATED, declared_encoding, plain_uid
from dicomwatchd.intake.dicom.reading import MemoryBytes
from dicomwatchd.intake.dicom.structure import (
    ITEM,
    ITEM_END,
    PIXELS,
    SEQUENCE_END,
    UNDEFINED,
    Encoding,
    encoding_at,
    is_foreign,
)
from dicomwatchd.series import pixels, values
from dicomwatchd.series.forward import Forward, inflated
from dicomwatchd.series.pixels import FRAMES_LIMIT, Description, Pixels
from dicomwatchd.series.unreadable import Unreadable
from dicomwatchd.series.values import Element, Seen

#: Elements of one instance that are read, and the bytes of their values that are in its JSON. An enhanced image of
#: 5,000 frames has some 200,000 elements, of 3 MB.
ELEMENTS_LIMIT = 400_000
VALUES_LIMIT_BYTES = 16 * 1024**2
DEPTH_LIMIT = 100

_PREAMBLE_BYTES = 128
_TRANSFER_SYNTAX = 0x00020010
_CHARACTER_SET = "00080005"
_PIXEL_REPRESENTATION = "00280103"
_EXTENDED = (0x7FE00001, 0x7FE00002)
_TRAILING_PADDING = 0xFFFCFFFC
_DELIMITERS = 0xFFFE
_TOO_MUCH = "its header has more than is read"
_MALFORMED = "a sequence is malformed"
_CUT_OFF = "the file ends inside an element"

DicomJson = dict[str, Element]


@dataclass(frozen=True, slots=True)
class Bulk:
    """A value that is too long for the JSON: ``length_bytes`` from ``offset_bytes`` on, in the data set's bytes and its
    byte order."""

    vr: str
    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class Extracted:
    """What there is to know of an instance. ``sha256`` and ``size_bytes`` are those of all bytes that came.

    ``attributes`` are those of the data set, without group lengths and without what is in ``bulk``, whose element there
    has its VR alone; ``bulk`` is by where in the JSON it belongs: tags, and between them the number of the item, from 0
    on, with "/" between. ``left_out`` are places of sequences that cannot be read, or are too much. ``unreadable`` says
    why the header ends where it does, "" of one that was read to its end.

    Offsets count in the file; where ``is_deflated`` in what its data set inflates to. ``is_big_endian``: bulk data and
    frames are."""

    sha256: str
    size_bytes: int
    transfer_syntax_uid: str = ""
    attributes: DicomJson = field(default_factory=dict)
    bulk: dict[str, Bulk] = field(default_factory=dict)
    pixels: Pixels | None = None
    left_out: tuple[str, ...] = ()
    unreadable: str = ""
    is_deflated: bool = False
    is_big_endian: bool = False


def extract(
    chunks: Iterable[bytes | memoryview],
    size_bytes: int,
    transfer_syntax_uid: str = "",
    seen: Seen | None = None,
    *,
    sha256: str = "",
    elements_limit: int = ELEMENTS_LIMIT,
    frames_limit: int | None = None,
) -> Extracted:
    """Read all of a file, whose size is said to be ``size_bytes``, to its end. ``transfer_syntax_uid`` is what the
    archive has on record of it, for a file that declares none; ``seen`` what other instances of its series have said.
    ``sha256`` is that of all of it, for whoever has just worked it out. Raises nothing of its own, whatever the bytes
    are; what ``chunks`` raises, and TooManyFrames above ``frames_limit``, for whoever cannot spare what they take: a
    file of 12 MB may have a million fragments, which take 900 MB."""
    file = Forward(chunks, sha256)
    found = Extracted("", 0)
    walk: _Walk | None = None
    unreadable = ""
    try:
        declared = pass_file_meta(file) or transfer_syntax_uid
        found = replace(found, transfer_syntax_uid=declared, is_deflated=declared in DEFLATED)
        data = Forward(inflated(file, size_bytes)) if found.is_deflated else file
        encoding = encoding_at(MemoryBytes(data.peek(8)), 0, declared_encoding(declared))
        found = replace(found, is_big_endian=encoding.big_endian)
        walk = _Walk(data, encoding, declared, seen or Seen(), elements_limit, frames_limit)
        walk.data_set()
    except Unreadable as error:
        unreadable = str(error)
    all_sha256 = file.finish()
    if walk is not None:
        found = replace(
            found,
            attributes=walk.attributes,
            bulk=walk.bulk,
            pixels=walk.pixels,
            left_out=tuple(walk.left_out),
        )
    return replace(found, sha256=all_sha256, size_bytes=file.at, unreadable=unreadable)


def pass_file_meta(file: Forward) -> str:
    """Passes over the file meta information (PS3.10 section 7.1), and says which transfer syntax it declares."""
    if file.peek(_PREAMBLE_BYTES + 4)[_PREAMBLE_BYTES:] == b"DICM":
        file.skip(_PREAMBLE_BYTES + 4)
    declared = ""
    while file.peek(2) == b"\x02\0":
        head = file.take(8)
        if len(head) < 8:
            raise Unreadable(_CUT_OFF)
        group, element, vr, length = struct.unpack("<HH2sH", head)
        if vr in values.LONG:
            length = int.from_bytes(file.take(4), "little")
        if group << 16 | element == _TRANSFER_SYNTAX and length <= values.INLINE_BINARY_BYTES:
            declared = plain_uid(file.take(length))
        elif file.skip(length) < length:
            raise Unreadable(_CUT_OFF)
    return declared


class _Walk:
    """Through one data set; ``attributes`` and the others hold what was found so far, whatever ends it."""

    def __init__(
        self,
        data: Forward,
        encoding: Encoding,
        transfer_syntax_uid: str,
        seen: Seen,
        limit: int,
        frames_limit: int | None,
    ) -> None:
        self._data = data
        self._frames_limit = frames_limit
        self._seen = seen
        self._explicit = encoding.explicit
        self._big_endian = encoding.big_endian
        self._transfer_syntax_uid = transfer_syntax_uid
        order = ">" if encoding.big_endian else "<"
        self._tag = struct.Struct(order + "HH").unpack_from
        self._head = struct.Struct(order + "HH2sH").unpack_from
        self._long = struct.Struct(order + "L").unpack_from
        self._elements_left = limit
        self._bytes_left = VALUES_LIMIT_BYTES
        self._extended: dict[int, bytes] = {}
        self.attributes: DicomJson = {}
        self.bulk: dict[str, Bulk] = {}
        self.pixels: Pixels | None = None
        self.left_out: list[str] = []

    def data_set(self) -> None:
        """To its end. Raises Unreadable."""
        self._elements(self.attributes, None, "", 0, explicit=self._explicit, charset=character_set(b""), signed=False)

    def _elements(
        self,
        into: DicomJson,
        end: int | None,
        place: str,
        depth: int,
        *,
        explicit: bool,
        charset: CharacterSet,
        signed: bool,
    ) -> None:
        """The elements up to ``end``, or to an item's delimiter; ``depth`` 0 is the data set, which ends where there is
        nothing more."""
        data, head, short = self._data, self._head, values.SHORT.get
        take, seen, known = data.take, self._seen.element, self._seen.known(big_endian=self._big_endian)
        while end is None or data.at < end:
            if end is not None and data.at + 8 > end:
                raise Unreadable(_MALFORMED)
            header = take(8)
            if len(header) < 8:
                if depth or any(header):
                    raise Unreadable(_CUT_OFF)
                return
            group, number, field_, length = head(header)
            tag = group << 16 | number
            found: Element
            if group == _DELIMITERS:
                if tag == ITEM_END and depth and end is None:
                    return
                if depth:
                    raise Unreadable(_MALFORMED)
                return
            if not depth and (not tag or (self.pixels is not None and is_foreign(tag, int(self.pixels.tag, 16)))):
                return  # padding, or what is none of the data set's
            vr = short(field_) if explicit else None
            if vr is not None and length <= values.SEEN_BYTES and (end is None or data.at + length <= end):
                # Nearly all there are: texts and numbers, which were said before.
                self._elements_left -= 1
                if self._elements_left < 0:
                    raise Unreadable(_TOO_MUCH)
                raw = take(length)
                if len(raw) < length:
                    raise Unreadable(_CUT_OFF)
                found = known.get((vr, raw)) or seen(vr, raw, charset, big_endian=self._big_endian)
                name = f"{tag:08X}"
                if number and name not in into:
                    into[name] = found
                if name == _CHARACTER_SET:
                    charset = _declared_by(found)
                elif name == _PIXEL_REPRESENTATION:
                    signed = found.get("Value") == [1]
                continue
            if vr is None:
                vr, length = self._vr_and_length(tag, header, explicit=explicit)
            if end is not None and length != UNDEFINED and data.at + length > end:
                raise Unreadable(_MALFORMED)
            self._elements_left -= 1
            if self._elements_left < 0:
                raise Unreadable(_TOO_MUCH)
            name = f"{tag:08X}"
            at = f"{place}{name}"
            if tag in PIXELS and not depth:
                found = self._pixels(tag, vr, length)
            elif vr == "SQ" or length == UNDEFINED or (vr == "UN" and values.vr_of(tag) == "SQ"):
                found = self._sequence(at, vr, length, depth, explicit=explicit, charset=charset, signed=signed)
            else:
                if vr == "xs":
                    vr = "SS" if signed else "US"
                found = self._value(tag, at, vr, length, charset, depth)
                if name == _CHARACTER_SET:
                    charset = _declared_by(found)
                elif name == _PIXEL_REPRESENTATION:
                    signed = found.get("Value") == [1]
            if number and tag != _TRAILING_PADDING and name not in into:
                into[name] = found
        if end is not None and data.at != end:
            raise Unreadable(_MALFORMED)

    def _vr_and_length(self, tag: int, header: bytes, *, explicit: bool) -> tuple[str, int]:
        """``header`` are the element's first 8 bytes. "xs" is US or SS."""
        field_ = header[4:6]
        if not explicit or not (field_.isalpha() and field_.isupper()):
            return values.vr_of(tag), self._long(header, 4)[0]
        # A VR of the future has 32 bits for its length, behind two zero bytes (PS3.5 section 7.1.2).
        if field_ in values.LONG or (field_ not in values.SHORT and header[6:8] == b"\0\0"):
            rest = self._data.take(4)
            if len(rest) < 4:
                raise Unreadable(_CUT_OFF)
            return field_.decode("ascii"), self._long(rest, 0)[0]
        return field_.decode("ascii"), self._head(header)[3]

    def _value(self, tag: int, at: str, vr: str, length: int, charset: CharacterSet, depth: int) -> Element:
        data = self._data
        if vr == "UN" and length <= values.INLINE_TEXT_BYTES:
            known = values.vr_of(tag)
            vr = "US" if known == "xs" else known
        if tag in _EXTENDED and not depth and length <= 8 * FRAMES_LIMIT:
            begin, raw = data.at, self._taken(length)
            self._extended[tag] = raw
            if length <= values.limit_bytes(vr):
                return values.element(vr, raw, charset, big_endian=self._big_endian)
            self.bulk[at] = Bulk(vr, begin, length)
            return {"vr": vr}
        if length > values.limit_bytes(vr):
            self.bulk[at] = Bulk(vr, data.at, length)
            if data.skip(length) < length:
                del self.bulk[at]
                raise Unreadable(_CUT_OFF)
            return {"vr": vr}
        self._bytes_left -= length
        if self._bytes_left < 0:
            raise Unreadable(_TOO_MUCH)
        raw = self._taken(length)
        return self._seen.element(vr, raw, charset, big_endian=self._big_endian)

    def _taken(self, length: int) -> bytes:
        raw = self._data.take(length)
        if len(raw) < length:
            raise Unreadable(_CUT_OFF)
        return raw

    def _pixels(self, tag: int, vr: str, length: int) -> Element:
        said = Description.of(self.attributes)
        if length == UNDEFINED:
            tables = self._extended
            extended = (tables[_EXTENDED[0]], tables[_EXTENDED[1]]) if len(tables) == len(_EXTENDED) else None
            found = pixels.encapsulated(
                self._data, tag, vr, said, self._transfer_syntax_uid, extended, limit=self._frames_limit
            )
        elif length:
            found = pixels.native(
                self._data, tag, vr, length, said, big_endian=self._big_endian, limit=self._frames_limit
            )
        else:
            return {"vr": vr}
        if self.pixels is None:
            self.pixels = found
        return {"vr": vr}

    def _sequence(
        self, at: str, vr: str, length: int, depth: int, *, explicit: bool, charset: CharacterSet, signed: bool
    ) -> Element:
        """One of defined length that cannot be read is passed over; the data set goes on behind it."""
        data = self._data
        if vr in ("OB", "OW"):  # encapsulated, and not the image's pixels: an icon's
            self._fragments()
            self.left_out.append(at)
            return {"vr": vr}
        if vr == "UN":  # its items are implicit VR little endian (PS3.5 section 6.2.2, note 2)
            explicit = False
        items: list[DicomJson] = []
        end = None if length == UNDEFINED else data.at + length
        try:
            if depth >= DEPTH_LIMIT:
                raise Unreadable("sequences are nested too deeply")
            self._items(items, end, at, depth, explicit=explicit, charset=charset, signed=signed)
        except Unreadable:
            if end is None or data.at > end:
                raise
            if data.skip(end - data.at) and data.at < end:
                raise
            self.left_out.append(at)
            for key in [key for key in self.bulk if key.startswith(f"{at}/")]:
                del self.bulk[key]
            return {"vr": "SQ"}
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}

    def _items(
        self,
        items: list[DicomJson],
        end: int | None,
        at: str,
        depth: int,
        *,
        explicit: bool,
        charset: CharacterSet,
        signed: bool,
    ) -> None:
        data = self._data
        while end is None or data.at < end:
            header = self._taken(8)
            group, number = self._tag(header)
            tag, length = group << 16 | number, self._long(header, 4)[0]
            if tag == SEQUENCE_END and end is None:
                return
            if tag != ITEM or (end is not None and length != UNDEFINED and data.at + length > end):
                raise Unreadable(_MALFORMED)
            self._elements_left -= 1
            if self._elements_left < 0:
                raise Unreadable(_TOO_MUCH)
            of_item: DicomJson = {}
            self._elements(
                of_item,
                None if length == UNDEFINED else data.at + length,
                f"{at}/{len(items)}/",
                depth + 1,
                # One of a sequence written as UN is implicit amid explicit ones.
                explicit=explicit and _is_vr(data.peek(6)[4:6]),
                charset=charset,
                signed=signed,
            )
            items.append(of_item)
        if end is not None and data.at != end:
            raise Unreadable(_MALFORMED)

    def _fragments(self) -> None:
        while True:
            header = self._taken(8)
            group, number = self._tag(header)
            tag, length = group << 16 | number, self._long(header, 4)[0]
            if tag == SEQUENCE_END:
                return
            self._elements_left -= 1
            if tag != ITEM or length == UNDEFINED or self._elements_left < 0:
                raise Unreadable(_MALFORMED)
            if self._data.skip(length) < length:
                raise Unreadable(_CUT_OFF)


def _declared_by(found: Element) -> CharacterSet:
    terms = found.get("Value")
    text = "\\".join(str(term or "") for term in terms) if isinstance(terms, list) else ""
    return character_set(text.encode("latin_1", "replace"))


def _is_vr(field_: bytes) -> bool:
    return not field_ or (field_.isalpha() and field_.isupper())
