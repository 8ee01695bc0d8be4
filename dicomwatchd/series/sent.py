"""Series objects as a by-product of archiving: a file is looked at while its bytes are in memory because it is sent,
and the series is written once its study has come to its end, when nothing of it waits for anything any more.

It is never in the way. What is looked at takes so much CPU at most; what is kept takes so much memory at most; nothing
is on the disk. Where either does not suffice, after a restart, or if a file is larger than what is sent from memory,
the series is given up: it is derived by whoever reads it first, by `archive index`, or, if that is wanted, here, by
reading back what is missing while the daemon has nothing else to do.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from dicomwatchd import __version__
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import DicomwatchdError, Stopping
from dicomwatchd.model import InstanceHeader, Uid
from dicomwatchd.ports import Clock, Log
from dicomwatchd.series import objects
from dicomwatchd.series.building import derive
from dicomwatchd.series.document import Entry, Known, SeriesDocument, name_of
from dicomwatchd.series.extract import Extracted, extract
from dicomwatchd.series.values import Element, Seen
from dicomwatchd.telemetry.fields import error_fields

_T = TypeVar("_T")
_R = TypeVar("_R")
#: CPU that looking at files may take: this share of one core, and so many seconds of it ahead of time. A study of 3,000
#: slices takes two.
CPU_SHARE = 0.2
CPU_AHEAD_SECONDS = 10.0
#: About so much memory takes what is kept of studies on their way: some 20,000 instances.
KEPT_BYTES = 64 * 1024**2
#: Elements of one file that are read: a second of CPU is too much for a file that somebody has made so.
_ELEMENTS_LIMIT = 60_000
#: Frames and fragments of one file: they take 45 MB of memory and half a second at most, in each of the workers.
_FRAMES_LIMIT = 50_000
#: Series of which anything is known, if only that they are given up.
_SERIES_KNOWN = 20_000
#: Studies that wait to be written; of more the oldest are left to whoever reads them.
_WAITING = 64
_TURN_SECONDS = 1.0
#: While studies are being archived, between two series.
_GIVES_WAY_SECONDS = 0.2

# What an instance takes in memory, and each element and frame of it that others do not have.
_ENTRY_BYTES, _ELEMENT_BYTES, _FRAME_BYTES = 1500, 600, 300


@dataclass(slots=True)
class _Kept:
    """What is kept of one series: of each instance what the first does not say."""

    first: dict[str, Element] = field(default_factory=dict)
    entries: dict[Known, tuple[Entry, frozenset[str]]] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)
    size_bytes: int = 0
    #: Some of it was not looked at: nothing more of it is.
    is_given_up: bool = False

    def add(self, header: InstanceHeader, found: Extracted) -> int:
        """How many bytes more it takes."""
        if not self.entries:
            self.first = dict(found.attributes)
        own = {tag: one for tag, one in found.attributes.items() if self.first.get(tag) != one}
        lacks = self.first.keys() - found.attributes.keys()
        entry = Entry(
            header.sop_instance_uid,
            found.sha256,
            found.size_bytes,
            header.transfer_syntax_uid or found.transfer_syntax_uid,
            own,
            found.bulk,
            found.pixels,
            found.left_out,
            found.unreadable,
            found.is_deflated,
            found.is_big_endian,
        )
        self.entries[entry.known] = entry, frozenset(lacks)
        frames = 0 if found.pixels is None else len(found.pixels.frames)
        elements = own if len(self.entries) > 1 else found.attributes
        more = _ENTRY_BYTES + _ELEMENT_BYTES * (len(elements) + len(found.bulk)) + _FRAME_BYTES * frames
        self.size_bytes += more
        return more

    def whole(self) -> dict[Known, Entry]:
        """The entries, each with all that it says."""
        found = {}
        for known, (entry, lacks) in self.entries.items():
            common = {tag: one for tag, one in self.first.items() if tag not in lacks} if lacks else self.first
            found[known] = replace(entry, attributes={**common, **entry.attributes})
        return found

    def give_up(self) -> int:
        """How many bytes less it takes."""
        less, self.size_bytes = self.size_bytes, 0
        self.first, self.entries, self.seen = {}, {}, Seen()
        self.is_given_up = True
        return less


class Allowance:
    """CPU that may be taken: it grows with the time, up to a limit."""

    def __init__(self, clock: Clock, share: float = CPU_SHARE, ahead_seconds: float = CPU_AHEAD_SECONDS) -> None:
        self._clock, self._share, self._ahead_seconds = clock, share, ahead_seconds
        self._left, self._at = ahead_seconds, clock.monotonic()

    def is_left(self) -> bool:
        now = self._clock.monotonic()
        self._left = min(self._ahead_seconds, self._left + (now - self._at) * self._share)
        self._at = now
        return self._left > 0

    def take(self, seconds: float) -> None:
        self._left -= seconds


class SentSeries:
    """`look` is called by the workers, `finished` by whoever has brought a study to its end; `run` is the thread that
    writes, `step` one series of it. None of the former raises or waits.

    ``reads_back``: what was not looked at is read from the store. ``busy`` tells whether studies are being archived,
    ``in_trouble`` that the store is to be left alone. ``cpu_seconds`` is the calling thread's own time."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        log: Log,
        *,
        reads_back: bool,
        cpu_seconds: Callable[[], float],
        busy: Callable[[], bool] = lambda: False,
        in_trouble: Callable[[], bool] = lambda: False,
        kept_bytes: int = KEPT_BYTES,
        allowance: Allowance | None = None,
    ) -> None:
        self._store, self._clock, self._log = store, clock, log
        self._reads_back, self._cpu_seconds = reads_back, cpu_seconds
        self._busy, self._in_trouble = busy, in_trouble
        self._limit_bytes = kept_bytes
        self._allowance = allowance or Allowance(clock)
        self._lock = threading.Lock()
        self._kept: OrderedDict[Uid, dict[Uid, _Kept]] = OrderedDict()
        self._kept_bytes = self._series_known = 0
        self._finished: deque[Manifest] = deque(maxlen=_WAITING)
        self._work: Iterator[None] | None = None
        self._wake = threading.Event()
        self._stopping = threading.Event()
        #: Files that were looked at, and not; series that were written, and given up.
        self.looked_at = self.not_looked_at = self.written = self.given_up = 0

    # -- while files are sent --

    def look(self, header: InstanceHeader, sha256: str, data: bytes | memoryview | None) -> None:
        """At a file that the store has by now; ``data`` are its bytes, None where they are not in memory."""
        began = self._cpu_seconds()
        try:
            self._look(header, sha256, data)
        except Exception:  # noqa: BLE001  whatever is wrong with it, and with us: the file is archived
            self._give_up(header.study_uid, header.series_uid)
        self._allowance.take(self._cpu_seconds() - began)

    def _look(self, header: InstanceHeader, sha256: str, data: bytes | memoryview | None) -> None:
        with self._lock:
            kept = self._of(header)
            if kept.is_given_up:
                self.not_looked_at += 1
                return
            is_possible = data is not None and self._allowance.is_left()
        if not is_possible or data is None:
            self._give_up(header.study_uid, header.series_uid)
            return
        found = extract(
            [data],
            len(data),
            header.transfer_syntax_uid,
            kept.seen,
            sha256=sha256,
            elements_limit=_ELEMENTS_LIMIT,
            frames_limit=_FRAMES_LIMIT,
        )
        with self._lock:
            self.looked_at += 1
            if not kept.is_given_up and self._kept.get(header.study_uid, {}).get(header.series_uid) is kept:
                self._kept_bytes += kept.add(header, found)
                self._make_room()

    def _of(self, header: InstanceHeader) -> _Kept:
        """Under the lock."""
        of_study = self._kept.setdefault(header.study_uid, {})
        self._kept.move_to_end(header.study_uid)
        if header.series_uid not in of_study:
            of_study[header.series_uid] = _Kept()
            self._series_known += 1
            while self._series_known > _SERIES_KNOWN and len(self._kept) > 1:
                self._forget(self._kept.popitem(last=False)[1])
            if self._series_known > _SERIES_KNOWN:  # one study alone
                self._series_known -= 1
                del of_study[header.series_uid]
                return _Kept(is_given_up=True)
        return of_study[header.series_uid]

    def _forget(self, of_study: Mapping[Uid, _Kept]) -> None:
        self._series_known -= len(of_study)
        self._kept_bytes -= sum(one.size_bytes for one in of_study.values())

    def _give_up(self, study: Uid, series: Uid) -> None:
        with self._lock:
            self.not_looked_at += 1
            kept = self._kept.get(study, {}).get(series)
            if kept is not None and not kept.is_given_up:
                self.given_up += 1
                self._kept_bytes -= kept.give_up()

    def _make_room(self) -> None:
        """Under the lock: what has waited longest for its study's end goes first. What is given up takes nothing but
        its name."""
        for study in [*self._kept]:
            if self._kept_bytes <= self._limit_bytes:
                return
            for kept in self._kept[study].values():
                if not kept.is_given_up:
                    self.given_up += 1
                    self._kept_bytes -= kept.give_up()

    def finished(self, manifest: Manifest) -> None:
        """A study has come to its end, as this manifest lists it."""
        with self._lock:
            self._finished.append(manifest)
        self._wake.set()

    # -- once they are --

    def run(self, stopping: threading.Event, beat: Callable[[], None]) -> None:
        """The thread, until it is told to stop. What waits then is left to whoever reads it."""
        self._stopping = stopping
        with suppress(Stopping):
            while not stopping.is_set():
                beat()
                if self._in_trouble() or not self.step():
                    self._wake.wait(_TURN_SECONDS)
                    self._wake.clear()
                elif self._busy():
                    stopping.wait(_GIVES_WAY_SECONDS)

    def step(self) -> bool:
        """One series; whether there was one to do. Raises Stopping. What is fatal, the archiving meets by itself."""
        while True:
            if self._work is None:
                with self._lock:
                    if not self._finished:
                        return False
                    manifest = self._finished.popleft()
                    kept = self._kept.pop(manifest.study_uid, {})
                    self._forget(kept)
                self._work = self._written(manifest, kept)
            try:
                next(self._work)
            except StopIteration:
                self._work = None
                continue
            except Stopping:
                self._work = None
                raise
            except Exception as error:  # noqa: BLE001  a fault of ours must not end the daemon
                self._work = None
                self._log.info(
                    "series-object-unwritten",
                    "what viewers read of a series was not written; it is derived when it is needed",
                    **(error_fields(error) if isinstance(error, DicomwatchdError) else {"code": "fault"}),
                )
            return True

    def _written(self, manifest: Manifest, kept: Mapping[Uid, _Kept]) -> Iterator[None]:
        """A step for each series of which files were sent. Raises as `objects.write`."""
        items: dict[Uid, list[ManifestInstance]] = {series: [] for series in kept}
        for item in manifest.instances:
            if item.series_uid in items:
                items[item.series_uid].append(item)
        for series, of_series in items.items():
            if of_series and self._write(manifest, series, of_series, kept[series].whole()):
                self.written += 1
            yield

    def _write(
        self, manifest: Manifest, series: Uid, items: Sequence[ManifestInstance], looked_at: Mapping[Known, Entry]
    ) -> bool:
        """Whether it was, if only of those that were looked at: then whoever reads it derives the others."""
        study = manifest.study_uid
        entries = {
            known: one for item in items if (one := looked_at.get(known := (item.sop_instance_uid, item.sha256)))
        }
        name, attempt = name_of(items), 1
        lacking = [item for item in items if (item.sop_instance_uid, item.sha256) not in entries]
        already = 0
        if lacking and (self._reads_back or manifest.revision > 1):
            stored = objects.find(self._store, study, series, items)
            if stored.document is not None:
                return False
            already, attempt = len(stored.entries), stored.attempt
            entries = {**stored.entries, **entries}
            if self._reads_back:
                entries.update(self._read(study, items, entries))
        if len(entries) <= already:
            return False
        document = SeriesDocument(study, series, entries, f"dicomwatchd {__version__}")
        return objects.write(self._store, document, name, manifest.revision, attempt) is not None

    def _read(
        self, study: Uid, items: Sequence[ManifestInstance], known: Mapping[Known, Entry]
    ) -> Mapping[Known, Entry]:
        """One after the other, and in whatever time the archiving leaves."""

        def paced(function: Callable[[_T], _R], todo: Iterable[_T], /) -> Iterator[_R]:
            for item in todo:
                if self._stopping.wait(_GIVES_WAY_SECONDS if self._busy() else 0.0):
                    raise Stopping("the daemon is stopping")
                yield function(item)

        return derive(self._store, study, items, lambda item: (item,), known, map=paced).entries
