"""Firefox's own remote control, Marionette: JSON over a socket, which geckodriver speaks, too.

The commands and their errors are those of https://www.w3.org/TR/webdriver2/; the framing is told in
https://firefox-source-docs.mozilla.org/testing/marionette/Protocol.html.
"""

from __future__ import annotations

import json
import socket
from typing import Any


class Refused(Exception):
    """What the browser does not do. ``kind`` is WebDriver's name of it, such as "stale element reference"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Marionette:
    """One connection, one command after the other."""

    def __init__(self, port: int, seconds: float) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), seconds)
        self._stream = self._socket.makefile("rb")
        self._number = 0
        hello = self._receive()
        assert hello["marionetteProtocol"] == 3, hello

    def ask(self, command: str, **parameters: Any) -> Any:
        """Raises Refused; OSError where there is no answer in time."""
        self._number += 1
        text = json.dumps([0, self._number, command, parameters])
        self._socket.sendall(f"{len(text)}:{text}".encode())
        _, number, error, result = self._receive()
        assert number == self._number
        if error is not None:
            raise Refused(error["error"], error["message"])
        return result["value"] if isinstance(result, dict) and set(result) == {"value"} else result

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def _receive(self) -> Any:
        length = b""
        while (one := self._stream.read(1)) != b":":
            if not one:
                raise ConnectionResetError("Firefox has ended the connection")
            length += one
        return json.loads(self._stream.read(int(length)))
