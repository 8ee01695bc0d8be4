"""A series as it is shown: which content stands for each SOP Instance UID, what it is worth, and what else there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.errors import DicomwatchdError, Permanent
from dicomwatchd.fetch.plan import Found
from dicomwatchd.model import Uid
from dicomwatchd.series.document import Entry, Known
from dicomwatchd.series.standing import Standing, standing_of


@dataclass(frozen=True, slots=True)
class Instance:
    """A SOP Instance of a series, in one of its contents. ``entry`` is what is derived of it, None where it could not
    be read: then ``trouble`` says why.

    ``others`` are the SHA-256 sums of the other contents that the archive holds of its SOP Instance UID, in any series.
    """

    study_uid: Uid
    item: ManifestInstance
    standing: Standing
    entry: Entry | None
    others: tuple[str, ...] = ()
    trouble: DicomwatchdError | None = None
    places: tuple[ManifestInstance, ...] = field(default=(), repr=False)

    @property
    def sop_instance_uid(self) -> Uid:
        return self.item.sop_instance_uid

    @property
    def series_uid(self) -> Uid:
        return self.item.series_uid

    @property
    def transfer_syntax_uid(self) -> str:
        return self.entry.transfer_syntax_uid if self.entry is not None else self.item.transfer_syntax_uid

    @property
    def attributes(self) -> Mapping[str, dict[str, object]]:
        """DICOM JSON (PS3.18 Annex F) without bulk data; empty of one that could not be read."""
        return {} if self.entry is None else self.entry.attributes

    @property
    def number_of_frames(self) -> int:
        """That can be had one by one; 0 where none can, and `why_no_frames` says why."""
        pixels = None if self.entry is None else self.entry.pixels
        return 0 if pixels is None else len(pixels.frames)

    @property
    def why_no_frames(self) -> str:
        if self.entry is None:
            return "the instance could not be read" if self.trouble is None else self.trouble.message
        return "it has no pixel data" if self.entry.pixels is None else self.entry.pixels.why_not


@dataclass(frozen=True, slots=True)
class SeriesObject:
    """``instances`` are those that are shown, one for each SOP Instance UID, in the order of the UIDs; ``beside`` are
    the other contents of those UIDs that this series has.

    Which is shown: one that is not damaged before one that is; of several the one that was archived last, for a
    correction comes after what it corrects. It is said to be conflicting unless all are one data set.

    ``is_stored``: it is as the store has it, and not derived just now. ``by_content``: ``instances`` and ``beside`` by
    SOP Instance UID and SHA-256."""

    study_uid: Uid
    series_uid: Uid
    name: str
    instances: tuple[Instance, ...]
    beside: tuple[Instance, ...] = ()
    is_stored: bool = False
    by_content: Mapping[tuple[Uid, str], Instance] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = {(one.sop_instance_uid, one.item.sha256): one for one in (*self.beside, *self.instances)}
        object.__setattr__(self, "by_content", found)

    def instance(self, sop_instance_uid: str) -> Instance:
        """Raises Permanent (code "instance-not-found")."""
        found = next((one for one in self.instances if one.sop_instance_uid == sop_instance_uid), None)
        if found is None:
            raise Permanent("the series has no such instance", code="instance-not-found")
        return found


def series_of(
    found: Found,
    series: Uid,
    items: Sequence[ManifestInstance],
    name: str,
    entries: Mapping[Known, Entry],
    failed: Mapping[Known, DicomwatchdError],
    *,
    is_stored: bool,
) -> SeriesObject:
    """A series of a study as it was ``found``: with what is derived of these ``items``, and why not of others."""
    manifest = found.manifest
    variants = {one.sop_instance_uid: one for one in manifest.variants}
    by_uid: dict[Uid, list[Instance]] = {}
    for item in items:
        known = item.sop_instance_uid, item.sha256
        by_uid.setdefault(item.sop_instance_uid, []).append(
            Instance(
                manifest.study_uid,
                item,
                standing_of(item, variants.get(item.sop_instance_uid)),
                entries.get(known),
                trouble=failed.get(known),
                places=(item, *found.elsewhere.get(item.content, ())),
            )
        )
    contents = _contents(manifest, by_uid)
    shown, beside = [], []
    for uid in sorted(by_uid):
        first, *rest = sorted(by_uid[uid], key=_rank, reverse=True)
        named = [
            replace(one, others=tuple(sorted(contents[uid] - {one.item.sha256}))) if len(contents[uid]) > 1 else one
            for one in (first, *rest)
        ]
        shown.append(named[0])
        beside += named[1:]
    return SeriesObject(manifest.study_uid, series, name, tuple(shown), tuple(beside), is_stored)


def _contents(manifest: Manifest, wanted: Mapping[Uid, object]) -> dict[Uid, set[str]]:
    contents: dict[Uid, set[str]] = {}
    for item in manifest.instances:
        if item.sop_instance_uid in wanted:
            contents.setdefault(item.sop_instance_uid, set()).add(item.sha256)
    return contents


def _rank(one: Instance) -> tuple[bool, bool, str, str]:
    """The highest is shown."""
    return one.standing is not Standing.DAMAGED, one.entry is not None, one.item.stored_at, one.item.sha256


def entries_of(known: SeriesObject) -> dict[Known, Entry]:
    """What is derived of its instances, shown or not."""
    return {one.entry.known: one.entry for one in (*known.instances, *known.beside) if one.entry is not None}


def as_of(known: SeriesObject, found: Found) -> SeriesObject:
    """With what the manifest says now: a later revision may know of damage, or of other contents in other series."""
    entries = entries_of(known)
    failed = {
        (one.sop_instance_uid, one.item.sha256): one.trouble
        for one in (*known.instances, *known.beside)
        if one.trouble is not None
    }
    items = [item for item in found.manifest.instances if item.series_uid == known.series_uid]
    return series_of(found, known.series_uid, items, known.name, entries, failed, is_stored=known.is_stored)
