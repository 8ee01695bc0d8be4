"""Connections: a proxy's port that takes every name of Amazon's for its own, and speaks TLS under it.

A client with HTTPS_PROXY set asks for a tunnel (CONNECT) to a name, and finds this server at its end; so names, TLS and
virtual hosts are as they are with Amazon, and nothing leaves the machine. TLS without a tunnel is taken too; and so is
plain http of a client with HTTP_PROXY set, which names the host in each request.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from tests.servers.amazon.message import Answer
from tests.servers.connections import ConnectionServer

_HOP_BY_HOP = frozenset(("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"))
_HANDSHAKE = b"\x16"
Serve = Callable[[str, str, dict[str, str], bytes], Answer]


class Server(ConnectionServer):
    """``serve`` gets method, target, headers in lower case and body."""

    def __init__(self, context: ssl.SSLContext, serve: Serve) -> None:
        self.serve = serve
        self._context = context
        super().__init__(("127.0.0.1", 0), _Exchange)

    def prepared(self, plain: socket.socket) -> socket.socket:
        plain.settimeout(30)
        first = plain.recv(1, socket.MSG_PEEK)
        if first not in (b"C", _HANDSHAKE):
            return plain
        if first == b"C":  # CONNECT
            head = b""
            while not head.endswith(b"\r\n\r\n") and (byte := plain.recv(1)):
                head += byte
            plain.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return self._context.wrap_socket(plain, server_side=True)

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.break_connections()


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        target = self.path
        if target.startswith("http://"):
            target = "/" + target.removeprefix("http://").partition("/")[2]
        answer = self.server.serve(self.command, target, headers, self._body(headers))
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name not in _HOP_BY_HOP:
                self.send_header(name, value)
        if "content-length" not in answer.headers and answer.status not in (204, 304):
            self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(headers.get("content-length") or 0))
        pieces = []
        while length := int(self.rfile.readline().partition(b";")[0], 16):
            pieces.append(self.rfile.read(length))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(pieces)


def ask(endpoint: str, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
    """The answer of a server behind, over a connection of its own."""
    parts = urlsplit(endpoint)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body or method in ("PUT", "POST"):
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body or None)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP}
        return Answer(response.status, found, response.read())
    finally:
        connection.close()
