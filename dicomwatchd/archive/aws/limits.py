"""What an answer that comes by way of botocore may take: bytes, where it is read whole, and time.

botocore waits for each piece as long as for the answer, and reads whatever comes: an answer that drips would hold its
thread for ever, and one without end would fill the memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import botocore.exceptions
import urllib3.exceptions

from dicomwatchd.archive.aws.deadlines import body_seconds

#: Of an answer that is no object: a page of a listing (2 MB at most), or items of a table (16 MB, more as text).
ANSWER_LIMIT_BYTES = {"s3": 4 * 1024**2, "dynamodb": 32 * 1024**2}
_PIECE_BYTES = 64 * 1024


class LimitedBody:
    """In the place of urllib3's answer, as far as botocore uses it. Time counts while it is waited for."""

    def __init__(self, raw: Any, most_bytes: int | None) -> None:
        self._raw = raw
        self._most_bytes = most_bytes
        length = raw.headers.get("content-length", "")
        plain = length.isascii() and length.isdecimal() and len(length) <= 19
        self._seconds = body_seconds(int(length) if plain else most_bytes or 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def read(self, amt: int | None = None, **_: Any) -> bytes:
        """As urllib3's: ``amt`` bytes, fewer at the end. Raises HTTPError of urllib3."""
        pieces, left = [], amt
        while left is None or left > 0:
            began = time.monotonic()
            piece = self._raw.read1(_PIECE_BYTES if left is None else min(left, _PIECE_BYTES))
            self._seconds -= time.monotonic() - began
            if not piece:
                break
            pieces.append(piece)
            if left is not None:
                left -= len(piece)
            self._charge(len(piece))
        return b"".join(pieces)

    def stream(self, amt: int | None = _PIECE_BYTES, **_: Any) -> Iterator[bytes]:
        while piece := self.read(amt or _PIECE_BYTES):
            yield piece

    def _charge(self, count: int) -> None:
        if self._most_bytes is not None:
            self._most_bytes -= count
        if self._seconds < 0 or (self._most_bytes is not None and self._most_bytes < 0):
            with suppress(Exception):
                self._raw.close()
            raise urllib3.exceptions.HTTPError("an answer is too slow or too large")


def limit(client: Any) -> None:
    """From here on no answer to ``client`` takes more than that."""
    service, endpoint = (
        client.meta.service_model.service_name,
        client._endpoint,
    )  # `before-send` is there to send in its place

    limit_bytes = ANSWER_LIMIT_BYTES[service]

    def send(request: Any, **_: Any) -> Any:
        is_object, request.stream_output = request.stream_output, True
        try:
            response = endpoint.http_session.send(request)
            response.raw = LimitedBody(response.raw, None if is_object and response.status_code < 300 else limit_bytes)
            if not is_object:
                _ = response.content
        except urllib3.exceptions.HTTPError as error:
            raise botocore.exceptions.HTTPClientError(error=error) from error
        else:
            return response
        finally:
            request.stream_output = is_object

    # The last, for others look at the request before it goes.
    client.meta.events.register_last(f"before-send.{service}", send)
