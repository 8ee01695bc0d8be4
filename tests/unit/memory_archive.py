"""An archive in memory for the unit tests of fetch and the command line tool; it can be told to misbehave."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dicomwatchd.archive import keys
from dicomwatchd.archive.documents import matches
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest, empty
from dicomwatchd.archive.records import Query, StudyRecord
from dicomwatchd.archive.stores.port import (
    Capabilities,
    Chunk,
    Content,
    Destination,
    Expiry,
    InitStep,
    Receipt,
    Restore,
    Restoring,
    Speed,
    Standing,
    StoredObject,
    Transition,
)
from dicomwatchd.errors import ColdObject, DicomwatchdError, NoSuchObject, RevisionConflict
from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.patients import Identity
from dicomwatchd.study_signs import SeriesSigns

STUDY = Uid("1.2.840.99999.1")
SERIES = Uid("1.2.840.99999.1.1")
OTHER_SERIES = Uid("1.2.840.99999.1.2")
PATIENT: DicomJson = {
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Canary^Name"}]},
    "00100020": {"vr": "LO", "Value": ["CANARY-ID"]},
    "00080050": {"vr": "SH", "Value": ["ACC-1"]},
    "00080020": {"vr": "DA", "Value": ["20260131"]},
}


def common_prefixes(found: Iterable[str], prefix: str, after: str) -> Iterator[str]:
    """Those of keys below ``prefix`` that are in order."""
    last = after
    for key in found:
        below, slash, _ = key.removeprefix(prefix).partition("/")
        one = f"{prefix}{below}{slash}"
        if slash and one > last:
            last = one
            yield one


@dataclass
class MemoryStore:
    """``versions`` holds every version of a key, newest last; ``tampering`` may change, cut or break what is read. Keys
    in ``hidden`` are under a delete marker. ``versioned``: answers name the version, as those of S3 do."""

    versions: dict[str, list[bytes]] = field(default_factory=dict)
    chunk_bytes: int = 1000
    tampering: Callable[[str, int, Iterator[bytes]], Iterator[bytes]] | None = None
    reads: list[str] = field(default_factory=list)
    destination: Destination = field(default_factory=lambda: Destination("memory", "memory", "tests", ""))
    endpoint: str = "memory"
    capabilities: Capabilities = field(default_factory=Capabilities)
    single_put_bytes: int = 1 << 20
    initialised: bool = True
    fault: DicomwatchdError | None = None
    versioned: bool = False
    hidden: set[str] = field(default_factory=set)
    #: Why it ends objects by itself, if it does.
    expires: str | None = None
    #: Why its settings do not protect what it holds, if so.
    unprotected: str | None = None
    #: The class of keys in cold storage, and how far those are that were asked back.
    cold: dict[str, str] = field(default_factory=dict)
    restores: dict[str, Restore] = field(default_factory=dict)
    transitions: tuple[Transition, ...] = ()
    #: What was asked back, how fast and for how long.
    asked_back: list[tuple[str, Speed, int | None]] = field(default_factory=list)
    #: What it says of an object's checksum with the bytes.
    tells: Callable[[bytes], str] | None = None
    #: Every object that was looked at by HEAD.
    heads: list[str] = field(default_factory=list)
    #: The archive's identity, where it is not among the ``versions``: most tests ask for a study's objects alone.
    signed: bytes | None = None

    def mark_deleted(self, key: str) -> None:
        """As DeleteObject does in a bucket with versioning: nothing is gone, and a plain GET finds nothing."""
        assert key in self.versions
        self.hidden.add(key)

    def overwrite(self, key: str, data: bytes) -> None:
        """Somebody puts another version over what is there."""
        self.versions[key].append(data)
        self.hidden.discard(key)

    def piece_bytes(self, size_bytes: int) -> int | None:
        return None

    def put(self, key: str, content: Content) -> Receipt:
        created = key not in self.versions or key in self.hidden
        digest = content.digest
        if created:
            self.versions.setdefault(key, []).append(content.read(0, digest.size_bytes))
            self.hidden.discard(key)
        return Receipt(key, digest.size_bytes, digest.sha256, created, version_id=self._current(key))

    def _current(self, key: str) -> str | None:
        return str(len(self.versions[key]) - 1) if self.versioned else None

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        self._fail()
        if key not in self.versions or (version_id is None and key in self.hidden):
            return None
        self.heads.append(key)
        restore = self.restores.get(key)
        is_cold = key in self.cold and (restore is None or restore.is_under_way)
        return replace(self._shown(key, version_id), is_cold=is_cold, restore=restore)

    def _shown(self, key: str, version_id: str | None = None) -> StoredObject:
        data = self.versions[key][-1 if version_id is None else int(version_id)]
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        version_id = version_id or self._current(key)
        return StoredObject(key, len(data), etag=etag, version_id=version_id, storage_class=self.cold.get(key))

    def standing(self, key: str, path: bytes, found: os.stat_result) -> Standing:
        return Standing.APART

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        self._fail()
        for key in sorted(self.versions):
            # What was deleted since the listing began is in it no more.
            if key.startswith(prefix) and key > after and key in self.versions and key not in self.hidden:
                is_cold = self.cold.get(key) in ("GLACIER", "DEEP_ARCHIVE")
                yield replace(self._shown(key), version_id=None, is_cold=is_cold)

    def current_versions(self, prefix: str) -> Iterator[StoredObject | None]:
        self._fail()
        for key in sorted(self.versions):
            if key.startswith(prefix):
                yield None if key in self.hidden else self._shown(key)

    def common_prefixes(self, prefix: str, after: str = "") -> Iterator[str]:
        return common_prefixes((seen.key for seen in self.listing(prefix)), prefix, after)

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
        self._fail()
        if key == keys.IDENTITY and self.signed is not None:
            yield self.signed
            return
        self.reads.append(key)
        try:
            if version_id is None and key in self.hidden:
                raise KeyError(key)
            data = self.versions[key][-1 if version_id is None else int(version_id)]
        except (KeyError, IndexError):
            raise NoSuchObject("no such object") from None
        if key in self.cold and (key not in self.restores or self.restores[key].is_under_way):
            raise ColdObject("in cold storage")
        if checksum is not None and length_bytes is None and self.tells is not None:
            checksum(self.tells(data))
        data = data[offset_bytes : None if length_bytes is None else offset_bytes + length_bytes]
        chunks = (data[at : at + self.chunk_bytes] for at in range(0, len(data), self.chunk_bytes))
        for chunk in chunks if self.tampering is None else self.tampering(key, self.reads.count(key), chunks):
            if buffer is None or len(chunk) > len(buffer):
                yield chunk
                continue
            view = buffer[: len(chunk)]
            view[:] = chunk
            yield view
            view[:] = bytes(len(view))  # of use until the next is asked for, and no longer

    def restore(self, key: str, speed: Speed, days: int | None) -> Restoring:
        self._fail()
        self.asked_back.append((key, speed, days))
        if key not in self.cold or (key in self.restores and not self.restores[key].is_under_way):
            return Restoring.READABLE
        if key in self.restores:
            return Restoring.UNDER_WAY
        self.restores[key] = Restore(is_under_way=True)
        return Restoring.STARTED

    def check(self) -> None:
        self._fail()

    def initialise(self) -> list[InitStep]:
        self._fail()
        was, self.initialised = self.initialised, True
        return [InitStep("folder", "present" if was else "created")]

    def add_transitions(self, transitions: Sequence[Transition]) -> InitStep:
        self.transitions = tuple(transitions)
        return InitStep("lifecycle of instances and bundles", "set")

    def probe(self, scratch_key: str) -> Capabilities:
        return self.capabilities

    @property
    def expiry(self) -> Expiry:
        return Expiry(self.expires, unprotected=self.unprotected)

    def refresh_expiry(self) -> Expiry:
        self._fail()
        return self.expiry

    def close(self) -> None:
        pass

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault


@dataclass
class MemoryCatalogue:
    records: dict[Uid, StudyRecord] = field(default_factory=dict)
    archive_id: str | None = None
    name: str = "memory"
    fault: DicomwatchdError | None = None
    #: What `shortcomings` says of every query.
    lacking: tuple[str, ...] = ()

    def get(self, study_uid: Uid) -> StudyRecord | None:
        self._fail()
        return self.records.get(study_uid)

    def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
        """Tests put here what they like: only what a put asks for is refused."""
        self._fail()
        there = self.records.get(record.study_uid)
        if instead_of is not None and (
            there is None or there.manifest_sha256 not in (instead_of, record.manifest_sha256)
        ):
            raise RevisionConflict("another revision was gone on from")
        self.records[record.study_uid] = record

    def search(self, query: Query) -> Iterator[StudyRecord]:
        self._fail()
        for record in sorted(self.records.values(), key=lambda r: r.study_date, reverse=True):
            if matches(query, record):
                yield record

    def shortcomings(self, query: Query) -> tuple[str, ...]:
        return self.lacking

    def completed(self) -> None:
        self._fail()

    def is_completed(self) -> bool:
        return True

    def study_uids(self) -> Iterator[Uid]:
        self._fail()
        yield from self.records

    def identity(self) -> str | None:
        self._fail()
        return self.archive_id

    def check(self) -> None:
        self._fail()

    def initialise(self, archive_id: str) -> list[InitStep]:
        self._fail()
        outcome = "created" if self.archive_id is None else "present"
        self.archive_id = archive_id
        return [InitStep("catalogue", outcome)]

    def close(self) -> None:
        pass

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault


def content(number: int, size_bytes: int = 2500) -> bytes:
    """Bytes that differ for each number."""
    return hashlib.sha256(str(number).encode()).digest() * (size_bytes // 32) + bytes(size_bytes % 32)


def instance(
    series: Uid, sop: str, data: bytes, *, study: Uid = STUDY, version_id: str | None = None
) -> ManifestInstance:
    sha256 = hashlib.sha256(data).hexdigest()
    uid = Uid(sop)
    return ManifestInstance(
        series_uid=series,
        sop_instance_uid=uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        key=keys.instance(study, series, uid, sha256),
        size_bytes=len(data),
        object_bytes=len(data),
        sha256=sha256,
        etag=hashlib.md5(data, usedforsecurity=False).hexdigest(),
        version_id=version_id,
        original_path="CANARY^PATH/IM1",
        inbox="ct1",
        stored_at="2026-01-31T12:00:00.000Z",
        verified_by="etag-md5",
    )


def archive(
    store: MemoryStore,
    files: Iterable[tuple[Uid, str, bytes]],
    *,
    study: Uid = STUDY,
    before: Manifest | None = None,
    attributes: DicomJson | None = None,
    archive_id: str = "archive-1",
    identities: Iterable[Identity] = (),
    signs: Mapping[Uid, SeriesSigns] | None = None,
) -> Manifest:
    """Put the files ``(series, SOP Instance UID, bytes)`` and the next manifest into the store."""
    items = []
    for series, sop, data in files:
        items.append(instance(series, sop, data, study=study))
        store.versions.setdefault(items[-1].key, [data])
    manifest = (before or empty(archive_id, study)).merged(
        items,
        attributes=PATIENT if attributes is None else attributes,
        series={item.series_uid: {"00080060": {"vr": "CS", "Value": ["CT"]}} for item in items},
        flags=(),
        damaged_keys=(),
        created_at="2026-01-31T12:00:00.000Z",
        created_by="tests",
        identities=identities,
        signs=signs,
    )
    store.versions[manifest.key] = [manifest.to_bytes()]
    return manifest
