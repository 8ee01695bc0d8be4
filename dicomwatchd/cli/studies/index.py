"""`dicomwatchctl archive index`: what viewers read of each series, for what is archived already."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.studies.access import UID, Archive, ArchiveOptions, archive_options, opened, threads_option
from dicomwatchd.cli.studies.criteria import MomentType
from dicomwatchd.cli.terminal import output, tables

if TYPE_CHECKING:
    from dicomwatchd.model import Uid
    from dicomwatchd.series.indexing import IndexReport

_LISTED = 50


@click.command()
@click.option(
    "--study", "studies", metavar="UID", type=UID, multiple=True, help="Only this study. May be given repeatedly."
)
@click.option(
    "--since",
    metavar="TIME",
    type=MomentType(),
    help="Only studies archived since then, UTC; needs the catalogue.",
)
@threads_option("Files to read in parallel.", default=8)
@output.json_option
@tables.wide_option
@archive_options
@click.pass_obj
def index(
    invocation: Invocation,
    studies: tuple[Uid, ...],
    since: str | None,
    threads: int,
    as_json: bool,
    where: ArchiveOptions,
) -> int:
    """Write what viewers read of each series.

    A series object holds the headers of all instances of a series, where each frame is, and its SHA-256. It is derived
    of the files, which are read once and compared: nothing is lost with it, and a viewer derives it itself where it is
    missing. Series that have one are passed over, so an interrupted run is continued by the next one.

    The exit code is 1 if a study or a series could not be read or written.
    """
    from dicomwatchd.cli.terminal import progress
    from dicomwatchd.series.indexing import index as run

    if studies and since:
        raise click.UsageError("--study and --since exclude each other")
    with (
        opened(invocation, where, connections=threads) as archive,
        ThreadPoolExecutor(threads) as pool,
        progress.bar(wanted=not as_json) as update,
    ):

        def show(report: IndexReport) -> None:
            update(report.series, report.series, report.read_bytes, report.read_bytes, "Series indexed")

        try:
            wanted = _wanted(archive, studies, since)
            report = run(archive.store, archive.catalogue, wanted, map=pool.map, progress=show)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    if as_json:
        output.document(_document(report))
    else:
        _say(report)
    return exits.NO if report.has_problems or (studies and report.gone) else exits.OK


def _wanted(archive: Archive, studies: tuple[Uid, ...], since: str | None) -> Iterable[Uid]:
    from dicomwatchd.archive.records import Query
    from dicomwatchd.series.indexing import every_study

    if studies:
        return studies
    if since is None:
        return every_study(archive.store)
    found = archive.needed_catalogue().search(Query(archived_from=since))
    return (record.study_uid for record in found)


def _document(report: IndexReport) -> dict[str, object]:
    return {
        "studies": report.studies,
        "series": report.series,
        "present": report.present,
        "written": report.written,
        "incomplete": report.incomplete,
        "failed": report.failed,
        "gone": report.gone,
        "instances_read": report.instances_read,
        "bytes_read": report.read_bytes,
        "bytes_written": report.written_bytes,
        "problems": [
            {"study_uid": one.study_uid, "series_uid": one.series_uid or None, "code": one.code, "reason": one.reason}
            for one in report.problems
        ],
        "unnamed_problems": report.unnamed_problems,
    }


def _say(report: IndexReport) -> None:
    output.say(
        f"{output.count(report.series, 'series', 'series')} of {output.count(report.studies, 'study', 'studies')}: "
        f"{report.written:,} written, {report.present:,} had one already, {report.incomplete:,} with files that cannot"
        f" be read, {report.failed:,} that cannot be written."
    )
    if report.instances_read:
        output.say(
            f"{output.count(report.instances_read, 'file')} read, {output.size(report.read_bytes)}; "
            f"{output.size(report.written_bytes)} written."
        )
    if report.gone:
        output.say(f"{output.count(report.gone, 'study is', 'studies are')} not in the archive.")
    if report.problems:
        tables.table(
            ("STUDY", "SERIES", "WHY"),
            ((one.study_uid, one.series_uid or "-", one.reason) for one in report.problems[:_LISTED]),
        )
        if len(report.problems) > _LISTED:
            output.note("there are more; --json lists them")
