"""Forged manifests on real stores, put there by somebody whose credentials create objects and do nothing else: the
daemon goes on, nothing is hidden, and what is amiss is said until the daemon has recorded the study anew."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest

from tests.servers.ceph import CephRgw
from tests.synthetic import Made, Maker
from tests.system.site import Site, embedded_archive
from tests.system.test_damaged_manifest import manifest_key, ship
from tests.system.test_journey_s3 import archive_of, expected, fetched

HIGHEST = 99_999_999


@dataclass
class Writer:
    """Creates objects of the archive; in a bucket, with a user's credentials who may PutObject and nothing else."""

    folder: Path
    client: Any
    bucket: str

    def create(self, key: str, data: bytes) -> None:
        if self.client is None:
            path = self.folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(data)
        else:
            self.client.put_object(Bucket=self.bucket, Key=f"radiology/{key}", Body=data, IfNoneMatch="*")


@pytest.fixture(params=["embedded", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Site, Writer]]:
    environment: dict[str, str] = {}
    client, bucket = None, ""
    if request.param == "embedded":
        archive = embedded_archive(tmp_path)
        (tmp_path / "archive").mkdir()
    else:
        rgw: CephRgw = request.getfixturevalue("rgw")
        bucket = request.getfixturevalue("bucket")
        dynamodb, table = request.getfixturevalue("dynamodb"), request.getfixturevalue("table_name")
        archive, environment = archive_of(rgw, dynamodb, bucket, table), rgw.env()
    site = Site(tmp_path, archive, environment=environment)
    site.environment.pop("AWS_CA_BUNDLE", None)
    site.init()
    if bucket:
        client = writer_of(rgw, bucket)
    yield site, Writer(tmp_path / "archive", client, bucket)
    site.close()


def writer_of(rgw: CephRgw, bucket: str) -> Any:
    """A client of another user, whom the bucket's policy lets create objects, and nothing else."""
    name, access_key, secret_key = f"writer-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex[:20].upper(), uuid.uuid4().hex
    secrets = ("--access-key", access_key, "--secret-key", secret_key)
    rgw._run("radosgw-admin", "user", "create", "--uid", name, "--display-name", name, *secrets)
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": [f"arn:aws:iam:::user/{name}"]},
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    rgw.client().put_bucket_policy(Bucket=bucket, Policy=policy)
    client: Any = boto3.client(
        "s3",
        endpoint_url=rgw.https_endpoint,
        verify=str(rgw.ca_file),
        region_name=rgw.region,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
    )
    with pytest.raises(botocore.exceptions.ClientError):
        client.list_objects_v2(Bucket=bucket)
    return client


def forged(study: str, archive_id: str, revision: int, item: dict[str, Any]) -> bytes:
    """What can be made without reading the archive: no hash of the one below, one image of many."""
    return json.dumps(
        {
            "format": "dicomwatchd-manifest/1",
            "archive_id": archive_id,
            "study_uid": study,
            "revision": revision,
            "previous_sha256": None,
            "created_at": "2026-01-31T12:00:00.000Z",
            "created_by": "dicomwatchd",
            "flags": [],
            "attributes": {"00100020": {"vr": "LO", "Value": ["SOMEBODY-ELSE"]}},
            "series": {},
            "damaged_keys": [],
            "instances": [item],
        }
    ).encode()


def listed(made: Made) -> dict[str, Any]:
    return {
        "series_uid": made.series_uid,
        "sop_instance_uid": made.sop_instance_uid,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "key": f"studies/{made.study_uid}/series/{made.series_uid}/{made.sop_instance_uid}/{made.sha256}.dcm",
        "size_bytes": made.size_bytes,
        "sha256": made.sha256,
        "etag": None,
        "version_id": None,
        "original_path": "",
        "inbox": "",
        "stored_at": "2026-01-31T12:00:00.000Z",
        "verified_by": "read-back",
        "repairs": [],
    }


def test_a_writer_of_objects_can_add_and_not_hide(place: tuple[Site, Writer]) -> None:
    site, writer = place
    maker = Maker(seed=11)
    made = ship(site, maker, 1, 4)
    made += ship(site, maker, 5, 1)
    study = made[0].study_uid
    archive_id = site.ctl_json("archive", "init")["archive_id"]
    for revision in (3, 4, HIGHEST):
        writer.create(manifest_key(study, revision), forged(study, archive_id, revision, listed(made[0])))
    writer.create(manifest_key(study, 1500), b"{}")
    for options in ((), ("--no-catalogue",)):
        out = site.root / f"out{len(options)}"
        result = site.ctl("fetch", study, "-o", str(out), "--json", *options, check=False)
        assert result.stdout, result.stderr
        answer = json.loads(result.stdout)
        assert (result.returncode, answer["complete"], answer["fetched"]) == (1, False, 5)
        # In a bucket where an object belongs to who created it the archive may not even read them.
        amiss = {*answer["disregarded_revisions"], *answer["unreadable_revisions"]}
        assert amiss == {HIGHEST, 1500, 4, 3} and 1500 in answer["unreadable_revisions"]
        assert {path.name for path in out.rglob("*.dcm")} == {f"{m.sop_instance_uid}.dcm" for m in made}
        result = site.ctl("verify", study, "--deep", "--json", *options, check=False)
        assert result.returncode == 1 and json.loads(result.stdout)["held"] == 5
        assert site.ctl("show", study, *options, check=False).returncode == 1
    assert site.ctl("catalogue", "rebuild", check=False).returncode == 1

    made += ship(site, maker, 6, 1)
    assert site.events("study-parked") == []
    told = [*site.events("manifest-disregarded"), *site.events("manifest-unreadable")]
    assert {entry["revision"] for entry in told} == {3, 4, 1500, HIGHEST}
    shown = site.ctl_json("show", study)["archive"]
    assert (shown["revision"], shown["instances"]) == (5, 6)
    assert shown["patient_id"] != "SOMEBODY-ELSE"
    for options in ((), ("--no-catalogue",)):
        assert fetched(site, study, *options) == expected(made)
        assert site.ctl_json("verify", study, "--deep", *options)["holds"] is True
    assert site.ctl("catalogue", "rebuild").returncode == 0
