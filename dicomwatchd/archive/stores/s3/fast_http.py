"""The fast path to an S3 endpoint: kept connections on which an object or a part of one is sent, or an object is read,
or some are listed.

A botocore call costs more processor time than the hashing and sending of a small object. Here the same request is
made with none of its layers. Only a plain, complete answer comes back from here; whatever else happens (an error, a
redirect, a broken connection, an odd answer) is None, and the caller makes the request again through botocore, whose
retries, clock correction and error translation are then the ones that count. A creation is sent with If-None-Match,
and a part replaces what the same bytes were sent as before, so making the request twice does no harm.
"""

from __future__ import annotations

import hashlib
import re
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

from dicomwatchd.archive.aws import deadlines
from dicomwatchd.archive.stores.ranges import Wanted, surplus
from dicomwatchd.archive.stores.s3.signing import Credentials, Signer

CONNECT_SECONDS = 5.0
#: After so many refusals and failures in a row the fast path rests: the store is down, or it does not fit this one.
GIVE_UP_AFTER = 8
REST_SECONDS = 60.0
_HEAD_LIMIT_BYTES = 64 * 1024
_SMALL_BODY_BYTES = 1024 * 1024
_LISTING_BYTES = 4 * 1024 * 1024  # a page of a thousand keys of the greatest length has two
#: Up to here header and body go out together; a larger body is worth a call of its own, not a copy.
_TOGETHER_BYTES = 64 * 1024
_PIECE_BYTES = 1024 * 1024
_SAFE = "/-_.~"
_UNSIGNED = "UNSIGNED-PAYLOAD"
_EMPTY_SHA256 = hashlib.sha256().hexdigest()


_LENGTH = re.compile(r"[0-9]{1,19}\Z")
_HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]{1,8}\Z")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Response:
    """``headers`` by their lower-case names."""

    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a bucket is: ``base_path`` is "" where the bucket is part of the host's name, or "/<bucket>"."""

    host: str
    port: int
    tls: bool
    base_path: str

    @property
    def host_header(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.tls else 80) else f"{name}:{self.port}"


class S3DataPlane:
    """Safe to use from many threads; keeps as many connections as there are threads that send at once.

    ``credentials`` is asked for each request, so that keys that were renewed are used. ``tls`` is None for plain http.
    The SHA-256 of an object's body is part of the signature, so that the store compares it with what arrives. A part's
    is over http only: over https a part is known by its MD5, though botocore signs it, too, but for Amazon.
    """

    def __init__(
        self,
        address: Address,
        *,
        region: str,
        credentials: Callable[[], Credentials | None],
        tls: ssl.SSLContext | None,
        user_agent: str,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._tls = tls
        self._signer = Signer(region, now)
        self._credentials = credentials
        self._user_agent = user_agent
        self._monotonic = monotonic
        self._idle: deque[_Connection] = deque()
        self._failures = 0
        self._rests_until = 0.0

    def put(self, key: str, data: bytes, *, sha256: str, headers: Mapping[str, str]) -> Response | None:
        """PutObject of the full ``key``. ``headers`` have lower-case names. Returns the answer if it is a success or
        says that the key is taken (409, 412), and None otherwise."""
        return self._put(key, {}, data, sha256, headers, (200, 409, 412))

    def put_part(
        self, key: str, query: Mapping[str, str], data: bytearray, headers: Mapping[str, str]
    ) -> Response | None:
        """UploadPart of the full ``key``, by the part's number and the upload in ``query``. Any answer but a success is
        None. Its SHA-256 is worked out here, and only where it is signed."""
        return self._put(key, query, data, None, headers, (200,))

    def _put(
        self,
        key: str,
        query: Mapping[str, str],
        data: bytes | bytearray,
        sha256: str | None,
        headers: Mapping[str, str],
        understood: tuple[int, ...],
    ) -> Response | None:
        began = self._begin("PUT", quote(key, safe=_SAFE), query, sha256, headers, data)
        if began is None:
            return None
        connection, response = began
        try:
            body = Body(connection, response, self._idle.append)
            if body.length > _SMALL_BODY_BYTES:
                raise _OddResponse
            for _ in body.chunks(_SMALL_BODY_BYTES):
                pass
            if connection.surplus:
                raise _OddResponse
        except (OSError, _OddResponse):
            connection.close()
            return self._noted(None)
        return self._noted(response if response.status in understood else None)

    def get(self, key: str, query: Mapping[str, str], wanted: Wanted | None = None) -> Body | None:
        """GetObject of the full ``key``, or of the part that is ``wanted``. A body that has begun and breaks off raises
        OSError while it is read; any answer but a success is None."""
        headers = {"range": wanted.header} if wanted is not None else {}
        began = self._begin("GET", quote(key, safe=_SAFE), query, _EMPTY_SHA256, headers, b"")
        if began is None:
            return None
        connection, response = began
        try:
            if response.status not in (200, 206):
                raise _OddResponse
            body = Body(connection, response, self._idle.append, wanted)
        except _OddResponse:
            connection.close()
            return self._noted(None)
        return self._noted(body)

    def listing(self, query: Mapping[str, str]) -> bytes | None:
        """A GET of the bucket itself, its whole answer; any answer but a success is None."""
        began = self._begin("GET", "", query, _EMPTY_SHA256, {}, b"")
        if began is None:
            return None
        connection, response = began
        try:
            if response.status != 200 or "content-encoding" in response.headers:
                raise _OddResponse
            if response.headers.get("transfer-encoding") == "chunked":
                connection.allow(deadlines.body_seconds(_SMALL_BODY_BYTES))
                found = connection.read_chunked(_LISTING_BYTES)
                if connection.surplus or response.headers.get("connection", "").lower() == "close":
                    connection.close()
                else:
                    self._idle.append(connection)
            else:
                body = Body(connection, response, self._idle.append)
                if body.length > _LISTING_BYTES:
                    raise _OddResponse
                found = b"".join(body.chunks(_LISTING_BYTES))
        except (OSError, _OddResponse):
            connection.close()
            return self._noted(None)
        return self._noted(found)

    def _begin(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        sha256: str | None,
        headers: Mapping[str, str],
        data: bytes | bytearray,
    ) -> tuple[_Connection, Response] | None:
        """Sends the request; the head of its answer, and the connection from which the body is still to be read."""
        if self._monotonic() < self._rests_until:
            return None
        credentials = self._credentials()
        if credentials is None or not all(map(_plain, headers.values())):
            return None
        if sha256 is None and self._address.tls:
            sha256 = _UNSIGNED
        elif sha256 is None:
            sha256 = hashlib.sha256(data).hexdigest()
        signed = {"host": self._address.host_header, "x-amz-content-sha256": sha256, **headers}
        head = self._signer.head(
            method, f"{self._address.base_path}/{path}", query, signed, credentials, self._user_agent, len(data)
        )
        connection = None
        try:
            connection = self._connection()
            return connection, connection.exchange(head, data)
        except (OSError, _OddResponse):
            if connection is not None:
                connection.close()
            self._noted(None)
            return None

    def _noted(self, outcome: _T) -> _T:
        if outcome is not None:
            self._failures = 0
            return outcome
        self._failures += 1
        if self._failures >= GIVE_UP_AFTER:
            self._failures = 0
            self._rests_until = self._monotonic() + REST_SECONDS
        return outcome

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _connection(self) -> _Connection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return _Connection.opened(self._address, self._tls)
            if connection.usable():
                return connection
            connection.close()


def _plain(value: str) -> bool:
    """Whether a header's value is signed and sent just as it stands."""
    return value.isascii() and value.isprintable() and "  " not in value and value == value.strip()


class _OddResponse(Exception):
    """Not an answer that is understood here."""


class _Connection:
    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._seconds_left = 0.0
        self.surplus = b""  # what came with the head of an answer and is not of it
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    @classmethod
    def opened(cls, address: Address, tls: ssl.SSLContext | None) -> _Connection:
        sock = socket.create_connection((address.host, address.port), timeout=CONNECT_SECONDS)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if tls is not None:
                sock = tls.wrap_socket(sock, server_hostname=address.host)
            sock.settimeout(deadlines.ANSWER_SECONDS)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    def usable(self) -> bool:
        """An idle connection with something to read was closed by the other side, or is out of step."""
        return not self.surplus and not self._poll.poll(0)

    def close(self) -> None:
        self._socket.close()

    def exchange(self, head: bytes, data: bytes | bytearray) -> Response:
        """Send a request and read its answer's head. Raises OSError, _OddResponse; the connection is of no use then."""
        self._socket.settimeout(deadlines.ANSWER_SECONDS)
        if len(data) <= _TOGETHER_BYTES:
            self._socket.sendall(head + data)
        else:
            self._socket.sendall(head)
            # The time that a call may take is for all that it is given, which on a slow line is too little for a part.
            view = memoryview(data)
            for start in range(0, len(view), _PIECE_BYTES):
                self._socket.sendall(view[start : start + _PIECE_BYTES])
        self.allow(deadlines.ANSWER_SECONDS)
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            if len(received) > _HEAD_LIMIT_BYTES:
                raise _OddResponse
            received += self._more()
        self.surplus = received[end + 4 :]
        return Response(*_parsed(received[:end]))

    def allow(self, seconds: float) -> None:
        """From here on so long may be waited for what comes, in all: each piece alone would be in time for ever."""
        self._seconds_left = seconds

    def _waited_for(self, receive: Callable[[], _T]) -> _T:
        if self._seconds_left <= 0:
            raise TimeoutError("an answer that comes too slowly")
        if self._seconds_left < deadlines.ANSWER_SECONDS:
            self._socket.settimeout(self._seconds_left)
        began = time.monotonic()
        received = receive()
        self._seconds_left -= time.monotonic() - began
        return received

    def read_into(self, view: memoryview) -> int:
        """Fills the beginning of ``view``; how much of it. Raises OSError."""
        if self.surplus:
            count = min(len(view), len(self.surplus))
            view[:count] = self.surplus[:count]
            self.surplus = self.surplus[count:]
            return count
        count = self._waited_for(lambda: self._socket.recv_into(view))
        if not count:
            raise ConnectionError("closed in the middle of an answer")
        return count

    def read_chunked(self, limit_bytes: int) -> bytes:
        """A body in chunks (RFC 9112, 7.1), whole. Raises OSError, _OddResponse."""
        body = bytearray()
        while size := self._chunk_bytes():
            if len(body) + size > limit_bytes:
                raise _OddResponse
            body += self._exactly(size)
            if self._exactly(2) != b"\r\n":
                raise _OddResponse
        while self._line():
            pass  # fields that come after the body say nothing of it
        return bytes(body)

    def _chunk_bytes(self) -> int:
        digits = self._line().partition(b";")[0].strip()
        if not _HEXADECIMAL.match(digits):
            raise _OddResponse
        return int(digits, 16)

    def _line(self) -> bytes:
        while (end := self.surplus.find(b"\r\n")) < 0:
            if len(self.surplus) > _HEAD_LIMIT_BYTES:
                raise _OddResponse
            self.surplus += self._more()
        line, self.surplus = self.surplus[:end], self.surplus[end + 2 :]
        return line

    def _exactly(self, length: int) -> bytes:
        data = bytearray(length)
        view, filled = memoryview(data), 0
        while filled < length:
            filled += self.read_into(view[filled:])
        return bytes(data)

    def _more(self) -> bytes:
        received = self._waited_for(lambda: self._socket.recv(16384))
        if not received:
            raise ConnectionError("closed in the middle of an answer")
        return received


class Body:
    """The body of an answer, of a length known beforehand. Read to its end, its connection is used again."""

    def __init__(
        self,
        connection: _Connection,
        response: Response,
        release: Callable[[_Connection], None],
        wanted: Wanted | None = None,
    ) -> None:
        """``surplus_bytes`` come before what is ``wanted``. Raises _OddResponse where the length is not known, or this
        is another part of the object."""
        length = response.headers.get("content-length", "")
        if (
            "transfer-encoding" in response.headers
            or "content-encoding" in response.headers
            or not _LENGTH.match(length)
        ):
            raise _OddResponse
        self.length = int(length)
        content_range = response.headers.get("content-range")
        surplus_bytes = surplus(wanted, content_range, self.length)
        if surplus_bytes is None or (response.status == 206) != (content_range is not None):
            raise _OddResponse
        self.surplus_bytes = surplus_bytes
        self.headers = response.headers
        connection.allow(deadlines.body_seconds(self.length))
        self._connection = connection
        self._give_back = release
        self._closes = response.headers.get("connection", "").lower() == "close"

    def chunks(self, limit_bytes: int) -> Generator[bytes, None, None]:
        """All of it. Raises OSError where it breaks off."""
        buffer = memoryview(bytearray(min(self.length, limit_bytes)))
        with closing(self.views(buffer)) as views:
            for view in views:
                yield bytes(view)

    def views(self, buffer: memoryview) -> Generator[memoryview, None, None]:
        """As `chunks`, each in the same ``buffer``, over the one before it."""
        left = self.length
        try:
            while left:
                chunk = buffer[:left]
                filled = 0
                while filled < len(chunk):
                    filled += self._connection.read_into(chunk[filled:])
                left -= filled
                yield chunk
        finally:
            if left or self._closes or self._connection.surplus:
                self._connection.close()
            else:
                self._give_back(self._connection)


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of an HTTP/1.1 answer. Raises _OddResponse."""
    first, *lines = head.decode("iso-8859-1").split("\r\n")
    protocol, _, rest = first.partition(" ")
    if protocol != "HTTP/1.1" or not rest[:3].isdecimal():
        raise _OddResponse
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name[0].isspace() or headers.setdefault(name, value.strip()) != value.strip():
            raise _OddResponse
    return int(rest[:3]), headers
