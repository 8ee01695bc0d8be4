"""Deriving what a series object says: each instance is read from the store once, whole, and compared with its
SHA-256."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

from dicomwatchd.archive.layout.bundle import pieces
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import DicomwatchdError, Fatal, Stopping, Transient
from dicomwatchd.fetch.sources import BadObject, Source, chunks, first_right
from dicomwatchd.model import Uid
from dicomwatchd.ports import Map
from dicomwatchd.series.document import Entry, Known, shared
from dicomwatchd.series.extract import extract
from dicomwatchd.series.values import Seen

_T = TypeVar("_T")
#: What lies between two instances that are read together is read, too: up to here that costs less than a request.
_GAP_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Derived:
    """``entries`` of those that could be read; ``failed`` are the others, and why. ``read_bytes``: of the store."""

    entries: Mapping[Known, Entry]
    failed: Mapping[Known, DicomwatchdError]
    read_bytes: int = 0


class Patience:
    """A read that breaks off is begun again: no client repeats a request whose body it has begun to hand out.
    ``jitter`` gives a number in [0, 1)."""

    def __init__(
        self,
        attempts: int = 3,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._attempts, self._sleep, self._jitter = attempts, sleep, jitter

    def __call__(self, read: Callable[[], _T]) -> _T:
        """Raises what ``read`` raises, Transient the last time only."""
        for attempt in range(1, self._attempts):
            try:
                return read()
            except Transient:
                self._sleep(attempt * (0.5 + self._jitter()))
        return read()


PATIENT = Patience()


def derive(
    store: ObjectStore,
    study: Uid,
    instances: Sequence[ManifestInstance],
    places: Callable[[ManifestInstance], Iterable[ManifestInstance]],
    known: Mapping[Known, Entry],
    *,
    map: Map = map,
    progress: Callable[[int], None] = lambda _bytes: None,
    patience: Patience = PATIENT,
) -> Derived:
    """All ``instances`` that are not ``known`` are read, from the first of their ``places`` that has them; neighbours
    in a bundle together. One that is damaged, missing or cold stops no other. ``progress`` is told of bytes read, from
    the threads of ``map``. Raises OutOfReach where the store does not answer, Stopping, Fatal."""
    entries: dict[Known, Entry] = {}
    failed: dict[Known, DicomwatchdError] = {}
    read_bytes = 0
    seen = Seen()
    first: Mapping[str, dict[str, object]] = {}

    def one(item: ManifestInstance) -> Entry | DicomwatchdError:
        try:
            return _read(store, study, item, places(item), progress, seen, patience)
        except (Fatal, Stopping):
            raise
        except Transient as error:
            if error.endpoint is not None:
                raise
            return error
        except DicomwatchdError as error:
            return error

    def several(group: list[ManifestInstance]) -> list[Entry | DicomwatchdError]:
        there = _read_together(store, group, progress, seen) if len(group) > 1 else {}
        return [there.get(item) or one(item) for item in group]

    wanted = {(item.sop_instance_uid, item.sha256): item for item in instances}
    entries.update((key, known[key]) for key in wanted if key in known)
    groups = neighbours(item for key, item in sorted(wanted.items()) if key not in known)
    for group, results in zip(groups, map(several, groups), strict=True):
        for item, result in zip(group, results, strict=True):
            key = item.sop_instance_uid, item.sha256
            if isinstance(result, DicomwatchdError):
                failed[key] = result
                continue
            read_bytes += item.size_bytes
            first = first or next(iter(entries.values()), result).attributes
            entries[key] = replace(result, attributes=shared(dict(result.attributes), first))
    return Derived(entries, failed, read_bytes)


def neighbours(instances: Iterable[ManifestInstance]) -> list[list[ManifestInstance]]:
    """What is read in one go: instances that lie near each other in a bundle, in the order in which they lie there;
    each other by itself."""
    groups: list[list[ManifestInstance]] = []
    in_bundles: dict[str, list[ManifestInstance]] = {}
    for item in instances:
        if item.is_in_bundle:
            in_bundles.setdefault(item.key, []).append(item)
        else:
            groups.append([item])
    for members in in_bundles.values():
        members.sort(key=lambda member: member.offset_bytes)
        last: ManifestInstance | None = None
        for item in members:
            gap = _GAP_BYTES + 1 if last is None else item.offset_bytes - last.span.end_bytes
            if 0 <= gap <= _GAP_BYTES:
                groups[-1].append(item)
            else:
                groups.append([item])
            last = item
    return groups


def _read_together(
    store: ObjectStore, group: Sequence[ManifestInstance], progress: Callable[[int], None], seen: Seen
) -> dict[ManifestInstance, Entry]:
    """Those that come right that way; of the others nothing is said. Raises Stopping, Fatal."""
    there: dict[ManifestInstance, Entry] = {}
    of_span = {item.span: item for item in group}
    begin, end = group[0].offset_bytes, group[-1].span.end_bytes
    try:
        chunks = store.read(group[0].key, offset_bytes=begin, length_bytes=end - begin)
        for span, cut in groupby(pieces(chunks, begin, list(of_span)), key=itemgetter(0)):
            if span is None:
                continue
            item = of_span[span]
            found = extract((piece for _, piece in cut), item.size_bytes, item.transfer_syntax_uid, seen)
            progress(found.size_bytes)
            if (found.sha256, found.size_bytes) == (item.sha256, item.size_bytes):
                there[item] = Entry.of(item, found)
    except (Fatal, Stopping):
        raise
    except DicomwatchdError:
        pass
    return there


def _read(
    store: ObjectStore,
    study: Uid,
    item: ManifestInstance,
    places: Iterable[ManifestInstance],
    progress: Callable[[int], None],
    seen: Seen,
    patience: Patience,
) -> Entry:
    def read(source: Source) -> Entry:
        found = patience(lambda: extract(chunks(store, source), item.size_bytes, item.transfer_syntax_uid, seen))
        progress(found.size_bytes)
        if found.sha256 == item.sha256 and found.size_bytes == source.item.size_bytes:
            return Entry.of(item, found)
        raise BadObject("the stored object's SHA-256 is not the recorded one")

    return first_right(store, study, places, read)
