"""What a log-in at the provider needs: the provider, and the cookie that brings a browser's own log-ins back."""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.types import Scope

from dicomwatchd.config.web import WebRoles
from dicomwatchd.errors import Permanent
from dicomwatchd.web.login.cookies import Cookie
from dicomwatchd.web.login.roles import known_by
from dicomwatchd.web.login.signed import Signed
from dicomwatchd.web.people import Person

if TYPE_CHECKING:
    from dicomwatchd.web.login.provider import Provider

COOKIE = "dicomwatchd-login"
CALLBACK = "/login/callback"
BACK_CHANNEL = "/login/back-channel"
_LOGIN_SECONDS = 600
#: A browser with several tabs may have begun several; the newest count.
_MOST_BEGUN = 4
#: Browsers keep 4,096 of a cookie with its name.
_MOST_COOKIE_CHARACTERS = 3800
_MOST_AFTER = 2300


@dataclass(frozen=True, slots=True)
class Begun:
    """A log-in on its way: where the browser goes, and what has to be known when it comes back."""

    url: str
    state: str
    nonce: str
    code_verifier: str


@dataclass(frozen=True, slots=True)
class Known:
    """What the provider says of somebody; ``sid`` is its own session, where it names that."""

    name: str
    groups: tuple[str, ...]
    sub: str
    sid: str | None


class LoginRefused(Permanent):
    """What came back from the provider is no log-in that was begun here, or not one of this provider's."""

    code = "oidc"


@dataclass(frozen=True, slots=True)
class Oidc:
    provider: Provider
    signed: Signed
    cookie: Cookie
    roles: WebRoles

    def keep(self, scope: Scope, response: Response, begun: Begun, after: str) -> None:
        """In the browser, until it is back. Raises HTTPException."""
        if len(json.dumps(after)) > _MOST_AFTER:
            after = "/"
        now = {"state": begun.state, "nonce": begun.nonce, "code_verifier": begun.code_verifier, "after": after}
        self._put(response, [now, *self._all(scope)])

    def kept(self, scope: Scope, state: str) -> tuple[Begun, str]:
        """The log-in of this state, which this browser has begun, and where it goes then. Raises LoginRefused,
        HTTPException."""
        for one in self._all(scope):
            if hmac.compare_digest(one["state"].encode(), state.encode("utf-8", "surrogatepass")):
                return Begun("", one["state"], one["nonce"], one["code_verifier"]), one["after"]
        raise LoginRefused("this log-in was not begun in this browser, or too long ago")

    def forget(self, scope: Scope, response: Response, begun: Begun) -> None:
        """This one; those of other tabs go on. Raises HTTPException."""
        self._put(response, [one for one in self._all(scope) if one["state"] != begun.state])

    def _all(self, scope: Scope) -> list[dict[str, str]]:
        found: list[dict[str, str]] | None = self.signed.open(self.cookie.of(scope) or "")
        return found or []

    def _put(self, response: Response, all_of: list[dict[str, str]]) -> None:
        if not all_of:
            self.cookie.take(response)
            return
        for count in range(min(len(all_of), _MOST_BEGUN), 0, -1):
            sealed = self.signed.seal(all_of[:count], _LOGIN_SECONDS)
            if len(sealed) <= _MOST_COOKIE_CHARACTERS:
                break
        self.cookie.put(response, sealed, max_age_seconds=_LOGIN_SECONDS)

    def person(self, known: Known) -> Person:
        """Raises LoginRefused."""
        person = known_by(self.roles, known.name, known.groups)
        if person is None:
            raise LoginRefused("the provider's name for the person is none")
        return person
