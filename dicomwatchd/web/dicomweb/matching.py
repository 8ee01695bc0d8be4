"""What a search asks for, and whether something matches (PS3.18 section 8.3.4, PS3.4 section C.2.2.2).

Texts are compared in any case, but for identifiers: Patient ID, accession number, Study ID and UIDs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicomwatchd.model import DicomJson, Uid, has_value
from dicomwatchd.patients import folded_name, has_form
from dicomwatchd.web.dicomweb.errors import Refused

#: Attributes asked for, and characters of a value: more is no client's.
_LIMIT_CONDITIONS = 64
_LIMIT_CHARACTERS = 4096
#: Of what is not a list of UIDs: a name's three groups have 64 each, and a text of 64 KB takes its time with each.
_LIMIT_PATTERN = 256
_LIMIT_UIDS = 1000
_LIMIT_NUMBER = 10**9
_LIMIT_DEPTH = 4

STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID = "0020000D", "0020000E", "00080018"
SOP_CLASS_UID = "00080016"
PATIENT_NAME, PATIENT_ID, ISSUER, BIRTH_DATE, SEX = "00100010", "00100020", "00100021", "00100030", "00100040"
STUDY_DATE, ACCESSION_NUMBER, STUDY_ID = "00080020", "00080050", "00200010"
MODALITY, MODALITIES_IN_STUDY, DESCRIPTION = "00080060", "00080061", "00081030"

_EXACT = frozenset({PATIENT_ID, ACCESSION_NUMBER, STUDY_ID})
_LISTS = frozenset({MODALITY, MODALITIES_IN_STUDY})
_TAG = re.compile(r"[0-9A-Fa-f]{8}\Z")
_RANGES = frozenset({"DA", "TM", "DT"})
_NUMBERS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_TEXTS = frozenset({"AE", "AS", "CS", "LO", "LT", "SH", "ST", "UC", "UR", "UT"})
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
#: Understood, and not done; each with what is said of it.
_NOT_DONE = {
    "fuzzymatching": "The fuzzymatching parameter is not supported. Only literal matching has been performed.",
    "emptyvaluematching": "The emptyvaluematching parameter is not supported.",
    "multiplevaluematching": "The multiplevaluematching parameter is not supported.",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """``path`` is the attribute's tag, eight capital hexadecimal digits, after those of the sequences it is in. One of
    ``values`` has to match."""

    path: tuple[str, ...]
    vr: str
    values: tuple[str, ...]

    @property
    def tag(self) -> str:
        return self.path[0]

    @property
    def has_wildcard(self) -> bool:
        return any("*" in value or "?" in value for value in self.values)


@dataclass(frozen=True, slots=True)
class Search:
    """``included`` are tags of the uppermost level. ``warnings`` are sentences of PS3.18 for the Warning header."""

    conditions: tuple[Condition, ...] = ()
    included: frozenset[str] = frozenset()
    includes_all: bool = False
    limit: int | None = None
    offset: int = 0
    warnings: tuple[str, ...] = field(default=())

    def of(self, tag: str) -> Condition | None:
        return next((one for one in self.conditions if one.path == (tag,)), None)

    def uids(self, tag: str) -> tuple[Uid, ...] | None:
        """Those that a list of UIDs asks for. Raises InvalidUid."""
        condition = self.of(tag)
        return None if condition is None else tuple(dict.fromkeys(map(Uid, condition.values)))


def parse(parameters: Iterable[tuple[str, str]]) -> Search:
    """A request's query parameters. Raises Refused (HTTP 400) where one is neither of PS3.18's nor an attribute: what
    was meant as a condition must not drop out unseen."""
    conditions: list[Condition] = []
    included: set[str] = set()
    includes_all, limit, offset = False, None, 0
    warnings: list[str] = []
    seen: set[str] = set()
    for name, value in parameters:
        if len(value) > _LIMIT_CHARACTERS:
            raise Refused("a query parameter is too long")
        match name.lower():
            case "limit" | "offset" as which:
                if which in seen:
                    raise Refused(f"{which} is given twice")
                seen.add(which)
                if which == "limit":
                    limit = _number(value)
                else:
                    offset = _number(value)
            case "includefield":
                for one in filter(None, value.split(",")):
                    if one == "all":
                        includes_all = True
                    else:
                        included.add(_path(one)[0])
            case "fuzzymatching" | "emptyvaluematching" | "multiplevaluematching" as option:
                if value not in ("true", "false"):
                    raise Refused(f"{option} is neither true nor false")
                if value == "true":
                    warnings.append(_NOT_DONE[option])
            case "accept" | "accept-charset" | "charset":
                pass
            case _:
                condition = _condition(name, value)
                if condition is not None:
                    conditions.append(condition)
        if len(conditions) > _LIMIT_CONDITIONS or len(included) > 10 * _LIMIT_CONDITIONS:
            raise Refused("too many query parameters")
    if len({one.path for one in conditions}) < len(conditions):
        raise Refused("an attribute is given twice")
    return Search(tuple(conditions), frozenset(included), includes_all, limit, offset, tuple(warnings))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 20:
        raise Refused("limit and offset are whole numbers, not below 0")
    return min(int(text), _LIMIT_NUMBER)


def _path(name: str) -> tuple[str, ...]:
    """Keywords or tags, with "." between a sequence and what is in its items."""
    parts = name.split(".")
    if len(parts) > _LIMIT_DEPTH:
        raise Refused("a query parameter names an attribute too deep in sequences")
    found = []
    for part in parts:
        if _TAG.match(part):
            found.append(part.upper())
            continue
        tag = tag_for_keyword(part) if part.isascii() and part.isalnum() and len(part) <= 64 else None
        if tag is None:
            raise Refused("a query parameter is no attribute's keyword, no tag of eight digits, and none of PS3.18's")
        found.append(f"{tag:08X}")
    return tuple(found)


def _condition(name: str, value: str) -> Condition | None:
    """None where everything matches: an empty value (PS3.4 C.2.2.2.3), or nothing but ``*``."""
    path = _path(name)
    value = value.strip(" \0")
    if not value.strip("*"):
        return None
    try:
        vr = dictionary_VR(int(path[-1], 16)).split(" or ")[0]
    except KeyError:
        vr = "LO"  # a private one, or one of a later edition
    if vr != "UI" and len(value) > _LIMIT_PATTERN:
        raise Refused("a query parameter is too long")
    if vr == "UI":
        values = tuple(filter(None, re.split(r"[,\\]", value)))
        if len(values) > _LIMIT_UIDS:
            raise Refused("too many UIDs are asked for")
        return Condition(path, vr, tuple(Uid(one) for one in values)) if values else None
    if path[-1] in _LISTS:
        return Condition(path, vr, tuple(filter(None, (one.strip() for one in re.split(r"[,\\]", value)))))
    if vr in _RANGES:
        _range_of(value, vr)
    elif vr in _NUMBERS:
        _numeral(value)
    elif vr not in _TEXTS and vr != "PN":
        raise Refused("an attribute is asked for whose values cannot be searched")
    return Condition(path, vr, (value,))


def _range_of(value: str, vr: str) -> tuple[str, str]:
    """Both ends, "" for an open one, of digits. Raises Refused."""
    separators = {"DA": ".", "TM": ":", "DT": ""}[vr]
    plain = "".join(character for character in value if character not in separators)
    first, dash, last = plain.partition("-")
    ends = (first, last if dash else first)
    for end in ends:
        whole, _, fraction = end.partition(".")
        if not all(text == "" or (text.isascii() and text.isdecimal()) for text in (whole, fraction)):
            raise Refused("a date or time is none")
        if vr == "DA" and end and len(end) != 8:
            raise Refused("a date is not of the form YYYYMMDD")
        if vr == "TM" and end and (len(whole) not in (2, 4, 6)):
            raise Refused("a time is not of the form HHMMSS")
    if ends == ("", ""):
        raise Refused("a range has no end")
    return ends


def range_of(condition: Condition) -> tuple[str, str]:
    """The ends of a range of dates, "YYYYMMDD"; "" for an open one. A single date is both."""
    return _range_of(condition.values[0], condition.vr)


def _numeral(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise Refused("a number is none") from None


def all_match(conditions: Iterable[Condition], attributes: Mapping[str, dict[str, object]]) -> bool:
    return all(matches(one, attributes) for one in conditions)


def matches(condition: Condition, attributes: Mapping[str, dict[str, object]]) -> bool:
    """Whether any value of the attribute does; one that is not there, or empty, does not."""
    return _matches_below(condition, condition.path, attributes)


def _matches_below(condition: Condition, path: Sequence[str], attributes: Mapping[str, dict[str, object]]) -> bool:
    element = attributes.get(path[0])
    if not isinstance(element, dict) or not has_value(element):
        return False
    values = element.get("Value")
    if not isinstance(values, list):
        return False
    if len(path) > 1:
        return any(isinstance(item, dict) and _matches_below(condition, path[1:], item) for item in values)
    return any(_is_one(condition, value) for value in values if value is not None)


def _is_one(condition: Condition, value: object) -> bool:
    tag, vr = condition.path[-1], condition.vr
    if vr == "PN":
        return _is_name(condition.values[0], value)
    if isinstance(value, dict):
        return False
    text = str(value).strip(" \0")
    if vr == "UI":
        return text in condition.values
    if vr in _RANGES:
        return _is_in(condition, text)
    if vr in _NUMBERS:
        try:
            return float(text) == float(condition.values[0])
        except ValueError:
            return False
    if tag in _EXACT:
        return any(has_form(text, pattern) for pattern in condition.values)
    folded = " ".join(text.casefold().split())
    return any(has_form(folded, " ".join(pattern.casefold().split())) for pattern in condition.values)


def _is_in(condition: Condition, text: str) -> bool:
    """A value that is less exact than an end of the range is compared as far as both go."""
    first, last = _range_of(condition.values[0], condition.vr)
    plain = text.replace(":", "").replace("-", "")
    plain = plain if condition.vr != "DA" else plain.replace(".", "")
    if not plain[:1].isdecimal():
        return False
    return (not first or plain[: len(first)] >= first[: len(plain)]) and (
        not last or plain[: len(last)] <= last[: len(plain)]
    )


def _is_name(pattern: str, value: object) -> bool:
    """A pattern of one component group is compared with each of a name's; one of several, each with its own."""
    groups = (
        [str(value.get(group) or "") for group in _GROUPS] if isinstance(value, dict) else str(value).split("=")[:3]
    )
    names = [folded_name(group) for group in groups]
    patterns = [folded_name(group) for group in pattern.split("=")[:3]]
    if len(patterns) == 1:
        return any(name and has_form(name, patterns[0]) for name in names)
    return all(
        not wanted or (name != "" and has_form(name, wanted))
        for name, wanted in zip([*names, "", ""], patterns, strict=False)
    )


def as_sent(attributes: DicomJson) -> DicomJson:
    """As PS3.18 annex F has it: numbers as numbers, and nothing of ours beside the value."""
    return {tag: _element(element) for tag, element in sorted(attributes.items()) if isinstance(element, dict)}


def _element(element: dict[str, object]) -> dict[str, object]:
    vr, values = element.get("vr"), element.get("Value")
    sent: dict[str, object] = {name: element[name] for name in ("vr", "InlineBinary", "BulkDataURI") if name in element}
    if isinstance(values, list) and values:
        sent["Value"] = [_value(str(vr), value) for value in values]
    return sent


def _value(vr: str, value: object) -> object:
    if isinstance(value, str) and vr in ("IS", "DS"):
        try:
            number = float(value)
        except ValueError:
            return value
        if not math.isfinite(number):
            return value
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if vr == "SQ" and isinstance(value, dict):
        return as_sent(value)
    return value
