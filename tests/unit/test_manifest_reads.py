"""How often a manifest is read: once where something vouches for what has arrived, else twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import pytest

from dicomwatchd.archive.layout import manifests
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.port import composed
from dicomwatchd.errors import Transient
from tests.unit.memory_archive import SERIES, MemoryStore, archive, content


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def manifest(store: MemoryStore) -> Manifest:
    return archive(store, [(SERIES, "1.2.1", content(1))])


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize(
    ("tells", "reads"),
    [
        (sha256, 1),
        (lambda data: sha256(data).upper().replace("SHA256", "sha256"), 2),
        (lambda data: sha256(data + b" "), 2),
        (lambda data: composed([hashlib.sha256(data).digest()]), 2),
        (lambda _data: "crc64nvme:AAAAAAAAAAA=", 2),
        (lambda _data: "sha256:", 2),
        (None, 2),
    ],
)
def test_the_stores_own_checksum_vouches_for_what_was_read(
    store: MemoryStore, manifest: Manifest, tells: Callable[[bytes], str] | None, reads: int
) -> None:
    store.tells = tells
    assert manifests.load(store, manifest.key).sha256 == manifest.sha256
    assert store.reads == [manifest.key] * reads


@pytest.mark.parametrize("first", [1, 2])
def test_a_bit_that_changes_on_the_way_is_noticed(store: MemoryStore, manifest: Manifest, first: int) -> None:
    """The checksum is of what the store has, and the bytes are others: they are not believed."""

    def garbled(_key: str, number: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield chunk.replace(b"Canary", b"Cbnary") if number == first else chunk

    store.tells, store.tampering = sha256, garbled
    if first == 1:
        with pytest.raises(Transient) as refused:
            manifests.load(store, manifest.key)
        assert refused.value.code == "damaged-on-the-way"
    else:
        assert manifests.load(store, manifest.key).sha256 == manifest.sha256


def test_who_does_not_ask_is_told_nothing(store: MemoryStore, manifest: Manifest) -> None:
    """A part of an object has no checksum of the whole."""
    store.tells = sha256
    told: list[str] = []
    list(store.read(manifest.key, offset_bytes=2, length_bytes=5, checksum=told.append))
    assert told == []
    list(store.read(manifest.key, checksum=told.append))
    assert told == [sha256(store.versions[manifest.key][0])]
