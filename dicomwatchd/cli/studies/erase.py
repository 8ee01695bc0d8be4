"""`dicomwatchctl archive erase`: all that the archive holds of a study goes, for good; `archive erased` lists it."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.control_access import client
from dicomwatchd.cli.studies.access import (
    UID,
    ArchiveOptions,
    archive_and_catalogue_options,
    opened,
    settings,
)
from dicomwatchd.cli.terminal import output, progress, tables
from dicomwatchd.errors import DicomwatchdError, Permanent
from dicomwatchd.model import SHIPPING, Uid

if TYPE_CHECKING:
    from dicomwatchd.archive.erasing.erasure import Eraser, Report, Survey
    from dicomwatchd.archive.layout.erasures import Erasure

_THREADS = 16
_NOT_REACHED = (
    "Not reached: backups of the catalogue, a bucket in another region, reports and logs of the store, the audit chains"
    " (UIDs only), what others have fetched, and files in inboxes. See dicomwatchctl(1)."
)


@click.command()
@click.argument("study", metavar="STUDY", type=UID)
@click.option(
    "--because", metavar="TEXT", help="Why; it is kept in the archive and in the audit chain. Do not name the patient."
)
@click.option("--dry-run", is_flag=True, help="Only show what there is.")
@click.option("--yes", "confirmed", metavar="STUDY", type=UID, help="Do not ask: the same UID once more.")
@click.option("--no-wait", is_flag=True, help="Do not wait for daemons: none is running on this archive.")
@output.json_option
@archive_and_catalogue_options
@click.pass_obj
def erase(
    invocation: Invocation,
    study: Uid,
    because: str | None,
    dry_run: bool,
    confirmed: Uid | None,
    no_wait: bool,
    as_json: bool,
    where: ArchiveOptions,
) -> int:
    """Erase a study from the archive, for good.

    STUDY is a Study Instance UID. Deletes every version of every object of the study, what was never completed of an
    upload, and all that the catalogue has of it; then looks whether anything is left. Before that a record of
    the erasure is put into the archive: when, by whom and why. With it no daemon archives the study again, or deletes
    local files of it, until somebody releases it there, and `catalogue rebuild` does not bring it back.

    Needs rights that the daemon does not have. It is refused, with nothing deleted, if Object Lock keeps any version,
    or if the study is just being archived. It waits two minutes for daemons to notice. Run it again if it
    was interrupted. The exit code is 0 only if nothing is left.
    """
    from dicomwatchd.cli.studies.same_medium import with_the_same_dicomdir

    if confirmed not in (None, study):
        raise click.UsageError("--yes names another study")
    if not dry_run:
        because = _checked(because)
        if confirmed is None and (as_json or not _may_be_asked()):
            raise click.UsageError(f"to erase it without being asked: --yes {study}")
    with _eraser(invocation, where, no_wait=no_wait, quiet=as_json) as eraser:
        found = eraser.survey(study)
        if found.is_empty and (erasure := _newest(eraser, study)) is not None and not eraser.is_open(study):
            _report_erased(erasure, found, as_json=as_json, dry_run=dry_run)
            return exits.OK
        if not as_json:
            _print_found(found)
        eraser.require_erasable(found)
        others = with_the_same_dicomdir(eraser.store, study) if found.dicomdirs else []
        if not as_json:
            _print_others(others)
        _require_at_rest(invocation, study, where)
        if dry_run:
            if as_json:
                output.document(_document(found, None, others, dry_run=True))
            return exits.OK
        if confirmed is None and not _is_confirmed(study):
            output.note("nothing was erased")
            return exits.NO
        if not as_json and not no_wait:
            output.note("it goes on record first; then nothing is deleted for two minutes, so that daemons notice")
        report = eraser.erase(study, because or "", _who())
    if as_json:
        output.document(_document(report.found, report, others, dry_run=False))
    else:
        _print_report(report)
    return exits.OK if report.is_complete else exits.NO


@click.command()
@click.argument("study", metavar="[STUDY]", type=UID, required=False)
@output.json_option
@tables.wide_option
@archive_and_catalogue_options
@click.pass_obj
def erased(invocation: Invocation, study: Uid | None, as_json: bool, where: ArchiveOptions) -> int:
    """List the studies that were erased.

    Of one STUDY, or of all: when it was erased last, by whom and why. Reads the store alone. The exit code is 1 if
    there is none.
    """
    from dicomwatchd.archive.layout import erasures

    with opened(invocation, where) as archive:
        store = archive.store
        if study is None:
            named = list(erasures.numbers(store))
        else:
            number = erasures.newest_number(store, study)
            named = [(study, number)] if number else []
        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(lambda one: erasures.load(store, *one), named))
    if as_json:
        output.document({"erased": [one.document() for one in found]})
    elif found:
        tables.table(
            ("STUDY", "ERASED", "TIMES", "BY", "BECAUSE"),
            ((one.study_uid, one.erased_at, one.number, one.login or one.uid, one.because) for one in found),
            least=("TIMES", "BY"),
        )
    else:
        output.say("No study was erased." if study is None else f"Study {study} was not erased.")
    return exits.OK if found else exits.NO


@contextmanager
def _eraser(invocation: Invocation, where: ArchiveOptions, *, no_wait: bool, quiet: bool) -> Iterator[Eraser]:
    from dicomwatchd.archive.erasing import factory
    from dicomwatchd.archive.erasing.erasure import SETTLE_SECONDS, Eraser
    from dicomwatchd.archive.identity import read_identity
    from dicomwatchd.errors import NotInitialised

    store_settings, catalogue_settings = settings(invocation, where)
    with (
        opened(invocation, where) as archive,
        ThreadPoolExecutor(_THREADS) as pool,
        progress.bar(wanted=not quiet) as update,
    ):
        catalogue = archive.needed_catalogue()
        identity = read_identity(archive.store)
        if identity is None:
            raise NotInitialised("the store has no identity: it holds no archive", hint="dicomwatchctl archive init")
        if (of_catalogue := catalogue.identity()) != identity.archive_id:
            raise Permanent(
                "the catalogue belongs to another archive than the store", code="archive-differs"
            ) from ValueError(of_catalogue)
        assert catalogue_settings is not None  # noqa: S101  else there is no catalogue
        objects = factory.open_objects(store_settings, connections=_THREADS)
        records = factory.open_records(catalogue_settings)
        try:
            yield Eraser(
                identity.archive_id,
                archive.store,
                objects,
                records,
                map=pool.map,
                settle_seconds=0.0 if no_wait else SETTLE_SECONDS,
                progress=lambda done, whole: update(done, whole, 0, 0, "Deleting"),
                waiting=lambda left: update(0, 0, 0, 0, f"Waiting for daemons, {left:.0f} s"),
            )
        finally:
            objects.close()
            records.close()


def _newest(eraser: Eraser, study: Uid) -> Erasure | None:
    from dicomwatchd.archive.layout import erasures

    return erasures.newest(eraser.store, study)


def _checked(because: str | None) -> str:
    from dicomwatchd.archive.layout.erasures import BECAUSE_CHARACTERS

    text = (because or "").strip()
    if not text or len(text) > BECAUSE_CHARACTERS:
        raise click.UsageError(f"--because TEXT: the reason must have 1 to {BECAUSE_CHARACTERS} characters")
    return text


def _may_be_asked() -> bool:
    return sys.stdin.isatty()


def _is_confirmed(study: Uid) -> bool:
    typed: str = click.prompt("Nothing brings it back. Type the study's UID to erase it", default="", err=True)
    return typed.strip() == study


def _who() -> Any:
    from dicomwatchd.archive.erasing.erasure import Who

    uid = os.getuid()
    sudo_uid, sudo_user = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_USER", "")
    if uid == 0 and sudo_uid.isdecimal() and sudo_user:
        return Who(int(sudo_uid), sudo_user)
    try:
        return Who(uid, pwd.getpwuid(uid).pw_name)
    except KeyError:
        return Who(uid, "")


def _require_at_rest(invocation: Invocation, study: Uid, where: ArchiveOptions) -> None:
    """Whether the daemon of this machine, if there is one, is at the study. Raises Permanent."""
    if where.given:
        return
    try:
        found: dict[str, Any] = client(invocation, None).call("show", study_uid=study)
    except DicomwatchdError:
        return  # it knows nothing of the study, or does not run
    if found.get("state") in SHIPPING:
        raise Permanent(
            "the daemon on this machine is just archiving the study; nothing was deleted",
            code="being-sent",
            hint="wait until it has ended (dicomwatchctl queue), or stop the daemon",
        )


# -- what is printed --------------------------------------------------------------------------------------------------


def _rows(found: Survey) -> list[tuple[str, object]]:
    from dicomwatchd.ports import timestamp

    return [
        ("Study", found.study_uid),
        ("Objects", f"{found.objects:,}"),
        *_counts(found),
        ("Versions", f"{found.versions:,}, {output.size(found.size_bytes)}"),
        ("Delete markers", f"{found.delete_markers:,}" if found.delete_markers else ""),
        ("Unfinished", output.count(found.unfinished, "upload") if found.unfinished else ""),
        ("Catalogue", output.count(found.records, "entry", "entries")),
        ("Locked", f"{found.locked:,}" if found.locked else ""),
        ("Locked until", timestamp(found.locked_until) if found.locked_until else ""),
    ]


def _counts(found: Survey) -> Iterator[tuple[str, str]]:
    for name, number in (
        ("Instances", found.instances),
        ("Bundles", found.bundles),
        ("DICOMDIRs", found.dicomdirs),
        ("Manifests", found.manifests),
        ("Series objects", found.series_objects),
        ("Other objects", found.others),
    ):
        yield name, f"{number:,}" if number else ""


def _print_found(found: Survey) -> None:
    output.pairs(_rows(found))


def _print_others(others: list[Uid]) -> None:
    if others:
        output.say(
            f"{output.count(len(others), 'other study', 'other studies')} of the same medium will keep a copy of its"
            " DICOMDIR, which names the patients of all its studies:"
        )
        for one in others:
            output.say(f"  {one}")


def _print_report(report: Report) -> None:
    output.say(
        f"Deleted: {output.count(report.deleted, 'version')} (delete markers among them),"
        f" {output.count(report.records, 'catalogue entry', 'catalogue entries')},"
        f" {output.count(report.aborted, 'unfinished upload')}."
    )
    if report.is_complete:
        output.say(f"Study {report.erasure.study_uid} is erased; a last listing has found nothing of it.")
        output.say(_NOT_REACHED)
        return
    left = report.left
    versions = output.count(left.versions + left.delete_markers, "version")
    output.say(
        f"STUDY {report.erasure.study_uid} IS NOT ERASED: {versions},"
        f" {output.count(left.unfinished, 'unfinished upload')} and"
        f" {output.count(left.records, 'catalogue entry', 'catalogue entries')} are left. Run this again."
    )
    if report.refused:
        output.say(f"The store has refused to delete {output.count(report.refused, 'version')}:")
        tables.table(
            ("OBJECT", "VERSION", "REASON"),
            ((output.clean(one.key), one.version_id, one.code) for one in report.refusals),
        )


def _report_erased(erasure: Erasure, found: Survey, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        output.document(
            {**_document(found, None, [], dry_run=dry_run), "erasure": erasure.document(), "complete": True}
        )
        return
    output.say(
        f"Study {erasure.study_uid} was erased at {erasure.erased_at}; nothing of it is left. The reason given:"
        f" {erasure.because}"
    )


def _document(found: Survey, report: Report | None, others: list[Uid], *, dry_run: bool) -> dict[str, Any]:
    return {
        "study_uid": found.study_uid,
        "dry_run": dry_run,
        "found": _survey(found),
        "same_medium": others,
        "erasure": report and report.erasure.document(),
        "deleted": report.deleted if report else 0,
        "aborted_uploads": report.aborted if report else 0,
        "records_deleted": report.records if report else 0,
        "refused": report.refused if report else 0,
        "refusals": [
            {"key": one.key, "version_id": one.version_id, "code": one.code}
            for one in (report.refusals if report else [])
        ],
        "left": report and _survey(report.left),
        "complete": report.is_complete if report else None,
    }


def _survey(found: Survey) -> dict[str, Any]:

    return {
        "objects": found.objects,
        "instances": found.instances,
        "bundles": found.bundles,
        "dicomdirs": found.dicomdirs,
        "manifests": found.manifests,
        "series_objects": found.series_objects,
        "others": found.others,
        "versions": found.versions,
        "delete_markers": found.delete_markers,
        "bytes": found.size_bytes,
        "unfinished_uploads": found.unfinished,
        "catalogue_entries": found.records,
    }
