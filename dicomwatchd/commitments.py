"""Requests for storage commitment (PS3.4 Annex J), on their way through a folder that receiver and daemon share.

The receiver puts a request there before it answers the modality. The daemon, which alone can tell what the archive
holds, puts its result beside it. The receiver reports that to the modality and puts down that it has, and the daemon
takes all three away. Each file gets its name when its bytes are on the disk, so that nothing is ever there in part, and
whoever is killed goes on from what is there.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar

from dicomwatchd import localfiles
from dicomwatchd.errors import InvalidUid, Misconfigured
from dicomwatchd.model import Uid

#: The Storage Commitment Push Model, and its one instance (PS3.4 section J.3).
PUSH_MODEL, PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
#: What one request may refer to; a modality asks by study or by series.
MOST_INSTANCES = 20_000
#: A result is reported while it is younger than a file's evidence may be when it is deleted. An older one is renewed.
RESULT_SECONDS = 900.0
#: A report that nobody has taken for so long, counted from the longest wait for what it was asked about, is given up.
GIVE_UP_SECONDS = 7 * 86400.0

_FORMAT = "dicomwatchd-commitment/1"
#: 20,000 of the longest UIDs fit into it.
_MOST_BYTES = 8 * 1024 * 1024
#: Far more than all modalities of a house may leave there; more were put there by nobody who means well.
_MOST_FILES = 100_000
_NAME = re.compile(r"(?P<id>[A-Za-z0-9][A-Za-z0-9_.-]{0,62}-[0-9a-f]{24})\.(?P<kind>request|result|reported)\Z")
#: The folder is for the two alone; what the daemon writes there has its own user and is for the receiver as well.
_MODE = 0o664


_T = TypeVar("_T")


class Kind(StrEnum):
    REQUEST = "request"
    RESULT = "result"
    REPORTED = "reported"


class Reason(IntEnum):
    """Why an instance is not committed to: Failure Reason (0008,1197), PS3.3 section C.14."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119


class Unreadable(Exception):
    """A file in the folder is not what either of the two has put there."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A SOP Instance that a modality wants to be sure of."""

    sop_class_uid: Uid
    sop_instance_uid: Uid


@dataclass(frozen=True, slots=True)
class Request:
    """``receiver`` is the one that it came to, by its name; ``received_at`` is in seconds since the epoch."""

    receiver: str
    transaction_uid: Uid
    received_at: float
    references: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """``failed`` are those of the request's references, by their place, to which nobody commits; the archive provably
    held all the others when it was asked, at ``judged_at`` or later."""

    judged_at: float
    failed: Mapping[int, Reason]


class CommitmentFolder:
    """Open as long as it is used; to be left as a context, or closed. Its methods raise OSError where the folder does
    not do what it is asked for."""

    def __init__(self, path: Path) -> None:
        """Raises Misconfigured."""
        try:
            self.fd = localfiles.open_root(str(path))
            self._closing = weakref.finalize(self, os.close, self.fd)
        except OSError as error:
            raise Misconfigured(
                "the folder of commitments cannot be opened",
                code="commitment-folder",
                path=str(path),
                hint="make it, and let the receiver's and the daemon's user write to it (docs/operations.md)",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Otherwise it is closed with the last who uses it."""
        self._closing()

    def require_writable(self) -> None:
        """Raises Misconfigured."""
        try:
            os.close(localfiles.open_unnamed(self.fd, _MODE))
        except OSError as error:
            raise Misconfigured(
                "nothing can be stored in the folder of commitments",
                code="commitment-folder",
                hint="its users must be able to write to it, and its file system must know O_TMPFILE: a local one"
                " does, a network share does not",
            ) from error

    def requests(self) -> dict[str, set[Kind]]:
        """What is there of each request, by its id."""
        found: dict[str, set[Kind]] = {}
        fd = localfiles.opened_again(self.fd)
        try:
            with os.scandir(fd) as entries:
                names = [entry.name for entry in islice(entries, _MOST_FILES)]
        finally:
            os.close(fd)
        for name in names:
            if match := _NAME.match(name):
                found.setdefault(match["id"], set()).add(Kind(match["kind"]))
        return found

    def keep_request(self, destination: str, request: Request) -> str:
        """The id of a new request, to be reported to the destination of that name; it is on the disk then."""
        document = {
            "format": _FORMAT,
            "receiver": request.receiver,
            "transaction_uid": request.transaction_uid,
            "received_at": request.received_at,
            "references": [[one.sop_class_uid, one.sop_instance_uid] for one in request.references],
        }
        request_id = f"{destination}-{secrets.token_hex(12)}"
        self._put(request_id, Kind.REQUEST, document)
        return request_id

    def keep_result(self, request_id: str, result: Result) -> None:
        """Raises FileExistsError where there is one."""
        failed = {str(index): int(reason) for index, reason in result.failed.items()}
        self._put(request_id, Kind.RESULT, {"format": _FORMAT, "judged_at": result.judged_at, "failed": failed})

    def keep_reported(self, request_id: str) -> None:
        self._put(request_id, Kind.REPORTED, {"format": _FORMAT})

    def request(self, request_id: str) -> Request:
        """Raises Unreadable, OSError."""
        return self._read(request_id, Kind.REQUEST, _request)

    def result(self, request_id: str) -> Result:
        """Raises Unreadable."""
        return self._read(request_id, Kind.RESULT, _result)

    def _put(self, request_id: str, kind: Kind, document: Mapping[str, Any]) -> None:
        data = json.dumps(document).encode("ascii")
        localfiles.put_whole(self.fd, name_of(request_id, kind), data, _MODE)

    def _read(self, request_id: str, kind: Kind, of_document: Callable[[Any], _T]) -> _T:
        try:
            with localfiles.regular_file(self.fd, name_of(request_id, kind)) as fd:
                data = b""
                while len(data) <= _MOST_BYTES and (piece := os.read(fd, _MOST_BYTES)):
                    data += piece
        except localfiles.NotRegular as error:
            raise Unreadable from error
        try:
            document = json.loads(data) if len(data) <= _MOST_BYTES else {}
            if document["format"] != _FORMAT:
                raise ValueError("another format")
            return of_document(document)
        except (
            ArithmeticError,
            AttributeError,
            InvalidUid,
            KeyError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            raise Unreadable from error


def name_of(request_id: str, kind: Kind) -> bytes:
    return f"{request_id}.{kind}".encode("ascii")


def destination_of(request_id: str) -> str:
    """The name of the destination that it is to be reported to."""
    return request_id.rpartition("-")[0]


def _request(document: Any) -> Request:
    references = tuple(Reference(Uid(sop_class), Uid(instance)) for sop_class, instance in document["references"])
    if not 0 < len(references) <= MOST_INSTANCES:
        raise ValueError("no instances, or too many")
    return Request(
        str(document["receiver"]), Uid(document["transaction_uid"]), _time(document["received_at"]), references
    )


def _result(document: Any) -> Result:
    return Result(
        _time(document["judged_at"]), {int(index): Reason(reason) for index, reason in document["failed"].items()}
    )


def _time(said: Any) -> float:
    seconds = float(said)
    if not math.isfinite(seconds):
        raise ValueError("no time")
    return seconds
