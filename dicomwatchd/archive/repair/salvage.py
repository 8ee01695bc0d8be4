"""What only a damaged manifest listed, found again in the store: a key names series, instance and SHA-256, and so do
the headers of a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.bundle import BUNDLE_LIMIT_BYTES, Span, members_of
from dicomwatchd.archive.layout.instance import FOUND_AGAIN, ManifestInstance
from dicomwatchd.archive.proof import evidence
from dicomwatchd.archive.proof.evidence import Method
from dicomwatchd.archive.stores.port import ObjectStore, Receipt, StoredObject
from dicomwatchd.archive.stores.withheld import without_withheld
from dicomwatchd.errors import Permanent, Transient
from dicomwatchd.model import Uid
from dicomwatchd.ports import Map


@dataclass(frozen=True, slots=True)
class Salvage:
    """``damaged_keys`` are objects whose bytes are not those that their key names."""

    instances: tuple[ManifestInstance, ...]
    damaged_keys: tuple[str, ...]


def unlisted(
    store: ObjectStore,
    study: Uid,
    listed: Collection[ManifestInstance],
    *,
    damaged: Collection[str],
    now: str,
    map: Map,
) -> Salvage:
    """The study's instances that the store holds and ``listed`` does not name. Each is read back and hashed, so a
    large study takes its time; keys that are known to be ``damaged`` are passed over.

    Raises Transient when the store does not answer or cannot give an object back: what is left out here is left out
    for good.
    """
    store = without_withheld(store)
    known = {(item.series_uid, item.sop_instance_uid, item.sha256) for item in listed}
    receipts: dict[str, Receipt] = {}
    for seen in store.listing(f"{keys.study_prefix(study)}series/"):
        named = keys.parse_instance(seen.key)
        if named is not None and named[1:] not in known and seen.key not in damaged:
            receipts[seen.key] = Receipt(seen.key, seen.size_bytes, named[3], created=False)
    found: dict[tuple[Uid, Uid, str], ManifestInstance] = {}
    bad = []
    for verdict in sorted(
        evidence.examine(store, receipts.values(), deep=True, map=map), key=lambda verdict: verdict.receipt.key
    ):
        if verdict.problem in ("missing", "unreadable", "cold"):
            raise Transient("the store cannot read back an object that it holds", code="unreadable-object")
        if not verdict.holds:
            bad.append(verdict.receipt.key)
            continue
        named = keys.parse_instance(verdict.receipt.key)
        assert named is not None  # noqa: S101  only receipts of such keys are made
        _, series, sop_instance, sha256 = named
        span = Span(0, verdict.receipt.size_bytes, sha256)
        item = _instance(series, sop_instance, span, verdict.receipt.key, verdict.receipt.size_bytes, now)
        found.setdefault((series, sop_instance, sha256), item)
    of_listed = {item.key for item in listed}
    for seen in store.listing(keys.bundles_prefix(study)):
        sha256_of_bundle = keys.bundle_sha256(seen.key, study)
        if sha256_of_bundle is None or seen.key in damaged or seen.key in of_listed:
            continue
        try:
            for item in _in_bundle(store, seen, sha256_of_bundle, now):
                content = (item.series_uid, item.sop_instance_uid, item.sha256)
                if content not in known:
                    found.setdefault(content, item)
        except ValueError:
            bad.append(seen.key)
    return Salvage(tuple(found.values()), tuple(bad))


def _in_bundle(store: ObjectStore, seen: StoredObject, sha256: str, now: str) -> Iterator[ManifestInstance]:
    """One bundle after the other, for each is in memory as a whole. Raises ValueError where it is, twice, not what its
    key says."""
    for last_try in (False, True):
        try:
            data = b"".join(store.read(seen.key, length_bytes=BUNDLE_LIMIT_BYTES + 1))
        except Permanent as error:
            raise Transient("the store cannot read back an object that it holds", code="unreadable-object") from error
        if hashlib.sha256(data).hexdigest() == sha256:
            break
        if last_try:
            raise ValueError("a bundle with other bytes than its key names")
    for member in members_of(data):
        digest = member.digest
        span = Span(member.offset_bytes, digest.size_bytes, digest.sha256)
        yield _instance(member.series_uid, member.sop_instance_uid, span, seen.key, len(data), now)


def _instance(series: Uid, sop_instance: Uid, span: Span, key: str, object_bytes: int, now: str) -> ManifestInstance:
    return ManifestInstance(
        series_uid=series,
        sop_instance_uid=sop_instance,
        sop_class_uid="",
        transfer_syntax_uid="",
        key=key,
        size_bytes=span.size_bytes,
        object_bytes=object_bytes,
        sha256=span.sha256,
        etag=None,
        version_id=None,
        original_path="",
        inbox="",
        stored_at=now,
        verified_by=Method.READ_BACK,
        repairs=(FOUND_AGAIN,),
        offset_bytes=span.offset_bytes,
    )
