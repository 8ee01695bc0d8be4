"""The store port: what the program asks of whatever holds the objects, and nothing more.

There is no delete and no overwrite here. Objects are created once and read; that is all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol

from dicomwatchd.model import Digest


@dataclass(frozen=True, slots=True)
class Destination:
    """Which store this is; a DeletionProof is worthless for any other one.

    ``kind`` as in the configuration ("s3", "directory"); ``endpoint`` the URL of the S3 service ("aws:<region>" for
    Amazon's own) or "file"; ``container`` the bucket, or the folder's path; ``prefix`` as configured, "" for none.
    The same place has the same destination at each start, another place another one, and none holds a secret: its
    text is in the state, in proofs and in `status`.
    """

    kind: str
    endpoint: str
    container: str
    prefix: str

    def __str__(self) -> str:
        """Kind, endpoint, container and prefix, with "|" between them."""
        return f"{self.kind}|{self.endpoint}|{self.container}|{self.prefix}"


_OF_PARTS = "sha256-of-parts:"


def composed(sha256s: Sequence[bytes]) -> str:
    """The checksum of an object by the SHA-256 sums of its parts, in their order."""
    return f"{_OF_PARTS}{hashlib.sha256(b''.join(sha256s)).hexdigest()}-{len(sha256s)}"


def of_parts(checksum: str) -> bool:
    """Whether a checksum is composed of parts', and not over the full object."""
    return checksum.startswith(_OF_PARTS)


#: A class that moves objects by itself, by how long nobody has read them: to cold storage too, where that is switched
#: on in the bucket. A listing does not show how far it has gone with an object, `ObjectStore.head` does.
TIERED = "INTELLIGENT_TIERING"


@dataclass(frozen=True, slots=True)
class Restore:
    """That an object was asked back from cold storage. ``until``, once its copy is there: to when that is kept, in
    seconds since the epoch, where the store says so."""

    is_under_way: bool
    until: float | None = None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The store's own view of one object, as freshly read (S3 HeadObject, ListObjectsV2; stat).

    ``key`` is relative to the store's prefix, ``size_bytes`` 0 or more. ``etag`` is without quotes; one that proves no
    content tells at least whether an object is still the one that was read back (`Receipt.seen_etag`).
    ``encryption`` is as the store names it ("aws:kms", "AES256"). ``checksum`` is "sha256:<hex>" or
    "crc64nvme:<base64>" where the store keeps one over the full object, "sha256-of-parts:<hex>-<parts>" where it keeps
    the SHA-256 of the parts' SHA-256 sums (`of_parts`). ``modified_at`` is when it was put there, by
    the store's clock, in seconds since the epoch, where it comes from a listing. None: the store does not say.
    ``is_withheld``: the store shows the object, and refuses its checksum, as it does where the object may not be
    decrypted: such a view proves nothing of the content.
    ``storage_class`` as the store names it ("GLACIER_IR"), None for the usual one. ``is_cold``: its bytes cannot be
    read before it was restored; what proves them without being read proves them all the same. A listing tells by the
    class alone, and so calls cold what has been restored, too, and not what its class has moved there (`TIERED`).
    ``restore``: as `ObjectStore.head` says of an object that was asked back.
    """

    key: str
    size_bytes: int
    etag: str | None = None
    version_id: str | None = None
    checksum: str | None = None
    encryption: str | None = None
    modified_at: float | None = None
    is_withheld: bool = False
    storage_class: str | None = None
    is_cold: bool = False
    restore: Restore | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is known once an object was sent: what the store must say of it if it holds our very bytes.

    ``expected_etag`` and ``expected_checksum`` are computed here, from the bytes in the buffer that was sent,
    never copied from an answer. ``answered_etag`` is copied from one: the answer to the creation of this object, whose
    bytes the store had compared with the SHA-256 that was sent with them (`Capabilities.etag_follows_content`; of an
    object in parts `Capabilities.etag_follows_parts`, and it is composed of the parts' own), or the
    answer to a look at it, if it was there before, that named this SHA-256 beside it.
    ``created`` is False where the key existed already; whether the bytes under it are the right ones is for the
    verification to say, as it is for those just sent.

    ``sha256`` is 64 lower-case hexadecimal digits. ``expected_etag`` is the MD5 in such digits, with "-<parts>" behind
    it for an object sent in parts; ``expected_checksum`` is written as in `StoredObject`. Either is
    None where nothing is to be compared with it.
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
    answered_etag: str | None = None

    @property
    def known_etag(self) -> str | None:
        """The ETag by which the object is known again."""
        return self.seen_etag or self.answered_etag or self.expected_etag


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this endpoint and bucket really back, found out by the probe. The default trusts nothing.

    ``etag_is_content``: the ETag is the MD5 of the bytes the store received (composite for multipart), so an ETag equal
    to the one computed here proves the content. ``checksum_on_head``: HEAD returns a full-object checksum the store
    computed itself. ``checksum_of_parts``: of an object sent in parts it returns the one composed of the parts'
    checksums, each of which it has compared with what arrived. ``etag_follows_content``: the store refuses bytes that
    are not those of the SHA-256 sent with them, answers with the ETag that HEAD and listings show of the object,
    whatever it is made of, and changes it with the content: so an object that shows the ETag with which its creation
    was answered has the bytes that were sent. ``etag_follows_parts``: the same of an object sent in parts. The store
    refuses a part whose bytes are not those of the SHA-256 sent with it, changes a part's ETag with its bytes,
    completes nothing by an ETag that is no longer the part's, and composes the object's ETag of its parts' (`etags`).
    ``echoes_checksum``: the answer to a creation names the SHA-256 that the store has worked out.
    ``lists_versions``: the store keeps versions, and `ObjectStore.current_versions` shows which one is current.
    ``creates_only``: If-None-Match: * is honoured. ``objects_are_files``: they can be seen under other paths too, an
    inbox's among them. ``details``: what was tried and what came of it, as `doctor` shows it; no key and no path.
    """

    etag_is_content: bool = False
    checksum_on_head: bool = False
    checksum_of_parts: bool = False
    etag_follows_content: bool = False
    etag_follows_parts: bool = False
    echoes_checksum: bool = False
    lists_versions: bool = False
    creates_only: bool = False
    objects_are_files: bool = False
    details: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expiry:
    """What is known of a store that ends objects of the archive by itself, or would let others do so.

    ``unaccepted``: why no local file may be deleted now, in plain words with no key and no name of a rule, None where
    nothing speaks against it. ``rules_known``: whether the store tells its rules; where it does not, what it says in
    its other answers is all there is. ``unprotected``: why none may be deleted now because of other settings of the
    store, in such words, too. ``is_by_tag``: a rule ends those objects that have certain tags, as some of the
    archive may from earlier or from another site: which, HEAD tells, and no listing does. ``notes``: what else of its
    rules a person should know.
    """

    unaccepted: str | None = None
    rules_known: bool = True
    notes: tuple[str, ...] = ()
    is_by_tag: bool = False
    unprotected: str | None = None

    @property
    def forbids_deleting(self) -> str | None:
        """Why no local file may be deleted now; None where nothing of the store speaks against it."""
        return self.unaccepted or self.unprotected


class Standing(Enum):
    """What a local file is to the object that holds its bytes. ITSELF: one and the same file, or as good as that."""

    APART = "apart"
    ITSELF = "itself"
    MISSING = "missing"


class Content(Protocol):
    """Bytes to send. Reading them raises errors of our own: SourceChanged; Transient or Unarchivable, of a local file
    that cannot be read; InboxNotResponding, Stopping. A store lets these through as they are: they say nothing of the
    store."""

    @property
    def digest(self) -> Digest:
        """What the content was when it was taken up. Whoever sends it hashes what is sent, and compares; or has the
        store compare it with what was worked out then (`Digest.pieces`)."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset`` on, both in bytes; raises SourceChanged where there are fewer."""
        ...

    def fill(self, offset: int, buffer: memoryview) -> None:
        """Puts as many bytes as ``buffer`` has into it, from ``offset`` on; raises as `read`."""
        ...


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
        """The same as ``Buffer(data)``."""
        return cls(data)

    def read(self, offset: int, length: int) -> bytes:
        """As `Content.read`; the whole is not copied."""
        if offset == 0 and length == len(self.data):
            return self.data
        return self.data[offset : offset + length]

    def fill(self, offset: int, buffer: memoryview) -> None:
        """As `Content.fill`."""
        buffer[:] = memoryview(self.data)[offset : offset + len(buffer)]


#: A part of an object as it is read.
Chunk = bytes | memoryview
#: The longest chunk that `ObjectStore.read` gives.
CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class InitStep:
    """One line of what `archive init` did: ``outcome`` is "created", "present", "set" or "not supported". ``detail``
    says more in plain words, with no path and no key."""

    what: str
    outcome: str
    detail: str = ""


#: How fast an object comes back from cold storage, and at what price.
Speed = Literal["bulk", "standard", "expedited"]


class Restoring(Enum):
    """What has come of asking an object back. READABLE: there is nothing to wait for."""

    STARTED = "started"
    UNDER_WAY = "under way"
    READABLE = "readable"


@dataclass(frozen=True, slots=True)
class Transition:
    """To which storage class an object moves, so many days after it was stored."""

    days: int
    storage_class: str


class ObjectStore(Protocol):
    """A place that keeps objects under keys. Safe to use from many threads.

    Keys are relative to the store's prefix, "/"-separated, ASCII: at most 500 characters of ``A-Za-z0-9!_.*'()-`` and
    "/", no part of them empty, "." or "..", none longer than 255. Other characters and other parts are Permanent (code
    "bad-key"), and so is what is longer than the store takes.

    All methods raise Transient (OutOfReach with ``endpoint`` set when the whole store is in trouble), Permanent, or
    Fatal; never a foreign exception. A place that is not there, or holds no archive, is NotThere: it neither takes nor
    misses an object. A request over a network ends in time, in an answer or in OutOfReach, however slow the other side
    is: a thread that shows no sign of life for 15 minutes ends the daemon. No message holds a key, or the words of the
    other side.
    """

    @property
    def destination(self) -> Destination:
        """Which store this is. Known without asking it; raises nothing."""
        ...

    @property
    def endpoint(self) -> str:
        """What its errors call it (`Transient.endpoint`): one backoff is kept for each name. Raises nothing."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What the last `probe` has found; before that no more than the adapter knows of itself. Raises nothing."""
        ...

    @property
    def single_put_bytes(self) -> int:
        """Up to this size an object is sent in one piece, from one buffer. The caller has taken the memory for that out
        of the budget (`budget.ByteBudget`) when he calls `put`; what a larger object takes is the store's matter."""
        ...

    def piece_bytes(self, size_bytes: int) -> int | None:
        """In pieces of which length an object of this size is sent, where the store compares each with its SHA-256, as
        the probe has shown: `Digest.pieces` of such pieces spare another pass over the bytes. A multiple of 1 MiB; None
        where they would be of no use. Raises nothing."""
        ...

    def put(self, key: str, content: Content) -> Receipt:
        """Create the object if the key is free; never overwrite. Idempotent: safe to repeat after any failure.

        Asked-for encryption that the store does not echo raises ArchiveRefused. Content whose bytes no longer
        match their digest while they are sent raises SourceChanged and leaves no object behind.

        Nobody ever sees a part of an object under its key. Of several at once one creates it. A Buffer is created in
        one step whatever its size: a manifest is one. After the return the object survives a power cut, as far as the
        store can see to that; one that was there already, too. Between two pieces of a large object the store asks
        ``stopping``, with which it was opened and which is the thread's sign of life: raises Stopping.

        S3: PutObject, or CreateMultipartUpload, UploadPart and CompleteMultipartUpload, with If-None-Match
        (RFC 9110 section 13.1.2).
        """
        ...

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        """A fresh look at one object; None when the store says that there is none, or that what is current under the
        key is a delete marker. ``version_id``: at that version instead, where there are versions. S3: HeadObject."""
        ...

    def standing(self, key: str, path: bytes, found: os.stat_result) -> Standing:
        """Whether the object is there and would be if the local file ``found``, at ``path`` below its inbox, were not.
        Asked right before a file is staged, and once more while it is staged: an object that went with it was the
        file itself, whatever mounts and links make of the two paths. Always APART, and not worth asking, where the
        capability ``objects_are_files`` is not there. ``path`` is as the file system has it, ``found`` a stat of the
        open file. Raises OutOfReach."""
        ...

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        """All objects whose key starts with ``prefix`` and sorts behind ``after``, in key order, streamed.

        Any prefix will do, also one that ends within a name; "" is all. ``after`` need not be a key that is there. The
        order is that of the keys' ASCII characters, "/" among them. What was put before the listing began is in it;
        an empty one is no error. A caller may leave off at any time.
        S3: ListObjectsV2, with Prefix and StartAfter.
        """
        ...

    def current_versions(self, prefix: str) -> Iterator[StoredObject | None]:
        """As `listing`, of a store that lists versions (`Capabilities.lists_versions`): each object with the version
        that is current, and None for each version or delete marker that is not, or that hides one.
        S3: ListObjectVersions.
        """
        ...

    def common_prefixes(self, prefix: str, after: str = "") -> Iterator[str]:
        """What the keys below ``prefix`` go on with up to the next "/", each once: beginnings of keys, that "/"
        included, which sort behind ``after``, in the order of `listing`, streamed. ``prefix`` ends in "/".

        Objects right below ``prefix`` are passed over. A folder without objects may be among them, and ``after`` is
        not. A caller may leave off at any time. S3: ListObjectsV2, with Prefix, Delimiter and StartAfter.
        """
        ...

    def read(
        self,
        key: str,
        version_id: str | None = None,
        *,
        offset_bytes: int = 0,
        length_bytes: int | None = None,
        buffer: memoryview | None = None,
        checksum: Callable[[str], None] | None = None,
    ) -> Iterator[Chunk]:
        """The object's bytes in chunks of at most 1 MiB, from the store itself. Raises NoSuchObject when it
        is not there, ColdObject when it is there and has to be restored first.

        Chunks may be views of ``buffer`` (CHUNK_BYTES long) where that is given, and are of use until the next is asked
        for: nothing is allocated for each of them. Without it they are bytes, to be kept.

        With ``length_bytes`` (1 or more) the bytes from ``offset_bytes`` on, as many of them as the object has:
        fewer, or none, where it ends before. Without it ``offset_bytes`` is 0.

        ``checksum`` is told, before the first chunk, the checksum that the store has of the whole object, written as in
        `StoredObject`: where it gives one with the bytes, and no part is asked for. It compares nothing; the store may.

        An answer that ends early is OutOfReach, never a shorter object. S3: GetObject, with Range (RFC 9110
        section 14.2), or with x-amz-checksum-mode.
        """
        ...

    def restore(self, key: str, speed: Speed, days: int | None) -> Restoring:
        """Ask an object back from cold storage, as a copy that is kept for so many days beside it; ``days`` is None for
        one that its class has moved there (`TIERED`). That is paid for. It may be repeated: what is under way goes
        on, unless ``speed`` is a faster one than it was asked for, which overrides it and is paid for as well. Raises
        NotSupported where there is no cold storage. S3: RestoreObject."""
        ...

    def check(self) -> None:
        """Whether the store is there and usable at all. Raises NotInitialised where `initialise` would help,
        ArchiveRefused or OutOfReach. S3: HeadBucket, or ListObjectsV2 below a prefix."""
        ...

    def initialise(self) -> list[InitStep]:
        """Create what is missing of bucket or folder; a second run changes nothing. Raises as `check`.

        Each step is named each time, with what came of it. What lies around the archive is not made: NotInitialised.
        S3: CreateBucket, PutBucketVersioning, PutBucketPolicy, PutBucketLifecycleConfiguration, PutBucketEncryption.
        """
        ...

    def add_transitions(self, transitions: Sequence[Transition]) -> InitStep:
        """Let the store move instances and bundles by itself, told by the tag that they are stored with. Ends nothing,
        and leaves every other rule as it is: where one of the same name is another one the step is "not supported".
        Raises NotSupported where there are no such rules, Transient. S3: PutBucketLifecycleConfiguration."""
        ...

    def probe(self, scratch_key: str) -> Capabilities:
        """Find out, by trying, what the store enforces, with small objects below ``scratch_key``, and use it from
        now on (see `capabilities`). Raises ArchiveRefused when it must not be used.

        ``scratch_key`` ends in "/" and may have objects below it from earlier probes. Trouble on the way is raised: it
        must not be taken for a refusal that proves something.
        """
        ...

    @property
    def expiry(self) -> Expiry:
        """What is known by now, from the last look and from all answers since. A store that could end objects has
        ``unaccepted`` set until the first look has ended, and ``unprotected`` until its settings were looked at. Raises
        nothing."""
        ...

    def refresh_expiry(self) -> Expiry:
        """Ask afresh whether the store ends objects by itself. Raises Transient, Permanent.
        Whether its settings let others do so is asked, too.
        S3: GetBucketLifecycleConfiguration, and the header x-amz-expiration of HeadObject; GetPublicAccessBlock, and
        where that leaves something open GetBucketPolicyStatus and GetBucketAcl; GetBucketVersioning where the store
        overwrites."""
        ...

    def close(self) -> None:
        """Give back connections and threads; the store is not used any more. Raises nothing."""
        ...
