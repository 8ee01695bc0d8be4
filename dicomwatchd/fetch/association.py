"""An association as its requestor needs it (PS3.8 section 9.3, PS3.7): asked for, used for C-STORE and C-ECHO, ended.

The items of A-ASSOCIATE PDUs are written and read by pynetdicom, as in the receiver; what follows them is sent from
here, in the caller's own thread. pynetdicom's requestor has two more threads for each association, which look every
millisecond whether there is anything to do, and a queue without an end before the socket.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress

from pydicom.uid import UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from dicomwatchd import unread_pdus

#: SOP class and transfer syntax.
Pair = tuple[str, str]

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_ASSOCIATE_AC, _ASSOCIATE_RJ, _P_DATA, _RELEASE_RQ, _RELEASE_RP, _ABORT = 0x02, 0x03, 0x04, 0x05, 0x06, 0x07
_C_STORE_RQ, _C_ECHO_RQ, _RESPONSE, _NO_DATA_SET = 0x0001, 0x0030, 0x8000, 0x0101
_COMMAND, _LAST = 1, 2
#: Less than IOV_MAX of readv(2).
_MOST_PLACES = 512
#: Of a PDU with one value: its own header, and the value's.
_PDU_HEAD_BYTES = 12

#: What a peer may send us: an answer to the request for an association, and answers to messages.
_PDU_MOST_BYTES, _OUR_PDU_BYTES = 256 * 1024, 16 * 1024
#: What every A-ASSOCIATE-AC has before its items.
_ASSOCIATE_LEAST_BYTES = 68
#: Longer P-DATA PDUs are made for nobody, whatever he takes.
_SENT_PDU_MOST_BYTES = 256 * 1024
#: Peers of DCMTK's send a PDU's header by itself, and the rest once that is acknowledged: in 40 ms, if nobody asks.
_HEADER_ALONE_BYTES = 12
_ABORT_PDU = bytes((_ABORT, 0, 0, 0, 0, 4, 0, 0, 0, 0))  # of the service user
_RELEASE_PDU = bytes((_RELEASE_RQ, 0, 0, 0, 0, 4, 0, 0, 0, 0))


class AssociationOver(Exception):
    """Nothing more goes over this connection: it is lost, or the peer has ended the association or does not keep to the
    protocol."""


class Rejected(Exception):
    """The peer does not want an association (A-ASSOCIATE-RJ)."""


class Association:
    """Established when it was made. ``accepted`` has the presentation context ID of each pair that the peer takes.

    ``seconds`` is how long each answer may take, ``stalled_seconds`` how long the peer may take nothing from us. Raises
    Rejected, AssociationOver, OSError (no connection; of TLS, too).
    """

    def __init__(
        self,
        address: tuple[str, int],
        titles: tuple[str, str],
        pairs: Sequence[Pair],
        tls: ssl.SSLContext | None,
        *,
        connect_seconds: float,
        seconds: float,
        stalled_seconds: float,
    ) -> None:
        """``titles`` are the called and the calling AE title; ``pairs`` 128 at most."""
        self._seconds, self._stalled_seconds = seconds, stalled_seconds
        self._waiting = bytearray()
        self._message_id = 0
        #: In the midst of a message nothing else can be said to the peer than that it is over.
        self._is_between_messages = False
        plain = socket.create_connection(address, connect_seconds)
        try:
            # An instance ends with a piece of a packet, which is not to wait until the others are acknowledged.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection = plain if tls is None else tls.wrap_socket(plain, server_hostname=address[0])
        except BaseException:
            plain.close()
            raise
        try:
            self.accepted, most = self._established(titles, pairs, connect_seconds)
        except BaseException:
            self.abort()
            raise
        self._value_bytes = min(most or _SENT_PDU_MOST_BYTES, _SENT_PDU_MOST_BYTES) - 6
        if self._value_bytes <= 0:
            self.abort()
            raise AssociationOver("the peer takes PDUs of no length")
        self._is_between_messages = True

    # -- messages ---------------------------------------------------------------------------------------------------

    def store(self, pair: Pair, sop_instance_uid: str, file: int, offset_bytes: int) -> int:
        """C-STORE of what follows ``offset_bytes`` in the open ``file``, which is read piece by piece: the status that
        the peer has answered. Raises AssociationOver, OSError of the file."""
        elements = {
            0x0002: _text(pair[0]),
            0x0100: _us(_C_STORE_RQ),
            0x0700: _us(0),  # medium priority
            0x0800: _us(0),  # a data set follows
            0x1000: _text(sop_instance_uid),
        }
        context_id = self.accepted[pair]
        self._begin(context_id, elements)
        left = os.fstat(file).st_size - offset_bytes
        os.lseek(file, offset_bytes, os.SEEK_SET)
        pdus = _Pdus(context_id, self._value_bytes, left)
        while True:
            block = pdus.read(file, left)
            left -= pdus.data_bytes
            self._send(block)
            if left == 0:
                return self._answer(_C_STORE_RQ)

    def echo(self, pair: Pair) -> int:
        """C-ECHO: the status. Raises AssociationOver."""
        elements = {0x0002: _text(pair[0]), 0x0100: _us(_C_ECHO_RQ), 0x0800: _us(_NO_DATA_SET)}
        self._begin(self.accepted[pair], elements)
        return self._answer(_C_ECHO_RQ)

    @property
    def is_over(self) -> bool:
        """Whether the peer has ended it, or has said something that nobody asked for, while nothing was under way."""
        if not self._is_between_messages or self._waiting:
            return True
        self._connection.settimeout(0)
        try:
            self._waiting += self._connection.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            pass
        return True

    # -- its end ----------------------------------------------------------------------------------------------------

    def release(self, seconds: float) -> None:
        """Say that it is over, and wait for the peer's word; in the midst of a message break it off. Raises nothing."""
        if not self._is_between_messages:
            self.abort()
            return
        with suppress(AssociationOver, OSError):
            self._send(_RELEASE_PDU)
            self._connection.settimeout(seconds)
            self._pdu()
        self._close()

    def abort(self) -> None:
        """Break it off. Raises nothing, and waits for nobody."""
        with suppress(OSError, ValueError):
            self._connection.settimeout(0)
            self._connection.send(_ABORT_PDU)
        self._close()

    def _close(self) -> None:
        self._is_between_messages = False
        with suppress(OSError):
            self._connection.close()

    # -- details ----------------------------------------------------------------------------------------------------

    def _established(
        self, titles: tuple[str, str], pairs: Sequence[Pair], seconds: float
    ) -> tuple[Mapping[Pair, int], int]:
        """Contexts that the peer has accepted, and the longest PDU that he takes (0: any)."""
        by_id = {2 * number + 1: pair for number, pair in enumerate(pairs)}
        self._send(_request(titles, by_id))
        self._connection.settimeout(seconds)
        kind, body = self._pdu()
        if kind == _ASSOCIATE_RJ:
            raise Rejected
        if kind != _ASSOCIATE_AC or len(body) < _ASSOCIATE_LEAST_BYTES:
            raise AssociationOver("no answer to the request for an association")
        try:
            pdu = A_ASSOCIATE_AC()
            pdu.decode(struct.pack(">BBL", kind, 0, len(body)) + body)
            answer = pdu.to_primitive()
            accepted = {
                by_id[one.context_id]: one.context_id
                for one in answer.presentation_context_definition_results_list
                if one.result == 0 and one.context_id in by_id
            }
            return accepted, int(answer.maximum_length_received or 0)
        except unread_pdus.FOREIGN as error:
            raise AssociationOver("the answer to the request for an association cannot be read") from error

    def _begin(self, context_id: int, elements: Mapping[int, bytes]) -> None:
        self._is_between_messages = False
        self._message_id = self._message_id % 65535 + 1
        rest = {**elements, 0x0110: _us(self._message_id)}
        body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in sorted(rest.items()))
        command = struct.pack("<HHLL", 0, 0, 4, len(body)) + body
        for start in range(0, len(command), self._value_bytes):
            piece = command[start : start + self._value_bytes]
            is_last = start + len(piece) == len(command)
            control = _COMMAND | (_LAST if is_last else 0)
            header = struct.pack(">BBLLBB", _P_DATA, 0, len(piece) + 6, len(piece) + 2, context_id, control)
            self._send(header + piece)

    def _answer(self, of: int) -> int:
        command = bytearray()
        self._connection.settimeout(self._seconds)
        while True:
            kind, body = self._pdu()
            if kind != _P_DATA:
                raise AssociationOver("the peer has ended the association")
            at = 0
            while at < len(body):
                if len(body) - at < 6:
                    raise AssociationOver("a value that is cut off")
                length, _, control = struct.unpack_from(">LBB", body, at)
                if not 2 <= length <= len(body) - at - 4 or not control & _COMMAND:
                    raise AssociationOver("no answer")
                command += body[at + 6 : at + 4 + length]
                at += 4 + length
                if len(command) > _PDU_MOST_BYTES:
                    raise AssociationOver("an answer without an end")
                if control & _LAST:
                    status = self._status(bytes(command), of)
                    self._is_between_messages = True
                    return status

    def _status(self, command: bytes, of: int) -> int:
        elements: dict[int, bytes] = {}
        at = 0
        while len(command) - at >= 8:
            _, tag, length = struct.unpack_from("<HHL", command, at)
            elements[tag] = command[at + 8 : at + 8 + length]
            at += 8 + length
        field, answered, status = (elements.get(tag, b"") for tag in (0x0100, 0x0120, 0x0900))
        if field != _us(of | _RESPONSE) or answered != _us(self._message_id) or len(status) != 2:
            raise AssociationOver("an answer to something else")
        return int.from_bytes(status, "little")

    def _send(self, pdus: bytes | memoryview) -> None:
        self._connection.settimeout(self._stalled_seconds)
        try:
            self._connection.sendall(pdus)
        except OSError as error:  # TimeoutError and ssl.SSLError are some
            raise AssociationOver("the connection is lost, or the peer takes nothing from it") from error

    def _pdu(self) -> tuple[int, bytes]:
        """Type and what follows the header. Raises AssociationOver."""
        kind, length = struct.unpack(">BxL", self._take(6))
        if length > _PDU_MOST_BYTES:
            raise AssociationOver("a PDU that nobody asked for")
        return int(kind), self._take(length)

    def _take(self, size: int) -> bytes:
        while len(self._waiting) < size:
            try:
                received = self._connection.recv(65536)
                if len(received) <= _HEADER_ALONE_BYTES:
                    self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            except OSError as error:
                raise AssociationOver("the connection is lost, or the peer does not answer") from error
            if not received:
                raise AssociationOver("the peer has closed the connection")
            self._waiting += received
        taken = bytes(self._waiting[:size])
        del self._waiting[:size]
        return taken


def _request(titles: tuple[str, str], by_id: Mapping[int, Pair]) -> bytes:
    """A-ASSOCIATE-RQ: each pair in a context of its own, so that the peer cannot choose another encoding."""
    request = A_ASSOCIATE()
    request.application_context_name = UID(_APPLICATION_CONTEXT)
    request.called_ae_title, request.calling_ae_title = titles
    contexts = []
    for context_id, (sop_class, transfer_syntax) in by_id.items():
        context = build_context(sop_class, transfer_syntax)
        context.context_id = context_id
        contexts.append(context)
    request.presentation_context_definition_list = contexts
    length, class_uid = MaximumLengthNotification(), ImplementationClassUIDNotification()
    version = ImplementationVersionNameNotification()
    length.maximum_length_received = _OUR_PDU_BYTES
    class_uid.implementation_class_uid = PYNETDICOM_IMPLEMENTATION_UID
    version.implementation_version_name = PYNETDICOM_IMPLEMENTATION_VERSION
    request.user_information = [length, class_uid, version]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    return bytes(pdu.encode())


class _Pdus:
    """Room for as many P-DATA PDUs as go in one piece: most peers take 16 KiB in each, and a call of the kernel costs
    more than to read and send that."""

    def __init__(self, context_id: int, value_bytes: int, most_bytes: int) -> None:
        """``value_bytes``: of data in each PDU; ``most_bytes``: in all of them, if that is less."""
        self._context_id, self._value_bytes = context_id, value_bytes
        fitting = min(_SENT_PDU_MOST_BYTES // (value_bytes + _PDU_HEAD_BYTES), _MOST_PLACES)
        number = max(1, min(fitting, -(-most_bytes // value_bytes)))
        self._block = memoryview(bytearray(number * (value_bytes + _PDU_HEAD_BYTES)))
        self.data_bytes = 0

    def read(self, file: int, left: int) -> memoryview:
        """The next ``data_bytes`` of the ``left`` bytes of the data set, as PDUs; the last is marked so. Valid until
        the next. Raises OSError."""
        at, places = 0, []
        self.data_bytes = 0
        while at < len(self._block):
            size = min(left - self.data_bytes, self._value_bytes)
            self.data_bytes += size
            control = _LAST if self.data_bytes == left else 0
            struct.pack_into(">BBLLBB", self._block, at, _P_DATA, 0, size + 6, size + 2, self._context_id, control)
            at += _PDU_HEAD_BYTES
            places.append(self._block[at : at + size])
            at += size
            if control:
                break
        _read(file, places)
        return self._block[:at]


def _read(file: int, places: list[memoryview]) -> None:
    while places := [place for place in places if place]:
        if not (count := os.readv(file, places)):
            raise OSError("the file has become shorter")
        for number, place in enumerate(places):
            taken = min(count, len(place))
            places[number], count = place[taken:], count - taken


def _us(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _text(uid: str) -> bytes:
    return uid.encode("ascii") + (b"\0" if len(uid) % 2 else b"")
