"""The page to log in at, with a token or by way of the provider, and the way out."""

from __future__ import annotations

import html
from math import ceil
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from dicomwatchd.access.tokens import sha256_of
from dicomwatchd.config.web import Web
from dicomwatchd.errors import DicomwatchdError, Permanent, Transient
from dicomwatchd.telemetry.fields import error_fields
from dicomwatchd.web.forms import fields
from dicomwatchd.web.languages import language_of
from dicomwatchd.web.login.admission import LOGIN, Doors
from dicomwatchd.web.login.oidc import BACK_CHANNEL, CALLBACK, LoginRefused, Oidc
from dicomwatchd.web.login.roles import of_token
from dicomwatchd.web.login.sessions import Subject
from dicomwatchd.web.login.words import WORDS

_MOST_NEXT = 2000
_RETRY_SECONDS = 10
_UNKEPT = {"Cache-Control": "no-store"}
_STYLE = """:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;margin:0;background:#f4f5f7;color:#1c2430}
main{max-width:24rem;margin:12vh auto;padding:2rem;background:#fff;border:1px solid #d6dae0;border-radius:8px}
h1{font-size:1.3rem;margin:0 0 1rem}label{display:block;margin:1rem 0 .3rem}
input{width:100%;box-sizing:border-box;padding:.5rem;font:inherit}
button,a.button{display:block;width:100%;box-sizing:border-box;margin-top:1rem;padding:.6rem;font:inherit;
text-align:center;text-decoration:none;border:0;border-radius:6px;background:#1f5fa8;color:#fff;cursor:pointer}
:focus-visible{outline:3px solid #b45309;outline-offset:2px}a{color:#0b4a86}.problem{color:#a01818}
@media (prefers-color-scheme:dark){body{background:#14181d;color:#dfe4ea}main{background:#1d232b;border-color:#39424e}
a{color:#8fbcf2}a.button{color:#fff}.problem{color:#f3a3a3}}
"""


def own_path(text: str) -> str:
    """Where to go after the log-in: a path of ours, and "/" for whatever is none, or could be read as another place."""
    is_ours = text.startswith("/") and not text.startswith(("//", "/\\", LOGIN, "/logout"))
    if not is_ours or len(text) > _MOST_NEXT or "\\" in text or not text.isascii() or not text.isprintable():
        return "/"
    return text


def routes(web: Web, doors: Doors) -> list[Route]:
    """``/login``, ``/logout``, and a style sheet of their own, which needs no log-in."""

    async def login_page(request: Request) -> Response:
        after = own_path(request.query_params.get("next", "/"))
        if request.state.person is not None:
            return RedirectResponse(after, 303)
        left = None
        if doors.oidc is not None and "left" in request.query_params:
            left = doors.oidc.provider.logout_url(web.origin + LOGIN)
        return _page(request, web, after, left=left)

    async def login(request: Request) -> Response:
        if doors.tokens is None:
            raise HTTPException(404)
        doors.require_patience(request.scope)
        form = await fields(request)
        text, after = form.get("token", ""), own_path(form.get("next", "/"))
        token = doors.tokens.named_by(text)
        if token is None:
            doors.failed(request.scope, "token")
            return _page(request, web, after, 401, "bad-token")
        if (old := doors.cookie.of(request.scope)) is not None:
            doors.sessions.end(old)
        response = RedirectResponse(after, 303)
        value = doors.sessions.begin(of_token(token), sha256_of(text))
        doors.cookie.put(response, value, max_age_seconds=web.sessions.longest_seconds)
        doors.log.info("web-login", "somebody has logged in", reason="token")
        return response

    async def login_at_provider(request: Request) -> Response:
        oidc, after = _needed(doors), own_path(request.query_params.get("next", "/"))
        doors.require_patience(request.scope)
        try:
            begun = await oidc.provider.begin()
        except (Transient, Permanent) as error:
            return provider_fails(request, after, error)
        response = RedirectResponse(begun.url, 303)
        oidc.keep(request.scope, response, begun, after)
        return response

    async def login_callback(request: Request) -> Response:
        oidc, answer = _needed(doors), dict(request.query_params)
        doors.require_patience(request.scope)
        since = doors.sessions.log_outs()
        try:
            begun, after = oidc.kept(request.scope, answer.get("state", ""))
        except LoginRefused as error:
            # Not a failure of this address: every page in the world can have its browsers come here.
            doors.refused(request.scope, "oidc", error)
            return _page(request, web, "/", 401, "failed")
        try:
            if len(answer) != len(request.query_params.multi_items()):
                raise LoginRefused("the answer says something twice")
            known = await oidc.provider.finish(begun, answer)
            person = oidc.person(known)
        except LoginRefused as error:
            doors.failed(request.scope, "oidc", error)
            response = _page(request, web, "/", 401, "failed")
            oidc.forget(request.scope, response, begun)
            return response
        except (Transient, Permanent) as error:
            return provider_fails(request, after, error)
        if not person.roles:
            doors.failed(request.scope, "no-role")
            return _page(request, web, "/", 403, "no-right")
        subject = Subject(known.sub, known.sid)
        if doors.sessions.was_logged_out(subject, since):
            doors.refused(request.scope, "log-out")
            return _page(request, web, "/", 401, "failed")
        if (old := doors.cookie.of(request.scope)) is not None:
            doors.sessions.end(old)
        response = RedirectResponse(after, 303)
        oidc.forget(request.scope, response, begun)
        value = doors.sessions.begin(person, subject=subject)
        doors.cookie.put(response, value, max_age_seconds=web.sessions.longest_seconds)
        doors.log.info("web-login", "somebody has logged in", reason="oidc")
        return response

    async def logged_out_at_provider(request: Request) -> Response:
        """By the provider itself, whose signature says that it is it (OpenID Connect Back-Channel Logout 1.0)."""
        oidc, form = _needed(doors), await fields(request)
        try:
            out = await oidc.provider.logged_out(form.get("logout_token", ""))
        except LoginRefused as error:
            doors.refused(request.scope, "log-out", error)  # not counted: any page can have its browsers send this
            return JSONResponse({"error": "invalid_request"}, 400, headers=_UNKEPT)
        ended = doors.sessions.end_all(out)
        doors.log.info("web-logout-by-provider", "the provider has logged somebody out", session_count=ended)
        return Response(status_code=200, headers=_UNKEPT)

    def provider_fails(request: Request, after: str, error: DicomwatchdError) -> Response:
        doors.log.warning("web-refused", "a request could not be answered", **error_fields(error))
        if not isinstance(error, Transient):
            return _page(request, web, after, 500, "wrong-provider")
        response = _page(request, web, after, 503, "no-provider")
        response.headers["Retry-After"] = str(ceil(error.retry_after_seconds or _RETRY_SECONDS))
        return response

    async def logout(request: Request) -> Response:
        if (value := doors.cookie.of(request.scope)) is not None:
            doors.sessions.end(value)
        response = RedirectResponse(f"{LOGIN}?left=1", 303)
        doors.cookie.take(response)
        # What was fetched under this log-in is not for whoever sits here next.
        response.headers["Clear-Site-Data"] = '"cache", "storage"'
        return response

    async def login_style(_request: Request) -> Response:
        return PlainTextResponse(_STYLE, media_type="text/css", headers={"Cache-Control": "private, max-age=3600"})

    return [
        Route(LOGIN, login_page, methods=["GET"]),
        Route(LOGIN, login, methods=["POST"]),
        Route("/login/oidc", login_at_provider, methods=["GET"]),
        Route(CALLBACK, login_callback, methods=["GET"]),
        *([Route(BACK_CHANNEL, logged_out_at_provider, methods=["POST"])] if doors.oidc is not None else []),
        Route("/logout", logout, methods=["POST"]),
        Route("/login/style.css", login_style, methods=["GET"]),
    ]


def _needed(doors: Doors) -> Oidc:
    if doors.oidc is None:
        raise HTTPException(404)
    return doors.oidc


def _page(
    request: Request, web: Web, after: str, status: int = 200, problem: str = "", left: str | None = None
) -> Response:
    """``problem`` is a name of `WORDS`, ``left`` where to log out at the provider, too."""
    language = language_of(request)
    words = {name: html.escape(text) for name, text in WORDS[language].items()}
    oidc = token = ""
    if web.oidc is not None:
        oidc = f'<a class="button" href="/login/oidc?next={quote(after, safe="")}">{html.escape(web.oidc.label)}</a>'
    if web.tokens:
        token = (
            f'<form method="post" action="{LOGIN}"><input type="hidden" name="next" value="{html.escape(after)}">'
            f'<label for="token">{words["token"]}</label>'
            '<input id="token" name="token" type="password" autocomplete="off" required>'
            f"<button>{words['enter']}</button></form>"
        )
    said = f'<p class="problem" role="alert">{words[problem]}</p>' if problem else ""
    out = f'<p>{words["left"]} <a href="{html.escape(left)}">{words["leave-provider"]}</a></p>' if left else ""
    none = "" if oidc or token else f"<p>{words['at-the-proxy']}</p>"
    page = (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8"><title>{words["title"]}</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/login/style.css"></head>'
        f"<body><main><h1>{words['heading']}</h1>{said}{out}{oidc}{token}{none}</main></body></html>"
    )
    return HTMLResponse(page, status, {**_UNKEPT, "Content-Language": language})
