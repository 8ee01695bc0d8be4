"""inotify by watchdog, without the daemon's own folders, and with two of its faults mended.

A file that is deleted goes into such a folder first, and out of it for good. Watched there it is three events, and for
the second of them watchdog searches all that wait: of 3,000 small files that took 15 % of the time in which the daemon
holds the interpreter's lock (docs/performance.md), and the more wait, the longer each takes.

The methods of `_WatchGroup` are watchdog's own. Should they have other names one day tests/unit/test_intake_watch.py
tells.
"""

from __future__ import annotations

import os

from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter, InotifyWatchGroup
from watchdog.observers.inotify_c import InotifyFD, WatchDescriptor

from dicomwatchd.markers import OWN


class InboxObserver(BaseObserver):
    """As watchdog's `InotifyObserver`. Raises OSError where the user has no inotify instance left (EMFILE)."""

    def __init__(self) -> None:
        self._inotify_fd = InotifyFD()
        self._inotify_fd.start()
        super().__init__(_Emitter, inotify_fd=self._inotify_fd)

    def is_alive(self) -> bool:
        """And not without whoever reads the events."""
        return super().is_alive() and self._inotify_fd.is_alive()

    def on_thread_stop(self) -> None:
        try:
            super().on_thread_stop()
        finally:
            self._inotify_fd.stop()
            self._inotify_fd.join()


class _Emitter(InotifyEmitter):
    def on_thread_start(self) -> None:
        self._inotify = _WatchGroup(
            self._inotify_fd,
            os.fsencode(self.watch.path),
            is_recursive=self.watch.is_recursive,
            event_mask=self.get_event_mask_from_filter(),
            follow_symlink=self.watch.follow_symlink,
        )


class _WatchGroup(InotifyWatchGroup):
    def _add_callback(self, path: bytes) -> None:
        if b"/" + OWN not in path[len(self.path) :]:
            super()._add_callback(path)

    def _remove_watch_internally(self, wd: WatchDescriptor) -> None:
        """A folder that was moved out of the inbox is watched on under its old path. Once another one has had that path
        watchdog does not find the first one's any more: its KeyError ended the reading of events, for all."""
        path = self._active_callbacks_by_watch.pop(wd, None)
        if path is not None and self._active_callbacks_by_path.get(path) == wd:
            del self._active_callbacks_by_path[path]
