"""`top` on the command line."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.control_access import client, socket_option
from dicomwatchd.cli.terminal import output, working
from dicomwatchd.cli.top.asking import ask
from dicomwatchd.control.client import ControlClient

#: Where nobody knows how wide the output may be: as much as all columns take.
_PLAIN_WIDTH = 180


@click.command()
@click.option("--once", is_flag=True, help="Print one page as plain text, and end.")
@socket_option
@output.json_option
@click.pass_obj
def top(invocation: Invocation, once: bool, socket_path: Path | None, as_json: bool) -> None:
    """Watch what the daemon is doing.

    Shows, from second to second, the studies on their way with their stage and progress, rates, workers, inboxes, what
    is failing, and what was archived last. Press q or Ctrl-C to quit, the arrow keys to scroll. If the daemon is
    stopped, it says so, and goes on when the daemon is back. It asks the daemon once a second at most, and shows no
    patient data. Where the output is no terminal, or one that cannot move its cursor, it prints one page and ends, as
    with --once.
    """
    connection = client(invocation, socket_path)
    if as_json:
        output.document({name: value for name, value in ask(connection).items() if name != "status"})
        return
    from dicomwatchd.cli.top import terminal

    if once or not terminal.is_usable():
        _once(connection)
        return
    from dicomwatchd.cli.top.watch import watch

    working.end()
    watch(lambda: ask(connection))


def _once(connection: ControlClient) -> None:
    import time

    from dicomwatchd.cli.terminal import glyphs
    from dicomwatchd.cli.top.screen import plain, screen
    from dicomwatchd.cli.top.seen import Seen

    seen = Seen()
    seen.answer(ask(connection))
    time.sleep(1.0)  # a rate takes two looks
    seen.answer(ask(connection))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PLAIN_WIDTH
    for line in plain(screen(seen, max(40, width), None, glyphs.for_stream(sys.stdout)).lines):
        output.say(line)
