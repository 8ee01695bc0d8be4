"""Server-side encryption: asked for, echoed, and what it makes of ETags and of the right to read."""

from __future__ import annotations

import re
import secrets
from typing import Final

from tests.servers.amazon.memory import Bucket, Facts, Memory
from tests.servers.amazon.message import Answer, Request, element, listed_key, refused, with_each, with_text
from tests.servers.amazon.rules import Rule

ACCOUNT: Final = "111122223333"
_SSE = "x-amz-server-side-encryption"
_KEY = f"{_SSE}-aws-kms-key-id"
_BUCKET_KEY = f"{_SSE}-bucket-key-enabled"
_NO_DEFAULT = (
    b'<ServerSideEncryptionConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule>'
    b"<ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault>"
    b"<BucketKeyEnabled>false</BucketKeyEnabled></Rule></ServerSideEncryptionConfiguration>"
)


class Keys:
    """The account's KMS keys: named by id, ARN or alias. ``without_use`` are ARNs of those that may not decrypt,
    ``disabled`` of those that nobody can use."""

    def __init__(self, region: str) -> None:
        self.region = region
        self._arns: dict[str, str] = {}
        self.without_use: set[str] = set()
        self.disabled: set[str] = set()

    def create(self, alias: str) -> str:
        """The ARN of a new key with that alias ("alias/...")."""
        key_id = f"{secrets.token_hex(4)}-{secrets.token_hex(2)}-4{secrets.token_hex(1)}a-8{secrets.token_hex(1)}b-"
        key_id += secrets.token_hex(6)
        origin = f"arn:aws:kms:{self.region}:{ACCOUNT}"
        arn = f"{origin}:key/{key_id}"
        self._arns |= dict.fromkeys((key_id, arn, alias, f"{origin}:{alias}"), arn)
        return arn

    def arn(self, name: str) -> str | None:
        return self._arns.get(name)


class Encryption(Rule):
    """Each object is encrypted: as the request says, or as the bucket's default does, which is AES256 where nobody has
    set one. The answers say how, a key by its ARN whatever it was called in the request.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/default-encryption-faq.html
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/specifying-kms-encryption.html
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html

    A key that is not there: 400 KMS.NotFoundException; one that is disabled: 400 KMS.DisabledException.
    https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html

    Bucket Keys: used where the request or the bucket's default says so, and then named in the answers.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/configuring-bucket-key-object.html
    """

    def __init__(self, memory: Memory, keys: Keys) -> None:
        super().__init__(memory)
        self._keys = keys

    def before(self, request: Request) -> Answer | None:
        if request.operation == "GetBucketEncryption" and request.bucket in self.memory.buckets:
            kept = self.memory.buckets[request.bucket].encryption or _NO_DEFAULT
            return Answer(200, {"content-type": "application/xml"}).saying(kept)
        if request.operation == "PutBucketEncryption" and request.bucket in self.memory.buckets:
            return self._set_default(request, self.memory.buckets[request.bucket])
        if request.operation in ("PutObject", "CopyObject", "CreateMultipartUpload"):
            return self._ask(request)
        return None

    def _set_default(self, request: Request, bucket: Bucket) -> Answer:
        bucket.encryption = request.body
        bucket.default_mode = element(request.body, "SSEAlgorithm") or "AES256"
        bucket.default_key = element(request.body, "KMSMasterKeyID")
        bucket.default_bucket_key = element(request.body, "BucketKeyEnabled") == "true"
        return Answer(200, {"content-length": "0"})

    def _ask(self, request: Request) -> Answer | None:
        bucket = self.memory.buckets.get(request.bucket, Bucket(""))
        mode = request.headers.get(_SSE, bucket.default_mode)
        facts = request.facts = Facts(encryption=mode)
        if mode not in ("AES256", "aws:kms"):
            return refused(request, 400, "InvalidArgument", "The encryption method specified is not supported")
        if mode == "aws:kms":
            # The account's own key for S3 where none is named.
            named = request.headers.get(_KEY) or (bucket.default_key if _SSE not in request.headers else None)
            facts.kms_key = self._keys.arn(named or "alias/aws/s3")
            said = request.headers.get(_BUCKET_KEY)
            facts.bucket_key = said == "true" if said is not None else bucket.default_bucket_key
            if facts.kms_key is None:
                return refused(request, 400, "KMS.NotFoundException", f"Key '{named}' does not exist")
            if facts.kms_key in self._keys.disabled:
                return refused(request, 400, "KMS.DisabledException", f"{facts.kms_key} is disabled.")
        return None

    def after(self, request: Request, answer: Answer) -> Answer:
        told = ("PutObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")
        if request.facts is None or not answer.succeeded or request.operation not in (*told, "HeadObject", "GetObject"):
            return answer
        facts, headers = request.facts, {_SSE: request.facts.encryption}
        if facts.kms_key is not None:
            headers[_KEY] = facts.kms_key
        if facts.bucket_key:
            headers[_BUCKET_KEY] = "true"
        return answer.having(headers)


class EtagsUnderKms(Rule):
    """The ETag of an object, or a part, that is encrypted with a KMS key is no MD5.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html"""

    def after(self, request: Request, answer: Answer) -> Answer:
        facts = request.facts
        if not answer.succeeded:
            return answer
        if request.operation in ("PutObject", "CopyObject", "CompleteMultipartUpload") and facts is not None:
            if facts.encryption == "aws:kms":
                kept = (element(answer.body, "ETag") or answer.headers.get("etag", "")).strip('"')
                facts.etag = secrets.token_hex(16) + "".join(re.findall(r"-\d+\Z", kept))
            return self._renamed(request, answer, facts)
        if request.operation == "UploadPart":
            part = self.memory.uploads[request.query["uploadId"]].parts[int(request.query["partNumber"])]
            if facts is not None and facts.encryption == "aws:kms":
                part.etag = secrets.token_hex(16)
            return answer.having({"etag": f'"{part.etag}"'})
        if request.operation in ("HeadObject", "GetObject") and facts is not None:
            return self._renamed(request, answer, facts)
        if request.operation in ("ListObjectsV2", "ListObjectVersions"):
            return answer.saying(
                with_each(answer.body, "(?:Contents|Version)", lambda block: self._listed(request, block, answer.body))
            )
        if request.operation == "ListParts":
            return answer.saying(with_each(answer.body, "Part", lambda block: self._listed_part(request, block)))
        return answer

    def _renamed(self, request: Request, answer: Answer, facts: Facts) -> Answer:
        if request.operation in ("CopyObject", "CompleteMultipartUpload"):
            etag = facts.etag or (element(answer.body, "ETag") or "").strip('"')
            return answer.saying(with_text(answer.body, "ETag", f'"{etag}"'))
        return answer.having({"etag": f'"{facts.etag}"'}) if facts.etag is not None else answer

    def _listed(self, request: Request, block: bytes, body: bytes) -> bytes:
        version = element(block, "VersionId")
        facts = self.memory.find(request.bucket, listed_key(block, body), None if version == "null" else version)
        return with_text(block, "ETag", f'"{facts.etag}"') if facts is not None and facts.etag else block

    def _listed_part(self, request: Request, block: bytes) -> bytes:
        upload = self.memory.uploads.get(request.query["uploadId"])
        part = upload.parts.get(int(element(block, "PartNumber") or 0)) if upload is not None else None
        return with_text(block, "ETag", f'"{part.etag}"') if part is not None else block


class RightToDecrypt(Rule):
    """What was encrypted with a key that one may not use cannot be read: 403 AccessDenied on GET, and on HEAD where the
    checksum is asked for; a plain HEAD shows it.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/troubleshoot-403-errors.html
    """

    def __init__(self, memory: Memory, keys: Keys) -> None:
        super().__init__(memory)
        self._keys = keys

    def before(self, request: Request) -> Answer | None:
        reads = request.operation == "GetObject" or (
            request.operation == "HeadObject" and request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"
        )
        facts = self.memory.find(request.bucket, request.key, request.query.get("versionId")) if reads else None
        if facts is not None and facts.kms_key in self._keys.disabled:
            return refused(request, 400, "KMS.DisabledException", f"{facts.kms_key} is disabled.")
        if facts is not None and facts.kms_key in self._keys.without_use:
            message = "User is not authorized to perform: kms:Decrypt on this resource"
            return refused(request, 403, "AccessDenied", message)
        return None
