"""Outages with the real daemon: the store gone, the catalogue gone, throttling, a wrong clock, credentials rotated.

Nothing parks, there is one shared backoff and no storm, what waits arrives once the outage is over, and nothing of it
was sent twice.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import skip_unless_available
from tests.faults.figures import Figures
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Fault, Match, Rule
from tests.servers.ceph import KMS_KEY_ID, CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.servers.tls import Certificate, make_certificate
from tests.synthetic import Made, Maker
from tests.system.site import Site

FILES = 12
ALL_DAY = 1_000_000
OUTAGE_SECONDS = 6.0
#: Eight workers, and three tries of the client at a request: what the studies may ask that are on their way when an
#: outage begins, and what the one study may that asks after each pause whether it is over.
FIRST_REQUESTS = 8 * 3 * 4
REQUESTS_A_PAUSE = 8 * 3

figures = Figures("outages", "store, catalogue, credentials or clock failing for a while")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def own_rgw(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[CephRgw]:
    """A gateway that this module may stop, and whose keys it may take away."""
    skip_unless_available("rgw")
    with CephRgw(tmp_path_factory.mktemp("rgw") / "rgw", certificate=certificate) as server:
        yield server


class Place:
    """A site, its archive behind two proxies, and what was dropped into its inbox."""

    def __init__(self, root: Path, rgw: CephRgw, store: FaultProxy, catalogue: FaultProxy, name: str) -> None:
        self.store, self.catalogue, self.rgw = store, catalogue, rgw
        self.figures = figures
        self.credentials = root / "credentials"
        self.write_credentials(rgw.access_key, rgw.secret_key)
        environment = {
            key: value for key, value in rgw.env().items() if key not in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        }
        ca_file = str(rgw.ca_file)
        common = {"region": rgw.region, "ca_file": ca_file}
        self.site = Site(
            root,
            {
                "store": {
                    "kind": "s3",
                    "bucket": name,
                    "endpoint_url": store.endpoint,
                    "encryption": {"mode": "aws:kms", "key_id": KMS_KEY_ID},
                    **common,
                },
                "catalogue": {"kind": "dynamodb", "table": name, "endpoint_url": catalogue.endpoint, **common},
            },
            environment={**environment, "AWS_SHARED_CREDENTIALS_FILE": str(self.credentials)},
        )
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_CA_BUNDLE", "AWS_PROFILE"):
            self.site.environment.pop(variable, None)
        self._seeds = iter(range(time.time_ns() % 10**9, 10**10))
        self.made: list[list[Made]] = []

    def write_credentials(self, access_key: str, secret_key: str) -> None:
        text = f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n"
        scratch = self.credentials.with_name("credentials.new")
        scratch.write_text(text)
        scratch.rename(self.credentials)

    def drop(self, studies: int) -> None:
        for _ in range(studies):
            seed = next(self._seeds)
            self.made.append(
                Maker(seed=seed).ct_series(self.site.inbox / f"ST{seed}", slices=FILES, rows=16, columns=16)
            )

    def delays(self) -> list[dict[str, Any]]:
        return self.site.events("study-delayed")

    def wait_for_delay(self, more_than: int) -> None:
        self.site.wait_for(lambda: len(self.delays()) > more_than, 60, "a study to be delayed")

    def check(self) -> None:
        """All that was dropped is archived, gone here, and was created once."""
        self.site.wait_until_empty(60)
        assert self.site.events("study-parked") == []
        assert not any("refused_fields" in entry for entry in self.site.events())
        created = Counter(
            request.path
            for request in self.store.requests()
            if request.committed and request.method == "PUT" and request.path.endswith(".dcm")
        )
        self.figures.duplicates += sum(1 for times in created.values() if times > 1)
        assert set(created.values()) == {1}
        expected = {made.sha256 for study in self.made for made in study}
        assert {path.rsplit("/", 1)[-1].removesuffix(".dcm") for path in created} == expected
        self.site.wait_for(lambda: self.site.ctl_json("queue")["studies"] == [], 60, "the queue to be empty")
        for study in self.made[-2:]:
            assert self.site.ctl_json("verify", study[0].study_uid, "--deep")["holds"] is True
        self.figures.tried += 1


@pytest.fixture
def place(
    tmp_path: Path, own_rgw: CephRgw, dynamodb: DynamoDBLocal, certificate: Certificate, bucket: str
) -> Iterator[Place]:
    with (
        FaultProxy(own_rgw.http_endpoint, certificate=certificate) as store,
        FaultProxy(dynamodb.http_endpoint, certificate=certificate) as catalogue,
    ):
        place = Place(tmp_path, own_rgw, store, catalogue, bucket)
        place.site.init()
        place.site.start()
        store.forget()
        yield place
        place.site.close()
    if figures.tried >= 7:  # else only some of the tests were run
        figures.write()


def requests_of(proxy: FaultProxy, since: int) -> int:
    return len(proxy.requests()) - since


def test_the_store_is_down(place: Place) -> None:
    place.rgw.pause_gateway()
    try:
        place.drop(6)
        place.wait_for_delay(0)
        time.sleep(OUTAGE_SECONDS)
        asked, pauses = len(place.store.requests()), len({d["pause_seconds"] for d in place.delays()})
        status = place.site.ctl_json("status")
        assert status["backoff"], "the status says what is waited for"
        assert len(place.site.left()) == 6 * FILES
    finally:
        place.rgw.resume_gateway()
    assert asked <= FIRST_REQUESTS + REQUESTS_A_PAUSE * pauses
    figures.details["store down"] = {"requests during the outage": asked, "files waiting": 6 * FILES}
    place.check()


def test_the_catalogue_is_down(place: Place) -> None:
    place.catalogue.stop()
    place.drop(4)
    place.wait_for_delay(0)
    time.sleep(OUTAGE_SECONDS)
    asked = len(place.store.requests())
    left = len(place.site.left())
    place.catalogue.start()
    assert left == 4 * FILES, "nothing is deleted that the catalogue does not know"
    figures.details["catalogue down"] = {"requests to the store meanwhile": asked, "files waiting": left}
    place.check()
    assert place.site.stop() == 0


def test_trouble_of_every_kind_heals(place: Place) -> None:
    """One after the other, each until several tries have failed."""
    for proxy, fault in (
        (place.store, Fault.SLOW_DOWN),
        (place.catalogue, Fault.THROTTLED),
        (place.store, Fault.CLOCK_SKEW),
        (place.catalogue, Fault.EXPIRED_TOKEN),
    ):
        before = len(place.delays())
        asked = len(proxy.requests())
        proxy.set([Rule(fault, Match(), times=ALL_DAY)])
        place.drop(2)
        place.wait_for_delay(before + 1)
        during = requests_of(proxy, asked)
        proxy.clear()
        tries = len(place.delays()) - before
        assert during <= FIRST_REQUESTS + REQUESTS_A_PAUSE * tries, f"a storm during {fault}"
        figures.details[f"{fault}"] = {"requests meanwhile": during, "tries": tries}
        place.check()


def test_keys_are_rotated(place: Place) -> None:
    """The old key is taken away first; some time later the new one stands in the credentials file."""
    rgw = place.rgw
    admin(rgw, "key", "rm", "--uid", "test", "--access-key", rgw.access_key)
    try:
        place.drop(2)
        place.wait_for_delay(1)
        assert place.delays()[-1]["code"] == "credentials"
        assert len(place.site.left()) == 2 * FILES
        made = admin(rgw, "key", "create", "--uid", "test", "--key-type", "s3", "--gen-access-key", "--gen-secret")
        [key] = made["keys"]
        place.write_credentials(key["access_key"], key["secret_key"])
        place.check()
    finally:
        admin(
            rgw, "key", "create", "--uid", "test", "--key-type", "s3",
            "--access-key", rgw.access_key, "--secret-key", rgw.secret_key,
        )  # fmt: skip


def test_a_store_that_stops_to_encrypt_ends_the_daemon(place: Place) -> None:
    """Several studies on their way at once: each worker ends what it has under way, and nothing else is sent."""
    place.store.set([Rule(Fault.NO_ENCRYPTION_ECHO, Match(method="PUT", path=r"\.dcm$"), times=ALL_DAY)])
    place.drop(4)  # 48 files
    daemon = place.site.daemon
    assert daemon is not None and daemon.wait(60) == 3
    place.site.daemon = None
    sent = [request for request in place.store.requests() if request.method == "PUT"]
    assert len(sent) <= place.site.config["workers"] * 4, "what the workers had under way for each of the studies"
    assert len(place.site.left()) == 4 * FILES
    place.store.clear()
    place.site.start()
    place.site.wait_until_empty(60)
    assert place.site.events("study-parked") == []


def test_a_start_in_the_middle_of_an_outage(place: Place) -> None:
    assert place.site.stop() == 0
    place.drop(1)
    for fault in (Fault.RESET_BEFORE, Fault.SLOW_DOWN, Fault.UNKNOWN_KEY, Fault.ERROR_500):
        with place.store.during(Rule(fault, nth=2, times=ALL_DAY)):
            assert place.site.once() == 3, fault
        with place.catalogue.during(Rule(fault, times=ALL_DAY)):
            assert place.site.once() == 3, fault
    assert len(place.site.left()) == FILES
    assert place.site.once() == 0
    assert place.site.left() == []


def admin(rgw: CephRgw, *arguments: str) -> Any:
    """radosgw-admin; its answer. The gateway hears of changed users at once."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CEPH")}
    done = subprocess.run(
        ["radosgw-admin", "-c", str(rgw.directory / "ceph.conf"), *arguments],
        capture_output=True,
        text=True,
        cwd=rgw.directory,
        env=environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip().startswith("{") else None
