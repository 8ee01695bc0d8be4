"""The data plane of an S3 endpoint: objects and parts of them are sent, read, looked at and listed, on kept
connections.

A botocore call costs more processor time than the hashing and sending of a small object. Here the same request is
made with none of its layers. Only a plain, complete answer comes back from here; whatever else happens (an error, a
redirect, a broken connection, an odd answer) is None, and the caller makes the request again through botocore, whose
retries, clock correction and error translation are then the ones that count. A creation is sent with If-None-Match,
and a part replaces what the same bytes were sent as before, so making the request twice does no harm.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote

from dicomwatchd.archive.aws import deadlines
from dicomwatchd.archive.stores.ranges import Wanted, surplus
from dicomwatchd.archive.stores.s3.connection import Connection, OddResponse, Response, Route
from dicomwatchd.archive.stores.s3.signing import Credentials, Signer
from dicomwatchd.archive.stores.uplink import Sending
from dicomwatchd.errors import Stopping

#: After so many refusals and failures in a row the data plane rests: the store is down, or it does not fit this one.
GIVE_UP_AFTER = 8
REST_SECONDS = 60.0
_SMALL_BODY_BYTES = 1024 * 1024
_LISTING_BYTES = 4 * 1024 * 1024  # a page of a thousand keys of the greatest length has two
_PIECE_BYTES = 64 * 1024
_SAFE = "/-_.~"
_UNSIGNED = "UNSIGNED-PAYLOAD"
_EMPTY_SHA256 = hashlib.sha256().hexdigest()
#: Of a body, as an answer says it.
LENGTH = re.compile(r"[0-9]{1,19}\Z")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a bucket is: ``base_path`` is "" where the bucket is part of the host's name, or "/<bucket>".
    ``host_header`` is the host's name, and its port where it is not the usual one."""

    host_header: str
    tls: bool
    base_path: str
    region: str
    route: Route = field(default_factory=Route)

    @property
    def origin(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host_header}"


class S3DataPlane:
    """Safe to use from many threads; keeps as many connections as there are threads that send at once.

    ``credentials`` is asked for each request, so that keys that were renewed are used. The SHA-256 of an object's body
    is part of the signature, so that the store compares it with what arrives. So is a part's that the caller gives. Of
    one that is known by its MD5 it is worked out here, and over http only, though botocore signs it, too, but for
    Amazon. ``sending`` is asked for each of them: it says when bytes may go, and where it is None nothing is asked any
    more.
    """

    def __init__(
        self,
        address: Address,
        *,
        credentials: Callable[[], Credentials | None],
        user_agent: str,
        sending: Callable[[], Sending | None] = lambda: None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._signer = Signer(address.region, now)
        self._credentials = credentials
        self._user_agent = user_agent
        self._sending = sending
        self._monotonic = monotonic
        self._idle: deque[Connection] = deque()
        self._is_closed = False
        self._failures = 0
        self._rests_until = 0.0

    def put(self, key: str, data: bytes, *, sha256: str, headers: Mapping[str, str]) -> Response | None:
        """PutObject of the full ``key``. ``headers`` have lower-case names. Returns the answer if it is a success or
        says that the key is taken (409, 412), and None otherwise."""
        return self._put(key, {}, data, sha256, headers, (200, 409, 412))

    def put_part(
        self,
        key: str,
        query: Mapping[str, str],
        data: bytearray,
        headers: Mapping[str, str],
        sha256: str | None = None,
    ) -> Response | None:
        """UploadPart of the full ``key``, by the part's number and the upload in ``query``. Any answer but a success is
        None. Without its SHA-256 that is worked out here, and only where it is signed."""
        return self._put(key, query, data, sha256, headers, (200,))

    def _put(
        self,
        key: str,
        query: Mapping[str, str],
        data: bytes | bytearray,
        sha256: str | None,
        headers: Mapping[str, str],
        understood: tuple[int, ...],
    ) -> Response | None:
        began = self._begin("PUT", quote(key, safe=_SAFE), query, sha256, headers, data, self._sending())
        if began is None:
            return None
        connection, response = began
        try:
            body = Body(connection, response, self._release)
            if body.length > _SMALL_BODY_BYTES:
                raise OddResponse
            for _ in body.chunks(_PIECE_BYTES):
                pass
        except (OSError, OddResponse):
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
                raise OddResponse
            body = Body(connection, response, self._release, wanted)
        except OddResponse:
            connection.close()
            return self._noted(None)
        return self._noted(body)

    def head(self, key: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Response | None:
        """HeadObject of the full ``key``. Returns the answer if it is a success or says that there is no such object
        (404), and None otherwise."""
        began = self._begin("HEAD", quote(key, safe=_SAFE), query, _EMPTY_SHA256, headers, b"")
        if began is None:
            return None
        connection, response = began
        try:
            connection.end()
        except (OSError, OddResponse):
            connection.close()
            return self._noted(None)
        self._release(connection)
        return self._noted(response if response.status in (200, 404) else None)

    def listing(self, query: Mapping[str, str]) -> bytes | None:
        """A GET of the bucket itself, its whole answer; any answer but a success is None."""
        began = self._begin("GET", "", query, _EMPTY_SHA256, {}, b"")
        if began is None:
            return None
        connection, response = began
        try:
            if response.status != 200 or "content-encoding" in response.headers:
                raise OddResponse
            if response.headers.get("transfer-encoding") == "chunked":
                connection.allow(deadlines.body_seconds(_SMALL_BODY_BYTES))
                found = _whole(connection)
                self._release(connection)
            else:
                body = Body(connection, response, self._release)
                if body.length > _LISTING_BYTES:
                    raise OddResponse
                found = b"".join(body.chunks(_PIECE_BYTES))
        except (OSError, OddResponse):
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
        sending: Sending | None = None,
    ) -> tuple[Connection, Response] | None:
        """Sends the request; the head of its answer, and the connection from which the body is still to be read. Raises
        Stopping."""
        if self._monotonic() < self._rests_until:
            return None
        if sending is not None:
            sending.begin(len(data))  # before it is signed, for a signature has a time
        credentials, address = self._credentials(), self._address
        if credentials is None or not all(map(_plain, headers.values())):
            return None
        if sha256 is None and address.tls:
            sha256 = _UNSIGNED
        elif sha256 is None:
            sha256 = hashlib.sha256(data).hexdigest()
        signed = {"host": address.host_header, "x-amz-content-sha256": sha256, **headers}
        target, lines = self._signer.signed(method, f"{address.base_path}/{path}", query, signed, credentials)
        lines.append(f"user-agent: {self._user_agent}")
        connection = self._connection()
        try:
            return connection, connection.exchange(method, address.origin + target, lines, data, sending)
        except (OSError, OddResponse):
            connection.close()
            self._noted(None)
            return None
        except Stopping:
            connection.close()
            raise

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
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()

    def _connection(self) -> Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return Connection(self._address.route)

    def _release(self, connection: Connection) -> None:
        self._idle.append(connection)
        if self._is_closed:
            self.close()


def _plain(value: str) -> bool:
    """Whether a header's value is signed and sent just as it stands."""
    return value.isascii() and value.isprintable() and "  " not in value and value == value.strip() != ""


def _whole(connection: Connection) -> bytes:
    """A body of a length that is not known beforehand. Raises OSError, OddResponse."""
    found = bytearray()
    piece = memoryview(bytearray(_PIECE_BYTES))
    while count := connection.read_into(piece):
        found += piece[:count]
        if len(found) > _LISTING_BYTES:
            raise OddResponse
    connection.end()
    return bytes(found)


class Body:
    """The body of an answer, of a length known beforehand. Read to its end, its connection is used again."""

    def __init__(
        self,
        connection: Connection,
        response: Response,
        release: Callable[[Connection], None],
        wanted: Wanted | None = None,
    ) -> None:
        """``surplus_bytes`` come before what is ``wanted``. Raises OddResponse where the length is not known, or this
        is another part of the object."""
        length = response.headers.get("content-length", "")
        if (
            "transfer-encoding" in response.headers
            or "content-encoding" in response.headers
            or not LENGTH.match(length)
        ):
            raise OddResponse
        self.length = int(length)
        content_range = response.headers.get("content-range")
        surplus_bytes = surplus(wanted, content_range, self.length)
        if surplus_bytes is None or (response.status == 206) != (content_range is not None):
            raise OddResponse
        self.surplus_bytes = surplus_bytes
        self.headers = response.headers
        connection.allow(deadlines.body_seconds(self.length))
        self._connection = connection
        self._give_back = release

    def chunks(self, limit_bytes: int) -> Generator[bytes, None, None]:
        """All of it. Raises OSError where it breaks off."""
        buffer = memoryview(bytearray(min(self.length, limit_bytes)))
        with closing(self.views(buffer)) as views:
            for view in views:
                yield bytes(view)

    def views(self, buffer: memoryview) -> Generator[memoryview, None, None]:
        """As `chunks`, each in the same ``buffer``, over the one before it."""
        left, is_whole = self.length, False
        try:
            while left:
                chunk = buffer[:left]
                if self._connection.read_into(chunk) < len(chunk):
                    raise ConnectionError("closed in the middle of an answer")
                left -= len(chunk)
                if not left:
                    self._connection.end()
                    is_whole = True
                yield chunk
            if not self.length:
                self._connection.end()
                is_whole = True
        except OddResponse as error:
            raise ConnectionError("an answer that is odd in its middle") from error
        finally:
            if is_whole:
                self._give_back(self._connection)
            else:
                self._connection.close()
