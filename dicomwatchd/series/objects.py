"""Series objects in a store: looked for, read and written. None of them is needed: what is missing, damaged, or of a
form that nobody knows is passed over, and made again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.stores.port import Buffer, ObjectStore
from dicomwatchd.archive.stores.reading import at_most
from dicomwatchd.errors import Permanent, Transient
from dicomwatchd.model import Uid
from dicomwatchd.series.document import PACKED_LIMIT_BYTES, BadSeriesObject, Entry, Known, SeriesDocument, name_of

#: Objects of a series that are read in the search for one that fits.
_TRIED = 4


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store has of a series. ``document`` is of exactly these instances, None where there is none that fits;
    ``entries`` are those of older and of incomplete ones that still hold, by what they are of. ``attempt`` is the first
    that is free."""

    name: str
    document: SeriesDocument | None = None
    entries: Mapping[Known, Entry] = field(default_factory=dict)
    attempt: int = 1


def find(
    store: ObjectStore,
    study: Uid,
    series: Uid,
    instances: Iterable[ManifestInstance],
) -> Stored:
    """What is stored for these ``instances``, all of one series. One listing, and mostly one read. Raises Transient
    where the store is out of reach."""
    wanted = {(item.sop_instance_uid, item.sha256): item for item in instances}
    name = name_of(wanted.values())
    listed = [
        (seen, named)
        for seen in store.listing(keys.series_index_prefix(study, series))
        if (named := keys.parse_series_index(seen.key)) is not None
    ]
    attempt = max((named[3] for _, named in listed if named[2] == name), default=0) + 1
    ordered = sorted(
        (one for one in listed if one[0].size_bytes <= PACKED_LIMIT_BYTES),
        key=lambda one: (one[1][2] == name, one[1][3] if one[1][2] == name else 0, one[0].modified_at or 0.0),
        reverse=True,
    )
    for seen, named in ordered[:_TRIED]:
        try:
            document = load(store, seen.key, study, series)
        except Permanent:
            continue
        except Transient as error:
            if error.endpoint is not None:
                raise
            continue
        entries = {
            known: one for known, one in document.entries.items() if _is_of(one, wanted.get(known), study, series)
        }
        if named[2] == name and len(entries) == len(wanted):
            return Stored(name, SeriesDocument(study, series, entries, document.created_by), entries, attempt)
        if entries:
            return Stored(name, None, entries, attempt)
    return Stored(name, None, {}, attempt)


def load(store: ObjectStore, key: str, study: Uid, series: Uid) -> SeriesDocument:
    """Raises BadSeriesObject, and as `ObjectStore.read`."""
    data = at_most(store, key, PACKED_LIMIT_BYTES)
    if len(data) > PACKED_LIMIT_BYTES:
        raise BadSeriesObject("the object is larger than any series object")
    return SeriesDocument.from_bytes(data, study, series)


def write(store: ObjectStore, document: SeriesDocument, name: str, revision: int, attempt: int = 1) -> int | None:
    """Create it; the number of its bytes. None where somebody else has written there meanwhile: that is as good as this
    one. ``revision`` is that of the manifest which lists the instances: where it was erased since, nothing is written,
    for nobody may bring back what names a patient. Whoever erases waits for what is on its way
    (`erasing.erasure.SETTLE_SECONDS`). Raises StudyErased, SeriesTooLarge, Transient, Permanent, Fatal."""
    data = document.to_bytes()
    if attempt > keys.HIGHEST_SERIES_INDEX_ATTEMPT:
        return None
    newest = erasures.newest(store, document.study_uid)
    if newest is not None and revision <= newest.through_revision:
        raise newest.error()
    receipt = store.put(keys.series_index(document.study_uid, document.series_uid, name, attempt), Buffer(data))
    return len(data) if receipt.created else None


def _is_of(entry: Entry, item: ManifestInstance | None, study: Uid, series: Uid) -> bool:
    """Whether an entry may be of this instance: what it says of itself is what the manifest says."""
    if item is None or entry.size_bytes != item.size_bytes:
        return False
    said = {"0020000D": study, "0020000E": series, "00080018": item.sop_instance_uid}
    return all(_uid(entry, tag) in ("", uid) for tag, uid in said.items())


def _uid(entry: Entry, tag: str) -> str:
    value = entry.attributes.get(tag, {}).get("Value")
    return value[0].strip(" \0") if isinstance(value, list) and value and isinstance(value[0], str) else ""
