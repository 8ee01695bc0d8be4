"""A request to an ASGI application in the process of the test, without a socket: what is said of the connection, the
peer's address too, is what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message


class Inline(Executor):
    """Its work is done before `submit` returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  as an executor does it
            done.set_exception(error)
        return done


@dataclass
class Answer:
    """``torn`` is what the application has raised, perhaps in the middle of the body."""

    status: int = 0
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""
    torn: BaseException | None = None

    @property
    def text(self) -> str:
        return self.body.decode()


def asked(
    app: ASGIApp,
    target: str = "/",
    method: str = "GET",
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    peer: str = "127.0.0.1",
    state: Mapping[str, Any] | None = None,
    is_gone: bool = False,
) -> Answer:
    """``target`` as it stands in the request's line. ``body`` comes in two pieces. ``is_gone``: whoever has asked does
    not wait for the answer."""
    path, _, query = target.partition("?")
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    if not any(name.lower() == "host" for name, _ in pairs):
        pairs.insert(0, ("Host", "127.0.0.1:8442"))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("latin-1"),
        "root_path": "",
        "query_string": query.encode("latin-1"),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
        "client": (peer, 40000),
        "server": ("127.0.0.1", 8442),
        "state": dict(state or {}),
    }
    answer, half = Answer(), len(body) // 2
    pieces: list[Message] = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.request", "body": body[half:], "more_body": False},
    ]

    async def receive() -> Message:
        if pieces:
            return pieces.pop(0)
        if is_gone:
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()  # the client stays
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status, answer.headers = message["status"], Headers(raw=message["headers"])
        else:
            answer.body += message.get("body", b"")

    run(app(scope, receive, send), answer)
    return answer


def run(work: Awaitable[None], answer: Answer) -> None:
    async def all_of_it() -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001  what a server would end the connection for
            answer.torn = error

    asyncio.run(all_of_it())
