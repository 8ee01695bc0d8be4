"""The store port: what the program asks of whatever holds the objects, and nothing more.

There is no delete and no overwrite here. Objects are created once and read; that is all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from dicomwatchd.model import Digest


@dataclass(frozen=True, slots=True)
class Destination:
    """Which store this is; a DeletionProof is worthless for any other one.

    ``kind`` "s3" or "directory"; ``endpoint`` the URL of the S3 service ("aws:<region>" for Amazon's own) or
    "file"; ``container`` the bucket, or the folder's path; ``prefix`` as configured.
    """

    kind: str
    endpoint: str
    container: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.kind}|{self.endpoint}|{self.container}|{self.prefix}"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The store's own view of one object, as freshly read (S3 HeadObject, ListObjectsV2; stat).

    ``key`` is relative to the store's prefix. ``etag`` is without quotes. ``checksum`` is "sha256:<hex>" or
    "crc64nvme:<base64>" where the store keeps one over the full object. ``modified_at`` is when it was put there, by
    the store's clock, in seconds since the epoch, where it comes from a listing. None: the store does not say.
    """

    key: str
    size_bytes: int
    etag: str | None = None
    version_id: str | None = None
    checksum: str | None = None
    encryption: str | None = None
    modified_at: float | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is known once an object was sent: what the store must say of it if it holds our very bytes.

    ``expected_etag`` and ``expected_checksum`` are computed here, from the bytes in the buffer that was sent,
    never copied from an answer. ``created`` is False where the key existed already; whether the bytes under it
    are the right ones is for the verification to say, as it is for those just sent.
    """

    key: str
    size_bytes: int
    sha256: str
    created: bool
    expected_etag: str | None = None
    expected_checksum: str | None = None
    version_id: str | None = None
    encryption: str | None = None
    #: The ETag that the object had when its bytes were proven, where an ETag alone proves nothing.
    seen_etag: str | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this endpoint and bucket really back, found out by the probe. The default trusts nothing.

    ``etag_is_content``: the ETag is the MD5 of the bytes the store received (composite for multipart), so an ETag
    equal to the one computed here proves the content. ``checksum_on_head``: HEAD returns a full-object checksum
    the store computed itself. ``creates_only``: If-None-Match: * is honoured. ``objects_are_files``: they can be seen
    under other paths too, an inbox's among them.
    """

    etag_is_content: bool = False
    checksum_on_head: bool = False
    creates_only: bool = False
    objects_are_files: bool = False
    details: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expiry:
    """What is known of a store that ends objects of the archive by itself.

    ``unaccepted``: why no local file may be deleted now, in plain words with no key and no name of a rule, None where
    nothing speaks against it. ``rules_known``: whether the store tells its rules; where it does not, what it says in
    its other answers is all there is. ``notes``: what else of its rules a person should know.
    """

    unaccepted: str | None = None
    rules_known: bool = True
    notes: tuple[str, ...] = ()


class Standing(Enum):
    """What a local file is to the object that holds its bytes. ITSELF: one and the same file, or as good as that."""

    APART = "apart"
    ITSELF = "itself"
    MISSING = "missing"


class Content(Protocol):
    """Bytes to send. ``read`` gives exactly ``length`` bytes from ``offset`` or raises SourceChanged; ``fill`` puts as
    many as ``buffer`` has into it, or raises the same."""

    @property
    def digest(self) -> Digest: ...

    def read(self, offset: int, length: int) -> bytes: ...
    def fill(self, offset: int, buffer: memoryview) -> None: ...


@dataclass(frozen=True, slots=True)
class Buffer:
    """Content that is in memory already. Its digest is worked out here, of the very bytes that it holds, so nobody
    need do it again."""

    data: bytes
    digest: Digest = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", Digest(hashlib.sha256(self.data).hexdigest(), len(self.data)))

    @classmethod
    def of(cls, data: bytes) -> Buffer:
        return cls(data)

    def read(self, offset: int, length: int) -> bytes:
        if offset == 0 and length == len(self.data):
            return self.data
        return self.data[offset : offset + length]

    def fill(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = memoryview(self.data)[offset : offset + len(buffer)]


#: A part of an object as it is read.
Chunk = bytes | memoryview
CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class InitStep:
    """One line of what `archive init` did: ``outcome`` is "created", "present", "set" or "not supported"."""

    what: str
    outcome: str
    detail: str = ""


class ObjectStore(Protocol):
    """A place that keeps objects under keys. Safe to use from many threads.

    Keys are relative to the store's prefix, "/"-separated, ASCII. All methods raise Transient (OutOfReach with
    ``endpoint`` set when the whole store is in trouble), Permanent, or Fatal; never a foreign exception.
    """

    @property
    def destination(self) -> Destination: ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def single_put_bytes(self) -> int:
        """Up to this size an object is sent in one piece, from one buffer."""
        ...

    def put(self, key: str, content: Content) -> Receipt:
        """Create the object if the key is free; never overwrite. Idempotent: safe to repeat after any failure.

        Asked-for encryption that the store does not echo raises ArchiveRefused. Content whose bytes no longer
        match their digest while they are sent raises SourceChanged and leaves no object behind.
        """
        ...

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        """A fresh look at one object; None when the store says that there is none."""
        ...

    def standing(self, key: str, path: bytes, found: os.stat_result) -> Standing:
        """Whether the object is there and would be if the local file ``found``, at ``path`` below its inbox, were not.
        Asked right before a file is staged, and once more while it is staged: an object that went with it was the
        file itself, whatever mounts and links make of the two paths. Always APART, and not worth asking, where the
        capability ``objects_are_files`` is not there."""
        ...

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        """All objects whose key starts with ``prefix`` and sorts behind ``after``, in key order, streamed."""
        ...

    def read(
        self,
        key: str,
        version_id: str | None = None,
        *,
        offset_bytes: int = 0,
        length_bytes: int | None = None,
        buffer: memoryview | None = None,
    ) -> Iterator[Chunk]:
        """The object's bytes in chunks of at most 1 MiB, from the store itself. Raises Permanent (code
        "no-such-object") when it is not there.

        Chunks may be views of ``buffer`` (CHUNK_BYTES long) where that is given, and are of use until the next is asked
        for: nothing is allocated for each of them. Without it they are bytes, to be kept.

        With ``length_bytes`` (1 or more) the bytes from ``offset_bytes`` on, as many of them as the object has:
        fewer, or none, where it ends before. Without it ``offset_bytes`` is 0.
        """
        ...

    def check(self) -> None:
        """Whether the store is there and usable at all. Raises NotInitialised, ArchiveRefused or OutOfReach."""
        ...

    def initialise(self) -> list[InitStep]:
        """Create what is missing of bucket or folder; a second run changes nothing. Raises as `check`."""
        ...

    def probe(self, scratch_key: str) -> Capabilities:
        """Find out, by trying, what the store enforces, with small objects below ``scratch_key``, and use it from
        now on (see `capabilities`). Raises ArchiveRefused when it must not be used."""
        ...

    @property
    def expiry(self) -> Expiry:
        """What is known by now, from the last look and from all answers since."""
        ...

    def refresh_expiry(self) -> Expiry:
        """Ask afresh whether the store ends objects by itself. Raises Transient, Permanent."""
        ...

    def close(self) -> None: ...
