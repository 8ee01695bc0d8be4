"""`dicomwatchctl inbox`: which folder each inbox is, and that another one in its place is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.control_access import ask, client, socket_option
from dicomwatchd.cli.terminal import output, tables


@click.group()
def inbox() -> None:
    """List and confirm inboxes."""


@inbox.command("list")
@socket_option
@output.json_option
@click.pass_obj
def list_inboxes(invocation: Invocation, socket_path: Path | None, as_json: bool) -> None:
    """List the inboxes, and whether each is still the same folder.

    An inbox is "exchanged" when another folder is found at its path. Files in that folder are archived, but nothing is
    deleted there until the original folder is back, or you confirm the new one with `inbox confirm`.
    """
    inboxes: list[dict[str, Any]] = ask(invocation, socket_path, "inbox-list")
    if as_json:
        output.document({"inboxes": inboxes})
        return
    tables.table(
        ("INBOX", "FOLDER", "SINCE"), ((one["name"], one["folder"], one.get("exchanged_at")) for one in inboxes)
    )


@inbox.command()
@click.argument("name", metavar="NAME")
@socket_option
@click.pass_obj
def confirm(invocation: Invocation, name: str, socket_path: Path | None) -> None:
    """Confirm that the folder now at an inbox's path is the right one.

    Files that were kept because the folder was not confirmed are verified again and deleted as the inbox is configured.
    The audit chain records who confirmed it. Only root and the daemon's own user may do this. First check what the
    folder is: it may be a link to, or a mount of, another one.
    """
    said: dict[str, Any] = client(invocation, socket_path).call("inbox-confirm", name=name)
    output.say(
        f"{output.clean(said['inbox'])} is confirmed; {output.count(said['files'], 'kept file')} will be verified again"
        " and deleted as configured."
    )
