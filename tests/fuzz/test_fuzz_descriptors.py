"""The control socket under descriptors of every kind and number: whatever comes, each request has one answer, the
server goes on, and no descriptor stays open."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
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

SETTINGS = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

_UNLISTED: list[int] = []


def _pipe() -> int:
    reading, writing = os.pipe()
    _UNLISTED.append(writing)
    return reading


def _sockets() -> int:
    one, other = socket.socketpair()
    _UNLISTED.append(other.detach())
    return one.detach()


def _removed() -> int:
    place = tempfile.mkdtemp()
    fd = os.open(place, os.O_RDONLY)
    Path(place).rmdir()
    return fd


KINDS: dict[str, Callable[[], int]] = {
    "folder": lambda: os.open("/usr", os.O_RDONLY | os.O_DIRECTORY),
    "its root": lambda: os.open("/", os.O_RDONLY | os.O_DIRECTORY),
    "folder, O_PATH": lambda: os.open("/usr", os.O_PATH),
    "file": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "file, O_PATH": lambda: os.open("/etc/passwd", os.O_PATH),
    "link": lambda: os.open("/proc/self/exe", os.O_PATH | os.O_NOFOLLOW),
    "device": lambda: os.open("/dev/null", os.O_RDWR),
    "process's folder": lambda: os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY),
    "pipe": _pipe,
    "socket": _sockets,
    "removed folder": _removed,
    "memory": lambda: os.memfd_create("x"),
    "event": lambda: os.eventfd(0),
}


class Server:
    def __init__(self, path: Path, log: Log) -> None:
        self.path, self.log = path, log
        #: Descriptors that are open while nobody talks to it.
        self.idle = open_descriptors()

    def connected(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.path))
        client.settimeout(20)
        return client

    def is_well(self) -> bool:
        with self.connected() as client:
            client.sendall(b'{"command": "queue"}\n')
            return bool(json.loads(client.makefile("rb").readline()) == {"ok": True, "result": []})


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="dw.") as place:
        state = Path(place) / "state"
        state.mkdir()
        log = Log()
        queue = open_queue(state, StandingClock(), lambda _: None)

        def no_intake(*_: object) -> Any:
            raise AssertionError("no folder was to be taken in")

        jobs = UploadJobs(queue, no_intake, [Path("/")], log, StandingClock())  # every folder overlaps this one
        path = Path(place) / "c.sock"
        prover = Prover(queue.audit, queue.segments, MemoryStore(), "")
        control = ControlServer(path, commands(queue, lambda _inboxes: {}, list, jobs, lambda: None, prover), log)
        control.start()
        yield Server(path, log)
        control.stop()
        queue.close()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def sent(client: socket.socket, data: bytes, fds: list[int]) -> None:
    """253 of them go with one message at most (SCM_MAX_FD)."""
    socket.send_fds(client, [data], fds)


def exchanged(server: Server, messages: list[tuple[bytes, list[str]]]) -> list[dict[str, Any]]:
    """What is answered to these pieces of data, each with descriptors of these kinds."""
    with server.connected() as client:
        for data, kinds in messages:
            fds = [KINDS[kind]() for kind in kinds]
            try:
                sent(client, data, fds)
            finally:
                for fd in (*fds, *_UNLISTED):
                    os.close(fd)
                _UNLISTED.clear()
        client.shutdown(socket.SHUT_WR)
        return [json.loads(line) for line in client.makefile("rb")]


def require_none_left(server: Server) -> None:
    """A connection is closed by its own thread, a moment after its client is gone."""
    assert server.is_well()
    end = time.monotonic() + 10
    while (now := open_descriptors()) > server.idle:
        assert time.monotonic() < end, (server.idle, now)
        time.sleep(0.005)
    assert not server.log.entries


REQUEST = b'{"command": "upload-folder", "delete": true}\n'


@given(
    st.lists(
        st.tuples(
            st.sampled_from((REQUEST, REQUEST[:20], REQUEST[20:], b'{"command": "queue"}\n', b"x\n", b"\n")),
            st.lists(st.sampled_from(sorted(KINDS)), max_size=4),
        ),
        min_size=1,
        max_size=5,
    )
)
@example([(REQUEST, [])])
@example([(REQUEST, ["folder", "folder"])])
@example([(REQUEST, ["folder"] * 253)])
@example([(REQUEST[:20], ["folder"]), (REQUEST[20:], ["folder"])])
@example([(b'{"command": "queue"}\n', ["folder"] * 200), (REQUEST, [])])
@example([(b"x", ["file"] * 253)] * 5)
@SETTINGS
def test_descriptors_of_any_kind_and_number(server: Server, messages: list[tuple[bytes, list[str]]]) -> None:
    data = b"".join(piece for piece, _ in messages)
    answers = exchanged(server, messages)
    assert len(answers) == data.count(b"\n") + (not data.endswith(b"\n"))
    for answer in answers:
        if not answer["ok"]:
            assert answer["error"]["code"] in ("bad-request", "no-folder", "overlap", "own-tree", "unreadable"), answer
    require_none_left(server)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_one_of_each_kind(kind: str, server: Server) -> None:
    (answer,) = exchanged(server, [(REQUEST, [kind])])
    assert answer["error"]["code"] == ("overlap" if kind in ("folder", "its root") else answer["error"]["code"])
    assert answer["error"]["code"] in ("overlap", "no-folder", "unreadable"), answer
    require_none_left(server)


@pytest.mark.parametrize("number", [0, 2, 3, 10, 253])
def test_not_exactly_one(number: int, server: Server) -> None:
    (answer,) = exchanged(server, [(REQUEST, ["folder"] * number)])
    assert answer["error"]["code"] == "bad-request" and "exactly one open folder" in answer["error"]["message"]
    require_none_left(server)


def test_a_descriptor_is_of_one_request_only(server: Server) -> None:
    with server.connected() as client:
        fd = KINDS["folder"]()
        sent(client, b'{"command": "queue"}\n', [fd])
        os.close(fd)
        lines = client.makefile("rb")
        assert json.loads(lines.readline())["ok"]
        client.sendall(REQUEST)
        assert "exactly one" in json.loads(lines.readline())["error"]["message"]
        lines.close()
    require_none_left(server)


def test_a_client_that_goes_away_in_the_middle_of_a_request(server: Server) -> None:
    for _ in range(50):
        with server.connected() as client:
            fds = [KINDS["folder"]() for _ in range(3)]
            sent(client, REQUEST[:20], fds)
            for fd in fds:
                os.close(fd)
    require_none_left(server)


def test_an_older_client_is_told_so(server: Server) -> None:
    (answer,) = exchanged(server, [(b'{"command": "upload", "path": "/usr", "delete": true}\n', [])])
    assert answer["error"]["code"] == "client-too-old" and "older than the running daemon" in answer["error"]["message"]
