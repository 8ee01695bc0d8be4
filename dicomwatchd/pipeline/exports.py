"""Archives the DICOMDIRs that list a study with it. What cannot be read is left out, and the study goes on: a later
revision has another try. The local file stays where it is, whatever becomes of this."""

from __future__ import annotations

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.exports import LIMIT_EXPORTS, Export
from dicomwatchd.archive.proof import evidence
from dicomwatchd.errors import InboxNotResponding, Permanent, SourceChanged, Transient
from dicomwatchd.localfiles import printable
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.local import Folders, content_of
from dicomwatchd.pipeline.shipment import Context
from dicomwatchd.queue.dicomdirs import LocalDicomdir

#: One that is larger than all files of its study is kept with it up to this size: so many small studies do not each
#: have a copy of a large list.
SMALL_BYTES = 256 * 1024
#: Keys that are tried where others were found to hold other bytes.
_ATTEMPTS = 3


def exported(
    study: Uid, dicomdirs: list[LocalDicomdir], known: tuple[Export, ...], study_bytes: int, now: str, context: Context
) -> list[Export]:
    """Those of the DICOMDIRs that are not ``known``, in the store by now and proven to be. Raises OutOfReach,
    InboxNotResponding, Stopping, Fatal."""
    recorded = {one.sha256 for one in known}
    found: list[Export] = []
    with Folders(context.inboxes) as folders:
        for one in dicomdirs:
            is_small = one.identity.size_bytes <= max(SMALL_BYTES, study_bytes)
            if one.sha256 in recorded or not is_small or len(recorded) >= LIMIT_EXPORTS:
                continue
            try:
                export = _export(study, one, folders, now, context)
            except (SourceChanged, Permanent):
                continue
            except Transient as error:
                if error.endpoint is not None or isinstance(error, InboxNotResponding):
                    raise
                continue  # a local file that cannot be read: of a scratched disc, say
            if export is not None:
                found.append(export)
                recorded.add(one.sha256)
    return found


def _export(study: Uid, one: LocalDicomdir, folders: Folders, now: str, context: Context) -> Export | None:
    source = context.sources().get(one.source_id)
    if source is None:
        return None
    store, archive = context.archive.store, context.archive
    size_bytes = one.identity.size_bytes
    in_memory = size_bytes if size_bytes <= store.single_put_bytes else 0
    with (
        archive.memory.held(in_memory, context.cancelled),
        content_of(folders, source, one, store.single_put_bytes, context.cancelled) as content,
    ):
        if content.digest.sha256 != one.sha256:
            return None
        for attempt in range(1, _ATTEMPTS + 1):
            receipt = store.put(keys.export(study, one.sha256, attempt), content)
            [verdict] = evidence.examine(store, [receipt], cancelled=context.cancelled)
            if verdict.holds:
                return Export(
                    key=receipt.key,
                    sha256=one.sha256,
                    size_bytes=size_bytes,
                    etag=receipt.known_etag,
                    original_path=printable(b"/".join(part for part in (one.dir, one.name) if part)),
                    inbox="upload" if source.kind == "upload" else source.name,
                    stored_at=now,
                    verified_by=verdict.verified_by,
                )
    return None
