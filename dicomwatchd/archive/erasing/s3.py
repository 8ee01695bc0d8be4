"""Erasing objects on S3: every version, every delete marker and every part of an upload that was never finished."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import botocore.exceptions

from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.archive.erasing.port import Lock, Refusal, StoredVersion, UnfinishedUpload
from dicomwatchd.config.archive import S3Settings
from dicomwatchd.errors import Transient

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_s3 import S3Client

#: What one DeleteObjects takes.
BATCH = 1000
#: The bucket has no Object Lock, or the store does not know it: then nothing can be locked.
_NO_LOCKS = frozenset({"ObjectLockConfigurationNotFoundError", "NotImplemented", "501", "MethodNotAllowed", "405"})
#: The version has none, or is gone. Ceph uses the bucket's word for the object, too.
_NOT_LOCKED = frozenset(
    {
        "NoSuchObjectLockConfiguration",
        "ObjectLockConfigurationNotFoundError",
        "NoSuchVersion",
        "NoSuchKey",
        "404",
    }
)


class S3Eraser:
    """Implements ObjectEraser. ``connections`` is how many threads may use it at once."""

    def __init__(
        self,
        settings: S3Settings,
        *,
        connections: int,
        session: Session | None = None,
        client: S3Client | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._client = client or aws.build_client(
            "s3",
            session=session,
            region=settings.region,
            endpoint_url=settings.endpoint_url,
            ca_file=settings.ca_file,
            max_connections=connections,
            s3={"addressing_style": "path"} if settings.endpoint_url else None,
        )
        self._client.meta.events.register("before-sign.s3.DeleteObjects", _with_md5)
        self._bucket, self._prefix = settings.bucket, settings.prefix
        self._endpoint = aws.endpoint_name("s3", self._client.meta.region_name, settings.endpoint_url)
        self._now = now

    def versions(self, prefix: str) -> Iterator[StoredVersion]:
        start = self._full(prefix)
        place: Any = {}
        while True:
            with aws.translated("ListObjectVersions", self._endpoint):
                page: Any = self._client.list_object_versions(Bucket=self._bucket, Prefix=start, **place)
            listed = [(one, False) for one in page.get("Versions", [])]
            listed += [(one, True) for one in page.get("DeleteMarkers", [])]
            for one, is_marker in sorted(listed, key=lambda found: str(found[0]["Key"])):
                yield StoredVersion(
                    self._relative(one["Key"], start),
                    one.get("VersionId", "null"),
                    int(one.get("Size", 0)),
                    is_delete_marker=is_marker,
                )
            if not page.get("IsTruncated"):
                return
            markers = {"KeyMarker": "NextKeyMarker", "VersionIdMarker": "NextVersionIdMarker"}
            place = self._next(place, {ours: page.get(its) for ours, its in markers.items()}, "ListObjectVersions")

    def unfinished(self, prefix: str) -> Iterator[UnfinishedUpload]:
        start = self._full(prefix)
        place: Any = {}
        while True:
            with aws.translated("ListMultipartUploads", self._endpoint):
                page: Any = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=start, **place)
            for one in page.get("Uploads", []):
                began = one.get("Initiated")
                yield UnfinishedUpload(
                    self._relative(one["Key"], start), one["UploadId"], began.timestamp() if began else None
                )
            if not page.get("IsTruncated"):
                return
            markers = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
            place = self._next(place, {ours: page.get(its) for ours, its in markers.items()}, "ListMultipartUploads")

    def may_be_locked(self) -> bool:
        try:
            answer = self._client.get_object_lock_configuration(Bucket=self._bucket)
        except botocore.exceptions.ClientError as error:
            if aws.error_code(error) in _NO_LOCKS:
                return False
            raise aws.translate(error, operation="GetObjectLockConfiguration", endpoint=self._endpoint) from error
        except aws.FOREIGN as error:
            raise aws.translate(error, operation="GetObjectLockConfiguration", endpoint=self._endpoint) from error
        return answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"

    def lock_of(self, version: StoredVersion) -> Lock | None:
        if version.is_delete_marker:
            return None  # no marker can be locked
        where: Any = {"Bucket": self._bucket, "Key": self._full(version.key), "VersionId": version.version_id}
        hold = self._asked("GetObjectLegalHold", lambda: self._client.get_object_legal_hold(**where))
        if hold.get("LegalHold", {}).get("Status") == "ON":
            return Lock(version, "LEGAL HOLD", None)
        found = self._asked("GetObjectRetention", lambda: self._client.get_object_retention(**where)).get("Retention")
        until = found["RetainUntilDate"].timestamp() if found and found.get("RetainUntilDate") else 0.0
        return Lock(version, str(found.get("Mode", "")), until) if until > self._now() else None

    def erase(self, versions: Sequence[StoredVersion]) -> list[Refusal]:
        refused: list[Refusal] = []
        for at in range(0, len(versions), BATCH):
            batch = versions[at : at + BATCH]
            objects: Any = [{"Key": self._full(one.key), "VersionId": one.version_id or "null"} for one in batch]
            with aws.translated("DeleteObjects", self._endpoint):
                answer: Any = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True}
                )
            # The answer is a 200 whatever became of each.
            refused += [
                Refusal(
                    str(one.get("Key", "")).removeprefix(self._prefix),
                    one.get("VersionId"),
                    str(one.get("Code") or "unknown"),
                )
                for one in answer.get("Errors", [])
                if one.get("Code") not in ("NoSuchKey", "NoSuchVersion")
            ]
        return refused

    def abort(self, upload: UnfinishedUpload) -> None:
        try:
            self._client.abort_multipart_upload(
                Bucket=self._bucket, Key=self._full(upload.key), UploadId=upload.upload_id
            )
        except botocore.exceptions.ClientError as error:
            if aws.error_code(error) in ("NoSuchUpload", "404"):
                return  # it has ended since
            raise aws.translate(error, operation="AbortMultipartUpload", endpoint=self._endpoint) from error
        except aws.FOREIGN as error:
            raise aws.translate(error, operation="AbortMultipartUpload", endpoint=self._endpoint) from error

    def adopt(self, key: str) -> None:
        """The bucket owns what is in it."""

    def finish(self, prefix: str) -> None:
        """Keys have no folders."""

    def close(self) -> None:
        self._client.close()

    def _asked(self, operation: str, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except botocore.exceptions.ClientError as error:
            if aws.error_code(error) in _NOT_LOCKED:
                return {}
            raise aws.translate(error, operation=operation, endpoint=self._endpoint) from error
        except aws.FOREIGN as error:
            raise aws.translate(error, operation=operation, endpoint=self._endpoint) from error

    def _full(self, key: str) -> str:
        return self._prefix + key

    def _relative(self, full: str, start: str) -> str:
        """Nothing outside is ever deleted, whatever a store answers."""
        if not full.startswith(start):
            raise Transient("the store listed a key of another prefix", code="strange-answer", endpoint=self._endpoint)
        return full.removeprefix(self._prefix)

    def _next(self, place: dict[str, str], markers: dict[str, Any], operation: str) -> dict[str, str]:
        following = {name: str(value) for name, value in markers.items() if value}
        if not following or following == place:
            raise Transient(f"{operation} does not go on", code="strange-answer", endpoint=self._endpoint)
        return following


def _with_md5(request: Any, **_: Any) -> None:
    """Stores other than Amazon ask for it; Amazon takes it."""
    body = request.data if isinstance(request.data, bytes) else str(request.data).encode()
    digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode("ascii")
    request.headers["Content-MD5"] = digest
