"""`dicomwatchctl search`: find studies in the catalogue. Prints patient attributes, as only `show` does besides."""

from __future__ import annotations

import re
from datetime import date as Date
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.studies import attributes
from dicomwatchd.cli.studies.access import ArchiveOptions, archive_and_catalogue_options, opened
from dicomwatchd.cli.terminal import output, tables
from dicomwatchd.cli.terminal.identifiers import IDENTIFIER

if TYPE_CHECKING:
    from dicomwatchd.archive.records import StudyRecord


class DateRangeType(click.ParamType):  # type: ignore[type-arg]
    """FROM..TO, either end open, or one day; YYYYMMDD or YYYY-MM-DD. Gives ("YYYYMMDD" or "", the same)."""

    name = "dates"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        first, dots, last = str(value).partition("..")
        begin = self._day(first, param, ctx)
        end = self._day(last, param, ctx) if dots else begin
        if not begin and not end:
            self.fail("give at least one end of FROM..TO", param, ctx)
        if begin and end and begin > end:
            self.fail("FROM is after TO", param, ctx)
        return begin, end

    def _day(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        match = re.fullmatch(r"([0-9]{4})(-?)([0-9]{2})\2([0-9]{2})", text.strip())
        if text.strip() and match is None:
            self.fail("a date is YYYYMMDD or YYYY-MM-DD", param, ctx)
        if match is None:
            return ""
        year, _, month, day = match.groups()
        try:
            Date(int(year), int(month), int(day))
        except ValueError:
            self.fail(f"there is no such day as {year}-{month}-{day}", param, ctx)
        return year + month + day


@click.command()
@click.option(
    "--patient",
    metavar="ID",
    type=IDENTIFIER,
    help="Exact patient ID (case-sensitive); - reads it from standard input.",
)
@click.option(
    "--accession",
    metavar="N",
    type=IDENTIFIER,
    help="Exact accession number (case-sensitive); - reads it from standard input.",
)
@click.option(
    "--date",
    "dates",
    metavar="FROM..TO",
    type=DateRangeType(),
    help="Study date, YYYYMMDD or YYYY-MM-DD; either end may be open.",
)
@click.option("--modality", metavar="M", help="A modality among the study's series, such as CT.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Show at most this many studies; 0 for all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer as one JSON document.")
@tables.wide_option
@archive_and_catalogue_options
@click.pass_obj
def search(
    invocation: Invocation,
    patient: str | None,
    accession: str | None,
    dates: tuple[str, str] | None,
    modality: str | None,
    limit: int,
    as_json: bool,
    where: ArchiveOptions,
) -> int:
    """Find archived studies.

    All given conditions must match; without any, all studies are listed, newest study date first. The exit
    code is 0 even if nothing is found. Needs the catalogue. Prints patients' names and IDs.
    """
    from dicomwatchd.archive.records import Query

    begin, end = dates or ("", "")
    query = Query(patient, accession, begin, end, modality.upper() if modality else None)
    with opened(invocation, where) as archive:
        found = archive.needed_catalogue().search(query)
        records = list(islice(found, limit + 1) if limit else found)
    truncated = bool(limit) and len(records) > limit
    records = records[:limit] if limit else records
    if as_json:
        output.document({"studies": [summary(record) for record in records], "truncated": truncated})
        return exits.OK
    if not records:
        output.say("No study matches.")
        return exits.OK
    tables.table(
        ("DATE", "PATIENT ID", "NAME", "ACCESSION", "MODALITY", "FILES", "SIZE", "STUDY"),
        (
            (
                attributes.date(record.study_date),
                record.patient_id,
                attributes.text(record.attributes, attributes.PATIENT_NAME),
                record.accession_number,
                " ".join(record.modalities),
                record.instances,
                output.size(record.size_bytes),
                record.study_uid,
            )
            for record in records
        ),
        least=("ACCESSION", "SIZE", "FILES"),
    )
    if truncated:
        output.note(f"only the first {output.count(limit, 'study', 'studies')} shown; use a larger --limit to see more")
    return exits.OK


def summary(record: StudyRecord) -> dict[str, Any]:
    """A study for JSON, without its series."""
    return {
        "study_uid": record.study_uid,
        "study_date": record.study_date,
        "patient_id": record.patient_id,
        "patient_name": attributes.text(record.attributes, attributes.PATIENT_NAME),
        "accession_number": record.accession_number,
        "study_description": attributes.text(record.attributes, attributes.STUDY_DESCRIPTION),
        "modalities": list(record.modalities),
        "instances": record.instances,
        "bytes": record.size_bytes,
        "revision": record.revision,
        "archived_at": record.archived_at,
        "flags": list(record.flags),
    }
