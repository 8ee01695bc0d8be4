"""What is agreed on before an object is sent (PS3.8 section 7.1, PS3.7 Annex D.3): who may send what, and how encoded.

The items of these PDUs are read, negotiated and written by pynetdicom, which knows what peers of thirty years put into
them; all of it is short, and was read as a whole before.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext

from dicomwatchd import unread_pdus
from dicomwatchd.commitments import PUSH_MODEL
from dicomwatchd.config.receivers import AllowedPeer
from dicomwatchd.errors import InvalidUid
from dicomwatchd.model import Uid
from dicomwatchd.receiver.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
_NO_STORAGE = ("Storage Commitment", "Storage Directory", "Storage Service")
_TITLES_AT, _TITLES_END = 10, 42
#: Where its items begin, and what kind of them there are no more of than there are odd numbers in a byte.
_ITEMS_AT, _PRESENTATION_CONTEXT, _MOST_CONTEXTS = 74, 0x20, 128
_ACCEPTED, _USER_REJECTION, _NO_ABSTRACT_SYNTAX, _NO_TRANSFER_SYNTAX = 0x00, 0x01, 0x03, 0x04
#: What an AE title may be that is shown in a log: titles in use are no more than that, and no sentence fits.
_SHOWN_AE_TITLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,15}")

Address = IPv4Address | IPv6Address
_Roles = tuple[bool | None, bool | None]


class BadRequest(Exception):
    """An A-ASSOCIATE-RQ that cannot be read."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A-ASSOCIATE-RJ (PS3.8 section 9.3.4). ``reason`` is a word for the log."""

    reason: str
    result: int
    source: int
    diagnostic: int

    def pdu(self) -> bytes:
        return struct.pack(">BBLBBBB", 0x03, 0, 4, 0, self.result, self.source, self.diagnostic)


CALLED_NOT_RECOGNISED = Rejection("called-ae-title", 1, 1, 7)
CALLING_NOT_RECOGNISED = Rejection("calling-ae-title", 1, 1, 3)
NO_CONTEXT = Rejection("no-storage-proposed", 1, 1, 1)
TOO_MANY = Rejection("too-many-associations", 2, 3, 2)
STOPPING = Rejection("stopping", 2, 3, 1)


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context: of storage, of requests for commitment, or of Verification."""

    sop_class_uid: str
    transfer_syntax_uid: str

    @property
    def commits(self) -> bool:
        return self.sop_class_uid == PUSH_MODEL

    @property
    def stores(self) -> bool:
        return self.sop_class_uid not in (VERIFICATION, PUSH_MODEL)


class AssociationRequest:
    """A peer's A-ASSOCIATE-RQ. Raises BadRequest."""

    def __init__(self, pdu: bytes) -> None:
        if _contexts_in(pdu) > _MOST_CONTEXTS:
            raise BadRequest
        try:
            request = A_ASSOCIATE_RQ()
            # Titles are padded with blanks, by older devices with NUL.
            request.decode(pdu[:_TITLES_AT] + pdu[_TITLES_AT:_TITLES_END].replace(b"\0", b" ") + pdu[_TITLES_END:])
            primitive = request.to_primitive()
            self._primitive: A_ASSOCIATE = primitive
            self.called = str(primitive.called_ae_title).strip()
            self.calling = str(primitive.calling_ae_title).strip()
            self._proposed: list[PresentationContext] = primitive.presentation_context_definition_list
            self._roles = {
                item.sop_class_uid: (item.scu_role, item.scp_role)
                for item in primitive.user_information
                if isinstance(item, SCP_SCU_RoleSelectionNegotiation) and item.sop_class_uid is not None
            }
        except unread_pdus.FOREIGN as error:
            raise BadRequest from error

    def accepted(self, pdu_bytes: int, commitment: Sequence[str] = ()) -> tuple[bytes, Mapping[int, Context]]:
        """The A-ASSOCIATE-AC, and what it accepts by presentation context ID: every SOP class of storage, those that
        are private or unknown too, each with the transfer syntax that the peer has put first, whatever it is;
        Verification; and Storage Commitment in these transfer syntaxes, if any. Raises BadRequest."""
        try:
            results = [_result(proposed, self._roles, commitment) for proposed in self._proposed]
            roles = [_role(uid) for uid, (as_scu, _) in self._roles.items() if as_scu]
            answer = A_ASSOCIATE()
            answer.application_context_name = UID(APPLICATION_CONTEXT)
            answer.calling_ae_title = self._primitive.calling_ae_title
            answer.called_ae_title = self._primitive.called_ae_title
            answer.result, answer.result_source = 0x00, 0x01
            answer.presentation_context_definition_results_list = results
            answer.user_information = [*ours(pdu_bytes), *roles]
            pdu = A_ASSOCIATE_AC()
            pdu.from_primitive(answer)
            encoded = pdu.encode()
            contexts = {
                context.context_id: _context(context)
                for context in results
                if context.result == _ACCEPTED and context.context_id is not None
            }
        except (AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
            raise BadRequest from error
        return encoded, contexts


def is_storage(sop_class_uid: str) -> bool:
    """Whether a SOP class may be one of storage: what has no name in the standard may be, a new one or a private one,
    and of what has one those that are called so. What else is called so: the directory of a medium, and commitment."""
    known = UID(sop_class_uid)
    return not known.type or ("Storage" in known.name and not any(word in known.name for word in _NO_STORAGE))


def _result(
    proposed: PresentationContext, roles: Mapping[UID, _Roles], commitment: Sequence[str]
) -> PresentationContext:
    """With the transfer syntax that the peer has put first: nothing here is better in one than in another, and what is
    compressed, private or big endian stays as it is."""
    result = PresentationContext()
    result.context_id, result.abstract_syntax = proposed.context_id, proposed.abstract_syntax
    result.transfer_syntax = [*proposed.transfer_syntax[:1]]
    sop_class = UID(str(proposed.abstract_syntax))
    commits = sop_class == PUSH_MODEL and bool(commitment)
    if commits:
        result.transfer_syntax = [*[one for one in proposed.transfer_syntax if one in commitment][:1]]
    if not (commits or sop_class == VERIFICATION or is_storage(sop_class)):
        result.result = _NO_ABSTRACT_SYNTAX
    elif not roles.get(sop_class, (True, None))[0]:
        result.result = _USER_REJECTION  # it wants to be sent to, and nothing else
    elif not result.transfer_syntax:
        result.transfer_syntax = [*proposed.transfer_syntax[:1]]
        result.result = _NO_TRANSFER_SYNTAX
    else:
        result.result = _ACCEPTED
    return result


def _role(sop_class: UID) -> SCP_SCU_RoleSelectionNegotiation:
    """To a peer that proposes roles: it may send, and is sent nothing."""
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = sop_class, True, False
    return role


def _contexts_in(pdu: bytes) -> int:
    """How many presentation contexts an A-ASSOCIATE-RQ has, as far as its items can be followed."""
    count, at = 0, _ITEMS_AT
    while at + 4 <= len(pdu):
        kind, length = struct.unpack_from(">BxH", pdu, at)
        count += kind == _PRESENTATION_CONTEXT
        at += 4 + length
    return count


def _context(context: PresentationContext) -> Context:
    return Context(str(context.abstract_syntax), str(context.transfer_syntax[0]))


def ours(
    pdu_bytes: int,
) -> list[MaximumLengthNotification | ImplementationClassUIDNotification | ImplementationVersionNameNotification]:
    length, class_uid = MaximumLengthNotification(), ImplementationClassUIDNotification()
    version = ImplementationVersionNameNotification()
    length.maximum_length_received = pdu_bytes
    class_uid.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version.implementation_version_name = IMPLEMENTATION_VERSION
    return [length, class_uid, version]


def may_connect(allow: tuple[AllowedPeer, ...], address: Address) -> bool:
    """Whether anybody at this address may ask for an association."""
    return not allow or any(one.has_address(address) for one in allow)


def may_associate(allow: tuple[AllowedPeer, ...], address: Address, calling: str) -> bool:
    return not allow or any(one.has_address(address) and one.ae_title in (None, calling) for one in allow)


def shown(ae_title: str) -> str | None:
    """An AE title as the log may show it; None of one that is unlike any in use."""
    return ae_title if _SHOWN_AE_TITLE.fullmatch(ae_title) else None


def uid(text: bytes) -> Uid | None:
    """A UID that a peer has sent; None where it is none."""
    try:
        return Uid(text.decode("ascii"))
    except (InvalidUid, UnicodeDecodeError):
        return None
