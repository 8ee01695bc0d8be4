"""A site that tells of alarms, and what makes each of them begin and end.

What takes hours or weeks is put into the state while the daemon is stopped."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.faults.proxy import FaultProxy
from tests.servers.ceph import CephRgw
from tests.servers.tls import make_certificate
from tests.synthetic import Made, Maker, Patient
from tests.system.site import Site

MARKER = "ZQXCANARY"
DAY = 86400.0


class Alarmed(Site):
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


# -- situations: each begins with the `with`, and is over after it ---------------------------------------------------


def with_a_certificate(site: Site) -> None:
    """That of a destination, which is good for a year or so. Before the start."""
    certificate = site.root / "cert.pem"
    shutil.copy(make_certificate(site.root / "tls").cert_file, certificate)
    tls = {"ca_file": str(certificate)}
    site.config["destinations"] = [{"name": "pacs", "ae_title": "PACS", "address": "127.0.0.1:2762", "tls": tls}]
    site.write_config()


@contextmanager
def a_study_that_does_not_come_back(site: Site, study: str) -> Iterator[None]:
    lost = next((site.root / "archive" / "studies" / study).rglob("*.dcm"))
    lost.rename(site.root / "lost")
    site.ctl("drill", study, check=False)
    yield
    (site.root / "lost").rename(lost)
    site.ctl("drill", study)


@contextmanager
def an_inbox_that_is_silent(site: Alarmed) -> Iterator[None]:
    """The other is not."""
    assert site.stop() == 0
    four_weeks_of(site, site.config["inboxes"][0]["name"], silent_hours=30)
    four_weeks_of(site, site.config["inboxes"][1]["name"], silent_hours=3)
    site.start()
    yield
    site.archive(6)


@contextmanager
def files_that_wait_and_a_study_that_is_held(site: Alarmed) -> Iterator[None]:
    """For too long: two alarms."""
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
    yield
    [held] = site.ctl_json("attention", check=False)["held"]
    site.ctl("release", held["study_uid"], "--because", "registered twice")
    site.config["alarms"] = {"oldest_file_hours": 0}
    site.reconfigure()


@contextmanager
def a_certificate_that_ends(site: Site) -> Iterator[None]:
    """See `with_a_certificate`."""
    before = site.config.get("alarms", {})
    site.config["alarms"] = {**before, "certificate_days": 3650}
    site.reconfigure()
    yield
    site.config["alarms"] = {**before, "certificate_days": 1}
    site.reconfigure()


@contextmanager
def before_a_service(folder: Path, rgw: CephRgw, bucket: str) -> Iterator[tuple[Alarmed, FaultProxy]]:
    """A site whose archive's service has a clock, which the proxy before it sets, and whose credentials end in forty
    minutes. No alarm is asked for but that of the clock."""
    certificate = make_certificate(folder / "tls")
    end = datetime.now(UTC) + timedelta(minutes=40)
    environment = {**rgw.env(), "AWS_CREDENTIAL_EXPIRATION": end.isoformat()}
    with FaultProxy(rgw.http_endpoint, certificate=certificate) as proxy:
        store = {"kind": "s3", "bucket": bucket, "region": rgw.region, "ca_file": str(certificate.ca_file)}
        kept = {"kind": "sqlite", "path": str(folder / "catalogue.db")}
        archive = {"store": store | {"endpoint_url": proxy.endpoint}, "catalogue": kept}
        settings = {"credentials_hours": 0, "certificate_days": 0}
        site = Alarmed(folder, archive, environment=environment, alarms=settings)
        site.environment.pop("AWS_CA_BUNDLE", None)
        try:
            site.init()
            site.start()
            yield site, proxy
        finally:
            site.close()


@contextmanager
def a_clock_that_differs(site: Site, proxy: FaultProxy) -> Iterator[None]:
    proxy.ahead_seconds = 400.0
    site.reconfigure()  # which asks botocore
    yield
    proxy.ahead_seconds = 0.0
    site.reconfigure()


@contextmanager
def credentials_that_end(site: Site) -> Iterator[None]:
    site.config["alarms"]["credentials_hours"] = 1
    site.reconfigure()
    yield
    assert site.stop() == 0
    site.environment.pop("AWS_CREDENTIAL_EXPIRATION")
    site.start()
