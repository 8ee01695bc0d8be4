"""Finished segments of an audit chain, in a folder and in real buckets: created once, read back, listed in order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest

from dicomwatchd.archive.layout import audit_segments
from dicomwatchd.archive.layout.audit_segments import BadSegment, Header, SegmentKey
from dicomwatchd.archive.stores.port import Buffer, ObjectStore
from tests.conformance.conftest import Place

CHAIN = "0a" * 16


def entries(first: int, count: int, previous: str) -> tuple[list[str], str]:
    made = []
    for sequence in range(first, first + count):
        body = {"sequence": sequence, "previous": previous, "study_uid": "1.2.3", "kind": "deleted", "salt": "x" * 300}
        made.append(json.dumps(body, sort_keys=True, separators=(",", ":")))
        previous = hashlib.sha256(made[-1].encode()).hexdigest()
    return made, previous


def put(store: ObjectStore, first: int, count: int, previous: str) -> tuple[SegmentKey, str]:
    texts, head = entries(first, count, previous)
    packed = audit_segments.pack(Header(CHAIN, first, first + count - 1, previous, head), texts)
    name = SegmentKey(CHAIN, first, first + count - 1, packed.sha256)
    store.put(name.key, Buffer.of(packed.data))
    store.put(name.key, Buffer.of(packed.data))  # again, as after a crash
    return name, head


def test_segments_are_read_back_whole_and_listed_in_order(store: ObjectStore) -> None:
    assert list(audit_segments.listed(store, CHAIN)) == []
    names, head = [], audit_segments.FIRST
    first = 1
    for count in (3, 5000, 1, 20):
        name, head = put(store, first, count, head)
        names.append(name)
        first += count
    assert [name for name, _ in audit_segments.listed(store, CHAIN)] == names
    previous = audit_segments.FIRST
    for name in names:
        header, kept = audit_segments.read_checked(store, name, lambda text: '"sequence":4,' in text)
        assert header.previous == previous and len(kept) == (1 if name.first == 4 else 0)
        previous = header.head
    assert previous == head


def test_what_is_missing_or_damaged(store: ObjectStore, place: Place) -> None:
    name, _ = put(store, 1, 50, audit_segments.FIRST)
    with pytest.raises(BadSegment, match="is missing"):
        audit_segments.read_checked(store, SegmentKey(CHAIN, 51, 60, "0" * 64))
    [(_, size)] = audit_segments.listed(store, CHAIN)
    data = b"".join(bytes(chunk) for chunk in store.read(name.key))
    assert len(data) == size
    changes: list[Callable[[bytes], bytes]] = [
        lambda x: x[:-1],
        lambda x: x[:50] + bytes([x[50] ^ 1]) + x[51:],
        lambda _: b"",
        lambda x: x + x,
    ]
    for change in changes:
        place.overwrite(name.key, change(data))
        with pytest.raises(BadSegment, match="1 to 50"):
            audit_segments.read_checked(store, name)
    place.overwrite(name.key, data)
    audit_segments.read_checked(store, name)
