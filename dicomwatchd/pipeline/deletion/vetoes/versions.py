"""A SOP Instance of which the archive has several versions: its files are archived, and none is deleted until somebody
has released the study.

Two files of one SOP Instance UID that are not the same data set mean that somebody has corrected an image, or that two
images go by one UID. Which of them is right nobody can tell here. Versions that are the same data set, written in
another way, are no reason to keep anything.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

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
    looked_at = _LookedAt.of(*context.holds.found_for(manifest.study_uid, OTHER_VERSIONS))
    waiting = looked_at.not_covered(several)
    if not waiting:
        return frozenset()
    held, is_new = context.holds.hold(
        manifest.study_uid,
        OTHER_VERSIONS,
        _found(several, waiting, looked_at),
        lambda released: not _LookedAt.of(released, True).not_covered(several),
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


@dataclass(frozen=True, slots=True)
class _LookedAt:
    """The versions that somebody has looked at; one that is none of them is another matter. A study that is held again
    keeps on record what was released before."""

    data_sets: dict[str, set[str]]
    everything: str

    @classmethod
    def of(cls, found: Found, is_released: bool) -> _LookedAt:
        data_sets, everything = {}, ""
        for one in found:
            if "all" in one:
                everything = one["all"] if is_released else one.get("released", "")
            else:
                looked_at = one["data_sets"] if is_released else one.get("released", "")
                data_sets[one["sop_instance_uid"]] = set(looked_at.split())
        return cls(data_sets, everything)

    def not_covered(self, several: list[Variants]) -> list[Variants]:
        named = [one for one in several if not set(one.data_sets) <= self.data_sets.get(one.sop_instance_uid, set())]
        if len(several) <= LIMIT:
            return named
        return [] if _digest(several) == self.everything else named


def _found(several: list[Variants], waiting: list[Variants], looked_at: _LookedAt) -> Found:
    """Those that wait for somebody come first."""
    wait = {one.sop_instance_uid for one in waiting}
    ordered = [*waiting, *(one for one in several if one.sop_instance_uid not in wait)]
    named = [_named(one, looked_at.data_sets.get(one.sop_instance_uid, set())) for one in ordered[:LIMIT]]
    if len(several) <= LIMIT:
        return named
    return [*named, {"all": _digest(several), "released": looked_at.everything, "waiting": str(len(waiting))}]


def _named(one: Variants, released: set[str]) -> dict[str, str]:
    return {
        "sop_instance_uid": str(one.sop_instance_uid),
        "grade": one.grade.value,
        "data_sets": " ".join(one.data_sets),
        "released": " ".join(sorted(released)),
    }


def _digest(several: list[Variants]) -> str:
    text = "\n".join(f"{one.sop_instance_uid} {' '.join(one.data_sets)}" for one in several)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
