"""What all of our requests to one S3 bucket have in common: full keys, encryption asked for, errors, answers."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import botocore.exceptions

from dicomwatchd.archive import keys
from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.archive.stores.port import StoredObject
from dicomwatchd.archive.stores.s3 import cold
from dicomwatchd.archive.stores.s3.expiry import ExpiryWatch
from dicomwatchd.archive.stores.s3.listed import (
    ListedObject,
    ListedPage,
    Marker,
    Paging,
    VersionsPage,
    etag_of,
    listed_by_botocore,
    versions_by_botocore,
)
from dicomwatchd.config.archive import Encryption, ObjectTag
from dicomwatchd.errors import (
    ArchiveRefused,
    CredentialsRefused,
    EncryptionKeyUnusable,
    NoSuchObject,
    Permanent,
    Transient,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_KEY = re.compile(r"[A-Za-z0-9!_.*'()/-]{1,500}\Z")


#: boto3's arguments of HeadObject to its answer, {} where there is no such object, None where botocore is to be asked.
Look = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


def _unasked(_: Mapping[str, Any]) -> None:
    return None


@dataclass(slots=True)
class _Start:
    """When, by the service's own clock, it was first seen to encrypt as asked; None: not yet, or it does not say."""

    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class S3Bucket:
    """One bucket, the prefix of the archive in it, and the encryption asked for; of instances and bundles the storage
    class and the tag asked for, too.

    Safe to use from many threads. ``endpoint`` names the service in errors (`aws.endpoint_name`).
    """

    client: S3Client
    name: str
    prefix: str
    endpoint: str
    encryption: Encryption
    is_amazon: bool = False
    storage_class: str | None = None
    tag: ObjectTag | None = None
    expiry: ExpiryWatch = field(default_factory=lambda: ExpiryWatch("", False, time.time), compare=False, repr=False)
    _start: _Start = field(default_factory=_Start, init=False, compare=False, repr=False)

    def full_key(self, key: str) -> str:
        """Raises Permanent for a key that is no plain path of the characters that every store takes."""
        if not _KEY.match(key) or not {"", ".", ".."}.isdisjoint(key.split("/")):
            raise Permanent("an object key is not a plain path or contains unusual characters", code="bad-key")
        return self.prefix + key

    def address(self, key: str) -> Any:
        """The arguments that name an object. Any: a TypedDict spread into differing operations."""
        return {"Bucket": self.name, "Key": self.full_key(key)}

    def creation(self, key: str) -> Any:
        """The arguments of PutObject and CreateMultipartUpload that say how the object is to be kept."""
        arguments: dict[str, Any] = {}
        if self.encryption.mode != "store-default":
            arguments["ServerSideEncryption"] = str(self.encryption.mode)
        if self.encryption.key_id is not None:
            arguments["SSEKMSKeyId"] = self.encryption.key_id
        if self.wants_bucket_keys:
            arguments["BucketKeyEnabled"] = True
        if key.endswith(".dcm"):
            arguments["ContentType"] = "application/dicom"
        elif key.endswith(".json"):
            arguments["ContentType"] = "application/json"
        elif key.endswith(".tar"):
            arguments["ContentType"] = "application/x-tar"
        return {**arguments, **self.keeping} if keys.holds_instances(key) else arguments

    @property
    def keeping(self) -> dict[str, str]:
        """The arguments that say in which class instances and bundles are to be kept, and with which tag."""
        arguments = {}
        if self.storage_class is not None:
            arguments["StorageClass"] = self.storage_class
        if self.tag is not None:
            arguments["Tagging"] = urlencode({self.tag.key: self.tag.value})
        return arguments

    @property
    def wants_bucket_keys(self) -> bool:
        """Whether objects are to be encrypted with keys that Amazon derives from one for the bucket (S3 Bucket Keys):
        without, each object is a call of the key service, and its cost."""
        return self.is_amazon and self.encryption.mode == "aws:kms"

    def translated(self, operation: str) -> AbstractContextManager[None]:
        return aws.translated(operation, self.endpoint)

    def check_encryption(self, response: Mapping[str, Any]) -> None:
        """Raises ArchiveRefused unless the answer says that the object is encrypted as asked.

        The mode is compared literally, a key only with a key of the same kind: Amazon answers an alias with the
        key's ARN, other stores answer what was asked.
        """
        asked = self.encryption
        if asked.mode == "store-default":
            return
        if response.get("ServerSideEncryption") != asked.mode:
            raise ArchiveRefused(
                f"the store does not confirm the requested encryption ({asked.mode})",
                hint="check archive.store.encryption in the configuration, and whether the store supports it",
            )
        if asked.key_id is not None and not same_key(asked.key_id, response.get("SSEKMSKeyId")):
            raise ArchiveRefused(
                "the store does not confirm the requested encryption key", hint="check encryption.key_id"
            )

    def check_storage_class(self, key: str, response: Mapping[str, Any]) -> None:
        """Raises ArchiveRefused where the answer to the creation of an object names another class than was asked for.
        Few answers name one: the probe looks at an object for it."""
        if self.storage_class is None or not keys.holds_instances(key):
            return
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        named = response.get("StorageClass") or headers.get("x-amz-storage-class")
        if named and named != self.storage_class:
            raise ArchiveRefused(
                f"the store keeps objects in another storage class than {self.storage_class}",
                hint="check archive.store.storage_class in the configuration, and whether the store supports it",
            )

    def confirm_encryption(self, key: str, response: Mapping[str, Any]) -> None:
        """As `check_encryption`, for answers that not every store mentions encryption in: a HEAD decides then."""
        if self.encryption.mode != "store-default" and not response.get("ServerSideEncryption"):
            try:
                with self.translated("HeadObject"):
                    response = self.client.head_object(**self.address(key))
            except Permanent as error:
                raise Transient("the store does not find what it has just confirmed", code="strange-answer") from error
        self.check_encryption(response)

    def encrypts(self) -> None:
        """The probe has just seen that it encrypts as asked: from now on `existing` expects it of what is new."""
        with self.translated("check the bucket"):
            response = self.ask()
        with suppress(KeyError, ValueError):
            at = parsedate_to_datetime(response["ResponseMetadata"]["HTTPHeaders"]["date"])
            self._start.at = self._start.at or at

    def ask(self) -> Mapping[str, Any]:
        """The bucket's answer to the least that may be asked. Raises what botocore raises.

        Below a prefix that is a listing of it: HeadBucket takes the right to list everything, which a policy for one of
        several archives in a bucket does not give.
        """
        if self.prefix:
            return self.client.list_objects_v2(Bucket=self.name, Prefix=self.prefix, MaxKeys=1)
        return self.client.head_bucket(Bucket=self.name)

    def absent(self, full_key: str) -> bool:
        """Whether a refused look at an object means that there is none.

        Where the right to list ends at the prefix a store may refuse to say 404, for it asks for the right to list
        everything first. The listing of that one key is allowed, and tells.
        """
        try:
            page = self.client.list_objects_v2(Bucket=self.name, Prefix=full_key, MaxKeys=1)
        except aws.FOREIGN:
            return False  # then the refusal is the answer
        if page.get("Prefix", full_key) != full_key:
            return False  # another's listing says nothing of it
        return all(item.get("Key") != full_key for item in page.get("Contents", []))

    def existing(self, key: str, *, checksum: bool = False, short: Look = _unasked) -> StoredObject | None:
        """As `head`, for an object that was to be created and is there already.

        What is older than the start was stored under another setting, perhaps: it is taken as it is, for nothing here
        is ever overwritten or deleted. What was created since, by a request of ours whose answer was lost or by
        another program, has to be encrypted as asked: raises ArchiveRefused if it is not, and the probe of the next
        start tells whether it is the store that encrypts no more.
        """
        response, withheld = self._look(self.address(key), checksum, short)
        if response is None:
            return None
        self.note_expiry(key, response)
        start, created = self._start.at, response.get("LastModified")
        if start is not None and created is not None and created >= start:
            try:
                self.check_encryption(response)
            except ArchiveRefused as error:
                raise ArchiveRefused(
                    "an object created since the start is not encrypted as configured",
                    hint="does the store, or another program that writes to this archive, use other settings?",
                ) from error
        return replace(_stored(key, response, response["ContentLength"]), is_withheld=withheld)

    def head(
        self, key: str, version_id: str | None = None, *, checksum: bool = False, short: Look = _unasked
    ) -> StoredObject | None:
        """HeadObject; ``short`` is asked first. ``checksum`` asks for the stored checksum too. On Amazon that takes the
        right to decrypt, which the rest of the answer does not: where it is refused the object is looked at without,
        and if it is shown then the refusal concerns that object alone."""
        arguments = self.address(key)
        if version_id is not None:
            arguments["VersionId"] = version_id
        response, withheld = self._look(arguments, checksum, short)
        if response is None:
            return None
        if version_id is None:
            self.note_expiry(key, response)
        return replace(_stored(key, response, response["ContentLength"]), is_withheld=withheld)

    def _look(self, arguments: Any, checksum: bool, short: Look) -> tuple[Any, bool]:
        """HeadObject's answer, and whether the checksum was refused."""
        try:
            return self._head({**arguments, "ChecksumMode": "ENABLED"} if checksum else arguments, short), False
        except (CredentialsRefused, EncryptionKeyUnusable):
            if not checksum:
                raise
            return self._head(arguments, short), True

    def note_expiry(self, key: str, response: Mapping[str, Any]) -> None:
        """What an answer about the current object says of its end (x-amz-expiration)."""
        self.expiry.noted(key, response.get("Expiration"), response.get("LastModified"))

    def _head(self, arguments: Any, short: Look) -> Any:
        """HeadObject's answer, None where there is no such object."""
        found = short(arguments)
        if found:
            return found
        if found is not None:
            self._require_bucket()
            return None
        try:
            return self.client.head_object(**arguments)
        except botocore.exceptions.ClientError as error:
            if aws.http_status(error) == 404 and aws.error_code(error) != "NoSuchBucket":
                self._require_bucket()
                return None
            if aws.http_status(error) == 405 and _is_delete_marker(error):
                return None
            if aws.http_status(error) == 403 and "VersionId" not in arguments and self.absent(arguments["Key"]):
                return None
            raise aws.translate(error, operation="HeadObject", endpoint=self.endpoint) from error
        except aws.FOREIGN as error:
            raise aws.translate(error, operation="HeadObject", endpoint=self.endpoint) from error

    def listing(
        self, prefix: str, after: str = "", short: Callable[[str, Paging], ListedPage | None] = lambda *_: None
    ) -> Iterator[StoredObject]:
        """ListObjectsV2, page by page. Strongly consistent on Amazon S3 and Ceph. ``short`` is asked first for each
        page: (full prefix, where it begins) to the page, or None where botocore is to be asked."""
        start = self.prefix + prefix
        last = self.prefix + after if after else ""
        paging = Paging(after=last or None)
        while True:
            page = short(start, paging) or self._page(start, paging)
            for item in page.objects:
                if item.full_key <= last or not item.full_key.startswith(start):
                    raise self._out_of_order("ListObjectsV2")
                last = item.full_key
                yield self._shown(item)
            if not page.token:
                return
            paging = Paging(token=self._following(page, paging))

    def current_versions(
        self, prefix: str, short: Callable[[str, Marker | None], VersionsPage | None] = lambda *_: None
    ) -> Iterator[StoredObject | None]:
        """ListObjectVersions, page by page: each current version, and None for what is not one. Strongly consistent as
        ListObjectsV2 is. ``short`` as in `listing`."""
        start, last = self.prefix + prefix, ""
        marker: Marker | None = None
        while True:
            page = short(start, marker) or self._versions_page(start, marker)
            for version in page.versions:
                if version is None:
                    yield None
                    continue
                listed, version_id = version
                if listed.full_key <= last or not listed.full_key.startswith(start):
                    raise self._out_of_order("ListObjectVersions")
                last = listed.full_key
                yield self._shown(listed, version_id)
            if page.is_last or page.following is None or page.following == marker:
                return  # or it leads nowhere: what was not listed is asked for by itself
            marker = page.following

    def _versions_page(self, start: str, marker: Marker | None) -> VersionsPage:
        begins: Any = {} if marker is None else {"KeyMarker": marker.full_key, "VersionIdMarker": marker.version_id}
        with self._listing("ListObjectVersions"):
            page = self.client.list_object_versions(Bucket=self.name, Prefix=start, **begins)
        self._require_of(start, page, "ListObjectVersions")
        return versions_by_botocore(page)

    def _shown(self, item: ListedObject, version_id: str | None = None) -> StoredObject:
        storage_class = cold.other_than_usual(item.storage_class)
        return StoredObject(
            item.full_key.removeprefix(self.prefix),
            item.size_bytes,
            item.etag,
            version_id,
            modified_at=item.modified_at,
            storage_class=storage_class,
            is_cold=storage_class in cold.CLASSES,
        )

    @contextmanager
    def _listing(self, operation: str) -> Iterator[None]:
        """As `translated`. A listing is about no object, so no answer to it says that there is none."""
        try:
            with self.translated(operation):
                yield
        except NoSuchObject as error:
            raise Transient(
                f"{operation} was answered as if it were about an object", code="strange-answer", endpoint=self.endpoint
            ) from error

    def _out_of_order(self, operation: str) -> Transient:
        return Transient(f"{operation} gave keys out of order", code="strange-answer", endpoint=self.endpoint)

    def _require_of(self, start: str, page: Mapping[str, Any], operation: str) -> None:
        """An empty listing says nothing else of what it is a listing of. Raises Transient."""
        named = page.get("Prefix", start)
        if named == start:
            return
        what = f"the store answers {operation} with a listing of another prefix than it was asked for"
        hint = "does the store, or a proxy before it, mix up requests, or keep answers?"
        if not named:
            what = f"the store answers {operation} as if it had been asked for no prefix"
            hint = "is it the store, or a proxy before it, that does not give the prefix back?"
        raise Transient(what, code="strange-answer", hint=hint, endpoint=self.endpoint)

    def common_prefixes(
        self, prefix: str, after: str = "", short: Callable[[str, Paging], ListedPage | None] = lambda *_: None
    ) -> Iterator[str]:
        """ListObjectsV2 with a delimiter, page by page; ``short`` as in `listing`."""
        start = self.prefix + prefix
        last = self.prefix + after if after else ""
        paging = Paging(after=last or None, delimiter="/")
        while True:
            page = short(start, paging) or self._page(start, paging)
            for full in page.common_prefixes:
                if last.startswith(full):
                    continue  # StartAfter leads into it, and what is there goes on with it
                if full < last or not full.startswith(start) or not full.endswith("/"):
                    raise Transient(
                        "ListObjectsV2 gave common prefixes out of order",
                        code="strange-answer",
                        endpoint=self.endpoint,
                    )
                last = full
                yield full.removeprefix(self.prefix)
            if not page.token:
                return
            paging = Paging(token=self._following(page, paging), delimiter="/")

    def _following(self, page: ListedPage, paging: Paging) -> str | None:
        """Where the next page begins. A page without keys that leads to itself would be asked for without end."""
        if page.token == paging.token:
            raise Transient("ListObjectsV2 leads nowhere", code="strange-answer", endpoint=self.endpoint)
        return page.token

    def _page(self, start: str, paging: Paging) -> ListedPage:
        arguments: Any = {"ContinuationToken": paging.token} if paging.token else {}
        if paging.after:
            arguments["StartAfter"] = paging.after
        if paging.delimiter:
            arguments["Delimiter"] = paging.delimiter
        with self._listing("ListObjectsV2"):
            page = self.client.list_objects_v2(Bucket=self.name, Prefix=start, **arguments)
        self._require_of(start, page, "ListObjectsV2")
        return ListedPage(
            [listed_by_botocore(item) for item in page.get("Contents", [])],
            page.get("NextContinuationToken") if page.get("IsTruncated") else None,
            tuple(item["Prefix"] for item in page.get("CommonPrefixes", [])),
        )

    def _require_bucket(self) -> None:
        """A HEAD has no body, so a missing object and a missing bucket look alike: absence needs the bucket."""
        try:
            self.ask()
        except aws.FOREIGN as error:
            if aws.http_status(error) == 404:
                error = _no_such_bucket(error)
            raise aws.translate(error, operation="check the bucket", endpoint=self.endpoint) from error


def _is_delete_marker(error: botocore.exceptions.ClientError) -> bool:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers.get("x-amz-delete-marker") == "true"


def _no_such_bucket(error: BaseException) -> botocore.exceptions.ClientError:
    response: Any = {
        "Error": {"Code": "NoSuchBucket"},
        "ResponseMetadata": {"HTTPStatusCode": aws.http_status(error)},
    }
    return botocore.exceptions.ClientError(response, "look")


def _stored(key: str, response: Any, size_bytes: int) -> StoredObject:
    return StoredObject(
        key=key,
        size_bytes=size_bytes,
        etag=etag_of(response),
        version_id=response.get("VersionId"),
        checksum=checksum_of(response),
        encryption=response.get("ServerSideEncryption"),
        **cold.told(response),
    )


def checksum_of(response: Any) -> str | None:
    """As in `StoredObject`; one composed of the parts' checksums is told by its "-N"."""
    sha256, crc64 = response.get("ChecksumSHA256"), response.get("ChecksumCRC64NVME")
    if sha256:
        whole, composed, parts = sha256.partition("-")
        with suppress(ValueError):
            digest = base64.b64decode(whole, validate=True).hex()
            return f"sha256-of-parts:{digest}-{int(parts)}" if composed else f"sha256:{digest}"
    return f"crc64nvme:{crc64}" if crc64 and "-" not in crc64 else None


def same_key(asked: str, responded: str | None) -> bool:
    """Whether both name one key, as far as that can be told: an alias says nothing of the key that it stands for."""
    if not responded:
        return False
    asked_kind, asked_name = _kind_and_name(asked)
    kind, name = _kind_and_name(responded)
    return kind != asked_kind or name == asked_name


def _kind_and_name(key_id: str) -> tuple[str, str]:
    """("alias", name) or ("key", id), whether or not the ARN is spelt out."""
    name = key_id.rsplit(":", 1)[-1] if key_id.startswith("arn:") else key_id
    if name.startswith("alias/"):
        return "alias", name
    return "key", name.removeprefix("key/")
