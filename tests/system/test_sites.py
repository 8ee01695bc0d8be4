"""Several daemons of one archive: each is seen by the others, who falls silent is told, and so is who comes back."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import schemas
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Fault, Match, Rule
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.servers.tls import Certificate
from tests.synthetic import Maker
from tests.system.site import CTL, Site, embedded_archive
from tests.system.test_journey_s3 import archive_of


@pytest.fixture(params=["embedded", "s3"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Site, Site]]:
    environment: dict[str, str] = {}
    if request.param == "embedded":
        archive = embedded_archive(tmp_path)
        (tmp_path / "archive").mkdir()
    else:
        rgw: CephRgw = request.getfixturevalue("rgw")
        dynamodb: DynamoDBLocal = request.getfixturevalue("dynamodb")
        names = request.getfixturevalue("bucket"), request.getfixturevalue("table_name")
        archive, environment = archive_of(rgw, dynamodb, *names), rgw.env()
    sites = [
        Site(
            tmp_path / name,
            archive,
            environment=environment,
            site={"name": name},
            sites={"heartbeat": "1s", "silent_after": "5s"},
        )
        for name in ("north", "south")
    ]
    sites[0].init()
    yield sites[0], sites[1]
    for site in sites:
        site.close()


def listed(site: Site, code: int = 0) -> dict[str, dict[str, Any]]:
    """By name."""
    result = site.ctl("sites", "--json", check=False)
    assert result.returncode == code, (result.returncode, result.stdout, result.stderr)
    return {one["name"]: one for one in json.loads(result.stdout)["sites"]}


def heard_of(site: Site) -> bool:
    """Whether it has told the others of itself lately, and nothing is amiss."""
    result = site.ctl("sites", "--json", check=False)
    return result.returncode == 0 and bool(json.loads(result.stdout)["sites"])


def others(site: Site) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in site.ctl_json("status")["sites"]["others"]}


def test_who_falls_silent_is_told_and_comes_back(two: tuple[Site, Site]) -> None:
    north, south = two
    assert listed(north) == {}
    made = Maker(seed=3).ct_series(north.inbox, slices=3, rows=16, columns=16)
    for site in two:
        site.start()
    north.wait_until_empty(60)
    north.wait_for(lambda: listed(north).get("north", {}).get("archived_files") == 3, 60, "what was archived is told")
    south.wait_for(lambda: set(listed(south)) == {"north", "south"}, 60, "both to be seen")
    north.wait_for(lambda: set(others(north)) == {"south"}, 60, "the other one to be seen")
    said = listed(south)["north"]
    assert (said["state"], said["archived_studies"], said["backlog_files"], said["problems"]) == ("alive", 1, 0, 0)
    assert said["site_id"] != listed(south)["south"]["site_id"]
    text = north.ctl("sites").stdout
    assert "north" in text and "south" in text and made[0].study_uid not in text

    south.stop(signal.SIGKILL)
    north.wait_for(lambda: bool(north.events("site-silent")), 60, "the silent one to be told")
    assert [one["site"] for one in north.events("site-silent")] == ["south"]
    [problem] = north.ctl_json("status")["problems"]
    assert problem.startswith("site south (host ") and "dicomwatchctl sites forget south" in problem
    assert listed(north, code=1)["south"]["state"] == "silent"
    assert "Problem: nothing has come of site south" in north.ctl("sites", check=False).stdout

    south.start()
    north.wait_for(lambda: bool(north.events("site-back")), 60, "it to come back")
    assert north.ctl_json("status")["problems"] == []
    assert len(north.events("site-silent")) == len(north.events("site-back")) == 1

    assert south.stop() == 0
    north.wait_for(lambda: len(north.events("site-silent")) == 2, 60, "the silent one to be told again")
    assert "forgotten" in north.ctl("sites", "forget", "south").stdout
    assert north.ctl("sites", "forget", "south", check=False).returncode == 1
    north.wait_for(lambda: north.ctl_json("status")["problems"] == [], 60, "nobody to be missed")
    assert set(listed(north)) == {"north"}
    south.start()
    north.wait_for(lambda: set(listed(north)) == {"north", "south"}, 60, "one that lives to come back by itself")
    assert [site.stop() for site in two] == [0, 0]
    for site in two:
        assert not site.events("site-state-twice") and not site.events("site-name-twice")
        assert not site.events("sites-refused")


def test_a_machine_with_nothing_but_a_configuration_to_read(two: tuple[Site, Site], tmp_path: Path) -> None:
    north, south = two
    north.start()
    north.wait_for(lambda: set(listed(north)) == {"north"}, 60, "the first heartbeat")
    reader = tmp_path / "reader.yaml"
    reader.write_text(yaml.safe_dump({"archive": north.config["archive"], "sites": north.config["sites"]}))
    done = subprocess.run(
        [CTL, "--config", str(reader), "sites", "--json"], env=south.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    schemas.check("sites", json.loads(done.stdout))
    assert [one["name"] for one in json.loads(done.stdout)["sites"]] == ["north"]


def test_a_cloned_machine_is_told_at_both(two: tuple[Site, Site]) -> None:
    north, south = two
    assert north.once() == 0  # its state is made
    for path in north.state.iterdir():
        if path.is_file():
            shutil.copy2(path, south.state / path.name)
    for site in two:
        site.start()
    north.wait_for(lambda: all(site.events("site-state-twice") for site in two), 60, "each to notice the other")
    assert "works with a copy of this daemon's state" in " ".join(north.ctl_json("status")["problems"])
    [said] = listed(north, code=1).values()
    assert said["twin_host"]
    for site in two:
        site.stop()


def test_a_table_that_does_not_answer_holds_up_no_end(
    tmp_path: Path, rgw: CephRgw, dynamodb: DynamoDBLocal, bucket: str, table_name: str
) -> None:
    site = Site(
        tmp_path,
        archive_of(rgw, dynamodb, bucket, table_name),
        environment=rgw.env(),
        sites={"heartbeat": "1s", "silent_after": "5s"},
    )
    site.init()
    site.start()
    site.wait_for(lambda: bool(listed(site)), 60, "the first heartbeat")
    dynamodb.stop()
    try:
        time.sleep(3)
        assert site.ctl_json("status")["problems"] == []
        begun = time.monotonic()
        assert site.stop() == 0
        assert time.monotonic() - begun < 50
    finally:
        dynamodb.start()
        site.close()
    assert not {"sites-refused", "site-silent"} & {entry["event"] for entry in site.events()}


@pytest.mark.parametrize("refused", [{"target": "PutItem", "study": ""}, {"target": "Query"}])
def test_a_policy_of_before_refuses_the_heartbeat_and_nothing_else(
    refused: dict[str, Any],
    tmp_path: Path,
    rgw: CephRgw,
    dynamodb: DynamoDBLocal,
    servers_certificate: Certificate,
    bucket: str,
    table_name: str,
) -> None:
    """Said once, with what to do; studies are archived and deleted all the while."""
    archive = archive_of(rgw, dynamodb, bucket, table_name)
    with FaultProxy(dynamodb.http_endpoint, certificate=servers_certificate) as catalogue:
        archive["catalogue"] |= {"endpoint_url": catalogue.endpoint, "ca_file": str(servers_certificate.ca_file)}
        site = Site(tmp_path, archive, environment=rgw.env(), sites={"heartbeat": "1s", "silent_after": "5s"})
        try:
            site.init()
            catalogue.set([Rule(Fault.UNKNOWN_KEY, Match(**refused), times=1_000_000)])
            site.start()
            site.wait_for(lambda: bool(site.events("sites-refused")), 60, "it to be said")
            Maker(seed=5).ct_series(site.inbox, slices=3, rows=16, columns=16)
            site.wait_until_empty(60)
            time.sleep(3)
            assert len(site.events("sites-refused")) == 1 and site.events("sites-refused")[0]["code"] == "credentials"
            [problem] = site.ctl_json("status")["problems"]
            assert "dynamodb:PutItem and dynamodb:Query" in problem
            assert not site.events("study-delayed") and not site.ctl_json("status")["backoff"]
            catalogue.clear()
            site.reload()
            site.wait_for(lambda: site.ctl_json("status")["problems"] == [], 60, "the policy that has the right")
            # Its own row was last written before the refusal, so it is silent itself until the next one.
            site.wait_for(lambda: heard_of(site), 60, "a heartbeat")
            assert site.stop() == 0
        finally:
            site.close()
