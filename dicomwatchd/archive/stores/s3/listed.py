"""What a listing says, whoever has asked for it: the data plane, or botocore."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class ListedObject(NamedTuple):
    """``full_key`` with the prefix of the archive; ``etag`` without quotes; ``modified_at`` in seconds since the
    epoch."""

    full_key: str
    size_bytes: int
    etag: str | None
    modified_at: float | None = None
    storage_class: str | None = None


class ListedPage(NamedTuple):
    """Of ListObjectsV2. ``token`` leads to the next page, None on the last. ``common_prefixes`` are full ones."""

    objects: list[ListedObject]
    token: str | None
    common_prefixes: tuple[str, ...] = ()


class Paging(NamedTuple):
    """Where a page of ListObjectsV2 begins: where the one before has ended, or behind this full key. With a
    ``delimiter`` keys that are alike up to it are one common prefix."""

    token: str | None = None
    after: str | None = None
    delimiter: str | None = None


class Marker(NamedTuple):
    """Behind which version a page of ListObjectVersions begins."""

    full_key: str
    version_id: str


class VersionsPage(NamedTuple):
    """Of ListObjectVersions: the current versions with their ids, and None for each entry that is none. ``following``
    leads to the next page; ``is_last`` where there is none."""

    versions: list[tuple[ListedObject, str | None] | None]
    following: Marker | None
    is_last: bool


def etag_of(response: Mapping[str, Any]) -> str | None:
    """Without its quotes, as `StoredObject` has it: of an answer, or of an entry of a listing."""
    return response.get("ETag", "").strip('"') or None


def listed_by_botocore(item: Mapping[str, Any]) -> ListedObject:
    """Of an entry of ListObjectsV2 or ListObjectVersions."""
    modified_at = item["LastModified"].timestamp() if item.get("LastModified") else None
    return ListedObject(item["Key"], item["Size"], etag_of(item), modified_at, item.get("StorageClass"))


def versions_by_botocore(page: Mapping[str, Any]) -> VersionsPage:
    """Of ListObjectVersions."""
    found: list[tuple[ListedObject, str | None] | None] = [
        (listed_by_botocore(item), item.get("VersionId")) if item.get("IsLatest") else None
        for item in page.get("Versions", [])
    ]
    found += [None for _ in page.get("DeleteMarkers", [])]
    full_key, version_id = page.get("NextKeyMarker"), page.get("NextVersionIdMarker")
    following = Marker(full_key, version_id) if full_key and version_id else None
    return VersionsPage(found, following, not page.get("IsTruncated"))
