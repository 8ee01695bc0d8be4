"""audit checkpoints of an audit chain, in a folder and in real buckets: the newest is found by one look."""

from __future__ import annotations

import hashlib
from itertools import islice

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import audit_checkpoints
from dicomwatchd.archive.layout.audit_checkpoints import AuditCheckpoint
from dicomwatchd.archive.stores.port import ObjectStore

CHAIN, OTHER = "0a" * 16, "0b" * 16
AT = "2026-01-31T12:00:00.000Z"


def head(sequence: int, chain: str = CHAIN, salt: str = "") -> AuditCheckpoint:
    return AuditCheckpoint(chain, sequence, hashlib.sha256(f"{sequence}{salt}".encode()).hexdigest(), AT)


def test_the_newest_counts_and_none_is_overwritten(store: ObjectStore) -> None:
    assert audit_checkpoints.newest(store, CHAIN) is None
    assert list(audit_checkpoints.chains(store)) == []
    for sequence in (2, 9998, 10_001, 10_003, 10_002):
        assert audit_checkpoints.publish(store, head(sequence)) == head(sequence)
    assert audit_checkpoints.newest(store, CHAIN) == head(10_003)
    assert audit_checkpoints.publish(store, head(10_003, salt="x")) == head(10_003)
    assert audit_checkpoints.newest(store, OTHER) is None
    audit_checkpoints.publish(store, head(5, OTHER))
    assert audit_checkpoints.newest(store, CHAIN) == head(10_003)
    assert [chain.chain_id for chain in audit_checkpoints.chains(store)] == [CHAIN, OTHER]
    [first] = islice(store.listing(keys.audit_checkpoints_prefix(CHAIN)), 1)
    assert first.key == head(10_003).key
