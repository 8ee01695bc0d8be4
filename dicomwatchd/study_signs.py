"""What instances say of how many there should be: of one instance, and of a series put together.

An instance's text is small, and there is one for each file in the state. A series' signs are sets: to add an instance
twice changes nothing, so what an earlier revision has recorded and what came since are put together by union. Their
JSON form has texts and no lists of numbers, for a manifest may hold those of 100,000 instances.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: Of one series: so many different instance numbers, positions of one orientation, and so on. What has more is not
#: judged by them.
LIMIT_NUMBERS = 100_000
LIMIT_ORIENTATIONS = 64
LIMIT_CONCATENATIONS = 256
LIMIT_PARTS = 10_000
LIMIT_TILED = 1024
#: Of one instance, and of a series, so many instances that it refers to: the first ones, each of which tells something.
LIMIT_REFERENCES = 1000
LIMIT_REFERENCES_OF_SERIES = 10_000

WHOLE_NUMBER = 2**31
WHOLE_POSITION_UM = 10**9  # a kilometre
_TERM = re.compile(r"(-?[0-9]{1,10})(?:\+([0-9]{1,10})\*([0-9]{1,6}))?\Z")
_UID = re.compile(r"[0-9.]{1,64}\Z")

NUMBERS, POSITIONS, CONCATENATIONS, TILES = "numbers", "positions", "concatenations", "tiles"
REFERENCES = "references"
_KINDS = (NUMBERS, POSITIONS, CONCATENATIONS, TILES)


@dataclass(frozen=True, slots=True)
class Part:
    """Where an instance stands in a concatenation (PS3.3 C.7.6.16.2.2.4). ``total`` is 0 where it is not said."""

    concatenation: str  # (0020,9161)
    number: int  # (0020,9162)
    total: int = 0  # (0020,9163)


class Signs(NamedTuple):
    """What one instance says. ``orientation`` are six cosines in thousandths; ``position_um`` is the distance of its
    plane from the origin along the normal. ``slices`` is how many images a PET series is said to have. ``tiles`` is
    how many a fully tiled matrix needs, and ``frames`` how many are here. ``in_series`` and ``in_study`` are how many
    instances there are, as the sender has counted them; 0 where it has not."""

    number: int | None = None  # (0020,0013)
    orientation: str = ""
    position_um: int | None = None
    part: Part | None = None
    slices: int = 0  # (0054,0081), times (0054,0101) and the like
    tiles: int = 0
    frames: int = 0
    in_series: int = 0  # (0020,1209)
    in_study: int = 0  # (0020,1208)
    references: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """For the state; "" where it says nothing. This is JSON: of numbers, and of texts in which nothing needs an
        escape. It is made for every file, and `json.dumps` would take most of the time."""
        number, orientation, position_um, part, slices, tiles, frames, in_series, in_study, references = self
        said = "" if number is None else f',"n":{number}'
        if position_um is not None:
            said += f',"o":"{orientation}","p":{position_um}'
        if part is not None:
            said += f',"c":["{part.concatenation}",{part.number},{part.total}]'
        if slices:
            said += f',"s":{slices}'
        if tiles:
            said += f',"t":{tiles},"f":{frames}' if frames else f',"t":{tiles}'
        if in_series:
            said += f',"i":{in_series}'
        if in_study:
            said += f',"a":{in_study}'
        if references:
            said += f',"r":"{" ".join(references)}"'
        return f"{{{said[1:]}}}" if said else ""

    @classmethod
    def of(cls, text: str) -> Signs:
        """Raises nothing for a text that `text` has made."""
        if not text:
            return cls()
        raw = json.loads(text)
        return cls(
            number=raw.get("n"),
            orientation=raw.get("o", ""),
            position_um=raw.get("p"),
            part=Part(*raw["c"]) if "c" in raw else None,
            slices=raw.get("s", 0),
            tiles=raw.get("t", 0),
            frames=raw.get("f", 0),
            in_series=raw.get("i", 0),
            in_study=raw.get("a", 0),
            references=tuple(raw["r"].split()) if "r" in raw else (),
        )


@dataclass(slots=True)
class Concatenation:
    """The numbers of the parts that are there, each with its frames; ``total`` and ``tiles`` as in `Signs`."""

    total: int = 0
    tiles: int = 0
    frames: dict[int, int] = field(default_factory=dict)

    def add(self, other: Concatenation) -> bool:
        """False where there are too many."""
        self.total, self.tiles = max(self.total, other.total), max(self.tiles, other.tiles)
        self.frames |= other.frames
        return len(self.frames) <= LIMIT_PARTS


@dataclass(slots=True)
class SeriesSigns:
    """Of a series. ``tiled`` has (tiles, frames) of each fully tiled instance that is in no concatenation, by its SOP
    Instance UID. ``too_many`` names what has more than is kept, and is empty here."""

    numbers: set[int] = field(default_factory=set)
    positions: dict[str, set[int]] = field(default_factory=dict)
    concatenations: dict[str, Concatenation] = field(default_factory=dict)
    tiled: dict[str, tuple[int, int]] = field(default_factory=dict)
    slices: int = 0
    in_series: int = 0
    in_study: int = 0
    references: set[str] = field(default_factory=set)  # on record are those to what is not there
    too_many: set[str] = field(default_factory=set)

    def take(self, sop_instance_uid: str, signs: Signs) -> None:
        self.slices = max(self.slices, signs.slices)
        self.in_series = max(self.in_series, signs.in_series)
        self.in_study = max(self.in_study, signs.in_study)
        if signs.number is not None and NUMBERS not in self.too_many:
            self.numbers.add(signs.number)
            self._limit(NUMBERS, len(self.numbers) > LIMIT_NUMBERS)
        if signs.position_um is not None and POSITIONS not in self.too_many:
            self.positions.setdefault(signs.orientation, set()).add(signs.position_um)
            self._limit(
                POSITIONS,
                len(self.positions) > LIMIT_ORIENTATIONS or len(self.positions[signs.orientation]) > LIMIT_NUMBERS,
            )
        if (part := signs.part) is not None and CONCATENATIONS not in self.too_many:
            one = Concatenation(part.total, signs.tiles, {part.number: signs.frames})
            fits = self.concatenations.setdefault(part.concatenation, Concatenation()).add(one)
            self._limit(CONCATENATIONS, not fits or len(self.concatenations) > LIMIT_CONCATENATIONS)
        elif signs.tiles and TILES not in self.too_many:
            self.tiled[sop_instance_uid] = signs.tiles, signs.frames
            self._limit(TILES, len(self.tiled) > LIMIT_TILED)
        if signs.references and len(self.references) < LIMIT_REFERENCES_OF_SERIES:
            self.references.update(signs.references)

    def add(self, other: SeriesSigns) -> None:
        self.slices = max(self.slices, other.slices)
        self.in_series = max(self.in_series, other.in_series)
        self.in_study = max(self.in_study, other.in_study)
        self.numbers |= other.numbers
        for orientation, positions in other.positions.items():
            self.positions.setdefault(orientation, set()).update(positions)
        fit = [
            self.concatenations.setdefault(uid, Concatenation()).add(one) for uid, one in other.concatenations.items()
        ]
        self.tiled |= other.tiled
        self.references = set(sorted(self.references | other.references)[:LIMIT_REFERENCES_OF_SERIES])
        self._limit(NUMBERS, len(self.numbers) > LIMIT_NUMBERS)
        self._limit(
            POSITIONS,
            len(self.positions) > LIMIT_ORIENTATIONS
            or any(len(one) > LIMIT_NUMBERS for one in self.positions.values()),
        )
        self._limit(CONCATENATIONS, not all(fit) or len(self.concatenations) > LIMIT_CONCATENATIONS)
        self._limit(TILES, len(self.tiled) > LIMIT_TILED)
        for kind in other.too_many:
            self._limit(kind, True)

    def _limit(self, kind: str, is_reached: bool) -> None:
        if not is_reached:
            return
        self.too_many.add(kind)
        kept: dict[str, set[Any] | dict[str, Any]] = {
            NUMBERS: self.numbers,
            POSITIONS: self.positions,
            CONCATENATIONS: self.concatenations,
            TILES: self.tiled,
        }
        kept[kind].clear()

    def document(self) -> dict[str, object]:
        """For JSON: what is there. The same for equal signs."""
        raw: dict[str, object] = {
            NUMBERS: _runs(self.numbers),
            POSITIONS: {key: _runs(positions) for key, positions in sorted(self.positions.items())},
            CONCATENATIONS: {
                uid: {
                    "total": one.total,
                    "tiles": one.tiles,
                    "frames": " ".join(f"{number}:{frames}" for number, frames in sorted(one.frames.items())),
                }
                for uid, one in sorted(self.concatenations.items())
            },
            TILES: " ".join(f"{uid}:{tiles}:{frames}" for uid, (tiles, frames) in sorted(self.tiled.items())),
            "slices": self.slices,
            "in_series": self.in_series,
            "in_study": self.in_study,
            REFERENCES: " ".join(sorted(self.references)),
            "too_many": sorted(self.too_many),
        }
        return {name: value for name, value in raw.items() if value}

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> SeriesSigns:
        """Raises ValueError, TypeError, KeyError, AttributeError where it is none; keys of a newer program are passed
        over."""
        found = cls(
            numbers=set(_numbers(raw.get(NUMBERS, ""))),
            positions={_text(key): set(_numbers(text)) for key, text in raw.get(POSITIONS, {}).items()},
            concatenations={
                _uid(uid): Concatenation(
                    _count(one["total"]),
                    _count(one["tiles"]),
                    dict(_pair(pair) for pair in _text(one["frames"]).split()),
                )
                for uid, one in raw.get(CONCATENATIONS, {}).items()
            },
            tiled=dict(_tiled(text) for text in _text(raw.get(TILES, "")).split()),
            slices=_count(raw.get("slices", 0)),
            in_series=_count(raw.get("in_series", 0)),
            in_study=_count(raw.get("in_study", 0)),
            references={_uid(uid) for uid in _text(raw.get(REFERENCES, "")).split()},
            too_many={_text(kind) for kind in raw.get("too_many", [])} & set(_KINDS),
        )
        found.add(SeriesSigns())  # for the limits
        return found


def numbers_in(document: Mapping[str, Any]) -> int:
    """How many numbers, about, the JSON form of a series' signs stands for, without making them."""
    positions = document.get(POSITIONS, {})
    texts = [document.get(NUMBERS, ""), *(positions.values() if isinstance(positions, dict) else ())]
    terms = [term for text in texts if isinstance(text, str) for term in text.split()]
    return sum(1 + int(more) if (more := term.partition("*")[2]).isdecimal() else 1 for term in terms)


def is_number(value: int) -> bool:
    return -WHOLE_NUMBER <= value < WHOLE_NUMBER


def is_position(value_um: float) -> bool:
    return abs(value_um) < WHOLE_POSITION_UM


def _runs(numbers: Iterable[int]) -> str:
    """Ascending numbers as a text: "7", or "1+2*3" for 1, 3, 5, 7."""
    ordered = sorted(numbers)
    terms = []
    at = 0
    while at < len(ordered):
        first = ordered[at]
        last = at + 1
        if last < len(ordered):
            step = ordered[last] - first
            while last < len(ordered) and ordered[last] - ordered[last - 1] == step:
                last += 1
        if last - at >= 3:
            terms.append(f"{first}+{step}*{last - at - 1}")
            at = last
        else:
            terms.append(str(first))
            at += 1
    return " ".join(terms)


def _numbers(text: str) -> Iterator[int]:
    left = LIMIT_NUMBERS + 1  # whatever a text says, no more is made of it
    for term in _text(text).split():
        match = _TERM.match(term)
        if match is None:
            raise ValueError("no numbers")
        first, step, more = (int(number or 0) for number in match.groups())
        left -= more + 1
        if left < 0:
            raise ValueError("more numbers than are kept")
        yield from range(first, first + step * more + 1, step) if step else (first,)


def _pair(text: str) -> tuple[int, int]:
    number, frames = text.split(":")
    return _count(int(number)), _count(int(frames))


def _tiled(text: str) -> tuple[str, tuple[int, int]]:
    uid, tiles, frames = text.split(":")
    return _uid(uid), (_count(int(tiles)), _count(int(frames)))


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError("no count")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _uid(value: str) -> str:
    if not _UID.match(_text(value)):
        raise ValueError("no UID")
    return value
