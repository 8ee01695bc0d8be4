"""`dicomwatchctl config`: check and describe the configuration."""

from __future__ import annotations

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.terminal import output
from dicomwatchd.errors import ConfigError


@click.group()
def config() -> None:
    """Check and describe the configuration."""


@config.command()
@output.json_option
@click.pass_obj
def check(invocation: Invocation, as_json: bool) -> int:
    """List everything that is wrong with the configuration.

    Checks the file's text, and that the folders it names exist. It does not contact the archive; `archive init` and
    the daemon's start do that. Each problem is printed as one line on standard error: where it is, and what is wrong.
    """
    from dicomwatchd.config import loading

    path = invocation.config_path
    problems: list[tuple[str, str]] = []
    silent: list[str] = []
    try:
        loading.load(path, folders=True, silent=silent)
    except ConfigError as error:
        problems = error.problems
        if not as_json:
            error.path = str(path)
            output.problem(error)
    for where in silent:
        output.note(f"{where}: its file system does not answer, so it was not checked")
    if as_json:
        listed = [{"where": where, "reason": reason} for where, reason in problems]
        output.document({"config": str(path), "ok": not problems, "problems": listed, "not_responding": silent})
    elif not problems:
        output.say(f"{output.clean(path)} is valid.")
    return exits.USAGE if problems else exits.OK


@config.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from dicomwatchd.config.whole import Config

    output.document(Config.model_json_schema())
