"""In place of a daemon, on a real control socket."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any


class StandIn:
    """Answers each connection with the prepared lines and keeps the requests."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[dict[str, Any]] = []
        #: What the descriptors that came with each request were open on.
        self.handed: list[list[bytes]] = []
        self.lines: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(path.parent, os.O_PATH)
        self._listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def answer(self, *replies: object) -> None:
        self.lines = [json.dumps(reply).encode() + b"\n" for reply in replies]

    def result(self, value: object) -> None:
        self.answer({"ok": True, "result": value})

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                line, descriptors, _, _ = socket.recv_fds(connection, 65536, 4)
                if not line:
                    continue
                self.requests.append(json.loads(line))
                self.handed.append([os.readlink(b"/proc/self/fd/%d" % fd) for fd in descriptors])
                for fd in descriptors:
                    os.close(fd)
                for reply in self.lines:
                    stream.write(reply)
                stream.flush()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
