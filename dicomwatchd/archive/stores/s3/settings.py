"""What a bucket says of its own settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dicomwatchd.archive.aws.questions import Unanswered, asked

#: Everybody, and everybody with an account of whomever.
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html#specifying-grantee-predefined-groups
_EVERYBODY = frozenset(
    f"http://acs.amazonaws.com/groups/global/{group}" for group in ("AllUsers", "AuthenticatedUsers")
)


def versioning(client: Any, bucket: str) -> str | Unanswered:
    """ "Enabled", "Suspended", or "" where the bucket has never had versions."""
    answer = asked(
        "s3:GetBucketVersioning", lambda: str(client.get_bucket_versioning(Bucket=bucket).get("Status") or "")
    )
    return "" if answer is None else answer


def object_lock(client: Any, bucket: str) -> bool | Unanswered:
    """Whether the bucket has Object Lock."""
    answer = asked(
        "s3:GetBucketObjectLockConfiguration",
        lambda: (
            (client.get_object_lock_configuration(Bucket=bucket).get("ObjectLockConfiguration") or {}).get(
                "ObjectLockEnabled"
            )
            == "Enabled"
        ),
        frozenset(("ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration")),
    )
    return False if answer is None else answer


def default_encryption(client: Any, bucket: str) -> Mapping[str, Any] | Unanswered | None:
    """ "SSEAlgorithm", and "KMSMasterKeyID" where a key is named, of what is sent without saying how; None: nothing is
    set."""

    def question() -> Mapping[str, Any]:
        answer: Any = client.get_bucket_encryption(Bucket=bucket)
        rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules") or [{}]
        found = dict(rules[0].get("ApplyServerSideEncryptionByDefault") or {})
        return found if found.get("SSEAlgorithm") else {}

    return asked(
        "s3:GetEncryptionConfiguration",
        question,
        frozenset(("ServerSideEncryptionConfigurationNotFoundError", "NoSuchEncryptionConfiguration", "404")),
    )


def policy_statements(client: Any, bucket: str) -> list[Any] | Unanswered | None:
    """Of the bucket's policy; None: it has none."""

    def question() -> list[Any]:
        policy = json.loads(client.get_bucket_policy(Bucket=bucket)["Policy"])
        found = policy.get("Statement") if isinstance(policy, dict) else None
        return found if isinstance(found, list) else [found]

    try:
        return asked("s3:GetBucketPolicy", question, frozenset(("NoSuchBucketPolicy",)))
    except ValueError:
        return Unanswered("s3:GetBucketPolicy", "an unreadable policy", is_refused=False, is_unknown_there=False)


def lifecycle_rules(client: Any, bucket: str) -> list[Any] | Unanswered:
    """All rules of the bucket."""
    answer = asked(
        "s3:GetLifecycleConfiguration",
        lambda: list(client.get_bucket_lifecycle_configuration(Bucket=bucket).get("Rules") or ()),
        frozenset(("NoSuchLifecycleConfiguration", "NoSuchLifecycle")),
    )
    return [] if answer is None else answer


@dataclass(frozen=True, slots=True)
class Exposure:
    """Who else may reach a bucket. ``is_public``: None where that could not be found out. ``is_blocked``: nothing can
    make it public, whatever policy or access control list it gets."""

    is_public: bool | None
    is_blocked: bool
    because: str = ""
    unanswered: tuple[Unanswered, ...] = ()


def exposure(client: Any, bucket: str) -> Exposure:
    """GetPublicAccessBlock, and only where that leaves something open GetBucketPolicyStatus and GetBucketAcl."""
    name = {"Bucket": bucket}
    block = asked(
        "s3:GetBucketPublicAccessBlock",
        lambda: dict(client.get_public_access_block(**name)["PublicAccessBlockConfiguration"]),
        frozenset(("NoSuchPublicAccessBlockConfiguration",)),
    )
    if isinstance(block, Unanswered) and block.is_unknown_there:
        block = None  # then there is nothing that would hold a policy up
    unanswered = [block] if isinstance(block, Unanswered) else []
    known = {} if block is None or isinstance(block, Unanswered) else block
    #: None: it is not known whether there is one that holds them up.
    policies = None if unanswered else not known.get("RestrictPublicBuckets")
    lists = None if unanswered else not known.get("IgnorePublicAcls")
    if policies is False and lists is False:
        is_blocked = bool(known.get("BlockPublicAcls") and known.get("BlockPublicPolicy"))
        return Exposure(False, is_blocked)
    ways = [
        (_by_policy(client, bucket) if policies is not False else False, policies, "its policy allows"),
        (_by_list(client, bucket) if lists is not False else False, lists, "its access control list allows"),
    ]
    unanswered += [answer for answer, _, _ in ways if isinstance(answer, Unanswered)]
    open_by = [(words, counts) for answer, counts, words in ways if answer is True]
    for words, counts in open_by:
        if counts:
            return Exposure(True, False, words)
    if open_by:  # and whether something holds that up could not be asked
        return Exposure(None, False, open_by[0][0], tuple(unanswered))
    left = [one for one in unanswered if one is not block]
    return Exposure(None if left else False, False, "", tuple(unanswered))


def _by_policy(client: Any, bucket: str) -> bool | Unanswered | None:
    """Whether the bucket's policy, by itself, lets everybody in: the store's own judgement, borne out by the policy.
    Ceph 18 calls each policy public that allows anything, to whomever. A gateway that takes the question for a listing
    answers without a judgement, and of the access control list below without one."""
    judged = asked(
        "s3:GetBucketPolicyStatus",
        lambda: bool(client.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]),
        frozenset(("NoSuchBucketPolicy",)),
    )
    if judged is not True:
        return judged
    statements = policy_statements(client, bucket)
    if isinstance(statements, Unanswered):
        return statements
    for_everybody = [one for one in statements or () if _allows_everybody(one)]
    if not for_everybody or not all(one.get("Condition") for one in for_everybody):
        return bool(for_everybody)
    return Unanswered("s3:GetBucketPolicy", "a policy with conditions", is_refused=False, is_unknown_there=False)


def _allows_everybody(statement: Any) -> bool:
    if not isinstance(statement, dict) or statement.get("Effect") != "Allow":
        return False
    principal = statement.get("Principal")
    named = principal.get("AWS") if isinstance(principal, dict) else principal
    return "NotPrincipal" in statement or named == "*" or (isinstance(named, list) and "*" in named)


def _by_list(client: Any, bucket: str) -> bool | Unanswered | None:
    """Whether its access control list does."""
    return asked("s3:GetBucketAcl", lambda: _is_for_everybody(client.get_bucket_acl(Bucket=bucket)))


def _is_for_everybody(acl: Any) -> bool:
    return any((grant.get("Grantee") or {}).get("URI") in _EVERYBODY for grant in acl["Grants"])
