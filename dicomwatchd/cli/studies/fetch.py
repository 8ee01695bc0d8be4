"""`dicomwatchctl fetch`: get a study back."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.studies import attributes, cold
from dicomwatchd.cli.studies.access import (
    UID,
    Archive,
    ArchiveOptions,
    archive_options,
    noting,
    opened,
    threads_option,
)
from dicomwatchd.cli.studies.criteria import DateRangeType
from dicomwatchd.cli.studies.fetched import Done
from dicomwatchd.cli.studies.fetching import Delivery, Order, ToFolders, ask_for_all
from dicomwatchd.cli.studies.packing import STDOUT, ToFile
from dicomwatchd.cli.studies.sending import ToDestination, destination_of
from dicomwatchd.cli.terminal import output, tables, working
from dicomwatchd.cli.terminal.identifiers import IDENTIFIER
from dicomwatchd.errors import Permanent, StudyNotFound
from dicomwatchd.model import Uid

if TYPE_CHECKING:
    from dicomwatchd.archive.records import Query, StudyRecord
    from dicomwatchd.archive.stores.port import Speed
    from dicomwatchd.fetch.layouts import Layout

_LISTED_STUDIES = 50


class ModeType(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """Permissions of a file in octal digits: reading and writing, and for the owner both."""

    name = "mode"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if re.fullmatch(r"0?[0-7]{3}", value) is None:
            self.fail("a mode is three octal digits, such as 0640", param, ctx)
        mode = int(value, 8)
        if mode & 0o600 != 0o600 or mode & 0o111:
            self.fail(
                "the owner must be able to read and write, and nobody to execute: 0600, 0640, 0644, 0660", param, ctx
            )
        return mode


@click.command()
@click.argument("study", metavar="[STUDY]", type=UID, required=False)
@click.option(
    "--accession",
    metavar="N",
    type=IDENTIFIER,
    help="Instead of STUDY: the studies with this accession number; - reads it from standard input.",
)
@click.option(
    "--patient",
    metavar="ID",
    type=IDENTIFIER,
    help="Instead of STUDY: the studies with this Patient ID; - reads it from standard input.",
)
@click.option("--issuer", metavar="TEXT", help="Issuer of the Patient ID, not case-sensitive.")
@click.option(
    "--study-date",
    "dates",
    metavar="FROM..TO",
    type=DateRangeType(),
    help="Only the studies of this date among them, YYYYMMDD or YYYY-MM-DD; either end may be open.",
)
@click.option("--all", "is_all", is_flag=True, help="Fetch all studies that match, without asking.")
@click.option(
    "-o",
    "--output",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Target folder; each of several studies gets its own folder in it, named after its UID. Default: a folder"
    " named after the study's UID, in the current folder.",
)
@click.option(
    "--layout",
    metavar="NAME",
    type=click.Choice(["uid", "original", "readable"]),
    help="Folders and names of the files: by UIDs (uid, the default), as below the inbox that they came from"
    " (original), or PATIENT/DATE-DESCRIPTION/SERIES (readable).",
)
@click.option(
    "--dicomdir",
    is_flag=True,
    help="Make a DICOM file-set: files with names of eight characters, and a DICOMDIR that lists them.",
)
@click.option(
    "--zip",
    "zip_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Write one ZIP file, with a page and a text that say what is in it; - writes it to standard output.",
)
@click.option(
    "--iso",
    "iso_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the image of a disc (ISO 9660) with a DICOM file-set, to be burnt or mounted.",
)
@click.option("--deflate", is_flag=True, help="With --zip: compress files that are not compressed.")
@click.option(
    "--send",
    "send_to",
    metavar="DEST",
    help="Send the files by DICOM (C-STORE) to AET@HOST:PORT, or to a destination of this name in the configuration.",
)
@click.option("--calling", metavar="AET", help="With --send: our own AE title. Default: DICOMWATCHD.")
@click.option(
    "--resume",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --send: note in FILE what was confirmed, and send only what FILE does not have.",
)
@click.option("--series", metavar="UID", type=UID, multiple=True, help="Only this series; may be given repeatedly.")
@click.option(
    "--with-dicomdir",
    is_flag=True,
    help="Also fetch the DICOMDIRs that were archived with the study, to DIR/dicomdirs.",
)
@click.option(
    "--restore",
    metavar="SPEED",
    type=cold.SpeedType(),
    is_flag=False,
    flag_value="standard",
    help="Restore files from cold storage, which is charged for: --restore takes hours, --restore=bulk more hours and"
    " less money, --restore=expedited minutes and more money.",
)
@click.option(
    "--restore-days",
    metavar="N",
    type=click.IntRange(1, 365),
    default=7,
    show_default=True,
    help="How long restored files stay readable.",
)
@click.option("--wait", is_flag=True, help="With --restore: wait until the files are restored, then fetch them.")
@threads_option("Files to fetch in parallel.")
@click.option(
    "--mode",
    metavar="MODE",
    type=ModeType(),
    default="0600",
    show_default=True,
    help="Mode of the files; users who may read them may also enter the folders.",
)
@output.json_option
@tables.wide_option
@archive_options
@click.pass_obj
def fetch(
    invocation: Invocation,
    study: Uid | None,
    accession: str | None,
    patient: str | None,
    issuer: str | None,
    dates: tuple[str, str] | None,
    is_all: bool,
    folder: Path | None,
    layout: Layout | None,
    dicomdir: bool,
    zip_file: Path | None,
    iso_file: Path | None,
    deflate: bool,
    send_to: str | None,
    calling: str | None,
    resume: Path | None,
    series: tuple[Uid, ...],
    with_dicomdir: bool,
    restore: Speed | None,
    restore_days: int,
    wait: bool,
    threads: int,
    mode: int,
    as_json: bool,
    where: ArchiveOptions,
) -> int:
    """Fetch a study, with every file verified.

    STUDY is a Study Instance UID. With --accession or --patient instead, the studies are found in the catalogue; if
    there are several, they are listed, and fetched only after you confirm, or with --all. The files go to
    DIR/<SeriesInstanceUID>/<SOPInstanceUID>.dcm, or, if several files share a UID, to <SOPInstanceUID>-<8 hex of the
    SHA-256>.dcm. A file gets its name only after its
    SHA-256 matched the one recorded when it was archived. Existing files are kept, so a second run fetches
    what is missing; a file with different content is reported and not touched. Nobody else may read the
    files, unless --mode says so.

    Files in cold storage must be restored before they can be fetched. Without --restore they are reported, and the
    others are fetched.

    No daemon is needed. If the catalogue is down or does not know the study, only the store is read. If the newest
    manifest is damaged in the store, or the manifests do not continue one another, every file listed in a readable
    manifest is fetched, and the exit code is 1.
    """
    criteria = (accession, patient, issuer, dates)
    if study is None and accession is None and patient is None:
        if any(criteria):
            raise click.UsageError("--study-date and --issuer need --accession or --patient")
        context = click.get_current_context()
        raise click.MissingParameter(ctx=context, param=next(p for p in context.command.params if p.name == "study"))
    if study is not None and (any(one is not None for one in criteria) or is_all):
        raise click.UsageError("give either STUDY, or --accession or --patient")
    if wait and restore is None:
        raise click.UsageError("--wait needs --restore")
    if send_to is None and (calling is not None or resume is not None):
        raise click.UsageError("--calling and --resume need --send")
    if send_to is not None and (folder or zip_file or iso_file or layout or dicomdir or with_dicomdir):
        raise click.UsageError("--send excludes --output, --zip, --iso, --layout, --dicomdir and --with-dicomdir")
    if deflate and zip_file is None:
        raise click.UsageError("--deflate needs --zip")
    if zip_file is not None and (folder is not None or with_dicomdir):
        raise click.UsageError("--output and --with-dicomdir fill a folder: they exclude --zip")
    if iso_file is not None and (folder or zip_file or layout or with_dicomdir):
        raise click.UsageError("--iso has a file-set in it: it excludes --output, --zip, --layout and --with-dicomdir")
    if dicomdir and (layout is not None or with_dicomdir):
        raise click.UsageError("--dicomdir has names of its own: it excludes --layout and --with-dicomdir")
    restoring = cold.Order(restore, restore_days, wait) if restore is not None else None
    order = Order(series, threads, mode, as_json, with_dicomdir, restoring, layout, dicomdir or iso_file is not None)
    to_stdout = zip_file == STDOUT
    zip_to: Path | BinaryIO | None = sys.stdout.buffer if to_stdout else zip_file
    if to_stdout and (as_json or sys.stdout.isatty()):
        raise click.UsageError("--zip - writes to standard output, which must be neither a terminal nor JSON")
    with redirect_stdout(sys.stderr) if to_stdout else nullcontext(), ExitStack() as stack:
        archive = stack.enter_context(opened(invocation, where, connections=threads))
        if study is not None:
            wanted, several, notes = [study], False, []
        else:
            from dicomwatchd.archive.records import Query

            begin, end = dates or ("", "")
            query = Query(patient_id=patient, accession_number=accession, date_from=begin, date_to=end, issuer=issuer)
            notes = list[str]()
            wanted = _wanted(archive, query, noting(notes, quiet=as_json), is_all=is_all, may_ask=not as_json)
            several = len(wanted) > 1
        delivery: Delivery
        targets: dict[Uid, Path] = {}
        if send_to is not None:
            to = destination_of(invocation, send_to, calling)
            delivery = stack.enter_context(ToDestination.opened(archive, order, to, resume))
        elif iso_file is not None:
            delivery = stack.enter_context(ToFile.image(archive, order, iso_file))
        elif zip_to is not None:
            order = replace(order, beside_others=several)
            delivery = stack.enter_context(ToFile.opened(archive, order, zip_to, deflate=deflate))
        else:
            targets = _targets(wanted, folder, layout)
            order = replace(order, beside_others=len(wanted) > len(set(targets.values())))
            delivery = ToFolders(archive, order, targets)
        if several and wait:
            ask_for_all(archive, {uid: targets.get(uid) for uid in wanted}, order)
        done, failed = _deliver(delivery, wanted, as_json=as_json)
        more = delivery.end(done)
    code = max([exits.NO if failed or delivery.is_lacking else exits.OK, *(one.code for one in done)])
    if as_json:
        document = done[0].document() if study is not None else _document(wanted, done, failed, notes)
        document["complete"] &= not delivery.is_lacking
        output.document({**document, **more})
    elif several:
        whole = sum(one.code == exits.OK for one in done)
        output.say(f"{whole:,} of {output.count(len(wanted), 'study', 'studies')} fetched.")
    return code


def _deliver(delivery: Delivery, wanted: list[Uid], *, as_json: bool) -> tuple[list[Done], list[dict[str, str]]]:
    """What has come of each study, and of which nothing could be fetched. Raises Permanent if there is but one."""
    done: list[Done] = []
    failed = []
    for uid in wanted:
        try:
            done.append(delivery.one(uid))
        except Permanent as error:
            if len(wanted) == 1:
                raise
            if not as_json:
                output.problem(error)
            failed.append({"study_uid": uid, "code": error.code, "reason": error.message})
            continue
        if done[-1].report.stopped is not None:
            break  # the store, or the disk: the next one would meet the same
    return done, failed


def _document(wanted: list[Uid], done: list[Done], failed: list[dict[str, str]], notes: list[str]) -> dict[str, Any]:
    documents = [one.document() for one in done]
    return {
        "matching": len(wanted),
        "complete": len(done) == len(wanted) and all(one["complete"] for one in documents),
        "studies": documents,
        "failed_studies": failed,
        "notes": notes,
    }


def _wanted(archive: Archive, query: Query, note: Callable[[str], None], *, is_all: bool, may_ask: bool) -> list[Uid]:
    """The studies that match, if it is clear that they are wanted. Raises StudyNotFound, click.UsageError, and
    click.exceptions.Exit where the answer is no."""
    catalogue = archive.needed_catalogue()
    for text in catalogue.shortcomings(query):
        note(text)
    records = list(catalogue.search(query))
    if not records:
        raise StudyNotFound("no study in the catalogue matches")
    if len(records) > 1 and not is_all:
        count = output.count(len(records), "study", "studies")
        if not may_ask or not _may_be_asked():
            raise click.UsageError(
                f"{count} match: use --all to fetch all of them, or --study-date or a study's UID to fetch fewer"
            )
        _list_studies(records)
        working.end()
        if not click.confirm(f"{count} match, {_size(records)}. Fetch all of them?", err=True):
            output.note("nothing was fetched")
            raise click.exceptions.Exit(exits.NO)
    return [record.study_uid for record in records]


def _targets(wanted: list[Uid], folder: Path | None, layout: Layout | None) -> dict[Uid, Path]:
    """A folder of each study's own, but for names that people read: those of a patient's studies lie beside each
    other."""
    if folder is None or len(wanted) == 1 or layout == "readable":
        return {uid: folder or Path(uid) for uid in wanted}
    return {uid: folder / uid for uid in wanted}


def _may_be_asked() -> bool:
    return sys.stdin.isatty()


def _list_studies(records: list[StudyRecord]) -> None:
    """No patient's attributes: only `search` and `show` print those."""
    rows = [
        (
            attributes.date(one.study_date),
            " ".join(one.modalities),
            one.instances,
            output.size(one.size_bytes),
            one.study_uid,
        )
        for one in records[:_LISTED_STUDIES]
    ]
    tables.table(("DATE", "MODALITY", "FILES", "SIZE", "STUDY"), rows, least=("SIZE", "FILES"))
    if len(records) > _LISTED_STUDIES:
        output.say(f"... and {len(records) - _LISTED_STUDIES:,} more")


def _size(records: list[StudyRecord]) -> str:
    return output.size(sum(one.size_bytes for one in records))
