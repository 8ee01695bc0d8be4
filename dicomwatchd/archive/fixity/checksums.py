"""The completion report of an S3 Batch Operations job "Compute checksum": the SHA-256 of every object, worked out where
the objects are.

As the Amazon S3 User Guide has it, "Examples: S3 Batch Operations completion reports" (batch-ops-examples-reports) and
"Compute checksums" (batch-ops-compute-checksums):

    <prefix>/job-<id>/manifest.json             Format "Report_CSV_20180820", ReportSchema, Results (Key, MD5Checksum)
    <prefix>/job-<id>/results/<name>.csv        Bucket, Key, VersionId, TaskStatus, ErrorCode, HTTPStatusCode,
                                                ResultMessage

TaskStatus is "succeeded" or "failed". The message of a task that succeeded is JSON with checksumAlgorithm,
checksumType ("FULL_OBJECT" or "COMPOSITE"), checksum_hex, checksum_base64 and etag. In Amazon's own examples the two
codes are the other way round than in the schema, and messages of failed tasks are no proper CSV: neither is used.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from dicomwatchd.archive import keys
from dicomwatchd.archive.fixity import reports
from dicomwatchd.archive.fixity.reports import DataFile, InBucket, Place, bad
from dicomwatchd.archive.fixity.seen import Seen, Source, Sum
from dicomwatchd.archive.fixity.sorting import Sorter

FORMAT = "Report_CSV_20180820"
MANIFEST = "manifest.json"
SCHEMA = "Bucket, Key, VersionId, TaskStatus, ErrorCode, HTTPStatusCode, ResultMessage"
_NEEDED = ("Bucket", "Key", "VersionId", "TaskStatus", "ResultMessage")
_JOB = re.compile(r"(?:^|.*/)job-[0-9A-Za-z-]+/manifest\.json\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_HINT = "the job's checksum algorithm must be SHA256, its checksum type FULL_OBJECT: docs/operations.md"


@dataclass(frozen=True, slots=True)
class ReportManifest:
    """``made_at`` is as Amazon writes it, "" where nobody says."""

    made_at: str
    columns: tuple[str, ...]
    files: tuple[DataFile, ...]
    sha256: str


def newest(place: InBucket, prefix: str) -> str:
    """The manifest of the newest report below a prefix. Raises Permanent where there is none."""
    found = [seen.key for seen in place.store.listing(prefix) if _JOB.match(seen.key)]
    if not found:
        raise bad("there is no completion report of a batch job")
    return max(found, key=lambda name: (manifest(place, name).made_at, name))


def manifest(place: Place, name: str) -> ReportManifest:
    """Read and checked; of a CSV file alone, which nothing vouches for, as the manifest would be. Raises Permanent
    (code "bad-report"), Transient."""
    if not name.endswith(".json"):
        return ReportManifest("", _columns(SCHEMA), (DataFile(name, None),), _of_file(place, name))
    data = place.whole(name)
    if data is None:
        raise bad("there is no manifest.json of a completion report there")
    try:
        raw = json.loads(data)
        if raw["Format"] != FORMAT:
            raise ValueError("another format")
        files = tuple(DataFile(str(one["Key"]), reports.checked_md5(one["MD5Checksum"])) for one in raw["Results"])
        made_at = str(raw["ReportCreationDate"])
        datetime.fromisoformat(made_at)
        found = ReportManifest(made_at, _columns(raw["ReportSchema"]), files, hashlib.sha256(data).hexdigest())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise bad("manifest.json is not that of a completion report of S3 Batch Operations") from error
    lacking = [name for name in _NEEDED if name not in found.columns]
    if lacking:
        raise bad(f"the completion report lacks columns: {', '.join(lacking)}")
    return found


def _columns(schema: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in schema.split(","))


def _of_file(place: Place, name: str) -> str:
    sha256 = hashlib.sha256()
    for chunk in place.chunks(name):
        sha256.update(chunk)
    return sha256.hexdigest()


@dataclass(slots=True)
class Counted:
    """Of the archive's objects: tasks that gave a sum of use, those that failed, and those that gave another sum."""

    sums: int = 0
    failed: int = 0
    of_no_use: int = 0


@dataclass(frozen=True, slots=True)
class Checksums:
    """The sums of reports, in the order of keys."""

    sorter: Sorter
    counted: Counted = field(default_factory=Counted)

    def load(
        self,
        place: Place,
        report: ReportManifest,
        bucket: str,
        prefix: str,
        shown: Callable[[int], None] = lambda _rows: None,
    ) -> None:
        """Reads all of a report. Raises Permanent (code "bad-report"), Transient."""
        for file in report.files:
            self._load(place, report, file, bucket, prefix, shown)

    def require_sums(self) -> None:
        """Raises Permanent where there is nothing to compare."""
        if not self.counted.sums:
            what = (
                "the SHA-256 of a whole object" if self.counted.of_no_use else "a checksum of an object of the archive"
            )
            raise bad(f"the completion report does not have {what}", _HINT)

    def _load(
        self,
        place: Place,
        report: ReportManifest,
        file: DataFile,
        bucket: str,
        prefix: str,
        shown: Callable[[int], None],
    ) -> None:
        at = {name: report.columns.index(name) for name in _NEEDED}
        studies, least = prefix + keys.STUDIES, max(at[name] for name in _NEEDED[:4]) + 1
        counted = self.counted
        for number, row in enumerate(reports.rows(place, file, compressed=False), 1):
            if len(row) < least or row[at["TaskStatus"]] not in ("succeeded", "failed"):
                raise bad(f"row {number:,} of the completion report is none")
            if row[at["Bucket"]] != bucket:
                raise bad(f"the completion report is of another bucket than the archive's ({bucket})")
            full_key = reports.plain_key(row[at["Key"]])
            if not full_key.startswith(studies):
                continue
            found = None
            if row[at["TaskStatus"]] == "failed":
                counted.failed += 1
                found = Sum(None, None, _optional(row[at["VersionId"]]))
            elif len(row) == len(report.columns):
                found = _sum(row[at["ResultMessage"]], _optional(row[at["VersionId"]]))
                counted.sums += found is not None
                counted.of_no_use += found is None
            else:
                raise bad(f"row {number:,} of the completion report has another number of columns")
            if found is not None:
                fields = (full_key.removeprefix(prefix), found.sha256, found.etag, found.version_id)
                self.sorter.add("\t".join(one or "" for one in fields).encode("ascii"))
            if number % 10_000 == 0:
                shown(number)

    def sums(self) -> Iterator[tuple[str, Sum]]:
        for line in self.sorter.sorted():
            key, sha256, etag, version = line.decode("ascii").split("\t")
            yield key, Sum(sha256 or None, etag or None, version or None)


def _optional(value: str) -> str | None:
    try:
        found = reports.optional(value)
        if found is not None:
            found.encode("ascii")
    except ValueError:
        raise bad("the completion report has a version that is none") from None
    return found


def _sum(message: str, version_id: str | None) -> Sum | None:
    """What a task has worked out; None where that is not the SHA-256 of a whole object."""
    try:
        raw: dict[str, Any] = json.loads(message)
        if raw["checksumAlgorithm"].upper().replace("-", "") != "SHA256" or raw["checksumType"] != "FULL_OBJECT":
            return None
        in_hex, in_base64 = raw.get("checksum_hex"), raw.get("checksum_base64")
        said = {*([in_hex.lower()] if in_hex else []), *([_hex(in_base64)] if in_base64 else [])}
        if len(said) != 1 or not _SHA256.match(sha256 := said.pop()):
            return None
        return Sum(sha256, _optional(raw.get("etag") or ""), version_id)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _hex(in_base64: str) -> str:
    return base64.b64decode(in_base64, validate=True).hex()


def joined(objects: Iterable[Seen], sums: Iterable[tuple[str, Sum]]) -> Iterator[Seen]:
    """The objects with their sums; both come in the order of keys. Sums of what is not there are passed over."""
    following = iter(sums)
    head = next(following, None)
    for one in objects:
        while head is not None and head[0] < one.key:
            head = next(following, None)
        found = []
        while head is not None and head[0] == one.key:
            found.append(head[1])
            head = next(following, None)
        yield replace(one, sums=tuple(found)) if found else one


@dataclass(frozen=True, slots=True)
class Summed:
    """Implements Source: another one, with the sums of reports."""

    source: Source
    checksums: Checksums
    #: Which reports these are.
    reports: str

    @property
    def kind(self) -> str:
        return self.source.kind

    @property
    def identity(self) -> str:
        return f"{self.source.identity} {self.reports}"

    @property
    def as_of(self) -> float | None:
        return self.source.as_of

    def below_studies(self, after: str) -> Iterator[Seen]:
        return joined(self.source.below_studies(after), self.checksums.sums())
