"""An association that the receiver itself asks for, to report to a modality: one request, one answer.

The peer is a stranger like any other: nothing of a length that it names is taken up, each PDU has to be there in time,
and all of it takes place in the thread that calls.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, MaximumLengthNotification
from pynetdicom.presentation import build_context, build_role

from dicomwatchd import unread_pdus
from dicomwatchd.ports import Clock
from dicomwatchd.receiver import association, dimse
from dicomwatchd.receiver.upper_layer import ASSOCIATE_RJ, ConnectionOver, UpperLayer

_CONNECT_SECONDS, _ASSOCIATE_SECONDS, _ANSWER_SECONDS, _RELEASE_SECONDS = 30.0, 30.0, 60.0, 5.0
_PDU_BYTES, _MOST_SENT_BYTES = 16 * 1024, 128 * 1024
#: Who takes less at once than this takes nothing.
_LEAST_BYTES = 256
#: Of an answer, which has one.
_MOST_FRAGMENTS = 100
_CONTEXT_ID, _MESSAGE_ID = 1, 1


class NotTaken(Exception):
    """``reason`` is a word for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to call, and as whom."""

    host: str
    port: int
    ae_title: str
    calling_ae_title: str
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Event:
    sop_class: str
    sop_instance: str
    event_type: int
    information: Dataset


def report(peer: Peer, event: Event, syntaxes: tuple[str, ...], clock: Clock) -> int:
    """The status with which the peer answers an N-EVENT-REPORT. Raises NotTaken."""
    with _connected(peer) as connection:
        wire = UpperLayer(connection, clock, pdu_bytes=_PDU_BYTES, idle_seconds=_ANSWER_SECONDS, stopping=lambda: False)
        try:
            wire.send(_request(peer, event.sop_class, syntaxes))
            syntax, most_bytes = _accepted(wire.associate_answer(_ASSOCIATE_SECONDS), syntaxes)
            command = dimse.event_report(_MESSAGE_ID, event.sop_class, event.sop_instance, event.event_type)
            wire.send_command(_CONTEXT_ID, command)
            wire.send_data_set(_CONTEXT_ID, _encoded(event.information, syntax), most_bytes)
            status = dimse.answered(_answer(wire), dimse.N_EVENT_REPORT_RQ, _MESSAGE_ID)
        except ConnectionOver as error:
            raise NotTaken("no-answer" if error.reason == "idle" else error.reason) from error
        except dimse.BadCommand as error:
            raise NotTaken("protocol") from error
        with suppress(ConnectionOver):  # it has answered, however it ends that
            wire.release(_RELEASE_SECONDS)
        return status


@contextmanager
def _connected(peer: Peer) -> Iterator[socket.socket]:
    try:
        connection = socket.create_connection((peer.host, peer.port), _CONNECT_SECONDS)
    except (OSError, UnicodeError) as error:  # of a name that is none
        raise NotTaken("unreachable") from error
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if peer.tls is not None:
            connection = peer.tls.wrap_socket(connection, server_hostname=peer.host)
    except (OSError, ValueError) as error:
        connection.close()
        raise NotTaken("connection-lost" if peer.tls is None else "tls") from error
    with connection:
        yield connection


def _request(peer: Peer, sop_class: str, syntaxes: tuple[str, ...]) -> bytes:
    """We propose the part of the SCP to whom we call (PS3.4 section J.3.3.1.1)."""
    context = build_context(sop_class, [*syntaxes])
    context.context_id = _CONTEXT_ID
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID(association.APPLICATION_CONTEXT)
    primitive.calling_ae_title, primitive.called_ae_title = peer.calling_ae_title, peer.ae_title
    primitive.presentation_context_definition_list = [context]
    primitive.user_information = [*association.ours(_PDU_BYTES), build_role(sop_class, scp_role=True)]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return pdu.encode()


def _accepted(pdu: bytes, syntaxes: tuple[str, ...]) -> tuple[str, int]:
    """In which transfer syntax, and how much at once. A peer that says nothing of roles is taken to agree to ours, as
    many do who have never heard of them. Raises NotTaken."""
    if pdu[0] == ASSOCIATE_RJ:
        raise NotTaken("rejected")
    try:
        answer = A_ASSOCIATE_AC()
        answer.decode(pdu)
        primitive = answer.to_primitive()
        [context] = primitive.presentation_context_definition_results_list
        is_ours = context.result == 0 and context.context_id == _CONTEXT_ID
        syntax = str(context.transfer_syntax[0]) if is_ours else ""
        [length] = [
            item.maximum_length_received
            for item in primitive.user_information
            if isinstance(item, MaximumLengthNotification)
        ]
    except unread_pdus.FOREIGN as error:
        raise NotTaken("protocol") from error
    if syntax not in syntaxes or 0 < length < _LEAST_BYTES:
        raise NotTaken("not-accepted")
    return syntax, min(length - 6, _MOST_SENT_BYTES) if length else _MOST_SENT_BYTES


def _answer(wire: UpperLayer) -> bytes:
    """Its command set; a data set may follow, and says nothing. Raises NotTaken, ConnectionOver."""
    gathered = bytearray()
    for _ in range(_MOST_FRAGMENTS):
        fragment = wire.next_fragment(between_messages=not gathered)
        if fragment is None:
            raise NotTaken("no-answer")  # it has released the association instead
        gathered += fragment.data
        if not fragment.is_command or fragment.context_id != _CONTEXT_ID or len(gathered) > dimse.COMMAND_MOST_BYTES:
            raise NotTaken("protocol")
        if fragment.last:
            return bytes(gathered)
    raise NotTaken("protocol")


def _encoded(data_set: Dataset, syntax: str) -> bytes:
    written = DicomBytesIO()
    written.is_little_endian, written.is_implicit_VR = True, syntax == ImplicitVRLittleEndian
    write_dataset(written, data_set)
    return written.getvalue()
