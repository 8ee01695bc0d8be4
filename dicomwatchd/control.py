"""The control socket's server half: JSON lines over a Unix socket, one thread for each connection.

The protocol is described in control_client. Who may connect is decided by the socket's owner, group and mode.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from dicomwatchd.control_peer import BadRequest, Descriptors, Request
from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.ports import Log
from dicomwatchd.telemetry.fields import error_fields

#: A command: gets the request's arguments and a way to send progress; returns the result.
Command = Callable[[Mapping[str, Any], Callable[[dict[str, Any]], None]], Any]

_LINE_LIMIT_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16
_HIGHEST_NUMBER = 1_000_000
_ADDRESS_LIMIT_BYTES = 107  # sizeof(sun_path) - 1, unix(7)
#: How often the loop looks up without a connection. `stop` brings one about; this is for when nobody can connect.
_TURN_SECONDS = 5.0


class ControlServer:
    """Serves ``commands`` at ``path`` from `start` to `stop`. Raises OSError when it cannot listen there."""

    def __init__(self, path: Path, commands: Mapping[str, Command], log: Log) -> None:
        self._path = path
        with suppress(FileNotFoundError):
            path.unlink()  # left by a run that was killed; the state's lock has shown that it is gone
        directory_fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            address = os.fsencode(path)
            if len(address) > _ADDRESS_LIMIT_BYTES:
                address = os.fsencode(f"/proc/self/fd/{directory_fd}/{path.name}")
            self._server = _Server(os.fsdecode(address), _handler(commands, log))
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

    def end_at_once(self) -> None:
        """`shutdown` is noticed at the next turn of the loop; a connection brings that about."""
        ending = threading.Thread(target=self.shutdown, daemon=True)
        ending.start()
        while ending.is_alive():
            with suppress(OSError), socket.socket(socket.AF_UNIX) as nudge:
                nudge.settimeout(0.1)
                nudge.connect(self.server_address)
            ending.join(0.02)


def _handler(commands: Mapping[str, Command], log: Log) -> type[socketserver.BaseRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._descriptors = Descriptors(self.request)
            held = bytearray()
            with suppress(BrokenPipeError, ConnectionResetError), closing(self._descriptors):
                while line := self._line(held):
                    self._answer(line)
                    self._descriptors.close()

        def _line(self, held: bytearray) -> bytes:
            while (end := held.find(b"\n")) < 0 and len(held) < _LINE_LIMIT_BYTES:
                if not (piece := self._descriptors.receive(_PIECE_BYTES)):
                    break
                held += piece
            end = len(held) if end < 0 else end + 1
            line = bytes(held[:end])
            del held[:end]
            return line

        def _answer(self, line: bytes) -> None:
            try:
                request = Request(_parsed(line), self.request, self._descriptors)
                command = commands.get(request.get("command", ""))
                if command is None:
                    raise BadRequest("no such command")
                result = command(request, lambda progress: self._send({"progress": progress}))
            except DicomwatchdError as error:
                self._send({"ok": False, "error": {"code": error.code, "message": error.message, "hint": error.hint}})
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:  # noqa: BLE001  the top of this thread: answered, logged, never swallowed
                log.error("control-failed", "a command failed", **error_fields(error))
                self._send(
                    {"ok": False, "error": {"code": "unexpected", "message": "the command failed", "hint": None}}
                )
            else:
                self._send({"ok": True, "result": result})

        def _send(self, message: dict[str, Any]) -> None:
            self.wfile.write(json.dumps(message).encode("ascii") + b"\n")

    return Handler


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadRequest("a request is one JSON object on one line") from error
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        raise BadRequest("a request is a JSON object that names its command")
    return request


def text(request: Mapping[str, Any], name: str) -> str:
    """A string argument that may be a path: what is not UTF-8 in it is escaped as by os.fsdecode. Raises BadRequest."""
    value = request.get(name)
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be given as text")
    try:
        holds_nul = b"\0" in os.fsencode(value)
    except UnicodeEncodeError as error:
        raise BadRequest(f"{name} holds characters that are none") from error
    if holds_nul:
        raise BadRequest(f"{name} holds a NUL character")
    return value


def whole(request: Mapping[str, Any], name: str, default: int) -> int:
    """A whole number from 1 to a million, or the default. Raises BadRequest."""
    value = request.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _HIGHEST_NUMBER:
        raise BadRequest(f"{name} must be a whole number from 1 to {_HIGHEST_NUMBER}")
    return value
