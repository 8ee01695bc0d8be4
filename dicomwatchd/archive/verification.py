"""Whether the store holds what a study's manifest lists: the listing against the manifest, or every byte again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dicomwatchd.archive import evidence, keys
from dicomwatchd.archive.manifest import Manifest, ManifestInstance
from dicomwatchd.archive.store import ObjectStore, Receipt, StoredObject
from dicomwatchd.model import Uid
from dicomwatchd.ports import Map

_WORDS = {
    "missing": "the object is missing",
    "size": "the object has another size than recorded",
    "content": "the object has other bytes than recorded",
    "unreadable": "the store cannot read the object back",
}


@dataclass(frozen=True, slots=True)
class InstanceProblem:
    """``problem`` is "missing", "size", "content" or "unreadable"; ``reason`` says it in words."""

    series_uid: Uid
    sop_instance_uid: Uid
    key: str
    problem: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verification:
    """``held`` of ``instances`` are there; of these ``read_back`` were read and hashed, the others looked up in the
    store's listing only. ``overwritten`` keys have a newer version than the recorded one, which is still held.
    ``unrecorded`` counts objects of the study that the manifest does not list: those of a revision on its way, or
    damaged ones that were replaced.
    """

    study_uid: Uid
    revision: int
    instances: int
    size_bytes: int
    held: int
    read_back: int
    problems: tuple[InstanceProblem, ...]
    overwritten: tuple[str, ...]
    unrecorded: int

    @property
    def holds(self) -> bool:
        return not self.problems and self.held == self.instances


def verify(
    store: ObjectStore,
    manifest: Manifest,
    *,
    deep: bool = False,
    map: Map = map,
    progress: Callable[[int, int], None] = lambda _files, _size_bytes: None,
) -> Verification:
    """Look at every instance of the manifest. ``progress`` is told of files and bytes settled, in this thread.

    Shallow: the store's listing must show each key with the recorded size and ETag. What differs, or is not listed,
    is read back and hashed before it is called a problem: an ETag changes when a store re-encrypts or copies an
    object. Where the store keeps no ETag only existence and size are compared. Deep: every byte is read back.

    Raises Transient when the store does not answer, for then nothing is known; Fatal.
    """
    work = _Work(store, manifest, progress)
    listed = work.list_objects()
    doubtful = []
    for item in manifest.instances:
        seen = listed.get(item.key)
        if deep or seen is None or not _agrees(item, seen):
            doubtful.append(item)
        else:
            work.settle(item, "")
    receipts = (Receipt(i.key, i.size_bytes, i.sha256, created=False, version_id=i.version_id) for i in doubtful)
    by_key = {item.key: item for item in doubtful}
    for verdict in evidence.examine(store, receipts, deep=True, map=map):
        item = by_key[verdict.receipt.key]
        work.settle(item, "" if verdict.holds else verdict.problem)
        work.read_back += verdict.holds
        seen = listed.get(item.key)
        if verdict.holds and item.version_id is not None and seen is not None and not _agrees(item, seen):
            work.overwritten.append(item.key)
    return work.result()


def _agrees(item: ManifestInstance, seen: StoredObject) -> bool:
    etag_differs = item.etag is not None and seen.etag is not None and item.etag != seen.etag
    return seen.size_bytes == item.size_bytes and not etag_differs


@dataclass(slots=True)
class _Work:
    store: ObjectStore
    manifest: Manifest
    progress: Callable[[int, int], None]
    problems: list[InstanceProblem] = field(default_factory=list)
    overwritten: list[str] = field(default_factory=list)
    files: int = 0
    size_bytes: int = 0
    read_back: int = 0
    unrecorded: int = 0

    def list_objects(self) -> dict[str, StoredObject]:
        """What the store lists of the manifest's keys; counts the others below the series."""
        wanted = {item.key for item in self.manifest.instances}
        found = {}
        for seen in self.store.listing(f"{keys.study_prefix(self.manifest.study_uid)}series/"):
            if seen.key in wanted:
                found[seen.key] = seen
            else:
                self.unrecorded += 1
        return found

    def settle(self, item: ManifestInstance, problem: str) -> None:
        if problem:
            self.problems.append(
                InstanceProblem(item.series_uid, item.sop_instance_uid, item.key, problem, _WORDS[problem])
            )
        self.files += 1
        self.size_bytes += item.size_bytes
        self.progress(self.files, self.size_bytes)

    def result(self) -> Verification:
        return Verification(
            study_uid=self.manifest.study_uid,
            revision=self.manifest.revision,
            instances=len(self.manifest.instances),
            size_bytes=sum(item.size_bytes for item in self.manifest.instances),
            held=self.files - len(self.problems),
            read_back=self.read_back,
            problems=tuple(sorted(self.problems, key=lambda p: p.key)),
            overwritten=tuple(sorted(self.overwritten)),
            unrecorded=self.unrecorded,
        )
