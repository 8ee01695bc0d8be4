"""The client's half of the control protocol: JSON lines over a Unix stream socket.

Request, one line: {"command": str, ...arguments}; with "upload-folder" comes one descriptor (SCM_RIGHTS), of the folder
opened for listing. Reply, any number of {"progress": {...}} lines, then one of
{"ok": true, "result": ...} or {"ok": false, "error": {"code": str, "message": str, "hint": str | null}}.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dicomwatchd.errors import DicomwatchdError

_ADDRESS_LIMIT_BYTES = 107  # sizeof(sun_path) - 1, unix(7)
_LINE_LIMIT_BYTES = 256 << 20


class DaemonUnreachable(DicomwatchdError):
    """Nobody answers at the control socket: not running (DaemonNotRunning), no permission (DaemonClosed), or there and
    silent or in trouble (code "daemon-silent")."""

    code = "daemon-silent"


class DaemonNotRunning(DaemonUnreachable):
    """Nobody listens there."""

    code = "daemon-not-running"


class DaemonClosed(DaemonUnreachable):
    """Whoever asks may not connect."""

    code = "daemon-closed"


class DaemonRefused(DicomwatchdError):
    """The daemon answered with an error; ``code``, ``message`` and ``hint`` are its own."""


class ControlClient:
    """Talks to one daemon; a connection for each call, so it may be used from several threads."""

    def __init__(self, socket_path: Path, *, connect_seconds: float = 5.0) -> None:
        self._path = socket_path
        self._connect_seconds = connect_seconds

    def call(
        self,
        command: str,
        *,
        answer_seconds: float | None = 30.0,
        on_progress: Callable[[dict[str, Any]], None] = lambda _progress: None,
        descriptor: int | None = None,
        **arguments: object,
    ) -> Any:
        """The command's result. ``answer_seconds`` is the longest silence; None waits as long as the daemon lives.

        Raises DaemonUnreachable (not running, no permission, silent, gone before the answer) and DaemonRefused.
        """
        with self._connected() as connection:
            connection.settimeout(answer_seconds)
            try:
                line = json.dumps({"command": command, **arguments}).encode("ascii") + b"\n"
                with suppress(BrokenPipeError):  # who is turned away is told why, and then nothing is read of him
                    sent = 0 if descriptor is None else socket.send_fds(connection, [line], [descriptor])
                    if rest := line[sent:]:
                        connection.sendall(rest)
                with connection.makefile("rb") as lines:
                    while True:
                        reply = _parsed(lines.readline(_LINE_LIMIT_BYTES))
                        if "progress" not in reply:
                            return _result(reply)
                        on_progress(reply["progress"])
            except TimeoutError as error:
                raise DaemonUnreachable("the daemon is running but does not answer") from error
            except OSError as error:
                raise DaemonUnreachable("the connection to the daemon broke") from error

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self._connect_seconds)
            try:
                self._connect(connection)
            except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
                raise DaemonNotRunning(
                    "the daemon is not running",
                    hint="nothing listens on its control socket; to start the service: systemctl start dicomwatchd",
                    path=str(self._path),
                ) from error
            except PermissionError as error:
                raise DaemonClosed(
                    "no permission to talk to the daemon",
                    hint="only root and the daemon's own user and group may use its control socket",
                    path=str(self._path),
                ) from error
            except OSError as error:
                raise DaemonUnreachable("the daemon cannot be reached", path=str(self._path)) from error
            yield connection
        finally:
            connection.close()

    def _connect(self, connection: socket.socket) -> None:
        if len(os.fsencode(self._path)) <= _ADDRESS_LIMIT_BYTES:
            connection.connect(str(self._path))
            return
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)


def _parsed(line: bytes) -> dict[str, Any]:
    if not line:
        raise DaemonUnreachable("the daemon closed the connection before it answered")
    try:
        reply = json.loads(line)
    except ValueError as error:
        raise DaemonUnreachable("the daemon's answer cannot be read") from error
    if not isinstance(reply, dict) or not ({"progress", "ok"} & reply.keys()):
        raise DaemonUnreachable("the daemon's answer cannot be read")
    return reply


def _result(reply: dict[str, Any]) -> Any:
    if reply["ok"]:
        return reply.get("result")
    error = reply.get("error") or {}
    raise DaemonRefused(
        str(error.get("message") or "the daemon refused without a reason"),
        code=str(error.get("code") or "refused"),
        hint=error.get("hint"),
    )
