"""How the provider is talked to, which may be away or hang: a few conversations at a time, each for so long and no
longer. Whoever comes when there are no more is told at once, so that nobody can have requests pile up towards it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from copy import copy
from typing import Generic, TypeVar

from dicomwatchd.errors import DicomwatchdError, Transient
from dicomwatchd.ports import Clock

_Found = TypeVar("_Found")


class Conversations:
    """To be used from one event loop. ``seconds``: for all of one."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._under_way = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Raises Transient where there are as many as there may be, and when the time is over."""
        if self._under_way >= self._most:
            raise Transient("the provider of the log-in is asked by too many at once", code="oidc")
        self._under_way += 1
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError as error:
            raise Transient("the provider of the log-in does not answer in time", code="oidc") from error
        finally:
            self._under_way -= 1


class Waiting:
    """Those who wait for what is fetched: ``most`` of them, and the others are told at once. Each kind of them has its
    own, so that a crowd of one kind takes no place of another's. To be used from one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Raises Transient."""
        if self._waiting >= self._most:
            raise Transient("the provider of the log-in is asked by too many at once", code="oidc")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1


class Kept(Generic[_Found]):
    """What was fetched once, for so long as it is good. Fetched by one at a time: whoever comes meanwhile waits for
    that one. After a failure nobody asks for a while."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[_Found]],
        clock: Clock,
        *,
        good_seconds: float,
        rest_seconds: float,
    ) -> None:
        self._fetch, self._clock = fetch, clock
        self._good_seconds, self._rest_seconds = good_seconds, rest_seconds
        self._found: _Found | None = None
        self._fetched_at = 0.0
        self._failed: tuple[float, DicomwatchdError] | None = None
        self._attempt: asyncio.Task[None] | None = None

    @property
    def last(self) -> _Found | None:
        """What was fetched last, however long ago. Fetches nothing."""
        return self._found

    async def current(self, waiting: Waiting) -> _Found:
        """Raises what fetching raised, now or a moment ago, and Transient where too many wait already."""
        if self._attempt is None and self._is_good() and self._found is not None:
            return self._found
        if self._attempt is None:
            if self._failed is not None and (left := self._failed[0] - self._clock.monotonic()) > 0:
                raise _again(self._failed[1], left) from self._failed[1].__cause__
            self._attempt = asyncio.create_task(self._try())
        with waiting.one():
            await asyncio.shield(self._attempt)  # who leaves takes nothing from those who wait
        if self._failed is not None:
            raise _again(self._failed[1]) from self._failed[1].__cause__
        assert self._found is not None  # noqa: S101  it did not fail
        return self._found

    def _is_good(self) -> bool:
        return self._clock.monotonic() - self._fetched_at <= self._good_seconds

    async def _try(self) -> None:
        try:
            self._found = await self._fetch()
        except DicomwatchdError as error:
            self._failed = (self._clock.monotonic() + self._rest_seconds, error)
        else:
            self._failed, self._fetched_at = None, self._clock.monotonic()
        finally:
            self._attempt = None


def _again(error: DicomwatchdError, left: float | None = None) -> DicomwatchdError:
    """The same for one more of those who get it: a traceback of all of them would keep their requests in memory.
    ``left``: for so long it is not asked anew."""
    again = copy(error)
    if isinstance(again, Transient) and left is not None:
        again.retry_after_seconds = left
    return again
