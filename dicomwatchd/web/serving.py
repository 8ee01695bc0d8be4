"""uvicorn at our port, with what it lacks against whoever is slow, or many: a time for a request's head and body, one
for whoever does not take what is sent, and places for connections."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from dicomwatchd.web.clients import network_of, plain


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for a request's line and headers, from the first to the last byte; for each `BODY_PIECE_BYTES` of a
    body; for whoever takes nothing of what is sent; and for the next request of a connection."""

    head: float = 10.0
    body: float = 30.0
    write: float = 60.0
    keep_alive: int = 15


#: Of a body so much has to come in the time, or its end: a byte now and then would hold the place for ever.
BODY_PIECE_BYTES = 16 << 10
#: Line and headers of a request.
HEAD_BYTES = 16 << 10


@dataclass
class Places:
    """How many connections there may be, and from one address, where it is not the proxy's; of one network of IPv6,
    where somebody may have any number of addresses, half of them. ``only_the_proxy``: nobody else may connect at all.
    """

    connections: int
    each: int
    is_proxy: Callable[[str], bool]
    only_the_proxy: bool
    taken: Counter[str] = field(default_factory=Counter)
    of_network: Counter[str] = field(default_factory=Counter)

    def take(self, address: str) -> bool:
        if self.taken.total() >= self.connections:
            return False
        network = network_of(address)
        if not self.is_proxy(address) and (
            self.only_the_proxy
            or self.taken[address] >= self.each
            or (network is not None and self.of_network[network] >= self.connections // 2)
        ):
            return False
        self.taken[address] += 1
        if network is not None:
            self.of_network[network] += 1
        return True

    def leave(self, address: str) -> None:
        for counter, key in ((self.taken, address), (self.of_network, network_of(address))):
            if key is not None:
                counter[key] -= 1
                if counter[key] <= 0:
                    del counter[key]


class Server(uvicorn.Server):
    """Signals are the process' own business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def server(
    app: ASGIApp,
    places: Places,
    context: ssl.SSLContext | None,
    tick: Callable[[], Awaitable[None]],
    patience: Patience = Patience(),
) -> Server:
    """``tick`` is called once a second. To be run with sockets that listen already."""

    class Connection(_Connection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.places, self.patience = places, patience

    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=patience.keep_alive,
        timeout_graceful_shutdown=20,
        h11_max_incomplete_event_size=HEAD_BYTES,
        ssl_context_factory=None if context is None else lambda _config, _default: context,
        callback_notify=tick,
        timeout_notify=0,
    )
    return Server(config)


class _Connection(H11Protocol):
    places: Places
    patience: Patience

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._place: str | None = None
        self._waiting: asyncio.TimerHandle | None = None
        self._awaits: str | None = None
        self._piece_bytes = 0
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = plain(self.client[0] if self.client else "")
        if not self.places.take(address):
            transport.abort()
            return
        self._place = address
        self._await("head", self.patience.head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._await(None, 0)
        self._moves()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        if self._place is not None:
            self.places.leave(self._place)
            self._place = None

    def data_received(self, data: bytes) -> None:
        if self._place is None:
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            # Not for each piece: a byte at a time would hold the place for ever.
            if self._awaits != "head":
                self._await("head", self.patience.head)
        elif self.conn.their_state is h11.SEND_BODY:
            self._piece_bytes += len(data)
            if self._awaits != "body" or self._piece_bytes >= BODY_PIECE_BYTES:
                self._await("body", self.patience.body)
        else:
            self._await(None, 0)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE:
            self._await(None, 0)  # from here on keep-alive's

    def pause_writing(self) -> None:
        super().pause_writing()
        self._moves()
        self._stalled = self.loop.call_later(self.patience.write, self.transport.abort)

    def resume_writing(self) -> None:
        self._moves()
        super().resume_writing()

    def _await(self, what: str | None, seconds: float) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        self._awaits, self._piece_bytes = what, 0
        self._waiting = None if what is None else self.loop.call_later(seconds, self._give_up, seconds)

    def _give_up(self, seconds: float) -> None:
        if self._awaits == "body" and self.flow.read_paused:
            self._await("body", seconds)  # it is we who do not take it
            return
        self.transport.abort()

    def _moves(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
