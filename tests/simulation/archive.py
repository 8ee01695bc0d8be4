"""A store, a catalogue and a second site in memory: correct in themselves, and as unreliable as the seed says."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from dicomwatchd.archive import keys
from dicomwatchd.archive.identity import ArchiveIdentity
from dicomwatchd.archive.layout import lineage, manifests
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import empty
from dicomwatchd.archive.records import Query, StudyRecord
from dicomwatchd.archive.stores import etags
from dicomwatchd.archive.stores.port import (
    Capabilities,
    Content,
    Destination,
    Expiry,
    InitStep,
    Receipt,
    Restoring,
    Speed,
    Standing,
    StoredObject,
    Transition,
)
from dicomwatchd.errors import NoSuchObject, OutOfReach, Permanent, RevisionConflict, SourceChanged, Transient
from dicomwatchd.model import Uid
from dicomwatchd.patients import Identity
from dicomwatchd.ports import timestamp
from tests.simulation import tiny
from tests.simulation.chance import Fate, Violation
from tests.simulation.lifecycle import Lifecycle, Watched
from tests.unit.memory_archive import common_prefixes
from tests.unpacking import unpacked

ARCHIVE_ID = "0a7e57a0-0000-4000-8000-000000000003"


class Shelf:
    """A store that always answers and never errs: what the other site and `fetch` go to, and the tests look at."""

    destination = Destination("simulated", "memory", "bucket", "")
    endpoint = "store"
    single_put_bytes = 1 << 20

    def __init__(self, capabilities: Capabilities, in_parts_above: int = 1 << 20) -> None:
        self.capabilities = capabilities
        self._in_parts_above = in_parts_above
        self.objects: dict[str, bytes] = {}
        self._known: dict[str, tuple[bytes, frozenset[str]]] = {}
        self.versions: dict[str, str] = {}  # of what is current
        self.history: dict[tuple[str, str], bytes] = {}  # every version of every key
        self._numbers = 0
        self.meddled: set[str] = set()  # keys that somebody has deleted or overwritten
        self.lifecycle = Lifecycle()
        self.damaged: set[str] = set()  # keys that were given other bytes than were sent
        self.lost: set[str] = set()  # keys whose first object is gone
        self.unseen: set[str] = set()  # keys that nobody has looked at since they were made
        self.create(keys.IDENTITY, ArchiveIdentity(ARCHIVE_ID, "2026-01-01T00:00:00.000Z").to_bytes())

    def is_in_parts(self, data: bytes) -> bool:
        return len(data) > self._in_parts_above

    def etag(self, data: bytes) -> str:
        return (self.is_in_parts(data) and etags.composed([_md5(data)])) or _md5(data)

    def create(self, key: str, data: bytes) -> bool:
        if key in self.objects:
            return False
        self._make_current(key, data)
        return True

    def _make_current(self, key: str, data: bytes) -> None:
        self._numbers += 1
        self.objects[key] = data
        self.versions[key] = f"v{self._numbers}"
        self.history[key, self.versions[key]] = data

    def mark_deleted(self, key: str) -> None:
        """As DeleteObject does in a bucket with versioning: nothing is gone, and a plain GET finds nothing."""
        self.objects.pop(key, None)

    def overwrite(self, key: str, data: bytes) -> None:
        """Somebody puts another version over what is there."""
        self._make_current(key, data)

    def cover(self, key: str, data: bytes | None) -> None:
        """One of the two, and the tests know of it."""
        self.meddled.add(key)
        self.lost.add(key)
        self.mark_deleted(key)
        if data is not None:
            self.overwrite(key, data)
            self.damaged.add(key)

    def held(self) -> set[str]:
        """The SHA-256 of everything that is under a key of its own, by itself or in a bundle."""
        return {digest for key, data in self.objects.items() for digest in self._contents(key, data)}

    def _contents(self, key: str, data: bytes) -> frozenset[str]:
        known = self._known.get(key)
        if known is None or known[0] is not data:
            mine = _sha256(data)
            inside = unpacked(data) if key.endswith(".tar") else []
            self._known[key] = known = data, frozenset([mine, *map(_sha256, inside)] if mine in key else ())
        return known[1]

    def instances(self, key: str, data: bytes) -> frozenset[str]:
        """The SHA-256 of each instance under this key, if it holds what it names."""
        found = self._contents(key, data)
        return found - {_sha256(data)} if key.endswith(".tar") else found

    def lose(self, key: str) -> None:
        self.objects.pop(key, None)
        self.history.pop((key, self.versions.get(key, "")), None)
        self.damaged.discard(key)
        self.lost.add(key)

    def piece_bytes(self, size_bytes: int) -> int | None:
        return None

    def put(self, key: str, content: Content) -> Receipt:
        data = content.read(0, content.digest.size_bytes)
        return receipt(self, key, data, self.create(key, data))

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        data = self.objects.get(key) if version_id is None else self.history.get((key, version_id))
        if data is None:
            return None
        current = self.versions[key] if "versions" in self.capabilities.details else None
        return StoredObject(
            key,
            len(data),
            etag=self.etag(data),
            version_id=version_id or current,
            checksum=f"sha256:{_sha256(data)}" if self.capabilities.checksum_on_head else None,
        )

    def standing(self, key: str, path: bytes, found: os.stat_result) -> Standing:
        return Standing.APART

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        for key in sorted(self.objects):
            if key.startswith(prefix) and key > after and (seen := self.head(key)) is not None:
                yield replace(seen, version_id=None)

    def current_versions(self, prefix: str) -> Iterator[StoredObject | None]:
        for key in sorted(self.versions):
            if key.startswith(prefix):
                yield self.head(key)

    def common_prefixes(self, prefix: str, after: str = "") -> Iterator[str]:
        return common_prefixes(sorted(key for key in self.objects if key.startswith(prefix)), prefix, after)

    def read(
        self,
        key: str,
        version_id: str | None = None,
        *,
        offset_bytes: int = 0,
        length_bytes: int | None = None,
        buffer: memoryview | None = None,
        checksum: Callable[[str], None] | None = None,
    ) -> Iterator[bytes]:
        whole = self.objects.get(key) if version_id is None else self.history.get((key, version_id))
        if whole is None:
            raise NoSuchObject("there is no such object")
        data = part(whole, offset_bytes, length_bytes)
        if key.startswith(keys.AUDIT):  # its length is another one in each run
            yield data
            return
        for offset in range(0, len(data), 256):
            yield data[offset : offset + 256]

    def check(self) -> None: ...

    def initialise(self) -> list[InitStep]:
        return []

    def probe(self, scratch_key: str) -> Capabilities:
        return self.capabilities

    @property
    def expiry(self) -> Expiry:
        return Expiry(None)

    def refresh_expiry(self) -> Expiry:
        return self.expiry

    def add_transitions(self, transitions: Sequence[Transition]) -> InitStep:
        raise NotImplementedError

    def restore(self, key: str, speed: Speed, days: int | None) -> Restoring:
        return Restoring.READABLE

    def close(self) -> None: ...


class SimulatedStore:
    """The store port over a shelf, with faults: before or after the effect, damage, loss, refusal."""

    destination = Shelf.destination
    endpoint = Shelf.endpoint

    def __init__(self, shelf: Shelf, fate: Fate) -> None:
        self.shelf = shelf
        self._fate = fate
        #: (key, SHA-256 of what it held, or of what is in the bundle) to when it was looked at, by this daemon's clock.
        self.asked: dict[tuple[str, str], list[float]] = {}
        self.watched: Watched | None = None
        self.single_put_bytes = fate.plan.single_put_bytes

    @property
    def capabilities(self) -> Capabilities:
        return self.shelf.capabilities

    def put(self, key: str, content: Content) -> Receipt:
        self._call("put", key)
        data = self._sent(content)
        created = False
        if key not in self.shelf.objects and self._damage("put-vanishes"):
            created = True  # answered with 200, and nothing is there
        elif not key.startswith(keys.STUDIES) or "/manifests/" in key or not self._damage("put-damaged"):
            created = self.shelf.create(key, data)
        else:
            created = self.shelf.create(key, self._other(data))
            if created:
                self.shelf.damaged.add(key)
        if created:
            self.shelf.unseen.add(key)
        self._fate.at("store.put.done")
        self._trouble("put-answer-lost")
        if created:
            self._answered(key)
        return receipt(self.shelf, key, data, created)

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        self._call("head", key)
        self._maybe_lose(key)
        if self._damage("head-refused"):
            raise Permanent("the object cannot be looked at", code="unreadable")
        self.shelf.unseen.discard(key)
        found = self.shelf.head(key, version_id)
        if found is not None and version_id is None:
            self._answered(key)
        return found

    def standing(self, key: str, path: bytes, found: os.stat_result) -> Standing:
        return Standing.APART

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        self._call("listing", prefix)
        for seen in list(self.shelf.listing(prefix, after)):
            self._trouble("listing-broken-off")
            self.shelf.unseen.discard(seen.key)
            yield seen

    def current_versions(self, prefix: str) -> Iterator[StoredObject | None]:
        self._call("listing", prefix)
        for seen in list(self.shelf.current_versions(prefix)):
            self._trouble("listing-broken-off")
            if seen is not None:
                self.shelf.unseen.discard(seen.key)
            yield seen

    def common_prefixes(self, prefix: str, after: str = "") -> Iterator[str]:
        self._call("listing", prefix)
        return self.shelf.common_prefixes(prefix, after)

    def read(
        self,
        key: str,
        version_id: str | None = None,
        *,
        offset_bytes: int = 0,
        length_bytes: int | None = None,
        buffer: memoryview | None = None,
        checksum: Callable[[str], None] | None = None,
    ) -> Iterator[bytes]:
        self._call("read", key)
        self._maybe_lose(key)
        self.shelf.unseen.discard(key)
        if version_id is None and key in self.shelf.objects:
            self._answered(key)
        for chunk in list(self.shelf.read(key, version_id, offset_bytes=offset_bytes, length_bytes=length_bytes)):
            self._trouble("read-broken-off")
            yield chunk
        self._fate.at("store.read.done")

    def check(self) -> None: ...

    def initialise(self) -> list[InitStep]:
        return []

    def probe(self, scratch_key: str) -> Capabilities:
        return self.capabilities

    @property
    def expiry(self) -> Expiry:
        return self.shelf.expiry if self.watched is None else self.watched.found

    def add_transitions(self, transitions: Sequence[Transition]) -> InitStep:
        raise NotImplementedError

    def restore(self, key: str, speed: Speed, days: int | None) -> Restoring:
        return self.shelf.restore(key, speed, days)

    def refresh_expiry(self) -> Expiry:
        self._call("expiry", "")
        return self.expiry if self.watched is None else self.watched.look(lambda key: self.head(key) is not None)

    def opened_anew(self) -> None:
        """By a daemon that starts: what the last one was told is forgotten, and the rules are looked at, if the store
        answers."""
        if self._fate.more.expires:
            self.watched = Watched(
                self.shelf.lifecycle, may_read=self._fate.more.may_read_rules, now=self._fate.clock.now
            )
            if not self._fate.strikes("rules-at-the-start", self._fate.plan.transient_rate):
                self.watched.look(lambda key: self.shelf.head(key) is not None)

    def close(self) -> None: ...

    def _answered(self, key: str) -> None:
        if self.watched is not None:
            self.watched.answered(key)

    def _asked(self, prefix: str) -> None:
        """A request is about to be sent that shows what is under these keys."""
        now = self._fate.clock.now()
        for key, data in self.shelf.objects.items():
            if key.startswith(prefix):
                for digest in self.shelf._contents(key, data):
                    self.asked.setdefault((key, digest), []).append(now)

    def _call(self, name: str, key: str) -> None:
        if name not in ("put", "expiry"):
            self._asked(key)
        # What is in the record of deletions holds inode numbers, which are others in each run.
        self._fate.at(f"store.{name} {'audit' if key.startswith(keys.AUDIT) else key[-24:]}")
        # What is asked once a study is quick: that evidence grows old is to be the work of its objects.
        if self._fate.more.slow_seconds and not self._fate.calm and key != keys.IDENTITY:
            self._fate.clock.advance(self._fate.random.random() * self._fate.more.slow_seconds)
        self._trouble(name)
        if key.startswith(self._fate.poisoned):
            raise Transient("the store is in trouble", code="server-error", endpoint="store")

    def _trouble(self, what: str) -> None:
        if self._fate.strikes(what, self._fate.plan.transient_rate):
            if self._fate.random.random() < 0.5:
                raise OutOfReach("the store does not answer", endpoint="store")
            raise Transient("the store is in trouble")

    def _damage(self, what: str) -> bool:
        return self._fate.strikes(what, self._fate.plan.damage_rate)

    def _maybe_lose(self, key: str) -> None:
        """Only before anybody has seen it: what is lost after the proof no proof can help."""
        if key in self.shelf.unseen and "/manifests/" not in key and self._damage("object-lost"):
            self.shelf.lose(key)

    def piece_bytes(self, size_bytes: int) -> int | None:
        """Half of what is sent in parts was hashed in pieces before: in one, for the files are small."""
        return 1 << 20 if size_bytes > self.single_put_bytes and size_bytes % 2 else None

    def _sent(self, content: Content) -> bytes:
        digest = content.digest
        if digest.size_bytes <= self.single_put_bytes:
            data = content.read(0, digest.size_bytes)
        else:
            parts = []
            for offset in range(0, digest.size_bytes, 200):
                parts.append(content.read(offset, min(200, digest.size_bytes - offset)))
                self._fate.at("store.put.part")
            data = b"".join(parts)
        if digest.pieces is not None:
            if digest.pieces.sha256s != (hashlib.sha256(data).digest(),):
                raise SourceChanged("the store has refused a part that is not the one that was hashed")
        elif _sha256(data) != digest.sha256:
            if digest.size_bytes <= self.single_put_bytes:
                raise Violation("the buffer that is sent is not the one that was hashed")
            raise SourceChanged("the file has changed while it was sent")
        return data

    def _other(self, data: bytes) -> bytes:
        if self._fate.random.random() < 0.3:
            return data[: len(data) // 2]
        at = self._fate.random.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


class SimulatedCatalogue:
    name = "simulated|table"

    def __init__(self, fate: Fate) -> None:
        self._fate = fate
        self.records: dict[Uid, StudyRecord] = {}

    def get(self, study_uid: Uid) -> StudyRecord | None:
        self._fate.at("catalogue.get")
        self._trouble("catalogue-get")
        return self.records.get(study_uid)

    def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
        self._fate.at("catalogue.put")
        self._trouble("catalogue-put")
        if self._fate.strikes("catalogue-forgets", self._fate.plan.damage_rate):
            return
        self.record(record, instead_of)
        self._fate.at("catalogue.put.done")
        self._trouble("catalogue-answer-lost")

    def record(self, record: StudyRecord, instead_of: str | None = None) -> None:
        present = self.records.get(record.study_uid)
        if present is not None and (
            present.revision > record.revision
            or (present.revision == record.revision and present.manifest_sha256 != record.manifest_sha256)
        ):
            raise RevisionConflict("a newer revision is recorded")
        if instead_of is not None and (
            present is None or present.manifest_sha256 not in (instead_of, record.manifest_sha256)
        ):
            raise RevisionConflict("another revision was gone on from")
        self.records[record.study_uid] = record

    def _trouble(self, what: str) -> None:
        if self._fate.strikes(what, self._fate.plan.transient_rate):
            raise OutOfReach("the catalogue does not answer", endpoint="catalogue")

    def search(self, query: Query) -> Iterator[StudyRecord]:
        yield from self.records.values()

    def shortcomings(self, query: Query) -> tuple[str, ...]:
        return ()

    def completed(self) -> None: ...

    def is_completed(self) -> bool:
        return True

    def study_uids(self) -> Iterator[Uid]:
        yield from self.records

    def identity(self) -> str | None:
        return ARCHIVE_ID

    def check(self) -> None: ...

    def initialise(self, archive_id: str) -> list[InitStep]:
        return []

    def close(self) -> None: ...


class OtherSite:
    """A second daemon that ships the same studies to the same archive, without trouble of its own; it may die
    between the manifest and the catalogue, and comes back at the end."""

    def __init__(self, shelf: Shelf, catalogue: SimulatedCatalogue, fate: Fate) -> None:
        self._shelf, self._catalogue, self._fate = shelf, catalogue, fate
        self.shipped: list[tuple[Uid, str]] = []

    def ship(self, study: Uid, series: Uid, sop_instance: Uid, data: bytes) -> None:
        key = keys.instance(study, series, sop_instance, _sha256(data))
        if not self._shelf.create(key, data) and self._shelf.objects[key] != data:
            return  # damaged there by somebody else: this site parks it
        self._shelf.unseen.discard(key)
        now = timestamp(self._fate.clock.now())
        item = ManifestInstance(
            series_uid=series,
            sop_instance_uid=sop_instance,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            key=key,
            size_bytes=len(data),
            object_bytes=len(data),
            sha256=_sha256(data),
            etag=None,
            version_id=None,
            original_path="IM",
            inbox="other",
            stored_at=now,
            verified_by="read-back",
        )
        current = lineage.current(self._shelf, study) or empty(ARCHIVE_ID, study)
        merged = current.merged(
            [item],
            attributes={"00100020": {"vr": "LO", "Value": [tiny.patient_of(data)]}},
            identities=[Identity(patient_id=tiny.patient_of(data))],
            series={},
            flags=(),
            damaged_keys=(),
            created_at=now,
            created_by="other site",
        )
        if merged is not current and not manifests.create(self._shelf, merged):
            raise Violation("two manifests of one revision")
        self.shipped.append((study, item.sha256))
        self._fate.trace.add("other site", study, merged.revision)
        if self._fate.calm or self._fate.random.random() < 0.7:
            self.record(study)

    def record(self, study: Uid) -> None:
        """Bring the catalogue to what the store holds of a study that this site had a part in."""
        manifest = lineage.current(self._shelf, study)
        if manifest is not None:
            self._catalogue.record(manifest.record())


def receipt(shelf: Shelf, key: str, data: bytes, created: bool) -> Receipt:
    """What the bytes sent must look like in the store, whatever is there."""
    backs = shelf.capabilities
    answers = created and (backs.etag_follows_parts if shelf.is_in_parts(data) else backs.etag_follows_content)
    return Receipt(
        key=key,
        size_bytes=len(data),
        sha256=_sha256(data),
        created=created,
        expected_etag=None if answers else shelf.etag(data),
        expected_checksum=f"sha256:{_sha256(data)}" if backs.checksum_on_head else None,
        answered_etag=shelf.etag(data) if answers else None,
        version_id=shelf.versions.get(key) if "versions" in backs.details else None,
    )


def part(data: bytes, offset_bytes: int, length_bytes: int | None) -> bytes:
    """What a ranged read gives of an object."""
    return data[offset_bytes : None if length_bytes is None else offset_bytes + length_bytes]


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
