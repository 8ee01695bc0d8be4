"""What goes wrong at Amazon on a good day: throttling, tokens that run out, signatures that do not fit."""

from __future__ import annotations

from tests.servers.amazon.memory import Memory
from tests.servers.amazon.message import Answer, Request, refused, refused_by_dynamodb
from tests.servers.amazon.rules import Rule
from tests.servers.amazon.signature import fits, scope_of


class Signatures(Rule):
    """Who asks is known by the signature: 403 InvalidAccessKeyId, 403 SignatureDoesNotMatch; a token that has run out
    is 400 ExpiredToken.
    https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    DynamoDB says 400 UnrecognizedClientException and ExpiredTokenException.
    https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/CommonErrors.html
    """

    def __init__(self, memory: Memory, access_key: str, secret_key: str) -> None:
        super().__init__(memory)
        self._access_key = access_key
        self._secret_key = secret_key
        self.expired: set[str] = set()  # session tokens

    def before(self, request: Request) -> Answer | None:
        s3 = request.service == "s3"
        scope = scope_of(request)
        if scope is None:
            return refused(request, 403, "AccessDenied", "Access Denied")
        if scope[0] != self._access_key:
            if s3:
                message = "The AWS Access Key Id you provided does not exist in our records."
                return refused(request, 403, "InvalidAccessKeyId", message)
            return _by_coral("UnrecognizedClientException", "The security token included in the request is invalid.")
        if request.headers.get("x-amz-security-token") in self.expired:
            if s3:
                return refused(request, 400, "ExpiredToken", "The provided token has expired.")
            return _by_coral("ExpiredTokenException", "The security token included in the request is expired")
        if not fits(request, self._secret_key):
            message = "The request signature we calculated does not match the signature you provided."
            if s3:
                return refused(request, 403, "SignatureDoesNotMatch", message)
            return _by_coral("InvalidSignatureException", message)
        return None


def _by_coral(code: str, message: str) -> Answer:
    return refused_by_dynamodb(400, code, message, "com.amazon.coral.service")


class SlowDown(Rule):
    """Too many requests for a prefix: 503 SlowDown.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html"""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.left = 0  # so many of the next requests to S3

    def before(self, request: Request) -> Answer | None:
        with self.memory.lock:
            if request.service != "s3" or self.left <= 0:
                return None
            self.left -= 1
        return refused(request, 503, "SlowDown", "Please reduce your request rate.")


class Throughput(Rule):
    """A table that is asked for more than it was provisioned for: 400 ProvisionedThroughputExceededException.
    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html"""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.left = 0  # so many of the next requests to DynamoDB

    def before(self, request: Request) -> Answer | None:
        with self.memory.lock:
            if request.service != "dynamodb" or self.left <= 0:
                return None
            self.left -= 1
        message = "The level of configured provisioned throughput for the table was exceeded."
        return refused_by_dynamodb(400, "ProvisionedThroughputExceededException", message)
