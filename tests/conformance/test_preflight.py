"""What `doctor` asks of the cloud's side, of a real gateway and a real table: each check passes and fails, each in a
situation that was built for it; and asking loses nothing, whatever the role may do."""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
from dicomwatchd.archive.catalogues.dynamodb.setup import definition
from dicomwatchd.archive.preflight import bucket as of_bucket
from dicomwatchd.archive.preflight import pace, rights, run, table
from dicomwatchd.archive.stores.port import Buffer, Capabilities
from dicomwatchd.archive.stores.s3 import protection
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.config.archive import Archive, DynamoDBSettings, S3Settings, SqliteSettings
from dicomwatchd.errors import Transient
from dicomwatchd.findings import Finding
from dicomwatchd.model import Uid
from tests.conformance.conftest import PREFIX, BucketPlace
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Fault, Match, Rule
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.unit.memory_archive import MemoryCatalogue

STUDY = Uid("1.2.840.99999.7")
INSTANCE = keys.instance(STUDY, Uid("1.2.3"), Uid("1.2.3.4"), "ab" * 32)
OBJECTS = {keys.IDENTITY: b"{}", INSTANCE: b"an image", keys.manifests_prefix(STUDY) + "00000001.json": b"{}"}


def ready(place: BucketPlace, **options: Any) -> S3Store:
    """A store that was probed, with objects of an archive in it."""
    store = place.open(**options)
    store.probe("probe/preflight/")
    for key, data in OBJECTS.items():
        store.put(key, Buffer(data))
    return store


def asked(store: S3Store, settings: S3Settings, **changes: Any) -> dict[str, Finding]:
    catalogue = SqliteSettings.model_construct(kind="sqlite", path="/nowhere")
    archive = Archive.model_construct(store=settings, catalogue=catalogue)
    found = list(run.findings(archive, store, MemoryCatalogue(), 64, **changes))
    assert len({one.subject for one in found}) == len(found)
    return {one.subject: one for one in found}


def everything_in(place: BucketPlace) -> set[tuple[Any, ...]]:
    """All versions and delete markers of the bucket's objects, but those of the probe."""
    page = place.client.list_object_versions(Bucket=place.bucket)
    assert not page["IsTruncated"]
    return {
        (kind, one["Key"], one["VersionId"], one.get("ETag"), one["IsLatest"])
        for kind in ("Versions", "DeleteMarkers")
        for one in page.get(kind, [])  # type: ignore[attr-defined]
        if keys.PROBE not in one["Key"]
    }


# -- the attack: a role that may do everything -------------------------------------------------------------------------


def careless(store: S3Store) -> None:
    """From here on the store ignores whatever would make a request fail, or mean a version: what arrives is a plain
    deletion of the key, and a plain creation."""

    def strip(request: Any, **_: object) -> None:
        request.url = request.url.partition("?")[0]
        for name in ("If-Match", "Content-MD5"):
            if name in request.headers:
                del request.headers[name]

    for operation in ("DeleteObject", "PutObject"):
        store.bucket.client.meta.events.register(f"before-sign.s3.{operation}", strip)


@pytest.mark.parametrize("with_versions", [False, True], ids=["plain", "versions"])
@pytest.mark.parametrize("is_careless", [False, True], ids=["honest", "careless"])
def test_asking_loses_nothing(s3: BucketPlace, with_versions: bool, is_careless: bool) -> None:
    """The gateway's user owns the bucket, and may delete and overwrite all of it; a careless store does what it is
    asked for whatever the conditions are."""
    if with_versions:
        s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    store = ready(s3)
    before = everything_in(s3)
    if is_careless:
        careless(store)
    names: list[str] = []

    def random_name() -> str:
        names.append(f"{len(names):032x}")
        return names[-1]

    # As if the probe had found nothing wrong with this store.
    trusting = Capabilities(details={"wrong Content-MD5": "refused"})
    checks = rights.RoleChecks(store.bucket, trusting, random_name)
    found = {subject: check() for subject, check in checks.all()}
    for subject in (rights.DELETING, rights.OVERWRITING):
        assert found[subject].outcome == "note" and "could" in found[subject].detail, found
        assert found[subject].fix is not None and not found[subject].essential
    after = everything_in(s3)
    nobodys = {f"{PREFIX}{rights.nobodys_key(lambda name=name: name)}" for name in names}  # type: ignore[misc]
    assert before <= after, "something of the archive is gone"
    assert {entry[1] for entry in after - before} <= nobodys
    for key, data in OBJECTS.items():
        assert b"".join(bytes(chunk) for chunk in store.read(key)) == data
    if not is_careless:
        assert after == before, "nothing is left behind"


def test_the_key_is_one_that_no_archive_has() -> None:
    key = rights.nobodys_key(lambda: "0" * 32)
    assert key.startswith(keys.STUDIES), "where the rights count"
    prefix = key[: key.index("/", len(keys.STUDIES)) + 1]
    assert keys.parse_study(prefix) is None and not keys.holds_instances(key)


def test_a_store_that_would_create_an_object_is_not_asked(rgw_place: Callable[[bool], BucketPlace]) -> None:
    place = rgw_place(False)
    place.open().initialise()
    store = ready(place)
    store._capabilities = replace(store.capabilities, details={"wrong Content-MD5": "accepted"})
    before = everything_in(place)
    careless(store)
    finding = asked(store, place.settings)[rights.OVERWRITING]
    assert finding.outcome == "unknown" and "not asked" in finding.detail
    assert everything_in(place) == before


# -- each check, passing and failing -----------------------------------------------------------------------------------


def policy(place: BucketPlace, *statements: dict[str, Any]) -> None:
    whole = [{"Resource": [f"arn:aws:s3:::{place.bucket}", f"arn:aws:s3:::{place.bucket}/*"], **s} for s in statements]
    place.client.put_bucket_policy(
        Bucket=place.bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": whole})
    )


ANYBODY = {"Sid": "Anybody", "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}
BLOCKED = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}


def block(place: BucketPlace, **changes: bool) -> None:
    place.client.put_public_access_block(
        Bucket=place.bucket,
        PublicAccessBlockConfiguration={**BLOCKED, **changes},  # type: ignore[typeddict-item]
    )


def encrypt(place: BucketPlace, **default: str) -> None:
    rules: Any = {"Rules": [{"ApplyServerSideEncryptionByDefault": default}]}
    place.client.put_bucket_encryption(Bucket=place.bucket, ServerSideEncryptionConfiguration=rules)


def open_and_hold_up(place: BucketPlace) -> None:
    policy(place, ANYBODY)
    block(place, BlockPublicPolicy=False)


def versions(place: BucketPlace, status: Any) -> None:
    place.client.put_bucket_versioning(Bucket=place.bucket, VersioningConfiguration={"Status": status})


#: What is done to a bucket that `archive init` has made (https, SSE-KMS); which finding says what of it then.
BUILT: dict[str, tuple[Callable[[BucketPlace], object], str, str, str]] = {
    "init: versions": (lambda _: None, of_bucket.VERSIONS, "note", "are not kept"),
    "init: encryption": (lambda _: None, of_bucket.ENCRYPTION, "good", "the bucket's default is the same"),
    "init: plain http": (lambda _: None, of_bucket.PLAIN_HTTP, "good", "refuses whoever comes without TLS"),
    "init: unfinished": (lambda _: None, of_bucket.UNFINISHED, "good", "after 7 days"),
    "init: public": (lambda _: None, of_bucket.PUBLIC, "note", "nothing keeps a mistake"),
    "init: deleting": (lambda _: None, rights.DELETING, "note", "for good"),
    "init: overwriting": (lambda _: None, rights.OVERWRITING, "note", "could put other bytes"),
    "init: clock": (lambda _: None, pace.CLOCK, "good", "agree"),
    "init: latency": (lambda _: None, pace.LATENCY, "good", "requests a second"),
    "versions on": (lambda p: versions(p, "Enabled"), of_bucket.VERSIONS, "good", "older version"),
    "no default": (
        lambda p: p.client.delete_bucket_encryption(Bucket=p.bucket),
        of_bucket.ENCRYPTION,
        "note",
        "no def",
    ),
    "another default": (lambda p: encrypt(p, SSEAlgorithm="AES256"), of_bucket.ENCRYPTION, "note", "is AES256"),
    "another key": (
        lambda p: encrypt(p, SSEAlgorithm="aws:kms", KMSMasterKeyID="other"),
        of_bucket.ENCRYPTION,
        "note",
        "is another key",
    ),
    "no policy": (
        lambda p: p.client.delete_bucket_policy(Bucket=p.bucket),
        of_bucket.PLAIN_HTTP,
        "note",
        "in the clear",
    ),
    "no rules": (lambda p: p.client.delete_bucket_lifecycle(Bucket=p.bucket), of_bucket.UNFINISHED, "note", "no rule"),
    "public by policy": (lambda p: policy(p, ANYBODY), of_bucket.PUBLIC, "bad", "its policy allows it"),
    "public by list": (
        lambda p: p.client.put_bucket_acl(Bucket=p.bucket, ACL="public-read"),
        of_bucket.PUBLIC,
        "bad",
        "open to everybody",
    ),
    "blocked": (block, of_bucket.PUBLIC, "good", "keeps it so"),
    "public, and held up": (
        open_and_hold_up,
        of_bucket.PUBLIC,
        "note",
        "nothing keeps a mistake",
    ),
}


@pytest.mark.parametrize("built", BUILT)
def test_each_check_passes_and_fails(rgw_place: Callable[[bool], BucketPlace], built: str) -> None:
    build, subject, outcome, text = BUILT[built]
    place = rgw_place(True)
    place.open().initialise()
    store = ready(place)
    build(place)
    finding = asked(store, place.settings)[subject]
    assert finding.outcome == outcome and text in finding.detail, finding
    assert (finding.fix is None) == (outcome == "good"), finding
    assert finding.essential == (outcome == "bad"), finding


def test_a_store_that_overwrites_needs_versions(rgw_place: Callable[[bool], BucketPlace]) -> None:
    """The gateway with versions overwrites, and keeps what was there; switched off again it keeps nothing any more."""
    place = rgw_place(False)
    place.open().initialise()
    versions(place, "Enabled")
    store = ready(place)
    assert not store.capabilities.creates_only
    assert asked(store, place.settings)[of_bucket.VERSIONS].outcome == "good"
    assert store.refresh_expiry().forbids_deleting is None
    versions(place, "Suspended")
    finding = asked(store, place.settings)[of_bucket.VERSIONS]
    assert (finding.outcome, finding.essential) == ("bad", True) and "overwritten" in finding.detail
    assert finding.fix is not None and f"put-bucket-versioning --bucket {place.bucket}" in finding.fix
    assert store.refresh_expiry().unprotected == protection.OVERWRITTEN
    versions(place, "Enabled")
    assert store.refresh_expiry().forbids_deleting is None


def test_plain_http_and_no_encryption_are_said(rgw_place: Callable[[bool], BucketPlace]) -> None:
    place = rgw_place(False)
    place.open().initialise()
    found = asked(ready(place), place.settings)
    assert found[of_bucket.PLAIN_HTTP].outcome == "note" and "insecure_http" in found[of_bucket.PLAIN_HTTP].detail
    assert found[of_bucket.ENCRYPTION].outcome == "note" and "neither" in found[of_bucket.ENCRYPTION].detail


def test_at_amazon_what_is_missing_has_to_be_mended(amazon_place: BucketPlace) -> None:
    """By Amazon's names: there `archive init` and the template set all of it."""
    amazon_place.open().initialise()
    store = ready(amazon_place)
    found = asked(store, amazon_place.settings)
    assert found[of_bucket.VERSIONS].outcome == "good"
    for subject in (of_bucket.PUBLIC, rights.DELETING, rights.OVERWRITING):
        assert (found[subject].outcome, found[subject].essential) == ("bad", False), found[subject]
    assert "DaemonDeletesNothing" in (found[rights.DELETING].fix or "")


# -- what the role may not ask -----------------------------------------------------------------------------------------

WORK = [
    "s3:ListBucket",
    "s3:ListBucketVersions",
    "s3:ListBucketMultipartUploads",
    "s3:GetObject",
    "s3:PutObject",
    "s3:ListMultipartUploadParts",
    "s3:AbortMultipartUpload",
]


@contextmanager
def as_user(
    rgw: CephRgw, place: BucketPlace, monkeypatch: pytest.MonkeyPatch, *statements: dict[str, Any]
) -> Iterator[S3Store]:
    """A store with the rights of a user of these statements, which are about it."""
    name = f"daemon-{place.bucket[-12:]}"
    user = rgw.add_user(name)
    principal = {"AWS": [f"arn:aws:iam:::user/{name}"]}
    policy(place, *({"Principal": principal, **statement} for statement in statements))
    for variable, value in user.items():
        monkeypatch.setenv(variable, value)
    yield ready(place)


def test_what_the_role_may_not_ask_is_neither_a_pass_nor_a_failure(
    rgw: CephRgw, rgw_place: Callable[[bool], BucketPlace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the daemon goes on as it did before it asked."""
    place = rgw_place(True)
    place.open().initialise()
    with as_user(rgw, place, monkeypatch, {"Sid": "Work", "Effect": "Allow", "Action": WORK}) as store:
        found = asked(store, place.settings)
        for subject, right in (
            (of_bucket.VERSIONS, "s3:GetBucketVersioning"),
            (of_bucket.ENCRYPTION, "s3:GetEncryptionConfiguration"),
            (of_bucket.PLAIN_HTTP, "s3:GetBucketPolicy"),
            (of_bucket.UNFINISHED, "s3:GetLifecycleConfiguration"),
            (of_bucket.PUBLIC, "s3:GetBucketPublicAccessBlock, s3:GetBucketPolicyStatus, s3:GetBucketAcl"),
        ):
            finding = found[subject]
            assert finding.outcome == "unknown" and "AccessDenied" in finding.detail, finding
            assert f"allow {right} " in (finding.fix or ""), finding
            assert not finding.essential
        assert found[rights.DELETING].outcome == "good", found[rights.DELETING]
        assert store.refresh_expiry().forbids_deleting is None


def test_a_role_that_can_neither_delete_nor_overwrite(
    rgw: CephRgw, rgw_place: Callable[[bool], BucketPlace], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = rgw_place(False)
    place.open().initialise()
    allowed: dict[str, Any] = {"Sid": "All", "Effect": "Allow", "Action": "s3:*"}
    with as_user(rgw, place, monkeypatch, allowed) as store:
        user = f"arn:aws:iam:::user/daemon-{place.bucket[-12:]}"
        denied = {"Effect": "Deny", "Principal": {"AWS": [user]}}
        allowed |= {"Principal": {"AWS": [user]}}
        assert [asked(store, place.settings)[one].outcome for one in (rights.DELETING, rights.OVERWRITING)] == [
            "note"
        ] * 2
        policy(place, allowed, {**denied, "Sid": "Versions", "Action": "s3:DeleteObjectVersion"})
        finding = asked(store, place.settings)[rights.DELETING]
        assert finding.outcome == "note" and "delete markers" in finding.detail
        both = {**denied, "Sid": "Deleting", "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"]}
        policy(place, allowed, both)
        assert asked(store, place.settings)[rights.DELETING].outcome == "good"
        policy(place, allowed, both, {**denied, "Sid": "Writing", "Action": "s3:PutObject"})
        assert asked(store, place.settings)[rights.OVERWRITING].outcome == "good"


# -- what keeps local files where they are -----------------------------------------------------------------------------


def test_a_public_bucket_stops_deleting_until_it_is_closed(s3: BucketPlace) -> None:
    store = ready(s3)
    assert store.refresh_expiry().forbids_deleting is None
    policy(s3, ANYBODY)
    said = store.refresh_expiry().unprotected
    assert said is not None and "open to everybody" in said
    block(s3, BlockPublicPolicy=False)
    assert store.refresh_expiry().forbids_deleting is None, "a block holds it up"
    block(s3, BlockPublicPolicy=False, RestrictPublicBuckets=False)
    assert store.refresh_expiry().unprotected is not None
    s3.client.delete_bucket_policy(Bucket=s3.bucket)
    assert store.refresh_expiry().forbids_deleting is None


@contextmanager
def in_trouble(rgw: CephRgw, place: BucketPlace, *rules: Rule) -> Iterator[tuple[S3Store, FaultProxy]]:
    with FaultProxy(rgw.http_endpoint, always=rules) as proxy:
        settings = place.settings.model_copy(update={"endpoint_url": proxy.endpoint.replace("localhost", "127.0.0.1")})
        yield place.open(settings=settings), proxy


def test_a_store_without_time_for_these_questions_alone(rgw: CephRgw, rgw_place: Callable[[bool], BucketPlace]) -> None:
    """It is waited for at first; and not for ever where it answers all others, for then it does not know them."""
    place = rgw_place(False)
    place.open().initialise()
    ready(place)
    rule = Rule(Fault.SLOW_DOWN, Match(query={"publicAccessBlock": None}), times=1_000_000)
    with in_trouble(rgw, place, rule) as (store, _):
        store.probe("probe/trouble/")  # the first look of all
        assert store.expiry.unaccepted is None and store.expiry.unprotected == protection.UNTIL_THEN
        for _ in range(2):
            assert store.expiry.forbids_deleting is not None
            with pytest.raises(Transient):
                store.refresh_expiry()
        assert store.expiry.forbids_deleting is None
        finding = asked(store, place.settings)[of_bucket.PUBLIC]
        assert finding.outcome == "unknown" and "now" in finding.detail


def test_what_was_known_is_known_still_while_there_is_no_answer(
    rgw: CephRgw, rgw_place: Callable[[bool], BucketPlace]
) -> None:
    place = rgw_place(False)
    place.open().initialise()
    ready(place)
    policy(place, ANYBODY)
    with in_trouble(rgw, place) as (store, proxy):
        store.probe("probe/trouble/")
        assert store.expiry.unprotected is not None
        for fault in (Fault.SLOW_DOWN, Fault.REFUSED):
            rules = [Rule(fault, Match(query={name: None}), times=99) for name in ("policyStatus", "acl")]
            with proxy.during(*rules):
                for _ in range(4):
                    if fault is Fault.SLOW_DOWN:
                        with pytest.raises(Transient):
                            store.refresh_expiry()
                    else:
                        store.refresh_expiry()
                    assert store.expiry.unprotected is not None


def test_a_store_that_goes_away_is_not_waited_for_at_each_check(
    rgw: CephRgw, rgw_place: Callable[[bool], BucketPlace]
) -> None:
    place = rgw_place(False)
    place.open().initialise()
    ready(place)
    with in_trouble(rgw, place) as (store, proxy):
        store.probe("probe/trouble/")
        proxy.forget()
        with proxy.during(Rule(Fault.RESET_BEFORE, times=1_000_000)):
            found = asked(store, place.settings)
        assert {one.outcome for one in found.values()} == {"unknown"}
        assert not any(one.essential for one in found.values())
        asked_for = [request for request in proxy.requests() if request.method == "GET"]
        assert len(asked_for) <= 6, "the first check's attempts, and no other's"


# -- clock and latency -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead_seconds", "outcome", "text"),
    [
        (0.0, "good", "agree"),
        (60.0, "note", "60 s ahead of"),
        (-60.0, "note", "60 s behind"),
        (600.0, "bad", "600 s ahead"),
    ],
)
def test_the_clocks(s3: BucketPlace, ahead_seconds: float, outcome: str, text: str) -> None:
    found = asked(ready(s3), s3.settings, now=lambda: time.time() + ahead_seconds)[pace.CLOCK]
    assert found.outcome == outcome, found
    if abs(ahead_seconds) > 0:  # to the second, which is what a Date has, and as far as the answers take their time
        said = int(found.detail.partition("clock is ")[2].partition(" s")[0].replace(",", ""))
        assert abs(said - abs(ahead_seconds)) <= 10 and text.split(" s ")[1] in found.detail


def test_the_latency_is_measured_on_the_way(rgw: CephRgw, rgw_place: Callable[[bool], BucketPlace]) -> None:
    place = rgw_place(False)
    place.open().initialise()
    ready(place)
    slow = Rule(Fault.DELAY, Match(method="HEAD", path=r"/archive\.json$"), times=1_000, seconds=0.1)
    with in_trouble(rgw, place) as (store, proxy):
        store.probe("probe/trouble/")
        quick = pace.measure(store.bucket, time.time, time.monotonic)
        with proxy.during(slow):
            delayed = pace.measure(store.bucket, time.time, time.monotonic)
    assert len(quick.seconds) == len(delayed.seconds) == pace.LOOKS
    assert min(delayed.seconds) >= 0.1 > min(quick.seconds)
    assert slow.hits == pace.LOOKS + 1
    [_, said] = pace.findings(replace(delayed, seconds=(0.1,) * 9), 50)
    assert said.outcome == "good"
    for text in ("100.0 ms", "10 requests a second", "100.0 s on one connection", "2.0 s with all 50 workers"):
        assert text in said.detail
    [_, said] = pace.findings(replace(delayed, seconds=(1.5,) * 9), 50)
    assert said.outcome == "note" and said.fix is not None


def test_a_store_that_does_not_say_its_time() -> None:
    [clock, _] = pace.findings(pace.Pace((0.01,), None), 8)
    assert clock.outcome == "unknown"


# -- the table ---------------------------------------------------------------------------------------------------------


def of_table(client: Any, name: str, *, is_amazon: bool = True) -> dict[str, Finding]:
    found = list(run._made(table.TableChecks(client, name, is_amazon=is_amazon).all(), "dynamodb at test"))
    return {one.subject: one for one in found}


def test_a_table_that_can_be_deleted(dynamodb: DynamoDBLocal, table_name: str) -> None:
    client = dynamodb.client()
    client.create_table(**{**definition(table_name), "DeletionProtectionEnabled": False})
    found = of_table(client, table_name)[table.PROTECTION]
    assert (found.outcome, found.essential) == ("bad", False) and "archive init" in (found.fix or "")
    assert of_table(client, table_name, is_amazon=False)[table.PROTECTION].outcome == "note"
    client.update_table(TableName=table_name, DeletionProtectionEnabled=True)
    assert of_table(client, table_name)[table.PROTECTION].outcome == "good"
    # DynamoDB Local has no backups, and says that it does not know the question.
    found = of_table(client, table_name)[table.RECOVERY]
    assert found.outcome == "unknown" and "no such question" in found.detail
    client.update_table(TableName=table_name, DeletionProtectionEnabled=False)
    client.delete_table(TableName=table_name)
    client.close()


class Backups(BaseHTTPRequestHandler):
    """Answers as DynamoDB does, over a real socket: (status, body) by operation.
    https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_DescribeContinuousBackups.html"""

    answers: dict[str, tuple[int, Any]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, said = self.answers[self.headers["X-Amz-Target"].rpartition(".")[2]]
        body = json.dumps(said).encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", "application/x-amz-json-1.0"),
            ("x-amz-crc32", str(zlib.crc32(body))),
            ("Content-Length", str(len(body))),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def backups(status: str) -> tuple[int, Any]:
    said = {
        "ContinuousBackupsStatus": "ENABLED",
        "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": status},
    }
    return 200, {"ContinuousBackupsDescription": said}


REFUSED = (400, {"__type": "com.amazon.coral.service#AccessDeniedException", "message": "not authorized"})


@pytest.mark.parametrize(
    ("answer", "outcome", "text"),
    [
        (backups("ENABLED"), "good", "brought back"),
        (backups("DISABLED"), "bad", "rebuilt"),
        (REFUSED, "unknown", "the role may not"),
    ],
)
def test_point_in_time_recovery(
    answer: tuple[int, Any], outcome: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    handler = type("Answers", (Backups,), {"answers": {"DescribeContinuousBackups": answer, "DescribeTable": REFUSED}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    settings = DynamoDBSettings(
        kind="dynamodb",
        table="dicom-studies",
        region="eu-central-1",
        endpoint_url=f"http://127.0.0.1:{server.server_address[1]}",
        ca_file=None,
        insecure_http=True,
    )
    catalogue = DynamoDBCatalogue(settings)
    try:
        found = of_table(catalogue.client, catalogue.table)
        assert found[table.RECOVERY].outcome == outcome and text in found[table.RECOVERY].detail
        if outcome == "unknown":
            assert "allow dynamodb:DescribeContinuousBackups " in (found[table.RECOVERY].fix or "")
        assert "allow dynamodb:DescribeTable " in (found[table.PROTECTION].fix or "")
        archive = Archive.model_construct(store=None, catalogue=settings)
        through = list(run.findings(archive, object(), catalogue, 8))  # type: ignore[arg-type]
        assert {one.subject: one for one in through} == of_table(catalogue.client, catalogue.table, is_amazon=False)
    finally:
        catalogue.close()
        server.shutdown()
        server.server_close()
