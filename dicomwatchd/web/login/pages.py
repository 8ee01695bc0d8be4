"""The page to log in at, with a token or by way of the provider, and the way out."""

from __future__ import annotations

import html
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from dicomwatchd.access.tokens import sha256_of
from dicomwatchd.config.web import Web
from dicomwatchd.web.forms import fields
from dicomwatchd.web.login.admission import LOGIN, Doors
from dicomwatchd.web.login.oidc import CALLBACK, LoginRefused, Oidc
from dicomwatchd.web.login.roles import of_token

_MOST_NEXT = 2000
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
            left = await doors.oidc.provider.logout_url(web.origin + LOGIN)
        return HTMLResponse(_page(web, after, left=left))

    async def login(request: Request) -> Response:
        if doors.tokens is None:
            raise HTTPException(404)
        doors.require_patience(request.scope)
        form = await fields(request)
        text, after = form.get("token", ""), own_path(form.get("next", "/"))
        token = doors.tokens.named_by(text)
        if token is None:
            doors.failed(request.scope, "token")
            return HTMLResponse(_page(web, after, "This token is not valid."), 401)
        if (old := doors.cookie.of(request.scope)) is not None:
            doors.sessions.end(old)
        response = RedirectResponse(after, 303)
        value = doors.sessions.begin(of_token(token), sha256_of(text))
        doors.cookie.put(response, value, max_age_seconds=web.sessions.longest_seconds)
        doors.log.info("web-login", "somebody has logged in", reason="token")
        return response

    async def login_at_provider(request: Request) -> Response:
        oidc = _needed(doors)
        doors.require_patience(request.scope)
        begun = await oidc.provider.begin()
        response = RedirectResponse(begun.url, 303)
        oidc.keep(response, begun, own_path(request.query_params.get("next", "/")))
        return response

    async def login_callback(request: Request) -> Response:
        oidc = _needed(doors)
        doors.require_patience(request.scope)
        try:
            begun, after = oidc.kept(request.scope)
            person = oidc.person(await oidc.provider.finish(begun, dict(request.query_params)))
        except LoginRefused as error:
            doors.failed(request.scope, "oidc", error)
            refused = HTMLResponse(_page(web, "/", "The log-in did not work. Try it again."), 401)
            oidc.cookie.take(refused)
            return refused
        if not person.roles:
            doors.failed(request.scope, "no-role")
            return HTMLResponse(_page(web, "/", "You are known, but you have no right to anything here."), 403)
        if (old := doors.cookie.of(request.scope)) is not None:
            doors.sessions.end(old)
        response = RedirectResponse(after, 303)
        oidc.cookie.take(response)
        doors.cookie.put(response, doors.sessions.begin(person), max_age_seconds=web.sessions.longest_seconds)
        doors.log.info("web-login", "somebody has logged in", reason="oidc")
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
        Route("/logout", logout, methods=["POST"]),
        Route("/login/style.css", login_style, methods=["GET"]),
    ]


def _needed(doors: Doors) -> Oidc:
    if doors.oidc is None:
        raise HTTPException(404)
    return doors.oidc


def _page(web: Web, after: str, problem: str = "", left: str | None = None) -> str:
    oidc = token = ""
    if web.oidc is not None:
        oidc = f'<a class="button" href="/login/oidc?next={quote(after, safe="")}">{html.escape(web.oidc.label)}</a>'
    if web.tokens:
        token = (
            f'<form method="post" action="{LOGIN}"><input type="hidden" name="next" value="{html.escape(after)}">'
            '<label for="token">Token</label>'
            '<input id="token" name="token" type="password" autocomplete="off" required>'
            "<button>Log in with a token</button></form>"
        )
    said = f'<p class="problem" role="alert">{html.escape(problem)}</p>' if problem else ""
    out = (
        f'<p>You have logged out here. <a href="{html.escape(left)}">Log out at the provider, too</a></p>'
        if left
        else ""
    )
    none = "" if oidc or token else "<p>Log in at the reverse proxy in front of this page.</p>"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Log in</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/login/style.css"></head>'
        f"<body><main><h1>The image archive</h1>{said}{out}{oidc}{token}{none}</main></body></html>"
    )
