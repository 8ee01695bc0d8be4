"""`dicomwatchctl catalogue`: work on the catalogue of the archive."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.studies.access import ArchiveOptions, archive_and_catalogue_options, opened
from dicomwatchd.cli.terminal import output, progress, tables

if TYPE_CHECKING:
    from dicomwatchd.archive.repair.rebuild import RebuildReport

_THREADS = 8


@click.group()
def catalogue() -> None:
    """Maintain the catalogue of the archive."""


@catalogue.command()
@output.json_option
@tables.wide_option
@archive_and_catalogue_options
@click.pass_obj
def rebuild(invocation: Invocation, as_json: bool, where: ArchiveOptions) -> int:
    """Rebuild the catalogue from the store.

    The manifests in the store hold everything that the catalogue knows. Nothing in the catalogue is deleted, and
    newer entries are kept. The daemon may be running, and an interrupted run can be repeated. The exit code is 1 if
    a manifest could not be used.
    """
    from dicomwatchd.archive.repair.rebuild import rebuild as run

    with (
        opened(invocation, where, connections=_THREADS) as archive,
        ThreadPoolExecutor(_THREADS) as pool,
        progress.bar(wanted=not as_json) as update,
    ):

        def show(report: RebuildReport) -> None:
            update(report.studies, report.studies, 0, 0, "Studies recorded")

        report = run(archive.store, archive.needed_catalogue(), progress=show, map=pool.map)
    if as_json:
        output.document(
            {
                "studies": report.studies,
                "recorded": report.recorded,
                "unchanged": report.unchanged,
                "unusable": report.unusable,
                "problems": [asdict(item) for item in report.problems],
            }
        )
    else:
        output.say(
            f"{output.count(report.studies, 'study', 'studies')} in the store: {report.recorded:,} recorded, "
            f"{report.unchanged:,} already in the catalogue, {report.unusable:,} not usable."
        )
        if report.problems:
            tables.table(
                ("STUDY", "REVISION", "WHY THE MANIFEST WAS NOT USED"),
                ((item.study_uid, item.revision, item.reason) for item in report.problems),
            )
    return exits.NO if report.problems else exits.OK
