"""The port at which the figures are fetched: HTTP/1.1, GET /metrics and no more, one answer a connection.

Whoever connects gets a few seconds for all of it, and one of a few seats; who drips, hangs or sends too much is cut
off. Nothing of the daemon waits for anybody here.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address

from dicomwatchd.ports import Log
from dicomwatchd.telemetry.fields import error_fields

Address = tuple[IPv4Address | IPv6Address, int]
#: Gets the request's Accept header; returns the content's type, and the content.
Answer = Callable[[str], tuple[str, bytes]]

_PATH = "/metrics"
_PIECE_BYTES = 4096
_HINT = "dicomwatchd has its figures at /metrics\n"
_BACKLOG = 128
_STOP_SECONDS = 2.0


@dataclass(frozen=True)
class Limits:
    """``connections`` at once, more are closed unheard; ``request_bytes`` for a request's line and headers;
    ``seconds`` for all of a connection, from its acceptance to the last byte of the answer."""

    connections: int = 8
    request_bytes: int = 8192
    seconds: float = 10.0


LIMITS = Limits()


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, text: str = "") -> None:
        super().__init__(status)
        self.status, self.text = status, text or f"{status.phrase}\n"


class Listener:
    """Listens from its making, serves from `start` to `stop`. Raises OSError when it cannot listen there."""

    def __init__(
        self,
        address: Address,
        admits: Callable[[IPv4Address | IPv6Address], bool],
        answer: Answer,
        log: Log,
        limits: Limits = LIMITS,
    ) -> None:
        """``admits``: whether somebody at this address may connect; others are closed unheard."""
        self._admits, self._answer, self._log, self._limits = admits, answer, log, limits
        host, port = address
        family = socket.AF_INET if isinstance(host, IPv4Address) else socket.AF_INET6
        both = family == socket.AF_INET6 and host.is_unspecified and socket.has_dualstack_ipv6()
        self._socket = socket.create_server((str(host), port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Whoever is connected is cut off."""
        self._stopping.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the accept; a close alone does not
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
        self._socket.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, peer = self._socket.accept()
            except OSError:  # too many open files, or the stop
                self._stopping.wait(0.5)
                continue
            if not self._has_a_seat(connection, ip_address(str(peer[0]).split("%")[0])):
                connection.close()
                continue
            try:
                threading.Thread(target=self._serve, args=(connection,), name="metrics-answer", daemon=True).start()
            except RuntimeError:  # no thread is to be had
                self._leave(connection)

    def _has_a_seat(self, connection: socket.socket, peer: IPv4Address | IPv6Address) -> bool:
        if not self._admits(peer):
            return False
        with self._lock:
            if self._stopping.is_set() or len(self._open) >= self._limits.connections:
                return False
            self._open.add(connection)
        return True

    def _leave(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def _serve(self, connection: socket.socket) -> None:
        try:
            self._exchange(connection, time.monotonic() + self._limits.seconds)
        except OSError:  # the peer is gone, or too slow
            return
        except Exception as error:  # noqa: BLE001  the top of this thread: no figure is worth the daemon's life
            self._log.error("metrics-failed", "a request for the figures failed", **error_fields(error))
        finally:
            self._leave(connection)

    def _exchange(self, connection: socket.socket, deadline: float) -> None:
        """Raises OSError (TimeoutError)."""
        method = ""
        try:
            method, path, accept = _parsed(self._head(connection, deadline))
            if method not in ("GET", "HEAD"):
                raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED)
            if path.partition("?")[0] != _PATH:
                raise _Refused(HTTPStatus.NOT_FOUND, _HINT)
            status = HTTPStatus.OK
            kind, content = self._answer(accept)
        except _Refused as refused:
            status, kind, content = refused.status, "text/plain; charset=utf-8", refused.text.encode("ascii")
        head = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(content)}",
            *(["Allow: GET, HEAD"] if status is HTTPStatus.METHOD_NOT_ALLOWED else []),
            "X-Content-Type-Options: nosniff",
            "Connection: close",
        ]
        text = "\r\n".join([*head, "", ""]).encode("ascii")
        connection.settimeout(max(deadline - time.monotonic(), 0.001))  # for all of it
        connection.sendall(text if method == "HEAD" else text + content)
        connection.shutdown(socket.SHUT_WR)

    def _head(self, connection: socket.socket, deadline: float) -> str:
        """The request's line and headers. A body is not read. Raises OSError (TimeoutError), _Refused."""
        held = bytearray()
        while (end := held.find(b"\r\n\r\n")) < 0:
            if len(held) > self._limits.request_bytes:
                raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            # Not for each piece: a byte at a time would hold the seat for ever.
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            piece = connection.recv(_PIECE_BYTES)
            if not piece:
                raise ConnectionResetError("closed in the middle of a request")
            held += piece
        return held[:end].decode("latin-1")


def _parsed(head: str) -> tuple[str, str, str]:
    """(method, path, Accept header). Raises _Refused."""
    first, *lines = head.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _Refused(HTTPStatus.BAD_REQUEST)
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return words[0], words[1], ",".join(value for name, value in headers if name == "accept")
