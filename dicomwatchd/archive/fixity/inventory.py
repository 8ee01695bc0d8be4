"""An S3 Inventory report: every object of a bucket, as it was when Amazon made it.

As the Amazon S3 User Guide has it, "Cataloging and analyzing your data with S3 Inventory" (storage-inventory) and
"Locating your inventory list" (storage-inventory-location):

    <prefix>/<source bucket>/<configuration>/<YYYY-MM-DDTHH-MMZ>/manifest.json, manifest.checksum (its MD5)
    <prefix>/<source bucket>/<configuration>/data/<name>.csv.gz

``manifest.json`` has sourceBucket, creationTimestamp (when Amazon began to go through the bucket, in milliseconds since
the epoch, as text), fileFormat, fileSchema ("Bucket, Key, VersionId, IsLatest, ..."), and of each data file its key,
size and MD5checksum. The CSV files have no head; keys in them are URL-encoded, rows are in no order. Without versions
the columns VersionId, IsLatest and IsDeleteMarker are not there. A list may lack what was stored or deleted shortly
before, so only what is not in the store either is missing (see `study`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from dicomwatchd.archive import keys
from dicomwatchd.archive.fixity import reports
from dicomwatchd.archive.fixity.reports import DataFile, InBucket, Place, bad
from dicomwatchd.archive.fixity.seen import Seen
from dicomwatchd.archive.fixity.sorting import Sorter

MANIFEST = "manifest.json"
_CHECKSUM = "manifest.checksum"
_MADE = re.compile(r"(?:^|.*/)([^/]+)/[^/]+/([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}-[0-9]{2}Z)/manifest\.json\Z")
_NEEDED = ("Bucket", "Key", "Size", "LastModifiedDate")
_OF_VERSIONS = ("VersionId", "IsLatest", "IsDeleteMarker")
_FROM, _TO = 1_400_000_000.0, 10_000_000_000.0  # seconds since the epoch: before, there was no Inventory
_FIELDS = 6


@dataclass(frozen=True, slots=True)
class InventoryManifest:
    """``made_at`` in seconds since the epoch; ``columns`` by name, with their number in a row."""

    bucket: str
    made_at: float
    columns: Mapping[str, int]
    files: tuple[DataFile, ...]
    sha256: str


def newest(place: InBucket, prefix: str, bucket: str) -> str:
    """The manifest of the newest inventory of ``bucket`` below a prefix. One whose manifest.checksum is not there is
    not there as a whole yet. Raises Permanent where there is none."""
    found: dict[str, tuple[str, str]] = {}
    complete = set()
    for seen in place.store.listing(prefix):
        folder, _, name = seen.key.rpartition("/")
        if name == _CHECKSUM:
            complete.add(folder)
        elif (made := _MADE.match(seen.key)) is not None:
            found[folder] = (made[2], made[1])
    of_bucket = [(made, folder) for folder, (made, of) in found.items() if folder in complete and of == bucket]
    if of_bucket:
        return f"{max(of_bucket)[1]}/{MANIFEST}"
    if found:
        raise bad("the inventories there are of other buckets than the archive's, or not finished")
    raise bad("there is no inventory", "Amazon takes up to 48 hours for the first one")


def manifest(place: Place, name: str, bucket: str) -> InventoryManifest:
    """Read and checked. Raises Permanent (code "bad-report"), Transient."""
    data = place.whole(name)
    if data is None:
        raise bad("there is no manifest.json of an inventory there")
    md5 = place.whole(f"{name.removesuffix(MANIFEST)}{_CHECKSUM}")
    if md5 is not None and md5.strip() != hashlib.md5(data, usedforsecurity=False).hexdigest().encode():
        raise bad("manifest.json of the inventory has another MD5 than manifest.checksum says", "copy it anew")
    try:
        raw = json.loads(data)
        if (form := raw["fileFormat"]) in ("ORC", "Parquet"):
            raise bad(
                f"the inventory is in {form} format; only CSV is read",
                "change the inventory's output format to CSV, or make a second one: docs/operations.md",
            )
        if form != "CSV":
            raise ValueError("another format")
        made_at = int(raw["creationTimestamp"]) / 1000
        if not _FROM <= made_at <= _TO:
            raise ValueError("no time")
        columns = {name.strip(): number for number, name in enumerate(raw["fileSchema"].split(","))}
        files = tuple(
            DataFile(str(one["key"]), reports.checked_md5(one["MD5checksum"]), int(one["size"])) for one in raw["files"]
        )
        found = InventoryManifest(str(raw["sourceBucket"]), made_at, columns, files, hashlib.sha256(data).hexdigest())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise bad("manifest.json is not the manifest of an S3 Inventory report") from error
    if found.bucket != bucket:
        raise bad(f"the inventory is of bucket {found.bucket}, and the archive is in bucket {bucket}")
    lacking = [name for name in _NEEDED if name not in columns]
    if lacking or 0 < len(columns.keys() & set(_OF_VERSIONS)) < len(_OF_VERSIONS):
        lacking += [name for name in _OF_VERSIONS if name not in columns and columns.keys() & set(_OF_VERSIONS)]
        raise bad(f"the inventory lacks columns: {', '.join(lacking)}", "add them to the inventory's optional fields")
    return found


class _BadRow(Exception):
    """Why a row is none, in words that are ours: those of others may hold what is in it."""


@dataclass(slots=True)
class Counted:
    """Of the archive's objects: ``others`` are versions that are not current, ``markers`` delete markers that are."""

    rows: int = 0
    others: int = 0
    markers: int = 0
    has_identity: bool = False


@dataclass(frozen=True, slots=True)
class Inventory:
    """Implements Source: what an inventory says of the studies below a prefix."""

    manifest: InventoryManifest
    sorter: Sorter
    counted: Counted = field(default_factory=Counted)
    kind: str = "inventory"

    @property
    def identity(self) -> str:
        return f"inventory {self.manifest.sha256}"

    @property
    def as_of(self) -> float | None:
        return self.manifest.made_at

    def below_studies(self, after: str) -> Iterator[Seen]:
        return (one for one in self._objects() if one.key > after)

    def load(self, place: Place, prefix: str, shown: Callable[[int], None] = lambda _rows: None) -> None:
        """Reads all of it, and only then is it worth anything. Raises Permanent (code "bad-report"), Transient."""
        for file in self.manifest.files:
            self._load(place, file, prefix, shown)
        if not self.counted.rows:
            raise bad(
                "no object of the archive's studies is in the inventory", "is its filter that of the archive's prefix?"
            )
        last = b""
        for line in self.sorter.sorted():
            key = line[: line.index(b"\t")]
            if key == last:
                raise bad("the inventory has an object twice, as the current version")
            last = key

    def _load(self, place: Place, file: DataFile, prefix: str, shown: Callable[[int], None]) -> None:
        columns = self.manifest.columns
        width, bucket = len(columns), self.manifest.bucket
        bucket_at, key_at, size_at, time_at = (columns[name] for name in _NEEDED)
        etag_at = columns.get("ETag")
        version_at, latest_at, marker_at = (columns.get(name) for name in _OF_VERSIONS)
        studies, identity = prefix + keys.STUDIES, prefix + keys.IDENTITY
        counted = self.counted
        for number, row in enumerate(reports.rows(place, file, compressed=True), 1):
            try:
                if len(row) != width:
                    raise _BadRow("it has another number of columns")
                if row[bucket_at] != bucket:
                    raise _BadRow("it is of another bucket")
                full_key = reports.plain_key(row[key_at])
                if not full_key.startswith(studies):
                    counted.has_identity |= full_key == identity
                    continue
                if latest_at is not None and not _is_true(row[latest_at]):
                    counted.others += 1
                    continue
                is_hidden = marker_at is not None and _is_true(row[marker_at])
                counted.markers += is_hidden
                counted.rows += 1
                size_bytes = 0 if is_hidden else int(row[size_at])
                etag = None if etag_at is None else reports.optional(row[etag_at])
                version = None if version_at is None else reports.optional(row[version_at])
                fields = (full_key.removeprefix(prefix), str(size_bytes), etag or "", row[time_at], version or "")
                line = "\t".join((*fields, "x" if is_hidden else ""))
                if line.count("\t") != _FIELDS - 1 or "\n" in line or size_bytes < 0:
                    raise _BadRow("it has strange values")
                self.sorter.add(line.encode("ascii"))
            except (_BadRow, ValueError) as error:
                why = str(error) if isinstance(error, _BadRow) else "a value in it cannot be read"
                raise bad(f"row {number:,} of a data file of the inventory is none: {why}") from error
            if counted.rows % 10_000 == 0:
                shown(counted.rows)

    def _objects(self) -> Iterator[Seen]:
        for line in self.sorter.sorted():
            key, size, etag, modified, version, hidden = line.decode("ascii").split("\t")
            yield Seen(key, int(size), etag or None, _seconds(modified), version or None, bool(hidden))


def _is_true(value: str) -> bool:
    found = {"true": True, "false": False}.get(value.lower())
    if found is None:
        raise _BadRow("IsLatest or IsDeleteMarker is neither true nor false")
    return found


def _seconds(modified: str) -> float | None:
    with suppress(ValueError):
        return datetime.fromisoformat(modified).timestamp()
    return None
