"""The Amazon that the suite runs: each of its rules, asked by boto3 over a real socket, the real gateway behind it.

What a rule says, and where Amazon says so, stands with the rule (`tests/servers/amazon`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config

from tests.servers.amazon import Amazon
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1024 * 1024
DATA = b"an object"
FRANKFURT = "eu-central-1"
ONCE: Any = {"total_max_attempts": 1}


def sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def composite(*parts: bytes) -> str:
    return f"{sha256(b''.join(hashlib.sha256(part).digest() for part in parts))}-{len(parts)}"


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Refusal:
    """What the block inside was refused with: ``code``, ``status`` and the rest of the answer."""

    def __init__(self) -> None:
        self.code, self.status = "", 0
        self.error: Any = {}
        self.headers: Any = {}

    def __enter__(self) -> Refusal:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        assert isinstance(error, botocore.exceptions.ClientError), f"not refused: {error}"
        self.error = error.response["Error"]
        self.code, self.status = self.error["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        self.headers = error.response["ResponseMetadata"]["HTTPHeaders"]
        return True


@pytest.fixture(scope="module")
def s3(amazon: Amazon) -> S3Client:
    """Sends what it is told to, and no checksum of its own."""
    return amazon.s3(request_checksum_calculation="when_required", response_checksum_validation="when_required")


@pytest.fixture
def key(amazon: Amazon) -> str:
    return amazon.keys.create("alias/dicom")


@pytest.fixture
def place(s3: S3Client, bucket: str) -> str:
    s3.create_bucket(Bucket=bucket)
    return bucket


@pytest.fixture
def untroubled(amazon: Amazon) -> Iterator[None]:
    yield
    amazon.slow_down.left = amazon.throughput.left = amazon.conditional.conflicts = 0
    amazon.signatures.expired.clear()


# -- names and signatures ----------------------------------------------------------------------------------------


def test_boto3_as_it_comes_reaches_a_bucket_by_its_own_name(amazon: Amazon, place: str) -> None:
    plain = amazon.s3()  # with its CRC32 in a trailer, in aws-chunked encoding
    plain.put_object(Bucket=place, Key="studies/1/a b.dcm", Body=DATA)
    found = plain.get_object(Bucket=place, Key="studies/1/a b.dcm")
    assert found["Body"].read() == DATA
    assert found.get("ContentEncoding") is None
    assert plain.meta.endpoint_url == "https://s3.amazonaws.com"


def test_plain_http_through_the_proxy_leads_to_the_same_bucket(amazon: Amazon, s3: S3Client, place: str) -> None:
    """Each request names the host then, and the signature is that of the path alone."""
    config = Config(proxies={"http": f"http://127.0.0.1:{amazon.port}"}, request_checksum_calculation="when_required")
    plain = boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id=amazon.env()["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=amazon.env()["AWS_SECRET_ACCESS_KEY"],
        endpoint_url="http://s3.us-east-1.amazonaws.com",
        config=config,
    )
    plain.put_object(Bucket=place, Key="studies/1/a b.dcm", Body=DATA)
    assert s3.get_object(Bucket=place, Key="studies/1/a b.dcm")["Body"].read() == DATA
    assert plain.list_objects_v2(Bucket=place, Prefix="studies/1/a b")["KeyCount"] == 1


@pytest.mark.parametrize("style", ["path", "virtual"])
def test_an_interface_endpoint_leads_to_the_same_bucket(amazon: Amazon, s3: S3Client, place: str, style: Any) -> None:
    s3.put_object(Bucket=place, Key="object", Body=DATA)
    session = amazon._session("us-east-1", None)
    way = amazon._way({"s3": {"addressing_style": style}})
    private = session.client("s3", endpoint_url=amazon.interface_endpoint(), **way)
    assert private.get_object(Bucket=place, Key="object")["Body"].read() == DATA
    assert private.head_bucket(Bucket=place)["BucketRegion"] == "us-east-1"


def test_a_signature_by_another_secret_or_of_other_bytes_is_refused(amazon: Amazon, place: str, rgw: CephRgw) -> None:
    import boto3

    way: Any = amazon._way({"retries": ONCE})
    forged = boto3.session.Session(rgw.access_key, "another secret", region_name="us-east-1").client("s3", **way)
    with Refusal() as refusal:
        forged.list_objects_v2(Bucket=place)
    assert (refusal.status, refusal.code) == (403, "SignatureDoesNotMatch")
    stranger = boto3.session.Session("AKIASTRANGER", "another secret", region_name="us-east-1").client("s3", **way)
    with Refusal() as refusal:
        stranger.list_objects_v2(Bucket=place)
    assert (refusal.status, refusal.code) == (403, "InvalidAccessKeyId")
    signing = amazon.s3(s3={"payload_signing_enabled": True}, request_checksum_calculation="when_required")

    def alter(request: Any, **_: object) -> None:
        request.body = DATA[::-1]

    signing.meta.events.register("before-send.s3.PutObject", alter)
    with Refusal() as refusal:
        signing.put_object(Bucket=place, Key="object", Body=DATA)
    assert (refusal.status, refusal.code) == (400, "XAmzContentSHA256Mismatch")


@pytest.mark.usefixtures("untroubled")
def test_a_token_that_has_run_out_is_refused(amazon: Amazon, place: str) -> None:
    client = amazon.s3(token="session", retries=ONCE)
    client.list_objects_v2(Bucket=place)
    amazon.signatures.expired.add("session")
    with Refusal() as refusal:
        client.list_objects_v2(Bucket=place)
    assert (refusal.status, refusal.code) == (400, "ExpiredToken")
    with Refusal() as refusal:
        client.head_object(Bucket=place, Key="object")
    assert (refusal.status, refusal.code) == (400, "400")


@pytest.mark.usefixtures("untroubled")
def test_too_many_requests_are_slowed_down(amazon: Amazon, place: str) -> None:
    client = amazon.s3(retries=ONCE)
    amazon.slow_down.left = 1
    with Refusal() as refusal:
        client.list_objects_v2(Bucket=place)
    assert (refusal.status, refusal.code) == (503, "SlowDown")
    client.list_objects_v2(Bucket=place)


# -- checksums ---------------------------------------------------------------------------------------------------


def test_a_checksum_is_compared_kept_and_given_back(s3: S3Client, place: str) -> None:
    there: Any = {"Bucket": place, "Key": "object"}
    with Refusal() as refusal:
        s3.put_object(**there, Body=DATA, ChecksumSHA256=sha256(b"other"))
    assert (refusal.status, refusal.code) == (400, "BadDigest")
    made = s3.put_object(**there, Body=DATA, ChecksumSHA256=sha256(DATA))
    assert (made["ChecksumSHA256"], made["ChecksumType"]) == (sha256(DATA), "FULL_OBJECT")
    assert "ChecksumSHA256" not in s3.head_object(**there)
    seen = s3.head_object(**there, ChecksumMode="ENABLED")
    assert (seen["ChecksumSHA256"], seen["ChecksumType"]) == (sha256(DATA), "FULL_OBJECT")
    assert s3.get_object(**there, ChecksumMode="ENABLED")["ChecksumSHA256"] == sha256(DATA)


def test_an_object_without_a_checksum_gets_a_crc64nvme(s3: S3Client, place: str) -> None:
    s3.put_object(Bucket=place, Key="object", Body=b"123456789")
    seen = s3.head_object(Bucket=place, Key="object", ChecksumMode="ENABLED")
    crc = base64.b64encode(0xAE8B14860A799888.to_bytes(8, "big")).decode()  # the check value of CRC-64/NVME
    assert (seen["ChecksumCRC64NVME"], seen["ChecksumType"]) == (crc, "FULL_OBJECT")
    assert "ChecksumSHA256" not in seen


@pytest.mark.parametrize("kms", [False, True])
def test_checksums_of_parts_make_one_of_the_object(s3: S3Client, place: str, key: str, kms: bool) -> None:
    there: Any = {"Bucket": place, "Key": "object"}
    asked: Any = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if kms else {}
    data = [b"a" * 5 * MIB, b"b"]
    upload: Any = s3.create_multipart_upload(**there, **asked, ChecksumAlgorithm="SHA256")
    assert (upload["ChecksumAlgorithm"], upload["ChecksumType"]) == ("SHA256", "COMPOSITE")
    there["UploadId"] = upload["UploadId"]
    with Refusal() as refusal:
        s3.upload_part(**there, PartNumber=1, Body=data[0])
    assert (refusal.status, refusal.code) == (400, "InvalidRequest")
    assert "expected checksum Type: sha256, actual checksum Type: null" in refusal.error["Message"]
    with Refusal() as refusal:
        s3.upload_part(**there, PartNumber=1, Body=data[0], ChecksumSHA256=sha256(b"other"))
    assert (refusal.status, refusal.code) == (400, "BadDigest")
    sent = [
        s3.upload_part(**there, PartNumber=n, Body=part, ChecksumSHA256=sha256(part)) for n, part in enumerate(data, 1)
    ]
    assert [part["ChecksumSHA256"] for part in sent] == [sha256(part) for part in data]
    assert ([part["ETag"].strip('"') for part in sent] == [md5(part) for part in data]) is not kms
    listed = s3.list_parts(**there)
    assert (listed["ChecksumAlgorithm"], listed["ChecksumType"]) == ("SHA256", "COMPOSITE")
    assert [(p["ChecksumSHA256"], p["ETag"]) for p in listed["Parts"]] == [
        (p["ChecksumSHA256"], p["ETag"]) for p in sent
    ]
    assert [u["ChecksumAlgorithm"] for u in s3.list_multipart_uploads(Bucket=place)["Uploads"]] == ["SHA256"]
    plain: Any = [{"PartNumber": n, "ETag": part["ETag"]} for n, part in enumerate(sent, 1)]
    with Refusal() as refusal:
        s3.complete_multipart_upload(**there, MultipartUpload={"Parts": plain})
    assert "The complete request must include the checksum for each part" in refusal.error["Message"]
    whole: Any = [{**part, "ChecksumSHA256": sha256(data[n])} for n, part in enumerate(plain)]
    wrong: Any = [whole[0], {**whole[1], "ChecksumSHA256": sha256(b"other")}]
    with Refusal() as refusal:
        s3.complete_multipart_upload(**there, MultipartUpload={"Parts": wrong})
    assert (refusal.status, refusal.code) == (400, "InvalidPart")
    made = s3.complete_multipart_upload(**there, MultipartUpload={"Parts": whole})
    assert (made["ChecksumSHA256"], made["ChecksumType"]) == (composite(*data), "COMPOSITE")
    del there["UploadId"]
    seen = s3.head_object(**there, ChecksumMode="ENABLED")
    assert (seen["ChecksumSHA256"], seen["ChecksumType"]) == (composite(*data), "COMPOSITE")
    assert seen["ETag"] == made["ETag"] and seen["ETag"].endswith('-2"')
    md5s = b"".join(hashlib.md5(part, usedforsecurity=False).digest() for part in data)
    assert (seen["ETag"].strip('"') == f"{md5(md5s)}-2") is not kms


def test_a_part_with_a_checksum_wants_an_upload_with_that_algorithm(s3: S3Client, place: str) -> None:
    there: Any = {"Bucket": place, "Key": "object"}
    there["UploadId"] = s3.create_multipart_upload(**there)["UploadId"]
    with Refusal() as refusal:
        s3.upload_part(**there, PartNumber=1, Body=DATA, ChecksumSHA256=sha256(DATA))
    assert "expected checksum Type: null, actual checksum Type: sha256" in refusal.error["Message"]


# -- encryption --------------------------------------------------------------------------------------------------


def test_an_etag_under_a_kms_key_is_no_md5(s3: S3Client, place: str, key: str) -> None:
    plain = s3.put_object(Bucket=place, Key="plain", Body=DATA)
    assert (plain["ETag"].strip('"'), plain["ServerSideEncryption"]) == (md5(DATA), "AES256")
    made = s3.put_object(
        Bucket=place, Key="object", Body=DATA, ServerSideEncryption="aws:kms", SSEKMSKeyId="alias/dicom"
    )
    assert (made["ServerSideEncryption"], made["SSEKMSKeyId"]) == ("aws:kms", key)
    assert made["ETag"].strip('"') != md5(DATA)
    seen = s3.head_object(Bucket=place, Key="object")
    assert (seen["ETag"], seen["SSEKMSKeyId"]) == (made["ETag"], key)
    listed = {item["Key"]: item["ETag"] for item in s3.list_objects_v2(Bucket=place)["Contents"]}
    assert listed == {"plain": plain["ETag"], "object": made["ETag"]}


def test_a_key_that_is_not_there_encrypts_nothing(s3: S3Client, place: str) -> None:
    with Refusal() as refusal:
        s3.put_object(
            Bucket=place, Key="object", Body=DATA, ServerSideEncryption="aws:kms", SSEKMSKeyId="alias/nobodys"
        )
    assert (refusal.status, refusal.code) == (400, "KMS.NotFoundException")
    assert s3.list_objects_v2(Bucket=place)["KeyCount"] == 0


def test_a_bucket_key_is_used_where_it_is_asked_for_or_the_default(s3: S3Client, place: str, key: str) -> None:
    asked: Any = {"Bucket": place, "Body": DATA, "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}
    assert "BucketKeyEnabled" not in s3.put_object(Key="plain", **asked)
    assert s3.put_object(Key="with", **asked, BucketKeyEnabled=True)["BucketKeyEnabled"] is True
    assert s3.head_object(Bucket=place, Key="with")["BucketKeyEnabled"] is True
    default = s3.get_bucket_encryption(Bucket=place)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert default["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    rule: Any = {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key},
        "BucketKeyEnabled": True,
    }
    s3.put_bucket_encryption(Bucket=place, ServerSideEncryptionConfiguration={"Rules": [rule]})
    assert s3.get_bucket_encryption(Bucket=place)["ServerSideEncryptionConfiguration"]["Rules"] == [rule]
    made = s3.put_object(Bucket=place, Key="by default", Body=DATA)
    assert (made["SSEKMSKeyId"], made["BucketKeyEnabled"]) == (key, True)


def test_what_may_not_be_decrypted_shows_no_checksum_and_no_bytes(
    amazon: Amazon, s3: S3Client, place: str, key: str
) -> None:
    there: Any = {"Bucket": place, "Key": "object"}
    s3.put_object(**there, Body=DATA, ServerSideEncryption="aws:kms", SSEKMSKeyId=key, ChecksumSHA256=sha256(DATA))
    amazon.keys.without_use.add(key)
    with Refusal() as refusal:
        s3.get_object(**there)
    assert (refusal.status, refusal.code) == (403, "AccessDenied")
    with Refusal() as refusal:
        s3.head_object(**there, ChecksumMode="ENABLED")
    assert refusal.status == 403
    assert s3.head_object(**there)["ContentLength"] == len(DATA)


# -- versions, copies, conditions, locks ----------------------------------------------------------------------------


def test_a_copy_in_place_is_a_new_version_with_the_same_bytes(s3: S3Client, place: str, key: str) -> None:
    there: Any = {"Bucket": place, "Key": "object"}
    s3.put_bucket_versioning(Bucket=place, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(**there, Body=DATA, ChecksumSHA256=sha256(DATA))
    copy = s3.copy_object(
        **there, CopySource={"Bucket": place, "Key": "object"}, ServerSideEncryption="aws:kms", SSEKMSKeyId=key
    )
    assert copy["VersionId"] != first["VersionId"]
    seen = s3.head_object(**there, ChecksumMode="ENABLED")
    assert (seen["VersionId"], seen["SSEKMSKeyId"], seen["ETag"]) == (
        copy["VersionId"],
        key,
        copy["CopyObjectResult"]["ETag"],
    )
    assert seen["ChecksumSHA256"] == sha256(DATA)
    assert s3.get_object(**there)["Body"].read() == DATA
    old = s3.head_object(**there, VersionId=first["VersionId"])
    assert (old["ETag"], old["ServerSideEncryption"]) == (first["ETag"], "AES256")
    listed = {version["VersionId"]: version["ETag"] for version in s3.list_object_versions(Bucket=place)["Versions"]}
    assert listed == {first["VersionId"]: first["ETag"], copy["VersionId"]: seen["ETag"]}


def test_a_delete_marker_hides_and_names_itself(s3: S3Client, place: str) -> None:
    there: Any = {"Bucket": place, "Key": "object"}
    s3.put_bucket_versioning(Bucket=place, VersioningConfiguration={"Status": "Enabled"})
    made = s3.put_object(**there, Body=DATA)
    assert s3.delete_object(**there)["DeleteMarker"] is True
    with Refusal() as refusal:
        s3.head_object(**there)
    assert (refusal.status, refusal.headers["x-amz-delete-marker"]) == (404, "true")
    assert s3.get_object(**there, VersionId=made["VersionId"])["Body"].read() == DATA


@pytest.mark.usefixtures("untroubled")
@pytest.mark.parametrize("versions", [False, True])
def test_what_is_there_is_not_overwritten(amazon: Amazon, s3: S3Client, place: str, versions: bool) -> None:
    there: Any = {"Bucket": place, "Key": "object", "IfNoneMatch": "*"}
    if versions:
        s3.put_bucket_versioning(Bucket=place, VersioningConfiguration={"Status": "Enabled"})
    amazon.conditional.conflicts = 1
    with Refusal() as refusal:
        s3.put_object(**there, Body=DATA)
    assert (refusal.status, refusal.code) == (409, "ConditionalRequestConflict")
    upload_id = s3.create_multipart_upload(Bucket=place, Key="object")["UploadId"]
    part = s3.upload_part(Bucket=place, Key="object", UploadId=upload_id, PartNumber=1, Body=b"other")
    s3.put_object(**there, Body=DATA)
    with Refusal() as refusal:
        s3.put_object(**there, Body=b"other")
    assert (refusal.status, refusal.code) == (412, "PreconditionFailed")
    parts: Any = [{"PartNumber": 1, "ETag": part["ETag"]}]
    with Refusal() as refusal:
        s3.complete_multipart_upload(**there, UploadId=upload_id, MultipartUpload={"Parts": parts})
    assert (refusal.status, refusal.code) == (412, "PreconditionFailed")
    assert s3.get_object(Bucket=place, Key="object")["Body"].read() == DATA
    if versions:
        s3.delete_object(Bucket=place, Key="object")
        s3.put_object(**there, Body=b"other")  # under a delete marker there is none


def test_a_locked_bucket_wants_a_checksum_with_each_object_and_part(s3: S3Client, bucket: str) -> None:
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    retention: Any = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    s3.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention}
    )
    there: Any = {"Bucket": bucket, "Key": "object"}
    with Refusal() as refusal:
        s3.put_object(**there, Body=DATA)
    assert (refusal.status, refusal.code) == (400, "InvalidRequest")
    assert "Content-MD5 OR x-amz-checksum- HTTP header is required" in refusal.error["Message"]
    made = s3.put_object(**there, Body=DATA, ChecksumSHA256=sha256(DATA))
    seen = s3.head_object(**there, VersionId=made["VersionId"])
    assert seen["ObjectLockMode"] == "GOVERNANCE"
    upload_id = s3.create_multipart_upload(**there)["UploadId"]
    with Refusal() as refusal:
        s3.upload_part(**there, UploadId=upload_id, PartNumber=1, Body=DATA)
    assert (refusal.status, refusal.code) == (400, "InvalidRequest")
    given = base64.b64encode(hashlib.md5(DATA, usedforsecurity=False).digest()).decode()
    s3.upload_part(**there, UploadId=upload_id, PartNumber=1, Body=DATA, ContentMD5=given)


# -- storage classes and lifecycle ----------------------------------------------------------------------------------


def test_what_is_in_cold_storage_is_shown_and_not_read(amazon: Amazon, s3: S3Client, place: str) -> None:
    there: Any = {"Bucket": place, "Key": "studies/1/object"}
    s3.put_object(**there, Body=DATA, ChecksumSHA256=sha256(DATA))
    s3.put_object(Bucket=place, Key="warm", Body=DATA, StorageClass="GLACIER_IR")
    assert amazon.storage.transition(place, "studies/", "GLACIER") == 1
    with Refusal() as refusal:
        s3.get_object(**there)
    assert (refusal.status, refusal.code, refusal.error["StorageClass"]) == (403, "InvalidObjectState", "GLACIER")
    seen = s3.head_object(**there, ChecksumMode="ENABLED")
    assert (seen["StorageClass"], seen["ChecksumSHA256"]) == ("GLACIER", sha256(DATA))
    assert seen.get("Restore") is None
    listed = {item["Key"]: item["StorageClass"] for item in s3.list_objects_v2(Bucket=place)["Contents"]}
    assert listed == {"studies/1/object": "GLACIER", "warm": "GLACIER_IR"}
    wanted: Any = {"Days": 7, "GlacierJobParameters": {"Tier": "Bulk"}}
    started = s3.restore_object(**there, RestoreRequest=wanted)
    assert started["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert s3.head_object(**there)["Restore"] == 'ongoing-request="true"'
    with Refusal() as refusal:
        s3.restore_object(**there, RestoreRequest=wanted)
    assert (refusal.status, refusal.code) == (409, "RestoreAlreadyInProgress")
    with Refusal() as refusal:
        s3.get_object(**there)
    assert refusal.code == "InvalidObjectState"
    amazon.storage.finish_restores(place)
    assert s3.head_object(**there)["Restore"].startswith('ongoing-request="false", expiry-date=')
    assert s3.get_object(**there)["Body"].read() == DATA
    assert s3.get_object(Bucket=place, Key="warm")["Body"].read() == DATA
    unknown: Any = "FREEZER"
    with Refusal() as refusal:
        s3.put_object(Bucket=place, Key="other", Body=DATA, StorageClass=unknown)
    assert (refusal.status, refusal.code) == (400, "InvalidStorageClass")


def test_a_rule_that_will_end_an_object_is_told_of(s3: S3Client, place: str) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html (x-amz-expiration): as the gateway does."""
    rule: Any = {"ID": "a rule", "Status": "Enabled", "Filter": {"Prefix": "probe/"}, "Expiration": {"Days": 3}}
    s3.put_bucket_lifecycle_configuration(Bucket=place, LifecycleConfiguration={"Rules": [rule]})
    s3.put_object(Bucket=place, Key="probe/object", Body=DATA)
    s3.put_object(Bucket=place, Key="object", Body=DATA)
    assert s3.head_object(Bucket=place, Key="probe/object")["Expiration"].startswith("expiry-date=")
    assert "Expiration" not in s3.head_object(Bucket=place, Key="object")


# -- regions -------------------------------------------------------------------------------------------------------


def test_a_bucket_is_made_in_the_region_that_is_asked(amazon: Amazon, s3: S3Client, bucket: str) -> None:
    there = amazon.s3(FRANKFURT)
    with Refusal() as refusal:
        there.create_bucket(Bucket=bucket)
    assert (refusal.status, refusal.code) == (400, "IllegalLocationConstraintException")
    there.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    assert there.get_bucket_location(Bucket=bucket)["LocationConstraint"] == FRANKFURT
    assert there.head_bucket(Bucket=bucket)["BucketRegion"] == FRANKFURT
    wrong: Any = {"LocationConstraint": "us-east-1"}
    with Refusal() as refusal:
        s3.create_bucket(Bucket=bucket + "-2", CreateBucketConfiguration=wrong)
    assert (refusal.status, refusal.code) == (400, "InvalidLocationConstraint")


def test_a_request_at_the_wrong_region_is_sent_to_the_right_one(amazon: Amazon, s3: S3Client, bucket: str) -> None:
    there = amazon.s3(FRANKFURT)
    there.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    there.put_object(Bucket=bucket, Key="object", Body=DATA)
    asked = amazon.s3()
    asked.meta.events.unregister("needs-retry.s3", _redirector(asked))
    with Refusal() as refusal:
        asked.get_object(Bucket=bucket, Key="object")
    assert (refusal.status, refusal.code) == (301, "PermanentRedirect")
    assert refusal.headers["x-amz-bucket-region"] == FRANKFURT
    assert s3.get_object(Bucket=bucket, Key="object")["Body"].read() == DATA  # boto3 follows


def _redirector(client: S3Client) -> Any:
    handlers = client.meta.events._emitter._handlers.prefix_search("needs-retry.s3")  # type: ignore[attr-defined]
    return next(h for h in handlers if "redirect" in getattr(h, "__name__", "") or "Redirect" in repr(h))


def test_a_signature_for_another_region_is_refused_and_the_right_one_named(amazon: Amazon, place: str) -> None:
    session = amazon._session(FRANKFURT, None)
    client = session.client("s3", endpoint_url="https://s3.us-east-1.amazonaws.com", **amazon._way({}))
    client.meta.events.unregister("needs-retry.s3", _redirector(client))
    with Refusal() as refusal:
        client.list_objects_v2(Bucket=place)
    assert (refusal.status, refusal.code) == (400, "AuthorizationHeaderMalformed")
    assert refusal.error["Region"] == "us-east-1"


# -- DynamoDB ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("untroubled")
def test_a_table_throttles_and_takes_no_large_items(amazon: Amazon, dynamodb: DynamoDBLocal, table_name: str) -> None:
    """Items of more than 400 KB: 400 ValidationException, as DynamoDB Local does.
    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html"""
    client = amazon.dynamodb(retries=ONCE)
    client.create_table(
        TableName=table_name,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    client.put_item(TableName=table_name, Item={"pk": {"S": "1"}})
    assert client.get_item(TableName=table_name, Key={"pk": {"S": "1"}})["Item"] == {"pk": {"S": "1"}}
    amazon.throughput.left = 1
    with Refusal() as refusal:
        client.put_item(TableName=table_name, Item={"pk": {"S": "2"}})
    assert (refusal.status, refusal.code) == (400, "ProvisionedThroughputExceededException")
    with Refusal() as refusal:
        client.put_item(TableName=table_name, Item={"pk": {"S": "3"}, "text": {"S": "x" * 400 * 1024}})
    assert (refusal.status, refusal.code) == (400, "ValidationException")
    assert "size" in refusal.error["Message"]
    late = amazon.dynamodb(token="session", retries=ONCE)
    amazon.signatures.expired.add("session")
    with Refusal() as refusal:
        late.get_item(TableName=table_name, Key={"pk": {"S": "1"}})
    assert (refusal.status, refusal.code) == (400, "ExpiredTokenException")


def test_a_name_that_is_not_amazons_leads_nowhere(amazon: Amazon) -> None:
    client = amazon._session("us-east-1", None).client(
        "s3",
        endpoint_url="https://s3.example.org",
        config=Config(proxies={"https": f"http://127.0.0.1:{amazon.port}"}, retries=ONCE),
        verify=str(amazon.ca_file),
    )
    with pytest.raises(botocore.exceptions.SSLError):
        client.list_buckets()
