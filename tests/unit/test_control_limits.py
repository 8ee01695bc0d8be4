"""Who talks to the control socket cannot have all of the daemon: connections and time are limited, and others are
answered meanwhile. The real server over real sockets."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.control.client import ControlClient, DaemonRefused
from dicomwatchd.control.server import LIMITS, Command, ControlServer, Limits, Seats
from dicomwatchd.errors import DicomwatchdError
from tests.pieces import Log

SHORT = replace(LIMITS, idle_seconds=0.6, send_seconds=0.6)


def ok(_request: Mapping[str, Any], _progress: Callable[[dict[str, Any]], None]) -> Any:
    return "ok"


def large(_request: Mapping[str, Any], _progress: Callable[[dict[str, Any]], None]) -> Any:
    return "x" * (8 << 20)


def not_to_be_sent(_request: Mapping[str, Any], _progress: Callable[[dict[str, Any]], None]) -> Any:
    return object()


class Served:
    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.log = path, Log()
        self.commands: dict[str, Command] = {"ok": ok, "large": large, "not-to-be-sent": not_to_be_sent}
        self.control = ControlServer(path, self.commands, self.log, limits)
        self.control.start()

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.path))  # without a timeout it waits for its turn
        client.settimeout(60)
        return client

    def answers(self) -> bool:
        try:
            return bool(ControlClient(self.path).call("ok", answer_seconds=60) == "ok")
        except DaemonRefused:
            return False


@pytest.fixture
def serve() -> Iterator[Callable[[Limits], Served]]:
    with tempfile.TemporaryDirectory(prefix="dw.") as place, ExitStack() as stack:

        def begin(limits: Limits) -> Served:
            served = Served(Path(place) / "c.sock", limits)
            stack.callback(served.control.stop)
            return served

        yield begin


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_thousand_that_say_nothing(serve: Callable[[Limits], Served]) -> None:
    """Before: a thread each, for ever."""
    served = serve(SHORT)
    before = threading.active_count()
    with ExitStack() as stack:
        clients = [stack.enter_context(served.connect()) for _ in range(1000)]
        assert threading.active_count() - before <= LIMITS.own_connections
        refused = json.loads(clients[-1].makefile("rb").readline())
        assert refused["error"]["code"] == "too-many-connections"
        assert "try again" in refused["error"]["hint"]
        assert within(60, served.answers), "when the silent ones have had their time, others are answered"
    assert within(60, lambda: threading.active_count() <= before), "no thread is left of them"


def test_the_one_that_is_refused_reads_why(serve: Callable[[Limits], Served]) -> None:
    served = serve(replace(LIMITS, own_connections=1))
    with served.connect():
        time.sleep(0.1)
        with pytest.raises(DaemonRefused, match="too many connections") as refused:
            ControlClient(served.path).call("ok")
    assert refused.value.code == "too-many-connections"


def test_a_request_that_comes_a_byte_at_a_time(serve: Callable[[Limits], Served]) -> None:
    """Each byte is within the time; the request is not."""
    served = serve(SHORT)
    with served.connect() as client:
        began = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - began < 60:
                client.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - began < 30
    assert within(60, served.answers)


def test_a_request_that_is_too_long(serve: Callable[[Limits], Served]) -> None:
    served = serve(LIMITS)
    with served.connect() as client:
        client.sendall(b"x" * (LIMITS.line_bytes + 1))
        answer = json.loads(client.makefile("rb").readline())
    assert answer["error"]["code"] == "bad-request"
    assert str(LIMITS.line_bytes) in answer["error"]["message"]
    path = "/" + "\udcff" * 4094
    assert len(json.dumps({"command": "ok", "path": path})) < LIMITS.line_bytes, "the longest path fits"
    assert ControlClient(served.path).call("ok", path=path) == "ok"


def test_a_reader_that_does_not_read(serve: Callable[[Limits], Served]) -> None:
    served = serve(SHORT)
    before = threading.active_count()
    with served.connect() as client:
        client.sendall(b'{"command": "large"}\n')
        assert client.recv(1), "the answer has begun"
        assert within(10, lambda: threading.active_count() == before), "its thread is free again"
    assert within(10, served.answers)
    assert not served.log.entries


def test_a_fault_while_answering_is_told_by_the_log_alone(
    serve: Callable[[Limits], Served], capfd: pytest.CaptureFixture[str]
) -> None:
    """Before: a traceback on the standard error, past the log's allow list."""
    served = serve(LIMITS)
    with served.connect() as client:
        client.sendall(b'{"command": "not-to-be-sent"}\n')
        client.makefile("rb").read()
    assert within(20, lambda: bool(served.log.events("control-failed")))
    assert served.log.events("control-failed")[0]["error_type"] == "TypeError"
    assert "Traceback" not in capfd.readouterr().err
    assert within(10, served.answers)


def test_when_no_thread_is_to_be_had(
    serve: Callable[[Limits], Served], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As where TasksMax= is reached: the connection is closed, its seat is free, and the next one is served."""
    served = serve(replace(LIMITS, own_connections=1))

    def none_left(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        with served.connect() as client:
            assert within(20, lambda: bool(served.log.events("control-failed")))
            assert client.recv(1) == b""
    assert within(20, served.answers)
    assert "Traceback" not in capfd.readouterr().err


# --- by user


def taken(seats: Seats, user: int, wanted: int) -> int:
    for count in range(wanted):
        try:
            seats.take(user)
        except DicomwatchdError:
            return count
    return wanted


def test_one_user_does_not_keep_the_others_out() -> None:
    seats, me = Seats(LIMITS), os.geteuid()
    first, second = me + 1, me + 2
    assert taken(seats, first, 1000) == LIMITS.by_user
    assert taken(seats, second, 1) == 1
    seats.leave(first)
    assert taken(seats, first, 2) == 1


def test_all_users_together_do_not_keep_the_administrator_out() -> None:
    seats, me = Seats(LIMITS), os.geteuid()
    assert sum(taken(seats, me + other, 1000) for other in range(1, 100)) == LIMITS.connections
    assert taken(seats, 0, 1) == 1
    assert taken(seats, me, 1000) == LIMITS.own_connections - 1


def test_who_has_left_is_forgotten() -> None:
    seats, me = Seats(LIMITS), os.geteuid()
    for other in range(1, 5000):
        seats.take(me + other)
        seats.leave(me + other)
    assert not seats._taken


def test_a_request_without_end_that_brings_descriptors(serve: Callable[[Limits], Served]) -> None:
    """Before: one client had the daemon hold two descriptors for each byte, until nobody could open anything."""
    served = serve(LIMITS)
    with served.connect() as client, open("/dev/null", "rb") as null:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(200):
            socket.send_fds(client, [b"x"], [null.fileno()] * 2)
        assert within(60, lambda: unread_bytes(client) == 0)
        assert len(os.listdir("/proc/self/fd")) - before <= 10
        assert served.answers()
        client.sendall(b"\n")
        assert json.loads(client.makefile("rb").readline())["error"]["code"] == "bad-request"


def test_long_lists_are_answered_one_at_a_time(serve: Callable[[Limits], Served]) -> None:
    """Before: 24 of them at once, of 40,000 files in quarantine, took 2 GiB."""
    served, at_work, most = serve(SHORT), [0], [0]
    go_on = threading.Event()

    def lines(_request: Mapping[str, Any], _progress: Callable[[dict[str, Any]], None]) -> Any:
        at_work[0] += 1
        most.append(at_work[0])
        go_on.wait(0.2)
        at_work[0] -= 1
        return []

    served.commands["lines"] = lines
    for limit, private_name in ((1_000_000, True), (100, False)):
        most.clear()
        most.append(0)
        with ExitStack() as stack:
            clients = [stack.enter_context(served.connect()) for _ in range(6)]
            for client in clients:
                client.sendall(json.dumps({"command": "lines", "limit": limit}).encode() + b"\n")
            answers = [json.loads(client.makefile("rb").readline()) for client in clients]
        assert (max(most) == 1) == private_name
        refused = [answer for answer in answers if not answer["ok"]]
        assert all(answer["error"]["code"] == "too-many-connections" for answer in refused)
        assert bool(refused) == private_name, "who waits too long is told so"
    assert within(5, served.answers)


def unread_bytes(client: socket.socket) -> int:
    """Of what was sent, as the other end has not taken it yet (SIOCOUTQ, unix(7))."""
    return int.from_bytes(fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
