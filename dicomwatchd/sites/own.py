"""A daemon's own row: each write names the one before, so no older one gets over a newer one, whatever clocks say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dicomwatchd.archive.catalogues.sites import SiteRow, SiteTable
from dicomwatchd.sites import report
from dicomwatchd.sites.report import SiteReport

#: Of one heartbeat: each finds another row in its place.
_ATTEMPTS = 3
#: After so many heartbeats that nobody came between there is no twin any more.
_ALONE = 3


class OwnRow:
    """``site_id``: of the state. ``run``: of this very process, and of no other. For one thread.

    `twin` is the machine whose daemon has this one's state as well: it has written in the place of a row of ours, so it
    is alive. Both find out, for each finds the other's row where its own was. A predecessor that has ended is none: its
    row is found at the first write and never again."""

    def __init__(self, table: SiteTable, site_id: str, run: str) -> None:
        self._table, self._site_id, self._run = table, site_id, run
        self._last: tuple[int, str] | None = None
        self._has_written = self._is_uncertain = False
        self._undisturbed = 0
        self.twin = ""

    def write(self, made: SiteReport, is_stopping: Callable[[], bool] = lambda: False) -> bool:
        """Whether it was written. Raises Transient, Permanent, Fatal."""
        for _ in range(_ATTEMPTS):
            beats = 1 + (self._last[0] if self._last else 0)
            row = SiteRow(self._site_id, beats, self._run, replace(made, twin=self.twin).to_text())
            if self._put(row):
                return self._written(beats)
            there = self._table.row(self._site_id)
            if there == row:
                return self._written(beats)  # ours, of which the answer was lost
            if is_stopping():
                return False
            if there is not None and self._has_written and not there.is_forgotten and not self._may_be_ours(there):
                other = report.read(there.document)
                self.twin = (other.host if other else "") or "unnamed"
                self._undisturbed = -1
            self._last = None if there is None else there.stamp
        return False

    def _put(self, row: SiteRow) -> bool:
        was_uncertain, self._is_uncertain = self._is_uncertain, True
        is_written = self._table.write(row, self._last)
        self._is_uncertain = was_uncertain  # this one was answered
        return is_written

    def _may_be_ours(self, there: SiteRow) -> bool:
        """Of this run, by an attempt that nobody has answered. (Of this run, and by none: of a machine that was copied
        while it ran.)"""
        return there.run == self._run and self._is_uncertain

    def _written(self, beats: int) -> bool:
        self._last, self._has_written, self._is_uncertain = (beats, self._run), True, False
        self._undisturbed += 1
        if self._undisturbed >= _ALONE:
            self.twin = ""
        return True
