"""Sends a study by C-STORE: each instance as it is, whole and compared first, and each with a result of its own."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import ColdObject, Permanent
from dicomwatchd.fetch.destination import Channel, Destination, Lost, NotAccepted, Unreachable
from dicomwatchd.fetch.folder import translated
from dicomwatchd.fetch.handing import NotTaken, hand_out
from dicomwatchd.fetch.plan import Found, Placed
from dicomwatchd.fetch.report import FetchFailure, FetchProgress, FetchReport
from dicomwatchd.fetch.sources import BadObject
from dicomwatchd.fetch.stream import Verified
from dicomwatchd.model import Uid

ATTEMPTS = 3
PAUSE_SECONDS = 5.0
_FORMAT = "dicomwatchd-sent/1"
#: What another attempt does not change.
_FINAL = frozenset((NotAccepted.code, NotTaken.code, ColdObject.code, BadObject.code))


@dataclass(frozen=True, slots=True)
class Sent:
    """The result of one instance: the ``status`` with which the destination confirmed it, four hex digits ("0000", or a
    warning), "" where it did not; then ``code`` and ``reason`` say why. ``earlier``: confirmed in an earlier run."""

    sop_instance_uid: Uid
    series_uid: Uid
    status: str = ""
    code: str = ""
    reason: str = ""
    earlier: bool = False


class Confirmed:
    """Which contents a destination has confirmed, in a file that outlives the command: a line for each."""

    def __init__(self, file: IO[str] | None, destination: Destination, known: Collection[tuple[str, str]]) -> None:
        self._file = file
        self._to = str(destination)
        self._known = set(known)

    @classmethod
    @contextmanager
    def opened(cls, path: Path | None, destination: Destination) -> Iterator[Confirmed]:
        """None: nothing is remembered. Raises Permanent where the file is something else, or cannot be used."""
        if path is None:
            yield cls(None, destination, ())
            return
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "r+", encoding="ascii", newline="\n") as file:
                yield cls(file, destination, _read(file, str(destination)))
                file.flush()
                os.fsync(fd)
        except OSError as error:
            raise translated(error, "the file of --resume cannot be used", path=str(path)) from error
        except UnicodeDecodeError as error:
            raise _other(path) from error

    def __contains__(self, item: ManifestInstance) -> bool:
        return (item.sop_instance_uid, item.sha256) in self._known

    def add(self, item: ManifestInstance, status: int) -> None:
        if self._file is not None:
            line = {"to": self._to, "sop": item.sop_instance_uid, "sha256": item.sha256, "status": f"{status:04X}"}
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


def _read(file: IO[str], to: str) -> set[tuple[str, str]]:
    file.seek(0)
    lines = file.read().splitlines(keepends=True)
    if not lines:
        file.write(_FORMAT + "\n")
        return set()
    if lines[0] != _FORMAT + "\n":
        raise _other(Path(file.name) if isinstance(file.name, str) else None)
    if not lines[-1].endswith("\n"):
        file.write("\n")  # it was cut off while it was written: that instance is sent again
    found = set()
    for line in lines[1:]:
        try:
            one = json.loads(line)
            if one["to"] == to:
                found.add((str(one["sop"]), str(one["sha256"])))
        except (ValueError, TypeError, KeyError):
            continue
    return found


def _other(path: Path | None) -> Permanent:
    return Permanent(
        "the file of --resume is something else, and was not touched",
        code="target-occupied",
        path=None if path is None else str(path),
    )


@dataclass(frozen=True, slots=True)
class SendReport:
    report: FetchReport
    results: tuple[Sent, ...]
    attempts: int


def send_study(
    store: ObjectStore,
    found: Found,
    places: Collection[Placed],
    channel: Channel,
    confirmed: Confirmed,
    directory: Path,
    *,
    cold: Collection[ManifestInstance] = (),
    threads: int = 16,
    progress: Callable[[FetchProgress], None] = lambda _progress: None,
    sleep: Callable[[float], None] = time.sleep,
    attempts: int = ATTEMPTS,
) -> SendReport:
    """Send what was not confirmed earlier. What fails is tried again after a pause, ``attempts`` times in all, and
    nothing that was confirmed. Raises Fatal."""
    results = {
        item: Sent(item.sop_instance_uid, item.series_uid, earlier=True, status="0000")
        for item, _ in places
        if item in confirmed
    }
    left = sorted(
        (one for one in places if one[0] not in results),
        key=lambda one: channel.group_of((one[0].sop_class_uid, one[0].transfer_syntax_uid)),
    )

    def take(one: Verified) -> None:
        item, _ = one.placed
        try:
            status = channel.send((item.sop_class_uid, item.transfer_syntax_uid), one.spool.path)
        except Unreachable as error:
            raise Lost(error.message) from error
        confirmed.add(item, status)
        results[item] = Sent(item.sop_instance_uid, item.series_uid, f"{status:04X}")

    whole: FetchReport | None = None
    attempt, final = 0, list[FetchFailure]()
    while attempt == 0 or left:
        attempt += 1
        report = hand_out(store, found, left, take, directory, cold=cold, threads=threads, progress=progress)
        failed = {(one.series_uid, one.sop_instance_uid): one for one in report.failed}
        whole = _together(whole, report)
        again = []
        for item, path in left:
            failure = failed.get((item.series_uid, item.sop_instance_uid))
            if failure is None or item in results:
                continue
            if failure.code in _FINAL or attempt >= attempts or report.stopped is not None:
                final.append(failure)
                results[item] = Sent(item.sop_instance_uid, item.series_uid, code=failure.code, reason=failure.reason)
            else:
                again.append((item, path))
        left = again
        if left:
            sleep(PAUSE_SECONDS * attempt)
    assert whole is not None  # noqa: S101  there was one attempt
    earlier = [item for item in results if results[item].earlier]
    whole = replace(
        whole,
        files=len(places),
        size_bytes=sum(item.size_bytes for item, _ in places),
        already_there=len(earlier),
        failed=tuple(sorted(final, key=lambda one: (one.series_uid, one.sop_instance_uid))),
    )
    return SendReport(whole, tuple(results[item] for item, _ in places), attempt)


def _together(before: FetchReport | None, now: FetchReport) -> FetchReport:
    if before is None:
        return now
    return replace(
        now,
        fetched=before.fetched + now.fetched,
        fetched_bytes=before.fetched_bytes + now.fetched_bytes,
        bad_objects=before.bad_objects,
        seconds=before.seconds + now.seconds,
    )
