"""So many requests a second and no more: going through a whole archive must not be in anybody's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.records import Query, StudyRecord
from dicomwatchd.archive.stores.port import CHUNK_BYTES, Chunk, ObjectStore, StoredObject
from dicomwatchd.model import Uid

_Found = TypeVar("_Found")

#: S3 lists so many objects in one request (ListObjectsV2).
_LISTED_PER_REQUEST = 1000
#: DynamoDB answers with 1 MB at a time, which are some hundreds of records.
_FOUND_PER_REQUEST = 200
#: Of an object that is read through so many bytes count as a request.
READ_PER_REQUEST_BYTES = 16 * 1024 * 1024


class Pace:
    """Waits until the next request may go. By a clock that only grows, so that a change of the time changes nothing."""

    def __init__(
        self,
        per_second: float,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval = 1 / per_second
        self._monotonic, self._sleep = monotonic, sleep
        self._next = monotonic()
        self._lock = threading.Lock()
        self.requests = 0

    def wait(self) -> None:
        with self._lock:
            now = self._monotonic()
            at = max(self._next, now)
            self._next = at + self._interval
            self.requests += 1
        if at > now:
            self._sleep(at - now)

    def store(self, store: ObjectStore) -> ObjectStore:
        """The store, read at this pace."""
        return cast(ObjectStore, _PacedStore(store, self))

    def catalogue(self, catalogue: Catalogue) -> Catalogue:
        """The catalogue, read at this pace."""
        return cast(Catalogue, _PacedCatalogue(catalogue, self))


class _PacedStore:
    def __init__(self, store: ObjectStore, pace: Pace) -> None:
        self._store, self._pace = store, pace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        self._pace.wait()
        return self._store.head(key, version_id)

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        self._pace.wait()
        for number, found in enumerate(self._store.listing(prefix, after), 1):
            yield found
            if number % _LISTED_PER_REQUEST == 0:
                self._pace.wait()

    def read(self, key: str, version_id: str | None = None, **how: Any) -> Iterator[Chunk]:
        self._pace.wait()
        for number, chunk in enumerate(self._store.read(key, version_id, **how), 1):
            yield chunk
            if number % (READ_PER_REQUEST_BYTES // CHUNK_BYTES) == 0:
                self._pace.wait()


class _PacedCatalogue:
    def __init__(self, catalogue: Catalogue, pace: Pace) -> None:
        self._catalogue, self._pace = catalogue, pace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalogue, name)

    def get(self, study_uid: Uid) -> Any:
        self._pace.wait()
        return self._catalogue.get(study_uid)

    def search(self, query: Query) -> Iterator[StudyRecord]:
        return self._paced(self._catalogue.search(query))

    def study_uids(self) -> Iterator[Uid]:
        return self._paced(self._catalogue.study_uids())

    def _paced(self, found: Iterator[_Found]) -> Iterator[_Found]:
        self._pace.wait()
        for number, one in enumerate(found, 1):
            yield one
            if number % _FOUND_PER_REQUEST == 0:
                self._pace.wait()
