"""Compares the contents of one SOP Instance UID: each is read back out of the archive once, and its digests kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dicomwatchd.archive.layout import variants
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.variants import DataSets
from dicomwatchd.archive.stores.withheld import without_withheld
from dicomwatchd.errors import Permanent
from dicomwatchd.intake.dicom.fingerprint import digest_of
from dicomwatchd.intake.dicom.reading import StreamedBytes
from dicomwatchd.model import DataSetDigest
from dicomwatchd.pipeline.shipment import Context, Shipment
from dicomwatchd.ports import until_cancelled


def compared(
    instances: Iterable[ManifestInstance],
    known: DataSets,
    damaged_keys: Collection[str],
    shipment: Shipment,
    context: Context,
) -> dict[str, DataSetDigest]:
    """The digests that are needed and not known. Costs a look at the list where no SOP Instance UID is there twice.

    An object that cannot be had, or that the store does not give to us, is passed over: its content counts as one that
    nobody can compare. Raises Transient, Stopping.
    """
    needed = variants.to_compare(instances, known, damaged_keys)
    if not needed:
        return {}
    found = shipment.run(lambda item: (item.sha256, _digest(item, context)), needed)
    return {sha256: digest for sha256, digest in found if digest is not None}


def _digest(item: ManifestInstance, context: Context) -> DataSetDigest | None:
    """Of what the key holds now or, where that are other bytes, of the recorded version."""
    store = without_withheld(context.archive.store)
    for version_id in dict.fromkeys((None, item.version_id)):
        chunks = store.read(
            item.key,
            version_id,
            offset_bytes=item.offset_bytes,
            length_bytes=max(item.size_bytes, 1),  # whatever else somebody has put there
        )
        source = StreamedBytes(until_cancelled(context.cancelled, chunks), item.size_bytes)
        try:
            digest = digest_of(source)
            if source.finish() == item.sha256:
                return digest
        except Permanent:
            continue
    return None
