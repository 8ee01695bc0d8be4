"""What proves that the archive has a shipment's files: fresh reads of the store, the manifest and the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dicomwatchd.archive.stores.port import Receipt
from dicomwatchd.model import FileState
from dicomwatchd.pipeline.deletion import fresh, proof
from dicomwatchd.pipeline.deletion.fresh import Recorded
from dicomwatchd.pipeline.deletion.proof import DeletionProof
from dicomwatchd.pipeline.shipment import Context, Shipment, location_of
from dicomwatchd.queue.rows import LocalFile

#: Files that go on record together, and how large they may be together. At the end of a page the workers wait for the
#: last of them, and each look at the store goes over all objects between the first and the last of a page. But all of
#: them are to be compared while their proofs are fresh, at ten megabytes a second, too.
PAGE = 2000
PAGE_BYTES = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class ShipmentEvidence:
    """The `Evidence` for a shipment's files: ``recorded``, and what the store was seen to hold of each."""

    shipment: Shipment
    recorded: Recorded
    context: Context

    def receipt(self, file: LocalFile) -> Receipt:
        return location_of(file).receipt

    def prove(self, file: LocalFile) -> DeletionProof:
        archive, location = self.context.archive, location_of(file)
        return proof.prove(
            file,
            location.receipt,
            location.span,
            claim=self.shipment.claim,
            destination=archive.store.destination,
            archive_id=archive.archive_id,
            manifest=self.recorded.manifest,
            catalogue=archive.catalogue.name,
            catalogue_revision=self.recorded.catalogue_revision,
            recorded_at=self.recorded.asked_at,
            now=self.context.clock.now(),
        )

    def prove_again(self, file: LocalFile) -> DeletionProof:
        asked = fresh.asked_again(file, self.shipment, self.context)
        recorded = fresh.recorded(self.recorded, self.shipment, self.context)
        return replace(self, recorded=recorded).prove(asked)


def pages(
    shipment: Shipment, recorded: Recorded, context: Context
) -> Iterator[tuple[list[LocalFile], ShipmentEvidence]]:
    """All files that the shipment has stored, in groups whose evidence is young when the group is handed out. Raises
    Transient where the archive has no longer what it had, or takes too long to show it."""
    for page in context.shipments.pages(shipment.claim, FileState.STORED, PAGE):
        for portion in _portions(page):
            for files in fresh.verified(portion, shipment, context):
                recorded = fresh.recorded(recorded, shipment, context)
                yield files, ShipmentEvidence(shipment, recorded, context)


def _portions(page: list[LocalFile]) -> Iterator[list[LocalFile]]:
    portion: list[LocalFile] = []
    size_bytes = 0
    for file in page:
        if portion and size_bytes + file.identity.size_bytes > PAGE_BYTES:
            yield portion
            portion, size_bytes = [], 0
        portion.append(file)
        size_bytes += file.identity.size_bytes
    yield portion
