"""`top` on the command line: one page or one document where nobody watches, and what a daemon may answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from dicomwatchd.cli.app import root
from dicomwatchd.control.peer import NO_SUCH_COMMAND, BadRequest
from dicomwatchd.daemon.live import LiveView
from dicomwatchd.prometheus.counts import Counts
from dicomwatchd.queue.rows import Proven
from tests import schemas
from tests.unit.queues import Bench
from tests.unit.stand_in import StandIn
from tests.unit.test_top_screen import UID, answer, study


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[StandIn]:
    daemon = StandIn(tmp_path / "c.sock")
    yield daemon
    daemon.close()


def test_the_document_is_what_its_schema_says(tmp_path: Path, daemon: StandIn) -> None:
    """Of studies at stages that are over too soon for a test with a whole daemon, too."""
    (tmp_path / "state").mkdir()
    bench = Bench(tmp_path / "state")
    claim = bench.claimed("IM1", "IM2")
    files = bench.send(claim)
    bench.queue.shipments.verified(claim, [Proven(files[0], "etag-md5", bench.clock.now())])
    bench.add("IM3", study="1.2.9")
    other = bench.claimed("IM4", study="1.2.8")
    bench.queue.claims.release(other, not_before=bench.clock.now() + 60, code="x", reason="why", attempts=1)
    said = LiveView(lambda: {"version": "0"}, bench.queue.moving, Counts(), bench.clock).command({}, lambda _: None)
    bench.queue.close()
    daemon.result(said)
    result = CliRunner().invoke(root, ["top", "--json", "--socket", str(daemon.path)])
    schemas.check_output(["top"], result.stdout, result.exit_code)
    found = json.loads(result.stdout)
    assert "status" not in found and {one["state"] for one in found["studies"]} == {"verifying", "arriving", "queued"}
    assert [one["verified"] for one in found["studies"] if one["state"] == "verifying"] == [1]


def test_into_a_pipe_goes_one_page(daemon: StandIn) -> None:
    daemon.result(answer(study("uploading", ready=150, stored=150)))
    for option in ([], ["--once"]):
        result = CliRunner().invoke(root, ["top", *option, "--socket", str(daemon.path)])
        assert result.exit_code == 0 and result.stderr == ""
        assert UID in result.stdout and "150/300" in result.stdout and "\x1b" not in result.stdout
    assert daemon.requests == [{"command": "top"}] * 4


def test_a_daemon_of_an_earlier_version_is_said_to_be_one(daemon: StandIn) -> None:
    daemon.answer({"ok": False, "error": {"code": BadRequest.code, "message": NO_SUCH_COMMAND, "hint": None}})
    result = CliRunner().invoke(root, ["top", "--socket", str(daemon.path)])
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.splitlines() == [
        "dicomwatchctl: this dicomwatchctl is newer than the running daemon",
        "restart it: systemctl restart dicomwatchd",
    ]


def test_one_page_of_no_daemon_is_an_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(root, ["top", "--once", "--socket", str(tmp_path / "none.sock")])
    assert result.exit_code == 4 and "the daemon is not running" in result.stderr
