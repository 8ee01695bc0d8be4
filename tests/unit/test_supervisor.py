"""Which threads the watchdog watches over, and which are worth no restart."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from dicomwatchd.daemon.supervisor import DRILL, Supervisor
from dicomwatchd.pipeline.deletion.early import Room
from dicomwatchd.telemetry.health import Heartbeats


def nothing(*_: object, **__: object) -> None:
    return None


class Hung:
    """Something that runs, shows life once, and waits."""

    def __init__(self) -> None:
        self.over, self.runs = threading.Event(), threading.Event()

    def run(self, _stopping: threading.Event, beat: Any) -> None:
        beat()
        self.runs.set()
        self.over.wait(30)


def started(monkeypatch: pytest.MonkeyPatch, **these: Hung) -> Supervisor:
    """A supervisor whose parts do nothing, but for these."""
    running, port = object.__new__(Supervisor), SimpleNamespace(tick=nothing, start=nothing)
    names = ("dispatcher", "checkpoints", "expiring", "upkeep", "room", "drills", "alarms")
    parts = SimpleNamespace(
        prepare=nothing,
        go=nothing,
        sources=SimpleNamespace(intakes={}, watched_intakes=list),
        series=None,
        **{name: these.get(name, SimpleNamespace(run=nothing)) for name in names},
    )
    for name, value in {
        "_parts": parts,
        "_plan": SimpleNamespace(commitments=(), inboxes=(SimpleNamespace(room=Room(0.1, 0.2)),)),
        "heartbeats": Heartbeats(),
        "_threads": [],
        "_closed": False,
        "_stopping": threading.Event(),
        "_intake_stopping": threading.Event(),
        "_answers": dict,
        "_control_server": lambda _: port,
        "_figures_port": lambda _: port,
        "_site_rounds": lambda _: None,
        "_sites": None,
    }.items():
        monkeypatch.setattr(running, name, value, raising=False)
    running.start(watch=True)
    return running


def test_a_drill_that_hangs_is_no_reason_to_end_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The place of its copies may be a mount of its own, which may hang: after each restart anew."""
    drills = Hung()
    running = started(monkeypatch, drills=drills)
    try:
        assert drills.runs.wait(60) and DRILL in {thread.name for thread in running._threads if thread.is_alive()}
        watched = running.heartbeats.stale(now=1e12)
        assert DRILL not in watched and {"dispatcher", "upkeep", "room", "checkpoints"} <= set(watched)
    finally:
        drills.over.set()


def test_a_full_disk_does_not_wait_for_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The upkeep sends segments of the record of deletions, which may wait for their share of a narrow line."""
    upkeep, room = Hung(), Hung()
    started(monkeypatch, upkeep=upkeep, room=room)
    try:
        assert upkeep.runs.wait(60) and room.runs.wait(60)
    finally:
        upkeep.over.set()
        room.over.set()
