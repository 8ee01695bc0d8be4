"""A study's manifests in a store, beside its objects: created, read, and the newest of them found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.port import Buffer, ObjectStore, StoredObject
from dicomwatchd.archive.stores.reading import MANIFEST_LIMIT_BYTES, at_most, has_too_many_values, with_checksum
from dicomwatchd.errors import BadManifest, ColdObject, ManifestTooLarge, NoSuchObject, Transient
from dicomwatchd.model import Uid


def load(
    store: ObjectStore, key: str, *, etag: str | None = None, sha256: str | None = None, size_bytes: int | None = None
) -> Manifest:
    """Read a manifest and check that it is what its key says. Raises Permanent, ColdObject among it, and Transient.

    The next revision is made from what is read here, so a bit that changed on the way would stay for good: it is read
    twice, unless the ETag that the store lists, the SHA-256 that it keeps and gives with the bytes, or the one that the
    catalogue records vouches for the first. And what has another size than the listing's ``size_bytes`` is not what the
    store holds.
    """
    listed_bytes = MANIFEST_LIMIT_BYTES if size_bytes is None else size_bytes
    if listed_bytes > MANIFEST_LIMIT_BYTES:
        raise _too_large()
    try:
        data, checksum = with_checksum(store, key, listed_bytes)
    except ColdObject as error:
        raise ColdObject(
            "a manifest of the study is in cold storage",
            hint="restore what is below manifests/ of the study with the store's own tools, then retry; no lifecycle"
            " rule should move manifests",
        ) from error
    # An ETag that is the MD5 of what was read is that of these bytes, whatever else the store has for ETags.
    by_etag = etag is not None and _md5(data) == etag
    found = hashlib.sha256(data).hexdigest()
    by_sha256 = found == sha256 or checksum == f"sha256:{found}"
    if not by_etag and not by_sha256 and at_most(store, key, listed_bytes) != data:
        raise Transient("two reads of a manifest differ", code="damaged-on-the-way")
    if size_bytes is not None and len(data) != size_bytes:
        raise Transient("the size of a manifest differs from its listing", code="damaged-on-the-way")
    if len(data) > MANIFEST_LIMIT_BYTES:
        raise _too_large()
    manifest = Manifest.from_bytes(data)
    if manifest.key != key:
        raise BadManifest("a manifest in the store does not match its key")
    return manifest


@dataclass(frozen=True, slots=True)
class Listed:
    """What the store lists of a study's manifests, by revision. ``strangers`` are keys among them that are no
    manifest's. ``floor``: the study was erased, and no revision up to that number counts, or is in ``revisions``."""

    study_uid: Uid
    revisions: Mapping[int, StoredObject]
    strangers: tuple[str, ...] = ()
    floor: int = 0

    @property
    def newest(self) -> int:
        """The highest number that is taken; 0 where there is none."""
        return max(self.revisions, default=0)

    def above(self, floor: int) -> Listed:
        """Without what was erased: the revisions up to that number."""
        left = {revision: seen for revision, seen in self.revisions.items() if revision > floor}
        return replace(self, revisions=left, floor=max(self.floor, floor))


def listed(store: ObjectStore, study_uid: Uid, named: int = 0, *, floor: int = 0) -> Listed:
    """``floor`` as in `Listed`. ``named`` is a revision that somebody has recorded: where the listing does not show it,
    it is asked for by its key. A listing may be older than what it lists, as that of a folder on a share is, which the
    kernel remembers."""
    found = {seen.key: seen for seen in store.listing(keys.manifests_prefix(study_uid))}
    if (
        named > floor
        and (key := keys.manifest(study_uid, named)) not in found
        and (seen := store.head(key)) is not None
    ):
        found[key] = seen
    parsed = {key: keys.parse_manifest(key) for key in found}
    return Listed(
        study_uid,
        {named[1]: found[key] for key, named in parsed.items() if named is not None},
        tuple(key for key, named in parsed.items() if named is None),
    ).above(floor)


def create(store: ObjectStore, manifest: Manifest) -> bool:
    """Create this revision in the store; True when the store holds exactly this one afterwards, False when the
    revision belongs to somebody else. Reads it back, so the answer is the store's own. Raises Transient, also when
    the store has taken it and has it not."""
    content = Buffer.of(manifest.to_bytes())
    if content.digest.size_bytes > MANIFEST_LIMIT_BYTES or has_too_many_values(content.data):
        raise too_many_instances()
    store.put(manifest.key, content)
    try:
        stored = at_most(store, manifest.key, content.digest.size_bytes)
    except NoSuchObject as error:
        raise Transient("the store does not hold the manifest that was just sent", code="manifest-lost") from error
    return hashlib.sha256(stored).hexdigest() == content.digest.sha256


def too_many_instances() -> ManifestTooLarge:
    return ManifestTooLarge(
        "the study has more instances than a manifest can list",
        hint="its files stay where they are; do several studies share this Study Instance UID?",
    )


def _too_large() -> BadManifest:
    return BadManifest("the object in place of a manifest is larger than any manifest")


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
