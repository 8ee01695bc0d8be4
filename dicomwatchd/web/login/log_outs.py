"""Log-outs that the provider tells us of: which of its logout tokens count (OpenID Connect Back-Channel Logout 1.0,
sections 2.4 and 2.6), and each once. Whether the signature holds has been settled before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from dicomwatchd.ports import Clock
from dicomwatchd.web.login.oidc import LoginRefused

EVENT = "http://schemas.openid.net/event/backchannel-logout"
#: Of other kinds of JWT, which the same keys sign, none may pass for a logout token.
_TYPES = frozenset({"logout+jwt", "application/logout+jwt", "jwt"})
_LONGEST_SECONDS = 300.0
_CLOCK_SKEW_SECONDS = 60.0
_MOST_CHARACTERS = 512
#: By their number and not by time: a clock that is set back would have old ones count again.
_MOST_SEEN = 10_000


@dataclass(frozen=True, slots=True)
class LogOut:
    """Of one session at the provider, by its ``sid``, or of all that the person ``sub`` has, where that is None."""

    sub: str | None
    sid: str | None


class LogOuts:
    """To be used from one event loop."""

    def __init__(self, issuer: str, client_id: str, clock: Clock) -> None:
        self._issuer, self._client_id, self._clock = issuer, client_id, clock
        self._seen: OrderedDict[str, None] = OrderedDict()

    def accept(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> LogOut:
        """What a logout token means. The same one is refused from then on. Raises LoginRefused."""
        if str(header.get("typ", "jwt")).lower() not in _TYPES:
            raise LoginRefused("the token is of another type than a logout token")
        if claims.get("iss") != self._issuer:
            raise LoginRefused("the logout token is another issuer's")
        audience = claims.get("aud")
        if self._client_id not in (audience if isinstance(audience, list) else [audience]):
            raise LoginRefused("the logout token is for another client")
        events = claims.get("events")
        if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict):
            raise LoginRefused("the token does not say that somebody has logged out")
        if "nonce" in claims:
            raise LoginRefused("a logout token has no nonce: this one is something else")
        self._require_recent(claims)
        sub, sid, jti = (_text(claims, name) for name in ("sub", "sid", "jti"))
        if sub is None and sid is None:
            raise LoginRefused("the logout token names neither a person nor a session")
        if jti is None:
            raise LoginRefused("the logout token has no jti")
        if jti in self._seen:
            raise LoginRefused("the logout token was there before")
        self._seen[jti] = None
        if len(self._seen) > _MOST_SEEN:
            self._seen.popitem(last=False)
        return LogOut(sub, sid)

    def _require_recent(self, claims: Mapping[str, Any]) -> None:
        """By ``iat`` too, since some providers give no ``exp``. Raises LoginRefused."""
        now, issued, ends = self._clock.now(), claims.get("iat"), claims.get("exp", float("inf"))
        if not _is_time(issued) or not _is_time(ends):
            raise LoginRefused("the logout token does not say when it was made")
        if not now - _LONGEST_SECONDS - _CLOCK_SKEW_SECONDS <= issued <= now + _CLOCK_SKEW_SECONDS:
            raise LoginRefused("the logout token is not of now", hint="compare the clocks of both machines")
        if ends + _CLOCK_SKEW_SECONDS <= now:
            raise LoginRefused("the logout token has ended")


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(claims: Mapping[str, Any], name: str) -> str | None:
    """None where it is not there. Raises LoginRefused for what is no text of a usual length."""
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_CHARACTERS:
        raise LoginRefused(f"the logout token's {name} is none")
    return value
