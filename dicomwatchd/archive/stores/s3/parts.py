"""The parts of an object: what is worked out of each, and by what the object that is made of them is proven.

One pass over a part's bytes, where the store compares what comes of it with what arrives: their SHA-256. Their MD5,
which takes twice as long, only where nothing else tells.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dicomwatchd.archive.stores import etags
from dicomwatchd.archive.stores.port import Capabilities, composed

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef


@dataclass(frozen=True, slots=True)
class Digests:
    """Of one part. None: not worked out."""

    md5: bytes | None = None
    sha256: bytes | None = None

    @classmethod
    def of(cls, data: bytearray, *, md5: bool, sha256: bool) -> Digests:
        return cls(
            hashlib.md5(data, usedforsecurity=False).digest() if md5 else None,
            hashlib.sha256(data).digest() if sha256 else None,
        )


@dataclass(frozen=True, slots=True)
class Means:
    """By what an object is proven, once it was sent.

    ``with_checksums``: the store keeps the SHA-256 of each part and gives back what it composes of them
    (`Capabilities.checksum_of_parts`). ``by_etags``: it compares each part with its SHA-256, and the object's ETag
    follows from those with which it answers (`Capabilities.etag_follows_parts`). Where neither holds: by MD5.
    """

    with_checksums: bool = False
    by_etags: bool = False

    @classmethod
    def of(cls, backs: Capabilities) -> Means:
        return cls(with_checksums=backs.checksum_of_parts, by_etags=backs.etag_follows_parts)

    def for_parts_found_there(self) -> Means:
        """No answer of the store's speaks of these: what they hold is computed here."""
        return replace(self, by_etags=False)

    @property
    def with_md5(self) -> bool:
        return not (self.with_checksums or self.by_etags)

    def digests(self, data: bytearray) -> Digests:
        """Of a part that is to be sent."""
        return Digests.of(data, md5=self.with_md5, sha256=not self.with_md5)

    def digests_of_existing(self, data: bytearray) -> Digests:
        """Of a part of an object that is there already: of whatever may tell, for nobody knows how it was sent."""
        return Digests.of(data, md5=True, sha256=self.with_checksums)

    def arguments(self, digests: Digests) -> dict[str, str]:
        """As boto3's upload_part takes them."""
        found = {}
        if digests.md5 is not None:
            found["ContentMD5"] = _base64(digests.md5)
        if self.with_checksums and digests.sha256 is not None:
            found["ChecksumSHA256"] = _base64(digests.sha256)
        return found

    def bears_out(self, digests: Digests, echo: str | None) -> bool:
        """Whether the answer to a part, which names this SHA-256 or none, says that these bytes were compared. Where
        checksums are kept the probe has seen that each answer names it."""
        if digests.sha256 is None or (echo is None and self.with_checksums):
            return False
        return echo in (None, _base64(digests.sha256))


@dataclass(frozen=True, slots=True)
class Part:
    """A part as it was sent (or found there): its number from 1, the store's ETag, the digests of our bytes.
    ``is_compared``: this process has sent it, and the answer bears out that the store has compared it."""

    number: int
    etag: str
    digests: Digests
    is_compared: bool = False

    def completed(self, means: Means) -> CompletedPartTypeDef:
        found: CompletedPartTypeDef = {"PartNumber": self.number, "ETag": f'"{self.etag}"'}
        if means.with_checksums and self.digests.sha256 is not None:
            found["ChecksumSHA256"] = _base64(self.digests.sha256)
        return found


@dataclass(frozen=True, slots=True)
class Known:
    """A part as the store lists it. ``sha256`` as the store writes it."""

    size_bytes: int
    etag: str
    sha256: str | None

    def is_of(self, size_bytes: int, digests: Digests) -> bool:
        """Whether it is a part of this size with these digests."""
        if self.size_bytes != size_bytes:
            return False
        if digests.sha256 is not None:  # under a KMS key the ETag is no MD5
            return self.sha256 == _base64(digests.sha256)
        return digests.md5 is not None and self.etag == digests.md5.hex()


def answered_etag(parts: Sequence[Part], etag: str | None) -> str | None:
    """The ETag with which a completion was answered, where it follows from those of the parts, each of which the store
    has compared; None where it does not, or one is not."""
    if not all(part.is_compared for part in parts):
        return None
    return etag if etag == etags.composed([part.etag for part in parts]) else None


def expected_etag(digests: Sequence[Digests]) -> str | None:
    """The MD5 of the parts' MD5s; None where these were not worked out."""
    md5s = [one.md5.hex() for one in digests if one.md5 is not None]
    return etags.composed(md5s) if len(md5s) == len(digests) else None


def expected_checksum(digests: Sequence[Digests], means: Means) -> str | None:
    """What the store composes of the parts' SHA-256 sums, where it keeps these."""
    sha256s = [one.sha256 for one in digests if one.sha256 is not None]
    return composed(sha256s) if means.with_checksums and len(sha256s) == len(digests) else None


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
