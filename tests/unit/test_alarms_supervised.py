"""Alarms with all their threads, in this process: the supervisor's, a folder as the archive, the control socket, and a
command that is really run."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from click.testing import CliRunner

from dicomwatchd.cli.app import root
from dicomwatchd.config.loading import load
from dicomwatchd.control.client import ControlClient
from dicomwatchd.daemon.opening import open_archive
from dicomwatchd.daemon.supervisor import StopSignal, Supervisor
from dicomwatchd.ports import SystemClock
from dicomwatchd.telemetry.journal import Journal, JsonLines
from tests import schemas
from tests.synthetic import Maker, Patient
from tests.system.site import Site

MARKER = "ZQXCANARY"


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_from_the_file_to_the_command(tmp_path: Path) -> None:
    site = Site(tmp_path, inbox={"quiet_seconds": 20})
    heard, hook = tmp_path / "heard", tmp_path / "on-alarm"
    hook.write_text(f"#!/bin/sh\ncat >>{heard}\n")
    hook.chmod(0o755)
    site.config |= {"on_alarm": [str(hook)], "alarms": {"oldest_file_hours": 0.0005}}
    site.write_config()
    assert CliRunner().invoke(root, ["--config", str(site.config_file), "archive", "init"]).exit_code == 0
    config = load(site.config_file, folders=True)
    stop_signal, stream = StopSignal(), io.StringIO()
    archive = open_archive(config, stop_signal)
    journal = Journal(JsonLines(stream), strict=True, never=[str(site.inbox)])
    running = Supervisor(config, archive, stop_signal, journal, SystemClock(), Random(1))
    try:
        running.start(watch=True)
        Maker(5, Patient.marked(MARKER)).ct_series(tmp_path / MARKER, slices=2, rows=8, columns=8)
        shutil.copytree(tmp_path / MARKER, site.inbox / MARKER)

        def ticked(condition: Callable[[], bool]) -> Callable[[], bool]:
            def ask() -> bool:
                running.tick()
                return condition()

            return ask

        def told() -> list[tuple[str, str]]:
            lines = heard.read_text().splitlines() if heard.exists() else []
            return [(one["event"], one["alarm"]) for one in map(json.loads, lines)]

        wait_for(ticked(lambda: bool(told())))
        status = ControlClient(config.socket_path).call("status")
        schemas.check("status", status)
        [alarm] = status["alarms"]
        assert alarm["alarm"] == "oldest-file" and not status["problems"]
        wait_for(ticked(lambda: len(told()) > 1))
        assert told() == [("begun", "oldest-file"), ("ended", "oldest-file")]
        assert ControlClient(config.socket_path).call("status")["alarms"] == []
    finally:
        running.stop()
    assert running.fatal is None
    events = [one["event"] for one in map(json.loads, stream.getvalue().splitlines())]
    assert events.count("alarm-begun") == events.count("alarm-ended") == 1 and "alarm-hook-failed" not in events
    assert MARKER not in stream.getvalue().upper() + heard.read_text().upper()
