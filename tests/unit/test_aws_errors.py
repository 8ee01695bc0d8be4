"""What AWS errors mean to us: nothing that heals parks a study, and no foreign text gets through."""

from __future__ import annotations

import ssl
from typing import Any

import botocore.exceptions as aws
import pytest
import urllib3.exceptions
from botocore.parsers import ResponseParserError

from dicomwatchd.archive.aws.clients import FOREIGN, error_code, translate, translated
from dicomwatchd.errors import DicomwatchdError, Fatal, OutOfReach, Permanent, SourceChanged, Transient

CANARY = "Canary^Name"


def answer(code: str, status: int, headers: dict[str, str] | None = None) -> aws.ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": CANARY},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}},
    }
    return aws.ClientError(response, "PutObject")


def meaning(error: BaseException) -> DicomwatchdError:
    found = translate(error, operation="PutObject", endpoint="s3 at test")
    assert CANARY not in str(found)
    assert found.path is None
    return found


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [
        ("s3 at aws:us-east-1", "throttled"),
        ("s3 at https://bucket.vpce-1a2b3c4d-5e6f.s3.us-east-1.vpce.amazonaws.com", "throttled"),
        ("s3 at https://s3.hospital.example", "server-error"),
        ("s3 at https://amazonaws.com.hospital.example", "server-error"),
    ],
)
def test_a_look_has_no_body_to_say_slow_down_in(endpoint: str, kind: str) -> None:
    found = translate(answer("503", 503), operation="HeadObject", endpoint=endpoint)
    assert found.code == kind
    assert translate(answer("500", 500), operation="HeadObject", endpoint=endpoint).code == "server-error"


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("SlowDown", 503, "throttled"),
        ("ThrottlingException", 400, "throttled"),
        ("ProvisionedThroughputExceededException", 400, "throttled"),
        ("RequestLimitExceeded", 400, "throttled"),
        ("SomethingNew", 429, "throttled"),
        ("ExpiredToken", 400, "credentials"),
        ("ExpiredTokenException", 400, "credentials"),
        ("InvalidAccessKeyId", 403, "credentials"),
        ("UnrecognizedClientException", 400, "credentials"),
        ("SignatureDoesNotMatch", 403, "credentials"),
        ("AccessDenied", 403, "credentials"),
        ("AccessDeniedException", 400, "credentials"),
        ("403", 403, "credentials"),
        ("400", 400, "credentials"),
        ("SomethingNew", 403, "credentials"),
        ("RequestTimeTooSkewed", 403, "clock-skew"),
        ("RequestExpired", 400, "clock-skew"),
        ("QuotaExceeded", 403, "store-full"),
        ("XMinioStorageFull", 507, "store-full"),
        ("PermanentRedirect", 301, "region"),
        ("301", 301, "region"),
        ("AuthorizationHeaderMalformed", 400, "region"),
        ("RequestTimeout", 400, "timeout"),
        ("KMS.DisabledException", 400, "encryption-key"),
        ("KMSInvalidStateException", 400, "encryption-key"),
        ("NoSuchBucket", 404, "not-there"),
        ("ResourceNotFoundException", 400, "not-there"),
        ("InternalError", 500, "server-error"),
        ("InternalServerError", 500, "server-error"),
        ("ServiceUnavailable", 503, "server-error"),
        ("502", 502, "server-error"),
    ],
)
def test_trouble_of_the_whole_service_is_shared_and_waited_out(code: str, status: int, kind: str) -> None:
    found = meaning(answer(code, status))
    assert isinstance(found, Transient)
    assert (found.code, found.endpoint) == (kind, "s3 at test")
    assert found.hint


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("OperationAborted", 409, "conflict"),
        ("ConditionalRequestConflict", 409, "conflict"),
        ("SomethingNew", 409, "conflict"),
        ("NoSuchUpload", 404, "conflict"),
        ("InvalidPart", 400, "conflict"),
        ("TransactionConflictException", 400, "conflict"),
        ("BadDigest", 400, "damaged-on-the-way"),
        ("XAmzContentSHA256Mismatch", 400, "damaged-on-the-way"),
        ("IncompleteBody", 400, "damaged-on-the-way"),
        ("InternalError", 200, "server-error"),
    ],
)
def test_trouble_of_one_request_is_tried_again_by_itself(code: str, status: int, kind: str) -> None:
    found = meaning(answer(code, status))
    assert isinstance(found, Transient)
    assert (found.code, found.endpoint) == (kind, None)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("NoSuchKey", 404, "no-such-object"),
        ("404", 404, "no-such-object"),
        ("InvalidArgument", 400, "refused"),
        ("EntityTooLarge", 400, "refused"),
        ("ValidationException", 400, "refused"),
        ("InvalidObjectState", 403, "cold-storage"),
        ("NotImplemented", 501, "not-supported"),
        (f"{CANARY} <b>", 400, "refused"),
    ],
)
def test_what_would_fail_again_is_permanent(code: str, status: int, kind: str) -> None:
    found = meaning(answer(code, status))
    assert isinstance(found, Permanent)
    assert found.code == kind


@pytest.mark.parametrize(
    "error",
    [
        aws.EndpointConnectionError(endpoint_url=CANARY),
        aws.ConnectTimeoutError(endpoint_url=CANARY),
        aws.ReadTimeoutError(endpoint_url=CANARY),
        aws.ConnectionClosedError(endpoint_url=CANARY),
        aws.SSLError(endpoint_url=CANARY, error=ConnectionResetError()),
        aws.ProxyConnectionError(proxy_url=CANARY),
        aws.ResponseStreamingError(error=CANARY),
        aws.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        urllib3.exceptions.ProtocolError(CANARY),
        ConnectionResetError(104, CANARY),
        TimeoutError(CANARY),
        ssl.SSLError(1, CANARY),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_broken_connection_is_out_of_reach(error: BaseException) -> None:
    assert isinstance(error, FOREIGN)
    found = meaning(error)
    assert isinstance(found, OutOfReach)
    assert found.endpoint == "s3 at test"
    assert "ca_file" not in (found.hint or "")


def test_a_certificate_that_is_not_trusted_says_ca_file() -> None:
    verification = ssl.SSLCertVerificationError(1, CANARY)
    for error in (verification, aws.SSLError(endpoint_url=CANARY, error=verification)):
        found = meaning(error)
        assert isinstance(found, OutOfReach)
        assert found.hint is not None and "ca_file" in found.hint


@pytest.mark.parametrize(
    "error",
    [
        aws.NoCredentialsError(),
        aws.PartialCredentialsError(provider="env", cred_var=CANARY),
        aws.CredentialRetrievalError(provider="x", error_msg=CANARY),
        aws.MetadataRetrievalError(error_msg=CANARY),
        aws.TokenRetrievalError(provider="sso", error_msg=CANARY),
        aws.UnauthorizedSSOTokenError(),
        aws.ProfileNotFound(profile=CANARY),
    ],
    ids=lambda error: type(error).__name__,
)
def test_credentials_that_cannot_be_had_are_waited_for(error: BaseException) -> None:
    found = meaning(error)
    assert isinstance(found, Transient)
    assert (found.code, bool(found.endpoint)) == ("credentials", True)


def test_an_answer_that_is_none_is_the_services_trouble() -> None:
    found = meaning(ResponseParserError(CANARY))
    assert isinstance(found, Transient)
    assert (found.code, bool(found.endpoint)) == ("strange-answer", True)


def test_no_region_is_for_the_configuration() -> None:
    assert isinstance(meaning(aws.NoRegionError()), Fatal)


def test_damage_on_the_way_that_the_client_found_is_sent_again() -> None:
    found = meaning(aws.FlexibleChecksumError(error_msg=CANARY))
    assert isinstance(found, Transient)
    assert found.code == "damaged-on-the-way"


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("999999", 3600.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None)]
)
def test_the_services_own_wish_for_a_pause_is_passed_on(header: str, seconds: float | None) -> None:
    found = meaning(answer("SlowDown", 503, {"retry-after": header}))
    assert isinstance(found, Transient)
    assert found.retry_after_seconds == seconds


def test_only_plain_codes_are_repeated() -> None:
    assert error_code(answer("SlowDown", 503)) == "SlowDown"
    assert error_code(answer(CANARY, 400)) == "unreadable-code"
    assert error_code(answer("", 404)) == "404"
    assert error_code(ValueError()) == ""


def test_errors_of_our_own_pass_untouched_and_foreign_ones_keep_their_cause() -> None:
    with pytest.raises(SourceChanged), translated("PutObject", "s3 at test"):
        raise SourceChanged("changed")
    cause = aws.NoCredentialsError()
    with pytest.raises(Transient) as caught, translated("PutObject", "s3 at test"):
        raise cause
    assert caught.value.__cause__ is cause
