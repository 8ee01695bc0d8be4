"""Whether the store holds what a study's manifest lists: the listing against the manifest, or every byte again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.bundle import BUNDLE_LIMIT_BYTES, members_of, read_back
from dicomwatchd.archive.layout.instance import Content, ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.proof import evidence
from dicomwatchd.archive.proof.evidence import Problem
from dicomwatchd.archive.stores.port import ObjectStore, Receipt, StoredObject
from dicomwatchd.errors import ColdObject, NoSuchObject, Permanent
from dicomwatchd.model import Uid
from dicomwatchd.ports import Map

#: Bundles that no manifest lists are read, so many of a study, to tell whether they hold copies alone.
_BUNDLES_READ = 64
_WORDS = {
    "missing": "the object is missing",
    "size": "the object's size differs from the recorded size",
    "content": "the object's bytes differ from the recorded ones",
    "unreadable": "the store cannot read the object back",
    "cold": "the object is in cold storage and not as recorded in the listing: it must be restored to be read back",
    "hidden": "the object is hidden by a delete marker; fetch can still get the recorded version",
    "overwritten": "the object was overwritten; fetch can still get the recorded version",
}


@dataclass(frozen=True, slots=True)
class InstanceProblem:
    """``problem`` is "missing", "size", "content", "unreadable", "cold", or, where the recorded version is still there
    under what is current, "hidden" (by a delete marker) or "overwritten"; ``reason`` says it in words."""

    series_uid: Uid
    sop_instance_uid: Uid
    key: str
    problem: str
    reason: str


@dataclass(frozen=True, slots=True)
class ExportProblem:
    """Of a DICOMDIR that is archived with the study; as `InstanceProblem`."""

    key: str
    problem: str
    reason: str


#: What is sent early, or by a shipment, is in a manifest by then, unless its study still waits.
ON_ITS_WAY_SECONDS = 86400.0


def may_be_on_its_way(modified_at: float | None, now: float) -> bool:
    """Whether an object that no manifest lists has been there for so short a time that the next one may list it."""
    return modified_at is not None and modified_at > now - ON_ITS_WAY_SECONDS


@dataclass(frozen=True, slots=True)
class Unlisted:
    """An object of the study that holds, as far as can be told, what no manifest lists; when it was put there, in
    seconds since the epoch, where the store says so."""

    key: str
    modified_at: float | None


@dataclass(frozen=True, slots=True)
class Verification:
    """``held`` of ``instances`` are there, as anybody is served them; of these ``read_back`` were read and hashed, the
    others looked up in the store's listing only. ``overwritten`` keys have a newer version, with other bytes, than the
    recorded one, which is still there: a problem as well, for a rule of the bucket may end it at any time.
    ``cold`` of ``held`` are in cold storage: they were to be read back, and were looked up in the listing instead.
    ``unrecorded`` counts objects of the study that the manifest does not list: those of a revision on its way,
    damaged ones that were replaced, copies; ``unlisted`` are those of them that hold what no manifest lists.
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
    unlisted: tuple[Unlisted, ...]
    #: DICOMDIRs that are archived with the study, and what is wrong with them.
    exports: int = 0
    export_problems: tuple[ExportProblem, ...] = ()
    cold: int = 0

    @property
    def holds(self) -> bool:
        return not self.problems and self.held == self.instances and not self.export_problems


def verify(
    store: ObjectStore,
    manifest: Manifest,
    *,
    deep: bool = False,
    elsewhere: Mapping[Content, tuple[ManifestInstance, ...]] = MappingProxyType({}),
    map: Map = map,
    progress: Callable[[int, int], None] = lambda _files, _size_bytes: None,
) -> Verification:
    """Look at every instance of the manifest; ``progress`` is told of files and bytes settled, in this thread. What
    lies ``elsewhere`` by another revision is not looked at, and is not unlisted either.

    Shallow: the store's listing must show each key with the recorded size and ETag. What differs, or is not listed,
    is read back and hashed before it is called a problem: an ETag changes when a store re-encrypts or copies an
    object. Where the store keeps no ETag only existence and size are compared. Instances of a bundle go by what is
    listed of the bundle. What cannot be read back since it is in cold storage is held if the listing agrees.

    Deep: every byte is read back, and each instance hashed by itself.

    Raises Transient when the store does not answer, for then nothing is known; Fatal.
    """
    work = _Work(store, manifest, elsewhere, progress)
    listed = work.list_objects()
    doubtful = []
    for item in manifest.instances:
        seen = listed.get(item.key)
        if deep or not _listed_as_recorded(seen, item.object_bytes, item.etag):
            doubtful.append(item)
        else:
            work.settle(item, "")
    beneath: list[tuple[ManifestInstance, Problem]] = []
    for item, problem in read_items(store, doubtful, map):
        if problem in ("missing", "size", "content") and item.version_id is not None:
            beneath.append((item, problem))
        elif problem == "cold" and _listed_as_recorded(listed.get(item.key), item.object_bytes, item.etag):
            work.settle(item, "")
            work.cold += 1
        else:
            work.settle(item, problem)
            work.read_back += not problem
    for (item, problem), is_there in zip(
        beneath, map(lambda one: _version_is_there(store, one[0]), beneath), strict=True
    ):
        if is_there:
            # A plain GET finds nothing and a version is there: then a delete marker is what is current.
            work.settle(item, "hidden" if problem == "missing" else "overwritten")
        else:
            work.settle(item, problem)
    work.settle_exports(listed, deep=deep, map=map)
    return work.result()


def _version_is_there(store: ObjectStore, item: ManifestInstance) -> bool:
    """Whether the recorded version has the instance's bytes, whatever is current."""
    # All that an object of its own has is read: it may be longer than the instance.
    length_bytes = item.size_bytes if item.is_in_bundle else None
    sha256, size_bytes = hashlib.sha256(), 0
    try:
        for chunk in store.read(item.key, item.version_id, offset_bytes=item.offset_bytes, length_bytes=length_bytes):
            sha256.update(chunk)
            size_bytes += len(chunk)
            if size_bytes > item.size_bytes:
                return False
    except Permanent:
        return False
    return (size_bytes, sha256.hexdigest()) == (item.size_bytes, item.sha256)


def read_items(
    store: ObjectStore, items: list[ManifestInstance], map: Map
) -> Iterator[tuple[ManifestInstance, Problem]]:
    """Every byte of these instances, hashed; a bundle is read once for all of its own."""
    by_key: dict[str, ManifestInstance] = {}
    bundles: dict[str, list[ManifestInstance]] = {}
    for item in items:
        if item.is_in_bundle:
            bundles.setdefault(item.key, []).append(item)
        else:
            by_key[item.key] = item
    receipts = (Receipt(i.key, i.size_bytes, i.sha256, created=False) for i in by_key.values())
    for verdict in evidence.examine(store, receipts, deep=True, map=map):
        yield by_key[verdict.receipt.key], verdict.problem
    layers = [layer for members in bundles.values() for layer in _side_by_side(members)]
    for found in map(lambda members: _read_bundle(store, members), layers):
        yield from found


def _side_by_side(members: list[ManifestInstance]) -> list[list[ManifestInstance]]:
    """In as many parts as it takes for no two of a part to share bytes: one, but for what manifests that disagree say
    of a bundle."""
    layers: list[list[ManifestInstance]] = []
    for item in sorted(members, key=lambda item: item.offset_bytes):
        for layer in layers:
            if layer[-1].span.end_bytes <= item.offset_bytes:
                layer.append(item)
                break
        else:
            layers.append([item])
    return layers


def _read_bundle(store: ObjectStore, members: list[ManifestInstance]) -> list[tuple[ManifestInstance, Problem]]:
    """As `evidence` does: wrong bytes are read once more before they are called so."""
    found = _read_bundle_once(store, members)
    return _read_bundle_once(store, members) if any(problem in ("size", "content") for _, problem in found) else found


def _read_bundle_once(store: ObjectStore, members: list[ManifestInstance]) -> list[tuple[ManifestInstance, Problem]]:
    spans = {item: item.span for item in members}
    try:
        read = read_back(store, members[0].key, None, spans.values())
    except Permanent as error:
        problem: Problem = "unreadable"
        if isinstance(error, NoSuchObject | ColdObject):
            problem = "missing" if isinstance(error, NoSuchObject) else "cold"
        return [(item, problem) for item in members]
    return [
        (item, "" if span in read.held else "size" if read.size_bytes < span.end_bytes else "content")
        for item, span in spans.items()
    ]


def _listed_as_recorded(seen: StoredObject | None, size_bytes: int, etag: str | None) -> bool:
    if seen is None:
        return False
    etag_differs = etag is not None and seen.etag is not None and etag != seen.etag
    return seen.size_bytes == size_bytes and not etag_differs


@dataclass(slots=True)
class _Work:
    store: ObjectStore
    manifest: Manifest
    elsewhere: Mapping[Content, tuple[ManifestInstance, ...]]
    progress: Callable[[int, int], None]
    problems: list[InstanceProblem] = field(default_factory=list)
    overwritten: set[str] = field(default_factory=set)
    files: int = 0
    size_bytes: int = 0
    read_back: int = 0
    cold: int = 0
    unrecorded: int = 0
    unlisted: list[Unlisted] = field(default_factory=list)
    export_problems: list[ExportProblem] = field(default_factory=list)

    def list_objects(self) -> dict[str, StoredObject]:
        """What the store lists of the manifest's keys; the others of the study, but for manifests and series objects,
        are gone into."""
        wanted = {item.key for item in self.manifest.instances} | {one.key for one in self.manifest.exports}
        found, others = {}, []
        study = self.manifest.study_uid
        for seen in self.store.listing(keys.study_prefix(self.manifest.study_uid)):
            if seen.key in wanted:
                found[seen.key] = seen
            elif not (
                keys.parse_manifest(seen.key)
                or keys.export_sha256(seen.key, study)
                or keys.parse_series_index(seen.key)
            ):
                others.append(seen)
        self.unrecorded = len(others)
        self.unlisted = [
            Unlisted(seen.key, seen.modified_at)
            for seen in _without_a_manifest(self.store, self.manifest, self.elsewhere, others)
        ]
        return found

    def settle(self, item: ManifestInstance, problem: str) -> None:
        if problem:
            if problem == "overwritten":
                self.overwritten.add(item.key)
            self.problems.append(
                InstanceProblem(item.series_uid, item.sop_instance_uid, item.key, problem, _WORDS[problem])
            )
        self.files += 1
        self.size_bytes += item.size_bytes
        self.progress(self.files, self.size_bytes)

    def settle_exports(self, listed: Mapping[str, StoredObject], *, deep: bool, map: Map) -> None:
        """By the same rules; a version that is not current does not count."""
        as_recorded = {
            one.key
            for one in self.manifest.exports
            if _listed_as_recorded(listed.get(one.key), one.size_bytes, one.etag)
        }
        doubtful = [one.receipt for one in self.manifest.exports if deep or one.key not in as_recorded]
        for verdict in evidence.examine(self.store, doubtful, deep=True, map=map):
            if not verdict.holds and not (verdict.problem == "cold" and verdict.receipt.key in as_recorded):
                problem = verdict.problem
                self.export_problems.append(ExportProblem(verdict.receipt.key, problem, _WORDS[problem]))

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
            unlisted=tuple(self.unlisted),
            exports=len(self.manifest.exports),
            export_problems=tuple(sorted(self.export_problems, key=lambda p: p.key)),
            cold=self.cold,
        )


def _without_a_manifest(
    store: ObjectStore,
    manifest: Manifest,
    elsewhere: Mapping[Content, tuple[ManifestInstance, ...]],
    others: Iterable[StoredObject],
) -> Iterator[StoredObject]:
    """Of the objects that the manifest does not list those that hold what it does not list either. A copy is nothing
    to tell of, nor is what was damaged and has been replaced."""
    study = manifest.study_uid
    contents = {item.content for item in manifest.instances}
    known = {*manifest.damaged_keys, *(place.key for places in elsewhere.values() for place in places)}
    of_bundles = {keys.bundle_sha256(item.key, study) for item in manifest.instances if item.is_in_bundle}
    bundles_left = _BUNDLES_READ
    for seen in others:
        if seen.key in known:
            continue
        named = keys.parse_instance(seen.key)
        if named is not None and named[1:] in contents:
            continue
        named_sha256 = keys.bundle_sha256(seen.key, study)
        if seen.is_cold and named_sha256 in of_bundles:
            continue  # it cannot be read: a copy of the bundle that its key names, as an instance's key is believed
        if named_sha256 is not None and bundles_left > 0:
            bundles_left -= 1
            if _is_a_copy(store, seen, contents):
                continue
        yield seen


def _is_a_copy(store: ObjectStore, seen: StoredObject, contents: Collection[Content]) -> bool:
    """Whether all that is in a bundle is listed at other places."""
    if seen.size_bytes > BUNDLE_LIMIT_BYTES:
        return False
    try:
        members = members_of(b"".join(store.read(seen.key, length_bytes=BUNDLE_LIMIT_BYTES)))
    except (ValueError, Permanent):
        return False
    return all((one.series_uid, one.sop_instance_uid, one.digest.sha256) in contents for one in members)
