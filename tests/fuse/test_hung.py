"""An inbox whose file system hangs stops nothing but itself; when it answers again, its files are archived.

The whole daemon as a process, with the inbox on a FUSE file system whose server is stopped (as a share that is mounted
hard), or does not come back from one kind of operation.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.figures import Figures
from tests.fuse.mounted import Mounted
from tests.synthetic import Made, Maker
from tests.system import invariants
from tests.system.site import Site

#: For what has to happen at last, on a machine that does much else.
PATIENCE = 120.0
#: What SIGTERM may take, with an inbox that hangs.
STOP_SECONDS = 30.0


class Trial:
    """A site with one inbox on a disk and one on a share."""

    def __init__(self, root: Path, share: Mounted) -> None:
        self.share = share
        self.site = Site(root, inbox_answer_seconds=1.5, workers=4)
        self.site.config["inboxes"].append(
            {"name": "share", "path": str(share.path), "watch": "poll", "settle_seconds": 0.2, "quiet_seconds": 0.5}
        )
        self.site.write_config()
        self.site.init()
        self.maker = Maker(seed=5)
        self.made: list[Made] = []
        self._studies = 0

    def drop(self, folder: Path, slices: int = 3, size: int = 16) -> list[Made]:
        self._studies += 1
        made = self.maker.ct_series(
            folder / f"DOE{self._studies}", slices=slices, series=1, study=self._studies, rows=size, columns=size
        )
        self.made += made
        return made

    def local(self) -> list[Made]:
        return self.drop(self.site.inbox)

    def remote(self, slices: int = 3, size: int = 16) -> list[Made]:
        return self.drop(self.share.backing, slices, size)

    def wait_archived(self, made: list[Made], what: str) -> None:
        self.site.wait_for(lambda: not any(m.path.exists() for m in made), PATIENCE, what)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.site.ctl("status", "--json", timeout=PATIENCE).stdout)
        return found

    def inbox(self, name: str) -> dict[str, Any]:
        return next(inbox for inbox in self.status()["inboxes"] if inbox["name"] == name)

    def wait_silent(self) -> None:
        self.site.wait_for(
            lambda: self.inbox("share")["state"] == "not-responding", PATIENCE, "the inbox to be called silent"
        )

    def finish(self, figure: str) -> None:
        """All is archived and deleted, the record is whole."""
        self.wait_archived(self.made, "every file to be archived")
        self.site.wait_for(lambda: not self.status()["files"], PATIENCE, "the files to be forgotten")
        assert self.site.stop(timeout=PATIENCE) == 0
        held = set(invariants.objects(self.site.root / "archive").values())
        lost = [m for m in self.made if m.sha256 not in held]
        Figures(
            name=f"hung-{figure.replace(' ', '-').replace(',', '')}",
            what=f"trials with a hung inbox: {figure}",
            tried=1,
            lost=len(lost),
            details={"files": len(self.made)},
        ).write()
        assert not lost


@pytest.fixture
def trial(share: Mounted, tmp_path: Path) -> Iterator[Trial]:
    trial = Trial(tmp_path / "site", share)
    yield trial
    share.unmount()  # first: a process with a thread inside it may not end before
    trial.site.close()


def test_a_share_that_hangs(trial: Trial) -> None:
    """Everything that a site needs while one of its shares hangs: the others, status, doctor, reload, stop, start."""
    site, share = trial.site, trial.share
    site.start()
    trial.wait_archived([*trial.local(), *trial.remote()], "both inboxes to work")
    share.hang(site.daemon)
    trial.remote()
    trial.wait_silent()
    trial.wait_archived(trial.local(), "the other inbox to go on")
    found = trial.inbox("share")
    assert found["not_responding_seconds"] >= 1.5
    assert any("share has not answered" in text for text in trial.status()["problems"])
    said = site.ctl("doctor", check=False, timeout=PATIENCE)
    assert said.returncode == 1 and "has not answered" in said.stdout
    assert len(site.events("inbox-not-responding")) == 1

    assert site.daemon is not None
    site.daemon.send_signal(signal.SIGHUP)
    site.wait_for(lambda: bool(site.events("reloaded")), PATIENCE, "the reload")
    trial.wait_archived(trial.local(), "the other inbox to go on after a reload")
    trial.wait_silent()

    began = time.monotonic()
    assert site.stop(timeout=PATIENCE) == 0
    assert time.monotonic() - began < STOP_SECONDS
    site.start()
    trial.wait_archived(trial.local(), "the other inbox to go on after a start")
    trial.wait_silent()

    share.answer()
    site.wait_for(lambda: trial.inbox("share")["state"] == "open", PATIENCE, "the inbox to answer")
    trial.finish("stopped server")


def test_a_disk_that_is_to_have_room_does_not_say_how_full_it_is(trial: Trial) -> None:
    """Its marks are such that every disk is too full. Nobody but the inbox's own thread waits for it, and nothing goes
    on the word of an earlier look."""
    site, share = trial.site, trial.share
    rule = {"delete_after": "7d", "disk_free_min": "99%", "disk_free_goal": "100%"}
    site.config["inboxes"][1]["after_archive"] = rule
    site.write_config()
    site.start()
    trial.wait_archived(trial.remote(), "the first files to go early")
    share.order(stuck=["statfs"])
    trial.wait_silent()
    remote = trial.remote()
    let_go = len(site.events("due-early"))
    for _ in range(3):
        trial.wait_archived(trial.local(), "the other inbox to go on")
        time.sleep(8)
    assert len(site.events("due-early")) == let_go and all(one.path.exists() for one in remote)
    share.order()
    trial.finish("in statfs")
    assert not site.events("study-parked") and not site.events("stuck")


@pytest.mark.parametrize("operation", ["read", "open", "rename", "unlink"])
def test_it_hangs_in_the_midst_of_a_shipment(trial: Trial, operation: str) -> None:
    """More files than workers, each of which waits for the share: others do the work of the other inbox."""
    site, share = trial.site, trial.share
    site.start()
    share.order(stuck=[operation])
    remote = trial.remote(slices=12)
    if operation in ("rename", "unlink"):
        site.wait_for(lambda: trial.inbox("share")["state"] == "not-responding", PATIENCE, "a deletion to hang")
    else:
        trial.wait_silent()
    for _ in range(2):
        trial.wait_archived(trial.local(), "the other inbox to go on")
    sizes = {made.path.name: made.size_bytes for made in remote}  # at their places, or aside under their names
    assert any(sizes.get(one.name) == one.stat().st_size for one in share.backing.rglob("*") if one.is_file())
    share.order()
    trial.finish(f"in {operation}")
    assert not site.events("study-parked") and not site.events("stuck")


def test_a_slow_share_is_not_taken_for_a_hung_one(trial: Trial) -> None:
    site, share = trial.site, trial.share
    share.order(bytes_per_second=1_000_000)
    remote = trial.remote(slices=2, size=1200)
    assert sum(made.path.stat().st_size for made in remote) > 4_000_000
    site.start()
    trial.wait_archived(remote, "a slow share to be archived")
    assert not site.events("inbox-not-responding")
    share.order()
    trial.finish("slow, but not hung")
