"""The control socket's server half: JSON lines over a Unix socket, one thread for each connection.

The protocol is described in control_client. Who may connect is decided by the socket's owner, group and mode; how
much of the daemon one of them can have, by `Limits`.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomwatchd.control.peer import NO_SUCH_COMMAND, BadRequest, Descriptors, Request, user_and_group_of
from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.ports import Log
from dicomwatchd.telemetry.fields import error_fields

#: A command: gets the request's arguments and a way to send progress; returns the result.
Command = Callable[[Mapping[str, Any], Callable[[dict[str, Any]], None]], Any]

_HIGHEST_NUMBER = 1_000_000
_ADDRESS_LIMIT_BYTES = 107  # sizeof(sun_path) - 1, unix(7)
#: How often the loop looks up without a connection. `stop` brings one about; this is for when nobody can connect.
_TURN_SECONDS = 5.0


_PIECE_BYTES = 16 * 1024


@dataclass(frozen=True)
class Limits:
    """What clients can have at most.

    ``connections`` is for all users but root and the daemon's own, whose ``own_connections`` come on top: whoever fills
    the socket does not keep the administrator out. ``line_bytes`` holds a path of 4,096 bytes with every byte escaped.
    A request has to be whole after ``idle_seconds``, an answer taken after ``send_seconds``. Lists of more than
    ``long_lines`` are made and sent one at a time: each line takes 2 KB of memory.
    """

    connections: int = 96
    by_user: int = 24
    own_connections: int = 32
    line_bytes: int = 128 * 1024
    idle_seconds: float = 60.0
    send_seconds: float = 30.0
    long_lines: int = 1000


LIMITS = Limits()


class _Crowded(DicomwatchdError):
    code = "too-many-connections"


class _Unread(Exception):
    """The client is gone, or does not take its answer."""


class ControlServer:
    """Serves ``commands`` at ``path`` from `start` to `stop`. Raises OSError when it cannot listen there."""

    def __init__(self, path: Path, commands: Mapping[str, Command], log: Log, limits: Limits = LIMITS) -> None:
        self._path = path
        with suppress(FileNotFoundError):
            path.unlink()  # left by a run that was killed; the state's lock has shown that it is gone
        directory_fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            address = os.fsencode(path)
            if len(address) > _ADDRESS_LIMIT_BYTES:
                address = os.fsencode(f"/proc/self/fd/{directory_fd}/{path.name}")
            self._server = _Server(os.fsdecode(address), _handler(commands, log, limits), log, limits)
            path.chmod(0o660)
        finally:
            os.close(directory_fd)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_TURN_SECONDS,), name="control", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():  # else there is nothing to shut down, and `shutdown` would wait for it for good
            self._server.end_at_once()
            self._thread.join()
        self._server.server_close()
        with suppress(OSError):  # what stays is removed by the next start
            self._path.unlink()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    request_queue_size = 128  # a client with a timeout is turned away at once when the queue is full
    daemon_threads = True
    block_on_close = False  # a client that waits for its upload must not hold up the stop

    def __init__(self, address: str, handler: type[socketserver.BaseRequestHandler], log: Log, limits: Limits) -> None:
        super().__init__(address, handler)
        self._log = log
        self._seats = Seats(limits)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        user, _group = user_and_group_of(request)
        try:
            self._seats.take(user)
        except _Crowded as error:
            with suppress(OSError):
                request.send(_line(_refusal(error)), socket.MSG_DONTWAIT)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, (user,))
        except BaseException:  # no thread was to be had
            self._seats.leave(user)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._seats.leave(client_address[0])

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """The base class's writes a traceback to the standard error, past the log's allow list."""
        if (error := sys.exception()) is not None:
            self._log.error("control-failed", "a connection to the control socket failed", **error_fields(error))

    def end_at_once(self) -> None:
        """`shutdown` is noticed at the next turn of the loop; a connection brings that about."""
        ending = threading.Thread(target=self.shutdown, daemon=True)
        ending.start()
        while ending.is_alive():
            with suppress(OSError), socket.socket(socket.AF_UNIX) as nudge:
                nudge.settimeout(0.1)
                nudge.connect(self.server_address)
            ending.join(0.02)


class Seats:
    """Counts the connections, by user and in all."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._taken: Counter[int] = Counter()
        self._lock = threading.Lock()

    def take(self, user: int) -> None:
        """Raises _Crowded."""
        own = (0, os.geteuid())
        with self._lock:
            if user in own:
                full = sum(self._taken[one] for one in set(own)) >= self._limits.own_connections
            else:
                others = sum(count for one, count in self._taken.items() if one not in own)
                full = others >= self._limits.connections or self._taken[user] >= self._limits.by_user
            if full:
                raise _Crowded(
                    "too many connections to the daemon are open",
                    hint="each command that waits for an upload uses one: stop some of them and try again",
                )
            self._taken[user] += 1

    def leave(self, user: int) -> None:
        with self._lock:
            self._taken[user] -= 1
            self._taken += Counter()  # without those who have none any more


class _Lines:
    """The lines that come on a connection, each within its time and its length."""

    def __init__(self, connection: socket.socket, limits: Limits, descriptors: Descriptors) -> None:
        self._connection = connection
        self._descriptors = descriptors
        self._limits = limits
        self._held = bytearray()

    def next(self) -> bytes:
        """The next one, b"" at the end. Raises BadRequest where it is too long, OSError (TimeoutError)."""
        deadline = time.monotonic() + self._limits.idle_seconds
        searched = 0
        while (end := self._held.find(b"\n", searched)) < 0:
            searched = len(self._held)
            if searched > self._limits.line_bytes:
                raise BadRequest(f"a request may have at most {self._limits.line_bytes} bytes")
            # Not for each piece: a byte at a time would hold the connection for ever.
            self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
            piece = self._descriptors.receive(_PIECE_BYTES)
            if not piece:
                end = len(self._held)
                break
            self._held += piece
        line = bytes(self._held[: end + 1])
        del self._held[: end + 1]
        return line


def _handler(commands: Mapping[str, Command], log: Log, limits: Limits) -> type[socketserver.BaseRequestHandler]:
    long_list = threading.Lock()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self._descriptors = Descriptors(self.request)
            lines = _Lines(self.request, limits, self._descriptors)
            with suppress(_Unread, OSError), closing(self._descriptors):
                try:
                    while line := lines.next():
                        self._respond(line)
                        self._descriptors.close()
                except BadRequest as error:
                    self._send(_refusal(error))

        def _respond(self, line: bytes) -> None:
            with ExitStack() as turn:
                self._respond_in_turn(line, turn)

        def _respond_in_turn(self, line: bytes, turn: ExitStack) -> None:
            try:
                request = Request(_parsed(line), self.request, self._descriptors)
                command = commands.get(request.get("command", ""))
                if command is None:
                    raise BadRequest(NO_SUCH_COMMAND)
                wanted = request.get("limit")
                if isinstance(wanted, int) and wanted > limits.long_lines:
                    if not long_list.acquire(timeout=limits.send_seconds):
                        raise _Crowded(
                            "the daemon is already answering another long list", hint="try again, or ask for less"
                        )
                    turn.callback(long_list.release)
                result = command(request, lambda progress: self._send({"progress": progress}))
            except DicomwatchdError as error:
                self._send(_refusal(error))
            except _Unread:
                raise
            except Exception as error:  # noqa: BLE001  the top of this thread: answered, logged, never swallowed
                log.error("control-failed", "a command failed", **error_fields(error))
                self._send(
                    {"ok": False, "error": {"code": "unexpected", "message": "the command failed", "hint": None}}
                )
            else:
                self._send({"ok": True, "result": result})

        def _send(self, message: dict[str, Any]) -> None:
            """Raises _Unread."""
            text = _line(message)
            try:
                self.request.settimeout(limits.send_seconds)  # for all of it
                self.request.sendall(text)
            except OSError as error:
                raise _Unread from error

    return Handler


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode("ascii") + b"\n"


def _refusal(error: DicomwatchdError) -> dict[str, Any]:
    return {"ok": False, "error": {"code": error.code, "message": error.message, "hint": error.hint}}


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadRequest("a request must be one JSON object on one line") from error
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        raise BadRequest("a request must be a JSON object with its command")
    return request


def text(request: Mapping[str, Any], name: str) -> str:
    """A string argument that may be a path: what is not UTF-8 in it is escaped as by os.fsdecode. Raises BadRequest."""
    value = request.get(name)
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be given as text")
    try:
        holds_nul = b"\0" in os.fsencode(value)
    except UnicodeEncodeError as error:
        raise BadRequest(f"{name} holds invalid characters") from error
    if holds_nul:
        raise BadRequest(f"{name} holds a NUL character")
    return value


def whole(request: Mapping[str, Any], name: str, default: int) -> int:
    """A whole number from 1 to a million, or the default. Raises BadRequest."""
    value = request.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _HIGHEST_NUMBER:
        raise BadRequest(f"{name} must be a whole number from 1 to {_HIGHEST_NUMBER}")
    return value
