"""What goes to the terminal: sentences, JSON documents (and `tables`), and never a control character from a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sized
from typing import Any, TypeVar

import click

from dicomwatchd.cli.terminal import working
from dicomwatchd.errors import ConfigError, DicomwatchdError, StudyErased
from dicomwatchd.plain_text import clean as clean
from dicomwatchd.plain_text import count as count
from dicomwatchd.plain_text import size as size

_Command = TypeVar("_Command", bound=Callable[..., Any])

PROGRAM = "dicomwatchctl"


def _only_the_answer(_context: click.Context, _parameter: click.Parameter, value: bool) -> bool:
    if value:
        working.end()
    return value


json_option = click.option(
    "--json", "as_json", is_flag=True, callback=_only_the_answer, help="Print the answer as one JSON document."
)


def limit_option(what: str) -> Callable[[_Command], _Command]:
    """How many lines, or whatever else, a report has at most."""
    return click.option(
        "--limit",
        metavar="N",
        type=click.IntRange(min=1),
        default=100,
        show_default=True,
        help=f"Show at most this many {what}.",
    )


def note_limit(what: str, rows: Sized, limit: int) -> None:
    """That a report ends where it was told to, so that nobody takes it for all there is."""
    if len(rows) >= limit:
        note(f"at most {limit:,} {what} are shown, and there may be more: --limit N")


def say(text: str = "") -> None:
    """A line of the answer, on stdout; made `clean` whatever it is put together from."""
    working.end()
    click.echo(clean(text))


def note(text: str) -> None:
    """A line beside the answer, on stderr."""
    working.end()
    click.echo(f"{PROGRAM}: {clean(text)}", err=True)


def document(value: Any) -> None:
    """The answer as one JSON document; what is not printable ASCII is escaped, so that no terminal takes harm."""
    click.echo(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=True))


def problem(error: DicomwatchdError) -> None:
    """An error in one line (a configuration: one line for each problem), and what to do about it."""
    where = f"{error.path}: " if error.path else ""
    if isinstance(error, ConfigError):
        count = len(error.problems)
        note(f"{where}{count} problem{'s' if count > 1 else ''}")
        for place, reason in error.problems:
            named = f" ({error.paths[place]})" if place in error.paths else ""
            click.echo(clean(f"{place}: {reason}{named}" if place else reason), err=True)
    else:
        note(f"{where}{error.message}")
    if isinstance(error, StudyErased) and error.because:
        click.echo(clean(f"the reason given: {error.because}"), err=True)
    if error.hint:
        click.echo(clean(error.hint), err=True)


def pairs(rows: Iterable[tuple[str, object]]) -> None:
    """Name and value, a line each; empty values are left out."""
    shown = [(name, clean(value)) for name, value in rows if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        say(f"{name:<{width}}  {value}")


def duration(seconds: float) -> str:
    """93784 -> "1 d 2 h"; two units at most."""
    parts: list[str] = []
    rest = round(seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, rest = divmod(rest, length)
        if amount or (unit == "s" and not parts):
            parts.append(f"{amount} {unit}")
    return " ".join(parts[:2])
