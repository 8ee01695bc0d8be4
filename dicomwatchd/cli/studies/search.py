"""`dicomwatchctl search`: find studies in the catalogue. Prints patient attributes, as only `show` does besides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.control_access import socket_option
from dicomwatchd.cli.studies import attributes, held, storage
from dicomwatchd.cli.studies.access import ArchiveOptions, archive_and_catalogue_options, noting, opened
from dicomwatchd.cli.studies.criteria import DateRangeType, DayType, MomentType, PlaceType
from dicomwatchd.cli.terminal import output, tables
from dicomwatchd.cli.terminal.identifiers import IDENTIFIER

if TYPE_CHECKING:
    from dicomwatchd.archive.records import StudyRecord
    from dicomwatchd.fetch.cold import InClass
    from dicomwatchd.model import Uid

_CONNECTIONS = 8
_COLUMNS = ("DATE", "PATIENT ID", "NAME", "ACCESSION", "MODALITY", "FILES", "SIZE")


@click.command()
@click.option(
    "--patient",
    metavar="ID",
    type=IDENTIFIER,
    help="Exact patient ID (case-sensitive); - reads it from standard input.",
)
@click.option("--issuer", metavar="TEXT", help="Issuer of the Patient ID, not case-sensitive.")
@click.option(
    "--name",
    metavar="PATTERN",
    type=IDENTIFIER,
    help="Patient's Name, not case-sensitive: all of it or its first words, or a pattern with * and ?, such as"
    " 'doe*ja?e'; - reads it from standard input.",
)
@click.option("--born", metavar="DATE", type=DayType(), help="Patient's Birth Date, YYYYMMDD or YYYY-MM-DD.")
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
@click.option("--description", metavar="PATTERN", help="Study Description, a pattern as in --name.")
@click.option("--institution", metavar="PATTERN", help="Institution Name, a pattern as in --name.")
@click.option(
    "--archived-since",
    metavar="TIME",
    type=MomentType(),
    help="Archived (the newest revision) at this time or later: YYYY-MM-DD or YYYY-MM-DDTHH:MM, UTC.",
)
@click.option("--incomplete", is_flag=True, help="Studies of which images are missing; show names what.")
@click.option("--held", "is_held", is_flag=True, help="Studies that the daemon of this machine holds.")
@click.option("--storage", "with_storage", is_flag=True, help="Ask the store for the storage classes of what is found.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Show at most this many studies; 0 for all.",
)
@click.option("--all", "is_all", is_flag=True, help="Show all studies, whatever their number.")
@click.option(
    "--after", metavar="PLACE", type=PlaceType(), help="Continue an earlier list; it printed PLACE at its end."
)
@socket_option
@output.json_option
@tables.wide_option
@archive_and_catalogue_options
@click.pass_obj
def search(
    invocation: Invocation,
    patient: str | None,
    issuer: str | None,
    name: str | None,
    born: str | None,
    accession: str | None,
    dates: tuple[str, str] | None,
    modality: str | None,
    description: str | None,
    institution: str | None,
    archived_since: str | None,
    incomplete: bool,
    is_held: bool,
    with_storage: bool,
    limit: int,
    is_all: bool,
    after: str | None,
    socket_path: Path | None,
    as_json: bool,
    where: ArchiveOptions,
) -> int:
    """Find archived studies.

    All given conditions must match; without any, all studies are listed, newest study date first. Conditions on the
    patient must all match the same patient; a study whose files name several patients is found by each of them. The
    exit code is 0 even if nothing is found. Needs the catalogue; --held also needs the daemon, or its state. The
    catalogue does not know storage classes: --storage lists the objects of each study that is found, which needs the
    store, and says what is in cold storage and how long restoring takes. Prints patients' names and IDs.
    """
    from dicomwatchd.archive.documents import patient_ids
    from dicomwatchd.archive.records import Query, place

    begin, end = dates or ("", "")
    query = Query(
        patient_id=patient,
        accession_number=accession,
        date_from=begin,
        date_to=end,
        modality=modality.upper() if modality else None,
        issuer=issuer,
        name=name,
        birth_date=born,
        description=description,
        institution=institution,
        archived_from=archived_since or "",
        before=after,
        is_incomplete=incomplete,
    )
    limit = 0 if is_all else limit
    notes: list[str] = []
    note = noting(notes, quiet=as_json)
    uids = held.held_uids(invocation, socket_path, where, note) if is_held else None
    absent: list[Uid] = []
    found: Iterable[StudyRecord]
    with opened(invocation, where, connections=_CONNECTIONS) as archive:
        catalogue = archive.needed_catalogue()
        if uids is None:
            for text in catalogue.shortcomings(query):
                note(text)
            found = catalogue.search(query)
        else:
            found, absent = held.matching(catalogue, query, uids, note)
        records = list(islice(found, limit + 1) if limit else found)
        truncated = bool(limit) and len(records) > limit
        records = records[:limit] if limit else records
        stored: Mapping[Uid, list[InClass]] = {}
        if with_storage:
            with ThreadPoolExecutor(_CONNECTIONS) as pool:
                stored = storage.of_studies(archive.store, (record.study_uid for record in records), note, pool.map)
    if as_json:
        output.document(
            {
                "studies": [
                    summary(record) | ({"storage": storage.document(stored[record.study_uid])} if with_storage else {})
                    for record in records
                ],
                "truncated": truncated,
                "next": place(records[-1]) if truncated else None,
                "not_in_catalogue": absent,
                "notes": notes,
            }
        )
        return exits.OK
    held.say_absent(absent, note)
    if not records:
        output.say("No study matches.")
        return exits.OK
    tables.table(
        (*_COLUMNS, *(["STORAGE"] if with_storage else []), "STUDY"),
        (
            (
                attributes.date(record.study_date),
                _with_others(record.patient_id, patient_ids(record)),
                attributes.text(record.attributes, attributes.PATIENT_NAME),
                record.accession_number,
                " ".join(record.modalities),
                record.instances,
                output.size(record.size_bytes),
                *([storage.cell(stored[record.study_uid])] if with_storage else []),
                record.study_uid,
            )
            for record in records
        ),
        least=("ACCESSION", "SIZE", "FILES"),
    )
    if remark := storage.remark(stored.values()):
        output.note(remark)
    if truncated:
        output.note(
            f"only the first {output.count(limit, 'study', 'studies')} shown; use a larger --limit to see more, or"
            f" --after '{place(records[-1])}' to see the next ones"
        )
    return exits.OK


def _with_others(first: str, ids: tuple[str, ...]) -> str:
    """The Patient ID, and of how many others the study's files are."""
    others = len([one for one in ids if one and one != first])
    return f"{first} +{others}".strip() if others else first


def summary(record: StudyRecord) -> dict[str, Any]:
    """A study for JSON, without its series."""
    from dicomwatchd.archive.documents import identities, orders
    from dicomwatchd.study_completeness import NOTHING_KNOWN

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
        "patients": [asdict(one) for one in identities(record)],
        "orders": [asdict(one) for one in orders(record)],
        "institutions": list(record.institutions or ()),
        "completeness": (record.completeness or NOTHING_KNOWN).document(),
    }
