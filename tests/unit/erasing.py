"""Erasing from the archive in memory of the unit tests, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dicomwatchd.archive.erasing.erasure import Eraser, Report, Who
from dicomwatchd.archive.erasing.port import Lock, Refusal, StoredVersion, UnfinishedUpload
from dicomwatchd.model import Uid
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore

WHO = Who(1000, "eraser")
BECAUSE = "request 17 of the patient"


@dataclass
class MemoryEraser:
    """``locks`` says until when a key's versions are locked; ``refuses`` are keys that the store will not delete, with
    its word for it; ``before`` happens before each deletion of a page."""

    store: MemoryStore
    locks: dict[str, float | None] = field(default_factory=dict)
    refuses: dict[str, str] = field(default_factory=dict)
    uploads: list[UnfinishedUpload] = field(default_factory=list)
    before: Callable[[], object] = lambda: None

    def versions(self, prefix: str) -> Iterator[StoredVersion]:
        for key in sorted(self.store.versions):
            if key.startswith(prefix):
                for number, data in enumerate(self.store.versions[key]):
                    yield StoredVersion(key, str(number), len(data))
                if key in self.store.hidden:
                    yield StoredVersion(key, "marker", 0, is_delete_marker=True)

    def unfinished(self, prefix: str) -> Iterator[UnfinishedUpload]:
        yield from [one for one in self.uploads if one.key.startswith(prefix)]

    def may_be_locked(self) -> bool:
        return bool(self.locks)

    def lock_of(self, version: StoredVersion) -> Lock | None:
        if version.key not in self.locks:
            return None
        until = self.locks[version.key]
        return Lock(version, "LEGAL HOLD" if until is None else "COMPLIANCE", until)

    def erase(self, versions: Sequence[StoredVersion]) -> list[Refusal]:
        self.before()
        refused = []
        for one in versions:
            if code := self.refuses.get(one.key):
                refused.append(Refusal(one.key, one.version_id, code))
            else:
                self.store.versions.pop(one.key, None)
                self.store.hidden.discard(one.key)
        return refused

    def abort(self, upload: UnfinishedUpload) -> None:
        self.uploads.remove(upload)

    def adopt(self, key: str) -> None:
        pass

    def finish(self, prefix: str) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class MemoryRecords:
    catalogue: MemoryCatalogue

    def entries(self, study_uid: Uid) -> int:
        return int(study_uid in self.catalogue.records)

    def erase(self, study_uid: Uid) -> int:
        return int(self.catalogue.records.pop(study_uid, None) is not None)

    def close(self) -> None:
        pass


def eraser(store: MemoryStore, catalogue: MemoryCatalogue, archive_id: str, **options: Any) -> Eraser:
    """One that does not wait, unless it is told to."""
    objects = options.pop("objects", None) or MemoryEraser(store)
    return Eraser(archive_id, store, objects, MemoryRecords(catalogue), **{"settle_seconds": 0.0, **options})


def erased(store: MemoryStore, catalogue: MemoryCatalogue, study: Uid, archive_id: str, **options: Any) -> Report:
    return eraser(store, catalogue, archive_id, **options).erase(study, BECAUSE, WHO)
