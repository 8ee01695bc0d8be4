"""The provider of OpenID Connect, by Authlib: authorization code flow with PKCE (OpenID Connect Core 1.0, RFC 7636).

The provider's description is read again now and then, and its keys with it: a key that it has withdrawn is not taken
for longer than that. One that it has newly is fetched when the first token comes that is signed with it. Log-outs come
in crowds, when a provider ends all sessions: the keys are fetched for all of them once, and none is refused for a key
that nobody has looked for, since a provider sends one that was refused never again.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import StarletteOAuth2App
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from dicomwatchd.config.web import WebOidc, is_local
from dicomwatchd.errors import Misconfigured, Permanent, Transient
from dicomwatchd.ports import Clock
from dicomwatchd.web.login.conversations import Conversations, Kept, Waiting
from dicomwatchd.web.login.log_outs import LogOut, LogOuts
from dicomwatchd.web.login.oidc import Begun, Known, LoginRefused

#: Signatures with the provider's own key alone: a shared secret would make whoever has it the provider.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
_DESCRIPTION_SECONDS = 3600.0
#: For each step of an exchange, and for the few exchanges that a log-in or a log-out needs.
_TIMEOUT_SECONDS = 4.0
_CONVERSATION_SECONDS = 10.0
_MOST_CONVERSATIONS = 8
#: Of anybody who wants in, and of log-outs: each costs a connection, and half of those are left to others.
_MOST_LOG_INS_WAITING, _MOST_LOG_OUTS_WAITING = 16, 256
#: A provider that was not there is not asked again for so long.
_REST_SECONDS = 5.0
#: Whoever sends tokens with keys that nobody knows has them fetched no oftener.
_KEYS_SECONDS = 30.0
_CLOCK_SKEW_SECONDS = 60
_MOST_TOKEN_CHARACTERS = 16 << 10
#: To be reached by https, or on this machine.
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_MAY_BE_MISSING = ("userinfo_endpoint",)


class Provider:
    """To be used from one event loop. ``callback`` is our address that the provider sends browsers back to."""

    def __init__(self, settings: WebOidc, secret: str, callback: str, clock: Clock) -> None:
        """Raises Misconfigured."""
        self._settings, self._secret, self._callback, self._clock = settings, secret, callback, clock
        self._context = _trusting(settings)
        self._conversations = Conversations(_MOST_CONVERSATIONS, _CONVERSATION_SECONDS)
        # Description and keys, each by one at a time: the log-ins under way do not matter to them.
        self._by_one = Conversations(2, _CONVERSATION_SECONDS)
        self._log_ins_waiting = Waiting(_MOST_LOG_INS_WAITING)
        self._log_outs_waiting = Waiting(_MOST_LOG_OUTS_WAITING)
        self._described = Kept(self._describe, clock, good_seconds=_DESCRIPTION_SECONDS, rest_seconds=_REST_SECONDS)
        self._keys = Kept(self._fetch_keys, clock, good_seconds=_KEYS_SECONDS, rest_seconds=_REST_SECONDS)
        self._log_outs = LogOuts(settings.issuer, settings.client_id, clock)

    async def begin(self) -> Begun:
        """Raises Transient, Permanent."""
        with _translated():
            app = await self._described.current(self._log_ins_waiting)
            made = await app.create_authorization_url(self._callback)
        return Begun(made["url"], made["state"], made["nonce"], made["code_verifier"])

    async def finish(self, begun: Begun, answer: Mapping[str, str]) -> Known:
        """``answer`` is what the browser has brought back, with the state of ``begun``. Raises Transient, Permanent,
        LoginRefused."""
        with _translated():
            app = await self._described.current(self._log_ins_waiting)
            described = app.server_metadata
            # RFC 9207: an answer of another provider's, sent on by its client.
            issuer = answer.get("iss")
            if described.get("authorization_response_iss_parameter_supported") and issuer is None:
                raise LoginRefused("the answer does not name its issuer")
            if issuer is not None and issuer != self._settings.issuer:
                raise LoginRefused("the answer is another issuer's")
            if "code" not in answer:
                raise LoginRefused("the provider has let nobody in")
            async with self._conversations.one():
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

    async def logged_out(self, token: str) -> LogOut:
        """Whom a logout token means, which anybody may have sent. Raises Transient, Permanent, LoginRefused."""
        if not 0 < len(token) <= _MOST_TOKEN_CHARACTERS or not token.isascii():
            raise LoginRefused("there is no logout token")
        with _of_anybody():
            kid = jws.extract_compact(token.encode()).headers().get("kid")
        with _translated():
            app = await self._described.current(self._log_outs_waiting)
            known = await self._keys_for(app, kid)
        registry = JWSRegistry(
            algorithms=app.server_metadata["id_token_signing_alg_values_supported"], strict_check_header=False
        )
        with _of_anybody():
            held = jwt.decode(token, key=known, registry=registry)
        return self._log_outs.accept(held.header, held.claims)

    def logout_url(self, back: str) -> str | None:
        """Where a person ends the session at the provider; None where it has no such place. Asks nobody: whoever has
        been logged in by the provider has had it described."""
        app = self._described.last
        end = app.server_metadata.get("end_session_endpoint") if app is not None else None
        if not isinstance(end, str) or not _is_safe(end):
            return None
        asked = urlencode({"client_id": self._settings.client_id, "post_logout_redirect_uri": back})
        return f"{end}{'&' if '?' in end else '?'}{asked}"

    async def _keys_for(self, app: StarletteOAuth2App, kid: object) -> KeySet:
        """Those that are known, if the token's is one of them, and otherwise what was fetched for all a moment ago, or
        is now. Raises Transient, Permanent, and LoginRefused where it is not one of those, either."""
        known = _read_keys(app.server_metadata.get("jwks"))
        if known is None or not _has_key(known, kid):
            known = await self._keys.current(self._log_outs_waiting)
            if not _has_key(known, kid):
                raise LoginRefused("the logout token is signed with a key that the provider did not have a moment ago")
        return known

    async def _fetch_keys(self) -> KeySet:
        """Raises Transient, also where what comes are no keys: that says nothing of a token; Permanent."""
        app = await self._described.current(self._log_outs_waiting)
        before, known = app.server_metadata.get("jwks"), None
        with _translated(), suppress(ValueError):
            async with self._by_one.one():
                known = _read_keys(await app.fetch_jwk_set(force=True))
        if known is None:
            app.server_metadata["jwks"] = before  # Authlib has kept what came, and would use it for log-ins
            raise Transient("the keys of the log-in's provider cannot be read", code="oidc", hint="its jwks_uri")
        return known

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
        sid = claims.get("sid")
        return Known(
            name,
            tuple(one for one in groups or () if isinstance(one, str)),
            str(claims["sub"]),
            sid if isinstance(sid, str) else None,
        )

    async def _describe(self) -> StarletteOAuth2App:
        """Raises Transient, Permanent."""
        with _translated():
            async with self._by_one.one():
                return await self._fetched()

    async def _fetched(self) -> StarletteOAuth2App:
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
        needed = (*_ENDPOINTS, *(one for one in _MAY_BE_MISSING if described.get(one) is not None))
        if not all(_is_safe(described.get(one)) for one in needed):
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


def _read_keys(document: Any) -> KeySet | None:
    """None where there are none in it."""
    try:
        return KeySet.import_key_set(document)
    except (JoseError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _has_key(keys: KeySet, kid: object) -> bool:
    """Of a token that names none nobody can tell."""
    return kid is None or any(one.kid == kid for one in keys)


@contextmanager
def _of_anybody() -> Iterator[None]:
    """Around what reads a token that anybody may have made: whatever is wrong with it, it is that."""
    try:
        yield
    except (JoseError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise LoginRefused("the logout token does not hold") from error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise Transient("the provider of the log-in refuses to answer", code="oidc") from error
    except httpx.HTTPError as error:
        if (refused := _certificate_problem(error)) is not None:
            raise refused from error
        raise Transient(
            "the provider of the log-in cannot be reached", code="oidc", hint="web.oidc.issuer, and the way to it"
        ) from error
    except (AuthlibBaseError, JoseError) as error:
        raise LoginRefused("the provider's answer does not hold") from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise Permanent("the provider's answer cannot be understood", code="oidc") from error


#: OpenSSL's reasons (X509_verify_cert_error_string), as those who can mend it need to know them.
_ENDED, _OTHER_NAMES = 10, (62, 64)


def _certificate_problem(error: BaseException) -> Transient | None:
    """Where the provider was reached and its certificate refused. Transient, for it is asked again."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, ssl.SSLCertVerificationError):
        seen = seen.__cause__ or seen.__context__
    if seen is None:
        return None
    if seen.verify_code == _ENDED:
        return Transient("the certificate of the log-in's provider has ended", code="oidc", hint="it needs a new one")
    if seen.verify_code in _OTHER_NAMES:
        return Transient(
            "the certificate of the log-in's provider is for another host name",
            code="oidc",
            hint="web.oidc.issuer has to name the host as the certificate does",
        )
    return Transient(
        "the certificate of the log-in's provider is of no CA that is trusted here",
        code="oidc",
        hint="web.oidc.ca_file has the certificates of a private CA",
    )
