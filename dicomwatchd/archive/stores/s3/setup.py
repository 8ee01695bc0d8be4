"""Making the bucket of an archive: what is missing is added, what others have set there is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import botocore.exceptions

from dicomwatchd.archive import keys
from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.archive.aws.responses import UNKNOWN
from dicomwatchd.archive.stores.port import InitStep, Transition
from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.config.archive import ObjectTag, S3Settings
from dicomwatchd.errors import NotSupported

ABORT_DAYS = 7
PROBE_DAYS = 1
TLS_SID = "DicomwatchdTlsOnly"

_ABSENT = frozenset(
    (
        "NoSuchBucketPolicy",
        "NoSuchLifecycleConfiguration",
        "NoSuchLifecycle",
        "ServerSideEncryptionConfigurationNotFoundError",
        "NoSuchEncryptionConfiguration",
        "404",
    )
)


#: What others put there is then a call of the key service each; the archive's own objects ask for it themselves.
_WITHOUT_BUCKET_KEY = "without an S3 Bucket Key; every object of the archive is sent with one"


_TRANSITIONS = "lifecycle of instances and bundles"
_DEFAULT = "ApplyServerSideEncryptionByDefault"
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lifecycle-mgmt.html
_MOST_RULES = 1000
_WOULD_LOSE = (
    "the bucket's {what} hold what this program does not know, and would lose: {names}; they were left, so change them"
    " with the store's own tools"
)


class _NotSupported(Exception):
    """The store cannot do a step; the reason is our own words and the store's error code."""


def initialise(bucket: S3Bucket, settings: S3Settings, random_name: Callable[[], str]) -> list[InitStep]:
    """Create the bucket and set what protects it, as far as the store can: each step says what came of it.

    A second run finds everything present and changes nothing. Raises OutOfReach and Transient when the store cannot
    be talked to; a step that the store refuses is reported as "not supported", with its error code.
    """
    steps = [_make_bucket(bucket)]
    setup = _Setup(bucket, random_name, amazon=bucket.is_amazon)
    steps.append(setup.step("versioning", setup.versioning))
    if not settings.insecure_http:
        steps.append(setup.step("TLS-only policy", setup.tls_only_policy))
    steps.append(setup.step("lifecycle of unfinished uploads and probe objects", setup.lifecycle))
    if settings.encryption.mode != "store-default":
        steps.append(setup.step("default encryption", setup.default_encryption))
    return steps


def add_transitions(bucket: S3Bucket, transitions: Sequence[Transition], random_name: Callable[[], str]) -> InitStep:
    """As `ObjectStore.add_transitions`. Raises NotSupported without a tag: a rule without one would move manifests."""
    if bucket.tag is None:
        raise NotSupported("instances are stored without a tag, by which a lifecycle rule could tell them")
    setup, tag = _Setup(bucket, random_name, amazon=bucket.is_amazon), bucket.tag
    return setup.step(_TRANSITIONS, lambda: setup.transitions(tag, transitions))


def _make_bucket(bucket: S3Bucket) -> InitStep:
    client, what = bucket.client, "bucket"
    try:
        client.head_bucket(Bucket=bucket.name)
        return InitStep(what, "present")
    except botocore.exceptions.ClientError as error:
        if aws.http_status(error) != 404:
            raise aws.translate(error, operation="HeadBucket", endpoint=bucket.endpoint) from error
    except aws.FOREIGN as error:
        raise aws.translate(error, operation="HeadBucket", endpoint=bucket.endpoint) from error
    region = client.meta.region_name
    arguments: Any = {}
    if bucket.is_amazon and region != "us-east-1":  # which Amazon wants not to be named
        arguments["CreateBucketConfiguration"] = {"LocationConstraint": region}
    try:
        client.create_bucket(Bucket=bucket.name, **arguments)
    except botocore.exceptions.ClientError as error:
        if aws.error_code(error) == "BucketAlreadyOwnedByYou":
            return InitStep(what, "present")
        raise aws.translate(error, operation="CreateBucket", endpoint=bucket.endpoint) from error
    except aws.FOREIGN as error:
        raise aws.translate(error, operation="CreateBucket", endpoint=bucket.endpoint) from error
    return InitStep(what, "created")


class _Setup:
    """The settings of one bucket. Each method returns an outcome and a detail, or raises _NotSupported."""

    def __init__(self, bucket: S3Bucket, random_name: Callable[[], str], *, amazon: bool) -> None:
        self._amazon = amazon
        self._random_name = random_name
        self._bucket = bucket
        self._client = bucket.client
        self._name: Any = {"Bucket": bucket.name}
        self._arn = f"arn:{bucket.client.meta.partition}:s3:::{bucket.name}"

    def step(self, what: str, work: Callable[[], InitStep]) -> InitStep:
        try:
            return work()
        except _NotSupported as error:
            return InitStep(what, "not supported", str(error))
        except botocore.exceptions.ClientError as error:
            # Stores answer what they do not know in many ways (501, 405, 400, 500): the code is all there is to say.
            code, status = aws.error_code(error), aws.http_status(error)
            return InitStep(what, "not supported", f"the store answered {code} ({status})")
        except aws.FOREIGN as error:
            raise aws.translate(error, operation=what, endpoint=self._bucket.endpoint) from error

    def versioning(self) -> InitStep:
        what = "versioning"
        status = self._versioning()
        if status == "Suspended":
            raise _NotSupported("it was switched off in this bucket earlier and was left off")
        # Ceph 18 forgets about If-None-Match in a versioned bucket. That a revision is created once, whoever else
        # writes, matters more to us than versions of objects that nobody overwrites; and what has been switched on
        # once cannot be taken back, so it is tried elsewhere first. Amazon documents that both go together.
        safe = self._amazon or self._create_only_goes_with_versions()
        if status == "Enabled":
            return InitStep(what, "present", "" if safe else "with versions, this store lets objects be overwritten")
        if not safe:
            raise _NotSupported("with versions, this store would let objects be overwritten")
        self._client.put_bucket_versioning(**self._name, VersioningConfiguration={"Status": "Enabled"})
        if self._versioning() != "Enabled":
            raise _NotSupported("the store accepted it but does not keep it")
        return InitStep(what, "set")

    def tls_only_policy(self) -> InitStep:
        what = "TLS-only policy"
        policy = self._policy()
        wanted = {
            "Sid": TLS_SID,
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [self._arn, f"{self._arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
        statements: Any = policy.get("Statement", [])
        if isinstance(statements, dict):
            statements = [statements]
        if any(denies_plain(statement, self._arn) for statement in statements):
            return InitStep(what, "present")
        policy = {
            "Version": "2012-10-17",
            **policy,
            "Statement": [*(s for s in statements if s.get("Sid") != TLS_SID), wanted],
        }
        self._client.put_bucket_policy(**self._name, Policy=json.dumps(policy))
        if not any(denies_plain(statement, self._arn) for statement in self._policy().get("Statement", [])):
            raise _NotSupported("the store accepted it but does not keep it")
        return InitStep(what, "set", "a store may keep this policy without enforcing it")

    def lifecycle(self) -> InitStep:
        what = "lifecycle of unfinished uploads and probe objects"
        present, extra, unknown = self._lifecycle()
        wanted = self._wanted_rules()
        missing = [rule for rule in wanted if not any(_same_rule(rule, other) for other in present)]
        if not missing:
            return InitStep(what, "present")
        replaced = {rule["ID"] for rule in missing}
        rules = [rule for rule in present if rule.get("ID") not in replaced] + missing
        self._put_rules(rules, extra, unknown)
        kept = self._lifecycle()[0]
        if not all(any(_same_rule(rule, other) for other in kept) for rule in wanted):
            raise _NotSupported("the store accepted it but does not keep it")
        return InitStep(what, "set", f"aborted after {ABORT_DAYS} days, expired after {PROBE_DAYS}")

    def transitions(self, tag: ObjectTag, transitions: Sequence[Transition]) -> InitStep:
        present, extra, unknown = self._lifecycle()
        wanted = {
            "ID": f"dicomwatchd-transition {self._bucket.prefix}".strip(),
            "Status": "Enabled",
            "Filter": {
                "And": {
                    "Prefix": self._bucket.prefix + keys.STUDIES,
                    "Tags": [{"Key": tag.key, "Value": tag.value}],
                }
            },
            "Transitions": [{"Days": one.days, "StorageClass": one.storage_class} for one in transitions],
        }
        if any(_moves_alike(wanted, other) for other in present):
            return InitStep(_TRANSITIONS, "present")
        if any(rule.get("ID") == wanted["ID"] for rule in present):
            raise _NotSupported(
                "a rule of this name has other settings and was left; change or remove it with the store's own tools"
            )
        self._put_rules([*present, wanted], extra, unknown)
        kept = self._lifecycle()[0]
        if not any(_moves_alike(wanted, other) for other in kept):
            raise _NotSupported("the store accepted it but does not keep it")
        return InitStep(_TRANSITIONS, "set", "nothing expires; other rules were left as they are")

    def _put_rules(self, rules: list[Any], extra: Any, unknown: Sequence[str]) -> None:
        """All rules of the bucket, for they are written as one document. Raises _NotSupported where a rule would lose
        something: one that was for some objects alone would then be for others, too."""
        if unknown:
            raise _NotSupported(_WOULD_LOSE.format(what="rules", names=", ".join(unknown)))
        try:
            self._client.put_bucket_lifecycle_configuration(
                **self._name, LifecycleConfiguration={"Rules": rules}, **extra
            )
        except botocore.exceptions.ClientError as error:
            if aws.http_status(error) == 400 and not all("Filter" in rule for rule in rules):
                raise _NotSupported(
                    "a rule that is there is written in the older form, without a Filter, which does not go together"
                    " with this one; write it anew with the store's own tools"
                ) from error
            if aws.http_status(error) == 400 and len(rules) > _MOST_RULES:
                raise _NotSupported(
                    f"the bucket has {_MOST_RULES:,} rules, and may not have more; remove one with the store's own"
                    " tools"
                ) from error
            raise

    def default_encryption(self) -> InitStep:
        what = "default encryption"
        asked = self._bucket.encryption
        wanted: dict[str, str] = {"SSEAlgorithm": str(asked.mode)}
        if asked.key_id is not None:
            wanted["KMSMasterKeyID"] = asked.key_id
        current, with_bucket_key, others, unknown = self._default_encryption()
        if current == wanted:
            lacks = self._bucket.wants_bucket_keys and not with_bucket_key
            return InitStep(what, "present", _WITHOUT_BUCKET_KEY if lacks else "")
        if current and current.get("SSEAlgorithm") != "AES256":
            detail = "a different default is set and was left; every object is sent with the configured encryption"
            return InitStep(what, "present", detail)
        if unknown:
            raise _NotSupported(_WOULD_LOSE.format(what="encryption settings", names=", ".join(unknown)))
        rule: Any = {**others, _DEFAULT: wanted}
        if asked.mode == "aws:kms":
            rule["BucketKeyEnabled"] = True
        self._client.put_bucket_encryption(**self._name, ServerSideEncryptionConfiguration={"Rules": [rule]})
        kept, with_bucket_key, *_ = self._default_encryption()
        if kept != wanted or (self._bucket.wants_bucket_keys and not with_bucket_key):
            raise _NotSupported("the store accepted it but does not keep it")
        return InitStep(what, "set")

    def _versioning(self) -> str:
        return self._client.get_bucket_versioning(**self._name).get("Status", "")

    def _create_only_goes_with_versions(self) -> bool:
        """Tried in a bucket of its own, which is removed again."""
        trial: Any = {"Bucket": f"{self._bucket.name[:40].rstrip('-.')}-init-{self._random_name()[:12]}"}
        self._client.create_bucket(**trial)
        try:
            self._client.put_bucket_versioning(**trial, VersioningConfiguration={"Status": "Enabled"})
            self._client.put_object(**trial, Key="trial", Body=b"first", IfNoneMatch="*")
            try:
                self._client.put_object(**trial, Key="trial", Body=b"second", IfNoneMatch="*")
            except botocore.exceptions.ClientError as error:
                return aws.http_status(error) == 412
            return False
        finally:
            with suppress(botocore.exceptions.ClientError):
                for version in self._client.list_object_versions(**trial).get("Versions", []):
                    self._client.delete_object(**trial, Key=version["Key"], VersionId=version["VersionId"])
                self._client.delete_bucket(**trial)

    def _policy(self) -> dict[str, Any]:
        text = _unless_absent(lambda: self._client.get_bucket_policy(**self._name)["Policy"], "")
        if not text:
            return {}
        try:
            policy = json.loads(text)
        except ValueError as error:
            raise _NotSupported("the bucket's policy cannot be read and was left") from error
        if not isinstance(policy, dict):
            raise _NotSupported("the bucket's policy cannot be read and was left")
        return policy

    def _lifecycle(self) -> tuple[list[Any], Any, Sequence[str]]:
        """The rules, what else is sent back with them, and what of them would be lost if they were sent back."""
        response: Any = _unless_absent(lambda: self._client.get_bucket_lifecycle_configuration(**self._name), {})
        minimum = response.get("TransitionDefaultMinimumObjectSize")
        extra = {"TransitionDefaultMinimumObjectSize": minimum} if minimum else {}
        return list(response.get("Rules", [])), extra, response.get(UNKNOWN, ())

    def _wanted_rules(self) -> list[dict[str, Any]]:
        prefix = self._bucket.prefix
        return [
            {
                "ID": f"dicomwatchd-abort-multipart {prefix}".strip(),
                "Status": "Enabled",
                "Filter": {"Prefix": prefix},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": ABORT_DAYS},
            },
            {
                "ID": f"dicomwatchd-probe-expiry {prefix}".strip(),
                "Status": "Enabled",
                "Filter": {"Prefix": prefix + keys.PROBE},
                "Expiration": {"Days": PROBE_DAYS},
                "NoncurrentVersionExpiration": {"NoncurrentDays": PROBE_DAYS},
            },
        ]

    def _default_encryption(self) -> tuple[dict[str, Any], bool, dict[str, Any], Sequence[str]]:
        """The default, whether it has an S3 Bucket Key, what else is set beside it (which encryption is blocked), and
        what of it would be lost if it were sent back."""
        response: Any = _unless_absent(lambda: self._client.get_bucket_encryption(**self._name), {})
        rules = response.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
        first = rules[0] if rules else {}
        default, with_bucket_key = dict(first.get(_DEFAULT, {})), first.get("BucketKeyEnabled") is True
        others = {name: value for name, value in first.items() if name not in (_DEFAULT, "BucketKeyEnabled")}
        return default, with_bucket_key, others, response.get(UNKNOWN, ())


def _unless_absent(look: Callable[[], Any], default: Any) -> Any:
    try:
        return look()
    except botocore.exceptions.ClientError as error:
        if aws.error_code(error) in _ABSENT:
            return default
        raise


#: With another condition beside it, it would deny less.
_WITHOUT_TLS = [{"Bool": {"aws:SecureTransport": said}} for said in ("false", ["false"], False)]


def denies_plain(statement: Any, arn: str) -> bool:
    """Whether a statement, ours or somebody else's, denies everybody everything in the bucket without TLS."""
    if not isinstance(statement, dict) or statement.get("Effect") != "Deny":
        return False
    everything = statement.get("Action") in ("s3:*", "*", ["s3:*"], ["*"])
    everybody = statement.get("Principal") in ("*", {"AWS": "*"}, {"AWS": ["*"]})
    resources = statement.get("Resource")
    everywhere = resources == "*" or (isinstance(resources, list) and arn in resources and f"{arn}/*" in resources)
    return everything and everybody and everywhere and statement.get("Condition") in _WITHOUT_TLS


def _same_rule(wanted: dict[str, Any], other: Any) -> bool:
    """Whether ``other`` does what is wanted; stores give the prefix back in one of two places."""
    return (
        other.get("Status") == "Enabled"
        and (other.get("Filter") or {}).get("Prefix", other.get("Prefix", "")) == wanted["Filter"]["Prefix"]
        and all(
            other.get(action) == wanted[action]
            for action in ("AbortIncompleteMultipartUpload", "Expiration", "NoncurrentVersionExpiration")
            if action in wanted
        )
    )


def _moves_alike(wanted: dict[str, Any], other: Any) -> bool:
    """Whether ``other`` moves what is wanted, as wanted, and ends nothing."""
    of_wanted, of_other = wanted["Filter"]["And"], (other.get("Filter") or {}).get("And") or {}
    return (
        other.get("Status") == "Enabled"
        and of_other.get("Prefix") == of_wanted["Prefix"]
        and of_other.get("Tags") == of_wanted["Tags"]
        and _moves(other) == _moves(wanted)
        and not {"Expiration", "NoncurrentVersionExpiration", "NoncurrentVersionTransitions"} & other.keys()
        and set(of_other) == {"Prefix", "Tags"}
    )


def _moves(rule: Any) -> set[tuple[Any, Any]]:
    return {(one.get("Days"), one.get("StorageClass")) for one in rule.get("Transitions") or ()}
