"""A SOP Instance of which the archive has several versions: its files are archived, and none is deleted until somebody
has released the study.

Two files of one SOP Instance UID that are not the same data set mean that somebody has corrected an image, or that two
images go by one UID. Which of them is right nobody can tell here. Versions that are the same data set, written in
another way, are no reason to keep anything.
"""

from __future__ import annotations

import hashlib

from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.layout.variants import Grade, Variants
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.shipment import Context
from dicomwatchd.queue.holds import OTHER_VERSIONS, Found

#: So many instances a hold names one by one. Of more, all the others have one digest together.
LIMIT = 20_000


def held_instances(manifest: Manifest, context: Context) -> frozenset[Uid]:
    """The instances of which no file may be deleted. That the study is held for them is put on record, and logged when
    it is new. Raises Transient."""
    several = [one for one in manifest.variants if one.grade is not Grade.SAME_DATA_SET]
    if not several:
        return frozenset()
    released = context.holds.released_for(manifest.study_uid, OTHER_VERSIONS)
    waiting = _not_covered(several, released)
    if not waiting:
        return frozenset()
    held, is_new = context.holds.hold(
        manifest.study_uid,
        OTHER_VERSIONS,
        _found(several),
        lambda released: not _not_covered(several, released),
        instances := frozenset(one.sop_instance_uid for one in waiting),
    )
    if is_new:
        context.log.warning(
            "versions-held",
            "the archive has several versions of instances; their files are archived, and kept until somebody releases"
            " the study (dicomwatchctl attention)",
            study_uid=manifest.study_uid,
            instances=len(instances),
        )
    return instances if held else frozenset()


def _not_covered(several: list[Variants], released: Found) -> list[Variants]:
    """Somebody has looked at these versions; one that is none of them is another matter."""
    looked_at = {one["sop_instance_uid"]: set(one["data_sets"].split()) for one in released if "data_sets" in one}
    named = [one for one in several if not set(one.data_sets) <= looked_at.get(one.sop_instance_uid, set())]
    if len(several) <= LIMIT:
        return named
    return [] if _digest(several) in (one.get("all") for one in released) else named


def _found(several: list[Variants]) -> Found:
    named = [
        {
            "sop_instance_uid": str(one.sop_instance_uid),
            "grade": one.grade.value,
            "data_sets": " ".join(one.data_sets),
        }
        for one in several[:LIMIT]
    ]
    return named if len(several) <= LIMIT else [*named, {"all": _digest(several)}]


def _digest(several: list[Variants]) -> str:
    text = "\n".join(f"{one.sop_instance_uid} {' '.join(one.data_sets)}" for one in several)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
