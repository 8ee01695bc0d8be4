"""The alerts of an inbox whose file system hangs, or has entries that cannot be read, on the real Prometheus; and the
figures of the others go on meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuse.mounted import Mounted
from tests.servers.prometheus import skip_unless_installed
from tests.synthetic import Maker
from tests.system.test_prometheus import Watched


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
    assert "DicomwatchdFiguresOld" not in prometheus.firing() and "DicomwatchdDown" not in prometheus.firing()
    prometheus.wait_until_firing("DicomwatchdInboxHangs", seconds=120)
    share.answer()
    prometheus.wait_until_over("DicomwatchdInboxUnavailable", "DicomwatchdInboxHangs")
    assert watched.stop() == 0
