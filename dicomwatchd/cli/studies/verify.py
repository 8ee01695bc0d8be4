"""`dicomwatchctl verify`: does the archive hold a study?"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dicomwatchd.archive import keys
from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.control_access import ask
from dicomwatchd.cli.studies.access import (
    UID,
    Amiss,
    Archive,
    ArchiveOptions,
    archive_options,
    noting,
    opened,
    threads_option,
)
from dicomwatchd.cli.terminal import output, progress, tables
from dicomwatchd.errors import DicomwatchdError, StudyErased
from dicomwatchd.model import StudyState, Uid

if TYPE_CHECKING:
    from dicomwatchd.archive.proof.verification import Unlisted, Verification

_LISTED_PROBLEMS = 50


@click.command()
@click.argument("study", metavar="STUDY", type=UID)
@click.option("--deep", is_flag=True, help="Read every byte back and compare its SHA-256.")
@threads_option("Objects to read in parallel.")
@output.json_option
@tables.wide_option
@archive_options
@click.pass_obj
def verify(invocation: Invocation, study: Uid, deep: bool, threads: int, as_json: bool, where: ArchiveOptions) -> int:
    """Check that the archive holds a study.

    STUDY is a Study Instance UID. Each file in the study's manifest must be in the store's listing, with the
    recorded size and, if the store has one, ETag; an object that differs is read back before it is reported.
    The current versions count: a file under a delete marker, or overwritten, is not held, though fetch
    may still find its recorded version. A file in cold storage cannot be read back; it is held if the listing agrees.
    Each revision must continue the one before it, and every object of the study must be in one of them: an
    object that no manifest lists is reported if it is more than a day old and this machine is not sending any
    file of the study.
    Of a study that was erased it says so, and whether anything of it is in the archive all the same.
    The exit code is 0 only if all files are there, all manifests are valid, and no such object is found.
    """
    from dicomwatchd.archive.proof.verification import verify as look
    from dicomwatchd.fetch import look_up

    notes: list[str] = []
    note = noting(notes, quiet=as_json)
    amiss = Amiss(note)
    with opened(invocation, where, connections=threads) as archive, ThreadPoolExecutor(threads) as pool:
        try:
            planned = look_up(
                archive.store, archive.catalogue, study, note=note, doubts=amiss.doubts(), below=True, map=pool.map
            )
        except StudyErased as error:
            raise _with_what_is_left(error, archive, study) from None
        manifest = planned.manifest
        files, size_bytes = len(manifest.instances), sum(item.size_bytes for item in manifest.instances)
        with progress.bar(wanted=not as_json) as update:
            found = look(
                archive.store,
                manifest,
                deep=deep,
                elsewhere=planned.elsewhere,
                map=pool.map,
                progress=lambda done, done_bytes: update(done, files, done_bytes, size_bytes, "Verifying"),
            )
    stray = _stray(found, lambda: _is_on_its_way(invocation, study, where))
    if as_json:
        _document(found, deep, amiss, stray, notes)
    else:
        _sentences(found, stray)
    return exits.OK if found.holds and not amiss and not stray else exits.NO


def _with_what_is_left(erased: StudyErased, archive: Archive, study: Uid) -> StudyErased:
    """What a listing shows of a study that was erased: what came too late, or an erasure that was not finished."""
    left = sum(1 for _ in archive.store.listing(keys.study_prefix(study)))
    if archive.catalogue is not None and archive.catalogue.get(study) is not None:
        left += 1
    if not left:
        return erased
    there = output.count(left, "object or record is", "objects and records are")
    return StudyErased(
        f"{erased.message}, but {there} in the archive: run dicomwatchctl archive erase {study} again",
        because=erased.because,
    )


def _stray(found: Verification, is_on_its_way: Callable[[], bool]) -> list[Unlisted]:
    """What no manifest lists though no shipment of it can be on its way: it was put there long ago, and the daemon of
    this machine, if there is one, is not at the study."""
    from dicomwatchd.archive.proof.verification import may_be_on_its_way

    now = time.time()
    old = [one for one in found.unlisted if not may_be_on_its_way(one.modified_at, now)]
    return [] if old and is_on_its_way() else old


def _is_on_its_way(invocation: Invocation, study: Uid, where: ArchiveOptions) -> bool:
    if where.given:
        return False  # a machine that reads the archive alone
    try:
        found: dict[str, Any] = ask(invocation, None, "show", lambda _text: None, study_uid=study)
    except DicomwatchdError:
        return False
    return found.get("state") != StudyState.ARCHIVED


def _document(found: Verification, deep: bool, amiss: Amiss, stray: list[Unlisted], notes: list[str]) -> None:
    output.document(
        {
            "study_uid": found.study_uid,
            "revision": found.revision,
            "holds": found.holds and not amiss and not stray,
            **amiss.document(),
            "deep": deep,
            "instances": found.instances,
            "bytes": found.size_bytes,
            "held": found.held,
            "read_back": found.read_back,
            "cold": found.cold,
            "problems": [asdict(problem) for problem in found.problems],
            "overwritten": list(found.overwritten),
            "unrecorded": found.unrecorded,
            "unlisted": [one.key for one in found.unlisted],
            "stray": [one.key for one in stray],
            "dicomdirs": found.exports,
            "dicomdir_problems": [asdict(problem) for problem in found.export_problems],
            "notes": notes,
        }
    )


def _sentences(found: Verification, stray: list[Unlisted]) -> None:
    files = output.count(found.instances, "file")
    study = f"study {found.study_uid}, revision {found.revision}, {output.size(found.size_bytes)}"
    if found.held == found.instances and not found.problems:
        how = (
            "every byte was read back and every SHA-256 matches"
            if found.read_back == found.instances
            else f"listing and manifest agree; {found.read_back:,} were read back"
        )
        if found.cold:
            how += f", {found.cold:,} could not be, because they are in cold storage"
        output.say(f"The archive holds all {files} of {study}: {how}.")
    else:
        output.say(f"The archive holds {found.held:,} of {files} of {study}. Not held:")
        tables.table(
            ("SERIES", "SOP INSTANCE", "PROBLEM"),
            ((p.series_uid, p.sop_instance_uid, p.reason) for p in found.problems[:_LISTED_PROBLEMS]),
        )
        if len(found.problems) > _LISTED_PROBLEMS:
            output.say(f"... and {len(found.problems) - _LISTED_PROBLEMS:,} more; --json lists all of them")
    for problem in found.export_problems:
        output.say(f"A DICOMDIR that was archived with the study is not held: {problem.reason} ({problem.key})")
    if found.unrecorded:
        output.note(
            f"the store also has {output.count(found.unrecorded, 'object')} that this revision does not list: "
            "part of the next revision, or damaged and replaced"
        )
    if stray:
        from dicomwatchd.archive.proof.verification import ON_ITS_WAY_SECONDS

        output.say(
            f"{output.count(len(stray), 'object')} of the study that no manifest lists, more than "
            f"{output.duration(ON_ITS_WAY_SECONDS)} old, and this machine is not sending any file of the study:"
        )
        tables.table(("OBJECT",), ((one.key,) for one in stray[:_LISTED_PROBLEMS]))
        if len(stray) > _LISTED_PROBLEMS:
            output.say(f"... and {len(stray) - _LISTED_PROBLEMS:,} more; --json lists all of them")
