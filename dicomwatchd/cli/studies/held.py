"""The studies that this machine's daemon holds, as the catalogue has them.

What is held is in the daemon's state and not in the archive. There are few: each is asked for by its UID, so that the
catalogue is never read through for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.control_access import ask
from dicomwatchd.cli.studies.access import ArchiveOptions, Noting
from dicomwatchd.model import Uid

if TYPE_CHECKING:
    from dicomwatchd.archive.catalogues.port import Catalogue
    from dicomwatchd.archive.records import Query, StudyRecord

_MOST = 1_000_000  # what a request can ask for
#: Of the studies that are not in the catalogue so many are named one by one.
_NAMED = 20


def held_uids(invocation: Invocation, socket_path: Path | None, where: ArchiveOptions, note: Noting) -> list[Uid]:
    """Raises DaemonUnreachable where there is neither a daemon nor its state, click.UsageError, ConfigError,
    DaemonRefused."""
    if where.given and socket_path is None:
        raise click.UsageError("--held asks the daemon: say where it is with --socket, or use a configuration")
    return [Uid(uid) for uid in ask(invocation, socket_path, "held", note, limit=_MOST)]


def matching(
    catalogue: Catalogue, query: Query, uids: Iterable[Uid], note: Noting
) -> tuple[list[StudyRecord], list[Uid]]:
    """The studies that match, in the order of a search; and those that the catalogue does not have, whatever the query
    says. Raises as `Catalogue.get`."""
    from dicomwatchd.archive.catalogues.port import OLD_RECORDS
    from dicomwatchd.archive.documents import matches
    from dicomwatchd.archive.records import place

    records = {uid: catalogue.get(uid) for uid in uids}
    there = [record for record in records.values() if record is not None]
    if any(record.identities is None for record in there) and OLD_RECORDS in catalogue.shortcomings(query):
        note(OLD_RECORDS)
    found = sorted((record for record in there if matches(query, record)), key=place, reverse=True)
    return found, [uid for uid, record in records.items() if record is None]


def say_absent(uids: list[Uid], note: Noting) -> None:
    for uid in uids[:_NAMED]:
        note(f"study {uid} is held, and not in the catalogue")
    if len(uids) > _NAMED:
        note(f"{len(uids) - _NAMED} more are held, and not in the catalogue; --json lists all of them")
