"""The nouns of a shipment: where it goes, what all of them share, and what is on its way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace

from dicomwatchd.answering import AlwaysAnswering, Inboxes
from dicomwatchd.archive import keys
from dicomwatchd.archive.aws.observed import Observed
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.catalogues.sites import SiteTable
from dicomwatchd.archive.layout.bundle import Span
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.proof import evidence
from dicomwatchd.archive.proof.evidence import Method, Verdict
from dicomwatchd.archive.stores.budget import ByteBudget
from dicomwatchd.archive.stores.port import ObjectStore, Receipt
from dicomwatchd.errors import Transient
from dicomwatchd.model import InstanceHeader
from dicomwatchd.pipeline.erased import ErasedStudies
from dicomwatchd.pipeline.turns import Turns
from dicomwatchd.ports import Cancellation, Clock, Log, Map, never_cancelled
from dicomwatchd.queue.claims import Claims
from dicomwatchd.queue.deletions import Deletions
from dicomwatchd.queue.holds import Holds
from dicomwatchd.queue.rows import Claim, LocalFile, Proven, Source
from dicomwatchd.queue.shipments import Shipments
from dicomwatchd.telemetry.metrics import StageClock

#: Files that are read from the queue together.
PAGE = 500


@dataclass(frozen=True, slots=True)
class AfterArchive:
    """What happens to a source's files: delete at once, or keep until ``keep_seconds`` have passed (None: for good).
    ``needs_lease``: what may be deleted by that is kept all the same where no read lease is to be had on it."""

    delete: bool
    keep_seconds: float | None = None
    needs_lease: bool = False


@dataclass(frozen=True, slots=True)
class Bundling:
    """The bundled layout: files smaller than ``below_bytes`` travel together, in bundles of ``size_bytes`` at most."""

    below_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Archive:
    """The archive a shipment goes to. ``bundling`` is None for an object per instance, ``observed`` where it is no
    service."""

    archive_id: str
    store: ObjectStore
    catalogue: Catalogue
    memory: ByteBudget = field(default_factory=ByteBudget)
    bundling: Bundling | None = None
    #: Where the daemons say how they are; None where nobody is to.
    sites: SiteTable | None = None
    observed: Observed | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What all shipments share. ``rescan`` tells the intake where a name may stand for something new."""

    archive: Archive
    claims: Claims
    shipments: Shipments
    deletions: Deletions
    holds: Holds
    #: Asked before anything is sent, recorded or deleted.
    erased: ErasedStudies
    sources: Callable[[], Mapping[int, Source]]
    after_archive: Callable[[Source], AfterArchive]
    rescan: Callable[[int, bytes], None]
    clock: Clock
    log: Log
    #: A file that was staged in this source could not be put back, or may be in it: to be recovered soon.
    left_staged: Callable[[int], None] = lambda _: None
    #: Whether somebody looks after this source: it is an inbox of the configuration, or an upload under way.
    is_scanned: Callable[[int], bool] = lambda _: True
    #: A sign of life of the thread that calls it, in the midst of long work.
    heartbeat: Callable[[], None] = lambda: None
    #: The same, and whether the work is to be left.
    cancelled: Cancellation = never_cancelled
    #: How many workers there are, as things are.
    at_once: Callable[[], int] = lambda: 1
    #: Whether files of this source are sent while their study still arrives.
    sends_early: Callable[[Source], bool] = lambda _: True
    #: Whoever touches a source's folder says so, or has it done: it may be one that does not answer.
    inboxes: Inboxes = field(default_factory=AlwaysAnswering)
    #: Why no local file may be deleted now, in plain words; None where nothing speaks against it.
    stops_deleting: Callable[[], str | None] = lambda: None
    #: A source that opens as the folder that was confirmed to be the inbox, and as no other.
    pinned: Callable[[Source], Source] = lambda source: source
    #: Whether another folder than that was seen in its place.
    is_exchanged: Callable[[Source], bool] = lambda _: False
    turns: Turns = field(default_factory=Turns)
    #: Told of each file that was sent and created in the store, with its bytes; from any thread.
    sent: Callable[[int], None] = lambda _: None
    #: Shown each file that the store has taken, from any thread: its header, its SHA-256, and its bytes where they are
    #: in memory, for as long as the call takes. Raises nothing.
    passing: Callable[[InstanceHeader, str, bytes | memoryview | None], None] = lambda _header, _sha256, _data: None
    #: Told of each study that has come to its end, with what is on record of it. Raises nothing.
    finished: Callable[[Manifest], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Sent:
    """Objects that were created, and how long that took."""

    files: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def __add__(self, other: Sent) -> Sent:
        return Sent(self.files + other.files, self.bytes + other.bytes, self.seconds + other.seconds)


NOTHING = Sent()


@dataclass(slots=True)
class Shipment:
    """One study on its way, and the figures of its journey. ``early`` is what was sent while it arrived, as far as this
    process has done it; its time is in the stage "upload", too."""

    claim: Claim
    run: Map
    stages: StageClock
    started_at: float
    files: int = 0
    bytes: int = 0
    sent_files: int = 0
    sent_bytes: int = 0
    early: Sent = NOTHING
    read_back_bytes: int = 0
    #: Files by what proved that the store holds them. One that was sent again counts once more.
    verified_files: Counter[str] = field(default_factory=Counter)
    deleted_files: int = 0
    deleted_bytes: int = 0
    kept_files: int = 0
    retries: int = 0
    sources: set[str] = field(default_factory=set)
    #: Of the newest erasure when it began: after a later one, what it has seen of the archive counts no more.
    erased_through: int = 0
    #: Told of a manifest's bytes before they are in memory: see `Turns`.
    admit: Callable[[int], None] = lambda _: None


#: What is proven by its ETag is known again by the one that its receipt has.
_BY_ETAG = (Method.ETAG, Method.ANSWERED_ETAG)
_RECEIPT = tuple(item.name for item in fields(Receipt))


@dataclass(frozen=True, slots=True)
class ObjectLocation:
    """Where a file's bytes are: the ``span`` of this receipt's object that is theirs. In a bundle the span has the
    digest of the file, the receipt that of the bundle; otherwise it is all of the object."""

    receipt: Receipt
    span: Span

    @classmethod
    def whole(cls, receipt: Receipt) -> ObjectLocation:
        """Of a file that is an object of its own."""
        return cls(receipt, Span(0, receipt.size_bytes, receipt.sha256))

    @property
    def is_in_bundle(self) -> bool:
        return keys.is_bundle(self.receipt.key)

    @property
    def sha256(self) -> str:
        """Of the file's own bytes."""
        return self.span.sha256

    @property
    def size_bytes(self) -> int:
        return self.span.size_bytes

    def to_text(self) -> str:
        """As the queue keeps it: a bundle's receipt with the file's part of it."""
        found: dict[str, object] = {name: getattr(self.receipt, name) for name in _RECEIPT}
        for name in ("seen_etag", "answered_etag"):
            if found[name] is None:
                del found[name]  # one of them at least, and there are many of these
        if self.is_in_bundle:
            found["part"] = asdict(self.span)
        return json.dumps(found, separators=(",", ":"))


def location_of(file: LocalFile) -> ObjectLocation:
    """Where the file's row says that it was sent to."""
    if file.receipt is None:
        raise LookupError("the file was not sent")
    found = json.loads(file.receipt)
    part = found.pop("part", None)
    receipt = Receipt(**found)
    return ObjectLocation.whole(receipt) if part is None else ObjectLocation(receipt, Span(**part))


def path_of(file: LocalFile) -> bytes:
    """Below its source."""
    return file.dir + b"/" + file.name if file.dir else file.name


def source_of(file: LocalFile, context: Context) -> Source:
    """Raises Transient where the file's source has ended meanwhile: the state knows no files of it any more."""
    source = context.sources().get(file.source_id)
    if source is None:
        raise Transient("the folder of the file is no longer watched", code="source-ended")
    return source


def examined(files: list[LocalFile], shipment: Shipment, context: Context) -> Iterator[tuple[list[LocalFile], Verdict]]:
    """A fresh read of the store for these files' objects: each verdict with the files that it speaks of, since the
    members of a bundle, or two copies of one instance, share an object."""
    by_key: dict[str, list[LocalFile]] = {}
    receipts: dict[str, Receipt] = {}
    for file in files:
        receipt = location_of(file).receipt
        by_key.setdefault(receipt.key, []).append(file)
        receipts.setdefault(receipt.key, receipt)
    store, now = context.archive.store, context.clock.now
    neighbours = [receipts[key] for key in sorted(receipts)]  # what is listed together meets few others
    for verdict in evidence.examine(store, neighbours, map=shipment.run, now=now, cancelled=context.cancelled):
        yield by_key[verdict.receipt.key], verdict


def proven(files: Iterable[LocalFile], verdict: Verdict) -> Iterator[Proven]:
    """What a verdict that holds says of these files. The version that the store was seen to serve is the one that their
    proofs name: it need not be the one that was sent, if somebody has sent the same bytes again. So is its ETag the one
    by which the object is known again, where it was proven by something else."""
    version_id = verdict.seen.version_id if verdict.seen is not None else None
    etag = verdict.seen.etag if verdict.seen is not None and verdict.verified_by not in _BY_ETAG else None
    for file in files:
        receipt = None
        if version_id is not None and (location := location_of(file)).receipt.version_id != version_id:
            receipt = replace(location, receipt=replace(location.receipt, version_id=version_id)).to_text()
        if etag is not None and (location := location_of(file)).receipt.seen_etag != etag:
            seen = replace(location.receipt, version_id=version_id or location.receipt.version_id, seen_etag=etag)
            receipt = replace(location, receipt=seen).to_text()
        yield Proven(file, verdict.verified_by, verdict.asked_at, receipt)
