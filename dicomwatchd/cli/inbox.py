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
    """See to the folders that are inboxes."""


@inbox.command("list")
@socket_option
@click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document.")
@click.pass_obj
def list_inboxes(invocation: Invocation, socket_path: Path | None, as_json: bool) -> None:
    """List the inboxes, and whether each is still the folder that it was.

    An inbox is "exchanged" when another folder stands in its place: what is in it is archived, and nothing is deleted
    there until it is the same folder again, or until you have confirmed that the new one is meant.
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
    """Say that the folder which stands in an inbox's place now is meant.

    What was kept there because nobody had said so is proven afresh and deleted as the inbox's rule says. Who has said
    it is put on record in the audit chain. For root and the daemon's own user. Look first what the folder is: it may be
    a link, or a mount, of another.
    """
    said: dict[str, Any] = client(invocation, socket_path).call("inbox-confirm", name=name)
    output.say(f"{output.clean(said['inbox'])} is this folder from now on; {said['files']} kept files are due.")
