"""What the roles of etc/aws/archive.yaml may do, and a thief of their credentials with them, as IAM evaluates it.

Each case is a request with the condition keys that Amazon documents for it. Then every clause that denies something is
taken out of the template, one at a time, and some case has to notice.
"""

from __future__ import annotations

import copy
import fnmatch
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests import aws_template
from tests.conftest import skip_unless_available
from tests.servers.iam import Asked, Response, simulate

ROLES = {
    name: f"arn:aws:iam::{aws_template.ACCOUNT}:role/{name}"
    for name in ("ct1", "mr2", "desk", "care", "erase", "glass", "it", "copies", "stranger")
}
#: Of another account, which has given them every right that it can give.
ROLES |= {"foreign": "arn:aws:iam::999999999999:role/it", "foreign-root": "arn:aws:iam::999999999999:root"}
ROLES["trail"] = "cloudtrail.amazonaws.com"
BUCKET = "arn:aws:s3:::hospital"
KEY = f"arn:aws:kms:eu-central-1:{aws_template.ACCOUNT}:key/made-here"
TABLE = f"arn:aws:dynamodb:eu-central-1:{aws_template.ACCOUNT}:table/dicom-studies"
STUDY = f"{BUCKET}/rad/studies/1.2.3"
OLDER_KEY = f"arn:aws:kms:eu-central-1:{aws_template.ACCOUNT}:key/older"
TABLE_KEY = f"arn:aws:kms:eu-central-1:{aws_template.ACCOUNT}:key/of-the-table"
COPIES_KEY = f"arn:aws:kms:eu-north-1:{aws_template.ACCOUNT}:key/of-the-copies"
COPIES = "arn:aws:s3:::hospital-2"
LOG = "arn:aws:s3:::hospital-log"
LOGGED = f"{LOG}/AWSLogs/{aws_template.ACCOUNT}/x.json.gz"
_TRAILS = f"arn:aws:cloudtrail:eu-central-1:{aws_template.ACCOUNT}:trail"
OF_THE_TRAIL = {"aws:SourceArn": f"{_TRAILS}/hospital-access"}
OF_ANOTHER_TRAIL = {"aws:SourceArn": f"{_TRAILS}/another"}
TO_THE_OWNER = {"s3:x-amz-acl": "bucket-owner-full-control"}

PLAIN: dict[str, Any] = {
    "BucketName": "hospital",
    "Prefix": "rad/",
    "DaemonPrincipalArn": [ROLES["ct1"], ROLES["mr2"]],
}
GUARDED = {
    **PLAIN,
    "MaintenancePrincipalArn": [ROLES["care"]],
    "BreakGlassPrincipalArn": [ROLES["glass"], ROLES["erase"]],
    "ObjectLockMode": "COMPLIANCE",
}
ENDPOINTS = {**GUARDED, "VpcEndpointIds": ["vpce-0a", "vpce-0b"]}
ADDRESSES = {**GUARDED, "SourceIpRanges": ["192.0.2.0/24"]}
#: And everything else that a stack can have.
BOTH = {
    **ENDPOINTS,
    "SourceIpRanges": ["192.0.2.0/24"],
    "OlderKmsKeyArns": [OLDER_KEY],
    "TableKmsKeyArn": TABLE_KEY,
    "ReplicaBucketArn": COPIES,
    "ReplicaKmsKeyArn": COPIES_KEY,
    "AccessLogBucketName": "hospital-log",
}
#: The stack in the second region, whose bucket takes the copies.
STANDBY = {**ENDPOINTS, "SourceIpRanges": ["192.0.2.0/24"], "BucketName": "hospital-2", "KmsKeyArn": COPIES_KEY}

#: Instances and bundles are sent with a tag.
TAGGED = {**GUARDED, "ObjectTagKey": "archive", "ObjectTagValue": "images"}

#: Instances and bundles are sent in one class alone.
ONE_CLASS = {**PLAIN, "StorageClasses": ["GLACIER_IR"]}

POLICY_OF = {
    "ct1": "DaemonPolicy",
    "mr2": "DaemonPolicy",
    "desk": "FetchPolicy",
    "care": "MaintenancePolicy",
    "erase": "BreakGlassPolicy",
    "copies": "ReplicationRole",
}
NOTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}]}
#: An administrator, and who breaks the glass, may do everything that nothing denies.
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}

SSE = "s3:x-amz-server-side-encryption"
SSE_KEY = "s3:x-amz-server-side-encryption-aws-kms-key-id"
SSE_OWN = "s3:x-amz-server-side-encryption-customer-algorithm"
CREATION = "s3:ObjectCreationOperation"
IF_NONE_MATCH = {"s3:if-none-match": "*"}
VIA_S3 = {"kms:ViaService": "s3.eu-central-1.amazonaws.com"}
VIA_TABLE = {"kms:ViaService": "dynamodb.eu-central-1.amazonaws.com"}
VIA_COPIES = {"kms:ViaService": "s3.eu-north-1.amazonaws.com"}
KMS = {SSE: "aws:kms", SSE_KEY: KEY}
CREATED = {CREATION: "true", **IF_NONE_MATCH}
OVERWRITTEN = {CREATION: "true"}
THROUGH_A = {"aws:SourceVpce": "vpce-0a"}
THROUGH_OTHER = {"aws:SourceVpce": "vpce-0c"}
FROM_HOSPITAL = {"aws:SourceIp": "192.0.2.7"}
FROM_ELSEWHERE = {"aws:SourceIp": "198.51.100.9"}
LEADING = "dynamodb:LeadingKeys"
TAG_KEYS = "s3:RequestObjectTagKeys"
CLASS = "s3:x-amz-storage-class"


#: What `doctor` asks of the bucket; no role but the daemon's needs it.
PROTECTION = (
    "s3:GetBucketVersioning",
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetEncryptionConfiguration",
    "s3:GetBucketPolicy",
    "s3:GetBucketPolicyStatus",
    "s3:GetBucketPublicAccessBlock",
    "s3:GetBucketAcl",
)
#: The key that its three requests name, which must be refused.
NOBODYS = f"{BUCKET}/rad/studies/dicomwatchd-preflight-00/none"


@dataclass(frozen=True)
class Case:
    """``denied``: the Sid that has to say no, "Implicit" where nothing says yes, None where it is to be allowed."""

    role: str
    action: str
    resource: str
    context: Mapping[str, Any] = field(default_factory=dict)
    denied: str | None = None
    site: Mapping[str, Any] = field(default_factory=lambda: PLAIN)


def daemon_work(role: str, site: Mapping[str, Any], place: Mapping[str, str]) -> Iterator[Case]:
    """All that the daemon asks of S3, KMS and DynamoDB, with the headers that it sends."""
    for action, resource, context in (
        ("s3:ListBucket", BUCKET, {"s3:prefix": "rad/studies/1.2.3/"}),
        ("s3:ListBucketVersions", BUCKET, {"s3:prefix": "rad/studies/1.2.3/"}),
        ("s3:ListBucketMultipartUploads", BUCKET, {}),
        ("s3:GetLifecycleConfiguration", BUCKET, {}),
        ("dynamodb:DescribeTable", TABLE, {}),
        ("dynamodb:DescribeContinuousBackups", TABLE, {}),
        ("s3:GetObject", f"{BUCKET}/rad/archive.json", {}),
        ("s3:GetObject", f"{STUDY}/4/5/aa.dcm", {}),
        ("s3:GetObjectVersion", f"{STUDY}/4/5/aa.dcm", {}),
        ("s3:PutObject", f"{STUDY}/4/5/aa.dcm", {**KMS, **CREATED}),
        ("s3:PutObject", f"{STUDY}/4/5/aa.dcm", CREATED),  # encryption: {mode: store-default}
        ("s3:PutObject", f"{STUDY}/4/5/aa.dcm", {**KMS, CREATION: "false"}),  # CreateMultipartUpload
        ("s3:PutObject", f"{STUDY}/4/5/aa.dcm", {CREATION: "false"}),  # UploadPart, which has no such headers
        ("s3:AbortMultipartUpload", f"{STUDY}/4/5/aa.dcm", {}),
        ("s3:ListMultipartUploadParts", f"{STUDY}/4/5/aa.dcm", {}),
        ("s3:PutObject", f"{STUDY}/manifests/00000001.json", {**KMS, **CREATED}),
        ("s3:PutObject", f"{BUCKET}/rad/audit/1/00000001.json", {**KMS, **CREATED}),
        ("s3:PutObject", f"{BUCKET}/rad/probe/1/plain", {**KMS, **OVERWRITTEN}),
        ("dynamodb:GetItem", TABLE, {}),
        ("dynamodb:PutItem", TABLE, {LEADING: ["STUDY#1.2.3"]}),
        ("dynamodb:PutItem", TABLE, {LEADING: ["SITES"]}),
        ("dynamodb:Query", TABLE, {LEADING: ["SITES"]}),
    ):
        yield Case(role, action, resource, {**place, **context}, None, site)
    for action in PROTECTION:
        yield Case(role, action, BUCKET, dict(place), None, site)
    for action in ("kms:GenerateDataKey", "kms:Decrypt"):
        yield Case(role, action, KEY, VIA_S3, None, site)


def fetch_work(site: Mapping[str, Any], place: Mapping[str, str]) -> Iterator[Case]:
    for action, resource, context in (
        ("s3:ListBucket", BUCKET, {"s3:prefix": "rad/studies/1.2.3/"}),
        ("s3:GetObject", f"{STUDY}/4/5/aa.dcm", {}),
        ("s3:GetObjectVersion", f"{STUDY}/4/5/aa.dcm", {}),
        ("dynamodb:Query", f"{TABLE}/index/by-patient", {}),
        ("dynamodb:BatchGetItem", TABLE, {}),
        ("dynamodb:Query", TABLE, {LEADING: ["SITES"]}),
    ):
        yield Case("desk", action, resource, {**place, **context}, None, site)
    yield Case("desk", "kms:Decrypt", KEY, VIA_S3, None, site)


def maintenance_work(site: Mapping[str, Any], place: Mapping[str, str]) -> Iterator[Case]:
    for action, resource, context in (
        ("s3:ListBucketVersions", BUCKET, {"s3:prefix": "rad/studies/"}),
        ("s3:GetObject", f"{STUDY}/4/5/aa.dcm", {}),
        ("s3:PutObject", f"{STUDY}/4/5/aa.dcm", {**KMS, **OVERWRITTEN}),  # a copy in place
        ("s3:RestoreObject", f"{STUDY}/4/5/aa.dcm", {}),
        ("s3:UpdateObjectEncryption", f"{STUDY}/4/5/aa.dcm", KMS),
        ("s3:UpdateObjectEncryption", f"{BUCKET}/rad/audit/1/00000001.json", KMS),
        ("s3:UpdateObjectEncryption", f"{BUCKET}/rad/archive.json", KMS),
    ):
        yield Case("care", action, resource, {**place, **context}, None, site)
    for action in ("kms:GenerateDataKey", "kms:Decrypt", "kms:Encrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo"):
        yield Case("care", action, KEY, VIA_S3, None, site)


def erase_work(site: Mapping[str, Any], place: Mapping[str, str]) -> Iterator[Case]:
    """What erasing a study asks for: every version of its objects, its records, and a record of the erasure."""
    for action, resource, context in (
        ("s3:ListBucket", BUCKET, {"s3:prefix": "rad/erased/1.2.3/"}),
        ("s3:ListBucketMultipartUploads", BUCKET, {}),
        ("s3:AbortMultipartUpload", f"{STUDY}/4/5/aa.dcm", {}),
        ("s3:ListBucketVersions", BUCKET, {"s3:prefix": "rad/studies/1.2.3/"}),
        ("s3:GetBucketObjectLockConfiguration", BUCKET, {}),
        ("s3:GetObject", f"{BUCKET}/rad/archive.json", {}),
        ("s3:GetObjectVersion", f"{STUDY}/bundles/aa.tar", {}),
        ("s3:GetObjectRetention", f"{STUDY}/bundles/aa.tar", {}),
        ("s3:GetObjectLegalHold", f"{STUDY}/bundles/aa.tar", {}),
        ("s3:DeleteObject", f"{STUDY}/manifests/00000001.json", {}),
        ("s3:DeleteObjectVersion", f"{STUDY}/bundles/aa.tar", {}),
        ("s3:PutObject", f"{BUCKET}/rad/erased/1.2.3/00000001.json", {**KMS, **CREATED}),
        ("dynamodb:Query", TABLE, {}),
        ("dynamodb:DeleteItem", TABLE, {LEADING: ["STUDY#1.2.3"]}),
    ):
        yield Case("erase", action, resource, {**place, **context}, None, site)
    for action in ("kms:GenerateDataKey", "kms:Decrypt"):
        yield Case("erase", action, KEY, VIA_S3, None, site)


WORK = [
    *daemon_work("ct1", PLAIN, {}),
    *daemon_work("mr2", GUARDED, {}),
    *daemon_work("ct1", ENDPOINTS, THROUGH_A),
    *daemon_work("ct1", ADDRESSES, FROM_HOSPITAL),
    *daemon_work("ct1", BOTH, THROUGH_A),
    *daemon_work("mr2", BOTH, FROM_HOSPITAL),
    *fetch_work(PLAIN, {}),
    *fetch_work(BOTH, FROM_HOSPITAL),
    *fetch_work(BOTH, THROUGH_A),
    *maintenance_work(GUARDED, {}),
    *maintenance_work(BOTH, FROM_ELSEWHERE),
    *erase_work(GUARDED, {}),
    *erase_work(BOTH, FROM_HOSPITAL),
]

#: The daemon's credentials, in the hands of somebody who has given the role every other right as well.
DAEMON_DENIED = (
    ("s3:DeleteObject", f"{STUDY}/4/5/aa.dcm"),
    ("s3:DeleteObjectVersion", f"{STUDY}/4/5/aa.dcm"),
    ("s3:BypassGovernanceRetention", f"{STUDY}/4/5/aa.dcm"),
    ("s3:PutObjectRetention", f"{STUDY}/4/5/aa.dcm"),
    ("s3:DeleteBucket", BUCKET),
    ("s3:DeleteBucketPolicy", BUCKET),
    ("s3:PutBucketPolicy", BUCKET),
    ("s3:PutLifecycleConfiguration", BUCKET),
    ("s3:PutBucketVersioning", BUCKET),
    ("s3:PutBucketObjectLockConfiguration", BUCKET),
    ("s3:PutEncryptionConfiguration", BUCKET),
    ("s3:PutReplicationConfiguration", BUCKET),
)
DAEMON = [
    *(
        Case(role, action, resource, {}, "DaemonDeletesNothing")
        for role in ("ct1", "mr2")
        for action, resource in DAEMON_DENIED
    ),
    Case("ct1", "s3:PutObject", f"{STUDY}/4/5/aa.dcm", {**KMS, **OVERWRITTEN}, "CreateOnly"),
    Case("ct1", "s3:DeleteObjectVersion", NOBODYS, {}, "DaemonDeletesNothing"),
    Case("ct1", "s3:DeleteObject", NOBODYS, {}, "DaemonDeletesNothing"),
    Case("ct1", "s3:PutObject", NOBODYS, {**KMS, **OVERWRITTEN}, "CreateOnly"),
    Case("ct1", "s3:PutObject", f"{BUCKET}/rad/audit/1/00000001.json", {**KMS, **OVERWRITTEN}, "CreateOnly"),
    # A record of an erasure keeps a study out of the archive: no daemon creates one.
    Case("ct1", "s3:PutObject", f"{BUCKET}/rad/erased/1.2.3/00000001.json", {**KMS, **CREATED}, "Implicit"),
    Case("ct1", "s3:PutObject", f"{BUCKET}/rad/archive.json", {**KMS, **CREATED}, "Implicit"),
    Case("ct1", "s3:PutObject", f"{BUCKET}/other/x", {**KMS, **CREATED}, "Implicit"),
    Case("ct1", "s3:GetObject", f"{BUCKET}/other/x", {}, "Implicit"),
    Case("ct1", "s3:ListBucket", BUCKET, {}, "Implicit"),
    Case("ct1", "s3:ListBucket", BUCKET, {"s3:prefix": "other/"}, "Implicit"),
    Case("ct1", "s3:ListBucketVersions", BUCKET, {"s3:prefix": "other/"}, "Implicit"),
    Case("ct1", "s3:ListBucket", BUCKET, {"s3:prefix": "ra"}, "Implicit"),
    Case("ct1", "s3:PutObjectTagging", f"{STUDY}/4/5/aa.dcm", {}, "Implicit"),
    Case("ct1", "s3:PutObjectTagging", f"{STUDY}/series/4/5/aa.dcm", {TAG_KEYS: ["archive"]}, None, TAGGED),
    Case("ct1", "s3:PutObjectTagging", f"{STUDY}/bundles/aa.tar", {TAG_KEYS: ["archive"]}, None, TAGGED),
    Case("ct1", "s3:PutObjectTagging", f"{STUDY}/series/4/5/aa.dcm", {TAG_KEYS: ["other"]}, "Implicit", TAGGED),
    Case("ct1", "s3:PutObjectTagging", f"{STUDY}/series/4/5/aa.dcm", {TAG_KEYS: ["archive", "x"]}, "Implicit", TAGGED),
    Case("ct1", "s3:PutObjectTagging", f"{STUDY}/series/4/5/aa.dcm", {}, "Implicit", TAGGED),
    Case("ct1", "s3:PutObjectTagging", f"{STUDY}/manifests/00000001.json", {TAG_KEYS: ["archive"]}, "Implicit", TAGGED),
    Case("ct1", "s3:RestoreObject", f"{STUDY}/series/4/5/aa.dcm", {}, "Implicit", TAGGED),
    Case("ct1", "kms:Decrypt", KEY, {}, "Implicit"),
    Case("ct1", "kms:ScheduleKeyDeletion", KEY, {}, "Implicit"),
    Case("ct1", "dynamodb:PutItem", TABLE, {LEADING: ["ARCHIVE"]}, "Implicit"),
    Case("ct1", "dynamodb:PutItem", TABLE, {}, "Implicit"),
    Case("ct1", "dynamodb:Query", f"{TABLE}/index/by-patient", {}, "Implicit"),
    # The items of the sites, and no records: these hold patients' names.
    Case("ct1", "dynamodb:Query", TABLE, {LEADING: ["STUDY#1.2.3"]}, "Implicit"),
    Case("ct1", "dynamodb:Query", TABLE, {}, "Implicit"),
    Case("ct1", "dynamodb:PutItem", TABLE, {LEADING: ["SITES2"]}, "Implicit"),
    Case("ct1", "dynamodb:PutItem", TABLE, {LEADING: ["SITES", "ARCHIVE"]}, "Implicit"),
    Case("ct1", "dynamodb:UpdateItem", TABLE, {}, "Implicit"),
    Case("ct1", "dynamodb:DeleteItem", TABLE, {}, "DeleteNothing"),
    Case("ct1", "dynamodb:DeleteTable", TABLE, {}, "DeleteNothing"),
    Case("ct1", "dynamodb:BatchWriteItem", TABLE, {}, "DeleteNothing"),
    Case("ct1", "dynamodb:PartiQLDelete", TABLE, {}, "DeleteNothing"),
    Case("ct1", "s3:DeleteObject", f"{STUDY}/4/5/aa.dcm", {}, "DeleteNothing"),
    Case("ct1", "s3:DeleteBucket", BUCKET, {}, "DeleteNothing"),
]
READER = [
    Case("desk", action, resource, context, "Implicit", GUARDED)
    for action, resource, context in (
        ("s3:PutObject", f"{STUDY}/4/5/aa.dcm", {**KMS, **CREATED}),
        ("s3:DeleteObject", f"{STUDY}/4/5/aa.dcm", {}),
        ("s3:RestoreObject", f"{STUDY}/4/5/aa.dcm", {}),
        ("s3:GetObject", f"{BUCKET}/other/x", {}),
        ("s3:ListBucket", BUCKET, {}),
        ("s3:ListBucketVersions", BUCKET, {"s3:prefix": "rad/"}),
        ("kms:GenerateDataKey", KEY, VIA_S3),
        ("kms:Decrypt", KEY, {}),
        ("dynamodb:Scan", TABLE, {}),
        ("dynamodb:PutItem", TABLE, {LEADING: ["STUDY#1.2.3"]}),
        ("dynamodb:PutItem", TABLE, {LEADING: ["SITES"]}),
        ("dynamodb:DeleteItem", TABLE, {}),
    )
]
MAINTENANCE = [
    *(Case("care", action, resource, {}, "MaintenanceDeletesNothing", GUARDED) for action, resource in DAEMON_DENIED),
    Case("care", "s3:DeleteObjectVersion", f"{STUDY}/4/5/aa.dcm", {}, "DeleteNothing", PLAIN),
    Case("care", "s3:DeleteBucket", BUCKET, {}, "DeleteNothing", PLAIN),
    Case("care", "s3:PutObject", f"{BUCKET}/rad/audit/1/00000001.json", {**KMS, **OVERWRITTEN}, "Implicit", GUARDED),
    Case("care", "s3:PutObject", f"{STUDY}/4/5/aa.dcm", {SSE: "AES256", **OVERWRITTEN}, "NoOtherEncryption", GUARDED),
    Case("care", "s3:PutObject", f"{STUDY}/4/5/aa.dcm", {**KMS, **OVERWRITTEN}, "CreateOnly", PLAIN),
    Case("care", "s3:ListBucketVersions", BUCKET, {}, "Implicit", GUARDED),
    Case("care", "kms:Decrypt", KEY, {}, "Implicit", GUARDED),
    Case("care", "dynamodb:GetItem", TABLE, {}, "Implicit", GUARDED),
]
ERASER = [
    *(
        Case("erase", action, resource, context, denied, GUARDED)
        for action, resource, context, denied in (
            ("s3:DeleteObjectVersion", f"{BUCKET}/rad/audit/1/00000001.json", {}, "Implicit"),
            ("s3:DeleteObjectVersion", f"{BUCKET}/rad/archive.json", {}, "Implicit"),
            ("s3:DeleteObjectVersion", f"{BUCKET}/other/x", {}, "Implicit"),
            ("s3:DeleteObjectVersion", f"{BUCKET}/rad/erased/1.2.3/00000001.json", {}, "Implicit"),
            ("s3:PutObject", f"{BUCKET}/rad/erased/1.2.3/00000001.json", {**KMS, **OVERWRITTEN}, "CreateOnly"),
            ("s3:PutObject", f"{STUDY}/bundles/aa.tar", {**KMS, **CREATED}, "Implicit"),
            ("s3:PutObject", f"{BUCKET}/rad/audit/1/00000001.json", {**KMS, **CREATED}, "Implicit"),
            ("s3:PutObject", f"{BUCKET}/rad/archive.json", {**KMS, **CREATED}, "Implicit"),
            ("s3:BypassGovernanceRetention", f"{STUDY}/bundles/aa.tar", {}, "Implicit"),
            ("s3:PutObjectRetention", f"{STUDY}/bundles/aa.tar", {}, "Implicit"),
            ("s3:PutBucketVersioning", BUCKET, {}, "Implicit"),
            ("s3:PutLifecycleConfiguration", BUCKET, {}, "Implicit"),
            ("s3:PutBucketPolicy", BUCKET, {}, "Implicit"),
            ("s3:DeleteBucket", BUCKET, {}, "Implicit"),
            ("s3:ListBucketVersions", BUCKET, {}, "Implicit"),
            ("kms:Decrypt", KEY, {}, "Implicit"),
            ("kms:ScheduleKeyDeletion", KEY, {}, "Implicit"),
            ("dynamodb:PutItem", TABLE, {LEADING: ["STUDY#1.2.3"]}, "Implicit"),
            ("dynamodb:DeleteItem", TABLE, {LEADING: ["ARCHIVE"]}, "Implicit"),
            ("dynamodb:DeleteItem", TABLE, {}, "Implicit"),
            ("dynamodb:DeleteTable", TABLE, {}, "Implicit"),
            ("dynamodb:Scan", TABLE, {}, "Implicit"),
        )
    ),
]
#: A user of the same account whom nobody has given anything, and another account, whatever it has given to itself.
STRANGERS = [
    Case(role, action, resource, context, "Implicit", GUARDED)
    for role in ("stranger", "foreign", "foreign-root")
    for action, resource, context in (
        ("s3:ListBucket", BUCKET, {"s3:prefix": "rad/"}),
        ("s3:GetObject", f"{STUDY}/4/5/aa.dcm", {}),
        ("s3:GetObjectVersion", f"{STUDY}/4/5/aa.dcm", {}),
        ("s3:PutObject", f"{STUDY}/4/5/aa.dcm", {**KMS, **CREATED}),
        ("s3:DeleteObject", f"{STUDY}/4/5/aa.dcm", {}),
        ("s3:PutBucketPolicy", BUCKET, {}),
        ("kms:Decrypt", KEY, VIA_S3),
        ("kms:PutKeyPolicy", KEY, {}),
        ("dynamodb:GetItem", TABLE, {}),
        ("dynamodb:Query", f"{TABLE}/index/by-patient", {}),
        ("dynamodb:PutItem", TABLE, {LEADING: ["STUDY#1.2.3"]}),
    )
]
#: Keys: those of earlier objects, that of the table, and giving an object another one.
KEYS = [
    *(
        Case(role, "kms:Decrypt", OLDER_KEY, context, denied, BOTH)
        for role in ("ct1", "desk", "care", "erase", "copies")
        for context, denied in ((VIA_S3, None), ({}, "Implicit"), (VIA_TABLE, "Implicit"))
    ),
    *(Case(role, "kms:GenerateDataKey", OLDER_KEY, VIA_S3, "Implicit", BOTH) for role in ("ct1", "care", "erase")),
    Case("care", "kms:ReEncryptFrom", OLDER_KEY, VIA_S3, None, BOTH),
    Case("care", "kms:ReEncryptTo", OLDER_KEY, VIA_S3, "Implicit", BOTH),
    *(
        Case(role, f"kms:{action}", TABLE_KEY, context, denied, BOTH)
        for role in ("ct1", "desk", "erase")
        for action in ("Decrypt", "DescribeKey")
        for context, denied in ((VIA_TABLE, None), ({}, "Implicit"), (VIA_S3, "Implicit"))
    ),
    *(Case(role, "kms:Encrypt", TABLE_KEY, VIA_TABLE, None, BOTH) for role in ("ct1", "erase")),
    Case("desk", "kms:Encrypt", TABLE_KEY, VIA_TABLE, "Implicit", BOTH),
    Case("care", "kms:Decrypt", TABLE_KEY, VIA_TABLE, "Implicit", BOTH),
    Case("ct1", "kms:CreateGrant", TABLE_KEY, VIA_TABLE, "Implicit", BOTH),
    *(
        Case(role, "s3:UpdateObjectEncryption", f"{STUDY}/4/5/aa.dcm", KMS, "OnlyMaintenanceChangesTheKey", site)
        for site, roles in ((PLAIN, ("ct1", "care", "it")), (GUARDED, ("ct1", "desk", "erase", "glass", "it")))
        for role in roles
        if role != "erase" or site is GUARDED
    ),
    Case("care", "s3:UpdateObjectEncryption", f"{STUDY}/a", {SSE: "aws:kms", SSE_KEY: OLDER_KEY}, "NoOtherKey", BOTH),
    Case("care", "s3:UpdateObjectEncryption", f"{BUCKET}/other/x", KMS, "Implicit", BOTH),
]
#: S3 itself, when it copies to the second region.
SECOND_REGION = [
    *(
        Case("copies", action, resource, {**FROM_ELSEWHERE, **context}, denied, BOTH)
        for action, resource, context, denied in (
            ("s3:GetReplicationConfiguration", BUCKET, {}, None),
            ("s3:ListBucket", BUCKET, {}, None),
            ("s3:GetObjectVersionForReplication", f"{STUDY}/4/5/aa.dcm", {}, None),
            ("s3:GetObjectVersionTagging", f"{STUDY}/4/5/aa.dcm", {}, None),
            ("s3:GetObjectRetention", f"{STUDY}/4/5/aa.dcm", {}, None),
            ("s3:GetObjectVersionForReplication", f"{BUCKET}/other/x", {}, "Implicit"),
            ("s3:PutObject", f"{STUDY}/4/5/aa.dcm", {**KMS, **CREATED}, "Implicit"),
            ("s3:DeleteObject", f"{STUDY}/4/5/aa.dcm", {}, "Implicit"),
            ("s3:ReplicateObject", f"{COPIES}/rad/studies/1.2.3/4/5/aa.dcm", {}, None),
            ("s3:ReplicateTags", f"{COPIES}/rad/studies/1.2.3/4/5/aa.dcm", {}, None),
            ("s3:ReplicateDelete", f"{COPIES}/rad/studies/1.2.3/4/5/aa.dcm", {}, "Implicit"),
            ("s3:ReplicateObject", f"{COPIES}/other/x", {}, "Implicit"),
            ("s3:DeleteObjectVersion", f"{COPIES}/rad/studies/1.2.3/4/5/aa.dcm", {}, "OnlyBreakGlassEndsVersions"),
            ("s3:GetObject", f"{COPIES}/rad/studies/1.2.3/4/5/aa.dcm", {}, "NotFromElsewhere"),
        )
    ),
    Case("copies", "kms:Decrypt", KEY, VIA_S3, None, BOTH),
    Case("copies", "kms:Decrypt", KEY, {}, "Implicit", BOTH),
    Case("copies", "kms:GenerateDataKey", KEY, VIA_S3, "Implicit", BOTH),
    Case("copies", "kms:Encrypt", COPIES_KEY, VIA_COPIES, None, BOTH),
    Case("copies", "kms:GenerateDataKey", COPIES_KEY, VIA_COPIES, None, BOTH),
    Case("copies", "kms:Encrypt", COPIES_KEY, {}, "Implicit", BOTH),
    Case("copies", "kms:Decrypt", COPIES_KEY, VIA_COPIES, "Implicit", BOTH),
]
#: The log of who reads and writes is not for those whom it logs.
ACCESS_LOG = [
    *(
        Case(role, action, f"{LOG}{path}", {}, "NotByThoseWhomItLogs", BOTH)
        for role in ("ct1", "mr2", "care", "erase", "glass")
        for action, path in (
            ("s3:PutObject", "/AWSLogs/x.json.gz"),
            ("s3:DeleteObject", "/AWSLogs/x.json.gz"),
            ("s3:DeleteObjectVersion", "/AWSLogs/x.json.gz"),
            ("s3:PutLifecycleConfiguration", ""),
            ("s3:PutBucketPolicy", ""),
            ("s3:DeleteBucket", ""),
        )
    ),
    *(
        Case(role, "s3:GetObject", f"{LOG}/AWSLogs/x.json.gz", {}, "Implicit", BOTH)
        for role in ("ct1", "desk", "erase")
    ),
    Case("it", "s3:GetObject", f"{LOG}/AWSLogs/x.json.gz", {"aws:SecureTransport": "false"}, "TlsOnly", BOTH),
    *(Case("it", a, LOG, {}, None, BOTH) for a in ("s3:PutLifecycleConfiguration", "s3:PutBucketPolicy")),
    Case("trail", "s3:GetBucketAcl", LOG, OF_THE_TRAIL, None, BOTH),
    Case("trail", "s3:GetBucketAcl", LOG, OF_ANOTHER_TRAIL, "Implicit", BOTH),
    Case("trail", "s3:PutObject", LOGGED, {**OF_THE_TRAIL, **TO_THE_OWNER}, None, BOTH),
    Case("trail", "s3:PutObject", LOGGED, {**OF_ANOTHER_TRAIL, **TO_THE_OWNER}, "Implicit", BOTH),
    Case("trail", "s3:PutObject", LOGGED, OF_THE_TRAIL, "Implicit", BOTH),
    Case("trail", "s3:PutObject", f"{LOG}/x", {**OF_THE_TRAIL, **TO_THE_OWNER}, "Implicit", BOTH),
    Case("trail", "s3:GetObject", LOGGED, OF_THE_TRAIL, "Implicit", BOTH),
]
ENCRYPTION = [
    Case("ct1", "s3:PutObject", f"{STUDY}/4/5/aa.dcm", {**CREATED, SSE: "AES256"}, "NoOtherEncryption"),
    Case(
        "ct1",
        "s3:PutObject",
        f"{STUDY}/4/5/aa.dcm",
        {**CREATED, SSE: "aws:kms:dsse", SSE_KEY: KEY},
        "NoOtherEncryption",
    ),
    Case(
        "ct1", "s3:PutObject", f"{STUDY}/4/5/aa.dcm", {**CREATED, SSE: "aws:kms", SSE_KEY: KEY + "-not"}, "NoOtherKey"
    ),
    Case(
        "ct1", "s3:PutObject", f"{STUDY}/4/5/aa.dcm", {**CREATED, SSE: "aws:kms", SSE_KEY: "alias/dicom"}, "NoOtherKey"
    ),
    Case("ct1", "s3:PutObject", f"{STUDY}/4/5/aa.dcm", {**CREATED, SSE: "aws:kms"}, "NoUnnamedKey"),
    Case("ct1", "s3:PutObject", f"{STUDY}/4/5/aa.dcm", {**CREATED, SSE_OWN: "AES256"}, "NoKeyOfTheWriter"),
    Case("it", "s3:PutObject", f"{BUCKET}/other/x", {**CREATED, SSE: "AES256"}, "NoOtherEncryption"),
]
TRANSPORT = [
    Case("desk", "s3:GetObject", f"{STUDY}/4/5/aa.dcm", {"aws:SecureTransport": "false"}, "DicomwatchdTlsOnly"),
    Case("it", "s3:PutBucketPolicy", BUCKET, {"aws:SecureTransport": "false"}, "DicomwatchdTlsOnly"),
]
#: What ends versions of objects, or the key.
ENDINGS = (
    ("s3:DeleteObjectVersion", f"{STUDY}/4/5/aa.dcm"),
    ("s3:BypassGovernanceRetention", f"{STUDY}/4/5/aa.dcm"),
    ("s3:DeleteBucket", BUCKET),
    ("s3:PutLifecycleConfiguration", BUCKET),
    ("s3:PutBucketVersioning", BUCKET),
    ("s3:PutBucketObjectLockConfiguration", BUCKET),
)
ADMINISTRATOR = [
    *(Case("it", action, resource, {}, None, PLAIN) for action, resource in ENDINGS),
    *(Case("it", action, resource, {}, "OnlyBreakGlassEndsVersions", GUARDED) for action, resource in ENDINGS),
    *(Case("glass", action, resource, {}, None, BOTH) for action, resource in ENDINGS),
    *(Case("it", f"kms:{a}", KEY, {}, None, PLAIN) for a in ("ScheduleKeyDeletion", "DisableKey")),
    *(
        Case("it", f"kms:{a}", KEY, {}, "OnlyBreakGlassEndsTheKey", GUARDED)
        for a in ("ScheduleKeyDeletion", "DisableKey")
    ),
    *(Case("glass", f"kms:{a}", KEY, {}, None, GUARDED) for a in ("ScheduleKeyDeletion", "DisableKey")),
    # What the bucket's administration needs is never refused: a wrong list can be mended, from anywhere.
    *(
        Case("it", action, BUCKET, FROM_ELSEWHERE, None, BOTH)
        for action in (
            "s3:PutBucketPolicy",
            "s3:DeleteBucketPolicy",
            "s3:GetBucketPolicy",
            "s3:PutEncryptionConfiguration",
        )
    ),
    Case("it", "kms:PutKeyPolicy", KEY, FROM_ELSEWHERE, None, BOTH),
    Case("it", "s3:DeleteObject", f"{STUDY}/4/5/aa.dcm", {}, None, PLAIN),
]
ELSEWHERE = [
    *(
        Case(role, "s3:GetObject", f"{STUDY}/4/5/aa.dcm", place, "NotFromElsewhere", site)
        for role in ("ct1", "desk", "it")
        for site, place in (
            (ENDPOINTS, THROUGH_OTHER),
            (ENDPOINTS, FROM_HOSPITAL),
            (ADDRESSES, FROM_ELSEWHERE),
            (ADDRESSES, THROUGH_A),
            (BOTH, THROUGH_OTHER),
            (BOTH, FROM_ELSEWHERE),
        )
    ),
    *(
        Case("desk", action, f"{BUCKET}{path}", {**FROM_ELSEWHERE, **context}, "NotFromElsewhere", BOTH)
        for action, path, context in (
            ("s3:GetObjectVersion", "/rad/x", {}),
            ("s3:ListBucket", "", {"s3:prefix": "rad/"}),
        )
    ),
    *(
        Case("it", action, f"{BUCKET}{path}", FROM_ELSEWHERE, "NotFromElsewhere", BOTH)
        for action, path in (
            ("s3:PutObjectTagging", "/rad/x"),
            ("s3:DeleteObject", "/rad/x"),
            ("s3:RestoreObject", "/rad/x"),
            ("s3:AbortMultipartUpload", "/rad/x"),
            ("s3:ListMultipartUploadParts", "/rad/x"),
            ("s3:ListBucketVersions", ""),
            ("s3:ListBucketMultipartUploads", ""),
        )
    ),
    Case("it", "s3:GetObject", f"{STUDY}/a", {**FROM_ELSEWHERE, "aws:ViaAWSService": "true"}, None, BOTH),
    Case("it", "s3:GetObject", f"{STUDY}/a", {**FROM_ELSEWHERE, "aws:PrincipalIsAWSService": "true"}, None, BOTH),
    Case("glass", "s3:GetObject", f"{STUDY}/a", FROM_ELSEWHERE, None, BOTH),
    *(
        Case(role, "dynamodb:GetItem", TABLE, place, "NoRecordsFromElsewhere", site)
        for role in ("ct1", "desk")
        for site, place in ((ENDPOINTS, THROUGH_OTHER), (ADDRESSES, FROM_ELSEWHERE), (BOTH, FROM_ELSEWHERE))
    ),
    Case("desk", "dynamodb:Query", f"{TABLE}/index/by-patient", FROM_ELSEWHERE, "NoRecordsFromElsewhere", BOTH),
]
#: In a class that takes hours to be read from, or is kept in one place, what was just sent is of no use to anybody.
OTHER_CLASSES = ("DEEP_ARCHIVE", "GLACIER", "ONEZONE_IA", "STANDARD_IA", "REDUCED_REDUNDANCY", "SNOW")
STORAGE_CLASSES = [
    *(
        Case(role, "s3:PutObject", f"{STUDY}/series/4/instances/5/aa.dcm", {**KMS, **created, CLASS: name}, None, site)
        for role in ("ct1", "mr2")
        for created in (CREATED, {CREATION: "false"})  # CreateMultipartUpload
        for site, names in ((PLAIN, ("STANDARD", "INTELLIGENT_TIERING", "GLACIER_IR")), (ONE_CLASS, ("GLACIER_IR",)))
        for name in names
    ),
    *(
        Case(role, "s3:PutObject", f"{BUCKET}/rad/{path}", {**KMS, **created, CLASS: name}, "DaemonNamesNoOtherClass")
        for role in ("ct1", "mr2")
        for created in (CREATED, {CREATION: "false"})
        for path in (
            "studies/1.2.3/series/4/instances/5/aa.dcm",
            "studies/1.2.3/bundles/aa.tar",
            "studies/1.2.3/manifests/00000001.json",
            "audit/1/00000001.json",
            "probe/1/plain",
        )
        for name in OTHER_CLASSES
    ),
    *(
        Case("ct1", "s3:PutObject", f"{STUDY}/bundles/aa.tar", {**KMS, **CREATED, CLASS: name}, denied, ONE_CLASS)
        for name, denied in (
            ("STANDARD", "DaemonNamesNoOtherClass"),
            ("INTELLIGENT_TIERING", "DaemonNamesNoOtherClass"),
        )
    ),
    # Manifests and the parts of an upload name no class.
    Case("ct1", "s3:PutObject", f"{STUDY}/manifests/00000001.json", {**KMS, **CREATED}, None, ONE_CLASS),
    Case("ct1", "s3:PutObject", f"{STUDY}/bundles/aa.tar", {CREATION: "false"}, None, ONE_CLASS),
    # Who copies in place chooses the class.
    *(
        Case("care", "s3:PutObject", f"{STUDY}/bundles/aa.tar", {**KMS, **OVERWRITTEN, CLASS: name}, None, GUARDED)
        for name in ("DEEP_ARCHIVE", "GLACIER")
    ),
]
ALL = {
    "the roles' own work": WORK,
    "the daemon's credentials": DAEMON,
    "a reader's": READER,
    "maintenance's": MAINTENANCE,
    "the eraser's": ERASER,
    "strangers'": STRANGERS,
    "keys": KEYS,
    "a second region": SECOND_REGION,
    "the log of access": ACCESS_LOG,
    "other encryption": ENCRYPTION,
    "other storage classes": STORAGE_CLASSES,
    "without TLS": TRANSPORT,
    "an administrator's": ADMINISTRATOR,
    "from elsewhere": ELSEWHERE,
}


def policy_on(case: Case) -> str | None:
    """The policy of what is asked for. A key that was made elsewhere has one like that of the stack's own."""
    if case.action.startswith("kms:"):
        return "Key"
    if case.action.startswith("s3:"):
        return "AccessLogPolicy" if case.resource.startswith(LOG) else "BucketPolicy"
    return None


def identity_policies(resources: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    names = ("DaemonPolicy", "FetchPolicy", "MaintenancePolicy", "BreakGlassPolicy")
    found = {name: resources[name]["PolicyDocument"] for name in names if name in resources}
    if "ReplicationRole" in resources:
        found["ReplicationRole"] = resources["ReplicationRole"]["Policies"][0]["PolicyDocument"]
    return found


def asked(case: Case, resources: Mapping[str, Any]) -> Asked:
    if case.role in POLICY_OF:
        policy = identity_policies(resources).get(POLICY_OF[case.role], NOTHING)
    else:
        policy = NOTHING if case.role in ("stranger", "trail") else EVERYTHING
    # Whatever else somebody gives the role: a denial has to come from a statement, not from the want of a permission.
    if case.denied not in (None, "Implicit"):
        policy = {**policy, "Statement": [*policy["Statement"], *EVERYTHING["Statement"]]}
    document = None
    if resource_policy := policy_on(case):
        others = aws_template.built(**STANDBY) if case.resource.startswith(COPIES) else resources
        properties = others[resource_policy]
        document = properties["KeyPolicy" if resource_policy == "Key" else "PolicyDocument"]
    context = {
        "aws:SecureTransport": "true",
        "aws:ViaAWSService": "false",
        "aws:PrincipalIsAWSService": "false",
        **case.context,
    }
    return Asked(ROLES[case.role], case.action, case.resource, context, policy, document, aws_template.ACCOUNT)


def wrong(case: Case, answer: Response) -> bool:
    if case.denied is None:
        return not answer.allowed
    # For a table, which has no policy of its own, another account is refused with no reason given.
    return answer.allowed or (case.denied not in answer.by and (answer.by != () or case.denied != "Implicit"))


@pytest.fixture(scope="module", autouse=True)
def _simulator() -> None:
    skip_unless_available("iam")


@pytest.mark.parametrize("name", ALL)
def test_what_each_role_may_and_may_not(name: str) -> None:
    cases = ALL[name]
    answers = simulate(asked(case, aws_template.built(**case.site)) for case in cases)
    assert not [(c, a) for c, a in zip(cases, answers, strict=True) if wrong(c, a)]


# --- every clause is missed when it is taken out


def clauses(resources: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    """Policy, Sid, and what goes: the statement, one action of a denial, or one key of its condition."""
    for policy, document in documents(resources):
        for statement in document["Statement"]:
            where = policy, statement["Sid"]
            if statement["Effect"] == "Deny":
                yield *where, "statement", None
                actions = statement["Action"]
                for action in actions if isinstance(actions, list) else []:
                    yield *where, "action", action
            for operator, keys in statement.get("Condition", {}).items():
                for key in keys:
                    yield *where, "condition", (operator, key)


def documents(resources: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from identity_policies(resources).items()
    for policy in ("BucketPolicy", "AccessLogPolicy"):
        if policy in resources:
            yield policy, resources[policy]["PolicyDocument"]
    yield "Key", resources["Key"]["KeyPolicy"]


def without(resources: Mapping[str, Any], policy: str, sid: str, kind: str, what: Any) -> dict[str, Any]:
    changed = copy.deepcopy(dict(resources))
    document = dict(documents(changed))[policy]
    (statement,) = [s for s in document["Statement"] if s["Sid"] == sid]
    if kind == "statement":
        document["Statement"].remove(statement)
    elif kind == "action":
        statement["Action"].remove(what)
    else:
        operator, key = what
        del statement["Condition"][operator][key]
        statement["Condition"] = {name: keys for name, keys in statement["Condition"].items() if keys}
    return changed


def could_notice(case: Case, policy: str, statement: Mapping[str, Any], kind: str) -> bool:
    """Without a condition a denial says no to more, and a permission yes; without the rest a denial says no to less."""
    if policy not in (policy_on(case), POLICY_OF.get(case.role)) or case.resource.startswith(COPIES):
        return False
    actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
    if not any(fnmatch.fnmatchcase(case.action, action) for action in actions):
        return False
    if kind == "condition":
        return case.denied is None if statement["Effect"] == "Deny" else case.denied == "Implicit"
    return bool(case.denied == statement["Sid"])


def test_each_clause_that_denies_is_missed() -> None:
    whole = aws_template.built(**BOTH)
    statements = {(p, s["Sid"]): s for p, document in documents(whole) for s in document["Statement"]}
    sites = {id(site): aws_template.built(**site) for site in (PLAIN, GUARDED, ENDPOINTS, ADDRESSES, BOTH)}
    has = {site: set(clauses(resources)) for site, resources in sites.items()}
    questions: list[Asked] = []
    about: list[tuple[tuple[str, str, str, Any], Case]] = []
    for clause in clauses(whole):
        policy, sid, kind, _ = clause
        changed = {site: without(r, *clause) for site, r in sites.items() if clause in has[site]}
        for case in itertools.chain(*ALL.values()):
            if id(case.site) in changed and could_notice(case, policy, statements[policy, sid], kind):
                questions.append(asked(case, changed[id(case.site)]))
                about.append((clause, case))
    answers = simulate(questions)
    noticed = {clause for (clause, case), answer in zip(about, answers, strict=True) if wrong(case, answer)}
    assert [clause for clause in clauses(whole) if clause not in noticed] == []
