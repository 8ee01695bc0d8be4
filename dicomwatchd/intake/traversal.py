"""Goes through an inbox's directories, one, all below one, or all there are, and has each listing compared.

It knows where not to go: into the folders of an archive or of the daemon's own, and where nothing can be listed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from dicomwatchd import markers
from dicomwatchd.intake.comparison import Comparison
from dicomwatchd.intake.folder.leftovers import Leftovers
from dicomwatchd.intake.folder.own_trees import OwnTrees
from dicomwatchd.intake.folder.unreadable import Unreadable
from dicomwatchd.intake.scan import Globs, Listing, scan_directory, walk
from dicomwatchd.intake.schedule import Schedule
from dicomwatchd.ports import Log
from dicomwatchd.queue.arrivals import Arrivals
from dicomwatchd.queue.rows import Source

#: There is no such directory, or not any more.
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Traversal:
    """Of one inbox, on the inbox's own thread. ``schedule`` hears when only a whole scan can tell what a directory is,
    ``leftovers`` and ``unreadable`` of what was met on the way."""

    def __init__(
        self,
        source: Source,
        globs: Globs,
        comparison: Comparison,
        arrivals: Arrivals,
        leftovers: Leftovers,
        unreadable: Unreadable,
        schedule: Schedule,
        log: Log,
    ) -> None:
        self._source = source
        self._globs = globs
        self._comparison = comparison
        self._arrivals = arrivals
        self._leftovers = leftovers
        self._unreadable = unreadable
        self._schedule = schedule
        self.own_trees = OwnTrees(source.name, log)

    def everything(self, root_fd: int, beat: Callable[[], None]) -> Iterator[None]:
        """A whole scan. It stops after each directory, for what must not wait for the end of a long one. Raises
        Transient, and OSError where the inbox itself fails."""
        seen: set[bytes] = set()
        failed: dict[bytes, int | None] = {}

        def on_error(parent: bytes, error: OSError) -> None:
            if error.errno not in NOT_THERE:
                failed[parent] = error.errno
                self._unreadable.add_folder(parent)

        found_instead = self.own_trees.begin_scan(root_fd)
        self._leftovers.begin_scan()
        for parent, listing in found_instead or walk(
            root_fd, self._globs, on_error, heartbeat=beat, guard=self._source.guard
        ):
            seen.add(parent)
            self._comparison.compare(root_fd, parent, listing, beat)
            self.own_trees.see(parent, listing)
            self._leftovers.see(parent, listing)
            beat()
            yield
        self.own_trees.end_scan()
        self._leftovers.end_scan()
        self._comparison.flush()
        for parent in self._arrivals.known_directories(self._source.source_id):
            if parent not in seen and not any(parent == f or parent.startswith(f + b"/") for f in failed):
                self.one(root_fd, parent, beat)
        self._comparison.compare_unlisted(failed, self._unreadable.end_scan(seen, failed))

    def below(self, root_fd: int, parent: bytes, beat: Callable[[], None]) -> None:
        """This directory, and all below it."""
        if self._may_enter(root_fd, parent, beat):
            for directory, listing in walk(root_fd, self._globs, lambda *_: None, parent, beat, self._source.guard):
                self._comparison.compare(root_fd, directory, listing, beat)

    def one(self, root_fd: int, parent: bytes, beat: Callable[[], None]) -> None:
        """This directory alone."""
        try:
            with markers.unmarked_directory(root_fd, parent, self._source.guard) as fd:
                if self.own_trees.inside:
                    raise markers.Marked(b"")
                listing = scan_directory(fd, parent, self._globs, beat)
        except markers.Marked:
            self._left_alone(root_fd, parent, beat)
            return
        except OSError as error:
            if error.errno in NOT_THERE:
                self._comparison.compare(root_fd, parent, Listing(), beat)
            return
        self._comparison.compare(root_fd, parent, listing, beat)

    def _may_enter(self, root_fd: int, parent: bytes, beat: Callable[[], None]) -> bool:
        try:
            with markers.unmarked_directory(root_fd, parent, self._source.guard):
                return not self.own_trees.inside
        except markers.Marked:
            self._left_alone(root_fd, parent, beat)
            return False
        except OSError:
            return True  # the walk meets it too

    def _left_alone(self, root_fd: int, parent: bytes, beat: Callable[[], None]) -> None:
        """A directory, or one above it, is an archive's or our own: what is known of it is forgotten. Which one it is,
        a whole scan says."""
        if not self.own_trees.is_one(parent):
            self._comparison.compare(root_fd, parent, Listing(), beat)
            if not self.own_trees.is_in_one(parent):
                self._schedule.scan_next()
