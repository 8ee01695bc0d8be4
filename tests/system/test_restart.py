"""SIGTERM in the middle of a shipment, and SIGHUP with good and bad configurations while one is on its way."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.synthetic import Made, Maker
from tests.system import invariants
from tests.system.invariants import Embedded
from tests.system.site import CTL, PYTHON, Site

SLICES = 40


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, workers=2)
    site.init()
    yield site
    site.close()


def study(site: Site, *, seed: int = 3, inbox: int = 0, slices: int = SLICES) -> list[Made]:
    return Maker(seed).ct_series(site.inboxes[inbox] / f"ST{seed}", slices=slices, rows=256, columns=256)


def require_archived(site: Site, made: list[Made], revision: int | None = 1) -> None:
    wanted = [m.sha256 for m in made]
    Embedded(site.root / "archive").require_whole(made[0].study_uid, wanted, revision=revision)


def objects(site: Site) -> int:
    return len(list((site.root / "archive").rglob("*.dcm")))


# -- SIGTERM ----------------------------------------------------------------------------------------------------------


class Traced:
    """A daemon whose every completed sending is on record: a file gets its name in the archive once it is all there."""

    def __init__(self, site: Site) -> None:
        if shutil.which("strace") is None:
            pytest.skip("strace is not installed")
        self.site = site
        self.file = site.root / "trace"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        command = ["strace", "-f", "-y", "-A", "-o", str(self.file), "-e", "signal=none", "-e", "trace=renameat2"]
        command += ["--seccomp-bpf", PYTHON, "-m", "dicomwatchd", "--config", str(self.site.config_file)]
        with self.site.log_file.open("ab") as log:
            process = subprocess.Popen(command, env=self.site.environment, stdout=log, stderr=log)
        self.processes.append(process)
        self.site.wait_for(lambda: len(self.site.events("started")) == len(self.processes), 60, "the daemon to start")
        return process

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children():
                    child.kill()
                process.wait(60)

    def sent(self) -> Counter[str]:
        """How often a file was sent for each SOP instance, to be kept or to be found there already."""
        pattern = re.compile(r"renameat2\(\d+<.*/series/[^/]+/([0-9.]+)>, \"\.dicomwatchd-tmp-")
        return Counter(match[1] for line in self.file.read_text().splitlines() if (match := pattern.search(line)))


@pytest.fixture
def traced(site: Site) -> Iterator[Traced]:
    traced = Traced(site)
    yield traced
    traced.close()


@pytest.mark.parametrize("after", [1, 13, SLICES - 1, "recorded"])
def test_sigterm_in_the_middle(after: int | str, site: Site, traced: Traced) -> None:
    made = study(site)
    process = traced.start()
    manifest = site.root / "archive" / "studies" / made[0].study_uid / "manifests" / "00000001.json"
    site.wait_for(lambda: manifest.exists() if after == "recorded" else objects(site) >= int(after), 60, "the middle")
    _daemon_under(process.pid).send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, "it drains and ends well"
    here = {invariants.digest(path) for path in site.left()}
    assert {m.sha256 for m in made} <= here | set(invariants.objects(site.root / "archive").values())
    stopped_with = objects(site)
    assert not [p for p in site.left() if ".dicomwatchd-aside" in p.parts], "a file was left staged"
    process = traced.start()
    site.wait_until_empty()
    _daemon_under(process.pid).send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    require_archived(site, made)
    invariants.require_whole_audit(site.state, [m.sha256 for m in made])
    sent = traced.sent()
    assert sent.keys() == {m.sop_instance_uid for m in made}
    again = {uid: times for uid, times in sent.items() if times != 1}
    assert not again, f"{len(again)} files were sent twice"
    invariants.report(
        f"sigterm-{after}",
        "SIGTERM in the middle of a shipment, and a restart",
        tried=1,
        objects_when_stopped=stopped_with,
        sent=sum(sent.values()),
    )


def _daemon_under(tracer: int) -> psutil.Process:
    [child] = psutil.Process(tracer).children()
    return child


def test_sigterm_and_restart_again_and_again(site: Site) -> None:
    made = study(site)
    for turn in range(6):
        site.start()
        at_least = objects(site) + turn
        site.wait_for(lambda at_least=at_least: objects(site) >= min(at_least, SLICES), 60, "some progress")  # type: ignore[misc]
        assert site.stop() == 0
        here = {invariants.digest(path) for path in site.left()}
        assert {m.sha256 for m in made} <= here | set(invariants.objects(site.root / "archive").values())
    site.start()
    site.wait_until_empty()
    assert site.stop() == 0
    require_archived(site, made)


# -- SIGHUP -----------------------------------------------------------------------------------------------------------


def test_reload_while_shipping(tmp_path: Path) -> None:
    site = Site(tmp_path, workers=2, inboxes=2)
    site.init()
    both = site.config["inboxes"]
    site.config["inboxes"] = both[:1]
    site.write_config()
    site.start()
    made = study(site)
    site.wait_for(lambda: objects(site) >= 5, 60, "the shipment to be under way")
    for bad in ("not: [yaml", "inboxes: 7", ""):
        good = site.config_file.read_text()
        site.config_file.write_text(bad)
        site.reload("reload-refused")
        site.config_file.write_text(good)
    site.config["inboxes"] = both
    site.config["workers"] = 4
    site.write_config()
    site.reload("reloaded")
    other = study(site, seed=4, inbox=1)
    site.wait_until_empty()
    require_archived(site, made)
    require_archived(site, other)
    site.reload("reloaded")
    third = study(site, seed=5, slices=3)
    site.wait_until_empty()
    require_archived(site, third)
    assert site.stop() == 0
    invariants.require_whole_audit(site.state, [m.sha256 for m in (*made, *other, *third)])
    site.close()


def refused_reloads(good: str, site: Site) -> int:
    """How many problems say so; by the configuration ``good``, which is in use whatever the file says."""
    config = site.root / "in-use.yaml"
    config.write_text(good)
    done = subprocess.run([CTL, "--config", config, "status", "--json"], capture_output=True, text=True, check=True)
    return sum("the last reload was refused" in problem for problem in json.loads(done.stdout)["problems"])


@pytest.mark.parametrize("what", ["state in use", "socket's folder missing", "state not writable", "another archive"])
def test_a_configuration_that_reads_well_and_does_not_work(what: str, site: Site, tmp_path: Path) -> None:
    """The old one stays in force, however late the fault shows."""
    other = Site(tmp_path / "other")
    other.init()
    if what == "state in use":
        other.start()
    site.start()
    good = site.config_file.read_text()
    changes: dict[str, Any] = {
        "state in use": {"state_directory": str(other.state), "control_socket": str(site.root / "other.sock")},
        "socket's folder missing": {"control_socket": str(site.root / "nowhere" / "control.sock")},
        "state not writable": {"state_directory": "/proc"},
        "another archive": {"archive": other.config["archive"]},
    }
    site.config.update(changes[what])
    site.write_config()
    site.reload("reload-refused")
    # Who restarts it weeks later would find out otherwise.
    site.wait_for(lambda: refused_reloads(good, site) == 1, 60, "status to say so")
    made = study(site, slices=3)
    site.wait_until_empty(30)
    require_archived(site, made)
    site.config_file.write_text(good)
    site.reload("reloaded")
    assert refused_reloads(good, site) == 0
    more = study(site, seed=4, slices=3)
    site.wait_until_empty(30)
    require_archived(site, more)
    assert site.stop() == 0
    other.close()


def test_a_start_that_fails_says_why_and_leaves_nothing_behind(site: Site) -> None:
    site.config["control_socket"] = str(site.root / "nowhere" / "control.sock")
    site.write_config()
    assert site.once() == 2
    assert "Traceback" not in site.log_file.read_text()
    assert not site.events("crash")
