"""How files are sent: one as an object of its own, small ones together in a bundle, or not at all when they are there.

In the bundled layout a study's small files go in batches; each batch becomes one bundle, one PUT, and one error of a
file is an outcome like another: the rest of the batch goes on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import bundle as bundles
from dicomwatchd.archive.layout.bundle import Bundle, Member, Span
from dicomwatchd.archive.layout.manifest import ManifestInstance
from dicomwatchd.archive.stores.port import Receipt
from dicomwatchd.archive.stores.withheld import told_apart
from dicomwatchd.errors import DicomwatchdError, Fatal, Permanent, Transient
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.local import Folders, content_of
from dicomwatchd.pipeline.revision import trace_of
from dicomwatchd.pipeline.shipment import Bundling, Context, ObjectLocation, source_of
from dicomwatchd.queue.rows import LocalFile

#: A file with its place, or with what went wrong with it.
Outcome: TypeAlias = tuple[LocalFile, ObjectLocation | DicomwatchdError]

#: Files of one page: at its end the workers wait for the last of them, and the last bundle is a small one.
SENDING_PAGE = 4000
#: Files that one worker sends one after the other, at most.
BATCH_FILES = 4


@dataclass(frozen=True, slots=True)
class Bundled:
    """What a study's newest manifest has in bundles, without what is in damaged ones."""

    instances: Mapping[tuple[Uid, Uid, str], ManifestInstance] = field(default_factory=dict)
    #: The key of a bundle that a file of this UID and size may be in.
    keys: Mapping[tuple[Uid, Uid, int], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UploadBatch:
    """Files that one worker sends: in one bundle, or one after the other, each as an object of its own, unless it is
    among what is ``there`` already."""

    files: list[LocalFile]
    there: Bundled | None = None
    is_bundle: bool = False


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How a shipment's files are put into batches, and how many of them are looked at together."""

    bundling: Bundling | None = None
    there: Bundled = field(default_factory=Bundled)
    at_once: Callable[[], int] = lambda: 1

    def batches(self, files: Iterable[LocalFile], *, full_only: bool = False) -> Iterator[UploadBatch]:
        """``full_only`` leaves out what more files may still be added to, and what may be there already."""
        if self.bundling is None:
            yield from _batches(list(files), self.at_once)
            return
        limit = self.bundling.size_bytes - bundles.END_BYTES
        there: dict[str, list[LocalFile]] = {}
        together: list[LocalFile] = []
        remaining_bytes = limit
        # By UID: neighbours of a series are fetched together, and the same files make the same bundles.
        for file in sorted(files, key=_by_uid):
            needed = bundles.member_bytes(file.identity.size_bytes)
            if (key := self._there(file)) is not None:
                there.setdefault(key, []).append(file)
            elif file.identity.size_bytes >= self.bundling.below_bytes or needed > limit:
                yield UploadBatch([file])
            else:
                if needed > remaining_bytes:
                    yield UploadBatch(together, is_bundle=True)
                    together, remaining_bytes = [], limit
                together.append(file)
                remaining_bytes -= needed
        if full_only:
            return
        if together:
            yield UploadBatch(together, is_bundle=True)
        yield from (UploadBatch(files, self.there) for files in there.values())

    def _there(self, file: LocalFile) -> str | None:
        """The bundle in the archive that the file may be in. A file that was damaged in the store is sent again."""
        header = file.header
        found = self.there.keys.get((header.series_uid, header.sop_instance_uid, file.identity.size_bytes))
        return found if file.key_attempt == 1 else None


def _by_uid(file: LocalFile) -> tuple[str, str, int]:
    return file.header.series_uid, file.header.sop_instance_uid, file.file_id


def plan(study_uid: Uid, context: Context) -> BatchPlan:
    """For the archive's layout. What the study's newest manifest has in bundles is not sent a second time: a bundle's
    key, unlike an instance's, does not tell what is in it. Raises Transient, Permanent."""
    bundling = context.archive.bundling
    if bundling is None:
        return BatchPlan(bundling, at_once=context.at_once)
    with context.turns.seat() as weigh:
        current = trace_of(study_uid, context, weigh=weigh).lineage.current
    if current is None:
        return BatchPlan(bundling, at_once=context.at_once)
    found = [
        item for item in current.instances if item.offset_bytes is not None and item.key not in current.damaged_keys
    ]
    return BatchPlan(
        bundling,
        Bundled(
            {(item.series_uid, item.sop_instance_uid, item.sha256): item for item in found},
            {(item.series_uid, item.sop_instance_uid, item.size_bytes): item.key for item in found},
        ),
        context.at_once,
    )


def send(batch: UploadBatch, context: Context) -> list[Outcome]:
    """Send a batch; an outcome for each of its files. An error is an outcome like another here: the other files of the
    page go on, and what they have reached is committed."""
    if batch.there is not None:
        return _take_over(batch.files, batch.there, context)
    if batch.is_bundle and len(batch.files) > 1:
        return _bundle(batch.files, context)
    return _each(batch.files, context)


def _batches(files: list[LocalFile], at_once: Callable[[], int]) -> Iterator[UploadBatch]:
    """Several files for a worker at once, while there is enough for all workers twice: to open a folder, and to hand
    work to a thread, cost as much as to send a small file."""
    start = 0
    while start < len(files):
        some = max(1, min(BATCH_FILES, (len(files) - start) // (2 * at_once())))
        yield UploadBatch(files[start : start + some])
        start += some


def _each(files: list[LocalFile], context: Context) -> list[Outcome]:
    outcomes: list[Outcome] = []
    with Folders(context.inboxes) as folders:
        for file in files:
            last = outcomes[-1][1] if outcomes else None
            if isinstance(last, DicomwatchdError) and concerns_all(last):
                outcomes.append((file, last))
            else:
                outcomes.append(_one(folders, file, context))
    return outcomes


def _one(folders: Folders, file: LocalFile, context: Context) -> Outcome:
    """Send a file as an object of its own."""
    header, store = file.header, context.archive.store
    # A file in one piece is held in memory; the store itself takes room for the parts of a larger one.
    in_memory = file.identity.size_bytes if file.identity.size_bytes <= store.single_put_bytes else 0
    try:
        with (
            context.archive.memory.held(in_memory, context.cancelled),
            content_of(folders, source_of(file, context), file, store.single_put_bytes, context.cancelled) as content,
        ):
            key = keys.instance(
                header.study_uid,
                header.series_uid,
                header.sop_instance_uid,
                content.digest.sha256,
                file.key_attempt,
            )
            return file, ObjectLocation(store.put(key, content))
    except DicomwatchdError as error:
        return file, error


def _bundle(files: list[LocalFile], context: Context) -> list[Outcome]:
    """Read each file once into the bundle's buffer, hash it there, and send that buffer. A file that cannot be read, or
    is not what it was, is left out; one that changes while the bundle is sent has no place in it."""
    sizes = [file.identity.size_bytes for file in files]
    outcomes: dict[int, ObjectLocation | DicomwatchdError] = {}
    members: list[tuple[LocalFile, Member]] = []
    together = sum(map(bundles.member_bytes, sizes)) + bundles.END_BYTES
    with (
        context.archive.memory.held(together, context.cancelled),
        Folders(context.inboxes) as folders,
    ):
        bundle = Bundle(sizes)
        for file in files:
            try:
                folders.read(source_of(file, context), file, bundle.buffer(file.identity.size_bytes), context.cancelled)
            except DicomwatchdError as error:
                outcomes[file.file_id] = error
            else:
                members.append((file, bundle.add(file.header.series_uid, file.header.sop_instance_uid)))
        try:
            receipt = _put(bundle, members, context) if members else None
        except DicomwatchdError as error:
            outcomes |= {file.file_id: error for file, _ in members}
            receipt = None
        for file, member in members:
            if receipt is None:
                break
            try:
                folders.require_unchanged(source_of(file, context), file)
            except DicomwatchdError as error:
                outcomes[file.file_id] = error
            else:
                span = Span(member.offset_bytes, member.digest.size_bytes, member.digest.sha256)
                outcomes[file.file_id] = ObjectLocation(receipt, span)
    return [(file, outcomes[file.file_id]) for file in files]


def _put(bundle: Bundle, members: list[tuple[LocalFile, Member]], context: Context) -> Receipt:
    content = bundle.finish()
    # Of files that were in a damaged bundle before, the one that was sent most often counts.
    attempt = max(file.key_attempt for file, _ in members)
    return context.archive.store.put(
        keys.bundle(members[0][0].header.study_uid, content.digest.sha256, attempt), content
    )


def _take_over(files: list[LocalFile], there: Bundled, context: Context) -> list[Outcome]:
    """Files that bundles in the archive hold already, as a reading of the whole bundle shows; what it does not show is
    sent. The receipt is computed from the bytes that were read, as it is from those that are sent otherwise."""
    outcomes: dict[int, Outcome] = {}
    of_bundle: dict[str, list[tuple[LocalFile, ManifestInstance]]] = {}
    with Folders(context.inboxes) as folders:
        for file in files:
            try:
                item = there.instances.get(_content(folders, file, context))
            except DicomwatchdError as error:
                outcomes[file.file_id] = file, error
                continue
            if item is not None:
                of_bundle.setdefault(item.key, []).append((file, item))
    for key, found in of_bundle.items():
        try:
            for file, location in _found(key, found, context):
                outcomes[file.file_id] = file, location
        except Permanent:
            continue  # the bundle is not there, or cannot be read: what was in it is sent again
        except DicomwatchdError as error:
            outcomes |= {file.file_id: (file, error) for file, _ in found}
    with Folders(context.inboxes) as folders:
        return [outcomes.get(file.file_id) or _one(folders, file, context) for file in files]


def _content(folders: Folders, file: LocalFile, context: Context) -> tuple[Uid, Uid, str]:
    store = context.archive.store
    with (
        context.archive.memory.held(min(file.identity.size_bytes, store.single_put_bytes), context.cancelled),
        content_of(folders, source_of(file, context), file, store.single_put_bytes, context.cancelled) as content,
    ):
        return file.header.series_uid, file.header.sop_instance_uid, content.digest.sha256


def _found(
    key: str, found: list[tuple[LocalFile, ManifestInstance]], context: Context
) -> Iterator[tuple[LocalFile, ObjectLocation]]:
    """Those of the files whose bytes are where the manifest says, in a bundle that is what its key says."""
    spans = {file.file_id: Span(item.offset_bytes or 0, item.size_bytes, item.sha256) for file, item in found}
    read = bundles.read_back(told_apart(context.archive.store), key, None, spans.values(), context.cancelled)
    if read.sha256 != keys.bundle_sha256(key, found[0][0].header.study_uid):
        return
    receipt = Receipt(
        key=key,
        size_bytes=read.size_bytes,
        sha256=read.sha256,
        created=False,
        expected_etag=read.md5,
        expected_checksum=f"sha256:{read.sha256}",
        version_id=found[0][1].version_id,  # as recorded; the verification sees which one is current
    )
    for file, item in found:
        span = spans[file.file_id]
        if span in read.held and read.size_bytes == item.bundle_bytes:
            yield file, ObjectLocation(receipt, span)


def concerns_all(error: Exception) -> bool:
    """Whether other files would meet the same: the archive refused, or a whole service in trouble."""
    return isinstance(error, Fatal) or (isinstance(error, Transient) and error.endpoint is not None)
