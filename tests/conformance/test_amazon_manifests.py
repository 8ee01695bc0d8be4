"""How often a manifest is fetched from Amazon, where its ETag is no MD5 (SSE-KMS): once, with the checksum that the
store keeps of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from dicomwatchd.archive.layout import lineage, manifests
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.port import Buffer
from dicomwatchd.archive.stores.s3.connection import Connection
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.errors import ColdObject, NoSuchObject, Transient
from tests.conformance.test_amazon_store import Place, at_amazon
from tests.unit.memory_archive import SERIES, STUDY, MemoryStore, archive, content

__all__ = ["at_amazon"]


@pytest.fixture
def place(at_amazon: Callable[..., Place]) -> Place:
    return at_amazon()


def stored(place: Place) -> tuple[S3Store, Manifest]:
    """By a daemon; a store that has probed nothing, as that of a command, reads it."""
    memory = MemoryStore()
    made = archive(memory, [(SERIES, "1.2.1", content(1))])
    place.ready().put(made.key, Buffer.of(made.to_bytes()))
    place.amazon.forget()
    return place.open(), made


def test_a_manifest_is_fetched_once(place: Place) -> None:
    """A rebuild of an empty catalogue, or a fetch without one: the listing's ETag proves nothing."""
    store, made = stored(place)
    listed = manifests.listed(store, STUDY)
    assert listed.revisions[1].etag != hashlib.md5(made.to_bytes(), usedforsecurity=False).hexdigest()
    found = lineage.trace(store, listed, None)
    assert found.current is not None and found.current.sha256 == made.sha256
    assert place.amazon.requests().count("GetObject") == 1


def test_a_checksum_of_another_kind_is_not_enough(place: Place) -> None:
    """As of an object that somebody has put there without one: Amazon keeps a CRC64NVME."""
    store, made = stored(place)
    place.s3.put_object(**place.of(made.key), Body=made.to_bytes())
    place.amazon.forget()
    assert manifests.load(store, made.key).sha256 == made.sha256
    assert place.amazon.requests().count("GetObject") == 2


def test_bytes_that_changed_on_the_way_are_not_believed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store, made = stored(place)
    client: Any = store._bucket.client
    plain = client.get_object

    class Line:
        """Gives what comes over it with another bit."""

        def __init__(self, body: Any) -> None:
            self._body = body

        def stream(self, *_: Any, **__: Any) -> Any:
            raise AssertionError

        def read(self, amt: int | None = None) -> bytes:
            return bytes(self._body.read(amt)).replace(b"Canary", b"Cbnary")

        def close(self) -> None:
            self._body.close()

    def garbled(**arguments: Any) -> Any:
        response = plain(**arguments)
        response["Body"]._raw_stream = Line(response["Body"]._raw_stream)
        return response

    monkeypatch.setattr(client, "get_object", garbled)
    with pytest.raises(Transient) as refused:
        manifests.load(store, made.key)
    assert refused.value.code == "damaged-on-the-way" and refused.value.endpoint is None


def test_only_who_asks_has_the_checksum(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of images are compared with what is on record, and pay for no further hash."""
    store, made = stored(place)
    told: list[str] = []
    modes: list[bool] = []
    exchange = Connection.exchange

    def sent(self: Connection, method: str, url: str, headers: list[str], *more: Any) -> Any:
        modes.append(any(line.startswith("x-amz-checksum-mode") for line in headers))
        return exchange(self, method, url, headers, *more)

    monkeypatch.setattr(Connection, "exchange", sent)
    list(store.read(made.key, offset_bytes=1, length_bytes=3, checksum=told.append))
    list(store.read(made.key))
    assert told == [] and modes == [False, False]
    data = b"".join(map(bytes, store.read(made.key, checksum=told.append)))
    assert told == [f"sha256:{hashlib.sha256(data).hexdigest()}"] and data == made.to_bytes()


def test_what_is_not_there_or_cold_is_said_as_ever(place: Place) -> None:
    store, made = stored(place)
    told: list[str] = []
    with pytest.raises(NoSuchObject):
        list(store.read("studies/1.2.9/manifests/00000001.json", checksum=told.append))
    source: Any = place.of(made.key)
    place.s3.copy_object(**source, CopySource=source, StorageClass="GLACIER")
    with pytest.raises(ColdObject):
        list(store.read(made.key, checksum=told.append))
    assert told == []
