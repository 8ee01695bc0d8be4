"""The page of the record of access, for whoever administrates: who has looked at which study, and when.

What is searched for is sent in the request's body: neither a name nor a study's UID is in an address of this page.
"""

from __future__ import annotations

import html
from datetime import UTC, datetime

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from dicomwatchd.access.record import Access, AccessRecord, Wanted
from dicomwatchd.errors import InvalidUid
from dicomwatchd.model import Uid
from dicomwatchd.ports import timestamp
from dicomwatchd.web.forms import fields
from dicomwatchd.web.needs import needs
from dicomwatchd.web.people import Role

PAGE_ROWS = 200
_DAY_SECONDS = 86400
_STYLE = """:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;margin:min(2rem,4vw);background:#fff;color:#1c2430}
form.search{display:flex;flex-wrap:wrap;gap:1rem;align-items:end}label{display:block;font-size:.85rem}
input{padding:.35rem;font:inherit;max-width:100%;box-sizing:border-box}label{max-width:100%}
button{padding:.4rem .9rem;font:inherit}
table{border-collapse:collapse;margin:1.5rem 0}td,th{text-align:left;padding:.3rem .9rem .3rem 0;
border-bottom:1px solid #d6dae0;overflow-wrap:anywhere}td.uid{font-family:ui-monospace,monospace;font-size:.85rem}
:focus-visible{outline:3px solid #b45309;outline-offset:2px}a{color:#0b4a86}.problem{color:#a01818}
@media (prefers-color-scheme:dark){body{background:#14181d;color:#dfe4ea}td,th{border-color:#39424e}
a{color:#8fbcf2}.problem{color:#f3a3a3}}
"""
_HEADS = "".join(f'<th scope="col">{head}</th>' for head in ("Time (UTC)", "Person", "What", "Study", "Entry"))
_FIELDS = ("person", "study", "from", "to", "before")


def routes(record: AccessRecord) -> list[Route]:
    """``/access``: GET shows the newest, POST searches."""

    @needs(Role.ADMINISTRATE)
    async def access_page(request: Request) -> Response:
        form = await fields(request) if request.method == "POST" else {}
        given = {name: form.get(name, "") for name in _FIELDS}
        try:
            wanted, before = _wanted(given)
        except (ValueError, InvalidUid):
            return HTMLResponse(
                _page(given, [], False, "A date is such as 2026-01-31; a study is named by its UID."), 400
            )
        found = await run_in_threadpool(record.search, wanted, before_sequence=before, limit=PAGE_ROWS + 1)
        return HTMLResponse(_page(given, found[:PAGE_ROWS], len(found) > PAGE_ROWS))

    async def access_style(_request: Request) -> Response:
        return PlainTextResponse(_STYLE, media_type="text/css", headers={"Cache-Control": "private, max-age=3600"})

    return [
        Route("/access", access_page, methods=["GET", "POST"]),
        Route("/access/style.css", access_style, methods=["GET"]),
    ]


def _wanted(given: dict[str, str]) -> tuple[Wanted, int | None]:
    """Raises ValueError, InvalidUid."""
    until = _day(given["to"])
    wanted = Wanted(
        given["person"] or None,
        Uid(given["study"]) if given["study"] else None,
        _day(given["from"]),
        None if until is None else until + _DAY_SECONDS,
    )
    return wanted, int(given["before"][:18]) if given["before"] else None


def _day(text: str) -> float | None:
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() if text else None


def _page(given: dict[str, str], found: list[Access], more: bool, problem: str = "") -> str:
    shown = {name: html.escape(value) for name, value in given.items()}
    rows = "".join(
        f"<tr><td>{timestamp(one.at)[:19].replace('T', ' ')}</td><td>{html.escape(one.person)}</td>"
        f'<td>{html.escape(one.action)}</td><td class="uid">{html.escape(one.study_uid)}</td>'
        f"<td>{one.sequence}</td></tr>"
        for one in found
    )
    table = f"<table><tr>{_HEADS}</tr>{rows}</table>" if found else "<p>No entry.</p>"
    older = ""
    if more:
        kept = "".join(f'<input type="hidden" name="{name}" value="{shown[name]}">' for name in _FIELDS[:-1])
        older = (
            f'<form method="post" action="/access">{kept}'
            f'<input type="hidden" name="before" value="{found[-1].sequence}"><button>Older entries</button></form>'
        )
    said = f'<p class="problem" role="alert">{html.escape(problem)}</p>' if problem else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Record of access</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/access/style.css"></head>'
        "<body><main><h1>Who has looked at what</h1>"
        '<form class="search" method="post" action="/access">'
        f'<label>Person<br><input name="person" value="{shown["person"]}"></label>'
        f'<label>Study Instance UID<br><input name="study" size="48" value="{shown["study"]}"></label>'
        f'<label>From<br><input name="from" type="date" value="{shown["from"]}"></label>'
        f'<label>To<br><input name="to" type="date" value="{shown["to"]}"></label>'
        f"<button>Search</button></form>{said}{table}{older}"
        '<p><a href="/">Back to the list</a></p></main></body></html>'
    )
