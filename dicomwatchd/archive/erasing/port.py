"""What erasing asks of whatever holds the objects and the records. Apart from the ports of the store and the catalogue,
which have no way to delete anything: the daemon uses those, and nothing of this."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from dicomwatchd.model import Uid


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version of an object, or a delete marker, which has no bytes. ``key`` is relative to the archive's prefix;
    ``version_id`` is None where there are no versions."""

    key: str
    version_id: str | None
    size_bytes: int
    is_delete_marker: bool = False


@dataclass(frozen=True, slots=True)
class UnfinishedUpload:
    """Parts that were sent of an object that does not exist yet. ``began_at`` is in seconds since the epoch, by the
    store's clock; None where it does not say."""

    key: str
    upload_id: str
    began_at: float | None = None


@dataclass(frozen=True, slots=True)
class Lock:
    """What forbids deleting a version: ``mode`` as the store names it ("GOVERNANCE", "COMPLIANCE", "LEGAL HOLD");
    ``until`` in seconds since the epoch, None for a hold without an end."""

    version: StoredVersion
    mode: str
    until: float | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A version that the store did not delete; ``code`` is the store's own word."""

    key: str
    version_id: str | None
    code: str


class ObjectEraser(Protocol):
    """Safe to use from several threads. Raises Transient, Permanent, Fatal; no message holds a key. A ``prefix`` ends
    in "/": what is called alike, and goes on behind, is another study's."""

    def versions(self, prefix: str) -> Iterator[StoredVersion]:
        """Every version and every delete marker of all that is below the prefix, whoever has put it there, streamed:
        key after key.
        S3: ListObjectVersions."""
        ...

    def unfinished(self, prefix: str) -> Iterator[UnfinishedUpload]:
        """S3: ListMultipartUploads."""
        ...

    def may_be_locked(self) -> bool:
        """Whether versions here can have a retention or a hold at all. S3: GetObjectLockConfiguration."""
        ...

    def lock_of(self, version: StoredVersion) -> Lock | None:
        """What forbids deleting this version now. S3: GetObjectRetention, GetObjectLegalHold."""
        ...

    def erase(self, versions: Sequence[StoredVersion]) -> list[Refusal]:
        """Delete exactly these, for good; those that are gone already count as deleted. S3: DeleteObjects."""
        ...

    def abort(self, upload: UnfinishedUpload) -> None:
        """S3: AbortMultipartUpload."""
        ...

    def adopt(self, key: str) -> None:
        """An object was created by whoever erases: it and its folders belong to the archive's owner from now on, so
        that every daemon can read it."""
        ...

    def finish(self, prefix: str) -> None:
        """What else stands for the prefix, once nothing is below it: empty folders."""
        ...

    def close(self) -> None:
        """Give back connections. Raises nothing."""
        ...


class RecordEraser(Protocol):
    """The catalogue's side. Raises as `ObjectEraser`."""

    def entries(self, study_uid: Uid) -> int:
        """How many rows or items the catalogue has of the study, of whatever kind."""
        ...

    def erase(self, study_uid: Uid) -> int:
        """Delete all of them; how many there were."""
        ...

    def close(self) -> None:
        """Give back connections. Raises nothing."""
        ...
