"""`stats` on the command line."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.control_access import ask, socket_option
from dicomwatchd.cli.terminal import output, tables, working
from dicomwatchd.errors import Permanent

_STANDARD_OUTPUT = Path("-")


@click.command()
@click.option(
    "--days", metavar="N", type=click.IntRange(1, 3660), default=7, show_default=True, help="Number of days to show."
)
@click.option(
    "--plots/--no-plots",
    "plots",
    default=None,
    help="Also show throughput by hour, time to archive and sizes; the default on a terminal. With --json: as history.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print hours and inboxes as comma-separated values (RFC 4180).")
@click.option(
    "--html",
    "html_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write one HTML page with charts, which needs nothing else; - is standard output.",
)
@socket_option
@output.json_option
@tables.wide_option
@click.pass_obj
def stats(
    invocation: Invocation,
    days: int,
    plots: bool | None,
    as_csv: bool,
    html_file: Path | None,
    socket_path: Path | None,
    as_json: bool,
) -> int:
    """Show archived amounts by day and inbox.

    Shows shipments (files of one study sent together), studies, files, size, speed, and the seconds spent in each
    stage, and the receivers that put objects into the inbox, as configured now. Days are in UTC. On a terminal it also
    plots the throughput, how long studies took from their first file to the archive, and the sizes. Hours are known
    for 30 days, days for good.
    """
    if as_json + as_csv + (html_file is not None) > 1:
        raise click.UsageError("give one of --json, --csv and --html")
    is_plain = not (as_json or as_csv or html_file)
    wants_plots = plots if plots is not None else is_plain and sys.stdout.isatty()
    options: dict[str, Any] = {"history": True} if wants_plots or as_csv or html_file else {}
    said: dict[str, Any] = ask(invocation, socket_path, "stats", days=days, **options)
    if as_json:
        output.document(said)
        return exits.OK
    if as_csv or html_file:
        _export(said, days, html_file)
        return exits.OK
    rows: list[dict[str, Any]] = said.get("days") or []
    if not rows:
        output.say(f"Nothing was archived in the last {output.count(days, 'day')}.")
        return exits.OK
    _table(rows, said.get("totals") or {})
    if wants_plots:
        _plot(said)
    return exits.OK


def _table(rows: list[dict[str, Any]], totals: Mapping[str, Any]) -> None:
    rows = [*rows, {"day": "all", "inbox": "", **totals}]
    stages = list(dict.fromkeys(stage for row in rows for stage in row.get("seconds") or {}))
    has_receivers = any(row.get("receivers") for row in rows)
    tables.table(
        (
            *("DAY", "INBOX", *(("RECEIVERS",) if has_receivers else ())),
            *("SHIPMENTS", "STUDIES", "FILES", "SIZE", "MB/S", *(f"{stage.upper()} S" for stage in stages)),
        ),
        (
            (
                row.get("day"),
                row.get("inbox"),
                *((" ".join(row.get("receivers") or ()),) if has_receivers else ()),
                row.get("shipments"),
                row.get("studies"),
                row.get("files"),
                output.size(row.get("bytes") or 0),
                row.get("megabytes_per_second"),
                *((row.get("seconds") or {}).get(stage) for stage in stages),
            )
            for row in rows
        ),
        least=("SHIPMENTS", "RECORD S", "VERIFY S", "PURGE S", "UPLOAD S"),
    )


def _plot(said: Mapping[str, Any]) -> None:
    from dicomwatchd.cli.stats import plots
    from dicomwatchd.cli.terminal import glyphs

    history = said.get("history")
    if history is None:
        output.note("no plots: the running daemon is older than this dicomwatchctl")
        return
    output.say()
    for line in plots.lines(history, shutil.get_terminal_size().columns, glyphs.for_stream(sys.stdout)):
        output.say(line)


def _export(said: Mapping[str, Any], days: int, html_file: Path | None) -> None:
    """Raises Permanent where the daemon is too old, or the file cannot be written."""
    history = said.get("history")
    if history is None:
        raise Permanent(
            "the running daemon is older than this dicomwatchctl, and knows no hours",
            code="daemon-too-old",
            hint="restart it: systemctl restart dicomwatchd",
        )
    if html_file is None:
        from dicomwatchd.cli.stats import table

        working.end()
        click.echo(table.text(history), nl=False)
        return
    from dicomwatchd.cli.stats import page

    if html_file == _STANDARD_OUTPUT:
        working.end()
        click.echo(page.page(said, days), nl=False)
        return
    _write(html_file, page.page(said, days))
    output.say(f"Written: {output.clean(html_file)}")


def _write(path: Path, text: str) -> None:
    """Whole or not at all; in place of an earlier page of the same kind, and of no other file. Raises Permanent."""
    from dicomwatchd.cli.stats import page

    temporary = None
    try:
        if path.exists() and not (path.is_file() and page.is_one(path)):
            raise Permanent(
                "a file of this name is there and is no page of dicomwatchctl stats; it was left unchanged",
                code="name-taken",
                path=str(path),
            )
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=".dicomwatchctl-", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise Permanent(
            f"the page cannot be written ({os.strerror(error.errno or 0)})", code="not-written", path=str(path)
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
