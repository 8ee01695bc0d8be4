"""S3 Inventory reports and completion reports of "Compute checksum" jobs, as Amazon's documentation has them."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

COLUMNS = (
    *("Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker", "Size", "LastModifiedDate", "ETag", "StorageClass"),
    *("IsMultipartUploaded", "EncryptionStatus", "BucketKeyStatus"),
)
SCHEMA = "Bucket, Key, VersionId, TaskStatus, ErrorCode, HTTPStatusCode, ResultMessage"


@dataclass(frozen=True)
class Row:
    """An object's version in an inventory."""

    key: str
    size_bytes: int | None
    etag: str
    version_id: str = ""
    is_latest: bool = True
    is_marker: bool = False
    modified: str = "2026-01-31T12:00:00.000Z"

    def values(self, bucket: str) -> dict[str, str]:
        return {
            "Bucket": bucket,
            "Key": quote(self.key, safe=""),
            "VersionId": self.version_id,
            "IsLatest": str(self.is_latest).lower(),
            "IsDeleteMarker": str(self.is_marker).lower(),
            "Size": "" if self.size_bytes is None else str(self.size_bytes),
            "LastModifiedDate": self.modified,
            "ETag": self.etag,
            "StorageClass": "" if self.is_marker else "STANDARD",
            "IsMultipartUploaded": "false",
            "EncryptionStatus": "SSE-KMS",
            "BucketKeyStatus": "ENABLED",
        }

    def marked(self) -> tuple[Row, Row]:
        """Under a delete marker."""
        marker = Row(self.key, None, "", version_id="marker", is_marker=True)
        return marker, replace(self, is_latest=False)


def csv_text(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def inventory(
    bucket: str,
    rows: Iterable[Row],
    made_at: float,
    *,
    prefix: str = "",
    columns: Sequence[str] = COLUMNS,
    rows_each: int = 4,
    stamp: str = "2026-11-29T01-00Z",
    **changed: Any,
) -> dict[str, bytes]:
    """The files of a report by their keys in the destination bucket; ``changed`` goes into the manifest."""
    base = f"{prefix}{bucket}/studies-all"
    listed, files = list(rows), {}
    for number in range(0, max(len(listed), 1), rows_each):
        part = [[one.values(bucket)[name] for name in columns] for one in listed[number : number + rows_each]]
        files[f"{base}/data/part-{number}.csv.gz"] = gzip.compress(csv_text(part), mtime=0)
    manifest = {
        "sourceBucket": bucket,
        "destinationBucket": "arn:aws:s3:::inventories",
        "version": "2016-11-30",
        "creationTimestamp": str(int(made_at * 1000)),
        "fileFormat": "CSV",
        "fileSchema": ", ".join(columns),
        "files": [{"key": key, "size": len(data), "MD5checksum": md5(data)} for key, data in files.items()],
        **changed,
    }
    text = json.dumps(manifest, indent=2).encode()
    files[f"{base}/{stamp}/manifest.json"] = text
    files[f"{base}/{stamp}/manifest.checksum"] = md5(text).encode()
    return files


def task(
    bucket: str,
    key: str,
    sha256: str | None,
    etag: str = "",
    version_id: str = "",
    algorithm: str = "SHA256",
    kind: str = "FULL_OBJECT",
) -> list[str]:
    """A row of a completion report; ``sha256`` None: of a task that has failed."""
    if sha256 is None:
        return [bucket, quote(key), version_id, "failed", "200", "PermanentFailure", "error details: {Key not found}"]
    message = {
        "checksum_base64": base64.b64encode(bytes.fromhex(sha256)).decode(),
        "etag": etag,
        "checksumAlgorithm": algorithm,
        "checksumType": kind,
        "checksum_hex": sha256.upper(),
    }
    return [bucket, quote(key), version_id, "succeeded", "200", "", json.dumps(message)]


def completion(
    tasks: Iterable[Sequence[str]],
    *,
    prefix: str = "",
    job: str = "job-1f2e",
    made: str = "2026-11-29T17:48:39.725320681Z",
) -> dict[str, bytes]:
    """The files of a completion report by their keys."""
    by_status: dict[str, list[Sequence[str]]] = {}
    for one in tasks:
        by_status.setdefault(one[3], []).append(one)
    files, results = {}, []
    for number, (status, rows) in enumerate(by_status.items()):
        data = csv_text(rows)
        key = f"{prefix}{job}/results/{number:040x}.csv"
        files[key] = data
        results.append({"TaskExecutionStatus": status, "Bucket": "reports", "MD5Checksum": md5(data), "Key": key})
    manifest = {
        "Format": "Report_CSV_20180820",
        "ReportCreationDate": made,
        "Results": results,
        "ReportSchema": SCHEMA,
    }
    files[f"{prefix}{job}/manifest.json"] = json.dumps(manifest).encode()
    return files


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """As `aws s3 sync` would; where the manifest is."""
    found = folder
    for key, data in files.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if path.name == "manifest.json":
            found = path
    return found
