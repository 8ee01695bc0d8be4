"""Command sets of DIMSE (PS3.7 sections 6.3 and 9.3): Implicit VR Little Endian, a handful of short elements."""

from __future__ import annotations

import struct
from dataclasses import dataclass

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ, N_ACTION_RQ, N_EVENT_REPORT_RQ = 0x0001, 0x0030, 0x0FFF, 0x0130, 0x0100
_RESPONSE = 0x8000
_NO_DATA_SET, _A_DATA_SET = 0x0101, 0x0001

#: Longer ones are made by nobody: a C-STORE-RQ has about 250 bytes.
COMMAND_MOST_BYTES = 16 * 1024
#: What is sent back of a UID that the peer has sent, which need be none.
_UID_MOST_BYTES = 66
#: A comment is LO.
_COMMENT_MOST_BYTES = 64

_GROUP_LENGTH, _SOP_CLASS, _FIELD, _MESSAGE_ID = 0x0000, 0x0002, 0x0100, 0x0110
_ANSWERED_ID, _DATA_SET_TYPE, _STATUS, _COMMENT, _SOP_INSTANCE = 0x0120, 0x0800, 0x0900, 0x0902, 0x1000
_REQUESTED_CLASS, _REQUESTED_INSTANCE, _EVENT_TYPE, _ACTION_TYPE = 0x0003, 0x1001, 0x1002, 0x1008

# Status codes: PS3.7 Annex C, and PS3.4 table B.2-1 for C-STORE.
SUCCESS = 0x0000
PROCESSING_FAILURE, NO_SUCH_INSTANCE, INVALID_ARGUMENT, NO_SUCH_ACTION = 0x0110, 0x0112, 0x0115, 0x0123
SOP_CLASS_NOT_SUPPORTED, UNRECOGNISED_OPERATION, RESOURCE_LIMITATION = 0x0122, 0x0211, 0x0213
OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0xA700, 0xC000


class BadCommand(Exception):
    """A command set that cannot be read, so that nobody knows what would have to be answered."""


@dataclass(frozen=True, slots=True)
class Request:
    """``sop_class`` and ``sop_instance``, affected or requested, are as the peer has sent them, without padding:
    checked by nobody. ``action_type`` is that of an N-ACTION."""

    field: int
    message_id: int
    has_data_set: bool
    sop_class: bytes
    sop_instance: bytes
    action_type: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """``problem`` is a word for the log, None of what went well; ``comment`` is for the peer's administrator."""

    status: int
    comment: str = ""
    problem: str | None = None
    errno: int | None = None


def parsed(command: bytes) -> Request:
    """Raises BadCommand."""
    elements = _elements(command)
    field = _number(elements, _FIELD)
    return Request(
        field=field,
        message_id=0 if field == C_CANCEL_RQ else _number(elements, _MESSAGE_ID),
        has_data_set=_number(elements, _DATA_SET_TYPE) != _NO_DATA_SET,
        sop_class=_uid(elements, _SOP_CLASS, _REQUESTED_CLASS),
        sop_instance=_uid(elements, _SOP_INSTANCE, _REQUESTED_INSTANCE),
        action_type=_number(elements, _ACTION_TYPE) if field == N_ACTION_RQ else None,
    )


def answered(command: bytes, field: int, message_id: int) -> int:
    """The status with which the peer has answered this request of ours. Raises BadCommand."""
    elements = _elements(command)
    if _number(elements, _FIELD) != field | _RESPONSE or _number(elements, _ANSWERED_ID) != message_id:
        raise BadCommand
    return _number(elements, _STATUS)


def _elements(command: bytes) -> dict[int, bytes]:
    elements: dict[int, bytes] = {}
    at = 0
    while at < len(command):
        if len(command) - at < 8:
            raise BadCommand
        group, element, length = struct.unpack_from("<HHL", command, at)
        at += 8
        if group != 0 or length > len(command) - at:
            raise BadCommand
        elements[element] = command[at : at + length]
        at += length
    return elements


def _uid(elements: dict[int, bytes], affected: int, requested: int) -> bytes:
    """Of a service of composite objects (C-) the affected one, of normalized ones (N-) that which is requested."""
    return elements.get(affected, elements.get(requested, b"")).rstrip(b"\0 ")


def _number(elements: dict[int, bytes], element: int) -> int:
    value = elements.get(element, b"")
    if len(value) != 2:
        raise BadCommand
    return int.from_bytes(value, "little")


def response(to: Request, status: int, comment: str = "") -> bytes:
    """The answer to a request, with a comment of ours for whoever looks for the cause at the peer."""
    elements = {
        _FIELD: _us(to.field | _RESPONSE),
        _ANSWERED_ID: _us(to.message_id),
        _DATA_SET_TYPE: _us(_NO_DATA_SET),
        _STATUS: _us(status),
    }
    if comment:
        elements[_COMMENT] = _even(comment.encode("ascii")[:_COMMENT_MOST_BYTES], b" ")
    if 0 < len(to.sop_class) <= _UID_MOST_BYTES:
        elements[_SOP_CLASS] = _even(to.sop_class, b"\0")
    if 0 < len(to.sop_instance) <= _UID_MOST_BYTES:
        elements[_SOP_INSTANCE] = _even(to.sop_instance, b"\0")
    return _command(elements)


def event_report(message_id: int, sop_class: str, sop_instance: str, event_type: int) -> bytes:
    """N-EVENT-REPORT-RQ (PS3.7 table 10.3-1), with Event Information to follow."""
    return _command(
        {
            _SOP_CLASS: _even(sop_class.encode("ascii"), b"\0"),
            _FIELD: _us(N_EVENT_REPORT_RQ),
            _MESSAGE_ID: _us(message_id),
            _DATA_SET_TYPE: _us(_A_DATA_SET),
            _SOP_INSTANCE: _even(sop_instance.encode("ascii"), b"\0"),
            _EVENT_TYPE: _us(event_type),
        }
    )


def _command(elements: dict[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in sorted(elements.items()))
    return struct.pack("<HHLL", 0, _GROUP_LENGTH, 4, len(body)) + body


def _us(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding if len(value) % 2 else value
