"""What is staged in an inbox for longer than a purge takes: somebody who was at it is so no more.

At its start the daemon brings back what nobody owns. A daemon that shares the inbox may die later, for good, and what
it had staged then is nobody's: the names of such directories show at every look.
"""

from __future__ import annotations

from dicomwatchd.intake.scan import Listing

#: After one try to bring them back the same ones are left alone for this number of whole looks.
PATIENCE = 10


class Leftovers:
    """``eager``: whoever searched the inbox for what is staged has not come to its end, so the next whole look is as
    good as the second."""

    def __init__(self, *, eager: bool = False) -> None:
        self.eager = eager
        #: What the last whole look has called for, until somebody has tried it: see `end_scan`.
        self.to_bring_back: set[bytes] = set()
        self._met: set[tuple[bytes, bytes]] = set()
        self._before: set[tuple[bytes, bytes]] = set()
        self._tried: set[tuple[bytes, bytes]] = set()
        self._scans_since = 0

    def begin_scan(self) -> None:
        self._met = set()

    def see(self, parent: bytes, listing: Listing) -> None:
        self._met.update((parent, name) for name in listing.private)

    def end_scan(self) -> set[bytes]:
        """A whole look has ended. The directories in which something is staged that did so at the last look too, and
        is to be brought back unless somebody is still at it."""
        self.to_bring_back = self._that_stayed()
        return self.to_bring_back

    def _that_stayed(self) -> set[bytes]:
        stayed, self._before = self._met if self.eager else self._met & self._before, self._met
        self.eager = False
        self._scans_since += 1
        if self._scans_since >= PATIENCE:
            self._tried = set()
        if not stayed - self._tried:
            return set()
        self._tried, self._scans_since = stayed, 0
        return {parent for parent, _ in stayed}
