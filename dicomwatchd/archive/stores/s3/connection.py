"""A kept connection to an S3 endpoint: one request at a time, by libcurl.

libcurl speaks HTTP and TLS, goes through proxies and keeps the connection. What an answer may take is looked at here,
piece by piece as it comes: bytes, time, and whether it is one that is understood.
"""

from __future__ import annotations

import re
import select
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pycurl

from dicomwatchd.archive.aws import deadlines
from dicomwatchd.archive.stores.uplink import Sending
from dicomwatchd.errors import Stopping

CONNECT_SECONDS = 5.0
_HEAD_LIMIT_BYTES = 64 * 1024
#: What of a body may come while nobody reads it. libcurl reads 160 KB at a time at most.
_AHEAD_BYTES = 256 * 1024
#: libcurl has one such room for each connection that sends.
_SENDING_BYTES = 128 * 1024
_STATUS = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2})(?: [^\r\n]*)?\r\n\Z")
#: A name without a value: libcurl sends no such header. One that is given with a value is sent all the same.
_NONE_OF_ITS_OWN = ("Accept:", "Expect:", "Content-Type:")
#: CURLOPT_SUPPRESS_CONNECT_HEADERS, which pycurl has no name for: what a proxy says to CONNECT is no part of an answer.
_SUPPRESS_CONNECT_HEADERS = 265


@dataclass(frozen=True, slots=True)
class Response:
    """``headers`` by their lower-case names."""

    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Route:
    """How a server is reached. ``proxy`` is the URL of a http proxy, "" for none; ``trusted`` the file, or the folder,
    of the certificates that a server's must be signed by."""

    proxy: str = ""
    trusted: str = ""
    trusted_is_folder: bool = False


class OddResponse(Exception):
    """Not an answer that is understood here."""


class Connection:
    """To be used by one thread at a time. After an OSError or OddResponse it is of no use."""

    def __init__(self, route: Route) -> None:
        self._curl = curl = pycurl.Curl()
        self._multi = multi = pycurl.CurlMulti()
        for option, value in (
            (pycurl.NOSIGNAL, 1),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.HTTP09_ALLOWED, 0),
            (pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2),
            (pycurl.HTTP_CONTENT_DECODING, 0),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.NETRC, pycurl.NETRC_IGNORED),
            (pycurl.PATH_AS_IS, 1),
            (pycurl.TCP_KEEPALIVE, 1),
            # A new connection goes where the name leads now: a store's addresses come and go, and connections are kept.
            (pycurl.DNS_CACHE_TIMEOUT, 0),
            (pycurl.CONNECTTIMEOUT_MS, round(CONNECT_SECONDS * 1000)),
            (pycurl.UPLOAD_BUFFERSIZE, _SENDING_BYTES),
            (pycurl.PROXY, route.proxy),  # "": none, whatever the environment says
            (_SUPPRESS_CONNECT_HEADERS, 1),
            (pycurl.HEADERFUNCTION, self._on_header),
            (pycurl.READFUNCTION, self._on_send),
            (pycurl.SEEKFUNCTION, self._on_seek),
        ):
            curl.setopt(option, value)
        curl.setopt(pycurl.WRITEFUNCTION, self._on_body, use_memoryview=True)
        # libcurl has places of its own to look for certificates.
        curl.unsetopt(pycurl.CAINFO)
        curl.unsetopt(pycurl.CAPATH)
        if route.trusted:
            curl.setopt(pycurl.CAPATH if route.trusted_is_folder else pycurl.CAINFO, route.trusted)
        multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._poll = select.poll()
        self._timer_at: float | None = None
        self._is_running = False
        self._seconds_left = self._quiet_seconds = 0.0
        self._sent: memoryview | None = None
        self._sent_bytes = 0
        self._sending: Sending | None = None
        self._waited_seconds = 0.0
        self._forget()

    def _forget(self) -> None:
        self._head: list[bytes] = []
        self._head_bytes = 0
        self._head_is_whole = False
        self._is_odd = False
        self._failure: OSError | OddResponse | Stopping | None = None
        self._stopped: Stopping | None = None
        self._ahead: deque[memoryview] = deque()
        self._ahead_bytes = 0
        self._is_paused = False
        self._room: memoryview | None = None
        self._filled = 0

    def close(self) -> None:
        """May be called more than once."""
        if not self._curl.closed:
            self._leave()
            self._multi.close()
            self._curl.close()

    def exchange(
        self,
        method: str,
        url: str,
        headers: Sequence[str],
        data: bytes | bytearray,
        sending: Sending | None = None,
    ) -> Response:
        """Send a request and read its answer's head. ``headers`` as lines. ``sending`` says when ``data`` may go; no
        deadline counts the time for which it is waited for. Raises OSError, OddResponse, Stopping."""
        self._forget()
        self._sending = sending
        with _Translated():
            self._curl.setopt(pycurl.URL, url)
            self._curl.setopt(pycurl.HTTPHEADER, [*headers, *_NONE_OF_ITS_OWN])
            self._is_to_be(method, data)
            self._multi.add_handle(self._curl)
        self._is_running = True
        self.allow(deadlines.body_seconds(len(data)))
        self._quiet_seconds = 0.0
        self._timer_at = time.monotonic()
        while self._is_running and not self._head_is_whole:
            self._go_on()
        if not self._head_is_whole:
            raise self._failure or OddResponse
        return Response(*_parsed(self._head))

    def _is_to_be(self, method: str, data: bytes | bytearray) -> None:
        curl = self._curl
        curl.setopt(pycurl.NOBODY, 0)
        curl.unsetopt(pycurl.CUSTOMREQUEST)
        if method == "HEAD":
            curl.setopt(pycurl.NOBODY, 1)
        elif method == "GET":
            curl.setopt(pycurl.HTTPGET, 1)
        else:
            curl.setopt(pycurl.CUSTOMREQUEST, method)
            if isinstance(data, bytes) and self._sending is None:
                curl.setopt(pycurl.POSTFIELDS, data)  # sent out of this very object
            else:
                curl.setopt(pycurl.UPLOAD, 1)
                curl.setopt(pycurl.INFILESIZE_LARGE, len(data))
                self._sent, self._sent_bytes = memoryview(data), 0

    def allow(self, seconds: float) -> None:
        """From here on so long may be waited for what comes, in all: each piece alone would be in time for ever."""
        self._seconds_left = seconds

    def read_into(self, view: memoryview) -> int:
        """Fills ``view`` with what comes next of the answer's body; how much of it, less only at the body's end. Raises
        OSError, OddResponse."""
        filled = 0
        while self._ahead and filled < len(view):
            piece = self._ahead.popleft()
            taken = piece[: len(view) - filled]
            view[filled : filled + len(taken)] = taken
            filled += len(taken)
            self._ahead_bytes -= len(taken)
            if len(taken) < len(piece):
                self._ahead.appendleft(piece[len(taken) :])
        self._room, self._filled = view, filled
        try:
            if self._is_paused and self._filled < len(view):
                self._is_paused = False
                self._curl.pause(pycurl.PAUSE_CONT)
                self._timer_at = time.monotonic()
            while self._is_running and self._filled < len(view):
                self._go_on()
            if self._failure is not None and self._filled < len(view):
                raise self._failure
            return self._filled
        finally:
            self._room = None

    def end(self) -> None:
        """The answer has to end here. Raises OSError, OddResponse."""
        while self._is_running and not self._ahead:
            self._go_on()
        if self._ahead:
            raise OddResponse
        if self._failure is not None:
            raise self._failure

    # -- libcurl's side

    def _go_on(self) -> None:
        """Waits for what the server sends or takes next. Raises TimeoutError. How the request ended is for when all is
        read that came before: `_failure`."""
        began = time.monotonic()
        wait = min(self._seconds_left, deadlines.ANSWER_SECONDS - self._quiet_seconds)
        if wait <= 0:
            raise TimeoutError("an answer that comes too slowly")
        if self._timer_at is not None:
            wait = min(wait, self._timer_at - began)
        events = self._poll.poll(wait * 1000) if wait > 0 else []
        running = 1
        with _Translated():
            for fd, event in events:
                _, running = self._multi.socket_action(fd, _select(event))
            if not events and self._timer_at is not None and self._timer_at <= time.monotonic():
                self._timer_at = None
                _, running = self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        spent = time.monotonic() - began - self._waited_seconds
        self._waited_seconds = 0.0
        self._seconds_left -= spent
        self._quiet_seconds = 0.0 if events else self._quiet_seconds + spent
        if not running:
            _, _, failed = self._multi.info_read()
            self._leave()
            if self._stopped is not None:
                self._failure = self._stopped
            elif self._is_odd:
                self._failure = OddResponse()
            elif failed:
                self._failure = ConnectionError(f"libcurl: {failed[0][2]}")

    def _leave(self) -> None:
        """Off a request; where it is not answered yet libcurl closes the connection."""
        if self._is_running:
            self._is_running = False
            self._multi.remove_handle(self._curl)
        self._sent = self._sending = None
        self._curl.setopt(pycurl.POSTFIELDS, b"")  # what was sent is not kept

    def _on_socket(self, what: int, fd: int, _multi: Any, _data: Any) -> None:
        if what in (pycurl.POLL_REMOVE, pycurl.POLL_NONE):
            with suppress(KeyError):
                self._poll.unregister(fd)
        else:
            reads, writes = what in (pycurl.POLL_IN, pycurl.POLL_INOUT), what in (pycurl.POLL_OUT, pycurl.POLL_INOUT)
            self._poll.register(fd, reads * select.POLLIN | writes * select.POLLOUT)

    def _on_timer(self, milliseconds: int) -> None:
        self._timer_at = time.monotonic() + milliseconds / 1000 if milliseconds >= 0 else None

    def _on_header(self, line: bytes) -> int:
        self._head_bytes += len(line)
        if self._head_bytes > _HEAD_LIMIT_BYTES or (not self._head and not _STATUS.match(line)):
            return self._refuse()
        if self._head_is_whole:
            return len(line)  # fields that come after the body say nothing of it
        if line == b"\r\n":
            self._head_is_whole = True
        else:
            self._head.append(line)
        return len(line)

    def _on_body(self, data: memoryview) -> int:
        """``data`` are libcurl's own bytes, until this returns."""
        if not self._head_is_whole:
            return self._refuse()
        if self._ahead_bytes >= _AHEAD_BYTES:
            self._is_paused = True
            return int(pycurl.WRITEFUNC_PAUSE)
        taken = 0
        if self._room is not None and not self._ahead:
            taken = min(len(data), len(self._room) - self._filled)
            self._room[self._filled : self._filled + taken] = data[:taken]
            self._filled += taken
        if taken < len(data):
            self._ahead.append(memoryview(bytes(data[taken:])))
            self._ahead_bytes += len(data) - taken
        return len(data)

    def _on_send(self, most_bytes: int) -> bytes | int:
        if self._sent is None:
            return b""
        most_bytes = min(most_bytes, len(self._sent) - self._sent_bytes)
        if self._sending is not None and most_bytes:
            began = time.monotonic()
            try:
                most_bytes = self._sending.next(most_bytes)
            except Stopping as error:
                self._stopped = error
                return int(pycurl.READFUNC_ABORT)
            finally:
                self._waited_seconds += time.monotonic() - began
        piece = bytes(self._sent[self._sent_bytes : self._sent_bytes + most_bytes])
        self._sent_bytes += len(piece)
        return piece

    def _on_seek(self, offset: int, origin: int) -> int:
        """libcurl sends once more from the beginning where a kept connection turns out to have been closed."""
        if self._sent is None or origin or not 0 <= offset <= len(self._sent):
            return int(pycurl.SEEKFUNC_FAIL)
        self._sent_bytes = offset
        return int(pycurl.SEEKFUNC_OK)

    def _refuse(self) -> int:
        self._is_odd = True
        return -1


class _Translated:
    """libcurl's refusals as OSError. No generator: there are several in each request."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, pycurl.error):
            raise ConnectionError(f"libcurl: {error}") from error


def _select(event: int) -> int:
    found = pycurl.CSELECT_IN if event & (select.POLLIN | select.POLLHUP) else 0
    found |= pycurl.CSELECT_OUT if event & select.POLLOUT else 0
    return int(found | (pycurl.CSELECT_ERR if event & (select.POLLERR | select.POLLNVAL) else 0))


def _parsed(lines: Sequence[bytes]) -> tuple[int, dict[str, str]]:
    """Status and headers of an HTTP/1.1 answer. Raises OddResponse."""
    status, *fields = lines
    headers: dict[str, str] = {}
    for line in fields:
        name, colon, value = line.decode("iso-8859-1").rstrip("\r\n").partition(":")
        name = name.lower()
        if not colon or not name or name[0].isspace() or headers.setdefault(name, value.strip()) != value.strip():
            raise OddResponse
    return int(status[9:12]), headers
