"""The alerts of an inbox whose file system hangs, or has entries that cannot be read, and of a state on a disk that
hangs, on the real Prometheus; and the figures of the others go on meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fuse.mounted import Mounted
from tests.servers.prometheus import skip_unless_installed
from tests.synthetic import Maker
from tests.system.watched import Watched, archive


@pytest.fixture
def watched(share: Mounted, tmp_path: Path) -> Iterator[Watched]:
    skip_unless_installed()
    site = Watched(tmp_path / "site", inbox_answer_seconds=1.5, workers=4)
    site.config["inboxes"].append(
        {"name": "share", "path": str(share.path), "watch": "poll", "settle_seconds": 0.2, "quiet_seconds": 0.5}
    )
    site.write_config()
    try:
        with site.prometheus:
            site.init()
            yield site
    finally:
        share.unmount()  # first: a process with a thread inside it may not end before
        site.close()


def test_a_share_with_an_ill_entry_and_one_that_hangs(watched: Watched, share: Mounted) -> None:
    prometheus, maker = watched.prometheus, Maker(seed=69)
    made = maker.ct_series(share.backing / "DOE", slices=3, rows=16, columns=16)
    share.order(broken=[made[1].path.name])
    watched.start()
    prometheus.wait_until_firing("DicomwatchdInboxUnreadable")
    assert prometheus.query('dicomwatchd_inbox_unreadable_entries{inbox="share"}')[0]["value"][1] == "1"
    share.order()
    prometheus.wait_until_over("DicomwatchdInboxUnreadable", "DicomwatchdProblem", "DicomwatchdFilesInQuarantine")

    share.hang(watched.daemon)
    prometheus.wait_until_firing("DicomwatchdInboxUnavailable")
    local = maker.ct_series(watched.inbox / "ct", slices=2, study=5, series=5, rows=16, columns=16)
    watched.wait_for(lambda: not any(one.path.exists() for one in local), 60, "the other inbox to go on")
    assert "DicomwatchdDown" not in prometheus.firing()
    prometheus.wait_until_firing("DicomwatchdInboxHangs", seconds=120)
    share.answer()
    prometheus.wait_until_over("DicomwatchdInboxUnavailable", "DicomwatchdInboxHangs")
    assert not prometheus.ever_fired("DicomwatchdFiguresOld")
    assert watched.stop() == 0


#: Of the alert's expression, and instead of it: nobody waits for five minutes here. A status that took a second on a
#: busy machine is not taken again for twenty.
THRESHOLD = {"dicomwatchd_status_age_seconds > 300": "dicomwatchd_status_age_seconds > 45"}


class OnAShare(Watched):
    """Its state is on a disk that may hang. Prometheus waits for an answer for longer than the port for the status: by
    default it does so for 10 s, of which the port takes 3."""

    def __init__(self, root: Path, state: Path) -> None:
        self.socket = root / "control.sock"
        super().__init__(root, rules=THRESHOLD, scrape_seconds=5)
        self.config |= {"state_directory": str(state), "control_socket": str(self.socket)}
        self.write_config()

    def start(self) -> None:
        """Nobody has asked it for figures yet, so it has none."""
        self.launch()
        self.wait_for(self.socket.exists, 90, "the daemon to be ready")
        self.wait_for(self.accepts, 90, "the port to be there")

    def accepts(self) -> bool:
        host, _, port = self.target.rpartition(":")
        with closing(socket.socket()) as trying:
            return trying.connect_ex((host, int(port))) == 0


@pytest.fixture
def hanging(share: Mounted, tmp_path: Path) -> Iterator[OnAShare]:
    skip_unless_installed()
    site = OnAShare(tmp_path / "site", share.path)
    try:
        site.init()
        yield site
    finally:
        share.unmount()
        site.close()


def test_figures_are_old_when_the_state_s_disk_hangs(hanging: OnAShare, share: Mounted) -> None:
    hanging.start()
    share.hang(hanging.daemon)  # before anybody has asked
    with hanging.prometheus as prometheus:
        prometheus.wait_until_firing("DicomwatchdFiguresOld", seconds=90)
        assert [one["value"][1] for one in prometheus.query("dicomwatchd_status_up")] == ["0"]
        assert not prometheus.query("dicomwatchd_studies"), "there are none from before"
        share.answer()
        prometheus.wait_until_over("DicomwatchdFiguresOld", seconds=90)
        archive(hanging, Maker(seed=72))
        prometheus.wait_for(
            lambda: bool(prometheus.query('dicomwatchd_studies{state="archived"} == 1')), 90, "the figures to be new"
        )
        prometheus.wait_for_rounds(3)
        assert prometheus.firing() == set()

        share.hang(hanging.daemon)  # and there are figures from before
        prometheus.wait_until_firing("DicomwatchdFiguresOld", seconds=120)
        assert [one["value"][1] for one in prometheus.query("dicomwatchd_status_up")] == ["1"]
        assert prometheus.query("dicomwatchd_status_age_seconds > 45")
        assert prometheus.query('dicomwatchd_studies{state="archived"} == 1')
        assert not prometheus.ever_fired("DicomwatchdDown"), "it answers Prometheus all the time"
        share.answer()
        prometheus.wait_until_over("DicomwatchdFiguresOld", seconds=90)
        archive(hanging, Maker(seed=73))
        assert hanging.stop() == 0
