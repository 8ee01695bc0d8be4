"""Storage classes: what is archived is there, and cannot be read until it was restored."""

from __future__ import annotations

from typing import Final

from tests.servers.amazon.memory import Memory
from tests.servers.amazon.message import Answer, Request, element, listed_key, refused, with_each, with_text
from tests.servers.amazon.rules import Rule

COLD: Final = ("GLACIER", "DEEP_ARCHIVE")
_CLASSES: Final = (*COLD, "STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR")
_HEADER = "x-amz-storage-class"
_TIERS: Final = ("Bulk", "Standard", "Expedited")


class StorageClasses(Rule):
    """An object of GLACIER or DEEP_ARCHIVE is shown by HEAD and in listings, and cannot be read (403
    InvalidObjectState) until a restore has ended, which takes hours. HEAD tells with x-amz-restore how far that is.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_RestoreObject.html
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html (x-amz-restore, x-amz-storage-class)
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects.html

    A request with a faster tier overrides a restore that is under way (202), and both are charged for.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects.html#restoring-objects-upgrade-tier
    """

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.overridden = 0  # so many restores, which were under way, by faster ones

    def transition(self, bucket: str, prefix: str, storage_class: str) -> int:
        """As a lifecycle rule does; how many versions it has met."""
        found = self.memory.below(bucket, prefix)
        for facts in found:
            facts.storage_class, facts.restore = storage_class, None
        return len(found)

    def finish_restores(self, bucket: str) -> None:
        for facts in self.memory.below(bucket, ""):
            if facts.restore is not None:
                facts.restore = 'ongoing-request="false", expiry-date="Fri, 01 Jan 2038 00:00:00 GMT"'

    def before(self, request: Request) -> Answer | None:
        if request.operation in ("PutObject", "CopyObject", "CreateMultipartUpload"):
            asked = request.headers.get(_HEADER, "STANDARD")
            if asked not in _CLASSES:
                return refused(request, 400, "InvalidStorageClass", "The storage class you specified is not valid")
            return None
        if request.operation not in ("GetObject", "RestoreObject"):
            return None
        facts = self.memory.find(request.bucket, request.key, request.query.get("versionId"))
        if facts is None:
            return None
        cold = facts.storage_class in COLD
        if request.operation == "RestoreObject":
            if not cold:
                message = "Restore is not allowed for the object's current storage class"
                return refused(request, 403, "InvalidObjectState", message, StorageClass=facts.storage_class)
            tier = element(request.body, "Tier") or "Standard"
            if facts.restore is not None and 'ongoing-request="true"' in facts.restore:
                if _TIERS.index(tier) > _TIERS.index(facts.restore_tier):
                    facts.restore_tier = tier
                    self.overridden += 1
                    return Answer(202, {"content-length": "0"})
                return refused(request, 409, "RestoreAlreadyInProgress", "Object restore is already in progress")
            again = facts.restore is not None
            facts.restore_tier = tier
            facts.restore = 'ongoing-request="true"' if not again else facts.restore
            # 200: it was restored already, and stays for longer.
            return Answer(200 if again else 202, {"content-length": "0"})
        if cold and 'ongoing-request="false"' not in (facts.restore or ""):
            message = "The operation is not valid for the object's storage class"
            return refused(request, 403, "InvalidObjectState", message, StorageClass=facts.storage_class)
        return None

    def after(self, request: Request, answer: Answer) -> Answer:
        facts = request.facts
        if not answer.succeeded:
            return answer
        if request.operation in ("PutObject", "CopyObject", "CreateMultipartUpload") and facts is not None:
            facts.storage_class = request.headers.get(_HEADER, "STANDARD")
        if request.operation in ("HeadObject", "GetObject", "PutObject") and facts is not None:
            if facts.storage_class != "STANDARD":
                answer = answer.having({_HEADER: facts.storage_class})
            if facts.restore is not None and request.operation != "PutObject":
                answer = answer.having({"x-amz-restore": facts.restore})
        if request.operation in ("ListObjectsV2", "ListObjectVersions"):
            return answer.saying(
                with_each(answer.body, "(?:Contents|Version)", lambda block: self._listed(request, block, answer.body))
            )
        return answer

    def _listed(self, request: Request, block: bytes, body: bytes) -> bytes:
        version = element(block, "VersionId")
        facts = self.memory.find(request.bucket, listed_key(block, body), None if version == "null" else version)
        return with_text(block, "StorageClass", facts.storage_class) if facts is not None else block
