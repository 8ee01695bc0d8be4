"""The manifest revision that a shipment puts into the store: what is there already, and what the shipment adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dicomwatchd import __version__
from dicomwatchd.archive import manifest as manifests
from dicomwatchd.archive.manifest import Manifest, ManifestInstance
from dicomwatchd.errors import Permanent, Transient
from dicomwatchd.localfiles import printable
from dicomwatchd.model import FileState
from dicomwatchd.pipeline.shipment import PAGE, Context, Shipment, place_of, source_of
from dicomwatchd.ports import timestamp


def next_manifest(shipment: Shipment, context: Context, above: int) -> Manifest | None:
    """The manifest that lists all of this shipment, in the store by now, its revision greater than ``above``; None if
    that revision was taken meanwhile."""
    claim, archive = shipment.claim, context.archive
    current = manifests.latest(archive.store, claim.study_uid) or manifests.empty(archive.archive_id, claim.study_uid)
    if current.archive_id != archive.archive_id:
        raise Permanent("the study's manifest in the store belongs to another archive", code="foreign-manifest")
    facts = context.shipments.facts(claim)
    now = timestamp(context.clock.now())
    merged = current.merged(
        _instances(shipment, context, now),
        attributes=facts.attributes,
        series=facts.series,
        flags=_flags(current, facts.flags, facts.attributes),
        damaged_keys=facts.damaged_keys,
        created_at=now,
        created_by=f"dicomwatchd {__version__}",
    )
    if not shipment.files:
        return current  # its files are gone; but the catalogue may not know yet what an earlier shipment has recorded
    if merged.revision <= above:
        merged = replace(merged, revision=above + 1, previous_sha256=current.sha256 if current.revision else None)
    if merged is current:
        return current
    return merged if manifests.create(archive.store, merged) else None


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
