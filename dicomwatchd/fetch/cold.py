"""What of a fetch is in cold storage: found before anything of it is asked for, asked back, and waited for."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.instance import Content, ManifestInstance
from dicomwatchd.archive.stores.port import TIERED, ObjectStore, Restoring, Speed, StoredObject
from dicomwatchd.errors import DicomwatchdError, NoSuchObject, NotSupported, Permanent, Transient
from dicomwatchd.fetch.plan import Placed
from dicomwatchd.model import Uid
from dicomwatchd.ports import Map

#: Restoring takes hours, or minutes where that is paid for.
FIRST_PAUSE_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 900.0
_GROWTH = 1.5
_TAKES: Mapping[Speed, str] = {"expedited": "1 to 5 minutes", "standard": "3 to 5 hours", "bulk": "5 to 12 hours"}
_TAKES_LONGER: Mapping[Speed, str] = {"standard": "up to 12 hours", "bulk": "up to 48 hours"}


@dataclass(frozen=True, slots=True)
class Cold:
    """``instances`` cannot be read anywhere in the store before the object was restored whose key stands beside each;
    ``objects`` are these as HEAD shows them, in the order of their keys."""

    instances: Mapping[ManifestInstance, str] = field(default_factory=dict)
    objects: tuple[StoredObject, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Of the objects: a bundle is restored as a whole."""
        return sum(seen.size_bytes for seen in self.objects)

    @property
    def under_way(self) -> int:
        """Of the objects so many have been asked back already."""
        return sum(_is_under_way(seen) for seen in self.objects)

    def takes(self, speed: Speed) -> str:
        """How long restoring takes, as Amazon says; of several classes the slowest."""
        return takes({seen.storage_class for seen in self.objects}, speed)

    def may_expire_while_waiting(self, speed: Speed, days: int) -> bool:
        """Whether restoring the last of several objects may take longer than the first is kept."""
        is_slow = any(seen.storage_class == "DEEP_ARCHIVE" for seen in self.objects)
        return len(self.objects) > 1 and is_slow and speed == "bulk" and days == 1


NOTHING_COLD = Cold()


def takes(storage_classes: Collection[str | None], speed: Speed) -> str:
    """How long it takes to restore objects of these classes.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects-retrieval-options.html"""
    if not set(storage_classes) <= {"GLACIER"}:
        return _TAKES_LONGER.get(speed, _TAKES[speed])
    return _TAKES[speed]


@dataclass(frozen=True, slots=True)
class InClass:
    """How many instances' objects and bundles of a study are in one storage class (None: the usual one), and how large
    they are together. ``is_cold``: in cold storage, unless they were restored, which a listing does not tell."""

    storage_class: str | None
    objects: int
    size_bytes: int
    is_cold: bool


def classes(store: ObjectStore, study: Uid) -> list[InClass]:
    """By one listing of the study, the usual class first. Raises Transient, Permanent, Fatal."""
    found: dict[str | None, list[StoredObject]] = {}
    for seen in store.listing(keys.study_prefix(study)):
        if keys.holds_instances(seen.key):
            found.setdefault(seen.storage_class, []).append(seen)
    return [
        InClass(name, len(objects), sum(seen.size_bytes for seen in objects), objects[0].is_cold)
        for name, objects in sorted(found.items(), key=lambda one: one[0] or "")
    ]


def find(
    store: ObjectStore,
    study: Uid,
    items: Iterable[ManifestInstance],
    elsewhere: Mapping[Content, tuple[ManifestInstance, ...]] = MappingProxyType({}),
    *,
    thorough: bool = False,
    map: Map = map,
) -> Cold:
    """Which of these instances are in cold storage: by a listing of the study, and by a HEAD of each object that it
    shows there, since a listing shows what was restored in the same way. What another place, or a copy beside it, has
    warm is not cold. Of what its class may have moved there by itself one object is looked at, and the others if that
    is cold; ``thorough``: all of them. Raises Transient, Permanent, Fatal.
    """
    places = {item: (item, *elsewhere.get(item.content, ())) for item in items}
    wanted = {place.key for its in places.values() for place in its}
    listed, suspects, tiered, copies = set[str](), list[str](), list[str](), list[str]()
    for seen in store.listing(keys.study_prefix(study)):
        if seen.key in wanted:
            listed.add(seen.key)
            if seen.is_cold:
                suspects.append(seen.key)
            elif seen.storage_class == TIERED:
                tiered.append(seen.key)
        elif not seen.is_cold and seen.storage_class != TIERED:
            copies.append(seen.key)
    if tiered and (thorough or ((first := store.head(tiered[0])) is not None and first.is_cold)):
        suspects += tiered
    cold = {seen.key: seen for seen in map(store.head, suspects) if seen is not None and seen.is_cold}
    if not cold:
        return NOTHING_COLD
    warm = _Copies(study, copies)
    instances = {
        item: next(place.key for place in its if place.key in cold)
        for item, its in places.items()
        if any(place.key in cold for place in its)
        and not any(warm.have(place) or _may_be_had(place, listed, cold) for place in its)
    }
    return Cold(instances, tuple(cold[key] for key in sorted(set(instances.values()))))


def _may_be_had(place: ManifestInstance, listed: Collection[str], cold: Mapping[str, StoredObject]) -> bool:
    """Whether a place may give the bytes now: it is warm, or a version under what is current may be."""
    if place.key not in cold:
        return place.key in listed or place.version_id is not None
    return place.version_id not in (None, cold[place.key].version_id)


class _Copies:
    """Objects that no manifest names, with the contents of some that it does."""

    def __init__(self, study: Uid, found: Iterable[str]) -> None:
        self._study = study
        self._instances, self._bundles = set[Content](), set[str | None]()
        for key in found:
            if (named := keys.parse_instance(key)) is not None:
                self._instances.add(named[1:])
            self._bundles.add(keys.bundle_sha256(key, study))
        self._bundles.discard(None)

    def have(self, place: ManifestInstance) -> bool:
        return place.content in self._instances or keys.bundle_sha256(place.key, self._study) in self._bundles


def not_there_yet(placed: Iterable[Placed], directory: Path) -> list[ManifestInstance]:
    """The instances of which no file of their size has their name in the folder: what is there needs no restoring.
    Whether it has the right bytes is for the fetch to say."""
    found = []
    for item, path in placed:
        with suppress(OSError):
            there = os.lstat(directory / path)
            if stat.S_ISREG(there.st_mode) and there.st_size == item.size_bytes:
                continue
        found.append(item)
    return found


@dataclass(frozen=True, slots=True)
class Asked:
    """How many objects were asked back now, were under way already, and can be read; ``refused`` says, once for each
    reason, why the store does not restore others."""

    started: int = 0
    under_way: int = 0
    readable: int = 0
    refused: tuple[str, ...] = ()


def ask_back(store: ObjectStore, cold: Cold, speed: Speed, days: int, *, map: Map = map) -> Asked:
    """Ask for each object that is not under way already. A second request with a faster speed overrides the first, and
    both are charged for: only `expedited` does that, which nobody gives by accident. What is gone is not counted.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects.html#restoring-objects-upgrade-tier

    Raises Transient, Fatal.
    """

    def ask(seen: StoredObject) -> Restoring | Permanent | None:
        if _is_under_way(seen) and speed != "expedited":
            return Restoring.UNDER_WAY
        try:
            return _ask(store, seen, speed, days)
        except NoSuchObject:
            return None
        except Permanent as error:
            return error

    outcomes = list(map(ask, cold.objects))
    refused = dict.fromkeys(str(one) for one in outcomes if isinstance(one, Permanent))
    started, under_way, readable = (outcomes.count(one) for one in Restoring)
    return Asked(started, under_way, readable, tuple(refused))


def _ask(store: ObjectStore, seen: StoredObject, speed: Speed, days: int) -> Restoring:
    if seen.storage_class == "DEEP_ARCHIVE" and speed == "expedited":
        raise NotSupported(
            "objects in DEEP_ARCHIVE cannot be restored in minutes", hint="use --restore=standard or --restore=bulk"
        )
    # A class that moves objects by itself brings them back for good, and takes no number of days.
    return store.restore(seen.key, speed, None if seen.storage_class == TIERED else days)


def wait_until_back(
    store: ObjectStore,
    cold: Cold,
    speed: Speed,
    days: int,
    *,
    told: Callable[[int, int], None] = lambda _done, _bytes: None,
    trouble: Callable[[DicomwatchdError], None] = lambda _error: None,
    sleep: Callable[[float], None] = time.sleep,
    map: Map = map,
) -> None:
    """Look at the objects, with growing pauses, until each can be read, or is gone, or cannot be restored. ``told`` is
    told how many objects, and bytes of them, are settled; ``trouble`` of what the store answers meanwhile: it may be
    out of reach for an hour and lose nothing. Raises Fatal.
    """

    def look(seen: StoredObject) -> StoredObject | None:
        try:
            now = store.head(seen.key)
            if now is None or not now.is_cold:
                return None
            if not _is_under_way(now) and _ask(store, now, speed, days) is Restoring.READABLE:
                return None  # whatever HEAD shows: it would be asked for again for ever
            return now
        except Transient as error:
            trouble(error)
            return seen
        except Permanent as error:
            trouble(error)
            return None

    waiting, pause = list(cold.objects), FIRST_PAUSE_SECONDS
    while True:
        waiting = [seen for seen in map(look, waiting) if seen is not None]
        told(len(cold.objects) - len(waiting), cold.size_bytes - sum(seen.size_bytes for seen in waiting))
        if not waiting:
            return
        sleep(pause)
        pause = min(pause * _GROWTH, LONGEST_PAUSE_SECONDS)


def look_again(store: ObjectStore, cold: Cold, *, map: Map = map) -> Cold:
    """The same, as it is now: without what can be read by now, or is gone. Raises Transient, Permanent, Fatal."""
    if not cold.objects:
        return cold
    now = {seen.key: seen for seen in map(store.head, [seen.key for seen in cold.objects]) if seen and seen.is_cold}
    still = {item: key for item, key in cold.instances.items() if key in now}
    return Cold(still, tuple(now[key] for key in sorted(now)))


def _is_under_way(seen: StoredObject) -> bool:
    return seen.restore is not None and seen.restore.is_under_way
