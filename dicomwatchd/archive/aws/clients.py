"""AWS clients and their errors: how a client for S3 or DynamoDB is built, and what its failures mean to us."""

from __future__ import annotations

import http.client
import os
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload
from urllib.parse import urlsplit

import botocore.exceptions as aws
import botocore.session
import urllib3.exceptions
from botocore.config import Config
from botocore.parsers import ResponseParserError
from botocore.utils import get_environ_proxies

from dicomwatchd import __version__
from dicomwatchd.archive.aws import limits as aws_limits
from dicomwatchd.archive.aws import responses as aws_responses
from dicomwatchd.archive.aws.credentials import Chain
from dicomwatchd.errors import (
    ColdObject,
    Conflict,
    CredentialsRefused,
    DicomwatchdError,
    EncryptionKeyUnusable,
    InvalidRequest,
    Misconfigured,
    NoSuchObject,
    NotSupported,
    NotThere,
    OutOfReach,
    RequestRefused,
    Throttled,
    Transient,
)
from dicomwatchd.unit import addresses

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

#: Everything that a client call, or reading a response's body, is known to raise.
FOREIGN = (
    aws.ClientError,
    aws.BotoCoreError,
    ResponseParserError,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,  # ssl.SSLError, socket errors and socket.gaierror are among them
)

#: s3.eu-central-1.amazonaws.com, bucket.vpce-1a2b3c4d-5e6f.s3.eu-central-1.vpce.amazonaws.com, s3.amazonaws.com
_AMAZON = re.compile(r"\.(?:(?P<region>[a-z]{2,}(?:-[a-z]+)+-[0-9]+)\.(?:vpce\.)?)?amazonaws\.com(?:\.cn)?\Z")
_DEFAULT_REGION = "us-east-1"  # what S3-compatible stores expect in a signature when nothing is said

#: What concerns the service as a whole and heals, perhaps with an operator's help: (kind, codes, hint).
_SERVICE_WIDE = tuple(
    (kind, re.compile(rf"(?:{codes})\Z"), hint)
    for kind, codes, hint in (
        (
            "throttled",
            "SlowDown|(?:Request)?Throttl(?:ed|ing)(?:Exception)?|RequestLimitExceeded|LimitExceededException"
            "|ProvisionedThroughputExceeded(?:Exception)?|TooManyRequests(?:Exception)?|BandwidthLimitExceeded"
            "|ServerBusy|429",
            "the service asks for fewer requests (throttling)",
        ),
        (
            "clock-skew",
            "RequestTimeTooSkewed|RequestExpired|RequestInTheFuture",
            "this machine's clock differs from the service's: check its time synchronisation",
        ),
        (
            "store-full",
            "QuotaExceeded|InsufficientCapacity|XMinioStorageFull|507",
            "the service is full or the quota is exhausted",
        ),
        (
            "region",
            "PermanentRedirect|TemporaryRedirect|AuthorizationHeaderMalformed|InvalidRegion|301|307"
            "|IllegalLocationConstraintException",
            "the service is in another region: check region in the configuration",
        ),
        ("timeout", "RequestTimeout(?:Exception)?|408", "the service did not receive the request in time"),
        (
            "encryption-key",
            "KMS.*|.*\\.KMS.*|KeyUnavailable.*",
            "the encryption key cannot be used: check key_id and the permissions on it",
        ),
        (
            "credentials",
            "ExpiredToken(?:Exception)?|TokenRefreshRequired|InvalidToken|InvalidAccessKeyId|InvalidClientTokenId"
            "|UnrecognizedClientException|SignatureDoesNotMatch|InvalidSignatureException|IncompleteSignature"
            "|AccessDenied(?:Exception)?|AccountProblem|AllAccessDisabled|AuthFailure|NotAuthorized|UserSuspended"
            "|MissingAuthenticationToken(?:Exception)?|MissingSecurityHeader|401|403",
            "refused: the credentials have expired, were changed or lack permissions",
        ),
    )
)
#: Those of these kinds that have a class of their own.
_BRANCHED_ON = {kind.code: kind for kind in (Throttled, EncryptionKeyUnusable, CredentialsRefused)}
_GONE = re.compile(r"(?:NoSuchBucket|ResourceNotFoundException|TableNotFoundException)\Z")
_CONFLICT = re.compile(
    r"(?:OperationAborted|ConditionalRequestConflict|TransactionConflictException|TransactionInProgressException"
    r"|ResourceInUseException|NoSuchUpload|InvalidPart|409|PreconditionFailed|412)\Z"
)
_DAMAGED = re.compile(r"(?:BadDigest|XAmzContentSHA256Mismatch|XAmzContentChecksumMismatch|IncompleteBody)\Z")
_CODE = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")

_LOCAL_CREDENTIALS = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.CredentialRetrievalError,
    aws.MetadataRetrievalError,
    aws.TokenRetrievalError,
    aws.NoAuthTokenError,
    aws.SSOError,
    aws.LoginError,
    aws.ProfileNotFound,
    aws.ConfigNotFound,
    aws.ConfigParseError,
    aws.UnknownCredentialError,
    aws.RefreshWithMFAUnsupportedError,
)
_CONNECTION = (
    aws.HTTPClientError,
    aws.ConnectionError,
    aws.IncompleteReadError,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
)


def new_session() -> botocore.session.Session:
    """With the standard chain of credentials, as we look them up (see `Chain`)."""
    session = botocore.session.Session()
    session.register_component("credential_provider", Chain(session))
    session.register_component("response_parser_factory", aws_responses.Parsers())
    return session


@overload
def build_client(
    service: Literal["s3"],
    *,
    region: str | None,
    endpoint_url: str | None,
    ca_file: Path | None,
    max_connections: int,
    connect_timeout_seconds: float = ...,
    read_timeout_seconds: float = ...,
    attempts: int = ...,
    s3: Any = ...,
    session: botocore.session.Session | None = ...,
) -> S3Client: ...


@overload
def build_client(
    service: Literal["dynamodb"],
    *,
    region: str | None,
    endpoint_url: str | None,
    ca_file: Path | None,
    max_connections: int,
    connect_timeout_seconds: float = ...,
    read_timeout_seconds: float = ...,
    attempts: int = ...,
    session: botocore.session.Session | None = ...,
) -> DynamoDBClient: ...


def build_client(
    service: str,
    *,
    region: str | None,
    endpoint_url: str | None,
    ca_file: Path | None,
    max_connections: int,
    connect_timeout_seconds: float = 5,
    read_timeout_seconds: float = 60,
    attempts: int = 3,
    s3: Any = None,
    session: botocore.session.Session | None = None,
) -> Any:
    """A client out of a botocore session of its own (sessions are not thread-safe, clients are), or of one that the
    caller has made and uses no further than to look something up in it.

    Credentials come from the standard AWS chain. The endpoint is the one given here or Amazon's own, never one
    out of the environment: what the configuration refused (plain http) must not come back through a variable.
    ``attempts`` is the total for one request; waiting longer than that is the queue's business.
    ``s3`` is a dict of botocore's S3 settings (addressing_style, payload_signing_enabled).
    Raises Misconfigured for a region or a CA file that is missing, Transient as `translate` does.
    """
    where = endpoint_name(service, region, endpoint_url)
    # Not Path.is_file(), which raises where a folder above may not be entered.
    if ca_file is not None and not os.path.isfile(ca_file):  # noqa: PTH113
        raise Misconfigured("ca_file does not exist or is not a file", path=str(ca_file))
    with translated("build the client", where):
        session = session or new_session()
        if region is None and endpoint_url is not None:
            region = session.get_config_variable("region") or _region_of(endpoint_url) or _DEFAULT_REGION
        client = session.create_client(
            service,
            region_name=region,
            endpoint_url=endpoint_url,
            verify=str(ca_file) if ca_file is not None else None,
            config=Config(  # type: ignore[call-arg]  # the stubs do not know ignore_configured_endpoint_urls
                connect_timeout=connect_timeout_seconds,
                read_timeout=read_timeout_seconds,
                retries={"mode": "standard", "total_max_attempts": attempts},
                max_pool_connections=max_connections,
                tcp_keepalive=True,
                user_agent_extra=f"dicomwatchd/{__version__}",
                ignore_configured_endpoint_urls=True,
                # The defaults send a CRC trailer in aws-chunked encoding, which older stores do not take and RGW
                # leaves on the object as its content encoding. We send checksums of our own.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3=s3,
            ),
        )
        aws_responses.watch(client)
        aws_limits.limit(client)
        return client


def is_amazon(endpoint_url: str | None) -> bool:
    """Whether this is Amazon itself: without a URL of one's own, or by one of Amazon's names, among them those of
    interface endpoints (AWS PrivateLink)."""
    return endpoint_url is None or _AMAZON.search(urlsplit(endpoint_url).hostname or "") is not None


def _region_of(endpoint_url: str) -> str | None:
    """The region that is part of a name of Amazon's."""
    found = _AMAZON.search(urlsplit(endpoint_url).hostname or "")
    return found["region"] if found else None


def location(region: str, endpoint_url: str | None) -> str:
    """Where the data are: "aws:<region>" for Amazon, by whichever of its names it is reached (the usual one, that of an
    interface endpoint, a dual-stack or FIPS one), or the URL of another service."""
    if endpoint_url is not None and not is_amazon(endpoint_url):
        return endpoint_url.rstrip("/")
    return f"aws:{(_region_of(endpoint_url) if endpoint_url else None) or region}"


def endpoint_name(service: str, region: str | None, endpoint_url: str | None) -> str:
    """What the ``endpoint`` of our errors says: the service and where it is."""
    place = endpoint_url.rstrip("/") if endpoint_url else f"aws:{region or 'default'}"
    return f"{service} at {place}"


@contextmanager
def translated(operation: str, endpoint: str) -> Iterator[None]:
    """Whatever the AWS client raises inside leaves as one of our errors. Local files are not to be touched inside:
    an OSError here counts as the network's."""
    try:
        yield
    except FOREIGN as error:
        raise translate(error, operation=operation, endpoint=endpoint) from error


def error_code(error: BaseException) -> str:
    """The service's error code, such as "NoSuchKey", or the HTTP status where there is none (HEAD); "" if no
    service answered."""
    if not isinstance(error, aws.ClientError):
        return ""
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code and code != "Unknown":
        return code if _CODE.match(code) else "unreadable-code"
    return str(http_status(error) or "unknown")


def http_status(error: BaseException) -> int:
    """The HTTP status of the answer, 0 if there was none. A 200 can carry an error (CompleteMultipartUpload)."""
    if not isinstance(error, aws.ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)


def translate(error: BaseException, *, operation: str, endpoint: str) -> DicomwatchdError:
    """What a foreign error means to us. Nothing that would heal by itself becomes Permanent.

    What concerns the whole service (down, throttling, credentials, clock, region, bucket or table gone) has
    ``endpoint`` set; what concerns one request only has not. The message holds operation and error code only.
    """
    if isinstance(error, aws.ClientError):
        return _from_service(error, operation, endpoint)
    name = type(error).__name__
    what = f"{operation} failed: {name}"
    if _is_certificate_problem(error):
        hint = "the server's certificate is not trusted: check ca_file in the configuration"
        return OutOfReach(what, hint=hint, endpoint=endpoint)
    if isinstance(error, _LOCAL_CREDENTIALS):
        hint = "no usable credentials in the AWS chain (environment, profile, instance role)"
        return CredentialsRefused(what, hint=hint, endpoint=endpoint)
    if isinstance(error, aws.NoRegionError):
        return Misconfigured("no AWS region is known", hint="set region in the configuration")
    if isinstance(error, aws.FlexibleChecksumError | aws.ChecksumError):
        return Transient(what, code="damaged-on-the-way")
    if isinstance(error, aws.ParamValidationError):
        return InvalidRequest(what)
    if isinstance(error, aws.InvalidConfigError | aws.InvalidRegionError | ValueError):
        return Misconfigured(what, hint="check the AWS settings in the environment and profile")
    if isinstance(error, _CONNECTION):
        hint = "no connection, or it was lost: check endpoint_url, the network and the service"
        if _is_dropped(endpoint):
            hint = addresses.MOVED
        return OutOfReach(what, hint=hint, endpoint=endpoint)
    # An answer that is no AWS answer (a captive portal, a proxy's error page) or a failure inside the client.
    return Transient(what, code="strange-answer", endpoint=endpoint)


def _from_service(error: aws.ClientError, operation: str, endpoint: str) -> DicomwatchdError:
    code, status = error_code(error), http_status(error)
    what = f"{operation} failed: {code}" + (f" ({status})" if code != str(status) else "")

    def trouble(kind: str, hint: str) -> Transient:
        raised = _BRANCHED_ON.get(kind, Transient)
        return raised(what, code=kind, hint=hint, endpoint=endpoint, retry_after_seconds=_retry_after_seconds(error))

    if code == "InvalidObjectState":
        return ColdObject(what, hint="the object is in cold storage: it must be restored first")
    for kind, codes, hint in _SERVICE_WIDE:
        if codes.match(code):
            return trouble(kind, hint)
    if _GONE.match(code):
        hint = "if it has never been created: dicomwatchctl archive init"
        return NotThere(what, hint=hint, endpoint=endpoint)
    if _CONFLICT.match(code):
        return Conflict(what)
    if _DAMAGED.match(code):
        return Transient(what, code="damaged-on-the-way")
    if code in ("NoSuchKey", "NoSuchVersion", "404"):
        return NoSuchObject(what)
    if code == "NotImplemented" or status == 501:
        return NotSupported(what)
    if code == "503" and _is_at_amazon(endpoint):
        # A HEAD has no body to say SlowDown in: of Amazon's two reasons for a 503 both ask for fewer requests.
        # https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
        return trouble("throttled", "the service asks for fewer requests (throttling)")
    return _from_status(status, what, trouble, bodiless=code == str(status))


def _is_at_amazon(endpoint: str) -> bool:
    """Of an `endpoint_name`."""
    place = endpoint.partition(" at ")[2]
    return place.startswith("aws:") or (place.startswith("https://") and is_amazon(place))


def _from_status(
    status: int, what: str, trouble: Callable[[str, str], Transient], *, bodiless: bool
) -> DicomwatchdError:
    """For codes that we do not know: there are many stores, and each has words of its own."""
    if status == 429:
        return trouble("throttled", "the service asks for fewer requests (throttling)")
    if status in (401, 403):
        return trouble("credentials", "refused: check the credentials and their permissions")
    if status in (301, 307):
        return trouble("region", "the service is in another region: check region in the configuration")
    if status >= 500:
        return trouble("server-error", "the service has an internal problem")
    if status == 400 and bodiless:
        # A HEAD has no body to give a reason in: an expired token or an unusable key looks like this.
        return trouble("credentials", "refused without a reason: check the credentials, the clock and the key")
    if status == 200:  # the service found out after it had begun to answer
        return Transient(what, code="server-error")
    if status in (409, 412):
        return Conflict(what)
    return RequestRefused(what)


def _retry_after_seconds(error: aws.ClientError) -> float | None:
    value = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", "")
    return min(float(value), 3600.0) if re.match(r"[0-9]{1,6}\Z", value) else None


def _is_dropped(endpoint: str) -> bool:
    """Whether the service's own address filter drops what goes to this endpoint, or to the proxy before it."""
    _, _, place = endpoint.partition(" at ")
    if not place.startswith(("http://", "https://")):
        return False
    through = get_environ_proxies(place).get(place.partition(":")[0])
    return addresses.drops(through or place)


def _is_certificate_problem(error: BaseException) -> bool:
    """Whether the server was reached and its certificate refused; a handshake that was reset is none."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            break
        if isinstance(seen, ssl.SSLCertVerificationError):
            return True
        inner = getattr(seen, "kwargs", {}).get("error") if isinstance(seen, aws.BotoCoreError) else None
        reason = getattr(seen, "reason", None)
        seen = next(
            (e for e in (inner, reason, seen.__cause__, seen.__context__) if isinstance(e, BaseException)), None
        )
    return False
