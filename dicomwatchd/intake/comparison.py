"""What becomes of a directory's listing: compared with what the queue knows, it says which files are new, changed or
gone, which are to be waited for, and what a settled one is.

The same for a scan and a hint. Nothing here lists a directory, and nothing deletes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dicomwatchd.errors import SourceChanged
from dicomwatchd.intake.dicom.sizes import SPARSE, TOO_LARGE, Sizes
from dicomwatchd.intake.folder import own_trees
from dicomwatchd.intake.folder.mounts import Mounts
from dicomwatchd.intake.folder.unreadable import (
    NOT_TO_BE_LISTED,
    NOT_TO_BE_READ,
    Unreadable,
    parent_and_name,
    unreadable,
)
from dicomwatchd.intake.on_record import Record
from dicomwatchd.intake.scan import Listing, join
from dicomwatchd.intake.schedule import Schedule
from dicomwatchd.intake.settle import Settling
from dicomwatchd.intake.take import NO_ACCESS, NOT_A_FILE, NOT_OURS, Folder, Gone, take
from dicomwatchd.localfiles import WriterPresent
from dicomwatchd.model import FileState
from dicomwatchd.ports import Clock, Log
from dicomwatchd.queue.arrivals import Arrivals
from dicomwatchd.queue.database.upgrade import OLD_FAULT
from dicomwatchd.queue.rows import OLD_DICOMDIR, UNREADABLE, Arrival, Source, TrackedFile, identity_of

#: Arrivals that are put on the queue together.
BATCH = 200
#: Codes of what is in quarantine, or passed over, and tried again at each look, although the file is what it was.
AGAIN = (NO_ACCESS, OLD_FAULT, UNREADABLE, TOO_LARGE, SPARSE, OLD_DICOMDIR)
#: Files that are remembered as unreadable.
UNREAD_LIMIT = 1000


class Comparison:
    """Of one inbox, on the inbox's own thread. ``settling`` remembers what is to be waited for, ``unreadable`` what
    cannot be looked at, ``schedule`` where to look again at once. Arrivals are put on the queue in batches: `flush`
    ends one. ``on_news`` is called when something was put there."""

    def __init__(
        self,
        source: Source,
        arrivals: Arrivals,
        settling: Settling,
        unreadable: Unreadable,
        schedule: Schedule,
        clock: Clock,
        log: Log,
        on_news: Callable[[], None],
        *,
        quiet_seconds: float,
        sizes: Sizes,
        charset_when_missing: str = "",
    ) -> None:
        self._source = source
        self._arrivals = arrivals
        self._settling = settling
        self._unreadable = unreadable
        self._schedule = schedule
        self._clock = clock
        self._log = log
        self._on_news = on_news
        self._quiet_seconds = quiet_seconds
        self._sizes = sizes
        self._charset_when_missing = charset_when_missing
        self._mounts = Mounts(source.source_id, arrivals.remounts)
        self._batch: list[Arrival] = []
        self._record = Record(arrivals)
        #: Path below the source to errno, of files that could not be read since the last whole scan began.
        self.unread: dict[bytes, int] = {}

    @property
    def has_batch(self) -> bool:
        """Whether something was found that is not on the queue yet."""
        return bool(self._batch)

    def begin_scan(self, root_fd: int) -> None:
        """From here on every directory is compared. Raises OSError, Transient."""
        self.unread.clear()
        self._settling.begin_scan()
        self._mounts.begin_scan()
        self._mounts.see(root_fd)

    def compare(self, root_fd: int, parent: bytes, listing: Listing, beat: Callable[[], None]) -> None:
        """Raises Transient, and OSError where the inbox itself fails."""
        is_watched = self._settling.watches(parent)
        barred_names = self._unreadable.names_in(parent, listing)
        odd = listing.special or listing.marks or listing.foreign
        is_at_rest = not (is_watched or odd or barred_names or listing.error)
        if is_at_rest and self._arrivals.is_known(self._source.source_id, parent, listing.files, AGAIN):
            return
        now, monotonic = self._clock.now(), self._clock.monotonic()
        known = self._arrivals.known(self._source.source_id, parent)
        if self._mounts.known_again(root_fd, parent, known, listing.files):
            known = self._arrivals.known(self._source.source_id, parent)
        for name in listing.unreadable:
            if name not in known:
                self._take(unreadable(parent, name, NOT_TO_BE_READ))
        self._forget_the_gone(root_fd, parent, listing, known, barred_names)
        if is_watched:
            self._settling.retain(parent, listing.files)
        self._quarantine_what_is_no_file(parent, listing, known)
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
                    arrival := self._read(folder, name, found, beat)
                ):
                    self._settling.done((parent, name))
                    if not (unchanged and arrival.code == barred):
                        self._take(arrival)
                    beat()

    def compare_unlisted(self, failed: Iterable[bytes], healed: Iterable[bytes]) -> None:
        """At the end of a whole scan: folders that could not be listed are named in quarantine, and those that can be
        listed by now no longer."""
        for path in failed:
            parent, name = parent_and_name(path)
            if name not in self._arrivals.known(self._source.source_id, parent):
                self._take(unreadable(parent, name, NOT_TO_BE_LISTED))
        for path in healed:
            parent, name = parent_and_name(path)
            known = self._arrivals.known(self._source.source_id, parent).get(name)
            if known is not None and known.code == UNREADABLE:
                self._arrivals.forget([known.file_id])
        self.flush()

    def flush(self) -> None:
        """Put on the queue what was found. Raises Transient."""
        if self._batch:
            batch, self._batch = self._batch, []
            self._record.flushed()
            self._arrivals.add(self._source.source_id, batch, self._quiet_seconds)
            self._on_news()

    # -- details ------------------------------------------------------------------------------------------------

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
            self.flush()
            self._arrivals.forget(gone)

    def _quarantine_what_is_no_file(self, parent: bytes, listing: Listing, known: dict[bytes, TrackedFile]) -> None:
        """Nor a folder of the inbox."""
        for odd, code, reason in (
            (listing.special, "not-a-file", NOT_A_FILE),
            (listing.foreign, "not-ours", NOT_OURS),
        ):
            for name, found in odd.items():
                if name not in known or known[name].identity != found:
                    identity = identity_of(found)
                    self._take(Arrival(parent, name, identity, FileState.QUARANTINED, code=code, reason=reason))
        for own_tree in own_trees.arrivals(parent, listing, known):
            self._take(own_tree)

    def _read(self, folder: Folder, name: bytes, found: str, beat: Callable[[], None]) -> Arrival | None:
        """What the file is; None if it has to be looked at again."""
        try:
            return take(
                folder,
                name,
                identity_of(found),
                self._record.holds_all_of,
                self._log,
                beat,
                self._sizes,
                self._source.asker,
                charset_when_missing=self._charset_when_missing,
            )
        except WriterPresent:
            self._settling.wait((folder.relative, name), found, monotonic=self._clock.monotonic())
        except SourceChanged:
            self._schedule.hint(folder.relative)
        except Gone:
            pass  # or replaced by something else since the listing; the next look sees what
        except OSError as error:
            if len(self.unread) < UNREAD_LIMIT:
                self.unread[join(folder.relative, name)] = error.errno or 0
            self._log.warning(
                "intake-unreadable", "a file cannot be read at the moment", inbox=self._source.name, errno=error.errno
            )
        return None

    def _take(self, arrival: Arrival) -> None:
        self._batch.append(arrival)
        if len(self._batch) >= BATCH or arrival.listed is not None:  # each may be a long list
            self.flush()
