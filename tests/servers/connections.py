"""What servers in the tests' own process share: a thread for each connection, and an end for those that are open."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


class ConnectionServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    #: What ends a connection without a word.
    breaks: ClassVar[tuple[type[BaseException], ...]] = (OSError,)

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._handler = handler
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        self._stopped = False
        super().__init__(address, handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        plain, address = super().get_request()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return plain, address

    def prepared(self, plain: socket.socket) -> socket.socket:
        """The connection that the requests come by: with TLS under it, where there is any."""
        return plain

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's own thread: a slow handshake must hold up nobody else.
        channel: socket.socket = request
        try:
            channel = self.prepared(request)
            channel.settimeout(120)
            with self._open_lock:
                if self._stopped:
                    return
                self._open.add(channel)
            self._handler(channel, client_address, self)
        except self.breaks:
            pass
        finally:
            with self._open_lock:
                self._open.discard(channel)
            with contextlib.suppress(OSError):
                channel.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are these servers' daily work."""

    def break_connections(self) -> None:
        with self._open_lock:
            self._stopped = True
            found = list(self._open)
        for connection in found:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
