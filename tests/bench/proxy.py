"""A TCP proxy that answers late, as a far-away store does: `python -m tests.bench.proxy PORT TARGET_PORT MILLISECONDS`.

Every byte of an answer is handed on after the delay, so each request takes that much longer while the link keeps its
width, however many connections share it. Requests pass at once and within the kernel (splice), so that the proxy
takes as little as possible of the processor that client and server share.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

_PIPE_BYTES = 256 * 1024
_READ_BYTES = 256 * 1024
_F_SETPIPE_SZ = 1031


@dataclass(eq=False)
class _Link:
    """One connection: to the client, to the server, a pipe for what goes up, and a queue for what comes down."""

    client: socket.socket
    server: socket.socket
    pipe: tuple[int, int] = field(default_factory=os.pipe)
    in_pipe: int = 0
    client_ended: bool = False
    server_ended: bool = False
    answers: deque[tuple[float, bytes]] = field(default_factory=deque)
    blocked: bool = False  # the client does not take more now


class DelayingProxy:
    def __init__(self, port: int, target_port: int, delay_seconds: float) -> None:
        self._target = ("127.0.0.1", target_port)
        self._delay_seconds = delay_seconds
        self._selector = selectors.DefaultSelector()
        self._links: set[_Link] = set()
        listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, None)

    def run(self) -> None:
        while True:
            for key, events in self._selector.select(self._pause()):
                if key.data is None:
                    self._accept(key.fileobj)  # type: ignore[arg-type]
                    continue
                link: _Link = key.data
                try:
                    if key.fileobj is link.client:
                        if events & selectors.EVENT_WRITE:
                            link.blocked = False
                        if events & selectors.EVENT_READ:
                            self._take_request(link)
                    else:
                        if events & selectors.EVENT_READ:
                            self._take_answer(link)
                        if events & selectors.EVENT_WRITE:
                            self._pass_up(link)
                except OSError:
                    self._close(link)
                    continue
                self._watch(link)
            now = time.monotonic()
            for link in [link for link in self._links if link.answers and link.answers[0][0] <= now]:
                try:
                    self._hand_out(link, now)
                except OSError:
                    self._close(link)
                    continue
                self._watch(link)

    def _pause(self) -> float | None:
        due = min((link.answers[0][0] for link in self._links if link.answers and not link.blocked), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _accept(self, listener: socket.socket) -> None:
        with suppress(BlockingIOError):
            client, _ = listener.accept()
            server = socket.create_connection(self._target)
            for side in (client, server):
                side.setblocking(False)
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(client, server)
            fcntl.fcntl(link.pipe[1], _F_SETPIPE_SZ, _PIPE_BYTES)
            self._links.add(link)
            for side in (client, server):
                self._selector.register(side, selectors.EVENT_READ, link)

    def _take_request(self, link: _Link) -> None:
        with suppress(BlockingIOError):
            count = os.splice(link.client.fileno(), link.pipe[1], _PIPE_BYTES, flags=os.SPLICE_F_NONBLOCK)
            link.in_pipe += count
            link.client_ended = count == 0
        self._pass_up(link)

    def _pass_up(self, link: _Link) -> None:
        with suppress(BlockingIOError):
            while link.in_pipe:
                link.in_pipe -= os.splice(link.pipe[0], link.server.fileno(), link.in_pipe, flags=os.SPLICE_F_NONBLOCK)
            if link.client_ended:
                link.server.shutdown(socket.SHUT_WR)

    def _take_answer(self, link: _Link) -> None:
        data = link.server.recv(_READ_BYTES)
        link.server_ended = not data
        link.answers.append((time.monotonic() + self._delay_seconds, data))

    def _hand_out(self, link: _Link, now: float) -> None:
        with suppress(BlockingIOError):
            while link.answers and link.answers[0][0] <= now:
                due, data = link.answers[0]
                if not data:
                    self._close(link)
                    return
                sent = link.client.send(data)
                if sent < len(data):
                    link.answers[0] = (due, data[sent:])
                    link.blocked = True
                else:
                    link.answers.popleft()
            return
        link.blocked = True

    def _watch(self, link: _Link) -> None:
        if link not in self._links:
            return
        read, write = selectors.EVENT_READ, selectors.EVENT_WRITE
        more = not link.in_pipe and not link.client_ended
        self._set(link.client, link, (read if more else 0) | (write if link.blocked else 0))
        self._set(link.server, link, (0 if link.server_ended else read) | (write if link.in_pipe else 0))

    def _set(self, side: socket.socket, link: _Link, events: int) -> None:
        known = self._selector.get_map().get(side)
        if known is None:
            if events:
                self._selector.register(side, events, link)
        elif not events:
            self._selector.unregister(side)
        elif known.events != events:
            self._selector.modify(side, events, link)

    def _close(self, link: _Link) -> None:
        self._links.discard(link)
        for side in (link.client, link.server):
            with suppress(KeyError, ValueError):
                self._selector.unregister(side)
            side.close()
        for end in link.pipe:
            with suppress(OSError):
                os.close(end)


def main() -> None:
    port, target_port, milliseconds = map(int, sys.argv[1:])
    DelayingProxy(port, target_port, milliseconds / 1000).run()


if __name__ == "__main__":
    main()
