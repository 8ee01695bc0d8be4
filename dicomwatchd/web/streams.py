"""Answers that are sent as they come."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class Ended(StreamingResponse):
    """``ended`` is called in any case: a generator that nobody has begun to take, for whoever asked has gone by then,
    would never come to its end, nor give back what it has."""

    def __init__(
        self,
        chunks: AsyncIterable[bytes] | Iterable[bytes],
        ended: Callable[[], None],
        headers: Mapping[str, str],
        status: int = 200,
    ) -> None:
        super().__init__(chunks, status, headers=headers)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()
