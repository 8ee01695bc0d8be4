"""When a disk is full, files that are archived and only wait for their time are due before it.

Nothing is decided here but the time: each file is proven afresh and deleted as if `delete_after` had passed, by the one
unlink, or kept for whatever speaks against it. How full a disk is says the inbox's own thread; nobody else touches it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dicomwatchd.ports import Clock, DiskUsage, Log
from dicomwatchd.queue.early import EarlyDues
from dicomwatchd.queue.rows import Source

#: How often the disks are to be looked at.
CHECK_SECONDS = 15.0
#: The state is written to for a second or so, then it is measured again.
_FILES_AT_ONCE = 20_000

STAYS_FULL = (
    "the disk of {} is too full, and no more files on it can be deleted early: the rest is not archived yet, is kept"
    " for another reason, or is not from an inbox"
)


@dataclass(frozen=True, slots=True)
class Room:
    """While less than ``min_share`` of a disk is free, 0 to 1, files go early, until ``goal_share`` is."""

    min_share: float
    goal_share: float


class DiskSeen(Protocol):
    """What an inbox's thread has seen, when, and which file system it was."""

    @property
    def usage(self) -> DiskUsage: ...
    @property
    def device(self) -> int: ...
    @property
    def monotonic(self) -> float: ...


class Measured(Protocol):
    """The intake of an inbox. Neither waits for the inbox."""

    @property
    def disk_seen(self) -> DiskSeen | None: ...
    def measure_disk_soon(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Watched:
    """An inbox whose disk is to have room."""

    source: Source
    room: Room
    intake: Measured


@dataclass(slots=True)
class _Disk:
    """``on_their_way_bytes`` were to go already when it was last decided what is to go; what has been seen since then
    may have them in it or not, so they are not asked for again."""

    on_their_way_bytes: int
    decided_at: float
    told_short: bool = False


class EarlyDeletion:
    """One thread calls `step`."""

    def __init__(
        self,
        dues: EarlyDues,
        watched: Callable[[], Sequence[Watched]],
        clock: Clock,
        log: Log,
        *,
        may_delete: Callable[[Source], bool],
        due: Callable[[], None],
    ) -> None:
        """``may_delete``: whether anything of this inbox could be deleted now at all. ``due`` hears of files whose time
        has come."""
        self._dues, self._watched, self._clock, self._log = dues, watched, clock, log
        self._may_delete, self._due = may_delete, due
        self._ask_at = 0.0
        self._full: dict[int, Watched] = {}
        self._disks: dict[int, _Disk] = {}

    @property
    def at_work(self) -> list[str]:
        """The inboxes whose files are deleted early now, because their disk is full."""
        return sorted(one.source.name for one in list(self._full.values()))

    @property
    def problems(self) -> list[str]:
        short = {device for device, disk in list(self._disks.items()) if disk.told_short}
        return [
            STAYS_FULL.format(one.source.name)
            for one in list(self._full.values())
            if (seen := one.intake.disk_seen) is not None and seen.device in short
        ]

    def step(self) -> bool:
        """Look at what the inboxes have seen, and let files go where that is called for. Raises Transient."""
        watched = self._watched()
        now = self._clock.monotonic()
        if watched and now >= self._ask_at:
            self._ask_at = now + CHECK_SECONDS
            for one in watched:
                one.intake.measure_disk_soon()
        on_disks: dict[int, list[tuple[Watched, DiskSeen]]] = {}
        for one in watched:
            if (seen := one.intake.disk_seen) is not None:
                self._judge(one, seen)
                on_disks.setdefault(seen.device, []).append((one, seen))
        for device, here in on_disks.items():
            self._make_room(device, here)
        return False

    def _judge(self, one: Watched, seen: DiskSeen) -> None:
        source_id, share = one.source.source_id, _free_share(seen.usage)
        if source_id not in self._full and share < one.room.min_share:
            self._full[source_id] = one
            self._log.warning(
                "disk-full",
                "the disk of an inbox is too full: archived files are verified again and deleted before their time",
                inbox=one.source.name,
                free_bytes=seen.usage.free,
            )
        elif source_id in self._full and share >= one.room.goal_share:
            del self._full[source_id]
            self._log.info(
                "disk-has-room",
                "the disk of an inbox has room again: archived files are kept until their time",
                inbox=one.source.name,
                free_bytes=seen.usage.free,
            )

    def _make_room(self, device: int, here: list[tuple[Watched, DiskSeen]]) -> None:
        """Inboxes on one disk fill it together, and are emptied together."""
        full = [one for one, _ in here if one.source.source_id in self._full]
        if not full:
            self._disks.pop(device, None)
            return
        newest = max((seen for _, seen in here), key=lambda seen: seen.monotonic)
        disk = self._disks.get(device)
        if disk is not None and newest.monotonic <= disk.decided_at:
            return  # no look at a disk is acted upon twice, nor one from before the last decision
        on_their_way = self._dues.on_their_way([one.source.source_id for one, _ in here])
        if disk is None:
            # What is being deleted at this moment may be counted as free and as on its way, or as neither.
            self._disks[device] = _Disk(on_their_way, self._clock.monotonic())
            return
        certain = newest.usage.free + max(on_their_way, disk.on_their_way_bytes)
        let_go = self._let_go(full, newest.usage, certain)
        disk.on_their_way_bytes, disk.decided_at = on_their_way + let_go, self._clock.monotonic()
        if let_go:
            disk.told_short = False
            self._due()
        elif not on_their_way and certain == newest.usage.free and not disk.told_short:
            disk.told_short = True
            for one in full:
                self._log.warning(
                    "disk-stays-full",
                    "the disk of an inbox is too full, and no more files on it can be deleted early",
                    inbox=one.source.name,
                    free_bytes=newest.usage.free,
                )

    def _let_go(self, full: list[Watched], usage: DiskUsage, certain_bytes: int) -> int:
        """Until the lowest goal files of all these inboxes go, from there to the next those of the others."""
        names = {one.source.source_id: one.source.name for one in full if self._may_delete(one.source)}
        total = 0
        for goal in sorted({one.room.goal_share for one in full}):
            sources = [one.source.source_id for one in full if one.room.goal_share >= goal]
            sources = [source_id for source_id in sources if source_id in names]
            missing = round(goal * usage.total) - certain_bytes - total
            if missing <= 0 or not sources:
                continue
            for one in self._dues.let_go(sources, missing, _FILES_AT_ONCE):
                total += one.size_bytes
                self._log.info(
                    "due-early",
                    "{files:,} archived files, {bytes:mb}, are to be verified again and deleted before their time",
                    inbox=names[one.source_id],
                    files=one.files,
                    bytes=one.size_bytes,
                )
        return total


def _free_share(usage: DiskUsage) -> float:
    return usage.free / usage.total if usage.total else 1.0
