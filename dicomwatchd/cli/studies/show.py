"""`dicomwatchctl show`: what archive and daemon know of one study. Prints patient attributes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.control_access import ask, socket_option
from dicomwatchd.cli.studies import attributes, storage
from dicomwatchd.cli.studies.access import UID, Amiss, ArchiveOptions, archive_options, noting, opened
from dicomwatchd.cli.studies.damaged import DamagedInstances
from dicomwatchd.cli.studies.search import summary
from dicomwatchd.cli.studies.versions import OtherVersions
from dicomwatchd.cli.terminal import output, tables
from dicomwatchd.control.client import DaemonRefused, DaemonUnreachable
from dicomwatchd.errors import DicomwatchdError, Permanent, StudyErased, StudyNotFound
from dicomwatchd.model import Uid

if TYPE_CHECKING:
    from dicomwatchd.archive.layout.erasures import Erasure
    from dicomwatchd.archive.records import SeriesRecord, StudyRecord
    from dicomwatchd.fetch.cold import InClass
    from dicomwatchd.patients import Identity


@click.command()
@click.argument("study", metavar="STUDY", type=UID)
@socket_option
@output.json_option
@tables.wide_option
@archive_options
@click.pass_obj
def show(invocation: Invocation, study: Uid, socket_path: Path | None, as_json: bool, where: ArchiveOptions) -> int:
    """Show what is known about a study.

    STUDY is a Study Instance UID. Shows what the archive holds of it, with patient, study and series attributes;
    and, if the daemon runs on this machine, its local files and its state; and when, by whom and why it was erased
    from the archive, if it was. If objects are not in the store's usual storage class, it says which are in cold
    storage, and how long restoring takes. The exit code is 1 if neither knows it, if it was erased and not archived
    again since, or if its manifests in the archive are not valid.
    """
    notes: list[str] = []
    note = noting(notes, quiet=as_json)
    trouble: DicomwatchdError | None = None
    found = erasure = None
    amiss = Amiss(note)
    try:
        found, erasure = _archived(invocation, study, where, notes, amiss)
    except StudyNotFound:
        pass  # the daemon may know it
    except DicomwatchdError as error:
        trouble = error  # and what is here may say why
    local = _local(invocation, study, socket_path, where, note)
    is_erased = found is None and erasure is not None
    if found is None and local is None and not is_erased:
        raise trouble or StudyNotFound(f"study {study} is not known here")
    if trouble is not None:
        note(f"the archive does not answer: {trouble.message}")
    if found is None and erasure is not None:
        note(f"{erasure.error().message} (the reason given: {erasure.because})")
    code = exits.NO if amiss or is_erased or isinstance(trouble, Permanent) else exits.OK
    if as_json:
        archived = found and {**_document(found), **amiss.document()}
        erased = erasure and {key: value for key, value in erasure.document().items() if key in _OF_ERASURE}
        output.document({"study_uid": study, "archive": archived, "erased": erased, "local": local, "notes": notes})
        return code
    if found is None:
        state = "does not hold it any more: it was erased" if is_erased else "does not hold it yet"
        output.pairs([("Study", study), ("Archive", "unknown" if trouble else state), *_erased(erasure, "")])
    else:
        _print_archived(found, erasure)
    if local is not None:
        output.say()
        _print_local(local)
    return code


@dataclass(frozen=True, slots=True)
class _Archived:
    """What the archive holds of the study."""

    record: StudyRecord
    damaged: DamagedInstances
    versions: OtherVersions
    #: SOP Instance UIDs that DICOMDIRs list and that it lacks, as far as they are named.
    missing: list[str]
    #: The storage classes of its objects.
    storage: list[InClass]


def _archived(
    invocation: Invocation, study: Uid, where: ArchiveOptions, notes: list[str], amiss: Amiss
) -> tuple[_Archived | None, Erasure | None]:
    """What is there, and its last erasure; with an erasure alone nothing was archived since. Raises StudyNotFound, and
    as `look_up`."""
    from dicomwatchd.archive.layout import erasures
    from dicomwatchd.archive.layout.listed import missing_uids
    from dicomwatchd.fetch import look_up

    with opened(invocation, where) as archive:
        try:
            found = look_up(archive.store, archive.catalogue, study, note=notes.append, doubts=amiss.doubts())
        except StudyErased:
            return None, erasures.newest(archive.store, study)
        manifest = found.manifest
        of_study = _Archived(
            manifest.record(),
            DamagedInstances.of(manifest),
            OtherVersions.of(manifest),
            missing_uids(manifest.listed),
            storage.of_study(archive.store, study, notes.append),
        )
        return of_study, found.erasure


def _local(
    invocation: Invocation, study: Uid, socket_path: Path | None, where: ArchiveOptions, note: Any
) -> dict[str, Any] | None:
    if where.given and socket_path is None:
        return None  # a workstation that reads the archive alone
    try:
        found: dict[str, Any] | None = ask(invocation, socket_path, "show", note, study_uid=study)
    except DaemonUnreachable as error:
        note(f"{error.message}; local files of the study are unknown")
        return None
    except DaemonRefused as error:
        if error.code != StudyNotFound.code:
            note(f"the daemon says: {error.message}")
        return None
    return found


def _document(found: _Archived) -> dict[str, Any]:
    record = found.record
    return {
        **summary(record),
        "damaged_instances": found.damaged.document(),
        "other_versions": found.versions.document(),
        "missing_uids": found.missing[:_MISSING_LISTED],
        "storage": storage.document(found.storage),
        "manifest_key": record.manifest_key,
        "manifest_sha256": record.manifest_sha256,
        "attributes": record.attributes,
        "series": [
            {
                "series_uid": series.series_uid,
                "modality": series.modality,
                "instances": series.instances,
                "bytes": series.size_bytes,
                "attributes": series.attributes,
            }
            for series in record.series
        ],
    }


def _erased(erasure: Erasure | None, since: str) -> list[tuple[str, str]]:
    """When the study was erased, by whom and why, as the record says; nothing of the patient is in it."""
    if erasure is None:
        return []
    by = erasure.login or f"user {erasure.uid}"
    return [("Erased", f"{erasure.erased_at}, by {by}{since}"), ("Because", erasure.because)]


def _other(one: Identity) -> str:
    """Another patient that files of the study name."""
    said = (one.patient_id, one.issuer, one.name, attributes.date(one.birth_date), one.sex)
    return ", ".join(text for text in said if text)


_SERIES_TEXT = 24
#: What is told of an erasure beside the study.
_OF_ERASURE = ("number", "erased_at", "because", "erased_by")
#: Of what a DICOMDIR lists and is missing so many are printed, and named with --json.
_MISSING_PRINTED, _MISSING_LISTED = 20, 100


def _whole(record: StudyRecord) -> str:
    """Whether all of the study is there, in the words of a sentence."""
    from dicomwatchd.study_completeness import NOTHING_KNOWN, Answer

    found = record.completeness or NOTHING_KNOWN
    is_by_list = "dicomdir" in {one.code for one in found.evidence}
    return {
        Answer.COMPLETE: "yes, all that a DICOMDIR lists is there"
        if is_by_list
        else "yes, each series has all that it says it consists of",
        Answer.NO_SIGN: "no sign of a gap",
        Answer.GAPS: "no, something is missing",
        Answer.NOT_KNOWN: "not known",
    }[found.answer]


def _reasons(record: StudyRecord) -> list[str]:
    """What tells, series by series."""
    found = record.completeness
    if found is None:
        return ["an earlier version archived the study, which did not note what its images say"]
    names = {str(one.series_uid): _series_name(one) for one in record.series}
    return [
        f"{names.get(one.series_uid, 'a series')}: {one.text}" if one.series_uid else one.text
        for one in (*found.gaps, *found.signs, *found.evidence)
    ]


def _series_name(series: SeriesRecord) -> str:
    number = attributes.text(series.attributes, attributes.SERIES_NUMBER)
    description = attributes.text(series.attributes, attributes.SERIES_DESCRIPTION)[:_SERIES_TEXT]
    return " ".join(
        part for part in ("series", number or series.series_uid, description and f"({description})") if part
    )


def _missing(uids: list[str], number: int) -> list[tuple[str, str]]:
    """The first of what a DICOMDIR lists and is missing."""
    shown = uids[:_MISSING_PRINTED]
    rest = number - len(shown)
    return [*(("", f"missing: {uid}") for uid in shown), *([("", f"... and {rest:,} more")] if rest > 0 else [])]


def _print_archived(found: _Archived, erasure: Erasure | None) -> None:
    from dicomwatchd.archive.documents import accession_numbers, identities

    record = found.record

    def value(tag: str) -> str:
        return attributes.text(record.attributes, tag)

    output.pairs(
        [
            ("Study", record.study_uid),
            ("Patient", value(attributes.PATIENT_NAME)),
            ("Patient ID", record.patient_id),
            ("Born", attributes.date(value(attributes.BIRTH_DATE))),
            ("Sex", value(attributes.SEX)),
            *(("Also named", _other(one)) for one in identities(record)[1:]),
            ("Study date", attributes.date(record.study_date)),
            ("Accession", ", ".join(number for number in accession_numbers(record) if number)),
            ("Description", value(attributes.STUDY_DESCRIPTION)),
            ("Modality", " ".join(record.modalities)),
            *_erased(erasure, ", and archived again since"),
            ("Archived", f"revision {record.revision}, {record.archived_at}"),
            ("Files", f"{record.instances:,}, {output.size(record.size_bytes)}"),
            *storage.rows(found.storage),
            ("Complete", _whole(record)),
            *(("", text) for text in _reasons(record)),
            *found.damaged.rows(),
            *found.versions.rows(),
            *_missing(found.missing, len(found.missing)),
            ("Flags", ", ".join(record.flags)),
        ]
    )
    output.say()
    tables.table(
        ("SERIES", "NO", "MODALITY", "DESCRIPTION", "FILES", "SIZE"),
        (
            (
                series.series_uid,
                attributes.text(series.attributes, attributes.SERIES_NUMBER),
                series.modality,
                attributes.text(series.attributes, attributes.SERIES_DESCRIPTION),
                series.instances,
                output.size(series.size_bytes),
            )
            for series in record.series
        ),
        least=("SIZE", "NO"),
    )


def _older(local: dict[str, Any]) -> str | None:
    """What is said where nothing is kept of how the study went its way."""
    if local.get("history") or not local.get("archived_at"):
        return None
    return f"not kept before {local.get('history_since')}; dicomwatchctl prove shows the deletions"


def _listed(listed: dict[str, Any]) -> list[tuple[str, str]]:
    """What the DICOMDIRs here list of the study, and what of it is missing."""
    if not listed:
        return []
    images, missing = output.count(listed.get("images") or 0, "image"), listed.get("missing") or 0
    if not missing:
        return [("DICOMDIR", f"lists {images}; all of them are here or archived")]
    until = listed.get("waits_until")
    return [
        ("DICOMDIR", f"lists {images}; {missing:,} neither here nor archived"),
        *([("", f"the study waits for them until {until}, then it is archived without them")] if until else []),
        *_missing(listed.get("missing_uids") or [], missing),
    ]


def _print_local(local: dict[str, Any]) -> None:
    shipment = local.get("last_shipment") or {}
    output.pairs(
        [
            ("Local state", local.get("state")),
            ("Reason", local.get("reason")),
            ("Local files", ", ".join(f"{n:,} {state}" for state, n in (local.get("files") or {}).items())),
            *(("Kept files", f"{kept.get('files'):,}: {kept.get('reason')}") for kept in local.get("kept") or []),
            *(
                ("Unreadable nearby", f"{one.get('name')}: {one.get('reason')}")
                for one in local.get("unreadable") or []
            ),
            *_listed(local.get("listed") or {}),
            ("Last shipment", shipment.get("finished_at") or local.get("archived_at")),
            ("History", _older(local)),
        ]
    )
    history = local.get("history") or []
    if history:
        output.say()
        tables.table(
            ("TIME", "OLD STATE", "EVENT", "NEW STATE"),
            ((step.get("at"), step.get("old"), step.get("event"), step.get("new")) for step in history),
        )
