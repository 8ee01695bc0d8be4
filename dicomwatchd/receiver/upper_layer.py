"""The DICOM upper layer (PS3.8 section 9.3), as its acceptor and one who calls need it: PDUs off a connection, and PDUs
onto it.

Nothing of a length that the peer names is taken up as a whole: what belongs to a data set is handed on piece by piece,
as it lies in one buffer, and everything else is small or refused. Each PDU has to be there in time, so that a peer
which sends a byte now and then is no better off than one that sends nothing.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from dicomwatchd.ports import Clock

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = (
    0x01,
    0x02,
    0x03,
    0x04,
    0x05,
    0x06,
    0x07,
)
#: PDU types that a peer which has asked for an association may not send, and those that nobody may.
_OTHERS = frozenset((ASSOCIATE_AC, ASSOCIATE_RJ, RELEASE_RP))

#: 128 presentation contexts, each with all transfer syntaxes that there are, fit into it. To read the worst that does
#: takes a second of a processor.
ASSOCIATE_MOST_BYTES = 256 * 1024
#: How much longer than we have allowed a P-DATA PDU may be: some count their header, or that of the value, as extra.
SLACK_BYTES = 4096
#: How often a connection that waits for its peer looks whether the receiver stops.
_LOOK_SECONDS = 1.0
_BUFFER_BYTES = 256 * 1024
#: Peers of DCMTK's send a PDU's header by itself, and the rest once that is acknowledged: in 40 ms, if nobody asks.
_HEADER_ALONE_BYTES = 12

#: A-ABORT of the service provider (PS3.8 table 9-26): why.
NOT_SPECIFIED, UNRECOGNISED, UNEXPECTED, INVALID_PARAMETER = 0, 1, 2, 6
_FROM_USER, _FROM_PROVIDER = 0, 2


class ConnectionOver(Exception):
    """Nothing more comes on this connection. ``reason`` is a word for the log; ``abort`` is what the peer is told by
    A-ABORT, None where that makes no sense any more."""

    def __init__(self, reason: str, abort: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.abort = abort


@dataclass(slots=True)
class Fragment:
    """A piece of a presentation data value (PS3.8 Annex E.2), valid until the next is asked for. ``last`` is true of
    the last piece of the last fragment of a command set or data set."""

    context_id: int
    is_command: bool
    last: bool
    data: memoryview


class UpperLayer:
    """``pdu_bytes`` is the maximum length of a P-DATA PDU that was promised to the peer; ``idle_seconds`` is for each
    PDU and each answer. ``stopping`` is asked between PDUs."""

    def __init__(
        self,
        connection: socket.socket,
        clock: Clock,
        *,
        pdu_bytes: int,
        idle_seconds: float,
        stopping: Callable[[], bool],
    ) -> None:
        self._connection, self._clock, self._stopping = connection, clock, stopping
        self._pdu_bytes, self._idle_seconds = pdu_bytes, idle_seconds
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._start = self._end = 0
        self._deadline = 0.0
        #: What is left of the P-DATA PDU that is being read, and of the value in it.
        self._pdu_left = self._value_left = 0
        self._in_value = False
        self._context_id = self._control = 0
        #: All that was read.
        self.received_bytes = 0

    # -- from the peer ----------------------------------------------------------------------------------------------

    def associate_request(self, within_seconds: float) -> bytes:
        """The A-ASSOCIATE-RQ that every connection begins with, header and all. Raises ConnectionOver."""
        return self._associate_pdu(within_seconds, (ASSOCIATE_RQ,))

    def associate_answer(self, within_seconds: float) -> bytes:
        """The A-ASSOCIATE-AC or -RJ, header and all, that one who calls is answered with. Raises ConnectionOver."""
        return self._associate_pdu(within_seconds, (ASSOCIATE_AC, ASSOCIATE_RJ))

    def _associate_pdu(self, within_seconds: float, kinds: tuple[int, ...]) -> bytes:
        self._deadline = self._clock.monotonic() + within_seconds
        header = bytes(self._take(6))
        kind, length = header[0], int.from_bytes(header[2:])
        if kind not in kinds:
            raise ConnectionOver("no-dicom", UNEXPECTED if kind in (*_OTHERS, P_DATA, RELEASE_RQ) else UNRECOGNISED)
        if length > ASSOCIATE_MOST_BYTES:
            raise ConnectionOver("pdu-too-long", INVALID_PARAMETER)
        parts = [header]
        while length:
            piece = bytes(self._take_some(length))
            length -= len(piece)
            parts.append(piece)
        return b"".join(parts)

    def next_fragment(self, *, between_messages: bool) -> Fragment | None:
        """The next piece of a command set or a data set; None: the peer wants to release the association.
        ``between_messages``: nothing is under way, so that this is the place to stop. Raises ConnectionOver."""
        while not self._in_value:
            if self._pdu_left:
                self._next_value()
            elif not self._next_pdu(between_messages):
                return None
        # A last fragment may be empty, and ends its message all the same.
        data = self._take_some(self._value_left) if self._value_left else self._buffer[:0]
        self._value_left -= len(data)
        self._pdu_left -= len(data)
        self._in_value = self._value_left > 0
        is_last = not self._in_value and bool(self._control & 2)
        return Fragment(self._context_id, bool(self._control & 1), is_last, data)

    def _next_pdu(self, between_messages: bool) -> bool:
        """Begin with a P-DATA PDU; False is a request to release."""
        self._deadline = self._clock.monotonic() + self._idle_seconds
        while self._start == self._end:  # nothing of it is here yet
            if between_messages and self._stopping():
                raise ConnectionOver("stopping", NOT_SPECIFIED)
            self._fill(_LOOK_SECONDS)
        kind, _, length = struct.unpack(">BBL", self._take(6))
        if kind == RELEASE_RQ:
            self._take(4)
            if not between_messages:
                raise ConnectionOver("released-too-early", UNEXPECTED)
            return False
        if kind == ABORT:
            raise ConnectionOver("aborted-by-peer")
        if kind != P_DATA:
            raise ConnectionOver("protocol", UNEXPECTED if kind in (*_OTHERS, ASSOCIATE_RQ) else UNRECOGNISED)
        if length > self._pdu_bytes + SLACK_BYTES:
            raise ConnectionOver("pdu-too-long", INVALID_PARAMETER)
        if length == 0:
            raise ConnectionOver("protocol", INVALID_PARAMETER)
        self._pdu_left = length
        return True

    def _next_value(self) -> None:
        if self._pdu_left < 6:
            raise ConnectionOver("protocol", INVALID_PARAMETER)
        length, self._context_id, self._control = struct.unpack(">LBB", self._take(6))
        self._pdu_left -= 6
        self._value_left = length - 2
        if not 0 <= self._value_left <= self._pdu_left:
            raise ConnectionOver("protocol", INVALID_PARAMETER)
        self._in_value = True

    def _take(self, size: int) -> memoryview:
        """The next ``size`` bytes, a few, valid until more is asked for."""
        while self._end - self._start < size:
            self._fill()
        self._start += size
        return self._buffer[self._start - size : self._start]

    def _take_some(self, most: int) -> memoryview:
        """As many of the next ``most`` bytes as are here, one at least; valid until more is asked for."""
        while self._start == self._end:
            self._fill()
        size = min(most, self._end - self._start)
        self._start += size
        return self._buffer[self._start - size : self._start]

    def _fill(self, most_seconds: float | None = None) -> None:
        """Wait for bytes, until the deadline or ``most_seconds``: then there may be none."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._buffer):
            rest = bytes(self._buffer[self._start : self._end])  # less than a header: see _take
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        left = self._deadline - self._clock.monotonic()
        if left <= 0:
            raise ConnectionOver("idle", NOT_SPECIFIED)
        self._connection.settimeout(left if most_seconds is None else min(left, most_seconds))
        try:
            received = self._connection.recv_into(self._buffer[self._end :])
        except TimeoutError:
            return
        except OSError as error:  # ssl.SSLError is one
            raise ConnectionOver("connection-lost") from error
        if received == 0:
            raise ConnectionOver("connection-lost")
        if received <= _HEADER_ALONE_BYTES:
            with suppress(OSError):  # no TCP, or gone since
                self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self._end += received
        self.received_bytes += received

    # -- to the peer ------------------------------------------------------------------------------------------------

    def send(self, pdu: bytes) -> None:
        """Raises ConnectionOver."""
        self._connection.settimeout(self._idle_seconds)
        try:
            self._connection.sendall(pdu)
        except TimeoutError as error:
            raise ConnectionOver("idle") from error
        except OSError as error:
            raise ConnectionOver("connection-lost") from error

    def send_data_set(self, context_id: int, data_set: bytes, most_bytes: int) -> None:
        """In as many PDUs as it takes, none with more than ``most_bytes`` of it. Raises ConnectionOver."""
        for start in range(0, len(data_set), most_bytes):
            piece = data_set[start : start + most_bytes]
            control = 2 if start + most_bytes >= len(data_set) else 0
            self.send(struct.pack(">BBLLBB", P_DATA, 0, len(piece) + 6, len(piece) + 2, context_id, control) + piece)

    def send_command(self, context_id: int, command: bytes) -> None:
        """A command set without a data set: those of answers fit into any PDU. Raises ConnectionOver."""
        self.send(struct.pack(">BBLLBB", P_DATA, 0, len(command) + 6, len(command) + 2, context_id, 3) + command)

    def send_release(self) -> None:
        """A-RELEASE-RP. Raises ConnectionOver."""
        self.send(bytes((RELEASE_RP, 0, 0, 0, 0, 4, 0, 0, 0, 0)))

    def release(self, within_seconds: float) -> None:
        """A-RELEASE-RQ, and until it is answered whatever else comes is thrown away. Raises ConnectionOver."""
        self.send(bytes((RELEASE_RQ, 0, 0, 0, 0, 4, 0, 0, 0, 0)))
        self._deadline = self._clock.monotonic() + within_seconds
        left = self._pdu_left
        while True:
            while left:
                left -= len(self._take_some(left))
            kind, _, left = struct.unpack(">BBL", self._take(6))
            if kind in (RELEASE_RP, ABORT):
                return

    def send_abort(self, reason: int) -> None:
        """A-ABORT: of ours where we have no reason that the standard knows, else of the protocol. Raises
        ConnectionOver."""
        source = _FROM_USER if reason == NOT_SPECIFIED else _FROM_PROVIDER
        self.send(bytes((ABORT, 0, 0, 0, 0, 4, 0, 0, source, reason)))
