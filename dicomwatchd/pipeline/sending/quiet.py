"""Sending what is left of a study that has gone quiet, under its claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from dicomwatchd.errors import ClaimLost, Fatal, SourceChanged, Unarchivable
from dicomwatchd.model import FileState
from dicomwatchd.pipeline.sending import batches, loop
from dicomwatchd.pipeline.sending.loop import Stored
from dicomwatchd.pipeline.shipment import Context, ObjectLocation, Shipment
from dicomwatchd.queue.rows import LocalFile


@dataclass(slots=True)
class _Results:
    shipment: Shipment
    context: Context
    changed: list[LocalFile] = field(default_factory=list)
    first_error: Exception | None = None

    def stored(self, file: LocalFile, location: ObjectLocation) -> None:  # noqa: ARG002  see loop.Results
        if location.receipt.created:
            self.shipment.sent_files += 1
            self.shipment.sent_bytes += location.size_bytes
            self.context.sent(location.size_bytes)

    def commit(self, files: Sequence[Stored]) -> None:
        self.context.shipments.stored(self.shipment.claim, files)

    def failed(self, file: LocalFile, error: Exception) -> None:
        match error:
            case SourceChanged():
                self.changed.append(file)
            case Unarchivable():
                self.context.shipments.quarantine(self.shipment.claim, file, code=error.code, reason=error.message)
            case _:
                self.first_error = self.first_error or error


def send_all(shipment: Shipment, context: Context) -> None:
    """Send every file that is not in the store yet. Raises ClaimLost where files have changed meanwhile, and what the
    others have met."""
    claim, shipments = shipment.claim, context.shipments
    results = _Results(shipment, context)
    plan = batches.plan(claim.study_uid, context)
    for page in shipments.pages(claim, FileState.READY, batches.SENDING_PAGE):
        met = loop.upload(plan.batches(page), shipment.run, results, partial(loop.send, context=context))
        if results.first_error is not None:
            raise met if isinstance(met, Fatal) else results.first_error
    if results.changed:
        shipments.forget(claim, results.changed)
        for file in results.changed:
            context.rescan(file.source_id, file.dir)
        raise ClaimLost("files of the study have changed; it waits again until it is quiet")
    shipments.share_locations(claim)
