"""One inbox: looks at it, waits for its files to settle, reads their headers, puts them on the queue.

Events say where to look first; the scan on its timer sees everything that they miss. Nothing here deletes.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from dicomwatchd import markers
from dicomwatchd.answering import AlwaysAnswering, Inboxes
from dicomwatchd.errors import SourceChanged, Stopping, Transient
from dicomwatchd.intake.dicom.sizes import SIZES, SPARSE, TOO_LARGE, Sizes
from dicomwatchd.intake.leftovers import Leftovers
from dicomwatchd.intake.mounts import Mounts
from dicomwatchd.intake.own_trees import OwnTrees, arrivals
from dicomwatchd.intake.presence import Presence
from dicomwatchd.intake.scan import Globs, Listing, join, scan_directory, walk
from dicomwatchd.intake.settle import Settling
from dicomwatchd.intake.take import NO_ACCESS, NOT_A_FILE, NOT_OURS, Folder, Gone, take
from dicomwatchd.intake.unreadable import (
    NOT_TO_BE_LISTED,
    NOT_TO_BE_READ,
    Unreadable,
    parent_and_name,
    unreadable,
)
from dicomwatchd.localfiles import WriterPresent
from dicomwatchd.model import FileState, Uid
from dicomwatchd.ports import Clock, DiskUsage, Log
from dicomwatchd.queue.arrivals import Arrivals
from dicomwatchd.queue.database.upgrade import OLD_FAULT
from dicomwatchd.queue.rows import UNREADABLE, Arrival, Source, TrackedFile, identity_of
from dicomwatchd.telemetry.fields import error_fields

BATCH = 200
#: Codes of what is in quarantine and tried again at each look, although the file is what it was.
AGAIN = (NO_ACCESS, OLD_FAULT, UNREADABLE, TOO_LARGE, SPARSE)
#: How long a file beside a study's own that will not settle can hold the study up.
HOLD_SECONDS = 600.0
#: Files that are remembered as unreadable.
UNREAD_LIMIT = 1000
#: Gets a descriptor of the inbox, and what shows a sign of life.
Work = Callable[[int, Callable[[], None]], None]
#: Pause after the queue could not be written.
TROUBLE_SECONDS = 5.0
DISK_LOOK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """``full_look_before_quiet``: no events tell of new directories, so only a whole scan shows a study quiet.
    ``trust_ctime``: see Settling."""

    settle_seconds: float
    quiet_seconds: float
    scan_interval_seconds: float
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    full_look_before_quiet: bool = False
    trust_ctime: bool = True


class InboxIntake:
    """Work is done in `step`, which a thread calls again and again (see `run`), or a test with its own clock."""

    def __init__(
        self,
        source: Source,
        settings: IntakeSettings,
        arrivals: Arrivals,
        clock: Clock,
        random: Random,
        log: Log,
        on_news: Callable[[], None],
        mend: Callable[[set[bytes] | None], bool] = lambda _: True,
        recovered_root: tuple[int, int] | None = None,
        inboxes: Inboxes | None = None,
        sizes: Sizes = SIZES,
        *,
        unsearched: bool = False,
        on_root: Callable[[int], None] = lambda _: None,
    ) -> None:
        """``mend`` puts back what is staged in the inbox, or in these directories of it, and says whether it has come
        to the end of that; it is called when the inbox comes back, or another folder stands in its place, before
        anything is looked at; ``recovered_root`` is the folder that needs it no more, as (device, inode). Where it, or
        the start (``unsearched``), has not come to its end, whole looks find the rest. ``on_root`` gets the open folder
        at the begin of each whole look."""
        self.source = source
        self._settings = settings
        self._sizes = sizes
        self._on_root = on_root
        self._arrivals = arrivals
        self._clock = clock
        self._random = random
        self._log = log
        self._on_news = on_news
        self._mend = mend
        self._recover_soon = False
        self._beat: Callable[[], None] = lambda: None
        self._inboxes: Inboxes = inboxes or AlwaysAnswering()
        self._next_disk_look = 0.0
        #: What `shutil.disk_usage` last said of the inbox; None if it could not be asked.
        self.disk: DiskUsage | None = None
        self._globs = Globs(settings.include, settings.exclude)
        self._settling = Settling(settings.settle_seconds, trust_ctime=settings.trust_ctime)
        self._hints_lock = threading.Lock()
        self._hints: dict[bytes, bool] = {}
        self._wake = threading.Event()
        self._burst = False
        self._batch: list[Arrival] = []
        self._series_in_batch: set[tuple[Uid, Uid]] = set()
        self._next_scan = 0.0
        self._retry_soon = False
        self._presence = Presence(source.name, log, recovered_root)
        self._asked: deque[Work] = deque()
        self._unread: dict[bytes, int] = {}
        self._mounts = Mounts(source.source_id, arrivals.remounts)
        self._unreadable = Unreadable(source.name, log)
        self._own_trees = OwnTrees(source.name, log)
        self._leftovers = Leftovers(eager=unsearched)
        self._left_in: set[bytes] = set()
        self._removed_at: float | None = None
        self.scans = 0
        self.last_scan_seconds: float | None = None
        self._last_scan_began = 0.0

    # -- from other threads -------------------------------------------------------------------------------------

    def hint(self, parent: bytes, *, deep: bool = False, alone: bool = False) -> None:
        """Something may have happened in this directory; ``deep``: or anywhere below it. ``alone``: it is not the first
        of a swarm of events, which are better looked into together."""
        with self._hints_lock:
            self._hints[parent] = self._hints.get(parent, False) or deep
        self._burst = self._burst or not alone
        self._wake.set()

    def scan_soon(self) -> None:
        self._next_scan = 0.0
        self._wake.set()

    def recover_soon(self) -> None:
        """Something is staged that belongs into the inbox."""
        self._recover_soon = True
        self.scan_soon()

    def ask(self, work: Work) -> None:
        """Have this done on the inbox's own thread, at the end of a step that could open the inbox. Nobody else is to
        touch the inbox's path: it may be one that never answers."""
        self._asked.append(work)
        self._wake.set()

    def unread(self) -> dict[bytes, int]:
        """Path below the source to errno, of files that could not be read when they were last tried; not all of very
        many."""
        return dict(self._unread)

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
        removed_at = self._removed_at
        return removed_at is None or self._clock.monotonic() - removed_at < self._settings.quiet_seconds

    @property
    def at_rest(self) -> bool:
        """A whole look has ended, and nothing is still settling or waits for another look."""
        waiting = self._settling or self._settling.overflowed or self._hints or self._batch or self._retry_soon
        return self.scans > 0 and not waiting

    @property
    def saw_everything(self) -> bool:
        """Whether the last whole look met no folder, and no entry of one, that it could not read."""
        return not self.unreadable

    @property
    def unreadable(self) -> int:
        """How many folders and entries of folders cannot be read, as far as the last looks went."""
        return len(self._unreadable)

    @property
    def unsearched(self) -> bool:
        """Whether files may be staged in parts of the inbox that nobody has looked into since a crash."""
        return self._leftovers.eager or bool(self._left_in)

    @property
    def own_trees(self) -> int:
        """How many folders of an archive or of the daemon's own the last whole look met, and left alone."""
        return len(self._own_trees)

    def run(self, stopping: threading.Event, beat: Callable[[], None]) -> None:
        """The inbox's thread."""

        def heartbeat() -> None:
            if stopping.is_set():  # in the midst of a look, too: one at a million entries takes minutes
                raise Stopping("the inbox is not looked at any more")
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
                    "intake-delayed", "the state cannot be written now", inbox=self.source.name, **error_fields(error)
                )
                self._next_scan = 0.0
                stopping.wait(TROUBLE_SECONDS)
                continue
            self._wake.wait(min(pause, 1.0))
            if self._wake.is_set() and not stopping.is_set():
                self._wake.clear()
                if self._burst:
                    self._burst = False
                    stopping.wait(0.2)  # let it gather

    def wake(self) -> None:
        self._wake.set()

    # -- the work -----------------------------------------------------------------------------------------------

    def step(self, beat: Callable[[], None] = lambda: None) -> float:
        """Do everything that is due; returns the seconds until something may be due again."""

        def heartbeat() -> None:
            beat()
            self._inboxes.beat()

        self._beat = heartbeat
        with self._inboxes.of_its_own(self.source.source_id):
            return self._step(heartbeat)

    def _step(self, beat: Callable[[], None]) -> float:
        try:
            root_fd = self.source.open()
            beat()  # after hours at a share that did not answer nobody may want the rest any more
        except OSError as error:
            self._presence.away(error)
            if not self._presence.is_removed:
                self._removed_at = None
            elif self._removed_at is None:
                self._removed_at = self._clock.monotonic()
            self._next_scan = min(self._next_scan, self._clock.monotonic() + self._settings.scan_interval_seconds)
            return 1.0
        self._removed_at = None
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
            self._left_in.clear()
            self._leftovers.eager = not self._mend(None)
            self._next_scan = 0.0
        elif self._left_in:
            these, self._left_in = self._left_in, set()
            self._leftovers.eager = not self._mend(these)
            self._next_scan = 0.0
        self._measure_the_disk(root_fd)
        if self._clock.monotonic() >= self._next_scan:
            self._scan(root_fd, beat)
        self._follow_hints(root_fd, beat)
        self._confirm_quiet(root_fd, beat)
        while self._asked:
            self._asked.popleft()(root_fd, beat)

    def _measure_the_disk(self, root_fd: int) -> None:
        if self._clock.monotonic() < self._next_disk_look:
            return
        self._next_disk_look = self._clock.monotonic() + DISK_LOOK_SECONDS
        self.disk = None
        with suppress(OSError):
            self.disk = shutil.disk_usage(root_fd)

    def _scan(self, root_fd: int, beat: Callable[[], None]) -> None:
        began = self._clock.monotonic()
        self._last_scan_began = self._clock.now()
        self._retry_soon = False
        self._unread.clear()
        self._settling.begin_scan()
        # Jitter, so that many inboxes and many daemons do not look at one file server in step.
        self._next_scan = began + self._settings.scan_interval_seconds * self._random.uniform(0.9, 1.1)
        self._mounts.begin_scan()
        self._mounts.see(root_fd)
        self._on_root(root_fd)
        seen: set[bytes] = set()
        failed: dict[bytes, int | None] = {}

        def on_error(parent: bytes, error: OSError) -> None:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                failed[parent] = error.errno
                self._unreadable.add_folder(parent)

        found_instead = self._own_trees.begin_scan(root_fd)
        self._leftovers.begin_scan()
        for parent, listing in found_instead or walk(
            root_fd, self._globs, on_error, heartbeat=beat, guard=self.source.guard
        ):
            seen.add(parent)
            self._compare(root_fd, parent, listing, beat)
            self._own_trees.see(parent, listing)
            self._leftovers.see(parent, listing)
            beat()
            self._follow_hints(root_fd, beat)  # what arrives now must not wait for the end of a long scan
        self._own_trees.end_scan()
        self._left_in = self._leftovers.end_scan()
        self._flush()
        for parent in self._arrivals.known_directories(self.source.source_id):
            if parent not in seen and not any(parent == f or parent.startswith(f + b"/") for f in failed):
                self._rescan(root_fd, parent, beat)
        healed = self._unreadable.end_scan(seen, failed)
        for path in (*failed, *healed):
            parent, name = parent_and_name(path)
            known = self._arrivals.known(self.source.source_id, parent).get(name)
            if path in failed and known is None:
                self._take(unreadable(parent, name, NOT_TO_BE_LISTED))
            elif path in healed and known is not None and known.code == UNREADABLE:
                self._arrivals.forget([known.file_id])
        self._flush()
        if self._settling.overflowed:
            self._next_scan = self._clock.monotonic() + max(self._settings.settle_seconds, 0.5)
        self.scans += 1
        self.last_scan_seconds = self._clock.monotonic() - began
        self._arrivals.scanned(self.source.source_id)

    def _follow_hints(self, root_fd: int, beat: Callable[[], None]) -> None:
        with self._hints_lock:
            hints, self._hints = self._hints, {}
        for parent in sorted(self._settling.due_directories(self._clock.monotonic())):
            hints.setdefault(parent, False)
        for parent, deep in hints.items():
            if deep and self._may_enter(root_fd, parent, beat):
                for below, listing in walk(root_fd, self._globs, lambda *_: None, parent, beat, self.source.guard):
                    self._compare(root_fd, below, listing, beat)
            elif not deep:
                self._rescan(root_fd, parent, beat)
            beat()
        if hints:
            self._flush()

    def _confirm_quiet(self, root_fd: int, beat: Callable[[], None]) -> None:
        """Before a study counts as quiet, its own directories are looked at once more: a lost event, or a backlog of
        them, must not close a study whose slices are still coming."""
        began = self._clock.now()
        if (at := self._arrivals.next_quiet_at(self.source.source_id)) is None or at > began:
            return
        nearly = self._arrivals.nearly_quiet(self.source.source_id)
        if self._settings.full_look_before_quiet:
            began = self._last_scan_began
        else:
            for parent in sorted({d for directories in nearly.values() for d in directories}):
                self._rescan(root_fd, parent, beat)
                beat()
            self._flush()
        held = [
            uid
            for uid in nearly
            if self._settling.unsettled_in(set(nearly[uid]), self._clock.monotonic(), younger_than_seconds=HOLD_SECONDS)
        ]
        if held:
            self._arrivals.postpone(self.source.source_id, held, max(self._settings.settle_seconds, 0.5))
        if confirmed := [uid for uid in nearly if uid not in held]:
            self._arrivals.confirm_quiet(self.source.source_id, confirmed, began)
            self._on_news()

    def _may_enter(self, root_fd: int, parent: bytes, beat: Callable[[], None]) -> bool:
        try:
            with markers.unmarked_directory(root_fd, parent, self.source.guard):
                return not self._own_trees.inside
        except markers.Marked:
            self._left_alone(root_fd, parent, beat)
            return False
        except OSError:
            return True  # the walk meets it too

    # -- one directory ------------------------------------------------------------------------------------------

    def _rescan(self, root_fd: int, parent: bytes, beat: Callable[[], None]) -> None:
        try:
            with markers.unmarked_directory(root_fd, parent, self.source.guard) as fd:
                if self._own_trees.inside:
                    raise markers.Marked(b"")
                listing = scan_directory(fd, parent, self._globs, beat)
        except markers.Marked:
            self._left_alone(root_fd, parent, beat)
            return
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                self._compare(root_fd, parent, Listing(), beat)
            return
        self._compare(root_fd, parent, listing, beat)

    def _left_alone(self, root_fd: int, parent: bytes, beat: Callable[[], None]) -> None:
        """A directory, or one above it, is an archive's or our own: what is known of it is forgotten. Which one it is,
        a whole look says."""
        if not self._own_trees.is_one(parent):
            self._compare(root_fd, parent, Listing(), beat)
            if not self._own_trees.is_in_one(parent):
                self._next_scan = 0.0

    def _compare(self, root_fd: int, parent: bytes, listing: Listing, beat: Callable[[], None]) -> None:
        is_watched = self._settling.watches(parent)
        barred_names = self._unreadable.names_in(parent, listing)
        odd = listing.special or listing.marks or listing.foreign
        is_at_rest = not (is_watched or odd or barred_names or listing.error)
        if is_at_rest and self._arrivals.is_known(self.source.source_id, parent, listing.files, AGAIN):
            return
        now, monotonic = self._clock.now(), self._clock.monotonic()
        known = self._arrivals.known(self.source.source_id, parent)
        if self._mounts.known_again(root_fd, parent, known, listing.files):
            known = self._arrivals.known(self.source.source_id, parent)
        for name in listing.unreadable:
            if name not in known:
                self._take(unreadable(parent, name, NOT_TO_BE_READ))
        self._forget_the_gone(root_fd, parent, listing, known, barred_names)
        if is_watched:
            self._settling.retain(parent, listing.files)
        for name, found in listing.special.items():
            if name not in known or known[name].identity != found:
                identity = identity_of(found)
                self._take(Arrival(parent, name, identity, FileState.QUARANTINED, code="not-a-file", reason=NOT_A_FILE))
        for name, found in listing.foreign.items():
            if name not in known or known[name].identity != found:
                identity = identity_of(found)
                self._take(Arrival(parent, name, identity, FileState.QUARANTINED, code="not-ours", reason=NOT_OURS))
        for own_tree in arrivals(parent, listing, known):
            self._take(own_tree)
        with Folder(root_fd, parent) as folder:
            for name, found in listing.files.items():
                old = known.get(name)
                unchanged = old is not None and (old.identity == found or old.state is FileState.DELETING)
                # Whether the daemon may read a file also hangs on folders, groups and the daemon, and what another
                # version of it could not take may be taken by this one.
                barred = old.code if old is not None and old.code in AGAIN else None
                if unchanged and barred is None:
                    if is_watched:
                        self._settling.done((parent, name))
                    continue
                if self._settling.settled((parent, name), found, now=now, monotonic=monotonic) and (
                    arrival := self._read(folder, name, found)
                ):
                    self._settling.done((parent, name))
                    if not (unchanged and arrival.code == barred):
                        self._take(arrival)
                    beat()

    def _forget_the_gone(
        self, root_fd: int, parent: bytes, listing: Listing, known: dict[bytes, TrackedFile], barred_names: set[bytes]
    ) -> None:
        """What is known and does not stand there. A listing that broke off, and another file system than the one that
        a kept file is on, say nothing of it."""
        if listing.error is not None:
            return
        missing = {
            name: k
            for name, k in known.items()
            if not (name in listing.files or name in listing.special or name in listing.marks)
            and not (name in listing.foreign or name in barred_names)
            and k.state is not FileState.DELETING
        }
        elsewhere = self._mounts.elsewhere(root_fd, parent, missing)
        if gone := [k.file_id for name, k in missing.items() if name not in elsewhere]:
            self._flush()
            self._arrivals.forget(gone)

    def _read(self, folder: Folder, name: bytes, found: str) -> Arrival | None:
        """What the file is; None if it has to be looked at again."""
        try:
            return take(
                folder, name, identity_of(found), self._knows, self._log, self._beat, self._sizes, self.source.asker
            )
        except WriterPresent:
            self._settling.wait((folder.relative, name), found, monotonic=self._clock.monotonic())
        except SourceChanged:
            self.hint(folder.relative)
        except Gone:
            pass  # or replaced by something else since the listing; the next look sees what
        except OSError as error:
            self._retry_soon = True
            if len(self._unread) < UNREAD_LIMIT:
                self._unread[join(folder.relative, name)] = error.errno or 0
            self._log.warning(
                "intake-unreadable", "a file cannot be read now", inbox=self.source.name, errno=error.errno
            )
        return None

    def _knows(self, study_uid: Uid, series_uid: Uid) -> bool:
        """Whether the attributes of this series are on record, or will be with the batch."""
        series = (study_uid, series_uid)
        known = series in self._series_in_batch or self._arrivals.knows_series(*series)
        self._series_in_batch.add(series)
        return known

    def _take(self, arrival: Arrival) -> None:
        self._batch.append(arrival)
        if len(self._batch) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._batch:
            batch, self._batch = self._batch, []
            self._series_in_batch.clear()
            self._arrivals.add(self.source.source_id, batch, self._settings.quiet_seconds)
            self._on_news()

    # -- details ------------------------------------------------------------------------------------------------

    def _pause(self) -> float:
        """Seconds until the next scan, the next ripe file, or the end of the next quiet time."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        dues = [self._next_scan - monotonic]
        if (settled := self._settling.next_due()) is not None:
            dues.append(settled - monotonic)
        if (quiet := self._arrivals.next_quiet_at(self.source.source_id)) is not None:
            dues.append(quiet - now)
        return max(0.02, min(dues))
