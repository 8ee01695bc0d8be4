"""One SOP Instance of a manifest: what it is, and where its bytes are in the archive."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import checked
from dicomwatchd.archive.layout.bundle import Span
from dicomwatchd.model import CANNOT_TELL, Uid

#: In ``repairs`` of an instance of which nothing is known but what its key says: no path, no SOP class, and not whether
#: it is whole.
FOUND_AGAIN = "found-in-the-store"

#: Series, SOP Instance, SHA-256.
Content = tuple[Uid, Uid, str]
#: Key, version, size, offset in the object and size of the object.
Place = tuple[str, str | None, int, int, int]

_SIZE_LIMIT_BYTES = 2**50  # far above what any store takes as one object; keeps sums in 64 bits


@dataclass(frozen=True, slots=True)
class ManifestInstance:
    """One SOP Instance's bytes in the archive.

    ``original_path`` is the path below the inbox it came from; it may name the patient and stays in the manifest.
    ``verified_by`` says what proved the stored bytes: "etag-md5", "etag-answered", "checksum" or "read-back"
    (`proof.evidence.Method`).

    ``damage`` is what is missing or wrong of it, and where, in plain words; "" of one that is whole, or of which it
    cannot be told (then ``repairs`` says so).

    It is a span of the object under ``key``, whose ``etag`` and ``version_id`` these are: its own bytes begin at
    ``offset_bytes`` of the object's ``object_bytes``. One that is not in a bundle is all of its object.
    """

    series_uid: Uid
    sop_instance_uid: Uid
    sop_class_uid: str
    transfer_syntax_uid: str
    key: str
    size_bytes: int
    object_bytes: int
    sha256: str
    etag: str | None
    version_id: str | None
    original_path: str
    inbox: str
    stored_at: str
    verified_by: str
    repairs: tuple[str, ...] = ()
    damage: str = ""
    offset_bytes: int = 0

    @property
    def is_in_bundle(self) -> bool:
        return keys.is_bundle(self.key)

    @property
    def is_found_again(self) -> bool:
        return FOUND_AGAIN in self.repairs

    @property
    def is_whole(self) -> bool:
        """Whether it may stand in the place of a damaged copy."""
        return (
            not self.damage
            and not self.is_found_again
            and not any(note.startswith(CANNOT_TELL) for note in self.repairs)
        )

    @property
    def span(self) -> Span:
        """Its own bytes in the object."""
        return Span(self.offset_bytes, self.size_bytes, self.sha256)

    @property
    def content(self) -> Content:
        """What it is, wherever it lies."""
        return self.series_uid, self.sop_instance_uid, self.sha256

    @property
    def place(self) -> Place:
        """Where its bytes are, and how many."""
        return self.key, self.version_id, self.size_bytes, self.offset_bytes, self.object_bytes

    def is_located_as(self, recorded: ManifestInstance) -> bool:
        """Whether ``recorded``, of the same content, names its key, and its version if one is known."""
        return self.key == recorded.key and self.version_id in (None, recorded.version_id)


#: Written of every instance but for these: where it is in its object, of one in a bundle; what is wrong with it, of one
#: that is damaged.
_OF_SOME = ("offset_bytes", "object_bytes", "damage")
_INSTANCE_FIELDS = tuple(f.name for f in fields(ManifestInstance) if f.name not in _OF_SOME)
_TEXT_FIELDS = tuple(f.name for f in fields(ManifestInstance) if f.type in ("str", "Uid"))


def document(item: ManifestInstance) -> dict[str, object]:
    """As the format has it: where in the object it is, and how large that is, of an instance in a bundle alone."""
    raw = {name: getattr(item, name) for name in _INSTANCE_FIELDS}
    if item.damage:
        raw["damage"] = item.damage
    return {**raw, "offset_bytes": item.offset_bytes, "bundle_bytes": item.object_bytes} if item.is_in_bundle else raw


def from_document(study: Uid, raw: dict[str, Any]) -> ManifestInstance:
    given = {**raw, "repairs": checked.texts(raw.get("repairs", []))}
    within = given.pop("offset_bytes", None), given.pop("bundle_bytes", None)
    is_whole = within == (None, None)
    offset_bytes, object_bytes = (0, raw["size_bytes"]) if is_whole else within
    # Before it is made: a copy with other values costs as much as all the rest.
    for name in ("series_uid", "sop_instance_uid"):
        given[name] = Uid(checked.text(given[name]))
    item = ManifestInstance(**given, offset_bytes=offset_bytes, object_bytes=object_bytes)
    for name in _TEXT_FIELDS:
        checked.text(getattr(item, name))
    for optional in (item.etag, item.version_id):
        checked.text("" if optional is None else optional).encode()  # no store could be asked for half a surrogate pair
    checked.number(item.size_bytes, 0, _SIZE_LIMIT_BYTES)
    if is_whole:
        if not keys.is_instance(item.key, study, item.series_uid, item.sop_instance_uid, item.sha256):
            raise ValueError("a key does not belong to its instance")
        return item
    checked.digest(item.sha256)
    if keys.bundle_sha256(item.key, study) is None:
        raise ValueError("a key does not belong to a bundle of this study")
    checked.number(item.object_bytes, 1, _SIZE_LIMIT_BYTES)
    checked.number(item.size_bytes, 1, item.object_bytes)
    checked.number(item.offset_bytes, 0, item.object_bytes - item.size_bytes)
    return item


def require_disjoint(instances: tuple[ManifestInstance, ...]) -> None:
    """Raises ValueError where two instances share bytes of a bundle or disagree about its size. Others share no
    object: the key of each names its content."""
    spans = sorted((i.key, i.offset_bytes, i.size_bytes, i.object_bytes) for i in instances if i.is_in_bundle)
    for (key, offset, size, whole), (next_key, next_offset, _, next_whole) in pairwise(spans):
        if key == next_key and (offset + size > next_offset or whole != next_whole):
            raise ValueError("two instances share bytes of a bundle or disagree about its size")


def repeated(instances: tuple[ManifestInstance, ...]) -> list[str]:
    """One SOP Instance UID with several contents, or in several series: kept apart, and said."""
    seen: dict[Uid, ManifestInstance] = {}
    return [
        "sop-instance-uid-repeated" for item in instances if seen.setdefault(item.sop_instance_uid, item) is not item
    ]
