"""The manifest revision that a shipment puts into the store: what is there already, and what the shipment adds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dicomwatchd import __version__
from dicomwatchd.archive import keys
from dicomwatchd.archive.documents import LEFT_OUT, dumps
from dicomwatchd.archive.identity import require_identity
from dicomwatchd.archive.layout import erasures, lineage, manifests
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.lineage import Lineage
from dicomwatchd.archive.layout.manifest import (
    CONFLICTING_INSTANCES,
    CORRECTED_INSTANCES,
    DAMAGED_INSTANCES,
    Manifest,
    empty,
)
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.archive.repair import salvage
from dicomwatchd.archive.repair.union import recovered
from dicomwatchd.archive.stores.reading import MANIFEST_LIMIT_BYTES
from dicomwatchd.errors import ForeignManifest, ManifestTooLarge, NewerManifest, Permanent, Transient
from dicomwatchd.localfiles import printable
from dicomwatchd.model import LIMITED, SERIES_ATTRIBUTES_LIMIT_BYTES, DicomJson, FileState, Uid, first_values, least
from dicomwatchd.patients import Identity, Order, distinct, filled_up
from dicomwatchd.pipeline.exports import exported
from dicomwatchd.pipeline.healed import healed
from dicomwatchd.pipeline.shipment import PAGE, Context, Shipment, location_of, source_of
from dicomwatchd.pipeline.variants import compared
from dicomwatchd.ports import Map, timestamp
from dicomwatchd.queue.rows import LocalFile, Source
from dicomwatchd.study_completeness import GAPS
from dicomwatchd.study_signs import SeriesSigns, Signs

#: Of what is amiss with a study's manifests so many are told one by one.
_TOLD = 20

#: Flags that a record has and no manifest.
_OF_THE_RECORD = frozenset(
    {LEFT_OUT, lineage.DISPUTED, DAMAGED_INSTANCES, GAPS, CORRECTED_INSTANCES, CONFLICTING_INSTANCES}
)
#: What an instance takes in a manifest at least, beside its path and notes.
_LEAST_INSTANCE_BYTES = 400


@dataclass(frozen=True, slots=True)
class Next:
    """``instead_of``: the SHA-256 of the manifest that the catalogue has to name until then, because others in the
    store were passed over, of which one may be another daemon's that is about to be recorded; None where none was."""

    manifest: Manifest
    instead_of: str | None = None


def next_manifest(shipment: Shipment, context: Context, above: int) -> Next | None:
    """The manifest that lists all of this shipment, in the store by now, its revision greater than ``above``; None if
    that revision was taken meanwhile.

    What is in the store stays as it is. Where manifests are damaged, or do not go on from one another (see `lineage`),
    the next one is made from the newest that counts, and lists what any other lists as well; where one cannot be read,
    it lists again what else the store holds of the study. So it is where the catalogue names a manifest that the store
    has no more (``above``). It has the lowest free number: what somebody has put far above makes no room scarce.
    """
    traced = trace_of(shipment.claim.study_uid, context, shipment.run, shipment.admit)
    found, above = traced.lineage, max(above, traced.lost)
    if not found.holds:
        _tell(found, shipment, context)
    instead_of = None
    try:
        made = _made_from(found, shipment, context, above)
    except ManifestTooLarge:
        vouched = found.vouched
        if vouched is None or vouched is found.whole:
            raise
        # Somebody has left no room for it. What nobody vouches for stays what it is, and readers are told of it.
        made, instead_of = _made_from(found.of_vouched(vouched), shipment, context, above), vouched.sha256
    return Next(made, instead_of) if made is not None else None


def _made_from(found: Lineage, shipment: Shipment, context: Context, above: int) -> Manifest | None:
    claim, archive = shipment.claim, context.archive
    current = found.current or empty(archive.archive_id, claim.study_uid)
    base = recovered(found, current, archive.store, shipment.run)
    facts = context.shipments.facts(claim)
    now = timestamp(context.clock.now())
    added = _Added(facts.attributes, facts.series, facts.flags, facts.damaged_keys, facts.identities, facts.orders)
    content = _content(shipment, context, base, now)
    shipment.files, shipment.bytes = content.files, content.size_bytes
    shipment.sources |= content.sources
    instances = content.instances
    added = replace(added, signs=content.signs)
    if not found.holds:
        passed_over = (keys.manifest(claim.study_uid, one.revision) for one in found.disregarded)
        added = replace(added, damaged_keys=(*added.damaged_keys, *passed_over))
    if found.refused or above:
        added, again = _from_elsewhere(shipment, context, found, added, [*base.instances, *instances], now)
        instances += again
        without = {item.series_uid for item in again}
        added = replace(added, signs={uid: one for uid, one in added.signs.items() if uid not in without})
    added = _within_limit(base, added)
    exports = (
        exported(claim.study_uid, facts.dicomdirs, base.exports, content.size_bytes, now, context)
        if content.files
        else []
    )
    suspects = {*current.damaged_keys, *added.damaged_keys}
    well = healed(suspects, shipment, context) if suspects else frozenset()
    # What was verified just now is found first.
    data_sets = compared([*instances, *base.instances], base.data_sets, suspects - well, shipment, context)
    merged = base.merged(
        instances,
        attributes=added.attributes,
        series=added.series,
        flags=_flags(current, added.flags, facts.attributes),
        damaged_keys=added.damaged_keys,
        healed_keys=well,
        identities=added.identities,
        orders=added.orders,
        signs=added.signs,
        data_sets=data_sets,
        listed=facts.listed,
        exported=exports,
        created_at=now,
        created_by=f"dicomwatchd {__version__}",
    )
    if not content.files and not ((not found.holds or above) and merged.instances):
        return current  # its files are gone; but the catalogue may not know yet what an earlier shipment has recorded
    if merged is current and current.revision > above:
        return current
    merged = replace(
        merged,
        revision=found.free_above(max(current.revision, above)),
        previous_sha256=current.sha256 if current.revision else None,
        damaged_keys=tuple(key for key in merged.damaged_keys if not _is_of_the_future(key, found)),
        created_at=now,
        created_by=f"dicomwatchd {__version__}",
    )
    return merged if manifests.create(archive.store, merged) else None


def _within_limit(current: Manifest, added: _Added) -> _Added:
    """Attributes of so many series, over all revisions, and of the others what is kept in any case."""
    left = SERIES_ATTRIBUTES_LIMIT_BYTES - sum(len(dumps(one)) for one in current.series.values())
    series: dict[Uid, DicomJson] = {}
    for uid, attributes in added.series.items():
        known = current.series.get(uid)
        left -= len(dumps(attributes)) if known is None else _growth(known, attributes)
        series[uid] = attributes if left >= 0 else least(attributes)
    return added if left >= 0 else replace(added, series=series, flags=(*added.flags, LIMITED))


def _growth(known: DicomJson, attributes: DicomJson) -> int:
    filled = first_values(known, attributes)
    return 0 if filled == known else len(dumps(filled)) - len(dumps(known))


@dataclass(frozen=True, slots=True)
class Traced:
    """``lost`` is a revision that the catalogue names and the store does not hold as it is named, or 0."""

    lineage: Lineage
    lost: int = 0


def trace_of(study: Uid, context: Context, map: Map = map, admit: Callable[[int], None] = lambda _: None) -> Traced:
    """What the store's manifests of a study say. ``admit`` is told how large the largest is before any is read. Where
    there are several, the catalogue's word is asked for: what it vouches for need not be read down to the first.

    Raises NewerManifest, ForeignManifest where one that nobody vouches against is such.
    """
    archive = context.archive
    floor = context.erased.require_none(study)
    listed = manifests.listed(archive.store, study, floor=floor)
    record = _recorded(study, context, floor) if len(listed.revisions) > 1 else None
    if record is not None and record.revision not in listed.revisions:
        # Another daemon may have recorded it since: what the catalogue names was put into the store before.
        listed = manifests.listed(archive.store, study, record.revision, floor=floor)
    admit(max((seen.size_bytes for seen in listed.revisions.values()), default=0))
    vouched = lineage.vouched_for(archive.store, listed, record)
    found = lineage.trace(archive.store, listed, vouched, archive_id=archive.archive_id, map=map)
    if vouched is None:
        if record is None and any(one.error for one in found.refused):
            record = _recorded(study, context, floor)
        for one in found.refused:
            if one.error is not None and record is not None and one.revision <= record.revision:
                raise one.error  # our own, and not given to us: that is the archive's trouble
            if one.kind is NewerManifest:
                raise NewerManifest(one.reason, hint="update this dicomwatchd")
            if one.kind is ForeignManifest:
                raise ForeignManifest("the study's manifest in the store belongs to another archive")
    if record is None or vouched is not None or lineage.DISPUTED in record.flags:
        return Traced(found, record.revision if record is not None and vouched is None else 0)
    if record.revision not in listed.revisions:
        _tell_ahead(study, record.revision, context)
    return Traced(found, record.revision)


def _recorded(study: Uid, context: Context, floor: int) -> StudyRecord | None:
    """What was erased, up to that revision, counts as nothing."""
    try:
        record = context.archive.catalogue.get(study)
    except Permanent:
        return None  # damaged as well: it is written anew
    return erasures.unless_erased(record, floor)


def _is_of_the_future(key: str, found: Lineage) -> bool:
    """A manifest's key that nothing had when this revision was made. Named as seen it would be passed over for ever,
    whatever comes under it."""
    named = keys.parse_manifest(key)
    return named is not None and named[1] not in found.listed.revisions


@dataclass(frozen=True, slots=True)
class _Added:
    """What a revision adds beside the instances."""

    attributes: DicomJson
    series: dict[Uid, DicomJson]
    flags: tuple[str, ...]
    damaged_keys: tuple[str, ...]
    identities: tuple[Identity, ...] = ()
    orders: tuple[Order, ...] = ()
    signs: Mapping[Uid, SeriesSigns] = field(default_factory=dict)


def _tell(found: Lineage, shipment: Shipment, context: Context) -> None:
    for one in found.refused[:_TOLD]:
        context.log.error(
            "manifest-unreadable",
            "a manifest in the store is damaged; it is kept, and the study is recorded in a new revision",
            study_uid=shipment.claim.study_uid,
            revision=one.revision,
        )
    for other in found.disregarded[:_TOLD]:
        context.log.error(
            "manifest-disregarded",
            "a manifest in the store does not continue those before it: another program may have written it; it is"
            " kept, and the study is recorded in a new revision together with what it lists",
            study_uid=shipment.claim.study_uid,
            revision=other.revision,
        )


def _from_elsewhere(
    shipment: Shipment,
    context: Context,
    found: Lineage,
    added: _Added,
    listed: list[ManifestInstance],
    now: str,
) -> tuple[_Added, tuple[ManifestInstance, ...]]:
    """What the damaged or lost manifests listed, as far as it can be told: the instances by the objects that are there,
    the attributes by the catalogue's record, which was made from one of them."""
    study, archive = shipment.claim.study_uid, context.archive
    refused = tuple(one.key for one in found.refused)
    damaged = {*added.damaged_keys, *(found.current.damaged_keys if found.current else ())}
    again = salvage.unlisted(archive.store, study, listed, damaged=damaged, now=now, map=shipment.run)
    record = _recorded(study, context, found.listed.floor)
    if record is not None:
        there = {item.series_uid for item in (*listed, *again.instances)}
        series = {one.series_uid: one.attributes for one in record.series if one.series_uid in there}
        added = replace(
            added,
            attributes=filled_up(record.attributes, added.attributes),
            series={
                **series,
                **{uid: first_values(series.get(uid, {}), attributes) for uid, attributes in added.series.items()},
            },
            identities=distinct(record.identities or (), added.identities),
            orders=distinct(record.orders or (), added.orders),
            flags=(*added.flags, *(flag for flag in record.flags if flag not in _OF_THE_RECORD)),
        )
    return replace(added, damaged_keys=(*added.damaged_keys, *refused, *again.damaged_keys)), again.instances


def revision_nobody_can_read(manifest: Manifest, context: Context) -> int:
    """After the catalogue refused a manifest: the revision it has, if the store holds no such manifest (the store, or
    a part of it, was lost or moved without it), so that the next one goes above it; 0 if somebody else was faster."""
    archive = context.archive
    recorded = archive.catalogue.get(manifest.study_uid)
    if recorded is None:
        return 0
    floor = context.erased.require_none(manifest.study_uid)
    listed = manifests.listed(archive.store, manifest.study_uid, recorded.revision, floor=floor)
    if recorded.revision != manifest.revision and recorded.revision in listed.revisions:
        return 0
    _tell_ahead(manifest.study_uid, recorded.revision, context)
    return recorded.revision


def _tell_ahead(study: Uid, revision: int, context: Context) -> None:
    require_identity(context.archive.store, context.archive.archive_id)  # else it is the store that is another one
    context.log.error(
        "catalogue-ahead",
        "the catalogue names a manifest that the store does not hold; the study is recorded in a new revision",
        study_uid=study,
        revision=revision,
    )


@dataclass(frozen=True, slots=True)
class _Content:
    """What a shipment consists of. ``instances`` are those that the manifest does not list yet where they are;
    ``signs`` are of the series of which those of all such instances are known; the other figures are of all its
    files."""

    instances: tuple[ManifestInstance, ...]
    files: int
    size_bytes: int
    sources: frozenset[str]
    signs: Mapping[Uid, SeriesSigns]


def _content(shipment: Shipment, context: Context, base: Manifest, now: str) -> _Content:
    """Read from the queue, page by page. What ``base``, or another file of the shipment, says already is left out: a
    study that comes once more takes no more memory than it did.

    Raises ManifestTooLarge before there are more instances than any manifest lists; Transient, and as ``admit``.
    """
    latest = {item.content: item for item in base.instances}
    instances: list[ManifestInstance] = []
    sources: set[str] = set()
    signs: dict[Uid, SeriesSigns] = {}
    unknown: set[Uid] = set()
    files = size_bytes = 0
    left_bytes = MANIFEST_LIMIT_BYTES
    for page in context.shipments.pages(shipment.claim, FileState.STORED, PAGE):
        for file in page:
            source = _source_name(source_of(file, context))
            item = _instance(file, source, now)
            left_bytes -= _LEAST_INSTANCE_BYTES + len(json.dumps([item.original_path, item.repairs, item.damage]))
            if left_bytes < 0:
                raise manifests.too_many_instances()
            shipment.admit(MANIFEST_LIMIT_BYTES - left_bytes)
            files += 1
            size_bytes += item.size_bytes
            sources.add(source)
            known = latest.get(item.content)
            if file.signs is not None:
                signs.setdefault(item.series_uid, SeriesSigns()).take(item.sop_instance_uid, Signs.of(file.signs))
            elif known is None:
                unknown.add(item.series_uid)
            if known is None or known.is_found_again or not item.is_located_as(known):
                latest[item.content] = item
                instances.append(item)
    of_known = {uid: one for uid, one in signs.items() if uid not in unknown}
    return _Content(tuple(instances), files, size_bytes, frozenset(sources), of_known)


def _source_name(source: Source) -> str:
    return "upload" if source.kind == "upload" else source.name


def _instance(file: LocalFile, source: str, now: str) -> ManifestInstance:
    """Raises Transient."""
    if file.verified_by is None:
        raise Transient("a file of the shipment was not verified in this attempt", code="unverified-file")
    location, header = location_of(file), file.header
    return ManifestInstance(
        series_uid=header.series_uid,
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        key=location.receipt.key,
        size_bytes=location.size_bytes,
        object_bytes=location.receipt.size_bytes,
        sha256=location.sha256,
        # The one that the object has: where its ETag is no MD5 `verify` would read everything back otherwise.
        etag=location.receipt.known_etag,
        version_id=location.receipt.version_id,
        original_path=printable(b"/".join(part for part in (file.dir, file.name) if part)),
        inbox=source,
        stored_at=now,
        verified_by=file.verified_by,
        repairs=header.repairs,
        damage=header.damage,
        offset_bytes=location.span.offset_bytes,
    )


def _flags(current: Manifest, flags: tuple[str, ...], attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Another patient id than an earlier revision, perhaps of another site, has recorded: said, never passed over."""
    known, found = Identity.of(current.attributes).patient_id, Identity.of(dict(attributes)).patient_id
    if current.revision and known and found and known != found:
        return (*flags, "patient-id-differs")
    return flags
