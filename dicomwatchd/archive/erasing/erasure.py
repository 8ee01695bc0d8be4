"""Erasing one study: looked at first, then put on record in the archive, and only then deleted.

The order is what keeps other machines from harm. The record comes first: a daemon that sees it sends nothing more of
the study, and deletes no local file of it. Then nothing is deleted for `SETTLE_SECONDS`: a daemon acts on a look for
the record for 30 seconds at most (`pipeline.erased`), so whatever it still deletes by then is a local file whose object
is there. What it still sends is deleted with the rest. Last comes a word that it has ended: until then a daemon
archives nothing of the study, whoever has released it there. Each step can be repeated; a run that was interrupted is
finished by the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from dicomwatchd.archive import keys
from dicomwatchd.archive.erasing.port import Lock, ObjectEraser, RecordEraser, Refusal, StoredVersion, UnfinishedUpload
from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.layout.erasures import MARGIN_REVISIONS, MOST_SECONDS, Erasure
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import Conflict, Permanent, StudyNotFound
from dicomwatchd.model import Uid
from dicomwatchd.ports import Map, timestamp

#: Between the record and the first deletion: what a daemon does on an older look has ended by then, as have the caches
#: of network shares.
SETTLE_SECONDS = 120.0
#: Parts of an object that were begun no longer ago than this are being sent, perhaps.
UPLOADING_SECONDS = 900.0
#: Versions that are looked at, and deleted, together.
PAGE = 1000
#: Of what is locked, or refused, so many are named.
NAMED = 20
_ROUNDS = 5
_ATTEMPTS = 20


@dataclass(slots=True)
class Survey:
    """What is there of a study. ``records`` counts the rows or items of the catalogue; ``unfinished`` the objects of
    which parts were sent and that were never completed; ``highest_revision`` is of any version of a manifest."""

    study_uid: Uid
    versions: int = 0
    delete_markers: int = 0
    size_bytes: int = 0
    objects: int = 0
    instances: int = 0
    bundles: int = 0
    dicomdirs: int = 0
    manifests: int = 0
    series_objects: int = 0
    others: int = 0
    unfinished: int = 0
    uploading_since: float | None = None
    records: int = 0
    highest_revision: int = 0
    locked: int = 0
    locks: list[Lock] = field(default_factory=list)
    locked_until: float | None = None
    is_held: bool = False

    @property
    def is_empty(self) -> bool:
        return not (self.versions or self.delete_markers or self.unfinished or self.records)

    def take(self, version: StoredVersion, last: str) -> None:
        """``last`` is the key of the version before: those of a key follow one another."""
        if named := keys.parse_manifest(version.key):
            self.highest_revision = max(self.highest_revision, named[1])
        if version.is_delete_marker:
            self.delete_markers += 1
        else:
            self.versions += 1
            self.size_bytes += version.size_bytes
        if version.key == last:
            return
        self.objects += 1
        if named:
            self.manifests += 1
        elif keys.parse_instance(version.key):
            self.instances += 1
        elif keys.bundle_sha256(version.key, self.study_uid):
            self.bundles += 1
        elif keys.export_sha256(version.key, self.study_uid):
            self.dicomdirs += 1
        elif keys.parse_series_index(version.key):
            self.series_objects += 1
        else:
            self.others += 1

    def take_lock(self, lock: Lock) -> None:
        self.locked += 1
        if len(self.locks) < NAMED:
            self.locks.append(lock)
        if lock.until is None:
            self.is_held = True
        else:
            self.locked_until = max(self.locked_until or 0.0, lock.until)


@dataclass(frozen=True, slots=True)
class Who:
    """Whoever erases, as this machine knows that user."""

    uid: int
    login: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was erased, and what a last look has found: ``left`` is empty where nothing is left. ``refused`` are
    versions that the store did not delete, ``refusals`` the first of them."""

    erasure: Erasure
    found: Survey
    deleted: int
    aborted: int
    records: int
    refused: int
    refusals: list[Refusal]
    left: Survey

    @property
    def is_complete(self) -> bool:
        return self.left.is_empty


@dataclass(frozen=True, slots=True)
class Eraser:
    """One archive, for a person with rights that no daemon has. ``progress`` is told how many of how many versions are
    deleted; ``waiting`` for how many seconds nothing is done yet."""

    archive_id: str
    store: ObjectStore
    objects: ObjectEraser
    records: RecordEraser
    map: Map = map
    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    settle_seconds: float = SETTLE_SECONDS
    progress: Callable[[int, int], None] = lambda _done, _all: None
    waiting: Callable[[float], None] = lambda _seconds: None

    def survey(self, study: Uid, *, with_locks: bool = True) -> Survey:
        """What is there, and what of it is locked. Nothing is changed. Raises Transient, Permanent, Fatal."""
        found = Survey(study)
        asks = with_locks and self.objects.may_be_locked()
        last = ""
        for page in _pages(self.objects.versions(keys.study_prefix(study))):
            for version in page:
                found.take(version, last)
                last = version.key
            if asks:
                for lock in self.map(self.objects.lock_of, page):
                    if lock is not None:
                        found.take_lock(lock)
        for upload in self.objects.unfinished(keys.study_prefix(study)):
            found.unfinished += 1
            if upload.began_at is not None and upload.began_at > self.now() - UPLOADING_SECONDS:
                found.uploading_since = max(found.uploading_since or 0.0, upload.began_at)
        found.records = self.records.entries(study)
        return found

    def is_open(self, study: Uid) -> bool:
        """Whether an erasure of the study has not said that it has ended: one that was broken off right before leaves
        nothing of the study, and daemons that wait for its end. Raises Transient, Permanent."""
        newest = erasures.newest(self.store, study)
        return newest is not None and not erasures.has_ended(self.store, newest, self.now())

    def require_erasable(self, found: Survey) -> None:
        """Raises StudyNotFound where there is nothing, Permanent where it is locked, or just being sent."""
        if found.is_empty and not self.is_open(found.study_uid):
            raise StudyNotFound(f"the archive holds nothing of study {found.study_uid}")
        if found.locked:
            raise Permanent(
                f"{found.locked:,} of {found.versions:,} versions of the study are locked {_until(found)}; nothing was"
                " deleted",
                code="object-locked",
                hint="Object Lock keeps them until then; a legal hold has to be lifted by whoever has placed it",
            )
        if found.uploading_since is not None:
            raise Permanent(
                f"an object of the study is being sent (begun at {timestamp(found.uploading_since)}); nothing was"
                " deleted",
                code="being-sent",
                hint="wait until it has ended, or stop the daemon that sends it; parts that nobody completes are"
                f" deleted with the study from {int(UPLOADING_SECONDS / 60)} minutes on",
            )

    def erase(self, study: Uid, because: str, who: Who) -> Report:
        """Put it on record, wait, delete all of it, and look again. Raises as `survey` and `require_erasable`, before
        anything was changed; Transient, Permanent, Fatal half-way: then the record is there, and the next run goes on.
        """
        found = self.survey(study)
        self.require_erasable(found)
        until = self.monotonic() + MOST_SECONDS, self.now() + MOST_SECONDS
        erasure = self._on_record(found, because, who)
        self._wait()
        self._require_newest(erasure, until)
        records = self.records.erase(study)
        deleted = aborted = 0
        refused: dict[tuple[str, str | None], Refusal] = {}
        for _ in range(_ROUNDS):
            ended, gone = self._delete_once(erasure, until, deleted, found, refused)
            aborted, deleted = aborted + ended, deleted + gone
            self._require_newest(erasure, until)
            # A daemon that was on its way may have recorded it once more.
            records += self.records.erase(study)
            left = self.survey(study, with_locks=False)
            if left.is_empty or not (ended or gone):
                break
        self.objects.finish(keys.study_prefix(study))
        left = self.survey(study, with_locks=False)
        if left.is_empty:
            self.objects.adopt(erasures.put_end(self.store, erasure, timestamp(self.now())))
        return Report(erasure, found, deleted, aborted, records, len(refused), [*refused.values()][:NAMED], left)

    def _on_record(self, found: Survey, because: str, who: Who) -> Erasure:
        """Each run has a record of its own: a release that was given for an earlier one does not hold for it."""
        study = found.study_uid
        for _ in range(_ATTEMPTS):
            number = erasures.newest_number(self.store, study)
            if number:
                self.objects.adopt(keys.erasure(study, number))  # a run that was killed just then
            before = erasures.load(self.store, study, number).through_revision if number else 0
            through = min(max(before, found.highest_revision) + MARGIN_REVISIONS, keys.HIGHEST_REVISION)
            erasure = Erasure(
                self.archive_id, study, number + 1, timestamp(self.now()), because, who.uid, who.login, through
            )
            is_ours = erasures.create(self.store, erasure)
            self.objects.adopt(erasure.key)
            if is_ours:
                return erasure
        raise Conflict("others keep erasing this study")

    def _wait(self) -> None:
        end = self.monotonic() + self.settle_seconds
        while (left := end - self.monotonic()) > 0:
            self.waiting(left)
            self.sleep(min(1.0, left))

    def _require_newest(self, erasure: Erasure, until: tuple[float, float]) -> None:
        """That what is about to be deleted is no study that was archived again since: a daemon begins with that, once
        somebody has released it, when the newest erasure has ended or is old. Raises Conflict, Permanent."""
        if self.monotonic() > until[0] or self.now() > until[1]:
            raise Permanent(
                "erasing the study takes too long, or this machine was asleep; the rest of it is there",
                code="erasing-too-long",
                hint="run the command again",
            )
        if erasures.newest_number(self.store, erasure.study_uid) != erasure.number:
            raise Conflict("somebody else has begun to erase this study")

    def _delete_once(
        self,
        erasure: Erasure,
        until: tuple[float, float],
        before: int,
        found: Survey,
        refused: dict[tuple[str, str | None], Refusal],
    ) -> tuple[int, int]:
        """(uploads ended, versions deleted) of one walk."""
        prefix = keys.study_prefix(erasure.study_uid)
        aborted = deleted = 0
        unfinished: list[UnfinishedUpload] = list(self.objects.unfinished(prefix))
        for upload in unfinished:
            self.objects.abort(upload)
            aborted += 1
        for page in _pages(self.objects.versions(prefix)):
            self._require_newest(erasure, until)
            refusals = self.objects.erase(page)
            refused |= {(one.key, one.version_id): one for one in refusals}
            deleted += len(page) - len(refusals)
            self.progress(before + deleted, found.versions + found.delete_markers)
        return aborted, deleted


def _until(found: Survey) -> str:
    if found.locked_until is None:
        return "by a legal hold"
    until = f"until {timestamp(found.locked_until)}"
    return f"{until} and by a legal hold" if found.is_held else until


def _pages(versions: Iterator[StoredVersion]) -> Iterator[list[StoredVersion]]:
    while page := list(islice(versions, PAGE)):
        yield page
