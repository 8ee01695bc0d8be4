"""Three studies for which the services fail for ever, dropped first, and five that are well: the real daemon over a
real store and a real table. The five are archived and deleted within the bound that docs/design.md states (What is
failing); of the three nothing is deleted, each tells its own trouble, and when the services are well again all are
archived without a person."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.figures import Figures
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Fault, Match, Rule
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.servers.tls import Certificate
from tests.synthetic import Made, Maker
from tests.system.site import Site

#: The bound of docs/design.md, What is failing, from a study's being quiet on.
BOUND_SECONDS = 120.0
#: Settling, being quiet, a whole look in case an event is lost.
QUIET_SECONDS = 5.0
ALL_DAY = 1_000_000
FILES = 4

figures = Figures("poisoned-studies", "studies for which store or catalogue fail, ahead of healthy studies")


class Place:
    def __init__(self, root: Path, rgw: CephRgw, store: FaultProxy, catalogue: FaultProxy, name: str) -> None:
        self.store, self.catalogue = store, catalogue
        common = {"region": rgw.region, "ca_file": str(rgw.ca_file)}
        self.site = Site(
            root,
            {
                "store": {"kind": "s3", "bucket": name, "endpoint_url": store.endpoint, **common},
                "catalogue": {"kind": "dynamodb", "table": name, "endpoint_url": catalogue.endpoint, **common},
            },
            environment=rgw.env(),
        )
        self._seeds = iter(range(time.time_ns() % 10**9, 10**10))

    def make(self) -> list[Made]:
        """A study that lies beside the inbox."""
        seed = next(self._seeds)
        return Maker(seed=seed).ct_series(self.site.root / "made" / f"ST{seed}", slices=FILES, rows=16, columns=16)

    def drop(self, study: list[Made]) -> None:
        folder = study[0].path.parent
        folder.rename(self.site.inbox / folder.name)

    def left(self, study: list[Made]) -> list[str]:
        """What the inbox still holds of a study, by its content."""
        folder = self.site.inbox / study[0].path.parent.name
        return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*") if path.is_file())

    def archived(self) -> set[str]:
        return {event["study_uid"] for event in self.site.events("study-archived")}


@pytest.fixture
def place(
    tmp_path: Path, rgw: CephRgw, dynamodb: DynamoDBLocal, servers_certificate: Certificate, bucket: str
) -> Iterator[Place]:
    with (
        FaultProxy(rgw.http_endpoint, certificate=servers_certificate) as store,
        FaultProxy(dynamodb.http_endpoint, certificate=servers_certificate) as catalogue,
    ):
        place = Place(tmp_path, rgw, store, catalogue, bucket)
        place.site.init()
        place.site.start()
        yield place
        store.clear()
        catalogue.clear()
        place.site.close()


def test_poisoned_studies_hold_up_nobody(place: Place) -> None:
    site = place.site
    unsent, unrecorded, unanswered = failing = [place.make() for _ in range(3)]
    place.store.set(
        [
            Rule(Fault.UNKNOWN_KEY, Match(method="PUT", study=unsent[0].study_uid), times=6),
            Rule(Fault.ERROR_500, Match(method="PUT", study=unsent[0].study_uid), times=ALL_DAY),
            Rule(Fault.DELAY, Match(study=unanswered[0].study_uid), times=ALL_DAY, seconds=3600),
        ]
    )
    place.catalogue.set([Rule(Fault.ERROR_500, Match(target="PutItem", study=unrecorded[0].study_uid), times=ALL_DAY)])
    for study in failing:
        place.drop(study)
    failing_uids = {unsent[0].study_uid, unrecorded[0].study_uid}
    site.wait_for(
        lambda: failing_uids <= {event["study_uid"] for event in site.events("study-delayed")},
        60,
        "two of them to fail",
    )
    well = [place.make() for _ in range(5)]
    since = time.monotonic()
    for study in well:
        place.drop(study)
    wanted = {study[0].study_uid for study in well}
    site.wait_for(lambda: wanted <= place.archived(), BOUND_SECONDS + QUIET_SECONDS, "the healthy studies")
    seconds = time.monotonic() - since
    assert [place.left(study) for study in well] == [[]] * 5

    # Of those that are failing nothing is deleted, and each tells what it meets.
    assert [place.left(study) for study in failing] == [sorted(made.sha256 for made in study) for study in failing]
    assert not any(request.committed for request in place.store.requests() if request.study == unanswered[0].study_uid)
    met = {uid: {e["code"] for e in site.events("study-delayed") if e["study_uid"] == uid} for uid in failing_uids}
    assert met[unsent[0].study_uid] & {"credentials", "server-error"} and met[unrecorded[0].study_uid] == {
        "server-error"
    }
    endpoints = {
        uid: {e["endpoint"] for e in site.events("study-delayed") if e["study_uid"] == uid}.pop()
        for uid in failing_uids
    }
    assert endpoints[unsent[0].study_uid].startswith("s3") and endpoints[unrecorded[0].study_uid].startswith("dynamodb")
    waiting = {study["study_uid"] for study in site.ctl_json("queue")["studies"]}
    assert waiting == {study[0].study_uid for study in failing} and site.events("study-parked") == []

    healed = time.monotonic()
    place.store.clear()
    place.catalogue.clear()
    site.wait_until_empty(120)
    site.wait_for(lambda: len(place.archived()) == 8, 60, "all to be archived")
    assert site.events("study-parked") == [], "no person was needed"
    for study in (*failing, well[0]):
        assert site.ctl_json("verify", study[0].study_uid, "--deep")["holds"] is True
    figures.tried = len(well)
    figures.details = {
        "archived after s": round(seconds, 1),
        "all after healing s": round(time.monotonic() - healed, 1),
    }
    figures.write()
