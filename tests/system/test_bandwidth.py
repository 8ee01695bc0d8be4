"""The limit on sending at a real daemon: it keeps to it, says so, and follows the configuration while it sends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.synthetic import Maker
from tests.system import invariants
from tests.system.invariants import Embedded
from tests.system.site import Site

MB = 1_000_000


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, workers=8)
    site.init()
    yield site
    site.close()


def arrived(site: Site) -> int:
    """Bytes of the archive, those of files that are still written among them."""
    folder = site.root / "archive" / "studies"
    return sum(os.lstat(path).st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0


def limit_to(site: Site, rate: str) -> None:
    site.config["bandwidth"] = {"default": rate}
    site.reconfigure()


def test_a_reload_changes_it_in_the_midst_of_sending(site: Site) -> None:
    site.config["bandwidth"] = {"default": "2MB/s"}
    site.write_config()
    made = Maker(7).ct_series(site.inbox / "ct", slices=40, rows=1024, columns=512)
    size = sum(one.path.stat().st_size for one in made)
    assert size > 40 * MB
    site.start()
    daemon = site.daemon
    site.wait_for(lambda: arrived(site) > MB, 60, "sending to begin")
    began, before = time.monotonic(), arrived(site)
    time.sleep(3)
    sent = (arrived(site) - before) / (time.monotonic() - began)
    assert 0.5 * MB < sent < 2.4 * MB
    said = site.ctl_json("status")["bandwidth"]
    assert said == {"rule": "default", "bytes_per_second": 2 * MB, "next_change": None}
    assert "at most 2.0 MB/s (default)" in site.ctl("status").stdout

    limit_to(site, "8MB/s")
    began, before = time.monotonic(), arrived(site)
    time.sleep(2)
    sent = (arrived(site) - before) / (time.monotonic() - began)
    assert 3 * MB < sent < 9.6 * MB

    limit_to(site, "unlimited")
    site.wait_until_empty(120)
    assert site.daemon is daemon
    assert site.stop() == 0
    Embedded(site.root / "archive").require_whole(made[0].study_uid, [one.sha256 for one in made], revision=1)
    invariants.require_whole_audit(site.state, [one.sha256 for one in made])
    # Nothing was begun anew: each went once, and no shipment was left and taken up again.
    [archived] = site.events("study-archived")
    assert (archived["sent_files"], archived["retries"]) == (40, 0)
    told = [one.get("limit_mb_per_second") for one in site.events("bandwidth-changed")]
    assert told == [2.0, 8.0, None]


def test_a_stop_does_not_wait_for_a_narrow_line(site: Site) -> None:
    site.config["bandwidth"] = {"default": "64kB/s"}
    site.write_config()
    made = Maker(8).ct_series(site.inbox / "ct", slices=12, rows=1024, columns=1024)
    site.start()
    site.wait_for(lambda: arrived(site) > 100_000, 60, "sending to begin")
    began = time.monotonic()
    assert site.stop() == 0
    assert time.monotonic() - began < 50
    assert all(one.path.exists() for one in made)
    site.config["bandwidth"] = {"default": "unlimited"}
    site.write_config()
    site.start()
    site.wait_until_empty(60)
    assert site.stop() == 0
    Embedded(site.root / "archive").require_whole(made[0].study_uid, [one.sha256 for one in made], revision=1)


@pytest.mark.parametrize("how", ["stop", "reload"])
def test_neither_does_one_with_deletions_to_publish(site: Site, how: str) -> None:
    """The head of the record of deletions goes first, and is no line behind hours of images."""
    first = Maker(9).ct_series(site.inbox / "first", slices=2, rows=16, columns=16)
    site.start()
    site.wait_for(lambda: not any(one.path.exists() for one in first), 60, "a study to be deleted")
    limit_to(site, "64kB/s")
    made = Maker(8).ct_series(site.inbox / "ct", slices=12, rows=1024, columns=1024)
    before = arrived(site)
    site.wait_for(lambda: arrived(site) > before + 100_000, 60, "sending to begin")
    began = time.monotonic()
    if how == "stop":
        assert site.stop() == 0
    else:
        site.config["workers"] = 7
        site.reconfigure()
    assert time.monotonic() - began < 50
    if how == "reload":
        assert site.stop() == 0
    heads = [*(site.root / "archive").rglob("*")]
    assert any("audit" in str(one) for one in heads)
    assert all(one.path.exists() for one in made)
    invariants.require_whole_audit(site.state, [one.sha256 for one in first])


def test_the_time_of_day_is_the_machines(site: Site) -> None:
    hour = datetime.now().hour
    now = f"{hour:02}:00-{(hour + 2) % 24:02}:00"  # which has not ended when the daemon has started
    site.config["bandwidth"] = {"default": "unlimited", now: "3MB/s"}
    site.write_config()
    site.start()
    said = site.ctl_json("status")["bandwidth"]
    assert (said["rule"], said["bytes_per_second"]) == (now, 3 * MB)
    change = said["next_change"]
    assert (change["rule"], change["bytes_per_second"]) == ("default", None)
    at = datetime.fromisoformat(change["at"]).astimezone(UTC).timestamp()
    assert 0 <= at - time.time() <= 7200 and datetime.fromtimestamp(at).minute == 0
