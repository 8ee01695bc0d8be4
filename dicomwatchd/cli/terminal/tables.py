"""Tables that can be read at any width: on a terminal what matters most comes first into the room that there is; into a
pipe every cell goes whole."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import click

from dicomwatchd.cli.terminal import output, working

#: Columns of UIDs, which are shortened in the middle where they do not fit.
UIDS = frozenset({"STUDY", "SERIES", "SOP INSTANCE"})
#: Columns whose text may go on in the next line; the others stay in one piece.
_PROSE = frozenset(
    {
        "DESCRIPTION",
        "FINDING",
        "FOLDER",
        "WHY THE MANIFEST WAS NOT USED",
        "NAME",
        "OBJECT",
        "PATH",
        "PROBLEM",
        "REASON",
        "WHAT",
    }
)
_SHORT_UID, _BETWEEN = 21, 2
#: What prose is given before a column is left out for it, and what it is given in any case.
_GOOD_PROSE, _LEAST_PROSE = 28, 16
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?Z")
_WIDE = "dicomwatchd.wide"

_Command = TypeVar("_Command", bound=Callable[..., object])


def wide_option(command: _Command) -> _Command:
    """``--wide`` for a command that prints tables."""

    def keep(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        context.meta[_WIDE] = value

    return click.option(
        "--wide",
        is_flag=True,
        expose_value=False,
        callback=keep,
        help="Show every column and full UIDs, whatever the width of the terminal.",
    )(command)


@dataclass(slots=True)
class _Layout:
    columns: list[str]
    rows: list[list[str]]
    whole: bool

    def width(self, prose: int = _GOOD_PROSE) -> int:
        return sum(self._least(number, prose) + _BETWEEN for number in range(len(self.columns))) - _BETWEEN

    def _least(self, number: int, prose: int) -> int:
        longest = max((len(row[number]) for row in self.rows), default=0)
        if self.columns[number] in _PROSE:
            longest = min(longest, prose)
        return max(len(self.columns[number]), longest)

    def with_short_uids(self) -> _Layout:
        which = [number for number, name in enumerate(self.columns) if name in UIDS]
        rows = [[short(cell) if number in which else cell for number, cell in enumerate(row)] for row in self.rows]
        return _Layout(self.columns, rows, self.whole and rows == self.rows)

    def without(self, name: str) -> _Layout:
        at = self.columns.index(name)
        rows = [[*row[:at], *row[at + 1 :]] for row in self.rows]
        return _Layout([*self.columns[:at], *self.columns[at + 1 :]], rows, whole=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], least: Sequence[str] = ()) -> None:
    """Rows under headings. On a terminal times are told to the minute, and where a row has no room UIDs are shortened
    and the columns of ``least`` left out, one after the other, unless ``--wide`` is given. Elsewhere: every cell as it
    is, tab-separated. Cells are cleaned here."""
    cells = [["" if cell is None else output.clean(cell) for cell in row] for row in rows]
    working.end()
    if not _is_terminal():
        for row in [list(columns), *cells]:
            click.echo("\t".join(row))
        return
    context = click.get_current_context(silent=True)
    layout = _Layout(list(columns), [[_TIME.sub(r"\1 \2", cell) for cell in row] for row in cells], whole=True)
    width = shutil.get_terminal_size().columns
    if context is not None and context.meta.get(_WIDE):
        width = max(width, layout.width())
    else:
        layout = fitted(layout, width, least)
    _draw(layout, width)
    if not layout.whole:
        output.note("some columns were shortened or left out; use --wide to see everything")


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def fitted(layout: _Layout, width: int, least: Sequence[str]) -> _Layout:
    if layout.width() <= width:
        return layout
    layout = layout.with_short_uids()
    for name in least:
        if layout.width() <= width:
            break
        if name in layout.columns:
            layout = layout.without(name)
    return layout


def short(uid: str) -> str:
    """1.2.840.10008.5.1.4.1.1.2 -> "1.2.840.10…5.1.4.1.1.2": both ends tell UIDs apart."""
    if len(uid) <= _SHORT_UID:
        return uid
    half = _SHORT_UID // 2
    return f"{uid[:half]}\u2026{uid[-half:]}"


def _draw(layout: _Layout, width: int) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in layout.columns:
        shown.add_column(name, overflow="fold", no_wrap=name not in _PROSE)
    for row in layout.rows:
        shown.add_row(*(Text(cell) for cell in row))
    # What has no room even so goes on in the terminal's next line; letters one below the other help nobody.
    width = max(width, layout.width(_LEAST_PROSE))
    Console(highlight=False, markup=False, emoji=False, width=width).print(shown, crop=False)
