"""Answers of another shape than Amazon's: a gateway that takes each question about a bucket for a listing, a proxy's
page, and settings that are there and say nothing. None of them is a pass, and none ends `doctor`."""

from __future__ import annotations

from typing import Any

import pytest

from dicomwatchd.archive.preflight import bucket, run, table
from dicomwatchd.archive.preflight.bucket import BucketChecks
from dicomwatchd.archive.preflight.rights import RoleChecks
from dicomwatchd.archive.stores.s3 import settings
from dicomwatchd.archive.stores.s3.setup import denies_plain
from dicomwatchd.config.archive import S3Settings
from dicomwatchd.findings import Finding
from tests.unit.test_preflight_rights import TRUSTED
from tests.unit.test_protection import Bucket
from tests.unit.test_ranges import answer, answering

LISTING = answer(
    "200 OK",
    b'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name>'
    b"<IsTruncated>false</IsTruncated></ListBucketResult>",
)
PAGE = answer("200 OK", b"<!DOCTYPE html><html><body><p>Welcome<br></body></html>")
NOTHING = answer("200 OK", b"")
FORBIDDEN = answer("403 Forbidden", b"<!DOCTYPE html><html><body>Blocked by policy<br></body></html>")
ARN = "arn:aws:s3:::bucket"


def checks(monkeypatch: pytest.MonkeyPatch, said: bytes) -> dict[str, Finding]:
    with answering(monkeypatch, False, *[said] * 40) as (store, server):
        configured = S3Settings(
            kind="s3",
            bucket="bucket",
            prefix="",
            ca_file=None,
            region="eu-central-1",
            endpoint_url=f"https://127.0.0.1:{server.port}",
            insecure_http=False,
        )
        made = BucketChecks(store.bucket, configured, creates_only=True)
        return {one.subject: one for one in run._made(made.all(), "here")}


@pytest.mark.parametrize("said", [LISTING, PAGE, NOTHING, FORBIDDEN], ids=["listing", "page", "nothing", "forbidden"])
def test_what_is_no_answer_is_no_pass(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    found = checks(monkeypatch, said)
    assert len(found) == 5
    assert "good" not in {one.outcome for one in found.values()}, found
    public = found[bucket.PUBLIC]
    assert public.outcome == "unknown" and "is not public" not in public.detail, public


def test_a_proxy_that_lets_no_deletion_through_says_nothing_of_the_role(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has stolen the role's keys does not come by this proxy."""
    with answering(monkeypatch, False, *[FORBIDDEN] * 4) as (store, _):
        role = RoleChecks(store.bucket, TRUSTED, lambda: "0" * 32)
        for found in (role.deleting(), role.overwriting()):
            assert found.outcome == "unknown" and "403" in found.detail, found


@pytest.mark.parametrize("question", ["get_bucket_policy_status", "get_bucket_acl"])
@pytest.mark.parametrize("said", [{}, {"PolicyStatus": {}}, {"PolicyStatus": None}, {"Grants": None}], ids=range(4))
def test_each_question_needs_its_answer(question: str, said: dict[str, Any]) -> None:
    asked = Bucket(policy=False)
    assert settings.exposure(asked, "bucket").is_public is False
    setattr(asked, question, lambda **_: said)
    assert settings.exposure(asked, "bucket").is_public is None


@pytest.mark.parametrize(
    "said",
    [
        {"ObjectLockConfiguration": {"ObjectLockEnabled": "Disabled"}},
        {"ObjectLockConfiguration": {"Rule": {}}},
        {"ObjectLockConfiguration": None},
        {},
    ],
    ids=["off", "no word of it", "none", "empty"],
)
def test_an_object_lock_that_is_not_on(said: dict[str, Any]) -> None:
    class Client:
        def get_object_lock_configuration(self, **_: object) -> Any:
            return said

    assert settings.object_lock(Client(), "bucket") is False


@pytest.mark.parametrize("rule", [{"SSEAlgorithm": ""}, {"KMSMasterKeyID": "x"}, {"SSEAlgorithm": None}, None])
def test_a_default_encryption_that_names_none(rule: Any) -> None:
    class Client:
        def get_bucket_encryption(self, **_: object) -> Any:
            return {
                "ServerSideEncryptionConfiguration": {"Rules": [{"ApplyServerSideEncryptionByDefault": rule}]},
            }

    assert not settings.default_encryption(Client(), "bucket")


DENIAL: dict[str, Any] = {
    "Effect": "Deny",
    "Principal": "*",
    "Action": "s3:*",
    "Resource": [ARN, f"{ARN}/*"],
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}


@pytest.mark.parametrize(
    "condition",
    [
        None,
        [],
        "x",
        {"Bool": []},
        {"Bool": None},
        {"Bool": {"aws:SecureTransport": "false"}, "StringEquals": {"aws:SourceVpc": "vpc-1"}},
        {"Bool": {"aws:SecureTransport": "false", "aws:ViaAWSService": "true"}},
        {"Bool": {"aws:SecureTransport": ["false", "true"]}},
        {"BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}, "Bool": {"aws:SecureTransport": "false"}},
    ],
    ids=range(9),
)
def test_a_denial_of_plain_http_that_is_none_or_half_of_one(condition: Any) -> None:
    assert denies_plain(DENIAL, ARN)
    assert denies_plain({**DENIAL, "Condition": {"Bool": {"aws:SecureTransport": ["false"]}}}, ARN)
    assert not denies_plain({**DENIAL, "Condition": condition}, ARN)
    assert not denies_plain({**DENIAL, "Resource": [{}, ARN]}, ARN)
    assert not denies_plain({**DENIAL, "NotAction": "s3:GetObject", "Action": None}, ARN)


@pytest.mark.parametrize("said", [{}, {"Table": None}, {"ContinuousBackupsDescription": None}], ids=range(3))
def test_a_table_whose_service_answers_otherwise(said: dict[str, Any]) -> None:
    class Client:
        def describe_table(self, **_: object) -> Any:
            return said

        def describe_continuous_backups(self, **_: object) -> Any:
            return said

    found = list(run._made(table.TableChecks(Client(), "t", is_amazon=True).all(), "here"))
    assert [one.outcome for one in found] == ["unknown", "unknown"], found
