"""The CloudFormation template says what `archive init` does, and gives nobody the right to delete."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.dynamodb.setup import definition
from dicomwatchd.archive.stores.port import Transition
from dicomwatchd.archive.stores.s3 import setup as s3_setup
from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.config.archive import Encryption, ObjectTag, StorageClass
from dicomwatchd.model import Uid
from tests import aws_template

ROOT = Path(__file__).parents[2]
SITE = {"BucketName": "hospital", "DaemonPrincipalArn": "arn:aws:iam::123456789012:role/ct1"}
GLASS = "arn:aws:iam::123456789012:role/glass"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/of-the-hospital"


def test_cfn_lint_has_nothing_to_say() -> None:
    """It knows the resources' schemas and IAM's grammar, and resolves the template with each condition both ways."""
    program = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run([program, aws_template.PATH], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["README.md", "etc/config.yaml", "docs/man/dicomwatchd.yaml.5"])
def test_the_key_of_each_sample_is_one_that_the_bucket_accepts(name: str) -> None:
    """The bucket compares the header as text, so an alias is another key to it."""
    text = (ROOT / name).read_text().replace("\\-", "-")
    named = re.findall(r"^ *(?:encryption: \{mode: aws:kms, key_id: |--kms-key )([^ }\n]+)", text, re.MULTILINE)
    assert named
    pattern = aws_template.parameters()["KmsKeyArn"]["AllowedPattern"]
    assert [key for key in named if not re.fullmatch(pattern, key)] == []


def test_the_table_is_the_one_that_init_makes() -> None:
    table = aws_template.built(**SITE, TableName="${TableName}")["Table"]
    recovery = table.pop("PointInTimeRecoverySpecification")
    assert recovery == {"PointInTimeRecoveryEnabled": True}
    made = definition("${TableName}")
    for whole in (table, made):
        whole["AttributeDefinitions"] = sorted(whole["AttributeDefinitions"], key=str)
    assert table == made


def test_the_buckets_rules_are_the_ones_that_init_makes() -> None:
    bucket = aws_template.resources()["Bucket"]
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    abort, probe, _ = bucket["LifecycleConfiguration"]["Rules"]
    assert (abort["Prefix"], abort["Status"]) == ("${Prefix}", "Enabled")
    assert abort["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": s3_setup.ABORT_DAYS}
    assert set(abort) == {"Id", "Status", "Prefix", "AbortIncompleteMultipartUpload"}  # and expires nothing
    assert (probe["Prefix"], probe["Status"]) == ("${Prefix}" + keys.PROBE, "Enabled")
    assert probe["ExpirationInDays"] == s3_setup.PROBE_DAYS
    assert probe["NoncurrentVersionExpiration"] == {"NoncurrentDays": s3_setup.PROBE_DAYS}


def test_the_bucket_denies_what_it_should() -> None:
    denials = {s["Sid"]: s for s in aws_template.statements("BucketPolicy", "Deny")}
    everything = ["${Bucket.Arn}", "${Bucket.Arn}/*"]
    tls = denials[s3_setup.TLS_SID]
    assert (tls["Principal"], tls["Action"], tls["Resource"]) == ("*", ["s3:*"], everything)
    assert tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    deletion = denials["DaemonDeletesNothing"]
    assert "s3:DeleteObject*" in deletion["Action"] and deletion["Resource"] == everything
    assert deletion["Condition"] == {"ArnEquals": {"aws:PrincipalArn": "${DaemonPrincipalArn}"}}
    assert denials["CreateOnly"]["Resource"] == [
        "${Bucket.Arn}/${Prefix}" + keys.STUDIES + "*",
        "${Bucket.Arn}/${Prefix}" + keys.ERASED + "*",
        "${Bucket.Arn}/${Prefix}" + keys.AUDIT + "*",
        "${Bucket.Arn}/${Prefix}" + keys.IDENTITY,
    ]
    assert {"NoOtherKey", "NoOtherEncryption"} <= set(denials)
    assert aws_template.statements("BucketPolicy", "Allow") == []
    # CloudFormation reads no aliases of YAML, though this test's reader does.
    assert not [line for line in aws_template.PATH.read_text().splitlines() if " &" in line or ": *" in line]


def test_objects_are_locked_where_it_is_asked_for() -> None:
    plain = aws_template.built(**SITE)["Bucket"]
    assert "ObjectLockEnabled" not in plain and "ObjectLockConfiguration" not in plain
    locked = aws_template.built(**SITE, ObjectLockMode="GOVERNANCE", ObjectLockDays=3650)["Bucket"]
    assert locked["ObjectLockEnabled"] is True
    retention = locked["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    assert retention == {"Mode": "GOVERNANCE", "Days": 3650}
    assert locked["VersioningConfiguration"] == {"Status": "Enabled"}


@pytest.mark.parametrize("policy", ["DaemonPolicy", "FetchPolicy", "RestorePolicy", "IndexPolicy", "MaintenancePolicy"])
def test_nobody_is_given_more_than_named_actions_on_named_things(policy: str) -> None:
    for statement in aws_template.statements(policy, "Allow"):
        for action in statement["Action"]:
            assert "*" not in action
            # BatchWriteItem deletes, and so do updates and transactions in effect.
            assert not any(word in action for word in ("Delete", "BatchWrite", "UpdateItem", "PartiQL", "Remove"))
        assert statement["Resource"] != "*" and "*" not in str(statement["Resource"])[:3]


def test_who_fetches_writes_nothing() -> None:
    for service in ("s3", "dynamodb", "kms"):
        for action in aws_template.allowed("FetchPolicy", service):
            assert action.startswith(("Get", "List", "BatchGet", "Describe", "Query", "Decrypt"))


def test_the_daemon_sends_below_studies_audit_and_probe_only() -> None:
    (send,) = [s for s in aws_template.statements("DaemonPolicy", "Allow") if "s3:PutObject" in s["Action"]]
    folders = (keys.STUDIES, keys.AUDIT, keys.PROBE)
    assert send["Resource"] == [f"${{Bucket.Arn}}/${{Prefix}}{folder}*" for folder in folders]


def test_nobody_may_delete_unless_somebody_is_named_for_it() -> None:
    assert "BreakGlassPolicy" not in aws_template.built(**SITE)
    policy = aws_template.built(**SITE, BreakGlassPrincipalArn=GLASS)["BreakGlassPolicy"]["PolicyDocument"]
    deleting = {s["Sid"]: s["Resource"] for s in policy["Statement"] if any("Delete" in a for a in s["Action"])}
    assert deleting == {
        "EraseObjects": f"arn:aws:s3:::hospital/{keys.STUDIES}*",
        "EraseRecords": f"arn:aws:dynamodb:eu-central-1:{aws_template.ACCOUNT}:table/dicom-studies",
    }
    assert not [s for s in policy["Statement"] if "s3:BypassGovernanceRetention" in s["Action"]]


@pytest.mark.parametrize(
    ("parameters", "key"),
    [
        ({}, None),
        ({"TableKmsKeyArn": KEY}, KEY),
        ({"TableKmsKeyArn": "archive"}, f"arn:aws:kms:eu-central-1:{aws_template.ACCOUNT}:key/made-here"),
        ({"TableKmsKeyArn": "archive", "KmsKeyArn": KEY}, KEY),
    ],
)
def test_a_key_for_the_table(parameters: dict[str, str], key: str | None) -> None:
    """The roles that work with the table may then use that key through DynamoDB, and through nothing else."""
    resources = aws_template.built(**SITE, BreakGlassPrincipalArn=GLASS, **parameters)
    encrypted = key and {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": key}
    assert resources["Table"].get("SSESpecification") == encrypted
    for policy in ("DaemonPolicy", "FetchPolicy", "BreakGlassPolicy"):
        statements = resources[policy]["PolicyDocument"]["Statement"]
        found = [s["Resource"] for s in statements if s["Sid"] == "UseTheKeyOfTheTable"]
        assert found == ([key] if key else [])
    assert "UseTheKeyOfTheTable" not in str(resources["MaintenancePolicy"])


COPIES = {"ReplicaBucketArn": "arn:aws:s3:::hospital-2", "ReplicaKmsKeyArn": KEY.replace("central", "north")}


def test_a_second_region() -> None:
    assert "ReplicationConfiguration" not in aws_template.built(**SITE)["Bucket"]
    assert "ReplicationRole" not in aws_template.built(**SITE)
    resources = aws_template.built(**SITE, **COPIES, Prefix="rad/", OlderKmsKeyArns=KEY)
    configuration = resources["Bucket"]["ReplicationConfiguration"]
    (rule,) = configuration["Rules"]
    assert (rule["Status"], rule["Filter"], rule["DeleteMarkerReplication"]) == (
        "Enabled",
        {"Prefix": "rad/"},
        {"Status": "Disabled"},
    )
    # S3 copies objects under a KMS key only if it is told to, and with which key.
    assert rule["SourceSelectionCriteria"] == {"SseKmsEncryptedObjects": {"Status": "Enabled"}}
    assert rule["Destination"]["EncryptionConfiguration"] == {"ReplicaKmsKeyID": COPIES["ReplicaKmsKeyArn"]}
    role = resources["ReplicationRole"]["Policies"][0]["PolicyDocument"]["Statement"]
    actions = [action for s in role for action in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])]
    assert not [a for a in actions if "Delete" in a or "*" in a or a == "s3:PutObject"]
    assert {s["Sid"]: s["Resource"] for s in role} == {
        "LookAtTheBucket": "arn:aws:s3:::hospital",
        "ReadTheOriginals": "arn:aws:s3:::hospital/rad/*",
        "WriteTheCopies": "arn:aws:s3:::hospital-2/rad/*",
        "UseTheKey": f"arn:aws:kms:eu-central-1:{aws_template.ACCOUNT}:key/made-here",
        "ReadWithOlderKeys": [KEY],
        "UseTheKeyOfTheCopies": COPIES["ReplicaKmsKeyArn"],
    }


def test_a_log_of_who_reads_and_writes() -> None:
    assert not {"AccessLog", "AccessLogPolicy", "Trail"} & set(aws_template.built(**SITE))
    resources = aws_template.built(**SITE, Prefix="rad/", AccessLogBucketName="hospital-log")
    trail = resources["Trail"]
    assert trail["IsLogging"] and trail["EnableLogFileValidation"] and trail["S3BucketName"] == "hospital-log"
    logged = [{f["Field"]: f.get("Equals") or f["StartsWith"] for f in s["FieldSelectors"]} for s in _selectors(trail)]
    data = {"eventCategory": ["Data"]}
    table = f"arn:aws:dynamodb:eu-central-1:{aws_template.ACCOUNT}:table/dicom-studies"
    assert logged == [
        {**data, "resources.type": ["AWS::S3::Object"], "resources.ARN": ["arn:aws:s3:::hospital/rad/"]},
        {**data, "resources.type": ["AWS::DynamoDB::Table"], "resources.ARN": [table]},
    ]
    arn = f"arn:aws:cloudtrail:eu-central-1:{aws_template.ACCOUNT}:trail/{trail['TrailName']}"
    for statement in resources["AccessLogPolicy"]["PolicyDocument"]["Statement"]:
        if statement["Effect"] == "Allow":
            assert statement["Principal"] == {"Service": "cloudtrail.amazonaws.com"}
            assert statement["Condition"]["StringEquals"]["aws:SourceArn"] == arn


def _selectors(trail: dict[str, Any]) -> list[dict[str, Any]]:
    selectors: list[dict[str, Any]] = trail["AdvancedEventSelectors"]
    return selectors


def test_the_parameters_are_all_described_in_the_documents() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    names = set(aws_template.parameters()) - {"BucketName", "Prefix", "TableName"}
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_storage_classes_are_those_that_can_be_configured() -> None:
    """No daemon is kept from its work by a stack that is updated."""
    defined = aws_template.parameters()["StorageClasses"]
    classes = get_args(get_args(StorageClass)[0])
    assert defined["Default"].split(",") == list(classes)
    assert all(re.fullmatch(defined["AllowedPattern"], name) for name in classes)
    assert not re.fullmatch(defined["AllowedPattern"], "DEEP_ARCHIVE")


PREFIXED: dict[str, object] = {**SITE, "Prefix": "rad/"}
TAG = ObjectTag(key="archive", value="images")
TAGGED: dict[str, object] = {**PREFIXED, "ObjectTagKey": TAG.key, "ObjectTagValue": TAG.value}


@pytest.mark.parametrize("more", [{}, {"ObjectTagKey": "archive"}, {"ColdAfterDays": "90"}])
def test_nothing_moves_that_was_not_asked_for(more: dict[str, object]) -> None:
    assert len(aws_template.built(**PREFIXED, **more)["Bucket"]["LifecycleConfiguration"]["Rules"]) == 2


def test_what_moves_has_the_tag_and_does_not_end() -> None:
    built = aws_template.built(**TAGGED, ColdAfterDays="90", ColdStorageClass="DEEP_ARCHIVE")
    rule = built["Bucket"]["LifecycleConfiguration"]["Rules"][2]
    made: list[Any] = []

    class Client:
        meta = SimpleNamespace(partition="aws")

        def get_bucket_lifecycle_configuration(self, **_: object) -> Any:
            return {"Rules": made}

        def put_bucket_lifecycle_configuration(self, LifecycleConfiguration: Any, **_: object) -> None:
            made.extend(LifecycleConfiguration["Rules"])

    client = cast(Any, Client())
    bucket = S3Bucket(client=client, name="b", prefix="rad/", endpoint="s3", encryption=Encryption(), tag=TAG)
    s3_setup.add_transitions(bucket, [Transition(90, "DEEP_ARCHIVE")], lambda: "x")
    [of_init] = made
    assert (rule["Id"], rule["Status"]) == (of_init["ID"], of_init["Status"])
    assert {"Prefix": rule["Prefix"], "Tags": rule["TagFilters"]} == of_init["Filter"]["And"]
    assert [(one["TransitionInDays"], one["StorageClass"]) for one in rule["Transitions"]] == [("90", "DEEP_ARCHIVE")]
    assert set(rule) == {"Id", "Status", "Prefix", "TagFilters", "Transitions"}  # and expires nothing


def test_who_sends_tags_only_what_has_a_tag() -> None:
    def tagging(**site: object) -> list[Any]:
        policy = aws_template.built(**site)["DaemonPolicy"]["PolicyDocument"]["Statement"]
        return [one for one in policy if one["Action"] == "s3:PutObjectTagging"]

    assert tagging(**PREFIXED) == []
    [allowed] = tagging(**TAGGED)
    study, instance = Uid("1.2"), keys.instance(Uid("1.2"), Uid("1.2.3"), Uid("1.2.3.4"), "0" * 64)
    for key, is_tagged in (
        (instance, True),
        (keys.bundle(study, "0" * 64), True),
        (keys.PROBE + "x/class", True),
        (keys.manifest(study, 1), False),
        (keys.export(study, "0" * 64), False),
        (keys.IDENTITY, False),
    ):
        resource = f"arn:aws:s3:::hospital/rad/{key}"
        assert any(fnmatch.fnmatchcase(resource, pattern) for pattern in allowed["Resource"]) is is_tagged, key
    assert allowed["Condition"]["ForAllValues:StringEquals"] == {"s3:RequestObjectTagKeys": [TAG.key]}


def test_who_writes_what_viewers_read_writes_nothing_else() -> None:
    assert aws_template.allowed("IndexPolicy", "s3") == {"PutObject"}
    [put] = [s for s in aws_template.statements("IndexPolicy", "Allow") if "s3:PutObject" in s["Action"]]
    study = Uid("1.2.3")
    for key, is_allowed in (
        (keys.series_index(study, Uid("1.2.3.4"), "0" * 64), True),
        (keys.manifest(study, 1), False),
        (keys.instance(study, Uid("1.2.3.4"), Uid("1.2.3.5"), "0" * 64), False),
        (keys.bundle(study, "0" * 64), False),
        (keys.erasure(study, 1), False),
        (keys.IDENTITY, False),
    ):
        pattern = put["Resource"].replace("${Bucket.Arn}/${Prefix}", "")
        assert fnmatch.fnmatchcase(key, pattern) is is_allowed, key


def test_restoring_is_a_right_of_its_own() -> None:
    assert aws_template.allowed("RestorePolicy", "s3") == {"RestoreObject"}
    assert "RestoreObject" not in aws_template.allowed("FetchPolicy", "s3") | aws_template.allowed("DaemonPolicy", "s3")
