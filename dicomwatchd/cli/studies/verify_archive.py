"""`dicomwatchctl archive verify`: is the whole archive there, without downloading it?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.studies import reports
from dicomwatchd.cli.studies.access import ArchiveOptions, archive_options, noting, opened, settings, threads_option
from dicomwatchd.cli.studies.held import held_uids
from dicomwatchd.cli.terminal import output, tables
from dicomwatchd.errors import ArchiveRefused, CredentialsRefused, DicomwatchdError, NotInitialised

if TYPE_CHECKING:
    from dicomwatchd.archive.catalogues.port import Catalogue
    from dicomwatchd.archive.fixity.erased import Erased
    from dicomwatchd.archive.fixity.findings import Finding
    from dicomwatchd.archive.fixity.pace import Pace
    from dicomwatchd.archive.fixity.progress import RunRecord, Totals
    from dicomwatchd.archive.fixity.seen import Source
    from dicomwatchd.archive.stores.port import ObjectStore
    from dicomwatchd.cli.studies.access import Archive, Noting
    from dicomwatchd.config.archive import StoreSettings

_LISTED_FINDINGS = 50
_PACE = 20.0
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option(
    "--pace",
    metavar="REQUESTS",
    type=click.FloatRange(min=0.01, max=100_000),
    default=_PACE,
    show_default=True,
    help="Requests to store and catalogue per second, at most.",
)
@threads_option("Studies to look at in parallel.", default=8)
@click.option(
    "--inventory",
    metavar="PATH|URL",
    help="Use an S3 Inventory report instead of listing the store: its manifest.json, or s3://BUCKET/PREFIX, where the"
    " newest one is taken.",
)
@click.option(
    "--checksums",
    metavar="PATH|URL",
    multiple=True,
    help="Compare the SHA-256 sums in the completion report of an S3 Batch Operations job: its manifest.json, or"
    " s3://BUCKET/PREFIX. May be given repeatedly.",
)
@click.option("--hash", "hashing", is_flag=True, help="Read and hash every file: of an archive in a folder only.")
@click.option("--restart", is_flag=True, help="Begin anew, even if the last run was interrupted.")
@click.option("--status", "wants_status", is_flag=True, help="Show how far it is, or what the last run has found.")
@click.option(
    "--state-directory",
    metavar="DIR",
    type=_FOLDER,
    help="Where the progress is kept. Default: the state_directory of the configuration.",
)
@output.json_option
@tables.wide_option
@archive_options
@click.pass_obj
def verify(
    invocation: Invocation,
    pace: float,
    threads: int,
    inventory: str | None,
    checksums: tuple[str, ...],
    hashing: bool,
    restart: bool,
    wants_status: bool,
    state_directory: Path | None,
    as_json: bool,
    where: ArchiveOptions,
) -> int:
    """Check that the archive holds all studies.

    Every study that the catalogue or a manifest names is compared with what the store lists: each object of its
    newest manifest must be there and current, with the recorded size and, if the store has one, ETag, and
    the catalogue must have the same revision. Manifests are read, the files themselves are not.

    The store is listed at a limited pace, or an S3 Inventory report is used instead; a report of checksums proves the
    content. An interrupted run is continued by the next one. Objects that no manifest lists are counted, never
    deleted. What is left of a study that was erased is named. The exit code is 0 only if nothing is missing,
    changed, unproven, or left of what was erased.
    """
    notes: list[str] = []
    note = noting(notes, quiet=as_json)
    if wants_status:
        return _status(_folder(invocation, where, state_directory), as_json, notes)
    asked = _Asked(pace, threads, inventory, checksums, hashing, restart, as_json)
    with _progress_folder(invocation, where, state_directory, note) as folder:
        try:
            run, findings = _verified(invocation, where, folder, asked, note)
        except KeyboardInterrupt:
            note("interrupted: the same command goes on where it was")
            raise
    held = _held(invocation, where)
    if as_json:
        output.document({**_document("finished", run, findings, run, notes), "held": held})
    else:
        _sentences(run)
        if held:
            output.say(
                f"{output.count(held, 'study is', 'studies are')} held by the daemon here: dicomwatchctl attention"
            )
        _table(findings, sum(run.totals.findings.values()))
    return exits.OK if _holds(run) else exits.NO


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was said on the command line."""

    per_second: float
    threads: int
    inventory: str | None
    checksums: tuple[str, ...]
    hashing: bool
    restart: bool
    as_json: bool

    def check(self, store: StoreSettings) -> None:
        """Raises click.UsageError for what this store has not."""
        from dicomwatchd.config.archive import DirectorySettings

        if not isinstance(store, DirectorySettings):
            if self.hashing:
                raise click.UsageError("--hash would download all objects; it is for an archive in a folder")
        elif self.inventory is not None or self.checksums:
            raise click.UsageError("--inventory and --checksums are for an archive at S3; --hash reads the files here")


def _verified(
    invocation: Invocation, where: ArchiveOptions, folder: Path, asked: _Asked, note: Noting
) -> tuple[RunRecord, list[tuple[str, Finding]]]:
    from dicomwatchd.archive.fixity import progress as kept
    from dicomwatchd.archive.fixity.listed import Listed
    from dicomwatchd.archive.fixity.pace import Pace
    from dicomwatchd.archive.fixity.run import run
    from dicomwatchd.archive.fixity.study import StudyVerifier
    from dicomwatchd.config.archive import S3Settings
    from dicomwatchd.ports import SystemClock, timestamp

    clock = SystemClock()
    store_settings = settings(invocation, where)[0]
    asked.check(store_settings)
    pace = Pace(asked.per_second)
    with ExitStack() as stack:
        archive = stack.enter_context(opened(invocation, where, connections=asked.threads))
        pool = ThreadPoolExecutor(asked.threads)
        stack.callback(pool.shutdown, cancel_futures=True)
        shown = stack.enter_context(_shown(asked.as_json))
        store = pace.store(archive.store)
        archive_id = _archive_id(store)
        catalogue = _catalogue(archive, archive_id, pace, note)
        source: Source = Listed(store)
        counted: dict[str, int] = {}
        now = clock.now()
        if isinstance(store_settings, S3Settings) and (asked.inventory is not None or asked.checksums):
            found = stack.enter_context(
                reports.loaded(
                    asked.inventory,
                    asked.checksums,
                    source,
                    store_settings,
                    folder,
                    pace=pace,
                    now=now,
                    note=note,
                    shown=shown,
                )
            )
            source, counted = found.source, found.counted
        wanted = kept.RunRecord(
            archive_id=archive_id,
            destination=str(archive.store.destination),
            source=source.kind,
            source_identity=source.identity,
            hashing=asked.hashing,
            started_at=timestamp(now),
            updated_at=timestamp(now),
            as_of=None if source.as_of is None else timestamp(source.as_of),
            reports=counted,
        )
        verifier = StudyVerifier(
            store,
            catalogue,
            archive_id,
            now=now,
            as_of=source.as_of,
            erased=_erased(store, note),
            hashing=asked.hashing,
        )
        with kept.opened(folder, wanted, clock, restart=asked.restart, note=note) as progress:
            show = partial(_show, shown)
            run(source, catalogue, verifier, progress, show, pool.map)
            return progress.run, list(progress.findings())


def _show(shown: Callable[[str, int], None], totals: Totals) -> None:
    shown("Studies verified", totals.studies)


def _catalogue(archive: Archive, archive_id: str, pace: Pace, note: Noting) -> Catalogue | None:
    if archive.catalogue is None:
        note("without a catalogue, studies of which all manifests are lost are not noticed")
        return None
    catalogue = archive.needed_catalogue()
    if catalogue.identity() != archive_id:
        raise ArchiveRefused("the catalogue belongs to another archive than the store holds")
    return pace.catalogue(catalogue)


def _erased(store: ObjectStore, note: Noting) -> Erased | None:
    from dicomwatchd.archive.fixity.erased import Erased

    try:
        return Erased.listed(store)
    except CredentialsRefused:
        note("you may not list what was erased from the archive: what is left of it counts as any other study")
        return None


def _held(invocation: Invocation, where: ArchiveOptions) -> int | None:
    """How many studies this machine's daemon holds; None where nobody can be asked."""
    try:
        return len(held_uids(invocation, None, where, lambda _text: None))
    except (DicomwatchdError, click.UsageError):
        return None


def _archive_id(store: ObjectStore) -> str:
    from dicomwatchd.archive.identity import read_identity

    identity = read_identity(store)
    if identity is None:
        raise NotInitialised("there is no archive here", hint="dicomwatchctl archive init")
    return identity.archive_id


def _folder(invocation: Invocation, where: ArchiveOptions, state_directory: Path | None) -> Path:
    """Raises click.UsageError, ConfigError."""
    if state_directory is not None:
        return state_directory
    if where.given:
        raise click.UsageError("no configuration is read: say where the progress is kept, with --state-directory")
    from dicomwatchd.config import loading

    return loading.load(invocation.config_path).state_directory


@contextmanager
def _progress_folder(
    invocation: Invocation, where: ArchiveOptions, state_directory: Path | None, note: Noting
) -> Iterator[Path]:
    if where.given and state_directory is None:
        note("no progress is kept without --state-directory: if this run is interrupted, the next one begins anew")
        with tempfile.TemporaryDirectory(prefix="dicomwatchctl-") as folder:
            yield Path(folder)
        return
    yield _folder(invocation, where, state_directory)


@contextmanager
def _shown(as_json: bool) -> Iterator[Callable[[str, int], None]]:
    """Takes what is going on, and how many are done."""
    from dicomwatchd.cli.terminal import progress

    with progress.bar(wanted=not as_json) as update:
        yield lambda what, done: update(done, done, 0, 0, what)


def _holds(run: RunRecord) -> bool:
    said = run.totals
    if run.finished_at is None or said.with_problems or said.unproven:
        return False
    return said.proven > 0 or not said.studies  # an inventory that covers nothing proves nothing


# -- what is said --


def _status(folder: Path, as_json: bool, notes: list[str]) -> int:
    from dicomwatchd.archive.fixity import progress

    kept = progress.read(folder)
    if kept is None:
        if as_json:
            output.document(_document("none", None, [], None, notes))
        else:
            output.say("The archive has not been verified as a whole.")
        return exits.NO
    state, findings = kept.state, progress.findings(folder)
    if as_json:
        output.document(_document(state, kept.run, findings, kept.last_complete, notes))
    else:
        if state != "finished":
            output.say(
                f"A verification is {state}: begun {kept.run.started_at}, {kept.run.totals.studies:,} studies by "
                f"{kept.run.updated_at}."
            )
        _sentences(kept.run)
        _table(findings, sum(kept.run.totals.findings.values()))
        if state != "finished" and kept.last_complete is not None:
            output.say(f"The last one that came to its end, {kept.last_complete.finished_at}:")
            _sentences(kept.last_complete)
    return exits.OK if _holds(kept.run) else exits.NO


def _sentences(run: RunRecord) -> None:
    said = run.totals
    how = ", ".join(f"{said.studies_by[by]:,} {words}" for by, words in _BY.items() if said.studies_by[by])
    output.say(
        f"{said.proven:,} of {output.count(said.studies, 'study', 'studies')} proven{f' ({how})' if how else ''}, "
        f"{said.not_covered:,} not covered, {said.unproven:,} not proven, {said.with_problems:,} with something "
        "missing or wrong."
    )
    when = run.as_of or f"{run.started_at} to {run.finished_at or run.updated_at}"
    output.say(
        f"{output.count(said.objects, 'object')} on record, {output.count(said.instances, 'file')}, "
        f"{output.size(said.size_bytes)}; as of {when}."
    )
    if said.left_erased:
        studies = "1 study that was" if said.left_erased == 1 else f"{said.left_erased:,} studies that were"
        output.say(f"Of {studies} erased something is still there. {_ERASE_AGAIN}")
    if run.reports.get("failed_tasks"):
        output.say(f"{run.reports['failed_tasks']:,} tasks of the checksum report have failed.")
    if run.reports.get("other_versions") or run.reports.get("delete_markers"):
        markers = output.count(run.reports["delete_markers"], "delete marker")
        output.say(
            f"In the inventory are {run.reports['other_versions']:,} versions that are not current, and {markers}."
        )
    if said.damaged_instances:
        output.say(
            f"{output.count(said.studies_with_damaged_instances, 'study', 'studies')} with "
            f"{output.count(said.damaged_instances, 'file')} that came damaged, and are archived as they came."
        )
    if said.in_no_manifest or said.other_keys:
        output.say(
            f"{output.count(said.in_no_manifest + said.other_keys, 'object')} not in any manifest "
            f"({output.size(said.in_no_manifest_bytes)}), more than a day old."
        )


_ERASE_AGAIN = "Unless a study was archived again since, run dicomwatchctl archive erase STUDY again."
_OF_REPORTS = (
    "inventory_objects",
    "other_versions",
    "delete_markers",
    "checksums",
    "failed_tasks",
    "other_checksums",
)
#: By what a study is proven, the strongest first.
_BY = {
    "hash": "by reading and hashing every file",
    "checksum": "by the SHA-256 of every object",
    "etag": "by size and ETag",
    "size": "by presence and size",
}


def _table(findings: Any, total: int) -> None:
    listed = [(study, one.key, one.reason) for study, one in findings if one.kind != "newer"][:_LISTED_FINDINGS]
    if listed:
        tables.table(("STUDY", "OBJECT", "PROBLEM"), listed)
    if total > len(listed):
        output.note(f"{total - len(listed):,} more; --json lists them")


def _document(
    state: str,
    run: RunRecord | None,
    findings: list[tuple[str, Finding]],
    last_complete: RunRecord | None,
    notes: list[str],
) -> dict[str, Any]:
    return {
        "state": state,
        "holds": run is not None and _holds(run),
        "run": None if run is None else _run_document(run),
        "last_complete": None if last_complete is None else _run_document(last_complete),
        "findings": [
            {"study_uid": study, "kind": one.kind, "key": one.key or None, "reason": one.reason}
            for study, one in findings
        ],
        "held": None,
        "notes": notes,
    }


def _run_document(run: RunRecord) -> dict[str, Any]:
    said = run.totals
    return {
        "archive_id": run.archive_id,
        "store": run.destination,
        "source": run.source,
        "hash": run.hashing,
        "started_at": run.started_at,
        "updated_at": run.updated_at,
        "finished_at": run.finished_at,
        "as_of": run.as_of,
        "resumed": run.resumed,
        "reports": {name: run.reports.get(name) for name in _OF_REPORTS},
        "studies": {
            "total": said.studies,
            "proven": said.proven,
            "not_covered": said.not_covered,
            "unproven": said.unproven,
            "with_problems": said.with_problems,
        },
        "studies_proven_by": {by: said.studies_by[by] for by in _BY},
        "objects": said.objects,
        "objects_proven_by": {by: said.objects_by[by] for by in _BY},
        "instances": said.instances,
        "bytes": said.size_bytes,
        "damaged": {"studies": said.studies_with_damaged_instances, "instances": said.damaged_instances},
        "not_in_any_manifest": {
            "objects": said.in_no_manifest,
            "bytes": said.in_no_manifest_bytes,
            "on_their_way": said.on_their_way,
            "copies": said.copies,
            "derived": said.derived,
            "other_keys": said.other_keys,
        },
        "listed_again": said.listed_again,
        "left_erased": said.left_erased,
        "findings": dict(said.findings),
    }
