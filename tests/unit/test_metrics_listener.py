"""Whoever talks to the port of the figures gets them and nothing else, and cannot hold up anybody: the real listener
over real sockets, and Prometheus' own parser."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from dicomwatchd.config.metrics import Metrics
from dicomwatchd.ports import SystemClock
from dicomwatchd.prometheus.counts import Counts
from dicomwatchd.prometheus.exposition import Exposition
from dicomwatchd.prometheus.listener import LIMITS, Limits, Listener
from tests.pieces import Log
from tests.unit.test_metrics import STATUS, configuration

SHORT = replace(LIMITS, seconds=0.6)
LOOPBACK = ip_address("127.0.0.1")


class Served:
    def __init__(self, limits: Limits, admits: Callable[[IPv4Address | IPv6Address], bool]) -> None:
        self.log = Log()
        self.asked: list[str] = []
        self.answer: Callable[[str], tuple[str, bytes]] = lambda _accept: ("text/plain", b"a 1\n")
        self.listener = Listener((LOOPBACK, 0), admits, self._answered, self.log, limits)
        self.listener.start()

    def _answered(self, accept: str) -> tuple[str, bytes]:
        self.asked.append(accept)
        return self.answer(accept)

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.listener.port), 60)
        client.settimeout(60)
        return client

    def say(self, text: bytes) -> bytes:
        """All of the answer; b"" where the connection is closed without one."""
        with self.connect() as client, suppress(ConnectionError):
            client.sendall(text)
            found = b""
            while piece := client.recv(65536):
                found += piece
            return found
        return b""

    def get(self, path: str = "/metrics", method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.listener.port, timeout=60)
        connection.request(method, path, headers={"Accept": "text/plain"})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:

        def begin(
            limits: Limits = LIMITS, admits: Callable[[IPv4Address | IPv6Address], bool] = lambda _: True
        ) -> Served:
            served = Served(limits, admits)
            stack.callback(served.listener.stop)
            return served

        yield begin


def closed_within(client: socket.socket, seconds: float) -> bool:
    client.settimeout(seconds)
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


# -- what is answered -----------------------------------------------------------------------------------------------


def test_a_plain_request(serve: Callable[..., Served]) -> None:
    served = serve()
    status, headers, content = served.get()
    assert (status, content, served.asked) == (200, b"a 1\n", ["text/plain"])
    assert headers["Content-Type"] == "text/plain" and headers["Content-Length"] == "4"
    assert served.get("/metrics?x=1")[0] == 200
    status, headers, content = served.get(method="HEAD")
    assert (status, headers["Content-Length"], content) == (200, "4", b"")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET / HTTP/1.1", 404),
        (b"GET /metrics/../etc/passwd HTTP/1.1", 404),
        (b"POST /metrics HTTP/1.1", 405),
        (b"DELETE /metrics HTTP/1.1", 405),
        (b"GET /metrics", 400),
        (b"GET /metrics HTTP/2.0", 400),
        (b"", 400),
        (b"\xff\x00\xfe", 400),
        (b"\x16\x03\x01 TLS", 400),
    ],
)
def test_everything_else_is_refused(serve: Callable[..., Served], request_line: bytes, status: int) -> None:
    served = serve()
    assert served.say(request_line + b"\r\nHost: x\r\n\r\n").startswith(f"HTTP/1.1 {status} ".encode())
    assert served.asked == [] and served.get()[0] == 200


def test_the_real_figures_can_be_parsed_in_both_formats() -> None:
    exposition = Exposition(
        configuration(),
        Metrics.model_construct(listen="127.0.0.1:9187", allow=()),
        lambda: STATUS,
        Counts(),
        SystemClock(),
        Log(),
        address=(LOOPBACK, 0),
    )
    exposition.start()
    try:
        for accept, parsed in (
            ("text/plain;version=0.0.4", text_string_to_metric_families),
            ("application/openmetrics-text;version=1.0.0", openmetrics.text_string_to_metric_families),
        ):
            connection = http.client.HTTPConnection("127.0.0.1", exposition.port, timeout=10)
            connection.request("GET", "/metrics", headers={"Accept": accept})
            answer = connection.getresponse()
            assert answer.headers["Content-Type"].startswith(accept.split(";")[0])
            names = {family.name for family in parsed(answer.read().decode())}
            assert {"dicomwatchd_backlog_files", "dicomwatchd_stage_seconds", "process_open_fds"} <= names
    finally:
        exposition.stop()


@pytest.mark.parametrize(
    "accept",
    [
        b"application/openmetrics-text;version=x",
        b"application/openmetrics-text;version=1.x",
        b"application/openmetrics-text;version=9\xe9",
        b"application/openmetrics-text;version=9\nX-Canary: yes",
        b"text/plain;version=x",
        b"text/plain;version=1.0.0;escaping=x",
        b";;;=,=;version=,",
    ],
)
def test_what_is_asked_for_is_not_repeated_and_is_no_fault(accept: bytes) -> None:
    """The library compares such a version with a number, and puts it into the content type."""
    log = Log()
    exposition = Exposition(
        configuration(),
        Metrics.model_construct(listen="127.0.0.1:9187", allow=()),
        lambda: STATUS,
        Counts(),
        SystemClock(),
        log,
        address=(LOOPBACK, 0),
    )
    exposition.start()
    try:
        with socket.create_connection(("127.0.0.1", exposition.port), 10) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nAccept: " + accept + b"\r\n\r\n")
            found = b""
            while piece := client.recv(65536):
                found += piece
    finally:
        exposition.stop()
    head, _, content = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and b"dicomwatchd_backlog_files" in content
    assert b"Canary" not in head and b"version=9" not in head
    assert log.entries == []


# -- who gets none --------------------------------------------------------------------------------------------------


def test_who_is_not_allowed_is_closed_unheard(serve: Callable[..., Served]) -> None:
    metrics = Metrics(listen="0.0.0.0:9187", allow=("10.1.2.0/24", "fd12::/64"))
    assert metrics.admits(ip_address("10.1.2.7")) and metrics.admits(ip_address("::ffff:10.1.2.7"))
    assert metrics.admits(ip_address("fd12::9")) and not metrics.admits(ip_address("10.1.3.7"))
    served = serve(admits=metrics.admits)
    assert served.say(b"GET /metrics HTTP/1.1\r\n\r\n") == b"" and served.asked == []


def test_a_request_without_end_is_cut_off(serve: Callable[..., Served]) -> None:
    served = serve(replace(LIMITS, seconds=40.0))
    begun = time.monotonic()
    said = served.say(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 3 * LIMITS.request_bytes)
    assert said == b"" or said.startswith(b"HTTP/1.1 431 ")
    assert time.monotonic() - begun < 35, "it was for its size, and not for its time"
    assert served.asked == [] and served.get()[0] == 200


def test_a_byte_at_a_time_is_cut_off(serve: Callable[..., Served]) -> None:
    served = serve(SHORT)
    begun = time.monotonic()
    with served.connect() as client, suppress(ConnectionError):
        while time.monotonic() - begun < 30:
            client.sendall(b"x")
            time.sleep(0.05)
    assert time.monotonic() - begun < 20
    assert served.get()[0] == 200


def test_who_does_not_read_is_cut_off(serve: Callable[..., Served]) -> None:
    served = serve(SHORT)
    served.answer = lambda _accept: ("text/plain", b"x" * (32 << 20))
    with served.connect() as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        deadline = time.monotonic() + 60
        while not served.asked or served.listener._open:  # it had a seat, and has lost it
            assert time.monotonic() < deadline
            time.sleep(0.01)
        served.answer = lambda _accept: ("text/plain", b"")
        assert served.get()[0] == 200
        found = 0
        with suppress(ConnectionError):
            while piece := client.recv(1 << 20):
                found += len(piece)
        assert found < 32 << 20


def test_a_thousand_that_say_nothing(serve: Callable[..., Served]) -> None:
    """They have the seats for their time and no thread more than there are seats; then others have their turn."""
    served = serve(replace(LIMITS, seconds=3.0))
    before = threading.active_count()
    with ExitStack() as stack:
        clients = [stack.enter_context(served.connect()) for _ in range(1000)]
        assert threading.active_count() <= before + LIMITS.connections
        assert sum(closed_within(one, 0.05) for one in clients[-50:]) >= 50 - LIMITS.connections
        deadline = time.monotonic() + 60
        while b"200 OK" not in served.say(b"GET /metrics HTTP/1.1\r\n\r\n"):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_fault_while_answering_is_told_by_the_log_alone(
    serve: Callable[..., Served], capfd: pytest.CaptureFixture[str]
) -> None:
    served = serve()

    def broken(_accept: str) -> tuple[str, bytes]:
        raise LookupError("a fault of ours")

    served.answer = broken
    assert served.say(b"GET /metrics HTTP/1.1\r\n\r\n") == b""
    assert served.log.events("metrics-failed")
    assert capfd.readouterr() == ("", "")
    served.answer = lambda _accept: ("text/plain", b"")
    assert served.get()[0] == 200


# -- its end --------------------------------------------------------------------------------------------------------


def test_a_stop_waits_for_nobody_and_the_port_is_free_then(serve: Callable[..., Served]) -> None:
    served = serve()
    port = served.listener.port
    with served.connect() as silent:
        deadline = time.monotonic() + 60
        while not served.listener._open:  # it has a seat
            assert time.monotonic() < deadline
            time.sleep(0.01)
        begun = time.monotonic()
        served.listener.stop()
        assert time.monotonic() - begun < LIMITS.seconds / 2
        assert not served.listener._thread.is_alive(), "it was woken"
        assert closed_within(silent, 5)
    Listener((LOOPBACK, port), lambda _: True, lambda _: ("", b""), Log()).stop()


def test_all_addresses_are_those_of_both_kinds() -> None:
    listener = Listener(
        (ip_address("::"), 0),
        Metrics(listen="[::]:9187", allow=("127.0.0.1", "::1")).admits,
        lambda _: ("", b""),
        Log(),
    )
    listener.start()
    try:
        for address in ("127.0.0.1", "::1") if socket.has_dualstack_ipv6() else ():
            with socket.create_connection((address, listener.port), 10) as client:
                client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 200 "), address
    finally:
        listener.stop()


def test_a_port_in_use_is_an_error(serve: Callable[..., Served]) -> None:
    served = serve()
    with pytest.raises(OSError, match="in use"):
        Listener((LOOPBACK, served.listener.port), lambda _: True, lambda _: ("", b""), Log())
