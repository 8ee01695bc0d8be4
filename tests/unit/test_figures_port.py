"""Whoever takes the port of the figures takes nothing else: the daemon goes on, says so, and serves them later."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from dicomwatchd.config.loading import parse
from dicomwatchd.config.whole import Config
from dicomwatchd.daemon.figures import AGAIN_SECONDS, FiguresPort
from dicomwatchd.prometheus.counts import Counts
from dicomwatchd.prometheus.listener import Listener
from tests.pieces import Log
from tests.unit.test_metrics import ARCHIVE, STATUS


class Hand:
    """A clock that is set by hand."""

    passed = 0.0

    def monotonic(self) -> float:
        return self.passed

    def now(self) -> float:
        return self.passed


@pytest.fixture
def squatter() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken


def configured(port: int) -> Config:
    inboxes = [{"name": "ct1", "path": "/srv/ct1"}]
    return parse({"archive": ARCHIVE, "inboxes": inboxes, "metrics": {"listen": f"127.0.0.1:{port}"}})


def test_a_port_that_somebody_has_taken(squatter: socket.socket) -> None:
    clock, log, port = Hand(), Log(), squatter.getsockname()[1]
    figures = FiguresPort(configured(port), lambda: STATUS, Counts(), clock, log)
    for _ in range(10):
        figures.tick()
        clock.passed += AGAIN_SECONDS
    assert "in use" in str(figures.problem)
    assert len(log.events("metrics-not-served")) == 1, "told once"
    squatter.close()
    figures.tick()
    try:
        assert figures.problem is None and len(log.events("metrics-served")) == 1
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert b"dicomwatchd_backlog_files" in answer.read()
    finally:
        figures.stop()


def test_it_is_not_tried_without_end(squatter: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    real = socket.create_server

    def counted(*arguments: Any, **more: Any) -> socket.socket:
        tried.append(arguments)
        return real(*arguments, **more)

    monkeypatch.setattr(socket, "create_server", counted)
    clock = Hand()
    figures = FiguresPort(configured(squatter.getsockname()[1]), lambda: STATUS, Counts(), clock, Log())
    for _ in range(40):
        figures.tick()
        clock.passed += 1.0
    assert len(tried) == 3


def test_after_the_end_nobody_listens(squatter: socket.socket) -> None:
    """A tick that comes late opens no port of a configuration that is over."""
    clock, port = Hand(), squatter.getsockname()[1]
    figures = FiguresPort(configured(port), lambda: STATUS, Counts(), clock, Log())
    figures.tick()
    figures.stop()
    squatter.close()
    clock.passed += 2 * AGAIN_SECONDS
    figures.tick()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 5)


@pytest.mark.parametrize("fault", [ImportError("CANARY"), RuntimeError("can't start new thread")])
def test_whatever_the_library_or_the_machine_lacks(
    squatter: socket.socket, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    port, log = squatter.getsockname()[1], Log()
    squatter.close()
    figures = FiguresPort(configured(port), lambda: STATUS, Counts(), Hand(), log)

    def fails(*_: object) -> object:
        raise fault

    monkeypatch.setattr(Listener if isinstance(fault, RuntimeError) else figures, _WHERE[type(fault)], fails)
    figures.tick()
    assert figures.problem is not None and len(log.events("metrics-not-served")) == 1
    assert "CANARY" not in repr(log.entries) + figures.problem
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 5)


_WHERE = {ImportError: "_begun", RuntimeError: "start"}


def test_without_it_there_is_none() -> None:
    config = parse({"archive": ARCHIVE, "inboxes": [{"name": "ct1", "path": "/srv/ct1"}]})
    figures = FiguresPort(config, lambda: STATUS, Counts(), Hand(), Log())
    figures.tick()
    assert figures.problem is None and figures._exposition is None
    figures.stop()
