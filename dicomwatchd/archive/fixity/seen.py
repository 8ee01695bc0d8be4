"""What is seen of an object without its bytes, and where that comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Sum:
    """What a report says of an object's content. ``sha256`` is over the whole object, in lower-case hexadecimal; None:
    the task has failed. ``etag`` and ``version_id`` tell which content under the key it was, None where unknown."""

    sha256: str | None
    etag: str | None
    version_id: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What is current under a key, which is relative to the archive's prefix. ``is_hidden``: a delete marker is.
    ``modified_at`` is in seconds since the epoch, by the store's clock. What is None is not known."""

    key: str
    size_bytes: int
    etag: str | None = None
    modified_at: float | None = None
    version_id: str | None = None
    is_hidden: bool = False
    sums: tuple[Sum, ...] = ()


class Source(Protocol):
    """Where what is seen comes from. Raises as `ObjectStore`."""

    @property
    def kind(self) -> str:
        """ "listing" or "inventory"."""
        ...

    @property
    def identity(self) -> str:
        """What a run that was interrupted may go on with: the same text, the same source."""
        ...

    @property
    def as_of(self) -> float | None:
        """When it was as it says, in seconds since the epoch; None: when it is read. What was stored since is not in
        it, and so not covered."""
        ...

    def below_studies(self, after: str) -> Iterator[Seen]:
        """What is there below ``studies/``, in the order of keys, behind ``after``."""
        ...
