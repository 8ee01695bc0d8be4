"""A study that names two patients is archived, and nothing of it is deleted until somebody has released it.

Whichever of them it belongs to, the other one's images were filed under it by mistake, and whoever corrects that may
need the files. The patients are those of all revisions, and of the files that have come here and are in none yet.
"""

from __future__ import annotations

from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.patients import (
    IDENTITIES_LIMITED,
    Identity,
    are_different,
    distinct,
    document,
    from_document,
    two_patients,
)
from dicomwatchd.pipeline.shipment import Context
from dicomwatchd.queue.holds import TWO_PATIENTS, Found

REASON = "archived; kept because its study names two patients: see dicomwatchctl attention"


def is_held(manifest: Manifest, context: Context) -> bool:
    """Whether the study of this manifest is held; that it is, is put on record, and logged when it is new. Raises
    Transient."""
    study_uid = manifest.study_uid
    said = distinct(manifest.all_identities, context.holds.patients(study_uid))
    if two_patients(said) is None and IDENTITIES_LIMITED not in manifest.flags:
        return False

    def covers(released: Found) -> bool:
        """Somebody has looked at these patients; one that is none of them is another matter."""
        known = [from_document(Identity, one) for one in released]
        return all(any(not are_different(one, other) for other in known) for one in said)

    held, is_new = context.holds.hold(study_uid, TWO_PATIENTS, [document(one) for one in said], covers)
    if is_new:
        context.log.warning(
            "study-held",
            "the files of a study name two patients; they are archived, and kept until somebody releases the study"
            " (dicomwatchctl attention)",
            study_uid=study_uid,
        )
    return held
