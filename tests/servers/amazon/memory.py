"""What Amazon keeps of buckets, objects and uploads that the store behind does not: checksums, encryption, classes.

It is remembered in the server alone, so objects that were put past it have nothing of it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class Facts:
    """Of one version of an object. ``checksums`` by the header's algorithm ("sha256"); ``etag`` is Amazon's, without
    quotes, None where it is that of the store behind."""

    version: str | None = None
    etag: str | None = None
    checksums: dict[str, str] = field(default_factory=dict)
    checksum_type: str = "FULL_OBJECT"
    encryption: str = "AES256"
    kms_key: str | None = None
    bucket_key: bool = False
    storage_class: str = "STANDARD"
    restore: str | None = None
    restore_tier: str = ""


@dataclass(slots=True)
class Part:
    etag: str
    kept_etag: str
    checksum: str | None


@dataclass(slots=True)
class Upload:
    """``algorithm`` in lower case, None where the upload was begun without one."""

    bucket: str
    key: str
    facts: Facts
    algorithm: str | None
    checksum_type: str
    parts: dict[int, Part] = field(default_factory=dict)


@dataclass(slots=True)
class Bucket:
    region: str
    locks_by_default: bool = False
    encryption: bytes | None = None
    default_mode: str = "AES256"
    default_key: str | None = None
    default_bucket_key: bool = False


class Memory:
    """Whoever reads or changes holds ``lock``."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.buckets: dict[str, Bucket] = {}
        self.uploads: dict[str, Upload] = {}
        self._versions: dict[tuple[str, str], list[Facts]] = {}

    def add(self, bucket: str, key: str, facts: Facts) -> None:
        with self.lock:
            kept = self._versions.setdefault((bucket, key), [])
            if facts.version is None:
                kept.clear()
            kept.append(facts)

    def find(self, bucket: str, key: str, version: str | None = None) -> Facts | None:
        """Of that version, of the newest without one."""
        with self.lock:
            kept = self._versions.get((bucket, key), [])
            found = [facts for facts in kept if version is None or facts.version == version]
            return found[-1] if found else None

    def forget(self, bucket: str, key: str, version: str | None) -> None:
        with self.lock:
            kept = self._versions.get((bucket, key), [])
            kept[:] = [facts for facts in kept if facts.version != version]

    def below(self, bucket: str, prefix: str) -> list[Facts]:
        with self.lock:
            found = [(name, kept) for (name, key), kept in self._versions.items() if key.startswith(prefix)]
            return [facts for name, kept in found if name == bucket for facts in kept]
