"""An HTTP(S) proxy in front of a real store or catalogue that goes wrong on demand, and remembers every request.

It speaks for the server under its own name: clients sign for the proxy's host and port, and the headers, Host among
them, reach the server as they were, so signatures hold. Bodies are held whole in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
import ssl
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.faults.answers import Response, falsified, made_up, spoilt
from tests.faults.liar import Liar
from tests.faults.rules import Fault, Request, Rule, parse_target, study_of
from tests.faults.strict import StrictStore
from tests.servers.connections import ConnectionServer
from tests.servers.tls import Certificate

#: Headers of one connection, not of the message (RFC 9110 section 7.6.1), and what we answer ourselves.
_HOP_BY_HOP = frozenset(("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect"))
_MADE_UP = frozenset(
    (
        Fault.ERROR_500,
        Fault.SLOW_DOWN,
        Fault.CONFLICT,
        Fault.PRECONDITION,
        Fault.EXPIRED_TOKEN,
        Fault.CLOCK_SKEW,
        Fault.UNKNOWN_KEY,
        Fault.THROTTLED,
        Fault.ERROR_IN_200,
        Fault.NOT_FOUND,
        Fault.DELETE_MARKER,
        Fault.MARKER_NAMED,
        Fault.REFUSED,
    )
)


class _Gone(Exception):
    """The connection to the client is to break here."""


@dataclass(frozen=True, slots=True)
class _Upstream:
    host: str
    port: int


class FaultProxy:
    """Listens on loopback while it is started. ``target`` is the real server's endpoint: plain http, or TLS with
    ``trust``, the certificate of who signed it.

    Rules may be changed at any time (`set`, `clear`); those of ``always`` stay. ``strict``: checksums are enforced and
    returned as Amazon S3 does. ``liar``: what the store ignores. With ``certificate`` it speaks TLS, under the name
    localhost.
    """

    def __init__(
        self,
        target: str,
        *,
        certificate: Certificate | None = None,
        strict: bool = False,
        liar: Liar | None = None,
        always: Iterable[Rule] = (),
        port: int = 0,
        trust: Path | None = None,
    ) -> None:
        parts = urlsplit(target)
        scheme = "https" if trust is not None else "http"
        if parts.scheme != scheme or parts.hostname is None or parts.port is None:
            raise ValueError(f"the target must be {scheme}://HOST:PORT")
        self._trust = ssl.create_default_context(cafile=trust) if trust is not None else None
        self._upstream = _Upstream(parts.hostname, parts.port)
        self._certificate = certificate
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate.cert_file, certificate.key_file)
        self._port = port
        self._server: _Server | None = None
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._always = list(always)
        self._rules: list[Rule] = []
        self.liar = liar
        #: How far the server's clock is ahead, as its answers say it.
        self.ahead_seconds = 0.0
        self._requests: list[Request] = []
        self.strict = StrictStore() if strict else None

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="fault-proxy", daemon=True).start()
        return self

    def stop(self) -> None:
        """Refuses connections and breaks those that are open; `start` brings it back on the same port."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.break_connections()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        return f"{'https' if self._context else 'http'}://localhost:{self._port}"

    # -- faults and records -------------------------------------------------------------------------------------

    def set(self, rules: Iterable[Rule]) -> None:
        with self._lock:
            self._rules = list(rules)
            self._changed.notify_all()

    def clear(self) -> None:
        self.set(())

    @contextlib.contextmanager
    def during(self, *rules: Rule) -> Iterator[None]:
        self.set(rules)
        try:
            yield
        finally:
            self.clear()

    def requests(self) -> list[Request]:
        with self._lock:
            return list(self._requests)

    def forget(self) -> None:
        with self._lock:
            self._requests.clear()

    def hold(self, rule: Rule) -> None:
        """Wait for the rule's seconds, or until it is taken away."""
        with self._lock:
            self._changed.wait_for(
                lambda: not any(rule is one for one in (*self._rules, *self._always)), timeout=rule.seconds
            )

    # -- one exchange -------------------------------------------------------------------------------------------

    def begin(self, method: str, raw_target: str, headers: Any, body: bytes) -> tuple[Request, Rule | None]:
        path, query = parse_target(raw_target)
        with self._lock:
            request = Request(
                number=len(self._requests) + 1,
                method=method,
                path=path,
                query=query,
                target=headers.get("x-amz-target", "").rpartition(".")[2],
                size_bytes=len(body),
                body_sha256=hashlib.sha256(body).hexdigest() if body else "",
                study=study_of(path, query, body if "x-amz-target" in headers else b""),
            )
            self._requests.append(request)
            struck = None
            for rule in (*self._rules, *self._always):
                if rule.strikes(request) and struck is None:
                    struck = rule
            request.fault = struck.fault if struck else None
        return request, struck

    @property
    def target(self) -> str:
        scheme = "https" if self._trust is not None else "http"
        return f"{scheme}://{self._upstream.host}:{self._upstream.port}"

    def connection(self) -> http.client.HTTPConnection:
        host, port = self._upstream.host, self._upstream.port
        if self._trust is not None:
            return http.client.HTTPSConnection(host, port, timeout=60, context=self._trust)
        return http.client.HTTPConnection(host, port, timeout=60)


class _Server(ConnectionServer):
    breaks = (OSError, _Gone)

    def __init__(self, address: tuple[str, int], proxy: FaultProxy) -> None:
        self.proxy = proxy
        super().__init__(address, _Exchange)

    def prepared(self, plain: socket.socket) -> socket.socket:
        if self.proxy._context is None:
            return plain
        plain.settimeout(10)
        return self.proxy._context.wrap_socket(plain, server_side=True)


class _Exchange(BaseHTTPRequestHandler):
    """The requests of one client connection, each passed on over a connection of its own to the server."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._upstream: http.client.HTTPConnection | None = None

    def finish(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def _serve(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request, rule = proxy.begin(self.command, self.path, self.headers, body)
        try:
            answer = self._answer(request, rule, body)
            self._send(request, answer, rule)
        except _Gone:
            self._break()

    def _answer(self, request: Request, rule: Rule | None, body: bytes) -> Response:
        proxy, fault = self.server.proxy, rule.fault if rule else None
        if fault is Fault.DELAY and rule is not None:
            proxy.hold(rule)
        if fault is Fault.RESET_BEFORE:
            raise _Gone
        if fault in _MADE_UP and fault is not None:
            return made_up(fault, request)
        if fault is Fault.CORRUPT_REQUEST and request.target:
            # DynamoDB Local checks no signature, and would keep the damage; Amazon's own refuses it.
            return made_up(Fault.CLOCK_SKEW, request)
        cut = False
        if rule is not None and body and fault in (Fault.CORRUPT_REQUEST, Fault.CUT_REQUEST):
            cut = fault is Fault.CUT_REQUEST
            body = body[: len(body) // 2] if cut else spoilt(body, rule.random())
        if proxy.strict is not None and (refusal := proxy.strict.refusal(request, self.headers, body)) is not None:
            return refusal
        request.sent_sha256 = "" if cut else hashlib.sha256(body).hexdigest()
        answer = self._forward(request, body, cut=cut)
        if proxy.strict is not None:
            answer = proxy.strict.completed(request, self.headers, answer)
        if fault is Fault.RESET_AFTER:
            raise _Gone
        return falsified(answer, fault, request, rule.random()) if rule is not None and fault is not None else answer

    def _forward(self, request: Request, body: bytes, *, cut: bool) -> Response:
        # A kept connection may have been closed by the server meanwhile; then nothing was done on it.
        for fresh in (False, True):
            if fresh or self._upstream is None:
                self._upstream = self.server.proxy.connection()
                fresh = True
            connection = self._upstream
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self._headers_to_send():
                    connection.putheader(name, value)
                connection.endheaders(body or None)
                if cut:
                    connection.close()
                    self._upstream = None
                    raise _Gone
                response = connection.getresponse()
                data = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._upstream = None
                if fresh:
                    raise _Gone from error
                continue
            if response.will_close:
                connection.close()
                self._upstream = None
            request.server_status = response.status
            return Response(response.status, response.reason, response.getheaders(), data)
        raise _Gone

    def _headers_to_send(self) -> list[tuple[str, str]]:
        kept = [(name, value) for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP]
        proxy = self.server.proxy
        if proxy.liar is None or not proxy.liar.is_told(self.path):
            return kept
        length = [(name, value) for name, value in kept if name.lower() == "content-length"]
        host = [("Host", proxy.target.partition("://")[2])]
        return [*host, *proxy.liar.rewritten(self.command, proxy.target + self.path, kept), *length]

    def _send(self, request: Request, answer: Response, rule: Rule | None) -> None:
        self.send_response_only(answer.status, answer.reason)
        length_given = False
        for name, value in answer.headers:
            lowered = name.lower()
            if lowered in _HOP_BY_HOP or lowered == "transfer-encoding":
                continue
            length_given = length_given or lowered == "content-length"
            if lowered == "date" and self.server.proxy.ahead_seconds:
                at = parsedate_to_datetime(value) + timedelta(seconds=self.server.proxy.ahead_seconds)
                value = format_datetime(at, usegmt=True)
            self.send_header(name, value)
        if not length_given and answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        request.status = answer.status
        if request.method == "HEAD":
            return
        if rule is not None and rule.fault is Fault.CUT_RESPONSE and answer.body:
            self.wfile.write(answer.body[: len(answer.body) // 2])
            self.wfile.flush()
            raise _Gone
        self.wfile.write(answer.body)
        self.wfile.flush()

    def _break(self) -> None:
        """A reset, not an orderly end."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
