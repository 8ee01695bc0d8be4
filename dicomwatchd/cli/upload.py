"""`dicomwatchctl upload`: hand a folder that is no inbox to the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dicomwatchd.cli import exits, output, progress
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.control_access import client, socket_option
from dicomwatchd.cli.folders import RealFolder

_LISTED_FAILURES = 20


@click.command()
@click.argument(
    "folder",
    metavar="FOLDER",
    # A str, not a Path: the name goes to the daemon with its undecodable bytes as surrogates.
    type=RealFolder(),
)
@click.option("--delete", is_flag=True, help="Delete each file once it is verified in the archive.")
@click.option(
    "--wait/--no-wait",
    default=True,
    help="Stay until every file is verified or has failed (default), or hand the folder over and leave.",
)
@socket_option
@click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document.")
@click.pass_obj
def upload(
    invocation: Invocation, folder: str, delete: bool, wait: bool, socket_path: Path | None, as_json: bool
) -> int:
    """Archive a folder that is no inbox.

    FOLDER may be a mounted CD or USB stick. The daemon reads it, so it has to be readable for the daemon's user.
    Without --delete the folder is left as it is.

    The command waits and ends with how many of the files are verified in the archive, which are not and why, and
    whether the local copies are, or may now be, deleted. The exit code is 0 only if all files are verified, which
    after --no-wait is seldom known yet. Ctrl-C ends the waiting and not the archiving; the same command again
    tells how it went on.
    """
    connection = client(invocation, socket_path)
    with progress.bar(wanted=not as_json) as update:

        def show(at: dict[str, Any]) -> None:
            phase = output.clean(at.get("phase") or "").capitalize()
            update(
                at.get("files_done") or 0,
                at.get("files_total") or 0,
                at.get("bytes_done") or 0,
                at.get("bytes_total") or 0,
                phase,
            )

        try:
            result: dict[str, Any] = connection.call(
                "upload", path=folder, delete=delete, wait=wait, answer_seconds=None, on_progress=show
            )
        except KeyboardInterrupt:
            output.note("no longer waiting; the daemon carries on, and the same command again tells how it went")
            raise
    if as_json:
        output.document(result)
    else:
        for line in sentences(result, delete=delete):
            output.say(line)
    return exits.OK if all_verified(result) else exits.NO


def all_verified(result: dict[str, Any]) -> bool:
    """Whether the daemon says of every single file that it is verified. No file at all is no success.

    A DICOMDIR, counted as ignored where the daemon counts it, is a table of contents and no file to archive.
    """
    files, verified, ignored = (int(result.get(name) or 0) for name in ("files", "verified", "ignored"))
    return bool(result.get("done")) and verified > 0 and verified + ignored == files and not result.get("failed")


def sentences(result: dict[str, Any], *, delete: bool) -> list[str]:
    """What the result means for somebody who wonders whether the CD may go back to the patient."""
    files = int(result.get("files") or 0) - int(result.get("ignored") or 0)
    verified = int(result.get("verified") or 0)
    deleted, failed = int(result.get("deleted") or 0), list(result.get("failed") or [])
    if not result.get("done"):
        return [
            f"The daemon has taken the folder over; so far {verified:,} of {output.count(files, 'file')} "
            f"{_are(verified)} verified in the archive.",
            "Do not delete anything yet. The same command with --wait tells when all are verified.",
        ]
    if files == 0:
        return ["The folder holds no file that could be archived. Nothing was archived and nothing deleted."]
    if all_verified(result):
        whole = "The one file is" if files == 1 else f"All {files:,} files are"
        if deleted >= files:
            fate = "The local copies are deleted."
        elif delete:
            fate = f"{deleted:,} of the local copies are deleted; the others are still there."
        elif result.get("deletable"):
            fate = "The folder was left as it is; the local copies may now be deleted."
        else:
            fate = "The folder was left as it is."
        lines = [f"{whole} verified in the archive. {fate}"]
        if result.get("ignored"):
            lines.append("A DICOMDIR, which only lists the files beside it, is not archived and was left.")
        return lines
    lines = [
        f"{verified:,} of {output.count(files, 'file')} {_are(verified)} verified in the archive; "
        f"{files - verified:,} {_are(files - verified)} not:"
    ]
    for item in failed[:_LISTED_FAILURES]:
        lines.append(f"  {output.clean(item.get('name'))}: {output.clean(item.get('reason'))}")
    if len(failed) > _LISTED_FAILURES:
        lines.append(f"  ... and {len(failed) - _LISTED_FAILURES:,} more; --json lists all of them")
    if deleted:
        lines.append(f"{deleted:,} local copies, all of verified files, are deleted; the others are still there.")
    else:
        lines.append("No local copy was deleted.")
    lines.append("Do not delete what is left: the archive does not hold all of it.")
    return lines


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
