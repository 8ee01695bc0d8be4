"""Whether the daemon's role could take anything away: asked so that nothing can be lost by asking.

Three requests are sent that a role with every right can do no harm with. Each is about one key below `studies/`, where
rights count, that no object of an archive ever has: its first part is no UID, and has random bits that nobody can know
beforehand. Whatever a store makes of a request, even where it ignores every condition in it, no object of the archive
can be meant. Beyond that each of them is to fail:

- the deletion of a version has the version id "null" of that key, where there is nothing;
- the deletion that would leave a delete marker has an If-Match that nothing fulfils (an old gateway with versions that
  ignores it keeps a delete marker under that key, if the role may set one);
- the overwriting names an ETag that is not there, too, and the MD5 of other bytes. It is only sent to a store of which
  the probe has just seen that it refuses such bytes, so that nothing is created either.

A service looks at rights before it looks at conditions and bodies: AccessDenied is a no, any other fitting refusal is
a yes. Chosen against: iam:SimulatePrincipalPolicy, a right that few roles have, of a service that the unit's address
filter does not let through, which knows no bucket policy, and which no gateway has.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import botocore.exceptions

from dicomwatchd.archive import keys
from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.archive.aws.questions import Unanswered
from dicomwatchd.archive.preflight.wording import could_not_be_asked
from dicomwatchd.archive.stores.port import Capabilities
from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.findings import Finding

DELETING = "role: deleting"
OVERWRITING = "role: overwriting"

#: By these a service says that it has got beyond the question of rights.
_PAST_RIGHTS = frozenset(
    ("PreconditionFailed", "412", "NoSuchKey", "NoSuchVersion", "404", "BadDigest", "XAmzContentSHA256Mismatch")
)
#: No bare 403: that is the page of a proxy, by which whoever has stolen the keys need not come.
_REFUSED = frozenset(("AccessDenied",))
#: Which the MD5 of nothing that is sent here is.
_BODY, _OTHER_BODY = b"dicomwatchd preflight\n", b"wrong"
_NO_ETAG = f'"{"0" * 32}"'
_POLICY = (
    "deny the daemon's principal s3:DeleteObject* in the bucket's policy, and s3:PutObject without if-none-match, as"
    " etc/aws/archive.yaml does (DaemonDeletesNothing, CreateOnly)"
)
_PLAIN_POLICY = "deny the daemon's user s3:DeleteObject and s3:DeleteObjectVersion in the bucket's policy"


def nobodys_key(random_name: Callable[[], str]) -> str:
    """One that no object of an archive has (see above). ``random_name``: 32 hexadecimal digits or more."""
    return f"{keys.STUDIES}dicomwatchd-preflight-{random_name()}/none"


class RoleChecks:
    """``random_name`` as `secrets.token_hex`. Each check raises foreign errors where there is no answer."""

    def __init__(self, bucket: S3Bucket, capabilities: Capabilities, random_name: Callable[[], str]) -> None:
        self._bucket, self._capabilities = bucket, capabilities
        key = nobodys_key(random_name)
        self._address: Any = bucket.address(key)
        self._creation = bucket.creation(key)
        self._worst = "bad" if bucket.is_amazon else "note"

    def all(self) -> Iterator[tuple[str, Callable[[], Finding]]]:
        """Each with what it is about."""
        yield DELETING, self.deleting
        yield OVERWRITING, self.overwriting

    def deleting(self) -> Finding:
        client = self._bucket.client
        versions = _may("s3:DeleteObjectVersion", lambda: client.delete_object(**self._address, VersionId="null"))
        if versions is True:
            what = "could delete objects for good: with its stolen credentials nothing in the archive would be safe"
            return Finding(DELETING, self._worst, f"the daemon's role {what}", self._fix)
        current = _may("s3:DeleteObject", lambda: client.delete_object(**self._address, IfMatch=_NO_ETAG))
        if current is True:
            what = "could hide objects under delete markers, or delete them where there are no versions"
            return Finding(DELETING, self._worst, f"the daemon's role {what}", self._fix)
        if left := [answer for answer in (versions, current) if isinstance(answer, Unanswered)]:
            return could_not_be_asked(DELETING, left)
        return Finding(DELETING, "good", "the daemon's role can neither delete nor hide an object")

    def overwriting(self) -> Finding:
        if self._capabilities.details.get("wrong Content-MD5") != "refused":
            return Finding(
                OVERWRITING, "unknown", "was not asked: this store would create an object of what is sent for it"
            )
        md5 = base64.b64encode(hashlib.md5(_OTHER_BODY, usedforsecurity=False).digest()).decode("ascii")
        answer = _may(
            "s3:PutObject",
            lambda: self._bucket.client.put_object(
                **self._address, **self._creation, Body=_BODY, ContentMD5=md5, IfMatch=_NO_ETAG
            ),
        )
        if isinstance(answer, Unanswered):
            return could_not_be_asked(OVERWRITING, [answer])
        if answer:
            what = "could put other bytes in the place of an object, which this program never does"
            return Finding(OVERWRITING, self._worst, f"the daemon's role {what}", self._fix)
        return Finding(OVERWRITING, "good", "the daemon's role can create objects and overwrite none")

    @property
    def _fix(self) -> str:
        return _POLICY if self._bucket.is_amazon else _PLAIN_POLICY


def _may(right: str, request: Callable[[], object]) -> bool | Unanswered:
    """Whether the role has got beyond the question of its rights."""
    try:
        request()
    except botocore.exceptions.ClientError as error:
        code = aws.error_code(error)
        if code in _REFUSED:
            return False
        if code in _PAST_RIGHTS:
            return True
        return Unanswered(right, code, is_refused=False, is_unknown_there=False)
    return True
