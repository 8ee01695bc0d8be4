"""Objects that the store does not give to us: somebody else's, perhaps, who lets nobody read them. Such an answer of
one object that is not known to be our own must not be taken for trouble with the whole archive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from dicomwatchd.archive.stores.port import Chunk, ObjectStore
from dicomwatchd.errors import ArchiveRefused, CredentialsRefused, EncryptionKeyUnusable, Permanent

#: An answer that says no, of one object or of all.
REFUSALS = (ArchiveRefused, CredentialsRefused, EncryptionKeyUnusable)


def without_withheld(store: ObjectStore) -> ObjectStore:
    """The store, but that what it refuses to give is Permanent (code "withheld"): a matter of that object."""
    return cast(ObjectStore, _ToldApart(store))


class _ToldApart:
    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read(self, *what: Any, **how: Any) -> Iterator[Chunk]:
        try:
            yield from self._store.read(*what, **how)
        except REFUSALS as error:
            raise Permanent("the daemon may not read it in the store", code="withheld") from error
