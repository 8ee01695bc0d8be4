"""The bookkeeping of one fetch: what is done, what failed and why, and whether to go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dicomwatchd.archive.layout.instance import Content, ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.errors import DicomwatchdError, Transient
from dicomwatchd.fetch.plan import Placed, split
from dicomwatchd.model import Uid


@dataclass(frozen=True, slots=True)
class FetchFailure:
    """What went wrong with one instance. ``reason`` is one plain clause without any path."""

    sop_instance_uid: Uid
    series_uid: Uid
    reason: str
    code: str


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """Bytes of a file that had to be started over are taken back: ``bytes_done`` may go down."""

    files_total: int
    files_done: int
    bytes_total: int
    bytes_done: int


@dataclass(frozen=True, slots=True)
class FetchReport:
    """What is on the disk now. ``fetched`` and ``already_there`` count files whose SHA-256 was compared and whose
    bytes and names are flushed to the disk. ``fetched_bytes`` are those of the fetched, ``size_bytes`` of all.

    ``bad_objects`` are instances that came back right from another version or key than the manifest names, with
    what was wrong with the one it names. ``stopped`` is why the fetch gave up half-way: disk full, store gone.
    """

    study_uid: Uid
    revision: int
    files: int
    size_bytes: int
    fetched: int
    fetched_bytes: int
    already_there: int
    failed: tuple[FetchFailure, ...]
    bad_objects: tuple[FetchFailure, ...]
    seconds: float
    stopped: DicomwatchdError | None = None

    @property
    def complete(self) -> bool:
        return not self.failed and self.fetched + self.already_there == self.files


class Stopped(DicomwatchdError):
    """The fetch ends before this file: interrupted, disk full, store gone."""

    code = "stopped"


class Run:
    """Shared by the threads of one fetch; every method may be called from any of them."""

    def __init__(
        self,
        manifest: Manifest,
        groups: Sequence[Sequence[Placed]],
        progress: Callable[[FetchProgress], None],
        elsewhere: Mapping[Content, tuple[ManifestInstance, ...]],
        cold: Collection[ManifestInstance] = frozenset(),
    ) -> None:
        self.manifest = manifest
        self.elsewhere = elsewhere
        self.cold = cold
        self._next = iter(groups)
        self._progress = progress
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._files_total = sum(map(len, groups))
        self._bytes_total = sum(item.size_bytes for group in groups for item, _ in group)
        self._bytes_done = 0
        self.stopped_by: DicomwatchdError | None = None
        self.fetched = self.fetched_bytes = self.already_there = 0
        self.out_of_reach_in_a_row = 0
        self.failed: list[FetchFailure] = []
        self.bad_objects: list[FetchFailure] = []
        self.folders_with_files: set[str] = set()

    def todo(self) -> Iterator[Sequence[Placed]]:
        """Each group of instances once over all threads. After a stop they are still handed out, to be counted as
        failed."""
        while True:
            with self._lock:
                group = next(self._next, None)
            if group is None:
                return
            yield group

    def stop(self, reason: DicomwatchdError | None) -> None:
        with self._lock:
            self.stopped_by = self.stopped_by or reason
            self._stop.set()

    def check(self) -> None:
        """Raises Stopped once the fetch is to end."""
        if self._stop.is_set():
            raise Stopped("not fetched: the fetch was stopped first")

    def count(self, size_bytes: int) -> None:
        """Bytes that came in; negative for those that have to come again."""
        with self._lock:
            self._bytes_done += size_bytes
            self._tell()

    def got(self, item: ManifestInstance, path: str, trouble: DicomwatchdError | None) -> None:
        """Fetched, its bytes counted already; ``trouble`` is what was wrong with the object the manifest names."""
        self.note(item, trouble)
        with self._lock:
            self.fetched += 1
            self.fetched_bytes += item.size_bytes
            self.folders_with_files.add(split(path)[0])
            self._tell()

    def note(self, item: ManifestInstance, trouble: DicomwatchdError | None) -> None:
        """Its bytes came in, from wherever; it is not where it goes yet."""
        with self._lock:
            self.out_of_reach_in_a_row = 0
            if trouble is not None:
                self.bad_objects.append(_failure(item, trouble))

    def found(self, item: ManifestInstance, path: str) -> None:
        """There already, and right."""
        with self._lock:
            self.already_there += 1
            self._bytes_done += item.size_bytes
            self.folders_with_files.add(split(path)[0])
            self._tell()

    def fail(self, item: ManifestInstance, error: DicomwatchdError) -> None:
        with self._lock:
            if isinstance(error, Transient) and error.endpoint is not None:
                self.out_of_reach_in_a_row += 1
            self.failed.append(_failure(item, error))
            self._tell()

    def report(self, seconds: float) -> FetchReport:
        return FetchReport(
            study_uid=self.manifest.study_uid,
            revision=self.manifest.revision,
            files=self._files_total,
            size_bytes=self._bytes_total,
            fetched=self.fetched,
            fetched_bytes=self.fetched_bytes,
            already_there=self.already_there,
            failed=_sorted(self.failed),
            bad_objects=_sorted(self.bad_objects),
            seconds=seconds,
            stopped=self.stopped_by,
        )

    def _tell(self) -> None:
        done = self.fetched + self.already_there + len(self.failed)
        self._progress(FetchProgress(self._files_total, done, self._bytes_total, self._bytes_done))


def _failure(item: ManifestInstance, error: DicomwatchdError) -> FetchFailure:
    return FetchFailure(item.sop_instance_uid, item.series_uid, str(error), error.code)


def _sorted(failures: list[FetchFailure]) -> tuple[FetchFailure, ...]:
    return tuple(sorted(failures, key=lambda f: (f.series_uid, f.sop_instance_uid, f.reason)))
