"""Keys that were found damaged once and hold the right bytes again: noticed, and believed on two equal readings.

A manifest never lists what is at a damaged key, so a file that was verified there would wait for ever for its proof.
"""

from __future__ import annotations

from collections.abc import Collection

from dicomwatchd.archive.proof import evidence
from dicomwatchd.archive.stores.port import Receipt
from dicomwatchd.errors import Transient
from dicomwatchd.model import FileState
from dicomwatchd.pipeline.shipment import PAGE, Context, Shipment, location_of
from dicomwatchd.queue.rows import LocalFile

READINGS = 2


def healed(damaged: Collection[str], shipment: Shipment, context: Context) -> frozenset[str]:
    """Of the keys that are known as ``damaged`` those at which files of this shipment were verified just now, and which
    give the right bytes every time they are read. Costs nothing where there are none.

    Raises Transient (code "damaged-key") once the files at others are set to be sent again, under the next free key.
    """
    found: frozenset[str] = frozenset()
    wavering: dict[LocalFile, str] = {}
    for page in context.shipments.pages(shipment.claim, FileState.STORED, PAGE):
        suspects: dict[str, tuple[Receipt, list[LocalFile]]] = {}
        for file in page:
            receipt = location_of(file).receipt
            if receipt.key in damaged and receipt.key not in found:
                suspects.setdefault(receipt.key, (receipt, []))[1].append(file)
        for _ in range(READINGS):
            receipts = [receipt for receipt, _ in suspects.values()]
            for verdict in evidence.examine(context.archive.store, receipts, deep=True, map=shipment.run):
                if not verdict.holds:
                    key = verdict.receipt.key
                    wavering |= dict.fromkeys(suspects.pop(key)[1], key)
        found |= suspects.keys()
    if wavering:
        context.shipments.doubt(shipment.claim, wavering)
        raise Transient("an object that was damaged does not return the same bytes every time", code="damaged-key")
    if found:
        context.shipments.healed(shipment.claim, found)
        context.log.info(
            "keys-healed",
            "damaged objects of the study hold the right bytes again",
            study_uid=shipment.claim.study_uid,
            files=len(found),
        )
    return found
