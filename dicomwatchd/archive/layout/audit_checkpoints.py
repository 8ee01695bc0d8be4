"""What the archive holds of audit chains: which there are, and heads of them, each created once and never changed.

A head (number and hash of a chain's newest entry) stands for all entries before it. Whoever can cut entries off a chain
in a daemon's state cannot take back what was published of it here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from dicomwatchd.archive import keys
from dicomwatchd.archive.stores.port import Buffer, ObjectStore
from dicomwatchd.errors import Permanent, Transient

FORMAT = "dicomwatchd-audit-head/1"

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,16}Z\Z")
_MOST_BYTES = 65536


class BadCheckpoint(Permanent):
    """What is there is no head of a chain: damaged, or put there by somebody else."""

    code = "bad-audit-head"


@dataclass(frozen=True, slots=True)
class AuditCheckpoint:
    """``sha256`` is the hash of entry ``sequence`` of the chain; ``published_at`` is UTC, ISO 8601, with "Z"."""

    chain_id: str
    sequence: int
    sha256: str
    published_at: str

    @property
    def key(self) -> str:
        return keys.audit_checkpoint(self.chain_id, self.sequence)

    def to_bytes(self) -> bytes:
        return (json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True) + "\n").encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> AuditCheckpoint:
        """Raises BadCheckpoint for anything that is not a head in every part."""
        try:
            raw: Any = json.loads(data)
            head = cls(raw["chain_id"], raw["sequence"], raw["sha256"], raw["published_at"])
            if raw["format"] != FORMAT or len(raw) != 5:
                raise ValueError("another format")
            if isinstance(head.sequence, bool) or not isinstance(head.sequence, int):
                raise TypeError("no number")
            if not _SHA256.match(head.sha256) or not _TIMESTAMP.match(head.published_at):
                raise ValueError("no SHA-256, or no time")
            keys.audit_checkpoint(head.chain_id, head.sequence)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadCheckpoint("an audit checkpoint of an audit chain cannot be read") from error
        return head


def newest(store: ObjectStore, chain_id: str) -> AuditCheckpoint | None:
    """The highest head that was published of this chain: one page of a listing. Raises BadCheckpoint, Transient,
    Permanent."""
    for seen in store.listing(keys.audit_checkpoints_prefix(chain_id)):
        if keys.parse_audit_checkpoint(seen.key) is not None:
            return _load(store, seen.key)
    return None


def publish(store: ObjectStore, head: AuditCheckpoint) -> AuditCheckpoint:
    """Create this head, and the chain's own object where there is none; returns the head that the store holds under
    that number then, which is another one where somebody else goes on with the same chain. Raises as `newest`."""
    chain = keys.audit_chain(head.chain_id)
    if store.head(chain) is None:
        store.put(chain, Buffer.of(head.to_bytes()))
    store.put(head.key, Buffer.of(head.to_bytes()))
    return _load(store, head.key)


def chains(store: ObjectStore) -> Iterator[AuditCheckpoint]:
    """The first head of each chain that daemons have published here. Raises as `newest`."""
    for seen in store.listing(keys.AUDIT_CHAINS):
        chain_id = keys.parse_audit_chain(seen.key)
        if chain_id is not None:
            first = AuditCheckpoint.from_bytes(_read(store, seen.key))
            if first.chain_id != chain_id:
                raise BadCheckpoint("an audit chain in the store does not match its key")
            yield first


def _load(store: ObjectStore, key: str) -> AuditCheckpoint:
    head = AuditCheckpoint.from_bytes(_read(store, key))
    if head.key != key:
        raise BadCheckpoint("an audit checkpoint does not match its key")
    return head


def _read(store: ObjectStore, key: str) -> bytes:
    """Read twice: a bit that changed on the way must not look like a chain that was tampered with."""
    first = _read_once(store, key)
    if _read_once(store, key) != first:
        raise Transient("two reads of an audit checkpoint differ", code="damaged-on-the-way")
    return first


def _read_once(store: ObjectStore, key: str) -> bytes:
    data = b""
    for chunk in store.read(key):
        data += chunk
        if len(data) > _MOST_BYTES:
            break
    return data
