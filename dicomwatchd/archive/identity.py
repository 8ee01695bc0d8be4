"""The archive's identity: one small object in the store, written once, that says which archive this is."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from dicomwatchd.archive import keys
from dicomwatchd.archive.stores.port import Buffer, ObjectStore
from dicomwatchd.errors import ArchiveRefused, ColdObject, Conflict, NoSuchObject, NotThere, Permanent, Transient

FORMAT = "dicomwatchd-archive/1"

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_MOST_BYTES = 65536
#: Of its creation, while another one is under way.
_ATTEMPTS = 6
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class ArchiveIdentity:
    """``archive_id`` is a UUID in lower case with hyphens; ``created_at`` is UTC, ISO 8601, with "Z"."""

    archive_id: str
    created_at: str

    def to_bytes(self) -> bytes:
        raw = {"format": FORMAT, "archive_id": self.archive_id, "created_at": self.created_at}
        return (json.dumps(raw, sort_keys=True) + "\n").encode("ascii")


def read_identity(store: ObjectStore) -> ArchiveIdentity | None:
    """The identity the store holds, None if it holds none. Raises ArchiveRefused for one that cannot be read: that
    is no archive of ours, or a damaged one, and not a new one. Raises Transient."""
    data = b""
    try:
        for chunk in store.read(keys.IDENTITY):
            data += chunk
            if len(data) > _MOST_BYTES:
                break
    except NoSuchObject:
        return None
    try:
        raw = json.loads(data)
        identity = ArchiveIdentity(raw["archive_id"], raw["created_at"])
        if raw["format"] != FORMAT or not _UUID.match(identity.archive_id) or not isinstance(identity.created_at, str):
            raise ValueError("another format")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArchiveRefused(
            f"{keys.IDENTITY} in the store is not the identity of an archive", hint="is this the right place?"
        ) from error
    return identity


def require_identity(store: ObjectStore, archive_id: str, *, refusal_tells: bool = True) -> None:
    """That the store is still this archive, asked now. Another place may come to stand under the same address while a
    daemon runs: a share that is unmounted, a bucket that was made anew, a gateway without its disks, keys of another
    account. It takes and shows objects as the archive would, and nobody finds them once the archive is back.

    Raises NotThere where it holds no identity that can be read, or another's; Transient. In cold storage nobody reads
    it; a place that has just come to be has nothing there. ``refusal_tells``: a store that refuses to show it counts as
    another place; it may be the archive without its key, too.
    """
    try:
        held = read_identity(store)
    except ColdObject:
        return
    except (ArchiveRefused, Permanent) as error:  # neither ends the daemon nor parks a study: it may be back soon
        if isinstance(error, Permanent) and not refusal_tells:
            return
        raise _not_there(store) from error
    if held is None or held.archive_id != archive_id:
        raise _not_there(store)


def _not_there(store: ObjectStore) -> NotThere:
    return NotThere(
        "the store is another place than at the start of the daemon: it does not show the archive's identity",
        hint="is the share mounted, is it the right bucket, and whose are the keys? Local files are kept until then",
        endpoint=store.endpoint,
    )


def write_identity(
    store: ObjectStore, identity: ArchiveIdentity, sleep: Callable[[float], None] = time.sleep
) -> ArchiveIdentity:
    """Give the store an identity if it has none; returns the one it holds then, which may be another's who was
    quicker. Raises Transient, ArchiveRefused."""
    for attempt in range(1, _ATTEMPTS + 1):
        if (held := read_identity(store)) is not None:
            return held
        try:
            store.put(keys.IDENTITY, Buffer.of(identity.to_bytes()))
            break
        except Conflict:
            # Amazon refuses whoever comes while another's creation is under way (409): soon there is one, or none.
            if attempt == _ATTEMPTS:
                raise
            sleep(_PAUSE_SECONDS * attempt)
    held = read_identity(store)
    if held is None:
        raise Transient("the store does not return the identity that was just written", code="strange-answer")
    return held
