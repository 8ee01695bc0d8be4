"""File system events as hints: where to look before the next scan would.

An event may be lost, late or wrong (inotify overflows and reaches its watch limit in silence); nothing relies on one.
"""

from __future__ import annotations

import os

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
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from dicomwatchd.intake.inbox import InboxIntake
from dicomwatchd.localfiles import ASIDE
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
    """Turns events into hints for the inboxes given to it. `tend` mends what has died."""

    def __init__(self, intakes: list[InboxIntake], log: Log) -> None:
        self._log = log
        self._intakes = intakes
        self._observer: BaseObserver = Observer()
        self._watches: dict[int, ObservedWatch] = {}
        self._failing: set[int] = set()

    def start(self) -> None:
        self._observer.start()
        self.tend()

    def stop(self) -> None:
        self._observer.stop()
        self._observer.join(5)

    def tend(self) -> None:
        """Watch what is not watched: at start, after an inbox has come back, after an emitter has died (watchdog's
        observer says it is alive all the same)."""
        alive = {emitter.watch for emitter in self._observer.emitters if emitter.is_alive()}
        for index, intake in enumerate(self._intakes):
            watch = self._watches.get(index)
            if watch is not None and watch in alive:
                continue
            if watch is not None:
                self._observer.unschedule(watch)
                del self._watches[index]
            try:
                self._watches[index] = self._observer.schedule(
                    _Hints(intake), os.fsdecode(intake.source.path), recursive=True, event_filter=_EVENTS
                )
            except OSError as error:
                if index not in self._failing:
                    self._failing.add(index)
                    self._log.warning(
                        "intake-unwatched",
                        "the inbox cannot be watched; its files are found by the scan",
                        inbox=intake.source.name,
                        errno=error.errno,
                    )
                continue
            self._failing.discard(index)
            intake.scan_soon()


class _Hints(FileSystemEventHandler):
    def __init__(self, intake: InboxIntake) -> None:
        self._intake = intake
        self._root = os.path.realpath(intake.source.path)

    def on_any_event(self, event: FileSystemEvent) -> None:
        for path in (event.src_path, event.dest_path):
            if not path:
                continue
            raw = os.fsencode(path)
            is_new_directory = event.is_directory
            parent = raw if is_new_directory else os.path.dirname(raw)
            relative = os.path.relpath(parent, self._intake.source.path)
            if relative == b".":
                relative = b""
            if relative.startswith(b"..") or ASIDE in relative.split(b"/"):
                continue
            self._intake.hint(relative, deep=is_new_directory)
