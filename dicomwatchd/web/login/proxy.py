"""A reverse proxy's word on who somebody is: believed from its addresses, with its secret, and from nobody else."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Scope

from dicomwatchd.config.web import WebProxy
from dicomwatchd.web.answers import peer_of
from dicomwatchd.web.clients import address_of
from dicomwatchd.web.people import Person

#: By a person's name and groups; None for what is no name.
Known = Callable[[str, Sequence[str]], Person | None]

_FORWARDED_FOR = "x-forwarded-for"


class ProxysWord:
    """``secret`` is what the proxy sends along, None where its address alone tells that it is it."""

    def __init__(self, settings: WebProxy, secret: str | None, known: Known) -> None:
        self._settings, self._secret, self._known = settings, secret, known

    def person(self, scope: Scope) -> Person | None:
        """Whom the proxy names; None where it names nobody, or it is not the proxy that speaks. Raises HTTPException
        where it says something twice: a header of the client's has gone through beside its own."""
        if not self._is_the_proxy(scope):
            return None
        name = self._said(scope, self._settings.user_header)
        if not name:
            return None
        groups = self._said(scope, self._settings.groups_header) if self._settings.groups_header else None
        return self._known(name, [one.strip() for one in (groups or "").split(",") if one.strip()])

    def client(self, scope: Scope) -> str | None:
        """The address that the request comes from: the last one that the proxy has added, or the peer's own."""
        peer = peer_of(scope)
        if not self._is_the_proxy(scope):
            return peer
        said = address_of(",".join(Headers(scope=scope).getlist(_FORWARDED_FOR)).rpartition(",")[2].strip())
        return peer if said is None else str(said)

    def _is_the_proxy(self, scope: Scope) -> bool:
        peer = peer_of(scope)
        if peer is None or not self._settings.speaks_from(ip_address(peer)):
            return False
        if self._secret is None:
            return True
        said = self._said(scope, self._settings.secret_header) or ""
        return hmac.compare_digest(said.encode(), self._secret.encode())

    @staticmethod
    def _said(scope: Scope, header: str) -> str | None:
        """As directories and proxies write names today, which is UTF-8, or as they did (RFC 9110, section 5.5)."""
        found = Headers(scope=scope).getlist(header)
        if len(found) > 1:
            raise HTTPException(400)
        if not found:
            return None
        octets = found[0].encode("latin-1")
        try:
            return octets.decode().strip()
        except UnicodeDecodeError:
            return octets.decode("latin-1").strip()
