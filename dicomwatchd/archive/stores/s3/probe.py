"""The probe: finds out what an S3 store really enforces, by trying; what it promises proves nothing."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.archive.stores import etags
from dicomwatchd.archive.stores.port import Capabilities, composed
from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.archive.stores.s3.listed import etag_of
from dicomwatchd.errors import ArchiveRefused, Conflict, CredentialsRefused, Permanent, Transient

#: Error codes by which a store says that the bytes are not those announced, a part is none it knows, the key is taken.
_DIGEST = re.compile(r"(?i)digest|checksum|sha256|md5|signature")
_PART = re.compile(r"InvalidPart")
_EXISTS = re.compile(r"PreconditionFailed|^412$")

#: Whether an object was encrypted with it.
BUCKET_KEY = "S3 Bucket Key"

#: More than stores take in one piece (RGW 4 MiB): one may check that and not what it takes in several.
_ALTERED_BYTES = 5 * 1024 * 1024

_REFUSED = "refused"
_ACCEPTED = "accepted"


def probe(bucket: S3Bucket, scratch_key: str) -> Capabilities:
    """Try it on a few tiny objects below ``scratch_key`` (relative to the prefix, unused so far, ending in "/").

    The objects stay: nothing of ours may delete. The lifecycle rule of `archive init` lets them expire.
    What is proven, and what for:
    - ``etag_is_content``: an object sent with no MD5 beside it has the MD5 as its ETag in the answer, on HEAD and
      in the listing, so the store worked it out itself and does not repeat what it was told; a wrong Content-MD5 is
      refused, so it looks at what arrives. The same holds for a part, a completed upload's ETag is composed of its
      parts', and a part's ETag that is not the stored part's is refused. All of it under the encryption configured.
    - ``checksum_on_head``: HEAD gives the SHA-256 of an object, and an object with a wrong one was refused.
    - ``checksum_of_parts``: HEAD gives, of an object sent in parts with a SHA-256 each, the one composed of these, and
      a part with a wrong one was refused. It is tried where the store has kept the SHA-256 of an object.
    - ``etag_follows_content``: a body that is not that of the SHA-256 sent with it is refused; answer, HEAD and listing
      show one and the same ETag, whatever it is; other content of the same length under the same key has another one,
      and neither has that of another key's object, as where an ETag counts what was put under its key. It is tried by
      overwriting an object of the probe: where nothing may be overwritten, not even there, it is not shown.
    - ``etag_follows_parts``: a part altered after it was signed is refused, sent as parts are sent then: with its
      SHA-256 beside it, which the answer names, where the store keeps that of parts, otherwise with the signed one
      alone. A part's ETag is another one once other bytes were sent in its place, and so is that of other bytes in
      another upload. A completion that names the ETag of what was replaced is refused. Answer, HEAD and listing show
      one ETag of the object, and it is the one composed of the parts' (`etags`). Nothing is overwritten for that.
    - ``echoes_checksum``: the answer to an object sent with its SHA-256 names it.
    - ``lists_versions``: an answer named a version, and ListObjectVersions shows that one, with that ETag, as current.
    - ``creates_only``: a second creation of a key is refused and the first content stays. This is about objects sent
      in one piece, as manifests are; Ceph 18 lets a second completion in parts through, and a second creation of any
      kind in a bucket with versioning.

    Raises ArchiveRefused when encryption that was asked for is not confirmed, Transient when the store is out of
    reach, and (with no ``endpoint``) when an answer was lost, so that this place is used up.
    """
    return _Probe(bucket, scratch_key).run()


@dataclass(frozen=True, slots=True)
class _PlainPut:
    """What an object shows that was sent with nothing but its SHA-256; ``etag_is_shown``: the same ETag everywhere."""

    etag_is_md5: bool = False
    etag_is_shown: bool = False
    etag: str | None = None
    echoes_checksum: bool = False
    is_listed_by_version: bool = False


@dataclass(frozen=True, slots=True)
class _OfParts:
    """What was seen of an upload in parts. ``etag_is_md5``: composed of MD5s, and wrong ones were refused;
    ``checksum``: HEAD gave what the SHA-256 sums make, and a wrong one was refused; ``etag_follows``: as `Capabilities`
    has it of parts."""

    etag_is_md5: bool
    checksum: bool
    etag_follows: bool


class _Probe:
    def __init__(self, bucket: S3Bucket, scratch_key: str) -> None:
        self._bucket = bucket
        self._client = bucket.client
        self._scratch = scratch_key
        self._details: dict[str, str] = {}

    def run(self) -> Capabilities:
        plain = self._plain_put()  # first: a store that takes no objects at all is asked nothing else
        # Before the threads: it alters what others send.
        altered = self._refused("body altered after signing", self._put_altered, _DIGEST, "altered")
        # Twenty requests one after the other are seconds on a far store.
        with ThreadPoolExecutor(3, thread_name_prefix="probe") as threads:
            of_digests = threads.submit(self._wrong_digests_refused)
            of_second = threads.submit(self._second_put_refused)
            of_parts = threads.submit(lambda: self._multipart(with_checksums=of_digests.result()[1]))
            of_class = threads.submit(self._kept_as_asked)
            of_change = threads.submit(self._etag_changes, plain.etag)
        creates_only, (md5, checksum) = of_second.result(), of_digests.result()
        in_parts = of_parts.result()
        of_class.result()
        return Capabilities(
            etag_is_content=plain.etag_is_md5 and md5 and in_parts.etag_is_md5,
            checksum_on_head=checksum,
            checksum_of_parts=in_parts.checksum,
            etag_follows_content=altered and plain.etag_is_shown and of_change.result(),
            etag_follows_parts=in_parts.etag_follows,
            echoes_checksum=plain.echoes_checksum,
            lists_versions=plain.is_listed_by_version,
            creates_only=creates_only,
            details=dict(self._details),
        )

    def _wrong_digests_refused(self) -> tuple[bool, bool]:
        """Of MD5, and of SHA-256 together with what HEAD gives."""
        md5 = self._refused("wrong Content-MD5", self._put_with_wrong_md5, _DIGEST, "wrong-md5")
        sha256 = self._refused("wrong SHA-256 checksum", self._put_with_wrong_sha256, _DIGEST, "wrong-sha256")
        return md5, self._checksum_on_head() and sha256

    def _put(self, name: str, data: bytes, **arguments: Any) -> Any:
        """Without a MD5 unless it is given, and always with something that it can be checked by, as objects are sent:
        a bucket with Object Lock takes no others."""
        key = self._scratch + name
        if "ContentMD5" not in arguments:
            arguments.setdefault("ChecksumSHA256", _sha256(data))
        return self._client.put_object(
            **self._bucket.address(key), **self._bucket.creation(key), Body=data, IfNoneMatch="*", **arguments
        )

    def _refused(
        self, what: str, attempt: Callable[[], object], because: re.Pattern[str], object_name: str = ""
    ) -> bool:
        """Whether the store turns the attempt down for the right reason and keeps nothing of it under ``object_name``.
        Trouble (an answer that got lost, an expired token) is no refusal: to take it for one would be to trust a
        store that checks nothing. It is raised, and so nothing is known; a refusal for another reason proves nothing.
        """
        refused = False
        try:
            attempt()
        except aws.FOREIGN as error:
            code = aws.error_code(error)
            trouble = aws.translate(error, operation="probe", endpoint=self._bucket.endpoint)
            if not because.search(code) and isinstance(trouble, Transient):
                raise trouble from error
            refused = because.search(code) is not None
            if refused and object_name:
                refused = self._bucket.head(self._scratch + object_name) is None
        self._details[what] = _REFUSED if refused else _ACCEPTED
        return refused

    def _note(self, what: str, holds: bool) -> bool:
        self._details[what] = "yes" if holds else "no"
        return holds

    def _plain_put(self) -> _PlainPut:
        data = self._data("plain")
        try:
            with self._bucket.translated("PutObject"):
                response = self._put("plain", data)
        except Permanent as error:
            # Asked for encryption it does not have, or for create-only it does not know: no object would get in.
            raise ArchiveRefused(
                f"the store rejects objects as they would be sent: {error.message}",
                hint="check archive.store.encryption in the configuration, and whether the store supports it",
            ) from error
        self._bucket.check_encryption(response)
        if self._bucket.wants_bucket_keys:
            self._note(BUCKET_KEY, response.get("BucketKeyEnabled") is True)
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        seen = self._bucket.head(self._scratch + "plain")
        listed = {item.key: item for item in self._bucket.listing(self._scratch)}.get(self._scratch + "plain")
        if not self._note("read after write", seen is not None and seen.size_bytes == len(data)):
            return _PlainPut()
        self._note("listed after write", listed is not None)
        assert seen is not None  # noqa: S101  noted above
        asked = self._bucket.encryption.mode
        self._details["encryption"] = seen.encryption or "none reported"
        if asked != "store-default" and seen.encryption != asked:
            raise ArchiveRefused(
                f"the store confirms the requested encryption ({asked}) but does not apply it",
                hint="check archive.store.encryption in the configuration, and whether the store supports it",
            )
        answered_etag = etag_of(response)
        etags = [answered_etag, seen.etag, listed.etag if listed else None]
        return _PlainPut(
            etag_is_md5=self._note("ETag is the MD5", etags == [md5] * 3),
            etag_is_shown=answered_etag is not None and etags == [answered_etag] * 3,
            etag=answered_etag,
            echoes_checksum=self._note("answers with the SHA-256", response.get("ChecksumSHA256") == _sha256(data)),
            is_listed_by_version=self._is_listed_by_version("plain", response),
        )

    def _is_listed_by_version(self, name: str, response: Any) -> bool:
        version_id = response.get("VersionId")
        if version_id is None:
            return False
        try:
            listed = [item for item in self._bucket.current_versions(self._scratch + name) if item is not None]
        except (Permanent, CredentialsRefused):
            self._details["lists versions"] = "not shown: may the daemon list them (s3:ListBucketVersions)?"
            return False
        found = {(item.key, item.version_id, item.etag) for item in listed}
        return self._note("lists versions", found == {(self._scratch + name, version_id, etag_of(response))})

    def _etag_changes(self, of_another: str | None) -> bool:
        """Whether other content of the same length has another ETag, in all places; neither is that ``of_another``."""
        what, key = "ETag follows the content", self._scratch + "changing"
        etags: list[str | None] = []
        for data in (self._data("changes"), self._data("changed")):
            arguments: Any = {"ChecksumSHA256": _sha256(data)} | ({} if etags else {"IfNoneMatch": "*"})
            try:
                with self._bucket.translated("PutObject"):
                    # Overwrites what this probe has put there itself a moment ago: nothing else is ever called so.
                    response = self._client.put_object(
                        **self._bucket.address(key), **self._bucket.creation(key), Body=data, **arguments
                    )
            except (Permanent, CredentialsRefused, Conflict) as error:
                # So a store for records refuses the second creation (409); of the first it is an answer that got lost.
                if isinstance(error, Conflict) and not etags:
                    raise
                self._details[what] = "not shown: nothing may be overwritten, not even the probe's own objects"
                return False
            seen = self._bucket.head(key)
            listed = {item.key: item for item in self._bucket.listing(key)}.get(key)
            shown = {etag_of(response), seen.etag if seen else None, listed.etag if listed else None}
            if len(shown) != 1 or None in shown:
                return self._note(what, False)
            etags += shown
        return self._note(what, len({*etags, of_another}) == 3)

    def _kept_as_asked(self) -> None:
        """Whether the store takes the storage class and the tag of instances. Raises ArchiveRefused where it does not,
        for no instance would get in, and where it keeps it in another class."""
        keeping, asked = self._bucket.keeping, self._bucket.storage_class
        if not keeping:
            return
        try:
            with self._bucket.translated("PutObject"):
                response = self._put("class", self._data("class"), **keeping)
        except Permanent as error:
            raise ArchiveRefused(
                f"the store rejects objects with the configured storage class or tag: {error.message}",
                hint="check archive.store.storage_class and tag, and whether the store supports them",
            ) from error
        except CredentialsRefused as error:
            if self._bucket.tag is not None:
                error.hint = "may they set tags (s3:PutObjectTagging)? archive.store.tag asks for that"
            raise
        self._bucket.check_encryption(response)
        if self._bucket.tag is not None:
            self._details["tag of instances"] = _ACCEPTED
        if asked is None:
            return
        seen = self._bucket.head(self._scratch + "class")
        named = (seen and seen.storage_class) or "STANDARD"
        self._details["storage class of instances"] = named
        if named != asked:
            raise ArchiveRefused(
                f"the store accepts objects for the storage class {asked} and keeps them in {_plain(named)}",
                hint="check archive.store.storage_class in the configuration, and whether the store supports it",
            )

    def _second_put_refused(self) -> bool:
        what = "second conditional put"
        # Asked twice: much hangs on it, and one answer may have come from something else on the way.
        refused = all(self._refused(what, lambda: self._put("plain", self._data("other")), _EXISTS) for _ in range(2))
        self._details[what] = _REFUSED if refused else _ACCEPTED
        with self._bucket.translated("GetObject"):
            kept = self._client.get_object(**self._bucket.address(self._scratch + "plain"))["Body"].read()
        return self._note("first content kept", kept == self._data("plain")) and refused

    def _put_with_wrong_md5(self) -> object:
        wrong = hashlib.md5(b"wrong", usedforsecurity=False).digest()
        return self._put("wrong-md5", self._data("wrong-md5"), ContentMD5=base64.b64encode(wrong).decode("ascii"))

    def _put_with_wrong_sha256(self) -> object:
        return self._put("wrong-sha256", self._data("wrong-sha256"), ChecksumSHA256=_sha256(b"wrong"))

    def _put_altered(self) -> object:
        """Signed with one body, sent with another of the same length: the two differ at their end."""
        with self._altering("PutObject") as signed:
            return self._put("altered", signed)

    @contextmanager
    def _altering(self, operation: str) -> Iterator[bytes]:
        """The body that is to be sent, and is altered on its way."""
        line = self._data("altered")
        signed = (line * (_ALTERED_BYTES // len(line) + 1))[:_ALTERED_BYTES]

        def alter(request: Any, **_: object) -> None:
            if request.body.read() == signed:
                request.body = io.BytesIO(signed[:-1] + b"!")
            else:
                request.body.seek(0)

        # Before it is handed out in pieces, where sending is limited.
        self._client.meta.events.register_first(f"before-send.s3.{operation}", alter)
        try:
            yield signed
        finally:
            self._client.meta.events.unregister(f"before-send.s3.{operation}", alter)

    def _checksum_on_head(self) -> bool:
        data = self._data("sha256")
        with self._bucket.translated("PutObject"):
            self._put("sha256", data)
        seen = self._bucket.head(self._scratch + "sha256", checksum=True)
        holds = seen is not None and seen.checksum == f"sha256:{hashlib.sha256(data).hexdigest()}"
        return self._note("HEAD gives the SHA-256", holds)

    def _multipart(self, *, with_checksums: bool) -> _OfParts:
        replaced, data = self._data("replaced"), self._data("parts")
        md5 = hashlib.md5(data, usedforsecurity=False)
        upload_id, checked = self._begin_upload(with_checksums)
        wrong = base64.b64encode(hashlib.md5(b"wrong", usedforsecurity=False).digest()).decode("ascii")
        wrong_md5 = self._refused(
            "wrong Content-MD5 of a part", lambda: self._upload(upload_id, data, checked, ContentMD5=wrong), _DIGEST
        )
        wrong_checksum = checked and self._refused(
            "wrong SHA-256 checksum of a part",
            lambda: self._upload(upload_id, data, False, ChecksumSHA256=_sha256(b"wrong")),
            _DIGEST,
        )
        altered = self._refused("part altered after signing", lambda: self._upload_altered(upload_id, checked), _DIGEST)
        with self._bucket.translated("UploadPart"):
            first = self._upload(upload_id, replaced, checked)
            part = self._upload(upload_id, data, checked)
        first_etag, part_etag = etag_of(first) or "", etag_of(part) or ""
        wrong_etag = self._refused(
            "wrong ETag of a part",
            lambda: self._complete(upload_id, first_etag, data, checked),
            _PART,
            "parts",
        )
        answered_etag = None  # and so nothing follows, where what should have been refused was completed
        if wrong_etag:
            with self._bucket.translated("CompleteMultipartUpload"):
                answered_etag = etag_of(self._complete(upload_id, part_etag, data, checked))
        seen = self._bucket.head(self._scratch + "parts", checksum=checked)
        listed = {item.key: item for item in self._bucket.listing(self._scratch + "parts")}.get(self._scratch + "parts")
        shown = [answered_etag, seen.etag if seen else None, listed.etag if listed else None]
        of_md5 = etags.composed([md5.hexdigest()])
        is_md5 = self._note(
            "ETag of parts is composed of MD5s",
            part_etag == md5.hexdigest() and seen is not None and seen.etag == of_md5,
        )
        is_checksum = self._note(
            "HEAD gives the SHA-256 of parts",
            checked and seen is not None and seen.checksum == composed([hashlib.sha256(data).digest()]),
        )
        checksum = is_checksum and wrong_checksum
        other_etag = self._second_multipart(with_checksums)
        of_part = etags.composed([part_etag])
        follows = self._note(
            "ETag of parts follows them",
            of_part is not None and shown == [of_part] * 3 and len({first_etag, part_etag, other_etag}) == 3,
        )
        # As parts are sent then: with a checksum beside them, and in the answer, where the store keeps it.
        is_as_sent = (checksum and part.get("ChecksumSHA256") == _sha256(data)) if checked else True
        return _OfParts(
            etag_is_md5=is_md5 and wrong_md5 and wrong_etag,
            checksum=checksum,
            etag_follows=follows and altered and is_as_sent,
        )

    def _upload_altered(self, upload_id: str, checked: bool) -> object:
        """As `_put_altered`, as a part."""
        with self._altering("UploadPart") as signed:
            return self._upload(upload_id, signed, checked)

    def _second_multipart(self, with_checksums: bool) -> str | None:
        """The ETag of a part of another upload."""
        data = self._data("other")
        upload_id, checked = self._begin_upload(with_checksums)
        with self._bucket.translated("UploadPart"):
            etag = etag_of(self._upload(upload_id, data, checked))
        complete = partial(self._complete, upload_id, etag or "", data, checked)
        if self._refused("second conditional multipart", complete, _EXISTS):
            with self._bucket.translated("AbortMultipartUpload"):
                self._client.abort_multipart_upload(**self._bucket.address(self._scratch + "parts"), UploadId=upload_id)
        return etag

    def _begin_upload(self, with_checksums: bool) -> tuple[str, bool]:
        """The upload, and whether it was begun with checksums: a store may have them of whole objects alone."""
        key = self._scratch + "parts"
        arguments = {**self._bucket.address(key), **self._bucket.creation(key)}
        response: Any = None
        if with_checksums:
            with suppress(Permanent), self._bucket.translated("CreateMultipartUpload"):
                response = self._client.create_multipart_upload(**arguments, ChecksumAlgorithm="SHA256")
        checked = response is not None
        if response is None:
            with self._bucket.translated("CreateMultipartUpload"):
                response = self._client.create_multipart_upload(**arguments)
        self._bucket.check_encryption(response)
        return response["UploadId"], checked

    def _upload(self, upload_id: str, data: bytes, checked: bool, **arguments: Any) -> Any:
        if checked:
            arguments["ChecksumSHA256"] = _sha256(data)
        return self._client.upload_part(
            **self._bucket.address(self._scratch + "parts"),
            UploadId=upload_id,
            PartNumber=1,
            Body=data,
            **arguments,
        )

    def _complete(self, upload_id: str, etag: str, data: bytes, checked: bool) -> Any:
        part: Any = {"PartNumber": 1, "ETag": f'"{etag}"'}
        if checked:
            part["ChecksumSHA256"] = _sha256(data)
        return self._client.complete_multipart_upload(
            **self._bucket.address(self._scratch + "parts"),
            UploadId=upload_id,
            MultipartUpload={"Parts": [part]},
            IfNoneMatch="*",
        )

    def _data(self, name: str) -> bytes:
        """Differs from probe to probe, so that no store can know it beforehand."""
        return f"dicomwatchd probe {self._scratch} {name}\n".encode("ascii")


def _plain(storage_class: str) -> str:
    """The store's own word, if it is one."""
    return storage_class if re.match(r"[A-Z_]{1,40}\Z", storage_class) else "another one"


def _sha256(data: bytes) -> str:
    """As S3 writes it."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode("ascii")
