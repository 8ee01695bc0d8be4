"""Two daemons, one archive: both ship the same studies at the same moments, from inboxes and states of their own."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.factory import open_catalogue, open_store
from dicomwatchd.archive.layout.lineage import current
from dicomwatchd.archive.layout.manifests import load
from dicomwatchd.config.loading import parse
from dicomwatchd.config.whole import Config
from dicomwatchd.model import Uid
from tests.faults.liar import Liar
from tests.faults.proxy import FaultProxy
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.servers.tls import make_certificate
from tests.synthetic import Made, Maker
from tests.system import invariants
from tests.system.site import Site, embedded_archive
from tests.system.test_journey_s3 import archive_of


@pytest.fixture(params=["embedded", "s3"])
def two(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Site, Site]]:
    environment: dict[str, str] = {}
    if request.param == "embedded":
        archive = embedded_archive(tmp_path)
        (tmp_path / "archive").mkdir()
    else:
        rgw: CephRgw = request.getfixturevalue("rgw")
        dynamodb: DynamoDBLocal = request.getfixturevalue("dynamodb")
        bucket, table = request.getfixturevalue("bucket"), request.getfixturevalue("table_name")
        archive = archive_of(rgw, dynamodb, bucket, table)
        environment = rgw.env()
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    sites = [_site(tmp_path / name, archive, environment) for name in ("one", "other")]
    sites[0].init()
    yield sites[0], sites[1]
    for site in sites:
        site.close()


def _site(root: Path, archive: dict[str, Any], environment: dict[str, str]) -> Site:
    site = Site(
        root,
        archive,
        environment=environment,
        inbox={"settle_seconds": 0.05, "quiet_seconds": 0.15, "exclude": [".*"]},
        scan_interval_seconds=0.3,
        log_level="DEBUG",
    )
    site.environment.pop("AWS_CA_BUNDLE", None)
    return site


@pytest.fixture
def careless(
    tmp_path: Path, rgw: CephRgw, dynamodb: DynamoDBLocal, bucket: str, table_name: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Site, Site]]:
    """Two sites before a store that ignores If-None-Match, and so overwrites what is there. It keeps versions: without
    them nothing would be deleted here (`test_unprotected`)."""
    certificate = make_certificate(tmp_path / "tls")
    liar = Liar(rgw.access_key, rgw.secret_key, rgw.region, ("if-none-match",))
    for name, value in rgw.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    with FaultProxy(rgw.http_endpoint, certificate=certificate, liar=liar) as proxy:
        archive = archive_of(rgw, dynamodb, bucket, table_name)
        archive["store"] |= {"endpoint_url": proxy.endpoint, "ca_file": str(certificate.ca_file)}
        sites = [_site(tmp_path / name, archive, rgw.env()) for name in ("one", "other")]
        sites[0].init()
        keep_versions(rgw, bucket)
        yield sites[0], sites[1]
        for site in sites:
            site.close()


def keep_versions(rgw: CephRgw, bucket: str) -> None:
    client = rgw.client()
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    client.close()


def test_a_store_that_overwrites(careless: tuple[Site, Site]) -> None:
    """It is said at the start. It is for one daemon alone; and should two ship the same study, a manifest that one of
    them overwrites may be lost, but nothing that it listed."""
    wanted = _ship_at_once(careless, rounds=6)
    for site in careless:
        assert len(site.events("store-overwrites")) == 1
        assert not site.events("study-parked")
    config = parse(careless[0].config)
    store, catalogue = open_store(config.archive.store, connections=8), open_catalogue(config.archive.catalogue)
    for study, files in wanted.items():
        last = current(store, Uid(study))
        assert last is not None
        assert {i.sha256 for i in last.instances} == files.keys()
        assert catalogue.get(Uid(study)) == last.record()
    store.close()
    catalogue.close()
    careless[0].start()
    assert any("overwritten" in problem for problem in careless[0].ctl_json("status")["problems"])


def test_the_same_studies_at_once(two: tuple[Site, Site], request: pytest.FixtureRequest) -> None:
    kind = "s3" if "s3" in request.node.name else "embedded"
    _at_once(two, kind, rounds=6 if kind == "s3" else 10)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_same_studies_at_once_for_long(two: tuple[Site, Site], request: pytest.FixtureRequest) -> None:
    kind = "s3" if "s3" in request.node.name else "embedded"
    _at_once(two, kind, rounds=60 if kind == "s3" else 150)


def _ship_at_once(two: tuple[Site, Site], *, rounds: int) -> dict[str, dict[str, Made]]:
    """Both are started, ship, and are stopped; study to SHA-256 to file."""
    for site in two:
        site.start()
    random = Random(1)
    wanted: dict[str, dict[str, Made]] = {}
    with tempfile.TemporaryDirectory(dir=two[0].root) as made_at:
        for turn in range(rounds):
            _drop(Path(made_at) / str(turn), two, random, turn, wanted)
            for site in two:
                site.wait_until_empty(60)
    assert [site.stop() for site in two] == [0, 0]
    return wanted


def _at_once(two: tuple[Site, Site], kind: str, *, rounds: int) -> None:
    wanted = _ship_at_once(two, rounds=rounds)
    conflicts, revisions = _judge(two[0], wanted)
    assert conflicts > 0, "the two never met"
    for site in two:
        invariants.require_whole_audit(site.state, [])
        assert not site.events("study-parked")
    invariants.report(
        f"two-daemons-{kind}",
        "studies shipped by two daemons at once into one archive",
        tried=len(wanted),
        files=sum(len(files) for files in wanted.values()),
        revisions=revisions,
        studies_of_both=conflicts,
    )


def _drop(folder: Path, two: tuple[Site, Site], random: Random, turn: int, wanted: dict[str, dict[str, Made]]) -> None:
    """Three studies, old or new, each with slices for both sites, some of them the same and some changed on the way."""
    for number in {random.randrange(max(1, turn)), turn + 100, turn + 200}:
        maker = Maker(number)
        slices = maker.ct_series(
            folder / str(number), slices=6, first=1 + 4 * (turn % 5), rows=16, columns=16, series=1
        )
        files = wanted.setdefault(slices[0].study_uid, {})
        for index, one in enumerate(slices):
            targets = [two[:1], two[1:], two][(0, 0, 2, 2, 1, 1)[index]]
            data = one.path.read_bytes()
            for site in targets:
                own = data
                if index == 3 and site is two[1]:  # the same data set with another preamble
                    own = b"II*\0" + data[4:]
                sha256 = hashlib.sha256(own).hexdigest()
                files[sha256] = one
                part = site.inbox / f".{number}-{turn}-{index}"
                part.write_bytes(own)
                part.rename(site.inbox / f"{number}-{turn}-{index}")
    shutil.rmtree(folder)


def _judge(site: Site, wanted: dict[str, dict[str, Made]]) -> tuple[int, int]:
    """(studies that both sites have recorded, revisions in all)"""
    config: Config = parse(site.config)
    store, catalogue = open_store(config.archive.store, connections=8), open_catalogue(config.archive.catalogue)
    both = revisions = 0
    for study_uid, files in wanted.items():
        study = Uid(study_uid)
        listed = [o.key for o in store.listing(keys.manifests_prefix(study))]
        history = [load(store, key) for key in sorted(listed)]
        assert [m.revision for m in history] == list(range(1, len(history) + 1)), "a revision is missing"
        for earlier, later in pairwise(history):
            assert later.previous_sha256 == earlier.sha256, "a revision does not follow the one before it"
            assert set(earlier.instances) <= set(later.instances), "a revision has lost an instance"
        last = history[-1]
        assert {i.sha256 for i in last.instances} == files.keys()
        assert len(last.instances) == len(files), "an instance is listed twice"
        assert {(i.sop_instance_uid, i.series_uid) for i in last.instances} == {
            (m.sop_instance_uid, m.series_uid) for m in files.values()
        }
        for item in last.instances:
            data = b"".join(store.read(item.key))
            assert hashlib.sha256(data).hexdigest() == item.sha256
        objects = {o.key for o in store.listing(keys.study_prefix(study))} - set(listed)
        assert objects == {i.key for i in last.instances}, "objects that nothing names"
        assert catalogue.get(study) == last.record(), "catalogue and manifest differ"
        both += len(history) > 1
        revisions += len(history)
    store.close()
    catalogue.close()
    return both, revisions
