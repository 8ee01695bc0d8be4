"""The recipes of docs/disaster.md, each in its situation: a real gateway and catalogue, the real programs, and the
commands as they stand on the page. Every study comes back with equal hashes, nothing is deleted that the archive does
not hold, and a file that was never archived is still there, or archived."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dicomwatchd.archive.catalogues.dynamodb.setup import definition
from tests.servers.amazon import Amazon
from tests.servers.ceph import KMS_KEY_ID, CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.synthetic import Made, Maker
from tests.system.recipes import PAGE, Host, recipe, steps
from tests.system.site import Site
from tests.system.test_journey_s3 import archive_of, expected, fetched, sha256

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = "radiology/"
SMALL = {"rows": 32, "columns": 32}
RECIPES = {
    *("host", "state", "table", "older", "region", "identity", "objects", "gone", "lost"),
    *("key", "parked", "credentials", "clone"),
}


class World:
    """An archive at the gateway, a bucket for its replica, and whatever machines a test has."""

    def __init__(self, root: Path, rgw: CephRgw, dynamodb: DynamoDBLocal, bucket: str, table: str) -> None:
        self.root, self.rgw, self.dynamodb, self.bucket = root, rgw, dynamodb, bucket
        self.replica = f"{bucket}-2"
        self.archive = archive_of(rgw, dynamodb, bucket, table)
        del self.archive["store"]["encryption"]
        self.s3: S3Client = rgw.client()
        self.maker = Maker(seed=int(uuid.uuid4().hex[:6], 16))
        self.hosts: list[Host] = []
        self._numbers = 100

    def host(
        self,
        name: str = "host",
        *,
        inboxes: dict[str, Path] | None = None,
        environment: dict[str, str] | None = None,
        archive: dict[str, Any] | None = None,
        **inbox: Any,
    ) -> Host:
        """A machine; ``inboxes`` by their names, where they are not below its own root."""
        site = Site(
            self.root / name,
            archive or self.archive,
            environment={**self.rgw.env(), **(environment or {})},
            inbox={"settle_seconds": 0.1, "quiet_seconds": 0.5, **inbox},
            scan_interval_seconds=1,
        )
        site.environment.pop("AWS_CA_BUNDLE", None)
        for other, path in (inboxes or {}).items():
            path.mkdir(parents=True, exist_ok=True)
            site.inboxes.append(path)
            site.config["inboxes"].append({**site.config["inboxes"][0], "name": other, "path": str(path)})
        site.write_config()
        host = Host(
            site,
            {
                "AWS_ENDPOINT_URL_S3": self.rgw.https_endpoint,
                "AWS_ENDPOINT_URL_DYNAMODB": self.dynamodb.https_endpoint,
                "AWS_CA_BUNDLE": str(self.rgw.ca_file),
                "BUCKET": self.bucket,
                "REPLICA": self.replica,
                "PREFIX": PREFIX,
            },
        )
        self.hosts.append(host)
        return host

    def study(self, slices: int = 3, study: int | None = None, first: int = 1) -> list[Made]:
        """Of a new study; or more of one, by the number that was given for it."""
        if study is None:
            self._numbers += 1
            study = self._numbers
        folder = self.root / "made" / uuid.uuid4().hex
        return self.maker.ct_series(folder, slices=slices, study=study, series=1, first=first, **SMALL)

    def stored(self, bucket: str | None = None, prefix: str = PREFIX) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket or self.bucket, Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", [])]

    def copy(self, wanted: Callable[[str], bool] = lambda _: True) -> None:
        """As replication would: what is in the bucket and of interest, into the replica."""
        self.s3.create_bucket(Bucket=self.replica)
        for key in filter(wanted, self.stored()):
            body = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            self.s3.put_object(Bucket=self.replica, Key=key, Body=body)

    def close(self) -> None:
        for host in self.hosts:
            host.kill()
        self.s3.close()


@pytest.fixture
def world(tmp_path: Path, rgw: CephRgw, dynamodb: DynamoDBLocal, bucket: str, table_name: str) -> Iterator[World]:
    world = World(tmp_path, rgw, dynamodb, bucket, table_name)
    yield world
    world.close()


def drop(inbox: Path, files: list[Made]) -> None:
    for made in files:
        part = inbox / f".{made.sop_instance_uid}"
        shutil.copyfile(made.path, part)
        part.rename(inbox / f"{made.sop_instance_uid}.dcm")


def archived(host: Host, files: list[Made], inbox: Path | None = None) -> None:
    """Dropped, archived and deleted here."""
    inbox = inbox or host.site.inbox
    drop(inbox, files)
    gone(host, inbox)


def gone(host: Host, inbox: Path, seconds: float = 90) -> None:
    host.site.wait_for(lambda: not list(inbox.rglob("*.dcm")), seconds, "the inbox to be empty")


def require_back(host: Host, *files: list[Made]) -> None:
    """Every study comes back whole, from manifest and catalogue, and every file of it is what it was."""
    studies: dict[str, list[Made]] = {}
    for made in chain.from_iterable(files):
        studies.setdefault(made.study_uid, []).append(made)
    for study, its in studies.items():
        assert fetched(host.site, study) == expected(its)


def require_untouched(inbox: Path, files: list[Made]) -> None:
    assert {path.stem: sha256(path) for path in inbox.glob("*.dcm")} == {m.sop_instance_uid: m.sha256 for m in files}


def told(host: Host, event: str, text: str, seconds: float = 60) -> None:
    def is_told() -> bool:
        return any(text in json.dumps(entry) for entry in host.site.events(event))

    host.site.wait_for(is_told, seconds, f"{event} with {text}")


def failing(host: Host, service: str) -> None:
    """Two studies in a row have failed there, and `status` says so as the page has it."""

    def is_told() -> bool:
        return re.search(rf"^{service} at .*: failing; next attempt in", status(host), re.MULTILINE) is not None

    assert f"`{service} at …: failing; next attempt in …`" in PAGE.read_text()
    host.site.wait_for(is_told, 60, f"{service} to be told of as failing")


def status(host: Host) -> str:
    return host.type("dicomwatchctl status")


def refused(host: Host, text: str) -> None:
    """A start that fails, and why."""
    host.type("systemctl start dicomwatchd", code=1)
    assert text in json.dumps(host.site.events("refused")[-1:])
    assert text in " ".join(PAGE.read_text().split())


def test_every_command_of_the_page_is_run() -> None:
    text = PAGE.read_text()
    assert len(steps()) == text.count("```sh\n") == text.count("<!-- ci:disaster")
    assert {name for step in steps() for name in step.names} == RECIPES


def test_the_host_is_lost(world: World) -> None:
    share, slow = world.root / "share", world.root / "old" / "slow"
    old = world.host("old", inboxes={"share": share, "slow": slow})
    old.site.config["inboxes"][2]["quiet_seconds"] = 3600
    old.site.write_config()
    old.type("dicomwatchctl archive init")
    old.start()
    before, half, waiting, later = world.study(), world.study(4), world.study(), world.study()
    archived(old, before, share)
    old.type(
        "systemctl restart dicomwatchd"
    )  # within a minute of a deletion, or at a stop, its record has a head there
    drop(slow, half)
    old.site.wait_for(
        lambda: sum(half[0].study_uid in key for key in world.stored()) == len(half), 60, "early images in the bucket"
    )
    old.kill()
    drop(share, waiting)
    (share / "notes.txt").write_text("no image")
    drop(old.site.inbox, later)  # nobody here will know of them
    shutil.rmtree(old.site.root)

    new = world.host("new", inboxes={"share": share})
    new.placed["/srv/dicom/inbox"] = str(share)
    new.environment["STUDY"] = before[0].study_uid
    for step in recipe("host"):
        new.follow(step)
    assert (new.folder / "unrecorded").read_text().split() == [half[0].study_uid]
    gone(new, share)
    assert (share / "notes.txt").read_text() == "no image"
    require_back(new, before, half, waiting)
    archived(new, later)  # sent again by the modality
    require_back(new, later)
    assert "Nothing is waiting." in new.type("dicomwatchctl queue")


def test_the_state_is_damaged(world: World) -> None:
    host = world.host()
    host.type("dicomwatchctl archive init")
    host.start()
    before, waiting = world.study(), [*world.study(), *world.study()]
    archived(host, before)
    host.type("systemctl stop dicomwatchd")
    drop(host.site.inbox, waiting)
    _damage(host.site.state / "state.db", "meta")
    refused(host, "the state database is damaged")
    require_untouched(host.site.inbox, waiting)
    for step in recipe("state"):
        host.follow(step)
    entries = (host.site.state / "damaged-state" / "entries.jsonl").read_text().splitlines()
    assert {json.loads(line).get("sha256") for line in entries} >= {made.sha256 for made in before}
    gone(host, host.site.inbox)
    require_back(host, before, waiting)


def _damage(database: Path, table: str) -> None:
    """A page in its middle is nothing any more."""
    import sqlite3

    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def test_the_table_is_lost(world: World) -> None:
    host = world.host()
    host.type("dicomwatchctl archive init")
    host.start()
    before, waiting = world.study(), [*world.study(), *world.study()]
    archived(host, before)
    client, table = world.dynamodb.client(), world.archive["catalogue"]["table"]
    client.update_table(TableName=table, DeletionProtectionEnabled=False)
    client.delete_table(TableName=table)
    client.close()
    drop(host.site.inbox, waiting)
    told(host, "study-delayed", "ResourceNotFoundException")
    failing(host, "dynamodb")
    require_untouched(host.site.inbox, waiting)
    assert fetched(host.site, before[0].study_uid, "--no-catalogue") == expected(before)
    for step in recipe("table"):
        host.follow(step)
    gone(host, host.site.inbox)
    require_back(host, before, waiting)
    assert before[0].study_uid in host.type("dicomwatchctl search --all --wide")

    host.type("systemctl stop dicomwatchd")
    client = world.dynamodb.client()
    client.update_table(TableName=table, DeletionProtectionEnabled=False)
    client.delete_table(TableName=table)
    client.close()
    refused(host, "the catalogue's table does not exist")


def test_the_catalogue_is_an_older_one(world: World) -> None:
    host = world.host()
    host.type("dicomwatchctl archive init")
    host.start()
    first, second = world.study(study=0), world.study(study=1)
    archived(host, first)
    client, table = world.dynamodb.client(), world.archive["catalogue"]["table"]
    at_that_time = client.scan(TableName=table)["Items"]
    late = world.study(2, study=0, first=10)
    archived(host, [*second, *late])
    client.create_table(**definition(f"{table}-2"))
    for item in at_that_time:
        client.put_item(TableName=f"{table}-2", Item=item)
    client.close()
    host.site.config["archive"]["catalogue"]["table"] = f"{table}-2"
    host.site.write_config()
    assert second[0].study_uid not in host.type("dicomwatchctl search --all --wide")
    said = host.type("dicomwatchctl archive verify --wide", code=1)
    for sentence in ("the catalogue does not have the study", "the catalogue has an older revision"):
        assert sentence in said and sentence in " ".join(PAGE.read_text().split())
    for step in recipe("older"):
        host.follow(step)
    assert host.site.events("archive-moved")
    assert second[0].study_uid in host.type("dicomwatchctl search --all --wide")
    third = world.study()
    archived(host, third)
    require_back(host, [*first, *late], second, third)


def test_the_region_is_lost(world: World) -> None:
    """The replica lacks a revision that came last, and one image; what waits is archived there, what is kept too."""
    kept = world.root / "kept"
    host = world.host(inboxes={"kept": kept})
    host.site.config["inboxes"][1]["after_archive"] = {"delete_after": "7d"}
    host.site.write_config()
    host.type("dicomwatchctl archive init")
    host.start()
    first, second, third, waiting = world.study(study=0), world.study(study=1), world.study(study=2), world.study()
    archived(host, [*first, *second])
    early = set(world.stored())
    late = world.study(2, study=0, first=10)
    archived(host, late)
    of_late = {key for key in set(world.stored()) - early if "/studies/" in key}
    drop(kept, third)
    host.site.wait_for(
        lambda: any(third[0].study_uid in key and "manifests" in key for key in world.stored()), 60, "the third study"
    )
    one = next(key for key in world.stored() if second[0].sha256 in key)
    world.copy(lambda key: key not in of_late and key != one and third[0].study_uid not in key)

    host.environment["SINCE"] = "2026-11-29 21:00"
    stop, identity, init, rebuild, start, verify, compare = recipe("region")
    host.follow(stop)
    drop(host.site.inbox, waiting)
    for key in world.stored(prefix=""):
        world.s3.delete_object(Bucket=world.bucket, Key=key)
    host.follow(identity)
    host.site.config["archive"]["store"]["bucket"] = world.replica
    host.site.config["archive"]["catalogue"]["table"] += "-2"
    host.site.write_config()
    for step in (init, rebuild, start, verify, compare):
        host.follow(step)
    assert host.site.events("archive-moved")
    lines = [line.split() for line in (host.folder / "not-copied").read_text().splitlines()]
    assert {f"{PREFIX}{key}" for _, key in lines} == of_late | {one}
    assert {study for study, _ in lines} == {first[0].study_uid, second[0].study_uid}
    gone(host, host.site.inbox)
    require_untouched(kept, third)
    host.site.wait_for(
        lambda: any(third[0].study_uid in key and "manifests" in key for key in world.stored(world.replica)),
        60,
        "what is kept to be archived in the replica",
    )
    archived(host, [*late, *second])  # sent again by the modality
    require_back(host, [*first, *late], second, third, waiting)
    host.follow(compare)
    assert ".dcm" not in (host.folder / "not-copied").read_text()
    assert "0 with something missing or wrong" in host.type("dicomwatchctl archive verify")


def test_the_identity_was_not_copied(world: World) -> None:
    host = world.host()
    host.type("dicomwatchctl archive init")
    host.start()
    before = world.study()
    archived(host, before)
    known = host.site.ctl_json("status")["archive_id"]
    world.copy(lambda key: not key.endswith("archive.json"))
    host.type("systemctl stop dicomwatchd")
    host.site.config["archive"]["store"]["bucket"] = world.replica
    host.site.config["archive"]["catalogue"]["table"] += "-2"
    host.site.write_config()
    refusal = host.type("dicomwatchctl archive init", code=3)
    assert f"the store holds studies of archive {known}, and not the archive's identity" in refusal
    for step in recipe("identity"):
        assert f"Archive {known} is ready." in host.follow(step)
    host.type("dicomwatchctl catalogue rebuild")
    host.start()
    after = world.study()
    archived(host, after)
    require_back(host, before, after)


def test_objects_are_hidden(world: World) -> None:
    world.s3.create_bucket(Bucket=world.bucket)
    world.s3.put_bucket_versioning(Bucket=world.bucket, VersioningConfiguration={"Status": "Enabled"})
    host = world.host()
    host.type("dicomwatchctl archive init")
    host.start()
    first, second, waiting = world.study(), world.study(), world.study()
    archived(host, [*first, *second])
    host.type("systemctl stop dicomwatchd")
    drop(host.site.inbox, waiting)
    for key in world.stored(prefix=f"{PREFIX}studies/"):
        if first[0].study_uid in key:
            assert world.s3.delete_object(Bucket=world.bucket, Key=key)["DeleteMarker"]
    for step in recipe("objects"):
        host.follow(step)
    require_untouched(host.site.inbox, waiting)
    host.start()
    gone(host, host.site.inbox)
    require_back(host, first, second, waiting)


def test_objects_are_gone(world: World) -> None:
    host = world.host()
    host.type("dicomwatchctl archive init")
    host.start()
    first, second = world.study(), world.study()
    archived(host, [*first, *second])
    world.copy()
    for key in world.stored(prefix=f"{PREFIX}studies/"):
        if first[0].study_uid in key:
            world.s3.delete_object(Bucket=world.bucket, Key=key)
    assert "missing or wrong" in host.type("dicomwatchctl archive verify", code=1)
    for step in recipe("gone"):
        host.follow(step)
    require_back(host, first, second)

    one = next(key for key in world.stored() if second[1].sha256 in key)
    world.s3.delete_object(Bucket=world.bucket, Key=one)
    (lost,) = recipe("lost")
    assert host.follow(lost).split() == [second[0].study_uid]
    archived(host, second)  # sent again by the modality
    require_back(host, first, second)
    assert "0 with something missing or wrong" in host.type("dicomwatchctl archive verify")


def test_the_key_is_disabled(world: World, amazon: Amazon) -> None:
    key = amazon.keys.create("alias/dicom")
    place = {"region": "us-east-1", "ca_file": str(amazon.ca_file)}
    host = world.host(
        environment=amazon.env(),
        archive={
            "store": {
                "kind": "s3",
                "bucket": world.bucket,
                "prefix": PREFIX,
                "encryption": {"mode": "aws:kms", "key_id": key},
                **place,
            },
            "catalogue": {"kind": "dynamodb", "table": world.archive["catalogue"]["table"], **place},
        },
    )
    host.environment["AWS_CA_BUNDLE"] = str(amazon.ca_file)
    host.type("dicomwatchctl archive init")
    host.start()
    before, waiting = world.study(), [*world.study(), *world.study()]
    archived(host, before)
    host.environment["STUDY"] = before[0].study_uid
    amazon.keys.disabled.add(key)
    try:
        drop(host.site.inbox, waiting)
        told(host, "study-delayed", "KMS.DisabledException")
        assert host.site.events("study-delayed")[-1]["code"] == "encryption-key"
        failing(host, "s3")
        host.type("systemctl restart dicomwatchd", code=1)
        assert "KMS.DisabledException" in json.dumps(host.site.events("refused")[-1:])
        require_untouched(host.site.inbox, waiting)
    finally:
        amazon.keys.disabled.clear()
    for step in recipe("key"):
        host.follow(step)
    gone(host, host.site.inbox)
    require_back(host, before, waiting)


def test_the_key_is_gone_at_a_store_without_a_word_for_it(world: World) -> None:
    host = world.host()
    host.site.config["archive"]["store"]["encryption"] = {"mode": "aws:kms", "key_id": KMS_KEY_ID}
    host.site.write_config()
    host.type("dicomwatchctl archive init")
    host.start()
    before, waiting = world.study(), [*world.study(), *world.study()]
    archived(host, before)
    settings = world.rgw.directory / "ceph.conf"
    with_key = settings.read_text()
    try:
        world.rgw.pause_gateway()
        settings.write_text(with_key.replace(f"= {KMS_KEY_ID}=", "= another-key="))
        world.rgw.resume_gateway()
        drop(host.site.inbox, waiting)
        told(host, "study-delayed", "InvalidArgument")
        assert host.site.events("study-delayed")[-1]["code"] == "refused"
        require_untouched(host.site.inbox, waiting)
    finally:
        world.rgw.pause_gateway()
        settings.write_text(with_key)
        world.rgw.resume_gateway()
    (retry,) = recipe("parked")
    host.follow(retry)
    gone(host, host.site.inbox)
    require_back(host, before, waiting)


def test_the_credentials_are_lost(world: World) -> None:
    user = f"daemon-{uuid.uuid4().hex[:8]}"
    first_key = world.rgw.add_user(user)
    file = world.root / "host" / "aws.credentials"
    host = world.host(environment={"AWS_SHARED_CREDENTIALS_FILE": str(file)})
    for place in (host.environment, host.site.environment):
        del place["AWS_ACCESS_KEY_ID"], place["AWS_SECRET_ACCESS_KEY"]
    _write(file, first_key)
    host.type("dicomwatchctl archive init")
    host.start()
    before, waiting = world.study(), [*world.study(), *world.study()]
    archived(host, before)
    key, secret = f"TEST{uuid.uuid4().hex[:16].upper()}", uuid.uuid4().hex
    world.rgw._run("radosgw-admin", "key", "rm", "--uid", user, "--access-key", first_key["AWS_ACCESS_KEY_ID"])
    drop(host.site.inbox, waiting)
    told(host, "study-delayed", "InvalidAccessKeyId")
    assert host.site.events("study-delayed")[-1]["code"] == "credentials"
    failing(host, "s3")
    require_untouched(host.site.inbox, waiting)
    world.rgw._run(
        *("radosgw-admin", "key", "create", "--uid", user, "--access-key", key, "--secret-key", secret),
    )
    host.placed |= {"AKIA...": key, "aws_secret_access_key = ...": f"aws_secret_access_key = {secret}"}
    for step in recipe("credentials"):
        host.follow(step)
    assert file.stat().st_mode & 0o777 == 0o600
    gone(host, host.site.inbox)
    require_back(host, before, waiting)


def _write(file: Path, key: dict[str, str]) -> None:
    file.write_text(
        f"[default]\naws_access_key_id = {key['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {key['AWS_SECRET_ACCESS_KEY']}\n"
    )
    file.chmod(0o600)


def test_a_machine_is_cloned(world: World) -> None:
    share = world.root / "share"
    original = world.host("original", inboxes={"share": share})
    original.type("dicomwatchctl archive init")
    original.start()
    before = world.study()
    archived(original, before)
    original.type("systemctl stop dicomwatchd")
    clone = world.host("clone", inboxes={"share": share})
    shutil.rmtree(clone.site.state)
    shutil.copytree(original.site.state, clone.site.state, ignore=shutil.ignore_patterns("*.sock"))
    original.start()
    clone.start()
    here, there, both = world.study(), world.study(), world.study(6)
    drop(original.site.inbox, here)
    drop(clone.site.inbox, there)
    drop(share, both)
    for host in (original, clone):
        for inbox in host.site.inboxes:
            gone(host, inbox)
    require_back(original, before, here, there, both)
    # Each publishes what it has deleted when it stops: who is second finds another chain there.
    original.type("systemctl stop dicomwatchd")
    clone.type("systemctl restart dicomwatchd")
    told(clone, "audit-cut", "the audit chain does not match its published checkpoint")
    # That an entry is another one; or, where the clone has deleted less, that its chain ends too early.
    clone.site.wait_for(
        lambda: "the audit chain has changed: " in clone.type("dicomwatchctl status"), 60, "the problem"
    )
    original.start()
    for step in recipe("clone"):
        clone.follow(step)
    entries = (clone.site.state / "state-of-another" / "entries.jsonl").read_text()
    assert all(made.sha256 in entries for made in there)
    after = world.study()
    archived(clone, after)
    for host in (original, clone):
        assert "the audit chain" not in host.type("dicomwatchctl status")
    assert "is intact" in original.type(f"dicomwatchctl prove {here[0].study_uid}")
    assert "is intact" in clone.type(f"dicomwatchctl prove {after[0].study_uid}")
    require_back(clone, before, here, there, both, after)
