"""The Storage SCP (PS3.4 Annex B), and Verification: what is done with the messages of one association.

An object is answered with Success when it is in the inbox and will be there after a power cut. One that cannot be
stored is read to its end all the same, and answered with a status that says what the peer may do about it: later again
(0xA700), or not (0xC000).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from dicomwatchd.model import Uid
from dicomwatchd.receiver import association, dimse
from dicomwatchd.receiver.association import Context
from dicomwatchd.receiver.folder import InboxFolder, Incoming, NoRoom, Unwritable
from dicomwatchd.receiver.part10 import beginning
from dicomwatchd.receiver.upper_layer import INVALID_PARAMETER, UNEXPECTED, ConnectionOver, Fragment, UpperLayer


@dataclass(slots=True)
class Tally:
    """What came of an association. ``problem`` is why an object was refused last, as a word for the log."""

    stored: int = 0
    refused: int = 0
    echoed: int = 0
    problem: str | None = None
    errno: int | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    """``problem`` is a word for the log, None of what went well; ``comment`` is for the peer's administrator."""

    status: int
    comment: str = ""
    problem: str | None = None
    errno: int | None = None


_STORED = _Answer(dimse.SUCCESS)
_NO_ROOM = _Answer(dimse.OUT_OF_RESOURCES, "the disk of the inbox is short of room", "disk-short")
_BAD_UID = _Answer(dimse.CANNOT_UNDERSTAND, "SOP class, instance or transfer syntax is no UID", "invalid-uid")
_EMPTY = _Answer(dimse.CANNOT_UNDERSTAND, "there is no data set", "no-data-set")
_NOT_STORED_HERE = _Answer(
    dimse.SOP_CLASS_NOT_SUPPORTED, "not in a presentation context of storage", "no-storage-context"
)


class Provider:
    """Serves one association, with what was accepted by presentation context ID. ``calling`` is what the peer calls
    itself."""

    def __init__(
        self, wire: UpperLayer, contexts: Mapping[int, Context], calling: str, folder: InboxFolder, tally: Tally
    ) -> None:
        self._wire, self._contexts, self._calling = wire, contexts, calling
        self._folder, self._tally = folder, tally

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
        context = self._contexts[context_id]
        if request.field == dimse.C_STORE_RQ:
            answer = self._stored(context_id, context, request)
            if answer.problem is None:
                self._tally.stored += 1
            else:
                self._tally.refused += 1
                self._tally.problem, self._tally.errno = answer.problem, answer.errno
        else:
            self._skip_data_set(context_id, request)
            if request.field == dimse.C_ECHO_RQ:
                self._tally.echoed += 1
                answer = _Answer(dimse.SUCCESS)
            elif request.field == dimse.C_CANCEL_RQ:
                return  # of what was answered long ago; it gets no answer of its own
            else:
                answer = _Answer(dimse.UNRECOGNISED_OPERATION)
        self._wire.send_command(context_id, dimse.response(request, answer.status, answer.comment))

    def _stored(self, context_id: int, context: Context, request: dimse.Request) -> _Answer:
        if not request.has_data_set:
            return _EMPTY
        instance, sop_class = association.uid(request.sop_instance), association.uid(request.sop_class)
        syntax = association.uid(context.transfer_syntax_uid.encode())
        refused = None
        if not context.stores:
            refused = _NOT_STORED_HERE
        elif instance is None or sop_class is None or syntax is None:
            refused = _BAD_UID
        if refused is not None or instance is None or sop_class is None or syntax is None:
            self._skip_data_set(context_id, request)
            return refused or _BAD_UID
        return self._written(context_id, instance, beginning(sop_class, instance, syntax, self._calling))

    def _written(self, context_id: int, instance: Uid, head: bytes) -> _Answer:
        """The data set goes to the disk as it comes; once that has failed, nowhere."""
        failed: _Answer | None = None
        with ExitStack() as stack:
            incoming: Incoming | None = None
            try:
                incoming = stack.enter_context(Incoming(self._folder))
                incoming.write(head)
            except (NoRoom, Unwritable) as error:
                failed = _failure(error)
            is_last, length = False, 0
            while not is_last:
                fragment = self._data_fragment(context_id)
                is_last = fragment.last
                length += len(fragment.data)
                if failed is None and incoming is not None:
                    try:
                        incoming.write(fragment.data)
                    except (NoRoom, Unwritable) as error:
                        failed = _failure(error)
            if failed is not None or incoming is None:
                return failed or _NO_ROOM
            if length == 0:
                return _EMPTY
            try:
                incoming.keep(instance)
            except (NoRoom, Unwritable) as error:
                return _failure(error)
        return _STORED

    def _skip_data_set(self, context_id: int, request: dimse.Request) -> None:
        while request.has_data_set and not self._data_fragment(context_id).last:
            pass

    def _data_fragment(self, context_id: int) -> Fragment:
        fragment = self._wire.next_fragment(between_messages=False)
        if fragment is None or fragment.is_command or fragment.context_id != context_id:
            raise ConnectionOver("protocol", UNEXPECTED)
        return fragment


def _failure(error: NoRoom | Unwritable) -> _Answer:
    if isinstance(error, NoRoom):
        return _NO_ROOM
    # As long as the inbox is as it is, so a peer does well to try later.
    return _Answer(dimse.OUT_OF_RESOURCES, "the inbox cannot be written to", error.reason, error.errno)
