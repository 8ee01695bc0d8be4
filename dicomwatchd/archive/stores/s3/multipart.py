"""Big objects: multipart uploads that resume, create only, and keep to one memory budget for the whole process."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast

from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.archive.stores.budget import ByteBudget
from dicomwatchd.archive.stores.port import Content, Receipt, StoredObject
from dicomwatchd.archive.stores.s3 import fast_path, parts
from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.archive.stores.s3.data_plane import S3DataPlane
from dicomwatchd.archive.stores.s3.listed import etag_of
from dicomwatchd.archive.stores.s3.parts import Digests, Known, Means, Part
from dicomwatchd.errors import (
    ArchiveRefused,
    Conflict,
    DicomwatchdError,
    Permanent,
    SourceChanged,
    Stopping,
    Transient,
)
from dicomwatchd.model import Digest

MIB = 1024 * 1024
PART_BYTES = 16 * MIB
MAX_PARTS = 10_000  # S3's limits
MAX_OBJECT_BYTES = 5 * 1024 * 1024 * MIB
SENDING_THREADS = 4


class MultipartSender:
    """Sends one big object after the other, or several at once, from any thread. ``means``: by what each is to be
    proven, which is asked for each object.

    Each caller reads its own file in order; the threads that send, and the budget, are shared by all of them.
    """

    def __init__(
        self,
        bucket: S3Bucket,
        data_plane: S3DataPlane | None,
        *,
        executor: ThreadPoolExecutor,
        budget: ByteBudget,
        part_bytes: int,
        stopping: Callable[[], bool],
        means: Callable[[], Means] = Means,
    ) -> None:
        self._bucket = bucket
        self._means = means
        self._data_plane = data_plane
        self._executor = executor
        self._budget = budget
        self._part_bytes = part_bytes
        self._stopping = stopping

    def piece_bytes(self, size_bytes: int) -> int | None:
        """As `ObjectStore.piece_bytes`."""
        return None if self._means().with_md5 else part_size(size_bytes, self._part_bytes)

    def put(self, key: str, content: Content) -> Receipt:
        """As `ObjectStore.put`. An upload that failed in a way that heals, or was stopped, is left for the next
        attempt to go on with; one that cannot succeed is aborted."""
        size_bytes = content.digest.size_bytes
        if size_bytes > MAX_OBJECT_BYTES:
            raise Permanent("larger than the 5 TiB that an S3 object may have", code="too-large")
        with self._budget.reusing():
            return self._put(key, content, part_size(size_bytes, self._part_bytes), self._means())

    def _put(self, key: str, content: Content, part_bytes: int, means: Means, *, goes_on: bool = True) -> Receipt:
        if (there := self._bucket.existing(key)) is not None:
            return self._receipt_of_existing(key, content, part_bytes, means, there)
        upload_id, known = self._find_unfinished(key, means.with_checksums) if goes_on else (None, {})
        resumed = upload_id is not None
        if upload_id is None:
            upload_id = self._begin(key, means.with_checksums)
        in_use = means.for_parts_found_there() if known else means
        try:
            with self._abandoning(key, upload_id):
                sent = self._send_parts(key, upload_id, content, part_bytes, in_use, known)
                return self._complete(key, upload_id, content, part_bytes, in_use, sent)
        except (ArchiveRefused, Permanent):
            # It was begun under another encryption setting, perhaps, or by another program. That it was aborted is not
            # sure, so none is looked for again.
            if resumed:
                return self._put(key, content, part_bytes, means, goes_on=False)
            raise

    def _begin(self, key: str, with_checksums: bool) -> str:
        arguments: Any = {"ChecksumAlgorithm": "SHA256"} if with_checksums else {}
        with self._bucket.translated("CreateMultipartUpload"):
            response = self._bucket.client.create_multipart_upload(
                **self._bucket.address(key), **self._bucket.creation(key), **arguments
            )
        upload_id = response["UploadId"]
        with self._abandoning(key, upload_id):
            self._bucket.check_encryption(response)
            self._bucket.check_storage_class(key, response)
        return upload_id

    def _find_unfinished(self, key: str, with_checksums: bool) -> tuple[str | None, dict[int, Known]]:
        """The newest unfinished upload of this very key and its parts: one that takes such parts as are to be sent, for
        with or without checksums it was begun, and in the storage class that is asked for.

        Going on with one is an economy, so a store that refuses the look gets a new upload."""
        address = self._bucket.address(key)
        try:
            response = self._bucket.client.list_multipart_uploads(Bucket=self._bucket.name, Prefix=address["Key"])
            uploads = [
                u
                for u in response.get("Uploads", [])
                if u.get("Key") == address["Key"]
                and (u.get("ChecksumAlgorithm") == "SHA256") is with_checksums
                and self._bucket.storage_class in (None, u.get("StorageClass", self._bucket.storage_class))
            ]
            if not uploads:
                return None, {}
            upload_id = max(uploads, key=lambda u: (u["Initiated"].timestamp(), u["UploadId"]))["UploadId"]
            return upload_id, self._known_parts(key, upload_id)
        except aws.FOREIGN as error:
            translated = aws.translate(error, operation="ListMultipartUploads", endpoint=self._bucket.endpoint)
            if aws.http_status(error) in range(400, 500) or aws.http_status(error) == 501:
                return None, {}
            raise translated from error

    def _known_parts(self, key: str, upload_id: str) -> dict[int, Known]:
        known: dict[int, Known] = {}
        marker = 0
        while True:
            response = self._bucket.client.list_parts(
                **self._bucket.address(key), UploadId=upload_id, PartNumberMarker=marker
            )
            for part in response.get("Parts", []):
                known[part["PartNumber"]] = Known(part["Size"], part["ETag"].strip('"'), part.get("ChecksumSHA256"))
            following = response.get("NextPartNumberMarker", 0)
            if not response.get("IsTruncated") or following <= marker:
                return known
            marker = following

    def _send_parts(
        self,
        key: str,
        upload_id: str,
        content: Content,
        part_bytes: int,
        means: Means,
        known: dict[int, Known],
    ) -> list[Part]:
        """Read in order, hash in order, send side by side. Raises SourceChanged when what was read is not what
        the digest says; nothing is completed then. Where the store compares each part with what was worked out of it
        when the whole was hashed, nothing is hashed here."""
        size_bytes = content.digest.size_bytes
        count = math.ceil(size_bytes / part_bytes)
        worked_out = _of_pieces(content.digest, part_bytes) if not means.with_md5 else None
        sent: list[Part] = []
        under_way: list[Future[Part]] = []
        sha256 = hashlib.sha256()
        try:
            for number in range(1, count + 1):
                if self._stopping():
                    raise Stopping("stopped between two parts of an upload")
                length = min(part_bytes, size_bytes - (number - 1) * part_bytes)
                buffer = self._budget.buffer(length, self._stopping)
                try:
                    content.fill((number - 1) * part_bytes, memoryview(buffer))
                    if worked_out is None:
                        sha256.update(buffer)
                    # The last part is always sent: its answer confirms the encryption of an upload found unfinished.
                    there = known.get(number) if number < count else None
                    known_digests = worked_out[number - 1] if worked_out is not None else None
                    send = partial(self._send_part, key, upload_id, number, buffer, means, there, known_digests)
                    future = self._executor.submit(send)
                except BaseException:
                    self._budget.release_buffer(buffer)
                    raise
                future.add_done_callback(partial(self._sent, buffer))
                under_way.append(future)
                # What is done is not kept: a future holds on to its room.
                done = [f for f in under_way if f.done()]
                under_way = [f for f in under_way if f not in done]
                sent += [f.result() for f in done]
                del buffer, send, future, done
            if worked_out is None and sha256.hexdigest() != content.digest.sha256:
                raise SourceChanged("a file's content has changed since it was read first")
            self._await(under_way)
            sent += [future.result() for future in under_way]
            return sorted(sent, key=lambda part: part.number)
        finally:
            # Whatever happened, nothing of this object is under way once its caller has the answer.
            for future in under_way:
                future.cancel()
            while wait(under_way, timeout=1.0).not_done:
                self._stopping()  # only shows that this thread is alive: what is under way has to end

    def _await(self, under_way: list[Future[Part]]) -> None:
        while wait(under_way, timeout=1.0, return_when=FIRST_EXCEPTION).not_done:
            self._stopping()  # only shows that this thread is alive: what is under way has to end
            if any(future.done() and future.exception() is not None for future in under_way):
                return

    def _sent(self, buffer: bytearray, _: Future[Part]) -> None:
        self._budget.release_buffer(buffer)

    def _send_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        data: bytearray,
        means: Means,
        there: Known | None,
        worked_out: Digests | None,
    ) -> Part:
        digests = worked_out or means.digests(data)
        if there is not None and there.is_of(len(data), digests):
            return Part(number, there.etag, digests)
        response = self._upload_part(key, upload_id, number, data, digests, means, is_of_data=worked_out is None)
        self._bucket.check_encryption(response)
        is_compared = means.by_etags and means.bears_out(digests, response.get("ChecksumSHA256"))
        return Part(number, response["ETag"].strip('"'), digests, is_compared)

    def _upload_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        data: bytearray,
        digests: Digests,
        means: Means,
        *,
        is_of_data: bool,
    ) -> Mapping[str, Any]:
        """UploadPart's answer. A part may be sent twice: the last one counts, and they are the same bytes.

        Unless the digests are known to be those of the very ``data`` nothing is sent by botocore before they were
        compared: it signs whatever it gets. Raises SourceChanged where the store has refused what they are not of.
        """
        arguments = means.arguments(digests)
        if self._data_plane is not None:
            full_key = self._bucket.full_key(key)
            sha256 = digests.sha256.hex() if digests.sha256 is not None else None
            response = fast_path.upload_part(self._data_plane, full_key, upload_id, number, data, arguments, sha256)
            if response is not None:
                return response
        if not is_of_data and hashlib.sha256(data).digest() != digests.sha256:
            raise SourceChanged("a file's content has changed since it was read first")
        with self._bucket.translated("UploadPart"):
            return self._bucket.client.upload_part(
                **self._bucket.address(key),
                UploadId=upload_id,
                PartNumber=number,
                Body=cast(bytes, data),  # botocore takes it as it is
                **cast(Any, arguments),
            )

    def _complete(
        self, key: str, upload_id: str, content: Content, part_bytes: int, means: Means, sent: list[Part]
    ) -> Receipt:
        # Not every store minds If-None-Match here; the look narrows the gap to milliseconds for those.
        if (there := self._bucket.existing(key)) is not None:
            self._abort(key, upload_id)
            return self._receipt_of_existing(key, content, part_bytes, means, there)
        try:
            response = self._bucket.client.complete_multipart_upload(
                **self._bucket.address(key),
                UploadId=upload_id,
                MultipartUpload={"Parts": [part.completed(means) for part in sent]},
                IfNoneMatch="*",
            )
        except aws.FOREIGN as error:
            # The answer may have been lost and the object be there, by our request or by somebody else's.
            failure = aws.translate(error, operation="CompleteMultipartUpload", endpoint=self._bucket.endpoint)
            there = self._bucket.existing(key)
            if there is not None:
                if aws.http_status(error) == 412:
                    self._abort(key, upload_id)
                return self._receipt_of_existing(key, content, part_bytes, means, there)
            if aws.http_status(error) in (409, 412):
                # Amazon wants all parts of such an upload sent again, in a new one.
                self._abort(key, upload_id)
                failure = Conflict("CompleteMultipartUpload met another writer")
            raise failure from error
        self._bucket.note_expiry(key, response)
        self._bucket.confirm_encryption(key, response)
        digests = [part.digests for part in sent]
        mode = self._bucket.encryption.mode
        return Receipt(
            key=key,
            size_bytes=content.digest.size_bytes,
            sha256=content.digest.sha256,
            created=True,
            expected_etag=parts.expected_etag(digests),
            expected_checksum=parts.expected_checksum(digests, means),
            version_id=response.get("VersionId"),
            encryption=mode if mode != "store-default" else None,
            answered_etag=parts.answered_etag(sent, etag_of(response)),
        )

    def _receipt_of_existing(
        self, key: str, content: Content, part_bytes: int, means: Means, there: StoredObject
    ) -> Receipt:
        """Of an object that no answer speaks of: somebody else's, or ours, whose answer was lost. What it must show is
        worked out of the content, which is read once more for that."""
        digests = list(self._hash_only(content, part_bytes, means))
        return Receipt(
            key=key,
            size_bytes=content.digest.size_bytes,
            sha256=content.digest.sha256,
            created=False,
            expected_etag=parts.expected_etag(digests),
            expected_checksum=parts.expected_checksum(digests, means),
            version_id=there.version_id,
            encryption=there.encryption,
        )

    def _hash_only(self, content: Content, part_bytes: int, means: Means) -> Iterator[Digests]:
        """The digests of each part of content that the store has already. Raises SourceChanged, Stopping."""
        sha256 = hashlib.sha256()
        for start in range(0, content.digest.size_bytes, part_bytes):
            if self._stopping():
                raise Stopping("stopped while a file was compared")
            length = min(part_bytes, content.digest.size_bytes - start)
            buffer = self._budget.buffer(length, self._stopping)
            try:
                content.fill(start, memoryview(buffer))
                sha256.update(buffer)
                yield means.digests_of_existing(buffer)
            finally:
                self._budget.release_buffer(buffer)
        if sha256.hexdigest() != content.digest.sha256:
            raise SourceChanged("a file's content has changed since it was read first")

    @contextmanager
    def _abandoning(self, key: str, upload_id: str) -> Iterator[None]:
        """Aborts the upload when it fails in a way that the next attempt would not get over."""
        try:
            yield
        except (Transient, Stopping):
            raise
        except DicomwatchdError:
            self._abort(key, upload_id)
            raise

    def _abort(self, key: str, upload_id: str) -> None:
        """As far as it goes: what is left over is for the bucket's lifecycle rule."""
        with suppress(*aws.FOREIGN):
            self._bucket.client.abort_multipart_upload(**self._bucket.address(key), UploadId=upload_id)


def _of_pieces(digest: Digest, part_bytes: int) -> list[Digests] | None:
    """What was worked out of the parts when the whole was hashed, if it was hashed in just these."""
    if digest.pieces is None or digest.pieces.piece_bytes != part_bytes:
        return None
    return [Digests(sha256=sha256) for sha256 in digest.pieces.sha256s]


def part_size(size_bytes: int, at_least: int) -> int:
    """The part size for an object: a function of its size alone, so that a resumed upload cuts where the first
    attempt did. Whole MiB, at most 10,000 parts."""
    return max(at_least, math.ceil(size_bytes / MAX_PARTS / MIB) * MIB)
