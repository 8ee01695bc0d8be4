"""Refusals of DICOMweb, and what HTTP makes of the program's errors.

A body is ``{"error": code, "message": text, "hint": text}``. It never holds a value of a request or of a file.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response

from dicomwatchd.errors import (
    ColdObject,
    DicomwatchdError,
    Fatal,
    InvalidUid,
    Permanent,
    StudyErased,
    StudyNotFound,
    Transient,
)
from dicomwatchd.fetch.folder import DiskFull
from dicomwatchd.fetch.sources import BadObject

#: Amazon's standard retrieval takes 3 to 5 hours, and somebody has to ask for it first.
COLD_RETRY_SECONDS = 4 * 3600
_RETRY_SECONDS = 5
_LONGEST_RETRY_SECONDS = 600


class Refused(Permanent):
    """What is asked cannot be had, as it is asked. ``status`` is HTTP's (RFC 9110 section 15)."""

    code = "bad-request"
    status = 400


class NotFound(Refused):
    """The study, as the archive has it now, has no such series, instance, frame or element."""

    code = "not-found"
    status = 404


class NotAcceptable(Refused):
    """None of the media types, or transfer syntaxes, that the client takes is one of the resource's."""

    code = "not-acceptable"
    status = 406


class TooMuch(Refused):
    """More is asked for in one request than is answered."""

    code = "too-much"
    status = 413


class TooSlow(Refused):
    """Whoever asked for it takes it too slowly (said in the log: the answer was begun)."""

    code = "too-slow"
    status = 408


class NoRoom(Transient):
    """Too much is being taken by others, or by the same person, just now."""

    code = "no-room"


class Unsound(Refused):
    """It is archived, and not handed out here as if it were sound: the damaged, the conflicting, and what belongs to a
    study of two patients."""

    code = "unsound"
    status = 409


class NotRenderable(Refused):
    """There is no picture of it: no pixels, or none that can be decoded or that fit in memory."""

    code = "not-renderable"
    status = 406


def status_of(error: DicomwatchdError) -> int:
    """The HTTP status of an answer that says this error."""
    match error:
        case Refused():
            return error.status
        case InvalidUid():
            return 400
        case StudyErased():
            return 410
        case StudyNotFound():
            return 404
        case ColdObject() | Transient() | DiskFull():
            return 503
        case BadObject():
            return 502  # the store has not given what it was given
        case Fatal():
            return 503
        case _:
            return 500


def answer(error: DicomwatchdError, headers: Mapping[str, str] | None = None) -> Response:
    """The answer in place of what was asked for. A message about the archive is for those who run it: it is in the
    log, and whoever asks learns its code."""
    status = status_of(error)
    body = {"error": error.code, "message": error.message}
    if error.hint and isinstance(error, Refused | ColdObject):
        body["hint"] = error.hint
    if isinstance(error, StudyErased):
        body["message"] = "the study was erased from the archive"
    elif status >= 500 and not isinstance(error, ColdObject | BadObject):
        body["message"] = "the archive cannot answer this now"
    sent = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})}
    if isinstance(error, ColdObject):
        sent["Retry-After"] = str(COLD_RETRY_SECONDS)
    elif status == 503:
        wanted = getattr(error, "retry_after_seconds", None) or _RETRY_SECONDS
        sent["Retry-After"] = str(int(min(max(wanted, 1), _LONGEST_RETRY_SECONDS)))
    return JSONResponse(body, status, headers=sent)
