"""The policies of etc/aws/archive.yaml on a real gateway, with a user for each role: the programs do their work with
these rights and no others, and a thief of the credentials does no more.

The gateway evaluates bucket policies, so what the template gives to roles stands there, for users of its own. It does
not know aws:PrincipalArn, aws:SecureTransport, s3:if-none-match and s3:ObjectCreationOperation, and takes
"Null": "false" for "true": what hangs on these is shown by tests/conformance/test_aws_rights.py alone.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.exceptions
import pytest

from dicomwatchd.archive import keys
from dicomwatchd.model import Uid
from tests import aws_template
from tests.servers.ceph import KMS_KEY_ID, CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.synthetic import Made, Maker
from tests.system.site import Site

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = "rad/"
_NOT_KNOWN_THERE = {"s3:PutEncryptionConfiguration", "s3:GetEncryptionConfiguration", "s3:UpdateObjectEncryption"}
ROLES = {"daemon": "DaemonPolicy", "reader": "FetchPolicy", "care": "MaintenancePolicy"}
#: Beyond the 16 MiB from which a file goes in parts.
LARGE = {"rows": 3000, "columns": 3000}


def policy_of_the_gateway(bucket: str, users: dict[str, str]) -> dict[str, Any]:
    arns = {role: f"arn:aws:iam::{aws_template.ACCOUNT}:role/{role}" for role in users}
    key = f"arn:aws:kms:eu-central-1:{aws_template.ACCOUNT}:key/of-the-hospital"
    resources = aws_template.built(
        BucketName=bucket,
        Prefix=PREFIX,
        DaemonPrincipalArn=arns["daemon"],
        MaintenancePrincipalArn=arns["care"],
        KmsKeyArn=key,
    )
    # Here an object belongs to who has sent it; on Amazon the template gives it to the bucket's owner.
    everything = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    owner = {"AWS": ["arn:aws:iam:::user/test"]}
    statements: list[dict[str, Any]] = [
        {"Sid": "Owner", "Effect": "Allow", "Principal": owner, "Action": "s3:*", "Resource": everything}
    ]
    for statement in resources["BucketPolicy"]["PolicyDocument"]["Statement"]:
        condition = dict(statement.get("Condition", {}))
        if statement["Sid"] in ("NoUnnamedKey", "NoKeyOfTheWriter", "OnlyMaintenanceChangesTheKey"):
            continue
        if isinstance(statement["Action"], list):
            statement = {**statement, "Action": [a for a in statement["Action"] if a not in _NOT_KNOWN_THERE]}
        if "ArnEquals" in condition:
            (arn,) = condition.pop("ArnEquals")["aws:PrincipalArn"]
            (role,) = [role for role, named in arns.items() if named == arn]
            statement = {**statement, "Principal": {"AWS": [users[role]]}}
        condition.pop("ArnNotEquals", None)
        statements.append({**statement, "Condition": condition} if condition else _without_condition(statement))
    for role, policy in ROLES.items():
        for statement in resources[policy]["PolicyDocument"]["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            actions = [a for a in actions if a.startswith("s3:") and a not in _NOT_KNOWN_THERE]
            places = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
            if actions:
                places = [place for place in places if place.startswith("arn:aws:s3:")]
                named = {"Sid": role + statement["Sid"], "Principal": {"AWS": [users[role]]}}
                statements.append({**statement, **named, "Action": actions, "Resource": places})
    document: dict[str, Any] = json.loads(
        json.dumps({"Version": "2012-10-17", "Statement": statements}).replace(key, KMS_KEY_ID)
    )
    return document


def _without_condition(statement: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in statement.items() if name != "Condition"}


@dataclass(frozen=True)
class Stolen:
    """An archive that holds one study, with what each role got of it, and a client with each role's credentials."""

    site: Site
    bucket: str
    study: list[Made]
    large: Made
    clients: dict[str, S3Client]
    environments: dict[str, dict[str, str]]

    def key(self, made: Made) -> str:
        uids = Uid(made.study_uid), Uid(made.series_uid), Uid(made.sop_instance_uid)
        return PREFIX + keys.instance(*uids, made.sha256)


@pytest.fixture(scope="module")
def stolen(tmp_path_factory: pytest.TempPathFactory, rgw: CephRgw, dynamodb: DynamoDBLocal) -> Iterator[Stolen]:
    root, bucket = tmp_path_factory.mktemp("stolen"), f"test-{uuid.uuid4().hex}"
    names = {role: f"{role}-{uuid.uuid4().hex[:8]}" for role in ROLES}
    environments = {role: rgw.add_user(name) for role, name in names.items()}
    archive = {
        "store": {
            "kind": "s3",
            "bucket": bucket,
            "prefix": PREFIX,
            "endpoint_url": rgw.https_endpoint,
            "ca_file": str(rgw.ca_file),
            "region": rgw.region,
            "encryption": {"mode": "aws:kms", "key_id": KMS_KEY_ID},
        },
        "catalogue": {
            "kind": "dynamodb",
            "table": bucket,
            "endpoint_url": dynamodb.https_endpoint,
            "ca_file": str(dynamodb.ca_file),
            "region": dynamodb.region,
        },
    }
    site = Site(root, archive, environment=rgw.env())
    site.environment.pop("AWS_CA_BUNDLE", None)
    site.init()
    owner = rgw.client(tls=True)
    owner.put_object(Bucket=bucket, Key="other/secret", Body=b"of another department")
    users = {role: f"arn:aws:iam:::user/{name}" for role, name in names.items()}
    owner.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy_of_the_gateway(bucket, users)))
    site.environment |= environments["daemon"]
    maker = Maker(seed=9)
    study = maker.ct_series(site.inbox / "a", slices=5, rows=64, columns=64)
    large = maker.ct_series(site.inbox / "b", slices=1, **LARGE)[0]
    assert site.once() == 0
    clients = {role: rgw.client(tls=True, user=env) for role, env in environments.items()}
    yield Stolen(site, bucket, study, large, {**clients, "owner": owner}, environments)
    site.close()
    for client in clients.values():
        client.close()
    owner.close()


def test_the_daemon_works_with_these_rights_and_no_others(stolen: Stolen) -> None:
    """A look at the bucket, the probe, single objects, a large one in parts, manifests, audit, deletion on proof."""
    site = stolen.site
    assert site.left() == []
    assert [e["files"] for e in site.events("study-archived")]
    assert not site.events("study-parked") and not site.events("study-delayed")
    held = stolen.clients["owner"].head_object(Bucket=stolen.bucket, Key=stolen.key(stolen.large))
    assert held["ContentLength"] > 16 << 20 and "-" in held["ETag"], "it went in parts"


def test_a_reader_fetches_and_verifies_with_these_rights(stolen: Stolen, tmp_path: Path) -> None:
    site, study = stolen.site, stolen.study[0].study_uid
    before = dict(site.environment)
    site.environment |= stolen.environments["reader"]
    try:
        site.ctl("fetch", study, "-o", str(tmp_path / "out"))
        assert len(list((tmp_path / "out").rglob("*.dcm"))) == 5
        site.ctl("verify", "--deep", study)
        unknown = site.ctl("fetch", "1.2.3.4.5", "-o", str(tmp_path / "none"), check=False)
        assert unknown.returncode == 1 and "not in the archive" in unknown.stderr
    finally:
        site.environment = before


def test_what_is_not_there_is_told_from_what_is_refused(stolen: Stolen) -> None:
    """Listing ends at the prefix, so the gateway answers 403 for what is missing."""
    site, bucket = stolen.site, stolen.bucket
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        stolen.clients["daemon"].head_object(Bucket=bucket, Key=f"{PREFIX}studies/none")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    late = Maker(seed=10).ct_series(site.inbox / "late", slices=2, rows=64, columns=64)
    assert site.once() == 0 and site.left() == []
    stolen.clients["owner"].head_object(Bucket=bucket, Key=stolen.key(late[0]))


def attempt(work: Callable[[], Any]) -> str:
    try:
        work()
    except botocore.exceptions.ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return "denied" if status == 403 else f"{error.response['Error']['Code']} ({status})"
    return "done"


def attempts(client: S3Client, bucket: str, key: str) -> dict[str, str]:
    kms: Any = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": KMS_KEY_ID}
    new = f"{PREFIX}studies/thief/{uuid.uuid4().hex}"

    def in_parts() -> None:
        upload = client.create_multipart_upload(Bucket=bucket, Key=new + "-parts", **kms)["UploadId"]
        tag = client.upload_part(Bucket=bucket, Key=new + "-parts", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
        parts: Any = {"Parts": [{"PartNumber": 1, "ETag": tag}]}
        client.complete_multipart_upload(Bucket=bucket, Key=new + "-parts", UploadId=upload, MultipartUpload=parts)

    work: dict[str, Callable[[], Any]] = {
        "read an object": lambda: client.get_object(Bucket=bucket, Key=key),
        "list the archive": lambda: client.list_objects_v2(Bucket=bucket, Prefix=PREFIX),
        "create an object": lambda: client.put_object(Bucket=bucket, Key=new, Body=b"x", **kms),
        "create one without an encryption header": lambda: client.put_object(Bucket=bucket, Key=new + "1", Body=b"x"),
        "create one in parts": in_parts,
        "create one outside the archive": lambda: client.put_object(Bucket=bucket, Key="other/x", Body=b"x", **kms),
        "create an identity": lambda: client.put_object(Bucket=bucket, Key=f"{PREFIX}archive.json", Body=b"x", **kms),
        "delete an object": lambda: client.delete_object(Bucket=bucket, Key=key),
        "delete many": lambda: _deleted(client, bucket, key),
        "read outside the archive": lambda: client.get_object(Bucket=bucket, Key="other/secret"),
        "list outside the archive": lambda: client.list_objects_v2(Bucket=bucket, Prefix="other/"),
        "list everything": lambda: client.list_objects_v2(Bucket=bucket),
        "delete the bucket": lambda: client.delete_bucket(Bucket=bucket),
        "change the policy": lambda: client.put_bucket_policy(Bucket=bucket, Policy='{"Statement": []}'),
        "lift the policy": lambda: client.delete_bucket_policy(Bucket=bucket),
        "let objects expire": lambda: client.put_bucket_lifecycle_configuration(
            Bucket=bucket,
            LifecycleConfiguration={
                "Rules": [{"ID": "x", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]
            },
        ),
        "suspend versions": lambda: client.put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}
        ),
        "open it to everybody": lambda: client.put_bucket_acl(Bucket=bucket, ACL="public-read"),
    }
    return {name: attempt(what) for name, what in work.items()}


def _deleted(client: S3Client, bucket: str, key: str) -> None:
    """The answer to a request of many is 200 whatever becomes of each."""
    answer = client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}]})
    if answer.get("Errors"):
        code: Any = {"Error": {"Code": "x"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise botocore.exceptions.ClientError(code, "DeleteObjects")


READS = {"read an object", "list the archive"}
WRITES = {"create an object", "create one without an encryption header", "create one in parts"}


@pytest.mark.parametrize(("role", "can"), [("daemon", READS | WRITES), ("reader", READS), ("care", READS | WRITES)])
def test_what_a_thief_of_the_credentials_can_do(stolen: Stolen, role: str, can: set[str]) -> None:
    key = stolen.key(stolen.study[0])
    found = attempts(stolen.clients[role], stolen.bucket, key)
    assert {name for name, outcome in found.items() if outcome == "done"} == can
    assert {outcome for name, outcome in found.items() if name not in can} == {"denied"}, found
    stolen.clients["owner"].head_object(Bucket=stolen.bucket, Key=key)
    assert stolen.clients["owner"].get_bucket_policy(Bucket=stolen.bucket)["Policy"]
