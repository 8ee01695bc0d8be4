"""What bars and charts are drawn with: block elements where the terminal has them, otherwise ASCII."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True, slots=True)
class Glyphs:
    #: From nearly nothing to all of a cell, filled from the left, and from below.
    across: str
    up: str
    empty: str
    ellipsis: str
    arrows: str
    line: str
    is_ascii: bool

    def safe(self, text: str) -> str:
        """What others have put into a text, such as the ellipsis of a shortened UID."""
        return text.replace("\u2026", "~").encode("ascii", "replace").decode("ascii") if self.is_ascii else text


BLOCKS = Glyphs(
    across="\u258f\u258e\u258d\u258c\u258b\u258a\u2589\u2588",
    up="\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588",
    empty="\u2591",
    ellipsis="\u2026",
    arrows="\u2191\u2193",
    line="\u2500",
    is_ascii=False,
)
ASCII = Glyphs(across="#", up="#", empty=".", ellipsis="~", arrows="up/down", line="-", is_ascii=True)


def for_stream(stream: TextIO) -> Glyphs:
    """By the encoding of what it is written to."""
    try:
        (BLOCKS.across + BLOCKS.up + BLOCKS.arrows).encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS


def bar(share: float, width: int, how: Glyphs, *, empty: str | None = None) -> str:
    """A share (0 to 1) of ``width`` cells; something that is not 0 is seen."""
    steps = len(how.across)
    filled = round(max(0.0, min(1.0, share)) * width * steps)
    if share > 0 and filled == 0:
        filled = 1
    whole, rest = divmod(filled, steps)
    text = how.across[-1] * whole + (how.across[rest - 1] if rest else "")
    return text + (how.empty if empty is None else empty) * (width - len(text))
