"""A modality as bytes on a socket (PS3.8, PS3.7): sends what it should, or what no modality would."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.synthetic import CT_IMAGE, EXPLICIT_LITTLE_ENDIAN

VERIFICATION = "1.2.840.10008.1.1"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def associate_rq(
    contexts: Sequence[tuple[str, Sequence[str]]], *, called: str = "ARCHIVE", calling: str = "CT1", more: bytes = b""
) -> bytes:
    """Presentation contexts 1, 3, 5 ... of (SOP class, transfer syntaxes); there are IDs for 128 of them."""
    items = item(0x10, APPLICATION_CONTEXT.encode())
    for number, (sop_class, syntaxes) in enumerate(contexts):
        inner = item(0x30, sop_class.encode()) + b"".join(item(0x40, one.encode()) for one in syntaxes)
        items += item(0x20, bytes(((2 * number + 1) & 255, 0, 0, 0)) + inner)
    user = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"2.25.1") + more
    items += item(0x50, user)
    body = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16).encode(), calling.ljust(16).encode()) + items
    return struct.pack(">BBL", 1, 0, len(body)) + body


def p_data(context_id: int, control: int, data: bytes) -> bytes:
    """One value in one PDU. ``control``: 1 of a command, 2 for the last."""
    return struct.pack(">BBLLBB", 4, 0, len(data) + 6, len(data) + 2, context_id, control) + data


def command(elements: dict[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in sorted(elements.items()))
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def c_store_rq(sop_class: str, sop_instance: bytes, message_id: int = 1) -> bytes:
    padded = sop_class.encode() + b"\0" * (len(sop_class) % 2)
    return command(
        {
            0x0002: padded,
            0x0100: b"\x01\0",
            0x0110: message_id.to_bytes(2, "little"),
            0x0700: b"\0\0",
            0x0800: b"\x01\0",
            0x1000: sop_instance + b"\0" * (len(sop_instance) % 2),
        }
    )


def data_set_of(file: Path | bytes) -> bytes:
    """What stands behind the File Meta Information of a file, or of its content."""
    content = file if isinstance(file, bytes) else file.read_bytes()
    assert content[128:132] == b"DICM"
    (length,) = struct.unpack_from("<L", content, 140)
    return content[144 + length :]


class Gone(Exception):
    """The receiver has ended the connection. ``pdu`` is what it said last: A-ABORT, A-ASSOCIATE-RJ, or nothing."""

    def __init__(self, pdu: bytes = b"") -> None:
        super().__init__(pdu)
        self.pdu = pdu


class Modality:
    """``accepted`` has the transfer syntax of each accepted presentation context; ``max_pdu_bytes`` is the longest PDU
    that the receiver wants."""

    def __init__(
        self,
        port: int,
        contexts: Sequence[tuple[str, Sequence[str]]] = ((CT_IMAGE, [EXPLICIT_LITTLE_ENDIAN]),),
        *,
        called: str = "ARCHIVE",
        calling: str = "CT1",
        tls: ssl.SSLContext | None = None,
        more: bytes = b"",
    ) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket = plain if tls is None else tls.wrap_socket(plain, server_hostname="localhost")
        self.accepted: dict[int, str] = {}
        try:
            self.socket.sendall(associate_rq(contexts, called=called, calling=calling, more=more))
            kind, body = self.pdu()
            if kind != 2:
                raise Gone(bytes((kind,)) + body)
        except BaseException:
            self.socket.close()
            raise
        self.max_pdu_bytes = 16384
        at = 68
        while at < len(body):
            item_kind, length = struct.unpack_from(">BxH", body, at)
            if item_kind == 0x21 and body[at + 6] == 0:
                self.accepted[body[at + 4]] = body[at + 12 : at + 4 + length].decode().rstrip("\0")
            if item_kind == 0x50 and body[at + 4] == 0x51:  # which comes first in there
                (self.max_pdu_bytes,) = struct.unpack_from(">L", body, at + 8)
            at += 4 + length

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.socket.close()

    def pdu(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BBL", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            try:
                piece = self.socket.recv(size - len(found))
            except ConnectionError as error:
                raise Gone from error
            if not piece:
                raise Gone
            found += piece
        return found

    def answer(self) -> dict[int, bytes]:
        """The elements of a response's command set."""
        kind, body = self.pdu()
        if kind != 4:
            raise Gone(bytes((kind,)) + body)
        elements, at, content = {}, 0, body[6:]
        while at < len(content):
            _, tag, length = struct.unpack_from("<HHL", content, at)
            elements[tag] = content[at + 8 : at + 8 + length]
            at += 8 + length
        return elements

    def send(
        self, sop_instance: str | bytes, data_set: bytes, *, context_id: int = 1, sop_class: str = CT_IMAGE
    ) -> int:
        """C-STORE; the status that was answered. Raises Gone."""
        uid = sop_instance.encode() if isinstance(sop_instance, str) else sop_instance
        try:
            self.socket.sendall(p_data(context_id, 3, c_store_rq(sop_class, uid)))
            for start in range(0, len(data_set) or 1, 16000):
                is_last = start + 16000 >= len(data_set)
                self.socket.sendall(p_data(context_id, 2 if is_last else 0, data_set[start : start + 16000]))
        except ConnectionError as error:
            raise Gone from error
        return int.from_bytes(self.answer()[0x0900], "little")

    def release(self) -> None:
        self.socket.sendall(bytes((5, 0, 0, 0, 0, 4, 0, 0, 0, 0)))
        kind, _ = self.pdu()
        assert kind == 6
        self.socket.close()
