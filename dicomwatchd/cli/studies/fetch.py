"""`dicomwatchctl fetch`: get a study back."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.studies.access import UID, Amiss, ArchiveOptions, archive_options, noting, opened
from dicomwatchd.cli.terminal import output, progress, tables
from dicomwatchd.model import Uid

if TYPE_CHECKING:
    from dicomwatchd.fetch import FetchFailure, FetchProgress, FetchReport

_LISTED_FAILURES = 20


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
@click.argument("study", metavar="STUDY", type=UID)
@click.option(
    "-o",
    "--output",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Target folder. Default: a folder named after the study's UID, in the current folder.",
)
@click.option("--series", metavar="UID", type=UID, multiple=True, help="Only this series; may be given repeatedly.")
@click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(1, 256),
    default=16,
    show_default=True,
    help="Files to fetch in parallel.",
)
@click.option(
    "--mode",
    metavar="MODE",
    type=ModeType(),
    default="0600",
    show_default=True,
    help="Mode of the files; users who may read them may also enter the folders.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer as one JSON document.")
@tables.wide_option
@archive_options
@click.pass_obj
def fetch(
    invocation: Invocation,
    study: Uid,
    folder: Path | None,
    series: tuple[Uid, ...],
    threads: int,
    mode: int,
    as_json: bool,
    where: ArchiveOptions,
) -> int:
    """Fetch a study, with every file verified.

    STUDY is a Study Instance UID. The files go to DIR/<SeriesInstanceUID>/<SOPInstanceUID>.dcm, or, if several
    files share a UID, to <SOPInstanceUID>-<8 hex of the SHA-256>.dcm. A file gets its name only after its
    SHA-256 matched the one recorded when it was archived. Existing files are kept, so a second run fetches
    what is missing; a file with different content is reported and not touched. Nobody else may read the
    files, unless --mode says so.

    No daemon is needed. If the catalogue is down or does not know the study, only the store is read. If the newest
    manifest is damaged in the store, or the manifests do not continue one another, every file listed in a readable
    manifest is fetched, and the exit code is 1.
    """
    from dicomwatchd.fetch import Fetcher, look_up

    notes: list[str] = []
    note = noting(notes, quiet=as_json)
    amiss = Amiss(note)
    target = folder or Path(study)
    with opened(invocation, where, connections=threads) as archive:
        with ThreadPoolExecutor(threads) as pool:
            found = look_up(archive.store, archive.catalogue, study, note=note, doubts=amiss.doubts(), map=pool.map)
        with progress.bar(wanted=not as_json) as update:

            def show(at: FetchProgress) -> None:
                update(at.files_done, at.files_total, at.bytes_done, at.bytes_total, "Fetching")

            try:
                report = Fetcher(archive.store, threads=threads).fetch(
                    found.manifest,
                    target,
                    series=series or None,
                    mode=mode,
                    elsewhere=found.elsewhere,
                    progress=show,
                )
            except KeyboardInterrupt:
                output.note("interrupted; fetched files are kept. Run the same command again to fetch the rest")
                raise
    if as_json:
        _document(report, target, amiss, notes)
    else:
        _sentences(report, target)
    if report.complete and not amiss:
        return exits.OK
    return exits.code_for(report.stopped) if report.stopped else exits.NO


def _document(report: FetchReport, target: Path, amiss: Amiss, notes: list[str]) -> None:
    output.document(
        {
            "study_uid": report.study_uid,
            "revision": report.revision,
            "directory": str(target),
            "complete": report.complete and not amiss,
            **amiss.document(),
            "files": report.files,
            "bytes": report.size_bytes,
            "fetched": report.fetched,
            "fetched_bytes": report.fetched_bytes,
            "already_there": report.already_there,
            "failed": [asdict(failure) for failure in report.failed],
            "bad_objects": [asdict(failure) for failure in report.bad_objects],
            "stopped": report.stopped.message if report.stopped else None,
            "seconds": round(report.seconds, 3),
            "notes": notes,
        }
    )


def _sentences(report: FetchReport, target: Path) -> None:
    there = report.fetched + report.already_there
    done = f"{report.fetched:,} fetched"
    if report.fetched_bytes and report.seconds:
        speed = output.size(report.fetched_bytes / report.seconds)
        done += f" ({output.size(report.fetched_bytes)} at {speed}/s)"
    if report.already_there:
        done += f", {report.already_there:,} already present"
    place = output.clean(target)
    if report.complete:
        output.say(
            f"All {output.count(report.files, 'file')} of study {report.study_uid}, revision {report.revision}, "
            f"are in {place}: {done}; every SHA-256 matches."
        )
    else:
        from dicomwatchd.fetch.report import Stopped

        output.say(f"{there:,} of {output.count(report.files, 'file')} in {place}: {done}. Not fetched:")
        _list([failure for failure in report.failed if failure.code != Stopped.code])
        stopped = sum(failure.code == Stopped.code for failure in report.failed)
        if report.stopped is not None:
            output.problem(report.stopped)
            if stopped:
                output.note(f"the fetch stopped there; files not tried: {stopped:,}")
    if report.bad_objects:
        output.note(
            "these files are correct, but did not come from the object that the manifest names; "
            f"`dicomwatchctl verify --deep {report.study_uid}` examines the study"
        )
        _list(report.bad_objects)


def _list(failures: list[FetchFailure] | tuple[FetchFailure, ...]) -> None:
    rows = [(f.series_uid, f.sop_instance_uid, f.reason) for f in failures[:_LISTED_FAILURES]]
    tables.table(("SERIES", "SOP INSTANCE", "REASON"), rows)
    if len(failures) > _LISTED_FAILURES:
        output.say(f"... and {len(failures) - _LISTED_FAILURES:,} more; --json lists all of them")
