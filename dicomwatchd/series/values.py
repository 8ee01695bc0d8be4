"""One element's value as DICOM JSON (PS3.18 section F.2), out of its bytes.

pydicom makes the same of a data set, and refuses all of it for one value that is none of its VR. Here such a value
stays the text that it is (PS3.18 table F.2.3-1 lets numbers be strings); bytes that are no value at all are left out.
"""

from __future__ import annotations

import math
import re
import struct
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import lru_cache

from pydicom.datadict import dictionary_has_tag, dictionary_VR

from dicomwatchd.intake.dicom.decoding import CharacterSet, text_of

#: VRs whose length has 32 bits (PS3.5 table 7.1-1).
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
#: VRs whose length has 16 bits (PS3.5 table 7.1-2).
SHORT: Mapping[bytes, str] = {
    vr: vr.decode() for vr in b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
}
#: What is longer is not in the JSON, but can be served as bulk data from where it stands in the file.
INLINE_BINARY_BYTES = 1024
INLINE_NUMBERS_BYTES = 4096
INLINE_TEXT_BYTES = 64 * 1024

_BY_CHARACTER_SET = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_TEXTS = _BY_CHARACTER_SET | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"}
_OF_ONE_VALUE = frozenset({"LT", "ST", "UR", "UT"})
_NUMBERS: Mapping[str, tuple[str, int]] = {
    "FD": ("d", 8),
    "FL": ("f", 4),
    "SL": ("i", 4),
    "SS": ("h", 2),
    "SV": ("q", 8),
    "UL": ("I", 4),
    "US": ("H", 2),
    "UV": ("Q", 8),
}
_WORD_BYTES: Mapping[str, int] = {"OB": 1, "OD": 8, "OF": 4, "OL": 4, "OV": 8, "OW": 2, "UN": 1}
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_INTEGER = re.compile(r"[+-]?[0-9]{1,12}\Z")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z")
#: Above it a number is another one to whoever reads JSON's as floating point: it is written as text.
_EXACT = 2**53

Element = dict[str, object]


@lru_cache(8192)
def vr_of(tag: int) -> str:
    """What the dictionary says (PS3.6), the first where it says several; "UN" of what it does not know."""
    if tag & 0xFFFF == 0:
        return "UL"
    if (tag >> 16) % 2:
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"
    if not dictionary_has_tag(tag):
        return "UN"
    found = str(dictionary_VR(tag))
    return found if len(found) == 2 else _IN_DOUBT.get(found, "UN")


#: Of those with several VRs that which a reader is least mistaken with; US or SS is for Pixel Representation to say.
_IN_DOUBT = {"US or SS": "xs", "US or OW": "OW", "US or SS or OW": "OW", "OB or OW": "OW"}


def limit_bytes(vr: str) -> int:
    """Up to which length a value of this VR is in the JSON."""
    if vr in _TEXTS:
        return INLINE_TEXT_BYTES
    return INLINE_BINARY_BYTES if vr in _WORD_BYTES else INLINE_NUMBERS_BYTES


def element(vr: str, raw: bytes, charset: CharacterSet, *, big_endian: bool) -> Element:
    """Of any VR but SQ. Raises nothing."""
    if not raw:
        return {"vr": vr}
    if vr in _TEXTS:
        return _text(vr, raw, charset)
    if vr in _NUMBERS:
        return _numbers(vr, raw, big_endian=big_endian)
    if vr == "AT":
        words = struct.unpack(f"{'>' if big_endian else '<'}{len(raw) // 4 * 2}H", raw[: len(raw) // 4 * 4])
        return _of_values(vr, [f"{words[at]:04X}{words[at + 1]:04X}" for at in range(0, len(words), 2)])
    word = _WORD_BYTES.get(vr, 1)
    if big_endian and word > 1:
        raw = _swapped(raw, word)
    return {"vr": vr if vr in _WORD_BYTES else "UN", "InlineBinary": b64encode(raw).decode("ascii")}


#: What is longer is hardly ever said twice.
SEEN_BYTES = 128
_SEEN_LIMIT = 4096


class Seen:
    """Elements as they were made before, of the instances of one series, which say much the same: it takes a third of
    the time, and what is said again and again is in memory once. Safe to be used from many threads."""

    def __init__(self) -> None:
        self._known: tuple[dict[tuple[str, bytes], Element], ...] = ({}, {})

    def known(self, *, big_endian: bool) -> Mapping[tuple[str, bytes], Element]:
        """What was made before, by VR and bytes, for whoever asks often."""
        return self._known[big_endian]

    def element(self, vr: str, raw: bytes, charset: CharacterSet, *, big_endian: bool) -> Element:
        """As `element`."""
        # ASCII is the same in every character set, but for what an escape sequence calls up.
        if len(raw) > SEEN_BYTES or not (raw.isascii() or vr not in _BY_CHARACTER_SET) or b"\x1b" in raw:
            return element(vr, raw, charset, big_endian=big_endian)
        known = self._known[big_endian]
        found = known.get((vr, raw))
        if found is None:
            found = element(vr, raw, charset, big_endian=big_endian)
            if len(known) < _SEEN_LIMIT:
                known[vr, raw] = found
        return found


def _of_values(vr: str, values: list[object] | list[str]) -> Element:
    return {"vr": vr, "Value": values} if any(value is not None for value in values) else {"vr": vr}


def _text(vr: str, raw: bytes, charset: CharacterSet) -> Element:
    is_coded = vr in _BY_CHARACTER_SET
    text = text_of(raw, charset, is_name=vr == "PN")[0] if is_coded else raw.decode("ascii", "replace")
    parts = [text] if vr in _OF_ONE_VALUE else text.split("\\")
    as_value = _AS_VALUE.get(vr, _plain)
    return _of_values(vr, [as_value(part) for part in parts])


def _plain(text: str) -> object:
    return text.rstrip(" \0") or None


def _stripped(text: str) -> object:
    return text.strip(" \0") or None


def _name(text: str) -> object:
    groups = {
        name: trimmed
        for name, group in zip(_NAME_GROUPS, text.rstrip(" \0").split("="), strict=False)
        if (trimmed := group.rstrip(" \0"))
    }
    return groups or None


def _integer(text: str) -> object:
    stripped = text.strip(" \0")
    return int(stripped) if _INTEGER.match(stripped) else stripped or None


def _decimal(text: str) -> object:
    stripped = text.strip(" \0")
    if not _DECIMAL.match(stripped):
        return stripped or None
    number = float(stripped)
    return number if math.isfinite(number) else stripped


_AS_VALUE: Mapping[str, Callable[[str], object]] = {
    "AE": _stripped,
    "CS": _stripped,
    "DS": _decimal,
    "IS": _integer,
    "PN": _name,
    "UI": _stripped,
}


def _numbers(vr: str, raw: bytes, *, big_endian: bool) -> Element:
    code, size = _NUMBERS[vr]
    count = len(raw) // size
    found = struct.unpack(f"{'>' if big_endian else '<'}{count}{code}", raw[: count * size])
    if vr in ("FD", "FL"):
        return _of_values(vr, [_finite(number) for number in found])
    if size == 8:
        return _of_values(vr, [number if -_EXACT <= number <= _EXACT else str(number) for number in found])
    return _of_values(vr, list(found))


def _finite(number: float) -> object:
    if math.isnan(number):
        return "NaN"
    return number if math.isfinite(number) else ("inf" if number > 0 else "-inf")


def _swapped(raw: bytes, word: int) -> bytes:
    whole = len(raw) // word * word
    return b"".join(raw[at : at + word][::-1] for at in range(0, whole, word)) + raw[whole:]
