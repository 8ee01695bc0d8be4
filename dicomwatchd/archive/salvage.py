"""What only a damaged manifest listed, found again in the store: a key names series, instance and SHA-256, and so does
what is in a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace

from dicomwatchd.archive import bundle as bundles
from dicomwatchd.archive import evidence, keys
from dicomwatchd.archive.bundle import Member
from dicomwatchd.archive.evidence import Method
from dicomwatchd.archive.manifest import ManifestInstance
from dicomwatchd.archive.store import ObjectStore, Receipt
from dicomwatchd.errors import Permanent, Transient
from dicomwatchd.model import Uid
from dicomwatchd.ports import Map

#: In ``repairs`` of an instance of which nothing is known but what its key says: no path, no SOP class.
FOUND_AGAIN = "found-in-the-store"


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
        if verdict.problem in ("missing", "unreadable"):
            raise Transient("the store cannot read back what it holds", code="unreadable-object")
        if not verdict.holds:
            bad.append(verdict.receipt.key)
            continue
        item = _instance(verdict.receipt, now)
        found.setdefault((item.series_uid, item.sop_instance_uid, item.sha256), item)
    for seen in store.listing(keys.bundles_prefix(study)):
        expected = keys.bundle_sha256(seen.key, study)
        if expected is None or seen.key in damaged:
            continue
        data = _read(store, seen.key)
        if hashlib.sha256(data).hexdigest() != expected:
            bad.append(seen.key)
            continue
        for member in bundles.members(data):
            content = (member.series_uid, member.sop_instance_uid, member.digest.sha256)
            if content not in known:
                found.setdefault(content, _member(seen.key, len(data), member, now))
    return Salvage(tuple(found.values()), tuple(bad))


def _read(store: ObjectStore, key: str) -> bytes:
    """A whole bundle, which is small. What was damaged on its way here must not be called damaged for ever."""
    try:
        data = b"".join(store.read(key))
        if b"".join(store.read(key)) != data:
            raise Transient("two readings of a bundle differ", code="damaged-on-the-way")
    except Permanent as error:
        raise Transient("the store cannot read back what it holds", code="unreadable-object") from error
    return data


def _instance(receipt: Receipt, now: str) -> ManifestInstance:
    named = keys.parse_instance(receipt.key)
    assert named is not None  # noqa: S101  only receipts of such keys are made
    _, series, sop_instance, sha256 = named
    return replace(
        _BARE,
        series_uid=series,
        sop_instance_uid=sop_instance,
        key=receipt.key,
        size_bytes=receipt.size_bytes,
        sha256=sha256,
        stored_at=now,
    )


def _member(key: str, bundle_bytes: int, member: Member, now: str) -> ManifestInstance:
    return replace(
        _BARE,
        series_uid=member.series_uid,
        sop_instance_uid=member.sop_instance_uid,
        key=key,
        size_bytes=member.digest.size_bytes,
        sha256=member.digest.sha256,
        stored_at=now,
        offset_bytes=member.offset_bytes,
        bundle_bytes=bundle_bytes,
    )


_BARE = ManifestInstance(
    series_uid=Uid("0"),
    sop_instance_uid=Uid("0"),
    sop_class_uid="",
    transfer_syntax_uid="",
    key="",
    size_bytes=0,
    sha256="",
    etag=None,
    version_id=None,
    original_path="",
    inbox="",
    stored_at="",
    verified_by=Method.READ_BACK,
    repairs=(FOUND_AGAIN,),
)
