"""Whose study it is, as its files say it: the patients and orders they name, and whether two of them can be one.

A study belongs to one patient (PS3.3 C.7.1.1). Files of one Study Instance UID do not always agree on whom: each
distinct set of values is on record, so that a search for any of them finds the study.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any, TypeVar
from unicodedata import normalize

from dicomwatchd.model import DicomJson, first_values

#: So many distinct patients, and so many orders, are on record of one study; what comes after them is not.
IDENTITIES_LIMIT = 64
#: The flag of a study whose files name more patients.
IDENTITIES_LIMITED = "identities-limited"
#: The flag of a study whose files name more orders, which holds nothing.
ORDERS_LIMITED = "orders-limited"

#: Accession Number, Study ID, Admission ID.
_OF_ORDER = frozenset({"00080050", "00200010", "00380010"})
_UNDECODED = "\ufffd"
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a file says of its patient; "" where it says nothing. ``name`` has its component groups with "=" between
    them, as in a file (PS3.5 6.2.1)."""

    patient_id: str = ""  # (0010,0020)
    issuer: str = ""  # Issuer of Patient ID (0010,0021)
    name: str = ""  # (0010,0010)
    birth_date: str = ""  # (0010,0030)
    sex: str = ""  # (0010,0040)

    @classmethod
    def of(cls, attributes: DicomJson) -> Identity:
        return cls(
            _text(attributes, "00100020"),
            _text(attributes, "00100021"),
            _name(attributes, "00100010"),
            _text(attributes, "00100030"),
            _text(attributes, "00100040"),
        )

    @property
    def name_groups(self) -> list[str]:
        return [group.strip() for group in self.name.split("=")[: len(_GROUPS)]]


@dataclass(frozen=True, slots=True)
class Order:
    """What a file says of the order, or the stay, that its study belongs to; "" where it says nothing."""

    accession_number: str = ""  # (0008,0050)
    issuer: str = ""  # of the accession number (0008,0051): its Local Namespace Entity ID, or its Universal one
    study_id: str = ""  # (0020,0010)
    admission_id: str = ""  # (0038,0010)

    @classmethod
    def of(cls, attributes: DicomJson, issuer: str = "") -> Order:
        return cls(_text(attributes, "00080050"), issuer, _text(attributes, "00200010"), _text(attributes, "00380010"))


_Said = TypeVar("_Said", Identity, Order)


def is_blank(said: Identity | Order) -> bool:
    return not any(_values(said))


def document(said: Identity | Order) -> dict[str, str]:
    """For JSON: what is not blank."""
    return {field.name: value for field, value in zip(fields(said), _values(said), strict=True) if value}


def from_document(kind: type[_Said], raw: Mapping[str, Any]) -> _Said:
    """Keys of a newer program are passed over. Raises TypeError where a value is no text."""
    names = {field.name for field in fields(kind)}
    if not isinstance(raw, Mapping) or not all(isinstance(value, str) for value in raw.values()):
        raise TypeError("not texts by their names")
    return kind(**{name: value for name, value in raw.items() if name in names})


def distinct(*groups: Iterable[_Said], limit: int | None = None) -> tuple[_Said, ...]:
    """All of them in their order, each once, and none that says less than another and nothing else; at most ``limit``,
    or `IDENTITIES_LIMIT`, the first ones."""
    limit = IDENTITIES_LIMIT if limit is None else limit
    kept: list[_Said] = []
    for said in dict.fromkeys(one for group in groups for one in group):
        if is_blank(said) or any(_says_all_of(other, said) for other in kept):
            continue
        within = [other for other in kept if _says_all_of(said, other)]
        if within:
            kept[kept.index(within[0])] = said
            kept = [other for other in kept if other not in within[1:]]
        elif len(kept) < limit:
            kept.append(said)
    return tuple(kept)


def nearest_first(said: Iterable[_Said], shown: _Said) -> list[_Said]:
    """Those first that are most like what the study's attributes say, which may be put together from several files and
    so be none of them."""
    return sorted(said, key=lambda one: -sum(a == b != "" for a, b in zip(_values(one), _values(shown), strict=True)))


def leaves_out(kept: Iterable[_Said], said: Iterable[_Said]) -> bool:
    """Whether something ``said`` is not among ``kept``, which are `distinct` ones."""
    kept = tuple(kept)
    return not all(is_blank(one) or any(_says_all_of(other, one) for other in kept) for one in said)


def two_patients(identities: Iterable[Identity]) -> tuple[Identity, Identity] | None:
    """Two of them that cannot be one patient; None where there are none. The first, and what differs from it, if there
    are several."""
    return next((pair for pair in combinations(identities, 2) if are_different(*pair)), None)


def are_different(one: Identity, other: Identity) -> bool:
    """Whether these are two patients: their IDs (with issuer) differ, or both name and birth date do.

    Blank is unknown and never different. Case and padding do not count; nor do, in names, the form of the carets and
    trailing ones, in a birth date its punctuation, in issuers which of the two is not told. A name alone changes with
    marriage and spelling, a birth date alone with a typing error.
    """
    return _ids_differ(one, other) or (
        _names_differ(one.name, other.name) and _dates_differ(one.birth_date, other.birth_date)
    )


def is_among(said: Identity, known: Iterable[Identity]) -> bool:
    """Whether this is one of the ``known`` patients, as far as can be told: it says no more than one of them, or agrees
    with one in the ID, or in name and birth date; or is different from none. That it is not different from one of whom
    little is known says nothing, where it is from others."""
    known = tuple(known)
    return any(_says_all_of(one, said) or _agree(one, said) for one in known) or not any(
        are_different(one, said) for one in known
    )


def _agree(one: Identity, other: Identity) -> bool:
    """Whether something says that these are one patient, and nothing that they are two."""
    if are_different(one, other):
        return False
    if _is_decoded(one.patient_id) and _is_decoded(other.patient_id):
        return True
    names = zip(map(folded_name, one.name.split("=")), map(folded_name, other.name.split("=")), strict=False)
    return (
        any(mine == its and _is_decoded(mine) for mine, its in names)
        and bool(_digits(one.birth_date) and _digits(other.birth_date))
        and not _dates_differ(one.birth_date, other.birth_date)
    )


def _is_decoded(text: str) -> bool:
    """Whether it is a value, and all of it is known."""
    return bool(_plain(text)) and _UNDECODED not in text


def _ids_differ(one: Identity, other: Identity) -> bool:
    mine, its = _plain(one.patient_id), _plain(other.patient_id)
    if not mine or not its:
        return False
    return _texts_differ(mine, its) or _texts_differ(_plain(one.issuer), _plain(other.issuer))


def _names_differ(one: str, other: str) -> bool:
    """Where they share a component group, and no group that they share is the same: one name is written in several
    scripts, and the alphabetic form of another script in several ways."""
    pairs = zip((folded_name(group) for group in one.split("=")), map(folded_name, other.split("=")), strict=False)
    shared = [(mine, its) for mine, its in pairs if mine and its]
    return bool(shared) and all(_texts_differ(mine, its) for mine, its in shared)


def _dates_differ(one: str, other: str) -> bool:
    """A year alone, or year and month, agree with every day in it."""
    mine, its = _digits(one), _digits(other)
    return bool(mine and its) and not (mine.startswith(its) or its.startswith(mine))


def _texts_differ(one: str, other: str) -> bool:
    """What could not be decoded may have been anything."""
    if not one or not other or one == other:
        return False
    if _UNDECODED in one and _UNDECODED in other:
        return False
    if _UNDECODED in one:
        return not has_form(other, one.replace(_UNDECODED, "*"))
    return _UNDECODED not in other or not has_form(one, other.replace(_UNDECODED, "*"))


def filled_up(earlier: DicomJson, later: DicomJson) -> DicomJson:
    """As `first_values`, of a study's attributes; what ``later`` says of patient and order is left out where that is
    another patient: the birth date of one beside the name of the other would be nobody's."""
    if are_different(Identity.of(earlier), Identity.of(later)):
        later = {tag: element for tag, element in later.items() if tag[:4] != "0010" and tag not in _OF_ORDER}
    return first_values(earlier, later)


def folded_name(group: str) -> str:
    """A component group of a name for comparison: DOE^Jane^^ and "Doe, Jane" are the same; so are the several ways to
    write a letter in Unicode, with its accent or the accent by itself, in full or half width."""
    return " ".join(normalize("NFKC", group).casefold().replace("^", " ").replace(",", " ").replace("\0", " ").split())


def has_form(text: str, pattern: str) -> bool:
    """Whether all of ``text`` has the form of ``pattern``: ``*`` stands for any characters, ``?`` for one (PS3.4
    C.2.2.2.4). One step for each character of both, whatever they hold.

    All ways to read the text so far are followed at once, as the bits of a number: the nth is set where what has been
    read has the form of the pattern's first n characters, without the stars.
    """
    if pattern and pattern[0] not in "*?" and text[:1] != pattern[0]:
        return False  # most of what a search looks at
    places: dict[str, int] = {}
    bit, any_one, stars = 1, 0, 0
    for character in pattern:
        if character == "*":
            stars |= bit
            continue
        if character == "?":
            any_one |= bit
        else:
            places[character] = places.get(character, 0) | bit
        bit <<= 1
    reached = 1
    for character in text:
        reached = (reached & (places.get(character, 0) | any_one)) << 1 | (reached & stars)
        if not reached:
            return False
    return bool(reached & bit)


def _plain(text: str) -> str:
    return normalize("NFC", text).strip(" \0").casefold()


def _digits(date: str) -> str:
    digits = "".join(character for character in date if character in "0123456789")
    return digits if digits.strip("0") else ""


def _values(said: Identity | Order) -> list[str]:
    return [getattr(said, field.name) for field in fields(said)]


def _says_all_of(more: _Said, less: _Said) -> bool:
    return all(value in ("", whole) for value, whole in zip(_values(less), _values(more), strict=True))


def _text(attributes: DicomJson, tag: str) -> str:
    value = _first(attributes, tag)
    return str(value) if isinstance(value, str | int | float) else ""


def _name(attributes: DicomJson, tag: str) -> str:
    value = _first(attributes, tag)
    if isinstance(value, dict):
        return "=".join(str(value.get(group) or "") for group in _GROUPS).rstrip("=")
    return _text(attributes, tag)


def _first(attributes: DicomJson, tag: str) -> object:
    values = attributes.get(tag, {}).get("Value")
    return values[0] if isinstance(values, list) and values else ""
