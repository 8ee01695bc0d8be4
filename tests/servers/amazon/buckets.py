"""Regions, conditional writes and Object Lock."""

from __future__ import annotations

from collections.abc import Callable

from tests.servers.amazon.checksums import has_checksum
from tests.servers.amazon.memory import Bucket, Memory
from tests.servers.amazon.message import Answer, Request, element, refused
from tests.servers.amazon.places import REGIONS
from tests.servers.amazon.rules import Rule
from tests.servers.amazon.signature import scope_of


class Regions(Rule):
    """A request is for the region of the endpoint that it comes to: signed for another one it is refused (400
    AuthorizationHeaderMalformed, which names the right one); about a bucket of another one it is sent there (301
    PermanentRedirect, with x-amz-bucket-region).
    https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/Redirects.html
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadBucket.html

    A bucket is made in the endpoint's region, which the request must name (IllegalLocationConstraintException), but for
    us-east-1, which may not be named and from which each region can be reached.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html
    What both say: https://github.com/jsoma/flatware/issues/10, https://github.com/velero-io/velero/issues/284
    """

    def before(self, request: Request) -> Answer | None:
        scope = scope_of(request)
        if scope is not None and scope[1] != request.region:
            message = (
                f"The authorization header is malformed; the region '{scope[1]}' is wrong; expecting '{request.region}'"
            )
            return refused(request, 400, "AuthorizationHeaderMalformed", message, Region=request.region)
        if request.operation == "CreateBucket":
            return self._of_new(request)
        bucket = self.memory.buckets.get(request.bucket)
        if bucket is not None and bucket.region != request.region:
            message = (
                "The bucket you are attempting to access must be addressed using the specified endpoint. Please send "
                "all future requests to this endpoint."
            )
            endpoint = f"{request.bucket}.s3.{bucket.region}.amazonaws.com"
            answer = refused(request, 301, "PermanentRedirect", message, Endpoint=endpoint, Bucket=request.bucket)
            return answer.having({"x-amz-bucket-region": bucket.region})
        if request.operation == "GetBucketLocation" and bucket is not None:
            said = "" if bucket.region == REGIONS[0] else bucket.region
            body = f'<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{said}</LocationConstraint>'
            return Answer(200, {"content-type": "application/xml"}).saying(body.encode())
        return None

    def _of_new(self, request: Request) -> Answer | None:
        named = element(request.body, "LocationConstraint")
        if request.region != REGIONS[0] and named != request.region:
            message = (
                f"The {named or 'unspecified'} location constraint is incompatible for the region specific endpoint "
                "this request was sent to."
            )
            return refused(request, 400, "IllegalLocationConstraintException", message)
        if named == REGIONS[0]:
            message = "The specified location-constraint is not valid"
            return refused(request, 400, "InvalidLocationConstraint", message)
        made = self.memory.buckets.get(request.bucket)
        if made is not None and made.region != request.region:
            message = "Your previous request to create the named bucket succeeded and you already own it."
            return refused(request, 409, "BucketAlreadyOwnedByYou", message)
        request.notes["region"] = named or request.region
        return None

    def after(self, request: Request, answer: Answer) -> Answer:
        if request.operation == "CreateBucket" and answer.succeeded:
            with self.memory.lock:
                self.memory.buckets.setdefault(request.bucket, Bucket(request.notes["region"]))
        if request.operation == "HeadBucket" and request.bucket in self.memory.buckets:
            return answer.having({"x-amz-bucket-region": self.memory.buckets[request.bucket].region})
        return answer


class DeleteMarkers(Rule):
    """What is under a delete marker is not there, and the answer says why: 404 with x-amz-delete-marker.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html (Versioning)
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeleteMarker.html
    """

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self._markers: dict[tuple[str, str], list[str]] = {}

    def after(self, request: Request, answer: Answer) -> Answer:
        place, version = (request.bucket, request.key), answer.headers.get("x-amz-version-id", "")
        with self.memory.lock:
            if request.operation == "DeleteObject" and answer.headers.get("x-amz-delete-marker") == "true":
                asked = request.query.get("versionId")
                markers = self._markers.setdefault(place, [])
                if asked is None:
                    markers.append(version)
                elif asked in markers:
                    markers.remove(asked)
            reads = request.operation in ("HeadObject", "GetObject") and "versionId" not in request.query
            if reads and answer.status == 404 and self._markers.get(place):
                return answer.having({"x-amz-delete-marker": "true", "x-amz-version-id": self._markers[place][-1]})
        return answer


class ConditionalWrites(Rule):
    """If-None-Match: * creates and does not overwrite, in a bucket with versions too, and at the completion of an
    upload too (412 PreconditionFailed; what is under a delete marker is not there); with another write of the key at
    the same time it is 409 ConditionalRequestConflict.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
    """

    def __init__(self, memory: Memory, is_there: Callable[[Request], bool]) -> None:
        super().__init__(memory)
        self._is_there = is_there
        self._under_way: dict[tuple[str, str], int] = {}
        self.conflicts = 0  # so many of the next conditional writes meet another one

    def before(self, request: Request) -> Answer | None:
        if request.operation not in ("PutObject", "CompleteMultipartUpload"):
            return None
        with self.memory.lock:
            place = (request.bucket, request.key)
            others = self._under_way.get(place, 0)
            self._under_way[place] = others + 1
            conditional = request.forwarded.pop("if-none-match", None) == "*"
            forced = conditional and self.conflicts > 0
            self.conflicts -= forced
        if conditional and (others or forced):
            message = "A conflicting conditional operation is in progress against this resource. Please try again."
            return refused(request, 409, "ConditionalRequestConflict", message)
        if conditional and self._is_there(request):
            message = "At least one of the pre-conditions you specified did not hold"
            return refused(request, 412, "PreconditionFailed", message, Condition="If-None-Match")
        return None

    def ended(self, request: Request) -> None:
        place = (request.bucket, request.key)
        with self.memory.lock:
            if request.operation in ("PutObject", "CompleteMultipartUpload") and place in self._under_way:
                self._under_way[place] -= 1


class ObjectLock(Rule):
    """Where a bucket's default retention locks each new object, an object and a part come with a Content-MD5 or a
    checksum: 400 InvalidRequest otherwise.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock-managing.html
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html (Content-MD5)
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPart.html (Content-MD5)
    """

    def before(self, request: Request) -> Answer | None:
        bucket = self.memory.buckets.get(request.bucket)
        if bucket is None or not bucket.locks_by_default or request.operation not in ("PutObject", "UploadPart"):
            return None
        if has_checksum(request):
            return None
        what = "Object" if request.operation == "PutObject" else "Part"
        header = "Content-MD5 OR x-amz-checksum- HTTP header"
        message = f"{header} is required for Put {what} requests with Object Lock parameters"
        return refused(request, 400, "InvalidRequest", message)

    def after(self, request: Request, answer: Answer) -> Answer:
        if request.operation == "PutObjectLockConfiguration" and answer.succeeded:
            with self.memory.lock:
                self.memory.buckets[request.bucket].locks_by_default = b"<DefaultRetention>" in request.body
        return answer
