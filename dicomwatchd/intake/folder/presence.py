"""Whether an inbox is there, and still the same folder: mounted, unmounted, removed, made anew."""

from __future__ import annotations

import errno
import os

from dicomwatchd.ports import Log


class Presence:
    """Told at every look what was found under the inbox's path; says once what has changed.

    ``root`` is (device, inode) of the folder that was there before the first look; None if it is not known.
    """

    def __init__(self, inbox: str, log: Log, root: tuple[int, int] | None) -> None:
        self._inbox, self._log = inbox, log
        self._root = root
        self.was_seen = root is not None
        self.is_away = False
        #: There is no such folder any more, as opposed to one that cannot be opened.
        self.is_removed = False
        #: Since when, monotonic; None if it is there, or may be.
        self.removed_at: float | None = None

    def not_opened(self, error: OSError, monotonic: float) -> None:
        """There is nothing to be opened at the inbox's path, or it cannot be."""
        self.away(error)
        if not self.is_removed:
            self.removed_at = None
        elif self.removed_at is None:
            self.removed_at = monotonic

    def opened(self) -> None:
        """Something was opened there; which folder it is, `here` tells."""
        self.removed_at = None

    def away(self, error: OSError) -> None:
        """The inbox cannot be opened."""
        self.is_removed = error.errno in (errno.ENOENT, errno.ENOTDIR)
        if not self.is_away:
            self.is_away = True
            self._log.error(
                "inbox-unavailable",
                "the inbox cannot be opened; its files are left as they are",
                inbox=self._inbox,
                errno=error.errno,
            )

    def here(self, root_fd: int) -> bool:
        """The inbox is open. True when it has come back, or when another folder stands in its place, or may."""
        found = os.fstat(root_fd)
        root = (found.st_dev, found.st_ino)
        is_known = self._root is not None
        replaced = is_known and root != self._root
        back, self._root, self.is_away = self.is_away, root, False
        self.is_removed, self.was_seen = False, True
        if replaced:
            self._log.warning(
                "intake-replaced",
                "the inbox is not the same folder as before: newly mounted or recreated?",
                inbox=self._inbox,
            )
        elif back:
            self._log.warning("inbox-available", "the inbox can be opened again", inbox=self._inbox)
        return replaced or back or not is_known
