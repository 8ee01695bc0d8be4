"""The Storage Commitment SCP's first half (PS3.4 section J.3.2): takes the request, and answers that it was taken.

What it asks for is found out by the daemon, and reported by `reporting`.
"""

from __future__ import annotations

import errno
import io
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomwatchd.commitments import (
    MOST_INSTANCES,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    CommitmentFolder,
    Kind,
    Reference,
    Request,
    destination_of,
)
from dicomwatchd.errors import InvalidUid
from dicomwatchd.model import Uid
from dicomwatchd.ports import Clock, Log
from dicomwatchd.receiver import association, dimse
from dicomwatchd.receiver.dimse import Answer

#: A request of the most instances, each with the longest UIDs and explicit VRs, has less.
MOST_BYTES = 4 * 1024 * 1024
#: Requests of one modality that are not reported yet.
MOST_OPEN = 200
#: In which a request may come: its data set is small, and nobody compresses it.
SYNTAXES = (str(ImplicitVRLittleEndian), str(ExplicitVRLittleEndian))

_ACTION_TYPE = 1
_UNDEFINED_LENGTH = 0xFFFFFFFF
_ITEM = b"\xfe\xff\x00\xe0"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_TAKEN = Answer(dimse.SUCCESS)
_TOO_MANY = Answer(dimse.RESOURCE_LIMITATION, "too many instances in one request", "too-many-instances")
_TOO_MANY_OPEN = Answer(dimse.RESOURCE_LIMITATION, "too many requests are not reported yet", "too-many-requests")
_DISK_SHORT = Answer(dimse.RESOURCE_LIMITATION, "the disk is short of room", "disk-short")
_OTHER_INSTANCE = Answer(dimse.NO_SUCH_INSTANCE, "not the well-known instance", "no-such-instance")
_OTHER_ACTION = Answer(dimse.NO_SUCH_ACTION, "action type must be 1", "no-such-action")
_BAD = Answer(dimse.INVALID_ARGUMENT, "no transaction or instances that can be read", "invalid-request")


class BadAction(Exception):
    """Action Information that does not say of which instances."""


@dataclass(frozen=True, slots=True)
class Taking:
    """Takes requests that come to one receiver. ``destinations`` names, by AE title, to whom they are reported."""

    receiver: str
    destinations: Mapping[str, str]
    folder: CommitmentFolder
    clock: Clock
    log: Log
    #: To read a request of the most instances takes 40 MB and a second: one after the other.
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def offered_to(self, calling: str) -> bool:
        return calling in self.destinations

    def take(self, calling: str, request: dimse.Request, syntax: str, action: bytes | None) -> Answer:
        """The answer to an N-ACTION-RQ of this peer; ``action`` is its data set, None where that was too long. Success
        means that the request is on the disk."""
        answer, instances = self._taken(calling, request, syntax, action)
        said = {"receiver": self.receiver, "calling_ae_title": association.shown(calling)}
        if answer.problem is None:
            self.log.info(
                "commitment-requested",
                "a modality asks whether the archive holds {instances} instances",
                instances=instances,
                **said,
            )
        else:
            self.log.warning(
                "commitment-refused",
                "a request for storage commitment was refused",
                reason=answer.problem,
                errno=answer.errno,
                **said,
            )
        return answer

    def _taken(self, calling: str, request: dimse.Request, syntax: str, action: bytes | None) -> tuple[Answer, int]:
        if request.sop_class != PUSH_MODEL.encode() or request.sop_instance != PUSH_MODEL_INSTANCE.encode():
            return _OTHER_INSTANCE, 0
        if request.action_type != _ACTION_TYPE:
            return _OTHER_ACTION, 0
        if action is None or action.count(_ITEM) > MOST_INSTANCES:
            return _TOO_MANY, 0
        destination = self.destinations[calling]
        try:
            with self._reading:
                transaction, references = read_action(action, syntax)
            if self._open_of(destination) >= MOST_OPEN:
                return _TOO_MANY_OPEN, 0
            self.folder.keep_request(destination, Request(self.receiver, transaction, self.clock.now(), references))
        except BadAction:
            return _BAD, 0
        except OSError as error:
            if error.errno in _NO_ROOM:
                return _DISK_SHORT, 0
            reason = Answer(dimse.PROCESSING_FAILURE, "the request cannot be kept", "folder-unwritable", error.errno)
            return reason, 0
        return _TAKEN, len(references)

    def _open_of(self, destination: str) -> int:
        return sum(
            Kind.REPORTED not in kinds and destination_of(request_id) == destination
            for request_id, kinds in self.folder.requests().items()
        )


def read_action(action: bytes, syntax: str) -> tuple[Uid, tuple[Reference, ...]]:
    """Transaction UID and what Action Information refers to (PS3.4 table J.3-1), each instance once, in order. Raises
    BadAction."""
    try:
        found: Dataset = read_dataset(io.BytesIO(action), syntax == SYNTAXES[0], is_little_endian=True)
        _require_whole(found)
        for item in found.ReferencedSOPSequence:
            _require_whole(item)
        references = {
            Reference(Uid(str(item.ReferencedSOPClassUID)), Uid(str(item.ReferencedSOPInstanceUID))): None
            for item in found.ReferencedSOPSequence
        }
        transaction = Uid(str(found.TransactionUID))
    # What a library of others raises for bytes that nobody has checked before it; see `association`.
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        InvalidUid,
        LookupError,
        NotImplementedError,
        OSError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise BadAction from error
    if not references:
        raise BadAction
    return transaction, tuple(references)


def _require_whole(data_set: Dataset) -> None:
    """pydicom takes a value that ends before its length for a shorter one: half a UID is another instance's. Raises
    ValueError."""
    for element in data_set.values():
        if isinstance(element, RawDataElement) and element.length not in (len(element.value or b""), _UNDEFINED_LENGTH):
            raise ValueError("it ends in the midst of a value")
