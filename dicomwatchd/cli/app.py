"""The root of dicomwatchctl: its commands, the options before them, and how errors become exit codes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from dicomwatchd import __version__
from dicomwatchd.cli import exits
from dicomwatchd.cli.lazy import Lazy, LazyGroup
from dicomwatchd.cli.terminal import output, working
from dicomwatchd.errors import DicomwatchdError

# The same as config.DEFAULT_PATH; importing that module takes longer than all the rest.
DEFAULT_CONFIG = Path("/etc/dicomwatchd/config.yaml")

_CLI = "dicomwatchd.cli"
COMMANDS = {
    "setup": Lazy(f"{_CLI}.setup.command", "setup", "Set up this machine, step by step."),
    "status": Lazy(f"{_CLI}.daemon", "status", "Show the state of the daemon."),
    "top": Lazy(f"{_CLI}.top.command", "top", "Watch what the daemon is doing."),
    "queue": Lazy(f"{_CLI}.daemon", "queue", "List the studies that are not archived yet."),
    "show": Lazy(f"{_CLI}.studies.show", "show", "Show what is known about a study."),
    "quarantine": Lazy(f"{_CLI}.daemon", "quarantine", "List files that cannot be archived."),
    "retry": Lazy(f"{_CLI}.daemon", "retry", "Try a parked study again."),
    "attention": Lazy(f"{_CLI}.attention", "attention", "List what needs a person's decision."),
    "release": Lazy(f"{_CLI}.attention", "release", "Release a held study."),
    "stats": Lazy(f"{_CLI}.stats.command", "stats", "Show archived amounts by day and inbox."),
    "sites": Lazy(f"{_CLI}.sites", "sites", "List the daemons of this archive, and which of them are silent."),
    "inbox": Lazy(f"{_CLI}.inbox", "inbox", "List and confirm inboxes."),
    "upload": Lazy(f"{_CLI}.upload", "upload", "Archive a folder that is not an inbox."),
    "fetch": Lazy(f"{_CLI}.studies.fetch", "fetch", "Fetch a study, with every file verified."),
    "verify": Lazy(f"{_CLI}.studies.verify", "verify", "Check that the archive holds a study."),
    "drill": Lazy(f"{_CLI}.drill", "drill", "Fetch a study for trial, and compare it with its manifest."),
    "prove": Lazy(f"{_CLI}.proofs", "prove", "Show which files of a study were deleted, and the evidence."),
    "search": Lazy(f"{_CLI}.studies.search", "search", "Find archived studies."),
    "catalogue": Lazy(f"{_CLI}.studies.catalogue", "catalogue", "Maintain the catalogue of the archive."),
    "archive": Lazy(f"{_CLI}.studies.archive", "archive", "Set up and verify the archive, and erase studies from it."),
    "web": Lazy(f"{_CLI}.web", "web", "Manage who may use the page, and see who has."),
    "doctor": Lazy(f"{_CLI}.proofs", "doctor", "Check that everything works."),
    "config": Lazy(f"{_CLI}.config", "config", "Check and describe the configuration."),
}


#: Of a file, or a terminal, that the answer goes to.
_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO))


@dataclass(frozen=True, slots=True)
class Invocation:
    """What was said before the command."""

    config_path: Path


class Root(LazyGroup):
    def invoke(self, ctx: click.Context) -> Any:
        """Says that it is at work where that takes long, whatever the command."""
        with working.shown(ctx, output.PROGRAM):
            return super().invoke(ctx)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002
        **extra: Any,
    ) -> NoReturn:
        """Run, and leave with a documented exit code. A command returns its code, or None for 0."""
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            if hint := _hint(error):
                click.echo(hint, err=True)
            code = exits.USAGE
        except click.Abort:
            code = exits.INTERRUPTED
        except DicomwatchdError as error:
            output.problem(error)
            code = exits.code_for(error)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            output.note(f"the answer cannot be written whole: {os.strerror(error.errno or 0)}")
            _give_up_the_rest()
            code = exits.NO
        sys.exit(code or exits.OK)


def _give_up_the_rest() -> None:
    """What is still to be written would be tried once more when the interpreter ends, which changes the exit code."""
    with suppress(OSError, ValueError):  # there may be no file behind it
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())


def _hint(error: click.ClickException) -> str:
    """What to do about what the command line lacks, or has in the wrong place."""
    if isinstance(error, click.NoSuchOption) and error.option_name == "--config":
        return f"--config must come before the command: {output.PROGRAM} --config FILE COMMAND"
    if isinstance(error, click.MissingParameter) and error.param is not None and error.param.name == "study":
        return f"`{output.PROGRAM} search` finds a study's UID"
    return ""


@click.group(
    cls=Root,
    lazy=COMMANDS,
    epilog=exits.EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The configuration.",
)
@click.version_option(__version__, prog_name=output.PROGRAM)
@click.pass_context
def root(context: click.Context, config_path: Path) -> None:
    """Manage dicomwatchd and its archive, and fetch studies.

    Commands that read only the archive (fetch, verify, search, catalogue) need no daemon. Commands that print
    an answer take --json and then write exactly one JSON document to standard output.
    """
    context.obj = Invocation(config_path)
