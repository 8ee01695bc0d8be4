"""One inbox: the rounds of its thread, and what is due in each of them.

Events say where to look first; the scan on its timer sees everything that they miss. How directories are gone through
is in `traversal`, what becomes of what is found there in `comparison`. Nothing here deletes.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from dicomwatchd.answering import AlwaysAnswering, Inboxes
from dicomwatchd.errors import Stopping, Transient
from dicomwatchd.intake.comparison import Comparison
from dicomwatchd.intake.dicom.sizes import SIZES, Sizes
from dicomwatchd.intake.folder.disk import Disk, DiskSeen
from dicomwatchd.intake.folder.leftovers import Leftovers
from dicomwatchd.intake.folder.presence import Presence
from dicomwatchd.intake.folder.unreadable import Unreadable
from dicomwatchd.intake.quiet import QuietCheck
from dicomwatchd.intake.scan import Globs
from dicomwatchd.intake.schedule import Schedule
from dicomwatchd.intake.settle import Settling
from dicomwatchd.intake.traversal import Traversal
from dicomwatchd.ports import Clock, DiskUsage, Log
from dicomwatchd.queue.arrivals import Arrivals
from dicomwatchd.queue.quiet import QuietTimers
from dicomwatchd.queue.rows import Source
from dicomwatchd.telemetry.fields import error_fields

#: Gets a descriptor of the inbox, and what shows a sign of life.
Work = Callable[[int, Callable[[], None]], None]
#: Pause after the queue could not be written.
TROUBLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """``whole_scan_before_quiet``: no events tell of new directories, so only a whole scan shows a study quiet.
    ``trust_ctime``: see Settling. ``charset_when_missing``: see `read_header`."""

    settle_seconds: float
    quiet_seconds: float
    scan_interval_seconds: float
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    whole_scan_before_quiet: bool = False
    trust_ctime: bool = True
    charset_when_missing: str = ""


class InboxIntake:
    """Work is done in `step`, which a thread calls again and again (see `run`), or a test with its own clock."""

    def __init__(
        self,
        source: Source,
        settings: IntakeSettings,
        arrivals: Arrivals,
        quiet: QuietTimers,
        clock: Clock,
        random: Random,
        log: Log,
        on_news: Callable[[], None],
        recover: Callable[[set[bytes] | None], bool] = lambda _: True,
        recovered_root: tuple[int, int] | None = None,
        inboxes: Inboxes | None = None,
        sizes: Sizes = SIZES,
        *,
        unsearched: bool = False,
        on_root: Callable[[int], None] = lambda _: None,
    ) -> None:
        """``recover`` puts back what is staged in the inbox, or in these directories of it, and says whether it has
        come to the end of that; it is called when the inbox comes back, or another folder stands in its place, before
        anything is looked at; ``recovered_root`` is the folder that needs it no more, as (device, inode). Where it, or
        the start (``unsearched``), has not come to its end, whole looks find the rest. ``on_root`` gets the open folder
        at the begin of each whole look."""
        self.source = source
        self._settings = settings
        self._on_root = on_root
        self._arrivals = arrivals
        self._quiet_timers = quiet
        self._clock = clock
        self._log = log
        self._on_news = on_news
        self._recover = recover
        self._recover_soon = False
        self._inboxes: Inboxes = inboxes or AlwaysAnswering()
        self._disk = Disk(clock)
        self._asked: deque[Work] = deque()
        self._retry_soon = False
        self.scans = 0
        self.last_scan_seconds: float | None = None
        self._last_scan_began = 0.0
        self._schedule = Schedule(settings.scan_interval_seconds, random, clock)
        self._presence = Presence(source.name, log, recovered_root)
        self._settling = Settling(settings.settle_seconds, trust_ctime=settings.trust_ctime)
        self._unreadable = Unreadable(source.name, log)
        self._leftovers = Leftovers(eager=unsearched)
        self._comparison = Comparison(
            source,
            arrivals,
            self._settling,
            self._unreadable,
            self._schedule,
            clock,
            log,
            on_news,
            quiet_seconds=settings.quiet_seconds,
            sizes=sizes,
            charset_when_missing=settings.charset_when_missing,
        )
        self._traversal = Traversal(
            source,
            Globs(settings.include, settings.exclude),
            self._comparison,
            arrivals,
            self._leftovers,
            self._unreadable,
            self._schedule,
            log,
        )
        self._quiet = QuietCheck(
            source,
            quiet,
            self._settling,
            self._comparison,
            self._traversal,
            clock,
            settle_seconds=settings.settle_seconds,
            by_whole_scans=settings.whole_scan_before_quiet,
        )

    # -- from other threads -------------------------------------------------------------------------------------

    def hint(self, parent: bytes, *, deep: bool = False, alone: bool = False) -> None:
        """See `Schedule.hint`."""
        self._schedule.hint(parent, deep=deep, alone=alone)

    def scan_soon(self) -> None:
        self._schedule.scan_soon()

    def recover_soon(self) -> None:
        """Something is staged that belongs into the inbox."""
        self._recover_soon = True
        self.scan_soon()

    def ask(self, work: Work) -> None:
        """Have this done on the inbox's own thread, at the end of a step that could open the inbox. Nobody else is to
        touch the inbox's path: it may be one that never answers."""
        self._asked.append(work)
        self._schedule.wake()

    def unread(self) -> dict[bytes, int]:
        """Path below the source to errno, of files that could not be read when they were last tried; not all of very
        many."""
        return dict(self._comparison.unread)

    @property
    def still_settling(self) -> bool:
        """Files are being written, or held open by whoever writes them."""
        return bool(self._settling) or self._settling.overflowed

    @property
    def available(self) -> bool:
        return not self._presence.is_away

    @property
    def was_open(self) -> bool:
        """Whether the inbox could be opened since the start, and what was staged in it is back."""
        return self._presence.was_seen

    @property
    def holds(self) -> bool:
        """Whether a study with files of this inbox has to wait for it. One that was removed, and has stayed so, has no
        files; one that cannot be opened, or does not answer, may have."""
        removed_at = self._presence.removed_at
        return removed_at is None or self._clock.monotonic() - removed_at < self._settings.quiet_seconds

    @property
    def at_rest(self) -> bool:
        """A whole look has ended, and nothing is still settling or waits for another look."""
        waiting = self.still_settling or self._schedule.has_hints or self._comparison.has_batch
        return self.scans > 0 and not (waiting or self._comparison.unread or self._retry_soon)

    @property
    def saw_everything(self) -> bool:
        """Whether the last whole look met no folder, and no entry of one, that it could not read."""
        return not self.unreadable

    @property
    def unreadable(self) -> int:
        """How many folders and entries of folders cannot be read, as far as the last looks went."""
        return len(self._unreadable)

    @property
    def disk(self) -> DiskUsage | None:
        """How full the inbox's disk was when it was last asked; None if it could not be."""
        return None if self._disk.seen is None else self._disk.seen.usage

    @property
    def disk_seen(self) -> DiskSeen | None:
        """As `disk`, with when it was asked."""
        return self._disk.seen

    def measure_disk_soon(self) -> None:
        """The inbox's thread asks at once how full the disk is, if its file system answers."""
        self._disk.measure_soon()
        self._schedule.wake()

    @property
    def unsearched(self) -> bool:
        """Whether files may be staged in parts of the inbox that nobody has looked into since a crash."""
        return self._leftovers.eager or bool(self._leftovers.to_bring_back)

    @property
    def own_trees(self) -> int:
        """How many folders of an archive or of the daemon's own the last whole look met, and left alone."""
        return len(self._traversal.own_trees)

    def run(self, stopping: threading.Event, beat: Callable[[], None]) -> None:
        """The inbox's thread."""

        def heartbeat() -> None:
            if stopping.is_set():  # in the midst of a look, too: one at a million entries takes minutes
                raise Stopping("the inbox is no longer scanned")
            beat()

        while not stopping.is_set():
            beat()
            try:
                pause = self.step(heartbeat)
            except Stopping:
                return
            except Transient as error:
                # What was found and could not be put on the queue is found again by the next look.
                self._log.warning(
                    "intake-delayed",
                    "the state cannot be written at the moment",
                    inbox=self.source.name,
                    **error_fields(error),
                )
                self._schedule.scan_next()
                stopping.wait(TROUBLE_SECONDS)
                continue
            self._schedule.wait(pause, stopping)

    def wake(self) -> None:
        self._schedule.wake()

    # -- the work -----------------------------------------------------------------------------------------------

    def step(self, beat: Callable[[], None] = lambda: None) -> float:
        """Do everything that is due; returns the seconds until something may be due again."""

        def heartbeat() -> None:
            beat()
            self._inboxes.beat()

        with self._inboxes.of_its_own(self.source.source_id):
            return self._step(heartbeat)

    def _step(self, beat: Callable[[], None]) -> float:
        try:
            root_fd = self.source.open()
            beat()  # after hours at a share that did not answer nobody may want the rest any more
        except OSError as error:
            self._presence.not_opened(error, self._clock.monotonic())
            self._schedule.cannot_scan(self._clock.monotonic())
            return 1.0
        self._presence.opened()
        try:
            self._work(root_fd, beat)
        except OSError as error:  # of the inbox itself: a share that has lost it answers so
            self._presence.away(error)
            self._retry_soon = True
            return 1.0
        except Transient:
            self._retry_soon = True  # what was found may be on no queue
            raise
        finally:
            os.close(root_fd)
        return self._pause()

    def _work(self, root_fd: int, beat: Callable[[], None]) -> None:
        if self._presence.here(root_fd) or self._recover_soon:
            self._recover_soon = False
            self._bring_back(None)
        elif self._leftovers.to_bring_back:
            self._bring_back(self._leftovers.to_bring_back)
        self._disk.measure(root_fd)
        if self._clock.monotonic() >= self._schedule.next_scan:
            self._scan(root_fd, beat)
        self._follow_hints(root_fd, beat)
        if self._quiet.confirm(root_fd, beat, last_scan_began=self._last_scan_began):
            self._on_news()
        while self._asked:
            self._asked.popleft()(root_fd, beat)

    def _bring_back(self, only: set[bytes] | None) -> None:
        self._leftovers.to_bring_back = set()
        self._leftovers.eager = not self._recover(only)
        self._schedule.scan_next()

    def _scan(self, root_fd: int, beat: Callable[[], None]) -> None:
        began = self._clock.monotonic()
        self._last_scan_began = self._clock.now()
        self._retry_soon = False
        self._schedule.begin_scan(began)
        self._comparison.begin_scan(root_fd)
        self._on_root(root_fd)
        for _ in self._traversal.everything(root_fd, beat):
            self._follow_hints(root_fd, beat)  # what arrives now must not wait for the end of a long scan
        if self._settling.overflowed:
            self._schedule.next_scan = self._clock.monotonic() + max(self._settings.settle_seconds, 0.5)
        self.scans += 1
        self.last_scan_seconds = self._clock.monotonic() - began
        self._arrivals.scanned(self.source.source_id)

    def _follow_hints(self, root_fd: int, beat: Callable[[], None]) -> None:
        hints = self._schedule.take_hints()
        for parent in sorted(self._settling.due_directories(self._clock.monotonic())):
            hints.setdefault(parent, False)
        for parent, deep in hints.items():
            if deep:
                self._traversal.below(root_fd, parent, beat)
            else:
                self._traversal.one(root_fd, parent, beat)
            beat()
        if hints:
            self._comparison.flush()

    def _pause(self) -> float:
        """Seconds until the next scan, the next settled file, or the end of the next quiet time."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        dues = [self._schedule.next_scan - monotonic]
        if (settled := self._settling.next_due()) is not None:
            dues.append(settled - monotonic)
        if (quiet := self._quiet_timers.next_quiet_at(self.source.source_id)) is not None:
            dues.append(quiet - now)
        return max(0.02, min(dues))
