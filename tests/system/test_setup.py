"""The first start, as a person makes it at a terminal and as Ansible does: on a folder, and on real stores."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
import yaml

from tests import schemas
from tests.dialogue import AtTheTerminal
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.synthetic import Maker
from tests.system.site import CTL, Site


class Place:
    """Where a daemon is to be set up; nothing is there yet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "etc" / "config.yaml"
        self.inbox, self.archive, self.state = root / "in box", root / "archive", root / "state"
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.base = [CTL, "--config", str(self.config), "setup", "--no-service"]
        self.own = ["--state-directory", str(self.state), "--quiet-seconds", "1"]

    def run(self, *options: str, code: int = 0) -> dict[str, Any]:
        """Without anybody to ask."""
        done = subprocess.run(
            [*self.base, "--yes", "--json", *options],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == code, done.stdout + done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        schemas.check("setup", said)
        for one in said["steps"]:
            if one["outcome"] in ("done", "checked", "failed"):
                assert f"$ {one['command'].splitlines()[0]}" in done.stderr, "printed before it was run"
        return said

    def outcomes(self, said: dict[str, Any]) -> dict[str, str]:
        return {one["step"]: one["outcome"] for one in said["steps"]}

    def daemons(self) -> list[psutil.Process]:
        return [
            one
            for one in psutil.process_iter(["cmdline"])
            if str(self.config) in (one.info["cmdline"] or ()) and "setup" not in one.info["cmdline"]
        ]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    assert place.daemons() == [], "a daemon was left running"


def on_a_folder(place: Place) -> list[str]:
    return [*place.own, "--inbox", str(place.inbox), "--store", str(place.archive)]


def test_a_person_answers_wrongly_and_then_rightly(place: Place) -> None:
    with AtTheTerminal([*place.base, *place.own], place.environment) as at:
        at.answers("Folder that modalities write into", "inbox", "/etc/dicom", str(place.inbox))
        at.answers("Where studies are archived", str(place.inbox / "archive"), str(place.archive))
        at.answers("What becomes of a local file", "perhaps", "delete")
        at.reads("All is set up.", 120)
        at.reads("archive erase 2.25.")
        assert at.ends() == 0
    said = at.said
    assert "must be an absolute path" in said and "belongs to the system" in said and "overlaps the inbox" in said
    assert "must be keep or delete" in said and "until then files are kept" in said
    for command in ("mkdir -p", "cat >", "config check", "archive init --json", "setup test-study --json", "sed -i"):
        assert f"{command}" in said.partition("Nothing is done before")[2]
    way = said.partition("a test study of nobody")[2]
    stages = [way.find(f" s  {state}") for state in ("arriving", "queued", "uploading", "recording", "archived")]
    assert -1 not in stages and stages == sorted(stages), way
    written = yaml.safe_load(place.config.read_text())
    assert written["inboxes"] == [
        {"path": str(place.inbox), "name": "inbox", "quiet_seconds": 1, "after_archive": "delete"}
    ]
    assert len(list(place.inbox.iterdir())) == 1, "the test study's file was kept: nothing was proven yet"


def test_twice_and_the_second_time_changes_nothing(place: Place) -> None:
    first = place.run(*on_a_folder(place), "--after-archiving", "delete")
    assert first["changed"] and first["ok"] and first["test_study"]["proven"]
    assert set(place.outcomes(first).values()) == {"done", "checked"}
    content, archived = place.config.read_bytes(), sorted(place.archive.rglob("*"))
    second = place.run(*on_a_folder(place), "--after-archiving", "delete")
    assert (second["changed"], second["ok"], second["test_study"]) == (False, True, None)
    assert set(place.outcomes(second).values()) == {"already", "checked"}
    assert place.config.read_bytes() == content and sorted(place.archive.rglob("*")) == archived
    bare = place.run()
    assert not bare["changed"] and place.config.read_bytes() == content

    # What is set up is a daemon that deletes on proof.
    made = Maker(seed=61).ct_series(place.inbox / "ct", slices=2, rows=16, columns=16)
    daemon = [CTL.replace("dicomwatchctl", "dicomwatchd"), "--config", str(place.config), "--once"]
    assert subprocess.run(daemon, env=place.environment, stderr=subprocess.DEVNULL, timeout=120).returncode == 0
    assert not any(one.path.exists() for one in made)
    assert [path.name[:11] for path in place.inbox.iterdir()] == ["TEST-SETUP-"]


def test_after_a_failure_in_the_middle_it_goes_on(place: Place) -> None:
    place.archive.mkdir()
    (place.archive / ".dicomwatchd-archive").write_text("")
    (place.archive / "archive.json").write_text("damaged")
    failed = place.run(*on_a_folder(place), "--after-archiving", "delete", code=3)
    assert not failed["ok"] and failed["changed"] and "run setup again" in failed["what_to_do"]
    outcomes = place.outcomes(failed)
    assert outcomes["configuration"] == "done" and outcomes["archive"] == "failed"
    assert {outcomes[key] for key in ("start", "test-study", "stop", "after-archiving")} == {"left"}
    assert "after_archive: keep" in place.config.read_text()
    (place.archive / "archive.json").unlink()
    going_on = place.run("--after-archiving", "delete")  # all else is in the configuration by now
    outcomes = place.outcomes(going_on)
    assert outcomes["configuration"] == "already" and outcomes["archive"] == "done"
    assert outcomes["test-study"] == outcomes["after-archiving"] == "done"
    assert "after_archive: delete" in place.config.read_text()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT], ids=lambda one: one.name)
def test_ended_in_the_middle_it_leaves_no_daemon_and_goes_on(place: Place, number: signal.Signals) -> None:
    """The connection is lost, the machine shuts down, somebody presses Ctrl-C: while the daemon that setup has started
    is at the test study."""
    # Under nohup, and behind a shell's &, some of them are ignored, and so they would be in setup.
    command = ["env", "--default-signal=HUP,INT,TERM", *place.base, "--yes", *on_a_folder(place)]
    command += ["--quiet-seconds", "300"]
    with subprocess.Popen(
        command, env=place.environment, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, stdout=subprocess.PIPE,
        text=True, start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        said = []
        for line in running.stdout:
            said.append(line)
            if "arriving" in line:
                break
        assert len(place.daemons()) == 1, "".join(said)
        if number is signal.SIGINT:  # as a terminal does it
            os.killpg(running.pid, number)
        else:
            running.send_signal(number)
        said += running.stdout
        assert running.wait(120) == (130 if number is signal.SIGINT else 128 + number), "".join(said)
    assert place.daemons() == []
    text = "".join(said)
    if number is signal.SIGINT:
        assert "Interrupted. To go on: " in text and "--config" in text.partition("To go on: ")[2], text
    assert "Traceback" not in text, text
    again = place.run("--no-test-study")  # which would wait for the quiet time that is on record
    assert again["ok"] and not again["changed"] and place.outcomes(again)["configuration"] == "already"


def test_a_test_study_that_does_not_arrive_leaves_files_kept(place: Place) -> None:
    options = [*on_a_folder(place), "--quiet-seconds", "60", "--after-archiving", "delete", "--deadline", "2"]
    failed = place.run(*options, code=1)
    assert place.outcomes(failed)["test-study"] == "failed" and place.outcomes(failed)["after-archiving"] == "left"
    assert "after_archive: keep" in place.config.read_text()


def test_an_existing_configuration_stays_byte_for_byte(place: Place) -> None:
    site = Site(place.root / "mine", inbox={"after_archive": "keep"})
    place.config.parent.mkdir()
    text = "# mine\n" + yaml.safe_dump(site.config)
    place.config.write_text(text)
    differs = place.run("--store", "/srv/elsewhere", "--after-archiving", "delete", code=1)
    assert [one["where"] for one in differs["differences"]] == ["archive.store.path", "inboxes[0].after_archive"]
    assert differs["steps"] == [] and not differs["changed"] and place.config.read_text() == text
    assert not (site.root / "archive" / "archive.json").exists(), "nothing was done"
    said = place.run("--store", str(site.root / "archive"))
    assert said["ok"] and said["changed"] and said["test_study"]["proven"]
    assert place.outcomes(said)["configuration"] == "already" and place.config.read_text() == text
    place.config.write_text("inboxes: 7\n")
    done = subprocess.run([*place.base, "--yes"], env=place.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "to be asked anew" in done.stderr
    assert place.config.read_text() == "inboxes: 7\n"


def test_an_erased_test_study_is_not_sent_again_unless_asked_for(place: Place) -> None:
    study = place.run(*on_a_folder(place))["test_study"]["study_uid"]
    base = [CTL, "--config", str(place.config)]
    erase = ["archive", "erase", study, "--because", "test of setup", "--yes", study, "--no-wait"]
    subprocess.run([*base, *erase], env=place.environment, check=True, capture_output=True, timeout=60)
    again = place.run()
    assert not again["changed"] and place.outcomes(again)["test-study"] == "already"


def test_a_person_on_real_stores(
    place: Place, rgw: CephRgw, dynamodb: DynamoDBLocal, bucket: str, table_name: str
) -> None:
    place.environment |= rgw.env()
    place.environment.pop("AWS_CA_BUNDLE", None)
    options = [*place.own, "--inbox", str(place.inbox), "--ca-file", str(rgw.ca_file)]
    with AtTheTerminal([*place.base, *options], place.environment) as at:
        at.answers("Where studies are archived", "s3://a bucket", f"s3://{bucket}/radiology")
        at.answers("Region of the store", "not a region", rgw.region)
        at.answers("Address of the S3 service", "http://rgw.hospital", "https://127.0.0.1:1")
        at.reads("127.0.0.1:1", 60)
        at.answers("Where studies are archived", "")  # Enter: as before
        at.answers("Region of the store", "")
        at.answers("Address of the S3 service", rgw.https_endpoint)
        at.reads(f"there is no bucket {bucket} yet", 60)
        at.answers("Catalogue of the studies", "dynamodb:x", f"dynamodb:{table_name}")
        at.answers("Address of the DynamoDB service", "nowhere", dynamodb.https_endpoint)
        at.reads(f"there is no table {table_name} yet", 60)
        at.answers("What becomes of a local file", "never", "")
        at.reads("All is set up.", 180)
        assert at.ends() == 0
    assert "start setup with --insecure-http" in at.said
    assert not any(secret in at.said for secret in (rgw.env()["AWS_SECRET_ACCESS_KEY"], rgw.env()["AWS_ACCESS_KEY_ID"]))
    text = place.config.read_text()
    assert rgw.env()["AWS_ACCESS_KEY_ID"] not in text and "after_archive: keep" in text
    objects = rgw.client().list_objects_v2(Bucket=bucket, Prefix="radiology/studies/2.25.")["Contents"]
    assert [one["Key"] for one in objects if one["Key"].endswith(".dcm")]
    table = boto3.client(
        "dynamodb",
        endpoint_url=dynamodb.http_endpoint,
        region_name=dynamodb.region,
        aws_access_key_id=rgw.env()["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=rgw.env()["AWS_SECRET_ACCESS_KEY"],
    )
    assert table.describe_table(TableName=table_name)["Table"]["TableStatus"] == "ACTIVE"

    same = [
        *("--store", f"s3://{bucket}/radiology", "--endpoint-url", rgw.https_endpoint, "--ca-file", str(rgw.ca_file)),
        *("--catalogue", f"dynamodb:{table_name}", "--catalogue-endpoint-url", dynamodb.https_endpoint),
    ]
    second = place.run(*same, "--region", rgw.region)
    assert not second["changed"] and place.config.read_text() == text
    others = place.run(*same, "--region", "eu-west-9", code=1)
    assert [one["where"] for one in others["differences"]] == ["archive.store.region"]


def test_without_keys_it_is_said_at_once_where_to_put_them(place: Place, rgw: CephRgw, bucket: str) -> None:
    for name in [name for name in place.environment if name.startswith("AWS_")]:
        del place.environment[name]
    place.environment |= {"HOME": str(place.root), "AWS_EC2_METADATA_DISABLED": "true"}
    done = subprocess.run(
        [
            *(*place.base, "--yes", *place.own, "--inbox", str(place.inbox), "--store", f"s3://{bucket}"),
            *("--region", rgw.region, "--endpoint-url", rgw.https_endpoint, "--ca-file", str(rgw.ca_file)),
        ],
        env=place.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and "~/.aws/credentials" in done.stderr and "--endpoint-url" in done.stderr
    assert not place.config.exists()
