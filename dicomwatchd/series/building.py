"""Deriving what a series object says: each instance is read from the store once, whole, and compared with its
SHA-256."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import ColdObject, DicomwatchdError, Fatal, Stopping, Transient
from dicomwatchd.fetch.sources import BadObject, chunks, sources
from dicomwatchd.model import Uid
from dicomwatchd.ports import Map
from dicomwatchd.series.document import Entry, Known, shared
from dicomwatchd.series.extract import extract
from dicomwatchd.series.values import Seen


@dataclass(frozen=True, slots=True)
class Derived:
    """``entries`` of those that could be read; ``failed`` are the others, and why. ``read_bytes``: of the store."""

    entries: Mapping[Known, Entry]
    failed: Mapping[Known, DicomwatchdError]
    read_bytes: int = 0


def derive(
    store: ObjectStore,
    study: Uid,
    instances: Sequence[ManifestInstance],
    places: Callable[[ManifestInstance], Iterable[ManifestInstance]],
    known: Mapping[Known, Entry],
    *,
    map: Map = map,
    progress: Callable[[int], None] = lambda _bytes: None,
) -> Derived:
    """All ``instances`` that are not ``known`` are read, from the first of their ``places`` that has them. One that is
    damaged, missing or cold stops no other. ``progress`` is told of bytes read, from the threads of ``map``. Raises
    OutOfReach where the store does not answer, Stopping, Fatal."""
    entries: dict[Known, Entry] = {}
    failed: dict[Known, DicomwatchdError] = {}
    read_bytes = 0
    seen = Seen()
    first: Mapping[str, dict[str, object]] = {}

    def one(item: ManifestInstance) -> Entry | DicomwatchdError:
        try:
            return _read(store, study, item, places(item), progress, seen)
        except (Fatal, Stopping):
            raise
        except Transient as error:
            if error.endpoint is not None and not isinstance(error, ColdObject):
                raise
            return error
        except DicomwatchdError as error:
            return error

    wanted = {(item.sop_instance_uid, item.sha256): item for item in instances}
    todo = [item for key, item in sorted(wanted.items()) if key not in known]
    entries.update((key, known[key]) for key in wanted if key in known)
    for item, result in zip(todo, map(one, todo), strict=True):
        key = item.sop_instance_uid, item.sha256
        if isinstance(result, DicomwatchdError):
            failed[key] = result
            continue
        read_bytes += item.size_bytes
        first = first or next(iter(entries.values()), result).attributes
        entries[key] = replace(result, attributes=shared(dict(result.attributes), first))
    return Derived(entries, failed, read_bytes)


def _read(
    store: ObjectStore,
    study: Uid,
    item: ManifestInstance,
    places: Iterable[ManifestInstance],
    progress: Callable[[int], None],
    seen: Seen,
) -> Entry:
    trouble: DicomwatchdError | None = None
    for source in sources(store, study, places):
        try:
            found = extract(chunks(store, source), item.size_bytes, item.transfer_syntax_uid, seen)
        except ColdObject as error:
            trouble = error
            continue
        except BadObject as error:
            trouble = trouble or error
            continue
        progress(found.size_bytes)
        if found.sha256 == item.sha256 and found.size_bytes == source.item.size_bytes:
            return Entry.of(item, found)
        trouble = trouble or BadObject("the stored object's SHA-256 is not the recorded one")
    raise trouble or BadObject("nothing in the store could be read")
