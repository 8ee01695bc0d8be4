"""Answers on their way out: read in threads, sent as they come, and given up when nobody takes them any more."""

from __future__ import annotations

import asyncio
import json
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from typing import NamedTuple, ParamSpec, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from dicomwatchd.model import DicomJson
from dicomwatchd.web.dicomweb.errors import TooSlow
from dicomwatchd.web.streams import Ended

_P = ParamSpec("_P")
_T = TypeVar("_T")

_JSON_CHUNK_BYTES = 256 * 1024
#: What is read, and sent, in one go; of an answer there are two of them in memory.
_STRETCH_BYTES = 1024 * 1024
_GZIP_LEVEL = 5
_GZIP_FORMAT = 31  # zlib's windowBits of a gzip member (RFC 1952)


class Pace(NamedTuple):
    """Whoever takes an answer slower than ``bytes_each_second`` loses it, once that has taken ``grace_seconds`` longer
    than it would at that rate: what was compared lies in memory, or in a temporary file, for so long."""

    bytes_each_second: int
    grace_seconds: float


PACE = Pace(32 * 1024, 60.0)
SECURE = {"X-Content-Type-Options": "nosniff", "Vary": "Accept, Accept-Encoding"}


class Work:
    """What may take long is done in the threads of ``executor``: its threads are how much is read at once."""

    def __init__(self, executor: Executor, pace: Pace = PACE) -> None:
        self._executor, self._pace = executor, pace

    async def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))

    async def call_while_wanted(self, request: Request, function: Callable[[Callable[[], bool]], _T]) -> _T:
        """``function`` is handed what says whether the client has gone away meanwhile."""
        gone = threading.Event()

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            gone.set()

        watching = asyncio.ensure_future(watch())
        try:
            return await self.call(function, gone.is_set)
        finally:
            gone.set()
            watching.cancel()

    async def begun(self, chunks: Iterator[bytes]) -> Begun:
        """With its first stretch read, so that what goes wrong at once is an answer of its own."""
        reading = _Reading(chunks)
        try:
            first = await self.call(reading.next)
        except BaseException:
            self.give_up(reading)
            raise
        return Begun(first, reading)

    async def stream(self, begun: Begun) -> AsyncIterator[bytes]:
        """All of it. What goes wrong now ends the connection in the middle of the answer. Raises TooSlow where whoever
        takes it is."""
        loop, pace = asyncio.get_running_loop(), self._pace
        stretch, took_seconds, sent_bytes = begun.first, 0.0, 0
        while stretch:
            began = loop.time()
            yield stretch
            took_seconds += loop.time() - began  # what the archive takes does not count
            sent_bytes += len(stretch)
            if took_seconds > pace.grace_seconds + sent_bytes / pace.bytes_each_second:
                raise TooSlow("the answer was taken too slowly")
            stretch = await self.call(begun.reading.next)

    def give_up(self, reading: _Reading) -> None:
        """Whoever stops to take it ends the reading, which ends after the stretch that it is at."""
        with suppress(RuntimeError):  # there are no threads any more
            self._executor.submit(reading.close)


class _Reading:
    """An iterator that one thread may close while another is at its next stretch: it is closed after that."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._lock = chunks, threading.Lock()
        self.is_at_end = False

    def next(self) -> bytes:
        """Chunks that together are `_STRETCH_BYTES` or more, or the rest; nothing at the end. A thread is woken for
        each of them: what is small is to be one."""
        with self._lock:
            first, size = [], 0
            while not self.is_at_end and size < _STRETCH_BYTES:
                chunk = next(self._chunks, None)
                if chunk is None:
                    self.is_at_end = True
                else:
                    first.append(chunk)
                    size += len(chunk)
            return first[0] if len(first) == 1 else b"".join(first)

    def close(self) -> None:
        with self._lock:
            if hasattr(self._chunks, "close"):
                self._chunks.close()
            self.is_at_end = True


class Begun(NamedTuple):
    first: bytes
    reading: _Reading


async def streamed(
    work: Work, chunks: Iterator[bytes], headers: Mapping[str, str], content_type: str, status: int = 200
) -> Response:
    """``headers`` may have a Content-Length; what is short has one in any case. Raises what the reading of the first
    stretch raises."""
    begun = await work.begun(chunks)
    sent = {**SECURE, **headers, "Content-Type": content_type}
    if begun.reading.is_at_end:
        return Response(begun.first, status, headers=sent)
    return Ended(work.stream(begun), lambda: work.give_up(begun.reading), sent, status)


def is_fresh(request: Request, etag: str) -> bool:
    """Whether the client has this already (RFC 9110 section 13.1.2, weak comparison)."""
    given = request.headers.get("if-none-match", "")
    return any(one.strip().removeprefix("W/") == etag.removeprefix("W/") for one in given.split(","))


def takes_gzip(request: Request) -> bool:
    for one in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = one.partition(";")
        if name.strip() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


async def json_answer(
    work: Work,
    request: Request,
    items: Iterable[DicomJson],
    media_type: str,
    headers: Mapping[str, str],
    status: int = 200,
) -> Response:
    """An array of data sets, as it comes; compressed for whoever takes that."""
    chunks = as_array(items)
    is_packed = takes_gzip(request)
    if is_packed:
        chunks = _compressed(chunks)
    sent = {**headers, "Content-Encoding": "gzip"} if is_packed else headers
    return await streamed(work, chunks, sent, media_type, status)


def as_array(items: Iterable[DicomJson]) -> Iterator[bytes]:
    """UTF-8, with nothing left of what could be taken for markup where somebody reads it as such."""
    buffer = bytearray(b"[")
    is_first = True
    for text in _texts(items):
        if not is_first:
            buffer += b","
        is_first = False
        buffer += text.replace("<", "\\u003c").encode("utf-8", "replace")
        if len(buffer) >= _JSON_CHUNK_BYTES:
            yield bytes(buffer)
            buffer.clear()
    buffer += b"]"
    yield bytes(buffer)


def _texts(items: Iterable[DicomJson]) -> Iterator[str]:
    """Each as JSON. Most attributes of a series are alike, and one object (`series.document`): what the item before has
    as well is not written again."""
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
    before: dict[str, tuple[object, str]] = {}
    for item in items:
        written: dict[str, tuple[object, str]] = {}
        for tag, element in item.items():
            known = before.get(tag)
            written[tag] = known if known and known[0] is element else (element, encode({tag: element})[1:-1])
        yield "{" + ",".join(text for _, text in written.values()) + "}"
        before = written


def _compressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
    for chunk in chunks:
        packed = packer.compress(chunk)
        if packed:
            yield packed
    yield packer.flush()
