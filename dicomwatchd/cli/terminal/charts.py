"""Charts as lines of text, for a terminal: columns over time, and bars beside their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dicomwatchd.cli.terminal import glyphs
from dicomwatchd.cli.terminal.glyphs import Glyphs

_HEIGHT = 8


def columns(
    values: Sequence[float],
    how: Glyphs,
    *,
    said: Callable[[float], str],
    begin: str,
    end: str,
    height: int = _HEIGHT,
) -> list[str]:
    """A column of one cell for each value, in so many lines; with the highest value at the left, as it is ``said``, and
    what the first and the last column are below."""
    highest = max(values, default=0.0)
    top, bottom = said(highest), said(0)
    margin = max(len(top), len(bottom))
    steps = len(how.up)
    filled = [_steps(value / highest if highest else 0.0, height * steps) for value in values]
    lines = []
    for line in reversed(range(height)):
        label = top if line == height - 1 else ""
        cells = "".join(_cell(amount - line * steps, steps, how) for amount in filled)
        lines.append(f"{label:>{margin}} {cells}".rstrip())
    lines.append(f"{bottom:>{margin}} {how.line * len(values)}")
    between = len(values) - len(begin) - len(end)
    lines.append(" " * (margin + 1) + (f"{begin}{' ' * between}{end}" if between > 0 else begin))
    return lines


def bars(rows: Sequence[tuple[str, int]], how: Glyphs, width: int) -> list[str]:
    """A line for each (name, number), of at most so many cells."""
    highest = max((number for _, number in rows), default=0)
    names = max((len(name) for name, _ in rows), default=0)
    numbers = max((len(f"{number:,}") for _, number in rows), default=0)
    room = max(8, width - names - numbers - 2)
    lines = []
    for name, number in rows:
        drawn = glyphs.bar(number / highest if highest else 0.0, room, how, empty=" ")
        lines.append(f"{name:<{names}} {number:>{numbers},} {drawn}".rstrip())
    return lines


def _steps(share: float, most: int) -> int:
    return max(1, round(share * most)) if share > 0 else 0


def _cell(filled: int, steps: int, how: Glyphs) -> str:
    if filled <= 0:
        return " "
    return how.up[min(filled, steps) - 1]
