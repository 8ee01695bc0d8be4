"""Reports of Amazon's that a command is given: files here, or where Amazon has put them in a bucket."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dicomwatchd.archive.fixity.pace import Pace
    from dicomwatchd.archive.fixity.reports import InBucket, Place
    from dicomwatchd.archive.fixity.seen import Source
    from dicomwatchd.cli.studies.access import Noting
    from dicomwatchd.config.archive import S3Settings

_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?\Z", re.DOTALL)
_MANIFEST = "manifest.json"
_OLD_DAYS = 9  # a weekly one is made on Sundays, and delivered within two days


@dataclass(frozen=True, slots=True)
class Loaded:
    """``counted``: what was counted in the reports, by name."""

    source: Source
    counted: dict[str, int]


@contextmanager
def loaded(
    inventory: str | None,
    checksums: tuple[str, ...],
    listing: Source,
    settings: S3Settings,
    folder: Path,
    *,
    pace: Pace,
    now: float,
    note: Noting,
    shown: Callable[[str, int], None],
) -> Iterator[Loaded]:
    """What the reports say, or the ``listing`` where no inventory is given, with the checksums. All of them have been
    read and checked by then. ``folder`` is where they are put into order. Raises Permanent (code "bad-report"),
    Transient, Fatal, click.UsageError."""
    from dicomwatchd.archive.fixity import checksums as sums
    from dicomwatchd.archive.fixity.inventory import Inventory, manifest
    from dicomwatchd.archive.fixity.sorting import Sorter
    from dicomwatchd.ports import timestamp

    counted: dict[str, int] = {}
    source = listing
    with ExitStack() as stack:
        if inventory is not None:
            place, name = stack.enter_context(_inventory_at(inventory, settings, pace))
            sorter = Sorter(folder)
            stack.callback(sorter.close)
            found = Inventory(manifest(place, name, settings.bucket), sorter)
            made_at = found.manifest.made_at
            note(f"the inventory is of {timestamp(made_at)}: what was stored since is not covered")
            if now - made_at > _OLD_DAYS * 86400:
                note(f"the inventory is {(now - made_at) / 86400:.0f} days old: is a newer one made?")
            found.load(place, settings.prefix, lambda rows: shown("Objects read from the inventory", rows))
            if not found.counted.has_identity:
                note("archive.json is not in the inventory: does its filter leave out a part of the archive?")
            source = found
            counted |= {
                "inventory_objects": found.counted.rows,
                "other_versions": found.counted.others,
                "delete_markers": found.counted.markers,
            }
        if checksums:
            sorter = Sorter(folder)
            stack.callback(sorter.close)
            of_objects = sums.Checksums(sorter)
            read = []
            for one in checksums:
                place, name = stack.enter_context(_checksums_at(one, settings, pace))
                report = sums.manifest(place, name)
                of_objects.load(
                    place,
                    report,
                    settings.bucket,
                    settings.prefix,
                    lambda rows: shown("Checksums read from the report", rows),
                )
                read.append(report.sha256)
            of_objects.require_sums()
            source = sums.Summed(source, of_objects, " ".join(sorted(read)))
            counted |= {
                "checksums": of_objects.counted.sums,
                "failed_tasks": of_objects.counted.failed,
                "other_checksums": of_objects.counted.of_no_use,
            }
        yield Loaded(source, counted)


@contextmanager
def _inventory_at(given: str, settings: S3Settings, pace: Pace) -> Iterator[tuple[Place, str]]:
    """Where the report's files are, and the name of its manifest there."""
    from dicomwatchd.archive.fixity import inventory
    from dicomwatchd.archive.fixity.reports import InFolder

    if (url := _in_bucket(given)) is not None:
        with _bucket(url[0], settings, pace) as place:
            name = url[1]
            yield place, name if name.endswith(_MANIFEST) else inventory.newest(place, name, settings.bucket)
        return
    path = Path(given)
    if path.is_dir() and not (path / _MANIFEST).is_file():
        raise click.UsageError(f"--inventory: there is no {_MANIFEST} in the folder")
    path = path / _MANIFEST if path.is_dir() else path
    if path.suffix != ".json":
        raise click.UsageError(f"--inventory takes the inventory's {_MANIFEST}, which names its data files")
    yield InFolder(path.absolute().parent), path.name


@contextmanager
def _checksums_at(given: str, settings: S3Settings, pace: Pace) -> Iterator[tuple[Place, str]]:
    from dicomwatchd.archive.fixity import checksums
    from dicomwatchd.archive.fixity.reports import InFolder

    if (url := _in_bucket(given)) is not None:
        with _bucket(url[0], settings, pace) as place:
            name = url[1]
            yield place, name if name.endswith((_MANIFEST, ".csv")) else checksums.newest(place, name)
        return
    path = Path(given)
    if path.is_dir():
        path = path / _MANIFEST
    yield InFolder(path.absolute().parent), path.name


def _in_bucket(given: str) -> tuple[str, str] | None:
    """Bucket and key, or prefix, of an ``s3://`` URL; None of a path."""
    if not given.startswith("s3://"):
        return None
    found = _URL.match(given)
    if found is None:
        raise click.UsageError("not the URL of a place in a bucket: s3://BUCKET/PREFIX")
    return found[1], found[2] or ""


@contextmanager
def _bucket(name: str, settings: S3Settings, pace: Pace) -> Iterator[InBucket]:
    """A bucket at the same service as the archive's, to read from."""
    from dicomwatchd.archive.factory import open_store
    from dicomwatchd.archive.fixity.reports import InBucket

    store = open_store(settings.model_copy(update={"bucket": name, "prefix": ""}), connections=1)
    try:
        yield InBucket(pace.store(store))
    finally:
        store.close()
