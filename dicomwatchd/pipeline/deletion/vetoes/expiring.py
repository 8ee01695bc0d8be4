"""Deleting waits while the store might not keep what it holds: while it would end the archive's objects by itself, and
nobody has said that this is meant; and while its settings would let others take them away (`ObjectStore.expiry`).

What is archived meanwhile is kept, with this reason; it falls due, and is proven afresh, once nothing speaks against it
any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import DicomwatchdError, Transient
from dicomwatchd.ports import Clock, Log
from dicomwatchd.queue.deletions import Deletions
from dicomwatchd.telemetry.fields import error_fields

#: Between two looks at the store's rules; and while deletion waits for them.
CHECK_SECONDS = 900.0
WAITING_CHECK_SECONDS = 60.0

REASON = (
    "archived; kept because the store might not keep the archived object, by a lifecycle rule or another setting:"
    " dicomwatchctl status says which"
)


class Expiring:
    """`step` may be called from several threads, by nobody often enough to matter."""

    def __init__(
        self,
        store: ObjectStore,
        deletions: Deletions,
        clock: Clock,
        log: Log,
        *,
        due: Callable[[], None] = lambda: None,
        in_trouble: Callable[[], bool] = lambda: False,
    ) -> None:
        """``due`` hears of kept files that may go by now; ``in_trouble`` tells that the store does not answer at the
        moment, so that it is left alone."""
        self._store, self._deletions, self._clock, self._log = store, deletions, clock, log
        self._due, self._in_trouble = due, in_trouble
        self._lock = threading.Lock()
        #: What was told since deleting went on last.
        self._told: set[str] = set()
        #: Whether files may be kept that need not be: at the start, and when deleting goes on.
        self._holds = True
        self._next_check = clock.monotonic() + CHECK_SECONDS

    @property
    def problem(self) -> str | None:
        """Why no local file may be deleted now, in plain words; None where nothing speaks against it."""
        return self._store.expiry.forbids_deleting

    def stops_deleting(self) -> str | None:
        """As `problem`, for a shipment, which keeps its files then."""
        why = self.problem
        if why is not None:
            self._holds = True
        return why

    def run(self, stopping: threading.Event, beat: Callable[[], None]) -> None:
        """The thread, until it is told to stop."""
        while not stopping.is_set():
            beat()
            self.step()
            stopping.wait(1.0)

    def step(self) -> None:
        """Look at the store's rules if that is due; tell of what has changed, and let go what was kept for it."""
        with self._lock:
            now = self._clock.monotonic()
            waits = self.problem is not None
            if waits:
                self._next_check = min(self._next_check, now + WAITING_CHECK_SECONDS)
            if now >= self._next_check and not self._in_trouble():
                self._check()
                self._next_check = now + (WAITING_CHECK_SECONDS if self.problem is not None else CHECK_SECONDS)
            self._tell()

    def _check(self) -> None:
        try:
            self._store.refresh_expiry()
        except DicomwatchdError as error:
            self._log.warning(
                "expiry-unknown", "the store's lifecycle rules cannot be read at the moment", **error_fields(error)
            )

    def _tell(self) -> None:
        """Each of the two once, until deleting goes on."""
        found = self._store.expiry
        if found.unaccepted is not None and self._is_news("expiring"):
            self._log.error(
                "archive-expires",
                "lifecycle rules of the store would expire the archive's objects; local files are archived and kept",
            )
        if found.unprotected is not None and self._is_news("unprotected"):
            self._log.error(
                "archive-unprotected",
                "the store's settings do not protect the archive's objects, or are not known yet; local files are"
                " archived and kept: dicomwatchctl doctor says what to do",
            )
        if found.forbids_deleting is not None:
            self._holds = True
        elif self._holds:
            self._holds = False
            try:
                released = self._deletions.release_expiring()
            except Transient:
                self._holds = True  # whoever writes next to the full disk says so
                return
            if self._told:
                self._log.info(
                    "archive-stays",
                    "the store keeps the archive's objects again; local files are deleted again",
                    files=released,
                )
            self._told.clear()
            if released:
                self._due()

    def _is_news(self, what: str) -> bool:
        is_news = what not in self._told
        self._told.add(what)
        return is_news
