"""The Storage SCP (PS3.4 Annex B), Verification, and requests for commitment: what is done with the messages of one
association.

An object is answered with Success when it is in the inbox and will be there after a power cut. One that cannot be
stored is read to its end all the same, and answered with a status that says what the peer may do about it: later again
(0xA700), or not (0xC000).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dicomwatchd.model import Uid
from dicomwatchd.receiver import association, dimse
from dicomwatchd.receiver.association import Context
from dicomwatchd.receiver.commitment import MOST_BYTES, Taking
from dicomwatchd.receiver.dimse import Answer
from dicomwatchd.receiver.folder import InboxFolder, Incoming, NoRoom, Unwritable
from dicomwatchd.receiver.part10 import beginning
from dicomwatchd.receiver.upper_layer import INVALID_PARAMETER, UNEXPECTED, ConnectionOver, Fragment, UpperLayer


@dataclass(slots=True)
class Tally:
    """What came of an association. ``problem`` is why an object was refused last, as a word for the log."""

    stored: int = 0
    refused: int = 0
    problem: str | None = None
    errno: int | None = None


_STORED = _ECHO = Answer(dimse.SUCCESS)
_UNKNOWN = Answer(dimse.UNRECOGNISED_OPERATION)
_NO_ROOM = Answer(dimse.OUT_OF_RESOURCES, "the disk of the inbox is short of room", "disk-short")
_BAD_UID = Answer(dimse.CANNOT_UNDERSTAND, "SOP class, instance or transfer syntax is no UID", "invalid-uid")
_EMPTY = Answer(dimse.CANNOT_UNDERSTAND, "there is no data set", "no-data-set")
_NOT_STORED_HERE = Answer(
    dimse.SOP_CLASS_NOT_SUPPORTED, "not in a presentation context of storage", "no-storage-context"
)


class Provider:
    """Serves one association, with what was accepted by presentation context ID. ``calling`` is what the peer calls
    itself. ``commitments`` is None where none may be asked for."""

    def __init__(
        self,
        wire: UpperLayer,
        contexts: Mapping[int, Context],
        calling: str,
        folder: InboxFolder,
        tally: Tally,
        commitments: Taking | None = None,
    ) -> None:
        self._wire, self._contexts, self._calling = wire, contexts, calling
        self._folder, self._tally, self._commitments = folder, tally, commitments
        #: Of the message that is being read.
        self._has_data_left = False

    def serve(self) -> None:
        """Until the peer releases the association. Raises ConnectionOver for every other end."""
        while (command := self._command()) is not None:
            self._message(*command)
        self._wire.send_release()

    def _command(self) -> tuple[int, dimse.Request] | None:
        gathered, context_id = bytearray(), None
        while True:
            fragment = self._wire.next_fragment(between_messages=not gathered)
            if fragment is None:
                return None
            if not fragment.is_command:
                raise ConnectionOver("protocol", UNEXPECTED)
            if context_id not in (None, fragment.context_id) or fragment.context_id not in self._contexts:
                raise ConnectionOver("protocol", INVALID_PARAMETER)
            context_id = fragment.context_id
            gathered += fragment.data
            if len(gathered) > dimse.COMMAND_MOST_BYTES:
                raise ConnectionOver("command-too-long", INVALID_PARAMETER)
            if fragment.last:
                try:
                    return context_id, dimse.parsed(bytes(gathered))
                except dimse.BadCommand as error:
                    raise ConnectionOver("protocol", INVALID_PARAMETER) from error

    def _message(self, context_id: int, request: dimse.Request) -> None:
        self._has_data_left = request.has_data_set
        if request.field == dimse.C_STORE_RQ:
            answer = self._stored(context_id, request)
            self._count(answer)
        elif request.field == dimse.N_ACTION_RQ and self._commitments and self._contexts[context_id].commits:
            answer = self._asked(context_id, request, self._commitments)
        else:
            self._skip_data_set(context_id)
            if request.field == dimse.C_CANCEL_RQ:
                return  # of what was answered long ago; it gets no answer of its own
            answer = _ECHO if request.field == dimse.C_ECHO_RQ else _UNKNOWN
        self._wire.send_command(context_id, dimse.response(request, answer.status, answer.comment))

    def _asked(self, context_id: int, request: dimse.Request, commitments: Taking) -> Answer:
        action: bytearray | None = bytearray()
        while self._has_data_left:
            data = self._data_fragment(context_id).data
            if action is not None and len(action) + len(data) > MOST_BYTES:
                action = None
            elif action is not None:
                action += data
        syntax = self._contexts[context_id].transfer_syntax_uid
        return commitments.take(self._calling, request, syntax, None if action is None else bytes(action))

    def _stored(self, context_id: int, request: dimse.Request) -> Answer:
        context = self._contexts[context_id]
        instance, sop_class = association.uid(request.sop_instance), association.uid(request.sop_class)
        syntax = association.uid(context.transfer_syntax_uid.encode())
        if context.stores and instance and sop_class and syntax:
            return self._written(context_id, instance, beginning(sop_class, instance, syntax, self._calling))
        self._skip_data_set(context_id)
        return _BAD_UID if context.stores else _NOT_STORED_HERE

    def _written(self, context_id: int, instance: Uid, head: bytes) -> Answer:
        """The data set goes to the disk as it comes; once that has failed, nowhere."""
        length = 0
        try:
            with Incoming(self._folder) as incoming:
                incoming.write(head)
                while self._has_data_left:
                    data = self._data_fragment(context_id).data
                    incoming.write(data)
                    length += len(data)
                if length:
                    incoming.keep(instance)
        except (NoRoom, Unwritable) as error:
            self._skip_data_set(context_id)
            return _failure(error)
        return _STORED if length else _EMPTY

    def _count(self, answer: Answer) -> None:
        if answer.problem is None:
            self._tally.stored += 1
        else:
            self._tally.refused += 1
            self._tally.problem, self._tally.errno = answer.problem, answer.errno

    def _skip_data_set(self, context_id: int) -> None:
        while self._has_data_left:
            self._data_fragment(context_id)

    def _data_fragment(self, context_id: int) -> Fragment:
        fragment = self._wire.next_fragment(between_messages=False)
        if fragment is None or fragment.is_command or fragment.context_id != context_id:
            raise ConnectionOver("protocol", UNEXPECTED)
        self._has_data_left = not fragment.last
        return fragment


def _failure(error: NoRoom | Unwritable) -> Answer:
    if isinstance(error, NoRoom):
        return _NO_ROOM
    # As long as the inbox is as it is, so a peer does well to try later.
    return Answer(dimse.OUT_OF_RESOURCES, "the inbox cannot be written to", error.reason, error.errno)
