"""File system events as hints: where to look before the next scan would.

An event may be lost, late or wrong (inotify overflows and reaches its watch limit in silence); nothing relies on one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver, ObservedWatch

from dicomwatchd.intake.inbox import InboxIntake
from dicomwatchd.intake.observer import InboxObserver
from dicomwatchd.markers import OWN
from dicomwatchd.ports import Log

#: Not the events that reading a file causes, or every header read would call for another look.
_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileDeletedEvent,
    FileClosedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]


class Watcher:
    """Turns events into hints for the inboxes given to it. `tick` mends what has died."""

    def __init__(self, intakes: list[InboxIntake], log: Log) -> None:
        self._log = log
        self._intakes = intakes
        self._observer: BaseObserver | None = None
        self._watches: dict[int, _Watch] = {}
        self._failing: set[int] = set()

    def start(self) -> None:
        self.tick()

    def stop(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(5)

    def tick(self) -> None:
        """Watch what is not watched: at start, after an inbox has come back or another folder has taken its place,
        after an emitter has died (watchdog's observer says it is alive all the same), or the observer itself."""
        for index, intake in enumerate(self._intakes):
            try:
                self._tick(index, intake)
            except OSError as error:
                if index not in self._failing:
                    self._failing.add(index)
                    self._log.warning(
                        "intake-unwatched",
                        "the inbox cannot be watched; its files are found by the scan",
                        inbox=intake.source.name,
                        errno=error.errno,
                    )

    def _tick(self, index: int, intake: InboxIntake) -> None:
        observer = self._living_observer()
        # An inbox may be a link, which inotify would watch itself; a link within it leads nowhere.
        path = os.path.realpath(intake.source.path)
        found = os.stat(path)
        root = (found.st_dev, found.st_ino)
        watch = self._watches.get(index)
        if watch is not None:
            if watch.root == root and any(e.watch is watch.watch and e.is_alive() for e in observer.emitters):
                return
            del self._watches[index]
            observer.unschedule(watch.watch)
        scheduled = observer.schedule(_Hints(intake, path), os.fsdecode(path), recursive=True, event_filter=_EVENTS)
        self._watches[index] = _Watch(scheduled, root)
        self._failing.discard(index)
        intake.scan_soon()

    def _living_observer(self) -> BaseObserver:
        if self._observer is not None and not self._observer.is_alive():
            dead, self._observer = self._observer, None
            dead.stop()  # what is left of it, with its descriptors
        if self._observer is None:
            self._watches.clear()
            # Takes an inotify instance, of which a user has 128.
            self._observer = InboxObserver()
            self._observer.start()
        return self._observer


@dataclass(frozen=True, slots=True)
class _Watch:
    """``root`` is (device, inode) of the folder that stood in the inbox's place right before the watch was made."""

    watch: ObservedWatch
    root: tuple[int, int]


class _Hints(FileSystemEventHandler):
    """``root`` is the inbox's path as it is watched."""

    def __init__(self, intake: InboxIntake, root: bytes) -> None:
        self._intake, self._root = intake, root

    def on_any_event(self, event: FileSystemEvent) -> None:
        for path in (event.src_path, event.dest_path):
            if not path:
                continue
            raw = os.fsencode(path)
            is_new_directory = event.is_directory
            parent = raw if is_new_directory else os.path.dirname(raw)
            relative = os.path.relpath(parent, self._root)
            if relative == b".":
                relative = b""
            parts = relative.split(b"/")
            if parts[0] == b".." or any(part.startswith(OWN) for part in parts):
                continue
            self._intake.hint(relative, deep=is_new_directory)
