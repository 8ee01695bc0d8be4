"""A command that takes longer than a second says so on a terminal, and on nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.terminal import Terminal
from tests.unit.stand_in import StandIn

CTL = Path(sys.executable).with_name("dicomwatchctl")


class Late(StandIn):
    """Answers once it is let."""

    def __init__(self, path: Path) -> None:
        self.may = threading.Event()
        super().__init__(path)

    def answer_late(self, value: object, seconds: float) -> None:
        self.result(value)
        threading.Timer(seconds, self.may.set).start()

    @property
    def lines(self) -> list[bytes]:
        self.may.wait(120)
        return self._lines

    @lines.setter
    def lines(self, lines: list[bytes]) -> None:
        self._lines = lines


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Late]:
    daemon = Late(tmp_path / "c.sock")
    yield daemon
    daemon.may.set()
    daemon.close()


def test_it_is_said_from_the_first_second_on_and_nothing_of_it_is_left(daemon: Late) -> None:
    daemon.result({"version": "9", "pid": 1})
    terminal = Terminal([CTL, "status", "--socket", daemon.path])
    try:
        terminal.wait_for(lambda: "dicomwatchctl: at work for 1 s" in terminal.outside)
        terminal.wait_for(lambda: "at work for 2 s" in terminal.outside)
        daemon.may.set()
        assert terminal.wait_for_end() == 0
        last = terminal.outside.rpartition("at work for")[2]
        assert last.partition("\r")[2].startswith(" " * 30), "blanks over it"
        assert "running, version 9, process 1" in last.rpartition("  \r")[2]
    finally:
        terminal.close()


def test_a_quick_answer_is_the_answer_alone(daemon: Late) -> None:
    daemon.answer_late({"version": "9", "pid": 1}, 0.0)
    terminal = Terminal([CTL, "status", "--socket", daemon.path])
    try:
        assert terminal.wait_for_end() == 0
        assert "at work" not in terminal.outside
    finally:
        terminal.close()


def test_nothing_is_said_beside_a_document(daemon: Late) -> None:
    daemon.answer_late({"version": "9"}, 2.5)
    terminal = Terminal([CTL, "status", "--json", "--socket", daemon.path])
    try:
        assert terminal.wait_for_end() == 0
        assert terminal.outside.split() == ["{", '"version":', '"9"', "}"]
    finally:
        terminal.close()


def test_nothing_is_said_where_there_is_no_terminal(daemon: Late) -> None:
    daemon.answer_late({"version": "9"}, 2.5)
    done = subprocess.run([CTL, "status", "--socket", daemon.path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""


def test_an_error_takes_its_place(daemon: Late) -> None:
    daemon.lines = []
    terminal = Terminal([CTL, "status", "--socket", daemon.path])
    try:
        terminal.wait_for(lambda: "at work for 1 s" in terminal.outside)
        daemon.may.set()
        assert terminal.wait_for_end() == 4
        said = terminal.outside.rstrip()
        assert said.endswith("\rdicomwatchctl: the daemon closed the connection before it answered")
    finally:
        terminal.close()


def test_ctrl_c_ends_it_at_once(daemon: Late) -> None:
    terminal = Terminal([CTL, "status", "--socket", daemon.path])
    try:
        terminal.wait_for(lambda: "at work for 1 s" in terminal.outside)
        begun = time.monotonic()
        terminal.type("\x03")
        assert terminal.wait_for_end() == 130
        assert time.monotonic() - begun < 60 and terminal.modes == (True, True)
    finally:
        terminal.close()


def test_a_width_that_is_too_small_breaks_no_line(daemon: Late) -> None:
    daemon.answer_late({"version": "9"}, 2.2)
    environment = {name: "" for name in ("COLUMNS", "LINES") if name in os.environ}
    terminal = Terminal([CTL, "status", "--socket", daemon.path], columns=20, environment=environment)
    try:
        terminal.wait_for_end()
        assert "dicomwatchctl: at w" in terminal.outside and "at wo" not in terminal.outside
    finally:
        terminal.close()
