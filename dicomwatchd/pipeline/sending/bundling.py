"""Small files of a study that travel together: read into one buffer, hashed there and sent as one object; and those
that bundles in the archive hold already.

An error of a file is an outcome like another: the rest of its bundle goes on without it.
"""

from __future__ import annotations

from collections.abc import Iterator

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import bundle as bundles
from dicomwatchd.archive.layout.bundle import Bundle, Member, Span
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.stores.port import Receipt
from dicomwatchd.archive.stores.withheld import without_withheld
from dicomwatchd.errors import DicomwatchdError, Permanent
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.local import Folders, content_of
from dicomwatchd.pipeline.sending.batches import Bundled
from dicomwatchd.pipeline.sending.instances import Outcome, send_one
from dicomwatchd.pipeline.shipment import Context, ObjectLocation, source_of
from dicomwatchd.queue.rows import LocalFile


def send_bundle(files: list[LocalFile], context: Context) -> list[Outcome]:
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
    receipt = context.archive.store.put(
        keys.bundle(members[0][0].header.study_uid, content.digest.sha256, attempt), content
    )
    data = memoryview(content.data)
    for file, member in members:
        its_own = data[member.offset_bytes : member.offset_bytes + member.digest.size_bytes]
        context.passing(file.header, member.digest.sha256, its_own)
    return receipt


def take_over(files: list[LocalFile], there: Bundled, context: Context) -> list[Outcome]:
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
        return [outcomes.get(file.file_id) or send_one(folders, file, context) for file in files]


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
    spans = {file.file_id: item.span for file, item in found}
    read = bundles.read_back(without_withheld(context.archive.store), key, None, spans.values(), context.cancelled)
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
        if span in read.held and read.size_bytes == item.object_bytes:
            yield file, ObjectLocation(receipt, span)
