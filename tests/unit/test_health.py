"""The watchdog's heartbeats, what systemd is told, and what the work cost."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from dicomwatchd.telemetry.health import Heartbeats, ServiceManager
from dicomwatchd.telemetry.metrics import StageClock, process_usage


@dataclass
class ManualClock:
    time: float = 1000.0

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_a_heart_that_stops_goes_stale_and_comes_back(clock: ManualClock) -> None:
    hearts = Heartbeats(clock)
    hearts.register("scan", 60)
    hearts.register("worker-1", 10)
    clock.time += 10
    assert hearts.stale() == []
    clock.time += 0.1
    assert hearts.stale() == ["worker-1"]
    hearts.beat("scan")
    clock.time += 59
    assert hearts.stale() == ["worker-1"]
    hearts.beat("worker-1")
    assert hearts.stale() == []
    assert hearts.stale(clock.time + 100) == ["scan", "worker-1"]


def test_a_thread_that_ended_as_it_should_is_no_longer_expected(clock: ManualClock) -> None:
    hearts = Heartbeats(clock)
    hearts.register("worker-1", 10)
    hearts.unregister("worker-1")
    hearts.unregister("worker-1")
    hearts.beat("worker-1")
    clock.time += 100
    assert hearts.stale() == []


def test_beating_under_a_wrong_name_keeps_nothing_alive(clock: ManualClock) -> None:
    hearts = Heartbeats(clock)
    hearts.register("scan", 60)
    clock.time += 61
    hearts.beat("scam")
    assert hearts.stale() == ["scan"]


def test_hearts_may_beat_while_they_are_listened_to(clock: ManualClock) -> None:
    hearts = Heartbeats(clock)

    def live(name: str) -> None:
        for _ in range(500):
            hearts.register(name, 1)
            hearts.beat(name)
            hearts.stale()
            hearts.unregister(name)

    threads = [threading.Thread(target=live, args=(f"worker-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hearts.stale(clock.time + 100) == []


def test_what_systemd_is_told(clock: ManualClock) -> None:
    sent: list[str] = []
    service = ServiceManager(sent.append, clock=clock, strict=True)
    clock.time = 12.345678
    service.ready()
    service.reloading()
    service.status("{waiting} files wait, {parked} studies are parked", waiting=3, parked=0)
    service.stopping()
    assert sent == [
        "READY=1",
        "RELOADING=1\nMONOTONIC_USEC=12345678",
        "STATUS=3 files wait, 0 studies are parked",
        "STOPPING=1",
    ]


def test_the_status_takes_no_path_and_no_second_line() -> None:
    sent: list[str] = []
    service = ServiceManager(sent.append, strict=True)
    for fields in ({"path": "/srv/dicom"}, {"inbox": "/srv/dicom"}, {"study_uid": "DOE^J"}):
        with pytest.raises(ValueError, match="log field"):
            service.status("at {inbox}", **fields)
    ServiceManager(sent.append).status("at {inbox}", inbox="ct1\nMAINPID=1")
    assert sent == ["STATUS=at {inbox}"]


def test_the_watchdog_is_fed_only_while_every_heart_beats(clock: ManualClock) -> None:
    sent: list[str] = []
    hearts = Heartbeats(clock)
    service = ServiceManager(sent.append, clock=clock)
    hearts.register("worker-1", 10)
    hearts.register("worker-2", 10)
    assert service.ping(hearts) == []
    clock.time += 11
    hearts.beat("worker-1")
    assert service.ping(hearts) == ["worker-2"]
    assert sent == ["WATCHDOG=1"]


def test_without_systemd_nothing_is_sent(clock: ManualClock) -> None:
    service = ServiceManager.from_environment({"WATCHDOG_USEC": "30000000"})
    assert service.watchdog_seconds is None
    assert service.ping_interval_seconds is None
    service.ready()
    service.reloading()
    service.status("ready")
    service.stopping()
    assert service.ping(Heartbeats(clock)) == []


@pytest.mark.parametrize(
    ("watchdog", "expected"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_messages_reach_the_notification_socket(
    watchdog: dict[str, str], expected: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        monkeypatch.chdir(tmp_path)
        manager.bind("notify")  # relative: tmp_path may be longer than a socket's address
        monkeypatch.setenv("NOTIFY_SOCKET", "notify")
        service = ServiceManager.from_environment({"NOTIFY_SOCKET": "notify", **watchdog})
        assert service.watchdog_seconds == expected
        assert service.ping_interval_seconds == (None if expected is None else expected / 3)
        service.ready()
        service.reloading()
        assert manager.recv(200) == b"READY=1"
        assert manager.recv(200).startswith(b"RELOADING=1\nMONOTONIC_USEC=")


def test_process_usage_is_that_of_this_process() -> None:
    before = process_usage()
    total = sum(number * number for number in range(600_000))
    after = process_usage()
    assert total > 0
    assert 0 < after.cpu_seconds - before.cpu_seconds < 60
    assert after.rss_bytes is not None
    assert 10_000_000 < after.rss_bytes < psutil.virtual_memory().total


@pytest.mark.parametrize("error", [psutil.AccessDenied(), psutil.NoSuchProcess(1), PermissionError(1, "no")])
def test_process_usage_where_proc_is_hidden(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden() -> psutil.Process:
        raise error

    monkeypatch.setattr(psutil, "Process", hidden)
    usage = process_usage()
    assert usage.cpu_seconds > 0
    assert usage.rss_bytes is None


def test_stages_add_up_also_when_they_fail(clock: ManualClock) -> None:
    stages = StageClock(clock)
    with stages.stage("upload"):
        clock.time += 2
    with contextlib.suppress(ValueError), stages.stage("verify"):
        clock.time += 0.5
        raise ValueError
    with stages.stage("upload"):
        clock.time += 1
    stages.add("record", 0.25)
    assert stages.seconds() == {"upload": 3, "verify": 0.5, "record": 0.25}
    assert stages.fields() == {"upload_seconds": 3, "verify_seconds": 0.5, "record_seconds": 0.25}
