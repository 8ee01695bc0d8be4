"""The provider of OpenID Connect, by Authlib: authorization code flow with PKCE (OpenID Connect Core 1.0, RFC 7636).

The provider's description is read again now and then, and its keys with it: a key that it has withdrawn is not taken
for longer than that. One that it has newly is fetched when the first token comes that is signed with it.
"""

from __future__ import annotations

import asyncio
import hmac
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import StarletteOAuth2App
from joserfc.errors import JoseError

from dicomwatchd.config.web import WebOidc, is_local
from dicomwatchd.errors import Misconfigured, Permanent, Transient
from dicomwatchd.ports import Clock
from dicomwatchd.web.login.oidc import Begun, Known, LoginRefused

#: Signatures with the provider's own key alone: a shared secret would make whoever has it the provider.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
_DESCRIPTION_SECONDS = 3600.0
_TIMEOUT_SECONDS = 10.0
_CLOCK_SKEW_SECONDS = 60
#: To be reached by https, or on this machine.
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class Provider:
    """To be used from one event loop. ``callback`` is our address that the provider sends browsers back to."""

    def __init__(self, settings: WebOidc, secret: str, callback: str, clock: Clock) -> None:
        """Raises Misconfigured."""
        self._settings, self._secret, self._callback, self._clock = settings, secret, callback, clock
        self._context = _trusting(settings)
        self._app: StarletteOAuth2App | None = None
        self._described_at = 0.0
        self._lock = asyncio.Lock()

    async def begin(self) -> Begun:
        """Raises Transient, Permanent."""
        with _translated():
            app = await self._current()
            made = await app.create_authorization_url(self._callback)
        return Begun(made["url"], made["state"], made["nonce"], made["code_verifier"])

    async def finish(self, begun: Begun, answer: dict[str, str]) -> Known:
        """``answer`` is what the browser has brought back. Raises Transient, Permanent, LoginRefused."""
        if not hmac.compare_digest(answer.get("state", "").encode(), begun.state.encode()):
            raise LoginRefused("the state is another one: the log-in was begun elsewhere")
        with _translated():
            app = await self._current()
            described = app.server_metadata
            # RFC 9207: an answer of another provider's, sent on by its client.
            issuer = answer.get("iss")
            if described.get("authorization_response_iss_parameter_supported") and issuer is None:
                raise LoginRefused("the answer does not name its issuer")
            if issuer is not None and issuer != self._settings.issuer:
                raise LoginRefused("the answer is another issuer's")
            if "code" not in answer:
                raise LoginRefused("the provider has let nobody in")
            token = await app.fetch_access_token(
                code=answer["code"], code_verifier=begun.code_verifier, redirect_uri=self._callback
            )
            claims = await app.parse_id_token(
                token,
                nonce=begun.nonce,
                claims_options={
                    "iss": {"essential": True, "value": self._settings.issuer},
                    "aud": {"essential": True, "value": self._settings.client_id},
                },
                leeway=_CLOCK_SKEW_SECONDS,
            )
            if claims is None:
                raise LoginRefused("there is no ID token")
            return await self._known(app, token, dict(claims))

    async def logout_url(self, back: str) -> str | None:
        """Where a person ends the session at the provider; None where it has no such place. Raises nothing."""
        try:
            with _translated():
                end = (await self._current()).server_metadata.get("end_session_endpoint")
        except (Transient, Permanent):
            return None
        if not isinstance(end, str) or not _is_safe(end):
            return None
        return f"{end}?{urlencode({'client_id': self._settings.client_id, 'post_logout_redirect_uri': back})}"

    async def _known(self, app: StarletteOAuth2App, token: dict[str, Any], claims: dict[str, Any]) -> Known:
        """Some providers say it in the ID token, others to whoever asks with the access token."""
        wanted = (self._settings.name_claim, self._settings.groups_claim)
        if any(one not in claims for one in wanted) and app.server_metadata.get("userinfo_endpoint"):
            more = dict(await app.userinfo(token=token))
            if more.get("sub") != claims.get("sub"):
                raise LoginRefused("what the provider says of somebody is another one's")
            claims = {**more, **claims}
        name, groups = (claims.get(one) for one in wanted)
        if not isinstance(name, str):
            raise LoginRefused("the provider does not say the person's name (web.oidc.name_claim)")
        if isinstance(groups, str):
            groups = [groups]
        return Known(name, tuple(one for one in groups or () if isinstance(one, str)))

    async def _current(self) -> StarletteOAuth2App:
        """With the provider's description, not older than that may be."""
        async with self._lock:
            now = self._clock.monotonic()
            if self._app is None or now - self._described_at > _DESCRIPTION_SECONDS:
                self._app, self._described_at = await self._described(), now
            return self._app

    async def _described(self) -> StarletteOAuth2App:
        issuer = self._settings.issuer
        app = StarletteOAuth2App(
            None,
            "oidc",
            client_id=self._settings.client_id,
            client_secret=self._secret,
            server_metadata_url=f"{issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={
                "scope": " ".join(dict.fromkeys(("openid", *self._settings.scopes))),
                "code_challenge_method": "S256",
                "verify": self._context,
                "timeout": _TIMEOUT_SECONDS,
                "leeway": 0,  # an access token is used at once: with Authlib's 60 s one of a minute would be none
            },
        )
        described = await app.load_server_metadata()
        if described.get("issuer") != issuer:
            raise Permanent(
                "the provider calls itself another name than web.oidc.issuer", code="oidc", hint="they must be the same"
            )
        if not all(_is_safe(described.get(one)) for one in _ENDPOINTS):
            raise Permanent("the provider's endpoints are not to be reached by https", code="oidc")
        offered = described.get("id_token_signing_alg_values_supported", ["RS256"])
        described["id_token_signing_alg_values_supported"] = [one for one in offered if one in _ALGORITHMS]
        return app


def _is_safe(url: object) -> bool:
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_local(parts.hostname or ""))


def _trusting(settings: WebOidc) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ValueError) as error:
        raise Misconfigured("the certificates of web.oidc.ca_file cannot be used", code="web-tls") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise Transient("the provider of the log-in refuses to answer", code="oidc") from error
    except httpx.HTTPError as error:
        raise Transient(
            "the provider of the log-in cannot be reached", code="oidc", hint="web.oidc.issuer, and the way to it"
        ) from error
    except (AuthlibBaseError, JoseError) as error:
        raise LoginRefused("the provider's answer does not hold") from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise Permanent("the provider's answer cannot be understood", code="oidc") from error
