"""What an instance of an archive is worth to whoever looks at it, as its manifest has it."""

from __future__ import annotations

from enum import StrEnum

from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.variants import Grade, Variants


class Standing(StrEnum):
    """What an instance is worth. SOUND: nothing is known against it. DAMAGED: it came damaged, or incomplete.
    CONFLICTING: the archive holds other contents of its SOP Instance UID, and this one may not be what was meant.
    UNKNOWN: found again in the store, without its particulars. No viewer may show any but SOUND without saying so."""

    SOUND = "sound"
    DAMAGED = "damaged"
    CONFLICTING = "conflicting"
    UNKNOWN = "unknown"


def standing_of(item: ManifestInstance, variants: Variants | None) -> Standing:
    """``variants`` are those of its SOP Instance UID, where the manifest has several contents of it."""
    if item.damage:
        return Standing.DAMAGED
    if variants is not None and variants.grade is not Grade.SAME_DATA_SET:
        return Standing.CONFLICTING
    return Standing.UNKNOWN if item.is_found_again else Standing.SOUND
