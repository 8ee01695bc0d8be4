"""Sending files one after the other, each as an object of its own."""

from __future__ import annotations

from typing import TypeAlias

from dicomwatchd.archive import keys
from dicomwatchd.archive.stores.port import Buffer
from dicomwatchd.errors import DicomwatchdError, Fatal, Transient
from dicomwatchd.pipeline.local import Folders, content_of
from dicomwatchd.pipeline.shipment import Context, ObjectLocation, source_of
from dicomwatchd.queue.rows import LocalFile

#: A file with where it is in the archive, or with what went wrong with it.
Outcome: TypeAlias = tuple[LocalFile, ObjectLocation | DicomwatchdError]


def send_each(files: list[LocalFile], context: Context) -> list[Outcome]:
    """An outcome for each; what one has met that concerns all is the outcome of those behind it, too."""
    outcomes: list[Outcome] = []
    with Folders(context.inboxes) as folders:
        for file in files:
            last = outcomes[-1][1] if outcomes else None
            if isinstance(last, DicomwatchdError) and concerns_all(last):
                outcomes.append((file, last))
            else:
                outcomes.append(send_one(folders, file, context))
    return outcomes


def send_one(folders: Folders, file: LocalFile, context: Context) -> Outcome:
    """Send a file as an object of its own, under the key that its content names. Raises nothing of our own."""
    header, store = file.header, context.archive.store
    # A file in one piece is held in memory; the store itself takes room for the parts of a larger one.
    in_memory = file.identity.size_bytes if file.identity.size_bytes <= store.single_put_bytes else 0
    try:
        with (
            context.archive.memory.held(in_memory, context.cancelled),
            content_of(
                folders, source_of(file, context), file, store.single_put_bytes, context.cancelled, store.piece_bytes
            ) as content,
        ):
            key = keys.instance(
                header.study_uid,
                header.series_uid,
                header.sop_instance_uid,
                content.digest.sha256,
                file.key_attempt,
            )
            location = ObjectLocation.whole(store.put(key, content))
            context.passing(header, content.digest.sha256, content.data if isinstance(content, Buffer) else None)
            return file, location
    except DicomwatchdError as error:
        return file, error


def concerns_all(error: Exception) -> bool:
    """Whether other files would meet the same: the archive refused, or a whole service in trouble."""
    return isinstance(error, Fatal) or (isinstance(error, Transient) and error.endpoint is not None)
