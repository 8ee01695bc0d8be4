"""`dicomwatchctl upload`: hand a folder that is no inbox to the daemon, and look after what was handed in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.control_access import ask, client, socket_option
from dicomwatchd.cli.folders import FolderOrDiscImage
from dicomwatchd.cli.lazy import DefaultGroup
from dicomwatchd.cli.terminal import output, progress, tables
from dicomwatchd.cli.terminal.identifiers import IDENTIFIER
from dicomwatchd.control.client import ControlClient, DaemonRefused
from dicomwatchd.errors import DicomwatchdError, Permanent
from dicomwatchd.upload_text import all_verified, as_of_now, asker, sentences

_upload_argument = click.argument("upload_id", metavar="ID", type=IDENTIFIER)
#: How long a cancel waits for the deletions that were under way, of one page of files, before it leaves that to them.
_CANCEL_SECONDS = 60.0
_NOT_COMPLETE = {"complete": False, "deletable": False, "images_deletable": False}


@click.command()
@click.argument(
    "folder",
    metavar="FOLDER",
    # A str, not a Path: the name goes to the daemon with its undecodable bytes as surrogates.
    type=FolderOrDiscImage(),
)
@click.option("--delete", is_flag=True, help="Delete each file once it is verified in the archive.")
@click.option(
    "--wait/--no-wait",
    default=True,
    help="Wait until every file is verified or has failed (default), or return at once.",
)
@socket_option
@output.json_option
@click.pass_obj
def hand_in(
    invocation: Invocation, folder: str, delete: bool, wait: bool, socket_path: Path | None, as_json: bool
) -> int:
    """Archive a folder that is not an inbox.

    FOLDER may be a mounted CD or USB stick, or a folder in your home. This command opens it and passes it to the
    daemon, which does nothing that you may not do: files that you may not read are left out, files that you may not
    delete are kept. The daemon's own user must be able to read the folder and its contents, and to write to it with
    --delete; the folders above it do not matter. Without --delete the folder is not changed. For a folder named list,
    show or cancel, give ./list and so on.

    It may also be a file: the image of a CD or DVD (ISO 9660). Its files are unpacked below /var/tmp (or $TMPDIR), and
    are there for as long as the command runs; the image itself is never changed.

    The command waits for the result: how many files are verified in the archive, which are not and what to do, and
    whether the local copies were deleted or may now be deleted. It says so, and the exit code is 0, only if the whole
    folder was scanned twice and every DICOM file is verified; after --no-wait this is not known yet. Ctrl-C stops
    the waiting, not the archiving; run the same command again to follow the upload.

    What is not DICOM (a viewer, a text) is left alone, counted, and never deleted. Images that the DICOMDIR of a disc
    lists, and that are neither on the disc nor in the archive, are named, and the exit code is 1.
    """
    connection = client(invocation, socket_path)
    if Path(folder).is_dir():
        result = _handed_in(connection, folder, delete=delete, wait=wait, as_json=as_json)
        return _tell(result, as_json=as_json, delete=delete)
    if delete or not wait:
        raise click.UsageError(
            "a disc image takes neither --delete nor --no-wait: it stays as it is, and its files are unpacked for as"
            " long as the command runs"
        )
    return _tell(_image_handed_in(connection, Path(folder), as_json=as_json), as_json=as_json, delete=False)


def _handed_in(
    connection: ControlClient,
    folder: str,
    *,
    delete: bool,
    wait: bool,
    as_json: bool,
    carries_on: bool = True,
) -> dict[str, Any]:
    with _opened(folder) as folder_fd, progress.bar(wanted=not as_json) as update:

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
                "upload-folder",
                descriptor=folder_fd,
                delete=delete,
                wait=wait,
                answer_seconds=None,
                on_progress=show,
            )
        except DaemonRefused as error:
            from dicomwatchd.control.peer import NO_SUCH_COMMAND, BadRequest

            if (error.code, error.message) == (BadRequest.code, NO_SUCH_COMMAND):
                raise DaemonRefused(
                    "this dicomwatchctl is newer than the running daemon",
                    code="daemon-too-old",
                    hint="restart it: systemctl restart dicomwatchd",
                ) from error
            raise
        except KeyboardInterrupt:
            if carries_on:
                output.note("no longer waiting; the daemon carries on. Run the same command again to see the result")
            raise
        if result.get("done") and not _is_at(folder, folder_fd):
            output.note("another folder is now at this path; the result below is for the folder that was uploaded")
            result |= _NOT_COMPLETE
    return result


def _image_handed_in(connection: ControlClient, image: Path, *, as_json: bool) -> dict[str, Any]:
    """What came of the files of a disc image. They are there while this lasts, so an upload that did not end is
    cancelled; what is archived of it stays so."""
    from dicomwatchd.cli.disc.unpacking import unpacked

    with ExitStack() as stack:
        with progress.bar(wanted=not as_json) as update:
            disc = stack.enter_context(
                unpacked(
                    image,
                    lambda place: bool(_running_below(connection, place)),
                    lambda done, in_all: update(0, 0, done, in_all, "Unpacking"),
                )
            )
        try:
            result = _handed_in(
                connection,
                str(disc.folder),
                delete=False,
                wait=True,
                as_json=as_json,
                carries_on=False,
            )
        except BaseException:  # whatever has ended it: the folder goes
            with suppress(DicomwatchdError):
                for upload_id in _running_below(connection, disc.folder):
                    connection.call("upload-cancel", upload_id=upload_id)
                    output.note("the upload was cancelled; what is archived stays archived. Run the same command again")
            raise
        for note in disc.notes:
            output.note(note)
        if not disc.is_unchanged():
            output.note("the disc image has changed since it was unpacked; the result below is for what it was")
            result |= _NOT_COMPLETE
    if disc.is_cut_off and not (result.get("dicomdir") or {}).get("images"):
        result |= _NOT_COMPLETE  # of a file that is gone altogether nothing tells what it was
    return result | {"path": str(image), "disc_image": True}


def _running_below(connection: ControlClient, place: Path) -> list[str]:
    """The uploads of what was unpacked there that have not ended. Raises DaemonUnreachable, DaemonRefused."""
    uploads: list[dict[str, Any]] = connection.call("upload-list", limit=100)
    return [
        str(one.get("upload_id"))
        for one in uploads
        if one.get("ended_at") is None and Path(str(one.get("path"))).is_relative_to(place.resolve())
    ]


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    """Raises Permanent where the user may not list it."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise Permanent(f"the folder cannot be opened ({why})", code="unreadable", path=folder) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _is_at(folder: str, fd: int) -> bool:
    try:
        found = Path(folder).lstat()
    except OSError:
        return False
    return os.path.samestat(found, os.fstat(fd))


@click.group(cls=DefaultGroup, default=hand_in)
def upload() -> None:
    """Archive a folder that is not an inbox."""


@upload.command("list")
@output.limit_option("lines")
@socket_option
@output.json_option
@tables.wide_option
@click.pass_obj
def list_uploads(invocation: Invocation, limit: int, socket_path: Path | None, as_json: bool) -> None:
    """List the uploads.

    Shows the running uploads and the results of those of the last 30 days, newest first.
    """
    found: list[dict[str, Any]] = ask(invocation, socket_path, "upload-list", limit=limit)
    uploads = [as_of_now(one) for one in found]
    if as_json:
        output.document({"uploads": uploads})
        return
    if not uploads:
        output.say("No folder was uploaded in the last 30 days.")
        return
    tables.table(
        ("ID", "STATE", "FILES", "VERIFIED", "DELETED", "NOT ARCHIVED", "STARTED", "ENDED", "BY", "FOLDER"),
        (
            (
                one.get("upload_id"),
                one.get("outcome") or one.get("state"),
                one.get("files"),
                one.get("verified"),
                one.get("deleted"),
                one.get("failed_files"),
                one.get("started_at"),
                one.get("ended_at"),
                asker(one),
                one.get("path"),
            )
            for one in uploads
        ),
        least=("STARTED", "BY", "DELETED", "ENDED", "VERIFIED"),
    )


@upload.command()
@_upload_argument
@socket_option
@output.json_option
@click.pass_obj
def show(invocation: Invocation, upload_id: str, socket_path: Path | None, as_json: bool) -> int:
    """Show the progress or the result of an upload.

    ID is the number from `upload list`. Prints what `upload FOLDER` prints at its end, with the same exit code. It says
    that the local copies may be deleted only for 15 minutes after the end: later, upload the folder again first.
    """
    result = as_of_now(ask(invocation, socket_path, "upload-show", upload_id=upload_id))
    if not as_json and (who := asker(result)) is not None:
        output.say(
            f"Started by {who} at {result.get('started_at')}{', with --delete' if result.get('delete') else ''}."
        )
    return _tell(result, as_json=as_json, delete=bool(result.get("delete")))


@upload.command()
@_upload_argument
@socket_option
@output.json_option
@click.pass_obj
def cancel(invocation: Invocation, upload_id: str, socket_path: Path | None, as_json: bool) -> int:
    """Cancel a running upload.

    The folder is no longer touched, archived files stay archived, and no study waits
    for the remaining files. The exit code is 1 if the upload had already ended.
    """
    connection = client(invocation, socket_path)
    result: dict[str, Any] = connection.call("upload-cancel", upload_id=upload_id)
    _until(lambda: result.get("done"), lambda: result.update(connection.call("upload-show", upload_id=upload_id)))
    if as_json:
        output.document(result)
    else:
        for line in sentences(result, delete=bool(result.get("delete"))):
            output.say(line)
    return exits.OK if result.get("outcome") in ("cancelled", None) else exits.NO


def _until(done: Callable[[], object], again: Callable[[], object]) -> None:
    end = time.monotonic() + _CANCEL_SECONDS
    while not done() and time.monotonic() < end:
        time.sleep(0.2)
        again()


def _tell(result: dict[str, Any], *, as_json: bool, delete: bool) -> int:
    if as_json:
        output.document(result)
    else:
        for line in sentences(result, delete=delete):
            output.say(line)
    return exits.OK if all_verified(result) and not result.get("held") else exits.NO
