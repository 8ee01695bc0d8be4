"""Trees below or around an inbox that carry the mark of an archive or of a state: counted, told, never looked into."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from dicomwatchd import markers
from dicomwatchd.intake.scan import Listing
from dicomwatchd.model import FileState
from dicomwatchd.ports import Log
from dicomwatchd.queue.rows import Arrival, TrackedFile, identity_of

#: The code of the one entry in quarantine that stands for such a tree.
OWN_TREE = "own-tree"
_REASON = "a folder of an archive or of the daemon; nothing in it is read, archived or deleted"
#: The name under which an inbox that lies inside of such a tree stands in quarantine itself.
ITSELF = b"."


class OwnTrees:
    """Of one inbox; looked at by any thread, changed by its own."""

    def __init__(self, inbox: str, log: Log) -> None:
        self._inbox, self._log = inbox, log
        self._marked: set[bytes] = set()
        self._met: set[bytes] = set()
        #: The inbox itself lies in an archive, or in a state.
        self.inside = False

    def __len__(self) -> int:
        return len(self._marked)

    def begin_scan(self, root_fd: int) -> list[tuple[bytes, Listing]]:
        """A whole look begins. What it finds, in place of everything else, where the inbox itself is inside of such a
        tree. Raises OSError."""
        self._met = set()
        self.inside = markers.is_below(root_fd)
        if not self.inside:
            return []
        found = os.fstat(root_fd)
        return [(b"", Listing(marks={ITSELF: f"{found.st_dev}:{found.st_ino}:0:0:0"}))]

    def see(self, parent: bytes, listing: Listing) -> None:
        if listing.marks:
            self._met.add(parent)

    def end_scan(self) -> None:
        """Which they are, the quarantine tells; the log only how many."""
        if self._met - self._marked:
            self._log.error(
                "inbox-own-tree",
                "the inbox contains folders of an archive or of the daemon; they are ignored",
                inbox=self._inbox,
                folder_count=len(self._met),
            )
        self._marked = self._met

    def is_one(self, parent: bytes) -> bool:
        return parent in self._marked

    def is_in_one(self, parent: bytes) -> bool:
        """As far as the last whole look knows."""
        return any(not mark or parent == mark or parent.startswith(mark + b"/") for mark in self._marked)


def arrivals(parent: bytes, listing: Listing, known: Mapping[bytes, TrackedFile]) -> Iterator[Arrival]:
    """What goes to quarantine for the marks of a directory, as far as it is not there yet."""
    for name, found in listing.marks.items():
        if name not in known or known[name].identity != found or known[name].code != OWN_TREE:
            yield Arrival(parent, name, identity_of(found), FileState.QUARANTINED, code=OWN_TREE, reason=_REASON)
