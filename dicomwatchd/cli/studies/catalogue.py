"""`dicomwatchctl catalogue`: work on the catalogue of the archive."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicomwatchd import __version__
from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.studies.access import (
    Archive,
    ArchiveOptions,
    Noting,
    archive_and_catalogue_options,
    noting,
    opened,
    threads_option,
)
from dicomwatchd.cli.terminal import output, progress, tables

if TYPE_CHECKING:
    from dicomwatchd.archive.catalogues.port import Catalogue
    from dicomwatchd.archive.repair.patience import Patience
    from dicomwatchd.archive.repair.progress import ProgressFile
    from dicomwatchd.archive.repair.rebuild import Progress, RebuildReport
    from dicomwatchd.errors import Transient

#: Studies that may be done behind one that takes long, for each thread.
_AHEAD = 16
#: With the pauses of the daemon's backoff, four to five minutes.
_ATTEMPTS = 12
_SAID_EVERY_SECONDS = 60.0


@click.group()
def catalogue() -> None:
    """Maintain the catalogue of the archive."""


@catalogue.command()
@click.option("--from-start", is_flag=True, help="Begin anew, even if an earlier rebuild was interrupted.")
@threads_option("Studies to work on in parallel.")
@click.option(
    "--state-directory",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where the progress is kept. Default: the state_directory of the configuration; without one it is not kept.",
)
@output.json_option
@tables.wide_option
@archive_and_catalogue_options
@click.pass_obj
def rebuild(
    invocation: Invocation,
    from_start: bool,
    threads: int,
    state_directory: Path | None,
    as_json: bool,
    where: ArchiveOptions,
) -> int:
    """Rebuild the catalogue from the store.

    The manifests in the store hold everything that the catalogue knows. Nothing in the catalogue is deleted, and
    newer entries are kept. Studies that were erased stay erased. The daemon may be running. An interrupted rebuild
    continues where it was, for seven days and with the same version of the program. The exit code is 1 if a manifest
    could not be used, or a study not examined.
    """
    from dicomwatchd.archive.repair.ahead import ahead
    from dicomwatchd.archive.repair.rebuild import rebuild as run

    notes: list[str] = []
    note = noting(notes, quiet=as_json)
    with opened(invocation, where, connections=threads) as archive:
        path = _path(invocation, where, state_directory)
        into = archive.needed_catalogue()
        kept = _kept(archive, into, path, note)
        begin = _begin(into, kept, note, from_start=from_start)
        with (
            progress.bar(wanted=not as_json) as update,
            _workers(threads) as (pool, stopped),
            _interruption_said(kept, note),
        ):

            def show(report: RebuildReport) -> None:
                update(report.studies, report.studies, 0, 0, "Studies recorded")

            report = run(
                archive.store,
                into,
                progress=show,
                map=ahead(pool, _AHEAD * threads),
                begin=begin,
                keep=kept.keep if kept is not None else lambda _: None,
                patience=_patience(stopped, note),
            )
        if kept is not None:
            kept.ended()
    if as_json:
        output.document(
            {
                "studies": report.studies,
                "recorded": report.recorded,
                "unchanged": report.unchanged,
                "unusable": report.unusable,
                "erased": report.erased,
                "problems": [asdict(item) for item in report.problems],
                "unnamed_problems": report.unnamed_problems,
                "resumed": begin is not None,
                "notes": notes,
            }
        )
    else:
        output.say(
            f"{output.count(report.studies, 'study', 'studies')} in the store: {report.recorded:,} recorded, "
            f"{report.unchanged:,} already in the catalogue, {report.unusable:,} not usable."
        )
        if report.erased:
            output.say(
                f"{output.count(report.erased, 'further study', 'further studies')} of which something is left were"
                " erased: erase them again (dicomwatchctl archive erased lists them)."
            )
        if report.problems:
            tables.table(
                ("STUDY", "REVISION", "WHY THE MANIFEST WAS NOT USED"),
                ((item.study_uid, item.revision, item.reason) for item in report.problems),
            )
        if report.unnamed_problems:
            output.note(f"{report.unnamed_problems:,} more before the interruption; --from-start lists all of them")
    return exits.NO if report.has_problems else exits.OK


def _path(invocation: Invocation, where: ArchiveOptions, state_directory: Path | None) -> Path | None:
    """A file of one name alone, for it is replaced and removed: nobody may name another file of his by mistake."""
    from dicomwatchd.archive.repair.progress import NAME
    from dicomwatchd.config import loading

    if state_directory is not None:
        return state_directory.absolute() / NAME
    if where.given:
        return None
    folder = loading.load(invocation.config_path).state_directory
    # Not Path.is_dir(), which raises where a folder above may not be entered.
    return folder / NAME if os.path.isdir(folder) else None  # noqa: PTH112


def _kept(archive: Archive, into: Catalogue, path: Path | None, note: Noting) -> ProgressFile | None:
    from dicomwatchd.archive.repair.progress import Binding, ProgressFile

    archive_id = into.identity()
    if path is None or archive_id is None:
        return None
    return ProgressFile(
        path,
        Binding(archive_id, str(archive.store.destination), into.name, __version__),
        unwritten=lambda reason: note(f"how far it has come cannot be kept ({reason}): if interrupted, it begins anew"),
    )


def _begin(into: Catalogue, kept: ProgressFile | None, note: Noting, *, from_start: bool) -> Progress | None:
    """Where an interrupted one is continued."""
    from dicomwatchd.archive.repair.rebuild import holds

    if kept is not None and from_start:
        kept.discard()
    if kept is None or from_start:
        return None
    begin, why_not = kept.load()
    if begin is not None and not holds(into, begin):
        begin, why_not = None, "the catalogue is not the one that it wrote, or an older copy"
    if why_not is not None:
        note(f"the rebuild begins anew; a kept progress is not used: {why_not}")
    if begin is not None:
        done = output.count(begin.report.studies, "study", "studies")
        note(f"an interrupted rebuild is continued after {done}; --from-start begins anew")
    return begin


@contextmanager
def _workers(threads: int) -> Iterator[tuple[ThreadPoolExecutor, threading.Event]]:
    """The threads, and what ends their pauses when the command is left."""
    stopped = threading.Event()
    with ThreadPoolExecutor(threads) as pool:
        try:
            yield pool, stopped
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _interruption_said(kept: ProgressFile | None, note: Noting) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if kept is not None:
            kept.write()
            if kept.is_kept:
                note("the rebuild was interrupted; the next one continues there")
        raise


def _patience(stopped: threading.Event, note: Noting) -> Patience:
    """The daemon's own pauses; said once a minute."""
    from random import Random

    from dicomwatchd.archive.repair.patience import Patience
    from dicomwatchd.errors import Stopping
    from dicomwatchd.pipeline.backoff import ENDPOINT_PAUSE_SECONDS, pause_seconds

    random, lock = Random(), threading.Lock()  # noqa: S311  pauses
    said_at = float("-inf")

    def sleep(seconds: float) -> None:
        if stopped.wait(seconds):
            raise Stopping("the rebuild was interrupted")

    def waiting(error: Transient, seconds: float) -> None:
        nonlocal said_at
        with lock:
            now = time.monotonic()
            if now - said_at < _SAID_EVERY_SECONDS:
                return
            said_at = now
        note(f"{error.message}; trying again in {seconds:.0f} s")

    def pause(failures: int) -> float:
        return pause_seconds(failures, random, ENDPOINT_PAUSE_SECONDS)

    return Patience(_ATTEMPTS, pause=pause, sleep=sleep, waiting=waiting)
