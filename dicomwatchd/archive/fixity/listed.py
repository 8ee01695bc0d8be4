"""What the store lists, as what is seen of its objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dicomwatchd.archive import keys
from dicomwatchd.archive.fixity.seen import Seen
from dicomwatchd.archive.stores.port import ObjectStore, StoredObject


def of_listing(found: StoredObject) -> Seen:
    return Seen(found.key, found.size_bytes, found.etag, found.modified_at)


@dataclass(frozen=True, slots=True)
class Listed:
    """Implements Source, by a walk of the store's listing. ListObjectsV2 shows what is current, and nothing else."""

    store: ObjectStore
    kind: str = "listing"
    identity: str = "listing"
    as_of: float | None = None

    def below_studies(self, after: str) -> Iterator[Seen]:
        return map(of_listing, self.store.listing(keys.STUDIES, after))
