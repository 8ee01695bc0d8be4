"""Nobody learns a name from what the daemon tells of folders that are handed in, inboxes that are exchanged, manifests
that somebody has planted and things that stand in its way: each of them marked wherever a name can stand, at DEBUG."""

from __future__ import annotations

import json
import os
import urllib.request
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.model import Uid
from tests.servers import processes
from tests.synthetic import Made, Maker, Patient
from tests.system import invariants
from tests.system.site import Site

MARKER = "ZQXCANARY"

if os.geteuid() != 0:
    pytest.skip("an inbox is confirmed as root", allow_module_level=True)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    metrics = {"listen": f"127.0.0.1:{processes.free_port()}"}
    site = Site(tmp_path, log_level="DEBUG", max_file_bytes=1 << 20, scan_interval_seconds=0.5, metrics=metrics)
    site.init()
    return site


def test_no_patient_and_no_path_on_the_newer_ways(site: Site) -> None:
    maker = Maker(5, Patient.marked(MARKER))
    _plant_in(site.inbox)
    site.start()
    first = maker.ct_series(site.inbox / f"{MARKER}^1", slices=2, rows=16, columns=16)
    site.wait_for(lambda: not any(one.path.exists() for one in first), 60, "the first study to be gone")

    said = _hand_in(site, maker)
    _plant_a_manifest(site, first)
    more = maker.ct_series(site.inbox / f"{MARKER}^2", slices=1, rows=16, columns=16, series=1, study=0)
    site.wait_for(
        lambda: not any(one.path.exists() for one in more), 60, "the study to be recorded above the planted one"
    )
    assert site.events("manifest-disregarded")
    exchanged = _exchange(site, maker)
    told = {
        name: site.ctl(*command.split(), *option, check=False).stdout
        for name, command in (("status", "status"), ("queue", "queue"), ("stats", "stats"), ("inboxes", "inbox list"))
        for option in ((), ("--json",))
    }
    told |= {command: site.ctl(*command.split()).stdout for command in ("top --once", "top --json", "stats --csv")}
    site.ctl("stats", "--html", str(site.root / "page.html"))
    told["stats --html"] = (site.root / "page.html").read_text()
    told["figures"] = _figures(site, "text/plain")
    told["figures, as OpenMetrics"] = _figures(site, "application/openmetrics-text;version=1.0.0")
    assert "dicomwatchd_status_up 1" in told["figures"] and "dicomwatchd_audit_entries_total" in told["figures"]
    assert site.stop() == 0
    told |= {"log": site.log_file.read_text(), "answers to who may not know": said}
    assert '"level": "DEBUG"' in told["log"]
    for what, text in told.items():
        for word in (MARKER, MARKER.lower(), "JANE", str(site.inbox), str(site.root / "handed")):
            at = text.find(word)
            assert at < 0, f"{what} holds {word}: ...{text[max(0, at - 300) : at + 50]}"
    uids = {one.study_uid for one in (*first, *more, *exchanged)}
    assert not [uid for uid in uids if uid in told["figures"] or uid in told["figures, as OpenMetrics"]]
    for event in ("upload-started", "upload-finished", "inbox-exchanged", "study-archived"):
        assert site.events(event), event
    held = set(invariants.objects(site.root / "archive").values())
    assert {one.sha256 for one in (*first, *more, *exchanged)} <= held
    invariants.report(
        "canary-new-ways", "uploads, replaced inboxes, planted manifests, with markers to find in logs", tried=4
    )


def _figures(site: Site, accept: str) -> str:
    url = f"http://{site.config['metrics']['listen']}/metrics"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=30) as answer:
        return str(answer.read().decode())


def _plant_in(inbox: Path) -> None:
    """What stands in the way, and what is too much of something."""
    (inbox / f".dicomwatchd-aside-{MARKER}").mkdir()
    (inbox / f".dicomwatchd-aside-{MARKER}" / f"{MARKER}.dcm").write_bytes(b"x")
    (inbox / f"large-{MARKER}").write_bytes(Random(1).randbytes((1 << 20) + 1))
    with (inbox / f"holes-{MARKER}").open("wb") as file:
        file.truncate(1 << 19)
    (inbox / f"bytes-{MARKER}").write_bytes(b"\0" * 128 + b"DICM" + MARKER.encode() * 20)


def _hand_in(site: Site, maker: Maker) -> str:
    """Deleted, kept, cancelled, with a folder in it that is exchanged for a link; what a stranger would be told."""
    folder = site.root / "handed" / f"{MARKER}^JANE"
    made = maker.ct_series(folder / MARKER, slices=2, rows=16, columns=16)
    (folder / f"link-{MARKER}").symlink_to("/nowhere")
    site.ctl("upload", str(folder), "--delete", check=False)
    assert not any(one.path.exists() for one in made)
    kept = site.root / "handed" / f"{MARKER}^KEPT"
    maker.ct_series(kept, slices=1, rows=16, columns=16)
    site.ctl("upload", str(kept), check=False)
    running = site.root / "handed" / f"{MARKER}^CANCELLED"
    maker.ct_series(running, slices=1, rows=16, columns=16)
    site.ctl("upload", str(running), "--no-wait", check=False)
    uploads = site.ctl_json("upload", "list")["uploads"]
    for one in uploads:
        site.ctl("upload", "cancel", one["upload_id"], check=False)
    return site.ctl("upload", "cancel", f"upload-{'0' * 12}", check=False).stderr


def _plant_a_manifest(site: Site, made: list[Made]) -> None:
    """A revision that goes on from none, with a name wherever a text can be."""
    study = Uid(made[0].study_uid)
    archive = site.root / "archive"
    own = Manifest.from_bytes((archive / keys.manifest(study, 1)).read_bytes())
    forged = replace(
        own,
        revision=2,
        previous_sha256=None,
        created_by=f"{MARKER}^JANE",
        flags=(MARKER,),
        attributes={"00100010": {"vr": "PN", "Value": [{"Alphabetic": f"{MARKER}^JANE"}]}},
        damaged_keys=(f"studies/{study}/{MARKER}",),
    )
    (archive / keys.manifest(study, 2)).write_bytes(forged.to_bytes())
    (archive / keys.manifest(study, 3)).write_bytes(json.dumps({"format": MARKER}).encode())


def _exchange(site: Site, maker: Maker) -> list[Made]:
    """Another folder stands in the inbox's place, and is confirmed."""
    site.inbox.rename(site.root / f"was-{MARKER}")
    site.inbox.mkdir()
    made = maker.ct_series(site.inbox / f"{MARKER}^3", slices=1, rows=16, columns=16)
    site.wait_for(lambda: bool(site.events("inbox-exchanged")), 60, "the exchange to be noticed")
    site.wait_for(lambda: "exchanged" in site.ctl("inbox", "list").stdout, 60, "it to be listed")
    site.ctl("inbox", "confirm", site.inbox.name)
    site.wait_for(lambda: not any(one.path.exists() for one in made), 60, "its files to be gone")
    return made
