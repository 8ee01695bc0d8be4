"""Descriptors left with the service manager over a restart: sd_notify(3), FDSTORE; sd_listen_fds(3) gives them back."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, MutableMapping
from contextlib import suppress

_FIRST = 3
#: Names that are safe in a datagram of lines and in a list with colons.
_NAME = re.compile(r"[a-z0-9-]{1,64}")


class DescriptorStore:
    """Keeps copies beyond the end of the process, as far as the unit has room (FileDescriptorStoreMax=); does nothing
    where there is no service manager."""

    def __init__(self, address: str | None) -> None:
        self._address = address

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> DescriptorStore:
        return cls(environ.get("NOTIFY_SOCKET") or None)

    def keep(self, name: str, fd: int) -> None:
        # FDPOLL=0: a folder has nothing to poll for, and is not to be dropped for that.
        self._send(f"FDSTORE=1\nFDNAME={_checked(name)}\nFDPOLL=0", [fd])

    def forget(self, name: str) -> None:
        self._send(f"FDSTOREREMOVE=1\nFDNAME={_checked(name)}", [])

    def _send(self, text: str, fds: list[int]) -> None:
        if self._address is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(5.0)
            connection.connect(address)
            socket.send_fds(connection, [text.encode("ascii")], fds)


def left_before(environ: MutableMapping[str, str] = os.environ) -> dict[str, int]:
    """What an earlier process has left, by name, from now on the caller's own; the environment speaks of it no more, so
    that no child takes it for its own."""
    count, process = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if process != str(os.getpid()) or not count.isdecimal():
        return {}
    found: dict[str, int] = {}
    for number in range(int(count)):
        fd = _FIRST + number
        name = names[number] if number < len(names) else ""
        try:
            os.set_inheritable(fd, False)
        except OSError:
            continue
        if _NAME.fullmatch(name) and name not in found:
            found[name] = fd
        else:
            os.close(fd)
    return found


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("no name for a descriptor")
    return name
