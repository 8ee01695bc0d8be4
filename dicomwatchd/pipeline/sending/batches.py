"""How a study's files are put together for sending: several small ones for a worker at once, or as one bundle, and what
the archive has in bundles already apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from dicomwatchd.archive.layout import bundle as bundles
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.revision import trace_of
from dicomwatchd.pipeline.shipment import Bundling, Context
from dicomwatchd.queue.rows import LocalFile

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
    with context.turns.turn() as admit:
        current = trace_of(study_uid, context, admit=admit).lineage.current
    if current is None:
        return BatchPlan(bundling, at_once=context.at_once)
    found = [item for item in current.instances if item.is_in_bundle and item.key not in current.damaged_keys]
    return BatchPlan(
        bundling,
        Bundled(
            {(item.series_uid, item.sop_instance_uid, item.sha256): item for item in found},
            {(item.series_uid, item.sop_instance_uid, item.size_bytes): item.key for item in found},
        ),
        context.at_once,
    )


def _batches(files: list[LocalFile], at_once: Callable[[], int]) -> Iterator[UploadBatch]:
    """Several files for a worker at once, while there is enough for all workers twice: to open a folder, and to hand
    work to a thread, cost as much as to send a small file."""
    start = 0
    while start < len(files):
        some = max(1, min(BATCH_FILES, (len(files) - start) // (2 * at_once())))
        yield UploadBatch(files[start : start + some])
        start += some
