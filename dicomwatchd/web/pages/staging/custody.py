"""Brings uploads to their end: copies what is twice in one, hands whole ones to the daemon, follows them, and throws
away what nobody goes on with.

Nothing here says that a file is safe, or takes one away that the daemon has to judge: what is handed in is the daemon's
until it says that it has ended.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from dicomwatchd.control.client import DaemonRefused, DaemonUnreachable
from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.ports import Clock, Log
from dicomwatchd.telemetry.fields import error_fields
from dicomwatchd.web.pages.limits import UploadLimits
from dicomwatchd.web.pages.staging.book import Book, FileState, Stage, UploadRow
from dicomwatchd.web.pages.staging.room import Room

#: A line of the list is a result that is known for so long, and no longer told then.
_REMEMBERED_SECONDS = 30 * 86400.0
#: Of the daemon's list so many are looked through for one that was handed in when the answer was lost.
_LISTED = 1000
_LONG_AGO = 0.0


class Daemon(Protocol):
    """The control socket of the daemon, as far as uploads go (control.client.ControlClient)."""

    def call(self, command: str, *, descriptor: int | None = None, **arguments: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class State:
    """How an upload stands: ``said`` is the daemon's own account, None before it has one; ``trouble`` is why it does
    not go on just now, in a sentence."""

    row: UploadRow
    said: dict[str, Any] | None
    trouble: str = ""


class Custody:
    """Safe to be used from any thread; `tick` from one at a time."""

    def __init__(self, book: Book, room: Room, daemon: Daemon, limits: UploadLimits, log: Log, clock: Clock) -> None:
        self._book, self._room, self._daemon = book, room, daemon
        self._limits, self._log, self._clock = limits, log, clock
        #: Held while one is handed in: it is given up before, or not at all.
        self._handing_in = threading.Lock()

    def tick(self) -> None:
        """One round; what fails is tried in the next. Raises nothing of ours."""
        for row in self._uploads(Stage.WHOLE):
            self._try(row, self._hand_in)
        for row in self._uploads(Stage.HANDED_IN):
            self._try(row, self._follow)
        now = self._clock.now()
        for row in self._uploads(Stage.OPEN):
            if now - row.touched_at > self._limits.open_seconds:
                self._try(row, self.drop)
        for row in self._uploads(Stage.ENDED, Stage.DROPPED):
            if row.stage is Stage.DROPPED or now - row.touched_at > self._limits.ended_seconds or self._is_used_up(row):
                self._try(row, self._remove)
        with suppress(DicomwatchdError):
            self._book.forget(now - _REMEMBERED_SECONDS)

    def state(self, row: UploadRow) -> State:
        """Asks the daemon where it has the upload. Raises StateUnavailable."""
        if row.stage is not Stage.HANDED_IN:
            return State(row, self._named(row, row.result), row.note)
        try:
            said = self._follow(row)
        except DaemonUnreachable as error:
            return State(row, None, error.message)
        except DaemonRefused as error:
            return State(row, None, error.message)
        return State(self._book.upload(row.upload_id) or row, self._named(row, said))

    def drop(self, row: UploadRow) -> None:
        """Give up one that was not handed in; of one that has ended, what is left here. Raises StateUnavailable."""
        for stage in (Stage.OPEN, Stage.WHOLE):
            with self._handing_in if stage is Stage.WHOLE else nullcontext():
                if self._book.step(row.upload_id, stage, Stage.DROPPED, self._clock.now()):
                    self._log.info("web-upload-dropped", "an upload through the page was given up")
                    return
        self._book.step(row.upload_id, Stage.ENDED, Stage.ENDED, _LONG_AGO)  # its time is over

    def _uploads(self, *stages: Stage) -> list[UploadRow]:
        with suppress(DicomwatchdError):
            return self._book.in_stages(*stages)
        return []

    def _try(self, row: UploadRow, step: Callable[[UploadRow], Any]) -> None:
        try:
            step(row)
        except DicomwatchdError as error:
            with suppress(DicomwatchdError):
                if error.message != row.note:
                    self._book.note(row.upload_id, error.message)
                    self._log.warning("web-upload-delayed", "an upload through the page waits", **error_fields(error))

    def _hand_in(self, row: UploadRow) -> None:
        for file in self._book.files(row.upload_id, FileState.SAME):
            assert file.same_as is not None  # noqa: S101  which is why it is the same
            source = self._book.file(row.upload_id, file.same_as)
            assert source is not None  # noqa: S101  it was there when it was referred to
            self._room.copy(row.upload_id, file.number, file.place, source.place, file.size_bytes, file.sha256)
            self._book.is_there(row.upload_id, file.number, self._clock.now())
        with self._handing_in:
            now = self._book.upload(row.upload_id)
            if now is None or now.stage is not Stage.WHOLE:
                return  # it was given up
            daemon_id = self._known_to_daemon(row) or self._handed_in(row)
            is_handed_in = self._book.step(
                row.upload_id, Stage.WHOLE, Stage.HANDED_IN, self._clock.now(), daemon_id=daemon_id, note=""
            )
        if is_handed_in:
            self._log.info("web-upload-handed-in", "an upload through the page was handed to the daemon")

    def _known_to_daemon(self, row: UploadRow) -> str | None:
        """The daemon has it where an earlier answer was lost: handed in again it might be found empty already."""
        path = os.fspath(self._room.files(row.upload_id).resolve())
        for one in self._daemon.call("upload-list", limit=_LISTED):
            if one.get("path") == path:
                return str(one.get("upload_id"))
        return None

    def _handed_in(self, row: UploadRow) -> str:
        folder = self._room.opened(row.upload_id)
        try:
            said = self._daemon.call("upload-folder", descriptor=folder, delete=True, wait=False)
        finally:
            os.close(folder)
        return str(said["upload_id"])

    def _follow(self, row: UploadRow) -> dict[str, Any]:
        said: dict[str, Any] = self._daemon.call("upload-show", upload_id=row.daemon_id)
        if said.get("done") is True:
            kept = {key: value for key, value in said.items() if key != "path"}
            kept = self._named(row, kept) or kept
            if self._book.step(
                row.upload_id, Stage.HANDED_IN, Stage.ENDED, self._clock.now(), result=json.dumps(kept), note=""
            ):
                self._log.info("web-upload-ended", "an upload through the page has ended")
        return said

    def _named(self, row: UploadRow, said: dict[str, Any] | None) -> dict[str, Any] | None:
        """With the names that files have where they come from, in place of those that they have here."""
        if said is None:
            return None
        names = self._book.names(row.upload_id)
        if not names:
            return said

        def name(given: object) -> str:
            return names.get(str(given), str(given))

        return {
            **said,
            "failed": [{**one, "name": name(one.get("name"))} for one in said.get("failed") or []],
            "not_opened": [name(one) for one in said.get("not_opened") or []],
        }

    def _is_used_up(self, row: UploadRow) -> bool:
        """Whether the daemon has archived and taken away all of it."""
        try:
            return row.stage is Stage.ENDED and self._room.is_empty(row.upload_id)
        except DicomwatchdError:
            return False

    def _remove(self, row: UploadRow) -> None:
        keeps_names = self._is_used_up(row)
        self._room.remove(row.upload_id)
        self._book.removed(row.upload_id, self._clock.now(), keeps_names=keeps_names)


class Rounds:
    """Ticks on a thread of its own, from `start` to `stop`; `wake` when there is something to do at once."""

    def __init__(self, custody: Custody, seconds: float = 2.0) -> None:
        self._custody, self._seconds = custody, seconds
        self._woken, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="page-uploads", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        self._ended = True
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ended:
            self._custody.tick()
            self._woken.wait(self._seconds)
            self._woken.clear()
