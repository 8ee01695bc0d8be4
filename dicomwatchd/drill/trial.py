"""One study is fetched as a person would fetch it; every instance is compared with the manifest that the fetch used."""

from __future__ import annotations

import hashlib
import random
import secrets
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import ParamSpec, TypeVar

from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.drill.scratch import Scratch, ScratchUnusable
from dicomwatchd.errors import (
    BeyondReadLimit,
    ColdObject,
    DicomwatchdError,
    Fatal,
    InvalidRequest,
    NewerManifest,
    NotSupported,
    Permanent,
    RequestRefused,
    StudyErased,
    StudyNotFound,
    Transient,
)
from dicomwatchd.fetch import Doubts, Fetcher, by_uid, cold, look_up
from dicomwatchd.fetch.folder import DiskFull
from dicomwatchd.fetch.plan import Found
from dicomwatchd.fetch.report import FetchProgress, FetchReport
from dicomwatchd.fetch.sources import BadObject
from dicomwatchd.model import Uid
from dicomwatchd.ports import Clock
from dicomwatchd.queue.drills import Drilled, Outcome

#: Codes of drills that have failed, which are kept in the state: instances are missing or have other bytes; a manifest
#: cannot be read, or does not go on from the others; all is there, but not where the manifest says; what was fetched
#: came back otherwise from the disk here.
DIFFERS, MANIFEST, ELSEWHERE, DISK = "differs", "manifest", "elsewhere", "disk"

_CHUNK_BYTES = 1 << 20
#: Each time so much has come it is looked whether the disk still has room: others fill it, too.
_LOOK_BYTES = 64 << 20
_P = ParamSpec("_P")
_R = TypeVar("_R")
#: What the store or this program does not do: nothing of it says that the archive is damaged.
_NOT_THE_ARCHIVE = (NewerManifest, BeyondReadLimit, NotSupported, InvalidRequest, RequestRefused, Transient, Fatal)


class _Here(Executor):
    """A fetch's one thread is the drill's own: no other has to be had, or to be waited for when the process ends."""

    def submit(self, fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_R]:
        future: Future[_R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except DicomwatchdError as error:
            future.set_exception(error)
        return future


class Nothing(Enum):
    """Why there was nothing to try: the study was erased on purpose, or no manifest of it is there, as of one that is
    on its way."""

    ERASED = "erased"
    ABSENT = "absent"


@dataclass(slots=True)
class _Compared:
    """What lies in the scratch: how many files are as recorded, and how many are otherwise."""

    equal: int = 0
    other: int = 0


class _NoMoreRoom(Permanent):
    """Somebody else has filled the disk meanwhile: what is fetched for trial makes room."""

    code = "no-more-room"


class _Meter:
    """What has come over the network, whether it was of use or not."""

    def __init__(self, scratch: Scratch, beat: Callable[[], None]) -> None:
        self._scratch, self._beat = scratch, beat
        self._last = self._looked = 0
        self.size_bytes = 0

    def __call__(self, progress: FetchProgress) -> None:
        """Raises _NoMoreRoom, ScratchUnusable, and what the beat raises."""
        self._beat()
        self.size_bytes += max(0, progress.bytes_done - self._last)
        self._last = progress.bytes_done
        if self.size_bytes - self._looked >= _LOOK_BYTES:
            if not self._scratch.has_room(0):
                raise _NoMoreRoom("the disk has no more room for a restore drill")
            self._looked = self.size_bytes


@dataclass(slots=True)
class _Doubtful:
    """How many of the study's revisions are not as they should be."""

    revisions: int = 0

    def doubts(self) -> Doubts:
        return Doubts(self._one, self._one)

    def _one(self, _revision: int, _text: str) -> None:
        self.revisions += 1


@dataclass(frozen=True, slots=True)
class Trial:
    """Of one archive. ``token`` and ``jitter`` as for a `Fetcher`."""

    store: ObjectStore
    catalogue: Catalogue
    scratch: Scratch
    clock: Clock
    token: Callable[[], str] = lambda: secrets.token_hex(8)
    jitter: Callable[[], float] = field(default=random.random)

    def of(
        self,
        study: Uid,
        most_bytes: int,
        beat: Callable[[], None],
        sleep: Callable[[float], None],
        begins: Callable[[int], None] = lambda _bytes: None,
    ) -> Drilled | Nothing:
        """``most_bytes`` may be fetched; ``begins`` hears how many it will be before the first of them comes. ``beat``
        is called between pieces, and ``sleep`` to wait; where these raise anything but Transient, Permanent and Fatal,
        which end the drill alone, it is passed on. The copies are gone in any case."""
        begun = self.clock.monotonic()
        doubtful = _Doubtful()
        try:
            found = look_up(self.store, self.catalogue, study, doubts=doubtful.doubts())
        except StudyErased:
            return Nothing.ERASED
        except StudyNotFound:
            return Nothing.ABSENT
        except ColdObject as error:
            return Drilled(study, Outcome.COLD, error.code)
        except _NOT_THE_ARCHIVE as error:
            return Drilled(study, Outcome.NOT_DONE, error.code)
        except Permanent:
            return self._looked_up_again(study)
        drilled = self._fetched(study, found, most_bytes, doubtful, beat, sleep, begins, begun)
        if drilled.outcome is Outcome.FAILED and self._is_erased(study, drilled.revision):
            return Nothing.ERASED
        return drilled

    def _looked_up_again(self, study: Uid) -> Drilled | Nothing:
        """Of a study whose manifests cannot be used. One that is being erased at this moment is found to be so now;
        an erasure of years ago excuses nothing that was archived since."""
        try:
            look_up(self.store, self.catalogue, study, doubts=_Doubtful().doubts())
        except StudyErased:
            return Nothing.ERASED
        except _NOT_THE_ARCHIVE as error:
            return Drilled(study, Outcome.NOT_DONE, error.code)
        except Permanent:
            return Drilled(study, Outcome.FAILED, MANIFEST)
        return Drilled(study, Outcome.NOT_DONE, "changing")

    def _is_erased(self, study: Uid, revision: int) -> bool:
        """Whether somebody has erased it meanwhile: what is missing then is meant to be."""
        try:
            erasure = erasures.newest(self.store, study)
        except DicomwatchdError:
            return False
        return erasure is not None and erasure.through_revision >= revision

    def _fetched(
        self,
        study: Uid,
        found: Found,
        most_bytes: int,
        doubtful: _Doubtful,
        beat: Callable[[], None],
        sleep: Callable[[float], None],
        begins: Callable[[int], None],
        begun: float,
    ) -> Drilled:
        manifest = found.manifest
        size_bytes = sum(item.size_bytes for item in manifest.instances)
        meter = _Meter(self.scratch, beat)

        def left_out(outcome: Outcome, code: str = "") -> Drilled:
            return Drilled(study, outcome, code, manifest.revision, size_bytes=meter.size_bytes)

        if size_bytes > most_bytes:
            return left_out(Outcome.TOO_LARGE)
        try:
            if not self.scratch.has_room(size_bytes, len(manifest.instances)):
                return left_out(Outcome.NO_ROOM)
            beat()
            if self._is_cold(found):
                return left_out(Outcome.COLD, ColdObject.code)
            beat()
            begins(size_bytes)
            with self.scratch.folder() as folder:
                fetcher = Fetcher(
                    self.store,
                    threads=1,
                    sleep=sleep,
                    monotonic=self.clock.monotonic,
                    token=self.token,
                    jitter=self.jitter,
                    executor=lambda _threads: _Here(),
                )
                report = fetcher.fetch(manifest, folder, elsewhere=found.elsewhere, progress=meter)
                compared = _compare(found, folder, beat)
        except _NoMoreRoom as error:
            return left_out(Outcome.NO_ROOM, error.code)
        except (Transient, Permanent, Fatal) as error:
            return left_out(Outcome.NOT_DONE, error.code)
        outcome, code = _judge(report, compared, doubtful.revisions)
        bad = sum(failure.code == BadObject.code for failure in report.failed) + compared.other
        return Drilled(
            study,
            outcome,
            code,
            manifest.revision,
            compared.equal + bad,
            compared.equal,
            meter.size_bytes,
            self.clock.monotonic() - begun,
        )

    def _is_cold(self, found: Found) -> bool:
        """Whether any of it would have to be restored first, which is paid for. Raises Transient, Fatal."""
        try:
            study, items = found.manifest.study_uid, found.manifest.instances
            return bool(cold.find(self.store, study, items, found.elsewhere).instances)
        except Permanent:
            return False  # the fetch finds out


def _compare(found: Found, folder: Path, beat: Callable[[], None]) -> _Compared:
    """What was fetched is read once more, from where a person would have it. Raises ScratchUnusable."""
    compared = _Compared()
    for item, path in by_uid(found.manifest.instances):
        beat()
        digest = hashlib.sha256()
        try:
            with (folder / path).open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    beat()
        except FileNotFoundError:
            continue  # the fetch says why
        except OSError as error:
            raise ScratchUnusable("what was fetched cannot be read") from error
        if digest.hexdigest() == item.sha256:
            compared.equal += 1
        else:
            compared.other += 1
    return compared


def _judge(report: FetchReport, compared: _Compared, doubtful: int) -> tuple[Outcome, str]:
    """The worst of it."""
    codes = {failure.code for failure in report.failed}
    if BadObject.code in codes:
        return Outcome.FAILED, DIFFERS
    if compared.other:
        return Outcome.FAILED, DISK
    if doubtful:
        return Outcome.FAILED, MANIFEST
    if report.bad_objects:
        return Outcome.FAILED, ELSEWHERE
    if isinstance(report.stopped, DiskFull):
        return Outcome.NO_ROOM, DiskFull.code
    if ColdObject.code in codes:
        return Outcome.COLD, ColdObject.code
    if report.failed or compared.equal != report.files:
        return Outcome.NOT_DONE, report.stopped.code if report.stopped is not None else min(codes, default=DISK)
    return Outcome.EQUAL, ""
