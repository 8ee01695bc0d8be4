"""The outermost layer: headers of every answer, errors as plain pages or JSON, and a line of the log for each request.

What is logged names neither who asked nor what for: a study's UID, a query and a file's name are in the address.
"""

from __future__ import annotations

import html
import json
from http import HTTPStatus
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicomwatchd.errors import ColdObject, DicomwatchdError, InvalidUid, NoSuchObject, StudyNotFound, Transient
from dicomwatchd.ports import Clock, Log
from dicomwatchd.telemetry.fields import error_fields
from dicomwatchd.web.languages import language_of

#: Nothing from elsewhere, no script in the page itself, no frame around it. A room that needs more says so itself.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self';"
    " connect-src 'self'; media-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_HSTS = "max-age=31536000"
_RETRY_SECONDS = 10


class Answers:
    """ASGI. ``secure``: whether browsers come by https."""

    def __init__(self, app: ASGIApp, log: Log, clock: Clock, *, secure: bool) -> None:
        self._app, self._log, self._clock = app, log, clock
        self._headers = {**_HEADERS, **({"Strict-Transport-Security": _HSTS} if secure else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        scope["app"] = self  # so that routes leave to us what is said of a method that they do not have
        began, status, sent_bytes = self._clock.monotonic(), 0, 0

        async def answering(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                self._complete(MutableHeaders(scope=message))
            elif message["type"] == "http.response.body":
                sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, answering)
        except ClientDisconnect:
            pass
        except HTTPException as error:
            if status:
                raise
            await respond(scope, answering, error.status_code, headers=dict(error.headers or {}))
        except DicomwatchdError as error:
            self._say(error)
            if status:
                raise _Torn from None
            await respond(scope, answering, *_meaning(error))
        except Exception as error:  # noqa: BLE001  the top of a request: the others go on
            self._log.error("web-failed", "a request failed", route=route_of(scope), **error_fields(error))
            if status:
                raise _Torn from None  # what was begun is cut off, and does not pass for whole
            await respond(scope, answering, 500)
        finally:
            self._log.info(
                "web-request",
                "{http_method} {route}: {http_status}",
                http_method=scope["method"] if scope["method"] in _METHODS else "OTHER",
                route=route_of(scope),
                http_status=status,
                peer=peer_of(scope),
                seconds=self._clock.monotonic() - began,
                bytes=sent_bytes,
            )

    def _complete(self, headers: MutableHeaders) -> None:
        for name, value in self._headers.items():
            headers.setdefault(name, value)
        headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        # No cache that others share, whatever a room has said.
        if "public" in headers.get("Cache-Control", "public") or "s-maxage" in headers["Cache-Control"]:
            headers["Cache-Control"] = "no-store"

    def _say(self, error: DicomwatchdError) -> None:
        if isinstance(error, StudyNotFound | InvalidUid):
            return
        self._log.warning("web-refused", "a request could not be answered", **error_fields(error))


class _Torn(Exception):
    """An answer that was begun and cannot be ended: the connection is closed in the middle of it."""


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


def peer_of(scope: Scope) -> str | None:
    """The address at the other end of the connection."""
    client = scope.get("client")
    try:
        return str(ip_address(client[0].split("%")[0])) if client else None
    except ValueError:
        return None


def route_of(scope: Scope) -> str:
    """What has answered, by the name of its function: a constant of the program, and not what was asked for."""
    name = str(getattr(scope.get("endpoint"), "__name__", "none")).strip("_").replace("_", "-").lower()
    return name[:64] or "none"


def _meaning(error: DicomwatchdError) -> tuple[int, str, dict[str, str]]:
    """(status, code, headers)"""
    match error:
        case StudyNotFound() | NoSuchObject():
            return 404, error.code, {}
        case InvalidUid():
            return 400, error.code, {}
        case ColdObject():
            return 409, error.code, {}
        case Transient():
            return 503, error.code, {"Retry-After": str(int(error.retry_after_seconds or _RETRY_SECONDS))}
    return 500, error.code, {}


#: What a person is told, who cannot look it up; in English for programs, too.
_WORDS = {
    "en": {
        400: "The request cannot be understood.",
        401: "You have to log in.",
        403: "You may not do that.",
        404: "There is nothing here.",
        409: "This is in cold storage, and has to be restored before it can be read.",
        413: "That is too much.",
        421: "This place is not called that.",
        429: "Too many requests. Wait a little.",
        503: "The archive cannot be reached just now. Try again in a moment.",
    },
    "de": {
        400: "Die Anfrage ist nicht zu verstehen.",
        401: "Sie müssen sich anmelden.",
        403: "Das dürfen Sie nicht.",
        404: "Hier ist nichts.",
        409: "Das liegt im Kaltspeicher und muss erst zurückgeholt werden.",
        405: "Das geht hier nicht.",
        413: "Das ist zu viel.",
        414: "Die Adresse ist zu lang.",
        421: "So heißt diese Stelle nicht.",
        429: "Zu viele Anfragen. Warten Sie ein wenig.",
        500: "Hier ist etwas schiefgegangen. Sagen Sie es denen, die diese Seite betreuen.",
        503: "Das Archiv ist gerade nicht zu erreichen. Versuchen Sie es gleich noch einmal.",
    },
}
_BACK = {"en": "Back to the list", "de": "Zurück zur Liste"}


#: Of requests that were none: what comes behind one on the same connection is not looked at.
_UNSOUND = frozenset({400, 405, 413, 414, 421})


async def respond(
    scope: Scope, send: Send, status: int, code: str | None = None, headers: dict[str, str] | None = None
) -> None:
    """A page for who asks for one, JSON for everybody else; neither says more than the status does."""
    phrase = HTTPStatus(status).phrase
    code = code or phrase.lower().replace(" ", "-").replace("'", "")
    wants_page = "text/html" in Headers(scope=scope).get("accept", "")
    language = language_of(Request(scope)) if wants_page else "en"
    words = _WORDS[language].get(status, phrase + ".")
    if wants_page:
        kind = "text/html; charset=utf-8"
        back = f'<p><a href="/">{_BACK[language]}</a></p>' if status not in (401, 421) else ""
        title, text = (phrase, f"<p>{html.escape(words)}</p>") if language == "en" else (words, "")
        body = (
            f'<!doctype html><html lang="{language}"><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f"<h1>{html.escape(title)}</h1>{text}{back}</html>"
        ).encode()
    else:
        kind = "application/json"
        body = json.dumps({"error": code, "message": words}).encode()
    given = MutableHeaders(headers=headers or {})
    given["Content-Type"], given["Content-Length"] = kind, str(len(body))
    given["Cache-Control"] = "no-store"
    if status in _UNSOUND:
        given["Connection"] = "close"
    await send({"type": "http.response.start", "status": status, "headers": given.raw})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
