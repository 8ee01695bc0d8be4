"""The S3 store: the store port on Amazon S3 and on what speaks its protocol."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

import botocore.exceptions

from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.archive.stores import ranges
from dicomwatchd.archive.stores.budget import ByteBudget
from dicomwatchd.archive.stores.port import (
    CHUNK_BYTES,
    Buffer,
    Capabilities,
    Chunk,
    Content,
    Destination,
    Expiry,
    InitStep,
    Receipt,
    Restoring,
    Speed,
    Standing,
    StoredObject,
    Transition,
)
from dicomwatchd.archive.stores.s3 import fast_path, probe, restoring
from dicomwatchd.archive.stores.s3 import setup as s3_setup
from dicomwatchd.archive.stores.s3.bucket import S3Bucket, checksum_of
from dicomwatchd.archive.stores.s3.data_plane import Body
from dicomwatchd.archive.stores.s3.expiry import ExpiryWatch
from dicomwatchd.archive.stores.s3.listed import etag_of
from dicomwatchd.archive.stores.s3.multipart import PART_BYTES, SENDING_THREADS, MultipartSender
from dicomwatchd.archive.stores.s3.parts import Means
from dicomwatchd.archive.stores.s3.protection import ProtectionWatch
from dicomwatchd.archive.stores.s3.taken import Taken
from dicomwatchd.archive.stores.uplink import PacedBody, Uplink
from dicomwatchd.config.archive import S3Settings
from dicomwatchd.errors import (
    ColdObject,
    Conflict,
    NoSuchObject,
    NotInitialised,
    NotThere,
    OutOfReach,
    Permanent,
    SourceChanged,
    Transient,
)

if TYPE_CHECKING:
    from botocore.session import Session

SINGLE_PUT_BYTES = 16 * 1024 * 1024
PROBE_ATTEMPTS = 3


def _never() -> bool:
    return False


class S3Store:
    """Implements ObjectStore. ``connections`` is how many threads may use it at once without waiting for each
    other; the threads that send parts of big objects come on top. ``stopping`` is asked between two parts.
    ``budget`` is shared by all stores of a process, and so is ``uplink``, which says how fast objects and parts may be
    sent. ``with_fast_path`` False: every request is botocore's.
    """

    def __init__(
        self,
        settings: S3Settings,
        *,
        connections: int,
        stopping: Callable[[], bool] = _never,
        budget: ByteBudget | None = None,
        single_put_bytes: int = SINGLE_PUT_BYTES,
        part_bytes: int = PART_BYTES,
        random_name: Callable[[], str] = secrets.token_hex,
        with_fast_path: bool = True,
        session: Session | None = None,
        now: Callable[[], float] = time.time,
        uplink: Uplink | None = None,
    ) -> None:
        self._random_name = random_name
        session = session or aws.new_session()
        client = aws.build_client(
            "s3",
            session=session,
            region=settings.region,
            endpoint_url=settings.endpoint_url,
            ca_file=settings.ca_file,
            max_connections=connections + SENDING_THREADS,
            s3=_client_settings(settings),
        )
        for operation in ("PutObject", "UploadPart"):
            client.meta.events.register(f"before-sign.s3.{operation}", _no_expect)
            if uplink is not None:
                client.meta.events.register(f"before-send.s3.{operation}", partial(_paced, uplink, stopping))
        region = client.meta.region_name
        self._settings = settings
        self._single_put_bytes = single_put_bytes
        self._capabilities = Capabilities()
        self._taken = Taken()
        self._destination = Destination(
            kind="s3",
            endpoint=aws.location(region, settings.endpoint_url),
            container=settings.bucket,
            prefix=settings.prefix,
        )
        self._bucket = S3Bucket(
            client=client,
            name=settings.bucket,
            prefix=settings.prefix,
            endpoint=aws.endpoint_name("s3", region, settings.endpoint_url),
            encryption=settings.encryption,
            is_amazon=aws.is_amazon(settings.endpoint_url),
            storage_class=settings.storage_class,
            tag=settings.tag,
            expiry=ExpiryWatch(settings.prefix, settings.accept_expiry, now, settings.tag),
        )
        self._protection = ProtectionWatch()
        self._data_plane = None
        if with_fast_path:
            sending = (lambda: None) if uplink is None else partial(uplink.sending, stopping)
            self._data_plane = fast_path.connect(client, session, settings, sending)
        self._executor = ThreadPoolExecutor(SENDING_THREADS, thread_name_prefix="s3-part")
        self._multipart = MultipartSender(
            self._bucket,
            self._data_plane,
            executor=self._executor,
            budget=budget or ByteBudget(),
            part_bytes=part_bytes,
            stopping=stopping,
            means=lambda: Means.of(self._capabilities),
        )

    @property
    def destination(self) -> Destination:
        return self._destination

    @property
    def endpoint(self) -> str:
        return self._bucket.endpoint

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def bucket(self) -> S3Bucket:
        """For those who ask for what no store has in common (`archive.preflight`)."""
        return self._bucket

    @property
    def single_put_bytes(self) -> int:
        return self._single_put_bytes

    def piece_bytes(self, size_bytes: int) -> int | None:
        return self._multipart.piece_bytes(size_bytes) if size_bytes > self._single_put_bytes else None

    def put(self, key: str, content: Content) -> Receipt:
        # What is in memory already goes in one piece: a manifest of any size is created in one atomic step.
        if content.digest.size_bytes > self._single_put_bytes and not isinstance(content, Buffer):
            return self._multipart.put(key, content)
        return self._put_single(key, content)

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        return self._bucket.head(key, version_id, checksum=self._capabilities.checksum_on_head, short=self._looked)

    def _looked(self, arguments: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return None if self._data_plane is None else fast_path.head_object(self._data_plane, arguments)

    def standing(self, key: str, path: bytes, found: os.stat_result) -> Standing:  # noqa: ARG002  no files here
        return Standing.APART

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        if self._data_plane is None:
            return self._bucket.listing(prefix, after)
        return self._bucket.listing(prefix, after, partial(fast_path.list_objects, self._data_plane))

    def current_versions(self, prefix: str) -> Iterator[StoredObject | None]:
        if self._data_plane is None:
            return self._bucket.current_versions(prefix)
        return self._bucket.current_versions(prefix, partial(fast_path.list_versions, self._data_plane))

    def common_prefixes(self, prefix: str, after: str = "") -> Iterator[str]:
        if self._data_plane is None:
            return self._bucket.common_prefixes(prefix, after)
        return self._bucket.common_prefixes(prefix, after, partial(fast_path.list_objects, self._data_plane))

    def read(
        self,
        key: str,
        version_id: str | None = None,
        *,
        offset_bytes: int = 0,
        length_bytes: int | None = None,
        buffer: memoryview | None = None,
        checksum: Callable[[str], None] | None = None,
    ) -> Iterator[Chunk]:
        """GetObject, with Range for a part. A body that ends early raises OutOfReach. The checksum is asked for where
        the store is known to keep one; botocore then compares it with the bytes, too (Transient)."""
        wanted = ranges.Wanted(offset_bytes, length_bytes) if length_bytes is not None else None
        if wanted is not None or not (self._bucket.is_amazon or self._capabilities.checksum_on_head):
            checksum = None
        found = None
        if self._data_plane is not None and checksum is None:
            query = {"versionId": version_id} if version_id is not None else {}
            found = self._data_plane.get(self._bucket.full_key(key), query, wanted)
        if found is not None:
            if version_id is None:
                self._bucket.note_expiry(key, fast_path.about_its_end(found.headers))
            chunks, surplus_bytes = self._chunks(found, buffer), found.surplus_bytes
        elif (responded := self._asked(key, version_id, wanted, checksum)) is not None:
            chunks, surplus_bytes = responded
        else:
            return
        with closing(chunks):
            yield from ranges.cut(chunks, surplus_bytes, length_bytes)

    def _asked(
        self,
        key: str,
        version_id: str | None,
        wanted: ranges.Wanted | None,
        checksum: Callable[[str], None] | None,
    ) -> tuple[Generator[Chunk, None, None], int] | None:
        """The chunks of botocore's answer, and how many bytes of them come before what is wanted; None where the
        object ends before."""
        arguments: Any = {"VersionId": version_id} if version_id is not None else {}
        if wanted is not None:
            arguments["Range"] = wanted.header
        if checksum is not None:
            arguments["ChecksumMode"] = "ENABLED"
        try:
            response = self._bucket.client.get_object(**self._bucket.address(key), **arguments)
        except aws.FOREIGN as error:
            if wanted is not None and aws.http_status(error) == 416:
                return None
            failure = aws.translate(error, operation="GetObject", endpoint=self._bucket.endpoint)
            if isinstance(failure, ColdObject):  # a 403, too, of an object that is there
                raise failure from error
            if aws.http_status(error) == 403 and version_id is None and self._bucket.absent(self._bucket.full_key(key)):
                raise NoSuchObject("GetObject failed: no such object (403)") from error
            raise failure from error
        if version_id is None:
            self._bucket.note_expiry(key, response)
        body, size_bytes = response["Body"], response["ContentLength"]
        surplus_bytes = ranges.surplus(wanted, response.get("ContentRange"), size_bytes)
        if surplus_bytes is None:
            body.close()
            raise OutOfReach("GetObject answered with another part", endpoint=self._bucket.endpoint)
        if checksum is not None and (told := checksum_of(response)) is not None:
            checksum(told)
        return self._read(body, size_bytes), surplus_bytes

    def _read(self, body: Any, left: int) -> Generator[Chunk, None, None]:
        try:
            while True:
                with self._bucket.translated("GetObject"):
                    chunk = body.read(CHUNK_BYTES)
                if not chunk:
                    break
                left -= len(chunk)
                if left < 0:
                    break
                yield chunk
            if left:
                raise OutOfReach("GetObject ended early", endpoint=self._bucket.endpoint)
        finally:
            body.close()

    def _chunks(self, found: Body, buffer: memoryview | None) -> Generator[Chunk, None, None]:
        with closing(found.chunks(CHUNK_BYTES) if buffer is None else found.views(buffer)) as chunks:
            while True:
                with self._bucket.translated("GetObject"):
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                yield chunk

    def restore(self, key: str, speed: Speed, days: int | None) -> Restoring:
        return restoring.restore(self._bucket, key, speed, days)

    def check(self) -> None:
        try:
            with self._bucket.translated("check the bucket"):
                self._bucket.ask()
        except (NoSuchObject, NotThere) as error:
            raise NotInitialised(
                "the bucket of the archive does not exist",
                hint="check its name; if the archive has never been created: dicomwatchctl archive init",
            ) from error
        except OutOfReach:
            raise
        except Permanent as error:
            raise OutOfReach(error.message, endpoint=self._bucket.endpoint) from error
        except Transient as error:
            raise OutOfReach(error.message, code=error.code, hint=error.hint, endpoint=self._bucket.endpoint) from error

    def initialise(self) -> list[InitStep]:
        return s3_setup.initialise(self._bucket, self._settings, self._random_name)

    def add_transitions(self, transitions: Sequence[Transition]) -> InitStep:
        return s3_setup.add_transitions(self._bucket, transitions, self._random_name)

    def probe(self, scratch_key: str) -> Capabilities:
        for attempt in range(1, PROBE_ATTEMPTS + 1):
            try:
                self._capabilities = probe.probe(self._bucket, f"{scratch_key}{self._random_name()}/")
                self._bucket.encrypts()
                break
            except Transient as error:
                # An answer that got lost looks like another writer to the second attempt: on a fresh place, once more.
                if error.endpoint is not None or attempt == PROBE_ATTEMPTS:
                    raise
        with suppress(Transient, Permanent):
            self.refresh_expiry()  # until there was an answer, nothing is deleted; it is looked at again
        return self._capabilities

    @property
    def expiry(self) -> Expiry:
        return replace(self._bucket.expiry.found, unprotected=self._protection.why)

    def refresh_expiry(self) -> Expiry:
        """GetBucketLifecycleConfiguration, and HeadObject of the archive's identity and of what was said to expire. How
        the bucket is protected is asked after it, of a store that has answered."""
        bucket = self._bucket
        with bucket.translated("GetBucketLifecycleConfiguration"):
            bucket.expiry.ask(bucket.client, bucket.name, lambda key: self.head(key) is not None)
        # Not before a store is probed: nothing is known then of what it refuses.
        creates_only = self._capabilities.creates_only or not self._capabilities.details
        with bucket.translated("ask for the bucket's protection"):
            self._protection.ask(bucket.client, bucket.name, creates_only=creates_only)
        return self.expiry

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)
        if self._data_plane is not None:
            self._data_plane.close()
        self._bucket.client.close()

    def _put_single(self, key: str, content: Content) -> Receipt:
        digest = content.digest
        data = content.read(0, digest.size_bytes)
        if not isinstance(content, Buffer) and hashlib.sha256(data).hexdigest() != digest.sha256:
            raise SourceChanged("a file's content has changed since it was read first")
        looks_first = not self._capabilities.creates_only or self._taken.is_likely(key)
        if looks_first and (there := self._existing(key)) is not None:
            self._taken.note(key, True)
            return self._receipt_of_existing(key, content, _md5(data), there)
        sha256 = base64.b64encode(bytes.fromhex(digest.sha256)).decode("ascii")
        arguments = {**self._bucket.creation(key), "ChecksumSHA256": sha256, "IfNoneMatch": "*"}
        md5 = None if self._capabilities.etag_follows_content else _md5(data)
        if md5 is not None:
            arguments["ContentMD5"] = base64.b64encode(bytes.fromhex(md5)).decode("ascii")
        response = self._create(key, data, digest.sha256, arguments)
        self._taken.note(key, isinstance(response, StoredObject))
        if isinstance(response, StoredObject):
            return self._receipt_of_existing(key, content, md5 or _md5(data), response)
        self._bucket.note_expiry(key, response)
        self._bucket.check_encryption(response)
        self._bucket.check_storage_class(key, response)
        answered_etag = self._etag_of_what_was_checked(response, sha256)
        return Receipt(
            key=key,
            size_bytes=digest.size_bytes,
            sha256=digest.sha256,
            created=True,
            # Work for nothing where the answer's is known.
            expected_etag=(md5 or _md5(data)) if answered_etag is None else None,
            expected_checksum=f"sha256:{digest.sha256}",
            version_id=response.get("VersionId"),
            encryption=response.get("ServerSideEncryption"),
            answered_etag=answered_etag,
        )

    def _etag_of_what_was_checked(self, response: Mapping[str, Any], sha256: str) -> str | None:
        """The ETag of an answer to a creation, where the store has shown that it checks what it takes and that its
        ETags follow the content; None where this answer does not bear that out."""
        if not self._capabilities.etag_follows_content:
            return None
        if response.get("ChecksumSHA256", None if self._capabilities.echoes_checksum else sha256) != sha256:
            return None
        return etag_of(response)

    def _existing(self, key: str) -> StoredObject | None:
        """With its checksum where that would tell what its ETag stands for."""
        backs = self._capabilities
        checksum = backs.etag_follows_content and backs.checksum_on_head
        return self._bucket.existing(key, checksum=checksum, short=self._looked)

    def _receipt_of_existing(self, key: str, content: Content, md5: str, there: StoredObject) -> Receipt:
        checksum = f"sha256:{content.digest.sha256}"
        backs = self._capabilities
        tells = backs.etag_follows_content and backs.checksum_on_head and there.checksum == checksum
        return Receipt(
            key=key,
            size_bytes=content.digest.size_bytes,
            sha256=content.digest.sha256,
            created=False,
            expected_etag=md5,
            expected_checksum=checksum,
            version_id=there.version_id,
            encryption=there.encryption,
            answered_etag=there.etag if tells else None,
        )

    def _create(self, key: str, data: bytes, sha256: str, arguments: Any) -> Mapping[str, Any] | StoredObject:
        """PutObject's answer, or the object that was there. The fast path is for what goes well; botocore, with its
        retries, for everything else."""
        if self._data_plane is not None:
            short = fast_path.put_object(self._data_plane, self._bucket.full_key(key), data, sha256, arguments)
            if short is not None and (response := short or self._existing(key)):
                return response
        try:
            return self._bucket.client.put_object(**self._bucket.address(key), **arguments, Body=data)
        except botocore.exceptions.ClientError as error:
            # 412: the key was there, perhaps by a request of ours whose answer was lost. 409: a race just now.
            if aws.http_status(error) in (409, 412) and (there := self._existing(key)) is not None:
                return there
            if aws.http_status(error) == 412:
                raise Conflict("PutObject met another writer") from error
            raise aws.translate(error, operation="PutObject", endpoint=self._bucket.endpoint) from error
        except aws.FOREIGN as error:
            raise aws.translate(error, operation="PutObject", endpoint=self._bucket.endpoint) from error


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _client_settings(settings: S3Settings) -> dict[str, Any] | None:
    if not settings.endpoint_url:
        return None
    # A private endpoint seldom has a name for each bucket.
    found: dict[str, Any] = {"addressing_style": "path"}
    if not aws.is_amazon(settings.endpoint_url):
        # Over https too: not every store looks at x-amz-checksum-sha256, and what is signed each one compares.
        found["payload_signing_enabled"] = True
    return found


def _no_expect(request: Any, **_: object) -> None:
    """Without "Expect: 100-continue", which botocore adds: it costs a round trip for each object."""
    if "Expect" in request.headers:
        del request.headers["Expect"]


def _paced(uplink: Uplink, stopping: Callable[[], bool], request: Any, **_: object) -> None:
    """Of botocore's own requests, each of its attempts."""
    if request.body and (sending := uplink.sending(stopping)) is not None:
        body = request.body
        request.body = PacedBody(BytesIO(body) if isinstance(body, bytes | bytearray) else body, sending)
