"""Text for people, wherever they read it: numbers with their nouns, sizes, and what came out of a file on one line."""

from __future__ import annotations

import unicodedata

#: Control characters (escape sequences begin with one); format characters, which turn the direction of text or are not
#: seen at all; undecodable bytes of names; line and paragraph separators; what this Unicode does not know yet.
_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp", "Cn"))


def clean(text: object) -> str:
    """Text from a file or a path as it may go to a terminal: one line, nothing that steers it or hides."""
    whole = str(text)
    if whole.isprintable():  # of the unsafe categories none is
        return whole
    return "".join("\ufffd" if unicodedata.category(character) in _UNSAFE else character for character in whole)


def size(size_bytes: float) -> str:
    """1234567 -> "1.2 MB" (powers of ten)."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """1, "file" -> "1 file"; 2, "file" -> "2 files"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
