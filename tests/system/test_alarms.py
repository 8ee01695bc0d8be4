"""Each alarm by the real daemon: in its own situation, told once, over when it is over, and the command heard that.

What takes hours or weeks is put into the state while the daemon is stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.servers.ceph import CephRgw
from tests.synthetic import Maker, Patient
from tests.system.alarmed import (
    MARKER,
    Alarmed,
    a_certificate_that_ends,
    a_clock_that_differs,
    a_study_that_does_not_come_back,
    an_inbox_that_is_silent,
    before_a_service,
    credentials_that_end,
    files_that_wait_and_a_study_that_is_held,
    with_a_certificate,
)

if os.geteuid() != 0:
    pytest.skip("a drill is asked for as root", allow_module_level=True)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Alarmed]:
    site = Alarmed(tmp_path, inboxes=2)
    site.init()
    yield site
    site.close()


def this_hour() -> int:
    return int(time.time() // 3600)


def test_each_fires_in_its_situation_and_once(site: Alarmed) -> None:
    with_a_certificate(site)
    site.start()
    study = site.archive(5)[0].study_uid
    assert site.open_now() == [] and site.told() == []
    told: list[tuple[str, str, str]] = []

    with a_study_that_does_not_come_back(site, study):
        told.append(("begun", "restore-drill", ""))
        site.wait_told(*told)
        assert site.ctl("status", "--check", check=False).returncode == 1
    assert site.open_now() == []
    told.append(("ended", "restore-drill", ""))
    site.wait_told(*told)

    begun = this_hour()
    with an_inbox_that_is_silent(site):
        told.append(("begun", "inbox-silent", "inbox1"))
        site.wait_told(*told)
        [alarm] = site.ctl_json("status")["alarms"]
        hours = range(31, 32 + this_hour() - begun)  # one of them may have ended meanwhile
        assert alarm["inbox"] == "inbox1" and alarm["sentence"].startswith(
            tuple(f"nothing has come into inbox inbox1 for {number} hours" for number in hours)
        )
        text = site.ctl("status").stdout
        assert f"Alarm since {alarm['begun_at']}: nothing has come into inbox inbox1" in text
        assert site.stop() == 0
        site.start()  # neither repeated nor forgotten
        time.sleep(7)
        site.wait_told(*told)
        assert site.open_now() == ["inbox-silent"]
    told.append(("ended", "inbox-silent", "inbox1"))
    site.wait_told(*told, seconds=100)

    with files_that_wait_and_a_study_that_is_held(site):
        told += [("begun", "hold", ""), ("begun", "oldest-file", "")]
        site.wait_told(*told)
    told += [("ended", "hold", ""), ("ended", "oldest-file", "")]
    site.wait_told(*told)

    with a_certificate_that_ends(site):
        told.append(("begun", "certificate", "destination pacs"))
        site.wait_told(*told)
    told.append(("ended", "certificate", "destination pacs"))
    site.wait_told(*told)
    assert site.stop() == 0

    assert set((site.root / "asked").read_text().splitlines()) == {"radiology 0"}
    for what in (site.log_file.read_text(), site.heard.read_text(), str(site.ctl("status", check=False))):
        assert not any(word in what.upper() for word in (MARKER, "DOE^", "ROE^", "P1", "P2"))
    assert study not in site.heard.read_text() and str(site.root) not in site.heard.read_text()
    assert not site.events("alarm-hook-failed") and not site.events("stuck")


def test_a_command_that_misbehaves_holds_up_nothing(site: Alarmed) -> None:
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
    assert time.monotonic() - begun < 25
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
    with before_a_service(tmp_path, rgw, bucket) as (site, proxy):
        site.archive(9)
        assert site.open_now() == []
        told: list[tuple[str, str, str]] = [("begun", "clock", "")]
        with a_clock_that_differs(site, proxy):
            site.wait_told(*told)
            [alarm] = site.ctl_json("status")["alarms"]
            assert "s behind that of the archive's service" in alarm["sentence"]
            assert 395 <= int(alarm["sentence"].split()[6]) <= 405
            assert site.stop() == 0
            site.start()
            time.sleep(6)
            site.wait_told(*told)
        with credentials_that_end(site):
            told += [("ended", "clock", ""), ("begun", "credentials", "")]
            site.wait_told(*told)
            [alarm] = site.ctl_json("status")["alarms"]
            assert "the archive's credentials end in 3" in alarm["sentence"]
        site.wait_told(*told, ("ended", "credentials", ""))
        assert site.stop() == 0
    assert rgw.secret_key not in site.log_file.read_text() + site.heard.read_text()
    assert set((site.root / "asked").read_text().splitlines()) == {"radiology 0"}
