"""Text out of a file's bytes: by the Specific Character Set it declares, rightly or not, or by what it is taken for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pydicom.charset import CODES_TO_ENCODINGS

from dicomwatchd.character_sets import (
    CONFIGURATION,
    DECLARATION,
    DEFAULT,
    DEFAULT_CODEC,
    GUESS,
    LATIN_1,
    MULTI_BYTE_CODECS,
    TERMS,
    UTF_8,
    codec_of,
    corrected,
)

UNKNOWN_TERM = "character set: an unknown term, read as if none was declared"
_ESC = b"\x1b"
_FRAGMENTS = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")
_ESCAPES = {**CODES_TO_ENCODINGS, b"\x1b-b": TERMS["ISO_IR 203"]}
# Codecs that take escape sequences in themselves.
_STATEFUL = frozenset({"iso2022_jp", "iso2022_jp_2"})
_NAME_RESETS = re.compile(rb"[\\^=]")  # PS3.5 6.1.2.5.3
_TEXT_RESETS = re.compile(rb"[\\\t\n\f\r]")
#: Of (0008,0005) so much is read, and so many terms: more than there are.
_TERMS_LIMIT_BYTES = 512
_TERMS_LIMIT = 16


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """What (0008,0005) says: the first term, by which text begins, and what the others, which escape sequences call up,
    would read. ``notes`` say what was put right, in words of ours alone."""

    term: str
    codec: str
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Doubt(NamedTuple):
    """Why a text may be another than was meant: what it was read as, and how that is known."""

    charset: str
    known_by: str


@lru_cache(256)
def character_set(specific_character_set: bytes) -> CharacterSet:
    """What a file declares. A term that nobody knows counts as none.

    Never warns and never raises; pydicom's own conversion puts the value into a warning, and takes any codec of
    Python's for a term.
    """
    declared = specific_character_set[:_TERMS_LIMIT_BYTES].decode("latin_1").split("\\")[:_TERMS_LIMIT]
    terms: list[str] = []
    notes: list[str] = []
    for text in (part.strip(" \0") for part in declared):
        term = corrected(text) if text else DEFAULT
        if term is None:
            notes.append(UNKNOWN_TERM)
        elif text and term != text:
            notes.append(f"character set: a misspelt term, read as {term}")
        terms.append(term or DEFAULT)
    return CharacterSet(
        terms[0],
        codec_of(terms[0]) or DEFAULT_CODEC,
        tuple(term for term in dict.fromkeys(terms[1:]) if codec_of(term) not in (None, DEFAULT_CODEC)),
        tuple(dict.fromkeys(notes)),
    )


def text_of(
    value: bytes, declared: CharacterSet, when_missing: str = "", *, is_name: bool = False
) -> tuple[str, Doubt | None]:
    """Text out of a raw value, with code extensions (PS3.5 6.1.2.5), and why it may be another than was meant.

    Where the bytes are none of the declared set, or nothing is declared and they are no ASCII, the first is taken that
    reads all of them: another set that the file names, ``when_missing`` (a key of USABLE_WHEN_MISSING), UTF-8. Each
    value is judged by itself, so that the same bytes, of a patient ID say, are the same text whatever else is in a
    file. Otherwise U+FFFD stands for what cannot be decoded; the default repertoire counts as Latin-1, which loses no
    byte.
    """
    if _ESC not in value and value.isascii():
        return value.decode("ascii"), None
    try:
        return _decode(value, declared.codec, is_name=is_name), None
    except UnicodeError:
        pass
    is_ascii = declared.codec == DEFAULT_CODEC
    if declared.term == UTF_8 and (text := _cut_utf_8(value)) is not None:
        return text, Doubt(UTF_8, DECLARATION)
    for doubt in _candidates(declared, when_missing):
        try:
            return _decode(value, codec_of(doubt.charset) or DEFAULT_CODEC, is_name=is_name), doubt
        except UnicodeError:
            continue
    if is_ascii and (text := _cut_utf_8(value)) is not None:
        return text, Doubt(UTF_8, GUESS)
    if is_ascii or declared.term == UTF_8:
        return _decode(value, "latin_1", is_name=is_name, errors="replace"), Doubt(LATIN_1, GUESS)
    return _decode(value, declared.codec, is_name=is_name, errors="replace"), Doubt(declared.term, DECLARATION)


def _candidates(declared: CharacterSet, when_missing: str) -> Iterator[Doubt]:
    # A UTF-8 that decodes is hardly ever anything else, but two characters of GBK may be: what is configured comes
    # before it. Sets of one byte read anything, so they come last.
    by_its_bytes = [term for term in declared.others if codec_of(term) in MULTI_BYTE_CODECS]
    yield from (Doubt(term, GUESS) for term in by_its_bytes)
    if when_missing:
        yield Doubt(when_missing, CONFIGURATION)
    yield Doubt(UTF_8, GUESS)
    yield from (Doubt(term, GUESS) for term in declared.others if term not in by_its_bytes)


def _cut_utf_8(value: bytes) -> str | None:
    """UTF-8 that was cut within a character, as by programs that count bytes; None if it is none. "René" in Latin-1
    ends like that, too, so there must be other characters that are well."""
    text = value.decode("utf_8", "replace")
    broken = text.count("\ufffd")
    return text if 0 < 3 * broken <= sum(character > "\x7f" for character in text) else None


def _decode(value: bytes, codec: str, *, is_name: bool, errors: str = "strict") -> str:
    """Raises UnicodeError, unless told otherwise."""
    if _ESC not in value:
        return value.decode(codec, errors)
    resets = _NAME_RESETS if is_name else _TEXT_RESETS
    return "".join(_decode_fragment(fragment, codec, resets, errors) for fragment in _FRAGMENTS.findall(value))


def _decode_fragment(fragment: bytes, first: str, resets: re.Pattern[bytes], errors: str) -> str:
    escape = fragment[: 4 if fragment.startswith((b"\x1b$(", b"\x1b$)")) else 3]
    codec = _ESCAPES.get(escape)
    if codec is None:
        return fragment.decode(first, errors)
    if codec in _STATEFUL:
        return fragment.decode(codec, errors)
    body = fragment[len(escape) :]
    reset = resets.search(body)
    cut = reset.start() if reset else len(body)
    return body[:cut].decode(codec, errors) + body[cut:].decode(first, errors)
