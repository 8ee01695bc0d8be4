"""The control socket under random bytes: each line gets one answer, or the connection ends, and the server goes on."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dicomwatchd.audit.proving import Prover
from dicomwatchd.control.server import ControlServer
from dicomwatchd.daemon.commands import commands
from dicomwatchd.queue import open_queue
from dicomwatchd.uploads.jobs import UploadJobs
from tests.pieces import Log
from tests.unit.memory_archive import MemoryStore
from tests.unit.queues import StandingClock

SETTINGS = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

COMMANDS = (
    "status",
    "queue",
    "quarantine",
    "show",
    "stats",
    "prove",
    "retry",
    "doctor",
    "upload-list",
    "upload-show",
    "upload-cancel",
    "upload",
    "upload-folder",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(("limit", "days", "study_uid", "upload_id", "path", "delete", "wait", "id", "command", "history")),
    JSON | st.integers(-(2**70), 2**70) | st.sampled_from(("1.2.3", "../..", "\0", "\ud800", "/", "/proc", "x" * 5000)),
    max_size=4,
)


@dataclass
class Server:
    path: Path
    log: Log

    def ask(self, *lines: bytes) -> list[bytes]:
        """Send these bytes, end the sending, and read to the end."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))  # without a timeout it waits for its turn
            client.settimeout(20)
            try:
                client.sendall(b"".join(lines))
                client.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                return []
            return client.makefile("rb").read().splitlines()

    def is_well(self) -> bool:
        (answer,) = self.ask(b'{"command": "queue"}\n')
        return bool(json.loads(answer) == {"ok": True, "result": []})


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="dw.") as place:
        state = Path(place) / "state"
        state.mkdir()
        log = Log()
        queue = open_queue(state, StandingClock(), lambda _: None)

        def no_intake(*_: object) -> Any:
            raise AssertionError("no folder was to be taken in")

        jobs = UploadJobs(queue, no_intake, [Path("/")], log, StandingClock())
        path = Path(place) / "c.sock"
        prover = Prover(queue.audit, queue.segments, MemoryStore(), "")
        control = ControlServer(path, commands(queue, lambda _inboxes: {}, list, jobs, lambda: None, prover), log)
        control.start()
        yield Server(path, log)
        control.stop()
        queue.close()


def answers(server: Server, *lines: bytes) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in server.ask(*lines)]
    for answer in found:
        assert answer["ok"] in (True, False)
        if not answer["ok"]:
            assert set(answer["error"]) == {"code", "message", "hint"}
            assert answer["error"]["code"] != "unexpected", answer
    assert server.is_well()
    assert not server.log.entries
    return found


@given(st.lists(st.binary(max_size=200), max_size=5))
@example([b"\xff\xfe\n", b"{}\n", b"\n", b"null\n", b'"\n'])
@example([b"[" * 100_000 + b"\n"])
@example([b'{"command": ' + b"[" * 100_000 + b"\n"])
@example([b'{"command": "queue", "limit": ' + b"9" * 5000 + b"}\n"])
@SETTINGS
def test_random_bytes(server: Server, parts: list[bytes]) -> None:
    data = b"".join(parts)
    lines = data.count(b"\n") + (not data.endswith(b"\n") and data != b"")
    assert len(answers(server, data)) == lines


@given(JSON)
@SETTINGS
def test_any_json(server: Server, value: object) -> None:
    (answer,) = answers(server, json.dumps(value).encode() + b"\n")
    assert answer["error"]["code"] == "bad-request"


@given(st.sampled_from(COMMANDS), ARGUMENTS)
@example("queue", {"limit": 2**63})
@example("stats", {"days": 10**300})
@example("stats", {"days": 10**9})
@example("show", {"study_uid": "\ud800"})
@example("retry", {"study_uid": "\ud800"})
@example("prove", {"study_uid": "\ud800"})
@example("queue", {"command": None})
@SETTINGS
def test_commands_with_any_arguments(server: Server, command: str, arguments: dict[str, Any]) -> None:
    request = {**arguments, "command": arguments.get("command", command)}
    assert len(answers(server, json.dumps(request).encode() + b"\n")) == 1


@given(
    st.text(max_size=60) | st.sampled_from(("/proc", "/dev", "\0", "/\0", "\ud800", "/tmp/" + "x" * 300, "/" * 5000))
)
@SETTINGS
def test_upload_of_any_path(server: Server, path: str) -> None:
    """As an older dicomwatchctl sends it: a path is no folder any more."""
    (answer,) = answers(server, json.dumps({"command": "upload", "path": path}).encode() + b"\n")
    assert answer["ok"] is False
    assert answer["error"]["code"] in ("client-too-old", "bad-request")


@given(st.integers(0, 40), st.binary(max_size=50))
@SETTINGS
def test_a_client_that_goes_away(server: Server, requests: int, rest: bytes) -> None:
    """In the middle of a line, with all the answers unread."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(server.path))
    client.sendall(b'{"command": "status"}\n' * requests + rest)
    client.close()
    assert server.is_well()
    assert not server.log.entries


def test_a_line_without_end(server: Server) -> None:
    found = server.ask(b"x" * (3 << 20))
    assert all(json.loads(line)["error"]["code"] == "bad-request" for line in found)
    assert server.is_well()


def test_many_clients_that_say_nothing(server: Server) -> None:
    """Who comes when all places are taken is told so; when some have gone, others are answered."""
    idle = [socket.socket(socket.AF_UNIX) for _ in range(200)]
    for client in idle:
        client.connect(str(server.path))
    (answer,) = server.ask()
    assert json.loads(answer)["error"]["code"] == "too-many-connections"
    for client in idle:
        client.close()
    deadline = time.monotonic() + 10
    while b"too-many-connections" in b"".join(server.ask()):
        assert time.monotonic() < deadline
    assert server.is_well()
