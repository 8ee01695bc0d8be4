"""The bucket's settings: versions, encryption, plain http, unfinished uploads, who else may reach it.

What is missing is "bad" at Amazon, where `archive init` and etc/aws/archive.yaml set it, and a note elsewhere unless
deletion leans on it: a gateway may lack it, or be closed by other means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dicomwatchd.archive.aws.questions import Unanswered
from dicomwatchd.archive.preflight.wording import INIT, could_not_be_asked
from dicomwatchd.archive.stores.s3 import protection, settings
from dicomwatchd.archive.stores.s3.bucket import S3Bucket, same_key
from dicomwatchd.archive.stores.s3.expiry import aborts_after_days
from dicomwatchd.archive.stores.s3.setup import denies_plain
from dicomwatchd.config.archive import S3Settings
from dicomwatchd.findings import Finding

_BLOCK = "BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true"

VERSIONS = "bucket: versions"
ENCRYPTION = "bucket: encryption"
PLAIN_HTTP = "bucket: plain http"
UNFINISHED = "bucket: unfinished uploads"
PUBLIC = "bucket: public access"


class BucketChecks:
    """Of one bucket. ``creates_only``: the probe has shown that the store refuses to overwrite. Each check raises
    foreign errors where there is no answer."""

    def __init__(self, bucket: S3Bucket, configured: S3Settings, *, creates_only: bool) -> None:
        self._bucket, self._configured, self._creates_only = bucket, configured, creates_only
        self._worst = "bad" if bucket.is_amazon else "note"

    def all(self) -> Iterator[tuple[str, Callable[[], Finding]]]:
        """Each with what it is about."""
        yield VERSIONS, self.versions
        yield ENCRYPTION, self.encryption
        yield PLAIN_HTTP, self.plain_http
        yield UNFINISHED, self.unfinished_uploads
        yield PUBLIC, self.public_access

    def versions(self) -> Finding:
        client, name = self._bucket.client, self._bucket.name
        found = settings.versioning(client, name)
        if isinstance(found, Unanswered):
            if settings.object_lock(client, name) is True:
                return Finding(VERSIONS, "good", "Object Lock is on, which takes versions")
            return could_not_be_asked(VERSIONS, [found])
        if found == "Enabled":
            locked = settings.object_lock(client, name) is True
            text = "versions are kept: what is overwritten or deleted is still there as an older version"
            return Finding(VERSIONS, "good", text + (", which Object Lock protects" if locked else ""))
        why = "are no longer kept (suspended)" if found == "Suspended" else "are not kept"
        fix = self._command("put-bucket-versioning", "--versioning-configuration Status=Enabled")
        if not self._creates_only:
            return Finding(VERSIONS, "bad", protection.OVERWRITTEN, fix, essential=True)
        text = f"versions {why}: what somebody deletes or overwrites with rights of his own is gone"
        if self._bucket.is_amazon:
            return Finding(VERSIONS, "bad", text, fix)
        return Finding(
            VERSIONS,
            "note",
            f"{text}; the store refuses to overwrite what programs create as this one does",
            f"{INIT}; it switches versions on where the store goes on refusing to overwrite with them",
        )

    def encryption(self) -> Finding:
        found = settings.default_encryption(self._bucket.client, self._bucket.name)
        if isinstance(found, Unanswered):
            return could_not_be_asked(ENCRYPTION, [found])
        asked = self._bucket.encryption
        if asked.mode == "store-default":
            if not found:
                return Finding(
                    ENCRYPTION,
                    self._worst,
                    "neither the configuration nor the bucket says how objects are encrypted",
                    f"set archive.store.encryption, then {INIT}",
                )
            named = ", with a key that it names" if found.get("KMSMasterKeyID") else ""
            return Finding(ENCRYPTION, "good", f"the bucket's default encrypts ({_word(found)}{named})")
        sent = f"the archive's objects are sent with {asked.mode}"
        if not found:
            return Finding(ENCRYPTION, "note", f"{sent}; the bucket has no default for what others put there", INIT)
        key = found.get("KMSMasterKeyID")
        same = found.get("SSEAlgorithm") == asked.mode and (asked.key_id is None or same_key(asked.key_id, key))
        if same:
            return Finding(ENCRYPTION, "good", f"{sent}, and the bucket's default is the same")
        other = "another key" if found.get("SSEAlgorithm") == asked.mode else _word(found)
        fix = self._command("put-bucket-encryption", "--server-side-encryption-configuration with the configured key")
        return Finding(ENCRYPTION, "note", f"{sent}; the bucket's default, for what others put there, is {other}", fix)

    def plain_http(self) -> Finding:
        if self._configured.insecure_http:
            return Finding(
                PLAIN_HTTP,
                "note",
                "the configuration allows it (insecure_http): names and images go over the network in the clear",
                "use an https endpoint, and remove archive.store.insecure_http",
            )
        found = settings.policy_statements(self._bucket.client, self._bucket.name)
        if isinstance(found, Unanswered):
            return could_not_be_asked(PLAIN_HTTP, [found])
        arn = f"arn:{self._bucket.client.meta.partition}:s3:::{self._bucket.name}"
        if any(denies_plain(statement, arn) for statement in found or ()):
            kept = "" if self._bucket.is_amazon else "; a store may keep a policy without enforcing it"
            return Finding(PLAIN_HTTP, "good", f"the bucket's policy refuses whoever comes without TLS{kept}")
        return Finding(
            PLAIN_HTTP,
            self._worst,
            "the bucket's policy does not refuse it: a program that is set up wrongly would send images in the clear",
            INIT,
        )

    def unfinished_uploads(self) -> Finding:
        found = settings.lifecycle_rules(self._bucket.client, self._bucket.name)
        if isinstance(found, Unanswered):
            return could_not_be_asked(UNFINISHED, [found])
        days = aborts_after_days(found, self._bucket.prefix)
        if days is not None:
            return Finding(UNFINISHED, "good", f"a rule removes what was never completed after {days} days")
        return Finding(
            UNFINISHED,
            "note",
            "no rule removes what was never completed: its parts cost money, and no listing shows them",
            INIT,
        )

    def public_access(self) -> Finding:
        found = settings.exposure(self._bucket.client, self._bucket.name)
        fix = self._command("put-public-access-block", f"--public-access-block-configuration {_BLOCK}")
        if found.is_public:
            detail = protection.PUBLIC.format(because=found.because)
            return Finding(PUBLIC, "bad", detail, f"{fix}; and take out what opens it", essential=True)
        if found.is_public is None:
            before = f"{found.because} it, unless a public access block holds that up; that " if found.because else ""
            return could_not_be_asked(PUBLIC, found.unanswered, before)
        if found.is_blocked:
            return Finding(PUBLIC, "good", "the bucket is open to nobody, and a public access block keeps it so")
        if found.unanswered:
            before = "the bucket is not public; whether a public access block keeps it so "
            return could_not_be_asked(PUBLIC, found.unanswered, before)
        detail = "the bucket is not public, and nothing keeps a mistake from making it so"
        return Finding(PUBLIC, self._worst, detail, fix)

    def _command(self, operation: str, *options: str) -> str:
        url = self._configured.endpoint_url
        there = f" --endpoint-url {url}" if url is not None else ""
        return f"aws{there} s3api {operation} --bucket {self._bucket.name} {' '.join(options)}"


def _word(found: object) -> str:
    """The store's own word for an encryption, if it is one of Amazon's."""
    algorithm = found.get("SSEAlgorithm") if isinstance(found, dict) else None
    return str(algorithm) if algorithm in ("AES256", "aws:kms", "aws:kms:dsse") else "another one"
