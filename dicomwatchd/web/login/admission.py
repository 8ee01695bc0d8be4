"""Who asks: settled for every request before it reaches a room, and nothing is open to whoever is nobody."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from dicomwatchd.access.tokens import Tokens
from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.ports import Log
from dicomwatchd.telemetry.fields import error_fields
from dicomwatchd.web.answers import peer_of
from dicomwatchd.web.clients import plain
from dicomwatchd.web.login.cookies import Cookie
from dicomwatchd.web.login.oidc import BACK_CHANNEL, CALLBACK, Oidc
from dicomwatchd.web.login.proxy import ProxysWord
from dicomwatchd.web.login.roles import of_token
from dicomwatchd.web.login.sessions import Sessions
from dicomwatchd.web.people import Person
from dicomwatchd.web.rates import Rate
from dicomwatchd.web.requests import comes_from_ourselves

LOGIN = "/login"
#: What is answered to whoever has not logged in, to the letter.
OPEN = frozenset({LOGIN, "/login/oidc", CALLBACK, BACK_CHANNEL, "/login/style.css", "/logout", "/health"})
#: What no browser asks, and no cookie counts for: who asks there shows it by a signature.
_SIGNED = frozenset({BACK_CHANNEL})
SESSION_COOKIE = "dicomwatchd"


@dataclass(frozen=True, slots=True)
class Doors:
    """The ways to be somebody; None for those that the configuration does not have. ``origin`` is our own."""

    origin: str
    sessions: Sessions
    cookie: Cookie
    tokens: Tokens | None
    proxy: ProxysWord | None
    oidc: Oidc | None
    failures: Rate
    requests: Rate
    log: Log

    def client(self, scope: Scope) -> str:
        """Where a request comes from, for counting."""
        return plain((self.proxy.client(scope) if self.proxy is not None else peer_of(scope)) or "unknown")

    def failed(self, scope: Scope, reason: str, error: DicomwatchdError | None = None) -> None:
        """Somebody was not who he said he was."""
        self.failures.count(self.client(scope))
        self.refused(scope, reason, error)

    def refused(self, scope: Scope, reason: str, error: DicomwatchdError | None = None) -> None:
        """The same, where it is no try: it does not count against his address."""
        self.log.warning(
            "web-login-refused",
            "a log-in was refused: {reason}",
            reason=reason,
            peer=peer_of(scope),
            **(error_fields(error) if error is not None else {}),
        )

    def require_patience(self, scope: Scope) -> None:
        """Raises HTTPException where this address has failed too often."""
        if wait := self.failures.wait_seconds(self.client(scope)):
            raise HTTPException(429, headers={"Retry-After": str(ceil(wait))})


class Admission:
    """ASGI: sets ``person`` of the request's state."""

    def __init__(self, app: ASGIApp, doors: Doors) -> None:
        self._app, self._doors = app, doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        doors = self._doors
        person, is_ambient = (None, False) if scope["path"] in _SIGNED else self._who(scope)
        key = person.name if person is not None else f"address {doors.client(scope)}"
        if wait := doors.requests.wait_seconds(key):
            raise HTTPException(429, headers={"Retry-After": str(ceil(wait))})
        doors.requests.count(key)
        if is_ambient and not comes_from_ourselves(scope, doors.origin):
            doors.log.warning("web-cross-site", "another site's request was refused", peer=peer_of(scope))
            raise HTTPException(403)
        scope["state"]["person"] = person
        if person is None and scope["path"] not in OPEN:
            if _is_navigation(scope):
                await RedirectResponse(_login_for(scope), 303)(scope, receive, send)
                return
            raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"} if doors.tokens else None)
        await self._app(scope, receive, send)

    def _who(self, scope: Scope) -> tuple[Person | None, bool]:
        """And whether a browser says so by itself, whichever site has made the request. Raises HTTPException."""
        doors = self._doors
        scheme, _, said = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and doors.tokens is not None:  # another scheme is the proxy's affair
            return self._bearer(scope, said), False
        if doors.proxy is not None and (person := doors.proxy.person(scope)) is not None:
            return person, True
        value = doors.cookie.of(scope)
        found = doors.sessions.find(value) if value else None
        if value is None or found is None:
            return None, True
        if found.token_sha256 is None:
            return found.person, True
        # With the roles that the token has now.
        token = doors.tokens.holding(found.token_sha256) if doors.tokens is not None else None
        if token is None:
            doors.sessions.end(value)
            return None, True
        return of_token(token), True

    def _bearer(self, scope: Scope, said: str) -> Person:
        doors = self._doors
        token = doors.tokens.named_by(said.strip()) if doors.tokens is not None else None
        if token is None:  # who has a right one is not held up by a neighbour's wrong ones: nobody can guess 256 bits
            doors.require_patience(scope)
            doors.failed(scope, "token")
            raise HTTPException(401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        return of_token(token)


def _is_navigation(scope: Scope) -> bool:
    """Whether a person has asked for a page, and no script for data."""
    headers = Headers(scope=scope)
    if scope["method"] != "GET":
        return False
    mode = headers.get("sec-fetch-mode")
    return "text/html" in headers.get("accept", "") and mode in (None, "navigate")


def _login_for(scope: Scope) -> str:
    wanted = scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
    return LOGIN if wanted == "/" else f"{LOGIN}?next={quote(wanted, safe='/')}"
