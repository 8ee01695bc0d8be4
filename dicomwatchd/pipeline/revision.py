"""The manifest revision that a shipment puts into the store: what is there already, and what the shipment adds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dicomwatchd import __version__
from dicomwatchd.archive import manifests, salvage
from dicomwatchd.archive.documents import LEFT_OUT, dumps
from dicomwatchd.archive.manifest import Manifest, ManifestInstance, empty
from dicomwatchd.archive.manifests import Newest
from dicomwatchd.archive.reading import MANIFEST_LIMIT_BYTES
from dicomwatchd.errors import Permanent, Transient
from dicomwatchd.localfiles import printable
from dicomwatchd.model import LIMITED, SERIES_ATTRIBUTES_LIMIT_BYTES, DicomJson, FileState, Uid, least
from dicomwatchd.pipeline.healed import healed
from dicomwatchd.pipeline.shipment import PAGE, Context, Shipment, place_of, source_of
from dicomwatchd.ports import timestamp

#: What an instance takes in a manifest at least, beside its path and notes.
_LEAST_INSTANCE_BYTES = 400


def next_manifest(shipment: Shipment, context: Context, above: int) -> Manifest | None:
    """The manifest that lists all of this shipment, in the store by now, its revision greater than ``above``; None if
    that revision was taken meanwhile.

    A manifest that is damaged in the store stays as it is: the next one is made above it, from the newest that can be
    read, and lists again what else the store holds of the study. So it is where the catalogue names a manifest that the
    store has no more (``above``).
    """
    claim, archive = shipment.claim, context.archive
    newest = manifests.newest(archive.store, claim.study_uid, shipment.weigh)
    current = newest.manifest or empty(archive.archive_id, claim.study_uid)
    if current.archive_id != archive.archive_id:
        raise Permanent("the study's manifest in the store belongs to another archive", code="foreign-manifest")
    facts = context.shipments.facts(claim)
    now = timestamp(context.clock.now())
    added = _Added(facts.attributes, facts.series, facts.flags, facts.damaged_keys)
    instances: Iterable[ManifestInstance] = _as_many_as_fit(_instances(shipment, context, now), shipment.weigh)
    if newest.damaged or above:
        instances = list(instances)
        added, again = _from_elsewhere(shipment, context, newest, added, [*current.instances, *instances], now)
        instances += again
        above = max(above, newest.highest)
    added = _within_limit(current, added)
    suspects = {*current.damaged_keys, *added.damaged_keys}
    well = healed(suspects, shipment, context) if suspects else frozenset()
    merged = current.merged(
        instances,
        attributes=added.attributes,
        series=added.series,
        flags=_flags(current, added.flags, facts.attributes),
        damaged_keys=added.damaged_keys,
        healed_keys=well,
        created_at=now,
        created_by=f"dicomwatchd {__version__}",
    )
    if not shipment.files and not ((newest.damaged or above) and merged.instances):
        return current  # its files are gone; but the catalogue may not know yet what an earlier shipment has recorded
    if merged.revision <= above:
        merged = replace(merged, revision=above + 1, previous_sha256=current.sha256 if current.revision else None)
    if merged is current:
        return current
    return merged if manifests.create(archive.store, merged) else None


def _as_many_as_fit(instances: Iterable[ManifestInstance], weigh: Callable[[int], None]) -> Iterator[ManifestInstance]:
    """Before there are more in memory than any manifest lists. Raises Permanent, and as ``weigh``."""
    left = MANIFEST_LIMIT_BYTES
    for item in instances:
        left -= _LEAST_INSTANCE_BYTES + len(json.dumps([item.original_path, item.repairs]))
        if left < 0:
            raise manifests.too_many_instances()
        weigh(MANIFEST_LIMIT_BYTES - left)
        yield item


def _within_limit(current: Manifest, added: _Added) -> _Added:
    """Attributes of so many series, over all revisions, and of the others what is kept in any case."""
    left = SERIES_ATTRIBUTES_LIMIT_BYTES - sum(len(dumps(one)) for one in current.series.values())
    series: dict[Uid, DicomJson] = {}
    for uid, attributes in added.series.items():
        if uid not in current.series:
            left -= len(dumps(attributes))
        series[uid] = attributes if left >= 0 or uid in current.series else least(attributes)
    return added if left >= 0 else replace(added, series=series, flags=(*added.flags, LIMITED))


@dataclass(frozen=True, slots=True)
class _Added:
    """What a revision adds beside the instances."""

    attributes: DicomJson
    series: dict[Uid, DicomJson]
    flags: tuple[str, ...]
    damaged_keys: tuple[str, ...]


def _from_elsewhere(
    shipment: Shipment,
    context: Context,
    newest: Newest,
    added: _Added,
    listed: list[ManifestInstance],
    now: str,
) -> tuple[_Added, tuple[ManifestInstance, ...]]:
    """What the damaged or lost manifests listed, as far as it can be told: the instances by the objects that are there,
    the attributes by the catalogue's record, which was made from one of them."""
    study, archive = shipment.claim.study_uid, context.archive
    for key in newest.damaged:
        context.log.error(
            "manifest-unreadable",
            "a manifest in the store is damaged; it stays as it is, and the study is recorded anew above it",
            study_uid=study,
            revision=manifests.revision_of(key),
        )
    damaged = {*added.damaged_keys, *(newest.manifest.damaged_keys if newest.manifest else ())}
    found = salvage.unlisted(archive.store, study, listed, damaged=damaged, now=now, map=shipment.run)
    try:
        record = archive.catalogue.get(study)
    except Permanent:
        record = None  # damaged as well: it is written anew
    if record is not None:
        there = {item.series_uid for item in (*listed, *found.instances)}
        series = {one.series_uid: one.attributes for one in record.series if one.series_uid in there}
        added = replace(
            added,
            attributes={**added.attributes, **record.attributes},
            series={**added.series, **series},
            flags=(*added.flags, *(flag for flag in record.flags if flag != LEFT_OUT)),
        )
    keys = (*added.damaged_keys, *newest.damaged, *found.damaged_keys)
    return replace(added, damaged_keys=keys), found.instances


def revision_nobody_can_read(manifest: Manifest, context: Context) -> int:
    """After the catalogue refused a manifest: the revision it has, if the store holds no such manifest (the store, or
    a part of it, was lost or moved without it), so that the next one goes above it; 0 if somebody else was faster."""
    archive = context.archive
    recorded = archive.catalogue.get(manifest.study_uid)
    latest = manifests.latest_key(archive.store, manifest.study_uid)
    if recorded is None or latest != manifest.key:
        return 0
    context.log.error(
        "catalogue-ahead",
        "the catalogue names a manifest that the store does not hold; the study is recorded anew above it",
        study_uid=manifest.study_uid,
        revision=recorded.revision,
    )
    return recorded.revision


def _instances(shipment: Shipment, context: Context, now: str) -> Iterator[ManifestInstance]:
    shipment.files = shipment.bytes = 0
    for page in context.shipments.pages(shipment.claim, FileState.STORED, PAGE):
        for file in page:
            source, place, header = source_of(file, context), place_of(file), file.header
            shipment.files += 1
            shipment.bytes += place.size_bytes
            shipment.sources.add("upload" if source.kind == "upload" else source.name)
            if file.verified_by is None:
                raise Transient("a file of the shipment was not verified under this claim", code="unverified-file")
            yield ManifestInstance(
                series_uid=header.series_uid,
                sop_instance_uid=header.sop_instance_uid,
                sop_class_uid=header.sop_class_uid,
                transfer_syntax_uid=header.transfer_syntax_uid,
                key=place.receipt.key,
                size_bytes=place.size_bytes,
                sha256=place.sha256,
                etag=place.receipt.expected_etag,
                version_id=place.receipt.version_id,
                original_path=printable(b"/".join(part for part in (file.dir, file.name) if part)),
                inbox="upload" if source.kind == "upload" else source.name,
                stored_at=now,
                verified_by=file.verified_by,
                repairs=header.repairs,
                offset_bytes=place.part.offset_bytes if place.part is not None else None,
                bundle_bytes=place.receipt.size_bytes if place.part is not None else None,
            )


def _flags(current: Manifest, flags: tuple[str, ...], attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Another patient id than an earlier revision, perhaps of another site, has recorded: said, never passed over."""
    if current.revision and current.attributes.get("00100020") != attributes.get("00100020"):
        return (*flags, "patient-id-differs")
    return flags
