"""Where an instance's bytes may be in the store, the likeliest place first, and reading them from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.stores.port import Chunk, ObjectStore
from dicomwatchd.errors import ColdObject, DicomwatchdError, NoSuchObject, Permanent
from dicomwatchd.model import Uid

T = TypeVar("T")


class BadObject(Permanent):
    """The store does not have the bytes that the manifest records under this key."""

    code = "bad-object"


class MissingObject(BadObject):
    """The store has nothing under this key."""


class Source(NamedTuple):
    """``item`` is what a manifest says of the instance. Its bytes begin at ``offset_bytes`` of the object under
    ``key``."""

    item: ManifestInstance
    key: str
    version_id: str | None
    offset_bytes: int


def sources(store: ObjectStore, study: Uid, places: Iterable[ManifestInstance]) -> Iterator[Source]:
    """What the key holds now, the recorded version, keys of the same SHA-256; of each of these places, one after the
    other. The store is asked for the last kind only when the others were not enough."""
    for item in places:
        yield Source(item, item.key, None, item.offset_bytes)
        if item.version_id is not None:
            yield Source(item, item.key, item.version_id, item.offset_bytes)
        yield from _others(store, study, item)


def _others(store: ObjectStore, study: Uid, item: ManifestInstance) -> Iterator[Source]:
    of_bundle = keys.bundle_sha256(item.key, study)
    own = keys.instance(study, item.series_uid, item.sop_instance_uid, item.sha256)
    try:
        if of_bundle is not None:
            bundles = list(store.listing(keys.bundle(study, of_bundle).removesuffix(".tar")))
            for found in bundles:
                if found.key != item.key and keys.bundle_sha256(found.key, study) == of_bundle:
                    yield Source(item, found.key, None, item.offset_bytes)
        others = list(store.listing(own.rpartition("/")[0] + "/"))
    except DicomwatchdError:
        return  # what was wrong with the recorded object is the news
    for found in others:
        if found.key != item.key and keys.is_instance(
            found.key, study, item.series_uid, item.sop_instance_uid, item.sha256
        ):
            yield Source(item, found.key, None, 0)


def first_right(store: ObjectStore, study: Uid, places: Iterable[ManifestInstance], read: Callable[[Source], T]) -> T:
    """What ``read`` gives of the first source where it raises neither BadObject nor ColdObject. Where it raises one of
    them everywhere: ColdObject if any was that, for it is to be had once it was restored, and else the first."""
    trouble: Permanent | None = None
    for source in sources(store, study, places):
        try:
            return read(source)
        except ColdObject as error:
            trouble = error
        except BadObject as error:
            trouble = trouble or error
    raise trouble or BadObject("nothing in the store could be read")


def chunks(store: ObjectStore, source: Source, buffer: memoryview | None = None) -> Iterator[Chunk]:
    """All of the instance, as `part` reads it."""
    # All that an object of its own has is read: it may be longer than the instance.
    length_bytes = source.item.size_bytes if keys.is_bundle(source.key) else None
    return part(store, source, 0, length_bytes, buffer)


def part(
    store: ObjectStore, source: Source, offset_bytes: int, length_bytes: int | None, buffer: memoryview | None = None
) -> Iterator[Chunk]:
    """The store's chunks from ``offset_bytes`` of the instance on; what the store says of the object in particular
    becomes BadObject, but for ColdObject: that is to be had once it was restored. Raises Transient, too."""
    try:
        yield from store.read(
            source.key,
            source.version_id,
            offset_bytes=source.offset_bytes + offset_bytes,
            length_bytes=length_bytes,
            buffer=buffer,
        )
    except NoSuchObject as error:
        raise MissingObject("the object is missing from the store") from error
    except ColdObject:
        raise
    except Permanent as error:
        raise BadObject(error.message) from error
