"""Which of a study's manifests count, and what all of them list together.

Whoever may only create objects can put manifests beside the program's own. He shall be able to add, and never to hide:
a revision counts if it goes on from one that counts (it names that one's SHA-256, lists all that it lists, changes
nothing of what it says of patient and series, and has a number that can be), and what any other lists is taken along.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from dicomwatchd.archive import keys
from dicomwatchd.archive.documents import LEFT_OUT, dumps
from dicomwatchd.archive.layout import erasures, manifests
from dicomwatchd.archive.layout.instance import Content, ManifestInstance, Place
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.layout.manifests import Listed
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.archive.stores import withheld
from dicomwatchd.archive.stores.port import ObjectStore, StoredObject
from dicomwatchd.archive.stores.reading import MANIFEST_LIMIT_BYTES, values
from dicomwatchd.errors import (
    ArchiveRefused,
    BadManifest,
    BeyondReadLimit,
    ForeignManifest,
    NewerManifest,
    NoSuchObject,
    Permanent,
    Transient,
)
from dicomwatchd.model import DicomJson, Uid, has_value
from dicomwatchd.patients import distinct, document
from dicomwatchd.ports import Map

#: The flag of a catalogue's record that was rebuilt from manifests that do not go on from one another: it vouches for
#: none of them.
DISPUTED = "manifests-disagree"
#: Flags that say something of a record, and stand in no manifest of ours. Taken over from one they would hold for good.
_OF_RECORDS = frozenset({DISPUTED, LEFT_OUT})

#: So many free numbers may lie between a revision and the one it goes on from: a catalogue was ahead of its store.
PLAUSIBLE_GAP = 1000
#: Of one study, beside the one that the catalogue vouches for: what is beyond is named and not read.
LIMIT_REVISIONS = 4096
LIMIT_BYTES = 1024**3
LIMIT_EACH_BYTES = MANIFEST_LIMIT_BYTES
LIMIT_INSTANCES = 500_000
#: Values of JSON beside the instances', in all.
LIMIT_OTHER_VALUES = 8_000_000
#: So many are read side by side, and of large ones one alone: each takes several times its size of memory.
_AT_ONCE = 8
_AT_ONCE_BYTES = 8 * 1024**2


@dataclass(frozen=True, slots=True)
class Disregarded:
    """A revision that does not count, and why, in words that may be logged."""

    revision: int
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A revision that cannot be used at all. ``kind`` is BadManifest, NewerManifest, ForeignManifest, BeyondReadLimit,
    or whatever else the store answered, with its ``code``. ``error`` is what the store said, where it does not give
    this one to us; ``kind`` is Permanent then."""

    key: str
    revision: int
    kind: type[Permanent]
    code: str
    reason: str
    error: ArchiveRefused | Transient | None = None


@dataclass(frozen=True, slots=True)
class Lineage:
    """``current`` is the revision that counts, None if none does; ``whole`` lists what it lists and what any other
    lists beside, None if none can be read: ``current`` itself where that is all. ``elsewhere`` are further places that
    contents have by other revisions.

    ``disregarded`` and ``refused`` are the revisions that ``current`` does not account for, highest first. ``vouched``:
    the catalogue names one that ``current`` is or goes on from.
    """

    listed: Listed
    current: Manifest | None
    whole: Manifest | None
    elsewhere: Mapping[Content, tuple[ManifestInstance, ...]]
    disregarded: tuple[Disregarded, ...]
    refused: tuple[Refused, ...]
    vouched: Manifest | None

    @property
    def holds(self) -> bool:
        return not self.disregarded and not self.refused

    def of_vouched(self, vouched: Manifest) -> Lineage:
        """As if there were nothing above the one that the catalogue vouches for but numbers that are taken."""
        return replace(self, current=vouched, whole=vouched, elsewhere={}, disregarded=(), refused=())

    def free_above(self, revision: int) -> int:
        """The lowest number above ``revision`` that no manifest has. Raises Permanent when there is none."""
        number = max(revision, self.listed.floor) + 1
        while number in self.listed.revisions:
            number += 1
        if number > keys.HIGHEST_REVISION:
            raise Permanent("the study has no free revision numbers left", code="no-revision-left")
        return number


def vouched_for(store: ObjectStore, listed: Listed, record: StudyRecord | None) -> Manifest | None:
    """The manifest that the catalogue names by its SHA-256, if the store holds it. Raises Transient, Permanent."""
    if record is None or DISPUTED in record.flags or record.revision not in listed.revisions:
        return None
    try:
        found = manifests.load(store, keys.manifest(listed.study_uid, record.revision), sha256=record.manifest_sha256)
    except BadManifest:
        return None
    except NoSuchObject as error:
        raise _lost() from error
    return found if found.sha256 == record.manifest_sha256 else None


def current(store: ObjectStore, study_uid: Uid, record: StudyRecord | None = None) -> Manifest | None:
    """The revision that counts, None if none does, or all that do were erased. Raises Transient, Permanent."""
    floor = erasures.floor_of(erasures.newest(store, study_uid))
    record = erasures.unless_erased(record, floor)
    listed = manifests.listed(store, study_uid, floor=floor)
    return trace(store, listed, vouched_for(store, listed, record)).current


def trace(
    store: ObjectStore,
    listed: Listed,
    vouched: Manifest | None,
    *,
    archive_id: str | None = None,
    below: bool = False,
    lenient: bool = False,
    map: Map = map,
) -> Lineage:
    """Read the study's manifests and tell which of them count.

    What lies below one that the catalogue vouches for is in it: the daemon that wrote it saw to that. So it is read
    only if asked for (``below``), and then for what it lists. Without one all are read, up to a limit.

    Raises Transient when it cannot be told, Permanent where the store will not give one and none is vouched for, unless
    that is ``lenient``.
    """
    judgement = _Judgement(listed, vouched, archive_id)
    known = frozenset(vouched.damaged_keys) if vouched is not None else frozenset()
    floor = vouched.revision if vouched is not None else 0
    wanted = [
        (revision, found)
        for revision, found in sorted(listed.revisions.items())
        if revision != floor and (below or (revision > floor and found.key not in known))
    ]
    if vouched is not None and not below:
        judgement.take(vouched)
    left_bytes = LIMIT_BYTES

    def one(task: tuple[int, StoredObject]) -> Manifest | Refused:
        return _load(store, *task, lenient=lenient or vouched is not None)

    taken_vouched = vouched is None or not below
    number = 0
    for batch in _batches(wanted):
        within = []
        for revision, found in batch:
            number += 1
            left_bytes -= found.size_bytes
            if (
                number > LIMIT_REVISIONS
                or found.size_bytes > LIMIT_EACH_BYTES
                or left_bytes < 0
                or judgement.instances > LIMIT_INSTANCES
                or judgement.other_values > LIMIT_OTHER_VALUES
            ):
                left_bytes += found.size_bytes
                judgement.refuse(
                    _refused(found.key, revision, BeyondReadLimit, "it exceeds the amount that is read for one study")
                )
            else:
                within.append((revision, found))
        for result in map(one, within):
            if isinstance(result, Refused):
                judgement.refuse(result)
                continue
            if not taken_vouched and vouched is not None and result.revision > vouched.revision:
                judgement.take(vouched)
                taken_vouched = True
            if not judgement.take(result):
                # In the vouched one already, and not kept: a study may have any number of those.
                number -= 1
                left_bytes += listed.revisions[result.revision].size_bytes
    if not taken_vouched and vouched is not None:
        judgement.take(vouched)
    return judgement.result()


def _batches(wanted: list[tuple[int, StoredObject]]) -> Iterator[list[tuple[int, StoredObject]]]:
    batch: list[tuple[int, StoredObject]] = []
    size_bytes = 0
    for one in wanted:
        if batch and (len(batch) == _AT_ONCE or size_bytes + one[1].size_bytes > _AT_ONCE_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(one)
        size_bytes += one[1].size_bytes
    if batch:
        yield batch


def _load(store: ObjectStore, revision: int, found: StoredObject, *, lenient: bool) -> Manifest | Refused:
    try:
        return manifests.load(store, found.key, etag=found.etag, size_bytes=found.size_bytes)
    except NoSuchObject as error:
        raise _lost() from error
    except Permanent as error:
        if not isinstance(error, BadManifest | NewerManifest) and not lenient:
            raise
        return Refused(found.key, revision, type(error), error.code, error.message)
    except withheld.REFUSALS as error:
        # An object of somebody else's, perhaps, which he lets nobody read: it must not stop the whole archive.
        return Refused(found.key, revision, Permanent, error.code, "the daemon may not read it in the store", error)


def _refused(key: str, revision: int, kind: type[Permanent], reason: str) -> Refused:
    return Refused(key, revision, kind, kind.code, reason)


def _lost() -> Transient:
    return Transient("a manifest that the store lists is missing", code="manifest-lost")


class _Judgement:
    """Takes the revisions in the order of their numbers. What is kept of each is small: instances that two revisions
    list alike are one object, and the attributes of those that do not count are dropped."""

    def __init__(self, listed: Listed, vouched: Manifest | None, archive_id: str | None) -> None:
        self._listed = listed
        self._vouched = vouched
        self._archive_id = archive_id
        self._alike: dict[ManifestInstance, ManifestInstance] = {}
        self._counted: list[Manifest] = []
        self._parent: dict[int, Manifest] = {}
        self._others: list[tuple[Manifest, str]] = []
        self._refused: list[Refused] = []
        #: By content, the places that it has, those of revisions that count first.
        self._places: dict[Content, dict[Place, ManifestInstance]] = {}
        self._numbers = sorted(listed.revisions)
        self.other_values = 0
        self._in_vouched: frozenset[Content] = frozenset()

    @property
    def instances(self) -> int:
        return len(self._alike)

    def refuse(self, refused: Refused) -> None:
        self._refused.append(refused)

    def take(self, manifest: Manifest) -> bool:
        """False where it only says what the vouched one above it says as well."""
        if self._archive_id is not None and manifest.archive_id != self._archive_id:
            reason = "a manifest belongs to another archive"
            self._refused.append(_refused(manifest.key, manifest.revision, ForeignManifest, reason))
            return True
        is_within = self._is_within_vouched(manifest)
        if not is_within:
            self.other_values += _other_values(manifest)
        manifest = manifest.shared(self._alike)
        why_not = self._why_not(manifest)
        if why_not is None:
            self._counted.append(manifest)
        else:
            is_dropped = self._counted or is_within
            bare = manifest
            if is_dropped:
                bare = replace(
                    manifest,
                    attributes={},
                    series={},
                    identities=(),
                    orders=(),
                    signs={},
                    listed={},
                    exports=(),
                    completeness=None,
                )
            self._others.append((replace(bare, instances=()) if is_within else bare, why_not))
        for item in manifest.instances:
            self._places.setdefault(item.content, {}).setdefault(item.place, item)
        return not is_within

    def _is_within_vouched(self, manifest: Manifest) -> bool:
        vouched = self._vouched
        if vouched is None or manifest.revision >= vouched.revision:
            return False
        if not self._in_vouched:
            self._in_vouched = frozenset(item.content for item in vouched.instances)
        return all(item.content in self._in_vouched for item in manifest.instances)

    def _why_not(self, manifest: Manifest) -> str | None:
        """Why this one does not count; None if it does."""
        vouched = self._vouched
        if vouched is not None and manifest.revision <= vouched.revision:
            return None if manifest.revision == vouched.revision else ""
        if not _OF_RECORDS.isdisjoint(manifest.flags):
            return "it has a flag that only the catalogue's records have"
        last = self._counted[-1].revision if self._counted else self._listed.floor
        if self._free_between(last, manifest.revision) > PLAUSIBLE_GAP:
            return "its number is far above the others"
        if not self._counted:
            return None
        parent = next((one for one in self._counted if one.sha256 == manifest.previous_sha256), None)
        if parent is not None:
            self._parent[manifest.revision] = parent
            return _does_not_extend(manifest, parent)
        if not self._accounts_for_damage(manifest):
            return "it does not name the revision below it"
        return next(filter(None, (_does_not_extend(manifest, one) for one in self._counted)), None)

    def _accounts_for_damage(self, manifest: Manifest) -> bool:
        """The one below it may be damaged, or have been: its hash cannot be compared then, and all that can be read
        has to be in it."""
        if any(one.kind in (BadManifest, NewerManifest) for one in self._refused):
            return True
        below = [*self._counted, *(other for other, _ in self._others)]
        return {one.key for one in below} <= set(manifest.damaged_keys)

    def _free_between(self, low: int, high: int) -> int:
        return high - low - 1 - (bisect_left(self._numbers, high) - bisect_right(self._numbers, low))

    def result(self) -> Lineage:
        current = self._current()
        if current is not None:
            # A program that knows nothing of them leaves them out of the revisions that it makes.
            patients = [one.identities for one in self._counted if one is not current]
            orders = [one.orders for one in self._counted if one is not current]
            current = current.naming(
                distinct(current.identities, *patients) if any(patients) else current.identities,
                distinct(current.orders, *orders) if any(orders) else current.orders,
            )
        disregarded = sorted(self._disregarded(current), key=lambda one: -one.revision)
        highest = current.revision if current is not None else 0
        named = frozenset(current.damaged_keys) if current is not None else frozenset()
        refused = [
            one
            for one in self._refused
            if one.kind is BeyondReadLimit or (one.revision > highest and one.key not in named)
        ]
        whole, elsewhere = self._union(current)
        return Lineage(
            listed=self._listed,
            current=current,
            whole=whole,
            elsewhere=elsewhere,
            disregarded=tuple(disregarded),
            refused=tuple(sorted(refused, key=lambda one: -one.revision)),
            vouched=self._vouched,
        )

    def _current(self) -> Manifest | None:
        """The highest that counts and lists everything; if none does, the highest that counts."""
        for manifest in reversed(self._counted):
            if len(manifest.instances) == len(self._places):
                return manifest
        return self._counted[-1] if self._counted else None

    def _disregarded(self, current: Manifest | None) -> Iterator[Disregarded]:
        if current is None:
            for other, reason in self._others:
                yield Disregarded(other.revision, reason)
            return
        line, up = {current.revision}, current
        while (parent := self._parent.get(up.revision)) is not None:
            line.add(parent.revision)
            up = parent
        contents = {item.content for item in current.instances}
        named = frozenset(current.damaged_keys)
        less = f"it lists objects that revision {current.revision} does not list"
        for other, reason in (*self._others, *((one, "") for one in self._counted if one.revision not in line)):
            if any(item.content not in contents for item in other.instances):
                yield Disregarded(other.revision, reason or less)
            elif (reason or other.revision > current.revision) and other.key not in named:
                yield Disregarded(other.revision, reason or "it continues an older revision than the newest")

    def _union(self, current: Manifest | None) -> tuple[Manifest | None, dict[Content, tuple[ManifestInstance, ...]]]:
        chosen = {item.content: item for item in current.instances} if current is not None else {}
        elsewhere: dict[Content, tuple[ManifestInstance, ...]] = {}
        for content, places in self._places.items():
            item = chosen.setdefault(content, next(iter(places.values())))
            others = tuple(other for place, other in places.items() if place != item.place)
            if others:
                elsewhere[content] = others
        face = current or (self._others[-1][0] if self._others else None)
        if face is None or (current is not None and len(chosen) == len(current.instances)):
            return current, elsewhere
        return face.listing(chosen.values()), elsewhere


def _other_values(manifest: Manifest) -> int:
    """What it has beside the instances, which revisions share; not told by its text, where paths hold commas, too."""
    said = [*map(document, manifest.identities), *map(document, manifest.orders)]
    complete = manifest.completeness and manifest.completeness.document()
    told = [manifest.signs, manifest.listed, [one.document() for one in manifest.exports], complete]
    beside = dumps([manifest.attributes, manifest.series, manifest.flags, manifest.damaged_keys, said, told])
    return values(beside.encode()) + sum(len(item.repairs) for item in manifest.instances)


def _does_not_extend(manifest: Manifest, parent: Manifest) -> str | None:
    name = f"revision {parent.revision}"
    sizes = {item.content: item.size_bytes for item in manifest.instances}
    if any(item.content not in sizes for item in parent.instances):
        return f"it omits objects that {name} lists"
    if any(sizes[item.content] != item.size_bytes for item in parent.instances):
        return f"it lists instances of {name} with another size"
    if manifest.archive_id != parent.archive_id:
        return f"it belongs to another archive than {name}"
    if not _keeps(manifest.attributes, parent.attributes) or not all(
        uid in manifest.series and _keeps(manifest.series[uid], of_series) for uid, of_series in parent.series.items()
    ):
        return f"it changes attributes of {name}"
    return None


def _keeps(later: DicomJson, earlier: DicomJson) -> bool:
    """Whether each is there as it was; one that had no value may have one by now."""
    return all(tag in later and (later[tag] == element or not has_value(element)) for tag, element in earlier.items())
