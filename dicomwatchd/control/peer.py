"""Who is at the other end of the control socket, by the kernel's word, and the descriptors that come with a request."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import socket
import struct
from typing import Any

from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.rights import Asker

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: SO_PEERCRED, unix(7)
_SO_PEERGROUPS = 59  # unix(7); Python has no name for it
_FD = struct.Struct("i")
#: Room for one descriptor, which by alignment is room for two: what comes beyond that the kernel closes.
_ROOM_BYTES = socket.CMSG_SPACE(_FD.size)
#: A second one tells that it is not one; what comes beyond that on a connection is closed as it comes.
_MOST_HELD = 2
_LOGIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,63}\$?")
_libc = ctypes.CDLL(None, use_errno=True)


class BadRequest(DicomwatchdError):
    code = "bad-request"


#: The message of the BadRequest that an older daemon, too, answers a command with that it does not know.
NO_SUCH_COMMAND = "no such command"


def asker_of(connection: socket.socket) -> Asker:
    """Who has connected, as it was then. Raises OSError."""
    uid, gid = user_and_group_of(connection)
    return Asker(uid, gid, _groups_of(connection), _login_of(uid))


def user_and_group_of(connection: socket.socket) -> tuple[int, int]:
    """Raises OSError."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, gid = _CREDENTIALS.unpack(raw)
    return uid, gid


def _groups_of(connection: socket.socket) -> frozenset[int]:
    """By ctypes: there may be 65,536 of them, and `socket.getsockopt` reads 1,024 bytes at most."""
    size = ctypes.c_uint32(64 * 4)
    while True:
        buffer = (ctypes.c_uint32 * (size.value // 4))()
        if _libc.getsockopt(connection.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, buffer, ctypes.byref(size)) == 0:
            return frozenset(buffer[: size.value // 4])
        number = ctypes.get_errno()
        if number != errno.ERANGE or size.value <= ctypes.sizeof(buffer):
            raise OSError(number, os.strerror(number))


def _login_of(uid: int) -> str:
    import pwd

    try:
        login = pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""
    return login if _LOGIN.fullmatch(login) else ""


class Descriptors:
    """What comes on a connection, and the descriptors with it, which are this object's own until they are taken."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._fds: list[int] = []

    def receive(self, most_bytes: int) -> bytes:
        """As recv(2). Raises OSError."""
        data, ancillary, _, _ = self._connection.recvmsg(most_bytes, _ROOM_BYTES, socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = len(payload) - len(payload) % _FD.size
                for (fd,) in _FD.iter_unpack(payload[:whole]):
                    if len(self._fds) < _MOST_HELD:
                        self._fds.append(fd)
                    else:
                        os.close(fd)
        return data

    def take_one(self) -> int:
        """The one descriptor that came, from now on the caller's. Raises BadRequest where it is not one."""
        if len(self._fds) != 1:
            raise BadRequest("this request must come with exactly one open folder")
        return self._fds.pop()

    def close(self) -> None:
        """A request is over, or the connection."""
        fds, self._fds = self._fds, []
        for fd in fds:
            os.close(fd)


class Request(dict[str, Any]):
    """A request's arguments, with what only the socket tells."""

    def __init__(self, arguments: dict[str, Any], connection: socket.socket, descriptors: Descriptors) -> None:
        super().__init__(arguments)
        self._connection, self._descriptors = connection, descriptors

    def asker(self) -> Asker:
        """Raises OSError."""
        return asker_of(self._connection)

    def take_descriptor(self) -> int:
        """Raises BadRequest."""
        return self._descriptors.take_one()
