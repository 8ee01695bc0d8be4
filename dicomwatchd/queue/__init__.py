"""The persistent queue: what is known of files and studies, and the only SQL of the daemon."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from dicomwatchd.ports import Clock
from dicomwatchd.queue.alarms import AlarmsKept
from dicomwatchd.queue.archived import ArchivedTotals
from dicomwatchd.queue.arrivals import Arrivals
from dicomwatchd.queue.audit import Audit
from dicomwatchd.queue.bindings.binding import Binding, bound_archive_id
from dicomwatchd.queue.bindings.roots import Roots
from dicomwatchd.queue.claims import Claims
from dicomwatchd.queue.database.pruning import Pruning
from dicomwatchd.queue.database.schema import Database, open_reader, open_writer
from dicomwatchd.queue.database.upgrade import Upgrade
from dicomwatchd.queue.deletions import Deletions
from dicomwatchd.queue.dicomdirs import Dicomdirs
from dicomwatchd.queue.drills import Drills
from dicomwatchd.queue.early import EarlyDues
from dicomwatchd.queue.erasures import ErasuresNoted
from dicomwatchd.queue.history import History
from dicomwatchd.queue.holds import Holds
from dicomwatchd.queue.hours import InboxHours
from dicomwatchd.queue.moving import Moving
from dicomwatchd.queue.parked import Parked
from dicomwatchd.queue.quiet import QuietTimers
from dicomwatchd.queue.received import Received
from dicomwatchd.queue.reports import Reports
from dicomwatchd.queue.rows import Transition
from dicomwatchd.queue.segments import Segments
from dicomwatchd.queue.shipments import Shipments
from dicomwatchd.queue.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Queue:
    """The sides of the state, over one database."""

    arrivals: Arrivals
    dicomdirs: Dicomdirs
    quiet: QuietTimers
    claims: Claims
    shipments: Shipments
    parked: Parked
    deletions: Deletions
    early: EarlyDues
    holds: Holds
    erasures: ErasuresNoted
    audit: Audit
    segments: Segments
    pruning: Pruning
    received: Received
    drills: Drills
    alarms: AlarmsKept
    hours: InboxHours
    reports: Reports
    archived: ArchivedTotals
    history: History
    moving: Moving
    uploads: Uploads
    binding: Binding
    roots: Roots
    upgrade: Upgrade
    _database: Database

    def say_when_used(self, around: Callable[[], AbstractContextManager[None]]) -> None:
        """``around`` every use of the state, by whoever uses it."""
        self._database.around = around

    @property
    def unwritten(self) -> str | None:
        """Why the last change could not be written; None once one could be."""
        return self._database.unwritten

    def close(self) -> None:
        self._database.close()


def open_queue(state_directory: Path, clock: Clock, announce: Callable[[Transition], None]) -> Queue:
    """For the daemon: the state, read and written. Raises Fatal, Transient."""
    return _over(open_writer(state_directory, announce=announce), clock)


def open_queue_to_read(state_directory: Path, clock: Clock) -> Queue | None:
    """For a look at the state while no daemon runs; None where there is no state."""
    database = open_reader(state_directory)
    return None if database is None else _over(database, clock)


def known_archive_id(state_directory: Path) -> str | None:
    """The archive that the state in this folder is bound to, if any."""
    database = open_reader(state_directory)
    if database is None:
        return None
    try:
        return bound_archive_id(database)
    finally:
        database.close()


def _over(database: Database, clock: Clock) -> Queue:
    hours = InboxHours(database, clock)
    return Queue(
        arrivals=Arrivals(database, clock, hours.note),
        dicomdirs=Dicomdirs(database),
        quiet=QuietTimers(database, clock),
        claims=Claims(database, clock),
        shipments=Shipments(database, clock),
        parked=Parked(database, clock),
        deletions=Deletions(database, clock),
        early=EarlyDues(database, clock),
        holds=Holds(database, clock),
        erasures=ErasuresNoted(database, clock),
        audit=Audit(database),
        segments=Segments(database, clock),
        pruning=Pruning(database, clock),
        received=Received(database, clock),
        drills=Drills(database, clock),
        alarms=AlarmsKept(database, clock),
        hours=hours,
        reports=Reports(database, clock),
        archived=ArchivedTotals(database),
        history=History(database, clock),
        moving=Moving(database, clock),
        uploads=Uploads(database, clock),
        upgrade=Upgrade(database, clock),
        binding=Binding(database, clock),
        roots=Roots(database, clock),
        _database=database,
    )
