"""What a file's own attributes say of how many instances there should be, as `study_signs` has it.

Worked out of raw values for every file, so it makes no objects but numbers. What is malformed is as if it were not
there; nothing is raised, and nothing said of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

from dicomwatchd.errors import InvalidUid
from dicomwatchd.model import Uid
from dicomwatchd.study_completeness import PET
from dicomwatchd.study_signs import WHOLE_NUMBER, WHOLE_POSITION_UM, Part, Signs, is_number, is_position

_NUMBER = 0x00200013
_POSITION, _ORIENTATION = 0x00200032, 0x00200037
_CONCATENATION, _PART, _PARTS = 0x00209161, 0x00209162, 0x00209163
_IN_STUDY, _IN_SERIES = 0x00201208, 0x00201209
_RR_INTERVALS, _TIME_SLOTS, _SLICES, _TIME_SLICES = 0x00540061, 0x00540071, 0x00540081, 0x00540101
_PET_TYPE = 0x00541000
_MATRIX_COLUMNS, _MATRIX_ROWS = 0x00480006, 0x00480007
_OPTICAL_PATHS, _FOCAL_PLANES = 0x00480302, 0x00480303
_TILED = 0x00209311  # Dimension Organization Type
_FRAMES, _ROWS, _COLUMNS = 0x00280008, 0x00280010, 0x00280011
CHOSEN_TAGS = frozenset(
    {
        _NUMBER,
        _POSITION,
        _ORIENTATION,
        _CONCATENATION,
        _PART,
        _PARTS,
        _IN_STUDY,
        _IN_SERIES,
        _RR_INTERVALS,
        _TIME_SLOTS,
        _SLICES,
        _TIME_SLICES,
        _PET_TYPE,
        _MATRIX_COLUMNS,
        _MATRIX_ROWS,
        _OPTICAL_PATHS,
        _FOCAL_PLANES,
        _TILED,
        _FRAMES,
        _ROWS,
        _COLUMNS,
    }
)
_NUMBER_BYTES = 16  # a little more than an IS element may have
#: More images, frames or tiles than this are a mistake.
_MOST = 10**7
#: A direction of which the cosines make less or more than one.
_LEAST_LENGTH, _MOST_LENGTH = 0.99, 1.01


def text_of(values: Mapping[int, bytes], sop_class_uid: str, references: tuple[str, ...], big_endian: bool) -> str:
    """The same as ``signs_of(...).text``. It is asked for of every file, and nearly all are images that say their
    number and their plane and no more: of these it is made at once, with nothing between value and text."""
    position, raw = values.get(_POSITION), values.get(_ORIENTATION)
    if (
        position
        and raw
        and not references
        and _CONCATENATION not in values
        and _SLICES not in values
        and _TILED not in values
        and _IN_SERIES not in values
        and _IN_STUDY not in values
    ):
        try:
            digits = values[_NUMBER]
            number = int(digits) if len(digits) <= _NUMBER_BYTES else WHOLE_NUMBER
            orientation, across, down, along = _directions(raw)
            x, y, z = position.split(b"\\")
            position_um = (across * float(x) + down * float(y) + along * float(z)) * 1000
            if -WHOLE_NUMBER <= number < WHOLE_NUMBER and -WHOLE_POSITION_UM < position_um < WHOLE_POSITION_UM:
                return f'{{"n":{number},"o":"{orientation}","p":{round(position_um)}}}'
        except (KeyError, ValueError):
            pass  # something is missing or malformed; what is left is found below
    return signs_of(values, sop_class_uid, references, big_endian=big_endian).text


def signs_of(
    values: Mapping[int, bytes], sop_class_uid: str, references: tuple[str, ...] = (), *, big_endian: bool
) -> Signs:
    """``references`` is what `references_of` has found."""
    order = "big" if big_endian else "little"

    def count(tag: int) -> int:
        """Of a US or UL element; 0 where there is none."""
        value = values.get(tag, b"")
        if len(value) not in (2, 4):
            return 0
        number = int.from_bytes(value, order)  # type: ignore[arg-type]
        return number if number <= _MOST else 0

    orientation, position_um = _plane(values) or ("", None)
    part, tiles, frames, slices = None, 0, 0, 0
    if _CONCATENATION in values:
        part = _part(values[_CONCATENATION], count(_PART), count(_PARTS))
    if sop_class_uid == PET and _SLICES in values:
        slices = _slices(values, count)
    if values.get(_TILED, b"").strip(b" \0") == b"TILED_FULL":
        tiles = _tiles(count)
        frames = _whole(values, _FRAMES) or 1 if tiles else 0
    return Signs(
        number=_number(values),
        orientation=orientation,
        position_um=position_um,
        part=part,
        slices=slices,
        tiles=tiles,
        frames=min(max(frames, 0), _MOST),
        in_series=_counted(values, _IN_SERIES),
        in_study=_counted(values, _IN_STUDY),
        references=references,
    )


def _number(values: Mapping[int, bytes]) -> int | None:
    number = _whole(values, _NUMBER)
    return number if number is not None and is_number(number) else None


def _whole(values: Mapping[int, bytes], tag: int) -> int | None:
    """Of an IS element."""
    value = values.get(tag)
    if not value or len(value) > _NUMBER_BYTES:
        return None
    try:
        return int(value.strip(b" \0"))
    except ValueError:
        return None


def _counted(values: Mapping[int, bytes], tag: int) -> int:
    number = _whole(values, tag) if tag in values else 0
    return number if number and 0 < number <= _MOST else 0


def _plane(values: Mapping[int, bytes]) -> tuple[str, int] | None:
    """Orientation and position as `Signs` has them."""
    raw, position = values.get(_ORIENTATION), values.get(_POSITION)
    if not raw or not position:
        return None
    try:
        orientation, across, down, along = _directions(raw)
        x, y, z = position.strip(b"\0").split(b"\\")
        position_um = (across * float(x) + down * float(y) + along * float(z)) * 1000
        return (orientation, round(position_um)) if is_position(position_um) else None
    except (ValueError, OverflowError):
        return None


@lru_cache(64)
def _directions(raw: bytes) -> tuple[str, float, float, float]:
    """The cosines as text, and the normal; one series has the same for all slices. Raises ValueError."""
    a, b, c, d, e, f = map(float, raw.strip(b"\0").split(b"\\"))
    normal = b * f - c * e, c * d - a * f, a * e - b * d
    length = math.hypot(*normal)
    if not _LEAST_LENGTH < length < _MOST_LENGTH:
        raise ValueError("no directions of rows and columns")
    text = ",".join([str(round(cosine * 1000)) for cosine in (a, b, c, d, e, f)])
    return text, normal[0] / length, normal[1] / length, normal[2] / length


def _part(concatenation: bytes, number: int, total: int) -> Part | None:
    if not number:
        return None
    try:
        return Part(Uid(concatenation.strip(b" \0").decode("ascii", "replace")), number, total)
    except InvalidUid:
        return None


def _slices(values: Mapping[int, bytes], count: Callable[[int], int]) -> int:
    """PS3.3 C.8.9.4: how many images a PET series has, by its type."""
    kind, _, of = values.get(_PET_TYPE, b"").replace(b" ", b"").strip(b"\0").partition(b"\\")
    if of not in (b"", b"IMAGE"):
        return 0
    slices = count(_SLICES)
    if kind in (b"DYNAMIC", b""):
        slices *= count(_TIME_SLICES) or 1
    elif kind == b"GATED":
        slices *= (count(_RR_INTERVALS) or 1) * (count(_TIME_SLOTS) or 1)
    return slices if slices <= _MOST else 0


def _tiles(count: Callable[[int], int]) -> int:
    """PS3.3 C.7.6.17.3: every tile of the matrix is there, for each focal plane and optical path."""
    rows, columns = count(_ROWS), count(_COLUMNS)
    if not rows or not columns:
        return 0
    tiles = -(-count(_MATRIX_ROWS) // rows) * -(-count(_MATRIX_COLUMNS) // columns)
    tiles *= (count(_OPTICAL_PATHS) or 1) * (count(_FOCAL_PLANES) or 1)
    return tiles if tiles <= _MOST else 0
