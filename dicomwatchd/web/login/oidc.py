"""What a log-in at the provider needs: the provider, and the cookie that brings a browser's own log-in back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
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
_LOGIN_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Begun:
    """A log-in on its way: where the browser goes, and what has to be known when it comes back."""

    url: str
    state: str
    nonce: str
    code_verifier: str


@dataclass(frozen=True, slots=True)
class Known:
    """What the provider says of somebody."""

    name: str
    groups: tuple[str, ...]


class LoginRefused(Permanent):
    """What came back from the provider is no log-in that was begun here, or not one of this provider's."""

    code = "oidc"


@dataclass(frozen=True, slots=True)
class Oidc:
    provider: Provider
    signed: Signed
    cookie: Cookie
    roles: WebRoles

    def keep(self, response: Response, begun: Begun, after: str) -> None:
        """In the browser, until it is back."""
        sealed = self.signed.seal({**asdict(begun), "after": after}, _LOGIN_SECONDS)
        self.cookie.put(response, sealed, max_age_seconds=_LOGIN_SECONDS)

    def kept(self, scope: Scope) -> tuple[Begun, str]:
        """The log-in that this browser has begun, and where it goes then. Raises LoginRefused, HTTPException."""
        found = self.signed.open(self.cookie.of(scope) or "")
        if found is None:
            raise LoginRefused("no log-in was begun in this browser, or too long ago")
        after = found.pop("after")
        return Begun(**found), after

    def person(self, known: Known) -> Person:
        """Raises LoginRefused."""
        person = known_by(self.roles, known.name, known.groups)
        if person is None:
            raise LoginRefused("the provider's name for the person is none")
        return person
