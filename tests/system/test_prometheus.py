"""The real Prometheus at a real daemon: at rest no alert fires, each fires in its situation, and most end with it.

The rules are ours with ``for`` taken out, which the tests of promtool have (tests/unit/test_alerts.py): no test waits
for hours. Times that lie hours back are put into the state while the daemon is stopped."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomwatchd.archive.proof.evidence import Method
from tests import alerts
from tests.faults.liar import Liar
from tests.faults.proxy import FaultProxy
from tests.servers.ceph import CephRgw
from tests.servers.prometheus import skip_unless_installed
from tests.servers.tls import make_certificate
from tests.synthetic import Maker, Patient
from tests.system.alarmed import four_weeks_of
from tests.system.site import Site
from tests.system.test_two_daemons import keep_versions
from tests.system.watched import Watched, archive


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    skip_unless_installed()
    site = Watched(tmp_path, inboxes=2)
    try:
        with site.prometheus:
            site.init()
            yield site
            assert not site.prometheus.ever_fired("DicomwatchdFiguresOld"), "whose situation is in tests/fuse"
    finally:
        site.close()


@pytest.fixture
def careless(tmp_path: Path, rgw: CephRgw, bucket: str) -> Iterator[Watched]:
    """Before a store that ignores If-None-Match, and so overwrites what is there."""
    skip_unless_installed()
    certificate = make_certificate(tmp_path / "tls")
    liar = Liar(rgw.access_key, rgw.secret_key, rgw.region, ("if-none-match",))
    with FaultProxy(rgw.http_endpoint, certificate=certificate, liar=liar) as proxy:
        store = {"kind": "s3", "bucket": bucket, "region": rgw.region, "ca_file": str(certificate.ca_file)}
        kept = {"kind": "sqlite", "path": str(tmp_path / "catalogue.db")}
        site = Watched(
            tmp_path, {"store": store | {"endpoint_url": proxy.endpoint}, "catalogue": kept}, environment=rgw.env()
        )
        site.environment.pop("AWS_CA_BUNDLE", None)
        try:
            with site.prometheus:
                site.init()
                keep_versions(rgw, bucket)  # without them nothing would be deleted here
                yield site
        finally:
            site.close()


@pytest.fixture
def south(watched: Watched) -> Iterator[Site]:
    """Another site of the same archive, which both tell of themselves every second."""
    watched.config["sites"] = {"heartbeat": "1s", "silent_after": "5m"}
    watched.write_config()
    other = Site(
        watched.root / "south", watched.config["archive"], site={"name": "south"}, sites=watched.config["sites"]
    )
    yield other
    other.close()


def test_at_rest_no_alert_fires_and_each_asks_for_what_is_there(watched: Watched, south: Site) -> None:
    watched.start()
    south.start()
    study = archive(watched, Maker(seed=61))
    watched.ctl("drill", study)
    watched.ctl("archive", "verify", "--pace", "10000")
    watched.wait_for(lambda: watched.figure("dicomwatchd_other_sites") == 1, 90, "the other site to be heard of")
    prometheus = watched.prometheus
    prometheus.wait_for(
        lambda: bool(prometheus.query("dicomwatchd_archive_verification_studies")), 60, "its figures to be there"
    )
    prometheus.wait_for_rounds(3)
    archive(watched, Maker(seed=60))  # while it is watched, so that there are rates
    prometheus.wait_for_rounds(5)
    assert prometheus.firing() == set()
    for rule in alerts.rules():
        assert prometheus.query(rule["expr"]) == [], rule["alert"]
        for name in set(re.findall(r"\bdicomwatchd_\w+", re.sub(r'"[^"]*"', "", rule["expr"]))):
            assert prometheus.query(name), f"{rule['alert']} asks for {name}, which is not there"
    for title, queries in alerts.dashboard_queries().items():
        for query in queries:
            found = prometheus.query(query)
            assert found and all(one["value"][1] != "NaN" for one in found), f"panel {title}: {query} gave {found}"
    assert prometheus.query("up == 1")
    status = watched.ctl_json("status")
    assert status["studies"]["archived"] == 2
    # On a busy machine the status takes long, and the sampler rests for longer.
    watched.wait_for(lambda: watched.figure('dicomwatchd_studies{state="archived"}') == 2, 60, "the figures to be new")
    assert watched.figure("dicomwatchd_audit_entries_total") == status["audit"]["entries"] > 0
    assert watched.figure('dicomwatchd_stage_files_sum{stage="purge"}') == 6
    assert watched.figure('dicomwatchd_verified_files_total{method="read-back"}') == 6
    assert [one["metric"]["site"] for one in prometheus.query("dicomwatchd_site_backlog_files")] == ["south"]
    assert south.stop() == watched.stop() == 0
    prometheus.wait_until_firing("DicomwatchdDown")


def test_what_is_wrong_with_files_inboxes_and_disks(watched: Watched) -> None:
    prometheus, maker = watched.prometheus, Maker(seed=62)
    watched.config["inboxes"][1]["quiet_seconds"] = 3600
    watched.write_config()
    watched.start()
    study = archive(watched, maker)

    (watched.inbox / "readme").write_text("no DICOM")
    prometheus.wait_until_firing("DicomwatchdFilesInQuarantine")
    (watched.inbox / "readme").unlink()
    prometheus.wait_until_over("DicomwatchdFilesInQuarantine")

    for number, patient in enumerate((Patient("DOE^JANE", "P1"), Patient("ROE^JOHN", "P2", "19510213", "M")), start=1):
        Maker(seed=63, patient=patient).ct_series(
            watched.inbox / f"two{number}", slices=1, study=0, series=number, rows=16, columns=16
        )
    prometheus.wait_until_firing("DicomwatchdStudiesHeld", "DicomwatchdProblem")
    [held] = watched.ctl_json("attention", check=False)["held"]
    watched.ctl("release", held["study_uid"], "--because", "registered twice")
    prometheus.wait_until_over("DicomwatchdStudiesHeld", "DicomwatchdProblem")

    bad = Maker(seed=64).ct_series(watched.root / "parked", slices=1, rows=16, columns=16)
    in_the_way = watched.root / "archive" / "studies" / bad[0].study_uid
    in_the_way.write_text("in the way")
    shutil.copytree(watched.root / "parked", watched.inbox / "parked")
    prometheus.wait_until_firing("DicomwatchdStudiesParked", seconds=90)
    in_the_way.unlink()
    watched.ctl("retry", bad[0].study_uid)
    prometheus.wait_until_over("DicomwatchdStudiesParked")

    before = watched.figure('dicomwatchd_study_events_total{event="finished"}')
    watched.config["disk_free_warn"] = "100%"
    watched.reconfigure()
    prometheus.wait_until_firing("DicomwatchdDiskAlmostFull")
    after = watched.figure('dicomwatchd_study_events_total{event="finished"}')
    assert after is not None and before is not None and after >= before > 0, "a reload sets nothing back"
    watched.config["disk_free_warn"] = "0%"
    watched.reconfigure()
    prometheus.wait_until_over("DicomwatchdDiskAlmostFull")

    watched.receiver.close()
    prometheus.wait_until_firing("DicomwatchdReceiverDown")

    object_of_it = next((watched.root / "archive" / "studies" / study).rglob("*.dcm"))
    object_of_it.rename(watched.root / "away")
    watched.ctl("archive", "verify", "--pace", "10000", check=False)
    prometheus.wait_until_firing("DicomwatchdArchiveDamaged")
    (watched.root / "away").rename(object_of_it)
    watched.ctl("archive", "verify", "--pace", "10000")
    prometheus.wait_until_over("DicomwatchdArchiveDamaged")

    maker.ct_series(watched.inboxes[1] / "slow", slices=2, rows=16, columns=16)
    watched.wait_for(lambda: watched.figure('dicomwatchd_studies{state="arriving"}') == 1, 60, "a study to arrive")
    assert (watched.figure("dicomwatchd_oldest_unarchived_seconds") or 3600) < 3600
    assert watched.stop() == 0
    hours_ago = time.time() - 5 * 3600
    watched.change_the_state("UPDATE studies SET waits_since = ? WHERE state = 'arriving'", hours_ago)
    watched.change_the_state("DELETE FROM audit WHERE sequence > 3")
    watched.start()
    prometheus.wait_until_firing("DicomwatchdFilesWaitTooLong", "DicomwatchdRecordOfDeletions")

    watched.inboxes[1].rename(watched.root / "elsewhere")
    prometheus.wait_until_firing("DicomwatchdInboxUnavailable")
    watched.change_the_state("UPDATE sources SET scanned_at = ? WHERE name = 'inbox2'", hours_ago)
    prometheus.wait_until_firing("DicomwatchdInboxNotScanned")
    (watched.root / "elsewhere").rename(watched.inboxes[1])
    prometheus.wait_until_over("DicomwatchdInboxUnavailable", "DicomwatchdInboxNotScanned")
    assert watched.stop() == 0


def test_an_archive_that_is_away_and_one_that_loses_objects(watched: Watched) -> None:
    prometheus, maker = watched.prometheus, Maker(seed=65)
    watched.start()
    prometheus.wait_for_rounds(3)
    (watched.root / "archive").rename(watched.root / "archive-away")
    for number in range(3):
        maker.ct_series(watched.inbox / str(number), slices=1, rows=16, columns=16, study=number, series=number)
    prometheus.wait_until_firing(
        "DicomwatchdEndpointFails", "DicomwatchdMoreFailThanPass", "DicomwatchdNothingArchived", seconds=120
    )
    assert prometheus.query('dicomwatchd_endpoint_pause_seconds{endpoint="the archive\'s folder"}')
    (watched.root / "archive-away").rename(watched.root / "archive")
    watched.wait_until_empty(120)
    prometheus.wait_until_over("DicomwatchdEndpointFails", "DicomwatchdNothingArchived")

    # Sent early, and gone when its study is quiet.
    watched.config["inboxes"][0]["quiet_seconds"] = 6
    watched.reconfigure()
    made = maker.ct_series(watched.inbox / "early", slices=2, rows=16, columns=16, study=7, series=7)
    folder = watched.root / "archive" / "studies" / made[0].study_uid
    watched.wait_for(lambda: len(list(folder.rglob("*.dcm"))) == 2, 60, "its files to be sent early")
    for one in list(folder.rglob("*.dcm")):
        one.unlink()
    watched.wait_until_empty(90)
    prometheus.wait_until_firing("DicomwatchdStoreLosesObjects")

    for _ in range(4):
        assert watched.stop() == 0
        watched.start()
        prometheus.wait_for_rounds(2)
    prometheus.wait_until_firing("DicomwatchdRestarts")


def test_a_store_that_overwrites(careless: Watched) -> None:
    careless.start()
    careless.prometheus.wait_until_firing("DicomwatchdStoreOverwrites")
    archive(careless, Maker(seed=68))

    def proven() -> dict[str, float | None]:
        name = "dicomwatchd_verified_files_total"
        return {method.value: careless.figure(f'{name}{{method="{method}"}}') for method in Method}

    # The files are gone before the sampler, which rests for the longer the busier the machine is, has asked again.
    careless.wait_for(lambda: any(proven().values()), 60, "the figures to be new")
    assert sum(count or 0 for count in proven().values()) == 3 and not proven()[Method.READ_BACK]


def test_alarms_and_another_site(watched: Watched) -> None:
    prometheus, maker = watched.prometheus, Maker(seed=69)
    certificate = make_certificate(watched.root / "tls").cert_file
    tls = {"ca_file": str(certificate)}
    watched.config["destinations"] = [{"name": "pacs", "ae_title": "PACS", "address": "127.0.0.1:2762", "tls": tls}]
    watched.config["alarms"] = {"certificate_days": 1}
    watched.config["sites"] = {"heartbeat": "1s", "silent_after": "5s"}
    watched.write_config()
    watched.start()
    study = archive(watched, maker)

    lost = next((watched.root / "archive" / "studies" / study).rglob("*.dcm"))
    lost.rename(watched.root / "lost")
    watched.ctl("drill", study, check=False)
    prometheus.wait_until_firing("DicomwatchdRestoreDrillFailed")
    (watched.root / "lost").rename(lost)
    watched.ctl("drill", study)
    prometheus.wait_until_over("DicomwatchdRestoreDrillFailed")

    watched.config["alarms"] = {"certificate_days": 3650}
    watched.reconfigure()
    prometheus.wait_until_firing("DicomwatchdCertificateEnds")
    watched.config["alarms"] = {"certificate_days": 1}
    watched.reconfigure()
    prometheus.wait_until_over("DicomwatchdCertificateEnds")

    south = Site(
        watched.root / "south",
        watched.config["archive"],
        site={"name": "south"},
        sites={"heartbeat": "1s", "silent_after": "5s"},
    )
    try:
        south.start()
        watched.wait_for(lambda: watched.figure("dicomwatchd_other_sites") == 1, 60, "the other site to be heard of")
        assert "DicomwatchdSiteSilent" not in prometheus.firing()
        south.stop(signal.SIGKILL)
        prometheus.wait_until_firing("DicomwatchdSiteSilent")
        assert [one["metric"]["site"] for one in prometheus.query("dicomwatchd_site_silent == 1")] == ["south"]
        south.start()
        prometheus.wait_until_over("DicomwatchdSiteSilent")
        assert south.stop() == 0
    finally:
        south.close()

    assert watched.stop() == 0
    four_weeks_of(watched, watched.config["inboxes"][0]["name"], silent_hours=30)
    watched.start()
    prometheus.wait_until_firing("DicomwatchdInboxSilent")
    archive(watched, Maker(seed=70))
    prometheus.wait_until_over("DicomwatchdInboxSilent", seconds=120)
    assert watched.stop() == 0


def test_a_clock_that_differs_and_credentials_that_end(tmp_path: Path, rgw: CephRgw, bucket: str) -> None:
    skip_unless_installed()
    certificate = make_certificate(tmp_path / "tls")
    end = datetime.now(UTC) + timedelta(minutes=40)
    environment = {**rgw.env(), "AWS_CREDENTIAL_EXPIRATION": end.isoformat()}
    with FaultProxy(rgw.http_endpoint, certificate=certificate) as proxy:
        store = {"kind": "s3", "bucket": bucket, "region": rgw.region, "ca_file": str(certificate.ca_file)}
        kept = {"kind": "sqlite", "path": str(tmp_path / "catalogue.db")}
        both = {"store": store | {"endpoint_url": proxy.endpoint}, "catalogue": kept}
        settings = {"credentials_hours": 0, "certificate_days": 0}
        site = Watched(tmp_path, both, environment=environment, alarms=settings)
        site.environment.pop("AWS_CA_BUNDLE", None)
        try:
            with site.prometheus:
                site.init()
                site.start()
                archive(site, Maker(seed=71))
                proxy.ahead_seconds = 400.0
                site.reconfigure()  # which asks the services
                site.prometheus.wait_until_firing("DicomwatchdClockWrong")
                assert "DicomwatchdCredentialsEnd" not in site.prometheus.firing()
                proxy.ahead_seconds = 0.0
                site.config["alarms"]["credentials_hours"] = 1
                site.reconfigure()
                site.prometheus.wait_until_firing("DicomwatchdCredentialsEnd")
                site.prometheus.wait_until_over("DicomwatchdClockWrong")
                assert site.stop() == 0
        finally:
            site.close()


def test_a_port_in_use_is_said_and_archiving_goes_on(watched: Watched) -> None:
    """Anybody can take a port: another exporter that was started before, or a user who wants nothing to be archived."""
    watched.start()
    with socket.create_server(("127.0.0.1", 0)) as other:
        watched.target = f"127.0.0.1:{other.getsockname()[1]}"
        watched.config["metrics"] = {"listen": watched.target}
        watched.reconfigure()
        watched.wait_for(lambda: bool(watched.events("metrics-not-served")), 60, "it to be said")
        [problem] = [one for one in watched.ctl_json("status")["problems"] if "metrics.listen" in one]
        assert "in use" in problem and watched.ctl("status", "--check", check=False).returncode == 1
        assert watched.stop() == 0
        assert watched.once("--give-up-after", "20") == 0  # which has nobody listen
        Site.start(watched)
        archive(watched, Maker(seed=3))
    watched.wait_for(watched.listens, 60, "the port to be served once it is free")
    assert not any("metrics.listen" in one for one in watched.ctl_json("status")["problems"])
    del watched.config["metrics"]
    watched.reconfigure()
    with pytest.raises(OSError, match="refused"):
        watched.figures()
    assert watched.stop() == 0


def test_who_hangs_at_the_port_holds_up_nothing(watched: Watched) -> None:
    watched.start()
    host, _, port = watched.target.rpartition(":")
    hanging = [socket.create_connection((host, int(port))) for _ in range(50)]
    try:
        archive(watched, Maker(seed=66))
        assert watched.ctl_json("status")["studies"] == {"archived": 1}
        begun = time.monotonic()
        assert watched.stop() == 0
        assert time.monotonic() - begun < 50
    finally:
        for one in hanging:
            one.close()
    assert not watched.events("stuck")
