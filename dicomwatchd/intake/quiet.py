"""Before a study counts as quiet, its own directories are looked at once more: a lost event, or a backlog of them, must
not close a study whose slices are still coming."""

from __future__ import annotations

from collections.abc import Callable

from dicomwatchd.intake.comparison import Comparison
from dicomwatchd.intake.settle import Settling
from dicomwatchd.intake.traversal import Traversal
from dicomwatchd.ports import Clock
from dicomwatchd.queue.quiet import QuietTimers
from dicomwatchd.queue.rows import Source

#: How long a file beside a study's own that will not settle can hold the study up.
HOLD_SECONDS = 600.0


class QuietCheck:
    """Of the studies of one inbox, on the inbox's own thread. ``by_whole_scans``: no events tell of new directories, so
    only a whole scan shows a study quiet."""

    def __init__(
        self,
        source: Source,
        timers: QuietTimers,
        settling: Settling,
        comparison: Comparison,
        traversal: Traversal,
        clock: Clock,
        *,
        settle_seconds: float,
        by_whole_scans: bool,
    ) -> None:
        self._source = source
        self._timers = timers
        self._settling = settling
        self._comparison = comparison
        self._traversal = traversal
        self._clock = clock
        self._settle_seconds = settle_seconds
        self._by_whole_scans = by_whole_scans

    def confirm(self, root_fd: int, beat: Callable[[], None], *, last_scan_began: float) -> bool:
        """Look at those whose quiet time is over; whether one of them counts as quiet now. ``last_scan_began``: when
        the last whole scan did. Raises Transient, and OSError where the inbox itself fails."""
        began = self._clock.now()
        if (at := self._timers.next_quiet_at(self._source.source_id)) is None or at > began:
            return False
        nearly = self._timers.nearly_quiet(self._source.source_id)
        if self._by_whole_scans:
            began = last_scan_began
        else:
            for parent in sorted({d for directories in nearly.values() for d in directories}):
                self._traversal.one(root_fd, parent, beat)
                beat()
            self._comparison.flush()
        held = [
            uid
            for uid in nearly
            if self._settling.unsettled_in(set(nearly[uid]), self._clock.monotonic(), younger_than_seconds=HOLD_SECONDS)
        ]
        if held:
            self._timers.postpone(self._source.source_id, held, max(self._settle_seconds, 0.5))
        confirmed = [uid for uid in nearly if uid not in held]
        if confirmed:
            self._timers.confirm_quiet(self._source.source_id, confirmed, began)
        return bool(confirmed)
