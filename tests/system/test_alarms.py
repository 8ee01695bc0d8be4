"""Each alarm by the real daemon: in its own situation, told once, over when it is over, and the command heard that.

What takes hours or weeks is put into the state while the daemon is stopped."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults.proxy import FaultProxy
from tests.servers.ceph import CephRgw
from tests.servers.tls import make_certificate
from tests.synthetic import Made, Maker, Patient
from tests.system.site import Site

MARKER = "ZQXCANARY"
DAY = 86400.0

if os.geteuid() != 0:
    pytest.skip("a drill is asked for as root", allow_module_level=True)


class Watched(Site):
    """A site with a command for alarms, which writes down what it was told, and with what."""

    def __init__(self, root: Path, *arguments: Any, **settings: Any) -> None:
        super().__init__(root, *arguments, **settings)
        self.heard = root / "heard"
        self.hook = root / "on-alarm"
        self.write_hook(f'echo "$@" "$(env | grep -c AWS_)" >>{root}/asked\ncat >>{self.heard}')
        self.config["on_alarm"] = [str(self.hook), "radiology"]
        self.write_config()

    def write_hook(self, text: str) -> None:
        self.hook.write_text(f"#!/bin/sh\n{text}\n")
        self.hook.chmod(0o755)

    def told(self) -> list[tuple[str, str, str]]:
        lines = self.heard.read_text().splitlines() if self.heard.exists() else []
        return [(one["event"], one["alarm"], one["subject"]) for one in map(json.loads, lines)]

    def wait_told(self, *expected: tuple[str, str, str], seconds: float = 60) -> None:
        """Just these were told, in any order of those at one time, and once each; in the journal, too."""
        self.wait_for(lambda: sorted(self.told()) == sorted(expected), seconds, f"{expected} to be told: {self.told()}")
        for event in ("begun", "ended"):
            journal = sorted(one["alarm"] for one in self.events(f"alarm-{event}"))
            assert journal == sorted(alarm for what, alarm, _ in expected if what == event)

    def open_now(self) -> list[str]:
        return [one["alarm"] for one in self.ctl_json("status")["alarms"]]

    def archive(self, seed: int, inbox: int = 0) -> list[Made]:
        made = Maker(seed, Patient.marked(MARKER)).ct_series(
            self.inboxes[inbox] / f"{MARKER}^{seed}", slices=3, study=0, rows=16, columns=16
        )
        self.wait_for(lambda: not any(one.path.exists() for one in made), 90, "the study to be archived")
        return made


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Watched]:
    site = Watched(tmp_path, inboxes=2)
    site.init()
    yield site
    site.close()


def four_weeks_of(site: Site, inbox: str, silent_hours: int) -> None:
    """Something came in every hour until so many ago."""
    with closing(sqlite3.connect(site.state / "state.db", timeout=30)) as db, db:
        [(source,)] = db.execute("SELECT source_id FROM sources WHERE name = ?", (inbox,))
        now = int(time.time() // 3600)
        db.execute("DELETE FROM inbox_hours WHERE source_id = ?", (source,))
        db.executemany(
            "INSERT INTO inbox_hours VALUES (?, ?, ?, 3600)",
            [(source, now - ago, 5 * (ago > silent_hours)) for ago in range(1, 28 * 24)],
        )


def test_each_fires_in_its_situation_and_once(site: Watched) -> None:
    made = make_certificate(site.root / "tls")
    certificate = site.root / "cert.pem"
    shutil.copy(made.cert_file, certificate)
    site.config["destinations"] = [
        {"name": "pacs", "ae_title": "PACS", "address": "127.0.0.1:2762", "tls": {"ca_file": str(certificate)}}
    ]
    site.write_config()
    site.start()
    study = site.archive(5)[0].study_uid
    assert site.open_now() == [] and site.told() == []
    told: list[tuple[str, str, str]] = []

    # A study does not come back.
    lost = next((site.root / "archive" / "studies" / study).rglob("*.dcm"))
    lost.rename(site.root / "lost")
    site.ctl("drill", study, check=False)
    told.append(("begun", "restore-drill", ""))
    site.wait_told(*told)
    assert site.ctl("status", "--check", check=False).returncode == 1
    (site.root / "lost").rename(lost)
    site.ctl("drill", study)
    assert site.open_now() == []
    told.append(("ended", "restore-drill", ""))
    site.wait_told(*told)

    # An inbox is silent, the other is not.
    assert site.stop() == 0
    four_weeks_of(site, "inbox1", silent_hours=30)
    four_weeks_of(site, "inbox2", silent_hours=3)
    site.start()
    told.append(("begun", "inbox-silent", "inbox1"))
    site.wait_told(*told)
    [alarm] = site.ctl_json("status")["alarms"]
    assert alarm["inbox"] == "inbox1" and alarm["sentence"].startswith(
        "nothing has come into inbox inbox1 for 31 hours"
    )
    text = site.ctl("status").stdout
    assert f"Alarm since {alarm['begun_at']}: nothing has come into inbox inbox1" in text
    assert site.stop() == 0
    site.start()  # neither repeated nor forgotten
    time.sleep(7)
    site.wait_told(*told)
    assert site.open_now() == ["inbox-silent"]
    site.archive(6)
    told.append(("ended", "inbox-silent", "inbox1"))
    site.wait_told(*told, seconds=100)

    # Files wait, and a study is held, for too long.
    site.config["inboxes"][1]["quiet_seconds"] = 3600
    site.write_config()
    assert site.stop() == 0
    site.start()
    for number, patient in enumerate((Patient("DOE^JANE", "P1"), Patient("ROE^JOHN", "P2", "19510213", "M")), start=1):
        Maker(63, patient=patient).ct_series(
            site.inbox / f"two{number}", slices=1, study=0, series=number, rows=16, columns=16
        )
    Maker(7, Patient.marked(MARKER)).ct_series(site.inboxes[1] / MARKER, slices=2, rows=16, columns=16)
    site.wait_for(lambda: bool(site.ctl_json("attention", check=False)["held"]), 90, "a study to be held")
    site.wait_for(lambda: site.ctl_json("status")["studies"].get("arriving") == 1, 60, "a study to arrive")
    assert site.open_now() == []
    assert site.stop() == 0
    days_ago = time.time() - 4 * DAY
    site.change_the_state("UPDATE holds SET held_at = ?", days_ago)
    site.change_the_state("UPDATE studies SET waits_since = ? WHERE state = 'arriving'", days_ago)
    site.start()
    told += [("begun", "hold", ""), ("begun", "oldest-file", "")]
    site.wait_told(*told)
    [held] = site.ctl_json("attention", check=False)["held"]
    site.ctl("release", held["study_uid"], "--because", "registered twice")
    site.config["alarms"] = {"oldest_file_hours": 0}
    site.reconfigure()
    told += [("ended", "hold", ""), ("ended", "oldest-file", "")]
    site.wait_told(*told)

    # A certificate ends.
    site.config["alarms"]["certificate_days"] = 3650
    site.reconfigure()
    told.append(("begun", "certificate", "destination pacs"))
    site.wait_told(*told)
    site.config["alarms"]["certificate_days"] = 1
    site.reconfigure()
    told.append(("ended", "certificate", "destination pacs"))
    site.wait_told(*told)
    assert site.stop() == 0

    assert set((site.root / "asked").read_text().splitlines()) == {"radiology 0"}
    for what in (site.log_file.read_text(), site.heard.read_text(), str(site.ctl("status", check=False))):
        assert not any(word in what.upper() for word in (MARKER, "DOE^", "ROE^", "P1", "P2"))
    assert study not in site.heard.read_text() and str(site.root) not in site.heard.read_text()
    assert not site.events("alarm-hook-failed") and not site.events("stuck")


def test_a_command_that_misbehaves_holds_up_nothing(site: Watched) -> None:
    """It hangs in a loop of forks and output, is killed at a stop, is missing, and may be written by others."""
    site.write_hook(
        f"echo $$ >>{site.root}/pids; trap '' TERM; while :; do sleep 60 & yes | head -c 1000000; sleep 1; done"
    )
    site.config["alarms"] = {"hold_hours": 0.0001}
    site.write_config()
    site.start()
    for number, patient in enumerate((Patient("DOE^JANE", "P1"), Patient("ROE^JOHN", "P2", "19510213", "M")), start=1):
        Maker(63, patient=patient).ct_series(
            site.inbox / f"two{number}", slices=1, study=0, series=number, rows=16, columns=16
        )
    site.wait_for((site.root / "pids").exists, 60, "the command to run")
    site.archive(8)  # while it hangs
    begun = time.monotonic()
    assert site.stop() == 0
    assert time.monotonic() - begun < 15
    groups = {int(pid) for pid in (site.root / "pids").read_text().split()}
    alive = set[int]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
            if state != "Z":  # a machine's first process may be one that waits for nobody
                alive.add(int(group))
    assert groups and not groups & alive, "its process group is gone"

    site.write_hook(f"cat >>{site.heard}")
    site.start()  # told now, since it was killed before
    site.wait_told(("begun", "hold", ""))
    assert not site.events("alarm-hook-failed")

    site.hook.chmod(0o777)
    [held] = site.ctl_json("attention", check=False)["held"]
    site.ctl("release", held["study_uid"], "--because", "registered twice")
    site.wait_for(lambda: bool(site.events("alarm-hook-failed")), 60, "the command to be refused")
    assert site.events("alarm-hook-failed")[0]["reason"] == "not-safe"
    assert len(site.told()) == 1
    problems = site.ctl_json("status")["problems"]
    assert any("on-alarm can be written to by its group or by others" in problem for problem in problems)
    assert str(site.hook) not in site.log_file.read_text()
    assert site.stop() == 0
    site.hook.unlink()
    site.start()
    site.wait_for(lambda: len(site.events("alarm-hook-failed")) == 2, 60, "it to be missing")
    assert site.events("alarm-hook-failed")[1]["reason"] == "missing"
    assert site.stop() == 0


def test_a_clock_that_differs_and_credentials_that_end(tmp_path: Path, rgw: CephRgw, bucket: str) -> None:
    certificate = make_certificate(tmp_path / "tls")
    end = datetime.now(UTC) + timedelta(minutes=40)
    environment = {**rgw.env(), "AWS_CREDENTIAL_EXPIRATION": end.isoformat()}
    with FaultProxy(rgw.http_endpoint, certificate=certificate) as proxy:
        store = {"kind": "s3", "bucket": bucket, "region": rgw.region, "ca_file": str(certificate.ca_file)}
        kept = {"kind": "sqlite", "path": str(tmp_path / "catalogue.db")}
        archive = {"store": store | {"endpoint_url": proxy.endpoint}, "catalogue": kept}
        site = Watched(
            tmp_path, archive, environment=environment, alarms={"credentials_hours": 0, "certificate_days": 0}
        )
        site.environment.pop("AWS_CA_BUNDLE", None)
        try:
            site.init()
            site.start()
            site.archive(9)
            assert site.open_now() == []
            proxy.ahead_seconds = 400.0
            site.reconfigure()  # which asks botocore
            site.wait_told(("begun", "clock", ""))
            [alarm] = site.ctl_json("status")["alarms"]
            assert "s behind that of the archive's service" in alarm["sentence"]
            assert 395 <= int(alarm["sentence"].split()[6]) <= 405
            assert site.stop() == 0
            site.start()
            time.sleep(6)
            site.wait_told(("begun", "clock", ""))
            proxy.ahead_seconds = 0.0
            site.config["alarms"]["credentials_hours"] = 1
            site.reconfigure()
            told = [("begun", "clock", ""), ("ended", "clock", ""), ("begun", "credentials", "")]
            site.wait_told(*told)
            [alarm] = site.ctl_json("status")["alarms"]
            assert "the archive's credentials end in 3" in alarm["sentence"]
            assert site.stop() == 0
            site.environment.pop("AWS_CREDENTIAL_EXPIRATION")
            site.start()
            site.wait_told(*told, ("ended", "credentials", ""))
            assert site.stop() == 0
        finally:
            site.close()
    assert rgw.secret_key not in site.log_file.read_text() + site.heard.read_text()
    assert set((site.root / "asked").read_text().splitlines()) == {"radiology 0"}
