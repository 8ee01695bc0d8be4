"""Where each frame of an image is, and its SHA-256: computed where the pixel data is native, told by its fragments
where it is encapsulated (PS3.5 sections 8.2 and A.4). What cannot be told is said to be so, with the reason, and never
guessed."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dicomwatchd.intake.dicom.structure import DOUBLE_PIXEL_DATA, FLOAT_PIXEL_DATA, ITEM, SEQUENCE_END, UNDEFINED
from dicomwatchd.series.forward import Forward
from dicomwatchd.series.unreadable import TooManyFrames, Unreadable
from dicomwatchd.series.values import Element

#: A whole slide at its finest has some 200,000 tiles.
FRAMES_LIMIT = 500_000
#: Each takes some 900 bytes of memory.
_FRAGMENTS_LIMIT = 250_000

# JPEG, JPEG-LS (SOI and another marker) and JPEG 2000 (SOC and SIZ), which a frame begins with; EOI and EOC, which it
# ends with, before a byte of padding.
_BEGINS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")
_ENDS = (b"\xff\xd9", b"\xff\xd9\x00")
_VIDEO = ("1.2.840.10008.1.2.4.10", "1.2.840.10008.1.2.7")  # MPEG-2 to HEVC, and SMPTE ST 2110; JPIP is not among them


class Frame(NamedTuple):
    """``pieces`` are (offset, length) in the data set's bytes, which together are the frame as it is stored."""

    pieces: tuple[tuple[int, int], ...]
    sha256: str

    @property
    def size_bytes(self) -> int:
        return sum(length for _, length in self.pieces)


@dataclass(frozen=True, slots=True)
class Pixels:
    """Pixel Data (7FE0,0010), or one of its floating point kin. ``offset_bytes`` is where its value begins, of
    ``length_bytes``, items and delimiter included where it is encapsulated.

    ``frames`` are in their order. ``known_by``: how the frames are known, "" where they are not; then ``why_not``
    says why, in plain words, and there are none."""

    tag: str
    vr: str
    offset_bytes: int
    length_bytes: int
    is_encapsulated: bool
    frames: tuple[Frame, ...] = ()
    known_by: str = ""
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Description:
    """What the data set says of its pixels (PS3.3 section C.7.6.3). None: it does not say."""

    frames: int | None
    rows: int | None
    columns: int | None
    samples: int | None
    bits_allocated: int | None
    photometric: str

    @classmethod
    def of(cls, attributes: Mapping[str, Element]) -> Description:
        photometric = _first(attributes, "00280004")
        return cls(
            _count(attributes, "00280008", 1),
            _count(attributes, "00280010"),
            _count(attributes, "00280011"),
            _count(attributes, "00280002", 1),
            _count(attributes, "00280100"),
            photometric if isinstance(photometric, str) else "",
        )

    def frame_bits(self, tag: int) -> int | None:
        """Of one frame, native."""
        bits = {FLOAT_PIXEL_DATA: 32, DOUBLE_PIXEL_DATA: 64}.get(tag, self.bits_allocated)
        if self.rows is None or self.columns is None or self.samples is None or bits is None:
            return None
        # Two pixels share their chrominance (PS3.3 C.7.6.3.1.2).
        samples = 2 if self.photometric in ("YBR_FULL_422", "YBR_PARTIAL_422") and self.samples == 3 else self.samples
        return self.rows * self.columns * samples * bits


def native(
    data: Forward,
    tag: int,
    vr: str,
    length_bytes: int,
    said: Description,
    *,
    big_endian: bool = False,
    limit: int | None = None,
) -> Pixels:
    """The value begins at ``data.at``. Raises Unreadable where it is cut off, TooManyFrames above ``limit``."""
    begin = data.at
    found = Pixels(f"{tag:08X}", vr, begin, length_bytes, is_encapsulated=False)
    frame_bytes, why_not = _native_frame_bytes(tag, length_bytes, said)
    if frame_bytes % 2 and big_endian and vr == "OW":  # its bytes are in words, the last of which is half a frame's
        frame_bytes, why_not = frame_bytes + 1, "its frames do not begin at words"
        if said.frames != 1 or frame_bytes > length_bytes:
            frame_bytes = 0
    if not frame_bytes:
        _pass(data, length_bytes)
        return _untold(found, why_not)
    if limit is not None and (said.frames or 0) > limit:
        raise TooManyFrames
    frames = []
    for number in range(said.frames or 0):
        digest = hashlib.sha256()
        taken = 0
        for piece in data.pieces(frame_bytes):
            digest.update(piece)
            taken += len(piece)
        if taken < frame_bytes:
            raise Unreadable("the file ends inside its pixel data")
        frames.append(Frame(((begin + number * frame_bytes, frame_bytes),), digest.hexdigest()))
    _pass(data, length_bytes - (data.at - begin))
    return _told(found, frames, "computed")


def _native_frame_bytes(tag: int, length_bytes: int, said: Description) -> tuple[int, str]:
    """0 and a reason where it cannot be told."""
    bits = said.frame_bits(tag)
    if bits is None or said.frames is None:
        return 0, "the data set does not say how large its frames are, or how many"
    if said.frames > FRAMES_LIMIT:
        return 0, "it has more frames than are listed"
    if bits % 8 and said.frames > 1:
        return 0, "its frames do not begin at bytes"
    frame_bytes = -(-bits // 8)
    whole = frame_bytes * said.frames
    if not frame_bytes or length_bytes < whole or (length_bytes - whole > 1 and said.frames > 1):
        return 0, "its pixel data has another length than its rows, columns and frames say"
    return frame_bytes, ""


class _Fragment(NamedTuple):
    """``item_offset`` is counted from the first item behind the offset table, as the tables count."""

    item_offset: int
    offset: int
    length: int
    sha256: str
    is_begin: bool
    is_end: bool


@dataclass(slots=True)
class _Group:
    """Fragments that may be a frame."""

    first: int
    digest: hashlib._Hash
    last: int = 0
    sha256: str = ""


def encapsulated(
    data: Forward,
    tag: int,
    vr: str,
    said: Description,
    transfer_syntax_uid: str,
    extended: tuple[bytes, bytes] | None,
    *,
    limit: int | None = None,
) -> Pixels:
    """The items begin at ``data.at``. ``extended`` are the values of Extended Offset Table (7FE0,0001) and Extended
    Offset Table Lengths (7FE0,0002). Raises Unreadable where it is cut off or malformed, TooManyFrames where there are
    more than ``limit`` fragments."""
    begin = data.at
    table = _offset_table(data)
    offsets, lengths = _extended(extended)
    fragments, groups = _fragments(data, said, frozenset(table), lengths, limit)
    found = Pixels(f"{tag:08X}", vr, begin, data.at - begin, is_encapsulated=True)
    frames = said.frames
    if frames is None:
        return _untold(found, "the data set does not say how many frames it has")
    if frames > FRAMES_LIMIT:
        return _untold(found, "it has more frames than are listed")
    if transfer_syntax_uid.startswith(_VIDEO) and frames > 1:
        return _untold(found, "it is video: one stream of all frames")
    if not fragments:
        return _untold(found, "its pixel data is empty")
    if offsets and _fits(offsets, lengths, fragments, frames):
        pieces = zip(fragments, lengths, strict=True)
        return _told(found, [Frame(((one.offset, size),), one.sha256) for one, size in pieces], "extended-offset-table")
    if lengths:  # by which the fragments were hashed
        return _untold(found, "its extended offset table does not fit its fragments")
    if len(fragments) == frames:  # each frame has one at least, and none is shared (PS3.5 A.4)
        return _told(found, [Frame(((one.offset, one.length),), one.sha256) for one in fragments], "fragments")
    grouped = [_frame(fragments, group) for group in groups]
    if frames == 1:
        return _told(found, grouped, "fragments")
    if table:
        begins = [fragments[group.first].item_offset for group in groups]
        if begins == list(table) and len(table) == frames:
            return _told(found, grouped, "basic-offset-table")
        return _untold(found, "its basic offset table does not fit its fragments")
    if len(groups) == frames and all(
        fragments[group.first].is_begin and fragments[group.last].is_end for group in groups
    ):
        return _told(found, grouped, "markers")
    return _untold(found, "nothing says which fragments are a frame")


def _offset_table(data: Forward) -> Sequence[int]:
    tag, length = _item(data)
    if tag != ITEM or length == UNDEFINED:
        raise Unreadable("encapsulated pixel data is malformed")
    if length > 4 * FRAMES_LIMIT:
        _pass(data, length)
        return ()
    raw = data.take(length)
    if len(raw) < length:
        raise Unreadable("the file ends inside its pixel data")
    return struct.unpack(f"<{length // 4}I", raw[: length // 4 * 4])


def _extended(extended: tuple[bytes, bytes] | None) -> tuple[Sequence[int], Sequence[int]]:
    if extended is None:
        return (), ()
    offsets, lengths = (struct.unpack(f"<{len(raw) // 8}Q", raw[: len(raw) // 8 * 8]) for raw in extended)
    return offsets, lengths


def _fragments(
    data: Forward, said: Description, table: frozenset[int], lengths: Sequence[int], limit: int | None
) -> tuple[list[_Fragment], list[_Group]]:
    """Those that are not empty, each hashed as far as ``lengths`` says where that is given; and as groups that begin
    where the offset table says, or else where an image begins."""
    base = data.at
    fragments: list[_Fragment] = []
    groups: list[_Group] = []
    while True:
        item_offset = data.at - base
        tag, length = _item(data)
        if tag == SEQUENCE_END:
            break
        if tag != ITEM or length == UNDEFINED:
            raise Unreadable("encapsulated pixel data is malformed")
        if not length:
            continue
        if len(fragments) == limit:
            raise TooManyFrames
        if len(fragments) == _FRAGMENTS_LIMIT:
            raise Unreadable("its pixel data has too many fragments")
        number = len(fragments)
        begin = data.at
        is_begin = data.peek(min(length, 4)).startswith(_BEGINS)
        starts = not groups or (said.frames != 1 and (item_offset in table if table else is_begin))
        digest = hashlib.sha256()
        if starts:
            if groups:
                groups[-1].sha256 = groups[-1].digest.hexdigest()
            groups.append(_Group(number, digest))
        group = groups[-1]
        group.last = number
        hashed = lengths[number] if number < len(lengths) else length
        tail = b""
        for piece in data.pieces(length):
            within = piece[: max(0, hashed)]
            hashed -= len(within)
            digest.update(within)
            if group.digest is not digest:
                group.digest.update(piece)
            tail = (tail + piece)[-3:] if len(piece) < 3 else bytes(piece[-3:])
        if data.at - begin < length:
            raise Unreadable("the file ends inside its pixel data")
        fragments.append(_Fragment(item_offset, begin, length, digest.hexdigest(), is_begin, _ends(tail)))
    if groups:
        groups[-1].sha256 = groups[-1].digest.hexdigest()
    return fragments, groups


def _fits(offsets: Sequence[int], lengths: Sequence[int], fragments: Sequence[_Fragment], frames: int) -> bool:
    """PS3.3 section C.7.6.3.1.8: each frame is one fragment, and its length is known without padding."""
    return len(offsets) == len(lengths) == len(fragments) == frames and all(
        offset == one.item_offset and one.length - 1 <= size <= one.length
        for offset, size, one in zip(offsets, lengths, fragments, strict=True)
    )


def _frame(fragments: Sequence[_Fragment], group: _Group) -> Frame:
    members = fragments[group.first : group.last + 1]
    return Frame(tuple((one.offset, one.length) for one in members), group.sha256)


def _ends(tail: bytes) -> bool:
    return tail.endswith(_ENDS)


def _item(data: Forward) -> tuple[int, int]:
    head = data.take(8)
    if len(head) < 8:
        raise Unreadable("the file ends inside its pixel data")
    group, element, length = struct.unpack("<HHL", head)
    return group << 16 | element, length


def _pass(data: Forward, length: int) -> None:
    if data.skip(length) < length:
        raise Unreadable("the file ends inside its pixel data")


def _told(found: Pixels, frames: Sequence[Frame], known_by: str) -> Pixels:
    return Pixels(
        found.tag,
        found.vr,
        found.offset_bytes,
        found.length_bytes,
        found.is_encapsulated,
        tuple(frames),
        known_by,
    )


def _untold(found: Pixels, why_not: str) -> Pixels:
    return Pixels(found.tag, found.vr, found.offset_bytes, found.length_bytes, found.is_encapsulated, why_not=why_not)


def _first(attributes: Mapping[str, Element], tag: str) -> object:
    values = attributes.get(tag, {}).get("Value")
    return values[0] if isinstance(values, list) and values else None


def _count(attributes: Mapping[str, Element], tag: str, missing: int | None = None) -> int | None:
    """None of what is no number above 0; ``missing`` of what is not there or empty."""
    value = _first(attributes, tag)
    if value is None:
        return missing
    return value if isinstance(value, int) and value > 0 else None
