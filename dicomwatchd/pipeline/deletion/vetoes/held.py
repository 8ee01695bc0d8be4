"""A study that names two patients is archived, and nothing of it is deleted until somebody has released it.

Whichever of them it belongs to, the other one's images were filed under it by mistake, and whoever corrects that may
need the files. The patients are those of all revisions, those in the catalogue, those of the files that have come here
and are in no revision yet, and those whom the study is held for: it is until it is released, whatever else is still
known of them.
"""

from __future__ import annotations

from dicomwatchd.patients import (
    IDENTITIES_LIMIT,
    IDENTITIES_LIMITED,
    Identity,
    distinct,
    document,
    from_document,
    is_among,
    two_patients,
)
from dicomwatchd.pipeline.deletion.fresh import Recorded
from dicomwatchd.pipeline.shipment import Context
from dicomwatchd.queue.holds import TWO_PATIENTS, Found

#: So many are shown of a study that is held: all that a manifest and the state can name, and as many from before.
_SHOWN_LIMIT = 4 * IDENTITIES_LIMIT


def is_held(recorded: Recorded, context: Context) -> bool:
    """Whether the study that is ``recorded`` is held; that it is, is put on record, and logged when it is new. Raises
    Transient."""
    manifest, study_uid = recorded.manifest, recorded.manifest.study_uid
    known = context.holds.known(study_uid)
    said = distinct(known.found or (), manifest.all_identities, recorded.named, known.patients, limit=_SHOWN_LIMIT)
    are_more = known.are_more or IDENTITIES_LIMITED in manifest.flags
    if known.found is None and two_patients(said) is None and not are_more:
        return False

    def covers(released: Found) -> bool:
        """Somebody has looked at these patients; one that is none of them is another matter."""
        looked_at = [from_document(Identity, one) for one in released]
        return not known.are_more and all(is_among(one, looked_at) for one in said)

    held, is_new = context.holds.hold(study_uid, TWO_PATIENTS, [document(one) for one in said], covers)
    if is_new:
        context.log.warning(
            "study-held",
            "the files of a study name two patients, or too many to tell; they are archived, and kept until somebody"
            " releases the study (dicomwatchctl attention)",
            study_uid=study_uid,
        )
    return held
