"""A start that fails half-way: what it has left at an inbox that does not answer is known to the process, which must
not wait for it at its end."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicomwatchd.daemon import process as daemon
from dicomwatchd.errors import StateUnavailable, Transient
from tests.pieces import FakeClock, Log


class _Hung:
    """A supervisor whose start fails after a thread of it has gone to an inbox that does not answer."""

    left_behind = False

    def __init__(self, *_: object) -> None:
        self.stops = 0

    def start(self, *, watch: bool) -> None:
        raise StateUnavailable("the state is full", code="state-full")

    def stop(self) -> None:
        self.stops += 1
        self.left_behind = True


class _Refusing:
    def __init__(self, *_: object) -> None:
        raise StateUnavailable("the state is full", code="state-full")


@pytest.mark.parametrize("hung", [set(), {"inbox-1"}])
def test_one_that_fails_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hung: set[str]) -> None:
    """The recovery of an inbox that does not answer is under way by then."""
    monkeypatch.setattr(daemon, "Supervisor", _Refusing)
    process = a_process(tmp_path)
    closed: list[str] = []
    archive: Any = SimpleNamespace(
        store=SimpleNamespace(close=lambda: closed.append("store")),
        catalogue=SimpleNamespace(close=lambda: closed.append("catalogue")),
    )
    pulse: Any = SimpleNamespace(heartbeats=SimpleNamespace(excused=lambda: hung))
    with pytest.raises(Transient):
        process._start(process._config, archive, pulse)
    assert process.left_behind == bool(hung) and closed == ["store", "catalogue"]


def a_process(state: Path) -> daemon.Process:
    config: Any = SimpleNamespace(inboxes=[], log_level="INFO", state_directory=state)
    journal: Any = Log()
    return daemon.Process(argparse.Namespace(once=False, give_up_after=1.0), config, journal, FakeClock())


def test_what_a_failed_start_leaves_behind_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "Supervisor", _Hung)
    process = a_process(tmp_path)
    nothing: Any = None
    with pytest.raises(Transient):
        process._start(process._config, nothing, nothing)
    assert process.left_behind
