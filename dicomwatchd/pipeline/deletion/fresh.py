"""Evidence young enough to delete on: where a long shipment's has grown old, the archive is looked at again.

A proof refuses what is older than its limit. Here is seen to it that a slow store, or a long study, does not come to
that: what is about to be deleted is looked at anew from half the limit on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dicomwatchd.archive.layout import manifests
from dicomwatchd.archive.layout.manifest import CONFLICTING_INSTANCES, CORRECTED_INSTANCES, Manifest
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.errors import Permanent, Transient
from dicomwatchd.patients import Identity
from dicomwatchd.pipeline.deletion.proof import LIFETIME_SECONDS
from dicomwatchd.pipeline.shipment import Context, Shipment, examined, proven
from dicomwatchd.queue.rows import LocalFile, Proven


@dataclass(frozen=True, slots=True)
class Recorded:
    """The manifest as the store holds it, and the revision that the catalogue was read to have; ``asked_at`` is when
    the first of these requests was about to be sent, in seconds since the epoch. ``named`` are the patients whom the
    catalogue was read to have: it may have a later revision already, of another site."""

    manifest: Manifest
    catalogue_revision: int
    asked_at: float
    named: tuple[Identity, ...] = ()


def verified(page: list[LocalFile], shipment: Shipment, context: Context) -> Iterator[list[LocalFile]]:
    """All files of the page, in groups whose evidence is young when the group is handed out. Where it has grown old,
    the store is asked again, for fewer objects at once if it is too slow for so many. Raises Transient (code
    "stale-evidence") when one object alone takes it too long."""
    left, at_once = page, len(page)
    while left:
        group, left = left[:at_once], left[at_once:]
        young = [file for file in group if _is_young(file.verified_at, context)]
        if len(young) < len(group):
            group = _checked_again(group, young, shipment, context)
            young = [file for file in group if _is_young(file.verified_at, context)]
            there = {file.file_id for file in young}
            old = [file for file in group if file.file_id not in there]
            if not young:
                at_once = max(1, len(group) // 8)
                if len(group) == 1:
                    raise Transient("the store takes too long to show an object", code="stale-evidence")
            elif old:
                at_once = len(young)
            left = old + left
        if young:
            yield young


def recorded(last: Recorded, shipment: Shipment, context: Context) -> Recorded:
    """``last``, read again if it has grown old. Raises Transient when the archive has no longer what it had."""
    if not last.manifest.revision or _is_young(last.asked_at, context):
        return last
    asked_at, manifest = context.clock.now(), last.manifest
    try:
        stored = manifests.load(context.archive.store, manifest.key, sha256=manifest.sha256)
    except Permanent as error:
        raise Transient("the manifest has changed since it was recorded", code="manifest-lost") from error
    if stored.sha256 != manifest.sha256:
        raise Transient("the manifest has changed since it was recorded", code="manifest-lost")
    found = context.archive.catalogue.get(shipment.claim.study_uid)
    if found is None or found.revision < manifest.revision:
        raise Transient("the catalogue does not return what was recorded", code="catalogue-behind")
    if has_other_versions(found, manifest):
        raise Transient("another site has archived other versions meanwhile", code="other-versions")
    return Recorded(manifest, found.revision, asked_at, found.identities or ())


def has_other_versions(found: StudyRecord, manifest: Manifest) -> bool:
    """Whether the catalogue has a later revision than this, with several versions of some instances: of which, only its
    manifest says."""
    flags = {CORRECTED_INSTANCES, CONFLICTING_INSTANCES}
    return found.revision > manifest.revision and not flags.isdisjoint(found.flags)


def asked_again(file: LocalFile, shipment: Shipment, context: Context) -> LocalFile:
    """One file with what the store says of its object now, by the calling thread, which is a worker itself and must not
    wait for others; nothing is written down. Raises Transient when the object is not what it was."""
    one_shipment = replace(shipment, run=map)
    held = [
        one
        for files, verdict in examined([file], one_shipment, context)
        if verdict.holds
        for one in proven(files, verdict)
    ]
    if not held:
        raise Transient("an object has changed since it was verified", code="object-lost")
    return _renewed(held[0])


def _is_young(asked_at: float | None, context: Context) -> bool:
    return asked_at is not None and 0 <= context.clock.now() - asked_at <= LIFETIME_SECONDS / 2


def _checked_again(
    group: list[LocalFile], young: list[LocalFile], shipment: Shipment, context: Context
) -> list[LocalFile]:
    known = {file.file_id for file in young}
    held: list[Proven] = []
    for files, verdict in examined([file for file in group if file.file_id not in known], shipment, context):
        if not verdict.holds:
            raise Transient("an object has changed since it was verified", code="object-lost")
        held += proven(files, verdict)
    context.shipments.verified(shipment.claim, held)
    renewed = {one.file.file_id: _renewed(one) for one in held}
    return [renewed.get(file.file_id, file) for file in group]


def _renewed(one: Proven) -> LocalFile:
    return replace(
        one.file,
        verified_by=one.verified_by,
        verified_at=one.asked_at,
        receipt=one.receipt or one.file.receipt,
    )
